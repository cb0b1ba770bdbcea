# SPDX-License-Identifier: BSD-3-Clause
"""Attacks by messages: halves, unread answers, descriptors to notify with, rings, requests that nobody
offered.
"""

import contextlib
import os
import socket
import struct
import time

from attack import (BUSY, INFLIGHT, MB, PACKED, RATE, REFUSED, SPLIT, attack, front_end, peer,
                    refused, running, some_frames, sparse, tell)
from files import full_pipe, memfd
from harness import SLOW
from hostile import GET_FEATURES
from rings import NEXT
from table import PAGE
from vhost_user import (DRIVER_OK, F_MQ, F_RARP, NEED_REPLY, VERSION, Closed, Message, Request,
                        get_config, get_inflight_fd, send_rarp, set_features, set_log_base,
                        set_mem_table, set_status, set_vring_addr, set_vring_base, set_vring_call,
                        set_vring_enable, set_vring_kick, set_vring_num)


# --- half messages, unread answers ---------------------------------------------------------------

@attack(SPLIT, BUSY)
def half_messages(a):
    """A header without its payload, half a header, descriptors with half a header; several at once."""
    fd = os.eventfd(0)
    a.stack.callback(os.close, fd)
    for data, fds in ((struct.pack("=III", Request.SET_FEATURES, VERSION, 8), ()),
                      (struct.pack("=III", Request.SET_FEATURES, VERSION, 8) + bytes(7), ()),
                      (b"\1", ()), (b"\1\0\0\0\1", [fd]), (bytes(11), [fd] * 8),
                      (struct.pack("=III", Request.GET_CONFIG, VERSION, 268) + bytes(200), ())):
        peer(a).send(data, fds)
    a.others_go_on()


@attack()
def half_messages_end(a):
    """A connection with half a message ends by itself."""
    one = peer(a)
    one.send(struct.pack("=III", Request.SET_FEATURES, VERSION, 8))
    assert one.ended(), "still waits for the rest"


@attack(SPLIT, BUSY)
def answers_not_read(a):
    for question in (GET_FEATURES, get_config(12).raw()):
        one = peer(a)
        one.sock.settimeout(0)
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            try:
                one.sock.send(question * 16)
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
    a.others_go_on()


@attack()
def answers_with_descriptors_not_read(a):
    for _ in range(2):
        fe = front_end(a)
        tell(fe, set_features(fe.features), set_mem_table(fe.memory.regions))
        with contextlib.suppress(OSError, Closed):
            fe.conn.sock.settimeout(0.05)
            for _ in range(2000):
                fe.conn.send(get_inflight_fd(2, 64))
    a.others_go_on()


# --- notification --------------------------------------------------------------------------------

@attack(SPLIT, BUSY, PACKED)
def calls_that_block(a):
    """Call descriptors that cannot be written: full eventfds in blocking mode, full pipes, others."""
    write, read = full_pipe()
    full, pair = os.eventfd(0), socket.socketpair()
    os.eventfd_write(full, (1 << 64) - 2)
    for fd in (full, write, read, pair[0].fileno()):
        fe = front_end(a)
        for ring in fe.rings:
            os.close(ring.call_fd)
            ring.call_fd = os.dup(fd)
        tell(fe, *fe.script())
        some_frames(fe)
        fe.disconnect()
    for fd in (full, write, read):
        os.close(fd)
    for end in pair:
        end.close()


@attack(BUSY)
def call_filled_between(a):
    """An eventfd that is filled between the device's look at it and its write."""
    fe = front_end(a, memory=((0x1000_0000, 8 * MB),))
    ring = fe.tx()
    os.close(ring.call_fd)
    ring.call_fd = os.eventfd(0)
    fe.start()
    for n in range(ring.size):
        ring.write_desc(n, ring.buffers, 72)
        ring.memory.store(ring.driver + 4 + 2 * n, n)
    region = fe.memory.regions[0]
    a.run_filler(region.fd, region.size, ring.driver - region.gpa, ring.device - region.gpa,
                 ring.call_fd, seconds=3)
    a.others_go_on()


@attack(SPLIT, PACKED)
def kicks_and_errors_replaced(a):
    """Descriptors come and go by the hundred; none stays."""
    fe = running(a)
    for n in range(200):
        fd = os.eventfd(0)
        for request in (Request.SET_VRING_ERR, Request.SET_VRING_KICK, Request.SET_VRING_CALL):
            tell(fe, Message(request, struct.pack("=Q", n % 2), (fd,)))
        os.close(fd)
    a.others_go_on()


@attack(SPLIT, PACKED)
def rings_toggled(a):
    fe = running(a)
    for n in range(200):
        tell(fe, set_vring_enable(n % 2, n // 2 % 2), *([set_vring_num(0, 64)] if n % 5 == 0 else []))
    some_frames(fe)


# --- rings ---------------------------------------------------------------------------------------

@attack(SPLIT, PACKED)
def ring_cut_short_by_its_region(a):
    """An area whose first bytes are the last ones of a region, nothing behind it."""
    for area in range(3):
        for short in (2, 4, 8, 16, 64, 1023):
            fe = front_end(a)
            ring, region = fe.rings[0], fe.memory.regions[0]
            places = [ring.desc, ring.driver, ring.device]
            places[area] = region.gpa + region.size - short
            uva = [fe.memory.uva(place) for place in places]
            script = [m for m in fe.script() if m.request != Request.SET_VRING_ADDR or m.payload[0]]
            at = next(n for n, m in enumerate(script) if m.request == Request.SET_VRING_KICK)
            tell(fe, *script[:at], set_vring_addr(0, *uva), *script[at:])
            for each in fe.rings:
                each.kick()
            some_frames(fe, 1) if short == 2 else None
            fe.close()


@attack(SPLIT)
def ring_of_a_late_hole(a):
    """Behind the region was a mapping of ours, which went."""
    fe = front_end(a)
    tell(fe, set_features(fe.features))
    log = memfd(1 << 36)
    region = sparse(a, 0x1_0000_0000, 1 << 34)
    tell(fe, set_log_base(1 << 36, 0, log), set_mem_table([region]))
    small = memfd(PAGE)
    tell(fe, set_log_base(PAGE, 0, small))
    for ring in fe.rings:
        tell(fe, set_vring_num(ring.index, 64), set_vring_base(ring.index, 0),
             set_vring_addr(ring.index, region.uva, region.uva + 8192, region.uva + region.size - 2),
             set_vring_kick(ring.index, ring.kick_fd), set_vring_call(ring.index, ring.call_fd),
             set_vring_enable(ring.index))
    tell(fe, set_status(DRIVER_OK))
    os.close(log)
    os.close(small)


@attack(SPLIT, PACKED)
def circles(a):
    """Chains that go round, on the largest ring, again and again."""
    fe = front_end(a, memory=((0x1000_0000, 64 * MB),))
    memory, ring = fe.memory, fe.tx()
    ring.size = 32768
    ring.desc, ring.driver, ring.device = (memory.alloc(n, align=PAGE, region=0)
                                           for n in ring.area_sizes())
    for n in range(ring.size):
        if a.setting.packed:
            ring.write_desc(n, ring.buffers, 8, n, NEXT | ring.AVAIL)
        else:
            ring.write_desc(n, ring.buffers, 8, NEXT, (n + 1) % ring.size)
    fe.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        if not a.setting.packed:
            memory.store(ring.driver + 2, (memory.load(ring.device + 2) + 4096) & 0xffff)
        ring.kick()
        time.sleep(0.0005)
    a.others_go_on()


@attack(RATE)
def frame_larger_than_the_bucket(a):
    """It costs what it is, and frames behind it pass."""
    fe = running(a, memory=((0x1000_0000, MB), (0x2000_0000, 8 * MB)))
    big = fe.memory.regions[1]
    fe.tx().add([(big.gpa, 3 * MB, 0), (big.gpa, 3 * MB, 0)])
    fe.post()
    assert fe.settle(timeout=10), "is stuck"
    fe.send(bytes(60))
    fe.post()
    assert fe.settle(timeout=10), "the next one is stuck"


# --- requests that nobody offered ----------------------------------------------------------------

@attack(SPLIT, PACKED)
def postcopy(a):
    """Not offered, not done: page faults are never a front-end's to answer."""
    for request in (28, 29, 30):
        for protocol in (INFLIGHT, INFLIGHT | 1 << 8):
            fe = front_end(a, protocol=protocol)
            fe.conn.sock.settimeout(2 * SLOW)
            tell(fe, set_features(fe.features))
            with contextlib.suppress(TimeoutError, *REFUSED):
                fe.conn.send(Message(request), VERSION | NEED_REPLY)
                head, fds, _, _ = socket.recv_fds(fe.conn.sock, 4096, 8)
                for fd in fds:
                    os.close(fd)
                assert not fds, f"request {request} is answered with a descriptor"
                assert not head or struct.unpack_from("=Q", head, 12)[0], f"request {request} is taken"
            fe.disconnect()
    assert not any("userfaultfd" in name for name in a.resources())


@attack(SPLIT)
def tables_without_descriptors(a):
    for count in (0, 1, 2, 8, 9):
        for fds in (0, 1, 8):
            for protocol in (1 << F_MQ, INFLIGHT):
                fe = front_end(a, protocol=protocol)
                tell(fe, set_features(fe.features))
                table = set_mem_table(fe.memory.regions)
                payload = struct.pack("=I", count) + table.payload[4:]
                payload += table.payload[8:40] * max(count - 2, 0)
                bad = Message(table.request, payload, (table.fds * 4)[:fds])
                if fe.conn.reply_ack and (fds != count or count in (0, 9)):
                    refused(fe, bad)
                else:
                    tell(fe, bad)
                tell(fe, *fe.script()[2:])
                fe.close()


@attack(SPLIT, PACKED)
def configuration_of_any_size(a):
    fe = running(a)
    for offset in (0, 1, 255, 256, 257, 1 << 16, (1 << 32) - 1):
        for size in (0, 1, 12, 255, 256, 257, 1 << 16, (1 << 32) - 1):
            for request in (Request.GET_CONFIG, 25):
                if fe.conn is None or fe.conn.gone():
                    fe.disconnect()
                    fe = running(a)
                fe.conn.send(Message(request, struct.pack("=III", offset, size, 0) + bytes(256)),
                             VERSION | NEED_REPLY)
                with contextlib.suppress(*REFUSED):
                    _, payload = fe.conn.receive()
                    assert a.magic[:8] not in payload
                    assert len(payload) <= 268


@attack(SPLIT)
def announcements(a):
    fe = running(a, protocol=INFLIGHT | 1 << F_RARP)
    for _ in range(2000):
        try:
            fe.conn.send(send_rarp(b"\2\0\0\0\0\1"))
        except (Closed, OSError):
            break
    a.others_go_on()
