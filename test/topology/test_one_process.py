# SPDX-License-Identifier: BSD-3-Clause
"""Device and front-end in one process (one_process.c): many packets, every byte compared."""

import os
import re
import shutil

import pytest

from harness import (NIGHTLY, PLUGIN, IN_ORDER, MRG_RXBUF, RING_PACKED, VERSION_1, EalProcess,
                     build_dir, cpu, parse_stats, plugin_dir)

RINGS = ["split", "packed"]
NOBODY = 65534
PACKETS = 1000000 if NIGHTLY else 250000


@pytest.fixture
def run(request, workdir):
    """Run one_process to its end; return (exit code, output)."""
    def start(ring, *args, memory=("--no-huge", "-m", "256"), idle="busy", options="", user=None,
              packets=PACKETS):
        program = os.path.join(build_dir(), "test", "topology", "one_process")
        env = {**os.environ, "LD_LIBRARY_PATH": plugin_dir(), "XDG_RUNTIME_DIR": workdir}
        popen = {}
        if user is not None:
            # the build directory may be closed to others, and the user has no place of its own
            os.chmod(workdir, 0o755)
            own = os.path.join(workdir, "own")
            os.mkdir(own, 0o700)
            os.chown(own, user, user)
            program = shutil.copy(program, workdir)
            if os.path.exists(os.path.join(plugin_dir(), PLUGIN)):
                os.chmod(shutil.copy(os.path.join(plugin_dir(), PLUGIN), workdir), 0o755)
            env.update(LD_LIBRARY_PATH=workdir, XDG_RUNTIME_DIR=own)
            popen = {"user": user, "group": user, "extra_groups": [], "cwd": own}
            directory = own
        else:
            directory = workdir
        socket = os.path.join(directory, "sock")
        eal = ["--lcores", f"0@{cpu(0)}", "--no-telemetry", *memory]
        if request.config.getoption("--device") == "vfn":
            eal += ["-d", PLUGIN, "--vdev",
                    f"vdpa_vfn0,queues=1,mtu=9000,idle={idle},poll-cpu={cpu(1)}"]
            end = ["--device", "vdpa_vfn0"]
        else:
            eal += ["--vdev", f"net_vhost0,iface={socket}"]
            end = ["--echo", "net_vhost0"]
        process = EalProcess(program, eal,
                             ["--socket", socket, *end, "--packets", packets,
                              "--virtio", f",packed_vq={int(ring == 'packed')}{options}", *args],
                             env=env, **popen)
        try:
            return process.wait(120), process.log()
        finally:
            process.kill()
    return start


def check(result, ring, packets=PACKETS, mergeable=True):
    """The exit code, the features that were negotiated, and both ends' counters."""
    code, log = result
    features = int(re.search(r"(?:^connected,|negotiated Virtio) features:? (0x[0-9a-f]+)", log,
                             re.MULTILINE)[1], 16)
    for bit, wanted in ((VERSION_1, True), (RING_PACKED, ring == "packed"),
                        (MRG_RXBUF, mergeable)):
        assert bool(features >> bit & 1) == wanted, f"bit {bit} of {features:#x}"
    octets = re.search(rf"^{packets} packets sent, {packets} received, (\d+) bytes equal$", log,
                       re.MULTILINE)
    assert octets and code == 0, f"ended with {code}"
    for queue, stats in parse_stats(log).items():
        assert stats["packets"] == packets, f"queue {queue}: {stats}"
        assert stats["bytes"] == int(octets[1]), f"queue {queue}: {stats}"
    return features


@pytest.mark.parametrize("ring", RINGS)
def test_without_hugepages(run, ring):
    check(run(ring), ring)


@pytest.mark.parametrize("ring", RINGS)
def test_as_ordinary_user(run, ring):
    if os.geteuid() != 0:
        check(run(ring), ring)    # already one
    else:
        check(run(ring, user=NOBODY), ring)


@pytest.mark.parametrize("ring", RINGS)
def test_with_hugepages(run, ring):
    memory = ("--in-memory", "--single-file-segments", "-m", "256")
    check(run(ring, memory=memory), ring)


@pytest.mark.parametrize("ring", RINGS)
def test_sleeping_poller(run, ring):
    """One packet at a time, so that the poller sleeps between them, and then many."""
    packets = 20000
    check(run(ring, "--window", "1", idle="sleep", packets=packets), ring, packets)
    check(run(ring, idle="sleep"), ring)


@pytest.mark.parametrize("ring", RINGS)
def test_one_buffer_per_packet(run, ring):
    check(run(ring, options=",mrg_rxbuf=0"), ring, mergeable=False)


@pytest.mark.parametrize("ring", RINGS)
def test_not_in_order(run, ring):
    features = check(run(ring, options=",in_order=0"), ring)
    assert not features >> IN_ORDER & 1


@pytest.mark.parametrize("ring", RINGS)
def test_jumbo_chains(run, ring):
    """Chains of up to five descriptors out, up to five merged buffers in."""
    packets = PACKETS // 4
    check(run(ring, "--max-size", "9000", "--window", "150", packets=packets), ring, packets)


def test_control_one_wrong_byte_is_noticed(run):
    code, log = run("split", "--corrupt", "12345", packets=20000)
    assert code != 0 and "packet 12345: byte " in log
