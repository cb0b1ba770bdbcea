# SPDX-License-Identifier: BSD-3-Clause
"""Every file that a front-end shares, cut off at every boundary of a whole session.

A session is a list of steps: the handshake message by message, traffic, a dirty log, a stop,
another start, another memory table, RESET_OWNER, the handshake once more, the end; telemetry and
a snapshot in between. For each file (memory of the rings, memory of the buffers, dirty log,
in-flight regions) and each step the session is played once with that file cut off before the step.
Whoever touches what is gone outside the guard, or through a mapping that nobody watches, ends the
server. Traffic of another port goes on.
"""

import contextlib
import mmap
import os

import pytest

from bare import BareServer
from frontend import frames
from harness import NIGHTLY
from net_device import PROTOCOL, FrontEnd, open_frontend
from rings import Memory, Region
from vhost_user import (DRIVER_OK, F_INFLIGHT, LOG_ALL, Closed, Refused, reset_owner, set_features,
                        set_inflight_fd, set_log_base, set_mem_table, set_status,
                        set_vring_call, set_vring_enable, set_vring_kick, get_vring_base)

SIZE = 16       # of the rings
STRIDE = 1 if NIGHTLY else 5    # every so many boundaries, other ones of each file
TOP = 0x1_0000_0000 + (1 << 20)


class File:
    """Something that is shared, and may be gone."""

    def __init__(self, size):
        self.fd = os.memfd_create("file")
        os.ftruncate(self.fd, size)
        self.size = size

    def close(self):
        os.close(self.fd)


class Session:
    """A front-end that goes on with whatever is left."""

    def __init__(self, server, packed, log, tracked, directory):
        self.server, self.packed, self.tracked = server, packed, tracked
        self.fe = FrontEnd(server.sockets[0])
        self.memory = Memory([(0x1000_0000, 1 << 16), (0x1_0000_0000, 1 << 20)])
        self.log = File(TOP // 4096 // 8) if log else None
        self.inflight = File(1 << 16) if tracked else None
        self.files = {"rings": self.memory.regions[0], "buffers": self.memory.regions[1],
                      "log": self.log, "inflight": self.inflight}
        self.snapshot = os.path.join(directory, "snapshot")
        self.gone = None

    def cut(self, name):
        file = self.files[name]
        if isinstance(file, Region):
            # we go on with a copy that the device does not see
            copy = mmap.mmap(-1, len(file.map))
            copy[:] = file.map[:]
            file.words.release()
            file.map.close()
            file.map, file.words = copy, memoryview(copy).cast("H")
        os.ftruncate(file.fd, 0)
        self.gone = name

    # steps

    def begin(self):
        protocol = PROTOCOL | (1 << F_INFLIGHT if self.tracked else 0)
        self.fe.connect().negotiate(packed=self.packed, protocol=protocol)
        if not self.fe.rings:
            self.fe.setup(size=SIZE, memory=self.memory)

    def tell(self, message):
        # as a front-end that looks at what it gets, or goes on regardless
        with contextlib.suppress(Refused):
            self.fe.conn.tell(message)

    def traffic(self):
        """Whatever is left to touch, on both sides."""
        fe = self.fe
        if self.gone is None:
            fe.check(frames("traffic", 5))
        else:
            # without a look at what comes back
            if fe.tx().fits(1):
                fe.send(bytes(60))
            fe.post()
            fe.rx().kick()

    def ask(self):
        for command in "/vfn/info,vdpa_vfn0", "/vfn/queue,vdpa_vfn0,0", "/vfn/lm,vdpa_vfn0", \
                       f"/vfn/snapshot,vdpa_vfn0,{self.snapshot}":
            self.server.telemetry(command)

    def again(self):
        """After RESET_OWNER nothing is negotiated."""
        self.fe.conn.reply_ack = False
        self.fe.negotiate(packed=self.packed, protocol=PROTOCOL)

    def handshake(self):
        fe = self.fe
        yield lambda: self.tell(set_features(fe.features))
        yield lambda: self.tell(set_mem_table(self.memory.regions))
        if self.tracked:
            yield lambda: self.tell(set_inflight_fd(self.inflight.size, 2, SIZE, self.inflight.fd))
        for ring in 0, 1:
            for number in range(6):
                yield lambda ring=ring, number=number: self.tell(fe.rings[ring].setup()[number])
        yield lambda: self.tell(set_status(DRIVER_OK))
        yield self.traffic

    def logging(self):
        fe = self.fe
        yield lambda: self.tell(set_log_base(self.log.size, 0, self.log.fd))
        yield lambda: self.tell(set_features(fe.features | 1 << LOG_ALL))
        yield self.traffic
        yield lambda: self.tell(set_log_base(self.log.size, 0, self.log.fd))
        yield self.traffic

    def steps(self):
        fe = self.fe
        yield self.begin
        yield from self.handshake()
        yield self.ask
        if self.log:
            yield from self.logging()
        for ring in 0, 1:
            yield lambda ring=ring: self.tell(set_vring_kick(ring, fe.rings[ring].kick_fd))
            yield lambda ring=ring: self.tell(set_vring_call(ring, fe.rings[ring].call_fd))
        yield self.traffic
        yield lambda: self.tell(set_vring_enable(0, False))
        yield lambda: self.tell(set_vring_enable(0, True))
        for ring in 0, 1:
            yield lambda ring=ring: self.tell(get_vring_base(ring))
        yield self.ask
        for ring in 0, 1:
            for number in range(6):
                yield lambda ring=ring, number=number: self.tell(fe.rings[ring].setup()[number])
        yield self.traffic
        yield lambda: self.tell(set_mem_table([*self.memory.regions, self.more]))
        yield self.traffic
        yield lambda: self.tell(set_mem_table(self.memory.regions))
        yield self.traffic
        if self.log:
            yield lambda: self.tell(set_features(fe.features))
            yield self.traffic
        yield lambda: self.tell(reset_owner())
        yield self.ask
        yield self.again
        yield from self.handshake()
        yield lambda: self.tell(get_vring_base(0))
        yield self.ask

    def play(self, name=None, number=None):
        """All steps, a file being cut off before one of them; how many there were."""
        count = 0
        self.more = Region(0x5_0000_0000, 1 << 16)
        try:
            for count, step in enumerate(self.steps()):
                if count == number:
                    self.cut(name)
                step()
        except Closed:
            assert self.gone is not None
        finally:
            self.fe.disconnect()
            for ring in self.fe.rings:
                ring.close()
            for file in *self.memory.regions, self.more, self.log, self.inflight:
                if file is not None:
                    file.close()
        return count + 1


@pytest.mark.parametrize("tracked", [False, True], ids=["", "inflight"])
@pytest.mark.parametrize("lm", ["off", "hw", "shadow"])
@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_files_are_cut_off_at_any_time(workdir, packed, lm, tracked):
    with BareServer([f"vdpa_vfn0,lm={lm}", "vdpa_vfn1"], early=packed) as server, \
            open_frontend(server.sockets[1]) as neighbour:
        def session():
            return Session(server, packed, lm != "off", tracked, workdir)

        neighbour.check(frames("before", 20))
        first = session()
        steps, files = first.play(), first.files
        assert steps > 50
        for turn, (name, file) in enumerate(files.items()):
            if file is None:
                continue
            for number in range(turn % STRIDE, steps, STRIDE):
                session().play(name, number)
                assert server.process.alive(), \
                    server.process.error(f"died: {name} was cut off before step {number}")
                neighbour.check(frames("meanwhile", 2))
        session().play()        # and all is well without
        neighbour.check(frames("after", 20))
        neighbour.disconnect()
        server.answers(server.sockets[0])
