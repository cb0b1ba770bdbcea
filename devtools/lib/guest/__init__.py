# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest in stock QEMU whose network cards are vhost-user sockets.

Needs no KVM (TCG only). The kernel's log goes to a file, commands go over a virtio-serial
port; a Guest leaves no process, socket or file behind, however its block ends.
"""

import base64
import contextlib
import functools
import itertools
import json
import mmap
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .image import ImageError, image, missing, which

__all__ = ["Guest", "GuestError", "Job", "Nic", "Result", "ImageError", "image", "linux",
           "missing"]

QEMU = "qemu-system-x86_64"
BOOT_SECONDS = 600  # 3-6 s on a quiet machine; only a bound for a guest that hangs
COMMAND_SECONDS = 120
STOP_SECONDS = 10
# A busy host spoils the calibration of the TSC: HPET needs none; and the check of the timer, whose
# failure is a panic. An NMI makes a guest that hangs say where. Programs at fixed addresses: TCG finds
# what it has translated before by address, and starting bash costs a quarter.
KERNEL_ARGUMENTS = ("console=ttyS0 loglevel=6 net.ifnames=0 panic=0 tsc=unstable clocksource=hpet "
                    "no_timer_check unknown_nmi_panic norandmaps")


class GuestError(RuntimeError):
    """The guest or QEMU did something else than it was told; the message carries the logs' ends."""


@dataclass
class Nic:
    """One vhost-user network card.

    `queues` counts pairs. `server`: QEMU listens and the backend connects. `props` are properties
    of virtio-net-pci, such as {"packed": "on"}.
    """
    socket: str
    mac: str
    queues: int = 1
    server: bool = False
    props: dict = field(default_factory=dict)


@dataclass
class Result:
    """Exit status and output (stdout and stderr as they came) of a command in the guest."""
    rc: int
    out: str


class Job:
    """A command that runs in the guest, wherever that is now, while other commands do."""

    def __init__(self, guest, number, command):
        self.guest = guest
        self._base = f"/tmp/job.{number}"
        self.command = command

    def done(self):
        return self.guest.run(f"test -e {self._base}.rc", check=False).rc == 0

    def wait(self, check=True, timeout=COMMAND_SECONDS):
        """Result of the command, once it has ended."""
        ended = self.guest.run(
            f"until test -e {self._base}.rc; do sleep 0.1; done; "
            f"cat {self._base}.out; echo; cat {self._base}.rc", check=False, timeout=timeout)
        if ended.rc != 0:
            out = self.guest.run(f"cat {self._base}.out").out
            raise GuestError(self.guest.explain(
                f"not finished after {timeout} s: {self.command}\n{out}"))
        out, _, status = ended.out.rstrip("\n").rpartition("\n")
        result = Result(int(status), out)
        if check and result.rc != 0:
            raise GuestError(self.guest.explain(
                f"exit status {result.rc}: {self.command}\n{out}"))
        return result


def linux(kernel, initramfs):
    """Arguments of QEMU that boot it."""
    return ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", KERNEL_ARGUMENTS]


@functools.lru_cache(maxsize=None)
def qemu_major(program=QEMU):
    text = subprocess.run([program, "--version"], text=True, capture_output=True).stdout
    return int(re.search(r"version (\d+)", text)[1])


class Guest:
    """`with Guest([Nic(...)]) as guest:` starts QEMU; boot() waits until commands can run.

    Start several guests before the first boot() and they boot side by side. Cards appear in the
    guest as eth0, eth1, ... in the order given. `memory` is in KiB.
    """

    machine = "pc"

    def __init__(self, nics, name="guest", cpus=1, memory=384 << 10, slots=0):
        self.name = name
        self.nics = list(nics)
        self.cpus = cpus
        self.memory = memory
        self.slots = slots      # for plug_memory()
        self.boot_id = None
        self.argv = []          # of QEMU
        self._dir = None
        self._qemu = None
        self._control = None
        self._qmp = None
        self._buffer = b""
        self._events = []       # of QMP
        self._numbers = itertools.count(1)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(self.explain("test failed"))
        self.stop()

    # Life of the QEMU process.

    def start(self, incoming=False):
        """Start QEMU, anew if it was stopped or killed. incoming: see twin()."""
        assert self._qemu is None, "already started"
        self._dir = Path(tempfile.mkdtemp(prefix="vfn-guest-"))
        more = ["-S", "-incoming", "defer"] if incoming else []
        try:
            self.argv = [*self._argv(), *more]
            with open(self._dir / "qemu.log", "wb") as log:
                # Also when this process is killed, QEMU must not survive it.
                self._qemu = subprocess.Popen(
                    [which("setpriv"), "--pdeathsig", "KILL", *self.argv],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self._control = self._connect("control")
        except BaseException:
            self._release()
            raise

    def stop(self):
        """End QEMU: asked politely, then by SIGTERM, then by SIGKILL. Does nothing when stopped."""
        try:
            if self.alive():
                for ask in (lambda: self.qmp("quit"), self._qemu.terminate):
                    try:
                        ask()
                        self._qemu.wait(STOP_SECONDS)
                        break
                    except (GuestError, OSError, subprocess.TimeoutExpired):
                        continue
        finally:
            self._release()

    def kill(self):
        """SIGKILL: the backend's peer is gone between two instructions."""
        self._qemu.send_signal(signal.SIGKILL)
        self._release()

    def reset(self):
        """Press the reset button; boot() then waits for the new kernel."""
        self.qmp("system_reset")

    def plug_memory(self, megabytes):
        """Another module of memory, of which the guest makes use when this returns."""
        before = self._total()
        name = f"plugged{next(self._numbers)}"
        self.qmp("object-add", **{"qom-type": "memory-backend-memfd", "id": name, "share": True,
                                  "size": megabytes << 20})
        self.qmp("device_add", driver="pc-dimm", id=f"dimm-{name}", memdev=name)
        self.run(f"""
            until free -m | awk '/^Mem/ {{ exit $2 < {before + megabytes * 9 // 10} }}'; do
                for state in /sys/devices/system/memory/memory*/state; do
                    grep -q online $state || echo online_kernel >$state
                done
                usleep 100000
            done
        """)

    def _total(self):
        """Megabytes the guest has in all."""
        return int(self.run("free -m | awk '/^Mem/ { print $2 }'").out)

    # Migration.

    def twin(self, nics, name):
        """A QEMU like this one on other sockets, to which the guest can migrate: started, and
        paused when it has arrived. It knows what this one knows of the guest.
        """
        other = Guest(nics, name, self.cpus, self.memory)
        self.arrives_in(other)
        return other

    def arrives_in(self, other):
        """Start a QEMU for this guest to come to."""
        other.boot_id, other._numbers = self.boot_id, self._numbers
        other.start(incoming=True)

    def migrate_to(self, other):
        """Begin; query-migrate tells how it goes on."""
        uri = f"unix:{other._dir}/incoming"
        other.qmp("migrate-incoming", uri=uri)
        self.qmp("migrate", uri=uri)

    @contextlib.contextmanager
    def ram(self):
        """The guest's memory, to be read."""
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "memfd:memory-backend-memfd" in str(fd.readlink()):
                    with open(fd, "rb") as file:
                        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as ram:
                            yield ram
                    return
        raise GuestError(self.explain("its memory cannot be found"))

    @property
    def pid(self):
        """Of QEMU."""
        return self._qemu.pid

    def alive(self):
        return self._qemu is not None and self._qemu.poll() is None

    def _release(self):
        for channel in (self._control, self._qmp):
            if channel is not None:
                channel.close()
        if self._qemu is not None:
            if self._qemu.poll() is None:
                self._qemu.kill()
            self._qemu.wait()
        if self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
        for nic in self.nics:
            if nic.server:  # a killed QEMU leaves the socket it listened on
                Path(nic.socket).unlink(missing_ok=True)
        self._control = self._qmp = self._qemu = self._dir = None
        self._buffer = b""

    def _argv(self):
        argv = [
            self._program(), "-name", self.name, "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", f"{self.machine},accel=tcg", "-cpu", "max", "-smp", str(self.cpus),
            "-object", f"memory-backend-memfd,id=ram,size={self.memory}K,share=on",
            "-m", f"{self.memory}K", "-numa", "node,memdev=ram",
            *(["-m", f"slots={self.slots},maxmem=4G"] if self.slots else []),
            *self._system(),
            "-chardev", f"file,id=console,path={self._dir}/console.log",
            "-serial", "chardev:console",
            "-chardev", f"socket,id=control,path={self._dir}/control,server=on,wait=off",
            # Not a second UART: with one, guests under load now and then stopped to answer.
            "-device", "virtio-serial-pci,disable-legacy=on",
            "-device", "virtserialport,chardev=control,name=control",
            "-qmp", f"unix:{self._dir}/qmp,server=on,wait=off",
        ]
        for number, nic in enumerate(self.nics):
            argv += self._card(number, nic)
        return argv

    def _program(self):
        return QEMU

    def _system(self):
        """What it boots."""
        return linux(*image())

    def _card(self, number, nic):
        props = {"mac": nic.mac, "disable-legacy": "on"}
        if qemu_major() < 10:
            props["vectors"] = "0"  # 7.2 under TCG crashes with MSI-X and vhost-user
        if nic.queues > 1:
            props["mq"] = "on"
        props.update(nic.props)
        role = ",server=on,wait=off" if nic.server else ""
        return [
            "-chardev", f"socket,id=chr{number},path={nic.socket}{role}",
            "-netdev", f"vhost-user,id=net{number},chardev=chr{number},queues={nic.queues}",
            "-device", ",".join([f"virtio-net-pci,netdev=net{number}",
                                 *(f"{key}={value}" for key, value in props.items())]),
        ]

    def _connect(self, name):
        """Connect to a socket QEMU is about to listen on."""
        channel = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                channel.connect(str(self._dir / name))
                channel.setblocking(False)
                return channel
            except (FileNotFoundError, ConnectionRefusedError):
                if not self.alive() or time.monotonic() > deadline:
                    channel.close()
                    raise GuestError(self.explain("QEMU did not start")) from None
                time.sleep(0.02)

    # What is said to it.

    def boot(self, within=BOOT_SECONDS):
        """Wait until a (re)started guest runs commands; returns self."""
        deadline = time.monotonic() + within
        while True:
            words = self._line(deadline, "boot").split()
            if len(words) == 2 and words[0] == "READY" and words[1] != self.boot_id:
                self.boot_id = words[1]
                return self

    def run(self, command, check=True, timeout=COMMAND_SECONDS):
        """Run a shell script in the guest. check: a status other than 0 raises GuestError.

        A script that runs longer than `timeout` seconds is killed and has status 137.
        """
        number = str(next(self._numbers))
        self._send(f"{number} {timeout} {base64.b64encode(command.encode()).decode()}\n")
        deadline = time.monotonic() + timeout + 60
        rc = None
        text = []
        while True:
            words = self._line(deadline, command).split()
            if rc is None:
                if len(words) == 3 and words[:2] == ["BEGIN", number]:
                    rc = int(words[2])
            elif words == ["END", number]:
                break
            else:
                text += words
        result = Result(rc, base64.b64decode("".join(text)).decode(errors="replace"))
        if check and rc != 0:
            raise GuestError(self.explain(f"exit status {rc}: {command}\n{result.out}"))
        return result

    def spawn(self, command):
        """Start a shell script in the background; returns its Job."""
        job = Job(self, next(self._numbers), command)
        script = base64.b64encode(command.encode()).decode()
        self.run(f"base={job._base}\n"
                 f"echo {script} | base64 -d >$base\n"
                 "(sh $base >$base.out 2>&1; echo $? >$base.tmp; mv $base.tmp $base.rc)"
                 " >/dev/null 2>&1 &")
        return job

    def read(self, path):
        """Contents of a small file in the guest, without the newline at its end."""
        return self.run(f"cat {path}").out.rstrip("\n")

    def features(self, nic=0):
        """Numbers of the feature bits that the driver of a card negotiated."""
        bits = self.read(f"/sys/class/net/eth{nic}/device/features")
        return {number for number, bit in enumerate(bits) if bit == "1"}

    def disk_features(self, disk="vda"):
        """Numbers of the feature bits that the driver of a disk negotiated."""
        bits = self.read(f"/sys/block/{disk}/device/features")
        return {number for number, bit in enumerate(bits) if bit == "1"}

    def statistic(self, name, nic=0):
        """One of the kernel's counters of a card, such as "rx_packets"."""
        return int(self.read(f"/sys/class/net/eth{nic}/statistics/{name}"))

    def queue_packets(self, direction, nic=0):
        """{queue: packets} the driver of a card counted; direction is "rx" or "tx"."""
        text = self.run(f"ethtool -S eth{nic}").out
        found = re.findall(rf"{direction}_queue_(\d+)_packets: (\d+)", text)
        return {int(queue): int(packets) for queue, packets in found}

    def snmp(self, name):
        """One of the IPv4 stack's counters, such as "Ip.FragCreates" or "Tcp.InCsumErrors"."""
        table, key = name.split(".")
        rows = [line.split()[1:] for line in self.read("/proc/net/snmp").splitlines()
                if line.startswith(table + ":")]
        return int(dict(zip(*rows))[key])

    def qmp(self, command, **arguments):
        """Run a QMP command; returns what it returns."""
        if self._qmp is None:
            self._qmp = self._connect("qmp")
            self._qmp.settimeout(COMMAND_SECONDS)
            self._qmp_file = self._qmp.makefile("r")
            self._qmp_file.readline()  # greeting
            self.qmp("qmp_capabilities")
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._qmp.sendall(json.dumps(request).encode() + b"\n")
        for line in self._qmp_file:
            answer = json.loads(line)
            if "error" in answer:
                raise GuestError(self.explain(f"QMP {command}: {answer['error']['desc']}"))
            if "return" in answer:
                return answer["return"]
            self._events.append(answer)
        raise GuestError(self.explain(f"QMP {command}: connection closed"))

    def event(self, name):
        """Wait for an event that QEMU has not told yet, or not been asked for; returns its data."""
        while True:
            while self._events:
                if (event := self._events.pop(0)).get("event") == name:
                    return event.get("data", {})
            try:
                self._events.append(json.loads(self._qmp_file.readline()))
            except (OSError, ValueError) as error:
                raise GuestError(self.explain(f"no event {name}: {error}")) from None

    def console(self):
        """What the guest's kernel, or firmware, has said so far."""
        return (self._dir / "console.log").read_bytes().decode(errors="replace")

    def explain(self, message):
        """The message with the ends of the guest's and of QEMU's log."""
        state = "not started"
        if self._qemu is not None:
            code = self._qemu.poll()
            state = "running" if code is None else f"QEMU ended with status {code}"
        parts = [f"{self.name} ({state}): {message}"]
        for name in ("console.log", "qemu.log"):
            path = self._dir / name if self._dir is not None else None
            if path is not None and path.exists():
                text = path.read_bytes()[-4000:].decode(errors="replace").replace("\r", "")
                parts.append(f"--- {self.name} {name}\n{text.rstrip()}")
        return "\n".join(parts)

    def _say_where(self):
        """Have a guest that hangs write its stack to the console."""
        with contextlib.suppress(GuestError, OSError, ValueError):
            self.qmp("inject-nmi")
            deadline = time.monotonic() + STOP_SECONDS
            while (b"end Kernel panic" not in (self._dir / "console.log").read_bytes()
                   and time.monotonic() < deadline):
                time.sleep(0.1)

    def _send(self, text):
        if self._control is None:
            raise GuestError(self.explain("not running"))
        data = text.encode()
        deadline = time.monotonic() + COMMAND_SECONDS
        while data:
            _, ready, _ = select.select([], [self._control], [], 1)
            try:
                if ready:
                    data = data[self._control.send(data):]
            except OSError as error:
                raise GuestError(self.explain(f"control channel: {error}")) from None
            if data and time.monotonic() > deadline:
                raise GuestError(self.explain("takes no commands"))

    def _line(self, deadline, what):
        """Next line the guest said on the control channel."""
        while b"\n" not in self._buffer:
            if self._control is None:
                raise GuestError(self.explain(f"not running: {what}"))
            ready, _, _ = select.select([self._control], [], [], 1)
            if ready:
                try:
                    data = self._control.recv(65536)
                except OSError:
                    data = b""
                if not data:
                    self._qemu.wait(STOP_SECONDS)
                    raise GuestError(self.explain(f"QEMU is gone: {what}"))
                self._buffer += data
            elif b"Kernel panic" in (self._dir / "console.log").read_bytes():
                raise GuestError(self.explain(f"kernel panic: {what}"))
            elif time.monotonic() > deadline:
                self._say_where()
                raise GuestError(self.explain(f"no answer: {what}"))
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode(errors="replace")
