#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""User-mode Linux on a looped-back function over vhost-user, against the same on DPDK's net_vhost in
a testpmd that loops its port: frames that an AF_PACKET sender in the guest has back per second.

    devtools/bench_uml.py [--windows N] [--seconds S] [--sizes 60,1514]

Guests on one CPU, back-ends that poll on the other; of the two sides one is stopped, in turn. Both
have the features that both offer, but not what net_vhost cannot do with this guest: the control
queue, which it does not serve, and packed rings, of which the guest says that they begin at 0.
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import statistics
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib"), os.path.join(HERE, "..", "test", "topology")]
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import pmd                                  # noqa: E402
import prepare                              # noqa: E402

# nor ECN, which net_vhost offers without the segmentation that it belongs to
LEFT_OUT = sum(1 << bit for bit in (2, 9, 13, 17, 18, 19, 20, 21, 22, 23, 34))


class Side:
    """A back-end and its guest."""

    def __init__(self, stack, device, name, features):
        from guest.uml import Uml           # pylint: disable=import-outside-toplevel
        from proxy import TO_FRONT, Proxy   # pylint: disable=import-outside-toplevel
        from vhost_user import Request      # pylint: disable=import-outside-toplevel

        def offer(way, message):
            if way != TO_FRONT or message.request != Request.GET_FEATURES:
                return None
            return [dataclasses.replace(message, payload=struct.pack("=Q", features))]

        self.device = device
        path = f"{device.sockets[0]}.less"
        stack.enter_context(Proxy(path, device.sockets[0], offer))
        self.guest = stack.enter_context(Uml(path, name))
        self.guest.boot()
        self.guest.run("ip link set eth0 up")
        self.signal(signal.SIGSTOP)
        stack.callback(self.signal, signal.SIGCONT)

    def signal(self, number):
        os.kill(self.device.process.pid, number)

    def window(self, count, size):
        """(frames that came back, seconds) for so many sent."""
        arrived = "cat /sys/class/net/eth0/statistics/rx_packets; cut -d' ' -f1 /proc/uptime"
        self.signal(signal.SIGCONT)
        try:
            before, begin, end, after = map(float, self.guest.run(
                f"{arrived}; blast eth0 {count} {size}; cut -d' ' -f1 /proc/uptime; usleep 20000; "
                "cat /sys/class/net/eth0/statistics/rx_packets").out.split())
        finally:
            self.signal(signal.SIGSTOP)
        return after - before, end - begin

    def frames_for(self, seconds, size):
        """How many to send for so long."""
        count, took = 500, 0
        while took < 0.2:
            count *= 4
            _, took = self.window(count, size)
        return int(count * seconds / took)


def offered(path):
    from net_device import FrontEnd         # pylint: disable=import-outside-toplevel

    with FrontEnd(path) as fe:
        return fe.connect().negotiate().offered


def measure(args):
    from harness import Backend, NetVhost   # pylint: disable=import-outside-toplevel

    with contextlib.ExitStack() as stack:
        devices = {"vfn": stack.enter_context(Backend("vdpa_vfn0,idle=busy")),
                   "net_vhost": stack.enter_context(NetVhost())}
        features = ~LEFT_OUT
        for device in devices.values():
            features &= offered(device.sockets[0])
        sides = {name: Side(stack, device, name.replace("_", ""), features)
                 for name, device in devices.items()}
        for size in args.sizes:
            counts = {name: side.frames_for(args.seconds, size) for name, side in sides.items()}
            rates = {name: [] for name in sides}
            share = {name: [] for name in sides}
            for _ in range(args.windows):
                for name, side in sides.items():
                    came, took = side.window(counts[name], size)
                    rates[name].append(came / took)
                    share[name].append(came / counts[name])
            ratios = [a / b for a, b in zip(rates["vfn"], rates["net_vhost"])]
            cells = [f"{statistics.median(rates[n]) / 1e3:.0f} ({statistics.median(share[n]):.0%})"
                     for n in sides]
            print(f"| {size} | {' | '.join(cells)} | "
                  f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) |",
                  flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")],
                        default=[60, 1514])
    args = parser.parse_args()
    prepare.ready(prepare.DEVICE, pages=0)
    os.sched_setaffinity(0, {pmd.cpu(0)})
    print("| bytes | vfn, kframes/s (came back) | net_vhost | ratio |\n|---|---|---|---|")
    measure(args)


if __name__ == "__main__":
    main()
