# SPDX-License-Identifier: BSD-3-Clause
"""Disks whose server is killed, whose client is killed, or whose file fails, while all are busy.

guest/blocks.c keeps a record of each sector: a write that ended is there, one that did not is there
whole or not at all. A request that is lost never ends, and one that is completed twice makes the
guest's driver give its disk up. Moments are random; the seed is printed.
"""

import contextlib
import errno
import os
import random
import re
import subprocess
import time
from dataclasses import dataclass, field

import pytest
import faulty
from blkio import Adapter, Client
from faulty import FaultyFile
from guest import GuestError, ImageError, missing
from guest.disk import Disk, DiskGuest
from harness import NIGHTLY, SLOW, Backend, PmdError, Scratch, parse_stats, remarks, wait_until
from proxy import TO_FRONT, Proxy
from test_blk_qemu import MIB, PACKED, empty_file
from vhost_user import F_INFLIGHT, Request

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

SEED = random.SystemRandom().randrange(1 << 32) if NIGHTLY else 20261129
KILLS = 200 if NIGHTLY else 10
SIZE = 32 * MIB
DEPTH = 32


@dataclass(frozen=True)
class Kind:
    """`tracked` by a region of the front-end's, by a file of the server's, or by nothing."""
    name: str
    tracked: str
    props: dict = field(default_factory=dict, hash=False)


KINDS = [Kind("vda", "region"), Kind("vdb", "region", PACKED), Kind("vdc", "file"),
         Kind("vdd", "file", PACKED), Kind("vde", "nothing")]
FAULTY = "vdf"


def without_region(way, message):
    """Of what the back-end can do the front-end is not told that it takes a region."""
    if way != TO_FRONT or message.request != Request.GET_PROTOCOL_FEATURES:
        return None
    bits = int.from_bytes(message.payload, "little") & ~(1 << F_INFLIGHT)
    return [message.__class__(message.request, message.flags, bits.to_bytes(8, "little"))]


class Setup:
    """One server and one guest with all disks."""

    def __init__(self, stack):
        scratch = Scratch()
        stack.callback(scratch.remove)
        path = scratch.path
        self.rng = random.Random(SEED)
        self.files = [empty_file(path, kind.name, SIZE) for kind in KINDS]
        self.faulty, self.names = None, [kind.name for kind in KINDS]
        # a write takes so long that there are always some in flight
        devs = [f"vdpa_vfn{i},class=blk,file={file},cache=writethrough"
                + (f",inflight={path}" if kind.tracked == "file" else "")
                for i, (kind, file) in enumerate(zip(KINDS, self.files))]
        wrapper = ()
        if faulty.missing() is None:
            self.faulty = stack.enter_context(FaultyFile(os.path.join(path, FAULTY), SIZE))
            wrapper = self.faulty.enter
            self.names.append(FAULTY)
            devs.append(f"vdpa_vfn{len(devs)},class=blk,file={path}/{FAULTY}")
        self.backend = stack.enter_context(Backend(devs, directory=path, wrapper=wrapper))
        if self.faulty is not None:
            stack.callback(self.faulty.fault, "ok")     # or the server does not end
        disks = []
        for number, name in enumerate(self.names):
            kind = KINDS[number] if number < len(KINDS) else Kind(name, "region")
            socket = self.backend.sockets[number]
            if kind.tracked != "region":
                front = os.path.join(path, f"proxy{number}")
                stack.enter_context(Proxy(front, socket, without_region))
                socket = front
            disks.append(Disk(socket, reconnect=1, props=kind.props))
        self.guest = stack.enter_context(DiskGuest(disks, cpus=2))
        self.guest.boot()

    def blocks(self, disk, how="run", seconds=0, depth=DEPTH):
        """Start random requests. 0 seconds: until end()."""
        return self.guest.spawn(f"echo $$ >/tmp/pid.{disk}; exec blocks {how} /dev/{disk} {depth} "
                                f"{self.rng.randrange(1 << 30)} {seconds}")

    def zero(self, disks):
        """What others wrote there is not known to blocks."""
        self.guest.run("\n".join(f"/bin/blkdiscard -z /dev/{disk}" for disk in disks))

    def end(self, disk):
        self.guest.run(f"kill -TERM $(cat /tmp/pid.{disk})")

    def count(self, disk, name):
        answer = self.backend.cmd(f"stats vdpa_vfn{self.names.index(disk)} 0")
        return parse_stats(answer)[0][name]

    def busy(self, disks):
        """Requests of all these disks end."""
        before = [self.count(disk, "writes") for disk in disks]
        assert wait_until(lambda: all(self.count(disk, "writes") > old
                                      for disk, old in zip(disks, before)), 30), \
            self.guest.explain(f"one of {disks} stands still")

    def restart(self):
        """Another server, as soon as the kernel has let go of what the one before had begun."""
        for attempt in range(10):
            try:
                self.backend.start()
                return
            except PmdError as error:
                if "it is in use" not in str(error) or attempt == 9:
                    raise
                self.backend.kill()


@pytest.fixture(scope="module")
def booted():
    with contextlib.ExitStack() as stack:
        yield Setup(stack)


@pytest.fixture
def setup(booted):
    print(f"seed {SEED}")
    yield booted
    print(booted.guest.explain("state after the test"))
    print("\n".join(booted.backend.log().splitlines()[-25:]))


needs_faults = pytest.mark.skipif(faulty.missing() is not None, reason=faulty.missing() or "")


def test_client_is_killed(workdir):
    """The next one finds what has ended, and nothing comes after that: what was under way when the
    client died is over before somebody else is served."""
    path, record = empty_file(workdir, "disk", SIZE), os.path.join(workdir, "record")
    rng = random.Random(SEED)
    blocks = os.path.join(workdir, "blocks")
    source = os.path.join(os.path.dirname(__file__), "..", "..", "devtools", "lib", "guest", "blocks.c")
    subprocess.run(["gcc", "-O2", "-o", blocks, source], check=True)
    front = os.path.join(workdir, "front")
    with Backend(f"vdpa_vfn0,class=blk,file={path}", directory=workdir) as backend, \
            Adapter(front, backend.sockets[0]):
        for _ in range(100 if NIGHTLY else 6):
            try:
                client = Client(workdir, "run", front, str(DEPTH), str(rng.randrange(1 << 30)), "0", record)
            except ImageError as error:
                pytest.skip(f"no libblkio: {error}")
            try:
                client.expect("running", 30)
                time.sleep(rng.uniform(0, 0.5))
            finally:
                client.kill()
            assert "has sector" not in client.log(), client.log()
        client = Client(workdir, "run", front, str(DEPTH), "1", "1", record)
        assert client.wait(60) == 0, client.log()
    done = subprocess.run([blocks, "check", path, record], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_faults
def test_file_that_fails_comes_short_and_stalls(setup):
    """The guest has errors or waits, and nothing else is held up."""
    job = setup.blocks(FAULTY, "retry", depth=32)
    setup.busy([FAULTY])
    for error, counter in ((errno.ENOSPC, "errors_space"), (errno.EIO, "errors_io")):
        before = setup.count(FAULTY, counter)
        setup.faulty.fault("error", error)
        assert wait_until(lambda: setup.count(FAULTY, counter) >= before + 16), counter
        setup.faulty.fault("ok")
        setup.busy([FAULTY])
    setup.faulty.fault("short")
    setup.busy([FAULTY])
    setup.faulty.fault("stall")
    setup.blocks("vda", seconds=180 if NIGHTLY else 2).wait(timeout=300)
    assert setup.faulty.fault("ok") > 0
    setup.busy([FAULTY])
    setup.end(FAULTY)
    out = job.wait().out
    assert int(re.search(r"(\d+) errors", out)[1]) >= 32, out


@needs_faults
def test_server_is_killed_while_its_file_stalls(setup):
    """Its successor waits for the file that the kernel still works on, and no disk loses anything."""
    setup.zero((FAULTY, "vda", "vdd"))
    jobs = {disk: setup.blocks(disk, depth=16) for disk in (FAULTY, "vda", "vdd")}
    setup.busy(jobs)
    setup.faulty.fault("stall")
    stands = [-1]
    assert wait_until(lambda: stands.append(setup.count(FAULTY, "writes")) or stands[-1] == stands[-2])
    old = setup.backend.process
    old.popen.kill()
    try:
        setup.backend.start()
        assert f"{FAULTY}: it is in use" in setup.backend.log()
    except PmdError as error:   # a thread that waits for the file keeps all that its process had
        if "is in use by another process" not in str(error):
            raise
        setup.backend.kill()
    finally:
        setup.faulty.fault("ok")
        old.kill()
    if setup.backend.process is None:
        setup.restart()
    setup.busy(jobs)
    for disk, job in jobs.items():
        setup.end(disk)
        job.wait(timeout=300)


def test_server_is_killed(setup):
    """No sector is wrong and no request lost, where somebody keeps account of what is in flight; the
    disk of which nobody does is the negative control."""
    tracked = [kind.name for kind in KINDS if kind.tracked != "nothing"]
    setup.zero(kind.name for kind in KINDS)
    jobs = {kind.name: setup.blocks(kind.name) for kind in KINDS}
    again = dict.fromkeys(tracked, 0)
    kills = 0
    # on a busy machine a disk may have nothing in flight, time and again
    while kills < KILLS or (kills < 4 * KILLS and not all(again.values())):
        setup.busy(tracked)
        time.sleep(setup.rng.uniform(0, 0.5))
        setup.backend.kill()
        kills += 1
        setup.restart()
        setup.busy(tracked)
        for disk in tracked:
            again[disk] += setup.count(disk, "again")
    for disk in tracked:
        setup.end(disk)
    for disk in tracked:
        jobs[disk].wait(timeout=300)
    remarks.append(f"{kills} kills; requests in flight that a successor carried out: {again}")
    assert all(again.values()), again
    # a kill finds requests out of order, or it does not
    with pytest.raises((AssertionError, GuestError)):
        for _ in range(40):
            setup.busy(["vde"])
            setup.backend.kill()
            setup.restart()
        setup.end("vde")
        jobs["vde"].wait(timeout=20 * SLOW)
