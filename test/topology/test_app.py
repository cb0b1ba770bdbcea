# SPDX-License-Identifier: BSD-3-Clause
"""The vhost-user server app/vfn-vhost: its options, messages, sockets, signals and prompt.

Every test starts processes of its own and ends them. VFN_BUILD names the build directory; the
environment (ASAN_OPTIONS and so on) is passed on.
"""

import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

BUILD = pathlib.Path(
    os.environ.get("VFN_BUILD") or pathlib.Path(__file__).resolve().parents[2] / "build"
).resolve()
APP = str(BUILD / "app" / "vfn-vhost")
PLUGIN = ["-d", "librte_vdpa_vfn.so"]
FUNCTION = ["--vdev", "vdpa_vfn0,queues=2,idle=sleep"]
# DPDK refuses --in-memory together with --no-huge.
EAL = "--no-pci --no-huge -m 64 --no-shconf --no-telemetry -l 0,1".split()
START = 20  # seconds: a loaded machine, the address sanitizer


class App:
    """One vfn-vhost, or another program, with its output in files."""

    def __init__(self, directory, args, stdin=subprocess.DEVNULL, argv0=(APP,), **popen):
        env = dict(os.environ, RUNTIME_DIRECTORY=str(directory))
        libs = [str(BUILD / "drivers" / "vdpa" / "vfn"), env.get("LD_LIBRARY_PATH")]
        env["LD_LIBRARY_PATH"] = ":".join(filter(None, libs))
        self.files = [tempfile.TemporaryFile("w+") for _ in range(2)]
        self.process = subprocess.Popen(
            [*argv0, *args], stdin=stdin, stdout=self.files[0], stderr=self.files[1], env=env,
            **popen)

    def _text(self, file):
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0).decode(errors="replace")

    @property
    def out(self):
        return self._text(self.files[0])

    @property
    def err(self):
        return self._text(self.files[1])

    @property
    def message(self):
        """Our own lines on standard error; the rest is EAL's and librte_vhost's."""
        return [line for line in self.err.splitlines() if line.startswith("vfn-vhost: ")]

    def wait_for(self, pattern, count=1, timeout=START):
        end = time.monotonic() + timeout
        while len(re.findall(pattern, self.out, re.M)) < count:
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.out}\n{self.err}"
            assert self.process.poll() is None, f"ended early:\n{self.out}\n{self.err}"
            time.sleep(0.02)
        return self

    def ready(self, ports=1):
        return self.wait_for(rf"^vfn-vhost: ready, {ports} socket\(s\)$")

    def wait(self, timeout=START):
        return self.process.wait(timeout)

    def stop(self, signum=signal.SIGTERM):
        """Exit code and the seconds it took."""
        start = time.monotonic()
        self.process.send_signal(signum)
        return self.wait(), time.monotonic() - start

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, *self.files):
            if stream is not None:
                stream.close()

    def cpu_seconds(self):
        """Of the main thread: pollers of the driver are not the app's."""
        pid = self.process.pid
        stat = pathlib.Path(f"/proc/{pid}/task/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def directory():
    # Not tmp_path, which is too long for a socket address.
    with tempfile.TemporaryDirectory(prefix="vfn-app-") as name:
        yield pathlib.Path(name)


@pytest.fixture
def start(directory):
    started = []

    def start_one(*args, **kwargs):
        started.append(App(directory, args, **kwargs))
        return started[-1]

    yield start_one
    for app in started:
        app.kill()


@pytest.fixture
def serve(start, directory):
    """Start the app with one function and the sockets in the test's directory."""

    def serve_one(*own, iface=True, **kwargs):
        prefix = ["--iface", f"{directory}/s"] if iface else []
        return start(*EAL, *PLUGIN, *FUNCTION, "--", *prefix, *own, **kwargs)

    return serve_one


def listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def stale_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def left(directory):
    return sorted(entry.name for entry in directory.iterdir() if entry.name != "dpdk")


@pytest.mark.parametrize("args", [
    ["--help"], ["--", "--help"], ["--", "-h"], ["--no-pci", "--help"],
    [*EAL, "--", "-i", "--help"]])
def test_help_needs_no_eal(start, args):
    app = start(*args)
    assert app.wait() == 0
    assert app.out.startswith("Usage: vfn-vhost ")
    assert app.err == ""


@pytest.mark.parametrize("args, named", [
    (["--bogus"], "--bogus"), (["-x"], "-x"), (["-xi"], "-x"), (["-ix"], "-x"),
    (["--client=yes"], "--client=yes"), (["--iface"], "--iface"), (["--iface", ""], "--iface"),
    (["extra"], "extra")])
def test_wrong_usage_is_named_before_eal_starts(start, args, named):
    app = start(*EAL, "--", *args)
    assert app.wait() == 2
    assert len(app.err.splitlines()) == 1
    assert named in app.err.split()[1:] or f"{named}," in app.err.split()


def test_argument_that_is_no_eal_option(start):
    app = start(*EAL, "extra", "--")
    assert app.wait() == 2
    assert "extra" in app.message[-1]


@pytest.mark.parametrize("role", [[], ["--client"]])
def test_too_long_path(start, directory, role):
    path = str(directory / "x").ljust(107, "x")
    app = start(*EAL, *PLUGIN, *FUNCTION, "--", "--iface", path, *role)
    assert app.wait() == 1
    assert f"{path}0" in app.message[-1] and "107" in app.message[-1]
    assert left(directory) == []


def test_longest_path(start, directory):
    path = str(directory / "x").ljust(106, "x")
    app = start(*EAL, *PLUGIN, *FUNCTION, "--", "--iface", path).ready()
    assert listens(f"{path}0")
    assert app.stop()[0] == 0
    assert left(directory) == []


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_what_is_no_socket_is_left_alone(serve, directory, kind):
    path = directory / "s0"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        stale_socket(directory / "target")
        path.symlink_to("target")
    app = serve()
    assert app.wait() == 1
    assert str(path) in app.message[-1] and "not a socket" in app.message[-1]
    if kind == "file":
        assert path.read_text() == "precious"
    elif kind == "directory":
        assert path.is_dir()
    else:
        assert path.is_symlink() and (directory / "target").is_socket()


@pytest.mark.parametrize("iface", ["/nonexistent/s", "/proc/s"])
def test_impossible_directory(start, iface):
    app = start(*EAL, *PLUGIN, *FUNCTION, "--", "--iface", iface)
    assert app.wait() == 1
    assert f"{iface}0" in app.message[-1]


def test_stale_socket_of_a_killed_predecessor(serve, directory):
    first = serve().ready()
    first.kill()
    assert (directory / "s0").is_socket() and not listens(directory / "s0")
    second = serve().ready()
    assert f"removed stale socket {directory}/s0" in second.out
    assert listens(directory / "s0")
    assert second.stop()[0] == 0
    assert left(directory) == []


def test_second_instance_leaves_the_first_alone(serve, directory):
    first = serve().ready()
    inode = (directory / "s0").stat().st_ino
    second = serve()
    assert second.wait() == 1
    assert f"{directory}/s0 is in use by another process" in second.message[-1]
    assert (directory / "s0").stat().st_ino == inode
    assert listens(directory / "s0")
    assert first.stop()[0] == 0


def test_the_socket_of_a_successor_stays(serve, directory):
    """Somebody removes a socket, and another instance serves there: its path is not the first one's."""
    first = serve().ready()
    (directory / "s0").unlink()
    second = serve().ready()
    assert first.stop()[0] == 0
    assert listens(directory / "s0")
    assert second.stop()[0] == 0
    assert left(directory) == []


def test_whoever_listens_is_not_connected_to(serve, directory):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{directory}/s0")
        other.listen()
        other.setblocking(False)
        app = serve()
        assert app.wait() == 1
        assert "is in use by another process" in app.message[-1]
        with pytest.raises(BlockingIOError):
            other.accept()


def test_socket_bound_but_not_yet_listening_is_not_stale(serve, directory):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{directory}/s0")
        app = serve()
        assert app.wait() == 1
        assert "is in use by another process" in app.message[-1]
    assert (directory / "s0").is_socket()


def test_of_many_starters_one_wins(serve, directory):
    stale_socket(directory / "s0")
    apps = [serve() for _ in range(4)]
    end = time.monotonic() + 2 * START
    while sum(app.process.poll() is None for app in apps) > 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    winner, = [app for app in apps if app.process.poll() is None]
    winner.ready()
    assert all(app.wait() == 1 for app in apps if app is not winner)
    assert listens(directory / "s0")
    assert winner.stop()[0] == 0
    assert left(directory) == []


def test_a_stale_socket_is_removed_only_under_the_lock(serve, directory):
    stale_socket(directory / "s0")
    fd = os.open(directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    app = serve()
    assert app.wait() == 1
    assert f"cannot lock directory {directory}" in app.message[-1]
    assert (directory / "s0").is_socket()
    os.close(fd)
    serve().ready()


@pytest.mark.parametrize("args", [[], PLUGIN, ["--vdev", "vdpa_nosuch0"]])
def test_no_vdpa_device_tells_what_to_add(start, directory, args):
    app = start(*EAL, *args, "--", "--iface", f"{directory}/s")
    assert app.wait() == 3
    assert len(app.message) == 1
    assert "-d librte_vdpa_vfn.so" in app.message[0] and "--vdev vdpa_vfn0" in app.message[0]


def test_no_hugepages_tells_how_to_do_without(start):
    app = start("--no-pci", "--huge-dir", "/nonexistent", "--file-prefix", f"t{os.getpid()}", "--")
    assert app.wait() == 1
    assert len(app.message) == 1
    assert "--no-huge -m 64" in app.message[0]


@pytest.mark.parametrize("args", [["-d", "nosuch.so"], ["--bogus"]])
def test_what_eal_refuses_gets_a_hint(start, args):
    app = start(*EAL, *args, "--")
    assert app.wait() == 1
    assert len(app.message) == 1
    assert "LD_LIBRARY_PATH" in app.message[0] and '"--"' in app.message[0]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("own", [[], ["--client"], ["-i"]])
def test_signal_ends_it_within_a_second(serve, directory, signum, own):
    app = serve(*own, stdin=subprocess.PIPE).ready()
    code, seconds = app.stop(signum)
    assert code == 0, app.err
    assert seconds < 1
    assert left(directory) == []


@pytest.mark.parametrize("own", [[], ["-i"]])
@pytest.mark.parametrize("stdin", ["<&-", "</dev/null"])
def test_without_standard_input_it_serves_and_does_not_spin(serve, directory, own, stdin):
    app = serve(*own, argv0=("sh", "-c", f'exec "$@" {stdin}', "sh", APP)).ready()
    before = app.cpu_seconds()
    time.sleep(1)
    assert app.cpu_seconds() - before < 0.1
    assert listens(directory / "s0")
    assert app.stop()[0] == 0


def test_closed_standard_descriptors_are_not_reused(serve, directory):
    app = serve(argv0=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", APP))
    end = time.monotonic() + START
    while not listens(directory / "s0"):
        assert time.monotonic() < end and app.process.poll() is None
        time.sleep(0.02)
    for fd in range(3):
        assert os.readlink(f"/proc/{app.process.pid}/fd/{fd}") == "/dev/null"
    assert app.stop()[0] == 0


def test_prompt_over_a_pipe(serve, directory):
    app = serve("-i", iface=False, stdin=subprocess.PIPE).ready(ports=0)

    def say(line):
        app.process.stdin.write(f"{line}\n".encode())
        app.process.stdin.flush()

    app.wait_for("^vdpa> ")
    say("help")
    app.wait_for(r"^stats +DEVNAME QUEUE\|all")
    say("list")
    app.wait_for(r"^vdpa_vfn0 +\d+ +0x[0-9a-f]+ +0x[0-9a-f]+  -$")
    say(f"create {directory}/mine vdpa_vfn0")
    app.wait_for(rf"^socket 0: vdpa_vfn0 on {directory}/mine \(server\)$")
    assert listens(directory / "mine")
    say("list")
    app.wait_for(rf"^vdpa_vfn0 .*  {directory}/mine$")
    say("stats vdpa_vfn0 0")
    app.wait_for("^Device vdpa_vfn0:$")
    say("stats vdpa_vfn0 all")
    app.wait_for("^No front-end is connected to vdpa_vfn0")
    say("stats vdpa_vfn0 1x")
    app.wait_for("^1x is not the number of a virtqueue")
    say("stats nosuch 0")
    app.wait_for("^No vDPA device is named nosuch")
    say("nosuch")
    app.wait_for("^Command not found")
    say(f"create {directory}/other vdpa_vfn0")  # refused: one function, one socket
    say("quit")
    assert app.wait() == 0
    assert app.message == [f"vfn-vhost: socket 0 already serves vdpa_vfn0 on {directory}/mine"]
    assert left(directory) == []


def test_failed_create_can_be_repeated(serve, directory):
    app = serve("-i", iface=False, stdin=subprocess.PIPE).ready(ports=0)
    (directory / "p").write_text("")
    app.process.stdin.write(f"create {directory}/p vdpa_vfn0\n".encode() +
                            b"create /proc/p vdpa_vfn0\n" +
                            f"create {directory}/q vdpa_vfn0\n".encode())
    app.process.stdin.flush()
    app.wait_for("^socket 0: vdpa_vfn0 on ")
    assert len(app.message) == 2
    assert listens(directory / "q")


def test_end_of_input_ends_the_prompt_only(serve, directory):
    app = serve("-i", stdin=subprocess.PIPE).ready()
    app.process.stdin.write(b"list\n")
    app.process.stdin.close()
    app.wait_for("^vfn-vhost: end of input")
    before = app.cpu_seconds()
    time.sleep(1)
    assert app.cpu_seconds() - before < 0.1
    assert listens(directory / "s0")
    assert app.stop()[0] == 0
    assert left(directory) == []


def test_client_comes_back_every_time(serve, directory):
    path = directory / "s0"
    app = serve("--client").ready()
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            server.settimeout(START)
            for _ in range(2):
                server.accept()[0].close()
        path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert app.stop()[0] == 0
        assert path.is_socket()  # the front-end's, not ours


@pytest.mark.skipif(shutil.which("dpdk-testpmd") is None, reason="no dpdk-testpmd")
def test_front_end_comes_and_goes_and_is_cut_off(serve, start, directory):
    app = serve("-i", stdin=subprocess.PIPE).ready()

    def front_end():
        return start(
            *"--no-pci --no-huge -m 256 --no-shconf --no-telemetry -l 0,1 --vdev".split(),
            f"net_virtio_user0,path={directory}/s0,queues=1", "--", "-i",
            "--total-num-mbufs=4096", "--tx-first", stdin=subprocess.PIPE,
            argv0=("dpdk-testpmd",))

    connected = r"socket 0: vdpa_vfn0 connected, features 0x[1-9a-f][0-9a-f]*, \d+ rings$"
    first = front_end()
    app.wait_for(connected)
    first.process.communicate(b"quit\n", timeout=START)
    app.wait_for("^socket 0: vdpa_vfn0 disconnected$")
    front_end()
    app.wait_for(connected, count=2)
    app.process.stdin.write(b"stats vdpa_vfn0 all\n")
    app.process.stdin.flush()
    app.wait_for(r"^\tVirtq 1:$")
    app.wait_for(r"^\t\t\S.{63} \d+ *$")
    code, seconds = app.stop()
    assert code == 0, app.err
    assert seconds < 1
    assert app.out.count("disconnected") == 2
    assert left(directory) == []
