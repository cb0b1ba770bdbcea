# SPDX-License-Identifier: BSD-3-Clause
"""dma=bounce and a scripted front-end: all memory outside of the pool is gone, and nobody notices."""

import contextlib
import struct

import pytest

from bounced import BEYOND, MIB, OUTSIDE, POOL, RINGS, BouncedMemory, bounced, send_beyond, used_up
from disk_device import IN, OUT, SECTOR, DiskFrontEnd, sector_of
# pytest finds fixtures by their names here
from frontend import FORMATS, frames, opened, server, shared  # noqa: F401
from harness import Backend, wait_until
from net_device import FrontEnd
from rings import BUFFER, WRITE, PackedRing, SplitRing
from test_frontend_lost import BROKEN, CUT_OFF
from test_frontend_shadow import Guest, shadowed
from vhost_user import Request

DEVS = [[f"vdpa_vfn0,queues=2,{POOL}", f"vdpa_vfn1,lm=shadow,{POOL}", "vdpa_vfn2"]]
KINDS = pytest.mark.parametrize("how", [{}, {"cuts": (1, 12, 40)}, {"indirect": True}],
                                ids=["direct", "in-pieces", "indirect"])


@pytest.fixture
def guest(server):  # noqa: F811
    with contextlib.ExitStack() as stack:
        yield lambda dev, packed=False, **how: bounced(
            stack.enter_context(FrontEnd(server.sockets[dev])), packed, **how)


def receive_beyond(fe):
    """Buffers that are not in the pool, after all others are used up."""
    ring = fe.rx()
    for _ in range(ring.size):
        fe.send(bytes(60))
    fe.post()
    assert fe.settle()
    used_up(ring)
    for at in BEYOND:
        ring.add([(at, BUFFER, WRITE)])
    ring.publish()
    fe.send(bytes(60))
    fe.post()
    assert used_up(ring) == [0] * 4
    fe.fill()
    assert wait_until(fe.receive)
    return 4


@FORMATS
@KINDS
def test_traffic(guest, packed, how):
    guest(0, packed).check(frames("bounced"), **how)


@FORMATS
@pytest.mark.parametrize("beyond,queue", [(send_beyond, 1), (receive_beyond, 0)],
                         ids=["sent", "received"])
def test_descriptor_outside(server, guest, packed, beyond, queue):  # noqa: F811
    """It is refused and counted, and the ring goes on."""
    fe = guest(0, packed)
    grown = server.counted("vdpa_vfn0", queue)
    times = beyond(fe)
    assert wait_until(lambda: grown("errors") == {"errors_addr": times}), grown()
    fe.check(frames("after"))


def test_control_descriptor_outside(server, opened):  # noqa: F811
    """Negative control: a device that may reach everything reaches for it."""
    server.expect(BROKEN)
    fe = opened(2, memory=BouncedMemory())
    fe.check(frames("whole"))
    fe.memory.cut()
    fe.tx().add([(OUTSIDE, 100, 0)])
    fe.post()
    server.said(CUT_OFF.replace("vfn0", "vfn2"))
    fe.disconnect()


@FORMATS
@pytest.mark.parametrize("dev", [0, 1], ids=["hw", "shadow"])
def test_logged(server, packed, dev):  # noqa: F811
    """The same while it is logged: a relay reaches as little, and what is written is known."""
    with Guest(server.sockets[dev], 0) as fe:
        fe.disconnect()
        bounced(fe, packed).new_log()
        fe.log_all(True)
        assert shadowed(server, dev=dev) == (dev == 1)
        fe.check(frames("logged"), indirect=True)
        assert fe.logged(fe.rx().buffers) and not fe.logged(OUTSIDE) and not fe.logged(RINGS + MIB)
        grown = server.counted(f"vdpa_vfn{dev}", 1)
        times = send_beyond(fe)
        assert wait_until(lambda: grown("errors") == {"errors_addr": times}), grown()
        fe.check(frames("still logged"))
        fe.log_all(False)
        fe.check(frames("not logged"))


def start_with(fe, packed, move):
    """Two pairs, of which a ring of the second is elsewhere; only the first has to work."""
    fe.connect().negotiate(packed=packed).setup(2, memory=BouncedMemory())
    move(fe.rings[3])
    for message in fe.script():
        if message.request == Request.SET_VRING_NUM:
            fe.memory.cut()
        fe.conn.tell(message)
    fe.check(frames("pair 0"))


def away(ring):
    ring.move(region=1)


def one_area(ring):
    ring.device = OUTSIDE


def across_the_end(ring):
    """No area is larger than this."""
    if isinstance(ring, PackedRing):
        ring.desc = RINGS + MIB - 512
    else:
        ring.device = RINGS + MIB - 64


@FORMATS
@pytest.mark.parametrize("move", [away, one_area, across_the_end])
def test_ring_outside(server, packed, move):  # noqa: F811
    """It is refused by number, before anybody reads it, and the others run."""
    server.expect("queue 3 was refused")
    with FrontEnd(server.sockets[0]) as fe:
        start_with(fe, packed, move)
        areas = " ".join(f"{at:#x}" for at in (fe.rings[3].desc, fe.rings[3].driver, fe.rings[3].device))
        server.said(f"^vdpa_vfn0: queue 3 refused: .*(pool|not mapped, or not in one piece).*{areas}")
        assert not server.telemetry("/vfn/queue,vdpa_vfn0,3")["enabled"]


class BouncedDisk(DiskFrontEnd):
    def setup(self, queues=1, size=64, **_):    # pylint: disable=arguments-differ
        self.memory = BouncedMemory()
        self.rings = [(PackedRing if self.packed else SplitRing)(self.memory, 0, size)]
        return self


@FORMATS
def test_disk(packed):
    with Backend([f"vdpa_vfn0,class=blk,mem=1M,{POOL}"]) as backend:
        with BouncedDisk(backend.sockets[0]) as fe:
            fe.connect().negotiate(packed=packed).setup().start()
            assert fe.write(0, sector_of(0, 1)) == 0
            fe.memory.cut()
            assert fe.write(1, sector_of(1, 1)) == 0
            assert fe.read(0, 2 * SECTOR) == sector_of(0, 1) + sector_of(1, 1)
            ring = fe.rings[0]
            for kind, flags in (OUT, 0), (IN, WRITE):
                at = ring.buffer()
                fe.memory.write(at, struct.pack("=IIQ", kind, 0, 0))
                ring.add([(at, 16, 0), (OUTSIDE, SECTOR, flags), (at + 16, 1, WRITE)])
            ring.publish()
            ring.kick()
            assert used_up(ring) == [0, 0]
            assert backend.telemetry("/vfn/queue,vdpa_vfn0,0")["errors_addr"] == 2
            assert fe.read(0) == sector_of(0, 1)
        assert "cut off" not in backend.log()
