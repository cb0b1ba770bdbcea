#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure what passes between two stock guests of QEMU 11 whose cards are functions of vfn-endpoint,
wired to each other, against the same guests with QEMU's own virtio-net-pci wired by a datagram socket:
window by window in turn, all guests booted.

    devtools/bench_endpoint_guest.py [--rows 64,1514,tcp] [--runs N] [--noisy]

Frames from one guest to the other as fast as its packet sockets take them, or one TCP connection.
What arrives is counted. Without KVM the guests' CPUs are emulated (TCG), and most of the time is theirs.
"""

import argparse
import contextlib
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine        # noqa: E402
import pmd                  # noqa: E402
import prepare              # noqa: E402
from guest import GuestError, image, linux                              # noqa: E402
from guest.image import PACKAGES                                        # noqa: E402
from guest.vfio_user import FunctionGuest                               # noqa: E402
from guest.wired import Control, ControlGuest, card, wires              # noqa: E402

KINDS = {"vfio-user": (pmd.Endpoint, FunctionGuest), "QEMU": (Control, ControlGuest)}
PORT = 5001
LIMIT = 60      # seconds: senders are ended before


@contextlib.contextmanager
def booted(functions):
    """({kind: its two guests}, pids)"""
    system = linux(*image("blast"))
    pairs, pids = {}, [os.getpid()]
    with contextlib.ExitStack() as stack:
        for kind, (program, guest) in KINDS.items():
            ends = stack.enter_context(program(functions))
            pids += [ends.pid] if kind == "vfio-user" else []
            pairs[kind] = [stack.enter_context(guest([card(ends, number)], name=f"{kind}{number}",
                                                     system=system)) for number in (0, 1)]
        for pair in pairs.values():
            for number, guest in enumerate(pair):
                guest.boot().run(f"ip link set eth0 up; ip addr add 10.9.8.{number + 1}/24 dev eth0")
            pair[0].run("ping -c 1 -W 20 10.9.8.2")
            pids += [guest.pid for guest in pair]
        yield pairs, pids


def window(pair, row, seconds):
    """What arrived per second: frames, or bytes of TCP."""
    source, target = pair
    field = "rx_bytes" if row == "tcp" else "rx_packets"
    if row == "tcp":
        target.spawn(f"timeout {LIMIT} nc.openbsd -d -l {PORT} >/dev/null; true")
        target.run(f"until netstat -ltn | grep -q ':{PORT} '; do usleep 20000; done")
        send = f"nc.openbsd -N 10.9.8.2 {PORT} </dev/zero"
    else:
        send = f"blast eth0 1000000000 {row}"
    sender = source.spawn(f"timeout {LIMIT} {send}; true")
    look = f"cut -d' ' -f1 /proc/uptime; cat /sys/class/net/eth0/statistics/{field}"
    begin, before, end, after = map(float, target.run(f"sleep 0.5; {look}; sleep {seconds}; {look}")
                                    .out.split())
    source.run("killall blast nc.openbsd; true")
    sender.wait(check=False)
    target.run("killall nc.openbsd; true")
    if after == before:
        raise GuestError(target.explain(f"nothing arrived: {row}"))
    return (after - before) / (end - begin)


def measure(pairs, pids, row, args, patience):
    """{kind: its windows}, and whether one was noisy."""
    found, noisy = {kind: [] for kind in pairs}, False

    def one(pair):
        before = bench_machine.CpuTime(pids)
        value = window(pair, row, args.seconds)
        foreign = bench_machine.CpuTime(pids).foreign_since(before)
        return value, args.noisy or foreign < bench_machine.FOREIGN_CPU

    for _ in range(args.windows):
        for kind, pair in pairs.items():
            value, loud, _ = patience.measure(lambda pair=pair: one(pair))
            found[kind].append(value)
            noisy = noisy or loud
    return found, noisy


def line(row, found, noisy):
    name, unit = ("TCP, Mbit/s", 8e-6) if row == "tcp" else (f"{row} B, thousand frames/s", 1e-3)
    medians = {kind: statistics.median(values) for kind, values in found.items()}
    quotes = [f"{min(values) * unit:.1f} / **{medians[kind] * unit:.1f}** / {max(values) * unit:.1f}"
              for kind, values in found.items()]
    ratios = sorted(ours / theirs for ours, theirs in zip(*found.values()))
    return (f"| {name}{', noisy' if noisy else ''} | {' | '.join(quotes)} | {ratios[0]:.2f} / "
            f"**{statistics.median(ratios):.2f}** / {ratios[-1]:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rows", default="64,1514,tcp", help="bytes of frames, or tcp (%(default)s)")
    parser.add_argument("--queues", type=int, default=1, help="queue pairs of functions (%(default)s)")
    parser.add_argument("--runs", type=int, default=2, help="fresh starts (%(default)s)")
    parser.add_argument("--windows", type=int, default=5, help="per run, row and kind (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of a window (%(default)s)")
    parser.add_argument("--noisy", action="store_true", help="all windows count: it works")
    bench_machine.patience_option(parser, 60)
    args = parser.parse_args()
    rows = [row if row == "tcp" else int(row) for row in args.rows.split(",")]
    if not all(row == "tcp" or 60 <= row <= 1514 for row in rows):
        parser.error("a frame has 60 to 1514 bytes")
    prepare.ready((*prepare.LIMITS, "app/vfn-endpoint"), 0, sorted(set(PACKAGES.values())))
    os.sched_setaffinity(0, {pmd.cpu(0), pmd.cpu(1)})
    patience = bench_machine.Patience(0 if args.noisy else args.patience)
    total = {row: ({kind: [] for kind in KINDS}, []) for row in rows}
    for run in range(args.runs):
        with booted(wires("ab", queues=args.queues)) as (pairs, pids):
            for row in rows:
                found, noisy = measure(pairs, pids, row, args, patience)
                print(f"run {run + 1} of {args.runs}: {line(row, found, noisy)}", file=sys.stderr, flush=True)
                for kind, values in found.items():
                    total[row][0][kind].extend(values)
                total[row][1].append(noisy)
    print("QEMU 11 without KVM (TCG), one CPU each; min / **median** / max")
    print(f"| | {' | '.join(KINDS)} | ratio |\n|---|---|---|---|")
    for row, (found, noisy) in total.items():
        print(line(row, found, any(noisy)))


if __name__ == "__main__":
    main()
