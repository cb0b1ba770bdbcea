# SPDX-License-Identifier: BSD-3-Clause
"""vfn-endpoint, as the tests start it, and the stand-in that QEMU has itself."""

import os

from guest.vfio_user import FunctionGuest
from harness import Scratch
from pmd import Device, EalProcess, build_dir, cpu


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
    guest = ControlGuest

    def __init__(self, names="ab", **_):
        self._scratch = Scratch()
        self.sockets = [os.path.join(self._scratch.path, name) for name in names]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._scratch.remove()

    def log(self):
        return ""


class Endpoint(Device):
    """vfn-endpoint with functions "a" and "b", and so on, wired to each other, each on a socket.

    Keyword arguments are keys of both functions ("queues=2"), but for `own`: keys of one, by name.
    """
    guest = FunctionGuest

    def __init__(self, names="ab", own=None, args=(), eal=(), start=True, directory=None, **keys):
        super().__init__(False, directory)
        self.names = names
        self._keys = {"port": "wire", "idle": "sleep", "poll-cpu": cpu(1), **keys}
        self._own, self._args, self._eal = own or {}, list(args), list(eal)
        self.sockets = [os.path.join(self.directory, name) for name in names]
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    def _function(self, number, name):
        keys = {"socket": self.sockets[number], **self._keys, **self._own.get(name, {})}
        if keys["port"] == "wire":
            keys.setdefault("peer", self.names[number ^ 1])
        return ",".join([name, *(f"{key}={value}" for key, value in keys.items())])

    def start(self, timeout=15):
        """Start (again), on the same sockets, and wait until they are served."""
        program = os.path.join(build_dir(), "app", "vfn-endpoint")
        args = [word for number, name in enumerate(self.names)
                for word in ("--function", self._function(number, name))]
        self.process = EalProcess(program, ["--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64",
                                            "--no-shconf", *self._eal], [*args, *self._args])
        self.process.expect(r"vfn-endpoint: ready, \d+ function", timeout)

    def info(self, number):
        return self.telemetry(f"/vfn_endpoint/info,{self.names[number]}")

    def counter(self, number, name):
        """Of all queues of a function."""
        count = 2 * self.info(number)["queue_pairs"]
        return sum(self.telemetry(f"/vfn_endpoint/queue,{self.names[number]},{queue}")[name]
                   for queue in range(count))
