# SPDX-License-Identifier: BSD-3-Clause
"""The migrating side of a scripted front-end: the dirty log (vhost-user protocol, "Migration"), a
memory that knows which bytes the driver wrote itself, and what has to be true of both.
"""

import ctypes
import mmap
import os
import re

from rings import Memory, PackedRing
from vhost_user import LOG_ALL, set_features, set_log_base

PAGE = 4096

_exchange = ctypes.CDLL("libatomic.so.1")["__atomic_exchange_8"]
_exchange.argtypes = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int
_exchange.restype = ctypes.c_uint64
SEQ_CST = 5


def pages_of(gpa, size):
    return set(range(gpa // PAGE, (gpa + size - 1) // PAGE + 1))


class Log:
    """A bitmap of `size` bytes, `offset` into a memfd which goes on behind it with a guard."""

    def __init__(self, size, offset=0, file=None):
        self.size, self.offset = size, offset
        self.fd = os.memfd_create("log")
        length = offset + (size + 7) // 8 * 8 + 2 * PAGE
        os.ftruncate(self.fd, length)
        self.map = mmap.mmap(self.fd, length)
        if file is not None:
            os.ftruncate(self.fd, file)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    @classmethod
    def of(cls, memory, short=0, offset=0):
        """Just long enough for a memory, or `short` bytes less."""
        top = max(r.gpa + r.size for r in memory.regions)
        return cls(-(-top // PAGE // 8) - short, offset)

    def message(self):
        return set_log_base(self.size, self.offset, self.fd)

    def pages(self):
        """What is marked."""
        data = self.map[self.offset:self.offset + self.size]
        return {8 * hit.start() + bit for hit in re.finditer(rb"[^\0]", data, re.DOTALL)
                for bit in range(8) if hit[0][0] >> bit & 1}

    def take(self):
        """What is marked; it is no longer, as of one instant per word."""
        found = set()
        for at in {page // 64 * 8 for page in self.pages()}:
            word = _exchange(self._base + self.offset + at, 0, SEQ_CST)
            found |= {8 * at + bit for bit in range(64) if word >> bit & 1}
        return found

    def clear(self):
        self.take()

    def outside(self):
        """Are there bits where the log is not?"""
        return any(self.map[:self.offset]) or any(self.map[self.offset + self.size:])

    def close(self):
        os.close(self.fd)   # the mapping goes with the last reference


class TrackedMemory(Memory):
    """Everything begins on a page of its own, and a second memory has only the driver's writes."""

    def __init__(self, *args):
        super().__init__(*args)
        self.own = {}       # region: what it would be, had the device written nothing
        self.touched = set()    # pages that the driver wrote

    def alloc(self, size, align=PAGE, region=0):
        return super().alloc(size, max(align, PAGE), region)

    def write(self, gpa, data):
        super().write(gpa, data)
        self._note(gpa, data)

    def store(self, gpa, value):
        super().store(gpa, value)
        self._note(gpa, value.to_bytes(2, "little"))

    def _note(self, gpa, data):
        region, at = self._find(gpa)
        self.touched |= pages_of(gpa, len(data)) if data else set()
        if region in self.own:
            self.own[region][at:at + len(data)] = data

    def begin(self):
        """From now on: what does the device write?"""
        self.own = {r: bytearray(r.map) for r in self.regions}
        self.touched = set()

    def page(self, number):
        return self.read(number * PAGE, PAGE)

    def pages(self):
        return [n for r in self.regions for n in range(r.gpa // PAGE, (r.gpa + r.size) // PAGE)]

    def written(self):
        """Pages in which something is not as the driver left it."""
        found = set()
        for r, own in self.own.items():
            now = r.map[:]
            for at in range(r.offset, r.offset + r.size, PAGE):
                if now[at:at + PAGE] != own[at:at + PAGE]:
                    found.add((r.gpa + at - r.offset) // PAGE)
        return found


def log_all(fe, on=True):
    """Tell the back-end to log, or not to."""
    bit = 1 << LOG_ALL
    fe.features = fe.features | bit if on else fe.features & ~bit
    fe.conn.tell(set_features(fe.features))


def begin(fe, log):
    """What QEMU says when a migration begins."""
    fe.memory.begin()
    fe.conn.tell(log.message())
    log_all(fe)


def areas(fe):
    """Pages of the rings that a device may write."""
    found = set()
    for ring in fe.rings:
        desc, _, device = ring.area_sizes()
        found |= pages_of(ring.device, device)
        if isinstance(ring, PackedRing):
            found |= pages_of(ring.desc, desc)
    return found


def missing(fe, log):
    """Pages that the device wrote and nobody marked."""
    return fe.memory.written() - log.pages()


def assert_exact(fe, log):
    """Of a device that stands still: what it wrote is marked, and nothing else is.

    Of a packed ring the driver may have written over what the device wrote: there pages of the
    ring may be marked which don't show it.
    """
    written, marked = fe.memory.written(), log.pages()
    assert written and written <= marked, f"not marked: {sorted(map(hex, written - marked))}"
    strangers = marked - written - areas(fe)
    assert not strangers, f"marked, not written: {sorted(map(hex, strangers))}"
    assert not log.outside()


class Copy:
    """The memory at the destination, brought up to date in rounds while the guest runs."""

    def __init__(self, fe, log):
        self.memory, self.log = fe.memory, log
        self.pages = {}
        begin(fe, log)
        self._copy(self.memory.pages())

    def _copy(self, pages):
        for number in pages:
            self.pages[number] = self.memory.page(number)

    def round(self):
        """Copy what was written since the last time; how many pages that were."""
        mine, self.memory.touched = self.memory.touched, set()
        pages = (self.log.take() | mine) & self.pages.keys()
        self._copy(pages)
        return len(pages)

    def different(self):
        """Pages that are not what they are at the source."""
        return {n for n, data in self.pages.items() if data != self.memory.page(n)}
