# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest in which the server runs itself: its kernel's own drivers have the functions, by VDUSE.

Debian 12's kernel has no vDPA, that of its security suite (6.12) has: it is fetched and unpacked in
the cache of image.py. The server, the driver and DPDK's libraries come from this machine.
"""

import functools
import os
import re
import shlex
import sys
import time
from pathlib import Path

from . import COMMAND_SECONDS, KERNEL_ARGUMENTS, Guest, GuestError
from .image import (ImageError, MODULES, PROGRAMS, apt, cache_dir, initramfs, locked, missing,
                    store, unpacked, which, with_libraries)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
from pmd import PLUGIN, build_dir, plugin_dir  # noqa: E402

PATTERN = r"^linux-image-6\.[0-9]+\.[0-9]+\+deb[0-9]+-cloud-amd64$"
MORE_MODULES = ("virtio_vdpa", "vhost_vdpa", "vduse", "tun", "veth", "8021q", "virtio_blk")
KEPT_SECONDS = 3600     # somebody else may be about to boot it
# found on this machine, with their libraries; iproute2's ip knows network namespaces
TOOLS = ("ip", "vdpa", "tc")
MORE_PROGRAMS = ("telemetry", "vdparoot")

# more files of the guest, {path: contents}, for who wants others than the tests
extra_files = dict


def _number(package):
    return [int(number) for number in re.findall(r"\d+", package)]


def _kernel_candidate():
    """The newest cloud kernel with vDPA, by its package."""
    found = [line.split()[0] for line in
             apt("apt-cache", "search", "--names-only", PATTERN).splitlines()]
    found = [package for package in found if _number(package)[:2] >= [6, 12]]
    if not found:
        raise ImageError("apt knows no cloud kernel that has vDPA, which Debian 12's security "
                         "suite has")
    return max(found, key=_number)


def _files(packages):
    files = {}
    for tool in TOOLS:
        path = which(tool)
        if path is None:
            raise ImageError(f"no {tool} here: it is in iproute2")
        files.update(with_libraries(path, f"bin/{tool}"))
    for tool, path in packages.items():
        files.update(with_libraries(path, f"bin/{tool}"))
    files.update(with_libraries(os.path.join(build_dir(), "app", "vfn-vhost"), "bin/vfn-vhost"))
    files.update(with_libraries(os.path.join(plugin_dir(), PLUGIN), f"plugin/{PLUGIN}"))
    files.update(with_libraries("/bin/bash", "bin/bash"))
    gcc = "/lib/x86_64-linux-gnu/libgcc_s.so.1"     # the server loads it when it confines itself
    files[gcc.lstrip("/")] = Path(gcc).read_bytes()
    files["etc/passwd"] = b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
    files["etc/group"] = b"root:x:0:\nnogroup:x:65534:\n"
    return files


def _package(cache, name):
    """A program that need not be installed."""
    path = which(name)
    if path is not None:
        return path
    root = unpacked(cache, lambda: name, f"{name}_*")
    return str(next(root.glob(f"usr/*bin/{name}")))


@functools.lru_cache(maxsize=None)
def vduse_image():
    """(kernel, initramfs) as paths in the cache. Raises ImageError with the reason."""
    cache = cache_dir("vduse")
    with locked(cache):
        kernel = unpacked(cache, _kernel_candidate, "linux-image-*")
        packages = {"tcpdump": _package(cache, "tcpdump")}
        archive = initramfs(kernel, (*MODULES, *MORE_MODULES), (*PROGRAMS, *MORE_PROGRAMS),
                            {**_files(packages), **extra_files()})
        for old in cache.glob("initramfs-*/initramfs.cpio"):     # each build makes another
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink()
                old.parent.rmdir()
        return next(kernel.glob("boot/vmlinuz-*")), store(cache, archive)


def _in_bash(command):
    """busybox's shell prefers its own ip, tc and others to what is in the path."""
    return f"exec bash -c {shlex.quote(command)}"


class VduseGuest(Guest):
    """Two CPUs, no cards. `server()` runs vfn-vhost in it."""
    machine = "q35,graphics=off"
    directory = "/tmp"      # for files of tests

    def __init__(self, name="vduse", cpus=2, memory=1 << 20, **more):
        super().__init__([], name=name, cpus=cpus, memory=memory, **more)

    def boot(self):
        """As any guest. With two CPUs TCG now and then runs what a kernel that patches itself has
        replaced already: one that ends that way is started again, once."""
        try:
            return super().boot()
        except GuestError as error:
            if "kernel panic" not in str(error):
                raise
        self.stop()
        self.start()
        return super().boot()

    def run(self, command, check=True, timeout=COMMAND_SECONDS):
        return super().run(_in_bash(command), check, timeout)

    def spawn(self, command):
        return super().spawn(_in_bash(command))

    def _system(self):
        kernel, archive = vduse_image()
        return ["-kernel", str(kernel), "-initrd", str(archive),
                "-append", KERNEL_ARGUMENTS]


__all__ = ["VduseGuest", "vduse_image", "missing"]
