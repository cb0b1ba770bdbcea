# SPDX-License-Identifier: BSD-3-Clause
"""A stock guest with a function of vfn-endpoint as its card (QEMU 11), wired to a function that
something else has: a guest on vhost-user, by the driver's link=endpoint; or DPDK in a guest.
"""

import re
import secrets

import pytest
from guest import Guest, Nic, linux
from guest.dpdk import dpdk_image, start_testpmd
from guest.vfio_user import FunctionGuest
from guest.wired import card, wires
from harness import Backend, Endpoint
from test_endpoint_guest import programs    # noqa: F401
from test_qemu import (F_RING_PACKED, MIB, Flow, assert_no_errors, assert_traffic, configure, ipv4,
                       ping)

QUEUES = 2


@pytest.fixture(scope="module")
def wire(programs, request):    # noqa: F811  pylint: disable=redefined-outer-name,unused-argument
    """(endpoint, a guest that has its first function)"""
    if request.config.getoption("--device") != "vfn":
        pytest.skip("about functions")
    with Endpoint(wires("ab", queues=QUEUES)) as endpoint, \
            FunctionGuest([card(endpoint, 0)], name="guest0", cpus=2) as guest:
        configure(guest.boot(), 0)
        yield endpoint, guest


def places(pid, text):
    """Kinds of memory of a process where a text is: "guest", "own"."""
    found = set()
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, \
            open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            begin, end, readable, name = re.match(
                r"(\w+)-(\w+) (.)\S+ \S+ \S+ \S+ *(.*)", line).groups()
            if readable != "r" or name.startswith("[v"):
                continue
            memory.seek(int(begin, 16))
            left, data = int(end, 16) - int(begin, 16), b""
            while left > 0:
                more = memory.read(min(left, 16 * MIB))
                assert more, line
                left -= len(more)
                data = data[-len(text):] + more
                if text in data:
                    found.add("guest" if "memfd:memory-backend-memfd" in name else "own")
                    break
    return found


class TestVhostUser:
    """The other guest is on vhost-user, with split rings; the card has packed ones."""

    @pytest.fixture(scope="class")
    def both(self, wire):
        endpoint, first = wire
        device = f"vdpa_vfn0,link=endpoint,path={endpoint.sockets[1]}"
        with Backend(device) as server:
            nic = Nic(server.sockets[0], "52:54:00:00:0c:02", queues=QUEUES)
            with Guest([nic], name="guest1", cpus=2) as second:
                configure(second.boot(), 1)
                yield endpoint, server, [first, second]

    def test_traffic_arrives_whole(self, both):
        endpoint, server, guests = both
        first, second = guests
        assert F_RING_PACKED in first.features() - second.features()
        assert endpoint.info(0)["client"] == first.pid
        assert endpoint.info(1)["client"] == server.pid
        ping(first, ipv4(1), [*range(0, 66, 13), *range(66, 1473, 281), 1472, 8000, 65507])
        ping(second, ipv4(0), [0, 1472, 1473, 8000, 65507])
        assert_traffic(guests, 16)
        for guest in guests:
            assert_no_errors(guest)

    def test_one_copy(self, both):
        """What is sent is in the guests' memory, and in no other of the processes between."""
        endpoint, server, guests = both
        for source, target in (guests, guests[::-1]):
            text = secrets.token_hex(32)
            source.run(f"yes {text} | head -c {4 * MIB} >/tmp/data")
            Flow(source, target, ipv4(guests.index(target)), 5001).finish()
            with target.ram() as ram:
                assert ram.find(text.encode()) >= 0
            assert places(endpoint.pid, text.encode()) == {"guest"}
            # it has the second guest's memory only
            assert places(server.pid, text.encode()) == {"guest"}


def test_dpdk_in_a_guest(wire):
    """net_virtio drives the card: it sends back what the first guest asks for, then the kernel has
    the card again."""
    endpoint, first = wire
    with FunctionGuest([card(endpoint, 1)], name="guest1", memory=512 << 10,
                       system=linux(*dpdk_image())) as second:
        slot = second.boot().slot()
        job = start_testpmd(second, slot, f"--forward-mode=icmpecho --auto-start --rxq={QUEUES} "
                                          f"--txq={QUEUES} --total-num-mbufs=8192 --stats-period=3600")
        first.run(f"for i in $(seq 60); do ping -c 1 -W 1 {ipv4(1)} && break; done", check=False)
        assert not job.done(), job.wait(check=False).out
        sizes = range(0, 1473, 64)
        ping(first, ipv4(1), sizes)
        second.run("kill -INT $(pidof testpmd)")
        out = job.wait(check=False).out
        received, sent = (int(re.search(rf"{way}-total: (\d+)", out)[1]) for way in ("RX", "TX"))
        assert received >= sent > len(sizes), out
        second.run(f"""
            set -e
            cd /sys/bus/pci/devices/{slot}
            echo {slot} >driver/unbind
            echo >driver_override
            echo {slot} >/sys/bus/pci/drivers_probe
        """)
        configure(second, 1)
        # the card is another one for its neighbour, too
        first.run(f"for i in $(seq 60); do ping -c 1 -W 1 {ipv4(1)} && break; done", check=False)
        assert_traffic([first, second])
        for guest in (first, second):
            assert_no_errors(guest)
