# SPDX-License-Identifier: BSD-3-Clause
"""A stock QEMU guest that bounces all buffers (swiotlb=force): with dma=bounce the server touches its
pool and its rings, and nothing else of its memory. One boot, and a server after the other.
"""

import re

import pytest
from guest import Nic, missing
from guest.swiotlb import SwiotlbGuest
from harness import NIGHTLY, Backend, wait_until
from test_iommu import SETUP, THERE
from test_qemu import PACKED

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

MIB = 32 if NIGHTLY else 1
PAGE = 4096
WIRE = "", ",peer=vdpa_vfn0"    # of the cards, a split one and a packed one


def devs(directory, modes):
    return [f"vdpa_vfn{number},port=wire,idle=sleep,inflight={directory}{WIRE[number]},{mode}"
            for number, mode in enumerate(modes)]


@pytest.fixture(scope="module")
def bouncing():
    """(server, guest): the guest has its memory to itself but for what it shows."""
    server = Backend(devs=["vdpa_vfn0", "vdpa_vfn1"], client=True, start=False)
    server.devs = devs(server.directory, ["dma=direct"] * 2)
    with server:
        nics = [Nic(path, f"52:54:00:00:0c:{number + 1:02x}", server=True, props=props)
                for number, (path, props) in enumerate(zip(server.sockets, ({}, PACKED)))]
        with SwiotlbGuest(nics, name="bouncing") as guest:
            guest.boot().run(SETUP)
            yield server, guest


def queues(server, dev):
    return [server.telemetry(f"/vfn/queue,vdpa_vfn{dev},{queue}") for queue in (0, 1)]


def serve(server, modes):
    """Another server for the same guest, which does not notice."""
    server.stop()
    server.devs = devs(server.directory, modes)
    server.start()


def runs(server, queue=1):
    return all(queues(server, dev)[queue]["enabled"] for dev in (0, 1))


def rings(server, dev):
    """Ranges of whole pages: those of a split ring are in one piece, those of a packed one are not."""
    ranges = []
    for queue in queues(server, dev):
        at = {name: int(str(queue[name]), 0) for name in ("desc", "driver", "device")}
        size = queue["size"]
        used = PAGE if dev else at["device"] + 6 + 8 * size - at["desc"]
        ranges += [(at["desc"], max(16 * size, used))]
        ranges += [(at["driver"], PAGE), (at["device"], PAGE)] if dev else []
    return [(at, -(-length // PAGE) * PAGE) for at, length in ranges]


def pool(ranges):
    return f"dma=bounce,pool=[{','.join(f'{at:#x}+{length}' for at, length in ranges)}]"


def mapped(server):
    """What the server has mapped of the guest's memory: [(bytes, that were touched of them)]."""
    found, ours = [], False
    with open(f"/proc/{server.pid}/smaps", encoding="ascii") as smaps:
        for line in smaps:
            if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                ours, size = "memory-backend-memfd" in line, int(head[2], 16) - int(head[1], 16)
            elif ours and line.startswith("Rss:"):
                found.append((size, 1024 * int(line.split()[1])))
    return found


def total(server):
    """Bytes that the server has mapped of the guest's memory."""
    return sum(size for size, _ in mapped(server))


def touched(server, guest):
    """Bytes that were touched where all of it is mapped."""
    return sum(rss for size, rss in mapped(server) if size == guest.memory << 10)


def transfer(guest, there):
    """Random data through the wire, whole."""
    receive, send = (THERE, "") if there else ("", THERE)
    out = guest.run(f"""
        head -c {MIB << 20} /dev/urandom >/tmp/data
        {receive} nc.openbsd -d -l 7000 >/tmp/got &
        sleep 0.5
        {send} nc.openbsd -N 10.9.9.{1 + there} 7000 </tmp/data >/dev/null
        wait $!
        sha256sum </tmp/data
        sha256sum </tmp/got
    """, timeout=300).out
    sums = re.findall(r"^([0-9a-f]{64}) ", out, re.M)
    assert len(sums) == 2 and sums[0] == sums[1], out


def test_bounced(bouncing):
    """All that there is to see is enough; of the rest not a page is touched, and next to none mapped."""
    server, guest = bouncing
    assert wait_until(lambda: runs(server), timeout=60)
    assert not int(server.telemetry("/vfn/info,vdpa_vfn0")["negotiated"], 16) >> 33 & 1
    for there in (True, False):
        transfer(guest, there)
    assert touched(server, guest) > 1 << 20

    swiotlb = guest.bounces()
    ranges = [[swiotlb, *rings(server, dev)] for dev in (0, 1)]
    serve(server, [pool(r) for r in ranges])
    assert wait_until(lambda: runs(server), timeout=60)
    for there in (True, False):
        transfer(guest, there)
    for dev in (0, 1):
        assert all(queue["errors_addr"] == 0 for queue in queues(server, dev))
    # librte_vhost maps all of it, and has looked at the rings; pages beside them may come with that
    assert touched(server, guest) < 1 << 20, mapped(server)
    whole = total(server)

    # negative control: buffers are where the guest says that they are, and nowhere else
    serve(server, [pool([(swiotlb[0], PAGE), *r[1:]]) for r in ranges])
    assert wait_until(lambda: runs(server), timeout=60)
    guest.run("ping -c 1 -W 1 10.9.9.2", check=False)
    assert wait_until(lambda: sum(queue["errors_addr"] for dev in (0, 1)
                                  for queue in queues(server, dev)) > 0)
    assert whole - total(server) == 2 * (swiotlb[1] - PAGE)

    # and rings
    serve(server, [pool([swiotlb])] * 2)
    for dev in (0, 1):
        server.process.expect(rf"vdpa_vfn{dev}: queue 1 refused: its areas are not in the pool")
    assert not any(queue["enabled"] for dev in (0, 1) for queue in queues(server, dev))
