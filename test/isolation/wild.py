# SPDX-License-Identifier: BSD-3-Clause
"""A hostile tenant that does anything, a process of its own: one JSON object as argument. Messages go by
the table, in the order of scripts, with mutations; memory, rings, the region for descriptors in
flight and the log are written, cut off and punched meanwhile. The same seed sends the same messages.

A line of JSON with counts comes each second and at the end.
"""

import json
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "topology"))

# pylint: disable=wrong-import-position
from arena import SETTINGS                                  # noqa: E402
from files import Zoo, punch                                # noqa: E402
from hostile import GET_FEATURES, Gone, Kit, Peer, Silent, close_all, mutate, raw  # noqa: E402
from rings import WRITE                                     # noqa: E402
from table import PAGE, UNKNOWN, Case, field_cases, rows    # noqa: E402
from vhost_user import NEED_REPLY, VERSION                  # noqa: E402

CONNECTIONS = 3         # to one port at a time


class Writer(threading.Thread):
    """Writes rings, the in-flight region and the log without asking anybody."""

    def __init__(self, kit, seed):
        super().__init__(daemon=True)
        self.kit, self.rng, self.stop = kit, random.Random(f"{seed}/writer"), False
        self.lock = threading.Lock()    # the kit's files stay
        self.writes = 0

    def run(self):
        while not self.stop:
            with self.lock:
                self.turn()
            time.sleep(0.0005)

    def turn(self):
        rng = self.rng
        for fd in self.kit.files():
            try:
                size = os.fstat(fd).st_size
                if size == 0 or size > 1 << 24:
                    continue
                # the rings are in the first pages
                at = rng.randrange(min(size, 3 * PAGE if rng.random() < 0.9 else size)) & ~1
                word = rng.choice((0, 1, 0xffff, 0x8000, rng.randrange(1 << 16)))
                os.pwrite(fd, struct.pack("=H", word) * rng.choice((1, 1, 4, 64)), at)
                self.writes += 1
            except OSError:
                continue


class Wild:
    """One port."""

    def __init__(self, how):
        setting = next(s for s in SETTINGS if s.name == how["setting"])
        self.rng = random.Random(how["seed"])
        self.kit = Kit(how["path"], setting)
        self.zoo = Zoo(how["path"])
        self.magic = bytes.fromhex(how["magic"])
        self.hints = self.kit.hints(how["pid"])
        self.peers, self.scripts = [], {}
        self.counts = {"connections": 0, "memory": 0, "mutated": 0, "hung up": 0}
        self.writer = Writer(self.kit, how["seed"])
        self.since = time.monotonic()

    # connections

    def connect(self):
        try:
            peer = Peer(self.kit.path)
        except OSError:
            if self.rng.random() < 0.5:
                time.sleep(0.001)
            return
        peer.sock.settimeout(0)
        self.counts["connections"] += 1
        self.peers.append(peer)
        self.scripts[peer] = list(self.script())

    def script(self):
        states = list(self.kit.states().values())
        return self.rng.choice(states)[0]

    def drop(self, peer):
        self.peers.remove(peer)
        self.scripts.pop(peer)
        peer.close()

    def drain(self, peer):
        """What there is of answers."""
        try:
            while True:
                data = peer.sock.recv(65536)
                if not data:
                    raise Gone
                if self.magic in data:
                    raise AssertionError("another tenant's memory in an answer")
        except BlockingIOError:
            pass
        except OSError as error:
            raise Gone from error

    def send(self, peer, data, fds=()):
        """All of it, or the end of the connection; answers are read if there is no room."""
        Peer.sent += 1
        deadline = time.monotonic() + 10
        while data:
            try:
                if fds:
                    done = socket.send_fds(peer.sock, [data], fds)
                else:
                    done = peer.sock.send(data)
                data, fds = data[done:], ()
            except BlockingIOError:
                self.drain(peer)
                select.select([], [peer.sock], [], 0.02)
                if time.monotonic() > deadline:
                    raise Silent("nothing is read") from None
            except OSError as error:
                raise Gone from error

    # what it does

    def next_message(self, peer):
        script = self.scripts[peer]
        while not script:
            script += self.script()
        return script.pop(0)

    def correct(self, peer):
        message = self.next_message(peer)
        self.send(peer, raw(message), self.zoo.resolve(message.fds))

    def case(self):
        """Any request, right but for one field or with a few bits changed."""
        request = self.rng.choice(self.requests)
        payload, fds = self.kit.right(request)
        row = rows().get(request)
        if row is not None and self.rng.random() < 0.5:
            fields = list(field_cases(row, payload, fds, self.hints))
            if fields:
                return self.rng.choice(fields)
        case = Case(request, "wild", payload, fds, VERSION | self.rng.choice((0, NEED_REPLY)))
        return mutate(self.rng, case) if self.rng.random() < 0.7 else case

    requests = None

    def mutated(self, peer):
        case = self.case()
        fds = self.zoo.resolve(case.fds)
        if self.rng.random() < 0.15:
            fds = [self.zoo[n] for n in self.rng.choices(list(self.zoo.fds), k=self.rng.choice((1, 2, 8)))]
        self.counts["mutated"] += 1
        self.send(peer, case.raw(), fds)

    def changed(self, peer):
        """The message that is due, changed."""
        message = self.next_message(peer)
        case = mutate(self.rng, Case(message.request, "wild", message.payload, message.fds))
        self.counts["mutated"] += 1
        self.send(peer, case.raw(), self.zoo.resolve(case.fds))

    def twice(self, peer):
        message = self.next_message(peer)
        for _ in range(self.rng.choice((2, 2, 3, 20))):
            self.send(peer, raw(message), self.zoo.resolve(message.fds))

    def swap(self, peer):
        script = self.scripts[peer]
        if len(script) > 1:
            at = self.rng.randrange(1, len(script))
            script[0], script[at] = script[at], script[0]

    def cut(self, peer):
        """A part of a message, and perhaps the rest."""
        message = self.next_message(peer)
        data = raw(message)
        at = self.rng.randrange(1, len(data))
        self.send(peer, data[:at], self.zoo.resolve(message.fds))
        if self.rng.random() < 0.5:
            time.sleep(self.rng.choice((0, 0.001)))
            self.send(peer, data[at:])
        else:
            self.drop(peer)

    def unread(self, peer):
        """Many questions."""
        for _ in range(50):
            self.send(peer, GET_FEATURES)

    def memory(self, _peer):
        """Something that the server may have mapped changes its size, or has holes."""
        rng = self.rng
        fd = rng.choice([*self.kit.files(), self.zoo["memfd"], self.zoo["file"]])
        size = os.fstat(fd).st_size
        self.counts["memory"] += 1
        how = rng.random()
        if how < 0.4:
            os.ftruncate(fd, rng.choice((0, PAGE, size // 2, max(size - 1, 0))))
        elif how < 0.8:
            punch(fd, rng.randrange(0, max(size, 1), PAGE) if size else 0, rng.choice((PAGE, 1 << 20)))
        else:
            os.ftruncate(fd, 1 << 21)

    def traffic(self, _peer):
        """A frame, if the rings are still of use."""
        fe = self.kit.fe
        if any(os.fstat(r.fd).st_size < r.offset + r.size for r in fe.memory.regions):
            return              # it would be our own end
        try:
            ring = fe.tx()
            ring.used()
            if ring.fits(1):
                ring.add([(ring.buffer(), self.rng.choice((0, 11, 12, 72, 1500, 1 << 20)),
                           self.rng.choice((0, 0, 0, WRITE)))])
            ring.publish()
            ring.kick()
        except (KeyError, IndexError, ValueError, struct.error):
            pass                # after what was done to it

    def renew(self):
        """New memory, files and rings; connections that know the old ones go on."""
        if self.kit.seen(self.magic):
            raise AssertionError("another tenant's memory in ours")
        with self.writer.lock:
            self.kit.renew()
        for peer in self.peers:
            self.scripts[peer] = list(self.script())

    STEPS = ((40, "correct"), (22, "mutated"), (12, "changed"), (5, "twice"), (5, "swap"), (1, "cut"),
             (1, "unread"), (1, "memory"), (6, "traffic"), (2, "leave"), (4, "read"))

    def leave(self, peer):
        self.drop(peer)

    def read(self, peer):
        self.drain(peer)

    def step(self):
        if len(self.peers) < CONNECTIONS and (not self.peers or self.rng.random() < 0.05):
            self.connect()
            return
        peer = self.rng.choice(self.peers)
        try:
            getattr(self, self.rng.choices(self.names, self.weights)[0])(peer)
        except Gone:
            self.counts["hung up"] += 1
            if peer in self.peers:
                self.drop(peer)

    def run(self, seconds):
        self.requests = [*rows(), *UNKNOWN[:4]]
        self.weights, self.names = zip(*self.STEPS)
        end, told, turns = self.since + seconds, self.since, 0
        self.writer.start()
        while (now := time.monotonic()) < end:
            if now - told > 1:
                self.tell()
                told = now
            turns += 1
            if turns % 40 == 0:
                self.renew()
            for _ in range(50):
                self.step()
        self.tell()

    def close(self):
        self.writer.stop = True
        if self.writer.is_alive():
            self.writer.join()
        while self.peers:
            self.drop(self.peers[0])
        close_all(self.zoo, self.kit)

    def tell(self):
        took = time.monotonic() - self.since
        print("wild", json.dumps({**self.counts, "messages": Peer.sent, "writes": self.writer.writes,
                                  "rate": round(Peer.sent / took)}), flush=True)


def main():
    how = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    wild = Wild(how)
    try:
        wild.run(how["seconds"])
    finally:
        wild.close()


if __name__ == "__main__":
    main()
