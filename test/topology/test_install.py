# SPDX-License-Identifier: BSD-3-Clause
"""What meson install puts where: DPDK has to find the driver, pkg-config the library."""

import glob
import json
import os
import subprocess
import tempfile

import pytest

from harness import build_dir

PROGRAM = """
#include <stdio.h>
#include <vringh.h>

int
main(void)
{
	puts(vringh_strerror(VRINGH_E_SIZE));
	return 0;
}
"""


def run(*command, **how):
    return subprocess.run(command, check=True, capture_output=True, text=True, **how).stdout


@pytest.fixture(scope="module")
def installed():
    with tempfile.TemporaryDirectory() as dest:
        run("meson", "install", "-C", build_dir(), "--no-rebuild", "--destdir", dest)
        yield dest


def found(installed, name):
    paths = glob.glob(f"{installed}/**/{name}", recursive=True)
    assert len(paths) == 1, paths
    return paths[0]


def test_driver_is_among_those_that_dpdk_loads(installed):
    where = os.path.dirname(found(installed, "librte_vdpa_vfn.so"))[len(installed):]
    assert glob.glob(f"{where}/librte_net_virtio.so*"), f"{where} is not DPDK's driver directory"


def test_program_builds_against_the_library(installed, workdir):
    pc = found(installed, "libvring.pc")
    prefix = run("pkg-config", "--variable=prefix", pc).strip()
    flags = run("pkg-config", f"--define-variable=prefix={installed}{prefix}", "--cflags", "--libs",
                pc).split()
    options = json.loads(run("meson", "introspect", "--buildoptions", build_dir()))
    sanitize = next(o["value"] for o in options if o["name"] == "b_sanitize")
    if sanitize != "none":
        flags.append(f"-fsanitize={sanitize}")
    with open(f"{workdir}/use.c", "w", encoding="ascii") as source:
        source.write(PROGRAM)
    run("cc", "-o", "use", "use.c", *flags, cwd=workdir)
    assert "queue size" in run(f"{workdir}/use")


def test_program_and_man_page_are_installed(installed):
    assert os.access(found(installed, "vfn-vhost"), os.X_OK)
    found(installed, "vfn-vhost.1")


def test_unit_starts_the_installed_program_as_a_user_that_is_made(installed):
    with open(found(installed, "vfn-vhost.service"), encoding="ascii") as unit:
        text = unit.read()
    program = text.split("ExecStart=")[1].split()[0]
    assert os.access(installed + program, os.X_OK), program
    with open(found(installed, "vfn-vhost.conf"), encoding="ascii") as users:
        assert "\nu vfn " in users.read() and "\nUser=vfn\n" in text
