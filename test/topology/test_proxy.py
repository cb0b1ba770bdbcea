# SPDX-License-Identifier: BSD-3-Clause
"""Stock testpmd as the front-end, with a proxy (proxy.py) between it and the device that does to
their messages what broken front-ends, and networks of monitoring tools, do.
"""

import contextlib
import os
import struct

import pytest

from harness import NIGHTLY, Echo, PmdError, wait_until
from pmd import Loop
from proxy import TO_BACK, TO_FRONT, Cut, Proxy
from rings import Region
from vhost_user import Request, get_features, set_vring_num, Message, Refused

RINGS = pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])


@pytest.fixture
def backend(device):
    return device()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def proxied(workdir, backend, hook=None, **more):
    return Proxy(os.path.join(workdir, "front"), backend.sockets[0], hook, **more)


@pytest.fixture
def front(workdir):
    """The path that the front-end uses."""
    return os.path.join(workdir, "front")


@RINGS
def test_messages_are_passed_and_seen(backend, workdir, front, packed):
    """The proxy itself: it changes nothing, and keeps the answers to its own questions."""
    with proxied(workdir, backend) as proxy, Echo(workdir, front, packed=packed) as pmd:
        pmd.rounds("plain", rounds=1)
        assert (TO_FRONT, Request.GET_FEATURES) in proxy.seen
        kept = proxy.last[Request.SET_FEATURES]
        assert struct.unpack("=Q", kept.payload)[0] & ~(1 << 30) == pmd.features()
        assert len(proxy.last[Request.SET_MEM_TABLE].fds) >= 1
        count = len(proxy.seen)
        offered, = struct.unpack("=Q", proxy.inject(get_features()))
        assert pmd.features() & ~offered == 0
        with pytest.raises(Refused):
            proxy.inject(set_vring_num(0, 0))
        proxy.resend(Request.SET_FEATURES)
        assert len(proxy.seen) == count
        pmd.rounds("after", rounds=1)


def test_proxy_that_changes_a_message_is_noticed(backend, workdir, front):
    """Negative control: a feature less is a feature less at the device."""
    def without_in_order(way, message):
        if (way, message.request) != (TO_FRONT, Request.GET_FEATURES):
            return None
        bits = struct.unpack("=Q", message.payload)[0] & ~(1 << 35)
        return [type(message)(message.request, message.flags, struct.pack("=Q", bits))]
    with proxied(workdir, backend, without_in_order), Echo(workdir, front) as pmd:
        assert not pmd.features() & 1 << 35
        pmd.rounds("fewer", rounds=1)


@RINGS
def test_every_message_twice(backend, workdir, front, packed):
    rest = descriptors(backend.pid)
    with proxied(workdir, backend, lambda way, m: [m, m] if way == TO_BACK else None):
        with Echo(workdir, front, packed=packed) as pmd:
            for number in range(2):
                pmd.rounds(f"twice {number}", rounds=1)
                pmd.cmd("port stop 1")
                pmd.cmd("port start 1")
            pmd.rounds("again", rounds=1)
    assert wait_until(lambda: descriptors(backend.pid) == rest)


@RINGS
def test_cut_after_every_message(backend, workdir, front, packed):
    """virtio-user dies of it, or never has a device; the next one has traffic."""
    rest = descriptors(backend.pid)
    limit, handshake = [None], []

    def cut(way, message):
        if way == TO_BACK and limit[0] is not None and message.number >= limit[0]:
            raise Cut

    def front_end(**more):
        return Echo(workdir, front, packed=packed, megabytes=64,
                    args=["--total-num-mbufs=4096"], **more)

    with proxied(workdir, backend, cut) as proxy:
        with front_end() as pmd:
            pmd.rounds("whole", rounds=1)
            handshake = [r for way, r in proxy.seen if way == TO_BACK]
        for limit[0] in range(0, len(handshake), 1 if NIGHTLY else 6):
            count = proxy.connections
            with contextlib.suppress(PmdError), front_end(start=False):
                assert proxy.wait(lambda p: p.connections > count and not p.connected())
            assert len(proxy.seen) >= limit[0]
            assert wait_until(lambda: descriptors(backend.pid) == rest), limit[0]
        limit[0] = None
        with front_end() as pmd:
            pmd.rounds("after", rounds=1)


@RINGS
def test_cut_under_traffic(backend, workdir, front, packed):
    """virtio-user as the server is found again, and goes on."""
    with Loop(front, packed=packed, options=",server=1", start=False) as pmd, \
            proxied(workdir, backend, front_listens=True) as proxy:
        pmd.ready()
        for number in range(3):
            flows(pmd)
            count, mark = proxy.connections, backend.process.mark()
            proxy.cut()
            assert proxy.wait(lambda p: p.connections > count)
            # it has reset its rings; the link may still say what it was before
            backend.process.expect("vdpa_vfn0 connected", 30, mark)
            assert wait_until(lambda: pmd.link_up(0)), "virtio-user did not reconnect"
            pmd.cmd("stop")
            pmd.cmd("port stop 0")
            pmd.cmd("port start 0")
        flows(pmd)
        pmd.quit()      # before the proxy hangs up, of which testpmd dies


def flows(pmd):
    """Traffic begins."""
    before = pmd.port_stats(0)["RX-packets"]
    pmd.start_traffic()
    assert wait_until(lambda: pmd.port_stats(0)["RX-packets"] > before + 1000, 60)


def goes_on(pmd):
    """Traffic that began a while ago still circulates."""
    before = pmd.port_stats(0)["RX-packets"]
    assert wait_until(lambda: pmd.port_stats(0)["RX-packets"] > before + 1000, 60)


@RINGS
def test_memory_hotplugged_under_traffic(backend, workdir, front, packed):
    """Regions come and go, each time the device stops, maps and goes on: not a frame is lost."""
    with proxied(workdir, backend) as proxy, Loop(front, packed=packed) as pmd:
        flows(pmd)
        kept = proxy.last[Request.SET_MEM_TABLE]
        count, = struct.unpack_from("=I", kept.payload)
        rest = descriptors(backend.pid)
        for number in range(20):
            with contextlib.closing(Region(0x5000_0000_0000 + (number << 32), 1 << 20)) as more:
                table = struct.pack("=II", count + 1, 0) + kept.payload[8:] + \
                    struct.pack("=QQQQ", more.gpa, more.size, more.uva, 0)
                proxy.inject(Message(Request.SET_MEM_TABLE, table, (*kept.fds, more.fd)))
            goes_on(pmd)
            if number % 2:
                proxy.resend(Request.SET_MEM_TABLE)
        proxy.resend(Request.SET_MEM_TABLE)
        goes_on(pmd)
        assert descriptors(backend.pid) == rest
        if hasattr(backend, "stats"):
            for counters in backend.stats().values():
                assert not any(v for k, v in counters.items() if k.startswith(("drop", "err")))


@RINGS
def test_eventfds_replaced_under_traffic(backend, workdir, front, packed):
    """The same eventfds come as new descriptors: no kick is missed, nothing leaks. Frames that
    meet the receive queue while it has none may be dropped."""
    with proxied(workdir, backend) as proxy, Loop(front, packed=packed) as pmd:
        flows(pmd)
        rest = descriptors(backend.pid)
        for ring in 1, 0:
            for number in range(20):
                proxy.resend((Request.SET_VRING_KICK, Request.SET_VRING_CALL)[number % 2], ring)
            if ring == 0:
                pmd.cmd("stop")
                flows(pmd)
            goes_on(pmd)
        assert descriptors(backend.pid) == rest
