#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure vfn against a peer, run by run in turn, on stock testpmd.

Method: the front-end forwards on CPU 0, the device on CPU 1. A run starts both ends anew and is the
median of many short windows; a window in which other processes took 6% of a CPU or more is thrown
away. Runs alternate between the device and its peer; minimum, median and maximum of the runs are
quoted, and the ratio of the medians.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

import pmd

FOREIGN_CPU = 0.06
TICK = os.sysconf("SC_CLK_TCK")
FCS = 4


# --- who uses the CPUs ------------------------------------------------------------------------

def busy_ticks():
    """Ticks in which any CPU of the machine was not idle, stolen ones included."""
    with open("/proc/stat", encoding="ascii") as stat:
        fields = [int(f) for f in stat.readline().split()[1:]]
    return sum(fields[:8]) - fields[3] - fields[4]    # without idle and iowait


def process_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Sample:
    """Time, packets, and CPU ticks used by all and by us."""

    def __init__(self, front, pids):
        self.packets = front.port_stats(0)["RX-packets"]
        self.time = time.monotonic()
        self.ours = sum(process_ticks(pid) for pid in pids)
        self.all = busy_ticks()

    def mpps_since(self, before):
        return (self.packets - before.packets) / (self.time - before.time) / 1e6

    def foreign_since(self, before):
        """The share of one CPU that others took."""
        ticks = (self.all - before.all) - (self.ours - before.ours)
        return ticks / TICK / (self.time - before.time)


# --- what is measured -------------------------------------------------------------------------

def vfn():
    return pmd.Backend([f"vdpa_vfn0,queues=1,port=loopback,idle=busy,poll-cpu={pmd.cpu(1)}"])


DEVICES = {"vfn": vfn, "net_vhost": pmd.NetVhost}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One row of the table."""
    ring: str
    size: int           # with FCS, as the literature quotes it
    options: str = ""   # further device arguments of virtio-user

    def __str__(self):
        return f"{self.size} B loop, {self.ring}{self.options.replace(',', ', ')}"

    def front_end(self, device):
        return pmd.Loop(device.sockets[0], self.ring == "packed", self.size - FCS, self.options)


SCENARIOS = [Scenario(ring, size) for size in (64, 1518) for ring in ("split", "packed")]


def measure(name, scenario, windows, seconds):
    """One run: the median of its quiet windows in Mpps, and how many were thrown away."""
    rates, dropped = [], 0
    with DEVICES[name]() as device, scenario.front_end(device) as front:
        if front.layout() != scenario.ring:
            raise front.error(f"{name} negotiated a {front.layout()} ring")
        pids = [os.getpid(), device.pid, front.pid]
        front.start_traffic()
        time.sleep(0.5)
        before = Sample(front, pids)
        while len(rates) < windows:
            time.sleep(seconds)
            now = Sample(front, pids)
            if now.foreign_since(before) < FOREIGN_CPU:
                rates.append(now.mpps_since(before))
            else:
                dropped += 1
                if dropped > 20 * windows:
                    raise pmd.PmdError(f"{scenario}, {name}: the machine is not quiet, "
                                       f"{dropped} windows thrown away")
            before = now
        front.stop_forwarding()
    return statistics.median(rates), dropped


def compare(scenario, names, runs, windows, seconds):
    """{name: [Mpps per run]}, measured in turn, and how many windows were thrown away."""
    rates, dropped = {name: [] for name in names}, 0
    for run in range(runs):
        for name in names:
            rate, lost = measure(name, scenario, windows, seconds)
            rates[name].append(rate)
            dropped += lost
            print(f"{scenario}: run {run + 1} of {runs}, {name} {rate:.2f} Mpps, "
                  f"{lost} windows thrown away", file=sys.stderr, flush=True)
    return rates, dropped


# --- what is reported -------------------------------------------------------------------------

def quote(rates):
    return f"{min(rates):.2f}/**{statistics.median(rates):.2f}**/{max(rates):.2f}"


def table(rows, names):
    lines = ["| Mpps, min/**median**/max | " + " | ".join(names) + " | ratio |",
             "|---|" + "---|" * (len(names) + 1)]
    for row in rows:
        lines.append(f"| {row['scenario']} | " + " | ".join(quote(row[n]) for n in names)
                     + f" | {row['ratio']:.2f} |")
    return "\n".join(lines)


def dpdk_version():
    result = subprocess.run(["pkg-config", "--modversion", "libdpdk"], capture_output=True,
                            text=True, check=False)
    return f"DPDK {result.stdout.strip() or 'of unknown version'}"


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5, help="per device (%(default)s)")
    parser.add_argument("--windows", type=int, default=10,
                        help="quiet windows per run (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0,
                        help="length of a window (%(default)s)")
    parser.add_argument("--devices", default="vfn,net_vhost",
                        help=f"comma-separated, of {', '.join(DEVICES)} (%(default)s); the ratio "
                             "is the first to the last")
    parser.add_argument("--only", metavar="TEXT", default="",
                        help="only scenarios whose name contains TEXT")
    parser.add_argument("--quick", action="store_true",
                        help="one run of two windows: shows that it works, not how fast it is")
    parser.add_argument("--json", metavar="FILE", help="also write every run there")
    args = parser.parse_args(argv)
    if args.quick:
        args.runs, args.windows = 1, 2
    if min(args.runs, args.windows) < 1 or args.seconds < 0.4:
        parser.error("at least one run of one window of 0.4 seconds")
    args.names = args.devices.split(",")
    if unknown := [n for n in args.names if n not in DEVICES]:
        parser.error(f"unknown device {unknown[0]}")
    args.scenarios = [s for s in SCENARIOS if args.only in str(s)]
    if not args.scenarios:
        parser.error(f"no scenario contains {args.only!r}")
    return args


def main(argv):
    args = parse_args(argv)
    version, rows, code = dpdk_version(), [], 0
    try:
        for scenario in args.scenarios:
            rates, dropped = compare(scenario, args.names, args.runs, args.windows, args.seconds)
            medians = [statistics.median(rates[n]) for n in args.names]
            rows.append({"scenario": str(scenario), **dataclasses.asdict(scenario), **rates,
                         "ratio": medians[0] / medians[-1], "windows_thrown_away": dropped})
    except pmd.PmdError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        code = 1
    print(f"{version}, {args.runs} runs of {args.windows} windows of {args.seconds} s\n")
    print(table(rows, args.names))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"dpdk": version, "runs": args.runs, "windows": args.windows,
                       "seconds": args.seconds, "rows": rows}, out, indent=2)
            out.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
