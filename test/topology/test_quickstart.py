# SPDX-License-Identifier: BSD-3-Clause
"""devtools/quickstart.sh and devtools/guest.sh, and how the commands set themselves up."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from guest import missing
from harness import SLOW, Process, build_dir, wait_until

import pmd
import prepare

DEVTOOLS = os.path.join(pmd.ROOT, "devtools")
NOT_SANITIZED = pytest.mark.skipif(SLOW > 1, reason="the build is instrumented")
GUESTS = pytest.mark.skipif(bool(missing()), reason=f"not installed: {' '.join(missing())}")


def command(name, *args, timeout=240, **how):
    return subprocess.run([os.path.join(DEVTOOLS, name), *args], timeout=timeout, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, check=False,
                          env={**os.environ, "VFN_BUILD": build_dir()}, **how)


@NOT_SANITIZED
def test_what_it_ran_can_be_pasted():
    done = command("quickstart.sh", "--seconds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = re.search(r"^  mkdir -p (\S+)\nThe server:\n  (.*)\nThe front-end, in another terminal:\n"
                      r"  (.*)\nand at its prompt: (.*)$", done.stdout, re.MULTILINE)
    assert shown, done.stdout
    assert "What to try next" in done.stdout
    directory, server, front, typed = shown.groups()
    assert not os.path.exists(directory)
    os.mkdir(directory)
    processes = []
    try:
        processes.append(Process(["bash", "-c", f"exec env {server}"], cwd="/"))
        processes[0].expect("vfn-vhost: ready")
        processes.append(Process(["bash", "-c", f"exec {front}"], cwd="/"))
        processes[1].expect("testpmd> ", 30)
        processes[1].send(typed)

        def received():
            since = processes[1].mark()
            processes[1].send("show port stats 0")
            return int(processes[1].expect(r"RX-packets: (\d+)", since=since)[1])

        assert wait_until(received)
        processes[1].send("quit")
        assert processes[1].wait(20) == 0
        processes[0].send("quit")
        assert processes[0].wait(20) == 0
    finally:
        for process in processes:
            process.kill()
        shutil.rmtree(directory)
        for prefix in re.findall(r"--file-prefix (\S+)", server + front):
            for path in pmd.runtime_dirs(prefix):
                shutil.rmtree(path, ignore_errors=True)


@NOT_SANITIZED
@GUESTS
def test_everything_at_once(workdir):
    files = {kind: os.path.join(workdir, f"result.{kind}") for kind in ("json", "svg")}
    options = ["--compare", "--latency", "--guest", "--seconds", "1", "--json", files["json"]]
    try:
        import matplotlib       # noqa: F401  pylint: disable=unused-import,import-outside-toplevel
        options += ["--svg", files["svg"]]
    except ImportError:
        del files["svg"]
    done = command("quickstart.sh", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(files["json"], encoding="utf-8") as file:
        result = json.load(file)
    assert result["pass"] and len(result["rates"]) == 1
    assert result["ratio"] == pytest.approx(result["mpps"] / result["net_vhost"]["mpps"], rel=0.01)
    for name in ("vfn", "net_vhost"):
        ranks = [result["latency_us"][name][rank] for rank in ("p50", "p90", "p99", "p99.9")]
        assert ranks == sorted(ranks) and ranks[0] > 0
    assert result["guest"]["answers"] == 5
    if "svg" in files:
        with open(files["svg"], encoding="utf-8") as file:
            picture = file.read()
        assert "net_vhost" in picture and "p99.9" in picture


@pytest.mark.parametrize("args", [["--size", "59"], ["--seconds", "0"], ["--ring", "both"], ["x"]])
def test_wrong_usage_sets_nothing_up(args):
    done = command("quickstart.sh", *args)
    assert (done.returncode, done.stdout) == (2, "")


def test_only_what_runs_is_built(workdir):
    """Of more than 300 targets; what the tests need is not among them."""
    subprocess.run(["meson", "setup", f"{workdir}/build", pmd.ROOT, "-Dbuildtype=release"], check=True,
                   capture_output=True)

    def steps(*targets):
        return subprocess.run(["ninja", "-C", f"{workdir}/build", "-n", *targets], check=True,
                              capture_output=True, text=True).stdout.splitlines()

    device = steps(*prepare.DEVICE, "app/vfn-rtt", *prepare.LIMITS)
    assert not [line for line in device if "test/unit" in line or "test/driver" in line]
    assert len(device) < len(steps()) / 2


def count(what):
    with open(os.path.join(prepare.HUGEPAGES, what), encoding="ascii") as file:
        return int(file.read())


@pytest.mark.alone("the machine's hugepages are counted")
@pytest.mark.skipif(not os.access(os.path.join(prepare.HUGEPAGES, "nr_hugepages"), os.W_OK),
                    reason="hugepages cannot be reserved here")
def test_hugepages_are_given_back():
    script = ('. "$1"; before=$(<$HUGEPAGE_DIR/nr_hugepages); hugepages $2; '
              'between=$(<$HUGEPAGE_DIR/nr_hugepages); hugepages_back $((between - before)); '
              'echo $before $between $(<$HUGEPAGE_DIR/nr_hugepages)')
    done = subprocess.run(["bash", "-euc", script, "test", prepare.COMMON,
                           str(count("free_hugepages") + 8)], capture_output=True, text=True,
                          check=True)
    before, between, after = map(int, done.stdout.split())
    assert between > before == after, done.stdout + done.stderr


@GUESTS
def test_guest_for_everybody(workdir):
    with pmd.Backend(["vdpa_vfn0,port=wire", "vdpa_vfn1,port=wire,peer=vdpa_vfn0"],
                     directory=workdir) as backend:
        other = Process([os.path.join(DEVTOOLS, "guest.sh"), "--number", "2", "--packed",
                         backend.sockets[1]])
        try:
            other.expect("guest: ready", 180)
            other.send("cat /sys/class/net/eth0/device/features")
            assert other.expect("^([01]{64})$", 30)[1][34] == "1"
            # without more of it, it stays until it is ended
            other.popen.stdin.close()
            other.expect("end of input, running until", 180)
            done = command("guest.sh", "--run", "ping -c 3 192.0.2.2; exit 7", backend.sockets[0])
            assert done.returncode == 7, done.stderr
            assert "3 packets received" in done.stdout
            assert "qemu-system-x86_64" in done.stderr      # how it was started
            other.popen.send_signal(signal.SIGTERM)
            assert other.popen.wait(30) == 0
        finally:
            other.kill()


@GUESTS
def test_guest_without_a_server(workdir):
    done = command("guest.sh", "--run", "true", os.path.join(workdir, "nobody"))
    assert done.returncode == 1
    assert "nobody" in done.stderr


@pytest.mark.parametrize("args", [[], ["--image", "x"], ["--number", "251", "x"]])
def test_guest_wrong_usage(args):
    assert command("guest.sh", *args).returncode == 2


def test_vduse_where_the_kernel_can_and_why_not_elsewhere():
    done = command("quickstart.sh", "--vduse")
    if os.path.exists("/dev/vduse/control"):
        assert done.returncode == 0 and "3 packets transmitted, 3" in done.stdout, done.stdout
    else:
        assert done.returncode == 1, done.stdout + done.stderr
        assert "has no VDUSE" in done.stdout or "iproute2" in done.stdout
