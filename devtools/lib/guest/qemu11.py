# SPDX-License-Identifier: BSD-3-Clause
"""A QEMU with a vfio-user client (10.1 and later), and firmware for it.

Debian 12's QEMU has none: Debian 13's, of its backports, is fetched with all of its libraries and
unpacked in the cache of image.py, and installed nowhere. It runs with a loader and libraries of its
own, and needs neither a chroot nor root's rights. 46 MB to fetch, 200 MB on the disk, 20 s, once.
"""

import functools
import tempfile
from pathlib import Path

from .image import ImageError, apt, cache_dir, locked, new_entry

RELEASE, BACKPORTS = "trixie", "trixie-backports"
PACKAGES = ("qemu-system-x86", "ovmf", "ipxe")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Modules are otherwise looked for where the machine's own QEMU has others.
WRAPPER = f"""#!/bin/sh
root=$(dirname "$(readlink -f "$0")")
export QEMU_MODULE_DIR="$root/{LIBRARIES}/qemu"
exec "$root/{LIBRARIES}/ld-linux-x86-64.so.2" --library-path "$root/{LIBRARIES}" \\
    "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
"""


def _mirror():
    """Where this machine gets Debian from."""
    lines = apt("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)",
                "Origin: Debian", "Created-By: Packages", "Component: main").splitlines()
    for line in lines:
        codename, uri = line.split()
        if "-security" not in codename:
            return uri
    raise ImageError("apt knows no mirror of Debian: run apt-get update, on a Debian")


def _download(work):
    """The packages, and all that they need on a machine that has nothing."""
    for directory in ("lists/partial", "archives/partial"):
        (work / directory).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text("".join(
        f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n" for suite in (RELEASE, BACKPORTS)))
    options = {
        "APT::Architecture": "amd64", "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "", "Acquire::Languages": "none",
        "Dir::State::status": work / "status", "Dir::State::lists": work / "lists",
        "Dir::Cache::archives": work / "archives", "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "", "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
    }
    options = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    apt("apt-get", *options, "update")
    apt("apt-get", *options, "--yes", "--download-only", "--target-release", BACKPORTS, "install",
        *PACKAGES)
    return sorted((work / "archives").glob("*.deb"))


@functools.lru_cache(maxsize=None)
def _unpacked():
    """Directory of the unpacked packages; what is there is not looked for anew."""
    cache = cache_dir()
    root = cache / f"qemu-{BACKPORTS}"
    with locked(cache):
        if not root.exists():
            with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as download:
                debs = _download(Path(download))
                with new_entry(cache, root.name) as work:
                    for deb in debs:
                        apt("dpkg-deb", "-x", str(deb), str(work))
                    (work / "qemu").write_text(WRAPPER)
                    (work / "qemu").chmod(0o755)
    return root


def qemu11():
    """Path of a program that takes the arguments of qemu-system-x86_64. Raises ImageError."""
    return _unpacked() / "qemu"


def ipxe():
    """iPXE as a kernel to boot, with its own driver for virtio."""
    return _unpacked() / "usr/lib/ipxe/ipxe.lkrn"


def ovmf():
    """UEFI firmware, its code and its variables as they are at first."""
    share = _unpacked() / "usr/share/OVMF"
    return share / "OVMF_CODE_4M.fd", share / "OVMF_VARS_4M.fd"
