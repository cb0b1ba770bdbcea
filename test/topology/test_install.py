# SPDX-License-Identifier: BSD-3-Clause
"""What meson install puts where: DPDK has to find the driver, pkg-config the library, cc the header.

That recipes work with an installed driver is in test_recipes.py.
"""

import glob
import json
import os
import shutil
import subprocess
import tempfile

import pytest

import pmd
from harness import build_dir

EXAMPLES = os.path.join(pmd.ROOT, "examples")


def run(*command, **how):
    return subprocess.run(command, check=True, capture_output=True, text=True, **how).stdout


@pytest.fixture(scope="module")
def installed():
    with tempfile.TemporaryDirectory() as dest:
        run("meson", "install", "-C", build_dir(), "--no-rebuild", "--destdir", dest)
        yield dest


def found(installed, name):
    paths = [path for path in glob.glob(f"{installed}/**/{name}", recursive=True)
             if not os.path.islink(path)]
    assert len(paths) == 1, paths
    return paths[0]


def flags(installed):
    """Of the compiler, for the installed library."""
    pc = found(installed, "libvring.pc")
    prefix = run("pkg-config", "--variable=prefix", pc).strip()
    found_flags = run("pkg-config", f"--define-variable=prefix={installed}{prefix}", "--cflags",
                      "--libs", pc).split()
    options = json.loads(run("meson", "introspect", "--buildoptions", build_dir()))
    sanitize = next(o["value"] for o in options if o["name"] == "b_sanitize")
    return found_flags + ([] if sanitize == "none" else [f"-fsanitize={sanitize}"])


def test_driver_is_among_those_that_dpdk_loads(installed):
    driver = found(installed, "librte_vdpa_vfn.so")
    where = os.path.dirname(driver)[len(installed):]
    assert glob.glob(f"{where}/librte_net_virtio.so*"), f"{where} is not DPDK's driver directory"
    # a bare name after -d is looked for beside librte_eal.so, and has to be the same file
    links = [path for path in glob.glob(f"{installed}/**/librte_vdpa_vfn.so", recursive=True)
             if os.path.islink(path)]
    assert [os.path.realpath(path) for path in links] == [driver]
    assert glob.glob(f"{os.path.dirname(links[0])[len(installed):]}/librte_eal.so*")


@pytest.mark.parametrize("library", ["shared", "static"])
@pytest.mark.parametrize("name, said", [
    ("vring_echo.c", "hello ring\nchain 4: address is not mapped\n"),
    ("vring_in_cpp.cc", "queue size")])
def test_examples_build_against_the_library(installed, workdir, name, said, library):
    compiler = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror"] if name.endswith(".c") else [
        "c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    link = flags(installed)
    if library == "static":
        link = [flag.replace("-lvring", "-l:libvring.a") for flag in link]
    run(*compiler, "-o", f"{workdir}/example", os.path.join(EXAMPLES, name), *link)
    shared = found(installed, "libvring.so.*")
    needed = [line for line in run("readelf", "-d", f"{workdir}/example").splitlines()
              if "(NEEDED)" in line and "libvring" in line]
    assert len(needed) == (library == "shared")
    printed = run(f"{workdir}/example",
                  env={**os.environ, "LD_LIBRARY_PATH": os.path.dirname(shared)})
    assert said.split("\n")[0] in printed
    assert all(line in printed for line in said.split("\n"))


def test_soname_is_made_of_the_version(installed):
    version = json.loads(run("meson", "introspect", "--projectinfo", build_dir()))["version"]
    major, minor = version.split(".")[:2]
    shared = found(installed, "libvring.so.*")
    assert os.path.basename(shared) == f"libvring.so.{version.split('-')[0]}"
    soname = run("readelf", "-d", shared).split("Library soname: [")[1].split("]")[0]
    assert soname == f"libvring.so.{f'0.{minor}' if major == '0' else major}"
    assert os.path.samefile(os.path.join(os.path.dirname(shared), soname), shared)
    assert f"\nVersion: {version}\n" in open(found(installed, "libvring.pc"), encoding="ascii").read()


def test_every_example_is_tried():
    assert sorted(os.listdir(EXAMPLES)) == ["vring_echo.c", "vring_in_cpp.cc"]


@pytest.mark.parametrize("standard", ["c++11", "c++17", "c++20"])
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_cpp_takes_the_header(compiler, standard):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    run(compiler, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Wold-style-cast", "-Werror",
        "-fsyntax-only", "-I", os.path.join(pmd.ROOT, "lib", "vring"),
        os.path.join(EXAMPLES, "vring_in_cpp.cc"))


def test_program_and_man_page_are_installed(installed):
    program = found(installed, "vfn-vhost")
    assert os.access(program, os.X_OK)
    found(installed, "vfn-vhost.1")
    version = json.loads(run("meson", "introspect", "--projectinfo", build_dir()))["version"]
    assert run(program, "--version").startswith(f"vfn-vhost {version}, with DPDK ")


def test_unit_starts_the_installed_program_as_a_user_that_is_made(installed):
    with open(found(installed, "vfn-vhost.service"), encoding="ascii") as unit:
        text = unit.read()
    program = text.split("ExecStart=")[1].split()[0]
    assert os.access(installed + program, os.X_OK), program
    with open(found(installed, "vfn-vhost.conf"), encoding="ascii") as users:
        assert "\nu vfn " in users.read() and "\nUser=vfn\n" in text
