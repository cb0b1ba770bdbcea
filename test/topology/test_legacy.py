# SPDX-License-Identifier: BSD-3-Clause
"""Drivers without VERSION_1, as firmware has them: a scripted one, and iPXE in QEMU."""

import shutil
import subprocess
from pathlib import Path

import pytest

# pytest finds fixtures by their names here
from frontend import FORMATS, frames, opened, server, shared  # noqa: F401
from guest import QEMU
from harness import MRG_RXBUF, PROTOCOL_FEATURES, SLOW, VERSION_1, wait_until
from net_device import FEATURES, open_frontend
from vhost_user import EVENT_IDX, INDIRECT

DEVS = (["vdpa_vfn0", "vdpa_vfn1,port=wire", "vdpa_vfn2,port=wire,peer=vdpa_vfn1"],)
LEGACY = 1 << PROTOCOL_FEATURES
ROM = Path("/usr/lib/ipxe/qemu/efi-virtio.rom")    # of "-device virtio-net-pci"


@pytest.mark.parametrize("features", [0, 1 << MRG_RXBUF, 1 << INDIRECT, 1 << EVENT_IDX],
                         ids=["small", "mergeable", "indirect", "event-index"])
def test_header_is_shorter_but_with_mergeable_buffers(opened, features):
    fe = opened(features=features | LEGACY)
    assert not fe.features & 1 << VERSION_1
    assert fe.header == (12 if features & 1 << MRG_RXBUF else 10)
    fe.check(frames("legacy", 200))
    fe.check(frames("legacy", 50), cuts=(fe.header, 30))
    fe.check(frames("legacy", 50), cuts=(1, 5, fe.header - 1, fe.header, 40))
    if features & 1 << INDIRECT:
        fe.check(frames("legacy", 50), indirect=True)


@FORMATS
def test_modern_driver_after_a_legacy_one(server, packed):
    """As firmware is followed by an operating system."""
    for features in (LEGACY, FEATURES, LEGACY):
        with open_frontend(server.sockets[0], features=features,
                           packed=packed and features == FEATURES) as fe:
            fe.check(frames("one after another", 100))
            fe.stop()


def test_restored_with_the_same_header(server):
    """What is saved says which header there is."""
    path = f"{server.directory}/state"
    with open_frontend(server.sockets[0], features=LEGACY) as fe:
        fe.check(frames("before", 50))
        fe.disconnect()
        assert wait_until(lambda: server.telemetry("/vfn/info,vdpa_vfn0")["state"] == "idle")
        assert "is saved in" in server.cmd(f"snapshot vdpa_vfn0 {path}")
        assert "The next guest of" in server.cmd(f"restore vdpa_vfn0 {path}")
        fe.again(stale=True)
        fe.check(frames("after", 100))


@pytest.mark.skipif(not ROM.exists() or shutil.which(QEMU) is None,
                    reason="Debian packages qemu-system-x86 and ipxe-qemu are not installed")
@pytest.mark.parametrize("props", ["disable-modern=on", "disable-modern=off"],
                         ids=["legacy", "transitional"])
def test_firmware_asks_for_an_address(opened, server, props):
    """iPXE in a QEMU without a disk: its DHCP requests arrive as it sent them."""
    fe = opened(dev=2)
    counted = server.counted("vdpa_vfn1", 1)
    # vectors=0: QEMU 7.2 without KVM crashes with MSI-X and vhost-user
    with subprocess.Popen(
            [QEMU, "-nodefaults", "-no-user-config", "-display", "none",
             "-machine", "pc,accel=tcg,graphics=off", "-m", "128M",
             "-object", "memory-backend-memfd,id=ram,size=128M,share=on",
             "-numa", "node,memdev=ram", "-boot", "n",
             "-chardev", f"socket,id=c,path={server.sockets[1]}",
             "-netdev", "vhost-user,id=n,chardev=c", "-device",
             f"virtio-net-pci,netdev=n,mac=52:54:00:00:0a:01,vectors=0,{props}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as qemu:
        try:
            got = []

            def discover():
                got.extend(fe.receive())
                return [n for n in got if n[12:14] == b"\x08\x00" and n[23] == 17 and
                        n[36:38] == b"\x00\x43" and n[278:282] == b"\x63\x82\x53\x63"]
            asked = wait_until(discover, 90 * SLOW)
            assert asked, [n.hex() for n in got]
            # hardware address of the client, in a packet as long as its header says
            assert asked[0][70:76] == bytes.fromhex("525400000a01")
            assert int.from_bytes(asked[0][16:18], "big") <= len(asked[0]) - 14
            # whoever sent a frame finds it counted, who received it may be earlier
            assert wait_until(lambda: counted("packets"))
            assert not counted("errors") and not counted("dropped")
        finally:
            qemu.kill()
            assert b"error" not in qemu.stderr.read().lower()
