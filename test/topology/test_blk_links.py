# SPDX-License-Identifier: BSD-3-Clause
"""Disks of class=blk wherever a function can be: behind DPDK's own vdpa example, behind an endpoint,
in a process that takes them over from another one, and as a guest's PCI card.
"""

import contextlib
import os
import subprocess

import pytest
from guest import ImageError, Nic, missing
from guest.disk import Disk, DiskGuest
from guest.qemu11 import qemu11
from guest.vfio_user import FunctionGuest
from harness import (PLUGIN, Backend, EalProcess, Endpoint, Scratch, cpu,
                     wait_until, with_plugin)
from test_blk_qemu import F_MQ, F_RING_PACKED

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

EXAMPLE = "/usr/share/dpdk/examples/vdpa"
MIB = 1 << 20


def image(directory, mib=64):
    path = os.path.join(directory, "disk.img")
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    return path


class CardGuest(FunctionGuest):
    """With the driver of disks."""
    boot_disk = False
    _system = DiskGuest._system


@contextlib.contextmanager
def disk_guest(socket, **more):
    with DiskGuest([Disk(socket, **more)]) as guest:
        guest.boot()
        yield guest


def check_pattern(guest, mib):
    """Random bytes, written by several writers at a time, are read back."""
    guest.run(f"""
        set -e
        head -c {mib * MIB} /dev/urandom >/tmp/random
        for job in 0 1 2 3; do
            dd if=/tmp/random of=/dev/vda bs=64k seek=$((job * {mib} * 16)) oflag=direct 2>/dev/null &
        done
        wait
        dd if=/tmp/random of=/dev/vda bs=4k count=64 oflag=direct conv=fsync 2>/dev/null
        for job in 0 1 2 3; do
            dd if=/dev/vda bs=1M skip=$((job * {mib})) count={mib} iflag=direct 2>/dev/null |
                cmp - /tmp/random
        done
    """)


@pytest.fixture(scope="module")
def example():
    """Upstream's program, as it is."""
    if not os.path.exists(EXAMPLE):
        pytest.skip("no sources of DPDK's examples (package dpdk-dev)")
    scratch = Scratch()
    program = os.path.join(scratch.path, "vdpa")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libdpdk"], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.split()
    subprocess.run(["gcc", "-O1", "-DALLOW_EXPERIMENTAL_API", "-o", program,
                    os.path.join(EXAMPLE, "main.c"), *flags], check=True)
    yield program
    scratch.remove()


def test_stock_example_serves_a_disk(example, workdir):
    """It sets the features of a block device itself, and masks some of them."""
    process = EalProcess(
        example, ["--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64", "--no-shconf", "-d", PLUGIN,
                  "--vdev", f"vdpa_vfn0,class=blk,file={image(workdir)},queues=2,idle=sleep"],
        ["--iface", os.path.join(workdir, "example")], env=with_plugin())
    try:
        socket = os.path.join(workdir, "example0")
        assert wait_until(lambda: os.path.exists(socket), 30), process.log()
        with disk_guest(socket, queues=2) as guest:
            assert F_MQ in guest.disk_features()
            check_pattern(guest, 4)
    finally:
        process.kill()


def test_disk_behind_an_endpoint(workdir):
    with contextlib.closing(Endpoint(["fn0,class=blk,mem=64M,queues=2,idle=sleep"])) as endpoint, \
            Backend(f"vdpa_vfn0,class=blk,link=endpoint,path={endpoint.sockets[0]}") as backend, \
            disk_guest(backend.sockets[0], queues=2, props={"packed": "on"}) as guest:
        assert F_RING_PACKED in guest.disk_features()
        assert int(guest.read("/sys/block/vda/size")) == 64 * MIB // 512
        check_pattern(guest, 4)
        counters = backend.telemetry("/vfn/queue,vdpa_vfn0,0")
        assert counters["writes"] > 0 and counters["errors_io"] == 0
        assert backend.telemetry("/vfn/info,vdpa_vfn0")["capacity_bytes"] == 64 * MIB


def test_disk_is_a_card_of_the_guest():
    """Its driver has the function's registers. The card is plugged in while the guest runs."""
    try:
        qemu11()
    except ImageError as error:
        pytest.skip(f"no QEMU with vfio-user: {error}")
    keys = {"class": "blk", "mem": "64M", "queues": 2, "idle": "sleep"}
    with contextlib.closing(Endpoint([",".join(["fn0", *(f"{k}={v}" for k, v in keys.items())])])) as \
            endpoint, CardGuest([], later=[Nic(endpoint.sockets[0], "")], cpus=2) as guest:
        guest.boot()
        guest.plug(0)
        guest.run("for i in $(seq 300); do test -b /dev/vda && exit; sleep 0.1; done; exit 1")
        assert "virtio_blk" in guest.run("readlink -f /sys/block/vda/device/driver").out
        assert {F_MQ, F_RING_PACKED} <= guest.disk_features()
        check_pattern(guest, 4)
        guest.run("echo 'write through' >/sys/block/vda/cache_type")
        assert guest.read("/sys/block/vda/cache_type") == "write through"
        check_pattern(guest, 2)


def test_disk_is_taken_over_while_the_guest_writes(workdir):
    """The successor waits for the file, which its predecessor lets go of."""
    dev = f"vdpa_vfn0,class=blk,file={image(workdir)}"
    with Backend(dev, directory=workdir) as old, disk_guest(old.sockets[0], reconnect=1) as guest:
        job = guest.spawn("""
            set -e
            head -c 4194304 /dev/urandom >/tmp/random
            for round in $(seq 30); do
                dd if=/tmp/random of=/dev/vda bs=16k seek=$((round % 8 * 256)) oflag=direct
                dd if=/dev/vda bs=4M skip=$((round % 8)) count=1 iflag=direct | cmp - /tmp/random
            done
        """)
        with Backend(dev, directory=workdir, args=["--take-over", old.process.prefix]) as new:
            assert "it is in use" in new.process.log()
            job.wait(timeout=300)
            assert new.telemetry("/vfn/queue,vdpa_vfn0,0")["writes"] > 0
        log = guest.run("dmesg").out
        assert "I/O error" not in log, log
