# SPDX-License-Identifier: BSD-3-Clause
"""Attacks by memory: files that are cut off, and memory that is another's."""

import contextlib
import ctypes
import mmap
import os
import re
import struct
import threading
import time

from attack import (MB, PACKED, REFUSED, SHADOW, SPLIT, Sparse, attack, front_end, resident, running,
                    some_frames, tell)
from dirty import Log
from files import memfd, punch
from net_device import FrontEnd
from rings import Memory
from table import PAGE
from vhost_user import (DRIVER_OK, LOG_ALL, get_inflight_fd, get_vring_base, reset_owner,
                        set_features, set_inflight_fd, set_log_base, set_mem_table, set_status,
                        set_vring_enable, set_vring_kick)


# --- memory that goes away -----------------------------------------------------------------------

@attack(SPLIT, PACKED, SHADOW)
def memory_cut_off(a):
    """Each file that the server has mapped, at each stage."""
    for stage in range(6):
        for cut in range(3):
            fe = front_end(a)
            log, inflight = Log.of(fe.memory), memfd(PAGE * 4)
            script = fe.script()
            script[2:2] = [set_inflight_fd(PAGE * 4, 2, 64, inflight)]
            script += [log.message(), set_features(fe.features | 1 << LOG_ALL), get_vring_base(0)]
            at = len(script) * stage // 5
            tell(fe, *script[:at])
            if stage == 4:
                some_frames(fe, 2)
            for fd in ([r.fd for r in fe.memory.regions], [log.fd], [inflight])[cut]:
                os.ftruncate(fd, 0)
            for ring in fe.rings:
                ring.kick()
            tell(fe, *script[at:], set_status(DRIVER_OK), get_vring_base(1))
            fe.disconnect()
            log.close()
            os.close(inflight)
            discard(fe)


def discard(fe):
    """Of a front-end whose memory was cut off: nothing touches it at this end."""
    for ring in fe.rings:
        ring.close()
    fe.rings = []
    fe.memory.close()
    fe.memory = None


@attack(SHADOW, SPLIT)
def dirty_log_cut_off(a):
    fe = running(a)
    log = Log.of(fe.memory)
    a.stack.callback(log.close)
    tell(fe, log.message(), set_features(fe.features | 1 << LOG_ALL))
    some_frames(fe)
    os.ftruncate(log.fd, 0)
    some_frames(fe)
    tell(fe, get_vring_base(0))


@attack(SPLIT, SHADOW)
def dirty_log_on_a_full_tmpfs(a):
    """The pages that nobody touched yet cannot be had when the device stops."""
    if "file, full tmpfs" not in a.zoo.fds:
        return
    for stop in (True, False):
        fe = running(a)
        tell(fe, set_log_base(MB, 0, a.zoo["file, full tmpfs"]),
             set_features(fe.features | 1 << LOG_ALL))
        some_frames(fe)
        if stop:
            tell(fe, get_vring_base(0), get_vring_base(1))
        fe.disconnect()


@attack(SPLIT, PACKED)
def inflight_of_one_that_waits(a):
    """A second connection waits for the first one's end; its files go meanwhile."""
    first = running(a)
    second = front_end(a)
    fd = memfd(MB)
    script = second.script()
    tell(second, *script[:2], set_inflight_fd(MB, 2, 64, fd), *script[2:])
    time.sleep(0.1)
    os.ftruncate(fd, 0)
    first.disconnect()
    time.sleep(0.1)
    os.close(fd)


@attack(SPLIT, SHADOW)
def memory_of_empty_files(a):
    """Tables one after the other, each of which is a bus error."""
    fe = running(a)
    some_frames(fe)
    regions = fe.memory.regions
    for n in range(100):
        empty = [Sparse(r.gpa, r.size + PAGE * (n % 2), file_size=(0, r.size)[n // 2 % 2]) for r in regions]
        tell(fe, set_mem_table(empty))
        for region in empty:
            region.close()


@attack(SPLIT, PACKED)
def holes_under_traffic(a):
    fe = running(a)
    for _ in range(10):
        for region in fe.memory.regions:
            punch(region.fd, 0, region.size)
        some_frames(fe, 3)


# --- whose memory --------------------------------------------------------------------------------

def place(a, name, size=None):
    """Where mappings of a file begin in the server: what an attacker would guess."""
    with open(f"/proc/{a.server.pid}/maps", encoding="ascii") as maps:
        found = re.findall(rf"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+\s+/memfd:{name}\b", maps.read(), re.M)
    return [int(b, 16) for b, e in found if size in (None, int(e, 16) - int(b, 16))]


@attack(SPLIT, PACKED)
def log_in_others_memory(a):
    """An offset that leads from the log to the honest tenant's memory, before and after features."""
    size = 32 * MB
    with a.second_tenant(64 * MB):
        victim = place(a, "guest", 64 * MB)[0]
        for early in (True, False):
            for distance in (0, 16 * MB, 24 * MB):
                log_at(a, early, size, victim + distance)


def log_at(a, early, size, target):
    fe = FrontEnd(a.ports[0])
    a.stack.callback(fe.close)
    fe.connect()
    fd = os.memfd_create("evil")
    os.ftruncate(fd, size)
    if not early:
        fe.negotiate(packed=a.setting.packed)
        tell(fe, set_features(fe.features))
    tell(fe, set_log_base(size, 0, fd))
    os.ftruncate(fd, 1 << 46)
    # two places take turns: the one after the next is this one
    here = (place(a, "evil") or [target - size])[0]
    tell(fe, set_log_base(size, PAGE, fd),
         set_log_base(size, target - here & (1 << 64) - 1, fd))
    with contextlib.suppress(*REFUSED):
        if early:
            fe.negotiate(packed=a.setting.packed)
        fe.features |= 1 << LOG_ALL
        fe.setup(memory=Memory(((0x1000_0000, 16 * MB),)), rings=0, buffers=0)
        tell(fe, *fe.script())
        some_frames(fe)
        tell(fe, get_vring_base(0), get_vring_base(1))
    fe.disconnect()
    assert a.magic not in os.pread(fd, MB, 0), "read from the honest tenant"
    os.close(fd)


@attack(SPLIT, PACKED, SHADOW)
def log_after_reset_owner(a):
    """RESET_OWNER, in all places, with a log before it and none after it."""
    size = 16 * MB
    for stage in range(4):
        fe = front_end(a, memory=((0x4000_0000, 4 * MB),))
        log = memfd(size)
        tell(fe, set_features(fe.features), set_log_base(size, 0, log))
        if stage & 1:
            tell(fe, *fe.script())
        if stage & 2:
            tell(fe, set_features(fe.features | 1 << LOG_ALL))
        os.close(log)
        tell(fe, reset_owner(), reset_owner())
        with a.second_tenant(size):         # its memory comes to lie there
            fe.conn.reply_ack = False
            with contextlib.suppress(*REFUSED):
                fe.negotiate(features=fe.features, packed=a.setting.packed)
                fe.features |= 1 << LOG_ALL
                tell(fe, *fe.script())
                some_frames(fe)
            fe.disconnect()


@attack(SPLIT, PACKED)
def reset_owner_and_memory_cut_off(a):
    for last in ((), (0,), (0, 1)):
        fe = running(a)
        some_frames(fe)
        tell(fe, reset_owner())
        for region in fe.memory.regions:
            os.ftruncate(region.fd, 0)
        for ring in fe.rings:
            ring.kick()
            tell(fe, set_vring_kick(ring.index, ring.kick_fd), set_vring_enable(ring.index))
        tell(fe, *(get_vring_base(n) for n in last), reset_owner())
        fe.disconnect()
        discard(fe)


@attack(SPLIT, PACKED)
def inflight_that_dangles(a):
    """A second region is refused; the rings go on with the first; enabled again, kicked again."""
    for size in (MB, 512 * MB):
        fe = front_end(a)
        script = fe.script()
        fd = memfd(size)
        read, write = os.pipe()
        tell(fe, *script[:2], set_inflight_fd(size, 2, 64, fd), *script[2:])
        some_frames(fe)
        for bad in (read, a.zoo["memfd, empty"], a.zoo["directory"], a.zoo["file, O_PATH"]):
            tell(fe, set_inflight_fd(size, 2, 64, bad), set_inflight_fd(size << 20, 2, 64, fd))
        for on in (False, True):
            tell(fe, *(set_vring_enable(ring.index, on) for ring in fe.rings))
        tell(fe, *(set_vring_kick(ring.index, ring.kick_fd) for ring in fe.rings))
        some_frames(fe)
        for other in (fd, read, write):
            os.close(other)
        fe.disconnect()


@attack(SPLIT, PACKED)
def inflight_numbers_raised(a):
    """What the region says of itself is another number when it is used."""
    for number in (65, 32768, 65535):
        fe = front_end(a)
        script = fe.script()
        fd = memfd(PAGE * 16)
        for at in range(0, PAGE, 64):
            os.pwrite(fd, struct.pack("=QHH", 0, 1, 64), at)
        tell(fe, *script[:4], set_inflight_fd(PAGE, 2, 64, fd))
        for at in range(0, PAGE, 64):
            os.pwrite(fd, struct.pack("=QHHHH", 0, 1, number, 65535, 65535), at)
        tell(fe, *script[4:])
        some_frames(fe)
        os.close(fd)
        fe.disconnect()


@attack(SPLIT, PACKED)
def inflight_entries_that_change(a):
    """Entries are in flight or not, from one look to the next."""
    number = 32768
    fd = memfd(MB)
    shared = mmap.mmap(fd, MB)
    head = struct.pack("=QHHHH", 0, 1, number, 0, 0)
    both = [head + entry * number for entry in (bytes(16), b"\1" + bytes(15))]
    target = (ctypes.c_char * MB).from_buffer(shared)
    stop = threading.Event()

    def toggle():
        while not stop.is_set():
            for data, pause in zip(both, (0.0003, 0.00005)):
                ctypes.memmove(target, data, len(data))
                time.sleep(pause)
    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            fe = front_end(a)
            script = fe.script()
            tell(fe, *script[:5], set_inflight_fd(MB, 1, number, fd))
            for _ in range(10):
                tell(fe, set_vring_kick(0, fe.rings[0].kick_fd))
            tell(fe, get_vring_base(0))
            fe.close()
    finally:
        stop.set()
        thread.join()
        os.close(fd)


@attack(SPLIT, PACKED)
def inflight_asked_for(a):
    """Regions of any size, before and after features: what they cost."""
    before = resident(a)
    for features in (False, True):
        for queues, size in ((640, 65535), (65535, 65535), (0, 0), (1, 65535), (128, 32768), (65535, 1)):
            fe = front_end(a)
            if features:
                tell(fe, set_features(fe.features))
            with contextlib.suppress(*REFUSED):
                os.close(fe.conn.ask_fd(get_inflight_fd(queues, size))[1])
            fe.disconnect()
    assert resident(a) < before + 100, f"{resident(a)} MiB, {before} before"


@attack(SPLIT, PACKED)
def inflight_given_twice(a):
    """One region after the other while rings run, and numbers that don't fit."""
    fe = running(a)
    for number in range(40):
        fd = memfd((1 + number) * PAGE)
        tell(fe, set_inflight_fd((1 + number) * PAGE, 1 + number % 3, 1 << number % 12, fd))
        os.close(fd)
        if number % 8 == 0:
            some_frames(fe, 2)
