#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure round trips of single packets: vfn whose poller spins, vfn whose poller sleeps, net_vhost.

The front-end is vfn-rtt on virtio-user, on CPU 0: it sends a packet, spins until that is back, and
sends the next one, after a pause where one is asked for. The device on CPU 1 sends back what it
gets. Devices take turns, run by run; windows in which other processes took 6% of a CPU are thrown
away. A figure is the median over all windows of what that window's packets had.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import time

import bench
import pmd

FCS = 4
RANKS = ("min", "p50", "p90", "p99", "p99.9", "max", "mean")


def backend(idle):
    return pmd.Backend([f"vdpa_vfn0,port=loopback,idle={idle},poll-cpu={pmd.cpu(1)}"])


# name, how to start it, and what it is in a row: mode, and the side of the comparison
DEVICES = {"vfn": lambda: backend("busy"), "vfn-sleep": lambda: backend("sleep"),
           "net_vhost": pmd.NetVhost}
MODES = {"vfn": "busy", "vfn-sleep": "sleep"}


class Trips(pmd.EalProcess):
    """vfn-rtt at work; windows() yields what it prints as it comes."""

    def __init__(self, path, packed, size, gap_us, windows, window_ms):
        virtio = f"net_virtio_user0,path={path},queue_size=256,packed_vq={int(packed)}"
        super().__init__(
            os.path.join(pmd.build_dir(), "app", "vfn-rtt"),
            ["--lcores", f"0@{pmd.cpu(0)}", "--in-memory", "--single-file-segments", "-m", 64,
             "--no-telemetry", "--log-level=pmd.net.virtio.*:debug", "--vdev", virtio],
            ["--size", size - FCS, "--gap-us", gap_us, "--windows", windows,
             "--window-ms", window_ms], wrapper=("stdbuf", "-oL"))
        self._windows, self._window_s = windows, window_ms / 1000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def windows(self):
        since = 0
        for _ in range(self._windows):
            line = self.expect(r'^(\{"trips".*\})$', timeout=20 + 3 * self._window_s, since=since)
            since = line.end()
            yield json.loads(line[1])

    def layout(self):
        """The ring layout that was negotiated."""
        features = self.expect(r"set features: (0x[0-9a-f]+)(?![\s\S]*set features)")[1]
        return "packed" if int(features, 16) >> 34 & 1 else "split"


class Clock:
    """Time and CPU ticks, of all and of some processes."""

    def __init__(self, device, front):
        self.time, self.all = time.monotonic(), bench.busy_ticks()
        self.device = bench.process_ticks(device.pid)
        self.ours = self.device + sum(bench.process_ticks(p) for p in (os.getpid(), front.pid))

    def device_share(self, before):
        return (self.device - before.device) / bench.TICK / (self.time - before.time)

    def foreign_share(self, before):
        ticks = self.all - before.all - (self.ours - before.ours)
        return ticks / bench.TICK / (self.time - before.time)


def measure(name, ring, size, gap_us, args):
    """The quiet windows of one run, each with the share of a CPU that the device took."""
    kept = []
    with DEVICES[name]() as device:
        with Trips(device.sockets[0], ring == "packed", size, gap_us, args.windows,
                   args.window_ms) as front:
            before = None
            for window in front.windows():
                now = Clock(device, front)
                # of the first window only the end is known
                if before and now.foreign_share(before) < bench.FOREIGN_CPU:
                    if window["lost"] > 0:
                        raise front.error(f"{name} lost {window['lost']} packets")
                    kept.append(window | {"cpu": now.device_share(before)})
                before = now
            if front.layout() != ring:
                raise front.error(f"{name} did not negotiate a {ring} ring")
    return kept


def summary(windows):
    """As in bench.py's rows, and the ranks."""
    medians = [w["p50"] for w in windows]
    return {"median": statistics.median(medians), "min": min(medians), "max": max(medians),
            "windows": len(windows), "cpu": statistics.median(w["cpu"] for w in windows),
            **{rank: statistics.median(w[rank] for w in windows) for rank in RANKS
               if rank not in ("min", "max")},
            "lowest": min(w["min"] for w in windows),
            "worst": statistics.median(w["max"] for w in windows)}


def compare(ring, size, gap_us, args):
    """A row for each kind of vfn."""
    windows = {name: [] for name in args.names}
    for run, name in itertools.product(range(args.runs), args.names):
        new = measure(name, ring, size, gap_us, args)
        windows[name] += new
        median = statistics.median(w["p50"] for w in new) if new else float("nan")
        print(f"{size} B, {ring}, gap {gap_us} us: run {run + 1} of {args.runs}, {name} "
              f"{median:.0f} ns, {len(new)} windows", file=sys.stderr, flush=True)
    if not all(windows.values()):
        raise pmd.PmdError("the machine is not quiet, no window of one device was kept")
    peer = summary(windows["net_vhost"]) if "net_vhost" in windows else None
    for name in args.names:
        if name in MODES:
            vfn = summary(windows[name])
            yield {"scenario": "latency", "ring": ring, "mode": MODES[name], "size": size,
                   "gap_us": gap_us, "unit": "ns", "vfn": vfn, "peer": peer,
                   "ratio": peer and peer["median"] / vfn["median"]}


def table(rows):
    lines = ["| | | p50 | p90 | p99 | p99.9 | max | CPU |", "|---|---|---|---|---|---|---|---|"]
    seen = set()
    for row in rows:
        sides = [(f"vfn {row['mode']}", row["vfn"]), ("net_vhost", row["peer"])]
        what = f"{row['size']} B, {row['ring']}"
        what += f", every {row['gap_us']} us" if row["gap_us"] else ""
        for name, side in sides:
            if side is None or (what, name) in seen:
                continue
            seen.add((what, name))
            ranks = " | ".join(f"{side[r] / 1000:.2f}" for r in ("p90", "p99", "p99.9", "worst"))
            median = "/".join(f"{side[k] / 1000:.2f}" for k in ("min", "median", "max"))
            lines.append(f"| {what} | {name} | {median} | {ranks} | {100 * side['cpu']:.0f}% |")
    return "\n".join(lines)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5, help="per device (%(default)s)")
    parser.add_argument("--windows", type=int, default=8, help="per run (%(default)s)")
    parser.add_argument("--window-ms", type=int, default=400, help="(%(default)s)")
    parser.add_argument("--devices", default="vfn,vfn-sleep,net_vhost",
                        help=f"comma-separated, of {', '.join(DEVICES)} (%(default)s)")
    parser.add_argument("--rings", default="split,packed", help="(%(default)s)")
    parser.add_argument("--sizes", default="64,1518", help="with FCS (%(default)s)")
    parser.add_argument("--gap-us", default="0",
                        help="pauses between two packets, comma-separated (%(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help="one run of three windows: shows that it works, not how fast it is")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    args = parser.parse_args(argv)
    if args.quick:
        args.runs, args.windows = 1, 3
    args.names = args.devices.split(",")
    if unknown := [n for n in args.names if n not in DEVICES]:
        parser.error(f"unknown device {unknown[0]}")
    if min(args.runs, args.windows - 1) < 1 or args.window_ms < 100:
        parser.error("at least one run of two windows of 100 ms")
    return args


def main(argv):
    args = parse_args(argv)
    rows, code = [], 0
    with contextlib.suppress(KeyboardInterrupt):
        try:
            for ring, size, gap in itertools.product(args.rings.split(","), args.sizes.split(","),
                                                     args.gap_us.split(",")):
                rows += compare(ring, int(size), int(gap), args)
        except pmd.PmdError as error:
            print(f"bench_latency.py: {error}", file=sys.stderr)
            code = 1
    print(f"{bench.dpdk_version()}, {args.runs} runs of {args.windows} windows of "
          f"{args.window_ms} ms; us, the median min/median/max of windows\n")
    print(table(rows))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"dpdk": bench.dpdk_version(), "rows": rows}, out, indent=2)
            out.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
