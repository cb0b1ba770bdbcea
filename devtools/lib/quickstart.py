# SPDX-License-Identifier: BSD-3-Clause
"""One simulated function behind a vhost-user socket, stock testpmd in front of it, and what both
count, side by side. Run by quickstart.sh, which builds first."""

import argparse
import json
import os
import signal
import statistics
import sys
import time

import pmd

MIN_SIZE, MAX_SIZE = 60, 9014
ETHER_HEADER = 14


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
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
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


def run(args):
    """Show the traffic; return (result, what is wrong)."""
    mtu = max(1500, args.size - ETHER_HEADER)
    dev = f"vdpa_vfn0,queues=1,port=loopback,mtu={mtu},idle=busy,poll-cpu={pmd.cpu(1)}"
    with pmd.Backend([dev]) as backend, \
            pmd.Loop(backend.sockets[0], args.ring == "packed", args.size) as front:
        print(f"{backend.names[0]} on {backend.sockets[0]}: {front.layout()} ring, "
              f"{args.size}-byte frames, features {front.features():#x}; testpmd forwards on "
              f"CPU {pmd.cpu(0)}, the function polls on CPU {pmd.cpu(1)}", flush=True)
        wrong = [] if front.layout() == args.ring else [f"the ring is {front.layout()}"]
        front.start_traffic()
        start = then = time.monotonic()
        seen, rates = 0, []
        for second in range(1, args.seconds + 1):
            time.sleep(max(0, start + second - time.monotonic()))
            port, now = front.port_stats(0), time.monotonic()
            rates.append((port["RX-packets"] - seen) / (now - then) / 1e6)
            seen, then = port["RX-packets"], now
            print(f"{second:3} s  testpmd: {rates[-1]:.2f} Mpps received "
                  f"{short(port['RX-packets'])} sent {short(port['TX-packets'])} | "
                  f"{show_queues(backend.stats())}", flush=True)
        front.stop_forwarding()
        stats = settled(backend)
        port = front.port_stats(0)
        wrong += judge(args.size, port, stats, rates, front.in_flight)
    result = {
        "mpps": round(statistics.median(rates), 3),
        "rx_packets": port["RX-packets"],
        "tx_packets": port["TX-packets"],
        "errors": port_errors(port) + queue_errors(stats),
        "ring": args.ring,
        "size": args.size,
        "seconds": args.seconds,
        "function": {f"q{queue}": counters for queue, counters in stats.items()},
    }
    return result, wrong


def main(argv):
    args = parse_args(argv)
    if args.check:
        return 0
    # as Ctrl-C: the with blocks above end what they started
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    result = {"mpps": 0, "rx_packets": 0, "tx_packets": 0, "errors": 0, "ring": args.ring,
              "size": args.size, "seconds": args.seconds}
    try:
        result, wrong = run(args)
    except pmd.PmdError as error:
        wrong = [str(error)]
        result["errors"] = 1
    except KeyboardInterrupt:
        wrong = ["interrupted"]
    result["pass"] = not wrong
    if args.json:
        try:
            with open(args.json, "w", encoding="utf-8") as out:
                json.dump(result, out, indent=2)
                out.write("\n")
        except OSError as error:
            wrong.append(f"cannot write {os.path.abspath(args.json)}: {error.strerror}")
    if wrong:
        print("FAIL: " + "; ".join(wrong))
        return 1
    print(f"PASS: {result['mpps']:.2f} Mpps, {result['tx_packets']} packets sent by testpmd, all "
          f"counted and given back by the function, no errors")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
