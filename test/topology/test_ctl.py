# SPDX-License-Identifier: BSD-3-Clause
"""vfn-ctl: what an operator is told, and what is changed."""

import json
import os
import re
import subprocess
import tempfile

import pytest
from disk_device import open_disk
from frontend import frames
from harness import SLOW, Backend, Endpoint, build_dir, runtime_dirs
from net_device import open_frontend

CTL = os.path.join(build_dir(), "app", "vfn-ctl")


def run(*words, code=0):
    done = subprocess.run([CTL, *map(str, words)], check=False, capture_output=True, text=True,
                          timeout=60 * SLOW)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def served():
    """(server, endpoint): two processes with functions of their own."""
    with Backend(["vdpa_vfn0,mtu=1500,mac=02:00:00:00:00:07", "vdpa_vfn1",
                  "vdpa_vfn2,class=blk,mem=16M"]) as server, \
            Endpoint(["card0,idle=sleep"]) as endpoint:
        yield server, endpoint


def ctl(of, *words, code=0):
    return run("-f", of.process.prefix, *words, code=code)


def answer(of, *words):
    return json.loads(ctl(of, "--json", *words))


def test_all_processes_are_found(served):
    names = {(f["name"], f["process"]) for f in json.loads(run("--json", "list"))}
    server, endpoint = served
    assert names >= {("vdpa_vfn0", server.pid), ("vdpa_vfn1", server.pid),
                     ("vdpa_vfn2", server.pid), ("card0", endpoint.process.pid)}
    lines = ctl(server, "list").splitlines()
    assert lines[0].split() == ["NAME", "PROCESS", "FILE-PREFIX"]
    assert [line.split() for line in lines[1:]] == [
        [f"vdpa_vfn{n}", str(server.pid), server.process.prefix] for n in range(3)]


def test_what_there_is_to_know(served):
    server, endpoint = served
    with open_frontend(server.sockets[0]) as fe:
        fe.check(frames("ctl", 50))
        info = answer(server, "info", "vdpa_vfn0")
        assert info == server.telemetry("/vfn/info,vdpa_vfn0")
        assert (info["state"], info["mac"]) == ("running", "02:00:00:00:00:07")
        assert re.search(r"^state +running$", ctl(server, "info", "vdpa_vfn0"), re.M)
        stats = answer(server, "stats", "vdpa_vfn0")
        assert stats["0"]["packets"] == stats["1"]["packets"] == 50
        text = ctl(server, "stats", "vdpa_vfn0", 1)
        assert re.search(r"^queue 1 \(transmit\)\n(?:  .*\n)*  packets +50$", text, re.M)
        assert "queue 0" not in text and not re.search(r" 0$", text, re.M)
    assert answer(endpoint, "info", "card0")["socket"] == endpoint.sockets[0]
    assert "0" in answer(endpoint, "stats", "card0")


def test_top_tells_rates(served):
    server, _ = served
    with open_frontend(server.sockets[0]) as fe:
        fe.check(frames("before", 20))
        top = subprocess.Popen([CTL, "-f", server.process.prefix, "--json", "top", "vdpa_vfn0", "-i",
                                "0.5", "-n", "2"], stdout=subprocess.PIPE, text=True)
        with top:
            while top.poll() is None:
                fe.check(frames("meanwhile", 20))
            times = [json.loads(line) for line in top.stdout]
    assert len(times) == 2
    # on a busy machine nothing may have moved in one of them
    moved = [now for now in times if now["queues"]]
    assert moved
    for now in moved:
        assert {(q["name"], q["queue"]) for q in now["queues"]} == {("vdpa_vfn0", 0), ("vdpa_vfn0", 1)}
        assert all(q["per_second"] > 0 and q["lost_per_second"] == 0 for q in now["queues"])
        assert any(0 < p["busy_percent"] <= 100 and p["burst"] >= 1 for p in now["pollers"])


def test_set(served):
    server, _ = served
    with open_frontend(server.sockets[0]) as fe:
        done = answer(server, "set", "vdpa_vfn0", "link=down", "mtu=1400", "rate=100")
        assert (done["link"], done["mtu"]) == ("down", 1400)
        fe.post()
        assert server.telemetry("/vfn/info,vdpa_vfn0")["link"] == "down"
        answer(server, "set", "vdpa_vfn0", "link=up", "rate=0")
        fe.check(frames("set", 50))
    assert answer(server, "set", "vdpa_vfn0", "mac=02:00:00:00:00:09")["mac"] == "02:00:00:00:00:09"
    with open_disk(server.sockets[2]) as disk:
        answer(server, "set", "vdpa_vfn2", f"size={8 << 20}", "rate=1000,0")
        assert disk.capacity() == 8 << 11


@pytest.mark.parametrize("words, why", [
    (("info", "vdpa_vfn9"), "no function is named vdpa_vfn9"),
    (("set", "vdpa_vfn0", "mtu=67"), 'the MTU can be 68 to 65535, not "67"'),
    (("set", "vdpa_vfn1", "mtu=1500"), "no MTU is offered"),
    (("set", "vdpa_vfn0", "link=sideways"), '"up" or "down", not "sideways"'),
    (("set", "vdpa_vfn0", "mac=03:00:00:00:00:01"), "a single station has"),
    (("set", "vdpa_vfn0", "mac=x"), 'not "x"'),
    (("set", "vdpa_vfn0", "rate=1000001"), 'not "1000001"'),
    (("set", "vdpa_vfn0", "rate=-1"), 'not "-1"'),
    (("set", "vdpa_vfn0", "link=down", "colour=red"), "link, mtu, mac, rate, each as KEY=VALUE"),
    (("set", "vdpa_vfn0", "mtu"), "each as KEY=VALUE"),
    (("set", "vdpa_vfn2", "link=up"), "rate, size"),
    (("announce", "vdpa_vfn0"), "there is no guest"),
    (("stats", "vdpa_vfn0", "700"), "700"),
    (("snapshot", "vdpa_vfn0", "/nowhere/file"), "/nowhere/file"),
])
def test_what_is_refused(served, words, why):
    server, _ = served
    said = ctl(server, *words, code=1)
    assert why in said and said.startswith("vfn-ctl: ") and said.count("\n") == 1
    assert server.telemetry("/vfn/info,vdpa_vfn0")["link"] == "up"


def test_saved_and_loaded(served):
    server, endpoint = served
    with tempfile.TemporaryDirectory(prefix="vfn-") as directory:
        parts = os.path.join(directory, "parts")
        ctl(server, "snapshot", "vdpa_vfn1", parts)
        assert os.path.getsize(parts) > 0
        ctl(server, "restore", "vdpa_vfn1", parts)
    assert "endpoint" in ctl(endpoint, "set", "card0", "link=down", code=1)


def test_one_of_two_processes_is_named():
    with Backend("vdpa_vfn0") as one, Backend("vdpa_vfn0") as other:
        said = run("info", "vdpa_vfn0", code=1)
        assert one.process.prefix in said and other.process.prefix in said
        assert answer(other, "info", "vdpa_vfn0")["name"] == "vdpa_vfn0"
        # nobody listens any more where one was killed
        path = os.path.join(runtime_dirs(one.process.prefix)[0], "dpdk_telemetry.v2")
        one.kill()
        left = os.path.exists(path)
        assert answer(other, "info", "vdpa_vfn0")["name"] == "vdpa_vfn0"
        if left:
            assert "no process" in run("-f", one.process.prefix, "list", code=1)
    assert run("-f", "nobody", "list", code=1) == \
        "vfn-ctl: no process with --file-prefix nobody has functions\n"


def test_names_are_completed(served):
    """As bash does it."""
    server, _ = served
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                          "app", "vfn-ctl", "vfn-ctl.bash")
    out = subprocess.run(["bash", "-c", f"""
        PATH={os.path.dirname(CTL)}:$PATH
        compopt() {{ :; }}
        . {script}
        try() {{
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _vfn_ctl; echo "${{COMPREPLY[*]}}"
        }}
        try vfn-ctl s
        try vfn-ctl info vdpa_vfn
        try vfn-ctl set vdpa_vfn0 m
        try vfn-ctl set vdpa_vfn0 link = d
        try vfn-ctl -f {server.process.prefix[:-1]}
    """], check=True, capture_output=True, text=True, timeout=60 * SLOW).stdout.splitlines()
    assert out[0].split() == ["stats", "set", "snapshot"]
    assert {"vdpa_vfn0", "vdpa_vfn1", "vdpa_vfn2"} <= set(out[1].split())
    assert out[2].split() == ["mtu=", "mac="]
    assert out[3].split() == ["down"]
    assert server.process.prefix in out[4].split()
