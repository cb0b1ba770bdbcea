# SPDX-License-Identifier: BSD-3-Clause
"""What is done to a disk in a Linux guest, whichever it is, to see that it is one."""

import re

MIB = 1 << 20


def every_sector(guest, disk, seconds, depth=48):
    """A program reads each sector it has written, and many in between. Numbers of reads, writes and
    syncs."""
    out = guest.run(f"""
        set -e
        /bin/blkdiscard -z /dev/{disk}
        blocks run /dev/{disk} {depth} 4711 {seconds}
    """, timeout=seconds + 300).out
    reads, writes, syncs = (int(re.search(rf"(\d+) {what}", out)[1])
                            for what in ("reads", "writes", "syncs"))
    size = int(guest.read(f"/sys/block/{disk}/size")) * 512
    assert reads > size // 32768 and writes > 100 and syncs > 0, out


def file_system(guest, disk, megabytes=20):
    """mkfs, mount, files, fstrim, umount, fsck; what is read afterwards comes from the disk."""
    out = guest.run(f"""
        set -e
        /bin/mke2fs -q -t ext4 -F /dev/{disk}
        mkdir -p /mnt
        mount -t ext4 /dev/{disk} /mnt
        head -c {megabytes * 1000000} /dev/urandom >/mnt/a
        mkdir /mnt/many
        for i in $(seq 200); do echo $i >/mnt/many/$i; done
        sync
        (cd /mnt && sha256sum a many/* >/tmp/sums)
        rm /mnt/many/1??
        /bin/fstrim -v /mnt
        umount /mnt
        /bin/e2fsck -f -n /dev/{disk}
        echo 3 >/proc/sys/vm/drop_caches
        mount -t ext4 -o ro /dev/{disk} /mnt
        (cd /mnt && grep -v 'many/1..$' /tmp/sums | sha256sum -c >/tmp/checked) || status=$?
        umount /mnt
        test -z "$status" || cat /tmp/checked
        wc -l </tmp/checked
    """, timeout=300).out
    assert "trimmed" in out, out
    assert out.split()[-1] == str(1 + 200 - 100), out


def zeroes_and_discards(guest, disk):
    """In the middle of what is not zero, and nothing beside it changes."""
    guest.run(f"""
        set -e
        head -c {MIB} /dev/urandom >/tmp/random
        dd if=/tmp/random of=/dev/{disk} bs=64k oflag=direct
        /bin/blkdiscard -z -o 65536 -l 327680 /dev/{disk}
        /bin/blkdiscard -o 524288 -l 131072 /dev/{disk}
        dd if=/dev/{disk} of=/tmp/got bs=64k count=16 iflag=direct
        dd if=/dev/zero of=/tmp/random bs=64k seek=1 count=5 conv=notrunc
        dd if=/dev/zero of=/tmp/random bs=64k seek=8 count=2 conv=notrunc
        cmp /tmp/got /tmp/random
    """)
