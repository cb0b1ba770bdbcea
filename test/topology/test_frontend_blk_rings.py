# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end that misbehaves towards a disk, whose requests are out meanwhile: each ends once,
the other queue and other disks go on, and the ring can be set up again."""

import os
import struct

import pytest

from disk_device import (CONFIG, DATA, IN, OUT, SECTOR, STATUS, DiskFrontEnd, open_disk, sector_of)
# pytest finds fixtures by their names here
from frontend import FORMATS, Server, server, shared  # noqa: F401
from harness import NIGHTLY, Scratch, wait_until
from rings import MAX_TABLE, NEXT, TABLE, WRITE, PackedRing, Region, SplitRing
from test_frontend_lost import BROKEN, CUT_OFF, MUST_CONNECT
from test_frontend_rings import avail_ahead, avail_behind, endless, head_outside
from vhost_user import get_config, get_inflight_fd, set_mem_table, set_vring_enable

NOWHERE = 0x66_0000_0000
WIDE = 0x8_0000_0000, 1 << 30
BACKS = pytest.mark.parametrize("disk", [0, 1], ids=["file", "memory"])


class Disks(Server):
    """A file, memory, and a disk for who shall notice nothing."""

    def __init__(self, gate=True):
        self._files = Scratch()
        path = os.path.join(self._files.path, "disk")
        with open(path, "wb") as file:
            file.truncate(16 << 20)
        super().__init__([f"vdpa_vfn0,class=blk,file={path},queues=2",
                          "vdpa_vfn1,class=blk,mem=16M,queues=2", "vdpa_vfn2,class=blk,mem=1M"],
                         gate=gate)

    @staticmethod
    def answers(path):
        DiskFrontEnd(path).connect().negotiate().close()

    def close(self):
        super().close()
        self._files.remove()


SERVER = Disks


@pytest.fixture
def neighbour(server):  # noqa: F811
    with open_disk(server.sockets[2]) as fe:
        assert fe.write(1, sector_of(1, 1)) == 0
        yield fe
        assert fe.read(1) == sector_of(1, 1)


def load(fe, count, generation):
    """So many writes and reads at once: {chain: where it lies}."""
    return dict(fe.post(OUT, i // 2, sector_of(i // 2, generation)) if i % 2 else
                fe.post(IN, 1000, room=SECTOR) for i in range(count))


def reap(fe, count):
    """[(chain, bytes written)] of so many that ended."""
    got = []
    wait_until(lambda: got.extend(fe.rings[0].used()) or len(got) >= count, 15)
    assert len(got) == count
    return got


# --- chains that are bad --------------------------------------------------------------------------

def parts(ring):
    """A read that is right, to be spoilt."""
    at = ring.buffer()
    ring.memory.write(at, struct.pack("=IIQ", IN, 0, 0) + b"\xee")
    return (at, 16, 0), (at + DATA, SECTOR, WRITE), (at + STATUS, 1, WRITE)


def data_at(gpa, length=SECTOR):
    def bad(ring):
        header, _, status = parts(ring)
        ring.add([header, (gpa, length, WRITE), status])
    return bad


def data_half_mapped(ring):
    region = ring.memory.regions[-1]
    data_at(region.gpa + region.size - 50)(ring)


def longer_than_32_bits(ring):
    """In all; less than the disk if that is cut off."""
    header, _, status = parts(ring)
    ring.add([header, *4 * [(*WIDE, WRITE)], (WIDE[0], SECTOR, WRITE), status])


def header_nowhere(ring):
    ring.add([(NOWHERE, 16, 0), *parts(ring)[1:]])


def status_nowhere(ring):
    ring.add([*parts(ring)[:2], (NOWHERE, 1, WRITE)])


def header_last(ring):
    header, data, status = parts(ring)
    ring.add([data, header, status])


def no_status(ring):
    ring.add(parts(ring)[:1])


def loop(ring):
    header = parts(ring)[0]
    head = ring.add([header])
    ring.write_desc(head, header[0], 16, NEXT, head)


def next_outside(ring):
    header = parts(ring)[0]
    head = ring.add([header])
    ring.write_desc(head, header[0], 16, NEXT, ring.size)


def table_of(size):
    def bad(ring):
        at, _, flags = ring.table(parts(ring))
        ring.add([(at, size, flags)])
    return bad


def table_nowhere(ring):
    ring.add([(NOWHERE, 48, TABLE)])


def table_in_table(ring):
    inner = ring.table(parts(ring))
    at = ring.tables + ring.free[-1] * MAX_TABLE * 16
    ring.write_table_entry(at + 128, inner[0], 16, TABLE, None)
    ring.add([(at + 128, 16, TABLE)])


def table_and_next(ring):
    ring.add([ring.table(parts(ring)), parts(ring)[2]])


BAD = (     # chain, what counts it, formats
    (data_at(NOWHERE), "addr", "sp"), (data_at(2**64 - 16), "addr", "sp"),
    (data_at(0x1_0000_0000, 2**32 - 1), "addr", "sp"), (data_half_mapped, "addr", "sp"),
    (longer_than_32_bits, "len", "sp"),
    (header_nowhere, "addr", "sp"), (status_nowhere, "addr", "sp"), (header_last, "order", "sp"),
    (no_status, "status", "sp"), (loop, "loop", "s"), (next_outside, "next", "s"),
    (table_of(0), "table", "sp"), (table_of(17), "table", "sp"), (table_of(65 * 16), "table", "sp"),
    (table_nowhere, "addr", "sp"), (table_in_table, "indirect", "sp"),
    (table_and_next, "indirect", "sp"),
)


@BACKS
@FORMATS
def test_bad_chain_among_good_ones(server, neighbour, disk, packed):
    with open_disk(server.sockets[disk], queues=2, packed=packed) as fe:
        fe.memory.regions.append(Region(*WIDE))
        fe.conn.tell(set_mem_table(fe.memory.regions))
        for number, (bad, counter, formats) in enumerate(BAD):
            if ("p" if packed else "s") not in formats:
                continue
            wrong = server.counted(f"vdpa_vfn{disk}", 0)
            good = load(fe, 6, number)
            bad(fe.rings[0])
            bad(fe.rings[0])
            good.update(load(fe, 6, number))
            ended = reap(fe, 14)
            assert len({chain for chain, _ in ended}) == 14
            assert [length for chain, length in ended if chain not in good] == [0, 0]
            assert all(fe.memory.read(at + STATUS, 1) == b"\0" for at in good.values())
            assert wait_until(lambda w=wrong: w("errors")) == {f"errors_{counter}": 2}, number
            assert fe.read(2, ring=1) == sector_of(2, number)


# --- rings that cannot be trusted any more --------------------------------------------------------

def renewed(fe):
    """Queue 0 is stopped, and begins anew."""
    fe.stop(fe.rings[:1])
    fe.rings[0].close()
    fe.rings[0] = (PackedRing if fe.packed else SplitRing)(fe.memory, 0, 64)
    fe.memory.alloc(SECTOR)     # nothing is behind it
    fe.start_rings(fe.rings[:1])


@BACKS
@pytest.mark.parametrize("packed,spoil", [(False, avail_ahead), (False, avail_behind),
                                          (False, head_outside), (True, endless)])
def test_queue_that_breaks_with_requests_out(server, neighbour, disk, packed, spoil):
    """More of them, in all, than a queue has room for: none is forgotten."""
    server.expect(BROKEN.replace("vfn0", f"vfn{disk}"))
    with open_disk(server.sockets[disk], queues=2, packed=packed) as fe:
        for turn in range(15):
            load(fe, 20, turn)
            spoil(fe.rings[0])
            fe.rings[0].kick()
            assert fe.write(3000, sector_of(3000, turn), ring=1) == 0
            assert neighbour.read(1) == sector_of(1, 1)
            renewed(fe)
            assert fe.write(500, sector_of(500, turn)) == 0 and fe.read(3000) == sector_of(3000, turn)


@BACKS
def test_one_head_all_over_the_ring(server, neighbour, disk):
    with open_disk(server.sockets[disk], queues=2) as fe:
        ring = fe.rings[0]
        chain, at = fe.post(OUT, 7, sector_of(7, 7))
        reap(fe, 1)
        for _ in range(ring.size):
            ring.offer(chain)
        ring.publish()
        ring.kick()
        assert wait_until(lambda: fe.memory.load(ring.device + 2) == 1 + ring.size)
        assert fe.memory.read(at + STATUS, 1) == b"\0" and fe.read(7, ring=1) == sector_of(7, 7)


@BACKS
def test_one_id_all_over_a_packed_ring(server, neighbour, disk):
    with open_disk(server.sockets[disk], queues=2, packed=True) as fe:
        ring = fe.rings[0]
        at = fe.post(OUT, 7, sector_of(7, 7))[1]
        reap(fe, 1)
        heads = [ring.desc + 16 * slot for slot in range(3, ring.size - 2, 3)]
        for _ in heads:
            ring.free.append(5)
            ring.add([(at, 16, 0), (at + DATA, SECTOR, 0), (at + STATUS, 1, WRITE)])
        ring.publish()
        ring.kick()
        assert wait_until(lambda: all(fe.memory.load(head + 14) & ring.USED for head in heads))
        assert fe.memory.read(at + STATUS, 1) == b"\0" and fe.read(7, ring=1) == sector_of(7, 7)


@BACKS
@FORMATS
@pytest.mark.parametrize("area", ["desc", "driver", "device"])
def test_disk_is_read_into_the_ring(server, neighbour, disk, packed, area):
    """Whatever the ring becomes by that."""
    server.expect(BROKEN.replace("vfn0", f"vfn{disk}"))
    with open_disk(server.sockets[disk], queues=2, packed=packed) as fe:
        renewed(fe)
        for fill in b"\x00", b"\xff", b"\x81":
            assert fe.write(9, fill * SECTOR) == 0
            ring, at = fe.rings[0], fe.rings[0].buffer()
            fe.memory.write(at, struct.pack("=IIQ", IN, 0, 9))
            ring.add([(at, 16, 0), (getattr(ring, area), SECTOR, WRITE), (ring.desc, 1, WRITE)])
            ring.publish()
            ring.kick()
            assert fe.write(3000, sector_of(3000, 1), ring=1) == 0
            assert neighbour.read(1) == sector_of(1, 1)
            renewed(fe)
            assert fe.read(3000) == sector_of(3000, 1)


# --- what is odd, and right -----------------------------------------------------------------------

@BACKS
@FORMATS
def test_odd_chains_are_served(server, disk, packed):
    """Empty pieces, data over two regions, a table that is said to be written."""
    with DiskFrontEnd(server.sockets[disk]).connect().negotiate(packed=packed) as fe:
        fe.setup(2)
        last = fe.memory.regions[-1]
        fe.memory.regions.append(Region(last.gpa + last.size, 1 << 21))
        edge = last.gpa + last.size
        fe.start()
        ring = fe.rings[0]
        assert fe.write(4, sector_of(4, 4)) == 0

        def served(pieces):
            ring.add(pieces)
            ring.publish()
            ring.kick()
            reap(fe, 1)
        header, data, status = parts(ring)
        fe.memory.write(header[0], struct.pack("=IIQ", IN, 0, 4))
        empty, hole = (header[0], 0, 0), (data[0], 0, WRITE)
        served([empty, header, empty, hole, data, hole, status, hole])
        assert fe.memory.read(data[0], SECTOR) == sector_of(4, 4)
        header, _, status = parts(ring)
        fe.memory.write(header[0], struct.pack("=IIQ", IN, 0, 4))
        served([header, (edge - 200, SECTOR, WRITE), status])
        assert fe.memory.read(edge - 200, 200) + fe.memory.read(edge, 312) == sector_of(4, 4)
        header, data, status = parts(ring)
        fe.memory.write(header[0], struct.pack("=IIQ", IN, 0, 4))
        at, size, flags = ring.table([header, data, status])
        served([(at, size, flags | WRITE)])
        assert fe.memory.read(data[0], SECTOR) == sector_of(4, 4)
        assert fe.memory.read(status[0], 1) == b"\0"


# --- connections that end ---------------------------------------------------------------------------

@FORMATS
def test_connection_ends_at_any_message(server, neighbour, packed):
    """The next one has the disk. No descriptor is left, and no memory."""
    count, number = 1, 0
    while number < count:
        with DiskFrontEnd(server.sockets[0]).connect().negotiate(packed=packed) as fe:
            fe.setup(2).track()
            script = [*fe.script(), set_vring_enable(0, False), get_config(CONFIG),
                      get_inflight_fd(2, 64)]
            count = len(script)
            for message in script[:number]:
                fe.conn.send(message)
            number += 1
    with open_disk(server.sockets[0], packed=packed) as fe:
        assert fe.write(0, sector_of(0, 1)) == 0


@BACKS
@FORMATS
def test_connections_end_under_load(server, neighbour, disk, packed):
    for turn in range(1000 if NIGHTLY else 40):
        with open_disk(server.sockets[disk], queues=2, packed=packed) as fe:
            load(fe, 20, turn)
            if turn == 5:
                before = server.memory()
    with open_disk(server.sockets[disk], queues=2, packed=packed) as fe:
        assert fe.write(0, sector_of(0, 1)) == 0 and fe.read(0) == sector_of(0, 1)
    assert server.memory()[0] < before[0] + 4096


# --- memory that changes --------------------------------------------------------------------------

@BACKS
@FORMATS
def test_memory_comes_and_goes_while_requests_are_out(server, neighbour, disk, packed):
    with open_disk(server.sockets[disk], queues=2, packed=packed) as fe:
        more = Region(0x5_0000_0000, 1 << 21)
        for turn in range(30):
            load(fe, 16, turn)
            regions = [*fe.memory.regions, *([] if turn % 2 else [more])]
            fe.conn.tell(set_mem_table(regions))
            reap(fe, 16)
            assert fe.read(3, ring=1) == sector_of(3, turn)
        more.close()


@BACKS
@FORMATS
@pytest.mark.parametrize("what", ["data", "table", "header"])
def test_memory_is_cut_off(server, neighbour, disk, packed, what):
    for line in CUT_OFF, MUST_CONNECT, BROKEN, r"^vdpa_vfn0: queue 0: a request failed: Bad address$":
        server.expect(line.replace("vfn0", f"vfn{disk}"))
    with DiskFrontEnd(server.sockets[disk]).connect().negotiate(packed=packed) as fe:
        fe.setup(2)
        gap = Region(0x5_0000_0000, 1 << 21)
        fe.memory.regions.append(gap)
        fe.start()
        assert fe.write(4000, sector_of(4000, 5)) == 0
        load(fe, 16, 1)
        os.ftruncate(gap.fd, 0)
        header, data, status = parts(fe.rings[0])
        fe.rings[0].add({"data": [header, (gap.gpa, SECTOR, WRITE), status],
                         "table": [(gap.gpa, 48, TABLE)],
                         "header": [(gap.gpa, 16, 0), data, status]}[what])
        fe.rings[0].publish()
        fe.rings[0].kick()
        assert neighbour.write(2, sector_of(2, 2)) == 0
        fe.disconnect()
    with open_disk(server.sockets[disk], queues=2, packed=packed) as fe:
        assert fe.read(4000) == sector_of(4000, 5)
