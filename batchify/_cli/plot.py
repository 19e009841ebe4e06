"""What an item takes by the size of its batch, and latency by load, as a picture.

Must not know: how anything was found out.
"""

# pyright: reportUnknownMemberType=false
# Much of matplotlib takes any keyword.

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from batchify._planning.cost import Cost
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice

BATCH, FUNCTION, TAIL, TARGET = "tab:blue", "tab:gray", "tab:orange", "tab:red"


def picture(name: str, cost: Cost, advice: Advice, curve: Mapping[float, Simulation]) -> bytes:
    """Return a PNG.

    Args:
        name: of the function.
        cost: what batches take.
        advice: the options, and the rates they are for.
        curve: what these options would do, by rate.
    """
    # One below the other, with letters that are legible on a phone.
    figure = Figure(figsize=(6, 8), layout="constrained")
    above, below = figure.subplots(2)
    _items(above, cost)
    above.set_title(f"{name}: what an item takes")
    _latency(below, advice, curve)
    below.set_title(f"latency with {advice.setting}", fontsize=11)
    for panel in (above, below):
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    written = BytesIO()
    figure.savefig(written, dpi=100, metadata={"Software": None})
    return written.getvalue()


def _items(panel: Axes, cost: Cost) -> None:
    sizes = list(cost.together)
    panel.plot(sizes, [1000 * cost.together[n] / n for n in sizes], "o", color=BATCH, label="measured, with engine")
    panel.plot(sizes, [1000 * cost.line(n) / n for n in sizes], color=BATCH, label="fitted a + b n")
    panel.plot(sizes, [1000 * cost.function[n] / n for n in sizes], ".--", color=FUNCTION, label="the function alone")
    panel.axhline(1000 * cost.alone, color=TARGET, linewidth=1, label="an item alone, not batched")
    panel.set(xscale="log", yscale="log", xlabel="items in a batch", ylabel="ms for each item")
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.minorticks_off()


def _latency(panel: Axes, advice: Advice, curve: Mapping[float, Simulation]) -> None:
    rates = list(curve)
    panel.plot(rates, [done.latency_ms.p99 for done in curve.values()], color=TAIL, label="p99")
    panel.plot(rates, [done.latency_ms.p50 for done in curve.values()], color=BATCH, label="p50")
    asked = list(advice.forecasts)
    panel.plot(asked, [done.latency_ms.p99 for done in advice.forecasts.values()], "o", color=TAIL)
    panel.plot(asked, [done.latency_ms.p50 for done in advice.forecasts.values()], "o", color=BATCH)
    if advice.slo is not None:
        panel.axhline(1000 * advice.slo, color=TARGET, linestyle="--", linewidth=1, label="asked for")
    panel.set(xlabel="calls a second", ylabel="ms from call to answer", ylim=(0, None), xlim=(0, None))
