# SPDX-License-Identifier: BSD-3-Clause
"""The kernel's own drivers on our functions, by VDUSE: virtio_net on /dev/vduse.

All of it runs in one guest whose kernel has VDUSE, or on this machine if that has it (kernel.py).
Claims are checked at the kernel's end: what its driver negotiated, counted and received.
"""

import contextlib
import os
import re

import pytest
import recipes
from guest import missing
from harness import NIGHTLY, Scratch
from kernel import Here, Server

from guest.vduse import VduseGuest

HERE = os.path.exists("/dev/vduse/control")
pytestmark = [
    pytest.mark.skipif(not HERE and bool(missing()),
                       reason=f"Debian packages not installed: {' '.join(missing())}"),
    pytest.mark.skipif(not NIGHTLY, reason="for the night: an orderly end with packed rings still loses "
                                           "frames now and then"),
]

F_MAC, F_MRG_RXBUF, F_CTRL_VQ = 5, 15, 17
F_VERSION_1, F_ACCESS_PLATFORM, F_RING_PACKED = 32, 33, 34
OFFLOADS = {0, 1, 7, 8, 11, 12}

SPLIT = "vduse-packed=off"
PACKED = "vduse-packed=on"
CYCLES = 1000 if NIGHTLY else 10
KILLS = 50 if NIGHTLY else 3
night = pytest.mark.skipif(not NIGHTLY, reason="for the night")
FLOWS = r"sent (\d+) received (\d+) lost (\d+) again (\d+) corrupt (\d+)"


@pytest.fixture(scope="module")
def machine():
    if HERE:
        scratch = Scratch()
        yield Here(scratch.path)
        scratch.remove()
        return
    with VduseGuest() as guest:
        guest.boot()
        guest.run("mkdir -p /run /var; mount -t tmpfs run /run; ln -sfn /run /var/run")
        yield guest


@pytest.fixture
def serve(machine):
    """serve(devices...) is a running server; what a test leaves in the kernel goes."""
    with contextlib.ExitStack() as ends:
        def start(*devices, **more):
            server = Server(machine, devices, **more)
            ends.callback(server.end)
            return server
        yield start
        for name in machine.run("vdpa dev show | sed 's/:.*//'").out.split():
            machine.run(f"timeout 30 vdpa dev del {name}", check=False)
        machine.run("ip -all netns delete", check=False)
    left = machine.run("ls /dev/vduse").out.split()
    for name in left:   # of servers that were killed, or were to keep it
        if name != "control":
            server = Server(machine, [f"vdpa_vfn9,vduse={name}"])
            server.stop()
    assert machine.run("ls /dev/vduse").out.split() == ["control"]


class Interface:
    """The kernel's interface on a device: `vdpa dev add`, and the namespace it is moved to."""

    def __init__(self, machine, name, address=None):
        self.machine, self.name = machine, name
        machine.run(f"vdpa dev add name {name} mgmtdev vduse")
        self.eth = self._found()
        self.prefix = ""
        if address:
            self.prefix = f"ip netns exec {name} "
            machine.run(f"ip netns add {name}; ip link set {self.eth} netns {name}; "
                        f"{self.prefix}ip link set lo up; {self.prefix}ip link set {self.eth} up; "
                        f"{self.prefix}ip addr add {address}/24 dev {self.eth}")

    def _found(self):
        return self.machine.run(
            f"for i in $(seq 100); do for d in /sys/bus/vdpa/devices/{self.name}/virtio*/net/*; do "
            "test -e $d && basename $d && exit; done; sleep 0.1; done; exit 1").out.strip()

    def run(self, command, **more):
        return self.machine.run(f"{self.prefix}bash -c '{command}'", **more).out

    def spawn(self, command):
        return self.machine.spawn(f"exec {self.prefix}bash -c '{command}'")

    def features(self):
        bits = self.machine.run(f"cat /sys/bus/vdpa/devices/{self.name}/virtio*/features").out
        return {number for number, bit in enumerate(bits) if bit == "1"}

    def count(self, name):
        return int(self.run(f"ip -s -j link show {self.eth} >/tmp/x; "
                            f"cat /sys/class/net/{self.eth}/statistics/{name}"))

    def rebind(self):
        at = "/sys/bus/vdpa/drivers/virtio_vdpa"
        self.machine.run(f"echo {self.name} >{at}/unbind; echo {self.name} >{at}/bind")
        self.eth = self._found()


def flow(interface, seconds=None, flows=2, window=16):
    """Numbered frames to a loopback and back; a Job, or what was counted after some seconds."""
    # by default what waits too long in front of the driver, while nobody serves it, is dropped there
    interface.run(f"ip link set {interface.eth} up; tc qdisc replace dev {interface.eth} root pfifo")
    job = interface.spawn(f"exec flow {interface.eth} {flows} {window}")
    if seconds is None:
        return job
    interface.run(f"sleep {seconds}")
    return counted(interface, job)


def counted(interface, job, check=True):
    interface.machine.run("killall -TERM flow")
    result = job.wait(check=check)
    print(result.out)
    return dict(zip(("sent", "received", "lost", "again", "corrupt"),
                    map(int, re.search(FLOWS, result.out).groups())))


@pytest.mark.parametrize("ring", [SPLIT, PACKED], ids=["split", "packed"])
def test_driver_has_the_function(machine, serve, ring):
    server = serve(f"vdpa_vfn0,vduse=vd0,mac=02:00:00:00:00:77,mtu=1600,idle=sleep,{ring}")
    eth = Interface(machine, "vd0")
    features = eth.features()
    assert {F_VERSION_1, F_ACCESS_PLATFORM, F_MAC, F_MRG_RXBUF} | OFFLOADS <= features
    assert F_CTRL_VQ not in features
    assert (F_RING_PACKED in features) == (ring == PACKED)
    link = eth.run(f"ip link show {eth.eth}")
    assert "02:00:00:00:00:77" in link and "mtu 1600" in link
    assert server.tell("/vfn/vduse,vdpa_vfn0")["phase"] == "waits for the first kick"
    count = flow(eth, 1)
    assert count["received"] > 100 and count["lost"] == count["again"] == 0
    info = server.tell("/vfn/vduse,vdpa_vfn0")
    assert info["phase"] == "running" and info["refused"] == info["interrupts_refused"] == 0
    # interrupts are suppressed, and once per burst: fewer than frames
    assert 0 < info["interrupts"] < 2 * count["received"]
    machine.run("vdpa dev del vd0")
    assert server.tell("/vfn/vduse,vdpa_vfn0")["phase"] == "no driver"
    assert server.tell("/vfn/info,vdpa_vfn0")["state"] == "idle"
    server.stop()
    assert machine.run("ls /dev/vduse").out.split() == ["control"]


@contextlib.contextmanager
def wired(machine, serve, first, second):
    server = serve(f"vdpa_vfn0,vduse=vd0,port=wire,peer=vdpa_vfn1,idle=sleep,mtu=9000,{first}",
                   f"vdpa_vfn1,vduse=vd1,port=wire,idle=sleep,mtu=9000,{second}")
    yield (server, Interface(machine, "vd0", "10.9.9.1"), Interface(machine, "vd1", "10.9.9.2"))


def transfer(source, target, address, megabytes=2):
    """TCP from one to the other: what arrives is what was sent."""
    target.machine.run(f"test -e /tmp/data || head -c {megabytes << 20} /dev/urandom >/tmp/data")
    receiver = target.spawn("nc.openbsd -d -l 7777 | sha256sum")
    target.run("until netstat -ltn | grep -q :7777; do sleep 0.05; done")
    sent = source.run(f"nc.openbsd -N {address} 7777 </tmp/data; sha256sum </tmp/data", timeout=200)
    assert receiver.wait().out == sent


@pytest.mark.parametrize("rings", [
    (SPLIT, PACKED), pytest.param((PACKED, PACKED), marks=night),
    pytest.param((SPLIT, SPLIT), marks=night)], ids=["split-packed", "packed", "split"])
def test_two_namespaces_on_a_wire(machine, serve, rings):
    with wired(machine, serve, *rings) as (server, one, two):
        assert one.run(f"cat /sys/class/net/{one.eth}/mtu").strip() == "9000"
        one.run("ping -c 3 -W 10 10.9.9.2; ping -c 3 -s 8000 -W 10 10.9.9.2")
        transfer(two, one, "10.9.9.1")
        # offloads reach from driver to driver: segments go as one frame, and as many without
        large = two.count("rx_packets")
        transfer(one, two, "10.9.9.2")
        large = two.count("rx_packets") - large
        one.run(f"ethtool -K {one.eth} tso off gso off tx off")
        small = two.count("rx_packets")
        transfer(one, two, "10.9.9.2")
        small = two.count("rx_packets") - small
        assert small > 1.5 * large, (large, small)
        for queue in (0, 1):
            told = server.tell(f"/vfn/queue,vdpa_vfn0,{queue}")
            assert not {name for name, value in told.items()
                        if name.startswith("errors_") and value}


def test_tcpdump_sees_what_passes(machine, serve):
    with wired(machine, serve, SPLIT, SPLIT) as (_, one, two):
        capture = two.spawn(f"exec tcpdump -Z root -c 3 -ni {two.eth} icmp")
        two.run("sleep 1.5")
        one.run("ping -c 3 -W 10 10.9.9.2")
        assert capture.wait(timeout=30).out.count("echo request") >= 2


def test_operator_pulls_the_cable(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep,mtu=1500")
    eth = Interface(machine, "vd0")
    eth.run(f"ip link set {eth.eth} up")
    carrier = f"/sys/class/net/{eth.eth}/carrier"
    for state, value in (("down", 0), ("up", 1)):
        server.tell(f"/vfn/link,vdpa_vfn0,{state}")
        eth.run(f"for i in $(seq 50); do test $(cat {carrier}) = {value} && exit; sleep 0.1; done; "
                "exit 1")
    # virtio_net reads the MTU when it begins
    server.tell("/vfn/mtu,vdpa_vfn0,1300")
    eth.rebind()
    assert "mtu 1300" in eth.run(f"ip link show {eth.eth}")


@pytest.mark.parametrize("ring", [SPLIT, PACKED], ids=["split", "packed"])
def test_driver_comes_and_goes(machine, serve, ring):
    server = serve(f"vdpa_vfn0,vduse=vd0,idle=sleep,{ring}")
    eth = Interface(machine, "vd0")
    assert flow(eth, 0.5)["lost"] == 0
    eth.rebind()
    # in the middle of traffic
    job = flow(eth)
    eth.run("sleep 0.5")
    eth.rebind()
    counted(eth, job, check=False)
    count = flow(eth, 0.5)
    assert count["received"] > 50 and count["lost"] == 0
    assert server.tell("/vfn/vduse,vdpa_vfn0")["refused"] == 0


@pytest.mark.parametrize("ring", [SPLIT, PACKED], ids=["split", "packed"])
def test_server_is_killed_under_traffic(machine, serve, ring):
    server = serve(f"vdpa_vfn0,vduse=vd0,idle=sleep,{ring}")
    eth = Interface(machine, "vd0")
    job = flow(eth)
    for number in range(KILLS):
        eth.run(f"sleep 0.{3 + number % 7}")
        server.kill()
        server.start()
        server.expect("running, features")
    eth.run("sleep 1")
    count = counted(eth, job, check=False)
    assert count["received"] > 100
    # nothing lost; a burst that was delivered just before may come again
    assert count["lost"] == count["corrupt"] == 0 and count["again"] <= 32 * KILLS, count


def test_packed_ring_of_which_nothing_tells_stays_off(machine, serve):
    server = serve(f"vdpa_vfn0,vduse=vd0,idle=sleep,{PACKED}")
    eth = Interface(machine, "vd0")
    flow(eth, 1)
    server.kill()
    machine.run(f"rm /var/run/dpdk/{server.prefix}/vdpa_vfn0.inflight")
    server.start()
    server.expect("nobody knows where it stands")
    eth.rebind()
    assert flow(eth, 1)["lost"] == 0


def test_server_comes_back_after_an_orderly_end(machine, serve):
    server = serve(f"vdpa_vfn0,vduse=vd0,idle=sleep,{PACKED}", options="--keep")
    eth = Interface(machine, "vd0")
    job = flow(eth)
    eth.run("sleep 0.5")
    server.stop()
    assert "vd0" in machine.run("ls /dev/vduse").out
    eth.run("sleep 0.5")
    server.start()
    eth.run("sleep 1")
    count = counted(eth, job)
    assert count["lost"] == count["again"] == 0


def test_device_in_use_is_not_destroyed(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep")
    Interface(machine, "vd0")
    server.stop()
    assert "stays, since it is in use" in server.log()
    assert "vd0" in machine.run("ls /dev/vduse").out


def test_second_server_of_a_name_is_refused(machine, serve):
    serve("vdpa_vfn0,vduse=vd0,idle=sleep")
    other = Server(machine, ["vdpa_vfn0,vduse=vd0"], start=False)
    other.launch()
    other.wait()
    assert "vdpa_vfn0: /dev/vduse/vd0: another process serves it" in other.log()


@pytest.mark.parametrize("ring", [SPLIT, PACKED], ids=["split", "packed"])
def test_hot_upgrade(machine, serve, ring):
    device = f"vdpa_vfn0,vduse=vd0,idle=sleep,{ring}"
    server = serve(device)
    eth = Interface(machine, "vd0")
    job = flow(eth)
    for _ in range(5 if NIGHTLY else 1):
        eth.run("sleep 0.5")
        new = serve(device, options=f"--take-over {server.prefix}")
        server.wait()
        server = new
    eth.run("sleep 1")
    count = counted(eth, job)
    assert count["received"] > 100 and count["lost"] == count["again"] == 0


def test_stopped_server_holds_nobody_up_for_longer_than_said(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep,vduse-timeout=2")
    Interface(machine, "vd0")
    assert machine.run("cat /sys/class/vduse/vd0/msg_timeout").out.strip() == "2"
    server.signal("STOP")
    out = machine.run("S=$(date +%s); vdpa dev del vd0; echo $(($(date +%s) - S))").out
    assert 1 <= int(out.split()[-1]) <= 5, out
    server.signal("CONT")
    server.expect("the kernel has given up on us")
    server.stop()


def test_nothing_leaks(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep")

    def cycles(number):
        machine.run(f"""set -e; for i in $(seq {number}); do
            vdpa dev add name vd0 mgmtdev vduse
            for d in $(seq 100); do test -e /sys/bus/vdpa/devices/vd0/virtio*/net/* && break
                sleep 0.02; done
            eth=$(basename /sys/bus/vdpa/devices/vd0/virtio*/net/*)
            ip link set $eth up; vdpa dev del vd0; done""", timeout=60 + 2 * number)
        return server.counts()

    cycles(2)
    before = server.counts()
    assert cycles(CYCLES) == before
    server.stop()
    # and of devices in the kernel
    for _ in range(2):
        server.start()
        server.stop()
        assert machine.run("ls /dev/vduse").out.split() == ["control"]


def test_server_without_privileges(machine, serve):
    device = "vdpa_vfn0,vduse=vd0,idle=sleep"
    machine.run("mkdir -p /run/vfn && chown nobody /run/vfn")
    server = serve(device, options="--user nobody", env="RUNTIME_DIRECTORY=/run/vfn")
    eth = Interface(machine, "vd0")
    assert flow(eth, 1)["lost"] == 0
    status = machine.run(f"cat /proc/{server.pid}/status").out
    assert re.search(r"Uid:\s65534", status) and re.search(r"CapEff:\s0+$", status, re.MULTILINE)
    machine.run("vdpa dev del vd0")
    server.stop()
    assert machine.run("ls /dev/vduse").out.split() == ["control"]


@pytest.mark.skipif(HERE, reason="test_recipes.py runs the page")
def test_page_for_users(machine, serve):
    path = os.path.join(recipes.pmd.ROOT, "doc", "howto", "vduse.md")
    log = "/tmp/page"
    for block in recipes.blocks(path):
        if block.kind == "background":
            machine.run(f"export LD_LIBRARY_PATH=/plugin; ({block.script()}) >{log} 2>&1 </dev/null &")
            machine.run(f"for i in $(seq 200); do grep -q '{block.word('ready')}' {log} && exit; "
                        f"sleep 0.1; done; cat {log}; exit 1")
        elif block.kind == "shell":
            out = machine.run("set -e\n" + block.script()).out
            assert re.search(block.word("expect", ""), out), out
    machine.run("killall vfn-vhost; while pidof vfn-vhost; do sleep 0.1; done")


@pytest.mark.parametrize("arguments, why", [
    ("vduse=vd0,queues=2", "needs queues=1"),
    ("vduse=a/b", 'expected the name of a device of the kernel'),
    ("vduse=control", "no name for a device"),
    ("vduse=vd0,socket=/tmp/x", "socket and vduse exclude each other"),
    ("vduse=vd0,inflight=/none", "inflight=/none"),
    ("vduse=vd0,vduse-timeout=0", "expected 1 to 3600"),
], ids=["queues", "slash", "control", "socket", "inflight", "timeout"])
def test_what_cannot_be_is_refused(machine, serve, arguments, why):
    server = Server(machine, [f"vdpa_vfn0,{arguments}"], start=False)
    server.launch()
    server.wait()
    assert why in server.log()
    assert machine.run("ls /dev/vduse").out.split() == ["control"]
