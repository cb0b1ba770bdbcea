# SPDX-License-Identifier: BSD-3-Clause
"""Where the cycles of the device's CPU go, as Markdown tables; run it by devtools/profile.sh.

Instructions are counted by callgrind: they are the same in every run, however noisy the machine.
Under it the device is the slow end, so that it finds full bursts; only functions that are called
for a burst are counted, no idle polls. An instruction belongs to the function in whose source it
is, wherever that was inlined. (Under valgrind there is no AVX-512.) Of net_vhost no sources are
there, so its parts are the libraries.

Time by function is sampled by perf, while the device runs freely: cycles where the machine counts
them, else its clock.
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import time

import bench_machine
import bench_rows
import pmd
import prepare

# the poller's functions that are called when there is something to do
ENTRIES = {"loopback": "net_forward", "wire": "net_forward", "g2h": "sink_run",
           "h2g": "gen_run"}

# first match: a pattern in "symbol file:function", and the stage
STAGES = (
    (r"notify|queue_call", "notify"),
    (r"prefetch", "prefetch"),
    (r":vfn_net_copy|:vringh_copy|mem(cpy|move|set)", "copy"),
    (r"complete|batch_|:used_|avx2_used|inflight_after|log_", "complete"),
    (r"poller_(iterate|thread)|poller/loop", "poll"),
    (r"lib/vring/|^(singles|fetch|quick|vringh)_", "fetch"),
    (r"", "forward"),
)


def stage(place):
    return next(name for pattern, name in STAGES if re.search(pattern, place))


# --- callgrind --------------------------------------------------------------------------------

def functions_of(path):
    """{line: function} of a C file whose functions begin in the first column."""
    found, name = {}, None
    with open(path, encoding="utf-8") as source:
        for number, line in enumerate(source, 1):
            if match := re.match(r"(\w+)\(", line):
                name = match[1]
            if name:
                found[number] = name
            if line.startswith("}"):
                name = None
    return found


def costs(path):
    """({(object, file, symbol, line): instructions by itself}, {symbol: how often called})"""
    found, calls, at, inclusive = collections.Counter(), collections.Counter(), {}, False
    with open(path, encoding="utf-8") as out:
        for line in out:
            key, _, value = line.rstrip("\n").partition("=")
            if key in ("ob", "fn", "cfn"):
                at[key] = value
            elif key in ("fl", "fi", "fe"):
                at["fl"] = value
            elif key == "calls":
                calls[at["cfn"]] += int(value.split()[0])
                inclusive = True
            elif match := re.match(r"(\d+) (\d+)$", line):
                if not inclusive:
                    found[at["ob"], at["fl"], at["fn"], int(match[1])] += int(match[2])
                inclusive = False
    return found, calls


def by_function(found):
    """{(stage, function): instructions}"""
    result, sources = collections.Counter(), {}
    for (_, path, symbol, line), count in found.items():
        path = os.path.normpath(os.path.join(pmd.build_dir(), path))
        name = symbol
        if path.startswith(pmd.ROOT + os.sep) and os.path.exists(path):
            if path not in sources:
                sources[path] = functions_of(path)
            name = sources[path].get(line, symbol)
            path = os.path.relpath(path, pmd.ROOT)
        result[stage(f"{symbol} {path}:{name}"), name] += count
    return result


def callgrind(path, *options):
    return ("valgrind", "--tool=callgrind", "--fair-sched=yes", f"--callgrind-out-file={path}",
            "--compress-pos=no", "--compress-strings=no", *options)


def vfn_instructions(row, seconds, scratch):
    """({(stage, function): instructions per packet}, packets per burst)"""
    path = os.path.join(scratch, "vfn")
    wrapper = callgrind(path, f"--toggle-collect={ENTRIES[row.scenario]}")
    # valgrind makes code while the process runs
    with bench_rows.Vfn(row, wrapper=wrapper, args=["--no-confine"]) as device:
        with bench_rows.FrontEnd(row, device.sockets) as front:
            time.sleep(seconds)
            front.stop_forwarding()
            time.sleep(0.5)     # until all is consumed
        pollers = device.telemetry("/vfn/poller").values()
    packets = sum(p["packets"] for p in pollers)
    found = by_function(costs(path)[0])
    return ({key: count / packets for key, count in found.items()},
            packets / sum(p["busy_iterations"] for p in pollers))


def warm_instructions(row, seconds, scratch, device):
    """The same of a device that has to learn first, as it does without being counted; settled()
    says whether it has."""
    path = os.path.join(scratch, "warm")
    wrapper = callgrind(path, "--instr-atstart=no", f"--toggle-collect={ENTRIES[row.scenario]}")
    with device(row, wrapper=wrapper, args=["--no-confine"]) as back:
        # of few buffers all are known soon
        with bench_rows.FrontEnd(row, back.sockets, ["--total-num-mbufs=3000"]) as front:
            back.settled()
            counted = []
            front.stop_forwarding()
            front.begin()
            back.settled()
            for switch in "on", "off":
                # nothing passes while it is switched
                front.stop_forwarding()
                time.sleep(0.5)
                subprocess.run(["callgrind_control", "-i", switch, str(back.pid)],
                               check=True, capture_output=True)
                poller, = back.telemetry("/vfn/poller").values()
                counted.append((poller["packets"], poller["busy_iterations"]))
                if switch == "on":
                    front.begin()
                    time.sleep(seconds)
    packets, bursts = (after - before for before, after in zip(*counted))
    found = by_function(costs(path)[0])
    return {key: count / packets for key, count in found.items()}, packets / bursts


def peer_instructions(row, seconds, scratch):
    """({library: instructions per packet} of net_vhost, from bursts that are full, whether so)"""
    path = os.path.join(scratch, "peer")
    # valgrind has no room for the address space that hugepages are given
    with bench_rows.Peer(row, memory="no-huge", timeout=60,
                         wrapper=callgrind(path, "--instr-atstart=no")) as device:
        with bench_rows.FrontEnd(row, device.sockets) as front:
            time.sleep(1)
            for switch, pause in (("on", seconds), ("off", 0)):
                subprocess.run(["callgrind_control", "-i", switch, str(device.pid)],
                               check=True, capture_output=True)
                time.sleep(pause)
            front.stop_forwarding()
    found, calls = costs(path)
    polls, bursts = calls["rte_vhost_dequeue_burst"], calls["rte_vhost_enqueue_burst"]
    if row.scenario == "g2h":
        bursts = polls      # the front-end sends all the time
    if not bursts:
        raise pmd.PmdError("net_vhost found no packets")
    result = collections.Counter()
    for (library, *_), count in found.items():
        result[os.path.basename(library).split(".so")[0]] += count / (32 * bursts)
    return result, polls <= 1.05 * bursts


# --- perf -------------------------------------------------------------------------------------

def perf_event():
    """What perf can sample here: cycles, or the clock; None if there is no perf."""
    try:
        stat = subprocess.run(["perf", "stat", "-x,", "-e", "cycles", "true"],
                              capture_output=True, text=True, check=False)
    except OSError:
        return None
    if stat.returncode != 0:
        return None
    return "cpu-clock" if "not supported" in stat.stderr else "cycles"


def thread_of(pid, name):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as comm:
            if comm.read().startswith(name):
                return thread
    raise pmd.PmdError(f"process {pid} has no thread {name}")


def cycles(row, seconds, event, scratch):
    """{symbol: TSC cycles per packet}, idle polls included"""
    path = os.path.join(scratch, "perf")
    with bench_rows.Vfn(row) as device, bench_rows.FrontEnd(row, device.sockets):
        time.sleep(0.2)
        before, start = device.cycles(), time.monotonic()
        subprocess.run(["perf", "record", "-o", path, "-e", event, "-t",
                        thread_of(device.pid, "vfn-poll"), "sleep", str(seconds)],
                       check=True, capture_output=True)
        packets = device.cycles()[1] - before[1]
        passed = time.monotonic() - start
        hertz = next(iter(device.telemetry("/vfn/poller").values()))["hz"]
    report = subprocess.run(["perf", "report", "-i", path, "--stdio", "--sort", "symbol"],
                            check=True, capture_output=True, text=True).stdout
    return {name: float(share) / 100 * passed * hertz / packets for share, name in
            re.findall(r"^\s+([\d.]+)%\s+\[\S\] (\S+)", report, re.MULTILINE)}


# --- the tables -------------------------------------------------------------------------------

def stage_table(row, found, burst):
    stages = collections.Counter()
    for (name, _), count in found.items():
        stages[name] += count
    lines = [f"| vfn, {row}: instructions per packet, {burst:.1f} packets per burst | |",
             "|---|---|"]
    for name, count in stages.most_common():
        parts = sorted(((n, f) for (s, f), n in found.items() if s == name and n >= 0.5),
                       reverse=True)
        listed = ": " + ", ".join(f"{f} {n:.1f}" for n, f in parts) if parts else ""
        lines.append(f"| **{name}**{listed} | {count:.1f} |")
    return "\n".join([*lines, f"| all | {sum(stages.values()):.1f} |"])


def plain_table(title, found, least):
    lines = [f"| {title} | |", "|---|---|"]
    lines += [f"| {name} | {count:.1f} |" for name, count in
              sorted(found.items(), key=lambda item: -item[1]) if count >= least]
    return "\n".join([*lines, f"| all | {sum(found.values()):.1f} |"])


def parse_args(argv):
    parser = argparse.ArgumentParser(prog="profile.sh",
                                     description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("scenario", choices=[s for s in bench_rows.SCENARIOS if s in ENTRIES])
    parser.add_argument("--ring", choices=bench_rows.RINGS, default="split")
    parser.add_argument("--mode", choices=bench_rows.MODES, default="mergeable")
    parser.add_argument("--size", type=int, choices=bench_rows.SIZES, default=64)
    parser.add_argument("--seconds", type=float, default=2, help="of traffic (%(default)s)")
    parser.add_argument("--only", choices=["vfn", "net_vhost", "time"],
                        help="one of the tables")
    bench_machine.patience_option(parser, 60)
    return parser.parse_args(argv)


def prepare_build():
    """The code of the release, with line numbers, and what counts its instructions."""
    prepare.ready(prepare.DEVICE, 256, ["valgrind"], "build-profile",
                  ["-Dbuildtype=release", "-Ddebug=true"])


def main(argv):
    args = parse_args(argv)
    prepare_build()
    row = bench_rows.Row(args.scenario, args.ring, args.mode, args.size)
    scratch = pmd.Scratch()
    print(f"{bench_machine.dpdk_version()}, commit {bench_machine.commit()}\n")
    try:
        if args.only in (None, "vfn"):
            print(stage_table(row, *vfn_instructions(row, args.seconds, scratch.path)), flush=True)
        event = perf_event() if args.only in (None, "time") else None
        if event:
            print("\n" + plain_table(f"vfn, {row}: TSC cycles per packet by {event}, idle polls "
                                     "included", cycles(row, args.seconds, event, scratch.path),
                                     0.5), flush=True)
        elif args.only == "time":
            raise pmd.PmdError("no perf here")
        if args.only in (None, "net_vhost"):
            # the front-end is the fast end unless others take its CPU
            found, noisy, _ = bench_machine.Patience(args.patience).measure(
                lambda: peer_instructions(row, args.seconds, scratch.path))
            print("\n" + plain_table(f"net_vhost, {row}: instructions per packet"
                                     + (", noisy: polls that found nothing are counted"
                                        if noisy else ""), found, 0.1))
    except (pmd.PmdError, subprocess.CalledProcessError) as error:
        print(f"profile.sh: {error}", file=sys.stderr)
        return 1
    finally:
        scratch.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
