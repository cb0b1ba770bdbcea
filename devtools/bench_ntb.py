#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure a looped-back function at the other side of a simulated bridge (link=ntb) against what the
same CPU could copy, found out between any two windows.

    devtools/bench_ntb.py [--ring split,packed] [--size 1518,9000] [--runs N] [--noisy]

A frame that comes back is copied three times: into a window, by the function, and out of a window. The
simulated bridge copies it again for each flush (2) and each invalidate (2), and fills what it has
flushed (2). One CPU does all of that: relay, bridge and function. The estimate is what it takes for
the copies alone.
"""

import argparse
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine        # noqa: E402
import bench_rows           # noqa: E402
import pmd                  # noqa: E402
import prepare              # noqa: E402
from bench_rows import RINGS, SIZES     # noqa: E402

TARGETS = (*prepare.DEVICE, *prepare.LIMITS, "app/vfn-endpoint")
COPIES, FILLS = 3 + 2 + 2, 2


def estimate(window, size):
    """Mpps, from what the machine could do when the window was measured."""
    limits = window["limits"]
    return 1000 / (COPIES * limits["copy", size] + FILLS * limits["write", size])


def three(values):
    return f"{min(values):.2f} / **{statistics.median(values):.2f}** / {max(values):.2f}"


def line(row, windows):
    estimates = [estimate(window, row.size) for window in windows]
    values = [window["value"] for window in windows]
    ratios = [value / most for value, most in zip(values, estimates)]
    noisy = ", noisy" if any(window["noisy"] for window in windows) else ""
    return (f"| {row.ring}, {row.size} B{noisy} | {three(values)} | {three(estimates)} | "
            f"{three(ratios)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--ring", default=",".join(RINGS), help="(%(default)s)")
    parser.add_argument("--size", default="1518,9000", help="bytes with FCS (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="fresh starts per row (%(default)s)")
    parser.add_argument("--windows", type=int, default=6, help="per run (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--noisy", action="store_true", help="all windows count: it works")
    bench_machine.patience_option(parser, 600)
    args = parser.parse_args()
    rows = bench_rows.rows(["loopback"], args.ring.split(","), ("mergeable",),
                           [int(size) for size in args.size.split(",")])
    if not rows or any(row.ring not in RINGS or row.size not in SIZES for row in rows):
        parser.error("no such rows")
    prepare.ready(TARGETS, pages=400)
    os.sched_setaffinity(0, {pmd.cpu(0), pmd.cpu(1)})
    machine = bench_machine.Machine(0 if args.noisy else 6, bench_machine.Patience(args.patience),
                                    None, args.noisy)

    def progress(run, medians):
        print(f"run {run + 1} of {args.runs}: {medians}", file=sys.stderr, flush=True)

    print("| Mpps, min / **median** / max | ntb | copies alone | ratio |\n|---|---|---|---|")
    for row in rows:
        found, _ = bench_rows.measure(row, args.runs, args.windows, args.seconds, machine, progress,
                                      ("ntb",))
        print(line(row, found["ntb"]), flush=True)


if __name__ == "__main__":
    main()
