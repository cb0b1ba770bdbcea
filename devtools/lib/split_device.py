# SPDX-License-Identifier: BSD-3-Clause
"""The arguments of a device whose function is behind an endpoint: the driver's and the function's."""

import re

# what the driver takes for itself; the rest is the function's
DRIVER_ARGUMENTS = ("link", "path", "control", "lm", "drain-ms", "doorbell", "inflight", "dma", "pool",
                    "socket", "socket-mode", "socket-owner")
# what it may take of the function's with control=host
CONTROL_ARGUMENTS = ("queues", "mac", "mtu", "offloads")


def split_device(dev, by_host=False):
    """(what an endpoint is told of a device, what the driver is) of its arguments."""
    name, *pairs = re.split(r",(?![^\[]*\])", dev)
    keys = DRIVER_ARGUMENTS + (CONTROL_ARGUMENTS if by_host else ())
    mine = [p for p in pairs if p.split("=")[0] in keys]
    rest = [p for p in pairs if p not in mine]
    mine += [p for p in rest if p.startswith("class=")]     # both have to know
    if by_host:
        mine.append("control=host")
        rest += ["control=host", "queues=64", "mtu=9000"]
    return ",".join([name, *rest]), ",".join([name, *mine])
