# SPDX-License-Identifier: BSD-3-Clause
"""A man in the middle of a vhost-user connection, for stock front-ends: messages and their
descriptors are passed both ways, and a test rewrites, drops, repeats, delays, cuts or adds some.

    with Proxy(path, backend.sockets[0], hook) as proxy:    # the front-end connects to path
        ...
        proxy.inject(set_features(bits))

hook(way, message) is called for every message, way being TO_BACK or TO_FRONT, and answers with
what goes on in its place: None for the message itself, else a list of messages or raw bytes.
Of several that have an answer the front-end gets the first of its own request's. Raising Cut
hangs up on both sides. One connection at a time, any number one after the other.
"""

import collections
import contextlib
import dataclasses
import os
import queue
import socket
import struct
import threading
import time

from harness import SLOW
from vhost_user import VERSION, NEED_REPLY, Request, Closed, Refused

TO_BACK, TO_FRONT = "to the back-end", "to the front-end"

# answered in any case; others are acknowledged if that is asked for
ANSWERED = {Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES, Request.GET_QUEUE_NUM,
            Request.GET_VRING_BASE, Request.GET_CONFIG, Request.GET_STATUS,
            Request.GET_INFLIGHT_FD, Request.SET_LOG_BASE}
OF_A_RING = {Request.SET_VRING_NUM, Request.SET_VRING_ADDR, Request.SET_VRING_BASE,
             Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR,
             Request.SET_VRING_ENABLE}


class Cut(Exception):
    """Raised by a hook: the connection ends here."""


@dataclasses.dataclass(frozen=True)
class Passed:
    """A message on its way. `number` counts those of one way and connection from 0."""
    request: int
    flags: int
    payload: bytes
    fds: tuple = ()
    number: int = 0

    def raw(self):
        return struct.pack("=III", self.request, self.flags, len(self.payload)) + self.payload

    def keep(self):
        """A copy with descriptors of its own, to be closed by drop()."""
        return dataclasses.replace(self, fds=tuple(os.dup(fd) for fd in self.fds))

    def drop(self):
        for fd in self.fds:
            os.close(fd)


class _Link:
    """One connection: both sockets and what is owed to whom."""

    def __init__(self, front, back):
        self.front, self.back = front, back
        self.lock = threading.Lock()            # of writes to the back-end, and of owed
        self.owed = collections.deque()         # (request, who waits: None is the front-end)

    def send(self, message, waiter=None):
        """To the back-end."""
        with self.lock:
            if isinstance(message, bytes):
                self.back.sendall(message)
                return
            if message.request in ANSWERED or message.flags & NEED_REPLY:
                self.owed.append((message.request, waiter))
            socket.send_fds(self.back, [message.raw()], list(message.fds))

    def waiter(self, request):
        """Whose answer this is: the oldest that asked for it."""
        with self.lock:
            while self.owed:
                asked, waiter = self.owed.popleft()
                if asked == request:
                    return waiter
        return None

    def cut(self):
        for sock in self.front, self.back:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.front.close()
        self.back.close()
        with self.lock:
            for _, waiter in self.owed:
                if waiter is not None:
                    waiter.put(None)


def _read(sock, number):
    """The next message, or None at the end."""
    fds, parts = [], []
    for size in 12, None:
        size = struct.unpack("=I", parts[0][8:])[0] if size is None else size
        data = b""
        while len(data) < size:
            part, more, _, _ = socket.recv_fds(sock, size - len(data), 32)
            fds += more
            if not part:
                for fd in fds:
                    os.close(fd)
                return None
            data += part
        parts.append(data)
    request, flags, _ = struct.unpack("=III", parts[0])
    return Passed(request, flags, parts[1], tuple(fds), number)


class Proxy:
    """Listens for front-ends on the path `front`, and connects to the back-end on `back` for each
    that comes. A front-end that listens itself is connected to, again and again.
    """

    def __init__(self, front, back, hook=None, front_listens=False):
        self._front, self._back = front, back
        self.hook = hook
        self.last = {}          # last message of each request; of a ring: last[request, ring]
        self.seen = []          # (way, request) of the connection, what was injected left out
        self.connections = 0
        self._link = None
        self._closing = False
        self._changed = threading.Condition()
        self._listener = None
        if not front_listens:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(front)
            self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closing = True
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
        while self._thread.is_alive():
            self.cut()
            self._thread.join(0.1)
        if self._listener is not None:
            self._listener.close()
            os.unlink(self._front)
        for message in {id(m): m for m in self.last.values()}.values():
            message.drop()
        self.last.clear()

    def cut(self):
        """Hang up on both sides."""
        link = self._link
        if link is not None:
            link.cut()

    def connected(self):
        return self._link is not None

    def inject(self, message, ack=True, timeout=10):
        """Send a message (vhost_user.Message) of our own to the back-end and keep its answer from
        the front-end: its payload, or None if there is none. Raises Refused, and Closed."""
        link, waiter = self._link, queue.Queue()
        if link is None:
            raise Closed
        answered = message.request in ANSWERED
        flags = VERSION | (NEED_REPLY if ack and not answered else 0)
        try:
            link.send(Passed(message.request, flags, message.payload, message.fds), waiter)
        except OSError as error:
            raise Closed from error
        if not answered and not ack:
            return None
        payload = waiter.get(timeout=timeout * SLOW)
        if payload is None:
            raise Closed
        if not answered and struct.unpack("=Q", payload)[0] != 0:
            raise Refused(str(message))
        return payload

    def resend(self, request, ring=None, **how):
        """Inject the last message of that kind once more."""
        with self._changed:
            kept = self.last[request if ring is None else (request, ring)].keep()
        try:
            return self.inject(kept, **how)
        finally:
            kept.drop()

    def wait(self, condition, timeout=10):
        """Until condition(self), looked at after every message; False when time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), timeout * SLOW)

    # the proxy's threads

    def _connect(self, path):
        sock = socket.socket(socket.AF_UNIX)
        while True:
            try:
                sock.connect(path)
                return sock
            except OSError:
                if self._closing:
                    sock.close()
                    raise
                time.sleep(0.02)

    def _serve(self):
        while not self._closing:
            front = None
            try:
                front = (self._listener.accept()[0] if self._listener is not None
                         else self._connect(self._front))
                back = self._connect(self._back)
            except OSError:
                if front is not None:
                    front.close()
                return
            with self._changed:
                self.seen, self.connections = [], self.connections + 1
                self._link = _Link(front, back)
            answers = threading.Thread(target=self._pump, args=(self._link, TO_FRONT), daemon=True)
            answers.start()
            self._pump(self._link, TO_BACK)
            answers.join()
            link, self._link = self._link, None
            link.close()
            with self._changed:
                self._changed.notify_all()

    def _pump(self, link, way):
        source = link.front if way == TO_BACK else link.back
        number = 0
        try:
            while message := _read(source, number):
                try:
                    self._pass(link, way, message)
                finally:
                    message.drop()
                number += 1
        except (OSError, Cut):
            pass
        link.cut()      # whoever ends, ends both

    def _pass(self, link, way, message):
        if way == TO_FRONT:
            waiter = link.waiter(message.request)
            if waiter is not None:
                waiter.put(message.payload)
                return
        out = self.hook(way, message) if self.hook is not None else None
        waiter = None
        for part in [message] if out is None else out:
            if way == TO_BACK:
                own = not isinstance(part, bytes) and part.request == message.request
                link.send(part, waiter if own else queue.Queue())
                waiter = queue.Queue() if own else waiter
            elif isinstance(part, bytes):
                link.front.sendall(part)
            else:
                socket.send_fds(link.front, [part.raw()], list(part.fds))
        with self._changed:
            if way == TO_BACK:
                self._remember(message)
            self.seen.append((way, message.request))
            self._changed.notify_all()

    def _remember(self, message):
        key = message.request
        if key in OF_A_RING and len(message.payload) >= 4:
            key = message.request, message.payload[0]
        if old := self.last.get(key):
            old.drop()
        self.last[key] = message.keep()
