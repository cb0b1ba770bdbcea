# SPDX-License-Identifier: BSD-3-Clause
"""Kernel and initramfs of the test guests, made of stock Debian parts and kept in a cache.

The cache is $VFN_CACHE, else $XDG_CACHE_HOME/vfn, else ~/.cache/vfn. One process builds at a time
(a lock in the cache), and what it built appears by a rename: a cache entry is whole or not there.
"""

import contextlib
import fcntl
import functools
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

META_PACKAGE = "linux-image-cloud-amd64"
# what they depend on is read from the modules themselves
MODULES = ("virtio_pci", "virtio_console", "virtio_net", "8021q", "macvlan")
# Beside busybox, whose nc moves one KiB at a time. Shared libraries come along.
TOOLS = ("ethtool", "lspci", "nc.openbsd")
DISK_TOOLS = ("mke2fs", "e2fsck", "fstrim", "blkdiscard")
UML = "linux.uml"
UML_DIR = Path("/usr/lib/uml/modules")
UML_MODULES = ("virtio_net", "8021q", "virtio_blk")
UML_TOOLS = ("ethtool", "nc.openbsd", "tcpdump", *DISK_TOOLS)
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "ethtool": "ethtool",
    "lspci": "pciutils",
    "nc.openbsd": "netcat-openbsd",
    "gcc": "gcc",
    "setpriv": "util-linux",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
INIT = Path(__file__).with_name("init")
PROGRAMS = ("flow",)    # our own, in C, for a guest that has no libraries of the right version
UML_PROGRAMS = (*PROGRAMS, "blast", "blocks")


class ImageError(RuntimeError):
    """No kernel or no initramfs; the message says what is missing."""


def which(name):
    """Path of a program; the administrator's directories count for an ordinary user too."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def missing(more=()):
    """Debian packages a guest needs and this machine does not have."""
    return sorted({package for name, package in (*PACKAGES.items(), *more) if which(name) is None})


def uml_missing():
    """The same for user-mode Linux, which does without QEMU."""
    return [name for name in missing([(UML, "user-mode-linux"), ("tcpdump", "tcpdump")])
            if name != PACKAGES["qemu-system-x86_64"]]


def cache_dir(name="guest"):
    base = os.environ.get("VFN_CACHE")
    if not base:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vfn"
    path = Path(base) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(cache):
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # dropped by the close, or by the kernel when we die
        for stale in cache.glob(".new-*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield


@contextlib.contextmanager
def new_entry(cache, name):
    """A directory to fill that becomes `name` only if the block ends well."""
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
    try:
        yield work
        work.chmod(0o755)
        work.rename(cache / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def apt(*argv, cwd=None):
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, "LC_ALL": "C"}, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        raise ImageError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def deb_of(package):
    """File name of a package."""
    uris = apt("apt-get", "download", "--print-uris", package)
    return next(word for word in uris.split() if word.endswith(".deb"))


def kernel_candidate():
    """The newest cloud kernel of this release of Debian, by its package."""
    found = re.search(r"Depends: (linux-image-\S+)", apt("apt-cache", "depends", META_PACKAGE))
    if found is None:
        raise ImageError(f"apt knows no {META_PACKAGE}: run apt-get update")
    return found[1]


def unpacked(cache, candidate, pattern):
    """Directory of an unpacked package: the candidate, else the newest one in the cache."""
    kept = sorted((path for path in cache.glob(pattern) if path.is_dir()),
                  key=lambda path: path.stat().st_mtime)
    try:
        package = candidate()
        entry = cache / deb_of(package).removesuffix(".deb")
        if not entry.exists():
            with new_entry(cache, entry.name) as work:
                apt("apt-get", "download", package, cwd=work)
                archive = next(work.glob("*.deb"))
                apt("dpkg-deb", "-x", archive.name, ".", cwd=work)
                archive.unlink()
        return entry
    except ImageError:
        if not kept:
            raise
        return kept[-1]


def _module(path):
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _modules(kernel, modules):
    """[(name, contents)] in an order in which insmod works."""
    files = {}
    for path in sorted(kernel.glob("**/kernel/**/*.ko*")):
        files[path.name.split(".ko")[0].replace("-", "_")] = path
    ordered = {}

    def add(name):
        if name in ordered or name not in files:  # not there: built in
            return
        data = _module(files[name])
        found = re.search(rb"\0depends=([^\0]*)", data)
        for needed in filter(None, found[1].decode().split(",") if found else ()):
            add(needed)
        ordered[name] = data

    for name in modules:
        add(name)
    return list(ordered.items())


def libraries(program):
    """Shared libraries of a program, by the paths its loader will look under."""
    listing = subprocess.run(["ldd", program], text=True, capture_output=True).stdout
    return re.findall(r"(/\S+) \(0x", listing)


def with_libraries(path, at):
    """{path in the guest: contents} of a program or a library of this machine."""
    return {at: Path(path).read_bytes(),
            **{library.lstrip("/"): Path(library).read_bytes() for library in libraries(path)}}


def _record(name, mode, data, inode):
    """One member of a "newc" cpio archive."""
    header = "070701" + "".join(f"{value:08x}" for value in (
        inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0))
    head = header.encode() + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _cpio(files):
    """Archive of {path: contents}; parents are added, everything is executable."""
    out = []
    made = set()
    for name, data in files.items():
        for parent in reversed(Path(name).parents):
            if str(parent) != "." and parent not in made:
                made.add(parent)
                out.append(_record(str(parent), stat.S_IFDIR | 0o755, b"", len(out) + 1))
        out.append(_record(name, stat.S_IFREG | 0o755, data, len(out) + 1))
    out.append(_record("TRAILER!!!", 0, b"", 0))
    return b"".join(out)


def _compiled(name, *how):
    """A program or library of our own."""
    with tempfile.TemporaryDirectory() as work:
        done = subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *how, "-o", f"{work}/{name}",
             INIT.with_name(f"{name}.c")], text=True, capture_output=True)
        if done.returncode != 0:
            raise ImageError(f"{name}.c: {done.stderr.strip()}")
        return Path(work, name).read_bytes()


def initramfs(kernel, modules=MODULES, programs=PROGRAMS, more=None, tools=TOOLS):
    """Archive for a kernel; `more`: {path: contents} of other files."""
    files = {"init": INIT.read_bytes(), "bin/busybox": Path(which("busybox")).read_bytes()}
    files.update((f"bin/{name}", _compiled(name, "-static")) for name in programs)
    for tool in tools:
        files.update(with_libraries(which(tool), f"bin/{tool}"))
    found = _modules(kernel, modules)
    files["modules/order"] = "".join(f"{name}.ko\n" for name, _ in found).encode()
    files.update((f"modules/{name}.ko", data) for name, data in found)
    files.update(more or {})
    return _cpio(files)


def store(cache, data, name="initramfs.cpio"):
    """Path of a file in the cache."""
    entry = cache / f"{name.split('.')[0]}-{hashlib.sha256(data).hexdigest()[:16]}"
    if not entry.exists():
        with new_entry(cache, entry.name) as work:
            (work / name).write_bytes(data)
    return entry / name


@functools.lru_cache(maxsize=None)
def uml_image():
    """(kernel, initramfs, what to preload) of user-mode Linux, of the package with its modules."""
    modules = sorted(UML_DIR.glob("*/kernel"))
    if which(UML) is None or not modules:
        raise ImageError(f"{UML} and its modules are in the package user-mode-linux")
    cache = cache_dir()
    with locked(cache):
        archive = initramfs(modules[-1].parent, UML_MODULES, UML_PROGRAMS, tools=UML_TOOLS,
                            more={"etc/passwd": b"root:x:0:0::/:/bin/sh\n"})
        preload = _compiled("uml_fpu", "-shared", "-fPIC")
        return Path(which(UML)), store(cache, archive), store(cache, preload, "uml_fpu.so")


@functools.lru_cache(maxsize=None)
def image(*programs):
    """(kernel, initramfs) as paths in the cache, built if they are not there; with more programs
    of our own.

    Raises ImageError with the reason when neither apt nor the cache has a kernel.
    """
    cache = cache_dir()
    with locked(cache):
        kernel = unpacked(cache, kernel_candidate, "linux-image-*")
        return next(kernel.glob("boot/vmlinuz-*")), store(
            cache, initramfs(kernel, programs=(*PROGRAMS, *programs)))
