# SPDX-License-Identifier: BSD-3-Clause
"""What the driver says of itself: telemetry, the log at DEBUG, tracepoints."""

import glob
import json
import os
import re
import subprocess

import pytest
from harness import (PLUGIN, SLOW, Backend, cpu, is_refused, plugin_dir, runtime_dirs,
                     wait_until)
from net_device import open_frontend
from frontend import FORMATS, frames


@pytest.fixture
def backend(workdir):
    backend = Backend(["vdpa_vfn0,queues=2,mtu=3000,mac=02:00:00:00:00:07", "vdpa_vfn1"],
                      directory=workdir, eal=["--log-level=pmd.vdpa.vfn.*:debug",
                                              "--trace=pmd.vdpa.vfn.*", f"--trace-dir={workdir}"])
    yield backend
    backend.close()


@FORMATS
def test_telemetry_follows_the_device(backend, packed):
    tell = backend.telemetry
    assert tell("/vfn/list") == ["vdpa_vfn0", "vdpa_vfn1"]
    info = tell("/vfn/info,vdpa_vfn0")
    assert (info["state"], info["vid"], info["queues_running"]) == ("idle", -1, 0)
    assert (info["queue_pairs"], info["mtu"], info["mac"]) == (2, 3000, "02:00:00:00:00:07")
    with open_frontend(backend.sockets[0], packed=packed) as fe:
        fe.check(frames("telemetry", 100))
        info = tell("/vfn/info,vdpa_vfn0")
        assert (info["state"], info["queues_running"], info["link"]) == ("running", 2, "up")
        assert int(info["negotiated"], 16) >> 34 & 1 == packed
        queue = tell("/vfn/queue,vdpa_vfn0,1")
        assert (queue["started"], queue["size"], queue["packets"]) == (1, 64, 100)
        assert int(queue["desc"], 16) == fe.tx().desc
        assert queue["avail"] == queue["used"] == fe.tx().position()
        assert tell("/vfn/lm,vdpa_vfn0") == {
            "mode": "hw", "state": "off", "log_bytes": 0, "starts": 0, "refusals": 0,
            "announced": 0}
        assert tell("/vfn/info,vdpa_vfn1")["state"] == "idle"
        fe.stop()
        info = tell("/vfn/info,vdpa_vfn0")
        assert (info["state"], info["stops"]) == ("idle", 1)
        assert info["stop_us_max"] >= info["stop_us_last"] > 0


@pytest.mark.parametrize("count, length", [(511, 0), (512, 0), (513, 0), (600, 0), (300, 50)])
def test_list_is_never_cut_without_a_word(workdir, count, length):
    names = [f"vdpa_vfn{'_' * length}{i}" for i in range(count)]
    backend = Backend(names, directory=workdir, start=False)
    try:
        backend.start(timeout=120 * SLOW)
        listed, page = [], backend.telemetry("/vfn/list")
        if (count, length) == (512, 0):
            assert len(page) == count
        while "more: " in page[-1]:
            left, where = re.fullmatch(r"\.\.\. and (\d+) more: (\S+)", page[-1]).groups()
            listed += page[:-1]
            assert int(left) == count - len(listed)
            page = backend.telemetry(where)
        assert listed + page == names
        assert backend.telemetry(f"/vfn/list,{count}") == []
        assert is_refused(backend.telemetry("/vfn/list,x"), "no number")
        backend.stop(timeout=120 * SLOW)
    finally:
        backend.close()


def test_telemetry_of_pollers(workdir):
    cpus = sorted({cpu(0), cpu(1)})
    spread = f"vdpa_vfn0,queues=2,poll-cpu=[{','.join(map(str, cpus))}]"
    with Backend([spread, f"vdpa_vfn1,poll-cpu={cpu(1)}"], directory=workdir) as backend:
        everyone = backend.telemetry("/vfn/poller").values()
        assert sorted(p["name"] for p in everyone) == [f"vfn-poll-{c}" for c in cpus]
        ((number, before),) = backend.telemetry("/vfn/poller,vdpa_vfn1").items()
        assert (before["name"], before["cpu"]) == (f"vfn-poll-{cpu(1)}", cpu(1))
        assert before["hz"] > 10**6
        with open_frontend(backend.sockets[1]) as fe:
            fe.check(frames("pollers", 100))
            after = backend.telemetry("/vfn/poller")[number]
            assert after["packets"] - before["packets"] == 100
            assert 0 < after["busy_iterations"] - before["busy_iterations"] <= 100
            assert after["iterations"] - before["iterations"] > 0
            assert all(after[key] > before[key] for key in ("busy_cycles", "idle_cycles"))
            fe.stop()
        assert is_refused(backend.telemetry("/vfn/poller,vdpa_vfn2"))
        before = backend.telemetry("/vfn/poller,vdpa_vfn0")
        with open_frontend(backend.sockets[0], pairs=2) as fe:
            for pair in range(2):
                fe.check(frames("spread", 50 * (pair + 1)), pair)
            after = backend.telemetry("/vfn/poller,vdpa_vfn0")
            moved = [after[n]["packets"] - before[n]["packets"] for n in after]
            assert sorted(moved) == ([50, 100] if len(cpus) == 2 else [150])


@pytest.mark.parametrize("command", ["/vfn/info", "/vfn/info,", "/vfn/info,vdpa_vfn7",
                                     "/vfn/queue,vdpa_vfn0", "/vfn/queue,vdpa_vfn0,",
                                     "/vfn/queue,vdpa_vfn0,5", "/vfn/queue,vdpa_vfn0,-1",
                                     "/vfn/queue,vdpa_vfn0,1x", f"/vfn/lm,{'x' * 500}"])
def test_telemetry_refuses(backend, command):
    assert is_refused(backend.telemetry(command))
    backend.process.expect("telemetry: ")   # the log takes another way than the answer


def test_all_device_arguments_in_force_are_told(backend):
    arguments = backend.telemetry("/vfn/info,vdpa_vfn0")["arguments"]
    given = {"queues": "2", "mtu": "3000", "mac": "02:00:00:00:00:07", "idle": "sleep",
             "poll_cpu": str(cpu(1))}
    assert {key: arguments[key] for key in given} == given
    # and what stands for those that are not: all that the driver knows
    described = subprocess.run(["dpdk-pmdinfo.py", os.path.join(plugin_dir(), PLUGIN)],
                               capture_output=True, text=True, check=True).stdout
    (driver,) = json.loads(described)
    of_disks = {"file", "mem", "null", "readonly", "serial", "block_size", "cache", "share", "iops",
                "bps", "rate_group"}
    assert set(arguments) == {
        key.replace("-", "_") for key in re.findall(r"([a-z-]+)=<", driver["params"])} - of_disks
    assert (arguments["port"], arguments["lm"], arguments["drain_ms"]) == ("loopback", "hw", "100")


@pytest.mark.parametrize("device, commands, why", [
    ("vdpa_vfn0,port=wire", [], "no device at the other end"),
    ("vdpa_vfn0", ["/vfn/link,vdpa_vfn0,down"], "unplugged"),
    ("vdpa_vfn0,port=wire --vdev vdpa_vfn1,port=wire,peer=vdpa_vfn0",
     ["/vfn/link,vdpa_vfn1,down"], "other end is unplugged"),
    ("vdpa_vfn0,ethdev=net_null7", [], "not there"),
])
def test_why_a_link_is_down(workdir, device, commands, why):
    with Backend(device.split(" --vdev "), directory=workdir) as backend:
        for command in commands:
            assert backend.telemetry(command)["link"] in ("up", "down")
        info = backend.telemetry("/vfn/info,vdpa_vfn0")
        assert info["link"] == "down"
        assert why in info["link_down"]
        if commands:
            backend.telemetry(commands[0].replace("down", "up"))
            info = backend.telemetry("/vfn/info,vdpa_vfn0")
            assert info["link"] == "up" and "link_down" not in info


def test_a_long_answer_is_cut_not_refused(backend, workdir):
    path = os.path.join(workdir, "x" * 150)
    answer = backend.telemetry(f"/vfn/snapshot,vdpa_vfn0,{path}")
    assert os.path.exists(path) == (not is_refused(answer))
    if not is_refused(answer):
        assert answer["file"].endswith("...") and path.startswith(answer["file"][:-3])


def test_stock_client(backend):
    prefix = backend.process.prefix
    assert os.path.isdir(runtime_dirs(prefix)[0])
    answer = subprocess.run(["dpdk-telemetry.py", "-f", prefix], input="/vfn/list\nquit\n",
                            capture_output=True, text=True, timeout=30, check=True).stdout
    assert re.search(r'"/vfn/list":\s*\[\s*"vdpa_vfn0",\s*"vdpa_vfn1"\s*\]', answer), answer


def test_every_change_of_state_is_in_log_and_trace(backend, workdir):
    with open_frontend(backend.sockets[0]) as fe:
        fe.check(frames("states", 50))
        backend.telemetry("/vfn/link,vdpa_vfn0,down")
        position = fe.stop()[1]
    moves = ["idle -> configured", "configured -> running", "running -> suspended",
             "suspended -> idle"]
    assert wait_until(lambda: f"vdpa_vfn0: {moves[-1]}" in backend.log())
    assert re.findall(r"vdpa_vfn0: (\w+ -> \w+)", backend.log()) == moves
    assert "vdpa_vfn0: queue 1 started at 0x0" in backend.log()
    assert "vdpa_vfn0: configuration: link down" in backend.log()
    assert f"vdpa_vfn0: queue 1 stopped at {position:#x}" in backend.log()
    backend.stop()      # the trace is written at the end
    with open(glob.glob(f"{workdir}/*/metadata")[0], encoding="ascii") as metadata:
        events = re.findall(r'name = "(pmd\.vdpa\.vfn\.\w+)"', metadata.read())
    assert set(events) == {"pmd.vdpa.vfn.state", "pmd.vdpa.vfn.queue", "pmd.vdpa.vfn.lm",
                           "pmd.vdpa.vfn.doorbell", "pmd.vdpa.vfn.config"}
    recorded = b""
    for path in glob.glob(f"{workdir}/*/channel0_*"):
        with open(path, "rb") as channel:
            recorded += channel.read()
    texts = re.findall(rb"vdpa_vfn0\0+([a-z]{4,})\0+([a-z]{4,})\0", recorded)
    assert [b" -> ".join(pair).decode() for pair in texts] == moves
    assert re.search(rb"vdpa_vfn0\0+link down\0", recorded)
