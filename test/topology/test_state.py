# SPDX-License-Identifier: BSD-3-Clause
"""The state of a device in a file, and in another process: snapshot, restore, and hot upgrade under
traffic with scripted front-ends, testpmd and QEMU guests."""

import contextlib
import os
import re
import socket
import struct
import threading
import time

import pytest
from frontend import FORMATS, frames
from guest import missing
from harness import Backend, NIGHTLY, PmdError, SLOW, is_refused, wait_until
from net_device import open_frontend
from pmd import Loop
from rings import Region
from test_qemu import (MIXED, Flow, assert_no_errors, assert_traffic, ipv4, ipv6, random_data,
                       wired_by)
from vhost_user import LOG_ALL, Listener, set_features, set_log_base, set_mem_table

DEVS = ["vdpa_vfn0,queues=2", "vdpa_vfn1,queues=2"]
STATE_HEADER = "<IHHII"
PART = "<HBBII I"       # type, flags, reserved, selector, length
VQ_STATE = 0xf000


def parts(state):
    """[(offset of the value, type, selector, length), ...]"""
    at, found = struct.calcsize(STATE_HEADER), []
    while at < len(state):
        kind, _, _, low, _, length = struct.unpack_from(PART, state, at)
        at += struct.calcsize(PART)
        found.append((at, kind, low, length))
        at += length
    return found


def seal(state):
    """The header over changed parts."""
    body = bytes(state[16:])
    checksum = 0x811c9dc5
    for byte in body:
        checksum = (checksum ^ byte) * 0x01000193 & 0xffffffff
    return struct.pack(STATE_HEADER, 0x534e4656, 1, 0, len(body), checksum) + body


def shifted(state, queue, by):
    """The same state with one queue's position moved."""
    state = bytearray(state)
    at = next(at for at, kind, index, _ in parts(state) if (kind, index) == (VQ_STATE, queue))
    position = struct.unpack_from("<H", state, at)[0] + by & 0xffff
    struct.pack_into("<HH", state, at, position, position)
    return seal(state)


@pytest.fixture
def backends(workdir):
    """backends(...): a vfn-vhost in the test's directory."""
    with contextlib.ExitStack() as stack:
        def start(devs=DEVS, **more):
            backend = Backend(devs, directory=workdir, **more)
            stack.callback(backend.close)
            return backend
        yield start


def idle(backend):
    """Wait until vdpa_vfn0, whose front-end hung up, is free."""
    assert wait_until(lambda: backend.telemetry("/vfn/info,vdpa_vfn0")["state"] == "idle")


def by_prompt(backend, what, dev, path):
    answer = backend.cmd(f"{what} {dev} {path}")
    assert {"snapshot": f"{dev} is saved in", "restore": "The next guest of"}[what] in answer, answer


def by_telemetry(backend, what, dev, path):
    assert backend.telemetry(f"/vfn/{what},{dev},{path}") == {"name": dev, "file": path}


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed, by", [(False, by_prompt), (True, by_telemetry)],
                         ids=["split-prompt", "packed-telemetry"])
def test_restored_in_another_process_the_guest_goes_on(backends, workdir, packed, by):
    path = os.path.join(workdir, "state")
    old = backends()
    with open_frontend(old.sockets[0], pairs=2, packed=packed) as fe:
        for pair in range(2):
            fe.check(frames(f"before{pair}", 100 + 7 * pair), pair)
        # of a guest that runs, and traffic goes on
        by(old, "snapshot", "vdpa_vfn0", path)
        live = open(path, "rb").read()
        fe.check(frames("between", 50))
        fe.disconnect()
        idle(old)
        by(old, "snapshot", "vdpa_vfn0", path)
        assert os.stat(path).st_mode & 0o777 == 0o600
        state = open(path, "rb").read()
        assert state != live and len(state) == len(live)
        old.stop()
        # published while there is nobody: the next one finds it
        waiting = frames("waiting", 10)
        for frame in waiting:
            fe.send(frame)
        fe.post()
        new = backends()
        by(new, "restore", "vdpa_vfn0", path)
        fe.again(stale=True)
        got = []
        assert wait_until(lambda: got.extend(fe.receive()) or len(got) >= len(waiting))
        assert got == waiting
        for pair in range(2):
            fe.check(frames(f"after{pair}", 150), pair)
        assert "restored parts" not in new.log()    # it says something only if it does not fit
    new.stop()
    assert sorted(os.listdir(workdir)) == ["state"]


@pytest.mark.parametrize("by", [0, 1, -1])
def test_position_off_by_one_is_noticed(backends, workdir, by):
    """The control: of a packed ring nothing but the state tells where the device stands."""
    path = os.path.join(workdir, "state")
    backend = backends()
    with open_frontend(backend.sockets[0], packed=True) as fe:
        fe.check(frames("before", 100))
        fe.disconnect()
        idle(backend)
        by_prompt(backend, "snapshot", "vdpa_vfn0", path)
        with open(path, "rb+") as file:
            state = shifted(file.read(), 1, by)
            file.seek(0)
            file.write(state)
        by_prompt(backend, "restore", "vdpa_vfn0", path)
        fe.again(stale=True)
        if by == 0:
            fe.check(frames("after", 100))
        else:
            with pytest.raises(Exception):
                fe.check(frames("after", 100), timeout=1)


@FORMATS
def test_guest_that_stops_while_it_migrates(backends, workdir, packed):
    """With shadow rings the function does not know the guest's; the state has those all the same."""
    path = os.path.join(workdir, "state")
    backend = backends(["vdpa_vfn0,lm=shadow"])
    log = os.memfd_create("log")
    os.ftruncate(log, 1 << 20)
    with open_frontend(backend.sockets[0], packed=packed) as fe:
        fe.check(frames("before", 100))
        fe.conn.tell(set_log_base(1 << 20, 0, log))
        fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
        fe.check(frames("while it migrates", 100))
        assert is_refused(backend.telemetry(f"/vfn/snapshot,vdpa_vfn0,{path}"))
        assert "cannot be taken while shadow rings are in use" in backend.log()
        fe.disconnect()
        idle(backend)
        by_prompt(backend, "snapshot", "vdpa_vfn0", path)
        by_prompt(backend, "restore", "vdpa_vfn0", path)
        fe.again(stale=True)
        fe.check(frames("after", 100))
        assert "not the one of the restored parts" not in backend.log()
    os.close(log)
    backend.stop()


def test_front_end_that_begins_twice_finds_all_of_its_rings(backends, workdir):
    """New memory before the second pair is there: the device stops, and starts again."""
    path = os.path.join(workdir, "state")
    backend = backends()
    with open_frontend(backend.sockets[0], pairs=2, packed=True) as fe:
        for pair in range(2):
            fe.check(frames(f"before{pair}", 100), pair)
        fe.disconnect()
        idle(backend)
        by_prompt(backend, "snapshot", "vdpa_vfn0", path)
        by_prompt(backend, "restore", "vdpa_vfn0", path)
        fe.again(fe.rings[:2], stale=True)
        fe.check(frames("one pair", 100))
        fe.memory.regions.append(Region(0x2_0000_0000, 1 << 16))
        fe.conn.tell(set_mem_table(fe.memory.regions))
        fe.check(frames("new memory", 100))
        for ring in fe.rings[2:]:
            for message in ring.setup():
                fe.conn.tell(fe.stale(message))
        for pair in range(2):
            fe.check(frames(f"after{pair}", 100), pair)
    backend.stop()


@FORMATS
def test_rings_that_are_others_start_as_the_front_end_says(backends, workdir, packed):
    path = os.path.join(workdir, "state")
    backend = backends()
    with open_frontend(backend.sockets[0], pairs=2, packed=packed) as fe:
        fe.check(frames("before", 100))
        fe.disconnect()
        idle(backend)
        by_prompt(backend, "snapshot", "vdpa_vfn0", path)
        # elsewhere, and the rest where it was
        by_prompt(backend, "restore", "vdpa_vfn0", path)
        fe.tx().move()
        fe.again()
        fe.check(frames("moved", 100))
        fe.check(frames("not moved", 100), 1)
        assert len(re.findall(r"vdpa_vfn0: queue 1 is not the one", backend.log())) == 1
        assert len(re.findall(r"is not the one of the restored parts", backend.log())) == 1
    idle(backend)
    # in the same place, and new; the driver has filled one and not used the other
    by_prompt(backend, "restore", "vdpa_vfn0", path)
    with open_frontend(backend.sockets[0], pairs=2, packed=packed) as fe:
        fe.check(frames("new guest", 100))
    # of a split ring the position is in the ring
    assert len(re.findall(r"is not the one", backend.log())) == (3 if packed else 1)
    idle(backend)
    # another format: nothing of the state fits
    by_prompt(backend, "restore", "vdpa_vfn0", path)
    with open_frontend(backend.sockets[0], packed=not packed) as fe:
        fe.check(frames("other format", 100))
        dropped = re.findall(r"parts are dropped: they are of a guest with features (0x\w+), this one "
                             r"has (0x\w+)", backend.log())
        assert len(dropped) == 1 and dropped[0][0] != dropped[0][1]
    backend.stop()


def test_what_is_no_state_is_refused(backends, workdir):
    backend = backends()
    path = os.path.join(workdir, "state")
    with open_frontend(backend.sockets[0]) as fe:
        fe.check(frames("before", 20))
        by_prompt(backend, "snapshot", "vdpa_vfn0", path)
        assert "a guest uses the device" in refused(backend, path)
        fe.check(frames("still", 20))
    idle(backend)
    with open(path, "rb") as file:
        state = file.read()
    for number, content in enumerate([
            b"", b"x", state[:-1], state + b"x", state[:16], bytes(len(state)), os.urandom(1000),
            seal(state[:16]), state + bytes(1 << 20)]):
        wrong = os.path.join(workdir, f"wrong{number}")
        with open(wrong, "wb") as file:
            file.write(content)
        refused(backend, wrong)
    fifo = os.path.join(workdir, "fifo")
    os.mkfifo(fifo)
    for wrong in (fifo, workdir, os.path.join(workdir, "missing"), "/dev/zero"):
        refused(backend, wrong)
    assert is_refused(backend.telemetry("/vfn/restore,vdpa_vfn0"))
    assert is_refused(backend.telemetry("/vfn/restore,vdpa_vfn0,"))
    assert is_refused(backend.telemetry(f"/vfn/restore,vdpa_vfn9,{path}"))
    assert is_refused(backend.telemetry("/vfn/snapshot,vdpa_vfn0,/proc/nowhere/state"))
    # a device of another shape
    assert "No vDPA device" in backend.cmd(f"restore vdpa_vfn9 {path}")
    with open_frontend(backend.sockets[0]) as fe:
        fe.check(frames("after", 20))
    backend.stop()


def refused(backend, path):
    since = backend.process.mark()
    assert "The next guest" not in backend.cmd(f"restore vdpa_vfn0 {path}")
    log = backend.log()[since:]
    assert f"vdpa_vfn0: cannot restore the parts from {path}: " in log
    return log


def test_function_of_another_shape_is_refused(backends, workdir):
    path = os.path.join(workdir, "state")
    backend = backends(["vdpa_vfn0,queues=3", "vdpa_vfn1,queues=2"])
    with open_frontend(backend.sockets[1]) as fe:
        fe.check(frames("before", 20))
        by_prompt(backend, "snapshot", "vdpa_vfn1", path)
    assert wait_until(lambda: backend.telemetry("/vfn/info,vdpa_vfn1")["state"] == "idle")
    assert "another number of queues" in refused(backend, path)
    backend.stop()


# --- hot upgrade ---------------------------------------------------------------------------------


class Traffic(threading.Thread):
    """Frames that carry numbers, without end, through a front-end that waits for its back-ends:
    every number must come back once and in order. `gap`: the longest time without a frame."""

    def __init__(self, path, packed, pairs):
        super().__init__(daemon=True)
        self.listener = Listener(path)
        self.packed, self.pairs = packed, pairs
        self.fe = None
        self.next = [0] * pairs     # to be sent
        self.seen = [0] * pairs     # to be received
        self.gap = self.back_ends = 0
        self.ends = threading.Event()
        self.wrong = None

    def run(self):
        try:
            self.fe = open_frontend(self.listener.path, self.pairs, packed=self.packed,
                                    listener=self.listener)
            self.back_ends = 1
            self.circulate()
        except BaseException as error:  # pylint: disable=broad-except
            self.wrong = self.wrong or repr(error)

    def circulate(self):
        fe, last = self.fe, time.monotonic()
        deadline = None
        while self.wrong is None:
            if fe.conn.gone():
                fe.again(stale=True)
                self.back_ends += 1
            if self.ends.is_set():
                deadline = deadline or time.monotonic() + 10 * SLOW
                if self.seen == self.next:
                    return
                if time.monotonic() > deadline:
                    self.wrong = f"{self.next} were sent, {self.seen} came back"
            for pair in range(self.pairs):
                self.send(pair)
                got = fe.receive(pair)
                for frame in got:
                    number = struct.unpack_from("=Q", frame)[0]
                    if number != self.seen[pair]:
                        self.wrong = f"pair {pair}: {number} came, not {self.seen[pair]}"
                    self.seen[pair] += 1
                if got:
                    now = time.monotonic()
                    self.gap, last = max(self.gap, now - last), now
            fe.rx().called(0.001)

    def send(self, pair):
        """Never more than the receive ring holds: a looped-back function drops the rest."""
        tx = self.fe.tx(pair)
        tx.used()
        while (not self.ends.is_set() and tx.fits(1)
               and self.next[pair] - self.seen[pair] < tx.size):
            self.fe.send(struct.pack("=Q", self.next[pair]).ljust(60 + self.next[pair] % 700, b"."),
                         pair)
            self.next[pair] += 1
        self.fe.post(pair)

    def flows(self):
        """Wait until some more frames have come back, on every pair."""
        before = list(self.seen)
        return wait_until(lambda: self.wrong or
                          all(b > a + 100 for a, b in zip(before, self.seen))) is True

    def finish(self):
        self.ends.set()
        self.join(30 * SLOW)
        self.fe.close()
        self.listener.close()
        assert self.wrong is None, self.wrong
        assert not self.is_alive() and min(self.seen) > 100


def upgrade(backends, old, devs=DEVS, **more):
    """Replace a process; the new one. The old one ends by itself, in order."""
    new = backends(devs, client=True, args=["--take-over", old.process.prefix], **more)
    code = old.process.wait()
    assert code == 0 and "handed over" in old.log(), old.log()
    old.process = None
    return new


@FORMATS
@pytest.mark.parametrize("tracked", [False, True], ids=["", "in-flight-file"])
def test_hot_upgrade_under_traffic_loses_nothing(backends, workdir, packed, tracked,
                                                 record_property):
    devs = ["vdpa_vfn0,queues=2", "vdpa_vfn1"]
    if tracked:
        devs = [f"{dev},inflight={workdir}" for dev in devs]
    rounds = 20 if NIGHTLY else 3
    flows = [Traffic(os.path.join(workdir, f"sock{n}"), packed, pairs)
             for n, pairs in enumerate((2, 1))]
    try:
        backend = backends(devs, client=True)
        for flow in flows:
            flow.start()
        for _ in range(rounds):
            assert all(flow.flows() for flow in flows), [flow.wrong for flow in flows]
            backend = upgrade(backends, backend, devs)
        assert all(flow.flows() for flow in flows), [flow.wrong for flow in flows]
    finally:
        for flow in flows:
            flow.finish()
    assert [flow.back_ends for flow in flows] == [rounds + 1] * 2
    assert not re.search("restored parts|in-flight", backend.log())
    pause = max(flow.gap for flow in flows)
    record_property("pause_ms", round(pause * 1000))
    print(f"longest pause {pause * 1000:.0f} ms in {[sum(f.seen) for f in flows]} frames")
    backend.stop()


def test_take_over_from_nobody_changes_nothing(backends, workdir):
    listener = Listener(os.path.join(workdir, "sock0"))
    try:
        with pytest.raises(PmdError, match="ended"):
            backends(["vdpa_vfn0"], client=True, args=["--take-over", "vfn-nobody"])
        listener.sock.settimeout(0.1)
        with pytest.raises(socket.timeout):
            listener.accept(0.1)
    finally:
        listener.close()


@FORMATS
def test_hot_upgrade_of_a_virtio_user(backends, workdir, packed):
    backend = backends(client=True)
    with Loop(os.path.join(workdir, "sock0"), packed=packed, options=",server=1") as client:
        assert client.layout() == ("packed" if packed else "split")
        client.start_traffic()

        def circulates():
            before = client.port_stats(0)["RX-packets"]
            return wait_until(lambda: client.port_stats(0)["RX-packets"] > before + 1000,
                              interval=0.2)

        assert circulates()
        backend = upgrade(backends, backend)
        client.expect("server mode virtio-user reconnection succeeds")
        if packed:
            # it has dropped what was in flight, and set its rings up anew in the same place
            assert wait_until(lambda: "queue 1 is not the one of the restored" in backend.log())
            client.cmd("stop")
            client.start_traffic()
        assert circulates()
        counters = client.stop_forwarding()[0]
        assert counters["RX-dropped"] == counters["TX-dropped"] == 0
    backend.stop()


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("how", ["upgrade", "upgrade-in-flight-file", "killed-in-flight-file"])
def test_qemu_uses_up_a_frame_while_there_is_no_back_end(backends, workdir, how, before):
    """It takes a packed ring to stand where it once began, and the guest comes round to there:
    `before` frames after the last one that was taken."""
    devs = ["vdpa_vfn0" + f",inflight={workdir}" * how.endswith("file")]
    listener = Listener(os.path.join(workdir, "sock0"))
    with contextlib.closing(listener):
        backend = backends(devs, client=True)
        with open_frontend(listener.path, listener=listener, packed=True, size=64) as fe:
            tx = fe.tx()
            fe.check(frames("first", 2 * 64 - before))
            assert (tx.slot, tx.wrap) == (-before % 64, before == 0)
            if how.startswith("killed"):
                backend.kill()
                backend = backends(devs, client=True)
            else:
                backend = upgrade(backends, backend, devs)
            sent = frames("pause", before + 2)
            for n, frame in enumerate(sent):
                fe.send(frame, cuts=[30] if n == before else [])
            fe.post()
            assert tx.drop() is not None and tx.remembered == 0x8002
            fe.again(stale=True)
            assert fe.settle()
            got = []
            assert wait_until(lambda: got.extend(fe.receive()) or got) and got == sent[-1:]
            fe.check(frames("second", 200))
            assert f"used up what the guest sent meanwhile, it goes on at 0x8002; {before}" in (
                backend.log())
            backend.stop()


@pytest.mark.skipif(bool(missing()), reason=f"not installed: {' '.join(missing())}")
def test_hot_upgrade_of_qemu_guests(record_property):
    """One with split rings and one with packed ones, wired, in the midst of TCP both ways."""
    with wired_by(Backend, MIXED, client=True) as pair, contextlib.ExitStack() as stack:
        def start(devs, **more):
            backend = Backend(devs, directory=pair.backend.directory, **more)
            stack.callback(backend.close)
            return backend

        for guest in pair.guests:
            random_data(guest, 1 / 4)
        flaps = [guest.read("/sys/class/net/eth0/carrier_changes") for guest in pair.guests]
        flows = [Flow(pair.guests[0], pair.guests[1], ipv4(1), 5001, endless=True),
                 Flow(pair.guests[1], pair.guests[0], ipv6(0), 5002, endless=True)]
        pings = pair.guests[0].spawn(f"ping -c 200 -i 0.05 -W 20 {ipv4(1)}")
        backend = pair.backend
        for _ in range(2):
            time.sleep(1)
            backend = upgrade(start, backend, backend.devs)
            assert all(flow.running() for flow in flows)
        answers = pings.wait().out.splitlines()
        for flow in flows:
            flow.finish()
        assert_traffic(pair.guests)
        for guest in pair.guests:
            assert guest.read("/sys/class/net/eth0/carrier") == "1"
            assert_no_errors(guest)
        # QEMU throws away what a guest sends while there is no back-end
        lost = 200 - int(re.search(r"200 packets transmitted, (\d+) packets received",
                                   answers[-2])[1])
        assert lost < 20 and "is not the one" not in backend.log()
        # and takes the link down, which a guest that looks in time sees
        flaps = [int(guest.read("/sys/class/net/eth0/carrier_changes")) - int(before)
                 for guest, before in zip(pair.guests, flaps)]
        record_property("pings", f"{lost} lost, {answers[-1]}, link changes {flaps}")
        print(lost, "lost,", answers[-1], "link changes", flaps)
        backend.stop()
