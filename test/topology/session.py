# SPDX-License-Identifier: BSD-3-Clause
"""What a session of tests with real processes has: a directory for everything, the logs of processes
in a report, and the check that nothing is left behind. For conftest.py of topology and isolation.
"""

import os
import shutil
import tempfile
import uuid

import pytest

from harness import (EalProcess, Process, Scratch, hugetlbfs_mounts, remarks, runtime_dirs,
                     wait_until)

SESSION = f"VFN_SESSION={uuid.uuid4()}"


def pytest_configure(config):
    config.addinivalue_line("markers", "bare: on a server without the gate")
    config.addinivalue_line("markers", "alone(reason): not beside other tests (devtools/test.sh)")
    if worker := getattr(config, "workerinput", None):
        # each begins with another CPU: front-ends spin on their first one
        number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
        os.environ["VFN_FIRST_CPU"] = str(number * max(1, os.cpu_count() // count))
    # whatever the tests start inherits these, so that strays and leftovers can be told from
    # other people's; the name is short because sockets will be in it; a worker's is in another one
    os.environ["VFN_SESSION"] = SESSION.split("=")[1]
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="vfn-")
    os.chmod(tempfile.tempdir, 0o755)    # for the tests that run as an ordinary user


def pytest_unconfigure():
    shutil.rmtree(tempfile.tempdir, ignore_errors=True)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["remarks"] = remarks


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    remarks.extend(getattr(node, "workeroutput", {}).get("remarks", []))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for process in Process.started[getattr(item, "first_process", 0):]:
        text = process.log()
        if len(text) > 12000:
            text = text[:4000] + "\n[...]\n" + text[-8000:]
        report.sections.append((f"{process.name} (pid {process.pid}): {' '.join(process.argv)}",
                                text))


def pytest_terminal_summary(terminalreporter):
    for line in remarks:
        terminalreporter.write_line(line)


def pytest_runtest_setup(item):
    item.first_process = len(Process.started)


def strays():
    """Processes of this session that still run: [(pid, command)]."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if SESSION.encode() not in environ.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                found.append((int(pid), cmdline.read().replace(b"\0", b" ").decode()))
        except OSError:
            continue    # ended in between, or not ours to look at
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left():
    """At the end of the session: no process, no socket, no hugepage or run-time file of ours."""
    yield
    wait_until(lambda: not strays(), timeout=2)
    left = [f"process {pid}: {command}" for pid, command in strays()]
    left += [f"process {p.pid}: {p.name}, not waited for" for p in Process.started if p.alive()]
    left += [os.path.join(tempfile.gettempdir(), n) for n in os.listdir(tempfile.gettempdir())]
    for process in Process.started:
        if not isinstance(process, EalProcess):
            continue
        left += [f"directory {d}" for d in runtime_dirs(process.prefix) if os.path.exists(d)]
        for mount in hugetlbfs_mounts():
            left += [f"hugepage file {os.path.join(mount, name)}" for name in os.listdir(mount)
                     if name.startswith(process.prefix)]
    assert not left, "left behind by this session:\n" + "\n".join(left)


@pytest.fixture
def workdir():
    """A directory of the test's own, with a name short enough for sockets."""
    scratch = Scratch()
    yield scratch.path
    alive = [p.name for p in Process.started if p.alive()]
    scratch.remove()
    assert not alive, f"still running at the end of the test: {alive}"
