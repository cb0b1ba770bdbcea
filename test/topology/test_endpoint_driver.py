# SPDX-License-Identifier: BSD-3-Clause
"""The driver's link=endpoint: functions in a process of their own (vfn-endpoint), which may be
killed, stopped and replaced while guests use them.

Most of what a device does is tested over this link, too, by running the other files with
VFN_LINK=endpoint or VFN_LINK=host in the environment.
"""

import contextlib
import os
import select
import signal
import socket
import tempfile
import threading
import time

import pytest

from dirty import Log, pages_of
from harness import (DEBUG, MQ, NIGHTLY, Backend, Echo, PmdError, becomes, info, is_refused,
                     random_packets, served, state, wait_until)
from net_device import FEATURES, FrontEnd, open_frontend
from pmd import build_dir
from test_crash import FORMATS, Lost, Survivor, rng     # noqa: F401
from vhost_user import LOG_ALL, Listener, get_config, set_features, set_vring_err

CONTROLS = pytest.mark.parametrize("control", ["endpoint", "host"])
CSUM, GUEST_TSO4, MTU = 0, 7, 3     # bits of the feature word (virtio 1.3, 5.1.3)


# --- who decides what ----------------------------------------------------------------------------

@CONTROLS
def test_traffic(workdir, control):
    """Packets of a stock front-end, and the guest's view of the function."""
    function = ",queues=2,mac=02:00:00:00:00:11,mtu=1400,offloads=csum"
    if control == "host":
        other = ",queues=4,mac=02:00:00:00:00:22,mtu=9000,control=host"
        context = served(workdir, other, arguments=f",control=host{function}")
    else:
        context = served(workdir, function)
    with context as (backend, _):
        with Echo(workdir, backend.sockets[0], pairs=2) as pmd:
            pmd.rounds(control)
        offered = int(info(backend)["features"], 16)
        assert offered >> MQ & 1 and offered >> CSUM & 1 and offered >> MTU & 1
        assert not offered >> GUEST_TSO4 & 1
        with open_frontend(backend.sockets[0], pairs=2) as fe:
            assert fe.max_pairs == 2
            config = fe.conn.ask(get_config(32))[12:]
            assert config[:6] == bytes.fromhex("020000000011")
            assert int.from_bytes(config[10:12], "little") == 1400
            for pair in range(2):
                fe.check(random_packets(f"{control} {pair}", 50), pair)
        assert info(backend)["queue_pairs"] == 2


@pytest.mark.parametrize("arguments,why", [
    (",control=host,queues=4", "does not leave MAC, MTU, queues and features to its client"),
    (",queues=4", '"queues": with link=endpoint the endpoint decides'),
    (",mac=02:00:00:00:00:01", '"mac": with link=endpoint the endpoint decides'),
    (",port=sink", '"port": with link=endpoint it is for the endpoint\'s operator'),
    (",control=host,idle=sleep", '"idle": with link=endpoint it is for the endpoint\'s operator'),
    (",fault=no-log", '"fault": with link=endpoint'),
])
def test_arguments_that_are_not_the_drivers(workdir, arguments, why):
    with pytest.raises(PmdError, match=why), served(workdir, "", arguments=arguments):
        pass


def test_inflight_file_is_not_in_memory(workdir):
    with tempfile.TemporaryDirectory(dir=build_dir()) as disk, \
            pytest.raises(PmdError, match="is not in memory"), \
            served(workdir, "", arguments=f",inflight={disk}"):
        pass


def test_more_queues_than_there_are(workdir):
    with pytest.raises(PmdError, match="does not take MAC, MTU, queues and features: Invalid"), \
            served(workdir, ",control=host", arguments=",control=host,queues=2"):
        pass


@pytest.mark.parametrize("what", ["nobody", "no socket", "nonsense", "silence"])
def test_no_endpoint_at_probe(workdir, what):
    """The message names the path."""
    path = os.path.join(workdir, "none")
    reasons = {"nobody": "No such file", "no socket": "Connection refused",
               "nonsense": "does not speak this version", "silence": "does not answer"}
    with contextlib.ExitStack() as stack:
        if what == "no socket":
            with open(path, "wb"):
                pass
        elif what != "nobody":
            stack.enter_context(contextlib.closing(Impostor(path, what == "nonsense")))
        with pytest.raises(PmdError, match=f"endpoint {path}: .*{reasons[what]}"):
            Backend(f"vdpa_vfn0,link=endpoint,path={path}", directory=workdir)


class Impostor:
    """Listens where an endpoint should, and says nothing, or nonsense."""

    def __init__(self, path, talks):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        self.talks = talks
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        peers = []
        with contextlib.suppress(OSError):
            while True:
                peers.append(self.socket.accept()[0])
                if self.talks:
                    peers[-1].send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n" * 4)
        for peer in peers:
            peer.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


def test_one_client_at_a_time(workdir):
    """A second process does not start with a function that another has, and does no harm."""
    other = os.path.join(workdir, "other")
    os.mkdir(other)
    with served(workdir, "") as (backend, endpoints):
        with open_frontend(backend.sockets[0]) as fe:
            path = endpoints[0].sockets[0]
            with pytest.raises(PmdError, match="vdpa_vfn0 is in use by another process"):
                Backend(f"vdpa_vfn0,link=endpoint,path={path}", directory=other)
            fe.check(random_packets("after", 50))


def test_what_the_operator_does(workdir):
    with served(workdir, ",mtu=1500") as (backend, _):
        for command in "link,vdpa_vfn0,down", "mtu,vdpa_vfn0,1400", "announce,vdpa_vfn0", \
                "poller,vdpa_vfn0":
            assert is_refused(backend.telemetry(f"/vfn/{command}"), "behind an endpoint")
        assert backend.telemetry("/vfn/poller") == {}
        arguments = info(backend)["arguments"]
        assert arguments["link"] == "endpoint" and arguments["port"] == "the endpoint's"


def test_many_queues_are_set_up_at_once(workdir):
    """64 pairs: thousands of messages."""
    with served(workdir, ",queues=64") as (backend, _):
        with FrontEnd(backend.sockets[0]) as fe:
            fe.connect().negotiate().setup(pairs=64, size=8)
            begin = time.monotonic()
            fe.start()
            assert wait_until(lambda: info(backend)["queues_running"] == 128)
            took = time.monotonic() - begin
            print(f"128 queues in {took:.3f} s")
            for pair in 0, 63:
                fe.check(random_packets(pair, 20), pair)


# --- killed --------------------------------------------------------------------------------------

KILLS = 60 if NIGHTLY else 5


def begin(fe):
    """librte_vhost may need a second to look at a connection: traffic has to be there."""
    fe.meet().settled()


def kill_at_random(fe, endpoint, rng, kills=KILLS, strike=True):
    """The endpoint is killed under traffic and started again, the front-end stays connected."""
    for _ in range(kills):
        fe.run(rng.uniform(0, 0.1))
        if strike and rng.random() < 0.5:
            fe.strike(endpoint.pid, rng.uniform(0, 0.0005))
        endpoint.kill()
        fe.deaths += 1
        if rng.random() < 0.5:
            fe.run(0.05)    # into the void
        endpoint.start()
        fe.settled()


@pytest.fixture
def in_memory():
    """A directory of a file system in memory."""
    with tempfile.TemporaryDirectory(prefix="vfn-", dir="/dev/shm") as path:
        yield path


@FORMATS
@pytest.mark.parametrize("region", ["front-end", "file", "none"])
def test_no_chain_lost_and_none_twice(workdir, in_memory, packed, region, rng):
    arguments = f",inflight={in_memory}" if region == "file" else ""
    with served(workdir, ",idle=busy", arguments=arguments) as (backend, [endpoint]):
        with Survivor(backend.sockets[0], None, packed, track=region == "front-end",
                      stale=False) as fe:
            begin(fe)
            kill_at_random(fe, endpoint, rng)
            assert fe.completed > KILLS * 64
            told = info(backend)
            assert (told["state"], told["failures"]) == ("running", KILLS)
            assert backend.stats()[1]["failures"] == KILLS


@FORMATS
def test_shadow_rings(workdir, packed, rng):
    """The guest migrates: the relay lives, and the function's rings die."""
    log = os.memfd_create("log")
    os.ftruncate(log, 1 << 20)
    with served(workdir, ",idle=busy", arguments=",lm=shadow") as (backend, [endpoint]):
        with Survivor(backend.sockets[0], None, packed, track=False, stale=False, log=log) as fe:
            begin(fe)
            backend.process.expect("queue 1: shadow ring")
            kill_at_random(fe, endpoint, rng, strike=False)
    os.close(log)


@pytest.mark.parametrize("off,what", [(-40, "twice|came"),
                                      (3, "did not come back|came after|twice")])
def test_control_used_index_is_off(workdir, off, what):
    """Negative control: the accounting finds what a wrong position does."""
    with served(workdir, ",idle=busy") as (backend, [endpoint]):
        with Survivor(backend.sockets[0], None, packed=False, track=False) as fe:
            begin(fe)
            endpoint.kill()
            fe.deaths += 1
            becomes(backend, "failed")
            with pytest.raises(Lost, match=what):
                fe.turn()
                index = fe.tx().device + 2
                fe.memory.store(index, fe.memory.load(index) + off & 0xffff)
                endpoint.start()
                fe.settled(5)


@FORMATS
def test_stopped_while_it_is_gone(workdir, packed):
    """The front-end asks where the rings stand when nobody is there to tell, and starts them again
    from that."""
    with served(workdir, ",idle=busy") as (backend, [endpoint]):
        with Survivor(backend.sockets[0], None, packed, track=False, stale=False) as fe:
            for _ in range(KILLS):
                if fe.conn is None:
                    begin(fe)
                fe.run(0.1)
                endpoint.kill()
                fe.deaths += 1
                becomes(backend, "failed")
                bases = fe.stop()
                fe.turn()
                for ring in fe.rings:
                    expected = ring.position() if packed else fe.memory.load(ring.device + 2)
                    assert bases[ring.index] == expected
                fe.disconnect()
                endpoint.start()
                fe.meet().settled()


def test_noticed_at_once_and_told(workdir):
    """State, reason, counters and the rings' error eventfds; another device goes on."""
    with served(workdir, "", "") as (backend, endpoints):
        with open_frontend(backend.sockets[0]) as fe, \
                open_frontend(backend.sockets[1]) as other:
            errors = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in fe.rings]
            for ring, fd in zip(fe.rings, errors):
                fe.conn.tell(set_vring_err(ring.index, fd))
            fe.check(random_packets("first", 100))
            packets = backend.stats()[1]["packets"]
            assert packets == 100
            begin = time.monotonic()
            endpoints[0].kill()
            for fd in errors:
                assert select.select([fd], [], [], 5)[0], "no error eventfd was signalled"
                assert os.eventfd_read(fd) == 1
                os.close(fd)
            took = time.monotonic() - begin
            print(f"told after {took * 1000:.1f} ms")
            told = info(backend)
            assert told["state"] == "failed"
            assert told["failure"] == told["endpoint_why"] == "its endpoint has ended"
            # until there is another one
            assert backend.stats()[1]["packets"] == packets
            assert backend.stats()[1]["failures"] == 1
            other.check(random_packets("other", 100))
            assert state(backend, "vdpa_vfn1") == "running"
            endpoints[0].start()
            becomes(backend, "running")
            fe.check(random_packets("second", 100))
            assert backend.stats()[1]["packets"] == 2 * packets
            assert backend.stats("vdpa_vfn1")[1]["failures"] == 0


def test_dirty_log_of_an_endpoint_that_died(workdir):
    """What it wrote without marking it nobody knows: all of the memory is dirty, and the next one
    logs on."""
    with served(workdir, ",idle=busy") as (backend, [endpoint]):
        with FrontEnd(backend.sockets[0]) as fe:
            fe.connect().negotiate().setup().start()
            fe.check(random_packets("before", 20))
            log = Log.of(fe.memory)
            fe.conn.tell(log.message())
            fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
            fe.check(random_packets("first", 20))
            everything = set().union(*(pages_of(r.gpa, r.size) for r in fe.memory.regions))
            assert log.take() < everything
            endpoint.kill()
            becomes(backend, "failed")
            assert log.take() >= everything
            endpoint.start()
            becomes(backend, "running")
            log.clear()
            fe.check(random_packets("second", 20))
            buffers = pages_of(fe.rx().buffers, 64 * 2048)
            assert log.pages() & buffers and log.pages() < everything
            log.close()


def test_gone_while_nobody_uses_it(workdir):
    with served(workdir, "") as (backend, [endpoint]):
        endpoint.kill()
        becomes(backend, "failed")
        endpoint.start()
        becomes(backend, "idle")
        with open_frontend(backend.sockets[0]) as fe:
            fe.check(random_packets("after", 100))


@FORMATS
def test_guest_comes_while_it_is_gone(workdir, packed):
    """It waits, and is served with the endpoint's return; so is one that left and came again."""
    with served(workdir, "") as (backend, [endpoint]):
        for number in range(3):
            endpoint.kill()
            becomes(backend, "failed")
            with open_frontend(backend.sockets[0], packed=packed) as fe:
                if number == 1:
                    fe.again()
                backend.process.expect("the guest waits for it")
                endpoint.start()
                fe.check(random_packets(number, 100))
                assert state(backend) == "running"
            becomes(backend, "idle")


def test_guest_leaves_while_it_is_gone(workdir):
    with served(workdir, "") as (backend, [endpoint]):
        for _ in range(3):
            with open_frontend(backend.sockets[0]) as fe:
                fe.check(random_packets("before", 20))
                endpoint.kill()
            with open_frontend(backend.sockets[0]) as fe:
                endpoint.start()
                fe.check(random_packets("after", 100))


@pytest.mark.parametrize("function,why", [
    (",queues=1", "it has 1 queue pairs, and had 2"),
    (",queues=2,offloads=off", "it lacks features 0x1 that a guest has negotiated"),
])
def test_another_kind_of_endpoint(workdir, function, why):
    """What comes back has to be able to do what the guest was told; the right one is taken."""
    with served(workdir, ",queues=2") as (backend, [endpoint]):
        with open_frontend(backend.sockets[0], pairs=2, features=FEATURES | 1 << CSUM) as fe:
            fe.check(random_packets("before", 100), 1)
            endpoint.kill()
            right = endpoint.functions
            path = endpoint.sockets[0]
            endpoint.functions = [f"fn0,idle=sleep{function},socket={path}"]
            endpoint.start()
            backend.process.expect(f"endpoint {path}: {why}")
            told = info(backend)
            assert (told["state"], told["endpoint_why"]) == ("failed", why)
            endpoint.stop()
            endpoint.functions = right
            endpoint.start()
            becomes(backend, "running")
            fe.check(random_packets("after", 100), 1)


def test_driver_is_killed(workdir):
    """The endpoint lets go of everything, and takes the next client."""
    with served(workdir, "") as (backend, [endpoint]):
        maps = []
        for number in range(4):
            with open_frontend(backend.sockets[0]) as fe:
                fe.check(random_packets(number, 50))
                backend.kill()
            assert wait_until(lambda: "memfd:" not in maps_of(endpoint)), maps_of(endpoint)
            maps.append(len(os.listdir(f"/proc/{endpoint.pid}/fd")))
            os.unlink(backend.sockets[0])
            backend.start()
        assert maps[1] == maps[-1]


def maps_of(endpoint):
    """Of front-ends' memory."""
    with open(f"/proc/{endpoint.pid}/maps", encoding="ascii") as maps:
        return "".join(line for line in maps if "memfd:guest" in line)


# --- stopped -------------------------------------------------------------------------------------

def test_stopped_endpoint(workdir):
    """No call waits for ever. What it has stays its own until it goes on or ends, and no other
    device suffers for longer than one answer may take."""
    with served(workdir, "", "") as (backend, endpoints):
        with open_frontend(backend.sockets[1]) as other:
            with open_frontend(backend.sockets[0]) as fe:
                fe.check(random_packets("before", 50))
                endpoints[0].signal(signal.SIGSTOP)
                begin = time.monotonic()
            becomes(backend, "failed", timeout=20)
            assert time.monotonic() - begin < 12
            held = maps_of(backend)
            assert "memfd:" in held
            # all that follow know better
            begin = time.monotonic()
            assert state(backend) == "failed"
            with open_frontend(backend.sockets[0]) as fe:
                other.check(random_packets("other", 50))
                assert time.monotonic() - begin < 4
                assert state(backend) == "failed"
                endpoints[0].signal(signal.SIGCONT)
                fe.check(random_packets("after", 50))
                assert state(backend) == "running"


@FORMATS
def test_stopped_and_killed(workdir, packed):
    """A guest whose device failed goes on with the next endpoint."""
    with served(workdir, ",idle=busy") as (backend, [endpoint]):
        with Survivor(backend.sockets[0], None, packed, track=False, stale=False) as fe:
            begin(fe)
            becomes(backend, "running")
            endpoint.signal(signal.SIGSTOP)
            becomes(backend, "failed")      # who asks notices
            assert info(backend)["failure"] == "its endpoint does not answer"
            assert backend.stats()[1]["failures"] == 1
            endpoint.kill()
            fe.deaths += 1
            endpoint.start()
            fe.settled()


def open_fds(process):
    time.sleep(0.002)
    return len(os.listdir(f"/proc/{process.pid}/fd"))


# --- life of devices -----------------------------------------------------------------------------

def test_devices_come_and_go(workdir):
    """Hot plug and unplug, also of one whose endpoint is gone; nothing is left behind."""
    with served(workdir, "", "") as (backend, endpoints):
        endpoints[1].kill()
        becomes(backend, "failed", "vdpa_vfn1")
        fds = []
        for number in range(5):
            with open_frontend(backend.sockets[0]) as fe:
                fe.check(random_packets(number, 20))
                endpoints[0].kill()
                endpoints[0].start()
                fe.check(random_packets(number, 20))
            becomes(backend, "idle")
            # one more while it tries to connect
            fds.append(min(open_fds(backend) for _ in range(50)))
        assert fds[1] == fds[-1], fds


@FORMATS
def test_hot_upgrade(workdir, packed):
    """The successor waits for the endpoint, which the predecessor leaves to it."""
    listener = Listener(os.path.join(workdir, "sock0"))
    with contextlib.closing(listener), served(workdir, "", client=True) as (old, [endpoint]):
        with open_frontend(listener.path, listener=listener, packed=packed) as fe:
            fe.check(random_packets("before", 50))
            new = Backend(f"vdpa_vfn0,link=endpoint,path={endpoint.sockets[0]}", client=True,
                          directory=workdir, eal=[DEBUG],
                          args=["--take-over", old.process.prefix], start=False)
            starter = threading.Thread(target=fe_again, args=(fe,))
            starter.start()
            try:
                with new:
                    starter.join()
                    process, old.process = old.process, None
                    assert process.wait() == 0
                    fe.check(random_packets("after", 50))
                    assert endpoint.process.alive()
                    fe.disconnect()
            finally:
                starter.join()


def fe_again(fe):
    wait_until(fe.conn.gone, 20)
    fe.again()


def test_hot_upgrade_that_is_taken_back(workdir):
    """Nobody takes the offer: the old process has its endpoint again."""
    from test_handover import Successor     # pylint: disable=import-outside-toplevel
    listener = Listener(os.path.join(workdir, "sock0"))
    with contextlib.closing(listener), served(workdir, "", client=True) as (old, _):
        with open_frontend(listener.path, listener=listener) as fe:
            fe.check(random_packets("before", 50))
            successor = Successor(old, os.path.join(workdir, "meet"))
            assert successor.ask("prepare") == {"result": "complete"}
            assert successor.ask("hand_over") == {"result": "complete"}
            assert wait_until(fe.conn.gone)
            becomes(old, "failed")
            assert info(old)["failure"] == "it was left to another process"
            successor.die()
            fe.again()
            fe.check(random_packets("after", 50))


def test_snapshot_and_restore(workdir):
    path = os.path.join(workdir, "parts")
    with served(workdir, "") as (backend, _):
        with open_frontend(backend.sockets[0], packed=True) as fe:
            fe.check(random_packets("before", 70))
            assert backend.telemetry(f"/vfn/snapshot,vdpa_vfn0,{path}") == {
                "name": "vdpa_vfn0", "file": path}
        becomes(backend, "idle")
        assert backend.telemetry(f"/vfn/restore,vdpa_vfn0,{path}") == {
            "name": "vdpa_vfn0", "file": path}
