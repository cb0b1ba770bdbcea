# SPDX-License-Identifier: BSD-3-Clause
"""The measuring tools: what they write is what others read, and wrong arguments are refused."""

import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys

import pytest
from harness import NIGHTLY, SLOW, build_dir

DEVTOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "devtools")
pytestmark = pytest.mark.alone("it measures, and its neighbour uses all CPUs")
# a packet costs many times as much there, and valgrind can't run it
NOT_SANITIZED = pytest.mark.skipif(SLOW > 1, reason="the build is instrumented")


def tool(name, *args, timeout=60):
    return subprocess.run([sys.executable, os.path.join(DEVTOOLS, name), *args], timeout=timeout,
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "VFN_BUILD": build_dir()})


def measured(workdir, *args):
    path = os.path.join(workdir, "rows.json")
    done = tool("bench.py", "--noisy", "--runs", "1", "--windows", "1", "--seconds", "0.1",
                "--size", "64", "--json", path, *args, timeout=100 * SLOW)
    assert done.returncode == 0, done.stderr
    with open(path, encoding="utf-8") as file:
        return path, json.load(file), done


def check_row(row):
    assert row["unit"] == ("cycles/packet" if row["scenario"] == "pmd-perf" else "Mpps")
    for side in (row["vfn"], row["peer"]):
        assert side["windows"] == len(side["values"]) == 1
        assert side["min"] == side["median"] == side["max"] == statistics.median(side["values"])
        assert side["median"] > 0
        assert side["device_cycles"] > 0
    ratio = row["vfn"]["median"] / row["peer"]["median"]
    assert row["ratio"] == pytest.approx(ratio if row["unit"] == "Mpps" else 1 / ratio)
    assert row["limits"]["line_ns"] > 0
    assert row["limits"]["fraction"] > 0


def test_every_kind_of_traffic_has_a_row(workdir):
    path, report, done = measured(workdir, "--scenario", "loopback,g2h,h2g,wire", "--ring",
                                  "packed", "--mode", "plain")
    rows = report["rows"]
    assert [row["scenario"] for row in rows] == ["loopback", "g2h", "h2g", "wire"]
    for row in rows:
        assert (row["ring"], row["mode"], row["size"]) == ("packed", "plain", 64)
        check_row(row)
        # what a packet costs times how many there are is not much more than a CPU
        for side in (row["vfn"], row["peer"]):
            assert 0 < side["front_busy"] < 2
            assert side["front_cycles"] > 0
    for key in ("date", "commit", "machine", "dpdk", "command", "limits"):
        assert report[key], key
    assert "4/4" in done.stderr
    # what is printed is what can be printed again
    assert tool("bench.py", "table", path).stdout == done.stdout
    assert "| loopback, packed, plain, 64 B |" in done.stdout
    done = tool("bench.py", "plot", path, "--out", workdir)
    if importlib.util.find_spec("matplotlib") is None:
        assert done.returncode == 1
        assert "apt-get install python3-matplotlib" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        for figure in done.stdout.split():
            with open(figure, encoding="utf-8") as svg:
                assert "loopback packed plain 64 B" in svg.read()


@pytest.mark.skipif(not NIGHTLY, reason="60 million packets: 7 s, or half a minute if not alone")
@NOT_SANITIZED
def test_pmd_perf_has_a_row(workdir):
    (row,) = measured(workdir, "--scenario", "pmd-perf", "--ring", "split", "--mode",
                      "mergeable")[1]["rows"]
    check_row(row)


@pytest.mark.parametrize("args, words", [
    (["--size", "65"], "'65' is none of 64, 256, 1518, 9000"),
    (["--scenario", "loopback,"], "'' is none of loopback"),
    (["--ring", "spilt"], "spilt"),
    (["--mode", "all"], "all"),
    (["--scenario", "pmd-perf", "--size", "1518"], "64 bytes only"),
    (["--quick", "--full"], "not allowed"),
    (["--windows", "0"], "at least one"),
    (["--seconds", "0"], "at least one"),
    (["plot", "x.json"], "--out"),
    (["table"], "FILE"),
])
def test_wrong_arguments_are_named(args, words):
    done = tool("bench.py", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_file_that_is_no_report(workdir):
    path = os.path.join(workdir, "x.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{}")
    done = tool("bench.py", "table", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "rows" in done.stderr


@pytest.fixture
def neighbour():
    """Somebody who uses all CPUs."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
                for _ in range(os.cpu_count())]
    yield
    for process in spinning:
        process.kill()
        process.wait()


QUIET_IS_NEVER = ["--patience", "1", "--json"]


@NOT_SANITIZED
@pytest.mark.parametrize("name, args", [
    ("bench.py", ["--quick", "--scenario", "loopback", "--ring", "split", "--windows", "1"]),
    ("bench_latency.py", ["--quick", "--rings", "split", "--sizes", "64", "--devices", "vfn,net_vhost"]),
    ("bench_lm.py", ["--windows", "1", "--seconds", "0.4", "--stops", "10", "--lm", "hw"]),
    pytest.param("bench_pollers.py", [
        "--runs", "1", "--windows", "1", "--seconds", "0.4", "--scenarios", "idle", "--rings",
        "split", "--sizes", "64"], marks=pytest.mark.skipif(not NIGHTLY, reason="half a minute")),
])
def test_on_a_noisy_machine_it_ends_with_what_it_has(workdir, neighbour, name, args):
    path = os.path.join(workdir, "result.json")
    done = tool(name, *args, *QUIET_IS_NEVER, path, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "marked as noisy" in done.stderr
    assert ", noisy |" in done.stdout
    with open(path, encoding="utf-8") as file:
        assert '"noisy_windows": 0' not in file.read().split('"rows"')[-1].split('"peer"')[0]


@NOT_SANITIZED
def test_instructions_are_counted_by_stage():
    done = tool(os.path.join("lib", "bench_profile.py"), "loopback", "--only", "vfn", "--seconds", "0.5")
    assert done.returncode == 0, done.stderr
    stages = {name: float(count) for name, count in
              re.findall(r"^\| \*\*(\w+)\*\*.*\| ([\d.]+) \|$", done.stdout, re.MULTILINE)}
    total = float(re.search(r"^\| all \| ([\d.]+) \|$", done.stdout, re.MULTILINE)[1])
    assert total == pytest.approx(sum(stages.values()), abs=0.5)
    # less would be no packets, more would be idle polls
    assert stages["fetch"] > 5 and stages["complete"] > 2 and stages["forward"] > 5
    assert total < 1500
