# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of what bench.py and quickstart.sh have measured, as SVG."""

import os

WIDTH = 9               # inches
COLOURS = {"vfn": "#1f6f8b", "peer": "#c9a227"}
LABELS = {"vfn": "vfn", "peer": "net_vhost"}


def label(row):
    mode = "" if row["mode"] == "mergeable" else f" {row['mode']}"
    return f"{row['scenario']} {row['ring']}{mode} {row['size']} B"


def bars(plt, rows, what, value, spread=None):
    """A figure with a bar per row and device, from the top down."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.42 * len(rows)))
    for place, side in enumerate(("vfn", "peer")):
        for number, row in enumerate(rows):
            middle, error = value(row[side]), None
            if spread:
                low, high = spread(row[side])
                error = [[middle - low], [high - middle]]
            axes.barh(number + 0.38 * place, middle, 0.36, xerr=error, color=COLOURS[side],
                      label=LABELS[side] if number == 0 else None, error_kw={"linewidth": 0.8})
    axes.set_yticks([n + 0.19 for n in range(len(rows))], [label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(what)
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right")
    return figure


def ratios(plt, rows):
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.26 * len(rows)))
    axes.barh(range(len(rows)), [row["ratio"] for row in rows], 0.7, color=COLOURS["vfn"])
    for number, row in enumerate(rows):
        axes.text(row["ratio"], number, f" {row['ratio']:.2f}", va="center", fontsize=8)
    axes.axvline(1, color=COLOURS["peer"], linewidth=2)
    axes.set_yticks(range(len(rows)), [label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("vfn to net_vhost: above 1 vfn is better")
    return figure


def pyplot():
    import matplotlib       # pylint: disable=import-outside-toplevel
    matplotlib.use("svg")
    # the same figures make the same files
    matplotlib.rcParams.update({"svg.hashsalt": "vfn", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt        # pylint: disable=import-outside-toplevel
    return plt


def plot(rows, directory):
    """Write the figures; return their paths."""
    plt = pyplot()

    def spread(side):
        return side["min"], side["max"]
    figures = {"ratio": ratios(plt, rows)}
    traffic = [row for row in rows if row["unit"] == "Mpps"]
    perf = [row for row in rows if row["unit"] != "Mpps"]
    if traffic:
        figures["packets"] = bars(plt, traffic, "million packets per second; median, minimum, "
                                  "maximum", lambda side: side["median"], spread)
    if perf:
        figures["pmd-perf"] = bars(plt, perf, "pmd_perf_autotest: cycles per packet, lower is "
                                   "better", lambda side: side["median"], spread)
    figures["device"] = bars(plt, rows, "cycles per packet on the device's CPU, lower is better",
                             lambda side: side["device_cycles"])
    os.makedirs(directory, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(os.path.join(directory, f"{name}.svg"))
        figure.savefig(paths[-1], bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    return paths


def quickstart(result, path):
    """Packets per second over time, and round trips by percentile if they were measured."""
    plt, trips = pyplot(), result.get("latency_us")
    figure, panels = plt.subplots(1, 2 if trips else 1, figsize=(WIDTH, 3.5), squeeze=False)
    axes = panels[0][0]
    for side, rates in (("vfn", result["rates"]),
                        ("peer", result.get("net_vhost", {}).get("rates"))):
        if rates:
            axes.plot(range(1, len(rates) + 1), rates, marker="o", color=COLOURS[side],
                      label=LABELS[side])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("million packets per second")
    axes.set_title(f"{result['ring']} ring, {result['size']}-byte frames, looped back", fontsize=10)
    axes.grid(linewidth=0.3)
    axes.legend(loc="lower right")
    if trips:
        axes = panels[0][1]
        for side, name in (("vfn", "vfn"), ("peer", "net_vhost")):
            if name in trips:
                ranks = [rank for rank in trips[name] if rank.startswith("p")]
                axes.plot(ranks, [trips[name][rank] for rank in ranks], marker="o",
                          color=COLOURS[side], label=LABELS[side])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("microseconds there and back")
        axes.grid(linewidth=0.3)
        axes.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
