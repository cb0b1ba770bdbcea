# SPDX-License-Identifier: BSD-3-Clause
"""Disks of class=blk in a Linux guest: file systems, patterns, discards, resizes and crashes.

The same tests run on the vhost-user-blk export of qemu-storage-daemon, where that is installed, so
that they are known to be fair.
"""

import contextlib
import os
import shutil
import time

import pytest
from guest import Disk, Guest, GuestError, missing
from harness import Backend, Process

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

F_SEG_MAX, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY = 2, 6, 9, 10
F_CONFIG_WCE, F_MQ, F_DISCARD, F_WRITE_ZEROES = 11, 12, 13, 14
F_INDIRECT_DESC, F_EVENT_IDX, F_VERSION_1, F_RING_PACKED = 28, 29, 32, 34
MIB = 1 << 20
SIZE = 256 * MIB


class StorageDaemon:
    """The control."""

    def __init__(self, path, directory, queues):
        self.sockets = [f"{directory}/qsd"]
        self.process = Process(
            ["qemu-storage-daemon",
             "--blockdev", f"driver=file,filename={path},node-name=file,discard=unmap",
             "--export", "type=vhost-user-blk,id=export,node-name=file,writable=on,"
             f"num-queues={queues},addr.type=unix,addr.path={self.sockets[0]}"])
        deadline = time.monotonic() + 20
        while not os.path.exists(self.sockets[0]):
            assert time.monotonic() < deadline, self.process.log()
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()


@pytest.fixture
def image(workdir):
    """An empty file, on the disk of this machine."""
    path = os.path.join(workdir, "disk.img")
    with open(path, "wb") as file:
        file.truncate(SIZE)
    return path


@contextlib.contextmanager
def served(kind, image, workdir, queues=1, more=""):
    if kind == "qsd":
        if shutil.which("qemu-storage-daemon") is None:
            pytest.skip("no qemu-storage-daemon")
        with StorageDaemon(image, workdir, queues) as daemon:
            yield daemon
        return
    back = f"file={image}" if kind == "file" else f"{kind}={SIZE}"
    with Backend(f"vdpa_vfn0,class=blk,{back},queues={queues}{more}") as backend:
        yield backend


def features(guest, disk="vda"):
    bits = guest.read(f"/sys/block/{disk}/device/features")
    return {number for number, bit in enumerate(bits) if bit == "1"}


def check_pattern(guest, mib=24, jobs=4):
    """Random bytes, written to the disk in pieces by several writers at a time; each is read back
    around the guest's cache.
    """
    guest.run(f"""
        set -e
        head -c {mib * MIB} /dev/urandom >/tmp/random
        for job in $(seq {jobs}); do
            (
                first=$((job * {mib}))
                dd if=/tmp/random of=/dev/vda bs=64k seek=$((first * 16)) oflag=direct 2>/dev/null
                dd if=/tmp/random of=/dev/vda bs=4k skip=$((job * 64)) seek=$((first * 256 + job * 64)) \
                    count=512 oflag=direct 2>/dev/null
            ) &
        done
        wait
        sync
        echo 3 >/proc/sys/vm/drop_caches
        for job in $(seq {jobs}); do
            dd if=/dev/vda bs=1M skip=$((job * {mib})) count={mib} iflag=direct 2>/dev/null |
                cmp - /tmp/random
        done
    """)


def file_system(guest):
    """mkfs, mount, files, fstrim, umount, fsck."""
    out = guest.run("""
        set -e
        mke2fs -q -t ext4 -F /dev/vda
        mkdir -p /mnt
        mount -t ext4 -o discard /dev/vda /mnt
        head -c 20000000 /dev/urandom >/mnt/a
        mkdir /mnt/many
        for i in $(seq 300); do echo $i >/mnt/many/$i; done
        sync
        (cd /mnt && sha256sum a many/* >/tmp/sums)
        rm /mnt/many/1??
        fstrim -v /mnt
        umount /mnt
        e2fsck -f -n /dev/vda
        echo 3 >/proc/sys/vm/drop_caches
        mount -t ext4 /dev/vda /mnt
        (cd /mnt && grep -v 'many/1..$' /tmp/sums | sha256sum -c | grep -vc ': OK$') || true
        umount /mnt
    """, timeout=300).out
    assert "trimmed" in out, out
    assert out.rstrip().endswith("0"), out


@pytest.mark.parametrize("kind, queues, props", [
    ("qsd", 1, {}),
    ("file", 1, {}),
    ("file", 4, {"packed": "on"}),
    ("mem", 2, {"event_idx": "off", "indirect_desc": "off"}),
], ids=["control", "file", "file-packed-4-queues", "memory-plain"])
def test_disk_holds_a_file_system(kind, queues, props, image, workdir):
    with served(kind, image, workdir, queues) as backend, \
            Guest([], disks=[Disk(backend.sockets[0], queues, props=props)], cpus=2) as guest:
        guest.boot()
        bits = features(guest)
        assert {F_VERSION_1, F_SEG_MAX, F_BLK_SIZE, F_FLUSH, F_DISCARD, F_WRITE_ZEROES} <= bits
        assert (F_RING_PACKED in bits) == (props.get("packed") == "on")
        assert (F_EVENT_IDX in bits) == (props.get("event_idx") != "off")
        assert queues == 1 or F_MQ in bits
        assert int(guest.read("/sys/block/vda/size")) == SIZE // 512
        check_pattern(guest)
        file_system(guest)
        if kind == "file":
            # what was trimmed is given back to the host
            assert os.stat(image).st_blocks * 512 < SIZE // 2
            counters = backend.telemetry("/vfn/queue,vdpa_vfn0,0")
            assert counters["reads"] > 0 and counters["writes"] > 0 and counters["flushes"] > 0
            assert counters["discards"] > 0
            assert counters["errors_io"] == counters["errors_range"] == 0


def test_guest_switches_the_write_cache(image, workdir):
    with served("file", image, workdir) as backend, \
            Guest([], disks=[Disk(backend.sockets[0], props={"config-wce": "on"})]) as guest:
        guest.boot()
        assert F_CONFIG_WCE in features(guest)
        assert guest.read("/sys/block/vda/cache_type") == "write back"
        guest.run("echo 'write through' >/sys/block/vda/cache_type")
        assert backend.telemetry("/vfn/info,vdpa_vfn0")["cache"] == "writethrough"
        check_pattern(guest, 2)
        guest.run("echo 'write back' >/sys/block/vda/cache_type")
        assert backend.telemetry("/vfn/info,vdpa_vfn0")["cache"] == "writeback"


def test_guest_sees_another_size(image, workdir):
    with served("file", image, workdir) as backend, \
            Guest([], disks=[Disk(backend.sockets[0])]) as guest:
        guest.boot()
        answer = backend.telemetry(f"/vfn/blk/size,vdpa_vfn0,{2 * SIZE}")
        assert answer["capacity_bytes"] == 2 * SIZE
        guest.run(f"until test $(cat /sys/block/vda/size) = {2 * SIZE // 512}; do sleep 0.1; done")
        guest.run(f"""
            set -e
            head -c 65536 /dev/urandom >/tmp/end
            dd if=/tmp/end of=/dev/vda bs=64k seek={2 * SIZE // 65536 - 1} oflag=direct
            dd if=/dev/vda bs=64k skip={2 * SIZE // 65536 - 1} iflag=direct | cmp - /tmp/end
        """)


def test_read_only_disk(image, workdir):
    with served("file", image, workdir, more=",readonly=on,serial=vfn-4711") as backend, \
            Guest([], disks=[Disk(backend.sockets[0])]) as guest:
        guest.boot()
        assert guest.read("/sys/block/vda/ro") == "1"
        assert guest.read("/sys/block/vda/serial") == "vfn-4711"
        with pytest.raises(GuestError):
            guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct")
        guest.run("dd if=/dev/vda of=/dev/null bs=1M count=8")


@pytest.mark.parametrize("props", [{}, {"packed": "on"}], ids=["split", "packed"])
def test_backend_is_killed_while_the_guest_writes(props, image, workdir):
    """What was in flight is done by the successor: no write is lost, and no error is seen."""
    with served("file", image, workdir) as backend, \
            Guest([], disks=[Disk(backend.sockets[0], reconnect=1, props=props)]) as guest:
        guest.boot()
        job = guest.spawn("""
            set -e
            head -c 4194304 /dev/urandom >/tmp/random
            for round in $(seq 40); do
                dd if=/tmp/random of=/dev/vda bs=16k seek=$((round * 256)) oflag=direct
                dd if=/tmp/random of=/dev/vda bs=4k seek=$((round * 1024)) count=64 oflag=direct
            done
            sync
            echo 3 >/proc/sys/vm/drop_caches
            for round in $(seq 40); do
                dd if=/dev/vda bs=4M skip=$round count=1 iflag=direct | cmp - /tmp/random
            done
        """)
        for _ in range(4):
            time.sleep(2)
            backend.process.kill()
            backend.start()
        job.wait(timeout=300)
        log = guest.run("dmesg").out
        assert "I/O error" not in log, log
