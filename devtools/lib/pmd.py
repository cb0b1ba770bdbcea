# SPDX-License-Identifier: BSD-3-Clause
"""The processes of a vfn set-up: the device side (vfn-vhost, or net_vhost as its peer) and
stock dpdk-testpmd as its front-end.

Shared by the topology tests, quickstart.py and bench.py. Every process started here is a child
that dies with its parent, has an EAL file prefix of its own, and is stopped by its own pid.
"""

import contextlib
import ctypes
import itertools
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from split_device import split_device

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
PLUGIN = "librte_vdpa_vfn.so"
SLOW = 4 if "ASAN_OPTIONS" in os.environ else 1
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)
_serial = itertools.count()


class PmdError(Exception):
    """A process did not do what it should; the message ends with what it printed last."""


def build_dir():
    """The build directory: VFN_BUILD, or build/ in the source tree."""
    return os.path.abspath(os.environ.get("VFN_BUILD") or os.path.join(ROOT, "build"))


def plugin_dir():
    return os.path.join(build_dir(), "drivers", "vdpa", "vfn")


def cpu(number):
    """The CPU with that number, or the last one there is. With VFN_FIRST_CPU in the environment
    the numbers begin with that one: what runs side by side does not crowd on the same."""
    cpus = sorted(os.sched_getaffinity(0))
    first = int(os.environ.get("VFN_FIRST_CPU", 0)) % len(cpus)
    return (cpus[first:] + cpus[:first])[min(number, len(cpus) - 1)]


def with_plugin(env=None):
    """An environment in which `-d PLUGIN` finds our driver.

    EAL refuses a path with a world-writable parent, so the driver is named, not pathed.
    """
    env = dict(os.environ if env is None else env)
    paths = [plugin_dir()] + [p for p in [env.get("LD_LIBRARY_PATH")] if p]
    env["LD_LIBRARY_PATH"] = ":".join(paths)
    return env


def runtime_dirs(prefix):
    """Where EAL keeps the run-time files of a file prefix: as told, as root, and otherwise."""
    user = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
    bases = [b for b in (os.environ.get("RUNTIME_DIRECTORY"), "/var/run", user) if b]
    return [os.path.join(base, "dpdk", prefix) for base in bases]


def hugetlbfs_mounts():
    with open("/proc/mounts", encoding="utf-8") as mounts:
        return [m.split()[1] for m in mounts if m.split()[2] == "hugetlbfs"]


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child whose output is collected as it comes and whose input is held open."""

    started = []

    def __init__(self, argv, name=None, env=None, cwd=None, **popen):
        self.argv = [str(a) for a in argv]
        self.name = name or os.path.basename(self.argv[0])
        self._text = ""
        self._times = []        # (how much text there was, when)
        self._grown = threading.Condition()
        self._closed = False
        try:
            # fork in a thread would tie the child's life to that thread: start from the main one
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env=env, cwd=cwd, preexec_fn=_die_with_parent,
                start_new_session=True,    # Ctrl-C is for us: we end our children in order
                **popen)
        except OSError as error:
            raise PmdError(f"cannot start {self.name}: {error}") from error
        self.pid = self.popen.pid
        os.set_blocking(self.popen.stdout.fileno(), False)
        Process.started.append(self)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        poll = select.poll()
        poll.register(self.popen.stdout.fileno(), select.POLLIN)
        while not self._closed:
            poll.poll()
            self._take()

    def _take(self):
        """What is in the pipe: whoever asks for the log need not wait for the thread."""
        with self._grown, contextlib.suppress(BlockingIOError):
            while not self._closed:
                data = os.read(self.popen.stdout.fileno(), 65536)
                self._closed = not data
                self._text += data.decode(errors="replace")
                self._times.append((len(self._text), time.monotonic()))
                self._grown.notify_all()

    def log(self):
        """Everything the process has printed so far."""
        self._take()
        return self._text

    def mark(self):
        """The place in the log from which a later expect() should look."""
        return len(self.log())

    def alive(self):
        return self.popen.poll() is None

    def error(self, what):
        tail = "\n".join(self.log().splitlines()[-25:])
        return PmdError(f"{self.name} (pid {self.pid}): {what}\n--- its last output ---\n{tail}")

    def expect(self, pattern, timeout=30, since=0):
        """Wait until the log from `since` on matches; return the match. A line that has a time
        begins behind it."""
        regex = re.compile(re.sub(r"^\^", r"^(?:[\\d-]+ [\\d:.]+ )?", pattern), re.MULTILINE)
        deadline = time.monotonic() + timeout * SLOW
        with self._grown:
            while not (match := regex.search(self._text, since)):
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    break
                self._grown.wait(left)
        if match:
            return match
        why = "ended" if self._closed else "was silent"
        raise self.error(f"{why}, expected {pattern!r}")

    def when(self, place):
        """When that place of the log was read, by time.monotonic()."""
        with self._grown:
            return next(at for length, at in self._times if length > place)

    def send(self, line):
        try:
            self.popen.stdin.write(line.encode() + b"\n")
            self.popen.stdin.flush()
        except OSError as error:
            raise self.error(f"cannot be told {line!r}: {error}") from error

    def wait(self, timeout=30):
        """Wait for the end; return the exit code."""
        try:
            code = self.popen.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise self.error(f"still runs after {timeout * SLOW} s") from None
        self._reader.join(5)
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        return code

    def end(self, timeout=30):
        """SIGTERM, and exit code 0."""
        self.popen.terminate()
        try:
            code = self.wait(timeout)
        except PmdError:
            self.kill()
            raise
        if code != 0:
            raise self.error(f"ended with {code} on SIGTERM")

    def kill(self):
        """SIGKILL, whatever state it is in; never raises."""
        self.popen.kill()
        self.popen.wait()
        self._reader.join(5)
        with contextlib.suppress(OSError):
            self.popen.stdin.close()


class EalProcess(Process):
    """A DPDK application: unique file prefix, and its run-time directory removed at the end."""

    def __init__(self, program, eal, args, name=None, env=None, wrapper=(), **popen):
        self.prefix = f"vfn-{os.getpid()}-{next(_serial)}"
        argv = [*wrapper, program, "--no-pci", "--file-prefix", self.prefix, *eal, "--", *args]
        super().__init__(argv, name=name or os.path.basename(program), env=env, **popen)

    def _clean(self):
        # EAL leaves the directory behind, empty, even with --in-memory
        for path in runtime_dirs(self.prefix):
            shutil.rmtree(path, ignore_errors=True)

    def wait(self, timeout=30):
        code = super().wait(timeout)
        self._clean()
        return code

    def kill(self):
        super().kill()
        self._clean()


class PromptProcess(EalProcess):
    """A DPDK application with DPDK's command line on its standard input."""

    def __init__(self, prompt, *args, **kwargs):
        self.prompt = prompt
        super().__init__(*args, **kwargs)

    def at_prompt(self, timeout=30, since=0):
        """Wait for the prompt; return where it begins in the log.

        The prompt is written letter by letter, so what another thread prints can tear it apart:
        an empty line brings a new one.
        """
        deadline, nudged = time.monotonic() + timeout * SLOW, False
        while True:
            patience = min(2, max(0.1, deadline - time.monotonic()))
            try:
                found = self.expect(re.escape(self.prompt), patience / SLOW, since)
                break
            except PmdError:
                if not self.alive() or time.monotonic() >= deadline:
                    raise
                self.send("")
                nudged = True
        if nudged:
            time.sleep(0.3 * SLOW)    # was it slow and not torn, there is one prompt too many
        return found.start()

    def cmd(self, line, timeout=30):
        """Say one line at the prompt; return what was printed up to the next prompt."""
        since = self.mark()
        self.send(line)
        end = self.at_prompt(timeout, since)
        return self.log()[since:end]


class Scratch:
    """A short-lived directory with a path short enough for socket names."""

    def __init__(self, path=None):
        self._own = path is None
        self.path = path or tempfile.mkdtemp(prefix="vfn-")

    def remove(self):
        if self._own:
            shutil.rmtree(self.path, ignore_errors=True)


class Device:
    """What Backend and NetVhost have in common: sockets, a process, and an orderly end."""

    def __init__(self, client, directory):
        self.client = client
        self._scratch = Scratch(directory)
        self.directory = self._scratch.path
        self.sockets = []
        self.process = None

    def __enter__(self):
        if self.process is None:
            self.start()
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if kind is None and self.process is not None:
                self.stop()
        finally:
            self.close()

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.process.log() if self.process else ""

    def telemetry(self, command):
        """What telemetry answers to a command: the value, {"error": text} if it is refused."""
        path = os.path.join(runtime_dirs(self.process.prefix)[0], "dpdk_telemetry.v2")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(30 * SLOW)
            sock.connect(path)
            sock.recv(1024)     # what it is
            sock.send(command.encode())
            return next(iter(json.loads(sock.recv(1 << 16)).values()))

    def stop(self, timeout=30):
        """SIGTERM: exit code 0, and the sockets it made are gone."""
        process, self.process = self.process, None
        process.end(timeout)
        left = [s for s in self.sockets if not self.client and os.path.exists(s)]
        if left:
            raise process.error(f"left {left} behind")

    def kill(self):
        """SIGKILL: sockets and clients are left as they are."""
        self.process.kill()
        self.process = None

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process = None
        self._scratch.remove()


class Endpoint(Device):
    """vfn-endpoint with functions, one per entry ("vdpa_vfn0,queues=1,..."), at sockets or bridges."""

    def __init__(self, functions, directory=None, eal=(), args=(), start=True, bridges=False):
        super().__init__(False, directory)
        self.names = [f.split(",")[0] for f in functions]
        self.sockets = [os.path.join(self.directory, f"endpoint{i}") for i in range(len(functions))]
        self.bridges = bridges
        self.functions = [f"{f},{'ntb' if bridges else 'socket'}={path}"
                          for f, path in zip(functions, self.sockets)]
        self._eal, self._args = list(eal), list(args)
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    def start(self, timeout=15):
        """Start (again) on the same sockets."""
        eal = ["--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64", "--no-shconf", *self._eal]
        args = [arg for f in self.functions for arg in ("--function", f)]
        self.process = EalProcess(os.path.join(build_dir(), "app", "vfn-endpoint"), eal,
                                  [*args, *self._args])
        self.process.expect("vfn-endpoint: ready", timeout)

    def serves(self):
        """Whether somebody listens, this one or another; at bridges drivers do, too."""
        if self.bridges:
            return self.process is not None
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(self.sockets[0]) == 0

    def signal(self, number):
        self.process.popen.send_signal(number)

    def info(self, number):
        return self.telemetry(f"/vfn_endpoint/info,{self.names[number]}")

    def counter(self, number, name):
        """Of all queues of a function."""
        return sum(self.telemetry(f"/vfn_endpoint/queue,{self.names[number]},{queue}")[name]
                   for queue in range(2 * self.info(number)["queue_pairs"]))


class Backend(Device):
    """vfn-vhost with its functions, one per entry of devs ("vdpa_vfn0,queues=1,...").

    With link "endpoint" or "ntb" ("host", "ntb-host": the driver decides what the functions are)
    these are in a process of their own, self.endpoint, which lives from the first start to close().

    A context manager; leaving it asserts an orderly end. Functions that name no poll-cpu are
    polled on the CPU away from testpmd's forwarding lcore, sleeping when quiet. Without the gate
    messages go to librte_vhost unjudged.
    """

    def __init__(self, devs=("vdpa_vfn0",), client=False, directory=None, eal=(), args=(),
                 start=True, wrapper=(), gate=True, link=None):
        super().__init__(client, directory)
        self.link = link or os.environ.get("VFN_LINK", "inproc")
        self.endpoint = None
        if isinstance(devs, str):
            devs = [devs]
        self._wrapper = wrapper
        self.devs = [self._defaults(d) for d in devs]
        self.names = [d.split(",")[0] for d in self.devs]
        self.sockets = [os.path.join(self.directory, f"sock{i}") for i in range(len(devs))]
        self._eal, self._args = list(eal), list(args)
        if self.link != "inproc" and not any(",link=" in d for d in devs):
            link = "ntb" if self.link.startswith("ntb") else "endpoint"
            split = [split_device(d, self.link.endswith("host")) for d in self.devs]
            self.endpoint = Endpoint([function for function, _ in split], self.directory,
                                     start=False, bridges=link == "ntb")
            self.devs = [f"{mine},link={link},path={path}"
                         for (_, mine), path in zip(split, self.endpoint.sockets)]
        if not gate:
            self._args.append("--no-gate")
            self._eal.append("--log-level=lib.vhost.config:info")
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    @staticmethod
    def _defaults(dev):
        if ",link=" in dev:
            return dev  # whoever made the endpoint has said how its functions are polled
        for key, value in (("idle", "sleep"), ("poll-cpu", cpu(1))):
            if f",{key}=" not in dev:
                dev += f",{key}={value}"
        return dev

    def start(self, timeout=15):
        """Start (again), on the same sockets, and wait until they are served."""
        self.start_endpoint(timeout)
        program = os.path.join(build_dir(), "app", "vfn-vhost")
        eal = ["--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64", "--no-shconf",
               "-d", PLUGIN, *self._eal]
        for dev in self.devs:
            eal += ["--vdev", dev]
        args = ["--iface", os.path.join(self.directory, "sock"), "-i", *self._args]
        if self.client:
            args.append("--client")
        self.process = PromptProcess("vdpa> ", program, eal, args, env=with_plugin(),
                                     wrapper=self._wrapper)
        ready = self.process.expect(r"vfn-vhost: ready, \d+ socket", timeout)
        self.process.at_prompt(timeout, ready.end())

    def start_endpoint(self, timeout=15):
        """Have the functions, if they are elsewhere and no predecessor has them there."""
        if self.endpoint is not None and not self.endpoint.serves():
            self.endpoint.start(timeout)

    def close(self):
        super().close()
        if self.endpoint is not None:
            self.endpoint.close()

    def cmd(self, line, timeout=15):
        """Say one line at the prompt; return the answer."""
        return self.process.cmd(line, timeout)

    def stats(self, dev=0):
        """{queue: {name: value}} of a device, given by name or by number."""
        name = self.names[dev] if isinstance(dev, int) else dev
        return parse_stats(self.cmd(f"stats {name} all"))


def parse_stats(text):
    """{queue: {name: value}} from what `stats DEV all` prints (as the dpdk-vdpa example does)."""
    queues, current = {}, None
    for line in text.splitlines():
        if head := re.match(r"\s*virtq\s+(\d+)(?:\s+\(control\))?\s*:\s*$", line, re.IGNORECASE):
            current = queues.setdefault(int(head[1]), {})
        elif current is not None and (pair := re.match(r"\s*(\S.*?)\s+(\d+)\s*$", line)):
            current[pair[1]] = int(pair[2])
    return queues


class Testpmd(PromptProcess):
    """Stock dpdk-testpmd at its prompt."""

    __test__ = False    # not a test class, whatever pytest makes of the name

    def __init__(self, vdevs, eal=(), args=(), lcores=None, memory="huge", megabytes=256,
                 name="testpmd", timeout=20, start=True, wrapper=()):
        if memory == "huge":
            mem = ["--in-memory", "--single-file-segments", "-m", megabytes]
        elif memory == "no-huge":
            mem = ["--no-huge", "-m", megabytes]
        else:
            raise ValueError(memory)
        lcores = lcores or f"0@{cpu(0)},1@{cpu(0)}"
        options = ["--lcores", lcores, *mem, "--no-telemetry", *eal]
        for vdev in vdevs:
            options += ["--vdev", vdev]
        args = ["-i", "--no-mlockall", "--nb-cores=1", *args]
        if not any(a.startswith("--total-num-mbufs") for a in args):
            args.append("--total-num-mbufs=20000")
        super().__init__("testpmd> ", "dpdk-testpmd", options, args, name=name,
                         wrapper=("stdbuf", "-oL", *wrapper))
        if start:
            self.ready(timeout)

    def ready(self, timeout=20):
        """Wait for the first prompt; a virtio-user port in server mode comes up before it."""
        try:
            self.at_prompt(timeout)
            if re.search(r"Bus \(vdev\) probe failed|Start ports failed", self.log()):
                raise self.error("a port did not come up")
        except PmdError:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if kind is None and self.alive():
                self.quit()
        finally:
            self.kill()

    def port_stats(self, port):
        """{"RX-packets": n, ...} of `show port stats`."""
        text = self.cmd(f"show port stats {port}")
        return {k: int(v) for k, v in re.findall(r"([RT][xX]-[\w-]+):\s+(\d+)", text)}

    def stop_forwarding(self):
        """Stop; return {port: {"RX-packets": n, "TX-dropped": n, ...}} of this run."""
        text = self.cmd("stop")
        ports = {}
        for part in re.split(r"Forward statistics for port\s+", text)[1:]:
            body = part.split("Accumulated")[0]
            ports[int(re.match(r"\d+", part)[0])] = {
                k: int(v) for k, v in re.findall(r"([RT]X-[\w-]+):\s+(\d+)", body)}
        return ports

    def link_up(self, port):
        return re.search(r"Link status: up", self.cmd(f"show port info {port}")) is not None

    def features(self):
        """The feature word that virtio-user last gave to its device (needs its debug log)."""
        return int(re.findall(r"set features: (0x[0-9a-f]+)", self.log())[-1], 16)

    def quit(self, timeout=15):
        self.send("quit")
        code = self.wait(timeout)
        if code != 0:
            raise self.error(f"ended with {code} on quit")


class Loop(Testpmd):
    """A front-end that sends back what it receives on its one virtio-user port, queue pair by
    queue pair: with a device that does the same, what `start_traffic` sends circulates until
    `stop_forwarding`."""

    in_flight = 256

    def __init__(self, path, packed=False, size=64, options="", pairs=1, **more):
        virtio = (f"net_virtio_user0,path={path},queues={pairs},queue_size=1024,"
                  f"packed_vq={int(packed)}{options}")
        args = ["--port-topology=loop", "--burst=32", f"--rxq={pairs}", f"--txq={pairs}"]
        if size > 2048:
            # a frame fits one buffer, headroom included; testpmd wants to know before --txpkts
            args += [f"--mbuf-size={size + 256}", "--total-num-mbufs=8000"]
        args.append(f"--txpkts={size}")
        super().__init__([virtio], args=args, eal=["--log-level=pmd.net.virtio.*:debug"], **more)

    def start_traffic(self):
        self.cmd(f"start tx_first {self.in_flight // 32}")

    def layout(self):
        """The ring layout that was negotiated."""
        return "packed" if self.features() >> 34 & 1 else "split"


class NetVhost(Device):
    """Stock net_vhost in a testpmd that loops each port onto itself.

    The peer of every comparison, and the control that tells a fault of a test from one of ours.
    """

    def __init__(self, devs=("peer0",), client=False, directory=None, burst=32):
        super().__init__(client, directory)
        if isinstance(devs, str):
            devs = [devs]
        self._queues = max(int((re.search(r",queues=(\d+)", d) or (0, 1))[1]) for d in devs)
        self.sockets = [os.path.join(self.directory, f"sock{i}") for i in range(len(devs))]
        self._burst = burst
        self.start()

    def start(self):
        vdevs = [f"net_vhost{i},iface={s},queues={self._queues},client={int(self.client)}"
                 for i, s in enumerate(self.sockets)]
        args = ["--port-topology=loop", f"--rxq={self._queues}", f"--txq={self._queues}",
                f"--burst={self._burst}"]
        self.process = Testpmd(vdevs, args=args, lcores=f"0@{cpu(1)},1@{cpu(1)}", name="net_vhost")
        self.process.cmd("start")

    def stop(self):
        process, self.process = self.process, None
        try:
            process.quit()
        finally:
            process.kill()
