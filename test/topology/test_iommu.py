# SPDX-License-Identifier: BSD-3-Clause
"""A stock QEMU guest that maps and unmaps every buffer (intel_iommu=on, strict): all that it sends
arrives, whole. Over vhost-user, where DPDK's own back-end loses frames, and over vfio-user.
"""

import re

import pytest
from guest import ImageError, Nic, missing
from guest.iommu import IommuFunctionGuest, IommuGuest
from guest.qemu11 import qemu11
from guest.wired import wires
from harness import NIGHTLY, Backend, Endpoint, cpu
from test_qemu import NO_OFFLOADS, PACKED

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

FRAMES = 15
MIB = 32 if NIGHTLY else 1
# Two ends of a wire, one in a namespace of its own, so that frames between them leave the guest.
DEVS = [f"vdpa_vfn{number},idle=sleep,dma=iommu{more}" for number, more in enumerate(
    (",port=wire", ",port=wire,peer=vdpa_vfn0", "", ",fault=no-retry"))]
CARDS = ({}, PACKED, NO_OFFLOADS, {})

SETUP = """
    set -e
    unshare -n sleep 100000 &
    echo $! >/tmp/there
    until test $(readlink /proc/$!/ns/net) != $(readlink /proc/self/ns/net); do usleep 10000; done
    ip link set eth1 netns $!
    ip link set eth0 up
    ip addr add 10.9.9.1/24 dev eth0
    nsenter -t $! -n sh -c 'ip link set eth1 up; ip addr add 10.9.9.2/24 dev eth1'
"""
THERE = "nsenter -t $(cat /tmp/there) -n "


@pytest.fixture(scope="module")
def strict():
    """(server, guest): one boot for all tests."""
    with Backend(devs=DEVS) as server:
        nics = [Nic(path, f"52:54:00:00:0b:{number + 1:02x}", props=CARDS[number])
                for number, path in enumerate(server.sockets)]
        with IommuGuest(nics, name="strict") as guest:
            guest.boot().run(SETUP)
            yield server, guest


@pytest.fixture(scope="module")
def strict_functions():
    """(endpoint, guest): QEMU has each page that the guest maps for a card mapped by itself."""
    try:
        qemu11()
    except ImageError as error:
        pytest.skip(f"no QEMU with vfio-user: {error}")
    alone = f"c,idle=sleep,poll-cpu={cpu(1)},dma=direct"
    with Endpoint([*wires("ab", dma="direct"), alone]) as endpoint:
        nics = [Nic(path, "") for path in endpoint.sockets]
        with IommuFunctionGuest(nics, name="strict-functions") as guest:
            guest.boot().run(SETUP)
            yield endpoint, guest


def echoed(guest, card):
    """Of FRAMES frames, how many a looped-back function has given back; below 0: not those either
    that were sent beside them."""
    return int(re.search(r"back (-?\d+)", guest.run(f"""
        ip link set {card} up
        ip addr add 10.8.8.{card[-1]}/24 dev {card}
        sleep 1
        cd /sys/class/net/{card}/statistics
        # a buffer that comes back empty is counted as both
        came() {{ echo $(($(cat rx_packets) - $(cat rx_length_errors))); }}
        before=$(came) sent=$(cat tx_packets)
        arping -c {FRAMES} -w 30 -I {card} 10.8.8.99 >/dev/null
        end=$(($(date +%s) + 10))
        until test $(($(came) - before)) -ge $(($(cat tx_packets) - sent)) ||
            test $(date +%s) -ge $end; do usleep 50000; done
        back=$(($(came) - before))
        test $back -lt {FRAMES} || back=$((back - $(cat tx_packets) + sent + {FRAMES}))
        echo back $back
    """, check=False).out)[1])


def counters(server, dev):
    """Of both queues, and of the device."""
    return [server.telemetry(f"/vfn/queue,{dev},{queue}") for queue in (0, 1)] + [
        server.telemetry(f"/vfn/info,{dev}")]


def test_every_frame_comes_back(strict):
    server, guest = strict
    assert echoed(guest, "eth2") == FRAMES
    rx, tx, info = counters(server, "vdpa_vfn2")
    assert info["iotlb_updates"] >= FRAMES and info["iotlb_invalidations"] >= FRAMES
    assert rx["misses_refused"] == tx["misses_refused"] == info["iotlb_refused"] == 0
    assert rx["errors_addr"] == tx["errors_addr"] == 0


def test_without_waiting_frames_are_lost(strict):
    """Negative control: a function that gives up at the first miss."""
    server, guest = strict
    assert echoed(guest, "eth3") < FRAMES
    assert sum(queue["errors_addr"] for queue in counters(server, "vdpa_vfn3")[:2]) > 0


def tcp(guest, there):
    """Random data from the one to the other; no segment is sent twice for want of a checksum."""
    receive, send = (THERE, "") if there else ("", THERE)
    out = guest.run(f"""
        head -c {MIB << 20} /dev/urandom >/tmp/data
        {receive} nc.openbsd -d -l 7000 >/tmp/got &
        sleep 0.5
        {send} nc.openbsd -N 10.9.9.{1 + there} 7000 </tmp/data >/dev/null
        wait $!
        sha256sum </tmp/data
        sha256sum </tmp/got
        cat /proc/net/snmp | awk '/^Tcp/ {{ print "bad", $14 + 0 }}'
    """, timeout=300).out
    sums = re.findall(r"^([0-9a-f]{64}) ", out, re.M)
    assert len(sums) == 2 and sums[0] == sums[1], out
    assert re.findall(r"bad (\d+)", out)[-1] == "0", out


@pytest.mark.parametrize("there", [True, False], ids=["to-packed", "to-split"])
def test_tcp(strict, there):
    server, guest = strict
    tcp(guest, there)
    for dev in "vdpa_vfn0", "vdpa_vfn1":
        rx, tx, info = counters(server, dev)
        assert info["negotiated"] != "0x0" and info["iotlb_misses"] > MIB << 20 >> 16
        for queue in rx, tx:
            assert queue["misses_refused"] == queue["errors_addr"] == queue["dropped_no_buffer"] == 0


def test_function_behind_the_iommu(strict_functions):
    """Rings are larger than a page, and so lie in several maps."""
    endpoint, guest = strict_functions
    guest.run("ip link set eth2 promisc on")     # IPv6 sends to addresses of its own
    ring = guest.run("ethtool -g eth2 | awk '/^RX:/ {print $2}'").out.split()[0]
    assert int(ring) * 16 > 4096
    assert echoed(guest, "eth2") == FRAMES
    for there in True, False:
        tcp(guest, there)
    assert "refused" not in endpoint.log()
    for number in range(3):
        assert endpoint.counter(number, "errors_addr") == 0
