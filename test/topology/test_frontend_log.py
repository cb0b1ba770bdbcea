# SPDX-License-Identifier: BSD-3-Clause
"""The dirty log, by a scripted front-end: every page that the device wrote is marked, no other
is, and nothing is written where the log is not.
"""

import contextlib
import os

import pytest

# pytest finds fixtures by their names here
from dirty import (PAGE, Copy, Log, TrackedMemory, areas, assert_exact, begin, log_all, missing,
                   pages_of)
from frontend import FORMATS, Server, bare, frames, neighbour, opened, server, shared, works  # noqa: F401
from harness import IN_ORDER, MRG_RXBUF, NIGHTLY, difference, random_packets, wait_until
from net_device import FEATURES, HEADER, PROTOCOL, FrontEnd, open_frontend
from rings import Region, WRITE
from vhost_user import (EVENT_IDX, F_LOG_SHMFD, LOG_ALL, LOG_RING, Closed, Request,
                        send_rarp, set_features, set_mem_table, set_vring_addr)

LATE = r"^vdpa_vfn0: dirty log: it came late, the whole memory is dirty$"
EARLY = r"^vdpa_vfn0: dirty log: the front-end wants it before it has given one$"
TOO_SHORT = r"^vdpa_vfn0: dirty log: the function refuses it, it is too short$"
REFUSED = r"^vdpa_vfn0: dirty log of \d+ bytes at 0x[0-9a-f]+ of its file is refused: "
NOT_COVERED = r"^vdpa_vfn0: dirty log refused: \d+ bytes do not cover the guest's memory"

REGIONS = (0x1000_0000, 1 << 21), (0x1_0000_0000, 1 << 23)


def tracked(regions=REGIONS):
    return TrackedMemory(regions)


@contextlib.contextmanager
def logs(*made):
    """Logs that are closed after the block."""
    try:
        yield made[0] if len(made) == 1 else made
    finally:
        for log in made:
            log.close()


@pytest.fixture
def migrating(opened):
    """migrating(**how): a front-end that runs, with memory that knows who wrote what."""
    def start(dev=0, **how):
        return opened(dev, memory=how.pop("memory", None) or tracked(),
                      features=how.pop("features", FEATURES), **how)
    return start


def all_memory(fe):
    return set(fe.memory.pages())


# --- what is marked ------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("features", [
    FEATURES, FEATURES | 1 << EVENT_IDX, FEATURES | 1 << IN_ORDER, FEATURES & ~(1 << MRG_RXBUF)],
    ids=["plain", "event-index", "in-order", "not-mergeable"])
@pytest.mark.parametrize("pairs,size", [(1, 64), (2, 1024)])
def test_what_was_written_is_marked(migrating, packed, features, pairs, size):
    """Rings of 1024 cover several pages, their event area one of its own."""
    fe = migrating(packed=packed, features=features, pairs=pairs, size=size,
                   memory=tracked((REGIONS[0], (REGIONS[1][0], 1 << 25))))
    for pair in range(pairs):
        fe.check(frames("before", 20), pair)
    with logs(Log.of(fe.memory)) as log:
        begin(fe, log)
        for pair in range(pairs):
            fe.check(frames(f"logged{pair}", 20 if size == 64 else 700), pair)
        fe.stop()
        assert_exact(fe, log)
        for ring in fe.rings:       # each of them was written
            area = (ring.desc, ring.area_sizes()[0]) if packed else (ring.device,
                                                                     ring.area_sizes()[2])
            assert log.pages() & pages_of(*area)


@FORMATS
def test_event_area_is_marked(migrating, packed):
    """What the device writes there when it goes to sleep, on a page of its own."""
    fe = migrating(packed=packed, features=FEATURES | 1 << EVENT_IDX, size=1024,
                   memory=tracked((REGIONS[0], (REGIONS[1][0], 1 << 25))))
    events = {(ring.device if packed else ring.device + 4 + 8 * ring.size) // PAGE
              for ring in fe.rings}
    fe.check(frames("before", 20))
    with logs(Log.of(fe.memory)) as log:
        begin(fe, log)
        assert wait_until(lambda: fe.echo(frames("few", 3)) and fe.memory.written() & events)
        fe.stop()
        assert_exact(fe, log)


@FORMATS
def test_only_bytes_written_are_marked(migrating, packed):
    """A frame in the first of many pages, headers apart, segments over page borders."""
    fe = migrating(packed=packed)
    rx, memory = fe.rx(), fe.memory
    fe.check(frames("one lap", rx.size))
    sent = random_packets("precise", 4, 1000, 1400)
    fe.echo(frames("use them up", rx.size))
    with logs(Log.of(memory)) as log:
        # what is posted is used first: look on after that
        big = [memory.alloc(16 * PAGE, region=-1) for _ in range(4)]
        fill, fe.fill = fe.fill, lambda pair=0: None
        fe.echo(frames("until none is left", rx.size))
        assert rx.room == rx.size
        rx.add([(big[0], 16 * PAGE, WRITE)])
        rx.add([(big[1] + PAGE - 600, 600, WRITE), (big[1] + 9 * PAGE, 7 * PAGE, WRITE)])
        rx.add([(big[2] + 2 * PAGE - HEADER, HEADER, WRITE), (big[2] + 5 * PAGE, PAGE, WRITE),
                (big[2] + 7 * PAGE, PAGE, WRITE)])
        rx.add([(big[3] + 3 * PAGE - HEADER - 40, 8 * PAGE, WRITE)])
        begin(fe, log)
        rx.publish()
        rx.kick()
        for frame in sent:
            fe.send(frame)
        fe.post()
        done = []
        assert wait_until(lambda: done.extend(rx.used()) or len(done) == 4)
        fe.fill = fill
        fe.settle()
        fe.stop()
        assert_exact(fe, log)
        at = [n // PAGE for n in big]
        buffers = {n for n in log.pages() if n >= at[0]}
        assert buffers == {at[0], at[1], at[1] + 9, at[2] + 1, at[2] + 5, at[3] + 2, at[3] + 3}


@FORMATS
def test_copied_while_it_runs(server, migrating, packed):
    """Marked pages are copied again and again under traffic: after the last round both memories
    are the same, byte by byte."""
    fe = migrating(packed=packed, pairs=2, features=FEATURES | 1 << EVENT_IDX, size=256)
    with logs(Log.of(fe.memory)) as log:
        copy, copied = Copy(fe, log), 0
        for turn in range(200 if NIGHTLY else 25):
            for pair in 0, 1:
                for frame in frames(f"{turn} {pair}", 60):
                    fe.tx(pair).used()
                    if fe.tx(pair).fits(1):
                        fe.send(frame, pair)
                fe.post(pair)
            copied += copy.round()      # while the device works on them
            for pair in 0, 1:
                fe.receive(pair)
        assert copied > 100
        fe.stop()
        copy.round()
        assert not copy.different()
    assert server.queue("vdpa_vfn0", 2)["packets"] > 100


@FORMATS
def test_nothing_is_marked_when_nothing_happens(migrating, packed):
    fe = migrating(packed=packed)
    fe.check(frames("before"))
    with logs(Log.of(fe.memory)) as log:
        begin(fe, log)
        fe.stop()
        assert log.pages() | fe.memory.written() <= areas(fe)   # flags, written as they were
        assert not log.outside()


# --- when --------------------------------------------------------------------------------------


@FORMATS
def test_on_off_and_on_again(migrating, packed):
    """A migration that is cancelled, and tried again with another log."""
    fe = migrating(packed=packed)
    with logs(Log.of(fe.memory), Log.of(fe.memory)) as (first, second):
        for turn, log in enumerate([first, first, second, first]):
            log.clear()
            begin(fe, log)
            fe.check(frames(f"on {turn}", 30))
            log_all(fe, False)
            assert_exact(fe, log)
            for other in first, second:
                other.clear()
            fe.check(frames(f"off {turn}", 30))
            assert first.pages() == second.pages() == set()
        begin(fe, second)
        fe.check(frames("last", 30))
        fe.stop()
        assert_exact(fe, second)
        assert first.pages() == set()


@bare
@FORMATS
def test_before_the_rings_start(server, packed):
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup(memory=tracked())
        with logs(Log.of(fe.memory)) as log:
            fe.features |= 1 << LOG_ALL
            fe.conn.tell(set_features(fe.features))
            fe.conn.tell(log.message())
            fe.memory.begin()
            fe.start()
            fe.check(frames("logged"))
            fe.stop()
            assert_exact(fe, log)
            # and on with the same log
            log.clear()
            fe.memory.begin()
            fe.start_rings()
            fe.check(frames("again"))
            fe.stop()
            assert_exact(fe, log)


@bare
@FORMATS
def test_log_before_the_features(server, neighbour, packed):
    """The driver sees a connection from its first message on: it is a log like any other."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect()
        with logs(Log(1 << 20)) as log:
            fe.conn.send(log.message())
            with contextlib.suppress(Closed):
                fe.conn.receive()
                fe.negotiate(packed=packed).setup(memory=tracked())
                fe.features |= 1 << LOG_ALL
                fe.start()
                fe.check(frames("on"))
                neighbour.check(frames("neighbour"))
                fe.stop()
            assert log.pages() and not log.outside()
    works(server)


@FORMATS
def test_log_that_comes_after_it_is_wanted(server, migrating, packed):
    """What was written in between nobody knows: all of it is dirty, once there is a log."""
    fe = migrating(packed=packed)
    with logs(Log.of(fe.memory)) as log:
        log_all(fe)
        server.said(EARLY)
        fe.check(frames("lost"))
        fe.conn.tell(log.message())
        server.said(LATE)
        assert all_memory(fe) <= log.pages()
        log.clear()
        begin(fe, log)
        fe.check(frames("logged"))
        fe.stop()
        assert_exact(fe, log)
        assert not log.outside()


def test_no_log_at_all(server, migrating):
    fe = migrating()
    log_all(fe)
    server.said(EARLY)
    fe.check(frames("on"))
    fe.stop()
    fe.start_rings()
    fe.check(frames("on"))


def test_log_is_answered(server):
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(protocol=PROTOCOL)
        assert fe.protocol >> F_LOG_SHMFD & 1 and fe.offered >> LOG_ALL & 1
        fe.setup(memory=tracked()).start()
        with logs(Log.of(fe.memory)) as log:
            assert fe.conn.tell(log.message()) == b""
            begin(fe, log)
            fe.check(frames("logged"))
            fe.stop()
            assert_exact(fe, log)


@FORMATS
def test_front_end_gone_while_it_logs(server, packed):
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup(memory=tracked()).start()
        with logs(Log.of(fe.memory)) as log:
            begin(fe, log)
            for frame in frames("in flight", 30):
                fe.send(frame)
            fe.post()
            fe.disconnect()
            works(server, packed=packed)
            log.clear()
            works(server, packed=packed)
            assert log.pages() == set()


@bare
# --- logs that don't fit -------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("short", [1, 4096, -1], ids=["one-byte", "one-page", "almost-all"])
def test_log_too_short(server, neighbour, migrating, packed, short):
    """Refused, said once, nothing written; traffic goes on, and with the right log it is logged."""
    fe = migrating(packed=packed)
    whole = Log.of(fe.memory)
    with logs(whole, Log.of(fe.memory, short if short > 0 else whole.size - 1)) as (right, log):
        fe.conn.tell(log.message())
        log_all(fe)
        assert len(server.said(TOO_SHORT)) == 1
        assert len(server.said(NOT_COVERED)) == 1
        fe.check(frames("refused"))
        neighbour.check(frames("neighbour"))
        assert not log.pages() and not log.outside()
        log_all(fe, False)
        begin(fe, right)
        fe.check(frames("logged"))
        fe.stop()
        assert_exact(fe, right)
        assert not log.pages() and not log.outside()


@bare
def test_log_too_short_at_stop(server, migrating):
    """It never becomes long enough: nothing is written to it at stop either."""
    fe = migrating()
    with logs(Log.of(fe.memory, 1)) as log:
        begin(fe, log)
        server.expect(TOO_SHORT, NOT_COVERED, LATE)
        fe.check(frames("refused"))
        fe.stop()
        assert not log.outside()


@bare
@pytest.mark.parametrize("size", [0, 2**64 - 1, 2**64 - 4096, 1 << 63])
def test_log_of_an_impossible_size(server, neighbour, size):
    server.expect(REFUSED)
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup(memory=tracked()).start()
        with logs(Log.of(fe.memory)) as log:
            log.size = size
            with pytest.raises(Closed):
                fe.conn.tell(log.message())
        neighbour.check(frames("neighbour"))
    works(server)


@bare
@pytest.mark.parametrize("file", [0, 1, PAGE])
def test_log_file_shorter_than_the_log(server, neighbour, opened, file):
    """Touching what is behind the end of a file is a SIGBUS for the whole process."""
    fe = opened(memory=tracked())
    with logs(Log(Log.of(fe.memory).size, file=file)) as cut:
        with pytest.raises(Closed):
            fe.conn.tell(cut.message())
        server.said(REFUSED + "its file is shorter than it says$")
        neighbour.check(frames("neighbour"))
    fe.disconnect()
    works(server)


@pytest.mark.parametrize("offset", [PAGE, 3 * PAGE])
def test_log_somewhere_in_its_file(server, migrating, offset):
    fe = migrating()
    with logs(Log.of(fe.memory, offset=offset)) as log:
        begin(fe, log)
        fe.check(frames("logged"))
        fe.stop()
        assert_exact(fe, log)
        assert not log.outside()


@bare
def test_log_at_no_page_of_its_file(server, neighbour, opened):
    fe = opened(memory=tracked())
    with logs(Log.of(fe.memory, offset=8)) as log:
        with pytest.raises(Closed):
            fe.conn.tell(log.message())
        assert not log.pages()
        server.said(REFUSED)
        neighbour.check(frames("neighbour"))
    fe.disconnect()
    works(server)


@FORMATS
def test_page_at_the_top_of_memory(migrating, packed):
    """The last bit of the last byte; memory ends where no byte of the log does."""
    top = 0x1_0000_0000 + (1 << 23) + 5 * PAGE
    fe = migrating(packed=packed,
                   memory=tracked((REGIONS[0], (REGIONS[1][0], top - REGIONS[1][0]))))
    fe.check(frames("before", 200))
    rx, last = fe.rx(), top // PAGE - 1
    fe.fill, fill = lambda pair=0: None, fe.fill
    fe.echo(frames("until none is left", rx.size))
    rx.add([(top - 100, 100, WRITE)])
    with logs(Log.of(fe.memory)) as log:
        assert log.size == last // 8 + 1
        begin(fe, log)
        rx.publish()
        rx.kick()
        fe.send(bytes(88))
        fe.post()
        assert wait_until(rx.used)
        fe.fill = fill
        fe.settle()
        fe.stop()
        assert_exact(fe, log)
        assert last in log.pages()


def test_memory_far_up(migrating):
    """One page at 1 TiB: the log has 32 MiB, of which hardly anything exists."""
    fe = migrating(memory=tracked((REGIONS[0], (1 << 40, PAGE), REGIONS[1])))
    with logs(Log.of(fe.memory)) as log:
        assert log.size > 1 << 25
        begin(fe, log)
        fe.check(frames("logged"))
        fe.stop()
        assert os.fstat(log.fd).st_blocks * 512 < 1 << 20
        assert_exact(fe, log)


# --- logs and memory that change -----------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("times", [1, 2, 3])
def test_log_replaced_while_it_runs(server, migrating, packed, times):
    """What was marked in an old log is read there once the new one is acknowledged, and nothing is
    marked there after that."""
    fe = migrating(packed=packed)
    made = [Log.of(fe.memory) for _ in range(times + 1)]
    with logs(*made):
        begin(fe, made[0])
        fe.check(frames("first", 30))
        for turn, log in enumerate(made[1:]):
            fe.conn.tell(log.message())
            assert_exact(fe, made[turn])    # read, as QEMU does when it replaces a log
            made[turn].clear()
            fe.memory.begin()
            fe.check(frames(f"turn {turn}", 30))
        fe.stop()
        assert_exact(fe, made[-1])
        assert not any(log.pages() for log in made[:-1])
        assert not any(log.outside() for log in made)


@FORMATS
def test_log_replaced_by_one_that_is_longer(migrating, packed):
    fe = migrating(packed=packed)
    log = Log.of(fe.memory)
    with logs(log, Log(log.size + 3 * PAGE)) as (old, new):
        begin(fe, old)
        fe.check(frames("first", 30))
        fe.conn.tell(new.message())
        old.clear()
        fe.memory.begin()
        fe.check(frames("second", 30))
        fe.stop()
        assert_exact(fe, new)
        assert not old.outside()


@bare
@FORMATS
def test_log_replaced_by_one_that_is_too_short(server, migrating, packed):
    fe = migrating(packed=packed)
    with logs(Log.of(fe.memory), Log.of(fe.memory, short=2)) as (old, new):
        begin(fe, old)
        fe.check(frames("first", 30))
        fe.conn.tell(new.message())
        fe.check(frames("second", 30))
        server.expect(TOO_SHORT, NOT_COVERED, LATE)     # when it starts again
        fe.stop()
        assert not new.outside() and not old.outside()
    fe.start_rings()
    fe.check(frames("on"))


@FORMATS
def test_memory_added_while_it_logs(migrating, packed):
    """SET_MEM_TABLE stops and starts the device: it goes on logging, in the new memory too."""
    fe = migrating(packed=packed)
    top = 0x4_0000_0000 + (1 << 20)
    with logs(Log(top // PAGE // 8)) as log:
        begin(fe, log)
        fe.check(frames("before", 30))
        added = Region(0x4_0000_0000, 1 << 20, offset=PAGE)
        fe.memory.regions.append(added)
        fe.memory.own[added] = bytearray(added.map)
        fe.conn.tell(set_mem_table(fe.memory.regions))
        fe.check(frames("after", 30))
        log_all(fe)                      # no change, and no harm
        rx, at = fe.rx(), added.gpa + 7 * PAGE
        fe.fill, fill = lambda pair=0: None, fe.fill
        fe.echo(frames("until none is left", rx.size))
        rx.add([(at, 2 * PAGE, WRITE)])
        rx.publish()
        fe.send(bytes(1000))
        fe.post()
        assert wait_until(rx.used)
        fe.fill = fill
        fe.settle()
        fe.stop()
        assert_exact(fe, log)
        assert at // PAGE in log.pages()


@bare
def test_memory_added_that_the_log_does_not_cover(server, migrating):
    """Said, and everything that it does cover is dirty in the end."""
    fe = migrating()
    with logs(Log.of(fe.memory)) as log:
        begin(fe, log)
        fe.check(frames("before", 30))
        fe.memory.regions.append(Region(0x4_0000_0000, 1 << 20))
        server.expect(TOO_SHORT, NOT_COVERED, LATE)
        fe.conn.tell(set_mem_table(fe.memory.regions))
        server.said(TOO_SHORT)
        fe.check(frames("after", 30))
        fe.stop()
        assert not log.outside()
        covered = {n for n in all_memory(fe) if n // 8 < log.size}
        assert covered <= log.pages()


@FORMATS
def test_second_pair_that_starts_while_it_logs(migrating, packed):
    fe = migrating(packed=packed, pairs=2)
    fe.stop(fe.rings[2:])
    fe.check(frames("first", 20))
    with logs(Log.of(fe.memory)) as log:
        begin(fe, log)
        fe.start_rings(fe.rings[2:])
        for pair in 0, 1:
            fe.check(frames(f"pair {pair}", 30), pair)
        fe.stop()
        assert_exact(fe, log)


def log_elsewhere(fe, base):
    """Tell the addresses again, with others for what is logged of the device areas."""
    for number, ring in enumerate(fe.rings):
        uva = fe.memory.uva
        fe.conn.tell(set_vring_addr(ring.index, uva(ring.desc), uva(ring.driver),
                                    uva(ring.device), LOG_RING,
                                    base + 4 * number * PAGE))


@pytest.mark.parametrize("when", ["before", "after", "replaced"])
def test_used_ring_is_logged_elsewhere(server, when):
    """Its log address may be where there is no memory; with QEMU it comes after LOG_ALL."""
    elsewhere = 0x40_0000
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup(memory=tracked())
        for message in fe.script():
            if when != "after" and message.request == Request.SET_VRING_ENABLE:
                log_elsewhere(fe, elsewhere)
            fe.conn.tell(message)
        with logs(Log.of(fe.memory), Log.of(fe.memory)) as (log, old):
            fe.check(frames("before", 20))
            begin(fe, old if when == "replaced" else log)
            if when == "replaced":
                fe.conn.tell(log.message())
            if when == "after":
                log_elsewhere(fe, elsewhere)
            fe.check(frames("logged", 30))
            fe.stop()
            used = areas(fe)
            pages = {(elsewhere + 4 * number * PAGE) // PAGE for number in range(len(fe.rings))}
            assert pages <= log.pages()
            assert missing(fe, log) <= used
            assert log.pages() - pages <= fe.memory.written()


@bare
def test_used_ring_logged_behind_the_log(server):
    """An address that the log does not reach: refused, and in the end everything is dirty."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup(memory=tracked())
        for message in fe.script():
            if message.request == Request.SET_VRING_ENABLE:
                log_elsewhere(fe, 1 << 40)
            fe.conn.tell(message)
        with logs(Log.of(fe.memory)) as log:
            begin(fe, log)
            assert len(server.said(TOO_SHORT)) == len(server.said(NOT_COVERED)) == 1
            fe.check(frames("refused"))
            server.expect(LATE)
            fe.stop()
            assert all_memory(fe) <= log.pages()
            assert not log.outside()


def test_rarp_is_taken():
    """The front-end announces a guest that does not do so itself; here nobody needs to know."""
    with Server(eal=["--log-level=pmd.vdpa.vfn.driver:debug"]) as server:
        with open_frontend(server.sockets[0]) as fe:
            fe.conn.tell(send_rarp(b"\x02vfn\x00\x01"))
            server.said("^vdpa_vfn0: the guest has migrated here, announced by the front-end$")
            fe.check(frames("after"))


# --- negative controls ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty():
    with Server(["vdpa_vfn0,fault=no-log", "vdpa_vfn1,fault=no-used-log"]) as server:
        yield server


@FORMATS
@pytest.mark.parametrize("fault", [0, 1], ids=["no-log", "no-used-log"])
def test_a_log_that_is_not_written_is_noticed(faulty, packed, fault):
    """Both ways to look: pages that are not marked, and a copy that is not the same."""
    with FrontEnd(faulty.sockets[fault]) as fe:
        fe.connect().negotiate(packed=packed).setup(memory=tracked()).start()
        with logs(Log.of(fe.memory), Log.of(fe.memory)) as (log, other):
            begin(fe, log)
            fe.check(frames("logged"))
            log_all(fe, False)
            lost = missing(fe, log)
            assert lost & areas(fe)
            assert bool(lost - areas(fe)) == (fault == 0)
            with pytest.raises(AssertionError, match="not marked"):
                assert_exact(fe, log)
            copy = Copy(fe, other)
            fe.memory.touched = set()
            sent = frames("copied", 20)
            assert difference(sent, fe.echo(sent)) is None
            fe.stop()
            copy.memory.touched -= areas(fe)    # of a packed ring the driver wrote the same pages
            copy.round()
            assert copy.different()
