# SPDX-License-Identifier: BSD-3-Clause
"""What the topology tests share: the processes (devtools/lib/pmd.py) and packets with known bytes."""

import contextlib
import os
import random
import re
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                                "devtools", "lib"))

# pylint: disable=wrong-import-position,unused-import
from pmd import (PLUGIN, Backend, EalProcess, Endpoint, Loop, NetVhost, PmdError, Process,  # noqa: E402,F401
                 Scratch, Testpmd, SLOW, build_dir, cpu, hugetlbfs_mounts, parse_stats, plugin_dir,
                 runtime_dirs, with_plugin)

# all of it, where a test has a short form for every day: devtools/test.sh --nightly
NIGHTLY = "VFN_NIGHTLY" in os.environ

# what tests have measured, for the end of the report
remarks = []

DEBUG = "--log-level=pmd.vdpa.vfn.*:debug"

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)

# Bits of the virtio feature word that tests assert (virtio 1.3, 5.1.3 and 6)
MRG_RXBUF, MQ, PROTOCOL_FEATURES = 15, 22, 30
VERSION_1, RING_PACKED, IN_ORDER = 32, 34, 35


def random_packets(seed, count, low=60, high=1514):
    """That many packets, sizes and bytes random but the same for the same seed."""
    rng = random.Random(seed)
    return [rng.randbytes(rng.randint(low, high)) for _ in range(count)]


def write_pcap(path, packets=()):
    with open(path, "wb") as out:
        out.write(PCAP_HEADER)
        for number, data in enumerate(packets):
            out.write(struct.pack("<IIII", 0, number, len(data), len(data)) + data)


def read_pcap(path):
    """The complete packets of a capture, which may still be written to."""
    with open(path, "rb") as capture:
        data = capture.read()
    packets, at = [], len(PCAP_HEADER)
    while at + 16 <= len(data):
        taken, length = struct.unpack_from("<II", data, at + 8)
        if taken != length:
            raise ValueError(f"{path}: packet {len(packets)} is cut: {taken} of {length} bytes")
        if at + 16 + taken > len(data):
            break
        packets.append(data[at + 16:at + 16 + taken])
        at += 16 + taken
    return packets


def difference(sent, got):
    """None if both lists are the same, else where they first differ."""
    for number, (a, b) in enumerate(zip(sent, got)):
        if len(a) != len(b):
            return f"packet {number}: {len(a)} bytes became {len(b)}"
        if a != b:
            at = next(i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1])
            return (f"packet {number} of {len(a)} bytes: byte {at} is {b[at]:#04x}, "
                    f"sent was {a[at]:#04x}")
    if len(sent) != len(got):
        return f"{len(sent)} packets sent, {len(got)} came back"
    return None


def not_in_order(sent, got):
    """None if got is sent with packets left out and nothing else, else the first stranger."""
    rest = iter(sent)
    for number, packet in enumerate(got):
        if not any(packet == candidate for candidate in rest):
            return f"packet {number} of {len(packet)} bytes was not sent, or not in this place"
    return None


def is_refused(answer, words=""):
    """Whether telemetry's answer is an error in words, these among them."""
    return isinstance(answer, dict) and list(answer) == ["error"] and words in answer["error"]


def wait_until(condition, timeout=30, interval=0.02):
    """Wait for a true answer and return it; the last answer when time is up."""
    deadline = time.monotonic() + timeout * SLOW
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(interval)
    return answer


def info(backend, name="vdpa_vfn0"):
    return backend.telemetry(f"/vfn/info,{name}")


def state(backend, name="vdpa_vfn0"):
    return info(backend, name)["state"]


def becomes(backend, wanted, name="vdpa_vfn0", timeout=10):
    assert wait_until(lambda: state(backend, name) == wanted, timeout), info(backend, name)


@contextlib.contextmanager
def served(workdir, *functions, arguments="", driver=(), bridges=False, **more):
    """An endpoint process per function, at a socket or a bridge, and a vfn-vhost with a device for each,
    which says all: (backend, endpoints). Endpoints that a test ends stay ended."""
    link = "ntb" if bridges else "endpoint"
    with contextlib.ExitStack() as stack:
        endpoints = []
        for number, function in enumerate(functions):
            # directories of their own: the sockets' names are the same
            where = Scratch(os.path.join(workdir, f"ep{number}"))
            os.makedirs(where.path, exist_ok=True)
            if ",idle=" not in function:
                function += ",idle=sleep"
            endpoint = Endpoint([f"fn{number}{function}"], where.path, bridges=bridges)
            stack.callback(endpoint.close)
            endpoints.append(endpoint)
        devs = [f"vdpa_vfn{n},link={link},path={e.sockets[0]}{arguments}"
                for n, e in enumerate(endpoints)]
        backend = Backend(driver or devs, directory=workdir, eal=[DEBUG], **more)
        stack.callback(backend.close)
        yield backend, endpoints
        if backend.process is not None:
            backend.stop()
        for endpoint in endpoints:
            if endpoint.process is not None:
                endpoint.stop()


class Echo(Testpmd):
    """A front-end testpmd whose port 0 plays and records captures and whose port 1 is virtio-user.

    Packets go capture -> virtio-user -> the looped-back function -> virtio-user -> capture, one
    capture pair per queue pair. Nothing paces the player: what is sent in one round has to
    fit the ring, or testpmd drops it.
    """

    def __init__(self, workdir, socket, pairs=1, ring_size=1024, packed=False, server=False,
                 options="", eal=(), args=(), memory="huge", megabytes=256, start=True):
        self.pairs = pairs
        self._in = [os.path.join(workdir, f"in{q}.pcap") for q in range(pairs)]
        self._out = [os.path.join(workdir, f"out{q}.pcap") for q in range(pairs)]
        for path in self._in:
            write_pcap(path)
        files = ([f"rx_pcap={p}" for p in self._in] + [f"tx_pcap={p}" for p in self._out])
        virtio = (f"net_virtio_user0,path={socket},queues={pairs},queue_size={ring_size},"
                  f"packed_vq={int(packed)},server={int(server)}{options}")
        arguments = [f"--rxq={pairs}", f"--txq={pairs}", f"--rxd={ring_size}",
                     f"--txd={ring_size}", "--no-flush-rx", *args]
        super().__init__(["net_pcap0," + ",".join(files), virtio], args=arguments,
                         memory=memory, megabytes=megabytes,
                         eal=["--log-level=pmd.net.virtio.*:debug", *eal], start=False)
        if start:
            self.ready()

    def ready(self, timeout=20):
        super().ready(timeout)
        self.cmd("set fwd io retry")
        self.cmd("port stop 0")

    def offered(self):
        """The feature word the device offered."""
        return int(re.findall(r"host_features before negotiate = ([0-9a-f]+)", self.log())[-1],
                   16)

    def paths(self):
        """The names of virtio-user's own receive and transmit paths: (rx, tx)."""
        found = {}
        for name, way in re.findall(r"virtio: using (.*) (Rx|Tx) path on port 1", self.log()):
            found[way] = name
        return found.get("Rx"), found.get("Tx")

    def play(self, flows):
        """Start one round with a list of packets per queue pair."""
        for path, packets in zip(self._in, flows, strict=True):
            write_pcap(path, packets)
        self.cmd("port start 0")
        self.cmd("start")

    def recorded(self):
        """How many bytes have been recorded, in all."""
        return sum(os.path.getsize(p) for p in self._out)

    def finish(self):
        """End the round; return ([packets per queue pair], testpmd's counters per port)."""
        counters = self.stop_forwarding()
        self.cmd("port stop 0")
        return [read_pcap(p) for p in self._out], counters

    def round(self, flows, timeout=10):
        """One round in which every packet must come back: same bytes, same order."""
        self.play(flows)
        expected = sum(len(PCAP_HEADER) + sum(16 + len(p) for p in flow) for flow in flows)
        wait_until(lambda: self.recorded() >= expected, timeout)
        got, counters = self.finish()
        for queue, (sent, back) in enumerate(zip(flows, got)):
            wrong = difference(sent, back)
            assert wrong is None, f"queue pair {queue}: {wrong}; testpmd counted {counters}"

    def rounds(self, seed, rounds=3, count=400, low=60, high=1514):
        """Some rounds of random packets; return ([packets per pair], [bytes per pair])."""
        packets, octets = [0] * self.pairs, [0] * self.pairs
        for number in range(rounds):
            flows = [random_packets(f"{seed}/{number}/{queue}", count, low, high)
                     for queue in range(self.pairs)]
            self.round(flows)
            for queue, flow in enumerate(flows):
                packets[queue] += len(flow)
                octets[queue] += sum(map(len, flow))
        return packets, octets
