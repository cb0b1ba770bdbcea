# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest for everybody: the one that the tests boot, on sockets of one's own. Run by guest.sh."""

import argparse
import contextlib
import shlex
import signal
import sys

import prepare
from guest import Guest, GuestError, ImageError, Nic, image

PACKAGES = ["qemu-system-x86", "busybox-static", "ethtool", "pciutils", "netcat-openbsd", "gcc", "util-linux"]


def parse_args(argv):
    parser = argparse.ArgumentParser(
        prog="devtools/guest.sh",
        description="Boot a small Linux guest (Debian's kernel, busybox; no KVM needed), whose "
                    "network cards eth0, eth1, ... are vhost-user sockets, and run in it what comes "
                    "on standard input, line by line. At the end of the input the guest runs on "
                    "until SIGTERM or Ctrl-C.",
        epilog="Exit code: that of --run's command, 0 for a guest that was ended, 1 if it does not "
               "boot, 2 wrong usage.")
    parser.add_argument("sockets", nargs="*", metavar="SOCKET")
    parser.add_argument("--number", type=int, default=1, choices=range(1, 251), metavar="N",
                        help="of this guest: MAC address 02:00:00:00:00:N, eth0 is 192.0.2.N/24 (1)")
    parser.add_argument("--run", metavar="COMMAND", help="run this in the guest, and end")
    parser.add_argument("--server", action="store_true",
                        help="QEMU owns the sockets, and the server is to connect to them")
    parser.add_argument("--queues", type=int, default=1, help="queue pairs of each card (1)")
    parser.add_argument("--packed", action="store_true", help="packed rings")
    parser.add_argument("--mtu", type=int, help="of the cards, if the function offers it")
    parser.add_argument("--cpus", type=int, default=1, help="(1)")
    parser.add_argument("--image", action="store_true",
                        help="boot nothing: print shell variables KERNEL and INITRD, for a QEMU or a "
                             "libvirt domain of your own. On the kernel's command line vfn.ip=ADDRESS/LENGTH "
                             "sets eth0 up, vfn.shell gives a shell on the console")
    args = parser.parse_args(argv)
    if bool(args.sockets) == args.image:
        parser.error("SOCKET, or --image")
    return args


def cards(args):
    props = {"packed": "on"} if args.packed else {}
    if args.mtu:
        props["host_mtu"] = str(args.mtu)
    return [Nic(path, f"02:00:00:00:{card:02x}:{args.number:02x}", args.queues, args.server, props)
            for card, path in enumerate(args.sockets)]


def say(text):
    print(text, file=sys.stderr, flush=True)


def serve(guest):
    """Run the lines of standard input; the status of the last one."""
    interactive = sys.stdin is not None and sys.stdin.isatty()
    code = 0
    with contextlib.suppress(EOFError):
        while True:
            line = input("guest# " if interactive else "") if sys.stdin else exit_input()
            result = guest.run(line, check=False)
            print(result.out, end="", flush=True)
            code = result.rc
    if interactive:
        return code
    say("guest: end of input, running until SIGTERM or SIGINT")
    while guest.alive():
        signal.sigtimedwait([], 1)
    raise GuestError(guest.explain("QEMU ended"))


def exit_input():
    raise EOFError


def main(argv):
    args = parse_args(argv)
    prepare.packages(PACKAGES)
    try:
        kernel, initrd = image()
        if args.image:
            print(f"KERNEL={shlex.quote(str(kernel))}\nINITRD={shlex.quote(str(initrd))}")
            return 0
        with Guest(cards(args), name=f"guest{args.number}", cpus=args.cpus) as guest:
            say(shlex.join(guest.argv))
            guest.boot()
            guest.run(f"ip link set eth0 up; ip addr add 192.0.2.{args.number}/24 dev eth0")
            say(f"guest: ready, eth0 is 192.0.2.{args.number}")
            if args.run is None:
                return serve(guest)
            result = guest.run(args.run, check=False, timeout=3600)
            print(result.out, end="", flush=True)
            return result.rc
    except KeyboardInterrupt:
        return 0
    except (GuestError, ImageError) as error:
        say(f"guest.sh: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
