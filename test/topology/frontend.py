# SPDX-License-Identifier: BSD-3-Clause
"""What the tests with a scripted front-end share: one server with two functions, or those that a test
module names in DEVS, or its SERVER, serves most of them. After each test the server must be alive, have
as many descriptors open as before, and have said nothing about its devices that the test did not expect;
one that died is replaced.
"""

import contextlib
import os
import re

import pytest

from harness import Backend, parse_stats, random_packets, wait_until
from net_device import open_frontend
from vhost_user import F_STATUS, get_status, set_protocol_features, Connection

PAIRS = 3       # of vdpa_vfn0; vdpa_vfn1 has one
FORMATS = pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])


# packets whose frames fit one receive buffer
def frames(seed, count=100):
    return random_packets(seed, count, high=1514)


class Server(Backend):
    """vfn-vhost, and what tests want to know about it."""

    since = 0
    expected = ()

    def __init__(self, devs=(f"vdpa_vfn0,queues={PAIRS}", "vdpa_vfn1"), **more):
        super().__init__(list(devs), **more)
        self.idle_fds = self.fds()
        for path in self.sockets:   # librte_vhost takes up to 1 s to notice a new listener
            self.answers(path)
        wait_until(lambda: self.fds() == self.idle_fds)

    @staticmethod
    def answers(path):
        """Wait until everything sent on other connections before was looked at: by something
        that the gate does not answer itself."""
        conn = Connection(path)
        conn.send(set_protocol_features(1 << F_STATUS))
        conn.ask(get_status())
        conn.close()

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self):
        """(VmRSS, VmSize) in KiB."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            text = status.read()
        return tuple(int(re.search(rf"^{k}:\s+(\d+) kB", text, re.M)[1])
                     for k in ("VmRSS", "VmSize"))

    def expect(self, *patterns):
        """What the log may say about the devices during this test."""
        self.expected = (*self.expected, *patterns)

    def lines(self):
        """What was said about devices since the test began: warnings and errors only, and what
        the gate refused."""
        return re.findall(r"^(?:vdpa> )?(?:[\d-]+ [\d:.]+ )?(?:vfn-vhost: )?"
                          r"((?:vdpa_vfn\d+|vfn): .*)$", self.process.log()[self.since:], re.M)

    def said(self, pattern):
        """Wait for a line about a device; return all of them."""
        self.expect(pattern)
        found = wait_until(lambda: [n for n in self.lines() if re.search(pattern, n)])
        assert found, f"nothing like {pattern!r} in:\n{self.process.log()[self.since:]}"
        return found

    def library_said(self, text):
        """Wait for a line of librte_vhost."""
        assert wait_until(lambda: text in self.process.log()[self.since:]), \
            f"no {text!r} in:\n{self.process.log()[self.since:]}"

    def queue(self, dev, queue):
        """Statistics of one queue, connected or not."""
        return parse_stats(self.cmd(f"stats {dev} {queue}"))[queue]

    def counted(self, dev, queue):
        """A function that tells by how much the counters have grown, those that did."""
        before = self.queue(dev, queue)

        def grown(prefix=""):
            now = self.queue(dev, queue)
            return {k: now[k] - before[k] for k in now
                    if k.startswith(prefix) and now[k] != before[k]}
        return grown

    def unexpected(self):
        # who comes back at once may be there before the end of the one before is noticed
        known = (*self.expected, "is in use by another connection, the new one waits for its end$")
        return [line for line in self.lines() if not any(re.search(p, line) for p in known)]


def sanitizer_report(text):
    return re.findall(r"^.*(?:ERROR: AddressSanitizer|runtime error|ERROR: LeakSanitizer).*$",
                      text, re.M)


# without the gate: what the driver makes of front-ends that nobody judges
bare = pytest.mark.bare


@pytest.fixture(scope="module")
def shared():
    """The servers that tests share, with the gate (True) and without."""
    servers = {}
    yield servers
    for server in servers.values():
        try:
            server.stop()
        finally:
            server.close()


@pytest.fixture
def server(shared, request):
    gate = request.node.get_closest_marker("bare") is None
    if gate not in shared:
        kind = getattr(request.module, "SERVER", Server)
        shared[gate] = kind(*getattr(request.module, "DEVS", ()), gate=gate)
    server = shared[gate]
    server.since, server.expected = server.process.mark(), ()
    failed = request.session.testsfailed
    yield server
    print(server.process.log()[server.since:][-12000:])
    if request.session.testsfailed > failed:
        del shared[gate]    # who knows what state it is in
        server.close()
        return
    try:
        if not server.process.alive():
            raise server.process.error("died")
        report = sanitizer_report(server.process.log()[server.since:])
        assert not report, report
        assert wait_until(lambda: server.fds() == server.idle_fds), \
            f"{server.fds()} descriptors are open, {server.idle_fds} were"
        assert not server.unexpected(), "\n".join(server.unexpected())
    except BaseException:
        del shared[gate]
        server.close()
        raise


@pytest.fixture
def opened(server):
    """opened(dev=0, **how): a running front-end, closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda dev=0, **how: stack.enter_context(
            open_frontend(server.sockets[dev], **how))


@pytest.fixture
def neighbour(opened, request):
    """A front-end on the other function, whose traffic passes at the end of the test too."""
    fe = opened(1)
    fe.check(frames("before", 20))
    failed = request.session.testsfailed
    yield fe
    if request.session.testsfailed == failed:
        fe.check(frames("after", 20))


def works(server, dev=0, seed="works", **how):
    """A correct front-end that connects now has traffic."""
    with open_frontend(server.sockets[dev], **how) as fe:
        for pair in range(how.get("pairs", 1)):
            fe.check(frames(f"{seed}{pair}", 20), pair)
