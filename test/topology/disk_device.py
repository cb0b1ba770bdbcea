# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end of a disk: requests of two sectors at most, in rings of its own."""

import os
import struct

from back_channel import BackChannel, set_backend_req_fd
from harness import PROTOCOL_FEATURES, VERSION_1, wait_until
from net_device import FrontEnd
from rings import BUFFER, WRITE, Memory, PackedRing, SplitRing
from vhost_user import (F_CONFIG, F_INFLIGHT, F_MQ, F_REPLY_ACK, INDIRECT, Message, Request, get_config,
                        get_inflight_fd, set_features, set_inflight_fd)

SECTOR = 512
IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8
SEG_MAX, RO, BLK_SIZE, BLK_FLUSH, TOPOLOGY, CONFIG_WCE, BLK_MQ, DISCARD, WRITE_ZEROES = (
    2, 5, 6, 9, 10, 11, 12, 13, 14)
FEATURES = sum(1 << bit for bit in (
    VERSION_1, PROTOCOL_FEATURES, INDIRECT, SEG_MAX, RO, BLK_SIZE, BLK_FLUSH, TOPOLOGY, CONFIG_WCE,
    BLK_MQ, DISCARD, WRITE_ZEROES))
PROTOCOL = 1 << F_MQ | 1 << F_REPLY_ACK | 1 << F_CONFIG | 1 << F_INFLIGHT
WCE_AT, CONFIG = 32, 60     # struct virtio_blk_config
STATUS, DATA = 16, 512      # in the buffer of a chain, behind the header


def sector_of(number, generation):
    """A sector that tells which it is, and who has written it, all over."""
    return struct.pack("=QQ", number, generation) * (SECTOR // 16)


class DiskFrontEnd(FrontEnd):
    """`with DiskFrontEnd(path).connect().negotiate() as fe: fe.setup(2).start(); fe.write(0, data)`"""

    region = channel = None

    def negotiate(self, features=FEATURES, packed=False, protocol=PROTOCOL):
        return super().negotiate(features, packed, protocol)

    def setup(self, queues=1, size=64, **_):    # pylint: disable=arguments-differ
        kind = PackedRing if self.packed else SplitRing
        self.memory = Memory(((0x1000_0000, 1 << 21), (0x1_0000_0000, 1 << 24)))
        self.rings = [kind(self.memory, index, size) for index in range(queues)]
        return self

    def track(self):
        """What is in flight is in a region of ours."""
        self.conn.tell(set_features(self.features))
        if self.region is None:
            payload, fd = self.conn.ask_fd(get_inflight_fd(len(self.rings), self.rings[0].size))
            self.region = struct.unpack_from("=Q", payload)[0], fd
        self.conn.tell(set_inflight_fd(self.region[0], len(self.rings), self.rings[0].size,
                                       self.region[1]))
        return self

    def hear(self):
        """The back-end may ask something."""
        self.channel = BackChannel()
        self.conn.tell(set_backend_req_fd(self.channel.theirs.fileno()))
        return self

    def config(self):
        return self.conn.ask(get_config(CONFIG))[12:]

    def capacity(self):
        return struct.unpack_from("=Q", self.config())[0]

    def set_config(self, offset, data):
        self.conn.tell(Message(Request.SET_CONFIG, struct.pack("=III", offset, len(data), 0) + data))

    def post(self, kind, sector=0, data=b"", room=0, ring=0):   # pylint: disable=arguments-renamed
        """Make a request available. Returns the chain and where it lies."""
        ring = self.rings[ring]
        at = ring.buffer()
        self.memory.write(at, struct.pack("=IIQ", kind, 0, sector) + b"\xee")
        self.memory.write(at + DATA, data or bytes(room))
        assert DATA + max(len(data), room) <= BUFFER
        pieces = [(at, 16, 0)] + ([(at + DATA, len(data), 0)] if data else [])
        pieces += ([(at + DATA, room, WRITE)] if room else []) + [(at + STATUS, 1, WRITE)]
        chain = ring.add(pieces)
        ring.publish()
        ring.kick()
        return chain, at

    def ask(self, kind, timeout=15, **what):
        """Status, and what was read."""
        ring = self.rings[what.get("ring", 0)]
        chain, at = self.post(kind, **what)
        got = []
        assert wait_until(lambda: got.extend(ring.used()) or got, timeout), f"no end of {kind} {what}"
        assert [number for number, _ in got] == [chain]
        return self.memory.read(at + STATUS, 1)[0], self.memory.read(at + DATA, what.get("room", 0))

    def write(self, sector, data, ring=0):
        return self.ask(OUT, sector=sector, data=data, ring=ring)[0]

    def read(self, sector, room=SECTOR, ring=0):
        status, data = self.ask(IN, sector=sector, room=room, ring=ring)
        assert status == 0
        return data

    def close(self):
        super().close()
        if self.region is not None:
            os.close(self.region[1])
            self.region = None
        if self.channel is not None:
            self.channel.close()
            self.channel = None


def open_disk(path, queues=1, packed=False, **how):
    """A front-end whose disk runs."""
    return DiskFrontEnd(path).connect().negotiate(packed=packed, **how).setup(queues).start()
