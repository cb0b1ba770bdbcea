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
from guest import GuestError, missing
from harness import NIGHTLY, Scratch
from kernel import Here, Server

from guest.vduse import VduseGuest

HERE = os.path.exists("/dev/vduse/control")
guest = pytest.mark.skipif(not HERE and bool(missing()),
                           reason=f"Debian packages not installed: {' '.join(missing())}")
night = pytest.mark.skipif(not NIGHTLY, reason="for the night")

F_MAC, F_MRG_RXBUF, F_CTRL_VQ = 5, 15, 17
F_VERSION_1, F_ACCESS_PLATFORM, F_RING_PACKED = 32, 33, 34
OFFLOADS = {0, 1, 7, 8, 11, 12}

SPLIT = "vduse-packed=off"
PACKED = "vduse-packed=on"
NAMES = ("vd0", "vd1")          # of all devices, in the kernel, here
ADDRESSES = ("10.9.9.1", "10.9.9.2")
CYCLES = 1000 if NIGHTLY else 10
KILLS = 50 if NIGHTLY else 2
MEGABYTES = 4 if NIGHTLY else 1
SECONDS = 1 if NIGHTLY else 0.5  # of traffic
FLOWS = r"sent (\d+) received (\d+) lost (\d+) again (\d+) corrupt (\d+)"


@pytest.fixture(scope="module")
def machine():
    if HERE:
        scratch = Scratch()
        yield Here(scratch.path)
        scratch.remove()
        return
    with VduseGuest() as kernel:
        kernel.boot()
        kernel.run("mkdir -p /run /var; mount -t tmpfs run /run; ln -sfn /run /var/run")
        yield kernel


def devices(machine):
    """Which of ours the kernel has."""
    found = machine.run("ls /dev/vduse").out.split()
    return [name for name in NAMES if name in found]


@pytest.fixture
def serve(machine):
    """serve(devices...) is a running server; what a test leaves in the kernel goes."""
    names = " ".join(NAMES)
    with contextlib.ExitStack() as ends:
        def start(*arguments, **more):
            server = Server(machine, arguments, start=False, **more)
            ends.callback(server.end)
            server.start()
            return server
        yield start
        machine.run(f"""
            for name in {names}; do
                test -e {machine.directory}/$name.pid && kill -KILL $(cat {machine.directory}/$name.pid)
                test -e /sys/bus/vdpa/devices/$name && timeout 30 vdpa dev del $name
                test -e /run/netns/$name && ip netns delete $name
            done; rm -f {machine.directory}/*.pid""", check=False)
    if left := devices(machine):    # of servers that were killed, or were to keep it
        Server(machine, [f"vdpa_vfn{number},vduse={name}" for number, name in enumerate(left)]).stop()
        assert devices(machine) == []


# sets $eth to the kernel's interface on the device $name
FOUND = """
for i in $(seq 300); do
    set -- /sys/bus/vdpa/devices/$name/virtio*/net/*
    test -e $1 && break
    sleep 0.1
done
test -e $1
eth=${1##*/}
"""


class Interface:
    """The kernel's interface on a device, maybe in a namespace of the device's name."""

    def __init__(self, machine, name, eth, prefix=""):
        self.machine, self.name, self.eth, self.prefix = machine, name, eth, prefix

    def run(self, command, **more):
        return self.machine.run(f"{self.prefix}bash -c '{command}'" if self.prefix else command,
                                **more).out

    def spawn(self, command):
        return self.machine.spawn(f"exec {self.prefix}bash -c '{command}'")

    def features(self):
        bits = self.machine.run(f"cat /sys/bus/vdpa/devices/{self.name}/virtio*/features").out
        return {number for number, bit in enumerate(bits) if bit == "1"}

    def count(self, *names):
        return [int(number) for number in self.run(
            f"cd /sys/class/net/{self.eth}/statistics; cat {' '.join(names)}").split()]

    def rebind(self):
        at = "/sys/bus/vdpa/drivers/virtio_vdpa"
        self.eth = self.machine.run(f"""set -e; name={self.name}
            echo $name >{at}/unbind; echo $name >{at}/bind; {FOUND}
            echo $eth""").out.strip()


def interfaces(machine, names, addresses=None):
    """`vdpa dev add` of these devices; with addresses each is moved to a namespace of its own."""
    script = "set -e\n"
    for number, name in enumerate(names):
        script += f"name={name}; vdpa dev add name $name mgmtdev vduse; {FOUND}\necho $eth\n"
        if addresses:
            script += f"""
                ip netns add $name; ip link set $eth netns $name; ip -n $name link set lo up
                ip -n $name link set $eth up; ip -n $name addr add {addresses[number]}/24 dev $eth
            """
    eths = machine.run(script).out.split()
    return [Interface(machine, name, eth, f"ip netns exec {name} " if addresses else "")
            for name, eth in zip(names, eths, strict=True)]


class Traffic:
    """Numbered frames to loopbacks and back."""

    def __init__(self, eths, flows=2, window=16):
        self._machine = eths[0].machine
        self._at = [f"{self._machine.directory}/{eth.name}" for eth in eths]
        # by default what waits too long in front of the driver, while nobody serves it, is dropped there
        self._machine.run("set -e\n" + "\n".join(
            f"ip link set {eth.eth} up; tc qdisc replace dev {eth.eth} root pfifo\n"
            f"flow {eth.eth} {flows} {window} </dev/null >{at}.flow 2>&1 &\n"
            f"echo $! >{at}.pid" for eth, at in zip(eths, self._at)))

    def _signal(self, number, after=0):
        return f"sleep {after}\n" + "\n".join(
            f"kill -{number} $(cat {at}.pid); rm {at}.pid" for at in self._at) + "\n"

    def kill(self):
        """For those whose interface is gone."""
        self._machine.run(self._signal("KILL"))

    def end(self, after=0):
        """What each has counted, after so many seconds. What is under way is waited for."""
        out = self._machine.run(self._signal("TERM", after) + "\n".join(
            f"until test -s {at}.flow; do sleep 0.1; done; cat {at}.flow" for at in self._at)).out
        print(out)
        names = ("sent", "received", "lost", "again", "corrupt")
        counts = [dict(zip(names, map(int, numbers))) for numbers in re.findall(FLOWS, out)]
        assert len(counts) == len(self._at), out
        return counts


def frames(eths, seconds=SECONDS):
    """Each gives back what it is sent for a while; what they counted."""
    return Traffic(eths).end(seconds)


def whole(count, again=0):
    return count["received"] > 50 and count["lost"] == count["corrupt"] == 0 and \
        count["again"] <= again


class Pair:
    """A server of two devices that give back what they get, one with split, one with packed rings."""

    def __init__(self, machine, serve, more="", **options):
        self.devices = [f"vdpa_vfn{number},vduse={name},idle=sleep,{ring}{more}"
                        for number, (name, ring) in enumerate(zip(NAMES, (SPLIT, PACKED)))]
        self.server = serve(*self.devices, **options)
        self.eth = interfaces(machine, NAMES)

    def info(self):
        return self.server.tell(*(f"/vfn/vduse,vdpa_vfn{number}" for number in range(2)))


@guest
def test_driver_has_the_function(machine, serve):
    pair = Pair(machine, serve, ",mac=02:00:00:00:00:77,mtu=1600")
    for eth, packed in zip(pair.eth, (False, True)):
        features = eth.features()
        assert {F_VERSION_1, F_ACCESS_PLATFORM, F_MAC, F_MRG_RXBUF} | OFFLOADS <= features
        assert F_CTRL_VQ not in features
        assert (F_RING_PACKED in features) == packed
        link = eth.run(f"ip link show {eth.eth}")
        assert "02:00:00:00:00:77" in link and "mtu 1600" in link
    assert {info["phase"] for info in pair.info()} == {"waits for the first kick"}
    counts = frames(pair.eth)
    for count, info, eth in zip(counts, pair.info(), pair.eth):
        assert whole(count), count
        assert info["phase"] == "running" and info["refused"] == info["interrupts_refused"] == 0
        # interrupts are suppressed, and once per burst: fewer than frames
        assert 0 < info["interrupts"] < 2 * count["received"]
        assert eth.count("tx_packets", "rx_packets", "tx_dropped") == [count["sent"], count["sent"], 0]
    machine.run("vdpa dev del vd0; vdpa dev del vd1")
    assert {info["phase"] for info in pair.info()} == {"no driver"}
    assert pair.server.tell("/vfn/info,vdpa_vfn0")["state"] == "idle"
    pair.server.stop()
    assert devices(machine) == []


@contextlib.contextmanager
def wired(machine, serve, first, second):
    server = serve(f"vdpa_vfn0,vduse=vd0,port=wire,peer=vdpa_vfn1,idle=sleep,mtu=9000,{first}",
                   f"vdpa_vfn1,vduse=vd1,port=wire,idle=sleep,mtu=9000,{second}")
    yield (server, *interfaces(machine, NAMES, ADDRESSES))


def transfer(source, target, megabytes=MEGABYTES, meanwhile=lambda: None):
    """TCP from one to the other: what arrives is what was sent. How many frames it took."""
    machine = target.machine
    at = machine.directory
    statistic = f"{target.prefix}cat /sys/class/net/{target.eth}/statistics/rx_packets"
    job = machine.spawn(f"""
        head -c {megabytes << 20} /dev/urandom >{at}/data
        {statistic}
        {target.prefix}nc.openbsd -d -l 7777 >{at}/received &
        until {target.prefix}grep -q :1E61 /proc/net/tcp; do sleep 0.05; done
        {source.prefix}nc.openbsd -N {ADDRESSES[NAMES.index(target.name)]} 7777 <{at}/data
        wait
        cmp {at}/data {at}/received || exit
        {statistic}""")
    meanwhile()
    before, after = map(int, job.wait(timeout=200).out.split())
    return after - before


@guest
@pytest.mark.parametrize("rings", [
    (SPLIT, PACKED), pytest.param((PACKED, PACKED), marks=night),
    pytest.param((SPLIT, SPLIT), marks=night)], ids=["split-packed", "packed", "split"])
def test_two_namespaces_on_a_wire(machine, serve, rings):
    with wired(machine, serve, *rings) as (server, one, two):
        assert one.run(f"cat /sys/class/net/{one.eth}/mtu").strip() == "9000"
        capture = two.spawn(f"exec tcpdump -Z root -c 3 -ni {two.eth} icmp")
        one.run("sleep 1; ping -c 3 -i 0.2 -W 10 10.9.9.2; ping -c 2 -i 0.2 -s 8000 -W 10 10.9.9.2")
        assert capture.wait(timeout=30).out.count("echo request") >= 2
        transfer(two, one)
        # offloads reach from driver to driver: segments go as one frame, and as many without
        large = transfer(one, two)
        one.run(f"ethtool -K {one.eth} tso off gso off tx off")
        small = transfer(one, two)
        assert small > 1.5 * large, (large, small)
        for told in server.tell(*(f"/vfn/queue,vdpa_vfn0,{queue}" for queue in (0, 1))):
            assert not {name for name, value in told.items()
                        if name.startswith("errors_") and value}


@guest
@night
def test_server_is_killed_under_a_connection(machine, serve):
    with wired(machine, serve, SPLIT, PACKED) as (server, one, two):
        def kills():
            for _ in range(5):
                server.kill(after=0.7)
                server.start()
        transfer(one, two, 64, kills)


@guest
def test_operator_pulls_the_cable(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep,mtu=1500")
    [eth] = interfaces(machine, ["vd0"])
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


@guest
def test_driver_comes_and_goes(machine, serve):
    pair = Pair(machine, serve)
    # in the middle of traffic
    traffic = Traffic(pair.eth)
    machine.run("sleep 0.5")
    for eth in pair.eth:
        eth.rebind()
    traffic.kill()
    assert all(map(whole, frames(pair.eth)))
    assert [info["refused"] for info in pair.info()] == [0, 0]


@guest
def test_server_is_killed_under_traffic(machine, serve):
    pair = Pair(machine, serve)
    traffic = Traffic(pair.eth)
    for number in range(KILLS):
        pair.server.kill(after=f"0.{3 + number % 7}")
        pair.server.start("running, features", count=2)
    # nothing lost; a burst that was delivered just before may come again
    for count in traffic.end(SECONDS):
        assert whole(count, again=32 * KILLS), count


@guest
def test_packed_ring_of_which_nothing_tells_stays_off(machine, serve):
    server = serve(f"vdpa_vfn0,vduse=vd0,idle=sleep,{PACKED}")
    [eth] = interfaces(machine, ["vd0"])
    frames([eth])
    server.kill()
    machine.run(f"rm /var/run/dpdk/{server.prefix}/vdpa_vfn0.inflight")
    server.start("nobody knows where it stands")
    eth.rebind()
    assert all(map(whole, frames([eth])))


@guest
def test_server_comes_back_after_an_orderly_end(machine, serve):
    pair = Pair(machine, serve, options="--keep")
    traffic = Traffic(pair.eth)
    for _ in range(20 if NIGHTLY else 1):
        pair.server.stop(after=0.5)
        # they go on sending
        assert devices(machine) == list(NAMES)
        pair.server.start("running, features", count=2)
    for count, eth in zip(traffic.end(SECONDS), pair.eth):
        assert whole(count), count
        # whatever the drivers put on their rings
        assert eth.count("tx_packets", "rx_packets", "tx_dropped") == [count["sent"], count["sent"], 0]


@guest
def test_device_in_use_is_not_destroyed(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep,vduse-timeout=1")
    interfaces(machine, ["vd0"])
    server.stop()
    assert "stays, since it is in use" in server.log()
    assert devices(machine) == ["vd0"]


@guest
def test_second_server_of_a_name_is_refused(machine, serve):
    serve("vdpa_vfn0,vduse=vd0,idle=sleep")
    other = Server(machine, ["vdpa_vfn0,vduse=vd0"], start=False)
    assert "vdpa_vfn0: /dev/vduse/vd0: another process serves it" in other.refused()


@guest
def test_hot_upgrade(machine, serve):
    pair = Pair(machine, serve)
    server = pair.server
    traffic = Traffic(pair.eth)
    for _ in range(5 if NIGHTLY else 1):
        machine.run("sleep 0.5")
        new = serve(*pair.devices, options=f"--take-over {server.prefix}")
        server.wait()
        server = new
    for count in traffic.end(SECONDS):
        assert whole(count), count


@guest
def test_stopped_server_holds_nobody_up_for_longer_than_said(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep,vduse-timeout=2")
    interfaces(machine, ["vd0"])
    assert machine.run("cat /sys/class/vduse/vd0/msg_timeout").out.strip() == "2"
    server.signal("STOP")
    out = machine.run("S=$(date +%s); vdpa dev del vd0; echo $(($(date +%s) - S))").out
    assert 1 <= int(out.split()[-1]) <= 5, out
    server.signal("CONT")
    server.expect("the kernel has given up on us")
    server.stop()


@guest
def test_nothing_leaks(machine, serve):
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep")

    def cycles(number):
        machine.run(f"""set -e; name=vd0; for cycle in $(seq {number}); do
            vdpa dev add name $name mgmtdev vduse
            {FOUND}
            ip link set $eth up; vdpa dev del $name; done""", timeout=60 + 5 * number)
        return server.counts()

    before = cycles(2)
    assert cycles(CYCLES) == before
    server.stop()
    # and of devices in the kernel
    server.start()
    server.stop()
    assert devices(machine) == []


@guest
def test_server_without_privileges(machine, serve):
    run = machine.run("mktemp -d /run/vfn.XXXXXX").out.strip()
    machine.run(f"chown nobody {run}")
    server = serve("vdpa_vfn0,vduse=vd0,idle=sleep", options="--user nobody",
                   env=f"RUNTIME_DIRECTORY={run}")
    assert all(map(whole, frames(interfaces(machine, ["vd0"]))))
    status = machine.run(f"cat /proc/{server.pid}/status").out
    assert re.search(r"Uid:\s65534", status) and re.search(r"CapEff:\s0+$", status, re.MULTILINE)
    machine.run("vdpa dev del vd0")
    server.stop()
    machine.run(f"rm -rf {run}")
    assert devices(machine) == []


# what a stranger does (guest/vdparoot.c), and what the server says of it
STRANGER = {
    "run": None,
    "vanish": None,
    "shrink": None,
    "overlap": None,
    "ring-vanishes": "queue 1 stands still: ring area is not mapped",
    "cut-off": "a file of the guest's memory was cut off while in use",
    "dies": None,
    "outside": "queue 1 stays off: an area of it is not in the memory",
    "behind": "queue 1 stays off: an area of it is not in the memory",
}


@guest
def test_stranger_has_a_device(machine, serve):
    pair = Pair(machine, serve)
    at = "/sys/bus/vdpa"
    machine.run(f"echo vd1 >{at}/drivers/virtio_vdpa/unbind; "
                f"echo vhost_vdpa >{at}/devices/vd1/driver_override; "
                f"echo vd1 >{at}/drivers/vhost_vdpa/bind")
    traffic = Traffic(pair.eth[:1])
    for what, line in STRANGER.items():
        # whatever it was, the next one has a device
        done = machine.run(f"""
            before=$({pair.server.lines(line)})
            vdparoot /dev/vhost-vdpa-* {what}
            test $? = {137 if what == "dies" else 0} || exit
            test {line is None:d} = 1 || test $({pair.server.lines(line)}) -gt $before || exit
            vdparoot /dev/vhost-vdpa-* run""", check=False)
        assert done.rc == 0, f"{what}: {done.out}\n{pair.server.log()}"
    [count] = traffic.end()
    assert whole(count), count


@guest
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


REFUSED = {
    "vduse=vd0,queues=2": "needs queues=1",
    "class=blk,mem=4M,vduse=vd0": "needs queues=2 of class=blk",
    "vduse=a/b": "expected the name of a device of the kernel",
    "vduse=control": "no name for a device",
    "vduse=vd0,socket=/tmp/x": "socket and vduse exclude each other",
    "vduse=vd0,inflight=/none": "inflight=/none",
    "vduse=vd0,vduse-timeout=0": "expected 1 to 3600",
}


@guest
def test_what_cannot_be_is_refused(machine, serve):
    for arguments, why in REFUSED.items():
        assert why in Server(machine, [f"vdpa_vfn0,{arguments}"], start=False).refused()
    assert devices(machine) == []


@pytest.mark.skipif(HERE, reason="its kernel has VDUSE, and all of the above runs on it")
def test_machine_without_it_says_so():
    """The calls with which the above would run here."""
    scratch = Scratch()
    try:
        here = Here(scratch.path)
        job = here.spawn("echo later; exit 3")
        server = Server(here, ["vdpa_vfn0,vduse=vd0"], start=False)
        assert "vdpa_vfn0: /dev/vduse/vd0: this kernel has no VDUSE" in server.refused()
        done = job.wait(check=False)
        assert (done.rc, done.out) == (3, "later\n")
        with pytest.raises(GuestError, match="exit status 4: exit 4"):
            here.run("exit 4")
        assert here.run("telemetry", check=False).rc == 2 and here.run("flow", check=False).rc == 2
    finally:
        scratch.remove()
