# SPDX-License-Identifier: BSD-3-Clause
"""What bench.py measures: rows, the two sides of each, and windows in turn.

A side is a device (vfn, or net_vhost as its peer) and a stock front-end. Both sides of a row are
started together, and one of them is stopped by SIGSTOP while the other one is measured: windows
alternate without a start between them, so that a machine whose speed drifts is as slow or as fast
for both.
"""

import contextlib
import dataclasses
import itertools
import os
import re
import signal
import statistics
import tempfile
import time

import pmd
from bench_machine import CpuTime

FCS = 4
SETTLE = 0.05           # seconds until caches and rings are as they stay
NAMES = ("vfn", "net_vhost")

SCENARIOS = ("loopback", "g2h", "h2g", "wire", "pmd-perf")
RINGS = ("split", "packed")
MODES = {"mergeable": "", "plain": ",mrg_rxbuf=0", "vectorized": ",mrg_rxbuf=0,vectorized=1"}
SIZES = (64, 256, 1518, 9000)

# what the front-end and net_vhost's testpmd do, and what vfn does, in each scenario
FRONT_MODE = {"loopback": "io", "g2h": "txonly", "h2g": "rxonly", "wire": "io"}
PEER_MODE = {"loopback": "io", "g2h": "rxonly", "h2g": "txonly", "wire": "io", "pmd-perf": "io"}
VFN_PORT = {"loopback": ["port=loopback"], "g2h": ["port=sink"], "h2g": ["gen={frame}"],
            "wire": ["port=wire", "port=wire,peer=vdpa_vfn0"], "pmd-perf": ["port=loopback"]}

RX_PATHS = {("split", "mergeable"): "inorder", ("split", "plain"): "inorder",
            ("split", "vectorized"): "vectorized",
            ("packed", "mergeable"): "packed ring mergeable buffer",
            ("packed", "plain"): "packed ring standard",
            ("packed", "vectorized"): "packed ring vectorized"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table."""
    scenario: str
    ring: str
    mode: str
    size: int           # with FCS, as the literature quotes it

    def __str__(self):
        return f"{self.scenario} {self.ring} {self.mode} {self.size} B"

    @property
    def unit(self):
        return "cycles/packet" if self.scenario == "pmd-perf" else "Mpps"

    @property
    def ports(self):
        return len(VFN_PORT[self.scenario])

    def mbuf_args(self):
        """A frame fits one buffer, headroom included, on either side."""
        if self.size <= 2048:
            return []
        return [f"--mbuf-size={self.size + 256}", "--total-num-mbufs=8000"]

    def virtio(self, sockets, more=""):
        """(--vdev of each front-end port, EAL options)"""
        options = MODES[self.mode] + more
        if self.mode == "vectorized" and self.ring == "split":
            options += ",in_order=0"
        vdevs = [f"net_virtio_user{i},path={path},queue_size=1024,"
                 f"packed_vq={int(self.ring == 'packed')}{options}"
                 for i, path in enumerate(sockets)]
        eal = ["--log-level=pmd.net.virtio.*:debug"]
        if self.mode == "vectorized":
            eal.append("--force-max-simd-bitwidth=512")
        return vdevs, eal

    def check_path(self, process):
        """That virtio-user took the path which the row is about."""
        paths = re.findall(r"virtio: using (.*) Rx path on port", process.log())
        wanted = RX_PATHS[self.ring, self.mode]
        if not paths or set(paths) != {wanted}:
            raise process.error(f"{self}: receives on the {paths} path, not {wanted}")


def rows(scenarios, rings, modes, sizes, perf_modes=None):
    """All combinations; dpdk-test has frames of 64 bytes only."""
    chosen = []
    for scenario in scenarios:
        perf = scenario == "pmd-perf"
        chosen += itertools.starmap(Row, itertools.product(
            [scenario], rings, perf_modes if perf and perf_modes else modes,
            [s for s in sizes if s == 64 or not perf]))
    return chosen


# --- the two sides ----------------------------------------------------------------------------

class Peer(pmd.NetVhost):
    """net_vhost in a testpmd whose forwarding mode is the best for the scenario."""

    def __init__(self, row, **testpmd):
        self._row, self._testpmd = row, testpmd
        super().__init__([f"peer{i}" for i in range(row.ports)])

    def start(self):
        row = self._row
        vdevs = [f"net_vhost{i},iface={path},queues=1" for i, path in enumerate(self.sockets)]
        topology = "paired" if row.ports == 2 else "loop"
        args = [f"--port-topology={topology}", "--burst=32", "--record-core-cycles",
                f"--txpkts={row.size - FCS}", *row.mbuf_args()]
        self.process = pmd.Testpmd(vdevs, args=args, lcores=f"0@{pmd.cpu(1)},1@{pmd.cpu(1)}",
                                   name="net_vhost", **self._testpmd)
        self.process.cmd(f"set fwd {PEER_MODE[row.scenario]}")
        self.process.cmd("start")

    def cycles(self):
        """(cycles of iterations with packets, their packets), so far"""
        return core_cycles(self.process)


class Vfn(pmd.Backend):
    def __init__(self, row, more="", idle="busy", **backend):
        super().__init__([
            f"vdpa_vfn{i},queues=1,idle={idle},poll-cpu={pmd.cpu(1)},{more}"
            + port.format(frame=row.size - FCS) for i, port in enumerate(VFN_PORT[row.scenario])],
            **backend)

    def cycles(self):
        """The same, of its pollers; None: they are an endpoint's."""
        if self.endpoint is not None:
            return None
        pollers = self.telemetry("/vfn/poller").values()
        return sum(p["busy_cycles"] for p in pollers), sum(p["packets"] for p in pollers)


class Tracked(Vfn):
    """In the driver's process, with an account of what is in flight, as behind an endpoint."""

    def __init__(self, row):
        self._regions = tempfile.TemporaryDirectory()   # pylint: disable=consider-using-with
        super().__init__(row, f"inflight={self._regions.name},", link="inproc")

    def close(self):
        super().close()
        self._regions.cleanup()


DEVICES = {"vfn": Vfn, "net_vhost": Peer, "inproc": Tracked,
           "endpoint": lambda row: Vfn(row, link="endpoint"),
           # the relay's thread has the same CPU
           "ntb": lambda row: Vfn(row, idle="sleep", link="ntb")}


class FrontEnd(pmd.Testpmd):
    """Stock testpmd, with a virtio-user port per socket."""

    def __init__(self, row, sockets, args=()):
        vdevs, eal = row.virtio(sockets)
        topology = "paired" if row.ports == 2 else "loop"
        super().__init__(vdevs, eal=eal, args=[
            f"--port-topology={topology}", "--burst=32", "--record-core-cycles",
            *row.mbuf_args(), f"--txpkts={row.size - FCS}", *args])
        try:
            row.check_path(self)
            self._row = row
            self.cmd(f"set fwd {FRONT_MODE[row.scenario]}")
            self.begin()
        except BaseException:
            self.kill()
            raise

    def begin(self):
        """Have packets pass; what is sent circulates: 256 packets per port."""
        self.cmd("start tx_first 8" if FRONT_MODE[self._row.scenario] == "io" else "start")

    def rate(self):
        """Million packets per second since the last call: received, or sent if none can be."""
        total, way = 0, "T" if self._row.scenario == "g2h" else "R"
        for port in range(self._row.ports):
            stats = self.port_stats(port)
            count, octets = stats[f"{way}X-packets"], stats[f"{way}X-bytes"]
            # not read at the same moment
            if count and round(octets / count) != self._row.size - FCS:
                raise self.error(f"{count} packets have {octets} bytes")
            total += stats[f"{way}x-pps"]
        return total / 1e6


def core_cycles(testpmd):
    found = re.search(r"total cycles=(\d+) / total \w+ packets=(\d+)\) ",
                      testpmd.cmd("show fwd stats all"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Side:
    """A device and its front-end, which run or are stopped together."""

    def __init__(self, name, row):
        self.name, self.row, self._asleep = name, row, False
        self.device = DEVICES[name](row)
        self.front = None

    def __enter__(self):
        self.device.__enter__()
        try:
            if self.row.scenario != "pmd-perf":
                self.front = FrontEnd(self.row, self.device.sockets)
        except BaseException:
            self.device.close()
            raise
        return self

    def __exit__(self, *why):
        self.wake()
        try:
            if self.front is not None:
                self.front.__exit__(*why)
        finally:
            self.device.__exit__(*why)

    def _processes(self):
        endpoint = getattr(self.device, "endpoint", None)
        processes = (self.device.process, endpoint and endpoint.process, self.front)
        return [process for process in processes if process is not None]

    def _signal(self, number):
        for process in self._processes():
            process.popen.send_signal(number)

    def sleep(self):
        if not self._asleep:
            self._signal(signal.SIGSTOP)
        self._asleep = True

    def wake(self):
        if self._asleep:
            self._signal(signal.SIGCONT)
        self._asleep = False

    def window(self, seconds):
        """(what was measured, the share of a CPU that others took)"""
        if self.front is None:
            return self._perf()
        pids = [os.getpid(), *(process.pid for process in self._processes())]
        time.sleep(SETTLE)
        device, front = self.device.cycles(), core_cycles(self.front)
        cpu = CpuTime(pids)
        self.front.rate()
        time.sleep(seconds)
        values = {"value": self.front.rate()}
        foreign = CpuTime(pids).foreign_since(cpu)
        values["front"] = per_packet(front, core_cycles(self.front))
        if device is not None:
            values["device"] = per_packet(device, self.device.cycles())
        return values, foreign

    def _perf(self):
        """pmd_perf_autotest can be run once per process."""
        vdevs, eal = self.row.virtio(self.device.sockets, ",cq=1,speed=10000")
        options = ["--lcores", f"0@{pmd.cpu(0)},1@{pmd.cpu(0)}", "--in-memory",
                   "--single-file-segments", "-m", 256, "--no-telemetry", *eal]
        for vdev in vdevs:
            options += ["--vdev", vdev]
        test = pmd.PromptProcess("RTE>>", "dpdk-test", options, [], wrapper=("stdbuf", "-oL"))
        try:
            test.at_prompt(20)
            # its main thread spins, next to the one that measures
            os.sched_setscheduler(test.pid, os.SCHED_IDLE, os.sched_param(0))
            pids = [os.getpid(), self.device.pid, test.pid]
            device, cpu = self.device.cycles(), CpuTime(pids)
            text = test.cmd("pmd_perf_autotest", 60)
            foreign = CpuTime(pids).foreign_since(cpu)
            self.row.check_path(test)
            result = re.search(r"Result: (\d+) cycles per packet", text)
            if result is None:
                raise test.error("pmd_perf_autotest has no result")
            values = {"value": int(result[1])}
            values["device"] = per_packet(device, self.device.cycles())
        finally:
            test.kill()
        return values, foreign


def per_packet(before, after):
    """Cycles per packet in between, if known."""
    return (after[0] - before[0]) / (after[1] - before[1])


# --- windows in turn --------------------------------------------------------------------------

def quiet_window(side, seconds, machine):
    """(a window, in which the machine was ours and as usual, how many were thrown away before)"""
    def window():
        machine.wait()
        side.wake()
        try:
            values, foreign = side.window(seconds)
        finally:
            side.sleep()
        values["limits"] = machine.gauge()
        return values, machine.ours(foreign) and machine.as_usual()

    values, noisy, dropped = machine.patience.measure(window)
    values["noisy"] = noisy
    return values, dropped


def measure(row, runs, windows, seconds, machine, progress, names=NAMES):
    """{name: [window]}, interleaved, and how many windows were thrown away.

    A run starts all processes anew, as where their memory lies has an influence.
    """
    found, dropped = {name: [] for name in names}, 0
    for run in range(runs):
        with contextlib.ExitStack() as stack:
            sides = []
            for name in names:
                sides.append(stack.enter_context(Side(name, row)))
                sides[-1].sleep()
            for _ in range(windows):
                for side in sides:
                    values, lost = quiet_window(side, seconds, machine)
                    found[side.name].append(values)
                    dropped += lost
        progress(run, {name: statistics.median(w["value"] for w in found[name][-windows:])
                       for name in names})
    return found, dropped
