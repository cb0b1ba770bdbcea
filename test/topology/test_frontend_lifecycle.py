# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end's life and messages where they are wrong: the rows of "Messages and
lifecycle" in hostile-guests.md that test_frontend.py and its other siblings have not.

Known holes of others, and what tests against them here:

- CVE-2018-1059 (buffers beyond the end of a region): test_frontend_rings.py, half_mapped;
  test_frontend_memory.py, a buffer across two regions
- CVE-2019-14818, CVE-2022-0669 (descriptors that come with any message):
  test_frontend.py, test_surplus_descriptors_are_closed; test_wrong_number_of_descriptors
- CVE-2019-14835 (overlong chains while logging): test_frontend_rings.py, loop and endless;
  the log of test_frontend_lost.py
- CVE-2020-10722 (a log whose size and offset overflow): test_log_that_overflows
- CVE-2020-10723 (ring numbers cut to 8 bits): test_ring_numbers_up_to_512
- CVE-2020-10725 (addresses without memory): test_frontend_rings.py, unmapped, address_wraps
- CVE-2020-10726 (in-flight regions asked for again and again): test_inflight_region_again_and_again
- CVE-2021-3839 (more in-flight rings than there are): test_inflight_region_of_any_size
- CVE-2022-2132 (headers over many descriptors): test_frontend.py, test_frames_come_back
- CVE-2024-11614 (checksum offsets behind the frame): test_frontend_rings.py, header(1, ...)
- CVE-2021-3748, 2022-26353, 2023-6693, 2024-6505 are QEMU's own device; the same chains are in
  test_frontend_rings.py, test_receive_chain_that_cannot_be_used, and in test_control.c
"""

import contextlib
import os
import random
import struct

import pytest

# pytest finds fixtures by their names here
from frontend import (FORMATS, Server, bare, frames, neighbour, opened, server, shared,  # noqa: F401
                      works)
from harness import NIGHTLY, RING_PACKED, SLOW, not_in_order, wait_until
from net_device import FEATURES, PROTOCOL, FrontEnd, open_frontend
from rings import Memory, PackedRing, Region, SplitRing
from vhost_user import (F_INFLIGHT, F_REPLY_ACK, VERSION, NEED_REPLY, NO_FD, Closed, Connection,
                        Message, Refused, Request, get_features, get_vring_base, set_features,
                        set_mem_table, set_protocol_features,
                        set_vring_base, set_vring_call, set_vring_enable, set_vring_kick)


def at_rest(server, fds=None):
    """Descriptors of the server when all messages were looked at: as many as then, or as stay."""
    for path in server.sockets:
        server.answers(path)
    counts = []

    def settled():
        counts.append(server.fds())
        return counts[-1] == fds or fds is None and counts[-5:] == [counts[-1]] * 5
    wait_until(settled)
    return counts[-1]


# --- handshakes ----------------------------------------------------------------------------------

@contextlib.contextmanager
def script(packed):
    with FrontEnd("") as fe:
        fe.features, fe.protocol = FEATURES | (1 << RING_PACKED if packed else 0), 0
        fe.setup()
        yield fe.script()


def try_messages(server, messages):
    """As far as they are taken; flags and answers as they come."""
    conn = Connection(server.sockets[0])
    with contextlib.suppress(Closed):
        for message, flags in messages:
            conn.send(message, flags)
        conn.send(get_features())
        while conn.receive()[0] != Request.GET_FEATURES:
            pass
    conn.close()


@FORMATS
def test_handshake_in_any_order(server, neighbour, packed):
    server.expect("^vdpa_vfn0: ")
    rest = server.fds()
    with script(packed) as messages:
        for seed in range(2000 if NIGHTLY else 60):
            rng = random.Random(seed)
            mixed = list(messages)
            if seed % 2:
                rng.shuffle(mixed)
            else:       # neighbours change places
                at = rng.randrange(len(mixed) - 1)
                mixed[at:at + 2] = mixed[at + 1], mixed[at]
            try_messages(server, [(m, VERSION | NEED_REPLY) for m in mixed])
            if seed % 20 == 19:
                neighbour.check(frames(seed, 5))
    works(server, packed=packed)
    assert wait_until(lambda: server.fds() == rest), (server.fds(), rest)


@FORMATS
def test_handshake_with_wrong_bytes(server, neighbour, packed):
    """One field of one message is something else. Sizes of regions are left out: librte_vhost
    22.11 forgets descriptors of those that it cannot map."""
    server.expect("^vdpa_vfn0: ")
    rest = server.fds()
    strange = [0, 1, 0xff, 0xffff, 0x8000_0000, 0xffff_ffff]
    with script(packed) as messages:
        for seed in range(3000 if NIGHTLY else 120):
            rng = random.Random(seed)
            mixed = [(m, VERSION | NEED_REPLY) for m in messages]
            number = rng.randrange(len(messages))
            message = messages[number]
            payload = bytearray(message.payload)
            if message.request == Request.SET_MEM_TABLE:
                at = rng.choice([0, 4, 8, 12, 24, 28])      # count, padding, addresses
            else:
                at = 4 * rng.randrange(len(payload) // 4)
            struct.pack_into("=I", payload, at, rng.choice([*strange, rng.getrandbits(32)]))
            mixed[number] = Message(message.request, bytes(payload), message.fds), \
                VERSION | (NEED_REPLY if seed % 2 else 0)
            try_messages(server, mixed)
            if seed % 20 == 19:
                neighbour.check(frames(seed, 5))
    works(server, packed=packed)
    assert wait_until(lambda: server.fds() == rest), (server.fds(), rest)


@FORMATS
def test_hung_up_on_in_mid_traffic(server, neighbour, packed):
    """Frames are on their way both ways each time; nothing is left of them."""
    server.expect("in use by another connection")

    def hang_up(number):
        with open_frontend(server.sockets[0], packed=packed) as fe:
            for frame in sent:
                fe.send(frame)
            fe.post()
            if number % 3 == 0:
                wait_until(lambda: fe.tx().used(), timeout=2)

    sent, rest = frames("flight", 40), at_rest(server)
    for number in range(20):
        hang_up(number)
    at_rest(server, rest)
    rss, size = server.memory()
    for number in range(1000 if NIGHTLY else 60):
        hang_up(number)
        if number % 25 == 0:
            neighbour.check(frames(number, 20))
    assert at_rest(server, rest) == rest
    rss_after, size_after = server.memory()
    if SLOW == 1:   # the sanitizer keeps what is freed in quarantine
        assert rss_after - rss < 1024 and size_after - size < 1024, \
            f"VmRSS {rss} -> {rss_after} kB, VmSize {size} -> {size_after} kB"
    works(server, packed=packed)


# --- memory and rings that move ------------------------------------------------------------------

@FORMATS
def test_rings_move_from_region_to_region(server, opened, packed):
    """A region is added, the rings move there, the one they were in goes; frames sent in between
    arrive, each once and in order, and nothing is dropped."""
    fe = opened(packed=packed, memory=Memory([(0x1000_0000, 1 << 17), (0x1_0000_0000, 1 << 23)]))
    lost = server.counted("vdpa_vfn0", 1)
    for turn in range(6):
        sent = frames(turn, 40)
        for frame in sent[:20]:
            fe.send(frame)
        fe.post()
        bases = fe.stop()
        got = fe.receive()
        fe.tx().used()
        assert bases == {ring.index: ring.position() for ring in fe.rings}
        old = fe.memory.regions[0]
        fe.memory.regions.insert(1, Region(0x2000_0000 + (turn << 24), 1 << 17))
        fe.conn.tell(set_mem_table(fe.memory.regions))
        for ring in fe.rings:
            ring.move(region=1)
        fe.memory.regions.remove(old)
        fe.conn.tell(set_mem_table(fe.memory.regions))
        old.close()
        for frame in sent[20:]:
            fe.send(frame)
        fe.tx().publish()
        fe.start_rings()
        fe.tx().kick()
        assert wait_until(lambda: got.extend(fe.receive()) or len(got) >= len(sent))
        assert not_in_order(sent, got) is None and len(got) == len(sent)
        assert fe.settle()
    assert lost("dropped") == lost("errors") == {}
    fe.check(frames("after"))


@FORMATS
def test_two_gibibytes_in_eight_regions(server, packed):
    """As many regions as there may be, sparse; one more is refused without a trace."""
    rest = server.fds()
    memory = Memory([(0x1000_0000, 1 << 21), (0x1_0000_0000, 1 << 23)])
    memory.regions += [Region(0x10_0000_0000 + (n << 32), 1 << 28) for n in range(6)]
    memory.regions.append(Region(0x20_0000_0000, (1 << 29) - (1 << 24)))
    more = memory.regions.pop()
    with contextlib.closing(more), open_frontend(server.sockets[0], packed=packed,
                                                 memory=memory) as fe:
        fe.check(frames("eight"))
        at = memory.regions[7].gpa + (1 << 28) - 60
        fe.tx().add([(at, 60, 0)])
        fe.post()
        assert wait_until(fe.receive) == [bytes(48)]
        # too long a message to be one: the connection ends
        with pytest.raises(Closed):
            fe.conn.tell(set_mem_table([*memory.regions, more]))
        server.expect("^vdpa_vfn0: SET_MEM_TABLE refused: the size of its payload is wrong")
    works(server, packed=packed)
    assert wait_until(lambda: server.fds() == rest)


@FORMATS
def test_guest_reboots(server, neighbour, opened, packed):
    """Memory is cleared, and the front-end starts what it had: stale rings, stale positions. Then
    the new driver comes."""
    server.expect(r"^vdpa_vfn0: queue \d ",
                  r"^vdpa_vfn0: SET_VRING_KICK of ring \d refused: its addresses were not set")
    fe = opened(packed=packed)
    for turn in range(3):
        fe.check(frames(turn, 70))
        bases = fe.stop()
        for region in fe.memory.regions:
            region.map[:] = bytes(len(region.map))
        for ring in fe.rings:
            fe.conn.tell(set_vring_base(ring.index, bases[ring.index]))
            with pytest.raises(Refused):    # it was stopped, so it has no addresses
                fe.conn.tell(set_vring_kick(ring.index, ring.kick_fd))
            fe.conn.tell(set_vring_call(ring.index, ring.call_fd))
            ring.kick()
        neighbour.check(frames("neighbour"))
        fe.stop()
        for ring in fe.rings:
            ring.close()
        for region in fe.memory.regions:
            region.map[:] = bytes(len(region.map))
            region.end = 0
        fe.rings = [(PackedRing if packed else SplitRing)(fe.memory, i, 64)
                    for i in range(len(fe.rings))]
        fe.fill()
        fe.conn.tell(set_features(fe.features))
        fe.start_rings()
    fe.check(frames("at last"))


@pytest.mark.parametrize("first", [False, True], ids=["split-then-packed", "packed-then-split"])
def test_features_change_between_rings(server, neighbour, first):
    """One ring was set up in the other format: it is refused or rests, the next has traffic."""
    server.expect(r"^vdpa_vfn0: queue \d ",
                  "^vdpa_vfn0: SET_FEATURES refused: other features while a ring is running$")
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=True).setup()
        words = fe.features & ~(1 << RING_PACKED), fe.features
        messages = [set_features(words[first]), set_mem_table(fe.memory.regions),
                    *fe.rings[0].setup(), set_features(words[not first]), *fe.rings[1].setup(),
                    fe.script()[-1]]
        for message in messages:
            with contextlib.suppress(Refused):
                fe.conn.tell(message)
        fe.tx().kick()
        neighbour.check(frames("neighbour"))
    for packed in False, True:
        works(server, packed=packed)


def test_kicks_where_nothing_runs(server, neighbour, opened):
    """Stopped, disabled, and with a kick fd that was replaced."""
    fe = opened(pairs=2)
    fe.check(frames("before"))
    kicks = [os.dup(ring.kick_fd) for ring in fe.rings]
    try:
        for ring in fe.rings:
            fe.replace_fds(ring)
        fe.conn.tell(set_vring_enable(3, False))
        fe.stop(fe.rings[:2])
        for _ in range(200):
            for ring in fe.rings:
                ring.kick()
            for fd in kicks:
                os.eventfd_write(fd, 1)
        neighbour.check(frames("neighbour"))
        fe.start_rings(fe.rings[:2])
        fe.conn.tell(set_vring_enable(3))
        for pair in 0, 1:
            fe.check(frames("after"), pair)
    finally:
        for fd in kicks:
            os.close(fd)


# --- numbers and descriptors ---------------------------------------------------------------------

def test_ring_numbers_up_to_512(server, neighbour):
    """There are at most 256. Nothing grows with what is asked."""
    def state(request):
        return lambda number: Message(request, struct.pack("=II", number, 64))

    def address(number):
        return Message(Request.SET_VRING_ADDR, struct.pack("=IIQQQQ", number, 0, *[1 << 40] * 4))

    kinds = [state(Request.SET_VRING_NUM), state(Request.SET_VRING_BASE), address,
             state(Request.SET_VRING_ENABLE), get_vring_base]
    server.expect(r"^vdpa_vfn0: SET_VRING_\w+ of ring \d+ refused: ",
                  r"^vdpa_vfn0: \w+ refused: there is no such ring")
    before = at_rest(server)
    for kind in kinds:
        for number in [*range(0, 513, 16), 255, 256, 257, 1 << 16, 1 << 31, 2**32 - 1]:
            conn = Connection(server.sockets[0])
            conn.send(set_protocol_features(1 << F_REPLY_ACK))
            conn.send(kind(number), VERSION | NEED_REPLY)
            conn.sock.shutdown(1)       # SHUT_WR
            answered = conn.sock.recv(4096) != b""
            assert answered, (kind(number), number)     # if only with no
            conn.close()
        neighbour.check(frames("neighbour", 5))
    assert at_rest(server, before) == before
    works(server)


def test_wrong_number_of_descriptors(server, neighbour):
    """Messages that take some, with fewer and with more: refused, and all of them closed."""
    server.expect(r"^vdpa_vfn0: \w+( of ring \d+)? refused: ")
    before = at_rest(server)
    fds = [os.memfd_create("some") for _ in range(8)]
    for fd in fds:
        os.ftruncate(fd, 1 << 16)
    table = struct.pack("=II", 2, 0) + b"".join(
        struct.pack("=QQQQ", n << 20, 1 << 16, n << 20, 0) for n in (1, 2))
    takes = [Message(Request.SET_MEM_TABLE, table), set_vring_kick(0, -1), set_vring_call(0, -1),
             Message(Request.SET_VRING_ERR, struct.pack("=Q", 0)),
             Message(Request.SET_LOG_BASE, struct.pack("=QQ", 1 << 16, 0)),
             Message(Request.SET_LOG_FD), inflight(Request.SET_INFLIGHT_FD, 4096, 0, 1, 4),
             inflight(Request.GET_INFLIGHT_FD, 0, 0, 1, 4),
             Message(Request.SET_VRING_KICK, struct.pack("=Q", NO_FD)),
             Message(Request.SET_VRING_CALL, struct.pack("=Q", NO_FD))]
    try:
        for message in takes:
            for count in 0, 1, 2, 3, 8:
                for features in True, False:
                    conn = Connection(server.sockets[0])
                    if features:
                        conn.send(set_features(FEATURES & conn.ask_u64(get_features())))
                    with contextlib.suppress(Closed):
                        for _ in range(3):
                            conn.send_raw(message.raw(VERSION | NEED_REPLY), fds[:count])
                    server.answers(server.sockets[0])
                    conn.close()
            neighbour.check(frames("neighbour", 5))
    finally:
        for fd in fds:
            os.close(fd)
    assert at_rest(server, before) == before
    works(server)


def inflight(request, size, offset, queues, queue_size, fds=()):
    return Message(request, struct.pack("=QQHHI", size, offset, queues, queue_size, 0), fds)


@FORMATS
@pytest.mark.parametrize("features", [True, False], ids=["usual", "before-features"])
def test_inflight_region_of_any_size(packed, features):
    """More rings than there are, and regions that have no room for them: librte_vhost 22.11 writes
    where they would be. It forgets descriptors of those that it refuses: a server of its own."""
    with Server() as server, open_frontend(server.sockets[1]) as fe, \
            open(os.memfd_create("inflight"), "wb") as file:
        file.truncate(4096)
        for queues in 0, 1, 2, 128, 256, 257, 65535:
            for queue_size in 0, 1, 1024, 65535:
                for size, offset in (4096, 0), (1, 0), (0, 0), (4096, 4096), (2**64 - 4096, 0):
                    conn = Connection(server.sockets[0])
                    if features:
                        bits = conn.ask_u64(get_features()) & FEATURES
                        conn.send(set_features(bits | (1 << RING_PACKED if packed else 0)))
                    with contextlib.suppress(Closed):
                        for _ in range(2):
                            conn.send(inflight(Request.SET_INFLIGHT_FD, size, offset, queues,
                                               queue_size, (file.fileno(),)))
                        conn.ask(get_features())
                    conn.close()
            fe.check(frames("neighbour", 5))
        works(server, packed=packed)


@bare
def test_inflight_region_again_and_again(server, neighbour):
    before = at_rest(server)
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(protocol=PROTOCOL | 1 << F_INFLIGHT)
        fe.conn.tell(set_features(fe.features))
        rest = server.fds()
        for _ in range(100):
            os.close(fe.conn.ask_fd(inflight(Request.GET_INFLIGHT_FD, 0, 0, 2, 64))[1])
        assert wait_until(lambda: server.fds() == rest)
        neighbour.check(frames("neighbour"))
        fe.setup().start()
        fe.check(frames("after"))
    works(server)
    assert at_rest(server, before) == before


@pytest.mark.parametrize("size,offset", [(2**64 - 1, 1), (2**63, 2**63), (1, 2**64 - 1),
                                         (2**64 - 4096, 4096), (0, 0), (1 << 16, 3)])
def test_log_that_overflows(server, neighbour, size, offset):
    server.expect("^vdpa_vfn0: SET_LOG_BASE refused: ", "^vdpa_vfn0: dirty log: ",
                  "^vfn: a dirty log at 0x[0-9a-f]+ of its file is refused")
    log = os.memfd_create("log")
    os.ftruncate(log, 1 << 16)
    try:
        with FrontEnd(server.sockets[0]) as fe:
            fe.connect().negotiate().setup()
            fe.start()
            with contextlib.suppress(Closed):
                fe.conn.send(Message(Request.SET_LOG_BASE, struct.pack("=QQ", size, offset),
                                     (log,)))
                fe.conn.receive()
                fe.conn.tell(set_features(fe.features | 1 << 26))
                fe.check(frames("logged"))
            neighbour.check(frames("neighbour"))
    finally:
        os.close(log)
    works(server)
