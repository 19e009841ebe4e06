"""A chart of the ratios of all contests."""

from __future__ import annotations

import matplotlib as mpl

from tests.bench.figures import OURS, ratios, spread

mpl.use("agg")

from matplotlib import pyplot as plt

ACROSS = 3


def draw(results, path):
    """Draw a panel for each contest: the median ratio of each entrant, and its quartiles."""
    down = -(-len(results) // ACROSS)
    figure, panels = plt.subplots(down, ACROSS, figsize=(6 * ACROSS, 2.6 * down), squeeze=False, layout="constrained")
    for panel in panels.flat[len(results) :]:
        panel.axis("off")
    for panel, (_, contest, figures) in zip(panels.flat, results, strict=False):
        _panel(panel, contest, figures)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _panel(panel, contest, figures):
    base = figures[contest.baseline].values
    panel.set_title(f"{contest.title}\n{contest.unit}, x {contest.baseline}", fontsize=9)
    if not base:
        return
    spreads = {name: spread(ratios(entry.values, base)) for name, entry in figures.items() if entry.values}
    middles = [found.middle for found in spreads.values()]
    around = [
        [found.middle - found.low for found in spreads.values()],
        [found.high - found.middle for found in spreads.values()],
    ]
    colors = ["tab:orange" if name.startswith(OURS) else "tab:gray" for name in spreads]
    panel.barh(list(spreads), middles, xerr=around, color=colors)
    panel.invert_yaxis()
    panel.axvline(1, color="black", linewidth=0.8)
    if max(middles) > 20 * min(middles) > 0:
        panel.set_xscale("log")
    panel.tick_params(labelsize=8)
