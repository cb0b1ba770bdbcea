# SPDX-License-Identifier: BSD-3-Clause
"""The gate of vfn-vhost, from outside: front-ends that do what only a hostile or a broken one does,
each beside a neighbour whose traffic goes on. Every test here fails on a server without the gate.
"""

import contextlib
import ctypes
import os
import socket
import struct
import tempfile
import threading
import time

import pytest

# pytest finds fixtures by their names here
from frontend import FORMATS, Server, frames, neighbour, opened, server, shared, works  # noqa: F401
from harness import SLOW, Backend, wait_until
from net_device import FEATURES, FrontEnd, open_frontend
from rings import Region
from vhost_user import (VERSION, F_INFLIGHT, Closed, Connection, Listener, Message, Refused,
                        Request, get_features, get_inflight_fd, get_status, set_features,
                        set_mem_table, set_protocol_features, set_vring_addr,
                        set_vring_call, set_vring_num)

POSTCOPY_ADVISE, POSTCOPY_LISTEN, IOTLB, ENDIAN = 28, 29, 22, 23
F_MEM_SLOTS = 15
ANSWER_S = 3        # a generous bound for what hangs or does not


def refused(server, request, why):
    server.said(f"^vdpa_vfn0: {request} refused: {why}")


def ends_at_once(server):
    """SIGTERM ends it within a second, whatever front-ends do meanwhile."""
    process, server.process = server.process, None
    begin = time.monotonic()
    process.popen.terminate()
    try:
        assert process.wait(10) == 0
    except BaseException:
        process.kill()
        raise
    assert time.monotonic() - begin < 1 * SLOW


def others_are_served(server, path=1):
    """Somebody else has an answer from the library."""
    conn = Connection(server.sockets[path], timeout=ANSWER_S)
    conn.send(set_protocol_features(1 << 16))
    conn.ask(get_status())
    conn.close()


# --- messages that do not come, answers that are not read ---------------------------------------

HALVES = [struct.pack("=II", Request.SET_FEATURES, VERSION),
          struct.pack("=III", Request.SET_FEATURES, VERSION, 8),
          struct.pack("=IIII", Request.SET_FEATURES, VERSION, 8, 0),
          struct.pack("=III", Request.SET_MEM_TABLE, VERSION, 264)]


@pytest.mark.parametrize("half", HALVES, ids=["header", "no-payload", "payload", "table"])
def test_half_a_message(server, neighbour, half):
    conn = Connection(server.sockets[0])
    conn.send_raw(half)
    others_are_served(server)
    others_are_served(server, 0)
    neighbour.check(frames("neighbour"), timeout=ANSWER_S)
    neighbour.stop()
    neighbour.start_rings()
    assert conn.hung_up()
    conn.close()
    server.expect("^vdpa_vfn0: .* refused: half a message")


def test_half_a_message_and_the_end():
    with Server() as server:
        conn = Connection(server.sockets[0])
        conn.send_raw(HALVES[1])
        others_are_served(server)
        ends_at_once(server)
        conn.close()


def ask_and_never_read(path, seconds):
    conn = Connection(path)
    conn.sock.setblocking(False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            conn.sock.send(get_features().raw())
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            break       # hung up on
    return conn


def test_answers_that_are_not_read(server, neighbour):
    conn = ask_and_never_read(server.sockets[0], 15)
    others_are_served(server)
    neighbour.check(frames("neighbour"), timeout=ANSWER_S)
    conn.close()
    refused(server, "GET_FEATURES", "its answer is not read")


def test_answers_that_are_not_read_and_the_end():
    with Server() as server:
        conn = ask_and_never_read(server.sockets[0], 1)
        others_are_served(server)
        ends_at_once(server)
        conn.close()


# --- messages that were never offered ------------------------------------------------------------

@pytest.mark.parametrize("message", [Message(POSTCOPY_ADVISE), Message(POSTCOPY_LISTEN),
                                     Message(IOTLB, bytes(32)), Message(ENDIAN, bytes(8)),
                                     Message(26, bytes(40)), Message(27, bytes(8))],
                         ids=["postcopy-advise", "postcopy-listen", "iotlb", "endian",
                              "crypto", "crypto-end"])
def test_what_was_not_offered(server, neighbour, opened, message):
    """At any time: before features and while it runs."""
    server.expect("^vdpa_vfn0: .* refused: (not offered|it comes before features|its device feature)")
    conn = Connection(server.sockets[0])
    conn.send(message)
    assert conn.hung_up()
    conn.close()
    fe = opened()
    with pytest.raises(Refused):
        fe.conn.tell(message)
    fe.check(frames("goes on"))
    neighbour.check(frames("neighbour"))


def test_page_faults_that_nobody_answers(server, neighbour):
    """No userfaultfd is handed out, so none of the memory can be held back."""
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        fe.conn.tell(set_features(fe.features))
        with pytest.raises(Refused):
            fe.conn.tell(Message(POSTCOPY_ADVISE))
    server.expect("^vdpa_vfn0: POSTCOPY_ADVISE refused: not offered")
    for fd in os.listdir(f"/proc/{server.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):    # the connection's, closed in between
            assert "userfaultfd" not in os.readlink(f"/proc/{server.pid}/fd/{fd}")
    neighbour.check(frames("neighbour"))


# --- what only looks right -----------------------------------------------------------------------

@FORMATS
@pytest.mark.parametrize("area", [1, 2], ids=["driver", "device"])
@pytest.mark.parametrize("where", ["addresses", "table", "size"])
def test_area_that_ends_behind_its_region(server, neighbour, packed, area, where):
    """Whatever comes last of these three: librte_vhost would use the ring as far as it goes."""
    server.expect(r"^vdpa_vfn0: SET_\w+( of ring 0)? refused: its (driver|device) area is not in")
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate(packed=packed).setup()
        fe.conn.tell(set_features(fe.features))
        region, rest = fe.memory.regions[0], fe.memory.regions[1:]
        areas = [region.uva, region.uva + 0x8000, region.uva + 0x10000]
        areas[area] = region.uva + region.size - (4 if where == "size" else 2)
        address = set_vring_addr(0, *areas)
        if where == "table":
            areas[area] = region.uva + region.size - (4 if packed else 0x1000)
            region.size -= 0x1000 if not packed else 0
            short = [region, *rest]
            region.size += 0x1000 if not packed else 0
            fe.conn.tell(set_mem_table(fe.memory.regions))
            fe.conn.tell(set_vring_num(0, 64))
            fe.conn.tell(set_vring_addr(0, *areas))
            region.size -= 0x1000
            with pytest.raises(Refused):
                fe.conn.tell(set_mem_table(short))
            region.size += 0x1000
        elif where == "size":
            if packed:
                return          # these areas do not grow
            fe.conn.tell(set_mem_table(fe.memory.regions))
            fe.conn.tell(set_vring_num(0, 1))
            areas[area] = region.uva + region.size - 12
            fe.conn.tell(set_vring_addr(0, *areas))
            with pytest.raises(Refused):
                fe.conn.tell(set_vring_num(0, 64))
        else:
            fe.conn.tell(set_mem_table(fe.memory.regions))
            fe.conn.tell(set_vring_num(0, 64))
            with pytest.raises(Refused):
                fe.conn.tell(address)
        neighbour.check(frames("neighbour"))
    works(server, packed=packed)


def test_memory_on_a_file_system_of_the_front_ends(server, neighbour):
    """A file that cannot be known for shared memory: pages of it might never come."""
    server.expect("^vdpa_vfn0: SET_MEM_TABLE refused: memory that is no file on a file system")
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup()
        fe.conn.tell(set_features(fe.features))
        region = Region(0x5_0000_0000, 4096)
        own = region.fd
        try:
            for path, mode in (("/proc/self/mem", os.O_RDWR), ("/dev/zero", os.O_RDWR),
                               (f"/proc/self/fd/{own}", os.O_RDONLY)):
                region.fd = os.open(path, mode)
                with pytest.raises(Refused):
                    fe.conn.tell(set_mem_table([*fe.memory.regions, region]))
                os.close(region.fd)
        finally:
            region.fd = own
            region.close()
        neighbour.check(frames("neighbour"))
        fe.start()
        fe.check(frames("right"))


def test_sealed_memory(server, neighbour):
    """Sealed against writing: it would be mapped by nobody, after the old table is gone."""
    server.expect("^vdpa_vfn0: SET_MEM_TABLE refused: memory that is no file on a file system")
    with FrontEnd(server.sockets[0]) as fe:
        fe.connect().negotiate().setup().start()
        region = Region(0x5_0000_0000, 1 << 20)
        own, region.fd = region.fd, os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
        os.ftruncate(region.fd, 1 << 20)
        ctypes.CDLL(None).fcntl(region.fd, 1033, 0x10)      # F_ADD_SEALS, F_SEAL_FUTURE_WRITE
        try:
            with pytest.raises(Refused):
                fe.conn.tell(set_mem_table([*fe.memory.regions, region]))
        finally:
            os.close(region.fd)
            region.fd = own
            region.close()
        fe.check(frames("goes on"))
        neighbour.check(frames("neighbour"))


# --- what a tenant may take ----------------------------------------------------------------------

def resident(server):
    return server.memory()[0]


@pytest.mark.parametrize("features", [False, True], ids=["before-features", "usual"])
def test_inflight_region_of_any_size(features):
    """Neither before features nor larger than the device's rings are."""
    with tempfile.TemporaryDirectory(prefix="vfn-") as directory, \
            Server([f"vdpa_vfn0,inflight={directory}", "vdpa_vfn1"]) as server:
        before = resident(server)
        for queues, entries in (640, 65535), (2, 65535), (65535, 65535), (256, 32768):
            conn = Connection(server.sockets[0], timeout=ANSWER_S)
            offered = conn.ask_u64(Message(Request.GET_PROTOCOL_FEATURES, replies=True))
            conn.send(set_protocol_features(offered & 1 << F_INFLIGHT))
            if features:
                conn.send(set_features(FEATURES & conn.ask_u64(get_features())))
            conn.send(get_inflight_fd(queues, entries))
            assert conn.hung_up()
            conn.close()
            others_are_served(server)
        assert resident(server) - before < 4096
        server.expect("GET_INFLIGHT_FD refused")


class Sparse:
    """A region of any size, of which nothing is there."""

    def __init__(self, gpa, size):
        self.gpa, self.size, self.offset, self.uva = gpa, size, 0, gpa + (1 << 50)
        self.fd = os.memfd_create("sparse")
        os.ftruncate(self.fd, size)


def test_address_space(server, neighbour):
    """However many connections take all they may, there is room for others."""
    server.expect("^vdpa_vfn0: SET_MEM_TABLE refused: more address space than a connection may")
    made, fes = [], []
    try:
        for _ in range(4):
            fe = FrontEnd(server.sockets[0]).connect().negotiate()
            fes.append(fe)
            fe.conn.tell(set_features(fe.features))
            for size in 1 << 46, 1 << 44, 1 << 42, 1 << 41:
                made.append(Sparse(0x1_0000_0000, size))
                with contextlib.suppress(Refused):
                    fe.conn.tell(set_mem_table(made[-1:]))
                    break
        with open(f"/proc/{server.pid}/maps", encoding="ascii") as maps:
            spans = [[int(n, 16) for n in line.split()[0].split("-")] for line in maps]
        taken = sum(end - begin for begin, end in spans if end < 1 << 47)
        assert taken < 3 << 45
        neighbour.stop()
        neighbour.conn.tell(set_mem_table(neighbour.memory.regions[::-1]))
        neighbour.start_rings()
        neighbour.check(frames("neighbour"))
    finally:
        for fe in fes:
            fe.disconnect()
        for region in made:
            os.close(region.fd)
    works(server)


def test_heap_for_rings_that_there_are_not(server, neighbour):
    """Rings of the largest size, most of them ones that the device does not have."""
    fe = FrontEnd(server.sockets[0]).connect().negotiate()
    before = resident(server)
    for ring in range(256):
        fe.conn.tell(set_vring_num(ring, 32768))
    assert resident(server) - before < 16384
    neighbour.check(frames("neighbour"))
    fe.disconnect()
    works(server, pairs=3)


def open_many(path, count):
    socks = []
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:     # they wait in the queue
            sock.close()
            break
        socks.append(sock)
    return socks


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))


@pytest.mark.parametrize("limit", ["1024", "20000"])
def test_connections(limit):
    """A port's own are limited; the others neither lack descriptors nor places in the library."""
    with Server(wrapper=["prlimit", f"--nofile={limit}:{limit}"]) as server, \
            open_frontend(server.sockets[1]) as neighbour:
        neighbour.check(frames("before"))
        before = server.fds()
        socks = open_many(server.sockets[0], 1100)
        time.sleep(0.3)
        assert server.fds() - before < 50
        ticks = cpu_ticks(server.pid)
        neighbour.check(frames("neighbour"))
        time.sleep(1)
        assert cpu_ticks(server.pid) - ticks < 50 * SLOW
        others_are_served(server)
        for sock in socks:
            sock.close()
        assert wait_until(lambda: server.fds() == before)
        works(server)


def test_descriptors():
    """Kicks and calls of rings that the device does not have, with as few descriptors as usual."""
    with Server(wrapper=["prlimit", "--nofile=1024:1024"]) as server, \
            open_frontend(server.sockets[1]) as neighbour:
        neighbour.check(frames("before"))
        before, fd = server.fds(), os.eventfd(0)
        conns = [Connection(server.sockets[0]) for _ in range(4)]
        for conn in conns:
            conn.ask(get_features())
            for ring in range(256):
                conn.send(set_vring_call(ring, fd))
            conn.ask(get_features())
        os.close(fd)
        assert server.fds() - before < 100
        neighbour.disconnect()
        for ring in neighbour.rings:
            ring.used()
        works(server, 1)
        for conn in conns:
            conn.close()
        works(server)


def test_flood_of_messages(server, neighbour):
    """Held back, not dropped: a barrier behind them has its answer, and the neighbour is served."""
    stop = threading.Event()

    def flood():
        conn = Connection(server.sockets[0])
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, Closed):
                conn.send_raw(set_vring_num(0, 256).raw() * 100)
        conn.sock.close()
    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            others_are_served(server)
            neighbour.check(frames(number, 20), timeout=ANSWER_S)
            neighbour.stop()
            neighbour.start_rings()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    works(server)


# --- the gate itself -----------------------------------------------------------------------------

def test_client_whose_peer_hangs_up():
    """Ten milliseconds at first, a second at last; one that is right is served at last."""
    with tempfile.TemporaryDirectory(prefix="vfn-") as directory, \
            socket.socket(socket.AF_UNIX) as listener, \
            Backend("vdpa_vfn0", client=True, directory=directory) as backend:
        path = backend.sockets[0]
        listener.bind(path)
        listener.listen()
        listener.settimeout(0.2)
        count, end = 0, time.monotonic() + 4
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                listener.accept()[0].close()
                count += 1
        assert 3 <= count <= 15
        assert len(backend.log()) < 8192
        listener.close()
        os.unlink(path)
        right = Listener(path)
        with contextlib.closing(right), open_frontend(path, listener=right) as fe:
            fe.check(frames("at last"))


def test_memory_slots_are_not_for_net_devices(server):
    """QEMU 7.2 migrates wrongly with them."""
    conn = Connection(server.sockets[0])
    offered = conn.ask_u64(Message(Request.GET_PROTOCOL_FEATURES, replies=True))
    assert not offered >> F_MEM_SLOTS & 1
    conn.close()


def test_telemetry_tells_what_was_refused(server):
    before = server.telemetry("/vfn_vhost/gate,0")
    server.expect("refused: features that were not offered")
    conn = Connection(server.sockets[0])
    conn.send(set_features(1 << 63))
    assert conn.hung_up()
    conn.close()
    now = server.telemetry("/vfn_vhost/gate,0")
    assert now["refused"] == before["refused"] + 1
    assert now["accepted"] == before["accepted"] + 1
    assert now["reasons"]["features_that_were_not_offered"] >= 1
    assert server.telemetry("/vfn_vhost/gate,7") is None


def test_private_sockets_are_gone_at_the_end():
    with Server() as server:
        home = f"/var/run/dpdk/{server.process.prefix}"
        gates = [name for name in os.listdir(home) if name.startswith("gate.")]
        assert len(gates) == 1
        assert os.stat(os.path.join(home, gates[0])).st_mode & 0o777 == 0o700
        process, server.process = server.process, None
        process.popen.terminate()
        assert process.popen.wait(10) == 0
        assert not os.path.exists(os.path.join(home, gates[0]))
        process.wait()
