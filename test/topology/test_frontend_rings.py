# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end that misbehaves in its rings: hostile-guests.md's rows that need one."""

import struct

import pytest

# pytest finds fixtures by their names here
from frontend import FORMATS, bare, frames, neighbour, opened, server, shared, works  # noqa: F401
from harness import RING_PACKED, difference, wait_until
from net_device import HEADER, FEATURES, FrontEnd
from rings import NEXT, WRITE, TABLE, MAX_TABLE, BUFFER
from vhost_user import INDIRECT, Request, set_features, set_vring_num, Refused

# --- rings that are refused ----------------------------------------------------------------------


def align(area, by):
    def spoil(ring):
        setattr(ring, area, getattr(ring, area) + by)
    return spoil


def over_the_end(area):
    def spoil(ring):
        region = ring.memory.regions[0]
        size = ring.area_sizes()[("desc", "driver", "device").index(area)]
        setattr(ring, area, region.gpa + region.size - (size // 2 & ~15 or 2))
    return spoil


def overlap(area, other):
    def spoil(ring):
        setattr(ring, area, getattr(ring, other))
    return spoil


REFUSED = [
    ("desc-unaligned", False, align("desc", 8), "not aligned"),
    ("avail-unaligned", False, align("driver", 1), "not aligned"),
    ("used-unaligned", False, align("device", 2), "not aligned"),
    ("used-over-the-end", False, over_the_end("device"), "not mapped, or not in one piece"),
    ("avail-in-desc", False, overlap("driver", "desc"), "overlap"),
    ("used-in-avail", False, overlap("device", "driver"), "overlap"),
    ("packed-desc-unaligned", True, align("desc", 8), "not aligned"),
    ("packed-driver-unaligned", True, align("driver", 2), "not aligned"),
    ("packed-device-unaligned", True, align("device", 2), "not aligned"),
    ("packed-events-the-same", True, overlap("device", "driver"), "overlap"),
    ("packed-driver-in-desc", True, overlap("driver", "desc"), "overlap"),
]


@bare
@pytest.mark.parametrize("packed,spoil,why", [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_ring_refused(server, neighbour, packed, spoil, why):
    """One line names device and queue; the other pair and the other function go on; the ring
    works once its addresses are right."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup(pairs=2)
        ring = fe.rings[3]
        right = ring.desc, ring.driver, ring.device
        spoil(ring)
        fe.start()
        lines = server.said(rf"^vdpa_vfn0: queue 3 refused: .*{why}")
        assert len(lines) == 1, lines
        server.expect(r"^vdpa_vfn0: queue 3 was refused by the function, reason \d+; it stays off$")
        fe.check(frames("first pair"))
        neighbour.check(frames("neighbour"))
        ring.desc, ring.driver, ring.device = right
        fe.conn.tell(ring.addresses())
        fe.replace_fds(ring)
        fe.check(frames("corrected"), pair=1)
    works(server, packed=packed, pairs=2)


@bare
def test_split_ring_of_three_refused(server, neighbour):
    """librte_vhost lets it through when the size came while packed rings were agreed upon."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup(pairs=2)
        for message in fe.script():
            if message.payload[:4] == struct.pack("=I", 2) and \
                    message.request == Request.SET_VRING_NUM:
                fe.conn.tell(set_features(fe.features | 1 << RING_PACKED))
                fe.conn.tell(set_vring_num(2, 3))
                fe.conn.tell(set_features(fe.features))
            else:
                fe.conn.tell(message)
        lines = server.said(r"^vdpa_vfn0: queue 2 refused: queue size .* not a power of two")
        assert len(lines) == 1, lines
        server.expect(r"^vdpa_vfn0: queue 2 was refused by the function, reason \d+; it stays off$")
        fe.check(frames("first pair"))
    works(server, pairs=2)


@bare
@pytest.mark.parametrize("packed,size", [(False, 3), (False, 0), (False, 65536), (True, 0),
                                         (True, 32769)])
def test_size_refused_by_the_library(server, neighbour, packed, size):
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup()
        fe.conn.tell(set_features(fe.features))
        with pytest.raises(Refused):
            fe.conn.tell(set_vring_num(1, size))
        server.library_said("processing VHOST_USER_SET_VRING_NUM failed")
        neighbour.check(frames("neighbour"))
        fe.start()      # the same connection, right this time
        fe.check(frames("after"))
    # without acknowledgements the library hangs up
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed, protocol=0)
        fe.conn.tell(set_features(fe.features))
        fe.conn.tell(set_vring_num(1, size))
        assert fe.conn.hung_up()
    works(server, packed=packed)


@bare
@FORMATS
@pytest.mark.parametrize("area", ["desc", "driver", "device"])
def test_ring_outside_memory_never_gets_ready(server, neighbour, packed, area):
    """librte_vhost waits for addresses that it can translate; it does not say so."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup()
        right = getattr(fe.tx(), area)
        setattr(fe.tx(), area, 0x9_0000_0000)
        fe.start()
        setattr(fe.tx(), area, right)
        fe.send(bytes(60))
        fe.post()
        neighbour.check(frames("neighbour"))
        assert f"({server.sockets[0]}) virtio is now ready" not in \
            server.process.log()[server.since:]
        assert fe.receive() == []
        fe.conn.tell(fe.tx().addresses())
        fe.replace_fds(fe.tx())
        assert wait_until(fe.receive) == [bytes(60)]
    works(server, packed=packed)


# --- chains --------------------------------------------------------------------------------------


def good(ring):
    """A buffer with a frame that would pass, of 100 bytes with its header."""
    at = ring.buffer()
    ring.memory.write(at, bytes(HEADER) + bytes(88))
    return at


def unmapped(ring):
    ring.add([(0x66_0000_0000, 100, 0)])


def half_mapped(ring):
    region = ring.memory.regions[-1]
    ring.add([(region.gpa + region.size - 50, 100, 0)])


def address_wraps(ring):
    ring.add([(2**64 - 16, 100, 0)])


def order(ring):
    at = good(ring)
    ring.add([(at, 50, WRITE), (at + 50, 50, 0)])


def not_readable(ring):
    ring.add([(good(ring), 100, WRITE)])


def short(ring):
    ring.add([(good(ring), HEADER - 1, 0)])


def empty(ring):
    ring.add([(good(ring), 0, 0)])


def header(*fields):
    def bad(ring):
        at = good(ring)
        ring.memory.write(at, struct.pack("=BBHHHH", *fields))
        ring.add([(at, 100, 0)])
    return bad


def loop(ring):
    at = good(ring)
    head = ring.add([(at, 10, 0)])
    ring.write_desc(head, at, 10, NEXT, head)


def loop_of_two(ring):
    at = good(ring)
    a = ring.add([(at, 10, 0), (at + 10, 10, 0)])
    ring.write_desc(ring.heads[a][1], at, 10, NEXT, a)


def next_outside(ring):
    at = good(ring)
    head = ring.add([(at, 10, 0)])
    ring.write_desc(head, at, 10, NEXT, ring.size)


def table_size(size):
    def bad(ring):
        at, _, flags = ring.table([(good(ring), 100, 0)])
        ring.add([(at, size, flags)])
    return bad


def table_unmapped(ring):
    ring.add([(0x66_0000_0000, 32, TABLE)])


def table_in_table(ring):
    inner = ring.table([(good(ring), 100, 0)])
    at = ring.tables + ring.free[-1] * MAX_TABLE * 16
    ring.write_table_entry(at, inner[0], 16, TABLE, None)
    ring.add([(at, 16, TABLE)])


def table_and_next(ring):
    at = ring.buffer()
    ring.add([ring.table([(good(ring), 100, 0)]), (at, 50, 0)])


def table_loop(ring):
    at, size, flags = ring.table([(good(ring), 50, 0), (ring.buffer() + 50, 50, 0)])
    ring.write_table_entry(at + 16, ring.buffer(), 50, 0, 0)
    ring.memory.store(at + 16 + 12, NEXT)
    ring.add([(at, size, flags)])


BAD = [      # chain, what counts it, formats
    (unmapped, "addr", "sp"), (half_mapped, "addr", "sp"), (address_wraps, "addr", "sp"),
    (order, "order", "sp"), (not_readable, "direction", "sp"), (short, "header", "sp"),
    (empty, "header", "sp"),
    (header(0, 7, 0, 0, 0, 0), "header", "sp"),             # no such segmentation
    (header(0, 1, 54, 1000, 0, 0), "header", "sp"),         # TSO was not agreed upon
    (header(1, 0, 0, 0, 90, 6), "header", "sp"),            # checksum was not
    (loop, "loop", "s"), (loop_of_two, "loop", "s"), (next_outside, "next", "s"),
    (table_size(0), "table", "sp"), (table_size(17), "table", "sp"),
    (table_size(65 * 16), "table", "sp"), (table_unmapped, "addr", "sp"),
    (table_in_table, "indirect", "sp"), (table_and_next, "indirect", "sp"),
    (table_loop, "loop", "s"),
]


@pytest.mark.parametrize("packed,bad,counter", [
    pytest.param(f == "p", bad, counter, id=f"{'packed' if f == 'p' else 'split'}-"
                 f"{bad.__name__.replace('_', '-')}{n if bad.__name__ == 'bad' else ''}-{counter}")
    for n, (bad, counter, formats) in enumerate(BAD) for f in formats])
def test_bad_chain_is_completed_and_counted(server, opened, packed, bad, counter):
    fe = opened(packed=packed, pairs=2)
    wrong, others = server.counted("vdpa_vfn0", 3), [server.counted("vdpa_vfn0", q)
                                                     for q in (0, 1, 2)]
    sent, times = frames("good", 20), 3
    for frame in sent[:10]:
        fe.send(frame, pair=1)
    for _ in range(times):
        bad(fe.tx(1))
    for frame in sent[10:]:
        fe.send(frame, pair=1)
    fe.post(1)
    got, done = [], []

    def finished():
        got.extend(fe.receive(1))
        done.extend(fe.tx(1).used())
        return len(got) >= len(sent) and len(done) >= len(sent) + times

    wait_until(finished)
    assert difference(sent, got) is None
    assert [length for _, length in done] == [0] * (len(sent) + times)
    assert wait_until(lambda: wrong("errors")) == {f"errors_{counter}": times}
    fe.check(frames("after"), pair=1)
    fe.check(frames("first pair"))
    assert [grown("errors") for grown in others] == [{}] * 3


@FORMATS
def test_indirect_that_was_not_negotiated(server, opened, packed):
    fe = opened(packed=packed, features=FEATURES & ~(1 << INDIRECT))
    wrong = server.counted("vdpa_vfn0", 1)
    fe.send(bytes(60), indirect=True)
    fe.post()
    assert fe.settle()
    assert wait_until(lambda: wrong("errors")) == {"errors_indirect": 1}
    fe.check(frames("after"))


@FORMATS
def test_receive_chain_that_cannot_be_used(server, opened, packed):
    """Read-only, unmapped, too short for the header: handed back empty, the next one is used."""
    fe = opened(packed=packed)
    wrong = server.counted("vdpa_vfn0", 0)
    fe.check(frames("some", 10))
    rx = fe.rx()
    for frame in frames("three", 3):
        fe.send(frame)
    fe.post()
    assert fe.settle()
    assert wait_until(lambda: len(rx.free) >= 3 or (rx.used() and len(rx.free) >= 3))
    rx.add([(rx.buffer(), BUFFER, 0)])
    rx.add([(0x66_0000_0000, BUFFER, WRITE)])
    rx.add([(rx.buffer(), HEADER - 1, WRITE)])
    rx.publish()
    fe.check(frames("lap", 3 * rx.size))
    assert wait_until(lambda: wrong("errors")) == {"errors_direction": 1, "errors_header": 1,
                                                    "errors_addr": 1}


# --- rings that cannot be trusted any more -------------------------------------------------------


def avail_ahead(ring):
    ring.publish(ring.avail + ring.size + 1)


def avail_behind(ring):
    ring.publish(ring.avail - 1)


def head_outside(ring):
    ring.offer(ring.size)
    ring.publish()


def endless(ring):
    """Every slot continues with the next, and all are available."""
    flags = ring.AVAIL if ring.wrap else ring.USED
    other = ring.USED if ring.wrap else ring.AVAIL
    for slot in [*range(ring.slot + 1, ring.size), *range(ring.slot), ring.slot]:
        ring.write_desc(slot, ring.buffers, 10, 0, NEXT | (flags if slot >= ring.slot else other))


@pytest.mark.parametrize("packed,spoil,counter", [
    (False, avail_ahead, "avail_idx"), (False, avail_behind, "avail_idx"),
    (False, head_outside, "head"), (True, endless, "runaway")])
@pytest.mark.parametrize("queue", [3, 2], ids=["transmit", "receive"])
def test_only_the_broken_queue_stops(server, neighbour, opened, packed, spoil, counter, queue):
    fe = opened(packed=packed, pairs=2)
    for pair in 0, 1:
        fe.check(frames(pair), pair)
    wrong = server.counted("vdpa_vfn0", queue)
    ring = fe.rings[queue]
    if queue == 2:
        # buffers that are posted are good; make the device use them up
        for _ in range(ring.size):
            fe.send(bytes(60), pair=1)
        fe.post(1)
        assert fe.settle(1)
        if packed:
            assert wait_until(lambda: ring.used() is None or len(ring.free) == ring.size)
    spoil(ring)
    ring.kick()
    if queue == 2:
        fe.send(bytes(60), pair=1)
        fe.post(1)
    lines = server.said(rf"^vdpa_vfn0: queue {queue} is broken and stopped: ")
    for _ in range(5):
        ring.kick()
        fe.check(frames("first pair", 20))
        neighbour.check(frames("neighbour", 20))
    assert wrong("errors") == {f"errors_{counter}": 1}
    assert server.said("is broken and stopped") == lines and len(lines) == 1
    fe.disconnect()
    works(server, packed=packed, pairs=2)
