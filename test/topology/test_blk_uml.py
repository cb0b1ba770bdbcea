# SPDX-License-Identifier: BSD-3-Clause
"""Disks of class=blk in user-mode Linux: the kernel's own driver as a vhost-user front-end. It has no
in-flight region, is called by a pipe, and gives a disk up whose socket closed.

vda, the control, is qemu-storage-daemon's export; vdb has packed rings, vdc split ones.
"""

import contextlib
from dataclasses import dataclass

import pytest

from disk_checks import every_sector, file_system, zeroes_and_discards
from guest.image import uml_missing
from guest.uml import Uml
from harness import NIGHTLY, SLOW, Backend, Scratch, wait_until
from proxy import Proxy
from storage import StorageDaemon
from test_blk_qemu import (F_CONFIG_WCE, F_DISCARD, F_FLUSH, F_RING_PACKED, F_WRITE_ZEROES, MIB, SIZE,
                           empty_file)
from test_uml import no_packed_rings

pytestmark = pytest.mark.skipif(
    bool(uml_missing()), reason=f"Debian packages not installed: {' '.join(uml_missing())}")

SECONDS = 60 if NIGHTLY else 2
DISKS = pytest.mark.parametrize("disk", ["vda", "vdb", "vdc"], ids=["control", "packed", "split"])
OURS = pytest.mark.parametrize("disk", ["vdb", "vdc"], ids=["packed", "split"])


def function(disk):
    return {"vdb": "vdpa_vfn0", "vdc": "vdpa_vfn1"}[disk]


@dataclass
class Setup:
    guest: Uml
    backend: Backend


@pytest.fixture(scope="module")
def setup():
    with contextlib.ExitStack() as stack:
        scratch = Scratch()
        stack.callback(scratch.remove)
        files = [empty_file(scratch.path, name) for name in ("control", "packed", "split")]
        daemon = stack.enter_context(StorageDaemon(files[:1], scratch.path))
        backend = stack.enter_context(Backend(
            [f"vdpa_vfn{i},class=blk,file={path},queues=2" for i, path in enumerate(files[1:])],
            directory=scratch.path))
        packed, split = backend.sockets
        stack.enter_context(Proxy(f"{split}.split", split, no_packed_rings))
        guest = stack.enter_context(Uml(None, disks=[*daemon.sockets, packed, f"{split}.split"]))
        guest.boot()
        yield Setup(guest, backend)


@DISKS
def test_driver_negotiates(setup, disk):
    bits = setup.guest.disk_features(disk)
    assert {F_FLUSH, F_CONFIG_WCE, F_DISCARD, F_WRITE_ZEROES} <= bits
    assert (F_RING_PACKED in bits) == (disk == "vdb")
    assert int(setup.guest.read(f"/sys/block/{disk}/size")) == SIZE // 512


@DISKS
def test_every_sector_holds_what_was_written_last(setup, disk):
    every_sector(setup.guest, disk, SECONDS)


@DISKS
def test_file_system(setup, disk):
    file_system(setup.guest, disk, 5)


@DISKS
def test_zeroes_and_discards(setup, disk):
    zeroes_and_discards(setup.guest, disk)


@OURS
def test_write_cache_is_switched(setup, disk):
    for mode in "write through", "write back":
        setup.guest.run(f"echo '{mode}' >/sys/block/{disk}/cache_type")
        assert setup.guest.read(f"/sys/block/{disk}/cache_type") == mode
        told = setup.backend.telemetry(f"/vfn/info,{function(disk)}")
        assert told["cache"] == mode.replace(" ", "")


@OURS
def test_another_size_is_seen(setup, disk):
    for size in SIZE + 4 * MIB, SIZE:
        setup.backend.telemetry(f"/vfn/blk/size,{function(disk)},{size}")
        setup.guest.run(f"until test $(cat /sys/block/{disk}/size) = {size // 512}; do "
                        "usleep 50000; done", timeout=60 * SLOW)


@OURS
def test_driver_unbound_and_bound(setup, disk):
    """What the last driver had set is as the next one is told."""
    setup.guest.run(f"""
        set -e
        echo 'write through' >/sys/block/{disk}/cache_type
        device=$(basename $(readlink /sys/block/{disk}/device))
        head -c {MIB} /dev/urandom >/tmp/random
        dd if=/tmp/random of=/dev/{disk} bs=64k oflag=direct
        cd /sys/bus/virtio/drivers/virtio_blk
        for i in 1 2 3; do
            echo $device >unbind
            ! test -e /sys/block/{disk}
            echo $device >bind
            dd if=/dev/{disk} bs=64k count=16 iflag=direct | cmp - /tmp/random
        done
    """)
    mode = setup.guest.read(f"/sys/block/{disk}/cache_type")
    assert setup.backend.telemetry(f"/vfn/info,{function(disk)}")["cache"] == mode.replace(" ", "")


def test_guest_is_killed_while_it_writes(setup):
    """The next one has the disks."""
    guest = setup.guest

    def writes(disk):
        return setup.backend.stats(function(disk))[0]["writes"]
    for disk in "vdb", "vdc":
        before = writes(disk)
        guest.spawn(f"/bin/blkdiscard -z /dev/{disk}; blocks run /dev/{disk} 16 1 0")
        assert wait_until(lambda d=disk, n=before: writes(d) > n + 100, 60)
    guest.kill()
    guest.start()
    guest.boot()
    for disk in "vdb", "vdc":
        zeroes_and_discards(guest, disk)
