# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end that takes its memory away: files cut off after they were mapped, tables
that are refused. Neither ends the process or harms another port, and the next front-end works.
"""

import contextlib
import os
import struct
import time

import pytest

# pytest finds fixtures by their names here
from frontend import FORMATS, bare, frames, neighbour, opened, server, shared, works  # noqa: F401
from harness import NIGHTLY, SLOW, wait_until
from net_device import FrontEnd
from rings import BUFFER, TABLE, WRITE, Region, Memory
from vhost_user import (DRIVER_OK, Message, Request, get_status, set_features, set_mem_table,
                        set_status, set_vring_kick, Refused)

CUT_OFF = r"^vdpa_vfn0: a file of the guest's memory was cut off while in use: every queue is "
MUST_CONNECT = r"^vdpa_vfn0: a file of the guest's memory was cut off: it must connect again$"
NO_TABLE = r"^vdpa_vfn0: librte_vhost has no memory table: "
# of rings that are all zeroes of a sudden
BROKEN = r"^vdpa_vfn0: queue \d is broken and stopped: "
LOG_ALL = 26


def gone(server):
    """The log says once that the device waits for a reset."""
    server.expect(BROKEN)
    lines = server.said(CUT_OFF)
    assert len(lines) == 1, lines


class HugeRegion(Region):
    """The same in a file of huge pages."""

    def __init__(self, gpa, size):
        self.gpa, self.size, self.offset, self.end = gpa, size, 0, 0
        self.uva = 0x7000_0000_0000 + gpa
        self.fd = os.memfd_create("huge", os.MFD_HUGETLB)
        os.ftruncate(self.fd, size)


# --- buffers and rings that are gone -------------------------------------------------------------

def tx_buffer(fe, gap):
    fe.tx().add([(gap.gpa + (1 << 19), 100, 0)])
    fe.post()


def rx_buffer(fe, gap):
    """Behind those that are posted; all of them are used up."""
    for _ in range(fe.rx().size):
        fe.send(bytes(60))
    fe.post()
    assert fe.settle()
    fe.rx().used()
    fe.rx().add([(gap.gpa + (1 << 19), BUFFER, WRITE)])
    fe.rx().publish()
    fe.send(bytes(60))
    fe.post()


def table(fe, gap):
    fe.tx().add([(gap.gpa, 32, TABLE)])
    fe.post()


@FORMATS
@pytest.mark.parametrize("touch", [tx_buffer, rx_buffer, table])
@pytest.mark.parametrize("kind", [Region, HugeRegion], ids=["pages", "huge-pages"])
def test_buffer_is_cut_off(server, neighbour, opened, packed, touch, kind):
    fe = opened(packed=packed)
    gap = kind(0x5_0000_0000, 1 << 21)
    fe.memory.regions.append(gap)
    try:
        fe.conn.tell(set_mem_table(fe.memory.regions))
        fe.check(frames("whole"))
        os.ftruncate(gap.fd, 0)
        touch(fe, gap)
        gone(server)
        fe.tx().used()
        fe.send(bytes(60))
        fe.post()
        neighbour.check(frames("neighbour"))
        assert fe.tx().used() == []     # nothing moves any more
        fe.stop()
    finally:
        fe.memory.regions.remove(gap)
        if kind is Region:
            gap.close()
        else:
            os.close(gap.fd)
    fe.disconnect()
    works(server, packed=packed)


def in_a_file_of_its_own(path, packed):
    """A front-end whose rings have a region that holds nothing else."""
    fe = FrontEnd(path).connect().negotiate(packed=packed)
    fe.setup(memory=Memory([(0x1000_0000, 1 << 16), (0x1_0000_0000, 1 << 23)]))
    return fe


@FORMATS
def test_rings_are_cut_off(server, neighbour, packed):
    with in_a_file_of_its_own(server.sockets[0], packed) as fe:
        fe.start()
        fe.check(frames("whole"))
        os.ftruncate(fe.memory.regions[0].fd, 0)
        fe.tx().kick()      # a poller that is asleep
        gone(server)
        neighbour.check(frames("neighbour"))
        fe.conn.send(Message(Request.GET_VRING_BASE, struct.pack("=II", 0, 0), replies=True))
        assert fe.conn.receive()[0] == Request.GET_VRING_BASE
        abandon(fe)
    works(server, packed=packed)


def abandon(fe):
    """Close without a look at memory that is gone for us too."""
    fe.disconnect()


@bare
@FORMATS
@pytest.mark.parametrize("when", ["before-the-table", "before-the-addresses", "before-the-kick",
                                  "before-the-last"])
def test_rings_are_cut_off_in_the_handshake(server, neighbour, packed, when):
    """librte_vhost reads the used index when it is told of a ring, the function when it starts."""
    server.expect(CUT_OFF, MUST_CONNECT, BROKEN, r"^vdpa_vfn0: memory region 0 .*file is shorter$",
                  r"^vdpa_vfn0: queue \d (was )?refused")
    first = {"before-the-table": Request.SET_MEM_TABLE,
             "before-the-addresses": Request.SET_VRING_ADDR,
             "before-the-kick": Request.SET_VRING_KICK,
             "before-the-last": Request.SET_STATUS}[when]
    with in_a_file_of_its_own(server.sockets[0], packed) as fe:
        for message in fe.script():
            if message.request == first:
                os.ftruncate(fe.memory.regions[0].fd, 0)
            fe.conn.tell(message)
        server.answers(server.sockets[0])
        neighbour.check(frames("neighbour"))
        assert wait_until(lambda: server.lines()), "nothing is said of it"
    works(server, packed=packed)


@bare
@pytest.mark.parametrize("packed", [False], ids=["split"])
def test_table_whose_rings_are_cut_off_while_running(server, neighbour, opened, packed):
    """librte_vhost translates the rings, and reads them, before anyone can look at the table."""
    server.expect(CUT_OFF, MUST_CONNECT, r"^vdpa_vfn0: memory region 0 .*file is shorter$")
    fe = opened(packed=packed)
    fe.check(frames("whole"))
    old = fe.memory.regions[0]
    new = Region(old.gpa, old.size)
    new.uva = old.uva
    more = Region(0x5_0000_0000, 1 << 20)
    try:
        os.ftruncate(new.fd, 0)
        fe.conn.tell(set_mem_table([new, *fe.memory.regions[1:], more]))
        server.said("file of the guest's memory was cut off|file is shorter")
        neighbour.check(frames("neighbour"))
        # from then on this connection has no device, however good its memory
        fe.conn.tell(set_mem_table(fe.memory.regions))
        server.answers(server.sockets[0])
        neighbour.check(frames("neighbour"))
    finally:
        new.close()
        more.close()
    fe.disconnect()
    works(server)


def test_dirty_log_is_cut_off(server, neighbour):
    """The log is the front-end's file too."""
    server.expect(CUT_OFF, BROKEN, "dirty log: its file was cut off, marks are missing")
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(protocol=0xffff_ffff & ~(1 << 9)).setup()
        fe.start()
        fe.check(frames("whole"))
        log = os.memfd_create("log")
        size = (1 << 33) // 4096 // 8
        os.ftruncate(log, size)
        fe.conn.ask(Message(Request.SET_LOG_BASE, struct.pack("=QQ", size, 0), (log,), True))
        fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
        fe.check(frames("logged"))
        os.ftruncate(log, 0)
        os.close(log)
        fe.send(bytes(60))
        fe.post()
        gone(server)
        neighbour.check(frames("neighbour"))
    works(server)


@FORMATS
def test_another_table_brings_it_back(server, opened, packed):
    """On the same connection: rings in memory that is whole, a region less."""
    fe = opened(packed=packed)
    gap = Region(0x5_0000_0000, 1 << 20)
    fe.memory.regions.append(gap)
    fe.conn.tell(set_mem_table(fe.memory.regions))
    fe.check(frames("whole"))
    os.ftruncate(gap.fd, 0)
    sent = fe.tx().add([(gap.gpa, 100, 0)])
    fe.post()
    gone(server)
    fe.memory.regions.remove(gap)
    fe.conn.tell(set_mem_table(fe.memory.regions))
    gap.close()
    # the chain may be given back, or be looked at again: now it has an address of nothing
    assert fe.settle() and sent is not None
    fe.receive()
    fe.check(frames("again"))


@FORMATS
def test_many_times_in_a_row_leak_nothing(server, neighbour, packed):
    """Every time with traffic before, on a connection that is hung up on afterwards."""
    server.expect(CUT_OFF, BROKEN)

    def lose(number):
        with in_a_file_of_its_own(server.sockets[0], packed) as fe:
            fe.start()
            fe.check(frames(number, 5))
            said = len(server.lines())
            os.ftruncate(fe.memory.regions[number % 2].fd, 0)
            if number % 2:
                fe.tx().add([(fe.memory.regions[1].gpa + 5000, 100, 0)])
                fe.tx().publish()
            fe.tx().kick()
            assert wait_until(lambda: len(server.lines()) > said)

    def at_rest():
        server.answers(server.sockets[0])
        wait_until(lambda: server.fds() == rest)
        return server.fds(), server.memory()

    rest = server.fds()
    for number in range(16):
        lose(number)
    fds, (rss, size) = at_rest()
    for number in range(24 if not NIGHTLY else 1000):
        time.sleep(0.5)     # a guest may have two lines, and four a second
        lose(number)
    fds_after, (rss_after, size_after) = at_rest()
    assert fds_after == fds == rest
    if SLOW == 1:   # the sanitizer keeps what is freed in quarantine
        assert rss_after - rss < 2048 and size_after - size < 2048, \
            f"VmRSS {rss} -> {rss_after} kB, VmSize {size} -> {size_after} kB"
    works(server, packed=packed)


# --- tables that are refused ---------------------------------------------------------------------

def refused_table(fe):
    bad = Region(0x5_0000_0000, 1 << 20)
    bad.size = 0
    with contextlib.closing(bad), pytest.raises(Refused):
        fe.conn.tell(set_mem_table([*fe.memory.regions, bad]))


def leaked(server, rest, tables):
    """librte_vhost 22.11 forgets the descriptor of a region that it could not map."""
    assert wait_until(lambda: server.fds() - rest in (0, tables)), (server.fds(), rest)
    server.idle_fds += server.fds() - rest


@bare
def test_other_memory_where_refused_memory_was(server, neighbour):
    """The rings' old addresses are mapped again, by somebody else, when the last ring gets ready:
    nothing that can be looked at there tells that this connection has no memory."""
    rest = server.fds()
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        kick = set_vring_kick(1, fe.tx().kick_fd)
        script = [m for m in fe.script() if m != kick and m.request != Request.SET_VRING_ENABLE]
        script[2:2] = [m for m in fe.script() if m.request == Request.SET_VRING_ENABLE]
        for message in script:
            fe.conn.tell(message)
        refused_table(fe)
        neighbour.memory.regions.append(Region(0x7_0000_0000, 1 << 21))
        neighbour.memory.regions.append(Region(0x8_0000_0000, 1 << 23))
        neighbour.conn.tell(set_mem_table(neighbour.memory.regions))
        fe.conn.tell(kick)
        server.said(NO_TABLE)
        neighbour.check(frames("neighbour"))
        for message in kick, set_status(DRIVER_OK), set_features(fe.features):
            fe.conn.tell(message)
        assert len(server.said(NO_TABLE)) == 1      # of every message that follows
        fe.conn.tell(set_mem_table(fe.memory.regions))
        fe.check(frames("recovered"))
    works(server)
    neighbour.memory.regions.pop().close()
    neighbour.memory.regions.pop().close()
    neighbour.conn.tell(set_mem_table(neighbour.memory.regions))
    leaked(server, rest, 1)


@bare
def test_table_refused_again_and_again(server, neighbour, opened):
    """A good one in between each time: the rings go on where they stood."""
    rest = server.fds()
    fe = opened()
    for number in range(5):
        fe.check(frames(number, 20))
        refused_table(fe)
        refused_table(fe)
        assert wait_until(lambda: len(server.said(NO_TABLE)) == 2 * number + 2)
        fe.conn.tell(set_mem_table(fe.memory.regions))
    fe.check(frames("at last"))
    neighbour.check(frames("neighbour"))
    fe.disconnect()
    leaked(server, rest, 10)


@bare
def test_front_end_that_waits_has_a_table_refused(server, opened):
    """It has no device when its turn comes, and gets it with a good table."""
    server.expect("in use by another connection")
    rest = server.fds()
    last, fe = opened(), opened()
    last.check(frames("last"))
    refused_table(fe)
    last.disconnect()
    server.answers(server.sockets[0])
    fe.conn.tell(set_mem_table(fe.memory.regions))
    server.said(NO_TABLE)
    fe.check(frames("its turn"))
    fe.disconnect()
    leaked(server, rest, 1)


def test_memory_before_features(server):
    """Refused, since nobody watches over it yet; its descriptors are closed."""
    server.expect("^vdpa_vfn0: SET_MEM_TABLE refused: it comes before features$")
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        fe.conn.ask(get_status())       # librte_vhost has heard of it
        rest = server.fds()
        features, table, *others = fe.script()
        with pytest.raises(Refused):
            fe.conn.tell(table)
        assert wait_until(lambda: server.fds() == rest)
        for message in features, table, *others:
            fe.conn.tell(message)
        fe.check(frames("in order"))
