#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure round trips of single packets: vfn whose poller spins, vfn whose poller sleeps, net_vhost.

The front-end is vfn-rtt with a virtio-user port for each device, on CPU 0: it sends a packet, spins
until that is back, and sends the next one, after a pause where one is asked for. The devices are on
CPU 1 and send back what they get. All are there at the same time, but for the one whose turn it is
they are stopped (SIGSTOP): windows are short and take turns, so that a machine that is slower for
some seconds is so for all. A ratio is the median of those of neighbouring windows; turns in which
other processes took 6% of a CPU are thrown away, unless the patience is at its end: then the row is
marked as noisy. A figure is the median over all windows of what that window's packets had.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine                                # noqa: E402
import pmd                                          # noqa: E402
import prepare                                      # noqa: E402
from bench_rtt import Trips                         # noqa: E402
from bench_machine import FOREIGN_CPU, CpuTime      # noqa: E402

FCS = 4
PEER = "net_vhost"
RANKS = ("p90", "p99", "p99.9", "mean")


def backend(idle):
    return pmd.Backend([f"vdpa_vfn0,port=loopback,idle={idle},poll-cpu={pmd.cpu(1)}"])


DEVICES = {"vfn": lambda: backend("busy"), "vfn-sleep": lambda: backend("sleep"),
           PEER: pmd.NetVhost}
MODES = {"vfn": "busy", "vfn-sleep": "sleep"}


def cpu_seconds(pid):
    """CPU time of a process whose threads stay."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as stat:
            total += int(stat.read().split()[0])
    return total / 1e9


class Turns:
    """Devices that are stopped but for the one whose turn it is."""

    def __init__(self, names, ring, size, stack):
        self.devices = {name: stack.enter_context(DEVICES[name]()) for name in names}
        stack.callback(lambda: [self._signal(n, signal.SIGCONT) for n in self.devices])
        paths = [device.sockets[0] for device in self.devices.values()]
        self.front = stack.enter_context(Trips(paths, ring == "packed", size - FCS))
        if self.front.layouts() != {ring}:
            raise self.front.error(f"not only {ring} rings")
        for name in names:
            self._signal(name, signal.SIGSTOP)

    def _signal(self, name, number):
        os.kill(self.devices[name].pid, number)

    def turn(self, milliseconds, gap_us):
        """({name: window}, whether nobody else used the CPUs)"""
        windows = {}
        pids = [os.getpid(), self.front.pid, *(d.pid for d in self.devices.values())]
        before = CpuTime(pids)
        for port, (name, device) in enumerate(self.devices.items()):
            self._signal(name, signal.SIGCONT)
            self.front.window(port, 5, 0)
            start, used = time.monotonic(), cpu_seconds(device.pid)
            window = self.front.window(port, milliseconds, gap_us)
            window["cpu"] = (cpu_seconds(device.pid) - used) / (time.monotonic() - start)
            self._signal(name, signal.SIGSTOP)
            windows[name] = window
        quiet = CpuTime(pids).foreign_since(before) < FOREIGN_CPU
        # in a second: where others use the CPUs that is no loss
        if quiet and (lost := [name for name in windows if windows[name]["lost"] > 0]):
            raise self.front.error(f"packets were lost: {', '.join(lost)}")
        return windows, quiet


def measure(ring, size, args, patience):
    """[(gap, {name: window})], how many turns were thrown away, and how many were noisy."""
    kept, dropped, noisy = [], 0, 0
    with contextlib.ExitStack() as stack:
        turns = Turns(args.names, ring, size, stack)
        for gap_us in args.gaps:
            for _ in range(args.windows):
                windows, loud, lost = patience.measure(
                    lambda gap=gap_us: turns.turn(args.window_ms, gap))
                kept.append((gap_us, windows))
                dropped, noisy = dropped + lost, noisy + loud
    return kept, dropped, noisy


def summary(windows):
    """As in bench.py's rows, and the ranks."""
    medians = [w["p50"] for w in windows]
    return {"median": statistics.median(medians), "min": min(medians), "max": max(medians),
            "windows": len(windows), "cpu": statistics.median(w["cpu"] for w in windows),
            **{rank: statistics.median(w[rank] for w in windows) for rank in RANKS},
            "lowest": min(w["min"] for w in windows), "highest": max(w["max"] for w in windows)}


def compare(ring, size, args, patience):
    """A row for each kind of vfn and each pause."""
    kept, dropped, noisy = [], 0, 0
    for run in range(args.runs):
        more, lost, loud = measure(ring, size, args, patience)
        kept, dropped, noisy = kept + more, dropped + lost, noisy + loud
        print(f"{size} B, {ring}: run {run + 1} of {args.runs}", file=sys.stderr, flush=True)
    for gap_us, name in itertools.product(args.gaps, [n for n in args.names if n in MODES]):
        turns = [windows for gap, windows in kept if gap == gap_us]
        peers = [windows[PEER] for windows in turns if PEER in windows]
        ratios = [w[PEER]["p50"] / w[name]["p50"] for w in turns if PEER in w]
        yield {"scenario": "latency", "ring": ring, "mode": MODES[name], "size": size,
               "gap_us": gap_us, "unit": "ns", "vfn": summary([w[name] for w in turns]),
               "peer": summary(peers) if peers else None,
               "ratio": statistics.median(ratios) if ratios else None,
               "ratios": [min(ratios), max(ratios)] if ratios else None,
               "windows_thrown_away": dropped, "noisy_windows": noisy}


def table(rows):
    lines = ["| us | | p50 | p90 | p99 | p99.9 | max | CPU | ratio |", "|---" * 9 + "|"]
    seen = set()
    for row in rows:
        what = f"{row['size']} B, {row['ring']}"
        what += f", every {row['gap_us']} us" if row["gap_us"] else ""
        what += ", noisy" if row["noisy_windows"] else ""
        for name, side in (f"vfn, {row['mode']}", row["vfn"]), (PEER, row["peer"]):
            if side is None or (what, name) in seen:
                continue
            seen.add((what, name))
            median = "/".join(f"{side[k] / 1000:.2f}" for k in ("min", "median", "max"))
            ranks = " | ".join(f"{side[r] / 1000:.2f}" for r in ("p90", "p99", "p99.9", "highest"))
            ratio = f"{row['ratio']:.2f}" if row["ratio"] and side is row["vfn"] else ""
            lines.append(f"| {what} | {name} | {median} | {ranks} | {100 * side['cpu']:.0f}% "
                         f"| {ratio} |")
    return "\n".join(lines)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--windows", type=int, default=15,
                        help="of each device, per run and pause (%(default)s)")
    parser.add_argument("--window-ms", type=int, default=150, help="(%(default)s)")
    parser.add_argument("--devices", default="vfn,vfn-sleep,net_vhost",
                        help=f"comma-separated, of {', '.join(DEVICES)} (%(default)s)")
    parser.add_argument("--rings", default="split,packed", help="(%(default)s)")
    parser.add_argument("--sizes", default="64,1518", help="with FCS (%(default)s)")
    parser.add_argument("--gap-us", default="0",
                        help="pauses between two packets, comma-separated (%(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help="one run of two windows: shows that it works, not how fast it is")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    bench_machine.patience_option(parser, 300)
    args = parser.parse_args(argv)
    if args.quick:
        args.runs, args.windows = 1, 2
    args.names = args.devices.split(",")
    if unknown := [n for n in args.names if n not in DEVICES]:
        parser.error(f"unknown device {unknown[0]}")
    args.gaps = [int(gap) for gap in args.gap_us.split(",")]
    if min(args.runs, args.windows) < 1 or args.window_ms < 100 or min(args.gaps) < 0:
        parser.error("at least one run of one window of 100 ms")
    return args


def main(argv):
    args = parse_args(argv)
    prepare.ready((*prepare.DEVICE, "app/vfn-rtt"), pages=256)
    patience = bench_machine.Patience(args.patience)
    rows, code = [], 0
    try:
        for ring, size in itertools.product(args.rings.split(","), args.sizes.split(",")):
            rows += compare(ring, int(size), args, patience)
    except pmd.PmdError as error:
        print(f"bench_latency.py: {error}", file=sys.stderr)
        code = 1
    if rows:
        print(f"{bench_machine.dpdk_version()}, {args.runs} runs of {args.windows} windows of "
              f"{args.window_ms} ms; the median of a window is given as min/median/max of all\n")
        print(table(rows))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"dpdk": bench_machine.dpdk_version(), "rows": rows}, out, indent=2)
            out.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
