# SPDX-License-Identifier: BSD-3-Clause
"""The driver alone, in an application that has nothing in front of librte_vhost: what a hostile
front-end hands over neither ends the process nor reaches memory of others."""

import contextlib
import mmap
import os
import struct
import subprocess
import threading
import time

import pytest

# pytest finds fixtures by their names here
from back_channel import DoorbellFrontEnd
from bare import BareServer, bare_fixture
from frontend import FORMATS, frames, works
from harness import SLOW, Scratch, wait_until
from net_device import PROTOCOL, FrontEnd, open_frontend
from rings import USER_BASE, Memory, Region
from test_frontend_lifecycle import at_rest
from vhost_user import (DRIVER_OK, F_INFLIGHT, LOG_ALL, NEED_REPLY, VERSION, Closed,
                        Connection, Message, Refused, Request, get_inflight_fd,
                        get_vring_base, reset_owner, set_features, set_inflight_fd, set_log_base,
                        set_mem_table, set_status, set_vring_addr, set_vring_base, set_vring_call,
                        set_vring_enable, set_vring_kick, set_vring_num)

shared_bare, bare = bare_fixture("vdpa_vfn0,queues=2", "vdpa_vfn1", "vdpa_vfn2,lm=shadow")

TRACKED = PROTOCOL | 1 << F_INFLIGHT
MB, GB, TB = 1 << 20, 1 << 30, 1 << 40
CUT_OFF = r"a file of the guest's memory was cut off while in use"
EARLY = "^vdpa_vfn0: dirty log: the front-end wants it before it has given one$"
MANY = "^vdpa_vfn0: in-flight regions .* refused"


@contextlib.contextmanager
def memfd(name, size):
    fd = os.memfd_create(name)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


class Sparse:
    """A region that is only ever handed over."""

    def __init__(self, gpa, size):
        self.gpa, self.size, self.offset, self.uva = gpa, size, 0, USER_BASE + gpa
        self.fd = os.memfd_create("sparse")
        os.ftruncate(self.fd, size)

    def close(self):
        os.close(self.fd)


def tracked(bare, packed=False, dev=0, pairs=1):
    """A front-end up to SET_MEM_TABLE, and the messages that are left."""
    fe = FrontEnd(bare.sockets[dev]).connect().negotiate(packed=packed, protocol=TRACKED)
    fe.setup(pairs)
    script = fe.script()
    for message in script[:2]:
        fe.conn.tell(message)
    return fe, script[2:]


# --- rings and memory ----------------------------------------------------------------------------

@FORMATS
def test_used_ring_that_ends_behind_its_region(bare, packed):
    """The last two bytes of a region behind which nothing is mapped: librte_vhost tells of it."""
    bare.expect("^vdpa_vfn0: queue")
    with contextlib.closing(Sparse(1 << 32, 32 * GB)) as region, \
            FrontEnd(bare.sockets[0]) as fe, contextlib.ExitStack() as stack:
        fe.connect().negotiate(packed=packed)
        fe.conn.tell(set_features(fe.features))
        with memfd("log", 64 * GB) as log:      # above the region, and then it goes
            fe.conn.tell(set_log_base(64 * GB, 0, log))
        fe.conn.tell(set_mem_table([region]))
        with memfd("log", 4096) as log:
            fe.conn.tell(set_log_base(4096, 0, log))
        for ring in 0, 1:
            kick, call = os.eventfd(0), os.eventfd(0)
            stack.callback(os.close, kick)
            stack.callback(os.close, call)
            at = region.uva + ring * 65536
            for message in (set_vring_num(ring, 64), set_vring_base(ring, 0),
                            set_vring_addr(ring, at, at + 8192, region.uva + region.size - 2),
                            set_vring_kick(ring, kick), set_vring_call(ring, call),
                            set_vring_enable(ring)):
                fe.conn.tell(message)
        fe.conn.tell(set_status(DRIVER_OK))
        bare.said("^vdpa_vfn0: queue 0")
    works(bare, packed=packed)


@FORMATS
def test_reset_owner_is_not_the_end_of_the_watch(bare, packed):
    """Memory of the second session on a connection is cut off before its rings are told; features,
    by which a driver hears of a connection, are not negotiated again."""
    bare.expect(CUT_OFF, "must connect again", "^vdpa_vfn0: queue", "its file is shorter")
    with FrontEnd(bare.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup().start()
        fe.check(frames("first"))
        fe.conn.tell(reset_owner())
        script = fe.script()[1:]
        with contextlib.suppress(Closed, Refused):
            for message in script:
                if message.request == Request.SET_VRING_ADDR:
                    os.ftruncate(fe.memory.regions[0].fd, 0)
                fe.conn.tell(message)
        fe.disconnect()
    works(bare, packed=packed)


# --- dirty logs ----------------------------------------------------------------------------------

def test_log_before_the_features_is_in_nobodys_memory(bare):
    """At an offset librte_vhost takes for a distance from where it is: in another guest's memory."""
    bare.expect(EARLY)
    size = 256 * MB
    with open_frontend(bare.sockets[1], memory=Memory([(0x1000_0000, 1024 * MB)])) as victim, \
            memfd("evil", 1 << 46) as fd:
        region = victim.memory.regions[0]
        target = 32 * MB
        conn = Connection(bare.sockets[0])

        def give(offset):
            conn.send(set_log_base(size, offset, fd))
            conn.receive()
            return bare.maps("evil")[0][0]

        guest = max(bare.maps("guest"), key=lambda m: m[1] - m[0])[0]
        here = give(0)
        give(4096)      # it alternates between two places
        there = give(guest + target - here)
        before = bytes(region.map[target:target + 2 * MB])
        fe = FrontEnd(bare.sockets[0])
        fe.conn = conn
        try:
            fe.negotiate()
            fe.features |= 1 << LOG_ALL
            fe.setup(memory=Memory([(0x1000_0000, 16 * MB)]), rings=0, buffers=0).start()
            fe.check(frames("evil"))
            fe.stop()
        finally:
            fe.close()
        assert here and there
        assert region.map[target:target + 2 * MB] == before
        victim.check(frames("victim"))
    works(bare)


def test_log_is_forgotten_with_the_owner(bare):
    """RESET_OWNER unmaps it, and the next guest's memory may come to lie there."""
    bare.expect(EARLY)
    with FrontEnd(bare.sockets[0]) as fe, memfd("old", 512 * MB) as fd:
        fe.connect().negotiate()
        fe.conn.tell(set_features(fe.features))
        fe.conn.tell(set_log_base(512 * MB, 0, fd))
        assert len(bare.maps("old")) == 1
        fe.conn.tell(reset_owner())
        assert not bare.maps("old")
        memory = Memory([(0x1000_0000, 512 * MB)])
        with open_frontend(bare.sockets[1], memory=memory) as victim:
            memory.regions[0].end = 16 * MB

            def content():
                """Without the flags of used rings: whether the driver shall kick may change."""
                copy = bytearray(memory.regions[0].map[:16 * MB])
                for ring in victim.rings:
                    at = ring.device - 0x1000_0000
                    copy[at:at + 2] = bytes(2)
                return copy

            before = content()
            fe.conn.reply_ack = False
            fe.negotiate()
            fe.features |= 1 << LOG_ALL
            fe.setup(memory=Memory([(0x1000_0000, 16 * MB)]), rings=0, buffers=0).start()
            fe.check(frames("no log"))
            bare.said(EARLY)
            assert content() == before
            victim.check(frames("victim"))


@pytest.mark.parametrize("dev", [0, 2], ids=["hw", "shadow"])
def test_log_is_cut_off_while_it_is_written(bare, dev):
    bare.expect(CUT_OFF, "its file was cut off, marks are missing", "is broken and stopped")
    size = (1 << 33) // 4096 // 8
    with open_frontend(bare.sockets[1]) as neighbour, open_frontend(bare.sockets[dev]) as fe, \
            memfd("log", size) as fd:
        fe.conn.tell(set_log_base(size, 0, fd))
        fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
        fe.check(frames("logged"))
        os.ftruncate(fd, 0)
        for _ in range(5):
            fe.send(bytes(60))
        fe.post()
        fe.settle(timeout=1)
        neighbour.check(frames("neighbour"))
        fe.conn.tell(get_vring_base(0))
        neighbour.check(frames("neighbour"))
    works(bare, dev)


@pytest.mark.parametrize("dev", [0, 2], ids=["hw", "shadow"])
def test_log_in_a_file_system_that_is_full(bare, dev):
    """What it has no room for is a bus error, for those who mark all memory too."""
    bare.expect(CUT_OFF, "dirty log", "is broken and stopped")
    scratch = Scratch()
    mount = scratch.path
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none",
                                            mount], check=False).returncode != 0:
        scratch.remove()
        pytest.skip("file systems cannot be mounted here")
    try:
        size = 2 * MB
        fd = os.open(os.path.join(mount, "log"), os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, size)
        for late in False, True:
            with open_frontend(bare.sockets[dev]) as fe:
                fe.memory.regions.append(Region(0x8_0000_0000, GB))
                fe.conn.tell(set_mem_table(fe.memory.regions))
                if late:
                    fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
                fe.conn.tell(set_log_base(size, 0, fd))
                fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
                fe.send(bytes(60))
                fe.post()
                fe.settle(timeout=1)
                fe.disconnect()     # no message, during which others have been on guard
                bare.answers(bare.sockets[1])
        os.close(fd)
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
        scratch.remove()
    works(bare, dev)


def test_late_log_of_a_large_memory(bare):
    """Two terabytes of nothing: all of it is marked, and others do not wait a second for that."""
    bare.expect("dirty log")
    with contextlib.closing(Sparse(1 << 40, 2 * TB)) as big, FrontEnd(bare.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        fe.memory.regions.append(big)
        fe.start()
        fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
        length = (big.gpa + big.size) // 32768
        with memfd("log", length) as fd:
            before = time.monotonic()
            fe.conn.tell(set_log_base(length, 0, fd))
            assert time.monotonic() - before < 2 * SLOW
            with mmap.mmap(fd, length) as log:
                assert log[big.gpa // 32768:] == b"\xff" * (big.size // 32768)
                assert not any(log[MB:big.gpa // 32768])
        fe.stop()
        fe.memory.regions.remove(big)


def answered(bare):
    """Does it take connections, for which it has memory?"""
    with contextlib.suppress(Closed, OSError):
        bare.answers(bare.sockets[0])
        return True
    return False


def test_no_memory_for_shadow_rings(bare):
    """The migration is refused, and not the guest's traffic; when it is cancelled another may
    begin."""
    refused = "^vdpa_vfn2: dirty log: no memory for shadow rings$"
    with open_frontend(bare.sockets[2], size=256) as fe, memfd("log", 1 << 18) as fd, \
            contextlib.closing(Connection(bare.sockets[0])) as hog:
        fe.check(frames("before"))

        def ring_is(number, size):
            """librte_vhost gives it memory of EAL's, before a driver hears of the connection."""
            hog.send(set_vring_num(number, size), VERSION | NEED_REPLY)
            return struct.unpack("=Q", hog.receive()[1])[0] == 0

        number, size = 0, 32768
        assert ring_is(95, 1)
        while number < 96 and size >= 64:
            if ring_is(number, size):
                number += 1
            else:
                size //= 2
        before = bare.lm(2)["refusals"]
        fe.conn.tell(set_log_base(1 << 18, 0, fd))
        fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
        bare.said(refused)
        assert bare.lm(2)["refusals"] == before + 1
        fe.check(frames("goes on"))
        fe.conn.tell(set_features(fe.features))
        fe.check(frames("cancelled"))
        hog.close()
        assert wait_until(lambda: answered(bare))
        fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
        assert bare.telemetry("/vfn/queue,vdpa_vfn2,1")["shadowed"]
        fe.check(frames("migrates"))


# --- in-flight regions ---------------------------------------------------------------------------

@FORMATS
def test_inflight_region_is_mapped_once(bare, packed):
    """By the driver: librte_vhost, which counts in it what it is told to be there, has none."""
    fe, rest = tracked(bare, packed)
    with fe, memfd("inflight", 1 << 20) as fd, mmap.mmap(fd, 1 << 20) as region:
        fe.conn.tell(set_inflight_fd(1 << 20, 2, 64, fd))
        for at in range(0, 1 << 20, 64):
            struct.pack_into("=QHH", region, at, 0, 1, 0xffff)    # version, desc_num
        for message in rest:
            fe.conn.tell(message)
        assert len(bare.maps("inflight")) == 1
        fe.check(frames("tracked"))
        for ring in fe.rings:
            fe.conn.tell(set_vring_kick(ring.index, ring.kick_fd))
        fe.check(frames("tracked"))


def test_inflight_region_that_changes_all_the_time(bare):
    """Entries come and go while rings start."""
    bare.expect("^vdpa_vfn0: queue")
    entries = 32768
    head = struct.pack("=QHHHH", 0, 1, entries, 0, 0)
    full, clear = head + (b"\1" + bytes(15)) * entries, head + bytes(16 * entries)
    stop = threading.Event()
    with memfd("inflight", MB) as fd, mmap.mmap(fd, MB) as region:
        def toggle():
            while not stop.is_set():
                region[:len(full)] = full
                region[:len(clear)] = clear
        thread = threading.Thread(target=toggle)
        thread.start()
        try:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                fe, rest = tracked(bare)
                with fe:
                    fe.conn.tell(set_inflight_fd(MB, 1, entries, fd))
                    for message in rest:
                        fe.conn.tell(message)
                    for _ in range(10):
                        fe.conn.tell(set_vring_kick(0, fe.rings[0].kick_fd))
                    fe.stop()
        finally:
            stop.set()
            thread.join()
    works(bare)


@FORMATS
def test_second_inflight_region_is_refused(bare, packed):
    """The first one is what the rings have, whatever else happens to them."""
    bare.expect(MANY)
    fe, rest = tracked(bare, packed)
    with fe, memfd("inflight", MB) as fd:
        fe.conn.tell(set_inflight_fd(MB, 2, 64, fd))
        for message in rest:
            fe.conn.tell(message)
        fe.check(frames("first"))
        mapped = bare.maps("inflight")
        out, into = os.pipe()
        for bad, size in (out, MB), (fd, 64), (fd, 2 * MB):
            with pytest.raises(Refused):
                if size == 2 * MB:
                    os.ftruncate(fd, MB)
                    fe.conn.tell(set_inflight_fd(size, 2, 32768, bad))
                else:
                    fe.conn.tell(set_inflight_fd(size, 2, 64, bad))
            assert bare.maps("inflight") == mapped
        os.close(out)
        os.close(into)
        for on in False, True:
            for ring in fe.rings:
                fe.conn.tell(set_vring_enable(ring.index, on))
        fe.check(frames("still"))
        # one that is taken is for rings that start from now on
        with memfd("another", MB) as other:
            fe.conn.tell(set_inflight_fd(MB, 2, 64, other))
            assert bare.maps("inflight") == mapped
            fe.check(frames("still the first"))
            fe.stop()
            assert not bare.maps("inflight") and len(bare.maps("another")) == 1
            for ring in fe.rings:
                fe.conn.tell(set_vring_enable(ring.index, False))
            fe.start_rings()
            fe.check(frames("another"))


@FORMATS
def test_waiting_front_end_has_its_region_cut_off(bare, packed):
    """It gets the device on the end of the one before, when none of its messages is handled."""
    bare.expect("in use by another connection", CUT_OFF, "^vdpa_vfn0: queue")
    with open_frontend(bare.sockets[0]) as first:
        first.check(frames("first"))
        fe, rest = tracked(bare, packed)
        with fe, memfd("inflight", MB) as fd:
            fe.conn.tell(set_inflight_fd(MB, 2, 64, fd))
            for message in rest:
                fe.conn.tell(message)
            bare.said("in use by another connection")
            os.ftruncate(fd, 0)
            first.disconnect()
            bare.answers(bare.sockets[1])
            fe.tx().kick()
    works(bare)


@pytest.mark.parametrize("queues,entries", [(0, 64), (6, 64), (65535, 65535), (2, 0), (1, 32769)])
def test_inflight_regions_of_no_such_device(bare, queues, entries):
    bare.expect(MANY)
    fe, _ = tracked(bare)
    with fe:
        fe.conn.send(get_inflight_fd(queues, entries))
        with pytest.raises(Closed):
            fe.conn.receive()


def test_inflight_regions_take_no_memory_until_written(bare):
    """As large as the device can have, and again and again; nobody can cut them off."""
    fe, _ = tracked(bare)
    with fe:
        before = bare.memory()[0]
        for _ in range(50):
            payload, fd = fe.conn.ask_fd(get_inflight_fd(4, 32768))
            assert os.fstat(fd).st_size == struct.unpack_from("=Q", payload)[0]
            assert os.fstat(fd).st_blocks == 0
            with pytest.raises(PermissionError):
                os.ftruncate(fd, 0)
            os.close(fd)
        assert bare.memory()[0] - before < 4096 or SLOW != 1


# --- messages ------------------------------------------------------------------------------------

@pytest.mark.parametrize("request_number", [22, 26, 27, 28, 29, 30, 36, 37, 38, 41, 100, 2**31])
def test_what_was_not_offered_is_refused(bare, request_number):
    """Migration with page faults that the front-end answers, an IOMMU, cryptography, and more."""
    bare.expect("^vdpa_vfn0: IOTLB message 0 is refused")
    with FrontEnd(bare.sockets[0]) as fe, memfd("some", 4096) as fd:
        fe.connect().negotiate()
        fe.conn.tell(set_features(fe.features))
        rest = at_rest(bare)
        with pytest.raises(Refused):
            fe.conn.tell(Message(request_number, bytes(40), (fd,)))
        assert wait_until(lambda: bare.fds() == rest)
        fe.setup().start()
        fe.check(frames("on"))


def test_rings_that_the_device_lacks(bare):
    """Their descriptors are closed, and nothing is kept: but of two that the driver is told of, of
    which the first could be a control queue."""
    bare.expect("^vdpa_vfn1: queue .* is ignored")
    before = at_rest(bare)
    with FrontEnd(bare.sockets[1]) as fe:
        fe.connect().negotiate().setup().start()
        rest = at_rest(bare)
        kick = os.eventfd(0)
        for ring in range(2, 64):
            for message in (set_vring_num(ring, 64), set_vring_kick(ring, kick),
                            set_vring_call(ring, kick), set_vring_enable(ring)):
                fe.conn.tell(message)
        os.close(kick)
        assert wait_until(lambda: bare.fds() <= rest + 2 * 2)
        fe.check(frames("on"))
    assert wait_until(lambda: bare.fds() == before)


# --- from the first message on -------------------------------------------------------------------

@pytest.fixture(scope="module")
def early():
    with BareServer(("vdpa_vfn0,queues=2", "vdpa_vfn1"), early=True) as server:
        yield server


def test_judged_from_the_first_message_on(early):
    """An application that has the driver told of connections: in-flight regions, requests that
    were not offered, and a log, before anything is negotiated."""
    before = early.memory()[0]
    with memfd("some", MB) as fd:
        for message in (get_inflight_fd(65535, 65535), set_inflight_fd(MB, 2, 64, fd),
                        Message(28), Message(22, bytes(40))):
            conn = Connection(early.sockets[0])
            conn.send(message, VERSION | NEED_REPLY)
            request, payload = conn.receive()
            assert request == message.request and struct.unpack("=Q", payload)[0] == 1
            conn.close()
    assert early.memory()[0] - before < 16384 or SLOW != 1
    with FrontEnd(early.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        size = (1 << 33) // 32768
        with memfd("log", size) as fd:
            fe.conn.tell(set_log_base(size, 0, fd))
            features, table, *rest = fe.script()
            fe.conn.tell(table)
            fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
            for message in rest:
                fe.conn.tell(message)
            fe.check(frames("logged"))
            with mmap.mmap(fd, size) as log:
                assert any(log[:])
    works(early)


# --- locks ---------------------------------------------------------------------------------------

def test_doorbells_stop_while_telemetry_asks():
    """The message thread waits for the doorbells' thread, which asks the driver something, while
    a third one wants to know about the device."""
    pairs = 8
    stop = threading.Event()
    asked = []

    def answer(fe):
        with contextlib.suppress(Exception):
            while True:
                request, _, _, fds = fe.channel.receive(timeout=0.5)
                for fd in fds:
                    os.close(fd)
                fe.channel.answer(request)

    with BareServer((f"vdpa_vfn0,queues={pairs},idle=busy,doorbell=on", "vdpa_vfn1")) as server:
        def ask():
            while not stop.is_set():
                asked.append(server.telemetry("/vfn/info,vdpa_vfn0"))
        threads = [threading.Thread(target=ask)]
        threads[0].start()
        try:
            end = time.monotonic() + 5
            turn = 0
            while time.monotonic() < end:
                fe = DoorbellFrontEnd(server.sockets[0])
                fe.connect().negotiate().setup(pairs, size=4)
                threads.append(threading.Thread(target=answer, args=(fe,)))
                threads[-1].start()
                for _ in range(3):
                    turn += 1
                    fe.start()
                    time.sleep(turn % 7 * 0.0003)
                    for ring in fe.rings:
                        fe.conn.tell(get_vring_base(ring.index))
                fe.close()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert len(asked) > 10 and not any("lock order" in n for n in server.lines())
        works(server, 1)
