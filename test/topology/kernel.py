# SPDX-License-Identifier: BSD-3-Clause
"""Where a kernel with VDUSE is, and a vfn-vhost that serves it there.

On a machine that has /dev/vduse commands run there; else in a guest (devtools/lib/guest/vduse.py).
"""

import itertools
import json
import os
import subprocess

from guest import GuestError, Job, Result
from harness import SLOW, build_dir, plugin_dir

PLUGIN = "librte_vdpa_vfn.so"


class Here:
    """This machine, with the calls of a Guest."""

    def __init__(self, directory):
        self.directory = directory
        self._numbers = itertools.count(1)
        self._env = {**os.environ, "PATH": f"{build_dir()}/app:{directory}:{os.environ['PATH']}"}
        self.plugin = plugin_dir()
        for name in ("flow", "telemetry", "vdparoot"):
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
        number = next(self._numbers)
        job = Job(self, number, command)
        job._base = f"{self.directory}/job.{number}"
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
        self.prefix = prefix or f"vduse{os.getpid()}-{next(self._numbers)}"
        self._tmp = f"{machine.directory}/{self.prefix}.{next(self._numbers)}"
        vdevs = " ".join(f"--vdev '{device}'" for device in devices)
        self.command = (
            f"{env} LD_LIBRARY_PATH={getattr(machine, 'plugin', '/plugin')} "
            f"vfn-vhost --file-prefix {self.prefix} -l 0 --no-pci --no-huge -m 64 -d {PLUGIN} "
            f"{vdevs} --log-level=pmd.*:debug {eal} -- {options}")
        self.pid = None
        if start:
            self.start()

    def start(self, text="vfn-vhost: ready", count=1):
        """Start it, and wait until it serves, or until expect() of these."""
        done = self.machine.run(f"{self.command} </dev/null >{self._tmp} 2>&1 3>&- & pid=$!; echo $pid; "
                                f"{self._until(text, count)}", check=False)
        self.pid = int(done.out.split()[0])
        if done.rc != 0:
            raise GuestError(f"no {text!r} in\n{self.log()}")

    def refused(self):
        """What one says that is to end by itself."""
        done = self.machine.run(f"exec 3>&-; timeout -s KILL {60 * SLOW} env {self.command} </dev/null",
                                check=False)
        assert done.rc not in (0, 137), f"status {done.rc}\n{done.out}"
        return done.out

    def log(self):
        return self.machine.run(f"cat {self._tmp}").out

    def expect(self, text, seconds=90, count=1):
        """Wait until the log has a line with the text."""
        done = self.machine.run(f"pid={self.pid}; {self._until(text, count, seconds)}", check=False)
        if done.rc != 0:
            raise GuestError(f"no {text!r} in\n{self.log()}")

    def lines(self, text):
        """The command that tells how many of the log's lines have it."""
        return f"grep -c -- {_quote(str(text))} {self._tmp}"

    def _until(self, text, count=1, seconds=90):
        return (f"end=$((SECONDS + {seconds * SLOW})); "
                f"until [ $({self.lines(text)}) -ge {count} ]; do "
                "test -e /proc/$pid && [ $SECONDS -lt $end ] || exit 1; sleep 0.1; done")

    def signal(self, name):
        self.machine.run(f"kill -{name} {self.pid}")

    def wait(self, seconds=60, before=":"):
        """Until it has ended."""
        done = self.machine.run(
            f"{before}; end=$((SECONDS + {seconds * SLOW})); while test -e /proc/{self.pid} && "
            f"! grep -q '^State:.Z' /proc/{self.pid}/status; do "
            "[ $SECONDS -lt $end ] || exit 1; sleep 0.1; done", check=False)
        assert done.rc == 0, f"the server does not end\n{self.log()}"
        self.pid = None

    def kill(self, after=0):
        self.wait(before=f"sleep {after}; kill -KILL {self.pid}")

    def stop(self, after=0):
        self.wait(before=f"sleep {after}; kill -TERM {self.pid}")

    def end(self):
        """Whatever state it is in."""
        if self.pid is not None:
            self.machine.run(f"kill -CONT {self.pid}; kill -TERM {self.pid}; "
                             f"for i in $(seq 50); do test -e /proc/{self.pid} || exit 0; sleep 0.1; "
                             f"done; kill -KILL {self.pid}", check=False)
            self.pid = None

    def tell(self, *commands):
        """What telemetry answers; to several, a list."""
        text = self.machine.run("set -e; " + "; ".join(
            f"telemetry /var/run/dpdk/{self.prefix}/dpdk_telemetry.v2 {command}"
            for command in commands)).out
        answers = [next(iter(json.loads(line).values())) for line in text.splitlines()]
        return answers if len(commands) > 1 else answers[0]

    def counts(self):
        """Open files, mappings and threads of the process."""
        out = self.machine.run(f"ls /proc/{self.pid}/fd | wc -l; wc -l </proc/{self.pid}/maps; "
                               f"ls /proc/{self.pid}/task | wc -l").out
        return [int(number) for number in out.split()]
