# SPDX-License-Identifier: BSD-3-Clause
"""vfn-endpoint, as the tests start it, and the stand-in that QEMU has itself."""

import os

from guest.vfio_user import FunctionGuest
from harness import Scratch


class ControlGuest(FunctionGuest):
    """The control: QEMU's own virtio-net in the same slot, wired to the other guest's. It tells a
    fault of a test from a fault of the function."""

    def _card(self, number, nic):
        peer = nic.props["peer"]
        return ["-netdev", f"dgram,id=net{number},local.type=unix,local.path={nic.socket},"
                           f"remote.type=unix,remote.path={peer}", *super()._card(number, nic)]

    def _device(self, number, nic):
        return {"driver": "virtio-net-pci", "id": f"card{number}", "bus": f"slot{number}",
                "netdev": f"net{number}", "mac": nic.mac, "romfile": ""}


class Control:
    """What stands in for Endpoint then: no process."""
    guest = ControlGuest

    def __init__(self, **_):
        self._scratch = Scratch()
        self.sockets = [os.path.join(self._scratch.path, name) for name in "ab"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._scratch.remove()

    def log(self):
        return ""


class Endpoint:
    """To be written with vfn-endpoint."""
