# SPDX-License-Identifier: BSD-3-Clause
"""Disks of class=blk in a Linux guest: every sector's content, file systems, discards, sizes, caches.

One guest has them all, each with rings and queues of its own; the same tests run on the export of
qemu-storage-daemon, vda, so that they are known to be fair.
"""

import contextlib
import os
from dataclasses import dataclass, field

import pytest

from disk_checks import every_sector, file_system, zeroes_and_discards
from guest import GuestError, missing
from guest.disk import LARGE_TOOLS, Disk, DiskGuest, tools_disk
from harness import NIGHTLY, SLOW, Backend, Scratch
from storage import StorageDaemon

pytestmark = pytest.mark.skipif(
    bool(missing(LARGE_TOOLS.items())),
    reason=f"Debian packages not installed: {' '.join(missing(LARGE_TOOLS.items()))}")

F_SEG_MAX, F_RO, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY = 2, 5, 6, 9, 10
F_CONFIG_WCE, F_MQ, F_DISCARD, F_WRITE_ZEROES = 11, 12, 13, 14
F_INDIRECT_DESC, F_EVENT_IDX, F_VERSION_1, F_RING_PACKED = 28, 29, 32, 34
MIB = 1 << 20
SIZE = 64 * MIB
SECONDS = 60 if NIGHTLY else 4      # of random requests
FIO_MIB = 32 if NIGHTLY else 4      # of each thread
PACKED = {"packed": "on"}
PLAIN = {"event_idx": "off", "indirect_desc": "off"}


@dataclass(frozen=True)
class Kind:
    """A disk of the guest. `back`: the back-end's argument, FILE standing for a file of its own;
    None: qemu-storage-daemon's."""
    name: str               # in the guest
    back: str = "file=FILE"
    more: str = ""
    queues: int = 1
    props: dict = field(default_factory=dict, hash=False)


KINDS = {kind.name: kind for kind in (
    Kind("vda", None, queues=2),
    Kind("vdb"),
    Kind("vdc", queues=4, props=PACKED),
    Kind("vdd", f"mem={SIZE}", queues=2, props=PLAIN),
    Kind("vde", more=",cache=writethrough,block-size=4096", props={**PACKED, **PLAIN}),
    Kind("vdf", more=",readonly=on,serial=vfn-4711"),
    Kind("vdg", more=",readonly=on"),
)}
NAMES = {"vda": "control", "vdb": "split", "vdc": "packed", "vdd": "memory", "vde": "writethrough",
         "vdf": "read-only"}
FILLED = b"what was here before" * 200


def disks(*names):
    """Runs a test on these disks."""
    return pytest.mark.parametrize("disk", names, ids=[NAMES[name] for name in names])


@dataclass
class Setup:
    guest: DiskGuest
    backend: Backend
    daemon: StorageDaemon
    files: dict

    def run(self, script, **how):
        return self.guest.run(f"set -e\n{script}", **how).out

    def device(self, disk):
        """The function of a disk."""
        return f"vdpa_vfn{sorted(set(KINDS) - {'vda'}).index(disk)}"

    def counters(self, disk):
        """Of all queues of a disk together."""
        total = {}
        for counters in self.backend.stats(self.device(disk)).values():
            for name, value in counters.items():
                total[name] = total.get(name, 0) + value
        return total


def empty_file(directory, name, size=SIZE):
    path = os.path.join(directory, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def booted():
    with contextlib.ExitStack() as stack:
        scratch = Scratch()
        stack.callback(scratch.remove)
        files = {name: empty_file(scratch.path, name) for name in KINDS}
        with open(files["vdf"], "r+b") as file:
            file.write(FILLED)
        files["vdg"] = str(tools_disk(scratch.path))
        daemon = stack.enter_context(
            StorageDaemon([files["vda"]], scratch.path, queues=KINDS["vda"].queues))
        served = [kind for kind in KINDS.values() if kind.back is not None]
        backend = stack.enter_context(Backend(
            [f"vdpa_vfn{i},class=blk,{kind.back.replace('FILE', files[kind.name])},"
             f"queues={kind.queues}{kind.more}" for i, kind in enumerate(served)],
            directory=scratch.path))
        sockets = [*daemon.sockets, *backend.sockets]
        guest = stack.enter_context(DiskGuest(
            [Disk(path, kind.queues, props=kind.props)
             for path, kind in zip(sockets, KINDS.values())], cpus=2))
        guest.boot()
        yield Setup(guest, backend, daemon, files)


@pytest.fixture
def setup(booted):
    yield booted
    print(booted.guest.explain("state after the test"))
    print("\n".join(booted.backend.log().splitlines()[-25:]))


@disks("vda", "vdb", "vdc", "vdd", "vde", "vdf")
def test_driver_negotiates(setup, disk):
    kind, bits = KINDS[disk], setup.guest.disk_features(disk)
    assert {F_VERSION_1, F_SEG_MAX, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY} <= bits
    assert (F_RING_PACKED in bits) == (kind.props.get("packed") == "on")
    assert (F_EVENT_IDX in bits) == (kind.props.get("event_idx") != "off")
    assert (F_INDIRECT_DESC in bits) == (kind.props.get("indirect_desc") != "off")
    assert (F_MQ in bits) == (kind.queues > 1) or disk == "vda"
    assert (F_RO in bits) == (disk == "vdf")
    if disk != "vdf":
        assert {F_DISCARD, F_WRITE_ZEROES} <= bits
    queue = f"/sys/block/{disk}/queue"
    assert int(setup.guest.read(f"/sys/block/{disk}/size")) == SIZE // 512
    assert setup.guest.read(f"{queue}/logical_block_size") == ("4096" if disk == "vde" else "512")
    assert len(setup.run(f"ls /sys/block/{disk}/mq").split()) == min(kind.queues, 2)


@disks("vda", "vdb", "vdc", "vdd", "vde")
def test_every_sector_holds_what_was_written_last(setup, disk):
    every_sector(setup.guest, disk, SECONDS)
    if disk != "vda":
        counters = setup.counters(disk)     # the guest's block layer merges some of each
        assert counters["reads"] > 0 and counters["writes"] > 0
        assert counters["flushes"] > 0 or disk == "vde"
        assert not {name: n for name, n in counters.items() if name.startswith("errors_") and n}


@disks("vda", "vdb", "vdc", "vdd")
def test_file_system(setup, disk):
    file_system(setup.guest, disk)
    if disk != "vdd":   # what was trimmed is given back to the host
        assert os.stat(setup.files[disk]).st_blocks * 512 < SIZE * 3 // 4


@disks("vda", "vdb", "vdc", "vdd", "vde")
def test_zeroes_and_discards(setup, disk):
    zeroes_and_discards(setup.guest, disk)
    if disk != "vda":
        assert setup.counters(disk)["write_zeroes"] > 0 and setup.counters(disk)["discards"] > 0


def fio(setup, disk, *more):
    """Random writes of many sizes by a thread on each CPU, all of them verified; its exit status."""
    return setup.guest.run(f"""
        if ! test -e /fio/proc/version; then
            mkdir -p /fio
            mount -t ext4 -o ro /dev/vdg /fio
            mount -t devtmpfs dev /fio/dev
            mount -t proc proc /fio/proc
        fi
        chroot /fio /bin/fio --name=verified --filename=/dev/{disk} --rw=randwrite --bsrange=4k-64k \
            --ioengine=libaio --direct=1 --iodepth=16 --thread --numjobs=2 --cpus_allowed=0,1 \
            --cpus_allowed_policy=split --size={FIO_MIB}m --offset_increment=32m --verify=crc32c \
            --verify_fatal=1 --verify_state_save=0 {' '.join(more)}
    """, check=False, timeout=300)


@disks("vda", "vdb", "vdc", "vdd", "vde")
def test_fio_verifies_what_it_has_written(setup, disk):
    def writes():
        return [queue["writes"] for queue in setup.backend.stats(setup.device(disk)).values()][:2]
    before = writes() if disk != "vda" else []
    result = fio(setup, disk)
    assert result.rc == 0 and "err= 0" in result.out, result.out
    if before:
        assert all(now > then for now, then in zip(writes(), before))


def test_fio_notices_a_byte_that_is_wrong(setup):
    """Negative control."""
    assert fio(setup, "vdb").rc == 0
    with open(setup.files["vdb"], "r+b") as file:
        file.seek(MIB)
        byte = file.read(1)
        file.seek(MIB)
        file.write(bytes((byte[0] ^ 1,)))
    result = fio(setup, "vdb", "--verify_only")
    assert result.rc != 0 and "verify" in result.out, result.out


def test_write_cache_is_switched(setup):
    guest = setup.guest
    assert F_CONFIG_WCE in guest.disk_features("vdb")
    for disk, mode in (("vdb", "write back"), ("vde", "write through")):
        assert guest.read(f"/sys/block/{disk}/queue/write_cache") == mode
    before = setup.counters("vdb")["flushes"]
    for mode, flushes in (("write through", 0), ("write back", 1)):
        guest.run(f"echo '{mode}' >/sys/block/vdb/cache_type")
        assert guest.read("/sys/block/vdb/cache_type") == mode
        told = setup.backend.telemetry(f"/vfn/info,{setup.device('vdb')}")
        assert told["cache"] == mode.replace(" ", "")
        guest.run("dd if=/dev/urandom of=/dev/vdb bs=4k count=4 conv=fsync")
        now = setup.counters("vdb")["flushes"]
        assert (now > before) == bool(flushes)
        before = now
        guest.qmp("stop")       # as far as the function knows, another start
        guest.qmp("cont")
        guest.run("dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct")
        told = setup.backend.telemetry(f"/vfn/info,{setup.device('vdb')}")
        assert told["cache"] == mode.replace(" ", "")


@disks("vdb", "vdc", "vdd")
def test_another_size_is_seen(setup, disk):
    """Larger, and what is new can be used; then as before."""
    size = SIZE + 4 * MIB
    resize(setup, disk, size)
    setup.run(f"""
        head -c 65536 /dev/urandom >/tmp/end
        dd if=/tmp/end of=/dev/{disk} bs=64k seek={size // 65536 - 1} oflag=direct
        dd if=/dev/{disk} bs=64k skip={size // 65536 - 1} iflag=direct | cmp - /tmp/end
    """)
    resize(setup, disk, SIZE)


def resize(setup, disk, size):
    answer = setup.backend.telemetry(f"/vfn/blk/size,{setup.device(disk)},{size}")
    assert answer.get("capacity_bytes") == size, answer
    setup.run(f"until test $(cat /sys/block/{disk}/size) = {size // 512}; do usleep 50000; done",
              timeout=60 * SLOW)


def test_read_only_disk(setup):
    guest = setup.guest
    assert guest.read("/sys/block/vdf/ro") == "1"
    assert guest.read("/sys/block/vdf/serial") == "vfn-4711"
    with pytest.raises(GuestError):
        guest.run("dd if=/dev/zero of=/dev/vdf bs=4k count=1 oflag=direct")
    assert FILLED.decode() in guest.run(f"head -c {len(FILLED)} /dev/vdf").out
    with open(setup.files["vdf"], "rb") as file:
        assert file.read(len(FILLED)) == FILLED
