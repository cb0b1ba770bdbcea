# SPDX-License-Identifier: BSD-3-Clause
"""Shared memory and the driver's side of virtqueues for a scripted front-end.

- Memory: memfd regions at chosen guest-physical addresses; front-end (user) addresses differ
  from them by USER_BASE so that taking one for the other is noticed;
- SplitRing, PackedRing: the driver's side of a virtqueue anywhere in that memory (virtio 1.3, 2.7
  and 2.8), with every field within reach for writing nonsense.

Fields that the device reads while they change are stored through a view of 16-bit words, which
is one store; struct.pack_into() clears the place first, and an index would be seen as 0 in
between. x86 keeps stores in order. Kicks are sent whether the device asks for them or not, and
used entries are polled, so no memory barrier is needed.
"""

import contextlib
import mmap
import os
import select
import struct

from harness import SLOW
from vhost_user import (set_vring_num, set_vring_base, set_vring_addr, set_vring_kick,
                        set_vring_call, set_vring_enable)


# --- memory --------------------------------------------------------------------------------------

USER_BASE = 0x7000_0000_0000


class Region:
    """Shared memory that starts at `offset` of a memfd of its own."""

    def __init__(self, gpa, size, offset=0):
        self.gpa, self.size, self.offset = gpa, size, offset
        self.uva = USER_BASE + gpa
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, offset + size)
        self.map = mmap.mmap(self.fd, offset + size)
        self.words = memoryview(self.map).cast("H")
        self.end = 0        # what alloc() has given away

    def close(self):
        self.words.release()
        self.map.close()
        os.close(self.fd)


class Memory:
    """The guest's memory: regions as [(gpa, size), ...]."""

    def __init__(self, regions=((0x1000_0000, 1 << 21), (0x1_0000_0000, 1 << 23))):
        self.regions = [Region(*r) for r in regions]

    def _find(self, gpa):
        for r in self.regions:
            if r.gpa <= gpa < r.gpa + r.size:
                return r, gpa - r.gpa + r.offset
        raise IndexError(f"{gpa:#x} is no guest memory")

    def uva(self, gpa):
        """Front-end address; what is not memory has one too, for tests of that."""
        return USER_BASE + gpa

    def read(self, gpa, size):
        region, at = self._find(gpa)
        return region.map[at:at + size]

    def write(self, gpa, data):
        region, at = self._find(gpa)
        region.map[at:at + len(data)] = data

    def load(self, gpa):
        """One 16-bit word, read at once."""
        region, at = self._find(gpa)
        return region.words[at // 2]

    def store(self, gpa, value):
        region, at = self._find(gpa)
        region.words[at // 2] = value

    def alloc(self, size, align=64, region=0):
        """A fresh place in a region: its guest-physical address."""
        r = self.regions[region]
        start = -(-r.end // align) * align
        if start + size > r.size:
            raise MemoryError(f"region {region} has no {size} bytes left")
        r.end = start + size
        return r.gpa + start

    def close(self):
        for r in self.regions:
            r.close()


# --- rings ---------------------------------------------------------------------------------------

NEXT, WRITE, TABLE = 1, 2, 4        # descriptor flags; TABLE is virtio's INDIRECT
MAX_TABLE = 16                      # entries of the indirect tables made here
BUFFER = 2048                       # bytes of the buffer that belongs to each chain


class Ring:
    """What both formats share: place, eventfds, one buffer and one table per chain.

    add() takes [(gpa, length, WRITE or 0), ...], publish() shows what was added to the device,
    used() returns [(chain, bytes written), ...] that came back. `rings` and `buffers` say which
    regions to use.
    """

    def __init__(self, memory, index, size, rings=0, buffers=-1):
        self.memory, self.index, self.size = memory, index, size
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.desc, self.driver, self.device = (
            memory.alloc(n, region=rings) for n in self.area_sizes())
        self.buffers = memory.alloc(size * BUFFER, region=buffers)
        self.tables = memory.alloc(size * MAX_TABLE * 16, region=buffers)
        self.free = list(range(size))[::-1]     # numbers for chains
        self.room = size                        # descriptors that are not in use
        self.chains = {}                        # chain: descriptors it takes, oldest first
        self.in_order = False                   # negotiated: one entry may stand for several

    def area_sizes(self):
        raise NotImplementedError

    def move(self, region=0):
        """To another place, as it is; only while stopped."""
        old = self.desc, self.driver, self.device
        new = [self.memory.alloc(n, region=region) for n in self.area_sizes()]
        for a, b, n in zip(old, new, self.area_sizes()):
            self.memory.write(b, self.memory.read(a, n))
        self.desc, self.driver, self.device = new

    def buffer(self):
        """Address of the buffer that belongs to the chain which is added next."""
        return self.buffers + self.free[-1] * BUFFER

    def table(self, segments):
        """Write an indirect table for the chain which is added next; return the descriptor."""
        at = self.tables + self.free[-1] * MAX_TABLE * 16
        for i, (gpa, length, flags) in enumerate(segments):
            self.write_table_entry(at + 16 * i, gpa, length, flags,
                                   i + 1 if i + 1 < len(segments) else None)
        return at, 16 * len(segments), TABLE

    def write_table_entry(self, at, gpa, length, flags, following):
        raise NotImplementedError

    def entry(self, outstanding, chain, length):
        """What a used entry says: [(chain, length), ...]. Skipped chains had nothing to write."""
        if not self.in_order:
            return [(chain, length)]
        numbers = list(outstanding)
        return [(n, 0) for n in numbers[:numbers.index(chain)]] + [(chain, length)]

    def fits(self, descriptors):
        return bool(self.free) and self.room >= descriptors

    def kick(self):
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.kick_fd, 1)

    def called(self, timeout=0):
        """Was there a call since the last time this was asked?"""
        if not select.select([self.call_fd], [], [], timeout * SLOW)[0]:
            return False
        os.eventfd_read(self.call_fd)
        return True

    def addresses(self):
        """The SET_VRING_ADDR of this ring."""
        uva = self.memory.uva
        return set_vring_addr(self.index, uva(self.desc), uva(self.driver), uva(self.device))

    def setup(self, enable=True):
        """The messages that bring the ring to life, from NUM to ENABLE."""
        return [set_vring_num(self.index, self.size), set_vring_base(self.index, self.position()),
                self.addresses(), set_vring_kick(self.index, self.kick_fd),
                set_vring_call(self.index, self.call_fd),
                *([set_vring_enable(self.index)] if enable else [])]

    def position(self):
        """Where the device stands as vhost-user has it, if all that it used has been seen."""
        raise NotImplementedError

    def close(self):
        os.close(self.kick_fd)
        os.close(self.call_fd)


class SplitRing(Ring):
    """virtio 1.3, 2.7. `start` is the index of the first chain."""

    def __init__(self, memory, index, size, start=0, **where):
        super().__init__(memory, index, size, **where)
        self.avail = self.seen = start
        memory.store(self.driver + 2, start)
        memory.store(self.device + 2, start)
        self.heads = {}     # head: its descriptors

    def area_sizes(self):
        return 16 * self.size, 6 + 2 * self.size, 6 + 8 * self.size

    def write_desc(self, number, gpa, length, flags=0, following=0):
        self.memory.write(self.desc + 16 * number,
                          struct.pack("=QIHH", gpa, length, flags, following))

    def write_table_entry(self, at, gpa, length, flags, following):
        flags |= 0 if following is None else NEXT
        self.memory.write(at, struct.pack("=QIHH", gpa, length, flags, following or 0))

    def add(self, segments):
        taken = [self.free.pop() for _ in segments]
        for i, (gpa, length, flags) in enumerate(segments):
            last = i + 1 == len(segments)
            self.write_desc(taken[i], gpa, length, flags | (0 if last else NEXT),
                            0 if last else taken[i + 1])
        self.room -= len(taken)
        self.heads[taken[0]] = taken
        self.offer(taken[0])
        return taken[0]

    def offer(self, head):
        """Put a head into the avail ring, whatever it is."""
        self.memory.store(self.driver + 4 + 2 * (self.avail % self.size), head)
        self.avail = (self.avail + 1) & 0xffff

    def publish(self, index=None):
        self.memory.store(self.driver + 2, self.avail if index is None else index & 0xffff)

    def used(self):
        got = []
        while self.seen != self.memory.load(self.device + 2):
            at = self.device + 4 + 8 * (self.seen % self.size)
            entry = struct.unpack("=II", self.memory.read(at, 8))
            for head, length in self.entry(self.heads, *entry):
                self.seen = (self.seen + 1) & 0xffff
                taken = self.heads.pop(head, [])
                self.free += taken[::-1]
                self.room += len(taken)
                got.append((head, length))
        return got

    def position(self):
        return self.seen


class PackedRing(Ring):
    """virtio 1.3, 2.8. `start` is the first slot, with the wrap counter in bit 15."""

    AVAIL, USED = 1 << 7, 1 << 15

    def __init__(self, memory, index, size, start=0x8000, **where):
        super().__init__(memory, index, size, **where)
        self.remembered = start     # where QEMU takes it to stand once a back-end was lost
        self.slot = self.used_slot = start & 0x7fff
        self.wrap = self.used_wrap = start >> 15
        # a ring in its first lap is all zeroes; slots of the lap before count as used
        behind = 0 if self.wrap else self.AVAIL | self.USED
        for slot in range(size):
            lap = behind if slot >= self.slot else behind ^ (self.AVAIL | self.USED)
            memory.store(self.desc + 16 * slot + 14, lap)
        self.pending = []       # heads whose flags are still to be written: (address, flags)

    def area_sizes(self):
        return 16 * self.size, 4, 4

    def write_desc(self, slot, gpa, length, number, flags):
        """All but the flags first: they make it available."""
        at = self.desc + 16 * slot
        self.memory.write(at, struct.pack("=QIH", gpa, length, number))
        self.memory.store(at + 14, flags)

    def write_table_entry(self, at, gpa, length, flags, following):
        self.memory.write(at, struct.pack("=QIHH", gpa, length, 0, flags))

    def add(self, segments):
        number = self.free.pop()
        for i, (gpa, length, flags) in enumerate(segments):
            flags |= self.AVAIL if self.wrap else self.USED
            flags |= NEXT if i + 1 < len(segments) else 0
            if i == 0:
                # stale until published: the flags of the slot stay as they are
                at = self.desc + 16 * self.slot
                self.pending.append((at + 14, flags))
                self.memory.write(at, struct.pack("=QIH", gpa, length, number))
            else:
                self.write_desc(self.slot, gpa, length, number, flags)
            self.slot += 1
            if self.slot == self.size:
                self.slot, self.wrap = 0, self.wrap ^ 1
        self.chains[number] = len(segments)
        self.room -= len(segments)
        return number

    def publish(self):
        # the first head last: the device sees all of it or nothing
        for at, flags in reversed(self.pending):
            self.memory.store(at, flags)
        self.pending.clear()

    def used(self):
        got = []
        while True:
            at = self.desc + 16 * self.used_slot
            flags = self.memory.load(at + 14)
            if {bool(flags & self.AVAIL), bool(flags & self.USED)} != {bool(self.used_wrap)}:
                return got
            length, last = struct.unpack("=IH", self.memory.read(at + 8, 6))
            for number, n in self.entry(self.chains, last, length if flags & WRITE else 0):
                slots = self.chains.pop(number)
                self.used_slot += slots
                if self.used_slot >= self.size:
                    self.used_slot -= self.size
                    self.used_wrap ^= 1
                self.free.append(number)
                self.room += slots
                got.append((number, n))

    def drop(self):
        """As QEMU when the guest kicks and there is no back-end: the chain at the position that it
        remembers is used up, if there is one. Its number, or None."""
        slot, wrap = self.remembered & 0x7fff, self.remembered >> 15
        at = self.desc + 16 * slot
        if self.memory.load(at + 14) & (self.AVAIL | self.USED) != (self.AVAIL if wrap else self.USED):
            return None
        number = struct.unpack("=H", self.memory.read(at + 12, 2))[0]
        self.memory.write(at + 8, struct.pack("=I", 0))
        self.memory.store(at + 14, self.AVAIL | self.USED if wrap else 0)
        slot += self.chains[number]
        self.remembered = (slot - self.size | (wrap ^ 1) << 15 if slot >= self.size else
                           slot | wrap << 15)
        return number

    def position(self):
        return self.used_slot | self.used_wrap << 15
