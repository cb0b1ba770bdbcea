# SPDX-License-Identifier: BSD-3-Clause
"""User-mode Linux: the kernel's own virtio driver as a vhost-user front-end, without a hypervisor. It
passes its control queue on, so what an administrator says there is seen in the function.

The control is the same guest on DPDK's net_vhost, which does not serve that queue.
"""

import contextlib
import dataclasses
import struct
import time

import pytest
from guest import GuestError
from guest.image import uml_missing
from guest.uml import Uml
from harness import Backend, NetVhost, wait_until
from proxy import TO_FRONT, Proxy
from vhost_user import Request

pytestmark = pytest.mark.skipif(
    bool(uml_missing()), reason=f"Debian packages not installed: {' '.join(uml_missing())}")

F_GUEST_OFFLOADS, F_GUEST_TSO4, F_CTRL_VQ, F_CTRL_VLAN, F_MQ, F_CTRL_MAC = 2, 7, 17, 19, 22, 23
F_RING_PACKED = 34
MTU = 2000
WIRE = (f"vdpa_vfn0,port=wire,idle=sleep,queues=2,mtu={MTU},mac=02:00:00:00:00:01",
        f"vdpa_vfn1,port=wire,peer=vdpa_vfn0,idle=sleep,queues=2,mtu={MTU},mac=02:00:00:00:00:02")
PAIR = ("10.9.8.1", "10.9.8.2")


def no_packed_rings(way, message):
    """It has no option for that: the device seems not to have any."""
    if way != TO_FRONT or message.request != Request.GET_FEATURES:
        return None
    offered, = struct.unpack("=Q", message.payload)
    return [dataclasses.replace(
        message, payload=struct.pack("=Q", offered & ~(1 << F_RING_PACKED)))]


@contextlib.contextmanager
def wired(devs=WIRE, split=True):
    """Two of them on two functions that are wired to each other. `split`: the rings of the second."""
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(Backend(devs=list(devs)))
        paths = list(backend.sockets)
        if split:
            paths[1] += ".split"
            stack.enter_context(Proxy(paths[1], backend.sockets[1], no_packed_rings))
        guests = [stack.enter_context(Uml(path, f"uml{number}"))
                  for number, path in enumerate(paths)]
        for guest, address in zip(guests, PAIR):
            configure(guest.boot(), address)
        yield backend, guests


def configure(guest, address):
    guest.run(f"ip link set eth0 up; ip addr replace {address}/24 dev eth0")


@pytest.fixture(scope="module")
def pair():
    with wired() as both:
        yield both


def ping(guest, address, count=3):
    assert f" {count} packets received" in guest.run(f"ping -i 0.1 -c {count} -W 5 {address}").out


def transfer(source, target, address, megabytes=4):
    """A TCP connection that carries random data, whose checksums are compared."""
    receiver = target.spawn("nc.openbsd -d -l 5001 | sha256sum")
    target.run("until netstat -ltn | grep -q ':5001 '; do usleep 20000; done")
    sent = source.run(f"head -c {megabytes << 20} /dev/urandom >/tmp/data; "
                      f"nc.openbsd -N {address} 5001 </tmp/data; sha256sum </tmp/data").out
    assert receiver.wait().out == sent and len(sent.split()) == 2


def info(backend, number):
    return backend.telemetry(f"/vfn/info,vdpa_vfn{number}")


def filtered(backend, number=0):
    return backend.telemetry(f"/vfn/queue,vdpa_vfn{number},1")["dropped_filter"]


def test_what_it_negotiates(pair):
    backend, guests = pair
    for number, guest in enumerate(guests):
        features = guest.features()
        assert {F_GUEST_OFFLOADS, F_CTRL_VQ, F_CTRL_VLAN, F_CTRL_MAC} <= features
        assert (F_RING_PACKED in features) == (number == 0)
        assert F_MQ in features and info(backend, number)["control_queue"] == 4
        queue = backend.telemetry(f"/vfn/queue,vdpa_vfn{number},4")
        assert (queue["role"], queue["size"]) == ("control", 256) and queue["packets"] > 0
        assert guest.read("/sys/class/net/eth0/address") == info(backend, number)["mac"]


def test_ping_and_tcp(pair):
    _, (first, second) = pair
    ping(first, PAIR[1])
    ping(second, PAIR[0])
    transfer(first, second, PAIR[1])
    transfer(second, first, PAIR[0])
    for guest in first, second:
        assert guest.snmp("Tcp.InCsumErrors") == guest.snmp("Ip.InHdrErrors") == 0


def test_mac_address_and_promiscuous_mode(pair):
    backend, (first, second) = pair
    first.run(f"arping -c 1 -I eth0 {PAIR[1]}; arp -s {PAIR[1]} 02:00:00:00:00:77")
    before = filtered(backend)
    first.run(f"ping -i 0.1 -c 2 -W 1 {PAIR[1]}", check=False)
    assert filtered(backend) >= before + 2      # nobody has that address
    second.run("ip link set eth0 promisc on")
    before = filtered(backend)
    first.run(f"ping -i 0.1 -c 2 -W 1 {PAIR[1]}", check=False)
    assert filtered(backend) == before
    second.run("ip link set eth0 promisc off; ip link set eth0 address 02:00:00:00:00:77")
    assert info(backend, 1)["mac"] == "02:00:00:00:00:77"
    ping(first, PAIR[1])
    second.run("ip link set eth0 address 02:00:00:00:00:02")
    first.run(f"arp -d {PAIR[1]}")
    ping(first, PAIR[1])


def test_vlan(pair):
    backend, (first, second) = pair
    first.run("ip link add link eth0 name v7 type vlan id 7; ip link set v7 up; "
              "ip addr add 10.9.7.1/24 dev v7")
    before = filtered(backend)
    first.run("arping -c 2 -w 2 -I v7 10.9.7.2", check=False)
    assert filtered(backend) > before
    second.run("ip link add link eth0 name v7 type vlan id 7; ip link set v7 up; "
               "ip addr add 10.9.7.2/24 dev v7")
    ping(first, "10.9.7.2")
    for guest in first, second:
        guest.run("ip link del v7")


def test_channels_and_offloads(pair):
    backend, (first, second) = pair
    assert "Combined:\t2" in first.run("ethtool -l eth0").out.replace("\t\t", "\t")

    def used():
        return [backend.telemetry(f"/vfn/queue,vdpa_vfn0,{q}")["packets"] for q in (0, 2)]
    second.run("ethtool -L eth0 combined 2")
    for count in 2, 1:
        first.run(f"ethtool -L eth0 combined {count}")
        before = used()
        second.run(f"for i in $(seq 16); do echo | nc.openbsd -u -w 0 {PAIR[0]} $((5000 + i)); done",
                   check=False)
        ping(second, PAIR[0])
        assert (used()[1] == before[1]) == (count == 1)
    # the guest's large receive: switched off, the function cuts what is longer
    for setting, cut in ("off", True), ("on", False):
        second.run(f"ethtool -K eth0 rx-gro-hw {setting}")
        before = backend.telemetry("/vfn/queue,vdpa_vfn0,1")["segmented"]
        transfer(first, second, PAIR[1], 2)
        assert (backend.telemetry("/vfn/queue,vdpa_vfn0,1")["segmented"] > before) == cut


def test_announce(pair):
    backend, (first, second) = pair
    received = second.statistic("rx_packets")
    backend.telemetry("/vfn/announce,vdpa_vfn0")
    assert wait_until(lambda: second.statistic("rx_packets") > received)
    ping(first, PAIR[1])


def test_carrier(pair):
    backend, (first, _) = pair
    for said, carrier in ("down", "0"), ("up", "1"):
        backend.telemetry(f"/vfn/link,vdpa_vfn0,{said}")
        assert wait_until(lambda c=carrier: first.read("/sys/class/net/eth0/carrier") == c)
    ping(first, PAIR[1])


def test_mtu(pair):
    _, (first, second) = pair
    assert first.read("/sys/class/net/eth0/mtu") == str(MTU)
    assert first.run(f"ip link set eth0 mtu {MTU + 1}", check=False).rc != 0
    dump = second.spawn("tcpdump -Z root -c 1 -n -i eth0 icmp and greater 1900")
    second.run("until grep -q listening /tmp/job.*.out; do usleep 20000; done")
    assert "1 packets received" in first.run(f"ping -c 1 -W 5 -s {MTU - 28} {PAIR[1]}").out
    assert f"length {MTU - 20}" in dump.wait().out
    first.run("ip link set eth0 mtu 600")
    transfer(second, first, PAIR[0], 1)
    first.run(f"ip link set eth0 mtu {MTU}")


def test_driver_unbound_and_bound(pair):
    """Another driver than before, as far as the function knows: what the old one said is gone."""
    backend, (first, second) = pair
    second.run("ip link set eth0 address 02:00:00:00:00:66")
    for _ in range(3):
        second.run("cd /sys/bus/virtio/drivers/virtio_net; echo virtio0 >unbind; echo virtio0 >bind")
        assert info(backend, 1)["mac"] == "02:00:00:00:00:02"
        configure(second, PAIR[1])
        first.run(f"arp -d {PAIR[1]}", check=False)
        ping(first, PAIR[1])
    transfer(first, second, PAIR[1], 1)


def test_server_killed():
    """Under traffic. The kernel gives a device up whose socket closed; another guest is served."""
    with wired(("vdpa_vfn0,port=wire,idle=sleep",
                "vdpa_vfn1,port=wire,peer=vdpa_vfn0,idle=sleep"),
               split=False) as (backend, (first, second)):
        assert info(backend, 0)["control_queue"] == 2
        first.spawn(f"ping -i 0.01 {PAIR[1]}")
        ping(second, PAIR[0])
        backend.kill()
        for guest in first, second:
            assert wait_until(lambda g=guest: g.run("ls /sys/class/net").out.split() == ["lo"])
        backend.start()
        with contextlib.ExitStack() as stack:
            for guest in first, second:
                guest.stop()
            guests = [stack.enter_context(Uml(path)) for path in backend.sockets]
            for guest, address in zip(guests, PAIR):
                configure(guest.boot(), address)
            ping(guests[0], PAIR[1])


def test_control_hangs_on_net_vhost():
    """And is ended with all of its processes."""
    with NetVhost() as backend:
        guest = Uml(backend.sockets[0])
        guest.start()
        pids = guest.processes()
        time.sleep(5)
        try:
            with pytest.raises(GuestError):
                guest.boot(within=0)
            pids += guest.processes()
        finally:
            guest.stop()
        for pid in pids:
            assert not alive(pid)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
