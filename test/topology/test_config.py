# SPDX-License-Identifier: BSD-3-Clause
"""Changes of the device configuration, made by telemetry: who gets to know of them, and how."""

import contextlib
import struct

import pytest

from back_channel import F_BACKEND_REQ, BackChannel, set_backend_req_fd
from frontend import PAIRS, Server, frames
from guest import Guest, Nic, missing
from harness import is_refused, wait_until
from net_device import FEATURES, PROTOCOL, FrontEnd
from vhost_user import F_CONFIG, VERSION, get_config, get_features

LINK_UP, ANNOUNCE = 1, 2    # config.status
GUEST_ANNOUNCE = 21
CONFIG_CHANGE = 2           # the back-end's request
TOLD = 1 << F_BACKEND_REQ | 1 << F_CONFIG
DEVS = (f"vdpa_vfn0,queues={PAIRS},mtu=1500", "vdpa_vfn1")


class Listener(FrontEnd):
    """A front-end with a channel for the back-end's requests."""

    def __init__(self, path, features=FEATURES | 1 << GUEST_ANNOUNCE, protocol=PROTOCOL | TOLD,
                 full=False, ask=True):
        super().__init__(path)
        self.channel = BackChannel()
        if full:
            self.channel.fill()
        self.connect().negotiate(features, protocol=protocol)
        if self.protocol & 1 << F_BACKEND_REQ:
            self.conn.tell(set_backend_req_fd(self.channel.theirs.fileno()))
        if ask and self.protocol & 1 << F_CONFIG:
            self.config()       # as of now

    def close(self):
        super().close()
        self.channel.close()

    def run(self):
        """All of the rest; when it is acknowledged the device runs."""
        self.setup().start().conn.ask(get_features())
        return self

    def told(self, timeout=10):
        """Wait for a CONFIG_CHANGE; False if none comes."""
        if not self.channel.asked(timeout):
            return False
        assert self.channel.receive() == (CONFIG_CHANGE, VERSION, b"", [])
        return True

    def config(self):
        """(status, mtu)"""
        _, status, _, mtu = struct.unpack_from("=6sHHH", self.conn.ask(get_config(12)), 12)
        return status, mtu


@pytest.fixture
def listener(backend):
    with contextlib.ExitStack() as stack:
        yield lambda dev=0, **how: stack.enter_context(Listener(backend.sockets[dev], **how))


@pytest.fixture(scope="module")
def backend():
    """One for all tests; each leaves links plugged in and the MTU as it was."""
    with Server(DEVS) as one:
        yield one


def test_link_goes_down_and_up(backend, listener):
    fe = listener().run()
    tell = backend.telemetry
    fe.check(frames("up", 20))
    assert fe.config() == (LINK_UP, 1500)
    mac = tell("/vfn/info,vdpa_vfn0")["mac"]
    assert tell("/vfn/link,vdpa_vfn0,down") == {"link": "down", "announce": 0, "mtu": 1500, "mac": mac}
    assert fe.told() and fe.config() == (0, 1500)
    assert tell("/vfn/info,vdpa_vfn0")["link"] == "down"
    dropped = backend.counted("vdpa_vfn0", 1)
    for frame in frames("down", 20):
        fe.send(frame)
    fe.post()
    assert fe.settle() and fe.receive() == []
    assert dropped("dropped") == {"dropped_no_peer": 20}
    # again the same is no change
    tell("/vfn/link,vdpa_vfn0,down")
    assert not fe.told(timeout=0.2)
    assert tell("/vfn/link,vdpa_vfn0,up")["link"] == "up"
    assert fe.told() and fe.config() == (LINK_UP, 1500)
    fe.check(frames("up again", 20))


def test_announcement_is_asked_for_once(backend, listener):
    fe = listener().run()
    for _ in range(2):
        assert backend.telemetry("/vfn/announce,vdpa_vfn0")["announce"] == 1
        assert fe.told()
        # what the guest answers stays with the front-end, so having been read has to do
        assert fe.config() == (LINK_UP | ANNOUNCE, 1500)
        assert fe.config() == (LINK_UP, 1500)


def test_mtu(backend, listener):
    fe = listener().run()
    for mtu in 68, 1500:
        assert backend.telemetry(f"/vfn/mtu,vdpa_vfn0,{mtu}")["mtu"] == mtu
        assert fe.told() and fe.config() == (LINK_UP, mtu)


def test_told_once_until_it_asks(backend, listener):
    """A front-end that does not read must not fill the channel, on which librte_vhost waits."""
    fe = listener().run()
    for _ in range(200):
        backend.telemetry("/vfn/link,vdpa_vfn0,down")
        backend.telemetry("/vfn/link,vdpa_vfn0,up")
    assert fe.told()
    assert not fe.told(timeout=0.2)
    fe.config()
    backend.telemetry("/vfn/mtu,vdpa_vfn0,1400")
    assert fe.told() and fe.config() == (LINK_UP, 1400)
    backend.telemetry("/vfn/mtu,vdpa_vfn0,1500")
    assert fe.told()


@pytest.mark.parametrize("change,ask", [(True, True), (False, True), (True, False)])
def test_change_before_the_start(backend, listener, change, ask):
    """Between GET_CONFIG and a ring that runs nobody can be told: it is made up for. Who has not
    asked knows of nothing that could have changed."""
    fe = listener(ask=ask)
    if change:
        backend.telemetry("/vfn/link,vdpa_vfn0,down")
    fe.run()
    told = change and ask
    assert fe.told(timeout=10 if told else 0.3) == told
    assert fe.config() == (LINK_UP ^ change, 1500)
    backend.telemetry("/vfn/link,vdpa_vfn0,up")


@pytest.mark.parametrize("protocol", [PROTOCOL, PROTOCOL & ~(1 << F_CONFIG) | 1 << F_BACKEND_REQ],
                         ids=["no channel", "no CONFIG"])
def test_not_told_if_not_negotiated(backend, listener, protocol):
    fe = listener(protocol=protocol).run()
    backend.telemetry("/vfn/link,vdpa_vfn0,down")
    backend.telemetry("/vfn/link,vdpa_vfn0,up")
    assert not fe.told(timeout=0.3)
    fe.check(frames("traffic", 20))


def test_channel_that_is_closed(backend, listener):
    """Negotiated, but nobody is there: said, and traffic goes on."""
    fe = listener().run()
    fe.channel.ours.close()
    backend.telemetry("/vfn/link,vdpa_vfn0,down")
    backend.said("front-end cannot be told of a new configuration")
    backend.telemetry("/vfn/link,vdpa_vfn0,up")
    fe.check(frames("traffic", 20))


def whoever_takes_no_messages(backend, at_the_end=None):
    """Is not told; telemetry, its device and others go on."""
    with Listener(backend.sockets[1]) as other:
        other.run()
        for _ in range(2):
            with Listener(backend.sockets[0], full=True) as fe:
                fe.run()
                assert backend.telemetry("/vfn/link,vdpa_vfn0,down")["link"] == "down"
                assert backend.telemetry("/vfn/link,vdpa_vfn0,up")["link"] == "up"
                assert fe.config() == (LINK_UP, 1500)
                backend.telemetry("/vfn/mtu,vdpa_vfn0,1400")
                fe.check(frames("traffic", 20))
                backend.telemetry("/vfn/link,vdpa_vfn1,down")
                assert other.told() and other.config()[0] == 0
                backend.telemetry("/vfn/link,vdpa_vfn1,up")
                assert other.told() and other.config()[0] == LINK_UP
                backend.telemetry("/vfn/mtu,vdpa_vfn0,1500")
                since = backend.process.mark()
                assert fe.stop()[1] == fe.tx().position()
                if at_the_end:
                    backend.process.expect(at_the_end, since=since)
        other.check(frames("other", 20))
    with Listener(backend.sockets[0]) as fe:
        fe.run()
        backend.telemetry("/vfn/link,vdpa_vfn0,down")
        assert fe.told() and fe.config() == (0, 1500)
        backend.telemetry("/vfn/link,vdpa_vfn0,up")
        assert fe.told()


def test_channel_that_is_full(backend):
    whoever_takes_no_messages(backend)


def test_channel_that_is_full_without_the_gate():
    with Server(DEVS, gate=False) as bare:
        whoever_takes_no_messages(bare, "vdpa_vfn0: the front-end takes no messages")


def test_wire_goes_down_at_both_ends():
    devs = ["vdpa_vfn0,port=wire", "vdpa_vfn1,port=wire,peer=vdpa_vfn0"]
    with Server(devs) as wire, contextlib.ExitStack() as stack:
        ends = [stack.enter_context(Listener(path)).run() for path in wire.sockets]
        for dev, change, status in [(0, "down", 0), (1, "down", None), (0, "up", None),
                                    (1, "up", LINK_UP)]:
            wire.telemetry(f"/vfn/link,vdpa_vfn{dev},{change}")
            for end in ends:
                if status is None:
                    assert not end.told(timeout=0.2)
                else:
                    assert end.told() and end.config()[0] == status


@pytest.mark.parametrize("command,why", [
    ("/vfn/link", "name of a device is missing"),
    ("/vfn/link,vdpa_vfn7,up", "no device vdpa_vfn7"),
    ("/vfn/link,vdpa_vfn0", 'not ""'),
    ("/vfn/link,vdpa_vfn0,UP", 'not "UP"'),
    ("/vfn/link,vdpa_vfn0,up,down", 'not "up,down"'),
    ("/vfn/announce,vdpa_vfn0,1", 'not "1"'),
    ("/vfn/announce,vdpa_vfn0", "no guest"),
    ("/vfn/mtu,vdpa_vfn0", 'not ""'),
    ("/vfn/mtu,vdpa_vfn0,67", 'not "67"'),
    ("/vfn/mtu,vdpa_vfn0,65536", 'not "65536"'),
    ("/vfn/mtu,vdpa_vfn0,-1", 'not "-1"'),
    ("/vfn/mtu,vdpa_vfn0,1500x", 'not "1500x"'),
    ("/vfn/mtu,vdpa_vfn1,1500", "no MTU is offered"),
])
def test_telemetry_refuses(backend, command, why):
    since = backend.process.mark()
    assert is_refused(backend.telemetry(command), why)
    backend.process.expect(f"telemetry: .*{why}", since=since)
    assert backend.telemetry("/vfn/info,vdpa_vfn0")["mtu"] == 1500


def test_announce_needs_a_guest_that_can(backend, listener):
    listener(features=FEATURES).run()
    since = backend.process.mark()
    assert is_refused(backend.telemetry("/vfn/announce,vdpa_vfn0"))
    backend.process.expect("did not negotiate VIRTIO_NET_F_GUEST_ANNOUNCE", since=since)


@pytest.mark.skipif(bool(missing()), reason=f"not installed: {' '.join(missing())}")
def test_linux_guest_in_qemu():
    """QEMU does not take part in CONFIG for net devices, and so is not told: the guest's carrier
    stays though nothing passes. What it makes a carrier change is the end of the connection."""
    def carrier():
        return guest.read("/sys/class/net/eth0/carrier")

    def passed():
        """Do the guest's broadcasts come back from the loop?"""
        before = {way: guest.statistic(f"{way}_packets") for way in ("tx", "rx")}
        guest.run("ping -c 1 -W 1 10.9.8.255", check=False)
        assert guest.statistic("tx_packets") > before["tx"]
        return guest.statistic("rx_packets") > before["rx"]

    with Server(DEVS) as device, Guest([Nic(device.sockets[0], "02:00:00:00:00:01")]) as guest:
        guest.boot()
        assert GUEST_ANNOUNCE in guest.features()
        guest.run("ip link set eth0 up; ip addr add 10.9.8.1/24 dev eth0")
        assert carrier() == "1" and passed()
        for change in "down", "up":
            assert device.telemetry(f"/vfn/link,vdpa_vfn0,{change}")["link"] == change
            assert carrier() == "1" and passed() == (change == "up")
        # the guest could announce itself, and has nobody who asks it to
        assert device.telemetry("/vfn/announce,vdpa_vfn0")["announce"] == 1
        device.stop()
        assert wait_until(lambda: carrier() == "0")
