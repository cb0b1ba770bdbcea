# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest without a hypervisor: user-mode Linux, whose devices are vhost-user sockets.

It is the kernel's own virtio driver as a vhost-user front-end: it passes the control queue on to
the back-end, has rings of 256 entries and one region of memory, and its device goes for good with
the connection. Commands go over a terminal that is a socket of ours.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import Guest
from .image import uml_image, which


class Uml(Guest):
    """`with Uml(SOCKET) as guest:` as for a Guest, with one card, or none (None). `disks` are
    sockets too: vda, vdb, ... in the order given. `memory` is in MiB.

    stop() and kill() end all of its processes, whatever they hang in.
    """

    def __init__(self, path, name="uml", memory=128, disks=()):
        super().__init__([], name, memory=memory)
        # by numbers of virtio, section 5
        self.devices = [(path, 1)] if path is not None else []
        self.devices += [(disk, 2) for disk in disks]

    def start(self, incoming=False):
        assert self._qemu is None and not incoming
        kernel, initramfs, preload = uml_image()
        self._dir = Path(tempfile.mkdtemp(prefix="vfn-uml-"))
        self._control, theirs = socket.socketpair()
        # The kernel's memory is a file there, and the back-end takes none of every file system.
        environ = {**os.environ, "TMPDIR": "/dev/shm", "LD_PRELOAD": str(preload)}
        self.argv = [str(kernel), f"mem={self.memory}M", f"initrd={initramfs}", "root=/dev/ram0",
                     f"uml_dir={self._dir}/", f"umid={self.name}", "con=null", "ssl=null",
                     "con0=null,fd:1", f"con1=fd:{theirs.fileno()}", "loglevel=6", "panic=-1",
                     "vfn.control=/dev/tty1",
                     *(f"virtio_uml.device={path}:{number}" for path, number in self.devices)]
        try:
            with theirs, open(self._dir / "console.log", "wb") as log:
                # A session of its own: by that its processes are found.
                self._qemu = subprocess.Popen(
                    [which("setpriv"), "--pdeathsig", "KILL", "setarch", "-R", *self.argv],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ,
                    pass_fds=[theirs.fileno()], start_new_session=True)
        except BaseException:
            self._release()
            raise
        self._control.setblocking(False)

    def stop(self):
        self._release()

    def kill(self):
        self._release()

    def processes(self):
        """The pids of the kernel and of what it has running."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                stat = Path("/proc", pid, "stat").read_text(encoding="ascii", errors="replace")
                state, session = stat.rpartition(")")[2].split()[0:4:3]
                if int(session) == self._qemu.pid and state not in "ZX":
                    found.append(int(pid))
        return found

    def _release(self):
        if self._qemu is not None:
            # A traced process that nobody traces any more may start others until it is dead.
            while pids := self.processes():
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._qemu.poll()
                time.sleep(0.01)
            self._qemu.wait()
        if self._control is not None:
            self._control.close()
        if self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
        self._control = self._qemu = self._dir = None
        self._buffer = b""

    def _say_where(self):
        pass
