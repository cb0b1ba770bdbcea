# SPDX-License-Identifier: BSD-3-Clause
"""One simulated function behind a vhost-user socket, stock testpmd in front of it, and what both
count, side by side. Run by quickstart.sh."""

import argparse
import contextlib
import json
import os
import shlex
import statistics
import sys
import time

import bench_plot
import pmd
import prepare
import quickstart_vduse
from bench_rtt import Trips

MIN_SIZE, MAX_SIZE = 60, 9014
ETHER_HEADER = 14
RANKS = ("p50", "p90", "p99", "p99.9")
TRIPS_MS = 1000     # how long round trips are measured
ADDRESSES = ("192.0.2.1", "192.0.2.2")

NEXT = """
What to try next:
  devtools/quickstart.sh --ring packed --compare --latency --svg rates.svg
  devtools/quickstart.sh --guest      two Linux guests, one pings the other
  devtools/quickstart.sh --vduse      this machine's kernel on two functions, by VDUSE
  devtools/guest.sh SOCKET            a Linux guest on a socket of yours
  doc/howto/README.md                 migration, crashes, upgrades, QEMU, libvirt and more
"""


def parse_args(argv):
    parser = argparse.ArgumentParser(
        prog="devtools/quickstart.sh",
        description="Set up, build, and push traffic from stock dpdk-testpmd (virtio-user) "
                    "through one simulated virtio function and back. Each second shows what "
                    "testpmd and the function count.",
        epilog="Exit code: 0 traffic went through and both ends agree, 1 it did not, 2 wrong "
               "usage.")

    def size(text):
        value = int(text)
        if not MIN_SIZE <= value <= MAX_SIZE:
            raise argparse.ArgumentTypeError(f"{value} is not within {MIN_SIZE}..{MAX_SIZE}")
        return value

    def seconds(text):
        value = int(text)
        if value < 1:
            raise argparse.ArgumentTypeError("at least 1")
        return value

    parser.add_argument("--ring", choices=["split", "packed"], default="split",
                        help="virtqueue layout (%(default)s)")
    parser.add_argument("--size", type=size, default=64, metavar="BYTES",
                        help=f"frame size without FCS, {MIN_SIZE} to {MAX_SIZE} (%(default)s)")
    parser.add_argument("--seconds", type=seconds, default=5, metavar="N",
                        help="how long (%(default)s)")
    parser.add_argument("--compare", action="store_true",
                        help="the same with DPDK's net_vhost in the function's place")
    parser.add_argument("--latency", action="store_true",
                        help="round trips of single packets, by percentiles")
    parser.add_argument("--guest", action="store_true",
                        help="two Linux guests on two functions, back to back: one pings the other")
    parser.add_argument("--vduse", action="store_true",
                        help="nothing but this: two interfaces of this machine's own kernel on two "
                             "functions, in network namespaces, by VDUSE (doc/howto/vduse.md)")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--svg", metavar="FILE", help="also draw it there")
    return parser.parse_args(argv)


def short(number):
    """1234567 as 1.23M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.2f}{unit}"
    return str(number)


def show_queues(stats):
    """Every counter that has moved, queue by queue."""
    names = {0: "q0 to driver", 1: "q1 from driver"}
    return " | ".join(
        f"{names.get(queue, f'q{queue}')}: " + " ".join(
            f"{name} {short(value)}" for name, value in counters.items() if value)
        for queue, counters in sorted(stats.items()) if any(counters.values()))


def port_errors(port):
    return sum(value for name, value in port.items()
               if name in ("RX-missed", "RX-errors", "RX-nombuf", "TX-errors"))


def queue_errors(stats):
    return sum(value for counters in stats.values() for name, value in counters.items()
               if any(word in name for word in ("bad", "dropped", "error")))


def settled(backend):
    """The function's statistics once they stand still."""
    stats = backend.stats()
    for _ in range(20):
        time.sleep(0.1)
        before, stats = stats, backend.stats()
        if all(before[q]["packets"] == stats[q]["packets"] for q in before):
            break
    return stats


def judge(size, port, stats, rates, in_flight):
    """What is wrong, as a list of sentences."""
    wrong = []
    taken, given = stats[1]["packets"], stats[0]["packets"]
    if not port.get("RX-packets"):
        wrong.append("nothing came back")
    elif min(rates) == 0:
        wrong.append("traffic stood still")
    if port_errors(port):
        wrong.append(f"testpmd counted {port_errors(port)} errors")
    if queue_errors(stats):
        wrong.append(f"the function counted {queue_errors(stats)} bad or dropped packets")
    if taken != port["TX-packets"]:
        wrong.append(f"testpmd sent {port['TX-packets']} packets, the function took {taken}")
    if stats[1]["bytes"] != taken * size:
        wrong.append(f"the function took {stats[1]['bytes']} bytes in {taken} packets of {size}")
    if given != taken:
        wrong.append(f"the function took {taken} packets and gave back {given}")
    if not 0 <= given - port["RX-packets"] <= in_flight:
        wrong.append(f"the function gave back {given} packets, testpmd received "
                     f"{port['RX-packets']}")
    return wrong


def show_command(what, process, env=()):
    """A command as it can be pasted."""
    variables = [f"{name}={shlex.quote(process_env)}" for name, process_env in env]
    print(f"{what}:\n  {' '.join([*variables, shlex.join(process.argv)])}", flush=True)


def show_commands(device, front, typed=None):
    """What has been started, in the order in which it would be by hand."""
    print(f"\n  mkdir -p {device.directory}")
    library = [("LD_LIBRARY_PATH", pmd.plugin_dir())] if isinstance(device, pmd.Backend) else []
    show_command("The server", device.process, library)
    if not library:
        print("and at its prompt: start")
    show_command("The front-end, in another terminal", front)
    if typed:
        print(f"and at its prompt: {typed}")
    print(flush=True)


def function(args, port="loopback", idle="busy"):
    mtu = max(1500, args.size - ETHER_HEADER)
    return f"vdpa_vfn0,queues=1,port={port},mtu={mtu},idle={idle},poll-cpu={pmd.cpu(1)}"


def show_rates(args, front, counters):
    """Print a line each second; return the rates."""
    start = then = time.monotonic()
    seen, rates = 0, []
    for second in range(1, args.seconds + 1):
        time.sleep(max(0, start + second - time.monotonic()))
        port, now = front.port_stats(0), time.monotonic()
        rates.append((port["RX-packets"] - seen) / (now - then) / 1e6)
        seen, then = port["RX-packets"], now
        print(f"{second:3} s  testpmd: {rates[-1]:.2f} Mpps received {short(port['RX-packets'])} "
              f"sent {short(port['TX-packets'])}{counters()}", flush=True)
    return rates


def run(args):
    """Show the traffic; return (result, what is wrong)."""
    with pmd.Backend([function(args)]) as backend, \
            pmd.Loop(backend.sockets[0], args.ring == "packed", args.size) as front:
        show_commands(backend, front, f"start tx_first {front.in_flight // 32}")
        print(f"{backend.names[0]} on {backend.sockets[0]}: {front.layout()} ring, "
              f"{args.size}-byte frames, features {front.features():#x}; testpmd forwards on "
              f"CPU {pmd.cpu(0)}, the function polls on CPU {pmd.cpu(1)}", flush=True)
        wrong = [] if front.layout() == args.ring else [f"the ring is {front.layout()}"]
        front.start_traffic()
        rates = show_rates(args, front, lambda: " | " + show_queues(backend.stats()))
        front.stop_forwarding()
        stats = settled(backend)
        port = front.port_stats(0)
        wrong += judge(args.size, port, stats, rates, front.in_flight)
    result = {
        "mpps": round(statistics.median(rates), 3),
        "rates": [round(rate, 3) for rate in rates],
        "rx_packets": port["RX-packets"],
        "tx_packets": port["TX-packets"],
        "errors": port_errors(port) + queue_errors(stats),
        "ring": args.ring,
        "size": args.size,
        "seconds": args.seconds,
        "function": {f"q{queue}": counters for queue, counters in stats.items()},
    }
    return result, wrong


def compare(args):
    """net_vhost in the function's place: {"mpps", "rates"}."""
    print("\nnet_vhost in the function's place:", flush=True)
    with pmd.NetVhost() as device, \
            pmd.Loop(device.sockets[0], args.ring == "packed", args.size) as front:
        show_commands(device, front, f"start tx_first {front.in_flight // 32}")
        front.start_traffic()
        rates = show_rates(args, front, lambda: "")
        front.stop_forwarding()
    return {"mpps": round(statistics.median(rates), 3), "rates": [round(r, 3) for r in rates]}


def latency(args):
    """{device: {rank: microseconds}} of round trips, one packet at a time."""
    kinds = {"vfn": lambda: pmd.Backend([function(args)])}
    if args.compare:
        kinds["net_vhost"] = pmd.NetVhost
    found = {}
    print("\nRound trips of single packets:", flush=True)
    for name, start in kinds.items():
        with start() as device, \
                Trips([device.sockets[0]], args.ring == "packed", args.size) as front:
            if name == "vfn":
                show_commands(device, front, f"0 {TRIPS_MS} 0    (port, milliseconds, pause)")
            front.window(0, 50, 0)      # warm
            window = front.window(0, TRIPS_MS, 0)
        found[name] = {rank: window[rank] / 1000 for rank in RANKS}
        found[name]["trips"] = window["trips"]
        print(f"  {name:9} " + "  ".join(f"{rank} {found[name][rank]:.2f} us" for rank in RANKS)
              + f"  ({window['trips']} trips, {window['lost']} lost)", flush=True)
    return found


def guests():
    """Two Linux guests on two functions, of which one pings the other: (seconds to boot, answer)."""
    from guest import Guest, Nic        # pylint: disable=import-outside-toplevel
    devs = ["vdpa_vfn0,port=wire,idle=sleep", "vdpa_vfn1,port=wire,peer=vdpa_vfn0,idle=sleep"]
    print("\nTwo guests, back to back:", flush=True)
    with pmd.Backend(devs) as backend, contextlib.ExitStack() as stack:
        print(f"\n  mkdir -p {backend.directory}")
        show_command("The server", backend.process, [("LD_LIBRARY_PATH", pmd.plugin_dir())])
        print("The guests, in terminals of their own:")
        start, booting = time.monotonic(), []
        for number, path in enumerate(backend.sockets):
            print(f"  devtools/guest.sh --number {number + 1} {path}", flush=True)
            booting.append(stack.enter_context(
                Guest([Nic(path, f"02:00:00:00:00:{number + 1:02x}")], name=f"guest{number}")))
        for guest, address in zip(booting, ADDRESSES):
            guest.boot()
            guest.run(f"ip link set eth0 up; ip addr add {address}/24 dev eth0")
        booted = time.monotonic() - start
        print(f"both have booted after {booted:.1f} s; in the first one:\n# uname -a\n"
              f"{booting[0].run('uname -a').out.rstrip()}\n# ping -c 5 {ADDRESSES[1]}")
        answer = booting[0].run(f"ping -c 5 -i 0.2 {ADDRESSES[1]}", check=False)
        print(answer.out.rstrip(), flush=True)
    return {"boot_seconds": round(booted, 1), "answers": answer.out.count("bytes from"),
            "asked": 5}


def more(args, result):
    """What else was asked for, into the result; what is wrong."""
    wrong = []
    if args.compare:
        result["net_vhost"] = compare(args)
        result["ratio"] = round(result["mpps"] / result["net_vhost"]["mpps"], 3) \
            if result["net_vhost"]["mpps"] else None
        if result["ratio"] is None:
            wrong.append("net_vhost moved nothing")
        else:
            print(f"vfn {result['mpps']:.2f} Mpps, net_vhost {result['net_vhost']['mpps']:.2f} "
                  f"Mpps: {result['ratio']:.2f} times", flush=True)
    if args.latency:
        result["latency_us"] = latency(args)
    if args.guest:
        result["guest"] = guests()
        if result["guest"]["answers"] != result["guest"]["asked"]:
            wrong.append(f"{result['guest']['answers']} of {result['guest']['asked']} pings came "
                         "back")
    return wrong


def needed(args):
    """(targets, hugepages, packages)"""
    targets, packages = list(prepare.DEVICE), []
    if args.latency:
        targets.append("app/vfn-rtt")
    if args.guest:
        packages += ["qemu-system-x86", "busybox-static", "ethtool", "netcat-openbsd"]
    if args.svg:
        packages.append("python3-matplotlib")
    return targets, 320 if args.compare else 192, packages


def write(path, how):
    """Call how(path); return what is wrong."""
    try:
        how(path)
        return []
    except OSError as error:
        return [f"cannot write {os.path.abspath(path)}: {error.strerror}"]


def save(result, path):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=2)
        out.write("\n")


def main(argv):
    args = parse_args(argv)
    if args.vduse:
        return quickstart_vduse.run()
    prepare.ready(*needed(args))
    result = {"mpps": 0, "rx_packets": 0, "tx_packets": 0, "errors": 0, "ring": args.ring,
              "size": args.size, "seconds": args.seconds}
    try:
        result, wrong = run(args)
        wrong += more(args, result)
    except (pmd.PmdError, RuntimeError) as error:
        wrong = [str(error)]
        result["errors"] = 1
    except KeyboardInterrupt:
        wrong = ["interrupted"]
    result["pass"] = not wrong
    if args.svg and result.get("rates"):
        wrong += write(args.svg, lambda path: bench_plot.quickstart(result, path))
    if args.json:
        wrong += write(args.json, lambda path: save(result, path))
    if wrong:
        print("FAIL: " + "; ".join(wrong))
        return 1
    print(f"PASS: {result['mpps']:.2f} Mpps, {result['tx_packets']} packets sent by testpmd, all "
          f"counted and given back by the function, no errors")
    print(NEXT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
