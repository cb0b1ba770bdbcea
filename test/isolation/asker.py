# SPDX-License-Identifier: BSD-3-Clause
"""Somebody who asks telemetry all the time, a process of its own: SOCKET DEVICE...

"report" on standard input is answered with a line of JSON.
"""

import itertools
import json
import os
import select
import socket
import sys
import time

PATIENCE = 10


def ask(sock, command):
    sock.send(command.encode())
    return json.loads(sock.recv(1 << 17))


def main():
    path, *devices = sys.argv[1:]
    slow = 4 if "ASAN_OPTIONS" in os.environ else 1
    commands = ["/vfn/list", "/vfn/poller"]
    for device in devices:
        commands += [f"/vfn/info,{device}", f"/vfn/lm,{device}", f"/vfn/queue,{device},0",
                     f"/vfn/queue,{device},1"]
    count, slowest = 0, 0.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(PATIENCE * slow)
        sock.connect(path)
        sock.recv(1024)
        print("ready", flush=True)
        for command in itertools.cycle(commands):
            begin = time.monotonic()
            try:
                ask(sock, command)
            except (OSError, ValueError) as error:
                print(f"fault: telemetry, {command}: {type(error).__name__} {error}", flush=True)
                sys.exit(1)
            count += 1
            slowest = max(slowest, time.monotonic() - begin)
            if not select.select([sys.stdin], [], [], 0.01)[0]:
                continue
            if sys.stdin.readline().strip() != "report":
                return
            print("report", json.dumps({"asked": count, "slowest": slowest}), flush=True)


if __name__ == "__main__":
    main()
