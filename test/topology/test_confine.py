# SPDX-License-Identifier: BSD-3-Clause
"""What vfn-vhost gives up once it serves: system calls, privileges, root, core files; and the unit
that starts it with less from the beginning.

probe.c, a plug-in of EAL, tries system calls inside the server.
"""

import errno
import grp
import json
import os
import pwd
import re
import resource
import shutil
import signal
import subprocess

import pytest

from harness import (NIGHTLY, Backend, Echo, EalProcess, Process, build_dir, plugin_dir,
                     wait_until)

USER = "nobody"
PROBE = ["-d", "probe.so"]
THREADS = ["early", "here"]
# what other kernels than those with everything refuse to root, too
REFUSED_ANYWAY = {"i386", "io_uring_setup", "bpf", "perf_event_open", "kexec_load"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def options():
    text = subprocess.run(["meson", "introspect", "--buildoptions", build_dir()], check=True,
                          capture_output=True, text=True).stdout
    return {o["name"]: o["value"] for o in json.loads(text)}


SANITIZED = options()["b_sanitize"] != "none"
UNLESS_SANITIZED = "sanitizers map code and trace: vfn-vhost does not confine itself"


def why_no_filter():
    if SANITIZED:
        return UNLESS_SANITIZED
    program = os.path.join(build_dir(), "app", "vfn-vhost")
    needed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return None if "libseccomp" in needed else "vfn-vhost was built without libseccomp"


WHY_NO_FILTER = why_no_filter()
filtered = pytest.mark.skipif(WHY_NO_FILTER is not None, reason=str(WHY_NO_FILTER))
confined = pytest.mark.skipif(SANITIZED, reason=UNLESS_SANITIZED)


@pytest.fixture(autouse=True)
def plugin_is_found(monkeypatch):
    paths = [os.path.join(build_dir(), "test", "topology"), os.environ.get("LD_LIBRARY_PATH")]
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(filter(None, paths)))


@pytest.fixture
def home(workdir, monkeypatch):
    """A directory of USER's, which EAL is told of, as units do; nothing of EAL's is left there."""
    path = os.path.join(workdir, "home")
    os.mkdir(path, 0o750)
    user = pwd.getpwnam(USER)
    os.chown(path, user.pw_uid, user.pw_gid)
    os.chmod(workdir, 0o755)
    monkeypatch.setenv("RUNTIME_DIRECTORY", path)
    return path


def tasks(pid):
    """{name of a field: its values} over all threads."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as status:
                lines = status.read().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue    # one of telemetry's, gone in between
        for line in lines:
            name, value = line.split(":", 1)
            found.setdefault(name, set()).add(" ".join(value.split()))
    return found


def traffic(backend, workdir, seed):
    with Echo(workdir, backend.sockets[0], memory="no-huge") as pmd:
        packets, _ = pmd.rounds(seed, rounds=2)
        assert backend.stats()[0]["packets"] == packets[0]


# --- the filter ---


@filtered
@pytest.mark.parametrize("thread", THREADS)
def test_what_serving_does_not_need_is_refused(workdir, thread):
    with Backend(directory=workdir, eal=PROBE) as backend:
        answers = backend.telemetry(f"/probe/forbidden,{thread}")
        assert len(answers) > 80 and "userfaultfd" in answers and "ptrace" in answers
        let_through = {k: os.strerror(v) for k, v in answers.items() if v != errno.EPERM}
        assert not let_through


@needs_root
@pytest.mark.parametrize("thread", THREADS)
def test_control_without_the_filter_they_are_let_through(workdir, thread):
    with Backend(directory=workdir, eal=PROBE, args=["--no-confine"]) as backend:
        assert "vfn-vhost: not confined" in backend.log()
        answers = backend.telemetry(f"/probe/forbidden,{thread}")
        refused = {name for name, value in answers.items() if value == errno.EPERM}
        assert refused <= REFUSED_ANYWAY and answers["mmap_PROT_EXEC"] == 0


@pytest.mark.parametrize("thread", THREADS)
def test_what_it_needs_still_works(workdir, thread):
    with Backend(directory=workdir, eal=PROBE) as backend:
        answers = backend.telemetry(f"/probe/allowed,{thread}")
        assert len(answers) >= 11
        assert not {k: os.strerror(v) for k, v in answers.items() if v != 0}


@confined
def test_every_thread_is_confined_the_later_ones_too(workdir):
    with Backend(directory=workdir, eal=PROBE) as backend:
        traffic(backend, workdir, "threads")
        found = tasks(backend.pid)
        assert {"probe-early", "vfn-vhost", "vhost-events"} <= found["Name"]
        assert any(name.startswith("vfn-poll") for name in found["Name"])
        assert found["NoNewPrivs"] == {"1"}
        assert WHY_NO_FILTER is not None or found["Seccomp"] == {"2"}


def test_off_switch(workdir):
    with Backend(directory=workdir, eal=PROBE, args=["--no-confine"]) as backend:
        found = tasks(backend.pid)
        own = tasks(os.getpid())
        assert found["Seccomp"] <= own["Seccomp"] and found["NoNewPrivs"] <= own["NoNewPrivs"]


# --- nobody looks into it ---


def readable_by_user(pid):
    return subprocess.run(["cat", f"/proc/{pid}/environ"], user=USER, extra_groups=[],
                          group=pwd.getpwnam(USER).pw_gid, stdin=subprocess.DEVNULL,
                          capture_output=True, check=False).returncode == 0


class AsUser:
    """vfn-vhost started as USER, from a directory that USER can read."""

    def __init__(self, directory, args=(), wrapper=(), eal=(), program=None):
        for path in (os.path.join(plugin_dir(), "librte_vdpa_vfn.so"),
                     os.path.join(build_dir(), "app", "vfn-vhost")):
            shutil.copy(path, directory)
        env = dict(os.environ, LD_LIBRARY_PATH=directory)
        popen = {} if wrapper else {"user": USER, "extra_groups": [],
                                    "group": pwd.getpwnam(USER).pw_gid}
        self.socket = os.path.join(directory, "home", "vfn-0")
        self.process = EalProcess(
            program or os.path.join(directory, "vfn-vhost"),
            ["--no-huge", "-m", "64", "--no-shconf", "-d", "librte_vdpa_vfn.so", "--vdev",
             "vdpa_vfn0,idle=sleep", *eal],
            ["--iface", os.path.join(directory, "home", "vfn-"), *args], env=env, wrapper=wrapper,
            **popen)

    def __enter__(self):
        try:
            self.process.expect(r"^vfn-vhost: ready, 1 socket", 15)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            self.process.kill()
            return
        self.process.popen.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait() == 0
        finally:
            self.process.kill()


@confined
@needs_root
def test_other_processes_of_the_user_cannot_look_into_it(workdir, home):
    assert home
    with AsUser(workdir, ["--no-confine"]) as server:
        assert readable_by_user(server.process.pid), "the control is of no use"
    with AsUser(workdir) as server:
        assert not readable_by_user(server.process.pid)


def core_of(workdir, *args):
    """Whether a core file is left when the server aborts."""
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as pattern:
        if pattern.read()[0] in "|/":
            pytest.skip("core files go elsewhere here")
    cores = os.path.join(workdir, f"cores{len(args)}")
    os.mkdir(cores)
    with Backend(directory=workdir, wrapper=["prlimit", "--core=unlimited:unlimited", "env", "-C",
                                             cores], args=args) as backend:
        os.kill(backend.pid, signal.SIGABRT)
        assert wait_until(lambda: not backend.process.alive())
        assert backend.process.popen.returncode == -signal.SIGABRT
        backend.kill()
        for path in backend.sockets:
            os.unlink(path)
    left = os.listdir(cores)
    shutil.rmtree(cores)
    return left


@confined
def test_guests_memory_is_in_no_core_file(workdir):
    assert core_of(workdir, "--no-confine"), "the control is of no use"
    assert not core_of(workdir)


# --- another user ---


def assert_identity(pid, user, group):
    uid, gid = str(pwd.getpwnam(user).pw_uid), str(grp.getgrnam(group).gr_gid)
    found = tasks(pid)
    assert found["Uid"] == {" ".join([uid] * 4)} and found["Gid"] == {" ".join([gid] * 4)}
    groups = set(map(str, os.getgrouplist(user, int(gid))))
    assert all(set(value.split()) <= groups for value in found["Groups"])
    for kind in ("CapPrm", "CapEff", "CapAmb"):
        assert {int(value, 16) for value in found[kind]} == {0}, kind


@needs_root
@pytest.mark.parametrize("spec, group", [(USER, grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name),
                                         (f"{USER}:daemon", "daemon"),
                                         (str(pwd.getpwnam(USER).pw_uid) + ":1", "daemon")])
def test_user_serves_snapshots_restarts_and_cleans_up(home, spec, group):
    state = os.path.join(home, "state")
    # root's groups are not to be left
    backend = Backend("vdpa_vfn0,queues=1", directory=home, eal=PROBE, args=["--user", spec],
                      wrapper=["setpriv", "--groups=4,24"])
    try:
        for number in range(2):
            if number > 0:
                backend.start()
            assert_identity(backend.pid, USER, group)
            assert os.stat(backend.sockets[0]).st_uid == pwd.getpwnam(USER).pw_uid
            traffic(backend, home, f"{spec} {number}")
            assert "is saved in" in backend.cmd(f"snapshot vdpa_vfn0 {state}")
            assert os.stat(state).st_uid == pwd.getpwnam(USER).pw_uid
            assert "goes on" in backend.cmd(f"restore vdpa_vfn0 {state}")
            assert backend.telemetry("/vfn/info,vdpa_vfn0")["state"] == "idle"
            # before EalProcess removes it: nothing but EAL's directory may be left by the server
            runtime = os.path.join(home, "dpdk", backend.process.prefix)
            assert os.listdir(runtime)
            process, backend.process = backend.process, None
            process.popen.terminate()
            assert process.popen.wait(20) == 0
            assert os.listdir(runtime) == []
            assert process.wait() == 0
            assert not os.path.exists(backend.sockets[0])
    finally:
        backend.close()


@needs_root
def test_user_with_hugepages(workdir, home):
    """The server has its memory before it is somebody else, and the guest connects to it."""
    process = EalProcess(
        os.path.join(build_dir(), "app", "vfn-vhost"),
        ["--in-memory", "-m", "64", "-d", "librte_vdpa_vfn.so", "--vdev", "vdpa_vfn0,idle=sleep"],
        ["--iface", os.path.join(home, "sock"), "--user", USER],
        env=dict(os.environ, LD_LIBRARY_PATH=plugin_dir()))
    try:
        process.expect(r"^vfn-vhost: ready, 1 socket", 15)
        assert_identity(process.pid, USER, grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name)
        with Echo(workdir, os.path.join(home, "sock0")) as pmd:
            pmd.rounds("huge", rounds=2)
        process.popen.terminate()
        assert process.wait() == 0
        assert not os.path.exists(os.path.join(home, "sock0"))
    finally:
        process.kill()


@needs_root
def test_user_takes_over_from_user(home):
    """Directory and telemetry socket, which EAL made as root, are the user's on both sides."""
    args = ["--user", USER]
    with Backend("vdpa_vfn0", client=True, directory=home, args=args) as old:
        more = ["--take-over", old.process.prefix]
        with Backend("vdpa_vfn0", client=True, directory=home, args=[*args, *more]) as new:
            assert old.process.wait() == 0
            assert "handed over" in old.log()
            old.process = None
            assert_identity(new.pid, USER, grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name)


@needs_root
def test_unconfined_server_can_be_another_user_too(home):
    with Backend(directory=home, args=["--user", USER, "--no-confine"]) as backend:
        assert_identity(backend.pid, USER, grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name)


def ends(workdir, *args, eal=(), **popen):
    """(exit code, our own lines)"""
    process = EalProcess(
        os.path.join(build_dir(), "app", "vfn-vhost"),
        ["--no-huge", "-m", "64", "--no-shconf", "-d", "librte_vdpa_vfn.so", "--vdev",
         "vdpa_vfn0,idle=sleep", *eal],
        args, env=dict(os.environ, LD_LIBRARY_PATH=plugin_dir()), **popen)
    try:
        code = process.wait(20)
    finally:
        process.kill()
    return code, [line for line in process.log().splitlines() if line.startswith("vfn-vhost: ")]


@pytest.mark.parametrize("spec, named", [
    ("", "name is missing"), (":daemon", "name is missing"), ("x" * 200, "too long"),
    ("no-such-user", "no user no-such-user"), ("4294967295", "no user 4294967295"),
    ("-1", "no user -1"), (f"{USER}:no-such-group", "no group no-such-group"),
    (f"{USER}:", "no group "), (f"{USER}:-1", "no group -1"),
    (f"{USER}:4294967295", "no group 4294967295")])
def test_unknown_user_is_wrong_usage(workdir, spec, named):
    code, lines = ends(workdir, "--user", spec)
    assert code == 2 and len(lines) == 1 and named in lines[0], lines


@needs_root
@pytest.mark.parametrize("confine", [[], ["--no-confine"]])
def test_user_who_cannot_remove_the_socket_is_refused(workdir, home, confine):
    assert home
    iface = os.path.join(workdir, "sock")    # root's directory
    code, lines = ends(workdir, "--iface", iface, "--user", USER, *confine)
    assert code == 1 and f"{iface}0" in lines[-1] and "Permission denied" in lines[-1], lines
    assert not os.path.exists(f"{iface}0")


@needs_root
def test_user_who_cannot_use_the_run_time_directory_is_refused(workdir, home, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", workdir)
    iface = os.path.join(home, "sock")
    code, lines = ends(workdir, "--iface", iface, "--user", USER)
    assert code == 1 and "RUNTIME_DIRECTORY" in lines[-1], lines
    # still root then, so that nothing is left
    for _, _, files in os.walk(os.path.join(workdir, "dpdk")):
        assert files == []
    shutil.rmtree(os.path.join(workdir, "dpdk"))


@needs_root
def test_nothing_of_eal_needs_no_directory(workdir, home, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", workdir)
    with Backend(directory=home, eal=["--no-telemetry"], args=["--user", USER]) as backend:
        assert backend.pid
    shutil.rmtree(os.path.join(workdir, "dpdk"))


@needs_root
def test_only_root_becomes_another_user(workdir, home):
    assert home
    wrapper = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups"]
    for path in (os.path.join(plugin_dir(), "librte_vdpa_vfn.so"),
                 os.path.join(build_dir(), "app", "vfn-vhost")):
        shutil.copy(path, workdir)
    process = EalProcess(
        os.path.join(workdir, "vfn-vhost"),
        ["--no-huge", "-m", "64", "--no-shconf", "--no-telemetry", "-d", "librte_vdpa_vfn.so",
         "--vdev", "vdpa_vfn0,idle=sleep"],
        ["--iface", os.path.join(home, "sock"), "--user", USER], wrapper=wrapper,
        env=dict(os.environ, LD_LIBRARY_PATH=workdir))
    try:
        assert process.wait(20) == 1
    finally:
        process.kill()
    assert f"only root can become user {USER}" in process.log()


# --- the unit ---


@pytest.fixture
def unit(workdir):
    """The unit, with the program of the build in it: (path, {name: value})."""
    with open(os.path.join(build_dir(), "app", "vfn-vhost.service"), encoding="ascii") as source:
        text = source.read()
    text, count = re.subn(r"^ExecStart=\S+", "ExecStart=" + os.path.join(
        build_dir(), "app", "vfn-vhost"), text, flags=re.MULTILINE)
    assert count == 1
    path = os.path.join(workdir, "vfn-vhost.service")
    with open(path, "w", encoding="ascii") as target:
        target.write(text)
    return path, dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def analyze(*args):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    return subprocess.run(["systemd-analyze", *args], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, check=False)


def test_unit_is_understood(unit):
    result = analyze("verify", "--man=no", unit[0])
    assert result.returncode == 0 and result.stderr == "", result.stderr


def test_unit_leaves_little(unit, workdir):
    result = analyze("security", "--offline=true", "--threshold=10", unit[0])
    assert result.returncode == 0, result.stdout
    loose = os.path.join(workdir, "loose.service")
    with open(loose, "w", encoding="ascii") as control:
        control.write("[Service]\nExecStart=/bin/true\n")
    assert analyze("security", "--offline=true", "--threshold=10", loose).returncode != 0


@needs_root
def test_served_as_the_unit_has_it(workdir, home, unit):
    """Its user, network, file systems, capabilities and limits without systemd: traffic, a restart,
    a snapshot, an orderly end."""
    _, values = unit
    assert values["CapabilityBoundingSet"] == "" and values["ProtectSystem"] == "strict"
    assert values["PrivateNetwork"] == "yes" and values["NoNewPrivileges"] == "yes"
    program = os.path.join(workdir, "vfn-vhost")
    user = pwd.getpwnam(USER)
    files = int(values["LimitNOFILE"])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        files = min(files, most)
    enter = (f"mount --make-rprivate / && mount --bind {home} {home} && "
             "mount -o remount,bind,ro / && umask " + values["UMask"] + " && exec \"$@\"")
    if subprocess.run(["unshare", "--mount", "--net", "sh", "-c", enter, "sh", "true"],
                      stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespaces to be had here")
    wrapper = ["unshare", "--mount", "--net", "--ipc", "sh", "-c", enter, "sh",
               "prlimit", f"--nofile={files}", f"--core={values['LimitCORE']}",
               "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
               "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    for number in range(2):
        with AsUser(workdir, wrapper=wrapper, args=["-i"], program=program) as server:
            found = tasks(server.process.pid)
            assert {int(value, 16) for value in found["CapBnd"]} == {0}
            assert len(os.listdir(f"/proc/{server.process.pid}/task")) < int(values["TasksMax"])
            assert os.stat(server.socket).st_mode & 0o777 == 0o770
            with Echo(workdir, server.socket, memory="no-huge") as pmd:
                pmd.rounds(f"unit {number}", rounds=2)
            server.process.send(f"snapshot vdpa_vfn0 {home}/state")
            assert wait_until(lambda: os.path.exists(f"{home}/state"))
            os.unlink(f"{home}/state")
        assert not os.path.exists(server.socket)


# As the first process of a container of its own: what it could change of this machine is read-only
# or covered, and nothing but the unit is started.
CONTAINER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/systemd
for place in etc/systemd/system usr/local etc/passwd etc/group; do
	mount --bind "$0/$place" "/$place"
done
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
export container=vfn
exec /lib/systemd/systemd --system --unit=vfn.target --log-target=console --show-status=no
"""

DROP_IN = """[Unit]
DefaultDependencies=no
[Service]
Environment="EAL=--no-pci --no-huge -m 64 --no-shconf -d librte_vdpa_vfn.so --vdev vdpa_vfn0"
Environment=LD_LIBRARY_PATH=/usr/local/bin
StandardOutput=append:/run/vfn.log
StandardError=append:/run/vfn.log
"""


def container_tree(root, unit_path):
    """What CONTAINER mounts over the machine's own."""
    units, programs = (os.path.join(root, d) for d in ("etc/systemd/system", "usr/local/bin"))
    os.makedirs(os.path.join(units, "vfn-vhost.service.d"))
    os.makedirs(programs)
    for path in (os.path.join(plugin_dir(), "librte_vdpa_vfn.so"),
                 os.path.join(build_dir(), "app", "vfn-vhost")):
        shutil.copy(path, programs)
    with open(unit_path, encoding="ascii") as source:
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/usr/local/bin/vfn-vhost", source.read(),
                      flags=re.MULTILINE)
    for name, content in (("vfn-vhost.service", text),
                          ("vfn-vhost.service.d/test.conf", DROP_IN),
                          ("vfn.target", "[Unit]\nDefaultDependencies=no\n"
                                         "Requires=vfn-vhost.service\n")):
        with open(os.path.join(units, name), "w", encoding="ascii") as target:
            target.write(content)
    for name, line in (("passwd", "vfn:x:997:997::/:/usr/sbin/nologin"), ("group", "vfn:x:997:")):
        with open(f"/etc/{name}", encoding="utf-8") as source:
            lines = [ln for ln in source.read().splitlines() if not ln.startswith("vfn:")]
        with open(os.path.join(root, "etc", name), "w", encoding="utf-8") as target:
            target.write("\n".join([*lines, line, ""]))


def cgroups():
    return {os.path.join(base, name) for base, names, _ in os.walk("/sys/fs/cgroup")
            for name in names}


@needs_root
@filtered
@pytest.mark.skipif(not NIGHTLY, reason="for the night: systemd makes cgroups on this machine")
def test_started_by_systemd(workdir, unit):
    """Start, traffic, restart and stop, with all that the unit takes away."""
    if not os.access("/lib/systemd/systemd", os.X_OK):
        pytest.skip("no systemd here")
    os.chmod(workdir, 0o755)
    root = os.path.join(workdir, "root")
    container_tree(root, unit[0])
    before = cgroups()
    systemd = Process(["unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--fork",
                       "--kill-child", "--mount-proc", "sh", "-c", CONTAINER, root], name="systemd")

    def first():
        with open(f"/proc/{systemd.pid}/task/{systemd.pid}/children", encoding="ascii") as pids:
            return pids.read().split()

    def ask(*command):
        return subprocess.run(["nsenter", "-t", first()[0], "-m", "-p", "systemctl", *command],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)

    def log():
        try:
            with open(f"/proc/{first()[0]}/root/run/vfn.log", encoding="utf-8") as text:
                return text.read()
        except (FileNotFoundError, IndexError):
            return ""

    try:
        wait_until(lambda: not systemd.alive() or
                   first() and "loaded" in ask("list-units").stdout, 20)
        if not systemd.alive():
            pytest.skip(f"systemd does not run in a container here: {systemd.log()[-200:]}")
        for number in range(2):
            assert wait_until(lambda n=number: log().count("vfn-vhost: ready") > n, 20), log()
            server = ask("show", "vfn-vhost", "-p", "Result,NRestarts").stdout
            assert "Result=success" in server and "NRestarts=0" in server
            assert log().count("vfn-vhost: confined, seccomp filter") == number + 1
            with Echo(workdir, f"/proc/{first()[0]}/root/run/vfn/vfn-0", memory="no-huge") as pmd:
                pmd.rounds(f"systemd {number}", rounds=2)
            assert ask("restart" if number == 0 else "stop", "vfn-vhost").returncode == 0
        ended = ask("show", "vfn-vhost", "-p", "Result,ExecMainCode,ExecMainStatus").stdout
        assert "Result=success" in ended and "ExecMainStatus=0" in ended
        assert not os.path.exists(f"/proc/{first()[0]}/root/run/vfn")
    finally:
        systemd.kill()
        for path in sorted(cgroups() - before, reverse=True):
            if os.path.basename(path) in ("init.scope", "system.slice", "vfn-vhost.service"):
                wait_until(lambda p=path: _removed(p), 2)


def _removed(path):
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
