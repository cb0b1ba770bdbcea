# SPDX-License-Identifier: BSD-3-Clause
"""SIGTERM ends the server within a second at any moment, whatever front-ends do or leave undone."""

import contextlib
import os
import random
import struct
import threading
import time

import pytest

from arena import Setting, arena, note
from attack import front_end, peer, running, tell
from back_channel import DOORBELLS, BackChannel, set_backend_req_fd
from harness import NIGHTLY, PmdError
from hostile import GET_FEATURES, WANTED, Gone, Kit, Silent
from test_messages import SEED
from vhost_user import LOG_ALL, VERSION, Closed, Request, set_features, set_log_base

SETTING = Setting("end", devs="doorbell=on,idle=busy,queues=2")
ROUNDS = 20 if NIGHTLY else 1


def half_messages(a):
    for data in (b"\1", struct.pack("=III", Request.SET_FEATURES, VERSION, 8) + bytes(3)):
        peer(a).send(data)


def unread_answers(a):
    one = peer(a)
    one.sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            one.sock.send(GET_FEATURES * 64)


def unanswered_questions(a):
    """Doorbells are offered to one who says nothing, and to one who does not even read."""
    for port, fill in enumerate((False, True)):
        fe = front_end(a, protocol=WANTED | DOORBELLS, port=port)
        channel = BackChannel()
        a.stack.callback(channel.close)
        if fill:
            channel.fill()
        tell(fe, set_backend_req_fd(channel.theirs.fileno()), *fe.script())


def busy(a):
    """Traffic that goes on until the connection ends."""
    fe = running(a)

    def pump():
        with contextlib.suppress(OSError, Closed, KeyError, ValueError, AttributeError):
            while not fe.conn.gone():
                fe.echo([bytes(1000)] * 50, timeout=0.2)
    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    a.stack.callback(thread.join, 5)


def memory_cut_off(a):
    fe = running(a)
    log = a.zoo["file, full tmpfs"] if "file, full tmpfs" in a.zoo.fds else a.zoo["memfd"]
    tell(fe, set_log_base(1 << 20, 0, log), set_features(fe.features | 1 << LOG_ALL))
    for region in fe.memory.regions:
        os.ftruncate(region.fd, 0)
    for ring in fe.rings:
        ring.close()
    fe.rings.clear()


def messages(a):
    """Scripts, again and again, from two connections at once."""
    kit = Kit(a.ports[0], a.setting)
    a.stack.callback(kit.close)

    def talk():
        with contextlib.suppress(OSError, Gone, Silent):
            while True:
                one = peer(a)
                one.tell(kit.running(), a.zoo)
                one.close()
    for _ in range(2):
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        a.stack.callback(thread.join, 5)


def connections(a):
    for _ in range(40):
        with contextlib.suppress(Silent, OSError):
            peer(a).sock.settimeout(0.01)


HOW = (half_messages, unread_answers, unanswered_questions, busy, memory_cut_off, messages, connections)


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
def test_sigterm(workdir, zoo, how):
    rng = random.Random(f"{SEED}/{how.__name__}")
    slowest = 0.0
    for _ in range(ROUNDS):
        with arena(SETTING, workdir, zoo=zoo) as a:
            how(a)
            time.sleep(rng.random() * 0.3)
            slowest = max(slowest, a.terminate())
            with contextlib.suppress(PmdError):
                a.stop_tenants()        # who have lost their server
    note(SETTING, how.__name__, {"rounds": ROUNDS, "slowest": slowest})
