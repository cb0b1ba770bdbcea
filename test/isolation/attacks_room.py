# SPDX-License-Identifier: BSD-3-Clause
"""Attacks by taking all there is, and by the back channel."""

import contextlib
import os
import socket
import struct
import threading
import time

from attack import (DOORBELL, FEW, INFLIGHT, MB, REFUSED, SHADOW, SPLIT, attack, front_end,
                    resident, some_frames, sparse, tell)
from back_channel import DOORBELLS, BackChannel, DoorbellFrontEnd, set_backend_req_fd
from files import memfd
from harness import SLOW
from hostile import GET_FEATURES, Gone, Peer, Silent
from vhost_user import (LOG_ALL, Closed, Message, Request, get_vring_base, set_features,
                        set_log_base, set_mem_table, set_vring_num)


# --- resources -----------------------------------------------------------------------------------

def log_of_much_memory(a, tera):
    fe = front_end(a, protocol=INFLIGHT & ~(1 << 3))
    big = sparse(a, 0x10_0000_0000, tera << 40)
    tell(fe, set_features(fe.features), set_mem_table([*fe.memory.regions, big]), *fe.script()[2:])
    tell(fe, set_features(fe.features | 1 << LOG_ALL))
    length = big.gpa + big.size >> 15
    log = memfd(length)
    tell(fe, set_log_base(length, 0, log), get_vring_base(0), get_vring_base(1))
    os.close(log)
    return fe


@attack(SPLIT)
def log_that_comes_late(a):
    """All of a large, sparse memory is dirty at the stop."""
    for tera in (1, 8):
        with contextlib.suppress(*REFUSED):
            log_of_much_memory(a, tera)
    a.others_go_on()


@attack(SPLIT, FEW)
def address_space(a):
    """Tables of sparse files, on as many connections as there may be."""
    for size in (1 << 46, 1 << 45, 1 << 44, 1 << 42, 1 << 40, 1 << 38, 1 << 36) * 3:
        try:
            fe = front_end(a, memory=((0x1000_0000, MB),))
        except REFUSED:
            break               # no more of them
        tell(fe, set_features(fe.features),
             set_mem_table([sparse(a, n + 1 << 47, size) for n in range(7)]),
             set_mem_table([sparse(a, 1 << 47, size)]))
    a.others_go_on()
    a.newcomer()


@attack(SPLIT, FEW)
def many_connections(a):
    """1,100 on one port."""
    mine, patience = [], 200
    while len(mine) < 1100 and patience:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(a.ports[0])
            mine.append(sock)
        except OSError:
            sock.close()
            patience -= 1
            time.sleep(0.005)
    a.stack.callback(lambda: [sock.close() for sock in mine])
    a.others_go_on()
    a.newcomer()


@attack(SPLIT, FEW)
def reconnects(a):
    """As fast as it goes, with nothing, with a question, with a table."""
    end = time.monotonic() + 2
    number = 0
    while time.monotonic() < end:
        number += 1
        with contextlib.suppress(Gone, Silent, OSError):
            one = Peer(a.ports[0])
            try:
                if number % 3:
                    one.send(GET_FEATURES)
                if number % 3 == 2:
                    one.sync()
            finally:
                one.close()
    a.others_go_on()
    a.newcomer()


@attack(SPLIT, SHADOW, FEW)
def rings_that_the_device_lacks(a):
    """Numbers up to 255, of the largest size, with descriptors: memory, descriptors, then a migration."""
    event = os.eventfd(0)
    before = resident(a)
    for _ in range(3):
        fe, size = front_end(a), 32768
        for ring in range(256):
            tell(fe, set_vring_num(ring, size))
            for request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR):
                tell(fe, Message(request, struct.pack("=Q", ring), (event,)))
    os.close(event)
    a.others_go_on()
    a.newcomer()
    if a.setting.log:
        a.tell_tenant("migrate")
        a.others_go_on()
    assert resident(a) < before + 100


@attack(SPLIT, FEW)
def descriptors_sent_along(a):
    """Eight of them with each message, from several connections, whether they are wanted or not."""
    fds = [os.eventfd(0) for _ in range(8)]
    for number in range(300):
        with contextlib.suppress(Gone, Silent, OSError):
            one = Peer(a.ports[0])
            a.stack.callback(one.close)
            one.send(GET_FEATURES, fds)
            if number % 100:
                one.close()
    for fd in fds:
        os.close(fd)
    a.others_go_on()
    a.newcomer()


# --- the back channel ----------------------------------------------------------------------------

def as_long_as_it_lasts(answer, channel):
    with contextlib.suppress(OSError):
        answer(channel)


def back_channels(a, answer, seconds=1.5):
    """Front-ends that answer in some way of theirs while they start and stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fe = DoorbellFrontEnd(a.ports[0])
        thread = None
        try:
            fe.connect().negotiate().setup(2, size=4)
            thread = threading.Thread(target=as_long_as_it_lasts, args=(answer, fe.channel), daemon=True)
            thread.start()
            for _ in range(3):
                tell(fe, *fe.script())
                time.sleep(0.002)
                tell(fe, *(get_vring_base(ring.index) for ring in fe.rings))
        except REFUSED:
            pass
        finally:
            with contextlib.suppress(OSError):
                fe.channel.ours.shutdown(socket.SHUT_RDWR)
            if thread is not None:
                thread.join(5)
            fe.close()


def questions(channel):
    """[(request, flags)] as they come, until the channel ends."""
    with contextlib.suppress(TimeoutError, Closed, OSError, struct.error):
        while True:
            request, flags, _, fds = channel.receive(timeout=0.3 / SLOW)
            for fd in fds:
                os.close(fd)
            yield request, flags


def answer_right(channel):
    for request, _ in questions(channel):
        channel.answer(request)


def answer_never(channel):
    list(questions(channel))


def answer_twice(channel):
    for request, _ in questions(channel):
        channel.answer(request)
        channel.answer(request, 1)


def answer_late(channel):
    for request, _ in questions(channel):
        time.sleep(0.15)
        channel.answer(request)


def answer_other(channel):
    for request, _ in questions(channel):
        channel.answer(request ^ 0xff, 1)


def answer_at_length(channel):
    for request, _ in questions(channel):
        channel.ours.sendall(struct.pack("=III", request, 5, 1 << 20) + bytes(100))


def answer_by_half(channel):
    for request, _ in questions(channel):
        channel.ours.sendall(struct.pack("=II", request, 5))


def answer_with_descriptors(channel):
    fd = os.eventfd(0)
    for request, _ in questions(channel):
        socket.send_fds(channel.ours, [struct.pack("=IIIQ", request, 5, 8, 0)], [fd] * 8)
    os.close(fd)


def answer_and_go(channel):
    for _ in questions(channel):
        channel.ours.shutdown(socket.SHUT_RDWR)


@attack(DOORBELL)
def back_channel_answers(a):
    for answer in (answer_right, answer_never, answer_twice, answer_late, answer_other, answer_at_length,
                   answer_by_half, answer_with_descriptors, answer_and_go):
        back_channels(a, answer, 0.7)
        a.alive()
    a.others_go_on()


@attack(DOORBELL)
def back_channel_deadlock(a):
    """Started and stopped while telemetry is asked, with answers that come at once."""
    back_channels(a, answer_right, 5)
    a.others_go_on()


@attack(DOORBELL)
def back_channels_of_all_kinds(a):
    """Sockets without room, no sockets at all, one after the other, and closed ones."""
    for number in range(30):
        fe = front_end(a, protocol=INFLIGHT | DOORBELLS)
        channel = BackChannel()
        if number % 3 == 0:
            channel.fill()
        tell(fe, set_backend_req_fd(channel.theirs.fileno()), set_backend_req_fd(channel.theirs.fileno()))
        if number % 3 == 1:
            channel.close()
        if number % 3 == 2:
            tell(fe, *(set_backend_req_fd(a.zoo[name]) for name in
                       ("pipe, read end", "/dev/null", "memfd", "eventfd", "socket, listening", "directory")))
        tell(fe, *fe.script())
        some_frames(fe, 2)
        fe.disconnect()
        with contextlib.suppress(OSError):
            channel.close()
    a.others_go_on()
