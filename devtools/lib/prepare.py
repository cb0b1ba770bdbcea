# SPDX-License-Identifier: BSD-3-Clause
"""What a command needs before it can start: packages, hugepages, and a build of what it runs.

It is seen to with common.sh, as test.sh does it. VFN_BUILD names a build directory of somebody who
has seen to everything: the tests.
"""

import atexit
import os
import signal
import subprocess
import sys

import pmd

COMMON = os.path.join(pmd.ROOT, "devtools", "lib", "common.sh")
HUGEPAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB"
DEVICE = ("app/vfn-vhost", "drivers/vdpa/vfn/librte_vdpa_vfn.so")
LIMITS = ("app/vfn-bench/vfn-bench",)       # bench_machine.py runs it


def _count(what):
    try:
        with open(os.path.join(HUGEPAGES, what), encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0


def _common(script, *args):
    """Run a line of shell with the functions of common.sh; its output is not ours."""
    done = subprocess.run(
        ["bash", "-c", f'set -euo pipefail; . "$1"; shift; {script}', sys.argv[0], COMMON,
         *map(str, args)], cwd=pmd.ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    return done.returncode


def _must(code):
    if code != 0:
        sys.exit(1)


def _hugepages(number):
    """Reserve what is missing; it is given back at the end."""
    before = _count("nr_hugepages")
    code = _common('hugepages "$1"', number)
    if (added := _count("nr_hugepages") - before) > 0:
        atexit.register(_common, 'hugepages_back "$1"', added)
    _must(code)


def packages(names):
    """As Ctrl-C ends with blocks, so do other signals from here on; and these are installed."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if "VFN_BUILD" not in os.environ:
        _must(_common('packages "$@"', *names))


def ready(targets, pages, more=(), directory="build", options=("-Dbuildtype=release",)):
    """See to all of it, or end the program with 1 and the reason."""
    packages(())
    if "VFN_BUILD" in os.environ:
        return
    _must(_common('packages "${BUILD_PACKAGES[@]}" "$@"', *more))
    _must(_common('dir=$1 n=$2; build_targets=("${@:3:n}"); build "$dir" "${@:3+n}"',
                  directory, len(targets), *targets, *options))
    os.environ["VFN_BUILD"] = os.path.join(pmd.ROOT, directory)
    _hugepages(pages)
