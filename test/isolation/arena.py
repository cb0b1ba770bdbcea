# SPDX-License-Identifier: BSD-3-Clause
"""One server with an honest and a hostile tenant, somebody who asks telemetry meanwhile, and what has
to be true whatever the hostile one does.
"""

import collections
import contextlib
import dataclasses
import json
import os
import re
import secrets
import subprocess
import sys
import time

from frontend import frames, sanitizer_report
from harness import (SLOW, Backend, PmdError, Process, build_dir, remarks, runtime_dirs, wait_until)
from hostile import Gone, Silent
from net_device import open_frontend
from vhost_user import Closed, Connection, get_features

GAP = 10.0              # seconds without a frame or an answer that are a hang, on a busy machine
END = 3.0               # from SIGTERM to the end, on a busy machine; else it is a tenth of a second
LOG_PER_MESSAGE = 160   # bytes, on the average of many
HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class Setting:
    """How server and tenants are set up. Devices 0 to lanes - 1 are the hostile tenant's."""
    name: str
    packed: bool = False
    devs: str = ""              # device arguments of all
    lanes: int = 2
    log: bool = False           # of the honest tenant, as if it migrated
    inflight: bool = False      # its front-end has a region for descriptors in flight
    directory: bool = False     # the driver has one
    wire: bool = False          # the first hostile function is wired to one of the honest tenant's

    def __str__(self):
        return self.name


SETTINGS = (
    Setting("split", devs="lm=hw,idle=busy,queues=2", inflight=True),
    Setting("packed-shadow", packed=True, devs="lm=shadow,idle=sleep", log=True),
    Setting("split-shadow-doorbell", devs="lm=shadow,doorbell=on,idle=busy", directory=True),
    Setting("packed-wire", packed=True, devs="lm=hw,idle=sleep,queues=2", inflight=True, log=True,
            wire=True),
)


class Arena:
    """The server and its tenants; close() has all that must be true at the end."""

    def __init__(self, setting, directory, zoo=None, wrapper=(), args=(), quiet=True):
        self.setting, self.zoo = setting, zoo
        self.stack = contextlib.ExitStack()     # what an attack leaves open
        self.magic = secrets.token_bytes(16)
        self.begin = time.monotonic()
        self.tenant = self.asker = None
        self.snapshots = 0
        hostile = [f"vdpa_vfn{i}" for i in range(setting.lanes)]
        self.honest = f"vdpa_vfn{setting.lanes}"
        self.wired = f"vdpa_vfn{setting.lanes + 1}"
        more = f",{setting.devs}" if setting.devs else ""
        if setting.directory:
            recovery = os.path.join(directory, "inflight")
            os.makedirs(recovery, exist_ok=True)
            more += f",inflight={recovery}"
        devs = [name + more for name in [*hostile, self.honest]]
        if setting.wire:
            devs[0] += ",port=wire"
            devs.append(f"{self.wired}{more},port=wire,peer={hostile[0]}")
        self.directory = directory
        self.server = Backend(devs, directory=directory, wrapper=wrapper, args=args,
                              eal=["--log-level=lib.vhost.*:warning"] if quiet else ())
        try:
            for path in self.server.sockets:    # librte_vhost takes up to 1 s to notice a new one
                conn = Connection(path)
                conn.ask(get_features())
                conn.close()
            self.start_tenants()
        except BaseException:
            self.kill()
            raise
        self.ports = self.server.sockets[:setting.lanes]
        self.mark = self.server.process.mark()
        self.baseline = self.usual()
        self.tell_tenant("forget")      # that everything had to start

    def start_tenants(self):
        lanes = self.setting.lanes
        self.tenant = self.honest_one(self.server.sockets[lanes], wire=self.server.sockets[lanes + 1]
                                      if self.setting.wire else None)
        telemetry = os.path.join(runtime_dirs(self.server.process.prefix)[0], "dpdk_telemetry.v2")
        self.asker = script("asker.py", telemetry, *self.server.names)
        self.asker.expect(r"^ready$", timeout=20)
        # everything that is made once has been made
        wait_until(lambda: self.report()["frames"] > 1000, timeout=10, interval=0.2)

    def honest_one(self, path, **more):
        s = self.setting
        process = script("tenant.py", json.dumps({
            "magic": self.magic.hex(), "packed": s.packed, "inflight": s.inflight, "log": s.log,
            "loopback": path, "wire": None, "room": 1 << 21, **more}))
        process.expect(r"^ready$", timeout=20)
        return process

    # what must be true

    def alive(self):
        """Nobody has died or complained. Cheap enough to be asked after each case."""
        if not self.server.process.alive():
            raise self.server.process.error(f"died: {self.server.process.popen.returncode}")
        for process in self.tenant, self.asker:
            if not process.alive():
                raise process.error("found something")

    def whatever(self, attack, what):
        """Do something hostile; a server that does not answer or hangs up on good messages fails."""
        try:
            return attack()
        except (Gone, Silent, Closed, OSError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.process.popen.wait(0.5)
            with contextlib.suppress(PmdError):
                self.alive()
                raise AssertionError(f"{what}: {type(error).__name__} {error}") from error
            raise self.server.process.error(f"{what}: died, or a tenant did") from error

    def report(self):
        """What the honest tenant and telemetry have seen; both look at everything first."""
        self.alive()
        found = {}
        for process in self.tenant, self.asker:
            since = process.mark()
            process.send("report")
            found[process.name] = json.loads(process.expect(r"^report (.*\S)\n", 20, since)[1])
        tenants = found["tenant.py"]
        return {**found["asker.py"],
                **{k: sum(t[k] for t in tenants) for k in ("frames", "checks", "messages", "stops")},
                **{k: max(t[k] for t in tenants) for k in ("gap", "answer")}}

    def check(self):
        """The honest tenant goes on, and nobody waited for too long."""
        before = self.report()["frames"]
        found = wait_until(lambda: (r := self.report())["frames"] > before + 20 and r, timeout=5,
                           interval=0.05)
        assert found, "no frames"
        for what in "gap", "answer", "slowest":
            assert found[what] < GAP * SLOW, f"{what}: {found[what]:.2f} s"
        return found

    def others_go_on(self):
        """While what was done is still there."""
        self.check()

    def newcomer(self):
        """A decent front-end comes to the other hostile port."""
        with open_frontend(self.ports[1], packed=self.setting.packed) as fe:
            fe.check(frames("newcomer", 20))

    @contextlib.contextmanager
    def second_tenant(self, room):
        """An honest one on the other hostile port, with so much memory in one piece."""
        process = self.honest_one(self.ports[1], room=room)
        try:
            yield
            time.sleep(0.3)
            since = process.mark()
            process.send("report")
            process.expect(r"^report ", 20, since)
            process.send("end")
            assert process.wait(10) == 0
        finally:
            process.kill()

    def tell_tenant(self, what):
        since = self.tenant.mark()
        self.tenant.send(what)
        self.tenant.expect(rf"^{what}$", 20, since)

    def run_filler(self, fd, size, avail, used, event, seconds):
        """filler.c, with a guest's memory and a call descriptor."""
        subprocess.run([os.path.join(build_dir(), "test", "isolation", "filler"),
                        *map(str, (fd, size, avail, used, event, seconds))],
                       pass_fds=(fd, event), check=True, timeout=60 * SLOW)

    def resources(self):
        """Descriptors by what they are, shared mappings and threads of the server."""
        found = collections.Counter()
        base = f"/proc/{self.server.pid}"
        for fd in os.listdir(f"{base}/fd"):
            with contextlib.suppress(OSError):
                found["fd " + re.sub(r"\d+", "N", os.readlink(f"{base}/fd/{fd}"))] += 1
        with open(f"{base}/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                fields = line.split(None, 5)
                if fields[1].endswith("s"):
                    found["mapping of " + fields[5].strip()] += 1
        for task in os.listdir(f"{base}/task"):
            with contextlib.suppress(OSError), open(f"{base}/task/{task}/comm", encoding="ascii") as name:
                found["thread " + name.read().strip()] += 1
        return found

    def usual(self):
        """Of some looks: the honest tenant replaces descriptors now and then."""
        looks = []
        for _ in range(7):
            looks.append(self.resources())
            time.sleep(0.05)
        return max(looks, key=looks.count)

    def settled(self):
        """Nothing of the hostile tenant is left in the server."""
        if not wait_until(lambda: self.resources() == self.baseline, timeout=10, interval=0.05):
            now = self.resources()
            left = {k: (self.baseline[k], now[k]) for k in self.baseline | now
                    if self.baseline[k] != now[k]}
            raise AssertionError(f"left behind (were, are): {left}")

    def gate(self):
        """What the gate has counted at the hostile ports."""
        return [self.server.telemetry(f"/vfn_vhost/gate,{n}") for n in range(self.setting.lanes)]

    def left_to_the_library(self):
        """How often it was not the gate that refused something."""
        return sum(port["reasons"].get("the_library_refuses_it", 0) for port in self.gate())

    def quiet(self):
        """The log has not been flooded: bytes per message or connection, of many."""
        sent = sum(port["messages"] + port["accepted"] for port in self.gate())
        said = self.server.process.mark() - self.mark
        assert said < LOG_PER_MESSAGE * max(sent, 1000), f"{said} bytes of log, {sent} messages"
        return said

    def snapshot(self):
        self.snapshots += 1
        path = os.path.join(self.directory, "snapshot")
        self.server.cmd(f"snapshot vdpa_vfn{self.snapshots % len(self.server.devs)} {path}", timeout=10)

    def terminate(self):
        """SIGTERM, and how long it took."""
        process, self.server.process = self.server.process, None
        begin = time.monotonic()
        process.popen.terminate()
        try:
            code = process.popen.wait(10 * SLOW)
        except Exception as error:
            raise process.error("still runs 10 s after SIGTERM") from error
        finally:
            took = time.monotonic() - begin
            process.kill()
        report = sanitizer_report(process.log())
        assert not report, report
        if code != 0:
            raise process.error(f"ended with {code} on SIGTERM")
        assert took < END * SLOW, f"SIGTERM took {took:.2f} s"
        return took

    def finish(self, what, counts):
        """Everything that must be true; one line of it goes into the report of the session."""
        found = self.check()
        self.settled()
        said = self.quiet()
        messages = sum(port["messages"] for port in self.gate())
        self.stop_tenants()
        took = self.terminate()
        note(self.setting, what, {
            **counts, "seconds": round(time.monotonic() - self.begin),
            "messages": messages,
            "frames": found["frames"], "canary": found["checks"], "asked": found["asked"],
            "gap": found["gap"], "answer": found["answer"], "telemetry": found["slowest"],
            "log": said, "end": took})

    def stop_tenants(self):
        for process in self.tenant, self.asker:
            if process is None:
                continue
            with contextlib.suppress(PmdError):
                process.send("end")
            try:
                code = process.wait(10)
            except PmdError:
                process.kill()
                raise
            if code != 0:
                raise process.error(f"ended with {code}")
        self.tenant = self.asker = None

    def kill(self):
        self.stack.close()
        for process in self.tenant, self.asker:
            if process is not None:
                process.kill()
        self.server.close()


def script(name, *args):
    return Process([sys.executable, os.path.join(HERE, name), *args], name=name)


def note(setting, what, counts):
    text = ", ".join(f"{k} {v:.3f} s" if isinstance(v, float) else f"{k} {v}" for k, v in counts.items())
    remarks.append(f"isolation, {setting}, {what}: {text}")


@contextlib.contextmanager
def arena(setting, directory, **how):
    made = Arena(setting, directory, **how)
    try:
        yield made
    finally:
        if made.server.process is not None and made.server.process.alive():
            print(made.server.process.log()[-4000:])
        made.kill()
