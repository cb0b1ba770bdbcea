# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest whose disks are vhost-user sockets, with the tools for file systems.

Its shell has programs of busybox's with the same names: call /bin/mke2fs, /bin/e2fsck and /bin/fstrim
by their paths.
"""

import functools
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from . import KERNEL_ARGUMENTS, Guest, qemu_major
from .image import (DISK_TOOLS, MODULES, PROGRAMS, TOOLS, cache_dir, initramfs, kernel_candidate, locked,
                    store, unpacked, which, with_libraries)

MORE_MODULES = ("virtio_blk", "crc32c_generic", "ext4")
MORE_PROGRAMS = ("blocks",)


@dataclass
class Disk:
    """One vhost-user disk. `props` are properties of vhost-user-blk-pci.

    `reconnect`: QEMU comes back, after so many seconds, when the backend has gone.
    """
    socket: str
    queues: int = 1
    reconnect: int = 0
    props: dict = field(default_factory=dict)


# on a file system of their own: too much for an initramfs
LARGE_TOOLS = {"fio": "fio"}


def tools_disk(directory):
    """Path of a disk to mount, and change root to, with LARGE_TOOLS."""
    tree, path = Path(directory, "tools"), Path(directory, "tools.disk")
    for tool in LARGE_TOOLS:
        for name, data in with_libraries(which(tool), f"bin/{tool}").items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(data)
            (tree / name).chmod(0o755)
    for name in "dev", "proc", "tmp":
        (tree / name).mkdir()
    subprocess.run([which("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, path, "192M"],
                   check=True)
    return path


@functools.lru_cache(maxsize=None)
def disk_image():
    """(kernel, initramfs) as paths in the cache. Raises ImageError with the reason."""
    cache = cache_dir()
    with locked(cache):
        kernel = unpacked(cache, kernel_candidate, "linux-image-*")
        archive = initramfs(kernel, (*MODULES, *MORE_MODULES), (*PROGRAMS, *MORE_PROGRAMS),
                            tools=(*TOOLS, *DISK_TOOLS))
        return next(kernel.glob("boot/vmlinuz-*")), store(cache, archive)


class DiskGuest(Guest):
    """`with DiskGuest([Disk(...)]) as guest:`. Disks are vda, vdb, ... in the order given.

    `boot_disk`: the BIOS starts what the first one has, which takes no commands. `program`: another
    QEMU than this machine's.
    """

    def __init__(self, disks, name="guest", boot_disk=False, program=None, **more):
        super().__init__([], name=name, **more)
        self.disks = list(disks)
        self.boot_disk = boot_disk
        self.program = program

    def twin(self, disks, name):    # pylint: disable=arguments-renamed
        other = DiskGuest(disks, name, cpus=self.cpus, memory=self.memory)
        self.arrives_in(other)
        return other

    def _program(self):
        return self.program or super()._program()

    def _system(self):
        if self.boot_disk:
            return []
        kernel, archive = disk_image()
        return ["-kernel", str(kernel), "-initrd", str(archive), "-append", KERNEL_ARGUMENTS]

    def _argv(self):
        return [*super()._argv(), *(word for number, disk in enumerate(self.disks)
                                    for word in self._disk(number, disk))]

    def _disk(self, number, disk):
        props = {"disable-legacy": "on", "num-queues": disk.queues}
        old = qemu_major(self._program()) < 10
        if old:
            props["vectors"] = "0"  # 7.2 under TCG crashes with MSI-X and vhost-user
        if self.boot_disk and number == 0:
            props["bootindex"] = "0"
        props.update(disk.props)
        again = "" if not disk.reconnect else (
            f",reconnect={disk.reconnect}" if old else f",reconnect-ms={disk.reconnect * 1000}")
        return ["-chardev", f"socket,id=disk{number},path={disk.socket}{again}",
                "-device", ",".join([f"vhost-user-blk-pci,chardev=disk{number},id=blk{number}",
                                     *(f"{key}={value}" for key, value in props.items())])]


__all__ = ["LARGE_TOOLS", "Disk", "DiskGuest", "disk_image", "tools_disk"]
