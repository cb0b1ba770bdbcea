# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end that passes its control queue on, as user-mode Linux does: which ring is that,
what it does, and what becomes of what the driver said when the device stops, moves and goes on.
"""

import contextlib
import os
import socket
import struct
import tempfile

import pytest

# pytest finds fixtures by their names here
from frontend import (FORMATS, Server, frames, neighbour, opened, server,  # noqa: F401
                      shared, works)
from harness import MQ, Backend, wait_until
from net_device import FEATURES, FrontEnd
from rings import NEXT, WRITE, PackedRing, SplitRing
from vhost_user import (F_INFLIGHT, F_STATUS, Listener, get_inflight_fd, set_features,
                        set_inflight_fd, set_mem_table, set_vring_call, set_vring_enable,
                        set_vring_num)

DEVS = (("vdpa_vfn0,queues=3", "vdpa_vfn1,mac=02:00:00:00:00:99"),)

GUEST_OFFLOADS, MAC, CTRL_VQ, CTRL_RX, CTRL_VLAN, CTRL_MAC = 2, 5, 17, 18, 19, 23
CONTROL = (FEATURES | 1 << CTRL_VQ | 1 << CTRL_RX | 1 << CTRL_VLAN | 1 << CTRL_MAC | 1 << MAC)
ONE_PAIR = CONTROL & ~(1 << MQ)
OK, ERR = 0, 1

PROMISC_OFF, MAC_SET = (0, 0, b"\0"), (1, 1, b"\x02\0\0\0\0\x55")
MINE, OTHER = bytes.fromhex("020000000055"), bytes.fromhex("020000000066")


def pairs_set(count):
    return 4, 0, struct.pack("=H", count)


class Control(FrontEnd):
    """A FrontEnd whose last ring is the control queue."""

    index = answer_at = None

    def control(self, index, size=64):
        kind = PackedRing if self.packed else SplitRing
        self.index = index
        ring = kind(self.memory, index, size)
        ring.in_order = False
        self.rings.append(ring)
        return self

    @property
    def queue(self):
        return self.rings[-1]

    def say(self, kind, number, data=b""):
        """A command as Linux lays it out."""
        ring = self.queue
        at = ring.buffer()
        self.memory.write(at, bytes([kind, number]) + data + b"\xff")
        ring.add([(at, 2, 0), *([(at + 2, len(data), 0)] if data else []),
                  (at + 2 + len(data), 1, WRITE)])
        self.answer_at = at + 2 + len(data)
        ring.publish()
        ring.kick()

    def answer(self):
        got = wait_until(self.queue.used, interval=0.002)
        assert got and got[0][1] == 1
        return self.memory.read(self.answer_at, 1)[0]

    def command(self, kind, number, data=b""):
        """Carried out; its answer."""
        self.say(kind, number, data)
        return self.answer()

    def frame(self, target):
        return target + bytes(6) + b"\x88\xb5" + bytes(46)

    def receives(self, target):
        """Does a frame to that address come back, which is followed by one that does?"""
        sent = [self.frame(target), self.frame(b"\xff" * 6)]
        for frame in sent:
            self.send(frame)
        self.post()
        got = []
        assert wait_until(lambda: got.extend(self.receive()) or sent[1] in got, interval=0.002)
        assert self.settle()
        return sent[0] in got


@pytest.fixture
def control(server):
    """control(dev, packed, ...): such a front-end that runs, closed after the test."""
    with contextlib.ExitStack() as stack:
        def start(dev=1, packed=False, pairs=1, features=None, index=2, **how):
            fe = stack.enter_context(Control(server.sockets[dev]))
            fe.connect().negotiate(CONTROL if features is None else features, packed, **how)
            return fe.setup(pairs).control(index).start()
        yield start


def role(server, dev, queue):
    return server.telemetry(f"/vfn/queue,{dev},{queue}")["role"]


@FORMATS
def test_commands_are_carried_out(server, control, packed):
    fe = control(packed=packed)
    assert fe.features & 1 << CTRL_MAC and fe.features & 1 << CTRL_VLAN
    fe.check(frames("all"))
    assert [role(server, "vdpa_vfn1", q) for q in range(3)] == ["receive", "transmit", "control"]
    assert server.telemetry("/vfn/info,vdpa_vfn1")["control_queue"] == 2
    assert "Virtq 2 (control):" in server.cmd("stats vdpa_vfn1 2")
    assert fe.receives(OTHER)
    assert fe.command(*PROMISC_OFF) == OK
    assert not fe.receives(OTHER)
    assert fe.command(*MAC_SET) == OK
    assert fe.receives(MINE)
    assert server.telemetry("/vfn/info,vdpa_vfn1")["mac"] == "02:00:00:00:00:55"
    assert fe.command(9, 9) == ERR
    assert fe.command(4, 0, b"\1\0") == ERR     # there is one pair
    assert fe.queue.called(timeout=1)


@FORMATS
@pytest.mark.parametrize("features,index", [(CONTROL, 6), (ONE_PAIR, 2)], ids=["mq", "one-pair"])
def test_it_comes_behind_the_pairs(server, control, packed, features, index):
    fe = control(0, packed, 3 if index == 6 else 1, features, index)
    assert fe.command(*PROMISC_OFF) == OK
    assert role(server, "vdpa_vfn0", index) == "control"
    assert fe.command(*pairs_set(2)) == (OK if index == 6 else ERR)
    assert not fe.receives(OTHER)
    fe.check([fe.frame(b"\xff" * 6)] * 50)


def test_one_that_is_kept(server, control):
    """The device has the feature, and no ring comes: nothing is filtered, all pairs are used."""
    fe = Control(server.sockets[0])
    with fe:
        fe.connect().negotiate(CONTROL).setup(3).start()
        for pair in range(3):
            fe.check(frames(f"pair {pair}", 20), pair)
        assert server.telemetry("/vfn/info,vdpa_vfn0")["control_queue"] == -1
        assert role(server, "vdpa_vfn0", 6) == "none"


@FORMATS
def test_ring_0_is_none(server, opened, packed):
    """Where there is no control queue a ring that begins anew concerns no other."""
    fe = opened(0, packed=packed, pairs=2)
    fe.check(frames("before"))
    before = server.telemetry("/vfn/info,vdpa_vfn0")["stops"]
    fe.conn.tell(set_vring_enable(0, False))
    fe.rings[0].close()
    fe.rings[0] = (PackedRing if packed else SplitRing)(fe.memory, 0, 64)
    fe.rings[0].in_order = fe.rings[1].in_order
    fe.fill()
    fe.start_rings(fe.rings[:1])
    fe.check(frames("after"))
    assert server.telemetry("/vfn/info,vdpa_vfn0")["stops"] == before


@FORMATS
def test_more_data_rings_than_the_device_has(server, packed):
    """virtio-user never asks how many there are. Ring 2 of four is none, whatever was negotiated."""
    for features in CONTROL, FEATURES:
        with FrontEnd(server.sockets[1]) as fe:
            server.expect("^vdpa_vfn1: queue [23] is ignored, there are 1 queue pairs$")
            fe.connect().negotiate(features, packed).setup(pairs=2)
            fe.conn.tell(set_features(fe.features))
            fe.conn.tell(set_mem_table(fe.memory.regions))
            # in its order: all calls, then each ring, then all are enabled
            for ring in fe.rings:
                fe.conn.tell(set_vring_call(ring.index, ring.call_fd))
            for ring in fe.rings:
                for message in ring.setup(enable=False):
                    fe.conn.tell(message)
            for ring in fe.rings:
                fe.conn.tell(set_vring_enable(ring.index))
            fe.conn.tell(fe.script([])[-1])
            fe.check(frames("first pair"))
            assert server.telemetry("/vfn/info,vdpa_vfn1")["control_queue"] == -1
            before = fe.memory.read(fe.rx(1).buffers, 64)
            fe.rx(1).kick()
            fe.check(frames("still"))
            assert fe.memory.read(fe.rx(1).buffers, 64) == before and not fe.rx(1).used()


@FORMATS
def test_bad_commands(control, packed, neighbour):
    """ERR, or given back empty, and nothing has changed; the queue goes on."""
    fe = control(0, packed, features=ONE_PAIR)
    at = fe.queue.buffer()
    fe.memory.write(at, bytes(1 << 10))
    answer = (at + 2000, 1, WRITE)
    bad = [([(at, 1, 0), answer], 1),                   # half a header
           ([answer], 1),                               # none
           ([(at, 2, 0), answer], 1),                   # a mode that is not said
           ([(at, 4, 0), answer], 1),                   # two
           ([(at, 3, 0)], 0),                           # no room for the answer
           ([(1 << 40, 3, 0), answer], 0),              # not mapped
           ([(at, 2, 0), (at, 1 << 30, 0), answer], 0),     # longer than the memory
           ([(at, 2, 0), *[(at + 2, 1 << 16, 0)] * 8, answer], 1)]  # longer than any command
    for segments, written in bad:
        fe.memory.write(answer[0], b"\xff")
        fe.queue.add(segments)
        fe.queue.publish()
        fe.queue.kick()
        got = wait_until(fe.queue.used, interval=0.002)
        assert got and got[0][1] == written, segments
        assert fe.memory.read(answer[0], 1)[0] == (ERR if written else 0xff)
    table = 1, 0
    for data in (b"", b"\xff" * 4, b"\0\0\0\0\xff\xff\xff\xff", b"\1\0\0\0" + b"\2" * 5):
        assert fe.command(*table, data) == ERR
    assert fe.command(1, 1, b"\1\0\0\0\0\0") == fe.command(2, 0, b"\0\x10") == ERR
    assert fe.receives(OTHER)
    assert fe.command(*PROMISC_OFF) == OK
    assert not fe.receives(OTHER)


def test_loop_of_descriptors(server, control, neighbour):
    fe = control(0, features=ONE_PAIR)
    wrong = server.counted("vdpa_vfn0", 2)
    at = fe.queue.buffer()
    head = fe.queue.add([(at, 3, 0)])
    fe.queue.write_desc(head, at, 3, NEXT, head)
    fe.queue.publish()
    fe.queue.kick()
    got = wait_until(fe.queue.used, interval=0.002)
    assert got and got[0][1] == 0
    assert wait_until(lambda: wrong("errors")) == {"errors_loop": 1}
    assert fe.command(*PROMISC_OFF) == OK


@FORMATS
def test_commands_without_end(control, packed, neighbour):
    """All of them are answered, and others are served in between."""
    fe = control(0, packed, features=ONE_PAIR)
    ring = fe.queue
    at = fe.memory.alloc(64)
    fe.memory.write(at, b"\0\0\1")
    done = 0
    while done < 640:
        while ring.fits(2):
            ring.add([(at, 3, 0), (at + 8, 1, WRITE)])
        ring.publish()
        ring.kick()
        fe.check(frames(f"in between {done}", 4))
        neighbour.check(frames(f"the other {done}", 4))
        done += len(ring.used())
    assert fe.memory.read(at + 8, 1)[0] == OK


@FORMATS
def test_call_socket_that_is_full(control, packed, neighbour):
    """As user-mode Linux has them, in front of somebody who does not read. A blocking write to it
    would never end."""
    fe = control(0, packed, features=ONE_PAIR)
    pairs = [socket.socketpair() for _ in fe.rings]
    with contextlib.ExitStack() as stack:
        for ring, (ours, theirs) in zip(fe.rings, pairs):
            stack.enter_context(ours)
            stack.enter_context(theirs)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            ours.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    ours.send(bytes(8))
            ours.setblocking(True)
            fe.conn.tell(set_vring_call(ring.index, ours.fileno()))
        for _ in range(3):
            fe.check(frames("full"))
            assert fe.command(0, 0, b"\1") == OK
            neighbour.check(frames("the other"))


@FORMATS
def test_position_when_it_stops(control, packed):
    fe = control(packed=packed)
    for _ in range(5):
        assert fe.command(*PROMISC_OFF) == OK
    assert fe.stop() == {ring.index: ring.position() for ring in fe.rings}


@FORMATS
@pytest.mark.parametrize("how", ["memory", "stop", "stop-without-status"])
def test_what_was_said_goes_on_with_the_driver(server, control, packed, how):
    """New memory regions, or a stop and a start where the rings stood: the driver is the same."""
    less = {} if how != "stop-without-status" else {"protocol": 0x20f}
    fe = control(packed=packed, **less)
    assert bool(fe.protocol & 1 << F_STATUS) == (how != "stop-without-status")
    assert fe.command(*MAC_SET) == fe.command(*PROMISC_OFF) == OK
    assert not fe.receives(OTHER)
    if how == "memory":
        fe.conn.tell(set_mem_table(fe.memory.regions))
    else:
        fe.stop()
        fe.start_rings()
    assert not fe.receives(OTHER)
    assert fe.receives(MINE)
    assert server.telemetry("/vfn/info,vdpa_vfn1")["mac"] == "02:00:00:00:00:55"
    assert fe.command(0, 0, b"\1") == OK
    assert fe.receives(OTHER)


@FORMATS
def test_another_driver_begins_anew(server, control, packed):
    """It is bound again, as in user-mode Linux: rings off, new ones from the beginning, on. Of a
    packed one that says it begins at 0, wrap counters being unknown to it."""
    fe = control(packed=packed, protocol=0x20f)
    assert fe.command(*MAC_SET) == fe.command(*PROMISC_OFF) == OK
    assert not fe.receives(OTHER)
    for ring in fe.rings[::-1]:
        fe.conn.tell(set_vring_enable(ring.index, False))
    for ring in fe.rings:
        ring.close()
    fe.rings = [(PackedRing if packed else SplitRing)(fe.memory, i, 64) for i in range(3)]
    fe.conn.tell(set_features(fe.features))
    fe.conn.tell(set_mem_table(fe.memory.regions))
    fe.fill()
    for ring in fe.rings:
        for message in ring.setup():
            fe.conn.tell(fe.stale(message) if not packed else zero(message))
    assert fe.receives(OTHER)
    assert server.telemetry("/vfn/info,vdpa_vfn1")["mac"] == "02:00:00:00:00:99"
    assert fe.command(*PROMISC_OFF) == OK
    assert not fe.receives(OTHER)


def zero(message):
    """SET_VRING_BASE becomes one of 0."""
    if message.request != 10:
        return message
    return type(message)(message.request, message.payload[:4] + bytes(4))


@FORMATS
def test_call_replaced(control, packed):
    fe = control(packed=packed)
    assert fe.command(*PROMISC_OFF) == OK
    fe.replace_fds(fe.queue)
    fe.queue.called()
    assert fe.command(*MAC_SET) == OK
    assert fe.queue.called(timeout=5)
    assert not fe.receives(OTHER)


@FORMATS
def test_saved_with_the_parts(server, control, packed):
    """A front-end that reconnects with its rings finds what its driver said; a new one does not."""
    with tempfile.TemporaryDirectory(prefix="vfn-") as directory:
        path = os.path.join(directory, "parts")
        fe = control(packed=packed)
        assert fe.command(*MAC_SET) == fe.command(*PROMISC_OFF) == OK
        fe.stop()
        fe.disconnect()
        assert wait_until(lambda: "error" not in server.telemetry(f"/vfn/snapshot,vdpa_vfn1,{path}"))
        assert "error" not in server.telemetry(f"/vfn/restore,vdpa_vfn1,{path}")
        fe.again()
        assert not fe.receives(OTHER)
        assert fe.receives(MINE)
        fe.disconnect()
        assert wait_until(lambda: "error" not in server.telemetry(
            f"/vfn/restore,vdpa_vfn1,{path}"))
        server.expect("^vdpa_vfn1: queue . is not the one of the restored parts",
                      "^vdpa_vfn1: the restored parts are dropped",
                      # until the disconnection is noticed
                      "^vfn: .*vdpa_vfn1.*: a guest uses the device$")
        other = control(packed=packed)
        assert other.receives(OTHER)


@FORMATS
def test_hot_upgrade(packed):
    with contextlib.ExitStack() as stack:
        workdir = stack.enter_context(tempfile.TemporaryDirectory(prefix="vfn-"))
        listener = stack.enter_context(contextlib.closing(
            Listener(os.path.join(workdir, "sock0"))))
        fe = stack.enter_context(Control(listener.path, listener))
        old = stack.enter_context(Backend("vdpa_vfn0", directory=workdir, client=True))
        fe.connect().negotiate(CONTROL, packed).setup().control(2).start()
        assert fe.command(*MAC_SET) == fe.command(*PROMISC_OFF) == OK
        new = stack.enter_context(Backend("vdpa_vfn0", directory=workdir, client=True,
                                          args=["--take-over", old.process.prefix]))
        process, old.process = old.process, None
        assert process.wait() == 0
        fe.again()
        assert not fe.receives(OTHER)
        assert fe.receives(MINE)
        assert new.telemetry("/vfn/info,vdpa_vfn0")["mac"] == "02:00:00:00:00:55"
        fe.disconnect()


@contextlib.contextmanager
def mortal(packed, file=True, **more):
    """A front-end of a server that is to be killed, which keeps a file of what is in flight."""
    # in memory: an endpoint maps nothing else
    with tempfile.TemporaryDirectory(prefix="vfn-", dir="/dev/shm") as directory, \
            Server(("vdpa_vfn0,mac=02:00:00:00:00:99" + f",inflight={directory}" * file,), **more) as \
            server, \
            Control(server.sockets[0]) as fe:
        fe.connect().negotiate(CONTROL, packed, protocol=0x20f).setup().control(2).start()
        yield server, fe


def again(server):
    server.kill()
    server.start()


@FORMATS
@pytest.mark.parametrize("stale", [False, True])
def test_server_killed(packed, stale):
    """What was said is known to the next one, also what was being said."""
    with mortal(packed) as (server, fe):
        assert fe.command(*MAC_SET) == fe.command(*PROMISC_OFF) == OK
        again(server)
        fe.again(stale=stale)
        assert not fe.receives(OTHER)
        assert fe.receives(MINE)
        assert server.telemetry("/vfn/info,vdpa_vfn0")["mac"] == "02:00:00:00:00:55"
        for mode in 1, 0:
            fe.say(0, 0, bytes([mode]))
            again(server)
            fe.again(stale=stale)
            assert fe.answer() == OK
            assert fe.receives(OTHER) == bool(mode)
            assert fe.receives(MINE)


@FORMATS
@pytest.mark.parametrize("link,file", [("endpoint", True), ("ntb", True), ("ntb", False)],
                         ids=["endpoint", "ntb", "ntb-no-file"])
def test_endpoint_killed(packed, link, file):
    """The next one knows what was said; by windows the driver has kept it. The file is for its own end."""
    with mortal(packed, file, link=link) as (server, fe):
        assert fe.command(*MAC_SET) == fe.command(*PROMISC_OFF) == OK
        for mode in 1, 0:
            fe.say(0, 0, bytes([mode]))
            server.endpoint.kill()
            server.endpoint.start()
            assert fe.answer() == OK
            assert fe.receives(OTHER) == bool(mode)
            assert fe.receives(MINE)
        server.endpoint.kill()
        server.endpoint.start()     # and nothing was said to the one before
        assert not fe.receives(OTHER)
        if file:
            again(server)
            fe.again()
            assert not fe.receives(OTHER)
        assert server.telemetry("/vfn/info,vdpa_vfn0")["mac"] == "02:00:00:00:00:55"
        fe.disconnect()


@FORMATS
def test_server_killed_and_another_driver(packed):
    """In the memory of the one before, at the same places."""
    with mortal(packed) as (server, fe):
        assert fe.command(*PROMISC_OFF) == fe.command(*MAC_SET) == OK
        assert not fe.receives(OTHER)
        again(server)
        fe.disconnect()
        for ring in fe.rings:
            ring.close()
        fe.rings = [(PackedRing if packed else SplitRing)(fe.memory, i, 64) for i in range(3)]
        fe.fill()
        fe.again()
        assert fe.receives(OTHER)
        assert server.telemetry("/vfn/info,vdpa_vfn0")["mac"] == "02:00:00:00:00:99"
        assert fe.command(*PROMISC_OFF) == OK
        assert not fe.receives(OTHER)


@FORMATS
def test_in_flight_region(control, packed):
    fe = control(packed=packed, protocol=0x1120f)
    assert fe.protocol & 1 << F_INFLIGHT
    fe.stop()
    answer, fd = fe.conn.ask_fd(get_inflight_fd(3, 64))
    size = struct.unpack_from("=Q", answer)[0]
    fe.conn.tell(set_inflight_fd(size, 3, 64, fd))
    fe.start_rings()
    assert fe.command(*PROMISC_OFF) == OK
    step = size // 3 // 64 * 64
    assert any(os.pread(fd, step, 2 * step)) and not fe.receives(OTHER)
    os.close(fd)


def test_it_is_judged_as_the_others(server):
    server.expect("^vdpa_vfn1: SET_VRING_NUM of ring 2 refused: a size out of range")
    with Control(server.sockets[1]) as fe:
        fe.connect().negotiate(CONTROL).setup()
        fe.conn.tell(set_features(fe.features))
        with pytest.raises(Exception, match="SET_VRING_NUM"):
            fe.conn.tell(set_vring_num(2, 32769))
    works(server, 1)
