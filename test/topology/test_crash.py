# SPDX-License-Identifier: BSD-3-Clause
"""SIGKILL at any moment: of vfn-vhost, whose successor goes on where it ended, and of front-ends,
whose successors start clean.

The front-end owns the socket and vfn-vhost connects. A scripted front-end accounts for every
chain; testpmd and a Linux guest show that drivers which know nothing of it go on. Moments are
random; the seed is printed.
"""

import contextlib
import multiprocessing
import os
import random
import re
import signal
import struct
import subprocess
import time

import pytest

from frontend import frames
from guest import missing
from harness import NIGHTLY, SLOW, Backend, Echo, Loop, PmdError, parse_stats
from harness import random_packets, wait_until
from net_device import FEATURES, HEADER, PROTOCOL, FrontEnd, open_frontend
from test_qemu import MIXED, Flow, configure, ipv4, ping, random_data, wired_by
from vhost_user import (DRIVER_OK, F_INFLIGHT, LOG_ALL, Closed, Listener, Refused, Request,
                        get_inflight_fd, set_features, set_inflight_fd, set_log_base, set_mem_table,
                        set_status, set_vring_base, set_vring_num)

SEED = random.SystemRandom().randrange(1 << 32) if NIGHTLY else 20240611
FORMATS = pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
BURST = 32      # the function takes so many chains at once
SIZE = 64


@pytest.fixture
def rng(request):
    print(f"seed {SEED}")
    return random.Random(f"{SEED} {request.node.name}")


class Lost(Exception):
    """A chain was lost, or completed twice."""


class Survivor(FrontEnd):
    """A front-end that outlives its back-ends and accounts for every chain.

    Frames carry numbers. `track`: it hands out an in-flight region; `stale`: it says that its
    rings stand where they began, as QEMU does of packed ones after a back-end died; `log`: it
    migrates all the time.
    """

    def __init__(self, path, listener, packed, track=True, stale=None, log=None):
        super().__init__(path, listener)
        self.want_packed, self.track, self.log = packed, track, log
        self.stale = packed if stale is None else stale
        self.inflight = None    # (size, fd)
        self.entries = SIZE     # per ring, that it is for
        self.next_out = self.next_in = 0
        self.out = [set(), set()]       # chains that the device has, per ring
        self.completed = self.repeated = self.deaths = 0
        self.caught = []                # how many chains were in flight when a device died

    def close(self):
        super().close()
        if self.inflight is not None:
            os.close(self.inflight[1])
            self.inflight = None

    def meet(self):
        """A back-end connects: the first one, or another one."""
        protocol = PROTOCOL | (1 << F_INFLIGHT if self.track else 0)
        self.connect().negotiate(FEATURES, self.want_packed, protocol)
        assert self.packed == self.want_packed
        assert bool(self.protocol >> F_INFLIGHT & 1) == self.track
        if not self.rings:
            self.setup(size=SIZE)
        tell = self.conn.tell
        if self.log is not None:
            self.features |= 1 << LOG_ALL
        tell(set_features(self.features))
        tell(set_mem_table(self.memory.regions))
        if self.log is not None:
            tell(set_log_base(os.fstat(self.log).st_size, 0, self.log))
        for ring in self.rings:
            tell(set_vring_num(ring.index, ring.size))
        if self.track:
            if self.inflight is None:
                payload, fd = self.conn.ask_fd(get_inflight_fd(2, self.entries))
                self.inflight = struct.unpack_from("=Q", payload)[0], fd
            tell(set_inflight_fd(self.inflight[0], 2, self.entries, self.inflight[1]))
        for ring in self.rings:
            for message in ring.setup():
                if message.request == Request.SET_VRING_BASE:
                    message = set_vring_base(ring.index, self.base(ring))
                tell(message)
        tell(set_status(DRIVER_OK))
        for ring in self.rings:
            ring.kick()
        return self

    def base(self, ring):
        if self.stale:
            return 0x8000 if self.packed else 0
        return ring.position() if self.packed else self.memory.load(ring.device + 2)

    def fill(self, pair=0):
        ring = self.rx(pair)
        before = set(ring.free)
        super().fill(pair)
        self.out[0] |= before - set(ring.free)

    def clear(self):
        """The driver sets its rings up anew, where they are, and posts receive buffers."""
        for ring in self.rings:
            for at, size in zip((ring.desc, ring.driver, ring.device), ring.area_sizes()):
                self.memory.write(at, bytes(size))
            ring.free, ring.room = list(range(ring.size))[::-1], ring.size
            if self.packed:
                ring.chains, ring.pending = {}, []
                ring.slot = ring.used_slot = 0
                ring.wrap = ring.used_wrap = 1
            else:
                ring.heads, ring.avail, ring.seen = {}, 0, 0
        self.out = [set(), set()]
        self.next_out = self.next_in = 0
        self.fill()

    def reap(self, ring, which):
        """What came back, each of which the device must have had."""
        try:
            got = ring.used()
        except (KeyError, ValueError, struct.error) as error:
            raise Lost(f"ring {ring.index}: an unknown chain came back: {error}") from error
        for number, _ in got:
            if number not in self.out[which]:
                raise Lost(f"ring {ring.index}: chain {number} came back twice")
            self.out[which].remove(number)
        self.completed += len(got)
        return got

    def turn(self):
        """Send what fits, take what has come; True if something has."""
        rx = self.rx()
        sent = self.reap(self.tx(), 1)
        self.offer()
        self.post()
        got = self.reap(rx, 0)
        for number, length in got:
            data = self.memory.read(rx.buffers + number * 2048, length)
            frame = struct.unpack_from("=Q", data, HEADER)[0]
            if len(data) != HEADER + 60 + frame * 7 % 900:
                raise Lost(f"frame {frame} has {len(data) - HEADER} bytes")
            self.arrived(frame)
        self.fill()
        return bool(got or sent)

    def offer(self):
        """Add frames as far as they fit."""
        while self.tx().fits(2):
            frame = struct.pack("=Q", self.next_out).ljust(60 + self.next_out * 7 % 900, b"\xa5")
            self.out[1].add(self.send(frame, cuts=(HEADER,) if self.next_out % 3 else ()))
            self.next_out += 1

    def strike(self, pid, seconds):
        """SIGKILL while the device has no room for what it is sent: it takes chains and hands them
        back, over and over."""
        quiet = 0
        while quiet < 5:    # receive buffers are not posted again
            quiet = 0 if self.reap(self.tx(), 1) else quiet + 1
            self.offer()
            self.post()
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)

    def arrived(self, frame):
        """In order; what was under way when a back-end died may be delivered by the next one."""
        if frame < self.next_in:
            if self.deaths == 0 or self.next_in - frame > BURST:
                raise Lost(f"frame {frame} came again after {self.next_in - 1}")
            self.repeated += 1
        elif frame > self.next_in:
            raise Lost(f"frame {frame} came after {self.next_in - 1}")
        self.next_in = frame + 1

    def run(self, seconds):
        """Traffic for so long, or until the back-end is gone."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.conn.gone():
            if not self.turn():
                self.rx().called(0.001)

    def settled(self, timeout=10):
        """Traffic goes on, and in the end every chain has come back."""
        goal = self.next_in + 4 * SIZE
        end = time.monotonic() + timeout * SLOW
        while self.next_in < goal and time.monotonic() < end:
            if not self.turn():
                self.rx().called(0.001)
        if self.next_in < goal:
            raise Lost(f"nothing comes any more, {len(self.out[1])} sent chains are out, "
                       f"{self.next_in} of {self.next_out} frames have come")
        # queue by queue: a relay may hand back sent chains before the frames that they were
        while (self.out[1] or self.next_in != self.next_out) and time.monotonic() < end:
            self.reap(self.tx(), 1)
            for number, length in self.reap(self.rx(), 0):
                data = self.memory.read(self.rx().buffers + number * 2048, length)
                self.arrived(struct.unpack_from("=Q", data, HEADER)[0])
            self.fill()
        if self.out[1]:
            raise Lost(f"{len(self.out[1])} sent chains did not come back")
        if self.next_in != self.next_out:
            raise Lost(f"{self.next_in} of {self.next_out} frames arrived")


@contextlib.contextmanager
def victim(workdir, options="", connects=True):
    """vfn-vhost that connects to a socket, to be killed; a listener for it."""
    backend = Backend([f"vdpa_vfn0,queues=1{options}"], client=connects, directory=workdir,
                      eal=["--log-level=pmd.vdpa.vfn.*:debug"],
                      start=False)
    try:
        yield backend
    finally:
        backend.close()


def kill_at_random(fe, backend, rng, kills, patience=10):
    """Traffic, and another vfn-vhost after each SIGKILL; some die while they start."""
    backend.start()
    fe.meet()
    fe.run(0.2)
    for _ in range(kills):
        early = rng.random() < 0.25
        fe.run(rng.uniform(0, 0.15))
        if rng.random() < 0.5:
            fe.strike(backend.pid, rng.uniform(0, 0.0005))
        backend.kill()
        fe.disconnect()
        fe.deaths += 1
        backend.start()
        if early:
            # somewhere between the first message and the first bursts
            timer = multiprocessing.get_context("fork").Process(
                target=kill_later, args=(backend.pid, rng.uniform(0, 0.006)))
            timer.start()
            try:
                with contextlib.suppress(Closed, Refused, ConnectionError, TimeoutError):
                    fe.meet()
                    fe.run(1)
            finally:
                timer.join()
            backend.process.wait()
            backend.process = None
            fe.disconnect()
            backend.start()
        fe.meet()
        fe.settled(patience)
        fe.caught += [int(n) for n in re.findall(r"queue \d: (\d+) chains were in flight",
                                                 backend.log()) if n != "0"]
    assert fe.completed > kills * SIZE


def kill_later(pid, seconds):
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


KILLS = 200 if NIGHTLY else 10


@FORMATS
def test_no_chain_lost_and_none_twice(workdir, packed, rng):
    """The front-end hands out an in-flight region."""
    with victim(workdir, ",idle=busy") as backend:
        listener = Listener(backend.sockets[0])
        with contextlib.closing(listener), Survivor(listener.path, listener, packed) as fe:
            kill_at_random(fe, backend, rng, KILLS)
            print(f"{fe.deaths} kills, {fe.completed} chains, {fe.repeated} frames came again; "
                  f"in flight were {fe.caught}")
            assert fe.caught or not NIGHTLY


@FORMATS
def test_shadow_rings_leave_nothing_in_flight(workdir, packed, rng):
    """The guest migrates, and what dies with the process is the relay and its rings."""
    with contextlib.ExitStack() as stack:
        log = os.memfd_create("log")
        stack.callback(os.close, log)
        os.ftruncate(log, 1 << 20)
        backend = stack.enter_context(victim(workdir, ",idle=busy,lm=shadow"))
        listener = stack.enter_context(contextlib.closing(Listener(backend.sockets[0])))
        fe = stack.enter_context(Survivor(listener.path, listener, packed, log=log))
        kill_at_random(fe, backend, rng, KILLS if NIGHTLY else 4)
        backend.process.expect("queue 1: shadow ring")


@FORMATS
def test_region_in_a_file(workdir, packed, rng):
    """The front-end knows nothing of it: vfn-vhost keeps the region in a file of its own."""
    with victim(workdir, f",inflight={workdir}") as backend:
        listener = Listener(backend.sockets[0])
        with contextlib.closing(listener), \
                Survivor(listener.path, listener, packed, track=False) as fe:
            kill_at_random(fe, backend, rng, KILLS if NIGHTLY else 4)


def test_control_without_a_region(workdir, rng):
    """Negative control: with no region and a packed ring that is said to stand where it began the
    accounting finds chains that are lost or come back twice."""
    with victim(workdir) as backend:
        listener = Listener(backend.sockets[0])
        with contextlib.closing(listener), \
                Survivor(listener.path, listener, packed=True, track=False) as fe:
            with pytest.raises(Lost):
                kill_at_random(fe, backend, rng, 3, patience=2)


@pytest.mark.parametrize("off,what", [(-BURST - 8, "twice|came"),
                                      (3, "did not come back|came after|twice")])
def test_control_used_index_is_off(workdir, off, what):
    """The same for a split ring, whose used index librte_vhost believes, not the front-end: it is
    not what it was when the device ended."""
    with victim(workdir) as backend:
        listener = Listener(backend.sockets[0])
        with contextlib.closing(listener), \
                Survivor(listener.path, listener, packed=False, track=False) as fe:
            backend.start()
            fe.meet().run(0.2)
            backend.kill()
            fe.disconnect()
            fe.deaths += 1
            with pytest.raises(Lost, match=what):
                fe.turn()
                index = fe.tx().device + 2
                fe.memory.store(index, fe.memory.load(index) + off & 0xffff)
                backend.start()
                fe.meet().settled()


# --- what a new vfn-vhost must not believe -------------------------------------------------------

@FORMATS
def test_guest_that_starts_anew_while_nobody_serves_it(workdir, packed):
    """The same memory and the same place, but the rings are cleared: the file tells of old ones."""
    with victim(workdir, f",inflight={workdir}") as backend:
        listener = Listener(backend.sockets[0])
        with contextlib.closing(listener), \
                Survivor(listener.path, listener, packed, track=False, stale=False) as fe:
            for turn in range(4):
                backend.start()
                fe.meet()
                fe.run(0.05 + 0.02 * turn)
                backend.kill()
                fe.disconnect()
                fe.clear()
            backend.start()
            fe.meet().settled()


@FORMATS
def test_ring_set_up_anew_between_stop_and_start(workdir, packed):
    """A front-end that hands its region out again for rings which begin anew."""
    with victim(workdir) as backend:
        listener = Listener(backend.sockets[0])
        with contextlib.closing(listener), Survivor(listener.path, listener, packed) as fe:
            backend.start()
            fe.meet()
            for turn in range(4):
                fe.run(0.03 + 0.02 * turn)
                fe.stop()
                fe.clear()
                fe.start_rings()
            fe.settled()


def other_boot(data):
    return data[:16] + bytes(40) + data[56:]


GARBAGE = {
    "empty": lambda data: b"",
    "short": lambda data: data[:5000],
    "noise": lambda data: random.Random(1).randbytes(len(data)),
    "another boot": other_boot,
    "noise in the regions": lambda data: data[:0x4000] + random.Random(2).randbytes(0x20000)
    + data[0x24000:],
    "no header": lambda data: bytes(0x4000) + data[0x4000:],
}


@pytest.mark.parametrize("how", GARBAGE)
def test_file_that_cannot_be_believed(workdir, how):
    """Split rings, which need no more than what is in the ring: the file does no harm."""
    path = os.path.join(workdir, "vdpa_vfn0.inflight")
    with victim(workdir, f",inflight={workdir}") as backend:
        listener = Listener(backend.sockets[0])
        with contextlib.closing(listener), \
                Survivor(listener.path, listener, False, track=False) as fe:
            backend.start()
            fe.meet().run(0.1)
            assert os.stat(path).st_mode & 0o777 == 0o600
            backend.kill()
            fe.disconnect()
            fe.deaths += 1
            with open(path, "r+b") as file:
                data = GARBAGE[how](file.read())
                file.seek(0)
                file.truncate()
                file.write(data)
            backend.start()
            fe.meet().settled()


def test_two_processes_one_file(workdir):
    """It belongs to the process whose guest is there; the other one's guest is not tracked."""
    devs = [f"vdpa_vfn0,queues=1,inflight={workdir}"]
    with contextlib.ExitStack() as stack:
        backends = []
        for name in "first", "second":
            directory = os.path.join(workdir, name)
            os.mkdir(directory)
            backends.append(Backend(devs, directory=directory))
            stack.callback(backends[-1].close)
        first, second = backends
        owner = stack.enter_context(open_frontend(first.sockets[0], packed=True))
        owner.check(frames("owner"))
        with open_frontend(second.sockets[0], packed=True) as fe:
            fe.check(frames("not tracked"))
            assert "the in-flight file is in use by another process" in second.log()
            assert "nothing is tracked" in second.log()
        owner.check(frames("owner again"))
        owner.close()
        # it is free now
        assert wait_until(lambda: "disconnected" in first.log())
        mark = second.process.mark()
        with open_frontend(second.sockets[0], packed=True) as fe:
            fe.check(frames("tracked"))
            assert "in use" not in second.log()[mark:]


@pytest.mark.parametrize("what", ["readable by others", "a link", "a directory", "no directory"])
def test_file_that_is_not_ours(workdir, what):
    path = os.path.join(workdir, "vdpa_vfn0.inflight")
    directory = workdir
    if what == "readable by others":
        with open(path, "wb"):
            os.chmod(path, 0o644)
    elif what == "a link":
        os.symlink("/dev/null", path)
    elif what == "a directory":
        os.mkdir(path)
    else:
        directory = os.path.join(workdir, "none")
    with victim(workdir, f",inflight={directory}") as backend:
        with pytest.raises(PmdError, match="inflight=.*vdpa_vfn0.inflight (cannot|is not)"):
            backend.start()


@FORMATS
@pytest.mark.parametrize("fault", ["few entries", "file ends"])
def test_region_that_is_too_small(workdir, packed, fault):
    """Refused, and vfn-vhost lives."""
    with victim(workdir, connects=False) as backend:
        backend.start()
        with Survivor(backend.sockets[0], None, packed) as fe:
            if fault == "few entries":
                fe.entries = SIZE // 2
                fe.meet().run(0.2)
                assert fe.next_in == 0
                backend.process.expect("queue 1.* in-flight region .*too small")
            else:
                # the second ring's region begins before the end of the file
                fe.entries = 100 if packed else 200
                fd = os.memfd_create("region")
                fe.inflight = 1 << 16, fd
                os.ftruncate(fd, 4096)
                with pytest.raises(Refused):
                    fe.meet()
                backend.process.expect("SET_INFLIGHT_FD refused: a region longer than its file")
        with open_frontend(backend.sockets[0], packed=packed) as fe:
            fe.check(random_packets("after", 50))
        backend.stop()


@pytest.mark.parametrize("room", ["4k", "24k", "32k"])
def test_in_flight_file_without_room(workdir, room):
    """For its head, or for regions of some queues: nothing is tracked there, and guests go on."""
    where = os.path.join(workdir, "full")
    os.mkdir(where)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", where], check=True)
    try:
        with Backend(f"vdpa_vfn0,queues=4,inflight={where}", directory=workdir) as backend:
            for _ in range(2):
                with open_frontend(backend.sockets[0], pairs=4) as fe:
                    for pair in range(4):
                        fe.check(random_packets(f"pair {pair}", 50), pair)
            backend.process.expect("in-flight region No space left on device, nothing is tracked")
    finally:
        subprocess.run(["umount", "-l", where], check=True)


# --- testpmd -------------------------------------------------------------------------------------

@FORMATS
def test_testpmd_goes_on(workdir, packed, rng):
    """virtio-user resumes split rings by itself. Packed ones it clears, which needs a new start of
    the port; the file must not be believed then."""
    with victim(workdir, f",inflight={workdir}") as backend:
        pmd = Loop(backend.sockets[0], packed=packed, options=",server=1", start=False)
        with pmd:
            backend.start()
            pmd.ready()
            pmd.start_traffic()
            assert pmd.layout() == ("packed" if packed else "split")
            moves(pmd)
            # each new start of the port loses virtio-user some 2,000 of its 20,000 mbufs
            for _ in range((7 if packed else 20) if NIGHTLY else 3):
                time.sleep(rng.uniform(0, 0.1))
                backend.kill()
                assert wait_until(lambda: not pmd.link_up(0)), "virtio-user missed the disconnect"
                backend.start()
                assert wait_until(lambda: pmd.link_up(0)), "virtio-user did not reconnect"
                if packed:
                    for command in "stop", "port stop 0", "port start 0":
                        pmd.cmd(command)
                    pmd.start_traffic()
                moves(pmd)


def moves(pmd):
    """What circulates does so still."""
    for way in "RX-packets", "TX-packets":
        before = pmd.port_stats(0)[way]
        assert wait_until(lambda: pmd.port_stats(0)[way] > before + 4 * pmd.in_flight), way


# --- a Linux guest -------------------------------------------------------------------------------

@pytest.mark.skipif(bool(missing()), reason=f"not installed: {' '.join(missing())}")
def test_guests_see_no_more_than_a_pause(workdir, rng):
    """QEMU hands out no region, and a stale position of the packed ring: the file tells. TCP
    connections live on, and every byte arrives."""
    with wired_by(Backend, MIXED, client=True, devargs=f",inflight={workdir}") as pair:
        for guest in pair.guests:
            random_data(guest, 1 / 4)
        boots = [guest.read("/proc/sys/kernel/random/boot_id") for guest in pair.guests]
        flows = [Flow(pair.guests[way], pair.guests[1 - way], ipv4(1 - way), 5200 + way,
                      endless=True) for way in (0, 1)]
        for _ in range(20 if NIGHTLY else 2):
            time.sleep(rng.uniform(0.2, 1))
            pair.backend.kill()
            pair.backend.start()
            ping(pair.guests[0], ipv4(1), [56, 1472])
            assert all(flow.running() for flow in flows)
        for flow in flows:
            flow.finish()
        assert boots == [guest.read("/proc/sys/kernel/random/boot_id") for guest in pair.guests]
        if NIGHTLY:     # set up anew, maybe where they were
            pair.guests[0].reset()
            configure(pair.guests[0].boot(), 0)
            ping(pair.guests[0], ipv4(1), [56, 1472])
            pair.backend.kill()
            pair.backend.start()
            ping(pair.guests[0], ipv4(1), [56, 1472])


# --- the front-end dies --------------------------------------------------------------------------

def doomed(path, packed, track):
    with Survivor(path, None, packed, track=track) as fe:
        fe.meet().run(60)


@FORMATS
@pytest.mark.parametrize("track", [False, True], ids=["file", "region"])
def test_next_front_end_starts_clean(workdir, packed, track, rng):
    fork = multiprocessing.get_context("fork")
    with victim(workdir, f",inflight={workdir}", connects=False) as backend:
        backend.start()

        def sent():
            return parse_stats(backend.cmd("stats vdpa_vfn0 1"))[1]["packets"]

        for _ in range(50 if NIGHTLY else 4):
            before = sent()
            child = fork.Process(target=doomed, args=(backend.sockets[0], packed, track))
            child.start()
            try:
                assert wait_until(lambda: sent() > before)
                time.sleep(rng.uniform(0, 0.1))
            finally:
                child.kill()
                child.join()
            for next_packed in packed, not packed:
                with Survivor(backend.sockets[0], None, next_packed, track=track) as fe:
                    fe.meet().settled()
                    assert fe.repeated == 0
        backend.stop()


@FORMATS
def test_next_testpmd_starts_clean(workdir, packed):
    with victim(workdir, f",inflight={workdir}", connects=False) as backend:
        backend.start()
        for number in range(2):
            with Echo(workdir, backend.sockets[0], packed=packed) as pmd:
                pmd.rounds(f"{packed} {number}", rounds=1)
                pmd.play([random_packets(number, 400)])
                pmd.kill()
        backend.stop()
