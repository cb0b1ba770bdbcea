#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the gate adds to a handshake: the time from a front-end's connect to the acknowledgement of
DRIVER_OK, and to the first frame that comes back, with the gate and without, in turn.

    devtools/bench_handshake.py [--rounds N] [--pairs N]
"""

import argparse
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib"), os.path.join(HERE, "..", "test", "topology")]
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import prepare                              # noqa: E402


def once(path, pairs):
    """Microseconds to the acknowledgement, and to the frame."""
    from net_device import FrontEnd         # pylint: disable=import-outside-toplevel

    with FrontEnd(path) as fe:
        begin = time.monotonic()
        fe.connect().negotiate()
        connected = time.monotonic()
        fe.setup(pairs)                     # memory of the front-end's own: not counted
        made = time.monotonic()
        for message in fe.script():
            fe.conn.tell(message)
        ready = time.monotonic()
        fe.send(bytes(60))
        fe.post()
        while not fe.receive():
            pass
        arrived = time.monotonic()
    away = made - connected
    return (ready - begin - away) * 1e6, (arrived - begin - away) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=1)
    args = parser.parse_args()
    prepare.ready(prepare.DEVICE, pages=0)
    from harness import Backend             # pylint: disable=import-outside-toplevel

    dev = f"vdpa_vfn0,idle=sleep,queues={args.pairs}"
    times = {"gate": [], "no gate": []}
    with Backend(dev) as gate, Backend(dev, args=["--no-gate"]) as bare:
        for backend in (gate, bare):
            once(backend.sockets[0], args.pairs)
        for _ in range(args.rounds):
            for name, backend in (("gate", gate), ("no gate", bare)):
                times[name].append(once(backend.sockets[0], args.pairs))
    print("| us, min/**median**/p90 | DRIVER_OK acknowledged | first frame is back |\n|---|---|---|")
    for name, rows in times.items():
        cells = []
        for column in zip(*rows):
            low, *_, p90 = statistics.quantiles(column, n=10)
            cells.append(f"{min(column):.0f}/**{statistics.median(column):.0f}**/{p90:.0f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
