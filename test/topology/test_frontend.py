# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end (vhost_user.py) against vfn-vhost: ring layouts, the life cycle,
reconnects, messages.
"""

import contextlib
import os
import socket
import struct
import time

import pytest

# pytest finds fixtures by their names here
from frontend import (FORMATS, PAIRS, Server, frames, neighbour, opened,  # noqa: F401
                      server, shared, works)
from harness import IN_ORDER, MQ, MRG_RXBUF, RING_PACKED, SLOW, difference, not_in_order, wait_until
from net_device import HEADER, FEATURES, PROTOCOL, FrontEnd, open_frontend
from rings import Region, Memory, BUFFER, SplitRing, PackedRing
from vhost_user import (VERSION, NEED_REPLY, F_CONFIG, EVENT_IDX, INDIRECT, Request, Message,
                        get_features, set_features, get_protocol_features, set_protocol_features,
                        get_queue_num, set_owner, reset_owner, set_mem_table, set_vring_num,
                        get_vring_base, set_vring_enable, get_config, Closed, Refused, Connection)

# --- frames --------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("how", [{}, {"cuts": (HEADER,)}, {"cuts": (1, 5, HEADER, HEADER + 1, 40)},
                                 {"indirect": True}, {"indirect": True, "cuts": (3, HEADER, 30)}],
                         ids=["direct", "header-apart", "in-pieces", "indirect",
                              "indirect-in-pieces"])
def test_frames_come_back(opened, packed, how):
    fe = opened(packed=packed)
    assert fe.packed == packed
    fe.check(frames("frames", 300), **how)


@pytest.mark.parametrize("packed,size", [(False, 1), (False, 2), (False, 256), (True, 1), (True, 3),
                                         (True, 5), (True, 100)])
def test_ring_of_any_legal_size(opened, packed, size):
    fe = opened(packed=packed, size=size)
    fe.check(frames(size, 3 * size + 10))
    if size > 2:
        fe.check(frames(size, 2 * size), cuts=(HEADER, 20))


@FORMATS
@pytest.mark.parametrize("features", [
    FEATURES | 1 << EVENT_IDX, FEATURES | 1 << IN_ORDER,
    FEATURES & ~(1 << MRG_RXBUF), FEATURES & ~(1 << INDIRECT)],
    ids=["event-index", "in-order", "not-mergeable", "not-indirect"])
def test_features_are_optional(opened, packed, features):
    fe = opened(packed=packed, features=features)
    assert fe.features & ~(1 << RING_PACKED | 1 << MQ) == features & ~(1 << MQ)
    fe.check(frames("features", 200))
    fe.check(frames("features", 50), cuts=(HEADER, 30))


@FORMATS
def test_statistics_tell_what_passed(server, opened, packed):
    fe = opened(packed=packed)
    rx, tx = server.counted("vdpa_vfn0", 0), server.counted("vdpa_vfn0", 1)
    sent = frames("stats", 100)
    fe.check(sent)
    total = {"packets": len(sent), "bytes": sum(map(len, sent))}
    for grown in rx, tx:
        assert wait_until(lambda: grown("packets") == {"packets": len(sent)})
        assert {k: grown()[k] for k in total} == total
        assert grown("errors") == grown("dropped") == {}


def test_comparison_can_fail(opened):
    """Negative control: the bytes are compared, and so are order and number."""
    fe = opened()
    sent = frames("control", 10)
    got = fe.echo(sent)
    assert difference(sent, got) is None
    changed = bytearray(sent[3])
    changed[17] ^= 1
    assert "byte 17" in difference(sent[:3] + [bytes(changed)] + sent[4:], got)
    assert difference(sent[1:] + sent[:1], got) is not None
    assert difference(sent[:-1], got) is not None
    # and on the way: a bit that changes after the frame was handed over, before it was looked at
    chain = fe.send(sent[0])
    at = fe.tx().buffers + chain * BUFFER + HEADER + 20
    fe.memory.write(at, bytes([sent[0][20] ^ 0x80]))
    fe.post()
    arrived = []
    assert wait_until(lambda: arrived.extend(fe.receive()) or arrived)
    assert "byte 20" in difference(sent[:1], arrived)


# --- life cycle ----------------------------------------------------------------------------------


@FORMATS
def test_pairs_become_ready_later(server, packed):
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup(pairs=PAIRS)
        assert fe.max_pairs == PAIRS
        for message in fe.script():
            enables = message.request == Request.SET_VRING_ENABLE
            if not enables or struct.unpack_from("=I", message.payload)[0] < 2:
                fe.conn.tell(message)
        fe.check(frames("first"))
        for pair in range(1, PAIRS):
            for ring in fe.rings[2 * pair:2 * pair + 2]:
                fe.conn.tell(set_vring_enable(ring.index))
            for p in range(pair + 1):
                fe.check(frames(f"pair {p} of {pair + 1}"), p)
        # all at once, the bytes of each stay apart
        together = [frames(f"flow {p}") for p in range(PAIRS)]
        for p in range(PAIRS):
            fe.check(together[p], p)


@FORMATS
def test_pairs_that_are_set_up_later(server, packed):
    """The back-end has not heard of the second pair's rings when the first runs."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup(pairs=2)
        fe.start(fe.rings[:2])
        fe.check(frames("alone"))
        fe.start_rings(fe.rings[2:])
        fe.check(frames("second"), pair=1)
        fe.check(frames("first"))


def test_queue_runs_only_if_this_guest_enabled_it(server, opened):
    """What the guest before had enabled is not enabled for the next."""
    opened(pairs=PAIRS).disconnect()
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup(pairs=2)
        for message in fe.script(fe.rings[:2]):
            fe.conn.tell(message)
        for ring in fe.rings[2:]:
            for message in ring.setup(enable=False):
                fe.conn.tell(message)
        fe.check(frames("pair 0"))
        # were the second pair running, this would come back on it
        fe.send(bytes(100), pair=1)
        fe.post(1)
        fe.check(frames("pair 0 still"))
        assert fe.receive(1) == []
        for ring in fe.rings[2:]:
            fe.conn.tell(set_vring_enable(ring.index))
        fe.settle(1)
        fe.receive(1)
        fe.check(frames("pair 1 now"), pair=1)


def test_fewer_queues_than_the_guest_before(server):
    """Says nothing about queues that this guest does not have."""
    works(server, pairs=PAIRS)
    works(server, pairs=1)


@FORMATS
def test_kick_and_call_replaced_live(opened, packed):
    fe = opened(packed=packed)
    for turn in range(5):
        fe.check(frames(turn, 50))
        for ring in fe.rings:
            fe.replace_fds(ring, kick=turn % 2 == 0 or turn == 3, call=turn % 2 == 1 or turn == 4)
        for ring in fe.rings:
            ring.called()       # the library calls once for every new kick fd
        fe.send(bytes([turn]) * 60)
        fe.post()
        # nothing is looked at in between: the new kick has to wake, the new call has to come
        assert fe.rx().called(timeout=10) and fe.tx().called(timeout=10)
        assert wait_until(fe.receive) == [bytes([turn]) * 60]


@FORMATS
@pytest.mark.parametrize("queue", [1, 0], ids=["transmit", "receive"])
def test_fds_replaced_in_mid_traffic(server, opened, packed, queue):
    """Frames that meet a receive queue which just then is being set up anew are dropped and
    counted; others are not lost, and none comes twice or out of order."""
    fe = opened(packed=packed, size=256)
    dropped = server.counted("vdpa_vfn0", 1)
    sent, got = frames("flight", 600), []
    left = sent[::-1]
    for _ in range(6):
        for _ in range(100):
            while not fe.tx().fits(1):
                fe.tx().used()
                got += fe.receive()
            fe.send(left.pop())
        fe.post()
        fe.replace_fds(fe.rings[queue])
    assert fe.settle()
    got += fe.receive()
    assert not_in_order(sent, got) is None
    assert wait_until(lambda: dropped("packets") == {"packets": len(sent)})
    lost = dropped("dropped")
    assert len(got) == len(sent) - lost.pop("dropped_no_peer", 0) and lost == {}
    assert queue == 0 or len(got) == len(sent)
    fe.check(frames("after"))


@pytest.mark.parametrize("packed,start,size", [
    (False, 0, 64), (False, 65500, 64), (False, 65535, 256),
    (True, 0x8000, 64), (True, 60, 64), (True, 0x8000 | 63, 64), (True, 3, 5), (True, 0x8004, 5)])
def test_stop_answers_where_the_ring_stands(opened, packed, start, size):
    """And it goes on from there: at the same place, and at another one."""
    fe = opened(packed=packed, start=start, size=size)
    counts = [1, size - 1, size, 2 * size + 3, 7]
    for turn, count in enumerate(counts):
        fe.check(frames(turn, count))
        assert fe.stop() == {ring.index: ring.position() for ring in fe.rings}
        if turn % 2:
            for ring in fe.rings:
                ring.move(region=turn // 2 % 2)
        fe.start_rings()
    fe.check(frames("chains", 10), cuts=(HEADER, 30) if size > 5 else ())
    assert fe.stop() == {ring.index: ring.position() for ring in fe.rings}


@FORMATS
def test_nothing_moves_while_stopped(opened, packed):
    fe = opened(packed=packed)
    fe.check(frames("before"))
    bases = fe.stop()
    areas = [(at, n) for r in fe.rings for at, n in
             zip((r.desc, r.driver, r.device), r.area_sizes())]
    fe.send(bytes(60))
    fe.post()
    before = [fe.memory.read(*area) for area in areas]
    fe.conn.ask(get_features())      # the back-end had a turn
    time.sleep(0.05)
    assert [fe.memory.read(*area) for area in areas] == before
    assert fe.stop() == bases           # asking again changes nothing
    fe.start_rings()
    assert wait_until(fe.receive) == [bytes(60)]


@FORMATS
def test_stopped_in_mid_traffic(server, opened, packed):
    """Wherever it is stopped, it goes on there: nothing twice, nothing out of order, and what
    was taken but not delivered is counted."""
    fe = opened(packed=packed, size=256)
    dropped = server.counted("vdpa_vfn0", 1)
    sent, got = frames("flight", 800), []
    left = sent[::-1]
    for _ in range(8):
        for _ in range(100):
            fe.send(left.pop())
        fe.post()
        bases = fe.stop()
        got += fe.receive()
        fe.tx().used()
        assert bases == {ring.index: ring.position() for ring in fe.rings}
        fe.start_rings()
        assert fe.settle()
        got += fe.receive()
    assert not_in_order(sent, got) is None
    assert wait_until(lambda: dropped("packets") == {"packets": len(sent)})
    assert dropped("dropped").get("dropped_no_peer", 0) == len(sent) - len(got)


@FORMATS
def test_second_pair_stopped_alone(opened, packed):
    fe = opened(packed=packed, pairs=2)
    for pair in 0, 1:
        fe.check(frames(pair, 77), pair)
    late = fe.rings[2:]
    assert fe.stop(late) == {ring.index: ring.position() for ring in late}
    fe.check(frames("goes on"))
    fe.start_rings(late)
    for pair in 1, 0:
        fe.check(frames(f"again {pair}"), pair)
    assert fe.stop(fe.rings[::-1]) == {ring.index: ring.position() for ring in fe.rings}


@FORMATS
def test_memory_added_and_removed_while_running(server, opened, packed):
    fe = opened(packed=packed)
    fe.check(frames("before"))
    bad = dropped = server.counted("vdpa_vfn0", 1)
    added = Region(0x4_0000_0000, 1 << 20, offset=4096)
    try:
        fe.memory.regions.append(added)
        sent = frames("in flight", 32)
        for frame in sent:
            fe.send(frame)
        fe.post()
        fe.conn.tell(set_mem_table(fe.memory.regions))
        assert fe.settle()
        got = fe.receive()
        assert not_in_order(sent, got) is None
        assert wait_until(lambda: dropped("dropped").get("dropped_no_peer", 0) ==
                          len(sent) - len(got))

        # from a buffer in the new region; then the same buffer is unmapped
        fe.memory.write(added.gpa, bytes(HEADER) + b"\x5a" * 80)
        fe.tx().add([(added.gpa, HEADER + 80, 0)])
        fe.post()
        assert wait_until(fe.receive) == [b"\x5a" * 80]
        assert fe.settle()
        fe.memory.regions.remove(added)
        fe.conn.tell(set_mem_table(fe.memory.regions))
        fe.tx().add([(added.gpa, HEADER + 80, 0)])
        fe.post()
        assert fe.settle()
        assert wait_until(lambda: bad("errors")) == {"errors_addr": 1}
        fe.check(frames("after"))
    finally:
        added.close()


def test_memory_replaced_altogether(opened):
    """Other memory, other addresses, rings at the index where they stood."""
    fe = opened()
    fe.check(frames("old"))
    bases = fe.stop()
    old = fe.memory, fe.rings
    fe.memory = Memory([(0x8000_0000, 1 << 21), (0x2000_0000, 1 << 21)])
    fe.rings = [SplitRing(fe.memory, i, 64, start=bases[i], buffers=0) for i in bases]
    for ring in old[1]:
        ring.close()
    old[0].close()
    fe.fill()
    fe.conn.tell(set_mem_table(fe.memory.regions))
    fe.start_rings()
    fe.check(frames("new"))


def new_rings(fe, packed):
    """Fresh rings of the other format in the same memory."""
    for ring in fe.rings:
        ring.close()
    fe.rings = [(PackedRing if packed else SplitRing)(fe.memory, i, 64)
                for i in range(len(fe.rings))]
    fe.fill()


def test_features_changed_after_stop(server, opened):
    server.expect("^vdpa_vfn0: SET_FEATURES refused: other features while a ring is running$")
    fe = opened()
    fe.check(frames("split"))
    with pytest.raises(Refused):
        fe.conn.tell(set_features(fe.features | 1 << RING_PACKED))
    fe.check(frames("still split"))
    for packed in True, False, True:
        fe.stop()
        fe.features ^= 1 << RING_PACKED
        new_rings(fe, packed)
        fe.conn.tell(set_features(fe.features))
        fe.start_rings()
        fe.check(frames(f"packed {packed}"))


def test_features_that_were_not_offered_are_refused(server, opened):
    server.expect("^vdpa_vfn0: SET_FEATURES refused: features that were not offered$")
    fe = opened()
    fe.stop()
    with pytest.raises(Refused):
        fe.conn.tell(set_features(fe.features | 1 << 63))
    fe.conn.tell(set_features(fe.features))
    fe.start_rings()
    fe.check(frames("after"))


@FORMATS
def test_reset_owner_and_everything_anew(opened, packed):
    fe = opened(packed=False)
    fe.check(frames("before"))
    for _ in range(3):
        fe.conn.tell(reset_owner())
        fe.conn.reply_ack = False
        fe.negotiate(packed=packed)
        new_rings(fe, packed)
        fe.start()
        fe.check(frames("anew"))


@FORMATS
def test_disabled_queue_rests(opened, packed):
    fe = opened(packed=packed)
    for turn in range(3):
        fe.check(frames(turn))
        # the acknowledgement comes before the ring is stopped, that of the next message after it
        for _ in range(2):
            fe.conn.tell(set_vring_enable(0, False))
        fe.send(bytes(60))      # discarded, or kept: but never delivered to a disabled queue
        fe.post()
        time.sleep(0.02)
        assert fe.receive() == []
        fe.conn.tell(set_vring_enable(1, False))
        fe.conn.tell(set_vring_enable(0))
        fe.conn.tell(set_vring_enable(1))
        assert fe.settle()
        fe.receive()


# --- reconnects ----------------------------------------------------------------------------------


def test_thousand_reconnects_leave_nothing_behind():
    """Descriptors and memory are what they were, with traffic in every tenth connection."""
    with Server(eal=["--log-level=lib.vhost.config:error"]) as server:
        def connect(number):
            with open_frontend(server.sockets[number % 2], packed=number % 4 > 1) as fe:
                if number % 10 < 2:     # both devices, both formats
                    fe.check(frames(number, 5))

        def at_rest():
            for path in server.sockets:
                server.answers(path)
            wait_until(lambda: server.fds() == server.idle_fds)
            return server.fds(), server.memory()

        for number in range(100):
            connect(number)
        fds, (rss, size) = at_rest()
        for number in range(1000):
            connect(number)
        fds_after, (rss_after, size_after) = at_rest()
        assert (fds_after, fds) == (server.idle_fds, server.idle_fds)
        if SLOW == 1:   # the sanitizer keeps what is freed in quarantine
            assert rss_after - rss < 1024 and size_after - size < 1024, \
                f"VmRSS {rss} -> {rss_after} kB, VmSize {size} -> {size_after} kB"
        assert server.unexpected() == []


def hello(features=FEATURES, protocol=PROTOCOL & ~(1 << F_CONFIG)):
    return [get_features(), get_protocol_features(), set_protocol_features(protocol),
            get_queue_num(), set_owner()], features, protocol


@contextlib.contextmanager
def handshake(packed=False):
    """Every message from the first one on, with bits that are known to be offered."""
    with FrontEnd("") as fe:
        begin, features, fe.protocol = hello()
        fe.features = features | (1 << RING_PACKED if packed else 0)
        fe.setup()
        yield begin + fe.script()


@FORMATS
def test_handshake_cut_at_every_boundary(server, neighbour, packed):
    """Between messages, in headers, before and in payloads; descriptors attached or not."""
    rest = server.fds()
    with handshake(packed) as messages:
        for count in range(len(messages) + 1):
            raw = messages[count].raw() if count < len(messages) else b""
            for part in sorted({0, 5, 12, (12 + len(raw)) // 2}):
                if part >= len(raw) > 0:
                    continue
                conn = Connection(server.sockets[0])
                for message in messages[:count]:
                    conn.send(message)
                if part and raw:
                    conn.send_raw(raw[:part], messages[count].fds)
                conn.close()
                if not raw:
                    break
            works(server, packed=packed)
            assert wait_until(lambda: server.fds() == rest), (count, server.fds(), rest)
            neighbour.check(frames(count, 5))


def test_disconnect_instead_of_each_answer(server):
    """A back-end that writes to a socket which is gone must survive that."""
    with handshake() as messages:
        for count in range(1, len(messages) + 1):
            conn = Connection(server.sockets[0])
            for message in messages[:count - 1]:
                conn.send(message)
            conn.sock.shutdown(socket.SHUT_RD)
            conn.send(messages[count - 1], VERSION | NEED_REPLY)
            conn.close()
    works(server)


def test_next_front_end_overtakes_the_end_of_the_last(server):
    """The old connection has messages left to be read when the new one is ready."""
    server.expect("in use by another connection")
    with handshake() as messages:
        for _ in range(5):
            conn = Connection(server.sockets[0])
            for message in messages + [set_owner()] * 60:
                conn.send(message)
            conn.close()
            works(server)


@pytest.mark.parametrize("early", [0, 1, 2], ids=["none", "one_ring", "both_rings"])
def test_next_front_end_begins_before_the_last_ends(server, opened, early):
    """Rings made ready while another connection has the device run once that one is gone."""
    server.expect("in use by another connection")
    last = opened()
    last.check(frames("last"))
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        script = fe.script()
        ends = [0, *(at + 1 for at, m in enumerate(script)
                     if m.request == Request.SET_VRING_ENABLE), len(script)]
        for message in script[:ends[early]]:
            fe.conn.tell(message)
        last.check(frames("undisturbed"))
        last.disconnect()
        server.answers(server.sockets[0])
        for message in script[ends[early]:]:
            fe.conn.tell(message)
        fe.check(frames("next"))


def test_front_ends_that_wait_for_the_same_device(server, opened):
    """Ready, complete and silent: each gets it when the one before is gone, with its memory."""
    server.expect("in use by another connection")
    waiting = [opened() for _ in range(4)]
    waiting[0].check(frames("first"))
    waiting.pop(2).disconnect()                     # does not wait any longer
    grown = waiting[1]
    grown.memory.regions.append(Region(0x2_0000_0000, 1 << 21))
    grown.conn.tell(set_mem_table(grown.memory.regions))
    for last, fe in zip(waiting, waiting[1:]):
        last.disconnect()
        fe.check(frames("next"))
    last = waiting[-1]
    last.stop()
    last.start_rings()
    last.check(frames("again"))


def test_somebody_looks_at_a_socket_in_use(server, opened):
    """A second connection that says nothing, or little, does no harm to the first."""
    fe = opened()
    fe.check(frames("alone"))
    for messages in [], [get_features()], [get_features(), set_owner()]:
        conn = Connection(server.sockets[0])
        for message in messages:
            conn.tell(message)
        conn.close()
        server.answers(server.sockets[0])
        fe.check(frames("on", 20), timeout=3)


# --- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [256, 257, 4096, 65536, 0xffffffff])
def test_configuration_space_of_any_size(server, neighbour, size):
    """Neither offset nor size are checked by librte_vhost."""
    server.expect("^vdpa_vfn0: GET_CONFIG refused: more than the configuration has$")
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate()
        with contextlib.suppress(Closed):
            answer = fe.conn.ask(get_config(size))
            assert struct.unpack_from("=H", answer, 12 + 8)[0] == PAIRS
        neighbour.check(frames("neighbour"))
    works(server)


def test_surplus_descriptors_are_closed(server, neighbour):
    """Eight of them on every request there is, most of which take none."""
    server.expect(r"^vdpa_vfn0: \w+( of ring \d+)? refused: ",
                  "^vdpa_vfn0: an unknown request refused: ")
    fds = [os.eventfd(0) for _ in range(8)]
    try:
        for request in [*range(31), 33, 34, 35, 36, 39, 40, 41, 200]:
            conn = Connection(server.sockets[0])
            conn.send_raw(Message(request, bytes(40)).raw(), fds)
            server.answers(server.sockets[0])
            conn.close()
        neighbour.check(frames("neighbour"))
    finally:
        for fd in fds:
            os.close(fd)
    works(server)


def test_nonsense_is_hung_up_on(server, neighbour):
    server.expect("^vdpa_vfn0: .* refused: ")
    for raw in [b"\xff" * 12, struct.pack("=III", 1, 1, 1 << 20), struct.pack("=III", 0, 1, 0),
                set_vring_num(1 << 20, 64).raw(), get_vring_base(256).raw(),
                struct.pack("=IIIII", Request.SET_MEM_TABLE, 1, 8, 9, 0),
                struct.pack("=IIIII", Request.SET_MEM_TABLE, 1, 8, 2**32 - 1, 0)]:
        conn = Connection(server.sockets[0])
        conn.send_raw(raw)
        assert conn.hung_up(), raw
        conn.close()
    works(server)


def test_more_rings_than_the_device_has(server, neighbour):
    """Set up and enabled by a front-end that did not ask: said yes to, and left alone."""
    server.expect("^vdpa_vfn1: queue [23] is ignored, there are 1 queue pairs$")
    with FrontEnd(server.sockets[1]) as fe:
        neighbour.disconnect()
        fe.connect().negotiate(features=FEATURES).setup(pairs=PAIRS)
        fe.start()
        fe.check(frames("the one"))
        assert fe.stop()[2 * PAIRS - 1] == fe.rings[-1].position()
    neighbour.connect().negotiate()
    for ring in neighbour.rings:
        ring.used()
    neighbour.rings, old = [], neighbour.rings
    for ring in old:
        ring.close()
    neighbour.memory.close()
    neighbour.setup().start()


def test_mq_is_offered_where_there_are_several_pairs(server):
    for dev, offered in (0, True), (1, False):
        with FrontEnd(server.sockets[dev]) as fe:
            fe.connect().negotiate()
            assert bool(fe.offered & 1 << MQ) == offered
