# SPDX-License-Identifier: BSD-3-Clause
"""Stock testpmd with a virtio-user port on a looped-back function.

What is sent comes from captures with random content and is recorded on its way back, so every
byte is compared, and the order within each queue pair.
"""

import re

import pytest

from harness import (IN_ORDER, MQ, MRG_RXBUF, PROTOCOL_FEATURES, RING_PACKED, VERSION_1, Echo,
                     NetVhost, difference, not_in_order, random_packets, wait_until)

RINGS = ["split", "packed"]
BUFFERS = ["mergeable", "plain", "vectorized"]
OPTIONS = {
    "mergeable": "",
    "plain": ",mrg_rxbuf=0",
    "vectorized": ",mrg_rxbuf=0,vectorized=1",
}


def has_avx512():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        return " avx512f " in info.read()


def bits(word, *wanted):
    return {bit: bool(word >> bit & 1) for bit in wanted}


def front_end(workdir, backend, ring, buffers="mergeable", **more):
    """An Echo on the first socket of a device, which it creates if the device is the client."""
    options, eal = OPTIONS[buffers], []
    if buffers == "vectorized":
        if ring == "packed":
            eal = ["--force-max-simd-bitwidth=512"]
        else:
            options += ",in_order=0"
    return Echo(workdir, backend.sockets[0], packed=ring == "packed", server=backend.client,
                options=options, eal=eal, **more)


def check_device_side(backend, features, pairs):
    """The device was given the features that virtio-user believes to have."""
    connected = re.findall(
        r"(?:connected, features|negotiated Virtio features:) (0x[0-9a-f]+)(?:, (\d+) rings)?",
        backend.log())
    assert connected, "the device says nothing of a connection"
    word, rings = connected[-1]
    assert int(word, 16) & ~(1 << PROTOCOL_FEATURES) == features
    assert not rings or int(rings) >= 2 * pairs


def lost(counters):
    """How many packets of a queue were dropped or refused, for whatever reason."""
    return sum(value for name, value in counters.items() if name.startswith(("dropped", "error")))


def check_counters(backend, packets, octets):
    """The function's own counters say the same as the captures."""
    if not hasattr(backend, "stats"):
        return
    stats = backend.stats()
    for pair, (count, size) in enumerate(zip(packets, octets)):
        for queue in (2 * pair, 2 * pair + 1):
            assert stats[queue]["packets"] == count, f"queue {queue}: {stats[queue]}"
            assert stats[queue]["bytes"] == size, f"queue {queue}: {stats[queue]}"
            assert not lost(stats[queue]), f"queue {queue}: {stats[queue]}"


@pytest.mark.parametrize("mode", ["server", "client"])
@pytest.mark.parametrize("pairs", [1, 4])
@pytest.mark.parametrize("buffers", BUFFERS)
@pytest.mark.parametrize("ring", RINGS)
def test_every_byte_comes_back(device, workdir, ring, buffers, pairs, mode):
    if ring == "packed" and buffers == "vectorized" and not has_avx512():
        pytest.skip("virtio-user's vectorized packed path needs AVX-512")
    backend = device([f"vdpa_vfn0,queues={pairs}"], client=mode == "client")
    with front_end(workdir, backend, ring, buffers, pairs=pairs) as pmd:
        features = pmd.features()
        assert bits(features, VERSION_1, RING_PACKED, MRG_RXBUF, MQ) == {
            VERSION_1: True, RING_PACKED: ring == "packed", MRG_RXBUF: buffers == "mergeable",
            MQ: pairs > 1}, f"negotiated {features:#x}"
        check_device_side(backend, features, pairs)
        rx_path, tx_path = pmd.paths()
        if buffers == "vectorized":
            assert "vectorized" in rx_path, f"virtio-user uses its {rx_path} path"
        else:
            assert "vectorized" not in rx_path + tx_path
        packets, octets = pmd.rounds(f"{ring} {buffers} {pairs}")
        check_counters(backend, packets, octets)


@pytest.mark.parametrize("ring", RINGS)
def test_not_in_order(device, workdir, ring):
    """IN_ORDER, which is negotiated by default where it is offered, refused by the driver."""
    backend = device()
    with Echo(workdir, backend.sockets[0], packed=ring == "packed", options=",in_order=0") as pmd:
        assert bits(pmd.features(), IN_ORDER, RING_PACKED) == {
            IN_ORDER: False, RING_PACKED: ring == "packed"}
        pmd.rounds(ring)


@pytest.mark.parametrize("ring", RINGS)
def test_jumbo_over_many_buffers(device, workdir, ring):
    """Frames of up to 9000 bytes, chained on the way out and spread over buffers on the way in."""
    backend = device(["vdpa_vfn0,queues=1,mtu=9000"])
    with front_end(workdir, backend, ring) as pmd:
        assert bits(pmd.features(), MRG_RXBUF) == {MRG_RXBUF: True}
        packets, octets = pmd.rounds(ring, count=150, high=9014)
        check_counters(backend, packets, octets)


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("ring_size", [64, 256, 4096])
def test_ring_sizes(device, workdir, ring, ring_size):
    backend = device()
    with front_end(workdir, backend, ring, ring_size=ring_size) as pmd:
        pmd.rounds(f"{ring} {ring_size}", count=min(ring_size // 2, 1000), rounds=5)


def test_without_hugepages(device, workdir):
    backend = device()
    with front_end(workdir, backend, "split", memory="no-huge") as pmd:
        pmd.rounds("no-huge")


@pytest.mark.parametrize("idle", ["busy", "sleep"])
def test_idle_modes(device, workdir, idle):
    """A round after a quiet time: a poller that sleeps must not lose the kick."""
    backend = device([f"vdpa_vfn0,queues=1,idle={idle}"])
    with front_end(workdir, backend, "split") as pmd:
        for number in range(20):
            wait_until(lambda: False, timeout=0.05)
            pmd.round([random_packets(number, 1 + number % 3)])


@pytest.mark.parametrize("ring", RINGS)
def test_overrun_loses_but_never_invents(device, workdir, ring):
    """Far more than the rings hold, unpaced: what comes back was sent, in order, once, and what
    is missing has been counted by someone."""
    backend = device()
    sent = random_packets(f"overrun {ring}", 20000)
    with front_end(workdir, backend, ring) as pmd:
        pmd.play([sent])
        sizes = [-1]

        def quiet():
            sizes.append(pmd.recorded())
            return sizes[-1] == sizes[-2] and sizes[-1] > 1000
        wait_until(quiet, timeout=30, interval=0.5)
        (got,), counters = pmd.finish()
        wrong = not_in_order(sent, got)
        assert wrong is None, wrong
        dropped = counters[1].get("TX-dropped", 0) + counters[0].get("TX-dropped", 0)
        if hasattr(backend, "stats"):
            dropped += sum(map(lost, backend.stats().values()))
            assert len(sent) == len(got) + dropped, f"{len(got)} came back, {dropped} dropped"
        # the rings are in order again
        pmd.rounds("after the overrun")


@pytest.mark.parametrize("end", ["quit", "killed"])
@pytest.mark.parametrize("ring", RINGS)
def test_front_end_restarted(device, workdir, ring, end):
    backend = device()
    for number in range(4):
        with front_end(workdir, backend, ring) as pmd:
            pmd.rounds(f"{ring} {number}", rounds=1)
            if end == "killed":
                pmd.play([random_packets(number, 400)])
                pmd.kill()


@pytest.mark.parametrize("first,second", [("split", "packed"), ("packed", "split")])
def test_next_front_end_differs(device, workdir, first, second):
    """Nothing of one connection shows in the next: layout, buffers, number of queues."""
    backend = device(["vdpa_vfn0,queues=4"])
    for ring, buffers, pairs in [(first, "mergeable", 4), (second, "plain", 1),
                                 (first, "plain", 2)]:
        with front_end(workdir, backend, ring, buffers, pairs=pairs) as pmd:
            assert bits(pmd.features(), RING_PACKED) == {RING_PACKED: ring == "packed"}
            pmd.rounds(f"{ring} {pairs}", rounds=1)


@pytest.mark.parametrize("ring", RINGS)
def test_port_restarted(device, workdir, ring):
    """Stopping and starting the virtio-user port hands ring indices out and back in."""
    backend = device()
    with front_end(workdir, backend, ring) as pmd:
        for number in range(5):
            pmd.rounds(f"{ring} {number}", rounds=1)
            pmd.cmd("port stop 1")
            pmd.cmd("port start 1")
        pmd.rounds("at last", rounds=1)


@pytest.mark.parametrize("end", ["stopped", "killed", "killed under traffic"])
@pytest.mark.parametrize("ring", RINGS)
def test_device_restarted(device, workdir, ring, end):
    """The front-end stays and finds its device again; traffic goes on."""
    backend = device(client=True)
    with front_end(workdir, backend, ring) as pmd:
        for number in range(3):
            pmd.rounds(f"{ring} {number}", rounds=1)
            if end == "stopped":
                backend.stop()
            else:
                if end == "killed under traffic":
                    pmd.play([random_packets(number, 400)])
                backend.kill()
                if end == "killed under traffic":
                    (got,), _ = pmd.finish()
                    wrong = not_in_order(random_packets(number, 400), got)
                    assert wrong is None, wrong
            assert wait_until(lambda: not pmd.link_up(1)), "virtio-user missed the disconnect"
            backend.start()
            assert wait_until(lambda: pmd.link_up(1)), "virtio-user did not reconnect"
            # virtio-user resets packed rings on reconnect: the port needs a new start, and what
            # was in flight in split rings is delivered late: it is not part of the next round
            pmd.cmd("port stop 1")
            pmd.cmd("port start 1")
        pmd.rounds("at last", rounds=1)


def test_control_one_wrong_byte_is_noticed():
    """The comparison itself: it must see one byte, one packet, one swap."""
    sent = random_packets("control", 50)
    bad = list(sent)
    bad[31] = bad[31][:40] + bytes([bad[31][40] ^ 1]) + bad[31][41:]
    assert "packet 31" in difference(sent, bad) and "byte 40" in difference(sent, bad)
    assert difference(sent, sent[:-1]) and difference(sent, sent[::-1])
    assert difference(sent, sent) is None
    assert not_in_order(sent, sent[::2]) is None
    assert not_in_order(sent, [sent[3], sent[2]]) and not_in_order(sent, [sent[1], sent[1]])
    assert not_in_order(sent, bad)


def test_control_changed_bytes_are_noticed(workdir):
    """The whole way: a peer that swaps MAC addresses must fail the round."""
    with NetVhost(directory=workdir) as peer, Echo(workdir, peer.sockets[0]) as pmd:
        pmd.rounds("unchanged", rounds=1)
        for command in ("stop", "set fwd macswap", "start"):
            peer.process.cmd(command)
        with pytest.raises(AssertionError, match="packet 0 of .* byte 0 is"):
            pmd.rounds("changed", rounds=1)
