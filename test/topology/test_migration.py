# SPDX-License-Identifier: BSD-3-Clause
"""Live migration between two QEMUs on two functions, under traffic that the functions loop back.

Two proofs per move. The memory: when the guest has arrived and neither side runs, both memories
are compared, byte by byte. The frames: a program in the guest numbers them, in many flows over
all queues; in the end each has come back once, whole and in order, over all moves.
"""

import contextlib
import re
import time

import pytest
from guest import Guest, Nic, missing
from harness import (MRG_RXBUF, MQ, NIGHTLY, RING_PACKED, SLOW, Backend, parse_stats,
                     remarks)

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Debian packages not installed: {' '.join(missing())}")

# Who logs (the values of lm= that this driver has), and how it says when it begins and ends.
# how the log of each mode says that it begins and ends
LM = {"hw": ("dirty log on", "dirty log off"),
      "shadow": (r"queue \d+: shadow ring at", "dirty log off")}
PAGE = 4096
# KiB of the guest. Not a multiple of 256: with one, TCG loses track of pages that the guest's CPU
# writes while it migrates (seen without any traffic too; QEMU clears dirty bits 64 at a time then,
# and leaves the CPU's TLB as it is), and now and then a guest does not survive.
MEMORY = (256 << 10) + 8
ROUNDS = 5          # of copying while the guest runs, after which it may be stopped for longer
GUEST_ANNOUNCE = 21
FRAME = b"!nfv"     # in each frame of guest/flow.c

# Large rings: of a split one the used entries have pages to which the driver does not write.
RINGS = {"rx_queue_size": "1024", "tx_queue_size": "1024"}
SMALL_RINGS = {"rx_queue_size": "256", "tx_queue_size": "256"}  # with buffers of 64 KiB
ANNOUNCED = r"^vdpa_vfn{}: the guest has migrated here, announced by the front-end$"


def different_pages(one, other):
    """Numbers of the pages that are not the same in two files of memory."""
    found, step = [], 1 << 21
    for at in range(0, len(one), step):
        a, b = one[at:at + step], other[at:at + step]
        if a != b:
            found += [(at + n) // PAGE for n in range(0, step, PAGE)
                      if a[n:n + PAGE] != b[n:n + PAGE]]
    return found


def explain(number, pages):
    """Which bytes of a page differ."""
    wrong = [n for n in range(PAGE) if pages[0][n] != pages[1][n]]
    at = wrong[0] & ~15
    return (f"page {number:#x}: {len(wrong)} bytes from {wrong[0]:#x} to {wrong[-1]:#x}; "
            f"{pages[0][at:at + 32].hex()} became {pages[1][at:at + 32].hex()}")


class Traveller:
    """A guest on one of two functions."""

    def __init__(self, lm="hw", pairs=1, devargs="", **props):
        self.stack = contextlib.ExitStack()
        self.pairs = pairs
        self.on, self.off = LM[lm]
        self.what = " ".join([f"lm={lm}", f"{pairs} pairs",
                              *(f"{k}={v}" for k, v in props.items())])
        self.props = {**RINGS, **props}
        self.at = 0
        self.moves = 0
        self.job = None
        try:
            self.backend = self.stack.enter_context(Backend(
                [f"vdpa_vfn{n},queues={pairs},lm={lm}{devargs}" for n in (0, 1)],
                eal=["--log-level=pmd.vdpa.vfn.driver:debug"]))
            self.guest = Guest(self._nics(0), "guest0", memory=MEMORY)
            self.stack.callback(lambda: self.guest.stop())  # whichever it is then
            self.guest.start()
            self.guest.boot()
            self.guest.run(f"""
                set -e
                test {pairs} = 1 || ethtool -L eth0 combined {pairs}
                ip addr add 10.9.8.1/24 dev eth0
                ip link set eth0 up
            """)
        except BaseException:
            self.stack.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(self.guest.explain("test failed"))
            print("\n".join(self.backend.log().splitlines()[-60:]))
        self.stack.close()

    def _nics(self, number):
        return [Nic(self.backend.sockets[number], "52:54:00:00:09:01", queues=self.pairs,
                    props=self.props)]

    # traffic

    def begin_traffic(self, flows=32, window=4):
        self.job = self.guest.spawn(f"exec flow eth0 {flows} {window}")
        self.assert_traffic()

    def assert_traffic(self, packets=500):
        """The card is used, every queue of it."""
        before = {way: self.guest.queue_packets(way) for way in ("rx", "tx")}
        deadline = time.monotonic() + 60 * SLOW
        while True:
            now = {way: self.guest.queue_packets(way) for way in ("rx", "tx")}
            grown = {way: [now[way][q] - before[way][q] for q in range(self.pairs)] for way in now}
            if all(min(grown[way]) > 0 and sum(grown[way]) >= packets for way in grown):
                return
            assert time.monotonic() < deadline, f"packets: {grown}"

    def end_traffic(self):
        """Every frame came back once, whole and in order; what the program counted."""
        self.guest.run("killall -TERM flow")
        result = self.job.wait(check=False)
        self.job = None
        counted = dict(re.findall(r"(\w+) (\d+)", result.out))
        assert result.rc == 0, f"{result.out}\n{self.backend.cmd('stats vdpa_vfn0 all')}\n" \
                               f"{self.backend.cmd('stats vdpa_vfn1 all')}"
        assert int(counted["sent"]) == int(counted["received"]) > 1000
        return {key: int(value) for key, value in counted.items()}

    # moves

    def begin_move(self, megabytes_per_second=200):
        """The QEMU that the guest will be in."""
        other = self.guest.twin(self._nics(1 - self.at), f"guest{self.moves + 1}")
        try:
            # with such a limit it goes on for a while
            self.guest.qmp("migrate-set-parameters", **{
                "max-bandwidth": megabytes_per_second << 20, "downtime-limit": 1})
            self.guest.migrate_to(other)
        except BaseException:
            other.stop()
            raise
        return other

    def migrating(self, done, timeout=120):
        """Wait until what query-migrate tells is so."""
        deadline = time.monotonic() + timeout * SLOW
        while not done(now := self.guest.qmp("query-migrate")):
            assert now["status"] != "failed", self.guest.explain("migration failed")
            assert time.monotonic() < deadline, self.guest.explain(f"migration: {now}")
            time.sleep(0.005)

    def cancel(self):
        """A move that begins, is logged, and is given up."""
        mark = self.backend.process.mark()
        other = self.begin_move(megabytes_per_second=2)
        try:
            self.backend.process.expect(rf"^vdpa_vfn{self.at}: {self.on}", 60, mark)
            self.assert_traffic()
            self.guest.qmp("migrate_cancel")
            self.migrating(lambda now: now["status"] == "cancelled")
            self.backend.process.expect(rf"^vdpa_vfn{self.at}: {self.off}", 60, mark)
        finally:
            other.stop()
        self.assert_traffic()

    @contextlib.contextmanager
    def arrived(self):
        """Move: (the QEMU that the guest is in now and that stands still as the old one does,
        the pages that are different there). The old one ends with the block."""
        other = self.begin_move()
        try:
            self.migrating(lambda now: now["status"] == "completed" or
                           now.get("ram", {}).get("dirty-sync-count", 0) > ROUNDS)
            self.guest.qmp("migrate-set-parameters", **{"downtime-limit": 300})
            self.migrating(lambda now: now["status"] == "completed")
            deadline = time.monotonic() + 60 * SLOW
            while other.qmp("query-status")["status"] != "paused":
                assert time.monotonic() < deadline, other.explain("does not arrive")
            self.arrival = time.monotonic()
            with self.guest.ram() as before, other.ram() as after:
                different = {n: (before[n * PAGE:(n + 1) * PAGE], after[n * PAGE:(n + 1) * PAGE])
                             for n in different_pages(before, after)}
            yield other, different
        except BaseException:
            other.stop()
            raise

    def move(self):
        """To the other function, where traffic goes on, with the same memory."""
        process, source, target = self.backend.process, self.at, 1 - self.at
        mark = process.mark()
        with self.arrived() as (other, different):
            process.expect(rf"^vdpa_vfn{source}: {self.on}", since=mark)
            still = rf"vdpa_vfn{source}: stands still after (\d+) us"
            process.expect(still, since=mark)
            # the last time: shadow rings begin with a stop, too
            still = list(re.compile(still, re.M).finditer(process.log(), mark))[-1]
            rounds = self.guest.qmp("query-migrate")["ram"]["dirty-sync-count"]
            counted, log = self._transmitted(target), process.mark()
            resumed = time.monotonic()
            other.qmp("cont")
            process.expect(rf"^vdpa_vfn{target}: running", 60, log)
            deadline = time.monotonic() + 60 * SLOW
            while self._transmitted(target) == counted:
                assert time.monotonic() < deadline, other.explain("sends nothing")
            # without the time that the comparison took
            down = self.arrival - process.when(still.start()) + self.answered - resumed
        self.guest.stop()
        self.guest, self.at = other, target
        if self.job is not None:
            self.job.guest = other
        self.moves += 1
        remarks.append(
            f"migration {self.moves} ({self.what}): {down * 1000:.0f} ms from the last packet on "
            f"the source to the first on the destination, of which the function took {still[1]} us "
            f"to stand still; {rounds} rounds, {len(different)} pages differ")
        assert not different, "\n".join(explain(*page) for page in different.items())

    def _transmitted(self, number):
        """Packets that a function took so far, as of self.answered."""
        packets = 0
        for queue in range(1, 2 * self.pairs, 2):
            mark = self.backend.process.mark()
            stats = self.backend.cmd(f"stats vdpa_vfn{number} {queue}")
            packets += parse_stats(stats)[queue]["packets"]
        # the answer may come much before the next prompt, which log messages tear apart
        log = self.backend.process
        self.answered = log.when(log.log().index("packets", mark))
        return packets


def cases():
    """(lm, packed, pairs, mergeable): each pair of values at least; all, nightly."""
    for lm in LM:
        for packed in False, True:
            for pairs in 1, 4:
                for mergeable in False, True:
                    if NIGHTLY or mergeable == (packed == (pairs == 4)):
                        yield pytest.param(lm, packed, pairs, mergeable, id="-".join(
                            [lm, "packed" if packed else "split", f"{pairs}",
                             "mergeable" if mergeable else "not_mergeable"]))


def on_off(value):
    return "on" if value else "off"


@pytest.mark.parametrize("lm,packed,pairs,mergeable", cases())
def test_guest_moves_there_and_back(lm, packed, pairs, mergeable):
    """A move that is cancelled, and then some to the end."""
    rings = {} if mergeable else SMALL_RINGS
    with Traveller(lm, pairs, packed=on_off(packed), mrg_rxbuf=on_off(mergeable),
                   **rings) as guest:
        features = guest.guest.features()
        assert (RING_PACKED in features, MRG_RXBUF in features, MQ in features) == (
            packed, mergeable, pairs > 1)
        guest.begin_traffic()
        guest.cancel()
        for _ in range(2):
            guest.move()
            guest.assert_traffic()
        guest.end_traffic()


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
@pytest.mark.parametrize("lm", LM)
def test_guest_moves_again_and_again(lm, packed):
    with Traveller(lm, pairs=2, packed=on_off(packed)) as guest:
        guest.begin_traffic()
        for _ in range(10 if NIGHTLY else 4):
            guest.move()
        guest.assert_traffic()
        guest.end_traffic()


@pytest.mark.parametrize("announce", [False, True], ids=["rarp", "guest"])
def test_arrival_is_announced(announce):
    """By the guest, if function and QEMU offer that, else by QEMU, which has the driver do it."""
    with Traveller(guest_announce=on_off(announce)) as guest:
        itself = GUEST_ANNOUNCE in guest.guest.features()
        assert announce or not itself
        guest.begin_traffic()
        mark = guest.backend.process.mark()
        guest.move()
        if not itself:
            guest.backend.process.expect(ANNOUNCED.format(guest.at), 30, mark)
        guest.assert_traffic()
        counted = guest.end_traffic()
        remarks.append(f"arrival (guest_announce={on_off(announce)}) announced by "
                       f"{'the guest' if itself else 'QEMU'}")
        assert (counted["arp"] > 0) == itself
        if itself:
            assert not re.search(ANNOUNCED.format(r"\d"), guest.backend.log(), re.M)


def lost(guest, frames):
    """Pages that were different in the first of some moves, none of them to the end, in which
    there were any, with frames if these are wanted: what is lost the guest may write itself before
    it stops, and then it is not lost."""
    for _ in range(10):
        with guest.arrived() as (other, different):
            other.stop()
        pages = [page for page, _ in different.values()]
        if any(FRAME in page or not frames for page in pages):
            return pages
        guest.guest.qmp("cont")
        guest.assert_traffic(packets=100)
    return []


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_frames_that_are_not_logged_are_noticed(packed):
    """Negative control: they are not at the destination."""
    with Traveller(devargs=",fault=no-log", packed=on_off(packed)) as guest:
        guest.begin_traffic()
        assert lost(guest, frames=True)


def test_ring_entries_that_are_not_logged_are_noticed():
    """Negative control, of packed rings: QEMU itself marks the used entries of split ones, all of
    them, when it stops the device (test_frontend_log.py has both). It takes entries that the
    driver does not write over before the guest stops, so there is little traffic."""
    with Traveller(devargs=",fault=no-used-log", packed="on") as guest:
        guest.begin_traffic(flows=2, window=1)
        pages = lost(guest, frames=False)
        assert pages and not any(FRAME in page for page in pages)
