# SPDX-License-Identifier: BSD-3-Clause
"""A scripted front-end: messages (vhost_user.py) and rings (rings.py) together as a net device
with queue pairs: connect, set up, start, send frames and compare what comes back, stop, close.
"""

import os
import struct
import time

from harness import (IN_ORDER, MQ, MRG_RXBUF, PROTOCOL_FEATURES, RING_PACKED, SLOW, VERSION_1,
                     difference)
from rings import Memory, WRITE, BUFFER, SplitRing, PackedRing
from vhost_user import (Request, F_MQ, F_LOG_SHMFD, F_RARP, F_REPLY_ACK, F_CONFIG, F_STATUS, INDIRECT,
                        DRIVER_OK,
                        get_features, set_features, get_protocol_features, set_protocol_features,
                        get_queue_num, set_owner, set_mem_table, set_vring_base, get_vring_base,
                        set_vring_kick,
                        set_vring_call, set_status, Connection)


HEADER = 12             # struct virtio_net_hdr_mrg_rxbuf

FEATURES = 1 << VERSION_1 | 1 << PROTOCOL_FEATURES | 1 << MRG_RXBUF | 1 << MQ | 1 << INDIRECT
PROTOCOL = (1 << F_MQ | 1 << F_LOG_SHMFD | 1 << F_RARP | 1 << F_REPLY_ACK | 1 << F_CONFIG |
            1 << F_STATUS)


class FrontEnd:
    """A net device's driver and its front-end. Ring 2n receives and ring 2n + 1 sends for pair n.

    FrontEnd(path).connect().negotiate().setup(pairs=2).start(), or open(path, ...) for all that.
    With a listener the back-end connects to it.
    """

    def __init__(self, path, listener=None):
        self.path = path
        self.listener = listener
        self.conn = self.memory = None
        self.rings = []
        self.features = FEATURES
        self.offered = self.protocol = self.max_pairs = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def connect(self):
        self.conn = self.listener.accept() if self.listener else Connection(self.path)
        return self

    def again(self, rings=None, stale=False):
        """The same guest with another back-end. `stale`: it says where its rings began, or what it
        remembers, as QEMU does of packed ones when a back-end was lost."""
        self.disconnect()
        self.connect().negotiate(self.features, self.packed)
        for message in self.script(rings):
            self.conn.tell(self.stale(message) if stale else message)
        return self

    def stale(self, message):
        if message.request != Request.SET_VRING_BASE:
            return message
        index = struct.unpack_from("=I", message.payload)[0]
        return set_vring_base(index, self.rings[index].remembered if self.packed else 0)

    def negotiate(self, features=FEATURES, packed=False, protocol=PROTOCOL):
        """Up to SET_OWNER; features are taken as far as they are offered and set by start()."""
        conn = self.conn
        self.offered = conn.ask_u64(get_features())
        self.features = self.offered & (features | (1 << RING_PACKED if packed else 0))
        self.protocol = conn.ask_u64(get_protocol_features()) & protocol
        conn.send(set_protocol_features(self.protocol))
        conn.reply_ack = bool(self.protocol & 1 << F_REPLY_ACK)
        self.max_pairs = conn.ask_u64(get_queue_num())
        conn.tell(set_owner())
        return self

    @property
    def header(self):
        """Bytes before each frame: the last field is not there for a legacy driver's small buffers."""
        return HEADER if self.features & (1 << VERSION_1 | 1 << MRG_RXBUF) else HEADER - 2

    @property
    def packed(self):
        return bool(self.features & 1 << RING_PACKED)

    def setup(self, pairs=1, size=64, memory=None, start=None, **where):
        """Memory and rings, receive buffers posted; no message yet. `start` as in the rings."""
        self.memory = memory or Memory()
        kind = PackedRing if self.packed else SplitRing
        first = {} if start is None else {"start": start}
        for index in range(2 * pairs):
            self.rings.append(kind(self.memory, index, size, **first, **where))
            self.rings[-1].in_order = bool(self.features & 1 << IN_ORDER)
        for pair in range(pairs):
            self.fill(pair)
        return self

    def script(self, rings=None):
        """The messages from SET_FEATURES to DRIVER_OK."""
        status = [set_status(DRIVER_OK)] if (self.protocol or 0) & 1 << F_STATUS else []
        messages = [set_features(self.features), set_mem_table(self.memory.regions)]
        for ring in self.rings if rings is None else rings:
            messages += ring.setup()
        return messages + status

    def start(self, rings=None):
        for message in self.script(rings):
            self.conn.tell(message)
        return self

    def start_rings(self, rings=None):
        """Rings that were stopped, or are new."""
        for ring in self.rings if rings is None else rings:
            for message in ring.setup():
                self.conn.tell(message)

    def stop(self, rings=None):
        """GET_VRING_BASE of each: {ring: base}."""
        bases = {}
        for ring in self.rings if rings is None else rings:
            index, base = struct.unpack("=II", self.conn.tell(get_vring_base(ring.index)))
            bases[index] = base
        return bases

    def replace_fds(self, ring, kick=True, call=True):
        """New eventfds while it runs; the old ones are closed.

        librte_vhost acknowledges before it starts the queue again: what is asked after that is
        answered when it did. Frames for a queue that is off are dropped.
        """
        if kick:
            old, ring.kick_fd = ring.kick_fd, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.conn.tell(set_vring_kick(ring.index, ring.kick_fd))
            os.close(old)
        if call:
            old, ring.call_fd = ring.call_fd, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.conn.tell(set_vring_call(ring.index, ring.call_fd))
            os.close(old)
        self.conn.ask(get_features())

    def disconnect(self):
        """Hang up; memory and rings stay."""
        if self.conn is not None:
            self.conn.close()
            self.conn = None

    def close(self):
        self.disconnect()
        for ring in self.rings:
            ring.close()
        self.rings = []
        if self.memory is not None:
            self.memory.close()
            self.memory = None

    # frames

    def rx(self, pair=0):
        return self.rings[2 * pair]

    def tx(self, pair=0):
        return self.rings[2 * pair + 1]

    def fill(self, pair=0):
        """Post every free receive buffer."""
        ring = self.rx(pair)
        while ring.fits(1):
            ring.add([(ring.buffer(), BUFFER, WRITE)])
        ring.publish()
        ring.kick()

    def send(self, frame, pair=0, cuts=(), indirect=False, header=None):
        """Add one frame, not yet published. cuts: where new descriptors begin, from the header."""
        ring, at = self.tx(pair), self.tx(pair).buffer()
        data = (bytes(self.header) if header is None else header) + frame
        self.memory.write(at, data)
        edges = [0, *cuts, len(data)]
        segments = [(at + a, b - a, 0) for a, b in zip(edges, edges[1:])]
        return ring.add([ring.table(segments)] if indirect else segments)

    def post(self, pair=0):
        """Show the device what was added to the transmit ring."""
        self.tx(pair).publish()
        self.tx(pair).kick()

    def receive(self, pair=0):
        """Frames that have arrived; buffers are posted again."""
        ring, frames, more = self.rx(pair), [], 0
        for number, length in ring.used():
            data = self.memory.read(ring.buffers + number * BUFFER, length)
            if length == 0:
                continue    # handed back
            if more == 0:
                more = struct.unpack_from("=H", data, 10)[0] if self.header == HEADER else 1
                frames.append(b"")
                data = data[self.header:]
            frames[-1] += data
            more -= 1
        self.fill(pair)
        return frames

    def echo(self, frames, pair=0, to=None, cuts=(), indirect=False, timeout=15):
        """Send frames through a looped-back function; return what came back on `to` (or pair).

        Ends when as many came back and all were taken, or when time is up.
        """
        to = pair if to is None else to
        tx, rx = self.tx(pair), self.rx(to)
        left, got = list(frames)[::-1], []
        deadline = time.monotonic() + timeout * SLOW
        while left or len(got) < len(frames) or tx.room < tx.size:
            if time.monotonic() > deadline or self.conn.gone():
                break
            tx.used()
            while left and tx.fits(1 if indirect else len(cuts) + 1):
                self.send(left.pop(), pair, cuts, indirect)
            self.post(pair)
            new = self.receive(to)
            got += new
            if not new:
                rx.called(0.002)
        return got

    def check(self, frames, pair=0, **how):
        """The same, and every frame has to come back in order, byte by byte."""
        got = self.echo(frames, pair, **how)
        wrong = difference(frames, got)
        assert wrong is None, f"pair {pair}: {wrong}"

    def settle(self, pair=0, timeout=15):
        """Wait until the device has taken all that was sent; False if it does not."""
        tx, deadline = self.tx(pair), time.monotonic() + timeout * SLOW
        while tx.room < tx.size and time.monotonic() < deadline and not self.conn.gone():
            tx.used()
            tx.called(0.002)
        return tx.room == tx.size


def open_frontend(path, pairs=1, size=64, packed=False, features=FEATURES, memory=None, start=None,
                  listener=None):
    """A front-end that runs."""
    fe = FrontEnd(path, listener)
    try:
        return (fe.connect().negotiate(features, packed)
                .setup(pairs, size, memory, start).start())
    except BaseException:
        fe.close()
        raise
