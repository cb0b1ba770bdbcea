#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure what a queue keeps of its rate next to each hostile one on the same poller.

Both guests are played by one thread of build/test/driver/bench_fair, on the first CPU, and their rings
are always full; the poller is on the last one. Shapes take turns, round by round, and each is
measured right after the same queue alone. Where that is allowed both CPUs are taken by real-time
scheduling, so that other processes disturb little; the kernel gives them 50 ms in a second, in one
piece, which the median of the rounds leaves out.
"""

import argparse
import collections
import contextlib
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import pmd          # noqa: E402
import prepare      # noqa: E402

PROGRAM = os.path.join(pmd.build_dir(), "test", "driver", "bench_fair")


def real_time():
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(20))


def a_round(size, milliseconds):
    """{shape: (frames per second alone, next to it)}"""
    # pylint: disable=subprocess-popen-preexec-fn
    out = subprocess.run([PROGRAM, str(size), str(milliseconds)], preexec_fn=real_time, check=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True, timeout=300).stdout
    lines = (line.split("\t") for line in out.splitlines() if line.count("\t") == 2)
    return {name: (float(alone), float(left)) for name, alone, left in lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=64, help="bytes of the honest queue's frames")
    parser.add_argument("--milliseconds", type=int, default=60, help="of each measurement")
    args = parser.parse_args()
    prepare.ready(["test/driver/bench_fair"], pages=0)
    alone, kept = [], collections.defaultdict(list)
    for _ in range(args.rounds):
        for name, (before, left) in a_round(args.size, args.milliseconds).items():
            alone.append(before)
            kept[name].append(left / before)
    print(f"{args.size}-byte frames, looped back: {statistics.median(alone) / 1e6:.1f} million a "
          f"second alone; medians of {args.rounds} rounds\n")
    print("| next to | is left | lowest, highest round |")
    print("|---|---|---|")
    for name, shares in kept.items():
        print(f"| {name} | {statistics.median(shares):.0%} | {min(shares):.0%}, {max(shares):.0%} |")


if __name__ == "__main__":
    main()
