# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end with strange memory, kicks and calls."""

import contextlib
import os
import socket
import threading
import re

import pytest

# pytest finds fixtures by their names here
from frontend import FORMATS, bare, frames, neighbour, opened, server, shared, works  # noqa: F401
from harness import wait_until
from net_device import HEADER, FrontEnd, open_frontend
from rings import Region, Memory
from vhost_user import set_mem_table, set_vring_kick, set_vring_call, set_vring_enable, Refused

# --- memory --------------------------------------------------------------------------------------


@FORMATS
def test_memory_at_guest_physical_0(server, packed):
    """The rings are at address 0."""
    with open_frontend(server.sockets[0], packed=packed,
                       memory=Memory([(0, 1 << 21), (1 << 21, 1 << 23)])) as fe:
        assert fe.rings[0].desc == 0
        fe.check(frames("zero"))
        # adjacent regions: a buffer may lie across both
        at = (1 << 21) - 50
        fe.memory.write(at, bytes(HEADER) + b"\x11" * 38)
        fe.memory.write(1 << 21, b"\x22" * 40)
        fe.tx().add([(at, 90, 0)])
        fe.post()
        assert wait_until(fe.receive) == [b"\x11" * 38 + b"\x22" * 40]


@contextlib.contextmanager
def at_the_end(server):
    """A front-end that has a region whose last byte has the highest address there is."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate()
        memory = Memory([(0x1000_0000, 1 << 21), (1 << 32, 1 << 23), (2**64 - 4096, 4096)])
        memory.regions[2].uva = 0x7800_0000_0000
        fe.setup(memory=memory, buffers=1).start()
        fe.check(frames("below"))
        yield fe


def test_buffer_at_the_end_of_the_address_space(server):
    with at_the_end(server) as fe:
        for end in 2**64, 2**64 - 1:
            fe.memory.write(end - 100, bytes(HEADER) + b"\x33" * 88)
            fe.tx().add([(end - 100, 100, 0)])
            fe.post()
            assert fe.settle()
            assert wait_until(fe.receive, timeout=2) == [b"\x33" * 88]


def test_memory_at_the_end_of_the_address_space_is_given_back(server):
    with at_the_end(server):
        pass
    works(server)


@pytest.mark.parametrize("before", [works, lambda s: at_the_end(s).__enter__().close()],
                         ids=["usual", "at-the-end"])
def test_memory_of_the_guest_before_is_out_of_reach(server, before):
    """Its mapping here is gone, so an address of it must not be looked up in an old table."""
    before(server)
    with open_frontend(server.sockets[0],
                       memory=Memory([(0x3000_0000, 1 << 16), (0x6000_0000, 1 << 20)])) as fe:
        wrong = server.counted("vdpa_vfn0", 1)
        old = [0x1000_0000, 0x1010_0000, 0x1_0000_0000, 0x1_0040_0000]
        for address in old:
            fe.tx().add([(address, 200, 0)])
        fe.post()
        assert fe.settle(timeout=3)
        assert wait_until(lambda: wrong("errors") == {"errors_addr": len(old)})
        fe.check(frames("own memory"))


@bare
def test_overlapping_regions_refused(server, neighbour, opened):
    """At the start and while running; the right table on the same connection recovers it."""
    fe = opened()
    fe.check(frames("before"))
    bad = Region(fe.memory.regions[1].gpa + 4096, 1 << 20)
    bad.uva += 1 << 40
    refused = r"^vdpa_vfn0: memory region 2 \(0x[0-9a-f]+, \d+ bytes\) is refused: "
    try:
        fe.conn.tell(set_mem_table([*fe.memory.regions, bad]))
        lines = server.said(refused + "it overlaps another")
        assert len(lines) == 1, lines
        server.library_said("failed to configure vDPA device")
        neighbour.check(frames("neighbour"))
        bad.gpa = 2**64 - 4096
        fe.conn.tell(set_mem_table([*fe.memory.regions, bad]))
        lines = server.said(refused + "Invalid argument")
        assert len(lines) == 1, lines
        fe.conn.tell(set_mem_table(fe.memory.regions))
        fe.check(frames("recovered"))
    finally:
        bad.close()
    fe.disconnect()
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        bad = Region(fe.memory.regions[0].gpa, 4096)
        bad.uva += 1 << 40
        fe.memory.regions.append(bad)
        fe.start()
        assert wait_until(lambda: len(server.said(refused + "it overlaps another")) == 2)
    works(server)


def spoiled(**fields):
    def spoil():
        bad = Region(0x5_0000_0000, 1 << 20)
        for name, value in fields.items():
            setattr(bad, name, value)
        return bad
    return spoil


@bare
@pytest.mark.parametrize("spoil", [spoiled(size=0), spoiled(size=2**64 - 4096),
                                   spoiled(offset=2**64 - 4096), spoiled(size=1 << 60)],
                         ids=["empty", "wraps", "offset-wraps", "huge"])
def test_region_refused_by_the_library(server, neighbour, opened, spoil):
    rest = server.fds()
    fe = opened()
    fe.check(frames("before"))
    bad = spoil()
    try:
        with pytest.raises(Refused):
            fe.conn.tell(set_mem_table([*fe.memory.regions, bad]))
    finally:
        bad.close()
    assert wait_until(lambda: re.search(r"failed to mmap region 2|^vdpa_vfn0: memory region 2 ",
                                        server.process.log()[server.since:], re.M))
    server.expect("^vdpa_vfn0: (librte_vhost has no memory table: |memory region 2 )")
    neighbour.check(frames("neighbour"))
    fe.conn.tell(set_mem_table(fe.memory.regions))
    fe.check(frames("recovered"))
    fe.disconnect()
    works(server)
    # librte_vhost 22.11 forgets the descriptor of the region that it could not map
    assert wait_until(lambda: server.fds() - rest in (0, 1))
    server.idle_fds += server.fds() - rest


@pytest.mark.parametrize("when", ["before", "after"])
def test_memory_file_shorter_than_its_region(server, neighbour, when):
    """Touching what is behind the end of a file is a SIGBUS for the whole process."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        gap = Region(0x5_0000_0000, 1 << 20)
        fe.memory.regions.append(gap)
        if when == "before":
            os.ftruncate(gap.fd, 4096)
            with pytest.raises(Refused):
                fe.start()
            server.said("^vdpa_vfn0: SET_MEM_TABLE refused: a region longer than its file$")
            neighbour.check(frames("neighbour"))
            return
        fe.start()
        fe.check(frames("whole"))
        os.ftruncate(gap.fd, 4096)
        fe.tx().add([(gap.gpa + (1 << 19), 100, 0)])
        fe.post()
        fe.settle(timeout=2)
        server.expect("^vdpa_vfn0: ")
        neighbour.check(frames("neighbour"))
    works(server)


# --- kicks and calls -----------------------------------------------------------------------------


def eventfds():
    return os.eventfd(0, os.EFD_CLOEXEC), 0xfffffffffffffffe


def test_call_fd_that_is_full_and_blocks(neighbour, opened):
    fe = opened()
    fd, full = eventfds()
    try:
        os.eventfd_write(fd, full)
        for ring in fe.rings:
            fe.conn.tell(set_vring_call(ring.index, fd))
        fe.check(frames("full"))
        neighbour.check(frames("neighbour"))
    finally:
        os.close(fd)


def test_call_fd_that_starts_to_block_later(neighbour, opened):
    """The file's flags belong to the guest too, whatever was looked at when it was handed over."""
    fe = opened()
    fe.check(frames("before"))
    call_fd = fe.rx().call_fd
    os.set_blocking(call_fd, True)
    fe.rx().called()
    os.eventfd_write(call_fd, 0xfffffffffffffffe)
    drain = []
    try:
        fe.send(bytes(60))
        fe.post()
        neighbour.check(frames("neighbour"), timeout=2)
    finally:
        # so that a poller that hangs goes on and the server can be told to end
        os.set_blocking(call_fd, False)
        stop = threading.Event()

        def read():
            while not stop.wait(0.01):
                with contextlib.suppress(BlockingIOError):
                    drain.append(os.eventfd_read(call_fd))
        reader = threading.Thread(target=read)
        reader.start()
        fe.settle()
        fe.disconnect()
        neighbour.settle()
        stop.set()
        reader.join()


def pipe_end(which):
    ends = os.pipe()
    os.close(ends[1 - which])
    return ends[which]


NOT_EVENTFDS = {
    "file": lambda: os.memfd_create("call"),
    "null": lambda: os.open("/dev/null", os.O_RDWR),
    "full": lambda: os.open("/dev/full", os.O_RDWR),
    "pipe-without-writer": lambda: pipe_end(0),
    "pipe-without-reader": lambda: pipe_end(1),
    "socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach(),
    "directory": lambda: os.open("/", os.O_RDONLY),
}


@bare
@pytest.mark.parametrize("kind", NOT_EVENTFDS)
@pytest.mark.parametrize("which", ["kick", "call"])
def test_fd_that_is_no_eventfd(server, neighbour, opened, kind, which):
    fe = opened()
    fe.check(frames("before"))
    fd = NOT_EVENTFDS[kind]()
    try:
        for ring in fe.rings:
            message = set_vring_kick if which == "kick" else set_vring_call
            fe.conn.tell(message(ring.index, fd))
        server.expect(r"^vdpa_vfn0: queue [01]: doorbell is not an eventfd, the queue is polled$")
        for ring in fe.rings:
            ring.kick()
        if which == "call":
            fe.check(frames("after"))
        elif kind in ("file", "null", "full", "directory"):
            fe.check(frames("polled"))
        neighbour.check(frames("neighbour"))
        if which == "kick":
            for ring in fe.rings:
                fe.replace_fds(ring, call=False)
            fe.check(frames("kicked again"))
    finally:
        os.close(fd)


@FORMATS
def test_without_kick_and_call_fds(opened, packed):
    """Then the device polls, and the driver has to."""
    fe = opened(packed=packed)
    for ring in fe.rings:
        fe.conn.tell(set_vring_kick(ring.index, None))
        fe.conn.tell(set_vring_call(ring.index, None))
    fe.check(frames("polled"))
    assert not any(ring.called() for ring in fe.rings[1:])


@bare
def test_kick_before_anything_else(server, neighbour):
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().setup()
        for ring in fe.rings:
            ring.kick()
            fe.conn.send(set_vring_kick(ring.index, ring.kick_fd))
            fe.conn.send(set_vring_call(ring.index, ring.call_fd))
            fe.conn.send(set_vring_enable(ring.index))
        for ring in fe.rings:
            ring.kick()
        neighbour.check(frames("neighbour"))
        fe.negotiate()
        fe.start()
        fe.check(frames("after"))


def test_kicks_without_end(neighbour, opened):
    fe = opened()
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            for ring in fe.rings:
                for _ in range(100):
                    ring.kick()
    thread = threading.Thread(target=storm)
    thread.start()
    try:
        neighbour.check(frames("neighbour", 50))
    finally:
        stop.set()
        thread.join()
    fe.check(frames("after"))
