# SPDX-License-Identifier: BSD-3-Clause
"""The front-end that measures round trips: app/vfn-rtt."""

import json
import os
import re

import pmd


class Trips(pmd.EalProcess):
    """vfn-rtt, with a port for each socket; size: of a packet, without FCS."""

    def __init__(self, paths, packed, size):
        vdevs = []
        for i, path in enumerate(paths):
            vdevs += ["--vdev",
                      f"net_virtio_user{i},path={path},queue_size=256,packed_vq={int(packed)}"]
        super().__init__(
            os.path.join(pmd.build_dir(), "app", "vfn-rtt"),
            ["--lcores", f"0@{pmd.cpu(0)}", "--in-memory", "--single-file-segments", "-m", 64,
             "--no-telemetry", "--log-level=pmd.net.virtio.*:debug", *vdevs], [size])

    def __enter__(self):
        self.expect("^vfn-rtt: ready", 30)
        return self

    def __exit__(self, *_):
        self.kill()

    def window(self, port, milliseconds, gap_us):
        since = self.mark()
        self.send(f"{port} {milliseconds} {gap_us}")
        line = self.expect(r'^(\{"trips".*\})$', timeout=20 + milliseconds / 1000, since=since)
        return json.loads(line[1])

    def layouts(self):
        """The ring layouts that were negotiated."""
        return {"packed" if int(features, 16) >> 34 & 1 else "split"
                for features in re.findall(r"set features: (0x[0-9a-f]+)", self.log())}
