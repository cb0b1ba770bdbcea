# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose cards are PCI functions of another process, each on a vfio-user socket."""

import json

from . import Guest
from .qemu11 import qemu11


class FunctionGuest(Guest):
    """Cards are Nic(socket, mac=""): the function has its own address, queues and features.

    Each is in a slot of its own. Those of `later` are not there at first: plug() numbers them behind
    the others. `system`: arguments of QEMU that boot something else than Linux, which takes no
    commands.
    """
    machine = "q35,graphics=off"    # the BIOS writes to the serial port

    def __init__(self, nics, later=(), system=None, **more):
        super().__init__(nics, **more)
        self.later = list(later)
        self.system = system

    def slot(self, number=0):
        """PCI address of a card that the kernel has."""
        return self.run(f"basename $(readlink -f /sys/class/net/eth{number}/device/..)").out.strip()

    def unplug(self, number=0):
        """Press the slot's button, and wait until the guest has let go of the card."""
        self.qmp("device_del", id=f"card{number}")
        while self.event("DEVICE_DELETED").get("device") != f"card{number}":
            pass

    def plug(self, number=0):
        """Put a card into its slot, or back: QEMU connects to its socket (anew)."""
        self.qmp("device_add", **self._device(number, [*self.nics, *self.later][number]))

    def _program(self):
        return str(qemu11())

    def _system(self):
        return super()._system() if self.system is None else self.system

    def _argv(self):
        return [*super()._argv(), *(word for number, nic in enumerate(self.later, len(self.nics))
                                    for word in self._slot(number, nic))]

    def _card(self, number, nic):
        return [*self._slot(number, nic), "-device", json.dumps(self._device(number, nic))]

    def _slot(self, number, nic):    # pylint: disable=unused-argument
        return ["-device", f"pcie-root-port,id=slot{number},chassis={number + 1}"]

    def _device(self, number, nic):
        return {"driver": "vfio-user-pci", "id": f"card{number}", "bus": f"slot{number}",
                "socket": {"type": "unix", "path": nic.socket}, **nic.props}
