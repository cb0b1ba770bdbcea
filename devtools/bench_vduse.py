#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The kernel's virtio_net on two functions by VDUSE, against two taps without vhost, and against the
VDUSE server of DPDK 24.11 (net_vhost in testpmd).

All in one guest of QEMU's TCG, one after the other, in two network namespaces: frames from one to
the other as fast as they go. The guest's clock counts instructions (-icount: a nanosecond is one), so
"seconds" are 10^9 of them, of both CPUs and of everything: sender, server, kernel and receiver. What
is compared is frames that arrived per second of CPU time.
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
from guest.image import apt, cache_dir, locked, new_entry  # noqa: E402

LIBRARIES = "usr/lib/x86_64-linux-gnu"
SETUP = """
mkdir -p /run; mount -t tmpfs run /run; mkdir -p /var; ln -sfn /run /var/run
"""
BUSY = "awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; cut -d' ' -f1 /proc/uptime"


class Counted(vduse.VduseGuest):
    """Whose clock counts instructions."""

    def _argv(self):
        return [*super()._argv(), "-icount", "shift=0,sleep=off"]


def dpdk_24_11():
    """{path in the guest: contents} of Debian 13's testpmd, with a loader and libraries of its own."""
    cache = cache_dir()
    root = cache / "dpdk-trixie"
    with locked(cache):
        if not root.exists():
            with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as work:
                debs = qemu11.download(Path(work), ("dpdk",), qemu11.RELEASE)
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


def ours(guest, pairs):
    guest.run("export LD_LIBRARY_PATH=/plugin; vfn-vhost -l 0 --no-pci --no-huge -m 64 "
              "-d librte_vdpa_vfn.so --vdev vdpa_vfn0,vduse=vd0,port=wire,idle=sleep "
              "--vdev vdpa_vfn1,vduse=vd1,port=wire,peer=vdpa_vfn0,idle=sleep "
              ">/tmp/server 2>&1 </dev/null & "
              "until grep ready /tmp/server; do sleep 0.1; done")
    for box in pairs:
        add(guest, box)


def theirs(guest, pairs):
    guest.run("/trixie/ld.so --library-path /trixie /trixie/dpdk-testpmd -l 0,1 --no-pci --no-huge "
              "-m 256 -d /trixie/librte_net_vhost.so.25.0 "
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


KINDS = {"vfn": (ours, "vfn-vhost"), "tap": (taps, "tapwire"), "dpdk": (theirs, "testpmd")}


def measure(guest, kind, size, count):
    """{frames, seconds of CPU time, elapsed} of one kind."""
    pairs = ("vd0", "vd1")
    guest.run("; ".join(f"ip netns add {box}" for box in pairs))
    start, process = KINDS[kind]
    start(guest, pairs)
    guest.run("; ".join(f"ip -n {box} link set e up" for box in pairs) + "; sleep 2")
    arrived = "ip netns exec vd1 cat /sys/class/net/e/statistics/rx_packets"
    guest.run(f"ip netns exec vd0 blast e {count // 10} {size}; sleep 0.5")    # warm
    out = guest.run(f"{arrived}; {BUSY}; ip netns exec vd0 blast e {count} {size}; {BUSY}; "
                    f"sleep 0.2; {arrived}", timeout=1200).out.split()
    before, busy, begin, busy_end, end, after = map(float, out)
    frames, busy, elapsed = after - before, busy_end - busy, end - begin
    guest.run("vdpa dev del vd0; vdpa dev del vd1; ip netns delete vd0; ip netns delete vd1; "
              f"killall {process} ld.so; sleep 1; killall -KILL {process} ld.so; "
              "rm -f /tmp/server", check=False)
    cpu = busy / 100    # jiffies
    return {"frames": int(frames), "lost": count - int(frames), "cpu": cpu, "elapsed": elapsed,
            "frames_per_cpu_second": frames / cpu if cpu else 0}


def main():
    parser = argparse.ArgumentParser(prog="devtools/bench_vduse.py", description=__doc__)
    parser.add_argument("--sizes", default="64,1500", help="bytes of frames (%(default)s)")
    parser.add_argument("--count", type=int, default=50000, help="frames (%(default)s)")
    parser.add_argument("--kinds", default="vfn,tap,dpdk", help="of %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    prepare.ready(prepare.DEVICE, 0, ["qemu-system-x86", "busybox-static", "ethtool", "pciutils"])
    vduse.MORE_PROGRAMS += ("tapwire", "blast")
    vduse.extra_files = dpdk_24_11 if "dpdk" in kinds else dict
    result = {}
    with Counted(memory=(3 if "dpdk" in kinds else 1) << 20) as guest:
        guest.boot()
        guest.run(SETUP)
        for size in map(int, args.sizes.split(",")):
            for kind in kinds:
                row = measure(guest, kind, size, args.count)
                result.setdefault(size, {})[kind] = row
                print(f"{size:5} bytes  {kind:5} {row['frames']:8} frames, "
                      f"{row['frames_per_cpu_second'] / 1e3:8.1f} thousand per second of CPU time, "
                      f"{row['lost']} lost", flush=True)
            for kind in kinds[1:]:
                ratio = (result[size][kinds[0]]["frames_per_cpu_second"]
                         / max(result[size][kind]["frames_per_cpu_second"], 1e-9))
                print(f"{size:5} bytes  {kinds[0]} : {kind} {ratio:.2f}", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(result, out, indent=2)


if __name__ == "__main__":
    main()
