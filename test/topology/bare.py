# SPDX-License-Identifier: BSD-3-Clause
"""The driver in an application of somebody else's: librte_vhost has the sockets, and nothing is in
front of it (bare_server.c)."""

import os

import pytest

from frontend import Server
from harness import PLUGIN, EalProcess, build_dir, cpu, wait_until, with_plugin


class BareServer(Server):
    """`early`: the application has the driver told of a connection before its first message."""

    def __init__(self, devs=("vdpa_vfn0", "vdpa_vfn1"), early=False, **more):
        self.early = early
        super().__init__(devs, **more)

    def start(self, timeout=15):
        self.start_endpoint(timeout)
        program = os.path.join(build_dir(), "test", "topology", "bare_server")
        eal = ["--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64", "--no-shconf", "-d", PLUGIN,
               *self._eal]
        for dev in self.devs:
            eal += ["--vdev", dev]
        args = [*(["--early"] if self.early else []), os.path.join(self.directory, "sock")]
        self.process = EalProcess(program, eal, args, env=with_plugin(), wrapper=self._wrapper)
        self.process.expect(r"bare_server: ready, \d+ sockets", timeout)

    def cmd(self, line, timeout=5):
        raise NotImplementedError("it has no prompt")

    def lm(self, dev=0):
        return self.telemetry(f"/vfn/lm,vdpa_vfn{dev}")

    def maps(self, name):
        """Mappings of a memfd of this name: [(first, last + 1), ...]."""
        with open(f"/proc/{self.pid}/maps", encoding="ascii") as maps:
            return [tuple(int(part, 16) for part in line.split()[0].split("-"))
                    for line in maps if f"/memfd:{name} " in line]


def bare_fixture(*devs, early=False):
    """A module's fixture: shared server, which is replaced when a test has killed it. A test is
    told of it before and after as in frontend.py."""
    kept = []

    @pytest.fixture(scope="module", name="bare_shared")
    def shared_bare():
        yield kept
        for one in kept:
            try:
                one.stop()
            finally:
                one.close()
        kept.clear()

    @pytest.fixture(name="bare")
    def bare(bare_shared, request):
        if not bare_shared:
            bare_shared.append(BareServer(devs or ("vdpa_vfn0", "vdpa_vfn1"), early))
        server = bare_shared[0]
        server.since, server.expected = server.process.mark(), ()
        failed = request.session.testsfailed
        yield server
        if not server.process.alive() or request.session.testsfailed > failed:
            bare_shared.clear()
            alive = server.process.alive()
            server.close()
            assert alive, server.process.error("died")
            return
        assert wait_until(lambda: server.fds() == server.idle_fds), \
            f"{server.fds()} descriptors are open, {server.idle_fds} were"
        assert not server.unexpected(), "\n".join(server.unexpected())

    return shared_bare, bare
