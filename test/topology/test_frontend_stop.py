# SPDX-License-Identifier: BSD-3-Clause
"""Stopping a function that does not stop: bounded, said so, and nobody else is harmed."""

import time

import pytest
from frontend import FORMATS, Server, frames
from harness import SLOW
from net_device import open_frontend


@pytest.fixture
def stuck(workdir):
    server = Server(["vdpa_vfn0,fault=no-suspend,drain-ms=200", "vdpa_vfn1"], directory=workdir)
    yield server
    server.stop()


@FORMATS
def test_function_that_does_not_stop_is_reset(stuck, packed):
    with open_frontend(stuck.sockets[1], packed=packed) as neighbour:
        with open_frontend(stuck.sockets[0], packed=packed) as fe:
            fe.check(frames("stuck", 50))
            begin = time.monotonic()
            bases = fe.stop()
            assert 0.2 <= time.monotonic() - begin < 2 * SLOW
            assert any("does not answer for 200 ms: suspend stays" in line
                       for line in stuck.said("does not answer"))
            stuck.said("is reset while it runs")
            # it had nothing to do: what it tells is right all the same
            assert bases == {ring.index: ring.position() for ring in fe.rings}
            assert stuck.telemetry("/vfn/info,vdpa_vfn0")["state"] == "idle"
            fe.start_rings()
            fe.check(frames("stuck once more", 50))
        neighbour.check(frames("neighbour", 50))
