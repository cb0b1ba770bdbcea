# SPDX-License-Identifier: BSD-3-Clause
"""The program app/vfn-endpoint: its options, messages, sockets, clients and signals."""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading

import pytest

from harness import wait_until
from test_app import BUILD, EAL, App, directory, left, listens, stale_socket  # noqa: F401
from vfio_user import BAR0, CONFIG, CONTROL, DMA_MAP, HEADER, REQ, RESET, WRITE_MULTI, Client, Refused

APP = str(BUILD / "app" / "vfn-endpoint")


class Endpoint(App):
    """One vfn-endpoint, with its output in files."""

    def __init__(self, where, args, **kwargs):
        self.runtime = where
        super().__init__(where, args, argv0=(APP,), **kwargs)

    @property
    def message(self):
        return [line for line in self.err.splitlines() if line.startswith("vfn-endpoint: ")]

    def ready(self, ports=1):
        return self.wait_for(rf"^vfn-endpoint: ready, {ports} function\(s\)$")

    def telemetry(self, command):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(10)
            sock.connect(str(self.runtime / "dpdk" / "rte" / "dpdk_telemetry.v2"))
            sock.recv(1024)
            sock.send(command.encode())
            return json.loads(sock.recv(16384))[command.split(",")[0]]


@pytest.fixture
def start(directory):  # noqa: F811
    started = []

    def start_one(*args, **kwargs):
        started.append(Endpoint(directory, args, **kwargs))
        return started[-1]

    yield start_one
    for app in started:
        app.kill()


@pytest.fixture
def serve(start, directory):  # noqa: F811
    """Start the app with one function, with keys as given, at s in the test's directory."""

    def serve_one(keys="", *args, **kwargs):
        return start("--function", f"fn,socket={directory}/s{keys}", *args, **kwargs)

    return serve_one


@pytest.mark.parametrize("args", [
    ["--help"], ["-h"], ["--", "--help"], ["--", "-h"], ["--no-pci", "--help"],
    ["--no-pci", "--", "--function", "fn0", "--help"]])
def test_help_needs_no_eal(start, args):
    app = start(*args)
    assert app.wait() == 0
    assert app.out.startswith("Usage: vfn-endpoint ")
    assert app.err == ""


def test_version(start):
    app = start("--version")
    assert app.wait() == 0
    assert app.out.startswith("vfn-endpoint ") and "DPDK" in app.out


@pytest.mark.parametrize("args, named", [
    ([], "--function"),
    (["--bogus"], "--bogus"),
    (["-x"], "-x"),
    (["extra"], "extra"),
    (["--function"], "--function"),
    (["--function", ""], "name"),
    (["--function", "a"], "socket=PATH"),
    (["--function", "a,socket="], '"socket="'),
    (["--function", "a,socket=/tmp/a,queues=0"], '"queues=0": expected 1 to 64'),
    (["--function", "a,socket=/tmp/a,mac=01:02:03:04:05:06"], '"mac=01:02:03:04:05:06"'),
    (["--function", "a,socket=/tmp/a,bogus=1"], '"bogus"'),
    (["--function", "a,socket=/tmp/a,mtu"], '"mtu='),
    (["--function", "a,socket=/tmp/a,mtu=1500,mtu=1500"], '"mtu" is given twice'),
    (["--function", "a,socket=/tmp/a,control=guest"], '"control=guest": expected endpoint or host'),
    (["--function", "a,socket=/tmp/a,msix=no"], '"msix=no": expected on or off'),
    (["--function", "a,socket=/tmp/a,queue-size=100"],
     '"queue-size=100": expected a power of two from 64 to 32768'),
    (["--function", "a,socket=/tmp/a,queue-size=65536"], '"queue-size=65536": expected a power of two'),
    (["--function", "a,socket=/tmp/a,queue-size="], '"queue-size=": expected a power of two'),
    (["--function", "a,socket=/tmp/a,socket-mode=888"], '"socket-mode=888"'),
    (["--function", "a,socket=/tmp/a,socket-owner=:nobody-here"], '"socket-owner=:nobody-here"'),
    (["--function", "a,socket=/tmp/a,peer=b"], '"peer" needs port=wire'),
    (["--function", "a,socket=/tmp/a,peer=a,port=wire"], '"peer=a"'),
    (["--function", "a,socket=/tmp/a", "--function", "a,socket=/tmp/b"], "a is given twice"),
    (["--function", "a,socket=/tmp/a", "--function", "b,socket=/tmp/a"], "same socket"),
    (["--function", "a,socket=/tmp/a", "--socket-path", "/tmp/b"], "--socket-path"),
    (["--socket-path", ""], "--socket-path"),
    (["--socket-path", "/tmp/a", "--fd", "3"], "exclude each other"),
    (["--fd", "0"], "--fd 0"),
    (["--fd", "x"], "--fd x"),
    (["--fd", "1000"], "--fd 1000"),
    (["--user", "nobody-here", "--socket-path", "/tmp/a"], "nobody-here"),
    (["--socket-path", "/" + "x" * 200], "too long"),
])
def test_wrong_usage_is_named_before_eal_starts(start, args, named):
    for before in ([], [*EAL, "--"]):
        app = start(*before, *args)
        assert app.wait() == 2
        assert len(app.err.splitlines()) == 1
        assert named in app.err


def test_argument_that_is_no_eal_option(start, directory):  # noqa: F811
    app = start(*EAL, "extra", "--", "--socket-path", f"{directory}/s")
    assert app.wait() == 2
    assert "extra" in app.message[-1]


def test_impossible_directory(start):
    app = start("--socket-path", "/nonexistent/s")
    assert app.wait() == 1
    assert "/nonexistent/s" in app.message[-1]


# ---- sockets ----

@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_ends_in_order(serve, directory, signum):  # noqa: F811
    app = serve().ready()
    with Client(directory / "s") as client:
        assert client.read(CONFIG, 0, 4) == struct.pack("<HH", 0x1af4, 0x1041)
        code, seconds = app.stop(signum)
        assert (code, left(directory)) == (0, [])
        assert seconds < 5
        with pytest.raises(OSError):
            client.read(CONFIG, 0, 4)


def test_ends_while_a_client_is_slowed_down(serve, directory):  # noqa: F811
    """One message with more writes than are done in half a minute."""
    app = serve().ready()
    count = 40000
    writes = struct.pack("<QIIQ", 20, BAR0, 1, 1) * count
    with Client(directory / "s") as client:
        client.sock.settimeout(60)

        def send():
            with contextlib.suppress(OSError):
                client.command(WRITE_MULTI, struct.pack("<Q", count) + writes)

        thread = threading.Thread(target=send)
        thread.start()
        assert wait_until(lambda: app.telemetry("/vfn_endpoint/info,fn")["slowed"] > 10)
        code, seconds = app.stop()
        thread.join()
    assert (code, left(directory)) == (0, [])
    assert seconds < 5


def test_stale_socket_of_a_killed_predecessor(serve, directory):  # noqa: F811
    first = serve().ready()
    with Client(directory / "s") as client:
        first.kill()
        with pytest.raises(OSError):
            client.read(CONFIG, 0, 4)
    assert (directory / "s").is_socket() and not listens(directory / "s")
    second = serve().ready()
    assert f"removed stale socket {directory}/s" in second.out
    with Client(directory / "s") as client:
        assert client.read(BAR0, 20, 1) == b"\0"
    assert second.stop()[0] == 0
    assert left(directory) == []


def test_second_instance_leaves_the_first_alone(serve, directory):  # noqa: F811
    first = serve().ready()
    second = serve()
    assert second.wait() == 1
    assert f"{directory}/s is in use by another process" in second.message[-1]
    assert listens(directory / "s")
    assert first.stop()[0] == 0


def test_what_is_no_socket_is_left_alone(serve, directory):  # noqa: F811
    (directory / "s").write_text("precious")
    app = serve()
    assert app.wait() == 1
    assert "not a socket" in app.message[-1]
    assert (directory / "s").read_text() == "precious"


def test_socket_is_whose_it_is_said_to_be(serve, directory):  # noqa: F811
    stale_socket(directory / "s")
    app = serve(",socket-mode=0660,socket-owner=:1").ready()
    status = (directory / "s").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, 1)
    assert app.stop()[0] == 0


def test_socket_path_without_a_function(start, directory):  # noqa: F811
    app = start(f"--socket-path={directory}/s").ready()
    assert app.telemetry("/vfn_endpoint/list") == ["fn0"]
    with Client(directory / "s") as client:
        assert client.region_size(BAR0) == 0x20000
    assert app.stop()[0] == 0
    assert left(directory) == []


def test_socket_that_listens_is_handed_down(start, directory):  # noqa: F811
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "s"))
        server.listen()
        os.set_inheritable(server.fileno(), True)
        app = start("--fd", str(server.fileno()), pass_fds=[server.fileno()]).ready()
    for _ in range(2):
        with Client(directory / "s") as client:
            assert client.read(CONFIG, 0, 2) == b"\xf4\x1a"
    assert app.stop()[0] == 0
    # it is not ours to remove
    assert left(directory) == ["s"]


def test_connected_socket_is_served_until_its_client_leaves(start):
    ours, theirs = socket.socketpair()
    with theirs:
        app = start("--fd", str(theirs.fileno()), pass_fds=[theirs.fileno()]).ready()
    with Client(sock=ours) as client:
        assert client.read(CONFIG, 0, 2) == b"\xf4\x1a"
    assert app.wait() == 0


# ---- clients ----

def test_second_client_is_refused(serve, directory):  # noqa: F811
    serve().ready()
    with Client(directory / "s") as first:
        with pytest.raises(Refused) as refusal:
            Client(directory / "s")
        assert refusal.value.errno == errno.EBUSY
        assert first.read(CONFIG, 0, 2) == b"\xf4\x1a"
    with Client(directory / "s") as next_one:
        assert next_one.read(CONFIG, 0, 2) == b"\xf4\x1a"


def test_client_that_is_killed_leaves_a_clean_device(serve, directory):  # noqa: F811
    app = serve().ready()
    script = ("import sys; sys.path.insert(0, sys.argv[2]); import vfio_user, time\n"
              "c = vfio_user.Client(sys.argv[1])\n"
              "c.write(0, 20, b'\\x03'); c.write(7, 4, b'\\x06\\x04')\n"
              "print('there', flush=True); time.sleep(100)\n")
    with subprocess.Popen([sys.executable, "-c", script, str(directory / "s"),
                           os.path.dirname(os.path.abspath(__file__))],
                          stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"there\n"
        info = app.telemetry("/vfn_endpoint/info,fn")
        assert (info["client"], info["device_status"]) == (client.pid, "0x03")
        client.kill()
    assert wait_until(lambda: app.telemetry("/vfn_endpoint/info,fn")["client"] == 0)
    info = app.telemetry("/vfn_endpoint/info,fn")
    assert (info["device_status"], info["clients"]) == ("0x00", 1)
    with Client(directory / "s") as after:
        assert after.read(CONFIG, 4, 2) == b"\0\0"


def test_functions_are_wired_to_each_other(start, directory):  # noqa: F811
    app = start("--function", f"a,socket={directory}/a,port=wire,mac=02:00:00:00:00:0a,mtu=2000",
                "--function", f"b,socket={directory}/b,port=wire,peer=a,queues=3",
                "--function", f"c,socket={directory}/c,port=wire,peer=nobody").ready(3)
    assert app.telemetry("/vfn_endpoint/list") == ["a", "b", "c"]
    a, b, c = (app.telemetry(f"/vfn_endpoint/info,{name}") for name in "abc")
    assert (a["link"], b["link"], c["link"]) == ("up", "up", "down")
    assert (a["mac"], a["mtu"], a["queue_pairs"]) == ("02:00:00:00:00:0a", 2000, 1)
    assert b["queue_pairs"] == 3
    assert "peer=nobody names no function" in app.err
    queue = app.telemetry("/vfn_endpoint/queue,b,6")
    assert (queue["queue"], queue["packets"], queue["errors_addr"]) == (6, 0, 0)
    assert "only 0 to 6" in app.telemetry("/vfn_endpoint/queue,b,7")["error"]
    assert "no function d" in app.telemetry("/vfn_endpoint/info,d")["error"]
    assert app.stop()[0] == 0


@pytest.mark.parametrize("msix, capability", [("on", 0x11), ("off", 0x09)])
def test_msix_can_be_left_out(serve, directory, msix, capability):  # noqa: F811
    app = serve(f",msix={msix}").ready()
    with Client(directory / "s") as client:
        first = client.read(CONFIG, 0x34, 1)[0]
        assert client.read(CONFIG, first, 1)[0] == capability
        client.command(RESET)
    assert app.stop()[0] == 0


@pytest.mark.parametrize("keys, size", [("", 1024), (",queue-size=64", 64), (",control=host", 32768),
                                        (",control=host,queue-size=256", 256)])
def test_size_that_drivers_are_told_of_queues(serve, directory, keys, size):  # noqa: F811
    app = serve(keys).ready()
    with Client(directory / "s") as client:
        for queue, expected in enumerate((size, size, 64)):
            client.write(BAR0, 0x16, struct.pack("<H", queue))
            assert struct.unpack("<H", client.read(BAR0, 0x18, 2))[0] == expected
    assert app.stop()[0] == 0


def test_client_has_control_where_it_is_left_to_it(serve, directory):  # noqa: F811
    app = serve(",control=host,queues=4,mtu=1500").ready()
    mac = bytes.fromhex("020102030405")
    with Client(directory / "s") as client:
        assert client.region_size(CONTROL) == 24
        features = struct.unpack_from("<Q", client.read(CONTROL, 0, 24))[0]
        client.write(CONTROL, 0, struct.pack("<Q6sHH6x", features, mac, 9000, 2))
        info = app.telemetry("/vfn_endpoint/info,fn")
        assert (info["mac"], info["mtu"], info["queue_pairs"]) == ("02:01:02:03:04:05", 9000, 2)
        with pytest.raises(Refused):
            client.write(CONTROL, 0, struct.pack("<Q6sHH6x", features, mac, 9000, 5))
    assert wait_until(lambda: app.telemetry("/vfn_endpoint/info,fn")["mtu"] == 1500)
    assert app.stop()[0] == 0


def test_client_is_asked_to_leave(serve, directory):  # noqa: F811
    app = serve().ready()
    assert "no client" in app.telemetry("/vfn_endpoint/remove,fn")["error"]
    with Client(directory / "s") as client:
        assert "does not listen" in app.telemetry("/vfn_endpoint/remove,fn")["error"]
        event = os.eventfd(0)
        try:
            client.irq_fd(REQ, event)
            assert app.telemetry("/vfn_endpoint/remove,fn") == {"asked": "to let go of the device"}
            assert select.select([event], [], [], 5)[0]
        finally:
            os.close(event)


def lingering_socket():
    """(a socket whose close waits for its peer, the peer)"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        slow = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    slow.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            slow.send(bytes(1 << 16))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
    return slow, peer


@pytest.mark.parametrize("read", [True, False])
def test_nobody_waits_for_a_descriptor_whose_close_waits(serve, directory, read):  # noqa: F811
    """One that is refused, or one that nobody reads any more when the client is hung up. The
    endpoint has it when it is closed here, and is the last to close it."""
    app = serve().ready()
    slow, peer = lingering_socket()
    with contextlib.closing(peer):
        with Client(directory / "s", timeout=10) as client:
            app.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, app.process.pid, os.WSTOPPED)
            if not read:
                client.sock.sendall(HEADER.pack(1, RESET, 1, 0, 0))     # no message has one byte
            message = HEADER.pack(1, DMA_MAP, 48, 0, 0) + struct.pack("<IIQQQ", 32, 3, 0, 0, 4096)
            socket.send_fds(client.sock, [message], [slow.fileno()])
            slow.close()
            app.process.send_signal(signal.SIGCONT)
            if read:
                assert HEADER.unpack(client.receive(HEADER.size))[4] == errno.EACCES
                client.command(RESET)
        with Client(directory / "s", timeout=10) as client:
            client.command(RESET)
        assert app.stop()[0] == 0


def test_idle_endpoint_costs_nothing(serve, directory):  # noqa: F811
    app = serve(",idle=sleep").ready()
    with Client(directory / "s"):
        before = app.cpu_seconds()
        assert not wait_until(lambda: False, timeout=1)
        assert app.cpu_seconds() - before < 0.05
