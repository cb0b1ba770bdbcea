# SPDX-License-Identifier: BSD-3-Clause
"""A guest gets the function that was meant for it, or none is served: names, sockets, refusals."""

import grp
import os
import pwd
import signal
import socket
import stat
import subprocess

import pytest

from harness import PLUGIN, EalProcess, build_dir, with_plugin
from net_device import open_frontend

VFN = os.path.join(build_dir(), "app", "vfn-vhost")


class Server:
    """vfn-vhost with these functions; no defaults, nothing that is not said."""

    def __init__(self, directory, *devs, args=(), iface=True, wrapper=(), options=()):
        eal = ["--lcores", "0@0", "--no-huge", "-m", "64", "--no-telemetry", "-d", PLUGIN, *options]
        for dev in devs:
            eal += ["--vdev", dev]
        if iface:
            args = ["--iface", os.path.join(directory, "s"), *args]
        self.directory = directory
        self.process = EalProcess(VFN, eal, list(args), env=with_plugin(), wrapper=wrapper)

    def __enter__(self):
        self.process.expect(r"vfn-vhost: ready, \d+ socket")
        return self

    def __exit__(self, *_):
        if self.process.alive():
            self.process.popen.terminate()
        assert self.process.wait() == 0
        assert self.sockets() == []

    def sockets(self):
        return sorted(name for name in os.listdir(self.directory)
                      if stat.S_ISSOCK(os.lstat(os.path.join(self.directory, name)).st_mode))

    def refused(self, code):
        assert self.process.wait() == code
        assert "vfn-vhost: ready" not in self.process.log() and self.sockets() == []
        return self.process.log()


def queue_pairs(path):
    """What tells the functions of a test apart."""
    with open_frontend(path) as fe:
        return fe.max_pairs


@pytest.mark.parametrize("devs", [
    ("vdpa_vfn0,bogus=1", "vdpa_vfn1"), ("vdpa_vfn0", "vdpa_vfn1,queues=0"),
    ("vdpa_vfn0", "vdpa_nosuch1"), ("vdpa_vfn0", "net_pcap1,rx_pcap=/nonexistent"),
], ids=["first", "last", "no-driver", "another-kind"])
def test_a_refused_device_ends_the_start(workdir, devs):
    bad = next(d for d in devs if d not in ("vdpa_vfn0", "vdpa_vfn1")).split(",")[0]
    log = Server(workdir, *devs).refused(3)
    assert f"{bad}" in log


def test_a_name_that_is_given_twice(workdir):
    log = Server(workdir, "vdpa_vfn0", "vdpa_vfn1", "vdpa_vfn0,queues=2").refused(2)
    assert "vdpa_vfn0 is given twice" in log


def test_a_name_within_another_is_not_the_same(workdir):
    with Server(workdir, "vdpa_vfn1", "vdpa_vfn10") as server:
        assert server.sockets() == ["s1", "s10"]


def test_sockets_have_the_numbers_of_the_names(workdir):
    """Sparse, in any order."""
    with Server(workdir, "vdpa_vfn7,queues=3", "vdpa_vfn1,queues=2", "vdpa_vfn05") as server:
        assert server.sockets() == ["s05", "s1", "s7"]
        assert [queue_pairs(os.path.join(workdir, s)) for s in server.sockets()] == [1, 2, 3]


def test_names_without_a_number_need_a_socket(workdir):
    assert "vdpa_vfn_a: its name has no number" in Server(workdir, "vdpa_vfn_a").refused(1)
    path = os.path.join(workdir, "mine")
    with Server(workdir, f"vdpa_vfn_a,queues=2,socket={path}", "vdpa_vfn3") as server:
        assert server.sockets() == ["mine", "s3"]
        assert queue_pairs(path) == 2


def test_two_functions_on_one_socket(workdir):
    path = os.path.join(workdir, "s0")
    log = Server(workdir, "vdpa_vfn0", f"vdpa_vfn1,socket={path}").refused(1)
    assert f"socket 0 already serves vdpa_vfn0 on {path}" in log


def test_prompt_serves_what_has_a_socket_only(workdir):
    path = os.path.join(workdir, "mine")
    with Server(workdir, f"vdpa_vfn0,socket={path}", "vdpa_vfn1", args=["-i"],
                iface=False) as server:
        assert server.sockets() == ["mine"]


def test_owner_and_mode_of_a_socket(workdir):
    nobody, group = pwd.getpwnam("nobody"), grp.getgrnam("nogroup")
    with Server(workdir, "vdpa_vfn0,socket-mode=0640,socket-owner=nobody:nogroup",
                "vdpa_vfn1,socket-owner=:nogroup", "vdpa_vfn2,socket-mode=600",
                f"vdpa_vfn3,socket-owner={nobody.pw_uid}"):
        found = [os.stat(os.path.join(workdir, f"s{i}")) for i in range(4)]
        assert [stat.S_IMODE(st.st_mode) for st in found[0:3:2]] == [0o640, 0o600]
        assert (found[0].st_uid, found[0].st_gid) == (nobody.pw_uid, group.gr_gid)
        assert (found[1].st_uid, found[1].st_gid) == (os.geteuid(), group.gr_gid)
        assert (found[3].st_uid, found[3].st_gid) == (nobody.pw_uid, os.getegid())


@pytest.mark.parametrize("arg, reason", [
    ("socket-mode=9", "no octal mode"), ("socket-mode=1777", "no octal mode"),
    ("socket-owner=nosuchuser", "known"), ("socket-owner=:nosuchgroup", "known"),
    ("socket-owner=root:", "known"), ("socket=" + "x" * 200, "too long"),
], ids=lambda text: text[:30])
def test_wrong_socket_arguments_are_named(workdir, arg, reason):
    log = Server(workdir, f"vdpa_vfn0,{arg}").refused(1)
    assert reason in log
    assert arg in log if reason != "too long" else arg.split("=")[1] in log


@pytest.mark.parametrize("option, whose", [("--client", "front-end's"),
                                           ("--no-gate", "librte_vhost's")])
def test_owner_and_mode_of_somebody_elses_socket(workdir, option, whose):
    log = Server(workdir, "vdpa_vfn0,socket-mode=0600", args=[option]).refused(1)
    assert whose in log


def test_other_ends_that_are_not_there(workdir):
    with Server(workdir, "vdpa_vfn0,port=wire,peer=vdpa_vfn9",
                "vdpa_vfn1,ethdev=net_tap9") as server:
        log = server.process.log()
        assert "warning: vdpa_vfn0: peer=vdpa_vfn9 names no device" in log
        assert "warning: vdpa_vfn1: ethdev=net_tap9 names no port" in log


def test_other_ends_that_are_there(workdir):
    with Server(workdir, "net_null0", "vdpa_vfn0,port=wire", "vdpa_vfn1,port=wire,peer=vdpa_vfn0",
                "vdpa_vfn2,ethdev=net_null0") as server:
        assert "warning" not in server.process.log()


@pytest.mark.parametrize("where", ["missing", "a file"])
def test_restore_from_what_is_no_directory(workdir, where):
    path = os.path.join(workdir, "where")
    if where == "a file":
        with open(path, "w", encoding="ascii"):
            pass
    log = Server(workdir, "vdpa_vfn0", args=["--restore", path]).refused(1)
    assert f"cannot restore from {path}" in log


def test_restore_from_a_directory_without_a_state_says_so(workdir):
    path = os.path.join(workdir, "states")
    os.mkdir(path)
    with Server(workdir, "vdpa_vfn0", args=["--restore", path]) as server:
        assert f"vdpa_vfn0: there are no parts of it at {path}/vdpa_vfn0" in server.process.log()


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "VTALRM",
                                  "PROF", "IO", "PWR", "XCPU"])
def test_signals_end_it_in_order(workdir, name):
    """Ports closed, sockets removed, status 0: what __exit__ looks at."""
    # whoever runs the tests may have started them with nohup
    with Server(workdir, "vdpa_vfn0", wrapper=["env", "--default-signal=HUP"]) as server:
        with open_frontend(os.path.join(workdir, "s0")) as fe:
            server.process.popen.send_signal(getattr(signal, f"SIG{name}"))
            assert fe.conn.hung_up()


def test_under_nohup_the_terminal_may_go(workdir):
    with Server(workdir, "vdpa_vfn0", wrapper=["nohup"]) as server:
        server.process.popen.send_signal(signal.SIGHUP)
        assert queue_pairs(os.path.join(workdir, "s0")) == 1
        assert server.process.alive()


# --- states are written to files, and to nothing else --------------------------------------------


@pytest.fixture
def odd_files(workdir):
    """A directory of things that are no files, and a file system that is full."""
    home = os.path.join(workdir, "odd")
    os.mkdir(home)
    subprocess.run(["mount", "-t", "tmpfs", "none", home], check=True)
    try:
        os.mknod(f"{home}/device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mkfifo(f"{home}/fifo")
        with open(f"{home}/target", "w", encoding="ascii") as file:
            file.write("old")
        os.symlink("target", f"{home}/link")
        os.symlink("nowhere", f"{home}/dangling")
        os.mkdir(f"{home}/dir")
        os.mkdir(f"{home}/small")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", f"{home}/small"],
                       check=True)
        with open(f"{home}/small/fill", "w", encoding="ascii") as file:
            file.write("x" * 4096)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"{home}/socket")
        yield home
    finally:
        subprocess.run(["umount", "-R", "-l", home], check=True)


def listing(home):
    return {os.path.join(d, n): os.lstat(os.path.join(d, n)).st_mode
            for d, dirs, files in os.walk(home) for n in dirs + files}


def test_snapshots_replace_files_only(workdir, odd_files, device):
    backend = device(["vdpa_vfn0"])
    before = listing(odd_files)
    for name in ("device", "fifo", "link", "dangling", "dir", "socket", "small/x", "no/such"):
        path = os.path.join(odd_files, name)
        assert "is saved in" not in backend.cmd(f"snapshot vdpa_vfn0 {path}")
        assert f"cannot save the parts to {path}: " in backend.log()
        answer = backend.telemetry(f"/vfn/snapshot,vdpa_vfn0,{path}")
        assert answer is None or list(answer) == ["error"]
        assert listing(odd_files) == before
    with open(os.path.join(odd_files, "target"), encoding="ascii") as file:
        assert file.read() == "old"
    # the control: a file is replaced
    assert "is in" in backend.cmd(f"snapshot vdpa_vfn0 {odd_files}/target")
    assert os.path.getsize(f"{odd_files}/target") > 100


def test_telemetry_takes_absolute_paths_only(workdir, device):
    backend = device(["vdpa_vfn0"])
    for what in ("snapshot", "restore"):
        answer = backend.telemetry(f"/vfn/{what},vdpa_vfn0,relative")
        assert answer is None or list(answer) == ["error"]
    assert not os.path.exists(os.path.join(os.readlink(f"/proc/{backend.pid}/cwd"), "relative"))
