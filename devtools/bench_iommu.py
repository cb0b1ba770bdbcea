#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure a device behind an IOMMU (dma=iommu) against the same one without, window by window in
turn as bench.py does. Stock testpmd runs in front of a proxy that plays the IOMMU: addresses are
what they are, but the device is told what they mean a page at a time, when it asks.

    devtools/bench_iommu.py [--page BYTES] [--ring split,packed] [--size 64,1518] [--noisy]
    devtools/bench_iommu.py --instructions      # per packet, by callgrind: no quiet machine needed
"""

import argparse
import contextlib
import os
import statistics
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine        # noqa: E402
import bench_profile        # noqa: E402
import bench_rows           # noqa: E402
import pmd                  # noqa: E402
import prepare              # noqa: E402
from bench_rows import RINGS, SIZES     # noqa: E402

sys.path.insert(0, os.path.join(pmd.ROOT, "test", "topology"))

from back_channel import F_BACKEND_REQ, SET_BACKEND_REQ_FD, BackChannel     # noqa: E402
from proxy import TO_BACK, Passed, Proxy                                    # noqa: E402
from vhost_user import VERSION, Closed, Message, Request                    # noqa: E402

SCENARIOS = ("loopback", "g2h", "h2g")      # one front-end port
ACCESS_PLATFORM = 33
IOTLB_MSG, UPDATE, BOTH = 22, 2, 3


class Translating(Proxy):
    """Puts a front-end behind an IOMMU whose pages are of some size."""

    def __init__(self, front, back, page):
        self._page, self._channel = page, BackChannel()
        super().__init__(front, back, self._behind)
        self._answers = threading.Thread(target=self._answer, daemon=True)
        self._answers.start()

    def close(self):
        super().close()
        self._channel.theirs.close()
        self._answers.join()
        self._channel.close()

    def _behind(self, way, message):
        if way != TO_BACK:
            return None
        bits = {Request.SET_FEATURES: ACCESS_PLATFORM,
                Request.SET_PROTOCOL_FEATURES: F_BACKEND_REQ}.get(message.request)
        if bits is None:
            return None
        value = struct.unpack("=Q", message.payload)[0] | 1 << bits
        out = [Passed(message.request, message.flags, struct.pack("=Q", value))]
        if message.request == Request.SET_PROTOCOL_FEATURES:
            out.append(Passed(SET_BACKEND_REQ_FD, VERSION, bytes(8),
                              (self._channel.theirs.fileno(),)))
        return out

    def _answer(self):
        with contextlib.suppress(Closed, OSError):
            while True:
                _, _, payload, _ = self._channel.receive(timeout=3600)
                iova = struct.unpack_from("=Q", payload)[0]
                table = self.last[Request.SET_MEM_TABLE].payload
                for i in range(struct.unpack_from("=I", table)[0]):
                    _, size, start, _ = struct.unpack_from("=QQQQ", table, 8 + 32 * i)
                    if start <= iova < start + size:
                        first = max(iova & -self._page, start)
                        last = min((iova & -self._page) + self._page, start + size)
                        self.inject(Message(IOTLB_MSG, struct.pack(
                            "=QQQBB6x", first, last - first, first, BOTH, UPDATE)), ack=False)


class Iommu(bench_rows.Vfn):
    """A device with dma=iommu, and the proxy before its socket."""

    page = 4096

    def __init__(self, row, **more):
        self._proxy, self._place = None, pmd.Scratch()
        more.setdefault("args", []).append("--no-gate")
        super().__init__(row, "dma=iommu,", **more)
        path = os.path.join(self._place.path, "proxy")
        self._proxy = Translating(path, self.sockets[0], self.page)
        self.sockets = [path]

    def stop(self, timeout=10):
        self._proxy.close()
        super().stop(timeout)

    def close(self):
        super().close()
        self._place.remove()

    def settled(self):
        """Wait until nothing is asked for any more, and packets pass."""
        end, before = time.monotonic() + 240, (0, 0)
        while True:
            misses = self.telemetry("/vfn/info,vdpa_vfn0")["iotlb_misses"]
            packets = self.cycles()[1]
            if misses == before[0] and packets > before[1] + 1000:
                return
            if time.monotonic() > end:
                raise self.process.error("translations are still missing")
            before = misses, packets
            time.sleep(2)


class Direct(bench_rows.Vfn):
    """The same without."""

    def __init__(self, row, **more):
        super().__init__(row, "dma=direct,", **more)

    def settled(self):
        """At once."""


DEVICES = {"direct": Direct, "iommu": Iommu}
bench_rows.DEVICES.update(DEVICES)


def instructions(row, seconds):
    """A line of the table, and what has become more."""
    scratch = pmd.Scratch()
    try:
        found = [bench_profile.warm_instructions(row, seconds, scratch.path, device)[0]
                 for device in DEVICES.values()]
    finally:
        scratch.remove()
    direct, iommu = (sum(f.values()) for f in found)
    more = sorted(((found[1].get(key, 0) - found[0].get(key, 0), key)
                   for key in found[0].keys() | found[1].keys()), reverse=True)
    listed = ", ".join(f"{name} {count:+.1f}" for count, (_, name) in more if abs(count) >= 1)
    return (f"| {row.scenario}, {row.ring}, {row.size} B | {direct:.1f} | {iommu:.1f} | "
            f"{iommu / direct:.3f} | {listed} |")


def rates(row, args, machine):
    """A line of the table."""
    def progress(run, medians):
        print(f"run {run + 1} of {args.runs}: {medians}", file=sys.stderr, flush=True)

    found, _ = bench_rows.measure(row, args.runs, args.windows, args.seconds, machine, progress,
                                  tuple(DEVICES))
    value = {name: [w["value"] for w in found[name]] for name in DEVICES}
    device = {name: statistics.median(w["device"] for w in found[name]) for name in DEVICES}
    ratio = [b / a for a, b in zip(value["direct"], value["iommu"])]
    noisy = ", noisy" if any(w["noisy"] for name in DEVICES for w in found[name]) else ""
    quotes = [f"{min(v):.2f}/**{statistics.median(v):.2f}**/{max(v):.2f}"
              for v in (*value.values(), ratio)]
    return (f"| {row.scenario}, {row.ring}, {row.size} B{noisy} | {' | '.join(quotes)} | "
            f"{device['iommu']:.0f}/{device['direct']:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--page", type=int, default=Iommu.page,
                        help="bytes of a translation, a power of two (%(default)s)")
    parser.add_argument("--scenario", default="loopback",
                        help=f"comma-separated, of {','.join(SCENARIOS)} (%(default)s)")
    parser.add_argument("--ring", default=",".join(RINGS), help="(%(default)s)")
    parser.add_argument("--size", default="64,1518", help="bytes with FCS (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="fresh starts per row (%(default)s)")
    parser.add_argument("--windows", type=int, default=6, help="per run and device (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--noisy", action="store_true", help="all windows count: it works")
    parser.add_argument("--instructions", action="store_true",
                        help="count them per packet, in place of rates")
    bench_machine.patience_option(parser, 600)
    args = parser.parse_args()
    rows = bench_rows.rows(args.scenario.split(","), args.ring.split(","), ("mergeable",),
                           [int(size) for size in args.size.split(",")])
    if not rows or any(r.scenario not in SCENARIOS or r.ring not in RINGS or r.size not in SIZES
                       for r in rows):
        parser.error("no such rows")
    if args.page < 4096 or args.page & (args.page - 1):
        parser.error("--page: at least 4096, and a power of two")
    Iommu.page = args.page
    if args.instructions:
        bench_profile.prepare_build()
        print(f"| instructions per packet, pages of {args.page} | direct | iommu | ratio | more |\n"
              "|---|---|---|---|---|")
        for row in rows:
            print(instructions(row, 5 * args.seconds), flush=True)
        return
    prepare.ready((*prepare.DEVICE, *prepare.LIMITS), pages=400)
    os.sched_setaffinity(0, {pmd.cpu(0), pmd.cpu(1)})
    machine = bench_machine.Machine(0 if args.noisy else 6, bench_machine.Patience(args.patience),
                                    None, args.noisy)
    print(f"| Mpps, min/**median**/max, pages of {args.page} | direct | iommu | ratio | device |\n"
          "|---|---|---|---|---|")
    for row in rows:
        print(rates(row, args, machine), flush=True)


if __name__ == "__main__":
    main()
