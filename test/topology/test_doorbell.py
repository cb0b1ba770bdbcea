# SPDX-License-Identifier: BSD-3-Clause
"""Doorbells that guests ring by a plain store (host notifiers): who is offered them, what a
front-end that does not play along can do, and that a guest in QEMU kicks without an exit.
"""

import contextlib
import os
import random
import re
import socket
import struct
import threading
import time

import pytest

from back_channel import (DOORBELLS, F_BACKEND_REQ, PAGE, VRING_HOST_NOTIFIER, BackChannel,
                          DoorbellFrontEnd, set_backend_req_fd)
# pytest finds fixtures by their names here
from frontend import FORMATS, Server, bare, frames, neighbour, opened, server, shared, works  # noqa: F401
from guest import Guest, Nic, missing
from harness import NIGHTLY, SLOW, Backend, cpu, wait_until
from net_device import PROTOCOL
from vhost_user import Closed, set_vring_enable

ON, SLEEPS, OFF = range(3)
DEVS = ["vdpa_vfn0,queues=3,idle=busy,doorbell=on", "vdpa_vfn1,idle=sleep,doorbell=on",
        "vdpa_vfn2,idle=busy"],
STOP_SECONDS = 3        # what a front-end may hold up others


def kicks(fd, pid="self"):
    """How often an eventfd was written since it was read."""
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as info:
        return int(re.search(r"^eventfd-count:\s+([0-9a-f]+)", info.read(), re.M)[1], 16)


def threads(pid):
    """The threads that ask front-ends."""
    found = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{tid}/comm",
                                                encoding="ascii") as comm:
            found += [tid] if comm.read() == "vfn-doorbell\n" else []
    return found


def nobody_asks(server):
    """Any more: a thread that was joined may be listed for a moment."""
    assert wait_until(lambda: not threads(server.pid), timeout=0.5)


def states(server, dev, queues):
    """What the device says of its doorbells."""
    return [server.telemetry(f"/vfn/queue,{server.names[dev]},{q}")["doorbell"]
            for q in range(queues)]


def comes_to(server, dev, expected):
    assert wait_until(lambda: states(server, dev, len(expected)) == expected), \
        states(server, dev, len(expected))


@contextlib.contextmanager
def ready(server, dev=ON, pairs=1, packed=False, full=False):
    """A front-end that runs and has answered nothing yet."""
    with DoorbellFrontEnd(server.sockets[dev]) as fe:
        if full:
            fe.channel.fill()
        yield fe.connect().negotiate(packed=packed).setup(pairs).start()


@FORMATS
def test_frames_pass_without_eventfd(server, packed):
    with ready(server, pairs=2, packed=packed) as fe:
        fe.serve()
        comes_to(server, ON, ["mapped"] * 4)
        before = [kicks(ring.kick_fd) for ring in fe.rings]
        for pair in range(2):
            fe.check(frames(f"pair {pair}", 300), pair)
        assert [kicks(ring.kick_fd) for ring in fe.rings] == before
        # each ring has rung its own page
        assert [fe.doorbells[ring].words[0] for ring in range(4)] == [0, 1, 2, 3]
        assert not fe.channel.asked()
        # the negative control: this is how a kick is seen
        fe.forget()
        fe.check(frames("eventfd", 50))
        assert kicks(fe.tx().kick_fd) > before[1]
    assert wait_until(lambda: not threads(server.pid))


def test_queues_that_come_later_and_guests_that_come_again(server):
    with DoorbellFrontEnd(server.sockets[ON]) as fe:
        fe.connect().negotiate().setup(pairs=2)
        for message in fe.script(fe.rings[:2]):
            fe.conn.tell(message)
        fe.serve([0, 1])
        assert not fe.channel.asked(0.2)
        fe.start_rings(fe.rings[2:])
        fe.serve([2, 3])
        fe.check(frames("later"), 1)
        # a ring that pauses keeps what the front-end has mapped
        fe.conn.tell(set_vring_enable(3, False))
        fe.conn.tell(set_vring_enable(3))
        fe.check(frames("paused"), 1)
        assert not fe.channel.asked(0.2)
        # a device that stops does not: a front-end unmaps it there
        for turn in range(3):
            fe.stop()
            assert states(server, ON, 4) == ["off"] * 4
            fe.forget()
            fe.start()
            fe.serve()
            fe.check(frames(f"again {turn}"), turn % 2)


def test_next_guest_has_other_pages(server):
    """Who was here before sees nothing of it, and rings nothing."""
    with ready(server) as old:
        old.serve()
        old.disconnect()
        with ready(server) as fe:
            fe.serve()
            old.doorbells[1].words[0] = 77
            fe.check(frames("new"))
            assert fe.doorbells[1].words[0] == 1
            assert old.doorbells[1].words[0] == 77


@pytest.mark.parametrize("dev", [SLEEPS, OFF], ids=["a-poller-that-sleeps", "off"])
def test_not_offered(server, dev):
    with ready(server, dev) as fe:
        assert fe.protocol & DOORBELLS == 1 << F_BACKEND_REQ    # which has other uses
        fe.check(frames("eventfds"))
        assert kicks(fe.tx().kick_fd) > 0
        assert states(server, dev, 2) == ["off"] * 2
        assert not fe.channel.asked()
        nobody_asks(server)


@pytest.mark.parametrize("lacking", [0, 5, 10, 11])
def test_frontend_without_a_part_of_it_is_not_asked(server, lacking):
    wanted = PROTOCOL | DOORBELLS & ~(1 << lacking) if lacking else PROTOCOL
    with DoorbellFrontEnd(server.sockets[ON]) as fe:
        fe.connect().negotiate(protocol=wanted).setup().start()
        fe.check(frames("lacking"))
        assert not fe.channel.asked()
        nobody_asks(server)


def test_sleeper_on_the_wire_keeps_awake_for_a_peer_that_rings_memory():
    """vfn1's frames wait for vfn0's buffers, whose kicks are stores: nobody may sleep on those."""
    devs = [f"vdpa_vfn0,port=wire,idle=busy,doorbell=on,poll-cpu={cpu(0)}",
            f"vdpa_vfn1,port=wire,peer=vdpa_vfn0,idle=sleep,poll-cpu={cpu(1)}"]
    with Backend(devs) as backend:
        for protocol, sleeps in ((PROTOCOL, True), (PROTOCOL | DOORBELLS, False)):
            with DoorbellFrontEnd(backend.sockets[0]) as a, \
                    DoorbellFrontEnd(backend.sockets[1]) as b:
                a.connect().negotiate(protocol=protocol).setup().start()
                b.connect().negotiate().setup().start()
                if not sleeps:
                    a.serve()

                def armed():
                    return backend.telemetry("/vfn/queue,vdpa_vfn1,1")["armed"]
                before = armed()
                for number in range(5):
                    for frame in frames(number, 5):
                        b.send(frame)
                    b.post()
                    assert wait_until(lambda: len(a.receive()) > 0)
                    time.sleep(0.05)
                assert wait_until(lambda: armed() > before) if sleeps else armed() == before


# Front-ends that do not play along.


def test_refusal_is_no_error(server, neighbour):  # pylint: disable=unused-argument
    """QEMU without page-per-vq refuses."""
    with ready(server) as fe:
        assert [fe.take(value=1) for _ in range(4)] == [0, 0, 1, 1]
        assert fe.withdrawn == [0, 1]
        comes_to(server, ON, ["refused"] * 2)
        fe.check(frames("refused"))


@contextlib.contextmanager
def answering(fe):
    """Every question, as it comes; until the end the channel is of no use to others."""
    def answer():
        with contextlib.suppress(Closed, TimeoutError, OSError):
            while True:
                fe.take()

    helper = threading.Thread(target=answer)
    helper.start()
    try:
        yield
    finally:
        fe.channel.ours.shutdown(socket.SHUT_RDWR)
        helper.join()


def held_up(action):
    """How long it takes."""
    start = time.monotonic()
    action()
    return time.monotonic() - start


@FORMATS
def test_no_answer(server, neighbour, packed):
    with ready(server, packed=packed) as fe:
        assert fe.channel.asked(10)
        fe.check(frames("unanswered"))
        neighbour.check(frames("unanswered"))
        # a front-end that waits for its own answer cannot give one
        assert held_up(fe.stop) < STOP_SECONDS * SLOW
        nobody_asks(server)
        # of the old ones too, and then the new ones are heard
        with answering(fe):
            fe.start()
            comes_to(server, ON, ["mapped"] * 2)
            fe.check(frames("answered"))


@pytest.mark.parametrize("answer", [
    struct.pack("=I", VRING_HOST_NOTIFIER), struct.pack("=III", VRING_HOST_NOTIFIER, 5, 8),
    struct.pack("=III", VRING_HOST_NOTIFIER, 5, 8) + b"1234",
    struct.pack("=III", VRING_HOST_NOTIFIER, 5, 0xffffffff),
    struct.pack("=IIIQ", 2, 5, 8, 0), bytes(range(256)) * 8],
    ids=["half-a-header", "no-payload", "half-a-payload", "huge", "to-something-else", "noise"])
def test_answer_that_is_none(server, neighbour, answer):  # pylint: disable=unused-argument
    with ready(server) as fe:
        fe.channel.ours.sendall(answer)
        fe.check(frames("nonsense"))
        assert held_up(fe.stop) < STOP_SECONDS * SLOW
        fe.start()
        fe.check(frames("nonsense, again"))


@bare
def test_back_channel_replaced_while_it_waits(server):
    with ready(server) as fe:
        comes_to(server, ON, ["offered", "ready"])
        old, fe.channel = fe.channel, BackChannel()
        try:
            fe.conn.tell(set_backend_req_fd(fe.channel.theirs.fileno()))
            fe.check(frames("replaced"))
            assert held_up(fe.stop) < STOP_SECONDS * SLOW
            assert fe.take() == 0 and fe.withdrawn == [0]
            fe.start()
            fe.serve()
            fe.check(frames("replaced, again"))
        finally:
            old.close()


@pytest.mark.parametrize("channel", ["stays", "closes-too"])
def test_hangs_up_instead_of_an_answer(server, neighbour, channel):
    with ready(server) as fe:
        assert fe.channel.asked(10)
        if channel == "closes-too":
            fe.channel.close()
        fe.disconnect()
        # the process still has its end: nobody waits for it
        server.answers(server.sockets[OFF])
        assert wait_until(lambda: not threads(server.pid), timeout=STOP_SECONDS)
        neighbour.check(frames("hung up"))
        works(server)


def test_front_end_that_never_answers_is_asked_no_more(server):
    with ready(server) as fe:
        # the gate says no to a question after a second, but not to a later one
        for _ in range(8):
            for fd in fe.channel.receive()[3]:
                os.close(fd)
            fe.stop()
            time.sleep(0.2)
            fe.start()
        assert states(server, ON, 2) == ["off"] * 2
        nobody_asks(server)
        fe.check(frames("no more"))
    with ready(server) as fe:      # that was one connection's
        fe.serve()


def test_answers_race_with_stops(server, neighbour):  # pylint: disable=unused-argument
    rng = random.Random(9)

    def answer(fe):
        """Until the front-end is closed, at once or a little later."""
        with contextlib.suppress(Closed, TimeoutError, OSError):
            while True:
                request, _, _, fds = fe.channel.receive(timeout=0.2)
                for fd in fds:
                    os.close(fd)
                time.sleep(rng.choice((0, 0, 0.0005, 0.002)))
                fe.channel.answer(request)

    for _ in range(200 if NIGHTLY else 20):
        with ready(server, pairs=3) as fe:
            helper = threading.Thread(target=answer, args=(fe,))
            helper.start()
            try:
                for _ in range(4):
                    time.sleep(rng.choice((0, 0.001, 0.004)))
                    fe.stop()
                    fe.start()
                fe.check(frames("race", 10))
                fe.disconnect()
            finally:
                fe.channel.ours.shutdown(socket.SHUT_RDWR)
                helper.join()
    assert wait_until(lambda: not threads(server.pid))


@bare
@pytest.mark.parametrize("end", ["stop", "disconnect"])
def test_back_channel_that_takes_nothing(server, neighbour, end):
    with ready(server, full=True) as fe:
        comes_to(server, ON, ["offered", "ready"])
        fe.check(frames("full"))
        if end == "stop":
            server.expect("takes no messages")
            assert held_up(fe.stop) < STOP_SECONDS * SLOW
            fe.start()
            assert states(server, ON, 2) == ["off"] * 2
            fe.check(frames("started anew"))
        else:
            fe.disconnect()
        server.said("takes no messages")
        nobody_asks(server)
        neighbour.check(frames("full"))
    works(server)


@bare
@pytest.mark.parametrize("bad", ["none", "pipe"])
def test_back_channel_that_is_none(server, bad):
    with DoorbellFrontEnd(server.sockets[ON]) as fe:
        read, write = os.pipe()
        try:
            fe.handed_over = {"none": None, "pipe": write}[bad]
            fe.connect().negotiate().setup().start()
            comes_to(server, ON, ["refused"] * 2)
            fe.check(frames("no channel"))
        finally:
            os.close(read)
            os.close(write)


@pytest.mark.parametrize("full", [False, True], ids=["no-answer", "takes-nothing"])
def test_server_ends_while_it_waits(full):
    log = ["--log-level=pmd.vdpa.vfn.*:debug"]
    with Backend([DEVS[0][ON]], eal=log) as backend, ready(backend, full=full):
        comes_to(backend, 0, ["offered", "ready"])
        for line in ("queue 0: doorbell ready", "queue 0: doorbell offered",
                     "queue 1: doorbell ready"):
            backend.process.expect(f"vdpa_vfn0: {line}")
        backend.stop()


# A guest in QEMU.


class Kicks:
    """The kick eventfds of two queues of a device, counted in the process that polls the rings.

    A poller that does not sleep never reads them, so that they hold all kicks.
    """

    def __init__(self, backend, dev):
        found = re.findall(rf"/gate\.\w+/{dev}\) vring kick idx:(\d) file:(\d+)",
                           backend.log())
        fds = {int(ring): int(fd) for ring, fd in found}    # the last of each
        self.pid, self.fds = backend.pid, [fds[ring] for ring in range(2)]
        self.before = self.now()

    def now(self):
        return [kicks(fd, self.pid) for fd in self.fds]

    def grown(self):
        return [now - before for now, before in zip(self.now(), self.before)]


def rung(backend):
    """The first words of two doorbells, of all devices that offer them."""
    directory = f"/proc/{backend.pid}/fd"
    found = []
    for fd in os.listdir(directory):
        with contextlib.suppress(OSError):
            if "vfn-doorbells" not in os.readlink(f"{directory}/{fd}"):
                continue
            with open(f"{directory}/{fd}", "rb") as file:
                data = file.read(2 * PAGE)
            found.append([int.from_bytes(data[at:at + 2], "little") for at in (0, PAGE)])
    return sorted(found)


@pytest.mark.skipif(bool(missing()), reason=f"packages not installed: {' '.join(missing())}")
def test_guest_kicks_without_an_exit():
    """Two cards of one guest, wired, one with doorbells and one without: the control.

    To a poller that does not sleep a guest kicks only the first time; in packed rings not even
    then.
    """
    devs = ["vdpa_vfn0,port=wire,idle=busy,doorbell=on",
            "vdpa_vfn1,port=wire,peer=vdpa_vfn0,idle=busy",
            "vdpa_vfn2,idle=busy,doorbell=on"]
    pages = "on", "on", "off"
    with Backend(devs, eal=["--log-level=lib.vhost.config:info"]) as backend, \
            Guest([Nic(path, f"52:54:00:00:0b:0{number}", props={"page-per-vq": pages[number]})
                   for number, path in enumerate(backend.sockets)]) as guest:
        guest.boot()
        namespace = guest.run("unshare -n sleep 9999 >/dev/null 2>&1 </dev/null & echo $!").out
        for turn in range(2):
            guest.run(f"ip link set eth1 netns {namespace}")
            # the driver is bound, the interface is down: nobody has kicked yet
            comes_to(backend, 0, ["mapped"] * 2)
            assert states(backend, 1, 2) == ["off"] * 2
            comes_to(backend, 2, ["refused"] * 2)
            memory, eventfds = (Kicks(backend, dev) for dev in range(2))
            guest.run(f"""
                set -e
                ip link set eth0 up
                ip addr replace 10.9.8.1/24 dev eth0
                nsenter -t {namespace.strip()} -n sh -c \
                    "ip link set eth1 up; ip addr replace 10.9.8.2/24 dev eth1"
                ping -c 20 -i 0.01 -W 20 10.9.8.2
            """)
            assert memory.grown() == [0, 0]
            assert rung(backend) == [[0, 0], [0, 1]]
            assert all(n > 0 for n in eventfds.grown()), eventfds.grown()
            if turn == 0:
                guest.run("""
                    cd /sys/bus/virtio/drivers/virtio_net
                    for device in virtio*; do echo $device >unbind; done
                    for device in $(cd /sys/bus/virtio/devices; echo *); do
                        grep -q 0x0001 /sys/bus/virtio/devices/$device/device &&
                            echo $device >bind
                    done; true
                """)
