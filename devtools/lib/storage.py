# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's storage daemon and its vhost-user-blk export: the peer of class=blk in tests and benchmarks."""

import os
import time

from pmd import SLOW, Device, Process

PROGRAM = "qemu-storage-daemon"


class StorageDaemon(Device):
    """A disk for each of `disks`: a file's path, or a number of bytes of nothing.

    One I/O thread serves all, on `cpu` if that is not None, and polls as QEMU does by itself.
    """

    def __init__(self, disks, directory=None, queues=1, read_only=(), direct=False, cpu=None,
                 start=True):
        super().__init__(False, directory)
        self.sockets = [os.path.join(self.directory, f"qsd{i}") for i in range(len(disks))]
        self._cpu = cpu
        self._argv = [PROGRAM, "--object", "iothread,id=worker"]
        for number, (disk, path) in enumerate(zip(disks, self.sockets)):
            self._argv += [
                "--blockdev", self._node(f"node{number}", disk, number in read_only, direct),
                "--export", f"type=vhost-user-blk,id=export{number},node-name=node{number},"
                f"writable={'off' if number in read_only else 'on'},num-queues={queues},"
                f"iothread=worker,addr.type=unix,addr.path={path}"]
        if start:
            self.start()

    @staticmethod
    def _node(name, disk, read_only, direct):
        if isinstance(disk, int):
            return f"driver=null-co,node-name={name},size={disk},read-zeroes=off"
        return (f"driver=file,node-name={name},filename={disk},discard=unmap,"
                f"read-only={'on' if read_only else 'off'}"
                + (",cache.direct=on,aio=io_uring" if direct else ""))

    def start(self):
        pin = [] if self._cpu is None else ["taskset", "-c", str(self._cpu)]
        self.process = Process([*pin, *self._argv], name=PROGRAM)
        deadline = time.monotonic() + 20 * SLOW
        while not all(map(os.path.exists, self.sockets)):
            if not self.process.alive() or time.monotonic() > deadline:
                raise self.process.error("does not serve")
            time.sleep(0.02)

    def stop(self, timeout=0):
        """It does not always end when it is asked to, and leaves its sockets then."""
        self.kill()

    def kill(self):
        super().kill()
        for path in self.sockets:       # it refuses to start on what is there
            if os.path.exists(path):
                os.unlink(path)
