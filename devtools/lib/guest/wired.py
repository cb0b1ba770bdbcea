# SPDX-License-Identifier: BSD-3-Clause
"""Functions that are wired to each other, for guests, and the stand-in that QEMU has itself."""

import os

from pmd import Scratch, cpu

from . import Nic
from .vfio_user import FunctionGuest


def wires(names, own=None, **keys):
    """Functions "a" and "b", and so on, wired to each other, as Endpoint is told of them.

    Keyword arguments are keys of all functions ("queues=2"), but for `own`: keys of one, by name.
    """
    own = own or {}
    return [",".join([name, *(f"{key}={value}" for key, value in {
        "port": "wire", "peer": names[number ^ 1], "idle": "sleep", "poll-cpu": cpu(1), **keys,
        **own.get(name, {})}.items())]) for number, name in enumerate(names)]


def card(endpoint, number):
    """The guest's end of a function; the control's needs more than the socket."""
    props = {"peer": endpoint.sockets[number ^ 1]} if isinstance(endpoint, Control) else {}
    return Nic(endpoint.sockets[number], f"52:54:00:00:0b:{number + 1:02x}", props=props)


class ControlGuest(FunctionGuest):
    """The control: QEMU's own virtio-net in the same slot, wired to the other guest's. It tells a
    fault of a test from a fault of the function."""

    def _slot(self, number, nic):
        peer = nic.props["peer"]
        return ["-netdev", f"dgram,id=net{number},local.type=unix,local.path={nic.socket},"
                           f"remote.type=unix,remote.path={peer}", *super()._slot(number, nic)]

    def _device(self, number, nic):
        return {"driver": "virtio-net-pci", "id": f"card{number}", "bus": f"slot{number}",
                "netdev": f"net{number}", "mac": nic.mac, "romfile": ""}


class Control:
    """What stands in for Endpoint then: no process."""

    def __init__(self, functions):
        self._scratch = Scratch()
        self.sockets = [os.path.join(self._scratch.path, f.split(",", maxsplit=1)[0])
                        for f in functions]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._scratch.remove()

    def log(self):
        return ""
