# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end behind an IOMMU: every address is one that the back-end has to ask for."""

import contextlib
import struct

import pytest

# pytest finds fixtures by their names here
from back_channel import BackChannel, F_BACKEND_REQ, set_backend_req_fd
from dirty import Log, TrackedMemory, areas, begin
from frontend import FORMATS, bare, frames, server, shared  # noqa: F401
from harness import SLOW, wait_until
from net_device import FEATURES, HEADER, PROTOCOL, FrontEnd
from rings import USER_BASE, Memory
from test_frontend_control import (CONTROL, MAC_SET, MINE, MQ, OK, OTHER, PROMISC_OFF, Control)
from vhost_user import VERSION, Message, Refused, get_status, set_features, set_vring_addr

DEVS = [["vdpa_vfn0,idle=sleep,dma=iommu", "vdpa_vfn1"]]

ACCESS_PLATFORM = 33
IOTLB_MSG, BACK_IOTLB_MSG = 22, 1
MISS, UPDATE, INVALIDATE, ACCESS_FAIL = 1, 2, 3, 4
READ, WRITE, BOTH = 1, 2, 3
PAGE = 4096
SHIFT = 0x40_0000_0000      # of bus addresses against the guest's


def iotlb(kind, iova, size=0, uva=0, perm=0):
    return Message(IOTLB_MSG, struct.pack("=QQQBB6x", iova, size, uva, perm, kind))


class BusMemory(Memory):
    """Memory whose addresses are those on the bus."""

    def _find(self, gpa):
        return super()._find(gpa - SHIFT)

    def alloc(self, size, align=64, region=0):
        return super().alloc(size, align, region) + SHIFT

    def uva(self, gpa):
        return gpa      # of a ring the front-end tells the address on the bus


class TrackedBusMemory(BusMemory, TrackedMemory):
    """And one that knows, by the guest's addresses, which pages a device wrote."""


class BusFrontEnd(FrontEnd):
    """Answers what it is asked for a page at a time, unless `deaf` says otherwise: deaf(iova)."""

    def __init__(self, path, back=True):
        super().__init__(path)
        self.channel = BackChannel()
        self.back = back
        self.misses = []
        self.deaf = lambda iova: False

    def negotiate(self, *args, **how):
        super().negotiate(*args, protocol=PROTOCOL | 1 << F_BACKEND_REQ, **how)
        assert self.features >> ACCESS_PLATFORM & 1
        if self.back:
            self.conn.tell(set_backend_req_fd(self.channel.theirs.fileno()))
        return self

    def update(self, iova, size=PAGE, perm=BOTH, to=None):
        self.conn.tell(iotlb(UPDATE, iova, size, USER_BASE + (iova - SHIFT if to is None else to),
                             perm))

    def invalidate(self, iova=0, size=0):
        self.conn.tell(iotlb(INVALIDATE, iova, size))

    def questions(self):
        """What was asked since: [(iova, perm)]."""
        asked = []
        while self.channel.asked():
            request, flags, payload, fds = self.channel.receive()
            assert (request, flags, fds) == (BACK_IOTLB_MSG, VERSION, [])
            iova, _, _, perm, kind = struct.unpack_from("=QQQBB", payload)
            assert kind == MISS
            asked.append((iova, perm))
        self.misses += asked
        return asked

    def serve(self):
        for iova, _ in self.questions():
            if not self.deaf(iova):
                self.update(iova & -PAGE)

    def receive(self, pair=0):
        self.serve()
        return super().receive(pair)

    def close(self):
        super().close()
        self.channel.close()


class BusControl(BusFrontEnd, Control):
    """With a control queue of its own."""

    def answer(self):
        got = []
        assert wait_until(lambda: self.serve() or got.extend(self.queue.used()) or got)
        assert got[0][1] == 1
        return self.memory.read(self.answer_at, 1)[0]


@pytest.fixture
def bus(server):
    """bus(**how): a front-end that runs; its kicks, and questions, are as ever."""
    with contextlib.ExitStack() as stack:
        def opened(packed=False, size=64, back=True, features=FEATURES, memory=None):
            fe = stack.enter_context(BusFrontEnd(server.sockets[0], back))
            fe.connect().negotiate(features | 1 << ACCESS_PLATFORM, packed)
            return fe.setup(size=size, memory=memory or BusMemory()).start()
        yield opened


def pages(*ranges):
    return {at & -PAGE for start, size in ranges for at in range(start & -PAGE, start + size, PAGE)}


@FORMATS
@pytest.mark.parametrize("how", [{}, {"cuts": (1, HEADER, HEADER + 30)}, {"indirect": True}],
                         ids=["direct", "in-pieces", "indirect"])
def test_frames_come_back(server, bus, packed, how):
    """Each page is asked for once, with what it is for, and no frame is lost."""
    grown = server.counted("vdpa_vfn0", 1)
    fe = bus(packed)
    fe.check(frames("bus", 200), **how)
    assert {iova & -PAGE for iova, _ in fe.misses} <= pages(
        *((r.desc, n) for r in fe.rings for n in (1, 2 * PAGE)),
        *((r.buffers, r.size * 2048) for r in fe.rings),
        *((r.tables, r.size * 256) for r in fe.rings))
    assert {perm for iova, perm in fe.misses if iova in range(
        fe.rx().buffers, fe.rx().buffers + 64 * 2048)} == {WRITE}
    buffers = [iova & -PAGE for iova, _ in fe.misses if iova >= fe.tx().buffers]
    counted = grown("misses")
    assert len(set(buffers)) == len(buffers) or counted["misses_again"] > 0
    assert counted["misses"] > 0 and "misses_refused" not in counted


@FORMATS
def test_everything_is_invalidated_all_the_time(bus, packed):
    """Under traffic, the rings too: they stand still until they are mapped again."""
    fe = bus(packed)
    for number in range(20):
        sent = frames(f"gone{number}", 10)
        if number % 2:
            fe.invalidate()
        else:
            for ring in fe.rings:
                fe.invalidate(ring.buffers & -PAGE, PAGE * 33)
        fe.check(sent)


@FORMATS
def test_ring_stands_still(server, bus, packed):
    """Its page goes under traffic; what is sent meanwhile arrives once it is back."""
    fe = bus(packed)
    fe.check(frames("before", 20))
    page = fe.tx().desc & -PAGE
    fe.deaf = lambda iova: iova & -PAGE == page
    fe.invalidate(page, PAGE)
    sent = frames("meanwhile", 10)
    got = fe.echo(sent, timeout=0.5)
    assert not got
    assert page in {iova & -PAGE for iova, _ in fe.misses[-8:]}
    fe.deaf = lambda iova: False
    fe.update(page)
    assert wait_until(lambda: got.extend(fe.receive()) or len(got) == len(sent))
    assert got == sent
    assert server.queue("vdpa_vfn0", 1)["errors_addr"] == 0


def test_nobody_answers(server, bus):
    """Asked again with patience, then the chain is refused; the next one is not."""
    fe = bus()
    fe.check(frames("before", 5))
    grown = server.counted("vdpa_vfn0", 1)
    nowhere = 0x7f_0000_0000
    ring = fe.tx()
    ring.add([(nowhere, 100, 0)])
    fe.deaf = lambda iova: iova & -PAGE == nowhere
    fe.post()
    server.said("nobody translates 0x7f00000000: the chain is refused")
    assert 2 <= [iova for iova, _ in fe.questions()].count(nowhere) <= 10
    now = grown("misses")
    assert now["misses_refused"] == 1 and now["misses_again"] >= 2
    assert grown("errors")["errors_addr"] == 1
    fe.check(frames("after", 5))


def test_front_end_says_there_is_none(server, bus):
    fe = bus()
    nowhere = 0x7f_0000_0000
    fe.tx().add([(nowhere, 100, 0)])
    fe.deaf = lambda iova: iova & -PAGE == nowhere
    fe.post()
    assert wait_until(lambda: fe.serve() or any(iova == nowhere for iova, _ in fe.misses))
    grown = server.counted("vdpa_vfn0", 1)
    fe.conn.tell(iotlb(ACCESS_FAIL, nowhere, PAGE))
    assert wait_until(lambda: grown("errors").get("errors_perm") == 1)
    fe.check(frames("after", 5))


def test_wrong_answer(bus):
    """The queue goes on waiting for the right one."""
    fe = bus()
    fe.check(frames("before", 5))
    page = fe.tx().buffer() & -PAGE
    fe.invalidate(page, PAGE)
    fe.deaf = lambda iova: iova & -PAGE == page
    sent = frames("one", 1)
    got = fe.echo(sent, timeout=0.2)
    fe.update(page + PAGE)
    fe.update(page - PAGE)
    assert not got and not fe.echo([], timeout=0.2)
    fe.update(page)
    assert wait_until(lambda: got.extend(fe.receive()) or got)
    assert got == sent


def test_the_last_of_overlapping_ones_counts(bus):
    """Bytes come from where the newest translation leads; what it leaves is asked for again."""
    fe = bus()
    at = fe.tx().buffers & -PAGE
    fe.update(at, 16 * PAGE)
    fe.check(frames("before", 5))
    other = fe.memory.alloc(PAGE, PAGE, region=-1)
    place, frame = fe.tx().buffer(), frames("moved", 1)[0]
    offset = place % PAGE
    fe.update(place & -PAGE, PAGE, to=other - SHIFT)
    fe.conn.ask(get_status())   # the gate says yes before it is in force
    fe.send(bytes(len(frame)))
    fe.memory.write(other + offset, bytes(HEADER) + frame)
    fe.post()
    got = []
    assert wait_until(lambda: got.extend(fe.receive()) or got)
    assert got == [frame]
    fe.invalidate()
    fe.check(frames("after", 50))


@pytest.mark.parametrize("gate", [True, pytest.param(False, marks=bare)], ids=["gate", "bare"])
def test_outside_memory(server, bus, gate):
    fe = bus()
    server.expect("is refused", "refused")
    for message in (iotlb(UPDATE, 0, PAGE, USER_BASE, BOTH), iotlb(UPDATE, 0, 0, USER_BASE, BOTH),
                    iotlb(UPDATE, 1 << 63, 1 << 63 | PAGE, USER_BASE, BOTH), iotlb(9, 0, PAGE),
                    iotlb(UPDATE, 0, PAGE, USER_BASE + 0x1000_0000, 4), iotlb(MISS, 0, PAGE),
                    iotlb(UPDATE, 0, 1 << 22, USER_BASE + 0x1000_0000, BOTH)):
        with pytest.raises(Refused):
            fe.conn.tell(message)
    server.said("IOTLB" if gate else "not in the guest's memory")
    fe.check(frames("goes on", 20))


@pytest.mark.parametrize("gate", [True, pytest.param(False, marks=bare)], ids=["gate", "bare"])
def test_ring_before_memory(server, bus, gate):
    """librte_vhost does not outlive being asked for a table that it has not been told of."""
    server.expect("SET_VRING_ADDR" if gate else "queue 0: its addresses come before memory")
    with contextlib.closing(BusFrontEnd(server.sockets[0])) as fe:
        fe.connect().negotiate(FEATURES | 1 << ACCESS_PLATFORM)
        fe.conn.tell(set_features(fe.features))
        with pytest.raises((Refused, ConnectionError)):
            fe.conn.tell(set_vring_addr(0, USER_BASE, USER_BASE, USER_BASE))
    bus().check(frames("goes on", 20))


def test_without_back_channel(server, bus):
    """It cannot ask: the device does not start, and the log says why."""
    server.expect("takes no guest")
    with contextlib.suppress(Refused):
        bus(back=False)
    server.said("behind an IOMMU, and its front-end gave no back channel")


@bare
def test_back_channel_is_full(server, bus):
    """For a while nothing can be asked; then it is."""
    fe = bus()
    fe.check(frames("before", 5))
    fe.channel.fill()
    fe.invalidate()
    sent = frames("meanwhile", 5)
    for frame in sent:
        fe.send(frame)
    fe.post()
    assert wait_until(lambda: server.process and info(server)["iotlb_unsent"] > 0)
    fe.channel.ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while fe.channel.ours.recv(1 << 16):
            pass
    fe.channel.ours.setblocking(True)
    got = []
    assert wait_until(lambda: got.extend(fe.receive()) or len(got) == len(sent))
    assert got == sent


def info(server):
    return server.telemetry("/vfn/info,vdpa_vfn0")


def test_table_is_full(server, bus):
    """More translations than there is room for: some are asked for again."""
    fe = bus()
    server.expect("translations are not enough")
    for page in range(4200):
        fe.update(SHIFT + 0x10_0000_0000 + page * PAGE, to=0x1000_0000)
    server.said("4096 translations are not enough")
    fe.check(frames("after", 100))


def test_questions_are_bounded(bus):
    """A ring full of addresses that nobody knows: so many are asked for ahead, each once."""
    fe = bus(size=256)
    fe.check(frames("before", 5))
    fe.deaf = lambda iova: iova >= 0x7f_0000_0000
    ring = fe.tx()
    while ring.fits(1):
        ring.add([(0x7f_0000_0000 + len(ring.heads) * PAGE, 100, 0)])
    fe.post()
    fe.misses.clear()
    assert wait_until(lambda: fe.serve() or len(fe.misses) >= 32)
    fe.echo([], timeout=0.05 * SLOW)
    unknown = [iova for iova, _ in fe.misses if fe.deaf(iova)]
    assert len(set(unknown)) <= 33


@FORMATS
def test_dirty_log_is_of_the_guests_pages(bus, packed):
    """What was written is marked where the translations lead, also to buffers that were unmapped and
    mapped elsewhere while they were in the ring."""
    fe = bus(packed, memory=TrackedBusMemory())
    fe.check(frames("before", 20))
    log = Log.of(fe.memory)
    try:
        begin(fe, log)
        fe.check(frames("logged", 100))
        fe.invalidate()
        fe.check(frames("anew", 50))
        # a page of receive buffers is another one for the device from now on
        at, other = fe.rx().buffers, fe.memory.alloc(PAGE, PAGE, region=-1)
        lost = {(at - SHIFT) // PAGE}
        log.clear()
        fe.memory.begin()
        fe.update(at, PAGE, to=other - SHIFT)
        fe.deaf = lambda iova: iova & -PAGE == at
        fe.conn.ask(get_status())
        fe.echo(frames("elsewhere", 64))
        fe.stop()
        written, marked = fe.memory.written(), log.pages()
        assert (other - SHIFT) // PAGE in written and not written & lost
        assert written <= marked and not marked & lost
        ours = {page - SHIFT // PAGE for page in areas(fe)}
        assert not marked - written - ours and not log.outside()
    finally:
        log.close()


@FORMATS
def test_control_queue(server, packed):
    """Its ring and its commands are behind the IOMMU, too, and are invalidated between any two."""
    with BusControl(server.sockets[0]) as fe:
        fe.connect().negotiate((CONTROL & ~(1 << MQ)) | 1 << ACCESS_PLATFORM, packed)
        fe.setup(memory=BusMemory()).control(2).start()
        fe.check(frames("before", 5))
        assert fe.command(*PROMISC_OFF) == OK and fe.command(*MAC_SET) == OK
        assert fe.receives(MINE) and not fe.receives(OTHER)
        page = fe.queue.desc & -PAGE
        for number in range(6):
            if number % 2:
                fe.invalidate()
            else:
                fe.invalidate(fe.queue.buffers & -PAGE, PAGE * 33)
            target = bytes([2, 0, 0, 0, 0, number])
            assert fe.command(1, 1, target) == OK
            assert fe.receives(target) and not fe.receives(MINE)
        assert page in {iova & -PAGE for iova, _ in fe.misses}
        assert server.queue("vdpa_vfn0", 2)["misses"] > 0
