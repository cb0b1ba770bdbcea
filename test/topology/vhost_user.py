# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user front-end that does what a test says, right or wrong: no guest, no DPDK.

Four layers, each usable without the next:

- messages: one small function per request makes a Message; Connection sends it, or any raw bytes
  with any file descriptors, cut wherever a test wants;
- Memory: memfd regions at chosen guest-physical addresses; front-end (user) addresses differ
  from them by USER_BASE so that taking one for the other is noticed;
- SplitRing, PackedRing: the driver's side of a virtqueue anywhere in that memory (virtio 1.3, 2.7
  and 2.8), with every field within reach for writing nonsense;
- FrontEnd: all of it together as a net device with queue pairs: connect, set up, start, send
  frames and compare what comes back, stop, close.

Fields that the device reads while they change are stored through a view of 16-bit words, which
is one store; struct.pack_into() clears the place first, and an index would be seen as 0 in
between. x86 keeps stores in order. Kicks are sent whether the device asks for them or not, and
used entries are polled, so no memory barrier is needed.
"""

import contextlib
import dataclasses
import enum
import mmap
import os
import select
import socket
import struct
import time

from harness import MQ, MRG_RXBUF, PROTOCOL_FEATURES, RING_PACKED, SLOW, VERSION_1, difference

# --- messages (vhost-user protocol, "Message Specification") -------------------------------------

VERSION, REPLY, NEED_REPLY = 0x1, 0x4, 0x8      # header flags
NO_FD = 0x100                                   # in the ring number of kick, call and err

F_MQ, F_REPLY_ACK, F_CONFIG, F_STATUS = 0, 3, 9, 16     # protocol features
EVENT_IDX, INDIRECT = 29, 28                            # virtio features, more in harness.py
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
    GET_CONFIG = 24
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


def set_vring_enable(ring, on=True):
    return _state(Request.SET_VRING_ENABLE, ring, int(on))


def get_config(size, offset=0, room=256):
    """Device configuration; the payload carries `room` bytes whatever `size` claims."""
    return Message(Request.GET_CONFIG, struct.pack("=III", offset, size, 0) + bytes(room),
                   replies=True)


def set_status(status):
    return _u64(Request.SET_STATUS, status)


class Closed(Exception):
    """The back-end hung up."""


class Refused(Exception):
    """The back-end acknowledged a request with an error."""


class Connection:
    """One connection to a back-end that listens."""

    def __init__(self, path, timeout=15):
        self.reply_ack = False      # negotiated: every request is acknowledged
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout * SLOW)
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


# --- memory --------------------------------------------------------------------------------------

USER_BASE = 0x7000_0000_0000


class Region:
    """Shared memory that starts at `offset` of a memfd of its own."""

    def __init__(self, gpa, size, offset=0):
        self.gpa, self.size, self.offset = gpa, size, offset
        self.uva = USER_BASE + gpa
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, offset + size)
        self.map = mmap.mmap(self.fd, offset + size)
        self.words = memoryview(self.map).cast("H")
        self.end = 0        # what alloc() has given away

    def close(self):
        self.words.release()
        self.map.close()
        os.close(self.fd)


class Memory:
    """The guest's memory: regions as [(gpa, size), ...]."""

    def __init__(self, regions=((0x1000_0000, 1 << 21), (0x1_0000_0000, 1 << 23))):
        self.regions = [Region(*r) for r in regions]

    def _find(self, gpa):
        for r in self.regions:
            if r.gpa <= gpa < r.gpa + r.size:
                return r, gpa - r.gpa + r.offset
        raise IndexError(f"{gpa:#x} is no guest memory")

    def uva(self, gpa):
        """Front-end address; what is not memory has one too, for tests of that."""
        return USER_BASE + gpa

    def read(self, gpa, size):
        region, at = self._find(gpa)
        return region.map[at:at + size]

    def write(self, gpa, data):
        region, at = self._find(gpa)
        region.map[at:at + len(data)] = data

    def load(self, gpa):
        """One 16-bit word, read at once."""
        region, at = self._find(gpa)
        return region.words[at // 2]

    def store(self, gpa, value):
        region, at = self._find(gpa)
        region.words[at // 2] = value

    def alloc(self, size, align=64, region=0):
        """A fresh place in a region: its guest-physical address."""
        r = self.regions[region]
        start = -(-r.end // align) * align
        if start + size > r.size:
            raise MemoryError(f"region {region} has no {size} bytes left")
        r.end = start + size
        return r.gpa + start

    def close(self):
        for r in self.regions:
            r.close()


# --- rings ---------------------------------------------------------------------------------------

NEXT, WRITE, TABLE = 1, 2, 4        # descriptor flags; TABLE is virtio's INDIRECT
MAX_TABLE = 16                      # entries of the indirect tables made here
BUFFER = 2048                       # bytes of the buffer that belongs to each chain


class Ring:
    """What both formats share: place, eventfds, one buffer and one table per chain.

    add() takes [(gpa, length, WRITE or 0), ...], publish() shows what was added to the device,
    used() returns [(chain, bytes written), ...] that came back. `rings` and `buffers` say which
    regions to use.
    """

    def __init__(self, memory, index, size, rings=0, buffers=-1):
        self.memory, self.index, self.size = memory, index, size
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.desc, self.driver, self.device = (
            memory.alloc(n, region=rings) for n in self.area_sizes())
        self.buffers = memory.alloc(size * BUFFER, region=buffers)
        self.tables = memory.alloc(size * MAX_TABLE * 16, region=buffers)
        self.free = list(range(size))[::-1]     # numbers for chains
        self.room = size                        # descriptors that are not in use
        self.chains = {}                        # chain: descriptors it takes

    def area_sizes(self):
        raise NotImplementedError

    def move(self, region=0):
        """To another place, as it is; only while stopped."""
        old = self.desc, self.driver, self.device
        new = [self.memory.alloc(n, region=region) for n in self.area_sizes()]
        for a, b, n in zip(old, new, self.area_sizes()):
            self.memory.write(b, self.memory.read(a, n))
        self.desc, self.driver, self.device = new

    def buffer(self):
        """Address of the buffer that belongs to the chain which is added next."""
        return self.buffers + self.free[-1] * BUFFER

    def table(self, segments):
        """Write an indirect table for the chain which is added next; return the descriptor."""
        at = self.tables + self.free[-1] * MAX_TABLE * 16
        for i, (gpa, length, flags) in enumerate(segments):
            self.write_table_entry(at + 16 * i, gpa, length, flags,
                                   i + 1 if i + 1 < len(segments) else None)
        return at, 16 * len(segments), TABLE

    def write_table_entry(self, at, gpa, length, flags, following):
        raise NotImplementedError

    def fits(self, descriptors):
        return bool(self.free) and self.room >= descriptors

    def kick(self):
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.kick_fd, 1)

    def called(self, timeout=0):
        """Was there a call since the last time this was asked?"""
        if not select.select([self.call_fd], [], [], timeout * SLOW)[0]:
            return False
        os.eventfd_read(self.call_fd)
        return True

    def addresses(self):
        """The SET_VRING_ADDR of this ring."""
        uva = self.memory.uva
        return set_vring_addr(self.index, uva(self.desc), uva(self.driver), uva(self.device))

    def setup(self, enable=True):
        """The messages that bring the ring to life, from NUM to ENABLE."""
        return [set_vring_num(self.index, self.size), set_vring_base(self.index, self.position()),
                self.addresses(), set_vring_kick(self.index, self.kick_fd),
                set_vring_call(self.index, self.call_fd),
                *([set_vring_enable(self.index)] if enable else [])]

    def position(self):
        """Where the device stands as vhost-user has it, if all that it used has been seen."""
        raise NotImplementedError

    def close(self):
        os.close(self.kick_fd)
        os.close(self.call_fd)


class SplitRing(Ring):
    """virtio 1.3, 2.7. `start` is the index of the first chain."""

    def __init__(self, memory, index, size, start=0, **where):
        super().__init__(memory, index, size, **where)
        self.avail = self.seen = start
        memory.store(self.driver + 2, start)
        memory.store(self.device + 2, start)
        self.heads = {}     # head: its descriptors

    def area_sizes(self):
        return 16 * self.size, 6 + 2 * self.size, 6 + 8 * self.size

    def write_desc(self, number, gpa, length, flags=0, following=0):
        self.memory.write(self.desc + 16 * number,
                          struct.pack("=QIHH", gpa, length, flags, following))

    def write_table_entry(self, at, gpa, length, flags, following):
        flags |= 0 if following is None else NEXT
        self.memory.write(at, struct.pack("=QIHH", gpa, length, flags, following or 0))

    def add(self, segments):
        taken = [self.free.pop() for _ in segments]
        for i, (gpa, length, flags) in enumerate(segments):
            last = i + 1 == len(segments)
            self.write_desc(taken[i], gpa, length, flags | (0 if last else NEXT),
                            0 if last else taken[i + 1])
        self.room -= len(taken)
        self.heads[taken[0]] = taken
        self.offer(taken[0])
        return taken[0]

    def offer(self, head):
        """Put a head into the avail ring, whatever it is."""
        self.memory.store(self.driver + 4 + 2 * (self.avail % self.size), head)
        self.avail = (self.avail + 1) & 0xffff

    def publish(self, index=None):
        self.memory.store(self.driver + 2, self.avail if index is None else index & 0xffff)

    def used(self):
        got = []
        while self.seen != self.memory.load(self.device + 2):
            at = self.device + 4 + 8 * (self.seen % self.size)
            head, length = struct.unpack("=II", self.memory.read(at, 8))
            self.seen = (self.seen + 1) & 0xffff
            taken = self.heads.pop(head, [])
            self.free += taken[::-1]
            self.room += len(taken)
            got.append((head, length))
        return got

    def position(self):
        return self.seen


class PackedRing(Ring):
    """virtio 1.3, 2.8. `start` is the first slot, with the wrap counter in bit 15."""

    AVAIL, USED = 1 << 7, 1 << 15

    def __init__(self, memory, index, size, start=0x8000, **where):
        super().__init__(memory, index, size, **where)
        self.slot = self.used_slot = start & 0x7fff
        self.wrap = self.used_wrap = start >> 15
        # a ring in its first lap is all zeroes; slots of the lap before count as used
        behind = 0 if self.wrap else self.AVAIL | self.USED
        for slot in range(size):
            lap = behind if slot >= self.slot else behind ^ (self.AVAIL | self.USED)
            memory.store(self.desc + 16 * slot + 14, lap)
        self.pending = []       # heads whose flags are still to be written: (address, flags)

    def area_sizes(self):
        return 16 * self.size, 4, 4

    def write_desc(self, slot, gpa, length, number, flags):
        """All but the flags first: they make it available."""
        at = self.desc + 16 * slot
        self.memory.write(at, struct.pack("=QIH", gpa, length, number))
        self.memory.store(at + 14, flags)

    def write_table_entry(self, at, gpa, length, flags, following):
        self.memory.write(at, struct.pack("=QIHH", gpa, length, 0, flags))

    def add(self, segments):
        number = self.free.pop()
        for i, (gpa, length, flags) in enumerate(segments):
            flags |= self.AVAIL if self.wrap else self.USED
            flags |= NEXT if i + 1 < len(segments) else 0
            if i == 0:
                # stale until published: the flags of the slot stay as they are
                at = self.desc + 16 * self.slot
                self.pending.append((at + 14, flags))
                self.memory.write(at, struct.pack("=QIH", gpa, length, number))
            else:
                self.write_desc(self.slot, gpa, length, number, flags)
            self.slot += 1
            if self.slot == self.size:
                self.slot, self.wrap = 0, self.wrap ^ 1
        self.chains[number] = len(segments)
        self.room -= len(segments)
        return number

    def publish(self):
        # the first head last: the device sees all of it or nothing
        for at, flags in reversed(self.pending):
            self.memory.store(at, flags)
        self.pending.clear()

    def used(self):
        got = []
        while True:
            at = self.desc + 16 * self.used_slot
            flags = self.memory.load(at + 14)
            if {bool(flags & self.AVAIL), bool(flags & self.USED)} != {bool(self.used_wrap)}:
                return got
            length, number = struct.unpack("=IH", self.memory.read(at + 8, 6))
            slots = self.chains.pop(number)
            self.used_slot += slots
            if self.used_slot >= self.size:
                self.used_slot -= self.size
                self.used_wrap ^= 1
            self.free.append(number)
            self.room += slots
            got.append((number, length if flags & WRITE else 0))

    def position(self):
        return self.used_slot | self.used_wrap << 15


# --- a net device --------------------------------------------------------------------------------

HEADER = 12             # struct virtio_net_hdr_mrg_rxbuf

FEATURES = 1 << VERSION_1 | 1 << PROTOCOL_FEATURES | 1 << MRG_RXBUF | 1 << MQ | 1 << INDIRECT
PROTOCOL = 1 << F_MQ | 1 << F_REPLY_ACK | 1 << F_CONFIG | 1 << F_STATUS


class FrontEnd:
    """A net device's driver and its front-end. Ring 2n receives and ring 2n + 1 sends for pair n.

    FrontEnd(path).connect().negotiate().setup(pairs=2).start(), or open(path, ...) for all that.
    """

    def __init__(self, path):
        self.path = path
        self.conn = self.memory = None
        self.rings = []
        self.features = FEATURES
        self.offered = self.protocol = self.max_pairs = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def connect(self):
        self.conn = Connection(self.path)
        return self

    def negotiate(self, features=FEATURES, packed=False, protocol=PROTOCOL):
        """Up to SET_OWNER; features are taken as far as they are offered and set by start()."""
        conn = self.conn
        self.offered = conn.ask_u64(get_features())
        self.features = self.offered & (features | (1 << RING_PACKED if packed else 0))
        self.protocol = conn.ask_u64(get_protocol_features()) & protocol
        conn.send(set_protocol_features(self.protocol))
        conn.reply_ack = bool(self.protocol & 1 << F_REPLY_ACK)
        self.max_pairs = conn.ask_u64(get_queue_num())
        conn.tell(set_owner())
        return self

    @property
    def packed(self):
        return bool(self.features & 1 << RING_PACKED)

    def setup(self, pairs=1, size=64, memory=None, start=None, **where):
        """Memory and rings, receive buffers posted; no message yet. `start` as in the rings."""
        self.memory = memory or Memory()
        kind = PackedRing if self.packed else SplitRing
        first = {} if start is None else {"start": start}
        for index in range(2 * pairs):
            self.rings.append(kind(self.memory, index, size, **first, **where))
        for pair in range(pairs):
            self.fill(pair)
        return self

    def script(self, rings=None):
        """The messages from SET_FEATURES to DRIVER_OK."""
        status = [set_status(DRIVER_OK)] if (self.protocol or 0) & 1 << F_STATUS else []
        messages = [set_features(self.features), set_mem_table(self.memory.regions)]
        for ring in self.rings if rings is None else rings:
            messages += ring.setup()
        return messages + status

    def start(self, rings=None):
        for message in self.script(rings):
            self.conn.tell(message)
        return self

    def start_rings(self, rings=None):
        """Rings that were stopped, or are new."""
        for ring in self.rings if rings is None else rings:
            for message in ring.setup():
                self.conn.tell(message)

    def stop(self, rings=None):
        """GET_VRING_BASE of each: {ring: base}."""
        bases = {}
        for ring in self.rings if rings is None else rings:
            index, base = struct.unpack("=II", self.conn.tell(get_vring_base(ring.index)))
            bases[index] = base
        return bases

    def replace_fds(self, ring, kick=True, call=True):
        """New eventfds while it runs; the old ones are closed."""
        if kick:
            old, ring.kick_fd = ring.kick_fd, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.conn.tell(set_vring_kick(ring.index, ring.kick_fd))
            os.close(old)
        if call:
            old, ring.call_fd = ring.call_fd, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.conn.tell(set_vring_call(ring.index, ring.call_fd))
            os.close(old)

    def disconnect(self):
        """Hang up; memory and rings stay."""
        if self.conn is not None:
            self.conn.close()
            self.conn = None

    def close(self):
        self.disconnect()
        for ring in self.rings:
            ring.close()
        self.rings = []
        if self.memory is not None:
            self.memory.close()
            self.memory = None

    # frames

    def rx(self, pair=0):
        return self.rings[2 * pair]

    def tx(self, pair=0):
        return self.rings[2 * pair + 1]

    def fill(self, pair=0):
        """Post every free receive buffer."""
        ring = self.rx(pair)
        while ring.fits(1):
            ring.add([(ring.buffer(), BUFFER, WRITE)])
        ring.publish()
        ring.kick()

    def send(self, frame, pair=0, cuts=(), indirect=False, header=bytes(HEADER)):
        """Add one frame, not yet published. cuts: where new descriptors begin, from the header."""
        ring, at = self.tx(pair), self.tx(pair).buffer()
        data = header + frame
        self.memory.write(at, data)
        edges = [0, *cuts, len(data)]
        segments = [(at + a, b - a, 0) for a, b in zip(edges, edges[1:])]
        return ring.add([ring.table(segments)] if indirect else segments)

    def post(self, pair=0):
        """Show the device what was added to the transmit ring."""
        self.tx(pair).publish()
        self.tx(pair).kick()

    def receive(self, pair=0):
        """Frames that have arrived; buffers are posted again."""
        ring, frames, more = self.rx(pair), [], 0
        for number, length in ring.used():
            data = self.memory.read(ring.buffers + number * BUFFER, length)
            if length == 0:
                continue    # handed back
            if more == 0:
                more = struct.unpack_from("=H", data, HEADER - 2)[0]
                frames.append(b"")
                data = data[HEADER:]
            frames[-1] += data
            more -= 1
        self.fill(pair)
        return frames

    def echo(self, frames, pair=0, to=None, cuts=(), indirect=False, timeout=15):
        """Send frames through a looped-back function; return what came back on `to` (or pair).

        Ends when as many came back and all were taken, or when time is up.
        """
        to = pair if to is None else to
        tx, rx = self.tx(pair), self.rx(to)
        left, got = list(frames)[::-1], []
        deadline = time.monotonic() + timeout * SLOW
        while left or len(got) < len(frames) or tx.room < tx.size:
            if time.monotonic() > deadline or self.conn.gone():
                break
            tx.used()
            while left and tx.fits(1 if indirect else len(cuts) + 1):
                self.send(left.pop(), pair, cuts, indirect)
            self.post(pair)
            new = self.receive(to)
            got += new
            if not new:
                rx.called(0.002)
        return got

    def check(self, frames, pair=0, **how):
        """The same, and every frame has to come back in order, byte by byte."""
        got = self.echo(frames, pair, **how)
        wrong = difference(frames, got)
        assert wrong is None, f"pair {pair}: {wrong}"

    def settle(self, pair=0, timeout=15):
        """Wait until the device has taken all that was sent; False if it does not."""
        tx, deadline = self.tx(pair), time.monotonic() + timeout * SLOW
        while tx.room < tx.size and time.monotonic() < deadline and not self.conn.gone():
            tx.used()
            tx.called(0.002)
        return tx.room == tx.size


def open_frontend(path, pairs=1, size=64, packed=False, features=FEATURES, memory=None, start=None):
    """A front-end that runs."""
    fe = FrontEnd(path)
    try:
        return (fe.connect().negotiate(features, packed)
                .setup(pairs, size, memory, start).start())
    except BaseException:
        fe.close()
        raise
