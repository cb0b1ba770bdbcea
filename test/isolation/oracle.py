# SPDX-License-Identifier: BSD-3-Clause
"""What is wrong for sure, by the protocol and by virtio alone: a second opinion, which knows nothing of
how lib/gate judges. What it does not know of may be taken or not.
"""

import os
import socket
import stat
import struct

from harness import RING_PACKED
from rings import USER_BASE
from hostile import Lane
from table import CONFIG, MAX_REGIONS, MAX_RINGS, MAX_SIZE, PAGE, TOP, cases, rows
from vhost_user import LOG_ALL, NO_FD, REPLY

RUNNING = ("running", "disabled", "log on", "log before the rings", "in-flight")
BEFORE_PROTOCOL = ("fresh", "asked", "features, no protocol")


STATES = ("fresh", "features set", "table", "running")     # in which all that is wrong is tried


def try_all(a, zoo, requests):
    """Every case of these requests that is wrong for sure: (those that were taken, counts)."""
    lane = Lane(a.ports[0], a.setting, zoo)
    oracle = Oracle(lane.kit, zoo)
    hints = lane.kit.hints(a.server.pid)
    taken = []
    for state in STATES:
        for request in requests:
            for case in cases(request, lane.kit.right(request), hints, zoo.fds):
                if not oracle.must_refuse(state, case):
                    continue
                what = f"{state}: {case}"
                if a.whatever(lambda at=(state, case): lane.attempt(*at), what) == "taken":
                    taken.append(what)
    lane.leave()
    lane.kit.close()
    return taken, lane.counts


def u64s(payload, at=0):
    return struct.unpack_from(f"={(len(payload) - at) // 8}Q", payload, at)


class Oracle:
    """For cases on a kit's connection."""

    def __init__(self, kit, zoo):
        self.kit, self.zoo = kit, zoo
        self.packed = kit.features >> RING_PACKED & 1

    def size(self, fd):
        return os.fstat(fd).st_size

    def regular(self, fd):
        """Can it be memory at all?"""
        return stat.S_ISREG(os.fstat(fd).st_mode)

    def must_refuse(self, state, case):
        row = rows().get(case.request)
        if case.wrong or row is None or row.fate == "refused" or case.flags & 3 != 1 or \
                case.flags & REPLY:
            return True
        if not case.whole:
            return False        # who knows what it is
        if not row.size_min <= len(case.payload) <= row.size_max:
            return True
        if not row.fds_min <= len(case.fds) <= row.fds_max:
            return True
        where = None if state.startswith("second, ") else self.kit.states()[state][1]
        if where is not None and where not in row.phases:
            return True
        if where is not None and row.feature is not None:
            negotiated = 0 if state in BEFORE_PROTOCOL else self.kit.accepted
            if not negotiated >> row.feature & 1:
                return True
        rule = getattr(self, row.name.lower(), None)
        return bool(rule and rule(state, case.payload, self.zoo.resolve(case.fds), where))

    # a rule for each request: is it wrong?

    def set_features(self, state, payload, _fds, _where):
        value = u64s(payload)[0]
        changed = (value ^ self.kit.features) & ~(1 << LOG_ALL)
        return value & ~self.kit.offered or state in RUNNING and changed

    def set_protocol_features(self, state, payload, _fds, _where):
        value = u64s(payload)[0]
        return value & ~self.kit.protocol or state in RUNNING and value != self.kit.accepted

    def table(self, regions, fds):
        """[(gpa, size, uva, offset)]"""
        for n, (gpa, size, uva, offset) in enumerate(regions):
            if size == 0 or gpa + size > TOP or uva + size > TOP or offset % PAGE or \
                    not self.regular(fds[n]) or offset + size > self.size(fds[n]):
                return True
            for other_gpa, other_size, other_uva, _ in regions[:n]:
                if gpa < other_gpa + other_size and other_gpa < gpa + size or \
                        uva < other_uva + other_size and other_uva < uva + size:
                    return True
        return False

    def set_mem_table(self, _state, payload, fds, _where):
        count = struct.unpack_from("=I", payload)[0]
        if not 0 < count <= MAX_REGIONS or len(fds) != count or len(payload) < 8 + 32 * count:
            return True
        words = u64s(payload, 8)
        return self.table([words[4 * n:4 * n + 4] for n in range(count)], fds)

    def add_mem_reg(self, _state, payload, fds, _where):
        return self.table([u64s(payload)[1:5]], fds)

    def covers(self, size):
        return all((r.gpa + r.size - 1) // PAGE // 8 < size for r in self.kit.fe.memory.regions)

    def set_log_base(self, _state, payload, fds, where):
        size, offset = u64s(payload)
        return size == 0 or offset % PAGE or not self.regular(fds[0]) or \
            offset + size > self.size(fds[0]) or \
            where in ("memory", "running") and not self.covers(size)

    def inflight(self, payload, set_fds=()):
        size, offset, queues, queue_size = struct.unpack_from("=QQHH", payload)
        if not 0 < queues <= MAX_RINGS or not 0 < queue_size <= MAX_SIZE:
            return True
        least = queues * queue_size * (32 if self.packed else 16)
        return any(size < least or offset % PAGE or not self.regular(fd) or
                   offset + size > self.size(fd) for fd in set_fds)

    def get_inflight_fd(self, _state, payload, _fds, _where):
        return self.inflight(payload)

    def set_inflight_fd(self, _state, payload, fds, _where):
        return self.inflight(payload, fds)

    def number(self, payload):
        """(ring, second word); a ring beyond the device's need not exist at all"""
        ring, second = struct.unpack_from("=II", payload)
        return ring, second, ring < 2

    def set_vring_num(self, _state, payload, _fds, where):
        ring, size, ours = self.number(payload)
        return ring >= MAX_RINGS or ours and (
            not 0 < size <= MAX_SIZE or where != "new" and not self.packed and size & (size - 1))

    def set_vring_base(self, _state, payload, _fds, where):
        ring, base, ours = self.number(payload)
        return ring >= MAX_RINGS or ours and where != "new" and not self.packed and base > 0xffff

    def get_vring_base(self, _state, payload, _fds, _where):
        return self.number(payload)[0] >= MAX_RINGS

    def set_vring_enable(self, _state, payload, _fds, _where):
        ring, on, ours = self.number(payload)
        return ring >= MAX_RINGS or ours and on > 1

    def set_vring_addr(self, _state, payload, _fds, _where):
        ring, flags = struct.unpack_from("=II", payload)
        desc, used, avail, _ = u64s(payload, 8)
        if ring >= MAX_RINGS:
            return True
        if ring >= 2:
            return False
        areas = ((desc, 16, 16), (avail, 4, 4 if self.packed else 2), (used, 4, 4))
        return flags & ~1 or any(at % align or not self.inside(at, size) for at, size, align in areas)

    def inside(self, uva, size):
        return any(r.gpa <= uva - USER_BASE and uva - USER_BASE + size <= r.gpa + r.size
                   for r in self.kit.fe.memory.regions)

    def ring_file(self, payload, fds, calls=False):
        value = u64s(payload)[0]
        return value & ~(0xff | NO_FD) or bool(value & NO_FD) and bool(fds) or \
            value & 0xff < 2 and any(not (self.notifies(fd) or calls and self.is_stream(fd)) for fd in fds)

    def notifies(self, fd):
        """An eventfd; pipes too, as User-mode Linux has them."""
        name = os.readlink(f"/proc/self/fd/{fd}")
        return "eventfd" in name or name.startswith("pipe:") or stat.S_ISFIFO(os.fstat(fd).st_mode)

    def is_stream(self, fd):
        """User-mode Linux is called by one."""
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as sock:
            return (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM) and \
                not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)

    def set_vring_call(self, _state, payload, fds, _where):
        return self.ring_file(payload, fds, calls=True)

    def set_vring_err(self, _state, payload, fds, _where):
        return self.ring_file(payload, fds)

    def set_vring_kick(self, state, payload, fds, where):
        return self.ring_file(payload, fds) or u64s(payload)[0] & 0xff < 2 and state == "table"

    def get_config(self, _state, payload, _fds, _where):
        offset, size, _ = struct.unpack_from("=III", payload)
        return offset + size > CONFIG or len(payload) < 12 + size

    set_config = get_config

    def net_set_mtu(self, _state, payload, _fds, _where):
        return not 68 <= u64s(payload)[0] <= 65535

    def set_status(self, _state, payload, _fds, _where):
        return u64s(payload)[0] > 255

    def set_backend_req_fd(self, _state, _payload, fds, _where):
        return not stat.S_ISSOCK(os.fstat(fds[0]).st_mode)
