# SPDX-License-Identifier: BSD-3-Clause
"""Functions of vfn-endpoint as PCI cards of stock guests: QEMU 11 is the vfio-user client.

The guests' own drivers have the functions' registers, with the control queue, MSI-X, INTx, resets and
the slot's power, and firmware has them before. With --device=net_vhost QEMU's own virtio-net stands in
for the functions.
"""

import contextlib
import os
import re
import shutil
from dataclasses import dataclass

import pytest
from guest import ImageError, missing
from guest.qemu11 import ipxe, ovmf, qemu11
from guest.vfio_user import FunctionGuest
from guest.wired import Control, ControlGuest, card, wires
from harness import Endpoint, Scratch, wait_until
from test_qemu import (F_EVENT_IDX, F_INDIRECT_DESC, F_MQ, F_MRG_RXBUF, F_RING_PACKED, F_VERSION_1,
                       MIB, OFFLOADS, Flow, assert_no_errors, assert_traffic, configure, endless_flows, ipv4,
                       ping, random_data)

F_MAC, F_STATUS, F_CTRL_VQ, F_CTRL_RX, F_CTRL_VLAN = 5, 16, 17, 18, 19
F_GUEST_ANNOUNCE, F_CTRL_MAC_ADDR, F_RING_RESET = 21, 23, 40
IO_MEMORY, MASTER = 3, 4    # of PCI's command register
QUEUES = 2
FOREIGN_MAC, FOREIGN_IP = "52:54:00:00:99:99", "10.9.8.99"
PINGS = 20


@pytest.fixture(scope="session", autouse=True)
def programs():
    """What is fetched once."""
    if missing():
        pytest.skip(f"Debian packages not installed: {' '.join(missing())}")
    try:
        qemu11()
    except ImageError as error:
        pytest.skip(f"no QEMU with vfio-user: {error}")


@dataclass
class Wire:
    endpoint: object    # Endpoint or Control
    guest: type         # and of the guests
    guests: list

    def functions(self):
        return [] if isinstance(self.endpoint, Control) else [0, 1]


@contextlib.contextmanager
def wired(kind, memory=384 << 10, **keys):
    """Two functions wired to each other, and guests that have booted on them. The second pair is for
    cards that are plugged in later, and out again: without MSI-X, as QEMU 11.1 aborts when a
    vfio-user device that has it is unplugged."""
    with contextlib.ExitStack() as stack:
        program, guest_kind = kind
        no_msix = {"msix": "off"}
        endpoint = stack.enter_context(program(wires("abcd", {"c": no_msix, "d": no_msix}, **keys)))
        guests = [stack.enter_context(guest_kind(
            [card(endpoint, number)], later=[card(endpoint, 2 + number)], name=f"guest{number}",
            cpus=1 + number, memory=memory, slots=1)) for number in (0, 1)]
        for number, guest in enumerate(guests):
            configure(guest.boot(), number)
        yield Wire(endpoint, guest_kind, guests)


@pytest.fixture(scope="session")
def kind(request):
    return {"vfn": (Endpoint, FunctionGuest),
            "net_vhost": (Control, ControlGuest)}[request.config.getoption("--device")]


@pytest.fixture(scope="class")
def booted(kind):
    with wired(kind, queues=QUEUES) as wire:
        yield wire


@pytest.fixture(scope="class")
def booted_another_way(kind):
    if Control in kind:
        pytest.skip("about functions")
    # so much memory that a part lies above 4 GiB, in a map of its own, which Linux prefers
    with wired(kind, memory=3584 << 10, idle="busy") as wire:
        yield wire


def tell(wire):
    """For pytest, which shows it if the test failed."""
    for guest in wire.guests:
        print(guest.explain("state after the test"))
    print("\n".join(wire.endpoint.log().splitlines()[-25:]))


@pytest.fixture
def wire(booted):
    yield booted
    tell(booted)


@pytest.fixture
def other_wire(booted_another_way):
    yield booted_another_way
    tell(booted_another_way)


@pytest.fixture
def scratch():
    """A directory; workdir is for tests that start all processes themselves."""
    directory = Scratch()
    yield directory.path
    directory.remove()


@pytest.fixture
def function(wire):
    """The function's side, which the control does not have."""
    if isinstance(wire.endpoint, Control):
        pytest.skip("QEMU's own virtio-net has one queue pair, and no telemetry of ours")
    return wire.endpoint


def lspci(guest):
    """What lspci says of the card, complaints too, but for that of its not finding the modules."""
    return guest.run(f"lspci -vv -s {guest.slot()} 2>&1 | grep -v libkmod").out


def ring_sizes(guest):
    """[receive, transmit] of the card, as they are now."""
    return [int(re.findall(rf"^{way}:\s+(\d+)", guest.run("ethtool -g eth0").out, re.MULTILINE)[-1])
            for way in ("RX", "TX")]


def interrupts(guest):
    """{name: (kind, count)} of the interrupts of the card."""
    device = guest.run("basename $(readlink -f /sys/class/net/eth0/device)").out.strip()
    found = {}
    for line in guest.read("/proc/interrupts").splitlines():
        if match := re.match(rf"\s*\d+:((?:\s+\d+)+)\s+(\S+).*\s({device}\S*)$", line):
            found[match[3].removeprefix(device)] = (match[2], sum(map(int, match[1].split())))
    return found


def received(guest, device="eth0"):
    return int(guest.read(f"/sys/class/net/{device}/statistics/rx_packets"))


def reaches(source, target, address, device="eth0"):
    """Whether echo requests reach a device of the target: all or none, but for a few others."""
    before = received(target, device)
    source.run(f"ping -c {PINGS} -i 0.02 -w 1 {address} >/dev/null 2>&1; true")
    count = received(target, device) - before
    assert count >= PINGS or count < PINGS / 4, f"{count} of {PINGS}"
    return count >= PINGS


def rebind(wire, bus):
    for number, guest in enumerate(wire.guests):
        guest.run(f"""
            set -e
            device=$(readlink -f /sys/class/net/eth0/device)
            case {bus} in pci*) device=$(dirname $device);; esac
            cd /sys/bus/{bus}
            echo $(basename $device) >unbind
            test ! -e /sys/class/net/eth0
            echo $(basename $device) >bind
            test -e /sys/class/net/eth0
        """)
        configure(guest, number)
    assert_traffic(wire.guests)


def dropped_by_filters(wire):
    """Frames that a function did not want, at the one that sent them."""
    return sum(wire.endpoint.counter(number, "dropped_filter") for number in wire.functions())


def tcp_packets(wire, mib=2):
    """Packets that carry so much data from the first guest to the second, as the receiver counts."""
    first, second = wire.guests
    random_data(first, mib)
    before = received(second)
    Flow(first, second, ipv4(1), 5003).finish()
    return received(second) - before


LEASE = "10.9.8.100"
DATA = 1000000
SERVE = f"""
    set -e
    mkdir -p /tmp/www
    head -c {DATA} /dev/urandom >/tmp/www/data
    httpd -h /tmp/www
    cat >/tmp/udhcpd.conf <<END
start {LEASE}
end {LEASE}
max_leases 1
lease_file /tmp/leases
pidfile /tmp/udhcpd.pid
option subnet 255.255.255.0
siaddr {ipv4(0)}
boot_file none
END
    rm -f /tmp/leases
    touch /tmp/leases
"""
SCRIPT = f"""#!ipxe
dhcp net0 && show net0/ip && imgfetch --name data http://{ipv4(0)}/data && imgstat || echo vfn: failed
echo vfn: done
sleep 3600
"""


def ipxe_system(directory):
    path = os.path.join(directory, "script")
    with open(path, "w", encoding="ascii") as file:
        file.write(SCRIPT)
    return (["-kernel", str(ipxe()), "-initrd", path],
            [f"= {LEASE}", f"data : {DATA} bytes", "vfn: done"])


def uefi_system(directory):
    code, variables = ovmf()
    copy = os.path.join(directory, "variables")
    shutil.copyfile(variables, copy)
    return (["-drive", f"if=pflash,format=raw,readonly=on,file={code}",
             "-drive", f"if=pflash,format=raw,file={copy}"],
            [f"Station IP address is {LEASE}", f"Server IP address is {ipv4(0)}"])


class TestCard:
    """One boot; the tests run in this order, and each leaves the cards as it found them."""

    def test_traffic_arrives_whole(self, wire):
        first, second = wire.guests
        ping(first, ipv4(1), [*range(0, 66, 5), *range(66, 1473, 141), 1472])
        ping(second, ipv4(0), [1473, 8000, 65507])
        assert_traffic(wire.guests, 16)
        for guest in wire.guests:
            assert_no_errors(guest)

    def test_driver_takes_what_the_function_offers(self, wire, function):
        wanted = {F_VERSION_1, F_RING_PACKED, F_EVENT_IDX, F_INDIRECT_DESC, F_MRG_RXBUF, F_MQ, F_MAC,
                  F_STATUS, F_CTRL_VQ, F_CTRL_RX, F_CTRL_VLAN, F_CTRL_MAC_ADDR, F_GUEST_ANNOUNCE}
        for number, guest in enumerate(wire.guests):
            assert wanted | OFFLOADS <= guest.features()
            info = function.info(number)
            assert guest.read("/sys/class/net/eth0/address") == info["mac"]
            assert int(info["device_status"], 16) == 0xf    # DRIVER_OK, and no complaint
            assert info["refused"] == 0
            assert info["maps"] >= 1

    def test_lspci_finds_a_well_formed_card(self, wire):
        for guest in wire.guests:
            shown = lspci(guest)
            assert "Class 0200: Device 1af4:1041" in shown
            assert re.search(r"Control: .*Mem\+ BusMaster\+", shown)
            assert re.search(r"Status: Cap\+ ", shown)
            assert "Kernel driver in use: virtio-pci" in shown
            for wrong in ("<chain", "<access denied>", "!!!", "unassigned", "ignored",
                          "disabled", "virtual", "TAbort+", "MAbort+", "PERR+"):
                assert wrong not in shown
            assert "lspci" not in shown     # it complains of nothing
            bars = {int(number): int(size) << 10 * " KM".index(unit) for number, size, unit in
                    re.findall(r"Region (\d): Memory at .*\[size=(\d+)([ KM])\]", shown)}
            for name in ("CommonCfg", "Notify", "ISR", "DeviceCfg"):
                bar, offset, size = re.search(
                    rf"VirtIO: {name}\n\s*BAR=(\d) offset=(\w+) size=(\w+)", shown).groups()
                assert 0 < int(size, 16) <= bars[int(bar)] - int(offset, 16), name
            # each queue has a vector of its own, and the configuration one
            count = int(re.search(r"MSI-X: Enable\+ Count=(\d+) Masked-", shown)[1])
            assert count >= 3
            for name in ("Vector table", "PBA"):
                bar, offset = re.search(rf"{name}: BAR=(\d) offset=(\w+)", shown).groups()
                assert int(offset, 16) < bars[int(bar)]

    def test_each_queue_has_its_vector(self, wire):
        first, second = wire.guests
        ping(first, ipv4(1), [56] * 5)
        before = [interrupts(guest) for guest in wire.guests]
        assert all(kind == "PCI-MSI" for names in before for kind, _ in names.values())
        assert {"-config", "-input.0", "-output.0"} <= before[0].keys() & before[1].keys()
        if wire.functions():
            assert {"-input.1", "-output.1"} <= before[1].keys()
        ping(first, ipv4(1), [56] * 20)
        after = [interrupts(guest) for guest in wire.guests]
        for old, new in zip(before, after):
            inputs = sum(new[name][1] - old[name][1] for name in new if "input" in name)
            assert inputs >= 10
            assert new["-config"] == old["-config"]
        assert second.run("dmesg | grep -i 'nobody cared' || true").out == ""

    def test_addresses_that_are_not_the_guests_are_filtered(self, wire):
        first, second = wire.guests
        first.run(f"arp -s {FOREIGN_IP} {FOREIGN_MAC}")
        dropped = dropped_by_filters(wire)
        assert not reaches(first, second, FOREIGN_IP)
        assert dropped_by_filters(wire) - dropped >= PINGS * len(wire.functions()) / 2
        second.run("ip link set eth0 promisc on")
        assert reaches(first, second, FOREIGN_IP)
        second.run("ip link set eth0 promisc off")
        assert not reaches(first, second, FOREIGN_IP)
        # as one more address of the guest's
        second.run(f"ip link add link eth0 name extra0 address {FOREIGN_MAC} type macvlan && "
                   "ip link set extra0 up")
        assert reaches(first, second, FOREIGN_IP)
        second.run("ip link del extra0")
        assert not reaches(first, second, FOREIGN_IP)

    def test_groups_that_the_guest_has_not_joined_are_filtered(self, wire):
        first, second = wire.guests
        first.run("ip route add 239.1.2.3/32 dev eth0")
        assert not reaches(first, second, "239.1.2.3")
        for mode in ("allmulti", "promisc"):
            second.run(f"ifconfig eth0 {mode}")
            assert reaches(first, second, "239.1.2.3")
            second.run(f"ifconfig eth0 -{mode}")
            assert not reaches(first, second, "239.1.2.3")
        first.run("ip route del 239.1.2.3/32 dev eth0")

    def test_mac_address_is_changed(self, wire):
        first, second = wire.guests
        old = second.read("/sys/class/net/eth0/address")
        second.run(f"ip link set eth0 address {FOREIGN_MAC}")
        first.run(f"arp -s {FOREIGN_IP} {FOREIGN_MAC}; arp -s 10.9.8.98 {old}")
        assert reaches(first, second, FOREIGN_IP)
        assert not reaches(first, second, "10.9.8.98")
        second.run(f"ip link set eth0 address {old}")
        assert not reaches(first, second, FOREIGN_IP)
        assert reaches(first, second, "10.9.8.98")

    def test_vlans(self, wire):
        first, second = wire.guests
        for number, guest in enumerate(wire.guests):
            guest.run(f"""
                set -e
                ip link add link eth0 name eth0.5 type vlan id 5
                ip addr add 10.9.5.{number + 1}/24 dev eth0.5
                ip link set eth0.5 up
            """)
        ping(first, "10.9.5.2", [0, 1472, 8000])
        target = second.read("/sys/class/net/eth0/address")
        first.run(f"""
            set -e
            ip link add link eth0 name eth0.6 type vlan id 6
            ip addr add 10.9.6.1/24 dev eth0.6
            ip link set eth0.6 up
            arp -i eth0.6 -s 10.9.6.2 {target}
        """)
        assert not reaches(first, second, "10.9.6.2")
        second.run("ip link add link eth0 name eth0.6 type vlan id 6; ip link set eth0.6 up")
        assert reaches(first, second, "10.9.6.2")
        assert reaches(first, second, "10.9.6.2", "eth0.6")
        second.run("ip link del eth0.6")
        assert not reaches(first, second, "10.9.6.2")
        for guest in wire.guests:
            guest.run("ip link del eth0.5")
        first.run("ip link del eth0.6")

    def test_queue_pairs_in_use(self, wire, function):
        first, second = wire.guests

        def spread():
            """Queues on which the flows of the first guest arrive."""
            before = second.queue_packets("rx")
            random_data(first, 1 / 4)
            flows = [Flow(first, second, ipv4(1), 5100 + number) for number in range(6)]
            for flow in flows:
                flow.finish()
            return {queue for queue, packets in second.queue_packets("rx").items()
                    if packets > before.get(queue, 0)}

        assert "Combined:\t2" in second.run("ethtool -l eth0").out
        second.run("ethtool -L eth0 combined 1")
        assert spread() == {0}
        second.run("ethtool -L eth0 combined 2")
        ping(first, ipv4(1), [56] * 5)
        assert second.run("ethtool -L eth0 combined 3", check=False).rc != 0
        assert_traffic(wire.guests)

    def test_offloads_are_switched(self, wire, function):    # pylint: disable=unused-argument
        _, second = wire.guests
        segments = 2 * MIB // 1448
        assert tcp_packets(wire) < segments / 2
        second.run("ethtool -K eth0 rx-gro-hw off")
        assert tcp_packets(wire) >= segments
        second.run("ethtool -K eth0 rx-gro-hw on")
        assert tcp_packets(wire) < segments / 2

    def test_ring_sizes_are_changed_under_traffic(self, wire):
        """A queue is reset, and another ring enabled, while the others go on."""
        _, second = wire.guests
        most = ring_sizes(second)
        assert most == [1024 if wire.functions() else 256] * 2
        assert F_RING_RESET in second.features()
        with endless_flows(wire.guests):
            for rx, tx in ((most[0] // 2, most[1]), (most[0] // 4, most[1] // 8), most):
                second.run(f"ethtool -G eth0 rx {rx} tx {tx}")
                assert ring_sizes(second) == [rx, tx]
                ping(second, ipv4(0), [56, 8000])
        assert_traffic(wire.guests)
        for guest in wire.guests:
            assert_no_errors(guest)

    def test_bus_master_is_switched_off_under_traffic(self, wire, function):
        # pylint: disable=unused-argument
        """Nothing arrives then, and nothing is told, as much as others send. QEMU's own device
        stops for good."""
        first, second = wire.guests

        def switch(command):
            second.run(f"printf '\\{command:03o}' | dd bs=1 seek=4 conv=notrunc "
                       f"of=/sys/bus/pci/devices/{second.slot()}/config")

        with endless_flows(wire.guests):
            switch(IO_MEMORY)
            before = interrupts(second)
            assert not reaches(first, second, ipv4(1))
            assert interrupts(second) == before
            switch(IO_MEMORY | MASTER)
            ping(second, ipv4(0), [56, 8000])
        assert_traffic(wire.guests)
        for guest in wire.guests:
            assert_no_errors(guest)

    @pytest.mark.parametrize("bus", ["virtio/drivers/virtio_net", "pci/drivers/virtio-pci"])
    def test_driver_is_unbound_and_bound(self, wire, bus):
        rebind(wire, bus)

    def test_card_is_removed_and_found_again(self, wire):
        for number, guest in enumerate(wire.guests):
            guest.run("""
                set -e
                echo 1 >$(readlink -f /sys/class/net/eth0/device/..)/remove
                test ! -e /sys/class/net/eth0
                echo 1 >/sys/bus/pci/rescan
                test -e /sys/class/net/eth0
            """)
            configure(guest, number)
        assert_traffic(wire.guests)

    def test_memory_is_plugged_in_under_traffic(self, wire):
        maps = [wire.endpoint.info(number)["maps"] for number in wire.functions()]
        with endless_flows(wire.guests):
            for guest in wire.guests:
                guest.plug_memory(128)
                ping(wire.guests[0], ipv4(1), [56] * 3)
        assert maps == [wire.endpoint.info(number)["maps"] - 1 for number in wire.functions()]
        assert_traffic(wire.guests)

    def test_card_is_plugged_and_unplugged_under_traffic(self, wire):
        for turn in range(2):
            for number, guest in enumerate(wire.guests):
                guest.plug(1)
                guest.run(f"""
                    until test -e /sys/class/net/eth1; do usleep 20000; done
                    ip link set eth1 up && ip addr add 10.9.7.{number + 1}/24 dev eth1
                """)
            ping(wire.guests[0], "10.9.7.2", [0, 56, 1472, 8000])
            random_data(wire.guests[0], 1 / 4)
            flow = Flow(*wire.guests, "10.9.7.2", 5200 + turn, endless=turn == 0)
            if turn == 1:
                flow.finish()
            else:
                assert flow.running()
            for number, guest in enumerate(wire.guests):
                if wire.functions():
                    assert wire.endpoint.info(2 + number)["client"] != 0
                guest.unplug(1)
                guest.run("test ! -e /sys/class/net/eth1")
            for guest in wire.guests:
                guest.run("touch /tmp/stop.5200; killall nc.openbsd; true")
        for number in wire.functions():
            assert wire.endpoint.info(2 + number)["client"] == wire.endpoint.info(2 + number)["maps"] == 0
        assert_traffic(wire.guests)

    def test_guests_start_again_under_traffic(self, wire):
        first, second = wire.guests
        kept = second.boot_id
        with endless_flows(wire.guests):
            first.reset()
            configure(first.boot(), 0)
        assert second.read("/proc/sys/kernel/random/boot_id") == kept
        with endless_flows(wire.guests):
            second.run("(sleep 1; reboot -f) >/dev/null 2>&1 &")
            configure(second.boot(), 1)
        assert_traffic(wire.guests)

    def test_hypervisor_is_killed(self, wire):
        first, second = wire.guests
        kept = second.boot_id
        with endless_flows(wire.guests):
            first.kill()
            first.start()
            configure(first.boot(), 0)
        assert_traffic(wire.guests)
        assert second.read("/proc/sys/kernel/random/boot_id") == kept
        assert_no_errors(second)

    @pytest.mark.parametrize("firmware", ["ipxe", "uefi"])
    def test_firmware_boots_from_the_network(self, wire, scratch, firmware):
        """It gets a lease from the first guest and, iPXE, a file. It never resets the card."""
        server, second = wire.guests
        system, expected = {"ipxe": ipxe_system, "uefi": uefi_system}[firmware](scratch)
        second.stop()
        server.run(SERVE)
        dhcp = server.spawn("udhcpd -f /tmp/udhcpd.conf")
        with wire.guest([card(wire.endpoint, 1)], name="firmware", system=system) as guest:
            wait_until(lambda: expected[-1] in guest.console() or "failed" in guest.console(), 90)
            for text in expected:
                assert text in guest.console()
        server.run("kill $(cat /tmp/udhcpd.pid); killall httpd")
        assert f"sending ACK to {LEASE}" in dhcp.wait(check=False).out
        second.start()
        configure(second.boot(), 1)
        assert_traffic(wire.guests)


class TestOtherWays:
    """Pollers that do not sleep, memory above 4 GiB, and interrupts by the pin and the ISR register."""

    def test_kicks_are_stores_into_memory(self, other_wire):
        first, _ = other_wire.guests
        ping(first, ipv4(1), [56])
        before = [other_wire.endpoint.info(number)["accesses"] for number in (0, 1)]
        ping(first, ipv4(1), [56] * 50)
        for number in (0, 1):
            assert other_wire.endpoint.info(number)["accesses"] - before[number] < 20

    def test_interrupts_come_by_the_line(self, other_wire):
        """As with pci=nomsi, for this card."""
        first, _ = other_wire.guests
        for number, guest in enumerate(other_wire.guests):
            guest.run(f"""
                set -e
                cd /sys/bus/pci/drivers/virtio-pci
                echo {guest.slot()} >unbind
                echo 0 >/sys/bus/pci/devices/{guest.slot()}/msi_bus
                echo {guest.slot()} >bind
            """)
            configure(guest, number)
            assert re.search(r"MSI-X: Enable- ", lspci(guest))
            assert re.search(r"Interrupt: pin A routed to IRQ \d+", lspci(guest))
            assert {kind for kind, _ in interrupts(guest).values()} == {"IO-APIC"}
        before = [interrupts(guest)[""][1] for guest in other_wire.guests]
        ping(first, ipv4(1), [56] * 20)
        for guest, count in zip(other_wire.guests, before):
            assert interrupts(guest)[""][1] - count >= 20
        assert_traffic(other_wire.guests)
        for guest in other_wire.guests:
            assert guest.run("dmesg | grep -i 'nobody cared' || true").out == ""
            assert_no_errors(guest)

    def test_guest_is_reset_under_traffic(self, other_wire):
        first, _ = other_wire.guests
        with endless_flows(other_wire.guests):
            first.reset()
            configure(first.boot(), 0)
        assert_traffic(other_wire.guests)
