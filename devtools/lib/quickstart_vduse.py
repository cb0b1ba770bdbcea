# SPDX-License-Identifier: BSD-3-Clause
"""quickstart.sh --vduse: doc/howto/vduse.md, run on this machine, where its kernel can."""

import os
import shutil
import subprocess

import pmd
import prepare
import recipes

PAGE = os.path.join(pmd.ROOT, "doc", "howto", "vduse.md")
CONTROL = "/dev/vduse/control"


def why_not():
    """Why the kernel of this machine cannot have a function, or None."""
    if os.geteuid() != 0:
        return "only root can give the kernel a device"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for tool in ("vdpa", "ip"):
        if shutil.which(tool, path=path) is None:
            return f"there is no {tool} here: it is in iproute2"
    if (modprobe := shutil.which("modprobe", path=path)) is not None:
        for module in ("vduse", "virtio_vdpa"):
            subprocess.run([modprobe, module], check=False, stdin=subprocess.DEVNULL,
                           capture_output=True)
    if not os.path.exists(CONTROL):
        return (f"kernel {os.uname().release} has no VDUSE ({CONTROL}): it is built without "
                "CONFIG_VDPA_USER, or its module vduse is not installed; Debian 12 has it in "
                "linux-image-6.12* of the security suite")
    if not os.path.isdir("/sys/bus/vdpa/drivers/virtio_vdpa"):
        return f"kernel {os.uname().release} has VDUSE, but no virtio_vdpa to use it with"
    return None


def run():
    """The exit code."""
    if (why := why_not()) is not None:
        print(f"FAIL: {why}")
        return 1
    prepare.ready(prepare.DEVICE, 0)
    for block in recipes.blocks(PAGE):
        if block.kind in recipes.RUN:
            print(f"\n{block.text}", flush=True)
    return recipes.main([PAGE, "0"])
