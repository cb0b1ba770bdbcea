# SPDX-License-Identifier: BSD-3-Clause
"""dma=bounce where the function is in another process: that gets no more than the pool of a guest."""

import pytest

from bounced import MIB, POOL, bounced, send_beyond
from frontend import FORMATS
from harness import random_packets, wait_until
from net_device import FrontEnd
from test_endpoint_driver import served
from test_ntb import bridged

ACCESS_PLATFORM = 33


@FORMATS
@pytest.mark.parametrize("far", [served, bridged], ids=["endpoint", "ntb"])
def test_function_elsewhere(workdir, far, packed):
    """At a bridge's other side it gets nothing but windows, and the driver no more than the pool."""
    with far(workdir, "", arguments=f",{POOL}") as (backend, [endpoint]):
        with bounced(FrontEnd(backend.sockets[0]), packed) as fe:
            assert fe.offered >> ACCESS_PLATFORM & 1
            fe.check(random_packets("far", 50, high=1514), indirect=True)
            if far is served:
                assert endpoint.info(0)["map_bytes"] < 10 * MIB
            times = send_beyond(fe)
            assert wait_until(
                lambda: backend.telemetry("/vfn/queue,vdpa_vfn0,1")["errors_addr"] == times)
            fe.check(random_packets("after", 50, high=1514))
        assert "cut off" not in backend.log() + endpoint.log()
