#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure what live migration costs: the dirty log under traffic, and how fast a device stops.

Stock testpmd is connected through the tests' proxy, which sends SET_LOG_BASE and SET_FEATURES as a
hypervisor would: the log goes on and off under the same traffic, window by window, and is cleared
ten times a second while it is on. For stopping, the proxy sends SET_MEM_TABLE with the same memory
in one piece and in two, on which the device stops, maps it anew and starts; telemetry tells how long
it took to stand still.
"""

import argparse
import contextlib
import itertools
import json
import mmap
import os
import statistics
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine                                # noqa: E402
import bench_rows                                   # noqa: E402
import pmd                                          # noqa: E402
import prepare                                      # noqa: E402
from bench_machine import FOREIGN_CPU, CpuTime      # noqa: E402
from bench_rows import FCS                          # noqa: E402

sys.path.insert(0, os.path.join(pmd.ROOT, "test", "topology"))

from proxy import Proxy                                         # noqa: E402
from vhost_user import Message, Request, set_features, set_log_base  # noqa: E402

LOG_ALL = 1 << 26
HUGEPAGE = 2 << 20
STOP_PAIRS = 8


class Log:
    """The hypervisor's side of a dirty log."""

    def __init__(self, proxy):
        self._proxy = proxy
        self._features = struct.unpack("=Q", proxy.last[Request.SET_FEATURES].payload)[0]
        table = proxy.last[Request.SET_MEM_TABLE].payload
        count = struct.unpack_from("=I", table)[0]
        regions = [struct.unpack_from("=QQQQ", table, 8 + 32 * i) for i in range(count)]
        size = max((gpa + length - 1) // 4096 // 8 + 1 for gpa, length, _, _ in regions)
        self._size = (size + 4095) // 4096 * 4096
        first = min(gpa for gpa, *_ in regions) // 4096 // 8
        self._part = first // 4096 * 4096   # what is before stays empty
        self._fd = os.memfd_create("log")
        os.ftruncate(self._fd, self._size)
        self._map = mmap.mmap(self._fd, self._size - self._part, offset=self._part)
        self._clearing = threading.Event()
        self._thread = None
        proxy.inject(set_log_base(self._size, 0, self._fd))

    def close(self):
        self._map.close()
        os.close(self._fd)

    def _clear(self):
        zeros = bytes(len(self._map))
        while not self._clearing.wait(0.1):
            self._map[:] = zeros

    def pages(self):
        """How many are dirty."""
        return sum(byte.bit_count() for byte in self._map[:] if byte)

    @contextlib.contextmanager
    def on(self):
        self._proxy.inject(set_features(self._features | LOG_ALL))
        self._clearing.clear()
        self._thread = threading.Thread(target=self._clear)
        self._thread.start()
        try:
            yield
        finally:
            self._clearing.set()
            self._thread.join()
            self._proxy.inject(set_features(self._features))


@contextlib.contextmanager
def setup(device_args, front_end):
    """A device, a front-end that runs, and the proxy between them."""
    dev = f"vdpa_vfn0,port=loopback,idle=busy,poll-cpu={pmd.cpu(1)}{device_args}"
    # the front-end has not negotiated what the proxy sends in its name, and the gate would not have it
    with pmd.Backend([dev], args=["--no-gate"]) as backend:
        path = os.path.join(backend.directory, "proxy")
        with Proxy(path, backend.sockets[0]) as proxy, front_end(path) as front:
            front.start_traffic()
            time.sleep(0.5)
            yield backend, proxy, front
            front.stop_forwarding()


def window(front, pids, seconds, patience):
    """(Mpps in one window, whether it was noisy)"""
    def one():
        before = CpuTime(pids)
        front.port_stats(0)
        time.sleep(seconds)
        mpps = front.port_stats(0)["Rx-pps"] / 1e6
        return mpps, CpuTime(pids).foreign_since(before) < FOREIGN_CPU
    mpps, noisy, _ = patience.measure(one)
    return mpps, noisy


def log_cost(lm, size, ring, args, patience):
    """({"off": [Mpps per window], "on": [...]}, pages that were dirty at the end, how many windows
    were noisy)"""
    def front_end(path):
        return pmd.Loop(path, ring == "packed", size - FCS)
    rates, noisy = {"off": [], "on": []}, 0
    with setup(f",lm={lm}", front_end) as (backend, proxy, front):
        pids = [os.getpid(), backend.pid, front.pid]
        log = Log(proxy)

        def add(which):
            nonlocal noisy
            mpps, loud = window(front, pids, args.seconds, patience)
            rates[which].append(mpps)
            noisy += loud

        for _ in range(args.windows):
            add("off")
            with log.on():
                time.sleep(0.1)
                add("on")
                state = backend.telemetry("/vfn/lm,vdpa_vfn0")
                if state["mode"] != lm or state["state"] == "off":
                    raise pmd.PmdError(f"lm={lm} is not on: {state}")
        add("off")
        with log.on():
            time.sleep(0.05)
            pages = log.pages()
        log.close()
    if pages == 0:
        raise pmd.PmdError(f"lm={lm}: nothing was logged")
    return rates, pages, noisy


def cut_in_two(message):
    """A SET_MEM_TABLE with its first region as two: librte_vhost ignores a table that it has."""
    gpa, size, uva, offset = struct.unpack_from("=QQQQ", message.payload, 8)
    count = struct.unpack_from("=I", message.payload)[0]
    half = size // 2 // HUGEPAGE * HUGEPAGE
    payload = struct.pack("=II8Q", count + 1, 0, gpa, half, uva, offset,
                          gpa + half, size - half, uva + half, offset + half)
    return Message(message.request, payload + message.payload[40:],
                   (message.fds[0], *message.fds))


def stop_times(packed, count):
    """Microseconds that the device took to stand still, each time, with busy queue pairs."""
    class Pairs(pmd.Loop):
        def __init__(self, path):
            super().__init__(path, packed, pairs=STOP_PAIRS)
    times = []
    with setup(f",queues={STOP_PAIRS}", Pairs) as (backend, proxy, front):
        tables = [cut_in_two(proxy.last[Request.SET_MEM_TABLE]),
                  proxy.last[Request.SET_MEM_TABLE]]
        for number in range(count):
            proxy.inject(tables[number % 2])
            times.append(backend.telemetry("/vfn/info,vdpa_vfn0")["stop_us_last"])
            time.sleep(0.01)    # of traffic
        before = front.port_stats(0)["RX-packets"]
        time.sleep(0.5)
        if front.port_stats(0)["RX-packets"] <= before:
            raise pmd.PmdError("the traffic did not survive the stops")
        info = backend.telemetry("/vfn/info,vdpa_vfn0")
        if info["queues_running"] != 2 * STOP_PAIRS or info["stops"] < count:
            raise pmd.PmdError(f"not what was to be measured: {info}")
    return times


def paired_costs(rates):
    """Each window with the log on against the one before and the one after, which are off."""
    off = rates["off"]
    return [1 - 2 * on / (before + after) for on, before, after in zip(rates["on"], off, off[1:])]


def quote(values, digits=2):
    return (f"{min(values):.{digits}f}/**{statistics.median(values):.{digits}f}**/"
            f"{max(values):.{digits}f}")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--windows", type=int, default=30,
                        help="pairs of windows, log off and on (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5,
                        help="length of a window (%(default)s)")
    parser.add_argument("--stops", type=int, default=1000,
                        help="how often to stop; 0: not at all (%(default)s)")
    parser.add_argument("--lm", default="hw,shadow",
                        help="comma-separated, of hw, shadow (%(default)s); empty: none")
    parser.add_argument("--json", metavar="FILE", help="also write every figure there")
    bench_machine.patience_option(parser, 300)
    args = parser.parse_args(argv)
    if args.windows < 1 or args.seconds < 0.4 or args.stops < 0:
        parser.error("at least one window of 0.4 seconds")
    args.modes = [m for m in args.lm.split(",") if m]
    if unknown := set(args.modes) - {"hw", "shadow"}:
        parser.error(f"unknown lm {min(unknown)}")
    return args


def main(argv):
    args = parse_args(argv)
    prepare.ready(prepare.DEVICE, pages=256)
    report, code = {"dpdk": bench_machine.dpdk_version()}, 0
    patience = bench_machine.Patience(args.patience)
    print(f"{report['dpdk']}, {args.windows} windows of {args.seconds} s each, "
          f"{args.stops} stops\n")
    try:
        if args.modes:
            print("| Mpps, min/**median**/max of windows | log off | log on | cost, % |\n"
                  "|---|---|---|---|")
        for lm in args.modes:
            for size, ring in itertools.product((64, 1518), bench_rows.RINGS):
                scenario = f"{size} B loop, {ring}"
                rates, pages, noisy = log_cost(lm, size, ring, args, patience)
                scenario += ", noisy" if noisy else ""
                costs = [100 * cost for cost in paired_costs(rates)]
                report[f"{lm}, {scenario}"] = {**rates, "costs": costs, "pages": pages,
                                               "noisy_windows": noisy}
                print(f"| lm={lm}, {scenario} | {quote(rates['off'])} | {quote(rates['on'])} | "
                      f"{quote(costs, 1)} |", flush=True)
        if args.stops:
            print("\n| us to stand still, 8 busy queue pairs | min/**median**/max |\n|---|---|")
        for packed in (False, True) if args.stops else ():
            times = stop_times(packed, args.stops)
            ring = "packed" if packed else "split"
            report[f"stop, {ring}"] = times
            print(f"| {ring} | {quote(times, 0)} |", flush=True)
    except pmd.PmdError as error:
        print(f"bench_lm.py: {error}", file=sys.stderr)
        code = 1
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=2)
            out.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
