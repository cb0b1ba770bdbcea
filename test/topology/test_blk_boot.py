# SPDX-License-Identifier: BSD-3-Clause
"""Guests that boot from a disk of class=blk, move with it while it is busy, or have a newer QEMU."""

import contextlib
import os
import re
import subprocess
import time

import pytest

from disk_checks import MIB, every_sector, file_system
from guest import ImageError, Nic, missing
from guest.disk import Disk, DiskGuest
from guest.qemu11 import qemu11
from guest.vfio_user import FunctionGuest
from harness import NIGHTLY, SLOW, Backend, Endpoint, parse_stats, wait_until
from storage import StorageDaemon
from test_blk_qemu import F_CONFIG_WCE, F_DISCARD, F_MQ, F_RING_PACKED, PACKED, empty_file
from test_migration import MEMORY, ROUNDS, different_pages

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")


@contextlib.contextmanager
def served(kind, path, directory, more=""):
    """A socket on which a file is served by one or the other."""
    with (StorageDaemon([path], directory) if kind == "control" else
          Backend(f"vdpa_vfn0,class=blk,file={path}{more}", directory=directory)) as server:
        yield server


def boot_sector(directory):
    path = os.path.join(directory, "boot")
    source = os.path.join(os.path.dirname(__file__), "boot.S")
    subprocess.run(["gcc", "-m16", "-nostdlib", "-static", "-o", path, source,
                    "-Wl,-Ttext=0x7c00,--oformat=binary,--build-id=none"], check=True)
    with open(path, "rb") as file:
        return file.read()


def bootable(workdir):
    """(path, text): a disk whose boot sector reads 64 others and prints them."""
    path = empty_file(workdir, "disk")
    text = "".join(f"{line:04} {'boot' * 14}\n" for line in range(64 * 512 // 64))[:64 * 512]
    with open(path, "r+b") as file:
        file.write(boot_sector(workdir))
        file.seek(2048 * 512)
        file.write(text.encode())
    return path, text


def prints(guest, text):
    wait_until(lambda: "\nend." in guest.console() or "\nbad." in guest.console(), 60)
    assert text in guest.console().replace("\r", "")
    assert "\nend." in guest.console()


@pytest.mark.parametrize("kind", ["control", "vfn"])
def test_bios_boots_from_it(kind, workdir):
    """SeaBIOS's own driver reads the first sector, and that 64 others by calls of the BIOS."""
    path, text = bootable(workdir)
    with served(kind, path, workdir) as server, \
            DiskGuest([Disk(server.sockets[0])], boot_disk=True) as guest:
        prints(guest, text)


def newer_qemu():
    try:
        return str(qemu11())
    except ImageError as error:
        pytest.skip(f"no QEMU of Debian's backports: {error}")


class BootCard(FunctionGuest):
    """With a screen for what the BIOS says."""
    machine = "q35"


def test_bios_boots_from_a_card(workdir):
    """Its rings are in memory that QEMU takes from the card for a moment: they stand still."""
    newer_qemu()
    path, text = bootable(workdir)
    with contextlib.closing(Endpoint([f"fn0,class=blk,file={path},idle=sleep"],
                                     directory=workdir)) as endpoint, \
            BootCard([Nic(endpoint.sockets[0], "", props={"bootindex": 0})], system=[]) as guest:
        prints(guest, text)


def writes(backend, number):
    """Of all queues: a process that writes may stay on the CPU that has the second one."""
    return sum(queue["writes"] for queue in backend.stats(number).values())


def test_newer_qemu(workdir):
    """With vectors of MSI-X: file systems, every sector, a size and a cache that change; and its server
    is killed under load."""
    files = [empty_file(workdir, name) for name in ("split", "packed")]
    with Backend([f"vdpa_vfn{i},class=blk,file={path},queues=2" for i, path in enumerate(files)],
                 directory=workdir) as backend, \
            DiskGuest([Disk(path, 2, reconnect=1, props={"packed": packed})
                       for path, packed in zip(backend.sockets, ("off", "on"))],
                      program=newer_qemu(), cpus=2) as guest:
        guest.boot()
        for number, disk in enumerate(("vda", "vdb")):
            bits = guest.disk_features(disk)
            assert {F_MQ, F_CONFIG_WCE, F_DISCARD} <= bits and (F_RING_PACKED in bits) == (disk == "vdb")
            assert re.search("PCI-MSI.*virtio[0-9]+-req", guest.read("/proc/interrupts"))
            file_system(guest, disk)
            guest.run(f"echo 'write through' >/sys/block/{disk}/cache_type")
            assert backend.telemetry(f"/vfn/info,vdpa_vfn{number}")["cache"] == "writethrough"
            every_sector(guest, disk, 1)
            backend.telemetry(f"/vfn/blk/size,vdpa_vfn{number},{80 * MIB}")
            guest.run(f"until test $(cat /sys/block/{disk}/size) = {80 * MIB // 512}; do "
                      "usleep 50000; done", timeout=60)
        jobs = [guest.spawn(f"/bin/blkdiscard -z /dev/{disk}; exec blocks run /dev/{disk} 16 1 5")
                for disk in ("vda", "vdb")]
        for number in range(2):
            before = writes(backend, number)
            assert wait_until(lambda n=number, b=before: writes(backend, n) > b + 50, 120)
        backend.kill()
        backend.start()
        for job in jobs:
            job.wait(timeout=300)
        for number in range(2):
            assert writes(backend, number) > 0


class Moving:
    """A guest that reads and writes its disk all the time, and two servers of the same file."""

    def __init__(self, stack, directory, props, more=""):
        path = empty_file(directory, "disk")
        self.servers = [stack.enter_context(Backend(
            f"vdpa_vfn0,class=blk,file={path},share=on{more}")) for _ in range(2)]
        self.props, self.at = props, 0
        self.guest = DiskGuest(self._disks(), memory=MEMORY)
        stack.callback(lambda: self.guest.stop())   # whichever it is then
        self.guest.start()
        self.guest.boot()
        self.job = self.guest.spawn("echo $$ >/tmp/pid; exec blocks run /dev/vda 16 1 0")
        wait_until(lambda: self.writes() > 0, 30)

    def _disks(self):
        return [Disk(self.servers[self.at].sockets[0], props=self.props)]

    def writes(self):
        return parse_stats(self.servers[self.at].cmd("stats vdpa_vfn0 0"))[0]["writes"]

    def _wait(self, guest, what, done):
        deadline = time.monotonic() + 120 * SLOW
        while not done(now := guest.qmp(what)):
            assert now["status"] != "failed" and time.monotonic() < deadline, guest.explain(f"{now}")
            time.sleep(0.02)

    def move(self):
        """Numbers of the pages that are not the same when it has arrived and neither side runs."""
        self.at = 1 - self.at
        other = self.guest.twin(self._disks(), "other")
        try:
            # the log counts only from the first round of copying on
            self.guest.qmp("migrate-set-parameters", **{"max-bandwidth": 200 << 20,
                                                        "downtime-limit": 1})
            self.guest.migrate_to(other)
            self._wait(self.guest, "query-migrate", lambda now: now["status"] == "completed" or
                       now.get("ram", {}).get("dirty-sync-count", 0) > ROUNDS)
            self.guest.qmp("migrate-set-parameters", **{"downtime-limit": 300000})
            self._wait(self.guest, "query-migrate", lambda now: now["status"] == "completed")
            self._wait(other, "query-status", lambda now: now["status"] == "paused")
            with self.guest.ram() as before, other.ram() as after:
                different = different_pages(before, after)
        except BaseException:
            other.stop()
            raise
        self.guest.stop()
        self.guest = self.job.guest = other
        return different

    def go_on(self):
        before = self.writes()
        self.guest.qmp("cont")
        assert wait_until(lambda: self.writes() > before, 60), self.guest.explain("writes nothing")


FORMATS = pytest.mark.parametrize("props", [{}, PACKED], ids=["split", "packed"])


@FORMATS
def test_guest_moves_with_a_busy_disk(props, workdir):
    """There and, nightly, back and again: its memory is the same, and so is the disk."""
    with contextlib.ExitStack() as stack:
        moving = Moving(stack, workdir, props)
        for _ in range(6 if NIGHTLY else 1):
            assert not moving.move()
            moving.go_on()
        moving.guest.run("kill -TERM $(cat /tmp/pid)")
        moving.job.wait(timeout=300)


def test_reads_that_are_not_logged_are_noticed(workdir):
    """Negative control."""
    with contextlib.ExitStack() as stack:
        moving = Moving(stack, workdir, {}, ",fault=no-log")
        for _ in range(5):
            if moving.move():
                return
            # nothing was read behind the last copy
            moving.go_on()
        pytest.fail("nothing is missing")
