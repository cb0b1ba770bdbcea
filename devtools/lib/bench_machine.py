# SPDX-License-Identifier: BSD-3-Clause
"""Whether what was measured can be believed: who else used the CPUs, and what these can do.

The CPUs of a virtual machine move: the same two are now neighbours, then far from each other or
two threads of one core, for seconds, and everything that passes between them takes a fifth or
four times as long. So what they can do at best (vfn-bench limits, 60 ms) is measured between any
two windows, and a window counts only if that was as usual before and after.
"""

import contextlib
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time

import pmd

FOREIGN_CPU = 0.06
ALIKE = 1.5             # times as long or as short: another state of the machine
LINE, ONE_WAY, CIRCLE = (("line, there and back", 0), ("rte_ring, one way", 0),
                         ("rte_ring, there and back", 0))
PATIENCE = 90           # seconds until the machine is as usual


def output(*argv):
    """What a program says, or nothing."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True,
                              cwd=pmd.ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def dpdk_version():
    return f"DPDK {output('pkg-config', '--modversion', 'libdpdk') or 'of unknown version'}"


def computer():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = re.search(r"model name\s*: (.*)", info.read())
    return (f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs, "
            f"Linux {platform.release()}")


def commit():
    """The commit that is checked out; what is built may differ from it."""
    head = output("git", "rev-parse", "--short", "HEAD")
    return head + ("+" if head and output("git", "status", "--porcelain", "-uno") else "")


def run_ns(pid):
    """CPU time of a process; threads that ended are forgotten, ours don't."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as stat:
            total += int(stat.read().split()[0])
    return total


class CpuTime:
    """Time on the CPUs that measure: what passed, was idle, and was used by these processes."""

    def __init__(self, pids):
        self.cpus = {pmd.cpu(0), pmd.cpu(1)}
        with open("/proc/stat", encoding="ascii") as stat:
            lines = [line.split() for line in stat if line.startswith("cpu")]
        self.idle = sum(int(line[4]) + int(line[5]) for line in lines
                        if line[0] in {f"cpu{c}" for c in self.cpus}) / os.sysconf("SC_CLK_TCK")
        self.ours = sum(map(run_ns, pids)) / 1e9
        self.time = time.monotonic()

    def foreign_since(self, before):
        """The share of one CPU that others took; the host of a virtual machine is one of them."""
        passed = self.time - before.time
        used = passed * len(self.cpus) - (self.idle - before.idle)
        return max(0, used - (self.ours - before.ours)) / passed


class Patience:
    """How long may be waited, in all, for the machine to be quiet: then what comes counts as it is.

    A measurement that never ends tells less than one that is marked as noisy.
    """

    def __init__(self, seconds):
        self.left = seconds

    def lose(self, since):
        """What has passed since then is lost. Said once: that no more can be."""
        before, self.left = self.left, self.left - (time.monotonic() - since)
        if before > 0 >= self.left:
            print("the machine is not quiet: from here on windows count as they are, and are "
                  "marked as noisy", file=sys.stderr, flush=True)

    def measure(self, window):
        """Call window() until it was quiet: (what it found, whether it was noisy, how many were
        thrown away). It returns what it found, and whether it was quiet."""
        for dropped in itertools.count():
            start = time.monotonic()
            found, quiet = window()
            if quiet or self.left <= 0:
                return found, not quiet, dropped
            self.lose(start)


def patience_option(parser, seconds):
    """The option of all commands that wait for a quiet machine."""
    parser.add_argument("--patience", type=float, default=seconds, metavar="S",
                        help="seconds that may be lost in all while others use the CPUs; then what "
                        "is measured counts, marked as noisy (%(default)s)")


class Machine:
    """What the two CPUs can do, and which of that is usual."""

    def __init__(self, seconds, patience, line_ns=None, noisy=False):
        """Look for so long what is usual, or wait until a line takes that many nanoseconds.

        Where it is noisy anything goes.
        """
        self.ghz = 0
        self.noisy = noisy
        self.patience = patience
        self._last = None
        start = time.monotonic()
        seen, end = [self.gauge()], start + (min(PATIENCE, patience.left) if line_ns else seconds)
        while time.monotonic() < end and not (line_ns and self._near(line_ns)):
            time.sleep(0.1)
            seen.append(self.gauge())
        if line_ns:
            patience.lose(start)
        self.unusual = bool(line_ns) and not self._near(line_ns)
        if self.unusual:
            print(f"a cache line takes {self._last[LINE]:.0f} ns there and back, and took {line_ns} "
                  "at no time", file=sys.stderr, flush=True)
        self._usual = self._last if line_ns else max(
            seen, key=lambda one: sum(alike(one, other) for other in seen))
        self.line_ns = self._usual[LINE]

    def _near(self, line_ns):
        return abs(self._last[LINE] / line_ns - 1) < 0.1

    def gauge(self):
        """{(name, size): ns}; nothing else of ours must run."""
        program = os.path.join(pmd.build_dir(), "app", "vfn-bench", "vfn-bench")
        argv = [program, "limits", "--cpu", f"{pmd.cpu(0)},{pmd.cpu(1)}", "--windows", "5",
                "--json", "-"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise pmd.PmdError(f"{' '.join(argv)}: {done.stderr}")
        found = json.loads(done.stdout)
        self.ghz = found["clock_per_ns"]
        self._last = {(one["name"], one["size"]): one["ns"] for one in found["limits"]}
        return self._last

    def as_usual(self):
        """At the last look."""
        return self.noisy or (not self.unusual and alike(self._last, self._usual))

    def ours(self, foreign):
        """Is that a share of a CPU that others may have taken?"""
        return self.noisy or foreign < FOREIGN_CPU

    def wait(self):
        """Until it is as usual, or patience is at its end."""
        while not self.as_usual() and self.patience.left > 0:
            start = time.monotonic()
            time.sleep(0.2)
            self.gauge()
            self.patience.lose(start)


def alike(one, other):
    """Is this the same state of the machine?"""
    return all(1 / ALIKE < one[key] / other[key] < ALIKE for key in (LINE, ONE_WAY))


def median(gauges):
    """{(name, size): ns} of many."""
    return {key: statistics.median(one[key] for one in gauges) for key in gauges[0]}
