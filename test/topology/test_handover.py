# SPDX-License-Identifier: BSD-3-Clause
"""Hot upgrade when something goes wrong: at every step either process is killed, stopped or
blocked, or has no room. Whatever happens, one of the two serves the guests afterwards.

The other side is played by the test: the successor through telemetry and files, as the comment at
the head of handover.c says; the predecessor by a telemetry socket.
"""

import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import (PLUGIN, Backend, EalProcess, build_dir, cpu, random_packets, runtime_dirs,
                     wait_until, with_plugin)
from net_device import open_frontend
from vhost_user import Listener

OFFER_S = 10    # to take an offer

number = itertools.count()


def frames(seed):
    return random_packets(seed, 40)


class Guest:
    """A front-end that owns its socket and waits for back-ends."""

    def __init__(self, path):
        self.listener = Listener(path)
        self.fe = None

    def open(self):
        self.fe = open_frontend(self.listener.path, listener=self.listener)
        self.check("first")

    def check(self, seed):
        self.fe.check(frames(seed), timeout=5)

    def comes_back(self, seed, within=5):
        """It was hung up on; somebody serves it again."""
        assert wait_until(self.fe.conn.gone, within)
        self.fe.again()
        self.check(seed)

    def not_disturbed(self, seed):
        assert not self.fe.conn.gone()
        self.check(seed)

    def close(self):
        if self.fe is not None:
            self.fe.close()
        self.listener.close()


@pytest.fixture
def old(workdir):
    """A process that serves one guest: (backend, guest)."""
    guest = Guest(os.path.join(workdir, "sock0"))
    with contextlib.closing(guest), Backend(directory=workdir, client=True) as backend:
        guest.open()
        yield backend, guest


class Successor:
    """What a process that takes over does, step by step."""

    def __init__(self, backend, directory):
        self.backend, self.directory = backend, str(directory)
        os.makedirs(self.directory, exist_ok=True)
        self.lock = os.open(os.path.join(self.directory, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def ask(self, what):
        return self.backend.telemetry(f"/vfn_vhost/{what},{self.directory}")

    def die(self):
        if self.lock is not None:
            os.close(self.lock)
        self.lock = None

    def take(self):
        os.rename(os.path.join(self.directory, ".offer"), os.path.join(self.directory, ".taken"))


@pytest.fixture
def successor(old, workdir):
    new = Successor(old[0], os.path.join(workdir, "meet"))
    yield new
    new.die()


def ends(backend):
    process, backend.process = backend.process, None
    assert process.wait() == 0


def test_prepared_and_never_asked_again(old, successor):
    assert successor.ask("prepare") == {"result": "complete"}
    assert os.path.getsize(os.path.join(successor.directory, "vdpa_vfn0")) > 0
    successor.die()
    old[1].not_disturbed("after")


@pytest.mark.parametrize("what", ["prepare", "hand_over"])
@pytest.mark.parametrize("where", ["missing", "a file", "/proc", "full", "relative", "none"])
def test_what_cannot_be_saved_disturbs_nobody(old, workdir, what, where):
    backend, guest = old
    path = pathlib.Path(workdir, "where")
    full = where == "full"
    if where == "a file":
        path.write_text("mine")
    elif full:
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", path], check=True)
        (path / "fill").write_bytes(bytes(8192))
    param = {"/proc": "/proc", "relative": "somewhere", "none": ""}.get(where, str(path))
    try:
        answer = backend.telemetry(f"/vfn_vhost/{what},{param}" if param else f"/vfn_vhost/{what}")
        assert list(answer) == ["error"] and answer["error"], answer
        guest.not_disturbed("after")
        if full:
            assert os.listdir(path) == ["fill"]
    finally:
        if full:
            subprocess.run(["umount", "-l", path], check=True)
    if where == "a file":
        assert path.read_text() == "mine"


def test_successor_is_dead_before_anything_was_given_up(old, successor):
    assert successor.ask("prepare") == {"result": "complete"}
    successor.die()
    assert "nothing has changed" in successor.ask("hand_over")["error"]
    old[1].not_disturbed("after")


def test_successor_dies_with_the_offer(old, successor):
    assert successor.ask("hand_over") == {"result": "complete"}
    assert wait_until(old[1].fe.conn.gone)
    begin = time.monotonic()
    successor.die()
    old[1].comes_back("after")
    assert time.monotonic() - begin < OFFER_S - 2
    with pytest.raises(FileNotFoundError):
        successor.take()
    assert not os.path.exists(successor.directory)


def test_the_same_process_hands_over_more_than_once(old, workdir):
    """Each time librte_vhost gets the time that it takes to close what was sent to it."""
    for n in range(3):
        new = Successor(old[0], os.path.join(workdir, f"meet{n}"))
        assert new.ask("hand_over") == {"result": "complete"}
        new.die()
        old[1].comes_back(f"after {n}")
    assert "slow to let go" not in old[0].log()


def test_successor_is_stopped_with_the_offer(old, successor):
    """It comes too late, and finds that out by the rename."""
    assert successor.ask("hand_over") == {"result": "complete"}
    old[1].comes_back("after", within=OFFER_S + 5)
    with pytest.raises(FileNotFoundError):
        successor.take()


def test_nobody_holds_the_lock_the_offer_ends_with_time(old, successor):
    """Somebody at a telemetry prompt tries it out."""
    os.unlink(os.path.join(successor.directory, ".lock"))
    assert successor.ask("hand_over") == {"result": "complete"}
    old[1].comes_back("after", within=OFFER_S + 5)


def test_the_offer_is_taken_in_time(old, successor):
    assert successor.ask("hand_over") == {"result": "complete"}
    time.sleep(0.3)
    successor.take()
    ends(old[0])
    assert os.path.exists(os.path.join(successor.directory, "vdpa_vfn0"))


def test_predecessor_is_stopped_while_the_offer_is_taken(old, successor):
    """It has not seen it when its time is up, and may not serve again."""
    backend, guest = old
    assert successor.ask("hand_over") == {"result": "complete"}
    assert wait_until(guest.fe.conn.gone)
    os.kill(backend.pid, signal.SIGSTOP)
    try:
        successor.take()
        time.sleep(OFFER_S + 1)
    finally:
        os.kill(backend.pid, signal.SIGCONT)
    ends(backend)
    with pytest.raises(TimeoutError):
        guest.listener.accept(0.5)


def test_the_directory_goes_with_the_offer(old, successor):
    assert successor.ask("hand_over") == {"result": "complete"}
    for name in os.listdir(successor.directory):
        os.unlink(os.path.join(successor.directory, name))
    os.rmdir(successor.directory)
    old[1].comes_back("after", within=OFFER_S + 5)


def test_a_second_successor_has_to_wait(old, successor, workdir):
    other = Successor(old[0], os.path.join(workdir, "other"))
    assert successor.ask("hand_over") == {"result": "complete"}
    assert "already" in other.ask("hand_over")["error"]
    other.die()
    successor.die()
    old[1].comes_back("after")


def test_predecessor_is_told_to_end_with_the_offer(old, successor):
    backend, _ = old
    assert successor.ask("hand_over") == {"result": "complete"}
    backend.stop()
    successor.take()    # is still there to be taken


# --- the predecessor is played -------------------------------------------------------------------


class Predecessor(threading.Thread):
    """A telemetry socket that answers as told: answers maps a command to a function of the
    directory that returns the answer, None: never."""

    def __init__(self, prefix, answers, greeting=True):
        super().__init__(daemon=True)
        self.directory = runtime_dirs(prefix)[0]
        os.makedirs(self.directory, exist_ok=True)
        self.path = os.path.join(self.directory, "dpdk_telemetry.v2")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.bind(self.path)
        self.sock.listen(1)
        self.answers, self.greeting = answers, greeting
        self.asked, self.met, self.connected = [], None, False

    def run(self):
        with contextlib.suppress(OSError):
            conn = self.sock.accept()[0]
            self.connected = True
            if self.greeting:
                conn.send(b'{"version":"x"}')
            while question := conn.recv(4096).decode():
                command, self.met = question.split(",", 1)
                self.asked.append(command)
                answer = self.answers[command.rsplit("/", 1)[1]](self.met)
                if answer is not None:
                    conn.send(json.dumps({command: answer}).encode())

    def close(self):
        self.sock.close()
        os.unlink(self.path)
        os.rmdir(self.directory)


def complete(_):
    return {"result": "complete"}


def offer(directory):
    pathlib.Path(directory, ".offer").touch()
    return complete(directory)


def withdrawn(directory):
    """The answer comes when the time is up."""
    pathlib.Path(directory, ".withdrawn").touch()
    return complete(directory)


def with_stranger(directory):
    pathlib.Path(directory, "vdpa_vfn7").touch()
    return complete(directory)


def with_nonsense(directory):
    pathlib.Path(directory, "vdpa_vfn0").write_bytes(b"no state at all")
    return complete(directory)


def never(_):
    return None


def successor_process(workdir, prefix):
    vfn = os.path.join(build_dir(), "app", "vfn-vhost")
    return EalProcess(vfn, ["--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64", "-d", PLUGIN,
                            "--vdev", "vdpa_vfn0,idle=sleep"],
                      ["--iface", os.path.join(workdir, "sock"), "--take-over", prefix],
                      env=with_plugin())


@contextlib.contextmanager
def played(answers, **how):
    prefix = f"vfn-played-{os.getpid()}-{next(number)}"
    with contextlib.closing(Predecessor(prefix, answers, **how)) as predecessor:
        predecessor.start()
        yield prefix, predecessor


@pytest.mark.parametrize("answers, reason", [
    ({"prepare": lambda _: {"error": "no room"}}, "no room"),
    ({"prepare": lambda _: "?"}, "prepare"),
    ({"prepare": with_stranger}, "vdpa_vfn7 of the other process is not among the devices"),
    ({"prepare": with_nonsense}, "cannot restore its parts"),
    ({"prepare": complete, "hand_over": lambda _: {"error": "busy"}}, "busy"),
    ({"prepare": complete, "hand_over": withdrawn}, "serves again"),
], ids=["refused", "nonsense", "stranger", "no-state", "not-handed-over", "withdrawn"])
def test_successor_gives_up(workdir, answers, reason):
    with played(answers) as (prefix, predecessor):
        process = successor_process(workdir, prefix)
        assert process.wait(20) == 1
        assert reason in process.log(), process.log()
        assert not os.path.exists(predecessor.met)
        assert os.listdir(workdir) == []


SILENT = [({}, False), ({"prepare": never}, True), ({"prepare": complete, "hand_over": never}, True)]


def test_predecessor_never_answers(workdir):
    with contextlib.ExitStack() as stack:
        processes = [successor_process(workdir, stack.enter_context(
            played(answers, greeting=greeting))[0]) for answers, greeting in SILENT]
        for process in processes:
            assert process.wait(20) == 1
            assert "no answer in time" in process.log() and "serves on" in process.log()
    assert os.listdir(workdir) == []


@pytest.mark.parametrize("answers, greeting", SILENT, ids=["greeting", "prepare", "hand_over"])
def test_successor_that_waits_is_told_to_end(workdir, answers, greeting):
    with played(answers, greeting=greeting) as (prefix, predecessor):
        process = successor_process(workdir, prefix)
        assert wait_until(lambda: predecessor.connected and len(predecessor.asked) == len(answers))
        begin = time.monotonic()
        process.popen.terminate()
        assert process.wait(20) == 1
        assert time.monotonic() - begin < 5
        assert "told to end" in process.log() and "serves on" in process.log()
    assert os.listdir(workdir) == []


def test_successor_with_an_offer_serves(workdir):
    with played({"prepare": complete, "hand_over": offer}) as (prefix, predecessor):
        process = successor_process(workdir, prefix)
        process.expect("ready, 1 socket")
        assert os.path.exists(os.path.join(predecessor.met, ".taken"))
        with open_frontend(os.path.join(workdir, "sock0")) as fe:
            fe.check(frames("taken over"))
        process.popen.terminate()
        assert process.wait() == 0


# --- whoever reads what the server says stops reading --------------------------------------------


def test_reader_of_the_output_stops(workdir):
    """Ctrl-S at a terminal, a log shipper that hangs: the guest goes on, and a successor that comes
    meanwhile takes over."""
    guest = Guest(os.path.join(workdir, "sock0"))
    prefix = f"vfn-unread-{os.getpid()}"
    vfn = os.path.join(build_dir(), "app", "vfn-vhost")
    process = subprocess.Popen(
        [vfn, "--no-pci", "--file-prefix", prefix, "--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64",
         "-d", PLUGIN, "--vdev", "vdpa_vfn0,idle=sleep", "--log-level=*:debug", "--", "--iface",
         os.path.join(workdir, "sock"), "--client", "-i"],
        env=with_plugin(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    try:
        guest.open()
        process.stdin.write(b"stats vdpa_vfn0 all\n" * 40)     # more than the pipe holds
        process.stdin.flush()
        time.sleep(0.5)
        guest.not_disturbed("unread")
        guest.fe.disconnect()       # the log of another connection has no room either
        guest.fe.connect().negotiate()
        for message in guest.fe.script():
            guest.fe.conn.tell(message)
        guest.check("again")
        with Backend(directory=workdir, client=True, args=["--take-over", prefix]):
            assert process.wait(10) == 0
            guest.comes_back("taken over")
        # what there was room for, and how much there was not
        while select.select([process.stderr], [], [], 0)[0] and os.read(process.stderr.fileno(),
                                                                        65536):
            pass
    finally:
        process.kill()
        process.wait()
        guest.close()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def test_lost_messages_are_counted(workdir):
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    prefix = f"vfn-lost-{os.getpid()}"
    vfn = os.path.join(build_dir(), "app", "vfn-vhost")
    process = subprocess.Popen(
        [vfn, "--no-pci", "--file-prefix", prefix, "--lcores", f"0@{cpu(1)}", "--no-huge", "-m", "64",
         "--no-telemetry", "-d", PLUGIN, "--vdev", "vdpa_vfn0,idle=sleep", "--log-level=*:debug",
         "--", "--iface", os.path.join(workdir, "sock")],
        env=with_plugin(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=write)
    os.close(write)
    try:
        path = os.path.join(workdir, "sock0")
        assert wait_until(lambda: os.path.exists(path), 20)
        for _ in range(20):
            open_frontend(path).close()
        os.set_blocking(read, False)
        text = b""

        def lost():
            nonlocal text
            with contextlib.suppress(BlockingIOError):
                text += os.read(read, 65536)
            open_frontend(path).close()
            return b" messages lost) " in text

        assert wait_until(lost), text
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(read)


def test_front_end_that_does_not_know_that_its_back_end_was_gone(device, workdir):
    """It listens, and does not accept, as testpmd with --tx-first: said once, and to no other."""
    with contextlib.closing(Listener(os.path.join(workdir, "sock0"))), \
            contextlib.closing(Listener(os.path.join(workdir, "sock1"))) as speaks:
        backend = device(["vdpa_vfn0", "vdpa_vfn1"], client=True)
        with open_frontend(speaks.path, listener=speaks):
            backend.process.expect("vdpa_vfn0: connected to .*sock0, where nobody speaks", 15)
            time.sleep(1)
        assert backend.log().count("where nobody speaks") == 1
