#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Measure vfn against net_vhost, window by window in turn, on stock testpmd.

Method: the front-end forwards on CPU 0, the device on CPU 1. A run starts both sides anew, and
their windows alternate; a window in which other processes took 6% of a CPU or more is thrown away,
unless the patience is at its end: then it counts, and the row is marked as noisy.
Median, minimum and maximum of all windows are quoted, and the ratio of the medians, which is above
1 where vfn is better.
"""

import argparse
import dataclasses
import datetime
import json
import os
import shlex
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import bench_machine        # noqa: E402
import bench_plot           # noqa: E402
import bench_rows           # noqa: E402
import pmd                  # noqa: E402
import prepare              # noqa: E402
from bench_rows import MODES, NAMES, RINGS, SCENARIOS, SIZES      # noqa: E402

# what is measured if nothing is named: all of it, what the project's bars name, a taste
SETS = {
    "full": {"ring": RINGS, "mode": tuple(MODES), "size": SIZES},
    "default": {"ring": RINGS, "mode": ("mergeable",), "size": (64, 1518), "perf": tuple(MODES)},
    "quick": {"ring": RINGS, "mode": ("mergeable",), "size": (64,)},
}


# --- what is reported -------------------------------------------------------------------------

def summary(windows, row, ghz):
    """What the JSON file says of a device in a row."""
    values = [w["value"] for w in windows]
    side = {"median": statistics.median(values), "min": min(values), "max": max(values),
            "windows": len(values), "values": values}
    for end in ("device", "front"):
        if (cycles := [w[end] for w in windows if end in w]):
            side[f"{end}_cycles"] = statistics.median(cycles)
            if row.unit == "Mpps":
                # the rest are polls that find nothing
                side[f"{end}_busy"] = side[f"{end}_cycles"] * side["median"] / (1000 * ghz)
    return side


def limits(row, gauges, vfn, ghz):
    """What the two CPUs could do at best in this row, and how much of it that is.

    The front-end leaves frames alone: what it sends again is what it received.
    """
    found = bench_machine.median(gauges)
    one_way = row.scenario in ("g2h", "h2g")
    frame = {"g2h": None, "h2g": "write"}.get(row.scenario, "copy")
    result = {"line_ns": found[bench_machine.LINE],
              "ring_ns": found[bench_machine.ONE_WAY if one_way else bench_machine.CIRCLE],
              "copy_ns": found[frame, row.size] if frame else 0}
    least = result["ring_ns"] + result["copy_ns"]
    if row.unit == "Mpps":
        result["best"] = 1000 / least
        result["fraction"] = vfn / result["best"]
    else:
        result["best"] = least * ghz
        result["fraction"] = result["best"] / vfn
    return result


def result(row, found, dropped, ghz):
    vfn, peer = (summary(found[name], row, ghz) for name in NAMES)
    better = vfn["median"] / peer["median"]
    gauges = [w["limits"] for name in NAMES for w in found[name]]
    return {"scenario": row.scenario, "ring": row.ring, "mode": row.mode, "size": row.size,
            "unit": row.unit, "vfn": vfn, "peer": peer,
            "ratio": better if row.unit == "Mpps" else 1 / better,
            "limits": limits(row, gauges, vfn["median"], ghz), "windows_thrown_away": dropped,
            "noisy_windows": sum(w["noisy"] for name in NAMES for w in found[name])}


def quote(side, unit):
    digits = 2 if unit == "Mpps" else 0
    return f"{side['min']:.{digits}f} / **{side['median']:.{digits}f}** / {side['max']:.{digits}f}"


def both(row, key, form):
    """A figure of vfn and of its peer, where it is known."""
    return " / ".join(format(row[side][key], form) if key in row[side] else "-"
                      for side in ("vfn", "peer"))


def table(rows):
    """Markdown, one table per unit."""
    lines = []
    for unit in sorted({row["unit"] for row in rows}):
        lines += ["", f"| {unit} | vfn | net_vhost | ratio | device, cycles per packet "
                  "| front-end, cycles per packet | front-end busy | of the limit |",
                  "|---|---|---|---|---|---|---|---|"]
        lines += [f"| {row['scenario']}, {row['ring']}, {row['mode']}, {row['size']} B"
                  f"{', noisy' if row.get('noisy_windows') else ''} | "
                  f"{quote(row['vfn'], unit)} | {quote(row['peer'], unit)} | {row['ratio']:.2f} | "
                  f"{both(row, 'device_cycles', '.0f')} | {both(row, 'front_cycles', '.0f')} | "
                  f"{both(row, 'front_busy', '.0%')} | {row['limits']['fraction']:.0%} |"
                  for row in rows if row["unit"] == unit]
    return "\n".join(lines)


def limits_table(found):
    """What the two CPUs can do at best, as it was between all windows."""
    lines = ["| limits, ns | median |", "|---|---|"]
    for one in found:
        size = f", {one['size']} B" if one["size"] else ""
        lines.append(f"| {one['name']}{size} | {one['ns']:.1f} |")
    return "\n".join(lines)


def report(args, machine, rows, gauges):
    """What the file holds."""
    return {"date": datetime.date.today().isoformat(), "commit": bench_machine.commit(),
            "machine": bench_machine.computer(),
            "tsc_ghz": machine.ghz, "dpdk": bench_machine.dpdk_version(),
            "command": shlex.join(["devtools/bench.py", *args.argv]),
            "runs": args.runs, "windows": args.windows, "seconds": args.seconds,
            "limits": [{"name": name, "size": size, "ns": ns}
                       for (name, size), ns in bench_machine.median(gauges).items()],
            "rows": rows}


def show(about):
    """A report as Markdown."""
    print(f"{about['date']}, commit {about['commit']}, {about['dpdk']}, {about['machine']}, "
          f"TSC {about['tsc_ghz']:.1f} GHz\n\n    {about['command']}\n\n{about['runs']} runs of "
          f"{about['windows']} windows of {about['seconds']} s per device; minimum, **median**, "
          f"maximum of the windows\n{table(about['rows'])}\n\n{limits_table(about['limits'])}")


def merged(paths):
    """The report of several files: a row is the last one's that has it."""
    reports, rows = [], {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            reports.append(json.load(file))
        for row in reports[-1]["rows"]:
            rows[tuple(row[key] for key in ("scenario", "ring", "mode", "size"))] = row
    order = [dataclasses.astuple(row) for row in
             bench_rows.rows(SCENARIOS, RINGS, MODES, SIZES)]
    about = {**reports[-1], "rows": [rows[key] for key in order if key in rows]}
    for key, between in (("date", ", "), ("commit", ", "), ("command", "\n    ")):
        about[key] = between.join(dict.fromkeys(one[key] for one in reports))
    return about


def save(path, content):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(content, out, indent=1)
        out.write("\n")


# --- the command line -------------------------------------------------------------------------

def names(known, convert=str):
    """An argument type: a comma-separated list of known names."""
    def parse(text):
        chosen = text.split(",")
        if unknown := [n for n in chosen if n not in [str(k) for k in known]]:
            raise argparse.ArgumentTypeError(
                f"{unknown[0]!r} is none of {', '.join(map(str, known))}")
        return tuple(convert(n) for n in chosen)
    return parse


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0],
        epilog="bench.py table FILE... prints what --json FILE has kept, bench.py plot FILE... "
        "--out DIR makes figures of it.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_const", dest="set", const="quick",
                       help="64 bytes, mergeable, one run: under two minutes")
    which.add_argument("--full", action="store_const", dest="set", const="full",
                       help="every row: hours")
    parser.add_argument("--scenario", type=names(SCENARIOS), default=SCENARIOS, metavar="LIST",
                        help=f"comma-separated, of {', '.join(SCENARIOS)} (all)")
    parser.add_argument("--ring", type=names(RINGS), metavar="LIST", help="split, packed (both)")
    parser.add_argument("--mode", type=names(MODES), metavar="LIST",
                        help=f"{', '.join(MODES)} (mergeable; pmd-perf: all)")
    parser.add_argument("--size", type=names(SIZES, int), metavar="LIST",
                        help="bytes with FCS: " + ", ".join(map(str, SIZES)) + " (64,1518)")
    parser.add_argument("--runs", type=int, help="fresh starts per row (5; --quick: 1)")
    parser.add_argument("--windows", type=int,
                        help="quiet windows per run and device (6; --quick: 3, pmd-perf 1)")
    parser.add_argument("--seconds", type=float, default=0.4,
                        help="length of a window (%(default)s)")
    parser.add_argument("--line", type=float, metavar="NS",
                        help="measure while a cache line takes that long between the CPUs, there "
                        "and back, and not while it takes what is usual in the beginning")
    parser.add_argument("--noisy", action="store_true",
                        help="all windows count, whatever else the machine does: shows that it "
                        "works, not how fast it is")
    parser.add_argument("--json", metavar="FILE", help="also write every figure there")
    bench_machine.patience_option(parser, None)
    args = parser.parse_args(argv)
    args.argv = argv
    chosen = SETS[args.set or "default"]
    quick = args.set == "quick"
    if args.patience is None:
        args.patience = 60 if quick else 1800
    args.runs = args.runs if args.runs is not None else 1 if quick else 5
    # a window of pmd-perf is a process and takes seconds
    args.perf_windows = args.windows if args.windows is not None else 1 if quick else 6
    args.windows = args.windows if args.windows is not None else 3 if quick else 6
    if min(args.runs, args.windows) < 1 or args.seconds < 0.1:
        parser.error("at least one run of one window of 0.1 seconds")
    args.rows = bench_rows.rows(args.scenario, args.ring or chosen["ring"],
                                args.mode or chosen["mode"], args.size or chosen["size"],
                                args.mode or chosen.get("perf"))
    if not args.rows:
        parser.error("pmd-perf has frames of 64 bytes only")
    return args


def main(argv):
    if argv and argv[0] in ("table", "plot"):
        return again(argv)
    args = parse_args(argv)
    prepare.ready((*prepare.DEVICE, *prepare.LIMITS), pages=400)
    try:
        return run(args)
    except pmd.PmdError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1


def run(args):
    rows, gauges, code = [], [], 0
    # so that all that we do is counted, on a larger machine too
    os.sched_setaffinity(0, {pmd.cpu(0), pmd.cpu(1)})
    look = 0 if args.noisy else 2 if args.set == "quick" else 6
    machine = bench_machine.Machine(look, bench_machine.Patience(args.patience), args.line,
                                    args.noisy)
    print(f"a cache line takes {machine.line_ns:.0f} ns there and back between the CPUs"
          + ("" if args.noisy else "; only while it does windows count"), file=sys.stderr)
    for number, row in enumerate(args.rows):
        def progress(run, medians, label=f"[{number + 1}/{len(args.rows)}] {row}", unit=row.unit):
            print(f"{label}: run {run + 1} of {args.runs}: "
                  + ", ".join(f"{name} {value:.2f}" for name, value in medians.items())
                  + f" {unit}", file=sys.stderr, flush=True)
        try:
            windows = args.perf_windows if row.scenario == "pmd-perf" else args.windows
            found, dropped = bench_rows.measure(row, args.runs, windows, args.seconds, machine,
                                                progress)
        except pmd.PmdError as error:
            print(f"bench.py: {row}: {error}", file=sys.stderr)
            code = 1
            continue
        except KeyboardInterrupt:
            print(f"bench.py: interrupted at {row}", file=sys.stderr)
            code = 1
            break
        rows.append(result(row, found, dropped, machine.ghz))
        gauges += [w["limits"] for name in NAMES for w in found[name]]
        if args.json:
            save(args.json, report(args, machine, rows, gauges))
    if rows:
        show(report(args, machine, rows, gauges))
    return code


def again(argv):
    """bench.py table|plot: what was measured before."""
    parser = argparse.ArgumentParser(prog=f"bench.py {argv[0]}")
    parser.add_argument("files", nargs="+", metavar="FILE",
                        help="of --json; where two have the same row the last one counts")
    if argv[0] == "plot":
        parser.add_argument("--out", metavar="DIR", required=True, help="for the SVG files")
    args = parser.parse_args(argv[1:])
    try:
        about = merged(args.files)
        if argv[0] == "table":
            show(about)
        else:
            print("\n".join(bench_plot.plot(about["rows"], args.out)))
    except ModuleNotFoundError as error:
        print(f"bench.py: no {error.name}: apt-get install python3-matplotlib", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(f"bench.py: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
