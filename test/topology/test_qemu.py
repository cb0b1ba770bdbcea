# SPDX-License-Identifier: BSD-3-Clause
"""Two QEMU guests on two wired functions: does what one sends arrive, whole, at the other?

Every claim is checked inside the guests: negotiated features, counters, checksums of what arrived.
With --device=net_vhost two ports of DPDK's net_vhost stand in for the functions.
"""

import contextlib
import functools
from dataclasses import dataclass

import pytest
from guest import Guest, Nic, missing
from harness import NIGHTLY, Backend, NetVhost, Testpmd, cpu

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

F_CSUM, F_GUEST_CSUM, F_MTU = 0, 1, 3
F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6 = 7, 8, 11, 12
F_MRG_RXBUF, F_MQ, F_INDIRECT_DESC, F_EVENT_IDX = 15, 22, 28, 29
F_VERSION_1, F_RING_PACKED = 32, 34
OFFLOADS = {F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6}

PACKED = {"packed": "on"}
NO_OFFLOADS = dict.fromkeys(
    ("csum", "gso", "host_tso4", "host_tso6", "host_ecn", "host_ufo",
     "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"), "off")
NO_MRG = {"mrg_rxbuf": "off"}
NO_EVENT_IDX = {"event_idx": "off"}
NO_INDIRECT = {"indirect_desc": "off"}
PLAIN = {**NO_OFFLOADS, **NO_MRG, **NO_EVENT_IDX, **NO_INDIRECT}

# Properties of the first and of the second guest's card. Every ring format meets every switch at
# least once, and each format meets the other.
PAIRS = {
    "split": ({}, {}),
    "packed": (PACKED, PACKED),
    "split-plain": (PLAIN, PLAIN),
    "packed-plain": ({**PACKED, **PLAIN}, {**PACKED, **PLAIN}),
    "split-no-mrg-to-packed-no-mrg": (NO_MRG, {**PACKED, **NO_MRG}),
    "split-no-event-idx-to-packed-no-indirect": (NO_EVENT_IDX, {**PACKED, **NO_INDIRECT}),
}
MIXED = (PACKED, {})
# Where these functions are, if not in the driver's process.
LINKS = {"split-no-mrg-to-packed-no-mrg": "ntb",
         "split-no-event-idx-to-packed-no-indirect": "ntb-host"}

MIB = 1 << 20
# what a guest spends on it is random numbers and checksums; by day still some thousand packets, and
# rings that have gone round many times
TRANSFER_MIB = 64 if NIGHTLY else 16
BRIEF_MIB = 16 if NIGHTLY else 4
TRANSFER_SECONDS = 300


def expected_features(props):
    """(bits that must be negotiated, bits that must not be) with these properties of the card."""
    wanted = {F_VERSION_1}
    refused = set()
    for bits, key, default in (({F_RING_PACKED}, "packed", "off"), (OFFLOADS, "csum", "on"),
                               ({F_MRG_RXBUF}, "mrg_rxbuf", "on"),
                               ({F_EVENT_IDX}, "event_idx", "on"),
                               ({F_INDIRECT_DESC}, "indirect_desc", "on"),
                               ({F_MQ}, "mq", "off")):
        (wanted if props.get(key, default) == "on" else refused).update(bits)
    return wanted, refused


def ipv4(number):
    return f"10.9.8.{number + 1}"


def ipv6(number):
    return f"fd09::{number + 1}"


def configure(guest, number):
    """Addresses up, and random data to send."""
    guest.run(f"""
        set -e
        echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
        echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
        ip link set eth0 up
        ip addr replace {ipv4(number)}/24 dev eth0
        ip addr replace {ipv6(number)}/64 dev eth0
    """)


def random_data(guest, mib):
    """Fill the guest's /tmp/data with that many MiB."""
    guest.run(f"head -c {int(mib * MIB)} /dev/urandom >/tmp/data")


class WiredNetVhost(NetVhost):
    """The control: frames go from each port to the other, offloads and jumbo frames included."""

    def start(self):
        vdevs = [f"net_vhost{i},iface={s},queues={self._queues},client={int(self.client)},"
                 "tso=1,legacy-ol-flags=1" for i, s in enumerate(self.sockets)]
        args = ["--port-topology=paired", f"--rxq={self._queues}", f"--txq={self._queues}",
                "--max-pkt-len=9200", "--disable-link-check", "--total-num-mbufs=60000"]
        self.process = Testpmd(vdevs, args=args, lcores=f"0@{cpu(1)},1@{cpu(1)}",
                               memory="no-huge", name="net_vhost")
        self.process.cmd("set fwd io retry")
        self.process.cmd("start")


@dataclass
class Pair:
    backend: object  # Backend or the control
    guests: list
    props: tuple


@contextlib.contextmanager
def wired_by(kind, props, queues=1, cpus=1, devargs="", client=False, slots=0, link=None):
    """Two guests with an address each on two functions wired to each other."""
    where = {"link": link} if kind is Backend else {}
    devs = [f"vdpa_vfn0,port=wire,idle=sleep,queues={queues}{devargs}",
            f"vdpa_vfn1,port=wire,peer=vdpa_vfn0,idle=sleep,queues={queues}{devargs}"]
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(kind(devs=devs, client=client, **where))
        guests = []
        for number, extra in enumerate(props):
            nic = Nic(backend.sockets[number], f"52:54:00:00:09:{number + 1:02x}", queues=queues,
                      server=client, props=extra)
            guests.append(stack.enter_context(Guest([nic], name=f"guest{number}", cpus=cpus,
                                                    slots=slots)))
        for number, guest in enumerate(guests):
            configure(guest.boot(), number)
        yield Pair(backend, guests, props)


@pytest.fixture(scope="session")
def wired(request):
    """wired_by() with the device the command line asks for."""
    kind = {"vfn": Backend, "net_vhost": WiredNetVhost}[request.config.getoption("--device")]
    return functools.partial(wired_by, kind)


@pytest.fixture
def only_vfn(request):
    if request.config.getoption("--device") != "vfn":
        pytest.skip("net_vhost in testpmd only copies from queue to queue")


@pytest.fixture(scope="class", params=PAIRS)
def booted(request, wired):
    with wired(PAIRS[request.param], link=LINKS.get(request.param)) as pair:
        yield pair


@pytest.fixture
def pair(booted):
    yield booted
    for guest in booted.guests:  # pytest shows it if the test failed
        print(guest.explain("state after the test"))
    print("\n".join(booted.backend.log().splitlines()[-25:]))


class Flow:
    """A TCP connection that carries one guest's /tmp/data to another, hashed at both ends.

    With endless=True the data is repeated, at a pace that leaves the guests time for other things,
    until end() or finish().
    """

    def __init__(self, source, target, address, port, endless=False):
        self.source = source
        self.stop = f"/tmp/stop.{port}"
        family = "-6" if ":" in address else "-4"
        self.receiver = target.spawn(f"nc.openbsd {family} -d -l {port} | sha256sum")
        target.run(f"until netstat -ltn | grep -q ':{port} '; do usleep 20000; done")
        rounds = f"/tmp/rounds.{port}"
        again = f"usleep 100000; test ! -e {self.stop}" if endless else "false"
        self.sender = source.spawn(f"""
            rm -f {self.stop} {rounds}
            while echo >>{rounds} x; cat /tmp/data; {again}; do :; done |
                nc.openbsd -N {address} {port}
            for x in $(cat {rounds}); do cat /tmp/data; done | sha256sum
        """)

    def running(self):
        return not self.sender.done() and not self.receiver.done()

    def end(self):
        """No further repetition."""
        self.source.run(f"touch {self.stop}")

    def finish(self):
        """Assert that what was sent is what arrived."""
        self.end()
        sent = self.sender.wait(timeout=TRANSFER_SECONDS).out
        received = self.receiver.wait(timeout=TRANSFER_SECONDS).out
        assert len(sent.split()) == 2, sent  # a checksum and "-", no complaint of nc's
        assert received == sent


def ping(guest, address, sizes):
    """One echo of each payload size must come back, once."""
    guest.run(f"""
        for size in {' '.join(map(str, sizes))}; do
            ping -c 1 -W 20 -s $size {address} >/tmp/ping 2>&1 && ! grep -q DUP /tmp/ping ||
                {{ echo "size $size"; cat /tmp/ping; exit 1; }}
        done
    """, timeout=300)


def assert_no_errors(guest):
    for name in ("rx_errors", "rx_length_errors", "rx_frame_errors", "tx_errors"):
        assert guest.statistic(name) == 0, f"{guest.name} {name}"
    for name in ("Ip.InHdrErrors", "Icmp.InCsumErrors", "Tcp.InCsumErrors"):
        assert guest.snmp(name) == 0, f"{guest.name} {name}"


def assert_traffic(guests, mib=1):
    """Data goes both ways, at the same time, and arrives whole."""
    for guest in guests:
        random_data(guest, mib)
    ping(guests[0], ipv4(1), [0, 1472])
    flows = [Flow(guests[0], guests[1], ipv4(1), 5001), Flow(guests[1], guests[0], ipv6(0), 5002)]
    for flow in flows:
        flow.finish()


class TestPair:
    """Every combination of PAIRS; the tests of one pair run in this order on one boot."""

    def test_driver_negotiated_what_the_card_was_told(self, pair):
        for guest, props in zip(pair.guests, pair.props):
            wanted, refused = expected_features(props)
            features = guest.features()
            assert wanted <= features
            assert not refused & features

    def test_ping_of_every_size_arrives_in_one_frame(self, pair):
        first, second = pair.guests
        sizes = sorted({*range(0, 66), *range(66, 1473, 41), *range(110, 132), *range(1440, 1473)})
        received = second.statistic("rx_packets")
        ping(first, ipv4(1), sizes)
        assert first.snmp("Ip.FragCreates") == 0
        assert second.statistic("rx_packets") - received >= len(sizes)
        ping(second, ipv4(0), [1473, 8000, 65507])  # so many frames back to back:
        assert second.snmp("Ip.FragCreates") == 2 + 6 + 45
        assert first.snmp("Ip.ReasmOKs") == second.snmp("Ip.ReasmOKs") == 3
        for guest in pair.guests:
            assert_no_errors(guest)

    def test_tcp_transfer_arrives_whole(self, pair):
        before = [guest.statistic("tx_packets") for guest in pair.guests]
        assert_traffic(pair.guests, TRANSFER_MIB)
        for guest, props, old in zip(pair.guests, pair.props, before):
            packets = guest.statistic("tx_packets") - old
            segments = TRANSFER_MIB * MIB // 1448
            if props.get("csum") == "off":
                assert packets >= segments
            else:  # the guest handed over frames far longer than the wire's
                assert packets < segments
            assert_no_errors(guest)


def test_jumbo_frames_pass_unfragmented(wired):
    props = ({**NO_OFFLOADS, "host_mtu": "9000"},
             {**PACKED, **NO_OFFLOADS, **NO_MRG, "host_mtu": "9000"})
    with wired(props, devargs=",mtu=9000") as pair:
        for number, guest in enumerate(pair.guests):
            assert F_MTU in guest.features()
            assert guest.read("/sys/class/net/eth0/mtu") == "9000"
            ping(guest, ipv4(1 - number), [0, 1472, 1473, 4055, 4056, 4057, 8191, 8971, 8972])
            assert guest.snmp("Ip.FragCreates") == 0
        assert_traffic(pair.guests, BRIEF_MIB)
        for guest in pair.guests:
            assert guest.statistic("rx_bytes") > BRIEF_MIB * MIB
            assert_no_errors(guest)


def test_offloads_on_one_side_only(wired, only_vfn):  # pylint: disable=unused-argument
    """What a guest leaves to the card must be done before a guest that cannot take it gets it."""
    with wired(({}, {**PACKED, **NO_OFFLOADS, **NO_MRG})) as pair:
        for guest, props in zip(pair.guests, pair.props):
            assert (OFFLOADS <= guest.features()) == (props.get("csum") != "off")
        assert_traffic(pair.guests, BRIEF_MIB)
        for guest in pair.guests:
            assert_no_errors(guest)


NO_TSO = dict.fromkeys(("guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"), "off")
LEGACY = {"disable-modern": "on", "disable-legacy": "off"}


@pytest.mark.parametrize("receiver", [NO_TSO, {**PACKED, **NO_TSO, **NO_MRG},
                                      {**NO_OFFLOADS, **NO_MRG}],
                         ids=["checksums-left", "packed-no-mrg", "nothing-left"])
def test_segmentation_that_the_receiver_does_not_take(wired, only_vfn, receiver):
    # pylint: disable=unused-argument
    """A default sender hands over long TCP packets; each of them becomes packets of the wire."""
    with wired(({}, receiver)) as pair:
        first, second = pair.guests
        assert {F_HOST_TSO4, F_HOST_TSO6} <= first.features()
        assert not {F_GUEST_TSO4, F_GUEST_TSO6} & second.features()
        random_data(first, BRIEF_MIB)
        for number, address in enumerate((ipv4(1), ipv6(1))):
            sent, received = first.statistic("tx_packets"), second.statistic("rx_packets")
            again = first.snmp("Tcp.RetransSegs")
            Flow(first, second, address, 5000 + number).finish()
            segments = BRIEF_MIB * MIB // 1448
            sent = first.statistic("tx_packets") - sent
            received = second.statistic("rx_packets") - received
            assert sent < segments / 2 and received >= segments
            # each one that is dropped is sent again, in packets of the wire's size
            assert first.snmp("Tcp.RetransSegs") - again < segments / 20
        for guest in pair.guests:
            assert_no_errors(guest)


@pytest.mark.parametrize("offloads", ["csum", "off"])
def test_offloads_that_are_not_offered(wired, only_vfn, offloads):
    # pylint: disable=unused-argument
    with wired(MIXED, devargs=f",offloads={offloads}") as pair:
        for guest in pair.guests:
            assert guest.features() & OFFLOADS == (
                {F_CSUM, F_GUEST_CSUM} if offloads == "csum" else set())
        assert_traffic(pair.guests)


def test_legacy_driver(wired, only_vfn):  # pylint: disable=unused-argument
    """The guest's driver knows nothing of virtio 1: with either header, and a modern peer."""
    for props in (({**LEGACY, **NO_MRG}, {}), ({**PACKED, **NO_MRG}, LEGACY)):
        with wired(props) as pair:
            for guest, its in zip(pair.guests, pair.props):
                features = guest.features()
                assert (F_VERSION_1 in features) == ("disable-modern" not in its)
                assert (F_MRG_RXBUF in features) == ("mrg_rxbuf" not in its)
            ping(pair.guests[0], ipv4(1), [0, 56, 1472, 8000])
            assert_traffic(pair.guests, 4)
            for guest in pair.guests:
                assert_no_errors(guest)


# Several queue pairs.


def set_channels(guest, count):
    guest.run(f"ethtool -L eth0 combined {count}")
    assert f"Combined:\t{count}" in guest.run("ethtool -l eth0").out.splitlines()[-1].replace(
        "Combined:\t\t", "Combined:\t")


def busy_queues(guest, direction, before):
    after = guest.queue_packets(direction)
    return {queue for queue, packets in after.items() if packets > before.get(queue, 0)}


def test_queue_pairs_changed_under_traffic(wired):
    with wired(MIXED, queues=4, cpus=2) as pair:
        first, second = pair.guests
        for guest in pair.guests:
            assert F_MQ in guest.features()
            set_channels(guest, 4)
            random_data(guest, 1 / 4)
        before = {guest: {way: guest.queue_packets(way) for way in ("rx", "tx")}
                  for guest in pair.guests}
        flows = [Flow(first, second, ipv4(1), 5000 + number, endless=True) for number in range(4)]
        flows += [Flow(second, first, ipv6(0), 5010 + number, endless=True) for number in range(4)]
        for counts in ((1, 1), (4, 4), (2, 2), (3, 3), (4, 4)):
            for guest, count in zip(pair.guests, counts):
                set_channels(guest, count)
            assert all(flow.running() for flow in flows), counts
            ping(first, ipv4(1), [56] * 5)
        for flow in flows:
            flow.end()
        for flow in flows:
            flow.finish()
        for guest in pair.guests:
            for way in ("rx", "tx"):
                assert len(busy_queues(guest, way, before[guest][way])) > 1, (guest.name, way)
            assert_no_errors(guest)


def test_fewer_queue_pairs_on_one_side(wired, only_vfn):  # pylint: disable=unused-argument
    """Packets of pairs that the receiver does not use go to one it does use."""
    with wired(MIXED, queues=4, cpus=2) as pair:
        for counts in ((4, 1), (1, 4), (3, 2)):
            for guest, count in zip(pair.guests, counts):
                set_channels(guest, count)
                random_data(guest, BRIEF_MIB / 4)
            before = [guest.queue_packets("rx") for guest in pair.guests]
            flows = [Flow(pair.guests[way], pair.guests[1 - way], ipv4(1 - way),
                          5000 + 10 * way + number) for way in (0, 1) for number in range(4)]
            for flow in flows:
                flow.finish()
            for guest, count, old in zip(pair.guests, counts, before):
                assert busy_queues(guest, "rx", old) <= set(range(count))


# Guests that come and go.


def test_driver_unbound_and_bound_again(wired):
    with wired(MIXED) as pair:
        assert_traffic(pair.guests)
        for number, guest in enumerate(pair.guests):
            guest.run("""
                set -e
                device=$(basename $(readlink /sys/class/net/eth0/device))
                cd /sys/bus/virtio/drivers/virtio_net
                for turn in 1 2 3; do
                    echo $device >unbind
                    test ! -e /sys/class/net/eth0
                    echo $device >bind
                    test -e /sys/class/net/eth0
                done
            """)
            configure(guest, number)
            wanted, refused = expected_features(pair.props[number])
            assert wanted <= guest.features() and not refused & guest.features()
            assert_traffic(pair.guests)


def test_guest_reset_under_traffic(wired):
    with wired(MIXED) as pair:
        for number, guest in enumerate(pair.guests):
            other = pair.guests[1 - number]
            kept = other.boot_id
            with endless_flows(pair.guests):
                guest.reset()
                configure(guest.boot(), number)
            assert_traffic(pair.guests)
            assert other.read("/proc/sys/kernel/random/boot_id") == kept


@pytest.mark.parametrize("client", [False, True], ids=["backend-listens", "backend-connects"])
def test_guest_killed_and_started_anew(wired, client):
    with wired(MIXED, client=client) as pair:
        assert_traffic(pair.guests)
        for number, guest in enumerate(pair.guests):
            other = pair.guests[1 - number]
            kept = other.boot_id
            with endless_flows(pair.guests):
                guest.kill()
                guest.start()
                configure(guest.boot(), number)
            assert_traffic(pair.guests)
            assert other.read("/proc/sys/kernel/random/boot_id") == kept
            assert_no_errors(other)


def test_memory_plugged_in_under_traffic(wired):
    """QEMU replaces its memory table, and soon frames are in memory that is new."""
    def taken_of_it(guest):
        """Pages of a zone that this guest has not had without it, and prefers."""
        return int(guest.run("awk '/^pgalloc_normal/ { print $2 }' /proc/vmstat").out)

    with wired(MIXED, slots=1) as pair:
        for guest in pair.guests:
            random_data(guest, 1 / 4)
            assert taken_of_it(guest) == 0
        flows = [Flow(pair.guests[way], pair.guests[1 - way], ipv4(1 - way), 5100 + way,
                      endless=True) for way in (0, 1)]
        for guest in pair.guests:
            guest.plug_memory(128)
            assert all(flow.running() for flow in flows)
            ping(pair.guests[0], ipv4(1), [56] * 3)
        for flow in flows:
            flow.finish()
        before = [taken_of_it(guest) for guest in pair.guests]
        assert_traffic(pair.guests, 4)
        for guest, pages in zip(pair.guests, before):
            assert taken_of_it(guest) - pages > 1000
            assert_no_errors(guest)


@contextlib.contextmanager
def endless_flows(guests):
    """Traffic both ways whose connections do not live to see the end of the block."""
    for guest in guests:
        random_data(guest, 1 / 4)
    flows = [Flow(guests[way], guests[1 - way], ipv4(1 - way), 5100 + way, endless=True)
             for way in (0, 1)]
    assert all(flow.running() for flow in flows)
    yield
    for guest in guests:
        guest.run("touch /tmp/stop.5100 /tmp/stop.5101; killall nc.openbsd; true")
