# SPDX-License-Identifier: BSD-3-Clause
"""A guest that bounces its buffers: what of its memory a device may reach, and files that end where
that ends, so that whoever touches more is told of a bus error."""

import os

from harness import random_packets, wait_until
from rings import TABLE, Memory

MIB = 1 << 20
RINGS, OUTSIDE, BUFFERS = 0x1000_0000, 0x2_0000_0000, 0x1_0000_0000
# of 2 MiB from RINGS on, and of 12 from BUFFERS on
POOL = f"dma=bounce,pool=[{RINGS:#x}+1M,{BUFFERS + MIB:#x}+8M]"
# outside of it, and across its end
BEYOND = OUTSIDE + MIB, RINGS + MIB, BUFFERS + 9 * MIB, BUFFERS + 9 * MIB - 50


class BouncedMemory(Memory):
    """Rings are in the first region, buffers in the last."""

    def __init__(self):
        super().__init__(((RINGS, 2 * MIB), (OUTSIDE, 2 * MIB), (BUFFERS, 12 * MIB)))
        self.regions[2].end = MIB

    def cut(self):
        """Nothing is left where the device may not be."""
        for region, size in zip(self.regions, (MIB, 0, 9 * MIB)):
            os.ftruncate(region.fd, size)


def bounced(fe, packed=False, pairs=1):
    """It runs, and has traffic, and nothing but its pool is left."""
    fe.connect().negotiate(packed=packed).setup(pairs, memory=BouncedMemory()).start()
    fe.check(random_packets("whole", 50, high=1514))
    fe.memory.cut()
    return fe


def used_up(ring):
    """Wait for what the device has of a ring; the lengths."""
    got = []
    assert wait_until(lambda: got.extend(ring.used()) or ring.room == ring.size), got
    return [length for _, length in got]


def send_beyond(fe):
    """Frames that are not in the pool, in whole or in part, or whose table is not."""
    ring = fe.tx()
    for at in BEYOND:
        ring.add([(at, 100, 0)])
    ring.add([(BUFFERS + MIB, 60, 0), (OUTSIDE, 60, 0)])
    for at in BEYOND[:3]:
        ring.add([(at, 32, TABLE)])
    fe.post()
    assert used_up(ring) == [0] * 8
    return 8
