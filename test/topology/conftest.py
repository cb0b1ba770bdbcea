# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the topology tests."""

import os

import pytest

from harness import Backend, NetVhost
# pytest finds hooks and fixtures by their names here
from session import (nothing_left, pytest_configure, pytest_runtest_makereport,  # noqa: F401
                     pytest_runtest_setup, pytest_sessionfinish, pytest_terminal_summary,
                     pytest_testnodedown, pytest_unconfigure, workdir)


def pytest_addoption(parser):
    parser.addoption("--device", choices=["vfn", "net_vhost"], default="vfn",
                     help="what serves the sockets: vfn, or DPDK's net_vhost as a control that "
                          "tells a fault of a test from a fault of the device")


def pytest_collection_modifyitems(config, items):
    """Side by side, files are dealt out in this order: by turns those with guests, which keep CPUs
    busy, and those without, which wait; what is left for the end is short."""
    if not hasattr(config, "workerinput"):
        return
    rank = {}
    for guests in True, False:
        modules = dict.fromkeys(item.module for item in items
                                if hasattr(item.module, "missing") == guests)  # guest's
        rank.update({module: number for number, module in enumerate(modules)})
    items.sort(key=lambda item: rank[item.module])


@pytest.fixture
def device(request, workdir):
    """Start what serves the sockets: device(["vdpa_vfn0,queues=1"], client=False)."""
    running = []
    kind = {"vfn": Backend, "net_vhost": NetVhost}[request.config.getoption("--device")]

    def start(devs=("vdpa_vfn0",), client=False, **more):
        backend = kind(devs, client=client, directory=workdir, **more)
        running.append(backend)
        return backend

    yield start
    try:
        for backend in running:
            if backend.process is not None:
                backend.stop()
    finally:
        for backend in running:
            backend.close()
            if backend.client:
                continue
            for path in backend.sockets:
                assert not os.path.exists(path), f"{path} left behind"
