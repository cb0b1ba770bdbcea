# SPDX-License-Identifier: BSD-3-Clause
"""Where a kernel with VDUSE is, and a vfn-vhost that serves it there.

On a machine that has /dev/vduse commands run there; else in a guest (devtools/lib/guest/vduse.py).
"""

import itertools
import json
import os
import subprocess
import time

from guest import GuestError, Job, Result
from harness import build_dir, plugin_dir

PLUGIN = "librte_vdpa_vfn.so"


class Here:
    """This machine, with the calls of a Guest."""

    def __init__(self, directory):
        self._tmp = directory
        self._numbers = itertools.count(1)
        self._env = {**os.environ, "PATH": f"{build_dir()}/app:{directory}:{os.environ['PATH']}"}
        self.plugin = plugin_dir()
        for name in ("flow", "telemetry"):
            subprocess.run(["gcc", "-O2", "-o", f"{directory}/{name}",
                            os.path.join(os.path.dirname(__file__), "..", "..", "devtools", "lib",
                                         "guest", f"{name}.c")], check=True)

    def run(self, command, check=True, timeout=120):
        done = subprocess.run(["bash", "-c", command], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=timeout, env=self._env)
        if check and done.returncode != 0:
            raise GuestError(f"exit status {done.returncode}: {command}\n{done.stdout}")
        return Result(done.returncode, done.stdout)

    def spawn(self, command):
        job = Job(self, next(self._numbers), command)
        self.run(f"(bash -c {_quote(command)} >{job._base}.out 2>&1; echo $? >{job._base}.tmp; "
                 f"mv {job._base}.tmp {job._base}.rc) >/dev/null 2>&1 &")
        return job

    def explain(self, message):
        return message


def _quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


class Server:
    """vfn-vhost on that machine. `devices`: --vdev arguments, each with vduse=NAME."""

    _numbers = itertools.count()

    def __init__(self, machine, devices, options="", eal="", prefix=None, start=True, env=""):
        self.machine = machine
        self.devices = devices
        self.prefix = prefix or f"vduse{next(self._numbers)}"
        self._tmp = f"/tmp/{self.prefix}.{next(self._numbers)}"
        vdevs = " ".join(f"--vdev '{device}'" for device in devices)
        self.command = (
            f"{env} LD_LIBRARY_PATH={getattr(machine, 'plugin', '/plugin')} "
            f"vfn-vhost --file-prefix {self.prefix} -l 0 --no-pci --no-huge -m 64 -d {PLUGIN} "
            f"{vdevs} --log-level=pmd.*:debug {eal} -- {options}")
        self.pid = None
        if start:
            self.start()

    def start(self):
        """Start it, and wait until it serves."""
        self.launch()
        self.expect("vfn-vhost: ready")

    def launch(self):
        self.pid = int(self.machine.run(
            f"exec 3>&-; {self.command} </dev/null >{self._tmp} 2>&1 & echo $!").out)

    def log(self):
        return self.machine.run(f"cat {self._tmp}").out

    def expect(self, text, seconds=30, count=1):
        """Wait until the log has a line with the text."""
        done = self.machine.run(
            f"end=$((SECONDS + {seconds})); until [ \"$(grep -c -- {_quote(text)} {self._tmp})\" -ge "
            f"{count} ]; do test -e /proc/{self.pid} && [ $SECONDS -lt $end ] || exit 1; "
            "sleep 0.1; done", check=False)
        if done.rc != 0:
            raise GuestError(f"no {text!r} in\n{self.log()}")

    def signal(self, name):
        self.machine.run(f"kill -{name} {self.pid}")

    def wait(self, seconds=20):
        done = self.machine.run(
            f"end=$((SECONDS + {seconds})); while test -e /proc/{self.pid} && "
            f"! grep -q '^State:.Z' /proc/{self.pid}/status; do "
            "[ $SECONDS -lt $end ] || exit 1; sleep 0.1; done", check=False)
        assert done.rc == 0, f"the server does not end\n{self.log()}"
        self.pid = None

    def kill(self):
        self.signal("KILL")
        self.wait()

    def stop(self):
        self.signal("TERM")
        self.wait()

    def end(self):
        """Whatever state it is in."""
        if self.pid is not None:
            self.machine.run(f"kill -CONT {self.pid}; kill -TERM {self.pid}", check=False)
            time.sleep(0.2)
            self.machine.run(f"for i in $(seq 50); do test -e /proc/{self.pid} || exit 0; sleep 0.1; "
                             f"done; kill -KILL {self.pid}", check=False)
            self.pid = None

    def tell(self, command):
        """What telemetry answers."""
        text = self.machine.run(
            f"telemetry /var/run/dpdk/{self.prefix}/dpdk_telemetry.v2 {command}").out
        return next(iter(json.loads(text).values()))

    def counts(self):
        """Open files, mappings and threads of the process."""
        out = self.machine.run(f"ls /proc/{self.pid}/fd | wc -l; wc -l </proc/{self.pid}/maps; "
                               f"ls /proc/{self.pid}/task | wc -l").out
        return [int(number) for number in out.split()]
