# SPDX-License-Identifier: BSD-3-Clause
"""Shadow rings (lm=shadow) and a scripted front-end: they come with LOG_ALL and go with it, and the
guest's rings do not notice."""

import contextlib
import mmap
import os

import pytest
from bare import BareServer
from frontend import PAIRS, Server, frames, server, works  # noqa: F401
from harness import IN_ORDER, MRG_RXBUF, NIGHTLY, RING_PACKED, difference, wait_until
from net_device import FEATURES, FrontEnd
from rings import BUFFER
from vhost_user import (EVENT_IDX, INDIRECT, LOG_ALL, set_features, set_log_base, set_mem_table,
                        set_vring_enable)

KINDS = pytest.mark.parametrize("features", [
    FEATURES, FEATURES | 1 << EVENT_IDX, FEATURES | 1 << IN_ORDER,
    FEATURES & ~(1 << MRG_RXBUF | 1 << INDIRECT), FEATURES | 1 << RING_PACKED,
    FEATURES | 1 << RING_PACKED | 1 << EVENT_IDX, FEATURES | 1 << RING_PACKED | 1 << IN_ORDER,
    FEATURES & ~(1 << MRG_RXBUF | 1 << INDIRECT) | 1 << RING_PACKED],
    ids=[f"{ring}{kind}" for ring in ("split", "packed")
         for kind in ("", "-event-index", "-in-order", "-plain")])
BOTH = pytest.mark.parametrize("features", [FEATURES, FEATURES | 1 << RING_PACKED],
                               ids=["split", "packed"])


@pytest.fixture(scope="module")
def shared():
    """The server of these tests; one that is replaced is made by the test that needs it."""
    servers = {True: Server((f"vdpa_vfn0,queues={PAIRS},lm=shadow", "vdpa_vfn1,lm=shadow"))}
    yield servers
    for one in servers.values():
        try:
            one.stop()
        finally:
            one.close()


class Guest(FrontEnd):
    """A front-end that migrates."""

    def __init__(self, path, features):
        super().__init__(path)
        self.connect().negotiate(features)
        self.log = self.log_fd = None

    def new_log(self):
        """SET_LOG_BASE."""
        self.drop_log()
        size = max((r.gpa + r.size - 1) // 4096 // 8 + 1 for r in self.memory.regions)
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.log_fd = os.memfd_create("log")
        os.ftruncate(self.log_fd, size)
        self.log = mmap.mmap(self.log_fd, size)
        self.conn.tell(set_log_base(size, 0, self.log_fd))
        return self

    def drop_log(self):
        if self.log is not None:
            self.log.close()
            os.close(self.log_fd)
            self.log = None

    def log_all(self, on=True):
        self.features = self.features & ~(1 << LOG_ALL) | on << LOG_ALL
        self.conn.tell(set_features(self.features))

    def logged(self, gpa):
        page = gpa // 4096
        return bool(self.log[page // 8] >> page % 8 & 1)

    def close(self):
        super().close()
        self.drop_log()


@pytest.fixture
def guest(server):  # noqa: F811
    """guest(features, dev=0): connected and negotiated, closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda features, dev=0: stack.enter_context(Guest(server.sockets[dev], features))


def shadowed(server, queue=1, dev=0):  # noqa: F811
    return bool(server.telemetry(f"/vfn/queue,vdpa_vfn{dev},{queue}")["shadowed"])


def pass_while(fe, server, seed, switch, count=60):  # noqa: F811
    """Frames are on their way, both in the ring and behind the function, when it switches."""
    sent = frames(seed, count)
    for frame in sent[:40]:
        fe.send(frame)
    fe.post()
    switch()
    got = []
    wait_until(lambda: got.extend(fe.receive()) or len(got) >= 40)
    assert fe.settle()
    got += fe.echo(sent[40:])
    assert difference(sent, got) is None, difference(sent, got)


@KINDS
def test_on_off_and_on_again(server, guest, features):  # noqa: F811
    fe = guest(features)
    fe.setup().start().new_log()
    fe.check(frames("direct", 100))
    assert not shadowed(server)
    for turn in range(100 if NIGHTLY else 5):
        pass_while(fe, server, f"on{turn}", lambda: fe.log_all(True))
        assert shadowed(server, 0) and shadowed(server, 1)
        fe.check(frames(f"shadowed{turn}"), cuts=(12, 40))
        pass_while(fe, server, f"off{turn}", lambda: fe.log_all(False))
        assert not shadowed(server, 0) and not shadowed(server, 1)
        fe.check(frames(f"direct{turn}"))
    assert server.telemetry("/vfn/lm,vdpa_vfn0")["refusals"] == 0


@KINDS
def test_position_is_exact_and_goes_on(server, guest, features):  # noqa: F811
    fe = guest(features)
    fe.setup(start=0x8000 + 60 if features >> RING_PACKED & 1 else 65500).start().new_log()
    for turn in range(6):
        fe.log_all(True)
        fe.check(frames(f"position{turn}", 77))
        for frame in frames(f"late{turn}", 20):
            fe.send(frame)
        fe.post()
        bases = fe.stop()
        got = fe.receive()
        fe.tx().used()
        # what was in the ring and was not sent is not lost, and not sent twice
        assert bases == {ring.index: ring.position() for ring in fe.rings}
        if turn % 2 == 0:
            fe.log_all(False)
        fe.start_rings()
        wait_until(lambda: got.extend(fe.receive()) or len(got) >= 20)
        assert difference(frames(f"late{turn}", 20), got) is None
        assert fe.settle()
        assert shadowed(server) == (turn % 2 == 1)


@BOTH
def test_starts_shadowed(server, guest, features):  # noqa: F811
    """The destination of a migration that goes on at once: LOG_ALL before the rings are there."""
    fe = guest(features)
    fe.setup(pairs=2)
    fe.log_all(True)
    fe.new_log().start()
    for pair in range(2):
        fe.check(frames(f"pair{pair}"), pair)
        assert shadowed(server, 2 * pair) and shadowed(server, 2 * pair + 1)


@BOTH
def test_what_is_written_is_logged(server, guest, features):  # noqa: F811
    fe = guest(features)
    fe.setup().start().new_log()
    fe.log_all(True)
    fe.log[:] = bytes(len(fe.log))
    buffers = fe.rx().buffers
    fe.send(bytes(100))
    fe.post()
    before = fe.memory.read(buffers, BUFFER * 64)
    assert wait_until(fe.rx().used)
    after = fe.memory.read(buffers, BUFFER * 64)
    for page in range(0, BUFFER * 64, 4096):
        if before[page:page + 4096] != after[page:page + 4096]:
            assert fe.logged(buffers + page)
    written = sum(fe.logged(buffers + page) for page in range(0, BUFFER * 64, 4096))
    assert written == 1
    for ring in fe.rings:
        assert fe.logged(ring.desc if fe.packed else ring.device)


@BOTH
def test_rings_stop_and_start_while_shadowed(server, guest, features):  # noqa: F811
    fe = guest(features)
    fe.setup(pairs=2).start().new_log()
    fe.log_all(True)
    for turn in range(4):
        fe.replace_fds(fe.rings[turn], kick=turn % 2 == 0, call=turn % 2 == 1)
        fe.check(frames(f"fds{turn}"), pair=turn // 2)
    fe.conn.tell(set_vring_enable(2, False))
    fe.conn.tell(set_vring_enable(3, False))
    fe.check(frames("one pair"))
    fe.log_all(False)
    fe.log_all(True)
    fe.check(frames("still one"))
    fe.conn.tell(set_vring_enable(2, True))
    fe.conn.tell(set_vring_enable(3, True))
    for pair in range(2):
        fe.check(frames(f"two pairs{pair}"), pair)
    # the same memory, told again: the device is closed and started
    fe.conn.tell(set_mem_table(fe.memory.regions))
    fe.check(frames("memory"))
    assert wait_until(lambda: shadowed(server, 3))


@BOTH
def test_front_end_that_dies_shadowed(server, guest, features):  # noqa: F811
    fe = guest(features)
    fe.setup().start().new_log()
    fe.log_all(True)
    for frame in frames("dies"):
        if fe.tx().fits(1):
            fe.send(frame)
    fe.post()
    fe.close()
    works(server, packed=bool(features >> RING_PACKED & 1))
    assert not shadowed(server)


@BOTH
def test_log_too_short_or_missing(features):
    """Refused by the driver, traffic goes on as before; all is dirty when there is a right one at
    last."""
    with BareServer(("vdpa_vfn0,lm=shadow",)) as server, \
            Guest(server.sockets[0], features) as fe:
        fe.setup().start()
        fe.log_all(True)
        server.said("^vdpa_vfn0: dirty log: the front-end wants it before it has given one")
        fe.check(frames("none"))
        assert not shadowed(server)
        fe.log_all(False)
        fd = os.memfd_create("short")
        os.ftruncate(fd, 4096)
        fe.conn.tell(set_log_base(4096, 0, fd))
        os.close(fd)
        fe.log_all(True)
        server.said("^vdpa_vfn0: dirty log: it is too short")
        fe.check(frames("short"))
        assert not shadowed(server)
        fe.new_log()
        server.said("^vdpa_vfn0: dirty log: it came late, the whole memory is dirty")
        assert shadowed(server)
        bases = fe.stop()
        assert all(fe.logged(gpa) for r in fe.memory.regions
                   for gpa in range(r.gpa, r.gpa + r.size, 4096))
        assert bases == {ring.index: ring.position() for ring in fe.rings}
        fe.start_rings()
        assert shadowed(server)
        fe.check(frames("right"))
