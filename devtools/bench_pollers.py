#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure what a poller makes of many queues: idle ones beside a busy one, and several busy ones.

Stock testpmd on CPU 0 sends 256 packets round a looped-back device for ever, the poller is on CPU 1,
as in bench.py. `idle`: the same poller also has a thousand queues of sixteen other guests, which are
set up, and silent. `pairs`: one, two or four queue pairs of one device share the poller. Telemetry
tells the poller's cycles per packet. The two sides of a comparison take turns, run by run; windows
in which other processes took 6% of a CPU are thrown away.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine                                # noqa: E402
import pmd                                          # noqa: E402
import prepare                                      # noqa: E402
from bench_machine import FOREIGN_CPU, CpuTime      # noqa: E402

sys.path.insert(0, os.path.join(pmd.ROOT, "test", "topology"))

from net_device import open_frontend   # noqa: E402

GUESTS, PAIRS = 16, 64      # 1,024 transmit queues, of which a poller has to look at each
BUSY = f"vdpa_vfn0,queues=%d,idle=busy,poll-cpu={pmd.cpu(1)}"
IDLE = f"vdpa_vfn%d,queues={PAIRS},idle=busy,poll-cpu={pmd.cpu(1)}"
FCS = 4


@contextlib.contextmanager
def vfn(guests=0, pairs=1):
    """A backend with one busy device and so many with silent guests."""
    eal = ["-m", 512] if guests else []
    with pmd.Backend([BUSY % pairs, *(IDLE % (i + 1) for i in range(guests))], eal=eal) as device:
        with contextlib.ExitStack() as stack:
            for path in device.sockets[1:]:
                stack.enter_context(open_frontend(path, pairs=PAIRS, size=16))
            yield device


class Cycles:
    """The poller's counters, where the device has some."""

    def __init__(self, device):
        self.all = (next(iter(device.telemetry("/vfn/poller").values()))
                    if isinstance(device, pmd.Backend) else None)

    def per_packet_since(self, before):
        if self.all is None or self.all["packets"] == before.all["packets"]:
            return None
        return ((self.all["busy_cycles"] - before.all["busy_cycles"])
                / (self.all["packets"] - before.all["packets"]))


def measure(start, ring, size, pairs, args, patience):
    """Windows of one run: [(Mpps, cycles per packet, whether it was noisy)]."""
    kept = []

    def window():
        cycles, before = Cycles(device), CpuTime(pids)
        front.port_stats(0)
        time.sleep(args.seconds)
        rate = front.port_stats(0)["Rx-pps"] / 1e6
        return ((rate, Cycles(device).per_packet_since(cycles)),
                CpuTime(pids).foreign_since(before) < FOREIGN_CPU)

    with start() as device:
        with pmd.Loop(device.sockets[0], ring == "packed", size - FCS, pairs=pairs) as front:
            if front.layout() != ring:
                raise front.error(f"not a {ring} ring")
            pids = [os.getpid(), device.pid, front.pid]
            front.start_traffic()
            time.sleep(0.5)
            for _ in range(args.windows):
                found, noisy, _ = patience.measure(window)
                kept.append((*found, noisy))
            front.stop_forwarding()
    return kept


def summary(windows):
    rates = [rate for rate, *_ in windows]
    cycles = [c for _, c, _ in windows if c is not None]
    return {"median": statistics.median(rates), "min": min(rates), "max": max(rates),
            "windows": len(rates), "noisy_windows": sum(noisy for *_, noisy in windows),
            "cycles": statistics.median(cycles) if cycles else None}


def compare(scenario, ring, size, sides, args, patience):
    """sides: {name: (device, pairs)}; a row for the first one against the last one."""
    windows = {name: [] for name in sides}
    for run in range(args.runs):
        for name, (start, pairs) in sides.items():
            new = measure(start, ring, size, pairs, args, patience)
            windows[name] += new
            print(f"{scenario}, {size} B, {ring}: run {run + 1} of {args.runs}, {name} "
                  f"{statistics.median(r for r, *_ in new):.2f} Mpps", file=sys.stderr, flush=True)
    first, *_, last = (summary(windows[name]) for name in sides)
    return {"scenario": scenario, "ring": ring, "mode": "loop", "size": size, "unit": "Mpps",
            "what": list(sides), "vfn": first, "peer": last,
            "ratio": first["median"] / last["median"]}


def scenarios(args, patience):
    for ring in args.rings.split(","):
        for size in (int(s) for s in args.sizes.split(",")):
            if "idle" in args.scenarios:
                yield compare("idle", ring, size, {
                    "1,024 idle": (lambda: vfn(GUESTS), 1), "alone": (vfn, 1)}, args, patience)
            if "pairs" not in args.scenarios:
                continue
            for pairs in (1, 2, 4):
                peer = f"peer0,queues={pairs}"
                yield compare(f"pairs={pairs}", ring, size, {
                    "vfn": (lambda n=pairs: vfn(0, n), pairs),
                    "net_vhost": (lambda p=peer: pmd.NetVhost([p]), pairs)}, args, patience)


def table(rows):
    lines = ["| Mpps, min/**median**/max | | | ratio | cycles per packet |", "|---|---|---|---|---|"]
    for row in rows:
        sides = [f"{name} {s['min']:.2f}/**{s['median']:.2f}**/{s['max']:.2f}"
                 for name, s in zip(row["what"], (row["vfn"], row["peer"]))]
        cycles = ", ".join(f"{s['cycles']:.0f}" for s in (row["vfn"], row["peer"]) if s["cycles"])
        noisy = any(row[side]["noisy_windows"] for side in ("vfn", "peer"))
        lines.append(f"| {row['scenario']}, {row['size']} B, {row['ring']}"
                     f"{', noisy' if noisy else ''} | {' | '.join(sides)} "
                     f"| {row['ratio']:.2f} | {cycles} |")
    return "\n".join(lines)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5, help="per side (%(default)s)")
    parser.add_argument("--windows", type=int, default=6, help="per run (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5,
                        help="length of a window (%(default)s)")
    parser.add_argument("--scenarios", default="idle,pairs", help="(%(default)s)")
    parser.add_argument("--rings", default="split,packed", help="(%(default)s)")
    parser.add_argument("--sizes", default="64,1518", help="with FCS (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    bench_machine.patience_option(parser, 300)
    args = parser.parse_args(argv)
    args.scenarios = args.scenarios.split(",")
    if min(args.runs, args.windows) < 1 or args.seconds < 0.4:
        parser.error("at least one run of one window of 0.4 seconds")
    return args


def main(argv):
    args = parse_args(argv)
    prepare.ready(prepare.DEVICE, pages=320)
    patience = bench_machine.Patience(args.patience)
    # four eventfds for each ring, at both ends
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    rows, code = [], 0
    try:
        rows += scenarios(args, patience)
    except pmd.PmdError as error:
        print(f"bench_pollers.py: {error}", file=sys.stderr)
        code = 1
    if rows:
        print(f"{bench_machine.dpdk_version()}, {args.runs} runs of {args.windows} windows of "
              f"{args.seconds} s\n")
        print(table(rows))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"dpdk": bench_machine.dpdk_version(), "rows": rows}, out, indent=2)
            out.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
