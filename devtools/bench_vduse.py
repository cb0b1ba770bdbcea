#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The kernel's virtio_net on two functions by VDUSE, against two taps without vhost, and against the
VDUSE server of DPDK 24.11 (net_vhost in testpmd).

All in one guest of QEMU's TCG, one after the other, in two network namespaces: frames from one to
the other. The guest's clock counts instructions (-icount: a nanosecond is one), so "seconds" are
10^9 of them, of everything: sender, server, kernel and receiver. It has one CPU, since of several the
clock runs for those too that wait for their turn; and does without what TCG counts for each byte, string
instructions, as far as the kernel and libc can. Twice for each: as fast as they go, which says how many
arrive in a second; and at a pace at which none is lost, which says what a frame costs. A server that
polls (poll, dpdk) uses all of the CPU that is left at any pace.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import prepare  # noqa: E402
from guest import qemu11, vduse  # noqa: E402
from guest.image import ImageError, apt, cache_dir, locked, new_entry  # noqa: E402

LIBRARIES = "usr/lib/x86_64-linux-gnu"
SETUP = """
mkdir -p /run; mount -t tmpfs run /run; mkdir -p /var; ln -sfn /run /var/run
"""
# nanoseconds since the start, and those that the CPU was idle
CLOCK = ("sed -n 's/^now at \\([0-9]*\\).*/\\1/p; s/.*idle_sleeptime *: *\\([0-9]*\\).*/\\1/p' "
         "/proc/timer_list")


class Counted(vduse.VduseGuest):
    """Whose clock counts instructions."""

    def _argv(self):
        argv = super()._argv()
        argv[argv.index("-cpu") + 1] += ",erms=off,fsrm=off"    # libc asks the CPU
        argv[argv.index("-append") + 1] += " clearcpuid=erms,fsrm,rep_good"
        return [*argv, "-icount", "shift=0,sleep=off"]


def dpdk_24_11():
    """{path in the guest: contents} of Debian 13's testpmd, with a loader and libraries of its own."""
    cache = cache_dir()
    root = cache / "dpdk-dev-trixie"
    with locked(cache):
        if not root.exists():
            with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as work:
                debs = qemu11.download(Path(work), ("dpdk-dev",), qemu11.RELEASE)
                with new_entry(cache, root.name) as entry:
                    for deb in debs:
                        apt("dpkg-deb", "-x", str(deb), str(entry))
    wanted = [root / "usr/bin/dpdk-testpmd", *(root / LIBRARIES).glob("librte_*.so.25*")]
    wanted += [path for path in (root / LIBRARIES).glob("*.so.*")
               if not path.name.startswith(("librte_", "libLLVM", "libicu", "libgtk"))
               and path.stat().st_size < 8 << 20]
    wanted += list((root / LIBRARIES / "dpdk/pmds-25.0").glob("librte_net_vhost.so*"))
    files = {f"trixie/{path.name}": path.read_bytes() for path in wanted if path.is_file()}
    loader = next(iter((root / LIBRARIES).glob("ld-linux-x86-64.so.2")))
    files["trixie/ld.so"] = loader.read_bytes()
    return files


def ours(guest, pairs, idle="sleep"):
    guest.run("export LD_LIBRARY_PATH=/plugin; vfn-vhost -l 0 --no-pci --no-huge -m 64 "
              f"-d librte_vdpa_vfn.so --vdev vdpa_vfn0,vduse=vd0,port=wire,idle={idle} "
              f"--vdev vdpa_vfn1,vduse=vd1,port=wire,peer=vdpa_vfn0,idle={idle} "
              ">/tmp/server 2>&1 </dev/null & "
              "until grep ready /tmp/server; do sleep 0.1; done")
    for box in pairs:
        add(guest, box)


def polling(guest, pairs):
    ours(guest, pairs, "busy")


def theirs(guest, pairs):
    guest.run("/trixie/ld.so --library-path /trixie /trixie/dpdk-testpmd --lcores 0@0,1@0 --no-pci --no-huge "
              "-m 256 -d librte_mempool_ring.so.25.0 -d librte_net_vhost.so.25.0 "
              "--vdev net_vhost0,iface=/dev/vduse/vd0,queues=1,tso=1 "
              "--vdev net_vhost1,iface=/dev/vduse/vd1,queues=1,tso=1 "
              "-- --forward-mode=io --auto-start --stats-period 3600 --total-num-mbufs=8192 "
              ">/tmp/server 2>&1 </dev/null & "
              "for i in $(seq 100); do test -e /dev/vduse/vd1 && exit; sleep 0.1; done; "
              "cat /tmp/server; exit 1")
    for box in pairs:
        add(guest, box)


def add(guest, box):
    guest.run(f"vdpa dev add name {box} mgmtdev vduse; "
              f"for i in $(seq 100); do test -e /sys/bus/vdpa/devices/{box}/virtio*/net/* && break; "
              "sleep 0.1; done; "
              f"ip link set $(basename /sys/bus/vdpa/devices/{box}/virtio*/net/*) netns {box} name e")


def taps(guest, pairs):
    guest.run("tapwire ta tb >/tmp/server 2>&1 </dev/null & "
              "until grep ready /tmp/server; do sleep 0.1; done")
    for box, name in zip(pairs, ("ta", "tb")):
        guest.run(f"ip link set {name} netns {box} name e")


KINDS = {"vfn": (ours, "vfn-vhost"), "poll": (polling, "vfn-vhost"), "tap": (taps, "tapwire"),
         "dpdk": (theirs, "testpmd")}


POLL = ("poll", "dpdk")


def send(guest, count, size, pause):
    """Frames from the first to the second, counted there."""
    arrived = "ip netns exec vd1 cat /sys/class/net/e/statistics/rx_packets"
    blast = "ip netns exec vd0 blast e"
    out = guest.run(f"{arrived}; {CLOCK}; {blast} 0 {size}; {CLOCK}; {blast} {count} {size} {pause}; "
                    f"{CLOCK}; sleep 0.2; {arrived}", timeout=1200).out.split()
    before, *clock, after = map(int, out)
    frames = after - before
    now, idle = clock[::2], clock[1::2]
    # less what it costs to begin
    elapsed = now[2] - now[1] - (now[1] - now[0])
    cpu = elapsed - (idle[2] - idle[1] - (idle[1] - idle[0]))
    return {"frames": frames, "lost": max(count - frames, 0), "cpu": cpu, "elapsed": elapsed,
            "per_second": frames * 1e9 / elapsed, "instructions": cpu / max(frames, 1)}


def measure(guest, kind, size, count, pause):
    """{"fast": figures, "paced": figures} of one kind."""
    pairs = ("vd0", "vd1")
    guest.run("; ".join(f"ip netns add {box}" for box in pairs))
    start, process = KINDS[kind]
    start(guest, pairs)
    guest.run("; ".join(f"ip -n {box} link set e up" for box in pairs) + "; sleep 2")
    send(guest, count // 10, size, 0)   # warm
    row = {"fast": send(guest, count, size, 0), "paced": send(guest, count, size, pause)}
    guest.run("vdpa dev del vd0; vdpa dev del vd1; ip netns delete vd0; ip netns delete vd1; "
              f"killall {process} ld.so; sleep 1; killall -KILL {process} ld.so; "
              "rm -f /tmp/server", check=False)
    return row


def main():
    parser = argparse.ArgumentParser(prog="devtools/bench_vduse.py", description=__doc__)
    parser.add_argument("--sizes", default="64,1500", help="bytes of frames (%(default)s)")
    parser.add_argument("--count", type=int, default=50000, help="frames (%(default)s)")
    parser.add_argument("--kinds", default="vfn,tap,poll,dpdk", help="of %(default)s")
    parser.add_argument("--pause", type=int, default=5000,
                        help="microseconds between bursts of 32, of the slow ones (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    prepare.ready(prepare.DEVICE, 0, ["qemu-system-x86", "busybox-static", "ethtool", "pciutils"])
    vduse.MORE_PROGRAMS += ("tapwire", "blast")
    files, result = {}, {}
    if "dpdk" in kinds:
        try:
            files = dpdk_24_11()
        except ImageError as error:
            print(f"without dpdk: {error}", flush=True)
            kinds.remove("dpdk")
    vduse.extra_files = lambda: files
    with Counted(cpus=1, memory=(3 if "dpdk" in kinds else 1) << 20) as guest:
        guest.boot()
        guest.run(SETUP)
        for size in map(int, args.sizes.split(",")):
            for kind in kinds:
                row = measure(guest, kind, size, args.count, args.pause)
                result.setdefault(size, {})[kind] = row
                cost = "it polls" if kind in POLL else (
                    f"{row['paced']['instructions']:8.0f} instructions per frame, "
                    f"{row['paced']['lost']} lost")
                print(f"{size:5} bytes  {kind:5} {row['fast']['per_second']:8.0f} frames per second, "
                      f"{row['fast']['lost']} lost;  {cost}", flush=True)
            for one, other in (("vfn", "tap"), ("vfn", "dpdk"), ("poll", "dpdk")):
                if one in kinds and other in kinds:
                    a, b = result[size][one], result[size][other]
                    cost = "" if other in POLL else (
                        ", instructions per frame "
                        f"{a['paced']['instructions'] / b['paced']['instructions']:.2f}")
                    print(f"{size:5} bytes  {one} : {other}  frames per second "
                          f"{a['fast']['per_second'] / max(b['fast']['per_second'], 1e-9):.2f}{cost}",
                          flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(result, out, indent=2)


if __name__ == "__main__":
    main()
