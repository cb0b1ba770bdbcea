# SPDX-License-Identifier: BSD-3-Clause
"""The channel on which a back-end asks the front-end (vhost-user protocol, "Back-end message
types"), and doorbells, which it offers there.
"""

import contextlib
import mmap
import os
import select
import socket
import struct

from harness import SLOW
from net_device import PROTOCOL, FrontEnd
from vhost_user import VERSION, REPLY, NEED_REPLY, NO_FD, Message, Closed

F_BACKEND_REQ, F_BACKEND_SEND_FD, F_HOST_NOTIFIER = 5, 10, 11       # protocol features
DOORBELLS = 1 << F_BACKEND_REQ | 1 << F_BACKEND_SEND_FD | 1 << F_HOST_NOTIFIER

SET_BACKEND_REQ_FD = 21     # what the front-end hands its end over with
VRING_HOST_NOTIFIER = 3     # what the back-end asks

PAGE = 4096


def set_backend_req_fd(fd):
    return Message(SET_BACKEND_REQ_FD, bytes(8), (fd,))


class BackChannel:
    """A socket pair of which the back-end gets `theirs`; fill() leaves it no room to send."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()

    def fill(self):
        self.theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.theirs.send(bytes(1 << 10))
        with contextlib.suppress(BlockingIOError):
            while True:
                self.theirs.send(b"x")
        self.theirs.setblocking(True)

    def asked(self, timeout=0):
        """Is there a question?"""
        return bool(select.select([self.ours], [], [], timeout * SLOW)[0])

    def receive(self, timeout=15):
        """The next question: (request, flags, payload, fds)."""
        if not self.asked(timeout):
            raise TimeoutError("the back-end asks nothing")
        data, fds, _, _ = socket.recv_fds(self.ours, 12, 8)
        if not data:
            raise Closed
        request, flags, size = struct.unpack("=III", data)
        return request, flags, self.ours.recv(size), fds

    def answer(self, request, value=0):
        self.ours.sendall(struct.pack("=IIIQ", request, VERSION | REPLY, 8, value))

    def close(self):
        self.ours.close()
        self.theirs.close()


class Doorbell:
    """A page that the back-end offered, mapped."""

    def __init__(self, fd, offset):
        self.map = mmap.mmap(fd, PAGE, offset=offset)
        self.words = memoryview(self.map).cast("H")

    def close(self):
        self.words.release()
        self.map.close()


class DoorbellFrontEnd(FrontEnd):
    """A front-end with a back-channel that maps the doorbells which it is offered.

    serve() answers until every ring of it has one; the rings then kick there.
    """

    def __init__(self, path):
        super().__init__(path)
        self.channel = BackChannel()
        self.handed_over = self.channel.theirs.fileno()     # None: nothing
        self.doorbells = {}     # ring: Doorbell
        self.withdrawn = []     # rings whose doorbell was taken back

    def negotiate(self, *args, protocol=PROTOCOL | DOORBELLS, **how):
        super().negotiate(*args, protocol=protocol, **how)
        if self.handed_over is not None and self.protocol >> F_BACKEND_REQ & 1:
            self.conn.tell(set_backend_req_fd(self.handed_over))
        return self

    def take(self, value=0):
        """One question: check, map and answer it; returns the ring."""
        request, flags, payload, fds = self.channel.receive()
        with contextlib.ExitStack() as stack:
            for fd in fds:
                stack.callback(os.close, fd)
            assert (request, flags) == (VRING_HOST_NOTIFIER, VERSION | NEED_REPLY)
            ring, size, offset = struct.unpack("=QQQ", payload)
            if ring & NO_FD:
                assert not fds
                self.withdrawn.append(ring & ~NO_FD)
            else:
                assert len(fds) == 1
                assert (size, offset) == (PAGE, ring * PAGE)
                if value == 0:
                    self.doorbells[ring] = Doorbell(fds[0], offset)
        self.channel.answer(request, value)
        return ring & ~NO_FD

    def serve(self, rings=None):
        for index in [r.index for r in self.rings] if rings is None else rings:
            assert self.take() == index
            self.ring_with(self.rings[index], self.doorbells[index])
        return self

    @staticmethod
    def ring_with(ring, doorbell):
        def kick():
            doorbell.words[0] = ring.index
        ring.kick = kick

    def forget(self):
        """Unmap all, as at the end of a device; kicks are eventfds again."""
        for ring in self.rings:
            ring.__dict__.pop("kick", None)
        for doorbell in self.doorbells.values():
            doorbell.close()
        self.doorbells = {}

    def close(self):
        self.forget()
        super().close()
        self.channel.close()
