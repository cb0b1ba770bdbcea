# SPDX-License-Identifier: BSD-3-Clause
"""The kernel's own virtio_blk on a disk of class=blk, by VDUSE, in a guest whose kernel has that."""

import pytest
from guest import missing
from guest.vduse import VduseGuest
from kernel import Server

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

MIB = 1 << 20


def test_kernel_has_a_disk():
    with VduseGuest() as guest:
        guest.boot()
        guest.run("mkdir -p /run /var; mount -t tmpfs run /run; ln -sfn /run /var/run")
        server = Server(guest, ["vdpa_vfn0,class=blk,mem=32M,queues=2,vduse=disk"])
        try:
            guest.run("vdpa dev add name disk mgmtdev vduse")
            guest.run("for i in $(seq 300); do test -b /dev/vda && exit; sleep 0.1; done; exit 1")
            assert int(guest.read("/sys/block/vda/size")) == 32 * MIB // 512
            assert "vduse" in guest.run("readlink -f /sys/block/vda").out
            guest.run("""
                set -e
                head -c 8388608 /dev/urandom >/tmp/random
                for job in 0 1 2 3; do
                    dd if=/tmp/random of=/dev/vda bs=64k seek=$((job * 128)) oflag=direct &
                done
                wait
                dd if=/tmp/random of=/dev/vda bs=4k seek=2048 count=128 oflag=direct conv=fsync
                echo 3 >/proc/sys/vm/drop_caches
                for job in 0 1 2 3; do
                    dd if=/dev/vda bs=1M skip=$((job * 8)) count=8 iflag=direct | cmp - /tmp/random
                done
            """)
            guest.run("vdpa dev del disk")
        finally:
            server.end()
