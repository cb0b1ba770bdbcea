# SPDX-License-Identifier: BSD-3-Clause
"""Every block of the documentation: each has a comment that says how it is run, and is run like that.

A session (see devtools/lib/recipes.py) has namespaces of its own for mounts, processes and networks: its
/run is empty, what it installs and writes is in memory, and nothing of it is left at the end.
"""

import os
import re
import subprocess
import sys

import pytest
from harness import SLOW, build_dir, remarks

import pmd
import recipes

ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
# over /usr, so that an installation is a real one, and over the sources, in which build/ is what is tested
SETUP = """
set -eu
mount -t tmpfs tmpfs /run
ip link set lo up
over() {
	mkdir -p "/run/over/$2/new" "/run/over/$2/work"
	mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/over/$2/new,workdir=/run/over/$2/work" "$1"
}
over /usr usr
over "$ROOT" root
mkdir -p "$ROOT/build"
[ "$VFN_BUILD" = "$ROOT/build" ] || mount --bind "$VFN_BUILD" "$ROOT/build"
export PATH=/usr/local/bin:$PATH
cd "$ROOT"
"""
INSTALL = "meson install -C build --no-rebuild --quiet\n"


def alone(script, *args, timeout=400, **env):
    """Run a script in namespaces of its own; skips the test where there can be none."""
    environment = {**os.environ, "ROOT": pmd.ROOT, "VFN_BUILD": build_dir(), **env}
    trial = subprocess.run([*ALONE, "sh", "-c", SETUP], env=environment, capture_output=True,
                           text=True, check=False)
    if trial.returncode != 0:
        pytest.skip(f"no namespaces here: {trial.stderr.strip()}")
    return subprocess.run([*ALONE, "sh", "-c", SETUP + script, "sh", *args], env=environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False)


def run_session(path, number, *options, before=""):
    done = alone(before + 'exec "$@"', sys.executable, "devtools/lib/recipes.py", path, str(number),
                 *options)
    print(done.stdout)
    missing = [line for line in done.stdout.splitlines() if line.startswith("skipped: ")]
    if done.returncode == 77:
        pytest.skip(missing[-1])
    remarks.extend(missing)
    assert done.returncode == 0, done.stdout[-3000:]
    return done


def all_sessions():
    found = []
    for path in recipes.documents():
        try:
            found += [pytest.param(path, number, id=str(session[-1]))
                      for number, session in enumerate(recipes.sessions(path))]
        except pmd.PmdError:
            pass        # test_every_block_says_how_it_is_run
    return found


NOT_SANITIZED = pytest.mark.skipif(SLOW > 1, reason="the build is instrumented")


@pytest.mark.parametrize("path", recipes.documents())
def test_every_block_says_how_it_is_run(path):
    for block in recipes.blocks(path):
        if block.kind == "excerpt":
            with open(os.path.join(pmd.ROOT, block.word("from")), encoding="utf-8") as file:
                rest = iter([line.strip() for line in file])
            for line in filter(None, map(str.strip, block.text.splitlines())):
                assert line == "..." or line in rest, f"{block}: not there, or not here: {line}"


@NOT_SANITIZED
@pytest.mark.skipif(os.cpu_count() < 2, reason="one CPU")
@pytest.mark.parametrize("path, number", all_sessions())
def test_session(path, number):
    # the guide and the manual pages are those of an installed vfn
    run_session(path, number, before="" if path.endswith(".md") else INSTALL)


def session_of(path, words):
    """The number of a session that has these words in it."""
    return next(number for number, session in enumerate(recipes.sessions(path))
                if any(words in block.text for block in session))


@NOT_SANITIZED
def test_recipe_works_installed():
    """-d finds the installed driver, which EAL has loaded already."""
    number = session_of("doc/howto/rate-limit.md", "--stats-period")
    run_session("doc/howto/rate-limit.md", number, "--installed", before=INSTALL)


@NOT_SANITIZED
def test_recipe_works_installed_and_built():
    """-d finds the one in build/, and EAL's own directory has the other: the second does nothing."""
    number = session_of("doc/howto/rate-limit.md", "--stats-period")
    done = run_session("doc/howto/rate-limit.md", number, before=INSTALL)
    assert re.search(r"build/\S+ is loaded: its copy /usr/\S+ does nothing", done.stdout)
    done = alone(INSTALL + "exec devtools/quickstart.sh --seconds 1")
    assert done.returncode == 0 and "PASS" in done.stdout, done.stdout[-3000:]


ALARMING = re.compile(r"\b(err(or)?|warn(ing)?|fail(ed|ure)?|unavail\w*|unable|cannot|invalid|no|not|"
                      r"random|disabl\w+)\b", re.IGNORECASE)


def explained():
    """A regex for all messages that the page explains."""
    with open(os.path.join(pmd.ROOT, "doc/howto/messages.md"), encoding="utf-8") as page:
        quoted = [quote for line in page if line.startswith("| `")
                  for quote in re.findall(r"`([^`]+)`", line.split("|")[1])]
    assert len(quoted) > 10
    return re.compile("|".join(".*".join(map(re.escape, quote.split("..."))) for quote in quoted))


def test_messages_that_look_alarming_are_explained(workdir):
    known, text = explained(), ""
    with pmd.Backend(["vdpa_vfn0"], directory=workdir) as backend:
        for memory in (["--in-memory", "--single-file-segments"],
                       ["--no-huge", "-m", "1024", "--no-shconf"]):
            front = pmd.EalProcess("dpdk-testpmd", [
                "-l", "0,1", "--main-lcore", "1", *memory, "--vdev",
                f"net_virtio_user0,path={backend.sockets[0]}"], [
                    "--forward-mode=io", "--tx-first", "--stats-period", "1"],
                wrapper=("stdbuf", "-oL"))
            try:
                front.expect("Rx-pps: +[1-9]", 60)
            finally:
                front.kill()
            text += front.log()
        text += backend.log()
    alarming = [line for line in text.splitlines() if ALARMING.search(line)]
    assert alarming, text
    strange = [line for line in alarming if not known.search(line)]
    assert not strange, "\n".join(strange)


@pytest.mark.parametrize("text, why", [
    ("<!-- run: shell -->\n\n    false\n", "ended with 1"),
    ("<!-- run: shell expect=\"b\" -->\n\n    echo a\n", "expected 'b'"),
    ("<!-- run: shell -->\n\n    echo a\n\n<!-- run: output -->\n\n    b\n", "printed was"),
    ("<!-- run: background ready=\"x\" -->\n\n    true\n", "expected 'x'"),
    ("<!-- run: background ready=\"x\" -->\n\n    echo x; exit\n\n<!-- run: shell -->\n\n    sleep 1\n",
     "has ended"),
    ("<!-- run: background name=a ends -->\n\n    false\n", "ended with 1"),
    ("<!-- run: c -->\n\n    int f(void) { return x; }\n", "CalledProcessError"),
    ("<!-- run: shell s/a/b/ -->\n\n    true\n", "has no effect"),
])
def test_a_block_that_goes_wrong_is_noticed(workdir, text, why):
    path = os.path.join(workdir, "page.md")
    with open(path, "w", encoding="utf-8") as page:
        page.write(f"# Page\n\n{text}")
    done = subprocess.run([sys.executable, recipes.__file__, path, "0"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=200, check=False)
    assert done.returncode == 1
    assert why in done.stdout


@pytest.mark.parametrize("text", ["    true\n", "```\ntrue\n```\n", "<!-- run: skip -->\n\n    true\n",
                                  "<!-- run: shell -->\n\nText between.\n\n    true\n"])
def test_a_block_without_a_comment_is_noticed(workdir, text):
    path = os.path.join(workdir, "page.md")
    with open(path, "w", encoding="utf-8") as page:
        page.write(f"# Page\n\n{text}")
    with pytest.raises(pmd.PmdError, match="no comment says"):
        recipes.blocks(path)
