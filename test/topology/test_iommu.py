# SPDX-License-Identifier: BSD-3-Clause
"""A stock QEMU guest that maps and unmaps every buffer (intel_iommu=on, strict): all that it sends
arrives, whole. DPDK's own back-end loses frames there.
"""

import re

import pytest
from guest import Nic, missing
from guest.iommu import IommuGuest
from harness import NIGHTLY, Backend
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
        echo back $(($(came) - before - $(cat tx_packets) + sent + {FRAMES}))
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


@pytest.mark.parametrize("there", [True, False], ids=["to-packed", "to-split"])
def test_tcp(strict, there):
    """Random data from the one to the other; no segment is sent twice for want of a checksum."""
    server, guest = strict
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
    for dev in "vdpa_vfn0", "vdpa_vfn1":
        rx, tx, info = counters(server, dev)
        assert info["negotiated"] != "0x0" and info["iotlb_misses"] > MIB << 20 >> 16
        for queue in rx, tx:
            assert queue["misses_refused"] == queue["errors_addr"] == queue["dropped_no_buffer"] == 0
