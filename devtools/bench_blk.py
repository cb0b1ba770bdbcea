#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure disks of class=blk against qemu-storage-daemon: requests per second, latency, cycles.

The client is a program with libblkio (lib/blkio.c) that spins on CPU 0, one for each server; the
servers are on CPU 1: vfn-vhost whose poller spins, and one I/O thread of qemu-storage-daemon, which
polls as it does by itself. Files are opened around the page cache by both, where their file system
can. Both are there at the same time, but for the one whose turn it is they are stopped (SIGSTOP):
windows are short and take turns, so that a machine that is slower for some seconds is so for both.
A ratio is the median of those of neighbouring windows; turns in which other processes took 6% of a
CPU are thrown away, unless the patience is at its end: then the row is marked as noisy.

Cycles per request are the server's: of vfn those of its poller's turns that found something, of the
peer all CPU time. mem has no peer: it is compared with what CPU 0 can copy by memcpy() alone.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine                                # noqa: E402
import pmd                                          # noqa: E402
import prepare                                      # noqa: E402
from bench_machine import FOREIGN_CPU, CpuTime, run_ns  # noqa: E402
from blkio import Adapter, Client                   # noqa: E402
from guest.image import ImageError                  # noqa: E402
from storage import StorageDaemon                   # noqa: E402

PACKAGES = ("qemu-system-x86", "gcc", "util-linux")
SIZE = 256 << 20
NULL, TMPFS, EXT4, MEM = "null", "tmpfs", "ext4", "mem"
DEPTHS = {"latency": 1, "requests": 128, "bytes": 16}
# (back-end, measure): what the ratio is to be at least
TARGETS = {(NULL, "latency"): 2, (NULL, "requests"): 3, (TMPFS, "requests"): 1.3,
           (EXT4, "requests"): 1.3, (MEM, "bytes"): 0.8}
ROWS = {NULL: ("latency", "requests"), TMPFS: ("latency", "requests"),
        EXT4: ("latency", "requests"), MEM: ("bytes",)}


class Vfn:
    """Our server and its client."""

    def __init__(self, stack, directory, back):
        self.server = stack.enter_context(pmd.Backend(
            f"vdpa_vfn0,class=blk,{back},idle=busy,poll-cpu={pmd.cpu(1)}"))
        front = os.path.join(directory, "vfn")
        stack.enter_context(Adapter(front, self.server.sockets[0]))
        self.client = client(stack, directory, front)

    def cycles(self):
        pollers = [poller for poller in self.server.telemetry("/vfn/poller").values()
                   if poller["cpu"] == pmd.cpu(1)]
        return sum(poller["busy_cycles"] for poller in pollers)


class Peer:
    """qemu-storage-daemon and its client."""

    def __init__(self, stack, directory, disk):
        self.server = stack.enter_context(StorageDaemon([disk], directory, direct=takes_direct(disk),
                                                        cpu=pmd.cpu(1)))
        self.client = client(stack, directory, self.server.sockets[0])

    def cycles(self):
        return run_ns(self.server.pid) * GHZ


def client(stack, directory, socket):
    process = Client(directory, "bench", socket, str(pmd.cpu(0)))
    stack.callback(process.kill)
    process.expect("ready", 30)
    return process


def takes_direct(path):
    if isinstance(path, int):
        return False
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        return True
    return False


def tsc_ghz():
    """Cycles of the time stamp counter in a nanosecond."""
    with open("/proc/cpuinfo", encoding="ascii") as info:
        return statistics.mean(float(line.split(":")[1]) for line in info
                               if line.startswith("cpu MHz")) / 1000


GHZ = tsc_ghz()


def file_on(stack, directory, prefix):
    """A file without holes."""
    path = stack.enter_context(tempfile.NamedTemporaryFile(dir=directory, prefix=prefix)).name
    with open(path, "r+b") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    return path


class Turns:
    """The servers of a back-end, stopped but for the one whose turn it is."""

    def __init__(self, stack, back, args):
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="vfn-"))
        paths = {TMPFS: "/dev/shm", EXT4: args.directory}
        if back in paths:
            ours = file_on(stack, paths[back], "vfn-")
            theirs = file_on(stack, paths[back], "qsd-")
            self.sides = {"vfn": Vfn(stack, directory, f"file={ours}"),
                          "peer": Peer(stack, directory, theirs)}
        else:
            self.sides = {"vfn": Vfn(stack, directory, f"{back}={SIZE}")}
            if back == NULL:
                self.sides["peer"] = Peer(stack, directory, SIZE)
        stack.callback(lambda: [self._signal(name, signal.SIGCONT) for name in self.sides])
        for name in self.sides:
            self._signal(name, signal.SIGSTOP)

    def _signal(self, name, number):
        if self.sides[name].server.process is not None:
            os.kill(self.sides[name].server.pid, number)

    def turn(self, what, size, depth, milliseconds):
        """({side: window}, whether nobody else used the CPUs)"""
        windows = {}
        pids = [os.getpid()]
        for side in self.sides.values():
            pids += [side.server.pid, side.client.pid]
        before = CpuTime(pids)
        for name, side in self.sides.items():
            self._signal(name, signal.SIGCONT)
            side.client.window(what, size, depth, 20)
            used = side.cycles()
            window = side.client.window(what, size, depth, milliseconds)
            window["cycles"] = (side.cycles() - used) / max(1, window["requests"])
            self._signal(name, signal.SIGSTOP)
            windows[name] = window
        if "peer" not in windows:
            windows["peer"] = {"p50": 0, "cycles": 0, **self.sides["vfn"].client.window(
                "copy", size, depth, milliseconds)}
        return windows, CpuTime(pids).foreign_since(before) < FOREIGN_CPU


def value(window, measure, size):
    """What is compared: microseconds, thousands of requests per second, or GB/s."""
    if measure == "latency":
        return window["p50"] / 1000
    per_ns = window["requests"] / window["ns"]
    return per_ns * 1e6 if measure == "requests" else per_ns * size


def compare(back, args, patience):
    """Rows of a back-end."""
    found = {}
    for _ in range(args.runs):
        with contextlib.ExitStack() as stack:
            turns = Turns(stack, back, args)
            for measure in ROWS[back]:
                size = 128 << 10 if measure == "bytes" else 4096
                for what in ("read", "write"):
                    rows = found.setdefault((measure, what, size), [[], 0])
                    for _ in range(args.windows):
                        windows, noisy, _ = patience.measure(
                            lambda w=what, s=size, d=DEPTHS[measure]: turns.turn(
                                w, s, d, args.window_ms))
                        rows[0].append(windows)
                        rows[1] += noisy
    for (measure, what, size), (turns, noisy) in found.items():
        yield row(back, measure, what, size, turns, noisy)


def row(back, measure, what, size, turns, noisy):
    values = {side: [value(windows[side], measure, size) for windows in turns]
              for side in ("vfn", "peer")}
    pairs = list(zip(values["vfn"], values["peer"]))
    ratios = [peer / ours if measure == "latency" else ours / peer for ours, peer in pairs]
    return {"back-end": back, "measure": measure, "what": what, "size": size,
            "depth": DEPTHS[measure], "ratio": statistics.median(ratios),
            "ratios": [min(ratios), max(ratios)], "target": TARGETS.get((back, measure)),
            "noisy_windows": noisy,
            **{side: {"median": statistics.median(seen), "min": min(seen), "max": max(seen),
                      "cycles": statistics.median(windows[side]["cycles"] for windows in turns)}
               for side, seen in values.items()}}


UNITS = {"latency": "us (p50)", "requests": "1000/s", "bytes": "GB/s"}


def table(rows):
    lines = ["| back-end | | unit | vfn | peer | ratio | target | cycles, vfn | peer |",
             "|---" * 9 + "|"]
    for one in rows:
        spread = {side: "/".join(f"{one[side][k]:.4g}" for k in ("min", "median", "max"))
                  for side in ("vfn", "peer")}
        cycles = {side: f"{one[side]['cycles']:.0f}" if one[side]["cycles"] else ""
                  for side in ("vfn", "peer")}
        target = "" if one["target"] is None else f"{one['target']}"
        noisy = ", noisy" if one["noisy_windows"] else ""
        lines.append(f"| {one['back-end']} | {one['what']} {one['size']}, {one['depth']} under way"
                     f"{noisy} | {UNITS[one['measure']]} | {spread['vfn']} | {spread['peer']} "
                     f"| {one['ratio']:.2f} | {target} | {cycles['vfn']} | {cycles['peer']} |")
    return "\n".join(lines)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--windows", type=int, default=5, help="of each server, per run (%(default)s)")
    parser.add_argument("--window-ms", type=int, default=300, help="(%(default)s)")
    parser.add_argument("--back-ends", default=",".join(ROWS), help="(%(default)s)")
    parser.add_argument("--directory", default=tempfile.gettempdir(),
                        help="for files on a disk (%(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help="one run of one window: shows that it works, not how fast it is")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    bench_machine.patience_option(parser, 120)
    args = parser.parse_args(argv)
    if args.quick:
        args.runs, args.windows, args.patience = 1, 1, 0
    args.names = args.back_ends.split(",")
    if unknown := [name for name in args.names if name not in ROWS]:
        parser.error(f"unknown back-end {unknown[0]}")
    return args


def main(argv):
    args = parse_args(argv)
    prepare.packages(PACKAGES)
    prepare.ready(prepare.DEVICE, pages=SIZE >> 21)
    patience = bench_machine.Patience(args.patience)
    rows, code = [], 0
    try:
        for back in args.names:
            rows += compare(back, args, patience)
            print(f"{back}: done", file=sys.stderr, flush=True)
    except (pmd.PmdError, ImageError) as error:
        print(f"bench_blk.py: {error}", file=sys.stderr)
        code = 1
    if rows:
        print(f"{bench_machine.computer()}; {bench_machine.dpdk_version()}; "
              f"{bench_machine.output('qemu-storage-daemon', '--version').splitlines()[0]}; "
              f"min/median/max of {args.runs} runs of {args.windows} windows of {args.window_ms} ms\n")
        print(table(rows))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"dpdk": bench_machine.dpdk_version(), "rows": rows}, out, indent=2)
            out.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
