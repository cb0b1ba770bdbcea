#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure a function behind an endpoint (link=endpoint) against one in the driver's process, window
by window in turn as bench.py does; and how long a trapped register access takes.

    devtools/bench_endpoint.py [--ring split,packed] [--size 64,1518] [--runs N] [--noisy]
"""

import argparse
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine        # noqa: E402
import bench_rows           # noqa: E402
import pmd                  # noqa: E402
import prepare              # noqa: E402
from bench_rows import RINGS, SCENARIOS, SIZES      # noqa: E402

TARGETS = (*prepare.DEVICE, *prepare.LIMITS, "app/vfn-endpoint", "test/driver/bench_endpoint")
NAMES = ("inproc", "endpoint")


def accesses(count, idle):
    """What bench_endpoint says of an endpoint whose pollers spin or sleep."""
    with pmd.Endpoint([f"fn0,idle={idle},poll-cpu={pmd.cpu(1)}"]) as endpoint:
        program = os.path.join(pmd.build_dir(), "test", "driver", "bench_endpoint")
        done = subprocess.run([program, endpoint.sockets[0], str(count)], check=True,
                              capture_output=True, text=True, timeout=120)
    return done.stdout


def line(row, found):
    quotes = []
    for name in NAMES:
        values = [w["value"] for w in found[name]]
        quotes.append(f"{min(values):.2f} / **{statistics.median(values):.2f}** / "
                      f"{max(values):.2f}")
    medians = [statistics.median(w["value"] for w in found[name]) for name in NAMES]
    noisy = ", noisy" if any(w["noisy"] for name in NAMES for w in found[name]) else ""
    return (f"| {row.scenario}, {row.ring}, {row.size} B{noisy} | {quotes[0]} | {quotes[1]} | "
            f"{medians[1] / medians[0]:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--scenario", default="loopback", help="comma-separated (%(default)s)")
    parser.add_argument("--ring", default=",".join(RINGS), help="(%(default)s)")
    parser.add_argument("--size", default="64,1518", help="bytes with FCS (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="fresh starts per row (%(default)s)")
    parser.add_argument("--windows", type=int, default=6, help="per run and link (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--accesses", type=int, default=5000, help="of registers (%(default)s)")
    parser.add_argument("--noisy", action="store_true", help="all windows count: it works")
    bench_machine.patience_option(parser, 600)
    args = parser.parse_args()
    rows = bench_rows.rows(args.scenario.split(","), args.ring.split(","), ("mergeable",),
                           [int(size) for size in args.size.split(",")])
    if not rows or any(r.scenario not in SCENARIOS or r.scenario == "pmd-perf" or r.size not in SIZES
                       for r in rows):
        parser.error("no such rows")
    prepare.ready(TARGETS, pages=400)
    os.sched_setaffinity(0, {pmd.cpu(0), pmd.cpu(1)})
    for idle in "busy", "sleep":
        print(f"trapped accesses, idle={idle}:\n{accesses(args.accesses, idle)}")
    machine = bench_machine.Machine(0 if args.noisy else 6, bench_machine.Patience(args.patience),
                                    None, args.noisy)

    def progress(run, medians):
        print(f"run {run + 1} of {args.runs}: {medians}", file=sys.stderr, flush=True)

    print("| Mpps, min / **median** / max | inproc | endpoint | ratio |\n|---|---|---|---|")
    for row in rows:
        found, _ = bench_rows.measure(row, args.runs, args.windows, args.seconds, machine, progress,
                                      NAMES)
        print(line(row, found), flush=True)


if __name__ == "__main__":
    main()
