# SPDX-License-Identifier: BSD-3-Clause
"""Disks and a scripted front-end: what it negotiates, many queues and late ones, sizes and caches that
change, tracepoints, a state that is saved, and an endpoint that dies under load."""

import glob
import os
import re

import pytest

from back_channel import F_BACKEND_REQ
from disk_device import (BLK_FLUSH, BLK_MQ, CONFIG_WCE, DISCARD, FLUSH, GET_ID, OUT, PROTOCOL, RO, SECTOR,
                         WCE_AT, WRITE_ZEROES, DiskFrontEnd, open_disk, sector_of)
from frontend import FORMATS
from harness import Backend, Endpoint, RING_PACKED, wait_until
from vhost_user import set_vring_enable

MIB = 1 << 20
CONFIG_CHANGE = 2       # VHOST_USER_BACKEND_CONFIG_CHANGE_MSG


@pytest.fixture
def backend():
    with Backend(["vdpa_vfn0,class=blk,mem=16M,queues=64,serial=abc",
                  "vdpa_vfn1,class=blk,mem=16M,readonly=on"]) as backend:
        yield backend


def image(directory, mib=16):
    path = os.path.join(directory, "disk")
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    return path


def test_front_end_is_offered_what_a_disk_can(backend):
    """The application has set the features of the class: librte_vhost's own are of a net device."""
    with DiskFrontEnd(backend.sockets[0]).connect().negotiate() as fe:
        has = {bit for bit in range(64) if fe.offered >> bit & 1}
        assert {BLK_FLUSH, BLK_MQ, CONFIG_WCE, DISCARD, WRITE_ZEROES, RING_PACKED, 28, 29} <= has
        assert RO not in has and 15 not in has and fe.max_pairs == 64
        assert fe.capacity() == 16 * MIB // SECTOR
        config = fe.config()
        assert config[WCE_AT] == 1 and int.from_bytes(config[34:36], "little") == 64
    with DiskFrontEnd(backend.sockets[1]).connect().negotiate() as fe:
        assert fe.offered >> RO & 1 and not fe.offered >> DISCARD & 1 and not fe.offered >> BLK_MQ & 1


@FORMATS
def test_all_queues_serve_and_some_come_later(backend, packed):
    """The first ring makes the device ready; the others come, go and come back meanwhile."""
    with DiskFrontEnd(backend.sockets[0]).connect().negotiate(packed=packed) as fe:
        fe.setup(64, size=8).start(fe.rings[:1])
        assert fe.write(0, sector_of(0, 1)) == 0
        fe.start_rings(fe.rings[1:])
        for ring in range(64):
            assert fe.write(ring, sector_of(ring, ring), ring=ring) == 0
        for ring in range(64):
            assert fe.read(63 - ring, ring=ring) == sector_of(63 - ring, 63 - ring)
        stopped = fe.rings[5:40:7]
        fe.stop(stopped)    # librte_vhost stops all of them until one comes back
        fe.start_rings(stopped)
        assert fe.ask(GET_ID, room=20) == (0, b"abc" + bytes(17))
        for ring in (5, 12, 39, 40):
            assert fe.read(ring, ring=ring) == sector_of(ring, ring)
        fe.conn.tell(set_vring_enable(7, False))
        fe.conn.tell(set_vring_enable(7))
        assert fe.ask(FLUSH, ring=7)[0] == 0


def test_write_cache_and_nothing_else_is_written(backend):
    with open_disk(backend.sockets[0]) as fe:
        assert fe.config()[WCE_AT] == 1
        assert fe.ask(FLUSH)[0] == 0    # it runs, with the guest's features
        fe.set_config(WCE_AT, b"\0")
        assert fe.config()[WCE_AT] == 0
        assert backend.telemetry("/vfn/info,vdpa_vfn0")["cache"] == "writethrough"
        for offset, data in ((WCE_AT, b"\2"), (WCE_AT + 1, b"\0"), (0, bytes(8))):
            fe.set_config(offset, data)     # librte_vhost says yes to all of them
        assert backend.log().count("not written: Invalid argument") == 3
        assert fe.config()[WCE_AT] == 0 and fe.capacity() == 16 * MIB // SECTOR
        assert fe.write(1, sector_of(1, 2)) == 0
    # the next guest begins as the operator has said
    with open_disk(backend.sockets[0]) as fe:
        assert fe.config()[WCE_AT] == 1


@FORMATS
def test_write_cache_is_what_the_front_end_has_said_last(backend, packed):
    """Before the start too, and whatever is stopped and started meanwhile: QEMU says it once, and tells
    its guest from then on."""
    def mode(fe):
        assert fe.write(0, sector_of(0, 1)) == 0    # it runs
        told = backend.telemetry("/vfn/info,vdpa_vfn0")["cache"]
        assert fe.config()[WCE_AT] == (told == "writeback")
        return told
    with DiskFrontEnd(backend.sockets[0]).connect().negotiate(packed=packed) as fe:
        fe.set_config(WCE_AT, b"\2")
        assert fe.config()[WCE_AT] == 1
        fe.set_config(WCE_AT, b"\0")
        assert fe.config()[WCE_AT] == 0
        fe.setup().start()
        assert mode(fe) == "writethrough"
        for said, value in (("writethrough", None), ("writeback", b"\1"), ("writethrough", b"\0")):
            fe.stop(fe.rings)
            if value is not None:
                fe.set_config(WCE_AT, value)
            fe.start_rings(fe.rings)
            assert mode(fe) == said
        # another connection, which waits for the disk
        with DiskFrontEnd(backend.sockets[0]).connect().negotiate(packed=packed) as other:
            other.set_config(WCE_AT, b"\1")
            assert other.config()[WCE_AT] == 1
            assert mode(fe) == "writethrough"
    assert backend.log().count("not written: Invalid argument") == 1
    with DiskFrontEnd(backend.sockets[1]).connect().negotiate() as fe:
        fe.set_config(WCE_AT, b"\0")   # it is read-only, and has no cache
        assert backend.log().count("not written: Invalid argument") == 2


@FORMATS
def test_front_end_is_told_of_another_size(backend, packed):
    with DiskFrontEnd(backend.sockets[0]).connect() as fe:
        fe.negotiate(packed=packed, protocol=PROTOCOL | 1 << F_BACKEND_REQ).hear().setup().start()
        assert fe.capacity() == 16 * MIB // SECTOR
        for mib in (20, 8, 16):
            answer = backend.telemetry(f"/vfn/blk/size,vdpa_vfn0,{mib * MIB}")
            assert answer == {"capacity_bytes": mib * MIB}
            assert fe.channel.receive()[0] == CONFIG_CHANGE
            assert fe.capacity() == mib * MIB // SECTOR
            last = mib * MIB // SECTOR - 1
            assert fe.write(last, sector_of(last, mib)) == 0
            assert fe.write(last + 1, sector_of(last + 1, mib)) == 1


def test_each_request_is_traced(workdir):
    with Backend("vdpa_vfn0,class=blk,mem=16M", directory=workdir,
                 eal=["--trace=pmd.vdpa.vfn.blk.*", f"--trace-dir={workdir}"]) as backend, \
            open_disk(backend.sockets[0]) as fe:
        for sector in range(5):
            assert fe.write(sector, sector_of(sector, 1)) == 0
        assert fe.write(1 << 40, sector_of(0, 1)) == 1
        fe.close()
        backend.stop()      # the trace is written at the end
    with open(glob.glob(f"{workdir}/*/metadata")[0], encoding="ascii") as metadata:
        events = re.findall(r'name = "(pmd\.vdpa\.vfn\.[\w.]+)"', metadata.read())
    assert set(events) >= {"pmd.vdpa.vfn.blk.begin", "pmd.vdpa.vfn.blk.end"}
    recorded = b"".join(open(path, "rb").read() for path in glob.glob(f"{workdir}/*/channel0_*"))
    # one of each kind for each request
    assert recorded.count(b"vdpa_vfn0\0") == 2 * 6


@FORMATS
def test_state_is_saved_and_restored(workdir, packed):
    """Positions and the write cache's mode; what was made available meanwhile is carried out."""
    dev, path = f"vdpa_vfn0,class=blk,file={image(workdir)}", os.path.join(workdir, "state")
    old = Backend(dev, directory=workdir)
    try:
        with open_disk(old.sockets[0], packed=packed) as fe:
            for sector in range(77):
                assert fe.write(sector, sector_of(sector, 1)) == 0
            fe.set_config(WCE_AT, b"\0")
            fe.disconnect()
            assert wait_until(lambda: old.telemetry("/vfn/info,vdpa_vfn0")["state"] == "idle")
            assert old.telemetry(f"/vfn/snapshot,vdpa_vfn0,{path}")["file"] == path
            old.stop()
            fe.post(OUT, 3, sector_of(3, 2))
            with Backend(dev, directory=workdir) as new:
                assert new.telemetry(f"/vfn/restore,vdpa_vfn0,{path}")["file"] == path
                fe.again(stale=True)
                assert wait_until(fe.rings[0].used), new.log()
                assert fe.read(3) == sector_of(3, 2) and fe.read(76) == sector_of(76, 1)
                assert new.telemetry("/vfn/info,vdpa_vfn0")["cache"] == "writethrough"
                assert "restored parts" not in new.log()
                fe.close()
    finally:
        old.close()


@FORMATS
def test_endpoint_dies_under_load_and_comes_back(workdir, packed):
    """Each request ends once, with the next endpoint, and the disk is as the requests have left it."""
    endpoint = Endpoint([f"fn0,class=blk,file={image(workdir)}"], directory=workdir)
    try:
        with Backend(f"vdpa_vfn0,class=blk,link=endpoint,path={endpoint.sockets[0]}",
                     directory=workdir) as backend, \
                DiskFrontEnd(backend.sockets[0]).connect().negotiate(packed=packed) as fe:
            fe.setup().track().start()
            expected, out, ended = {}, {}, 0

            def reap():
                count = 0
                for chain, _ in fe.rings[0].used():
                    sector, generation, at = out.pop(chain)     # KeyError: twice
                    assert fe.memory.read(at + 16, 1) == b"\0"
                    expected[sector] = generation
                    count += 1
                return count

            for death in range(3):
                goal = ended + 300
                while ended < goal:
                    if len(out) < 16:
                        sector = (ended * 7 + len(out)) % 512
                        if all(sector != other for other, _, _ in out.values()):
                            chain, at = fe.post(OUT, sector, sector_of(sector, ended))
                            out[chain] = sector, ended, at
                    ended += reap()
                for sector in range(600, 616 - len(out)):
                    chain, at = fe.post(OUT, sector, sector_of(sector, death))
                    out[chain] = sector, death, at
                endpoint.kill()
                endpoint.start()
                assert wait_until(lambda: reap() is None or not out, 30), backend.log()
            for sector, generation in expected.items():
                assert fe.read(sector) == sector_of(sector, generation), sector
            fe.close()
    finally:
        endpoint.close()
