"""Show results in the terminal, as an HTML page and as a picture.

It must not know the meaning of the results. Only commands need rich, and only a picture needs matplotlib, so each
function imports its own.
"""

# ruff: noqa: PLC0415
# pyright: reportUnknownMemberType=false
# Much of matplotlib accepts any keyword.

from __future__ import annotations

import sys
from base64 import b64encode
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from batchify._cli.wording import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes
    from rich.table import Table as RichTable

    from batchify._cli.wording import Part
    from batchify._planning.cost import Cost
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice

# Columns for tables in a file; sentences are not broken there.
FILE_WIDTH = 200
BATCH, FUNCTION, TAIL, TARGET = "tab:blue", "tab:gray", "tab:orange", "tab:red"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 1rem }
body { color: #222; background: #fff }
h1 { font-size: 1.4rem; overflow-wrap: anywhere }
p { overflow-wrap: anywhere }
div { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: 1rem 0 }
caption { text-align: left; font-weight: bold }
th, td { text-align: right; padding: .2rem .5rem; white-space: nowrap; border-bottom: 1px solid #ddd }
img { max-width: 100%; height: auto }
"""
ALT = "Two charts: the time per item by batch size, and latency by calls a second; the tables contain the figures."


def show(parts: Iterable[Part]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    for part in parts:
        if isinstance(part, Table):
            console.print(_rich_table(part))
        else:
            console.print(Text(part), soft_wrap=not console.is_terminal)
        console.print()


def progress(label: str, shares: Iterable[float]) -> None:
    """Run the steps of a measurement, each of which yields the share that is done, and draw a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    hidden = not console.is_terminal
    # The bar is drawn between steps only: a drawing thread would compete with the measured code.
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=1.0)
        for share in shares:
            bar.update(task, completed=share)
            bar.refresh()


def _rich_table(table: Table) -> RichTable:
    from rich.table import Table as RichTable

    rich_table = RichTable(title=table.title, title_justify="left", title_style="bold")
    for head in table.heads:
        rich_table.add_column(head, justify="right", no_wrap=True)
    for row in table.rows:
        rich_table.add_row(*row)
    return rich_table


def html_page(title: str, parts: Iterable[Part], picture: bytes) -> str:
    """Return an HTML page that needs no other file; ``picture`` is a PNG."""
    body = "\n".join(_html_table(part) if isinstance(part, Table) else f"<p>{escape(part)}</p>" for part in parts)
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'{body}\n<img alt="{ALT}" src="{source}">\n</body>\n</html>\n'
    )


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.heads)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<div><table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"


def picture(name: str, cost: Cost, advice: Advice, curve: Mapping[float, Simulation]) -> bytes:
    """Return a PNG of the time per item by batch size, and of latency by load; ``curve`` has predictions by rate."""
    from matplotlib.figure import Figure

    # One chart below the other, so that the text is legible on a phone.
    figure = Figure(figsize=(6, 8), layout="constrained")
    above, below = figure.subplots(2)
    _draw_cost(above, cost)
    above.set_title(f"{name}: time per item")
    _draw_latency(below, advice, curve)
    below.set_title(f"latency with {advice.setting}", fontsize=11)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    png = BytesIO()
    figure.savefig(png, dpi=100, metadata={"Software": None})
    return png.getvalue()


def _draw_cost(axes: Axes, cost: Cost) -> None:
    sizes, linear = list(cost.with_engine), cost.linear
    axes.plot(sizes, [1000 * cost.with_engine[n] / n for n in sizes], "o", color=BATCH, label="measured, with engine")
    axes.plot(sizes, [1000 * linear(n) / n for n in sizes], color=BATCH, label="fitted a + b n")
    axes.plot(sizes, [1000 * cost.function[n] / n for n in sizes], ".--", color=FUNCTION, label="the function alone")
    axes.axhline(1000 * cost.unbatched, color=TARGET, linewidth=1, label="an item without batching")
    axes.set(xscale="log", yscale="log", xlabel="items in a batch", ylabel="ms per item")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()


def _draw_latency(axes: Axes, advice: Advice, curve: Mapping[float, Simulation]) -> None:
    for name, color in (("p99", TAIL), ("p50", BATCH)):
        axes.plot(list(curve), [getattr(done.latency_ms, name) for done in curve.values()], color=color, label=name)
        forecasts = [getattr(done.latency_ms, name) for done in advice.forecasts.values()]
        axes.plot(list(advice.forecasts), forecasts, "o", color=color)
    if advice.slo is not None:
        axes.axhline(1000 * advice.slo, color=TARGET, linestyle="--", linewidth=1, label="target")
    axes.set(xlabel="calls a second", ylabel="ms from call to answer", ylim=(0, None), xlim=(0, None))
