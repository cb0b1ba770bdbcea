# SPDX-License-Identifier: BSD-3-Clause
"""What one front-end did to others, before there was something against it; and its like. Each attack is a
function of an Arena, registered with the settings that it is tried in. It may leave connections open
(a.stack), which are closed when the others have been looked at. Here is what attacks are made of;
they are in attacks_messages.py, attacks_memory.py and attacks_room.py.
"""

import contextlib
import os
import re
import struct

from arena import Setting
from harness import SLOW
from hostile import SMALL, Peer
from net_device import PROTOCOL, FrontEnd
from rings import USER_BASE, Memory, Region
from vhost_user import F_INFLIGHT, F_LOG_SHMFD, Closed, Connection, Refused

MB = 1 << 20
PATIENCE = 2            # seconds for an answer to us
INFLIGHT = PROTOCOL | 1 << F_INFLIGHT | 1 << F_LOG_SHMFD
REFUSED = (Refused, Closed, ValueError, OSError)    # whatever way

SPLIT = Setting("faults", devs="lm=hw,idle=sleep")
BUSY = Setting("faults-busy", devs="lm=hw,idle=busy,port=loopback")
SHADOW = Setting("faults-shadow", devs="lm=shadow,idle=sleep", log=True)
PACKED = Setting("faults-packed", packed=True, devs="lm=hw,idle=sleep", inflight=True)
DOORBELL = Setting("faults-doorbell", devs="doorbell=on,idle=busy,queues=4")
RATE = Setting("faults-rate", devs="rate-mbps=100,idle=sleep")
FEW = Setting("faults-few-descriptors", devs="idle=sleep")      # RLIMIT_NOFILE 1024

ATTACKS = []


def attack(*settings):
    """For each of these settings."""
    def register(function):
        ATTACKS.extend((setting, function) for setting in settings or (SPLIT,))
        return function
    return register


def named(name):
    return next(function for _, function in ATTACKS if function.__name__ == name)


def front_end(a, protocol=INFLIGHT, port=0, memory=SMALL, pairs=1, size=64):
    """Negotiated, with memory and rings of its own, nothing of it told."""
    fe = FrontEnd(a.ports[port])
    a.stack.callback(fe.close)
    fe.conn = Connection(fe.path, timeout=PATIENCE)     # a port may be full
    fe.negotiate(packed=a.setting.packed, protocol=protocol)
    return fe.setup(pairs, size, Memory(memory), rings=0, buffers=len(memory) - 1)


def running(a, **how):
    return front_end(a, **how).start()


def peer(a, port=0):
    made = Peer(a.ports[port])
    a.stack.callback(made.close)
    return made


def tell(fe, *messages):
    """Some of which may be refused."""
    for message in messages:
        with contextlib.suppress(*REFUSED):
            fe.conn.tell(message)


def refused(fe, message):
    """It is, or the connection ends."""
    try:
        fe.conn.tell(message)
    except REFUSED:
        return
    raise AssertionError(f"{message} was taken")


def some_frames(fe, count=20):
    """If it still works; the rings may be in any state."""
    with contextlib.suppress(KeyError, IndexError, ValueError, AssertionError, struct.error, *REFUSED):
        fe.echo([bytes([n]) * 100 for n in range(count)], timeout=0.3 / SLOW)


class Sparse(Region):
    """Memory that is not touched at this end, of any size."""

    def __init__(self, gpa, size, file_size=None):      # pylint: disable=super-init-not-called
        self.gpa, self.size, self.offset = gpa, size, 0
        self.uva = USER_BASE + gpa
        self.fd = os.memfd_create("sparse")
        os.ftruncate(self.fd, size if file_size is None else file_size)

    def close(self):
        os.close(self.fd)


def sparse(a, gpa, size, file_size=None):
    made = Sparse(gpa, size, file_size)
    a.stack.callback(made.close)
    return made


def resident(a):
    """MiB of the server's."""
    with open(f"/proc/{a.server.pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) >> 10
