# SPDX-License-Identifier: BSD-3-Clause
"""The driver's link=ntb: functions at the other side of a bridge (vfn-endpoint), in a process of
their own. Rings and packets go through its windows, and nothing is read across it.
"""

import functools
import os
import signal
import time

import pytest

from dirty import Log, pages_of
from disk_device import OUT, SECTOR, STATUS, DiskFrontEnd, sector_of
from harness import (MQ, NIGHTLY, Backend, Echo, Endpoint, becomes, info, random_packets, served,
                     wait_until)
from net_device import FrontEnd, open_frontend
from test_crash import FORMATS, Survivor, rng   # noqa: F401
from vhost_user import LOG_ALL, set_features

KILLS = 30 if NIGHTLY else 3

bridged = functools.partial(served, bridges=True)


def only_written(backend, endpoint, octets, name="vdpa_vfn0"):
    """At least so many bytes went each way, and no side has read what the other has."""
    for told in info(backend, name), endpoint.info(0):
        assert told["bridge_bytes"] >= octets, told
        assert told["bridge_reads_across"] == 0, told


# --- packets -------------------------------------------------------------------------------------

@FORMATS
@pytest.mark.parametrize("control", ["endpoint", "host"])
def test_traffic(workdir, packed, control):
    """Of a stock front-end, whoever decides what the function is."""
    function = ",queues=2,mac=02:00:00:00:00:11"
    if control == "host":
        context = bridged(workdir, ",queues=4,control=host", arguments=f",control=host{function}")
    else:
        context = bridged(workdir, function)
    with context as (backend, [endpoint]):
        with Echo(workdir, backend.sockets[0], pairs=2, packed=packed) as pmd:
            _, octets = pmd.rounds(f"{control} {packed}")
            assert pmd.offered() >> MQ & 1
            assert backend.telemetry("/vfn/queue,vdpa_vfn0,0")["shadowed"] == 1
            only_written(backend, endpoint, sum(octets))


@FORMATS
@pytest.mark.parametrize("latency", [300, 15000])
def test_late(workdir, packed, latency):
    """What either side posts takes its time, and nothing overtakes it."""
    with bridged(workdir, f",ntb-latency={latency}", arguments=f",ntb-latency={latency}") as \
            (backend, [endpoint]):
        with open_frontend(backend.sockets[0], packed=packed) as fe:
            packets = random_packets(latency, 200)
            for number in range(0, len(packets), 20):
                fe.check(packets[number:number + 20])
            only_written(backend, endpoint, sum(map(len, packets)))


@FORMATS
def test_control_forgotten_flush(workdir, packed):
    """Negative control: what is written to a window and not flushed does not get there."""
    with bridged(workdir, ",fault=no-flush") as (backend, [endpoint]):
        with Echo(workdir, backend.sockets[0], packed=packed) as pmd:
            pmd.play([random_packets("lost", 50)])
            assert wait_until(lambda: endpoint.counter(0, "packets") > 0)
            time.sleep(0.2)
            [got], _ = pmd.finish()
            assert got == []


def cross(sender, receiver, frames):
    left, got = list(frames)[::-1], []
    deadline = time.monotonic() + 15
    while len(got) < len(frames) and time.monotonic() < deadline:
        sender.tx().used()
        while left and sender.tx().fits(1):
            sender.send(left.pop())
        sender.post()
        new = receiver.receive()
        got += new
        if not new:
            receiver.rx().called(0.002)
    assert got == frames


@FORMATS
def test_guest_at_either_side(workdir, packed):
    """A guest whose function is behind the bridge talks to one that is not."""
    pair = ["fn0,port=wire,idle=sleep", "fn1,port=wire,peer=fn0,idle=sleep"]
    endpoint = Endpoint(pair, workdir, start=False)
    path = endpoint.sockets.pop()
    endpoint.functions[1] = f"{pair[1]},ntb={path}"
    with endpoint:
        devs = [f"vdpa_vfn0,link=endpoint,path={endpoint.sockets[0]}",
                f"vdpa_vfn1,link=ntb,path={path}"]
        with Backend(devs, directory=workdir) as backend, \
                open_frontend(backend.sockets[0], packed=packed) as near, \
                open_frontend(backend.sockets[1], packed=not packed) as far:
            for name in backend.names:
                becomes(backend, "running", name)
            for sender, receiver in (near, far), (far, near):
                cross(sender, receiver, [bytes([0xff] * 6) + packet
                                         for packet in random_packets("across", 300, 60, 1500)])


def test_dirty_log(workdir):
    """The relay marks what it writes, and nothing else."""
    with bridged(workdir, "") as (backend, [_]):
        assert info(backend)["arguments"]["lm"] == "shadow"
        with FrontEnd(backend.sockets[0]) as fe:
            fe.connect().negotiate().setup().start()
            fe.check(random_packets("before", 20))
            log = Log.of(fe.memory)
            fe.conn.tell(log.message())
            fe.conn.tell(set_features(fe.features | 1 << LOG_ALL))
            fe.check(random_packets("logged", 20))
            everything = set().union(*(pages_of(r.gpa, r.size) for r in fe.memory.regions))
            pages = log.take()
            assert pages & pages_of(fe.rx().buffers, 64 * 2048) and pages < everything
            log.close()


@FORMATS
def test_snapshot_and_restore(workdir, packed):
    """Taken while the relay is at work; it tells where the guest's rings stand, not those in the windows."""
    path = os.path.join(workdir, "parts")
    with bridged(workdir, "") as (backend, [_]):
        with open_frontend(backend.sockets[0], packed=packed) as fe:
            fe.check(random_packets("before", 100))
            assert backend.telemetry(f"/vfn/snapshot,vdpa_vfn0,{path}") == {
                "name": "vdpa_vfn0", "file": path}
            fe.disconnect()
            becomes(backend, "idle")
            assert backend.telemetry(f"/vfn/restore,vdpa_vfn0,{path}") == {
                "name": "vdpa_vfn0", "file": path}
            fe.again(stale=True)
            fe.check(random_packets("after", 100))
            assert "restored parts are dropped" not in backend.log()


@FORMATS
def test_disk(workdir, packed):
    """Requests of two queues; those that are out when the endpoint ends are carried out by the next."""
    path = os.path.join(workdir, "disk")
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    with bridged(workdir, f",class=blk,file={path},queues=2", arguments=",class=blk") as \
            (backend, [endpoint]), \
            DiskFrontEnd(backend.sockets[0]).connect().negotiate(packed=packed) as fe:
        fe.setup(2).start()
        assert fe.capacity() == (1 << 20) // SECTOR
        for sector in range(100):
            assert fe.write(sector, sector_of(sector, 1), ring=sector % 2) == 0
        for sector in range(100):
            assert fe.read(sector, ring=(sector + 1) % 2) == sector_of(sector, 1)
        only_written(backend, endpoint, SECTOR * 100)
        out = {}
        for sector in range(20):
            chain, at = fe.post(OUT, sector, sector_of(sector, 2))
            out[chain] = at
        endpoint.kill()
        endpoint.start()

        def reap():
            for chain, _ in fe.rings[0].used():
                assert fe.memory.read(out.pop(chain) + STATUS, 1) == b"\0"     # KeyError: twice
            return not out
        assert wait_until(reap), out
        for sector in range(20):
            assert fe.read(sector, ring=1) == sector_of(sector, 2)


# --- killed --------------------------------------------------------------------------------------

@FORMATS
def test_endpoint_is_killed(workdir, packed):
    """It is said why, another guest goes on, and this one does with the next endpoint."""
    with bridged(workdir, "", "") as (backend, endpoints):
        with open_frontend(backend.sockets[0], packed=packed) as fe, \
                open_frontend(backend.sockets[1], packed=packed) as other:
            for number in range(KILLS):
                fe.check(random_packets(f"before {number}", 100))
                since = backend.process.mark()
                endpoints[0].kill()
                becomes(backend, "failed")
                told = info(backend)
                assert told["failure"] == told["endpoint_why"] == "its endpoint has ended"
                backend.process.expect("vdpa_vfn0: .*its endpoint has ended", since=since)
                other.check(random_packets(f"other {number}", 100))
                endpoints[0].start()
                becomes(backend, "running")
                fe.check(random_packets(f"after {number}", 100))
            assert info(backend)["failures"] == KILLS
            assert info(backend, "vdpa_vfn1")["failures"] == 0
            only_written(backend, endpoints[0], 1)


@FORMATS
@pytest.mark.parametrize("track", [False, True], ids=["", "inflight"])
def test_no_chain_lost_and_none_twice(workdir, packed, track, rng):
    with bridged(workdir, ",idle=busy") as (backend, [endpoint]):
        with Survivor(backend.sockets[0], None, packed, track=track, stale=False) as fe:
            fe.meet().settled()
            for _ in range(KILLS):
                fe.run(rng.uniform(0, 0.1))
                endpoint.kill()
                fe.deaths += 1
                if rng.random() < 0.5:
                    fe.run(0.05)    # into the void
                endpoint.start()
                fe.settled()
            assert fe.completed > KILLS * 64


def test_driver_is_killed(workdir):
    """The endpoint says so, and takes the next one; its other function's guest goes on."""
    elsewhere = os.path.join(workdir, "elsewhere")
    os.mkdir(elsewhere)
    with Endpoint(["fn0,idle=sleep", "fn1,idle=sleep"], workdir, bridges=True) as endpoint:
        first, second = (f"vdpa_vfn0,link=ntb,path={path}" for path in endpoint.sockets)
        with Backend(second, directory=elsewhere) as survivor, \
                open_frontend(survivor.sockets[0]) as other:
            for number in range(KILLS):
                with Backend(first, directory=workdir) as backend:
                    with open_frontend(backend.sockets[0]) as fe:
                        fe.check(random_packets(number, 50))
                        since = endpoint.process.mark()
                        backend.kill()
                        endpoint.process.expect("fn0: .*the peer", since=since)
                    assert wait_until(lambda: not endpoint.info(0)["driver"])
                    other.check(random_packets(f"other {number}", 50))
                    os.unlink(backend.sockets[0])
            assert endpoint.info(0)["drivers"] == KILLS
            assert endpoint.info(1)["drivers"] == 1


def test_endpoint_stops(workdir):
    """It neither answers nor ends: its device is failed in time, and is one again once it is let go
    of."""
    with bridged(workdir, "", "") as (backend, endpoints):
        with open_frontend(backend.sockets[1]) as other:
            with open_frontend(backend.sockets[0]) as fe:
                fe.check(random_packets("before", 50))
                endpoints[0].signal(signal.SIGSTOP)
            becomes(backend, "failed", timeout=20)
            other.check(random_packets("other", 50))
            endpoints[0].signal(signal.SIGCONT)
            with open_frontend(backend.sockets[0]) as fe:
                fe.check(random_packets("after", 50))
