# SPDX-License-Identifier: BSD-3-Clause
"""The prompt of vfn-vhost as one who does not know it sees it: help, TAB, ways out."""

import os
import subprocess

import pytest
from harness import Backend, build_dir

COMMANDS = ("help", "list", "create", "stats", "snapshot", "restore", "quit")


@pytest.fixture
def backend(workdir):
    backend = Backend(["vdpa_vfn0", "vdpa_vfn11", "vdpa_vfn12"], directory=workdir)
    yield backend
    backend.close()


def typed(backend, keys, expect):
    """Type keys, not a line; the line as it stands then."""
    process = backend.process
    since = process.mark()
    process.popen.stdin.write(keys)
    process.popen.stdin.flush()
    process.expect(expect, since=since)
    return process.log()[since:]


def test_every_command_has_help_of_its_own(backend):
    overview = backend.cmd("help")
    for name in COMMANDS:
        assert f"\n{name} " in overview.replace("\r", "")
        text = backend.cmd(f"help {name}")
        assert text.count(name) >= 2        # what was typed, and the answer
    assert "Even numbers are receive queues" in backend.cmd("help stats")
    assert "nobody serves" in backend.cmd("help create")
    assert "protocol features" in backend.cmd("help list")
    assert "exit does the same" in backend.cmd("help exit")
    assert "Even numbers" not in backend.cmd("help nothing")


@pytest.mark.parametrize("begin", [b"stats ", b"snapshot ", b"restore ", b"create /nowhere/s "])
def test_names_of_devices_complete(backend, begin):
    # as far as all of them agree, then to the end
    line = typed(backend, begin + b"v\t", "vdpa_vfn")
    assert "vdpa_vfn" in line
    line = typed(backend, b"0\t", "vdpa_vfn0|0")
    backend.process.send("")
    typed(backend, begin + b"vdpa_vfn1\t\t", "vdpa_vfn11[^$]*vdpa_vfn12")
    backend.process.send("2")


def test_commands_complete(backend):
    typed(backend, b"sna\t", "snapshot")
    backend.process.send("")


def test_a_device_that_is_not_there(backend):
    assert "No vDPA device is named vdpa_vfn9" in backend.cmd("stats vdpa_vfn9 all")


@pytest.mark.parametrize("word", ["quit", "exit"])
def test_ways_out(backend, word):
    process, backend.process = backend.process, None
    process.send(word)
    assert process.wait() == 0
    assert not any(map(os.path.exists, backend.sockets))


@pytest.mark.parametrize("args", [["--version"], ["--no-pci", "--version"], ["--", "--version"]])
def test_version(args):
    done = subprocess.run([os.path.join(build_dir(), "app", "vfn-vhost"), *args], timeout=20,
                          capture_output=True, text=True, check=True)
    name, version, *with_dpdk = done.stdout.split()
    assert (name, with_dpdk[:2]) == ("vfn-vhost", ["with", "DPDK"])
    assert version.count(".") == 2 and done.stderr == ""
