# SPDX-License-Identifier: BSD-3-Clause
"""The front-end's side of the vhost-user protocol, for tests that do it right or wrong.

One small function per request makes a Message (vhost-user protocol, "Message Specification");
Connection sends it, or any raw bytes with any file descriptors, cut wherever a test wants.
"""

import contextlib
import dataclasses
import enum
import os
import select
import socket
import struct

from harness import SLOW


VERSION, REPLY, NEED_REPLY = 0x1, 0x4, 0x8      # header flags
NO_FD = 0x100                                   # in the ring number of kick, call and err

# protocol features
F_MQ, F_LOG_SHMFD, F_RARP, F_REPLY_ACK, F_CONFIG, F_STATUS = 0, 1, 2, 3, 9, 16
F_INFLIGHT = 12
EVENT_IDX, INDIRECT = 29, 28                            # virtio features, more in harness.py
LOG_ALL = 26                                            # vhost's feature: log what is written
LOG_RING = 1                                            # flag of a ring: its log address counts
DRIVER_OK = 0x0f                                        # the status of a driver that is done


class Request(enum.IntEnum):
    """What a front-end may ask for."""
    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    SET_STATUS = 39
    GET_STATUS = 40


@dataclasses.dataclass(frozen=True)
class Message:
    """One request; `replies` if the back-end answers it with more than an acknowledgement."""
    request: int
    payload: bytes = b""
    fds: tuple = ()
    replies: bool = False

    def raw(self, flags=VERSION):
        return struct.pack("=III", self.request, flags, len(self.payload)) + self.payload

    def __str__(self):
        try:
            return Request(self.request).name
        except ValueError:
            return f"request {self.request}"


def _u64(request, value, fds=()):
    return Message(request, struct.pack("=Q", value), tuple(fds))


def _state(request, ring, num, replies=False):
    return Message(request, struct.pack("=II", ring, num), replies=replies)


def _fd(request, ring, fd):
    return _u64(request, ring | NO_FD) if fd is None else _u64(request, ring, (fd,))


def get_features():
    return Message(Request.GET_FEATURES, replies=True)


def set_features(bits):
    return _u64(Request.SET_FEATURES, bits)


def get_protocol_features():
    return Message(Request.GET_PROTOCOL_FEATURES, replies=True)


def set_protocol_features(bits):
    return _u64(Request.SET_PROTOCOL_FEATURES, bits)


def get_queue_num():
    return Message(Request.GET_QUEUE_NUM, replies=True)


def set_owner():
    return Message(Request.SET_OWNER)


def reset_owner():
    return Message(Request.RESET_OWNER)


def set_mem_table(regions):
    """Regions need gpa, size, uva, offset and fd."""
    payload = struct.pack("=II", len(regions), 0)
    for r in regions:
        payload += struct.pack("=QQQQ", r.gpa, r.size, r.uva, r.offset)
    return Message(Request.SET_MEM_TABLE, payload, tuple(r.fd for r in regions))


def set_vring_num(ring, size):
    return _state(Request.SET_VRING_NUM, ring, size)


def set_vring_base(ring, base):
    return _state(Request.SET_VRING_BASE, ring, base)


def get_vring_base(ring):
    return _state(Request.GET_VRING_BASE, ring, 0, replies=True)


def set_vring_addr(ring, desc, driver, device, flags=0, log=0):
    """Front-end addresses of the three areas; log is a guest-physical address."""
    return Message(Request.SET_VRING_ADDR,
                   struct.pack("=IIQQQQ", ring, flags, desc, device, driver, log))


def set_vring_kick(ring, fd):
    return _fd(Request.SET_VRING_KICK, ring, fd)


def set_vring_call(ring, fd):
    return _fd(Request.SET_VRING_CALL, ring, fd)


def set_vring_err(ring, fd):
    return _fd(Request.SET_VRING_ERR, ring, fd)


def set_vring_enable(ring, on=True):
    return _state(Request.SET_VRING_ENABLE, ring, int(on))


def set_log_base(size, offset, fd):
    """Answered, as LOG_SHMFD has to be negotiated for it."""
    return Message(Request.SET_LOG_BASE, struct.pack("=QQ", size, offset), (fd,), replies=True)


def send_rarp(mac):
    return Message(Request.SEND_RARP, mac + bytes(2))


def get_config(size, offset=0, room=256):
    """Device configuration; the payload carries `room` bytes whatever `size` claims."""
    return Message(Request.GET_CONFIG, struct.pack("=III", offset, size, 0) + bytes(room),
                   replies=True)


def _inflight(request, size, rings, entries, fds=(), replies=False):
    return Message(request, struct.pack("=QQHHxxxx", size, 0, rings, entries), tuple(fds), replies)


def get_inflight_fd(rings, entries):
    """Answered with the region's size, and a descriptor: Connection.ask_fd()."""
    return _inflight(Request.GET_INFLIGHT_FD, 0, rings, entries, replies=True)


def set_inflight_fd(size, rings, entries, fd):
    return _inflight(Request.SET_INFLIGHT_FD, size, rings, entries, (fd,))


def set_status(status):
    return _u64(Request.SET_STATUS, status)


def get_status():
    return Message(Request.GET_STATUS, replies=True)


class Closed(Exception):
    """The back-end hung up."""


class Refused(Exception):
    """The back-end acknowledged a request with an error."""


class Listener:
    """The socket of a front-end that waits for back-ends to connect, one after the other."""

    def __init__(self, path):
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(path)
        self.sock.listen()

    def accept(self, timeout=15):
        self.sock.settimeout(timeout * SLOW)
        return Connection(self.path, timeout, self.sock.accept()[0])

    def close(self):
        self.sock.close()
        os.unlink(self.path)


class Connection:
    """One connection to a back-end that listens, or that was accepted."""

    def __init__(self, path, timeout=15, accepted=None):
        self.reply_ack = False      # negotiated: every request is acknowledged
        self.sock = accepted or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout * SLOW)
        if accepted:
            return
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise

    def send_raw(self, data, fds=()):
        try:
            socket.send_fds(self.sock, [data], list(fds))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def send(self, message, flags=VERSION):
        """Send and don't wait for anything."""
        self.send_raw(message.raw(flags), message.fds)

    def _read(self, n):
        data = b""
        while len(data) < n:
            try:
                part = self.sock.recv(n - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Closed
            data += part
        return data

    def receive(self):
        """The next answer: (request, payload)."""
        request, flags, size = struct.unpack("=III", self._read(12))
        if flags != VERSION | REPLY:
            raise ValueError(f"answer to request {request} has flags {flags:#x}")
        return request, self._read(size)

    def ask(self, message):
        """Send a request that has an answer; return its payload."""
        self.send(message)
        request, payload = self.receive()
        if request != message.request:
            raise ValueError(f"{message} was answered with request {request}")
        return payload

    def ask_u64(self, message):
        return struct.unpack("=Q", self.ask(message))[0]

    def ask_fd(self, message):
        """The same for an answer that comes with a descriptor: (payload, descriptor)."""
        self.send(message)
        head, fds, _, _ = socket.recv_fds(self.sock, 12, 1)
        if len(head) < 12 or len(fds) != 1:
            raise ValueError(f"{message} was answered with {len(head)} bytes, {len(fds)} fds")
        return self._read(struct.unpack("=III", head)[2]), fds[0]

    def tell(self, message):
        """Send a request and, if that was negotiated, wait until it is acknowledged."""
        if message.replies:
            return self.ask(message)
        if not self.reply_ack:
            return self.send(message)
        self.send(message, VERSION | NEED_REPLY)
        request, payload = self.receive()
        if request != message.request or struct.unpack("=Q", payload)[0] != 0:
            raise Refused(str(message))
        return None

    def hung_up(self):
        """Wait for the back-end to close the connection; False if it does not."""
        with contextlib.suppress(TimeoutError):
            try:
                while self.sock.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            return True
        return False

    def gone(self):
        """Has the back-end closed the connection? Answers that were not read don't count."""
        if not select.select([self.sock], [], [], 0)[0]:
            return False
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.sock.close()
