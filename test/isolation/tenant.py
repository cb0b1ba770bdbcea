# SPDX-License-Identifier: BSD-3-Clause
"""The honest tenant, a process of its own: numbered and checksummed frames through a looped-back
function (or, with "wire", out to the hostile tenant's), control messages now and then, and a canary
over all of its memory.

Arguments are one JSON object. "report" on standard input is answered with a line of JSON. Whatever
it finds wrong it says in a line that begins with "fault", and ends with status 1.
"""

import ctypes
import json
import mmap
import os
import random
import select
import struct
import sys
import time
import traceback
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "topology"))

# pylint: disable=wrong-import-position
from dirty import PAGE, Log, TrackedMemory, areas, log_all, pages_of  # noqa: E402
from net_device import PROTOCOL, FrontEnd                        # noqa: E402
from rings import BUFFER, PackedRing                             # noqa: E402
from vhost_user import (F_INFLIGHT, F_LOG_SHMFD, get_features, get_inflight_fd,  # noqa: E402
                        set_inflight_fd)

SIZE = 64               # of each ring
BURST = 8               # frames per turn
STEP = 0.05             # a turn of ours that took longer says nothing about the server

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t


class Fault(Exception):
    """What no neighbour may be able to do."""


def address(buffer):
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def tail(fd, length):
    """A page of a file behind what it was made for."""
    end = (length + PAGE - 1) // PAGE * PAGE
    os.ftruncate(fd, end + PAGE)
    return mmap.mmap(fd, PAGE, offset=end)


class Canary(TrackedMemory):
    """Memory in which every byte is known that the device has no business writing."""

    def __init__(self, magic, room):
        super().__init__(((0x1000_0000, room - PAGE, PAGE), (0x2000_0000, 1 << 22, PAGE)))
        self.magic = magic
        self.edges = []         # (mapping, where, how much): outside of what the device was given
        for r in self.regions:
            self.edges += [(r.map, 0, r.offset), (tail(r.fd, r.offset + r.size), 0, PAGE)]
        for where, at, size in self.edges:
            where[at:at + size] = magic * (size // len(magic))

    def begin_with(self, fe):
        """All is set up: what is free is filled, and what the device may write is noted."""
        for r in self.regions:
            at = r.offset + -(-r.end // PAGE) * PAGE
            room = r.offset + r.size - at
            r.map[at:at + room] = self.magic * (room // len(self.magic))
        self.begin()
        self.spans = [span for r in self.regions for span in self._spans(r, self.device_areas(fe))]

    @staticmethod
    def device_areas(fe):
        """[(gpa, size)] of what the device may write."""
        found = []
        for ring in fe.rings:
            desc, _, device = ring.area_sizes()
            found.append((ring.device, device))
            if isinstance(ring, PackedRing):
                found.append((ring.desc, desc))
            if ring.index % 2 == 0:
                found.append((ring.buffers, ring.size * BUFFER))
        return sorted(found)

    def _spans(self, r, areas_of_device):
        at, ours, theirs = r.offset, address(self.own[r]), address(r.map)
        for gpa, size in [a for a in areas_of_device if r.gpa <= a[0] < r.gpa + r.size]:
            start = gpa - r.gpa + r.offset
            if start > at:
                yield r, at, start - at, theirs + at, ours + at
            at = start + size
        yield r, at, r.offset + r.size - at, theirs + at, ours + at

    def check(self):
        for r, at, size, theirs, ours in self.spans:
            if _memcmp(theirs, ours, size):
                bad = next(i for i in range(at, at + size) if r.map[i] != self.own[r][i])
                raise Fault(f"guest address {r.gpa + bad - r.offset:#x} is {r.map[bad]:#04x}, "
                            f"written was {self.own[r][bad]:#04x}")
        for where, at, size in self.edges:
            check_tail(where[at:at + size], self.magic, "a file of guest memory")


def check_tail(data, magic, name):
    if data != magic * (len(data) // len(magic)):
        raise Fault(f"{name} was written outside of what the device was given")


class Tenant:
    """One front-end of the tenant's."""

    def __init__(self, how, path):
        self.how, self.magic = how, bytes.fromhex(how["magic"])
        self.fe = fe = FrontEnd(path)
        self.log = self.inflight = None
        self.sent = self.frames = self.checks = self.messages = self.stops = 0
        self.waited = self.gap = self.answer = 0.0
        protocol = PROTOCOL | how["inflight"] << F_INFLIGHT | how["log"] << F_LOG_SHMFD
        fe.connect().negotiate(packed=how["packed"], protocol=protocol)
        fe.setup(pairs=1, size=SIZE, memory=Canary(self.magic, how["room"]), rings=0, buffers=1)
        fe.memory.begin_with(fe)
        script = fe.script()
        for number, message in enumerate(script):
            if number == 2 and how["inflight"]:
                self.recover()
            fe.conn.tell(message)
        if how["log"]:
            self.log = Log.of(fe.memory)
            fe.conn.tell(self.log.message())
            log_all(fe)

    def recover(self):
        """A region for descriptors in flight, of our own, with a page behind it."""
        payload, fd = self.fe.conn.ask_fd(get_inflight_fd(2, SIZE))
        os.close(fd)
        size = struct.unpack_from("=Q", payload)[0]
        fd = os.memfd_create("honest-inflight")
        os.ftruncate(fd, size)
        self.inflight = tail(fd, size)
        self.inflight[:] = self.magic * (PAGE // len(self.magic))
        self.fe.conn.tell(set_inflight_fd(size, 2, SIZE, fd))
        os.close(fd)

    def frame(self, number):
        rng = random.Random(number)
        body = struct.pack("=Q", number) + rng.randbytes(52 + number % 1300)
        return body + struct.pack("=I", zlib.crc32(body))

    def turn(self):
        """Frames out and in; was there anything?"""
        fe, moved = self.fe, 0
        tx = fe.tx()
        moved += self.take()
        for _ in range(BURST):
            if not tx.fits(1):
                break
            fe.send(self.frame(self.sent))
            self.sent += 1
        fe.post()
        return moved

    def take(self):
        """What has come, and what has gone."""
        gone = len(self.fe.tx().used())
        if self.how["wire"]:
            self.fe.receive()           # the neighbour's frames: of any content
            self.frames += gone
            return gone
        got = self.fe.receive()
        for frame in got:
            if frame != self.frame(self.frames):
                raise Fault(f"frame {self.frames} came back as another one")
            self.frames += 1
        return gone + len(got)

    def check(self):
        self.fe.memory.check()
        if self.log is not None:
            if self.log.outside():
                raise Fault("the dirty log was written outside of what the device was given")
            mine = areas(self.fe) | pages_of(self.fe.rx().buffers, SIZE * BUFFER)
            if strangers := self.log.pages() - mine:
                raise Fault(f"pages marked that nobody writes: {sorted(map(hex, strangers))[:9]}")
        if self.inflight is not None:
            check_tail(self.inflight[:], self.magic, "the region for descriptors in flight")
        if self.fe.conn.gone():
            raise Fault("the server hung up")
        self.checks += 1

    def control(self):
        """Is there an answer, and how soon?"""
        begin = time.monotonic()
        if self.fe.conn.ask_u64(get_features()) != self.fe.offered:
            raise Fault("other features than before")
        self.messages += 1
        if self.messages % 8 == 0:
            self.fe.replace_fds(self.fe.rings[self.messages // 8 % 2])
        if self.messages % 16 == 0:
            self.fe.stop()
            self.take()             # the rings go on where the device stood
            self.fe.start_rings()
            self.stops += 1
        self.answer = max(self.answer, time.monotonic() - begin)

    def migrate(self):
        """Cancelled, and begun anew."""
        log_all(self.fe, False)
        log_all(self.fe)

    def time(self, moved, took):
        self.waited = 0 if moved else self.waited + min(took, STEP)
        self.gap = max(self.gap, self.waited)

    def report(self):
        return {"frames": self.frames, "gap": self.gap, "answer": self.answer,
                "checks": self.checks, "messages": self.messages, "stops": self.stops}


def serve(tenants):
    """Until standard input ends."""
    last = checked = told = time.monotonic()
    print("ready", flush=True)
    while True:
        for tenant in tenants:
            moved = tenant.turn()
            now = time.monotonic()
            tenant.time(moved, now - last)
        last = now
        if now - checked > 0.1:
            for tenant in tenants:
                tenant.check()
            checked = now
        if now - told > 0.25:
            for tenant in tenants:
                tenant.control()
            last = told = time.monotonic()
        if not select.select([sys.stdin], [], [], 0.003)[0]:
            continue
        line = sys.stdin.readline()
        if line.strip() == "forget":            # how long things took until now
            for tenant in tenants:
                tenant.gap = tenant.answer = 0.0
            print("forget", flush=True)
        elif line.strip() == "migrate":
            tenants[0].migrate()
            print("migrate", flush=True)
        elif line.strip() == "report":
            for tenant in tenants:
                tenant.check()
            print("report", json.dumps([t.report() for t in tenants]), flush=True)
        else:
            return


def main():
    how = json.loads(sys.argv[1])
    tenants = []
    try:
        tenants.append(Tenant({**how, "wire": False}, how["loopback"]))
        if how["wire"]:
            tenants.append(Tenant({**how, "log": False, "inflight": False}, how["wire"]))
        serve(tenants)
    except (Exception, KeyboardInterrupt) as error:     # whatever it is, the suite hears of it
        print(f"fault: {type(error).__name__}: {error}")
        traceback.print_exc()
        sys.exit(1)
    finally:
        for tenant in tenants:
            tenant.fe.disconnect()


if __name__ == "__main__":
    main()
