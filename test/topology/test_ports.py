# SPDX-License-Identifier: BSD-3-Clause
"""DPDK ports behind a function: captures, the kernel by a tap, another guest by net_vhost.

Packets are random, and every byte is compared. The front-end is stock testpmd on virtio-user.
"""

import contextlib
import fcntl
import os
import socket
import struct
import threading

import pytest

from harness import (SLOW, Backend, Echo, Loop, difference, random_packets, read_pcap,
                     wait_until, write_pcap)

RINGS = ["split", "packed"]
ETHERTYPE = b"\x88\xb5"    # for local experiments: no kernel sends it


def tap_can_be_made():
    """None, or why there is no tap interface to be had here."""
    try:
        with open("/dev/net/tun", "rb+", buffering=0) as tun:
            # TUNSETIFF, IFF_TAP | IFF_NO_PI; it goes when the file is closed
            fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"vfntest%d", 0x1002))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    return None


def link(backend):
    return backend.telemetry("/vfn/info,vdpa_vfn0")["link"]


@pytest.mark.parametrize("ring", RINGS)
def test_captures_hold_what_was_sent(workdir, ring):
    """net_pcap: what the guest sends is in the one file, what the other one holds it receives."""
    played, recorded = (os.path.join(workdir, name) for name in ("played.pcap", "recorded.pcap"))
    to_guest, from_guest = random_packets("to", 300), random_packets("from", 400)
    write_pcap(played, to_guest)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(Backend(
            "vdpa_vfn0,ethdev=net_pcap0", directory=workdir,
            eal=["--vdev", f"net_pcap0,rx_pcap={played},tx_pcap={recorded}"]))
        # what comes before the guest has given buffers is dropped, as by any card
        backend.telemetry("/vfn/link,vdpa_vfn0,down")
        pmd = stack.enter_context(Echo(workdir, backend.sockets[0], packed=ring == "packed"))
        backend.telemetry("/vfn/link,vdpa_vfn0,up")
        pmd.play([from_guest])
        expected = 24 + sum(16 + len(p) for p in to_guest)
        assert wait_until(lambda: len(read_pcap(recorded)) == len(from_guest) and
                          pmd.recorded() >= expected), backend.stats()
        (got,), _ = pmd.finish()
        assert difference(to_guest, got) is None
        assert difference(from_guest, read_pcap(recorded)) is None
        stats = backend.stats()
        assert stats[0]["packets"] == len(to_guest) and stats[1]["packets"] == len(from_guest)


def test_kernel_at_the_other_end(workdir):
    """net_tap: frames of the guest come out of the interface, and what is sent there arrives."""
    if why := tap_can_be_made():
        pytest.skip(why)
    name = f"vfn{os.getpid() % 100000}"
    marked = [[p[:12] + ETHERTYPE + p[14:] for p in random_packets(seed, 200)]
              for seed in ("out", "in")]
    with Backend("vdpa_vfn0,ethdev=net_tap0", directory=workdir,
                 eal=["--vdev", f"net_tap0,iface={name}"]) as backend, \
            Echo(workdir, backend.sockets[0]) as pmd, \
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as sock:
        assert link(backend) == "up"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind((name, 0x88B5))
        sock.settimeout(10 * SLOW)
        # the socket also sees what it sends itself, as outgoing
        seen = []

        def listen():
            while len(seen) < len(marked[0]):
                data, address = sock.recvfrom(4096)
                if address[2] != socket.PACKET_OUTGOING:
                    seen.append(data)
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        pmd.play([marked[0]])
        for packet in marked[1]:
            sock.send(packet)
        listener.join(20 * SLOW)
        assert difference(marked[0], seen) is None
        # the kernel has things to say on a new interface
        expected = sum(16 + len(p) for p in marked[1])
        wait_until(lambda: pmd.recorded() >= 24 + expected)
        wait_until(lambda: False, timeout=0.3)
        (got,), _ = pmd.finish()
        assert difference(marked[1], [p for p in got if p[12:14] == ETHERTYPE]) is None


@pytest.mark.parametrize("ring", RINGS)
def test_guest_of_net_vhost_at_the_other_end(workdir, ring):
    """net_vhost: the way through both back-ends and back; the link follows the other guest's."""
    other = os.path.join(workdir, "other")
    with Backend("vdpa_vfn0,ethdev=net_vhost0", directory=workdir,
                 eal=["--vdev", f"net_vhost0,iface={other}"]) as backend, \
            Echo(workdir, backend.sockets[0], packed=ring == "packed") as pmd:
        assert link(backend) == "down"
        for number in range(2):
            with Loop(other, packed=ring == "packed") as far:
                far.cmd("start")
                assert wait_until(lambda: link(backend) == "up")
                pmd.rounds(f"{ring} {number}", rounds=2)
            assert wait_until(lambda: link(backend) == "down")
