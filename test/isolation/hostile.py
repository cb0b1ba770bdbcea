# SPDX-License-Identifier: BSD-3-Clause
"""The hostile tenant: a connection that sends anything, memory and descriptors to send along, and
the states of a connection, each reached by a script of correct messages.
"""

import contextlib
import os
import re
import select
import socket
import struct
import time

from dirty import Log
from files import memfd
from harness import RING_PACKED, SLOW
from net_device import FEATURES, PROTOCOL, FrontEnd
from rings import USER_BASE, Memory
from table import PAGE, Case, rows
from vhost_user import (F_INFLIGHT, F_LOG_SHMFD, F_RARP, LOG_ALL, NEED_REPLY, VERSION, Request,
                        get_config, get_features, get_inflight_fd, get_protocol_features,
                        get_queue_num, get_vring_base, reset_owner, send_rarp, set_features,
                        set_inflight_fd, set_mem_table, set_owner,
                        set_protocol_features, set_status, set_vring_enable, Message)

F_MTU, F_BACKEND_REQ, F_SEND_FD, F_NOTIFIER, F_SLOTS = 4, 5, 10, 11, 15
WANTED = (PROTOCOL | 1 << F_INFLIGHT | 1 << F_LOG_SHMFD | 1 << F_RARP | 1 << F_MTU |
          1 << F_BACKEND_REQ | 1 << F_SEND_FD | 1 << F_NOTIFIER | 1 << F_SLOTS)
PATIENCE = 15           # seconds in which there must be an answer, or the end
RINGS, SIZE = 2, 64
SMALL = ((0x1000_0000, 1 << 19), (0x2000_0000, 1 << 21))


class Silent(Exception):
    """Neither an answer nor the end of the connection."""


class Gone(Exception):
    """The connection has ended."""


class Peer:
    """A connection that does not care. Counts what it sends."""

    sent = 0

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE * SLOW)
        self.buffer = b""
        self.connect(path)

    def connect(self, path):
        """A server that paces its clients makes them wait."""
        deadline = time.monotonic() + PATIENCE * SLOW
        while True:
            try:
                self.sock.connect(path)
                return
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    self.sock.close()
                    raise Silent("a connection is not taken") from error
                time.sleep(0.001)
            except OSError:
                self.sock.close()
                raise

    def send(self, raw, fds=(), at=0):
        """Bytes, with descriptors beside the one at `at`."""
        Peer.sent += 1
        try:
            if at:
                self.sock.sendall(raw[:at])
            if fds:
                done = socket.send_fds(self.sock, [raw[at:]], fds)
                if done < len(raw) - at:
                    self.sock.sendall(raw[at + done:])
            else:
                self.sock.sendall(raw[at:])
        except TimeoutError as error:
            raise Silent("nothing is read") from error
        except OSError as error:
            raise Gone from error

    def read(self, size):
        while len(self.buffer) < size:
            try:
                data = self.sock.recv(65536)
            except TimeoutError as error:
                raise Silent("no answer") from error
            except OSError as error:
                raise Gone from error
            if not data:
                raise Gone
            self.buffer += data
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def tell(self, messages, zoo):
        """A script, and wait until all of it was looked at."""
        for message in messages:
            self.send(raw(message), zoo.resolve(message.fds))
        self.sync(asked=sum(m.request == Request.GET_FEATURES for m in messages))

    def sync(self, question=Request.GET_FEATURES, asked=0):
        """Wait until everything was looked at; return the answers: [(request, payload)]. `asked`: how
        often that question was asked before and not waited for."""
        try:
            self.send(struct.pack("=III", question, VERSION, 0))
        except Gone:
            pass                # there may be answers
        answers = []
        while True:
            request, flags, size = struct.unpack("=III", self.read(12))
            if not flags & 4 or size > 1 << 16:
                raise AssertionError(f"an answer with flags {flags:#x}, {size} bytes")
            payload = self.read(size)
            if request == question and not asked:
                return answers
            asked -= request == question
            answers.append((request, payload))

    def ended(self, timeout=PATIENCE):
        """Wait for the end of the connection; False if it does not come."""
        deadline = time.monotonic() + timeout * SLOW
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.sock], [], [], left)[0]:
                return False
            try:
                if not self.sock.recv(65536):
                    return True
            except OSError:
                return True
        return False

    def close(self):
        self.sock.close()


GET_FEATURES = struct.pack("=III", Request.GET_FEATURES, VERSION, 0)


# requests after which the state is what it was
HARMLESS = (Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES, Request.GET_QUEUE_NUM,
            Request.GET_CONFIG, Request.GET_STATUS)


def raw(message):
    """With a wish to hear of it, unless it has an answer of its own."""
    return message.raw(VERSION if message.replies else VERSION | NEED_REPLY)


class Kit:
    """Memory, rings and files of a hostile tenant, of which scripts are made, for any number of
    connections to one port."""

    def __init__(self, path, setting, pairs=1):
        self.path, self.setting = path, setting
        self.fe = FrontEnd(path)
        peer = Peer(path)
        conn = self.fe.conn = _Asking(peer)
        self.offered = conn.ask(get_features())
        self.protocol = conn.ask(get_protocol_features())
        peer.close()
        self.fe.conn = None
        self.features = self.offered & (FEATURES | setting.packed << RING_PACKED)
        self.accepted = self.protocol & WANTED
        self.fe.features, self.fe.protocol = self.features, self.accepted
        self.pairs = pairs
        self.log = self.inflight = None
        self.renew()

    def renew(self):
        """Memory as on the first day, whatever became of the old one."""
        self.close()
        self.fe.setup(self.pairs, SIZE, Memory(SMALL), rings=0, buffers=1)
        self.log = Log.of(self.fe.memory)
        self.inflight = memfd(PAGE * 4)

    @property
    def rings(self):
        return self.fe.rings

    def files(self):
        """Descriptors of what the server maps."""
        return [*(r.fd for r in self.fe.memory.regions), self.log.fd, self.inflight]

    def seen(self, magic):
        """Is there something of another tenant's in our files?"""
        for fd in self.files():
            size = os.fstat(fd).st_size
            if size <= 1 << 24 and magic in os.pread(fd, size, 0):
                return True
        return False

    def hints(self, pid):
        """Addresses that are not ours: others' memory, in the server and at their own ends."""
        with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
            found = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ rw-s.*memfd:(?:guest|honest)", maps.read(), re.M)
        theirs = [int(at, 16) for at in found][:6]
        theirs += [0x2000_0000, USER_BASE + 0x1000_0000, USER_BASE + 0x2000_0000]
        sizes = [r.size for r in self.fe.memory.regions]
        return {"uva": theirs, "area": theirs,
                "gpa": theirs + [(1 << 64) - s + d for s in sizes for d in (-PAGE, -1, 0, 1, PAGE)]}

    def close(self):
        self.fe.close()
        if self.log is not None:
            self.log.close()
            os.close(self.inflight)
            self.log = None

    # scripts

    def asked(self):
        return [get_features()]

    def negotiated(self):
        return [get_features(), get_protocol_features(), set_protocol_features(self.accepted)]

    def owner(self):
        return self.negotiated() + [get_queue_num(), set_owner()]

    def featured(self):
        return self.owner() + [set_features(self.features)]

    def table(self):
        return self.featured() + [set_mem_table(self.fe.memory.regions)]

    def inflight_fd(self):
        return set_inflight_fd(PAGE * 4, RINGS, SIZE, self.inflight)

    def half(self):
        return self.table() + self.rings[0].setup()

    def up(self):
        rings = [m for ring in self.rings for m in ring.setup()]
        return rings + [set_status(0x0f)]

    def running(self):
        return self.table() + self.up()

    def states(self):
        """{name: (messages, phase of the table or None, may features of the protocol be used)}"""
        log_all = set_features(self.features | 1 << LOG_ALL)
        stop = [get_vring_base(ring.index) for ring in self.rings]
        return {
            "fresh": ([], "new"),
            "asked": (self.asked(), "new"),
            "protocol set": (self.negotiated(), "new"),
            "owner": (self.owner(), "new"),
            "features set": (self.featured(), "features"),
            "features, no protocol": (self.asked() + [set_features(self.features)], "features"),
            "table": (self.table(), "memory"),
            "half of the rings": (self.half(), "running"),
            "running": (self.running(), "running"),
            "disabled": (self.running() + [set_vring_enable(r.index, False) for r in self.rings],
                         "running"),
            "log on": (self.running() + [self.log.message(), log_all], "running"),
            "log before the rings": (self.table() + [self.log.message(), log_all] + self.up(), "running"),
            "in-flight": (self.table() + [self.inflight_fd()] + self.up(), "running"),
            "stopped": (self.running() + stop, None),
            "stopped with a log": (self.running() + [self.log.message(), log_all] + stop, None),
            "after RESET_OWNER": (self.running() + [reset_owner()], None),
            "RESET_OWNER and on": (self.running() + [reset_owner(), *self.featured()[1:]], None),
        }

    def right(self, request):
        """A correct message of that kind: (payload, descriptors)."""
        ring = self.rings[0]
        region = self.fe.memory.regions[1]
        made = {
            "SET_FEATURES": set_features(self.features),
            "SET_MEM_TABLE": set_mem_table(self.fe.memory.regions),
            "SET_LOG_BASE": self.log.message(),
            "SET_LOG_FD": Message(7, bytes(8), (ring.call_fd,)),
            "SET_VRING_ERR": Message(14, bytes(8), (ring.call_fd,)),
            "GET_VRING_BASE": get_vring_base(0),
            "SET_PROTOCOL_FEATURES": set_protocol_features(self.accepted),
            "SEND_RARP": send_rarp(bytes(6)),
            "NET_SET_MTU": Message(20, struct.pack("=Q", 1500)),
            "SET_BACKEND_REQ_FD": Message(21, bytes(8), ("socket",)),
            "GET_CONFIG": get_config(12),
            "SET_CONFIG": Message(25, get_config(12).payload),
            "GET_INFLIGHT_FD": get_inflight_fd(RINGS, SIZE),
            "SET_INFLIGHT_FD": self.inflight_fd(),
            "ADD_MEM_REG": Message(37, struct.pack("=QQQQQ", 0, 0x3000_0000, region.size,
                                                   region.uva + (1 << 30), 0), (region.fd,)),
            "REM_MEM_REG": Message(38, struct.pack("=QQQQQ", 0, region.gpa, region.size,
                                                   region.uva, 0)),
            "SET_STATUS": set_status(0x0f),
            "IOTLB_MSG": Message(22, struct.pack("=QQQBB6x", region.gpa, region.size, region.uva, 3, 2)),
        }
        made |= {Request(m.request).name: m for m in ring.setup()}
        row = rows().get(request)
        if row is None:
            return b"", ()
        if message := made.get(row.name):
            return message.payload, message.fds
        return bytes(row.size_min), ("memfd",) * row.fds_min


class _Asking:
    def __init__(self, peer):
        self.peer = peer

    def ask(self, message):
        self.peer.send(message.raw())
        _, _, size = struct.unpack("=III", self.peer.read(12))
        return struct.unpack("=Q", self.peer.read(size))[0]

    def close(self):
        pass


class Lane:
    """One hostile port, and the connection to it that cases are tried on."""

    def __init__(self, path, setting, zoo):
        self.kit = Kit(path, setting)
        self.zoo = zoo
        self.peer = self.companion = None
        self.state = None
        self.counts = {"cases": 0, "refused": 0, "taken": 0, "hung up": 0, "connections": 0}

    def leave(self):
        for peer in (self.peer, self.companion):
            if peer is not None:
                peer.close()
        self.peer = self.companion = self.state = None

    def open(self, messages):
        peer = Peer(self.kit.path)
        self.counts["connections"] += 1
        try:
            peer.tell(messages, self.zoo)
        except BaseException:
            peer.close()
            raise
        return peer

    def reach(self, name):
        """Be in a state. "second ..." has another connection running beside."""
        if self.state == name:
            return
        self.leave()
        if name.startswith("second, "):
            self.companion = self.open(self.kit.running())
        self.peer = self.open(self.kit.states()[name.removeprefix("second, ")][0])
        self.state = name

    def attempt(self, name, case):
        """Try a case in a state: "refused", "taken", or "hung up"."""
        self.reach(name)
        self.counts["cases"] += 1
        verdict = self.judge(case)
        self.counts[verdict] += 1
        if verdict == "hung up" or verdict == "taken" and case.request not in HARMLESS:
            self.leave()
        return verdict

    def judge(self, case):
        try:
            self.peer.send(case.raw(), self.zoo.resolve(case.fds), case.at)
            if not case.whole:
                # what follows is taken for a part of it
                self.peer.sock.shutdown(socket.SHUT_WR)
                if not self.peer.ended():
                    raise Silent(f"{case}: neither read nor ended")
                return "hung up"
            # a question other than the case
            answers = self.peer.sync(Request.GET_PROTOCOL_FEATURES
                                     if case.request == Request.GET_FEATURES else Request.GET_FEATURES)
        except Gone:
            return "hung up"
        for request, payload in answers:
            if request == case.request:
                return "refused" if self.is_no(request, payload) else "taken"
        return "taken"

    @staticmethod
    def is_no(request, payload):
        """An acknowledgement is 0 or not; who has an answer of his own gets 1, or an empty one."""
        row = rows().get(request)
        if row is None or row.reply == "none":
            return payload.strip(b"\0") != b""
        return payload in (struct.pack("=Q", 1), b"")


def second_states():
    return ("second, fresh", "second, table", "second, running", "second, in-flight")


def close_all(*things):
    with contextlib.ExitStack() as stack:
        for thing in things:
            stack.callback(thing.close)


def mutate(rng, case):
    """Bits of a message changed, cut or grown."""
    payload, size, flags = bytearray(case.payload), case.size, case.flags
    for _ in range(rng.choice((1, 1, 2, 4))):
        how = rng.random()
        if payload and how < 0.6:
            at = rng.randrange(len(payload))
            payload[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)))
        elif payload and how < 0.75:
            at = rng.randrange(0, len(payload), 8)
            word = rng.choice((0, 1, PAGE, 1 << 63, (1 << 64) - 1, (1 << 64) - PAGE))
            payload[at:at + 8] = struct.pack("=Q", word)[:len(payload) - at]
        elif how < 0.85:
            payload = payload[:rng.randrange(len(payload) + 1)]
        elif how < 0.95:
            payload += bytes(rng.randrange(64))
        else:
            flags = rng.choice((0, VERSION, 3, 5, 9, 0xffffffff))
    return Case(case.request, "mutated", bytes(payload), case.fds, flags, size)
