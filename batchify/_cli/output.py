"""Show results in the terminal, as JSON, as an HTML page and as pictures.

It must not know the meaning of the results. Only a picture needs matplotlib.
"""

# pyright: reportUnknownMemberType=false
# Much of matplotlib accepts any keyword.

from __future__ import annotations

import json
import sys
from base64 import b64encode
from dataclasses import asdict
from html import escape
from io import BytesIO
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from batchify._cli.wording import Figure, Table
from batchify._planning.cost import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes

    from batchify._cli.wording import Cell, Part
    from batchify._planning.cost import Cost
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice

BATCH, FUNCTION, TAIL, TARGET = "tab:blue", "tab:gray", "tab:orange", "tab:red"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 0 auto; padding: 1rem }}
h1 {{ font-size: 1.4rem; overflow-wrap: anywhere }}
p {{ overflow-wrap: anywhere }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: 1rem 0 }}
caption {{ text-align: left; font-weight: bold }}
th, td {{ text-align: right; padding: .2rem .5rem; white-space: nowrap; border-bottom: 1px solid #8888 }}
img {{ max-width: 100%; height: auto }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
<picture>
<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">
<img alt="{alt}" src="data:image/png;base64,{light}">
</picture>
</body>
</html>
"""
ALT = "Two charts: the time per item by batch size, and latency by calls a second; the tables contain the figures."


def show(parts: Iterable[Part]) -> None:
    width = get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for part in parts:
        lines = _lines(part) if isinstance(part, Table) else wrap(part, width)
        sys.stdout.write("\n".join([*lines, "", ""]))


def _lines(table: Table) -> list[str]:
    rows = [[*map(str, row)] for row in (table.heads, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return [table.title, "", *("  ".join(map(str.rjust, row, widths)) for row in rows)]


def show_json(parts: Iterable[Part]) -> None:
    """Print the sentences as ``text``, and each table as a list of objects under its title."""
    found: dict[str, list[Any]] = {"text": []}
    for part in parts:
        if isinstance(part, Table):
            found[part.title] = [dict(zip(part.heads, map(_plain, row), strict=True)) for row in part.rows]
        else:
            found["text"].append(part)
    sys.stdout.write(f"{json.dumps(found, indent=2)}\n")


def _plain(cell: Cell) -> object:
    value = cell.value if isinstance(cell, Figure) else cell
    return asdict(value) if isinstance(value, Estimate) else value


def progress(label: str, shares: Iterable[float]) -> None:
    """Run the steps of a measurement, each of which yields the share that is done, and show it in a terminal."""
    for share in shares:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{label}: {share:.0%}" if share < 1 else "\r\x1b[K")
            sys.stderr.flush()


def html_page(title: str, parts: Iterable[Part], light: bytes, dark: bytes) -> str:
    """Return an HTML page that needs no other file; ``light`` and ``dark`` are pictures in PNG."""
    body = "\n".join(_html_table(part) if isinstance(part, Table) else f"<p>{escape(part)}</p>" for part in parts)
    pictures = {"light": b64encode(light).decode(), "dark": b64encode(dark).decode()}
    return PAGE.format(title=escape(title), body=body, alt=ALT, **pictures)


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.heads)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<div><table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"


def picture(
    name: str, costs: Sequence[Cost], advice: Advice, curve: Mapping[float, Simulation], style: str = "default"
) -> bytes:
    """Return a PNG of the time per item by batch size, and of latency by load; ``curve`` has predictions by rate."""
    from matplotlib import style as styles  # noqa: PLC0415  # commands without a picture do not need it
    from matplotlib.figure import Figure as Canvas  # noqa: PLC0415

    with styles.context(style):
        # One chart below the other, so that the text is legible on a phone.
        canvas = Canvas(figsize=(6, 8), layout="constrained")
        above, below = canvas.subplots(2)
        _draw_cost(above, costs)
        above.set_title(f"{name}: time per item")
        _draw_latency(below, advice, curve)
        below.set_title(f"predicted latency, {advice.setting}", fontsize=10)
        for axes in (above, below):
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        png = BytesIO()
        canvas.savefig(png, dpi=100, metadata={"Software": None})
    return png.getvalue()


def _draw_cost(axes: Axes, costs: Sequence[Cost]) -> None:
    cost = costs[0]
    sizes, linear = list(cost.function), cost.linear
    found = [Estimate.of(1000 * each.loaded[1][n] / n for each in costs) for n in sizes]
    alone = [1000 * cost.function[n] / n for n in sizes]
    _draw_points(axes, sizes, found, BATCH, "at overload, with engine")
    axes.plot(sizes, [1000 * linear(n) / n for n in sizes], color=BATCH, label="fitted a + b n")
    axes.plot(sizes, alone, ".--", color=FUNCTION, label="the function alone")
    axes.axhline(1000 * cost.unbatched, color=TARGET, linewidth=1, label="an item without batching")
    axes.set(xscale="log", yscale="log", xlabel="items in a batch", ylabel="ms per item")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()


def _draw_latency(axes: Axes, advice: Advice, curve: Mapping[float, Simulation]) -> None:
    # At overload, the latency grows without end.
    rates = [rate for rate in advice.forecasts if rate <= max(curve)]
    for name, color in (("p99", TAIL), ("p50", BATCH)):
        axes.plot(list(curve), [getattr(done.latency_ms, name) for done in curve.values()], color=color, label=name)
        found = [Estimate.of(getattr(each.latency_ms, name) for each in advice.forecasts[rate]) for rate in rates]
        _draw_points(axes, rates, found, color)
    if advice.slo is not None:
        axes.axhline(1000 * advice.slo, color=TARGET, linestyle="--", linewidth=1, label="target")
    axes.set(xlabel="calls a second", ylabel="ms from call to answer", ylim=(0, None), xlim=(0, None))


def _draw_points(
    axes: Axes, xs: Sequence[float], found: Sequence[Estimate], color: str, label: str | None = None
) -> None:
    errors = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
    axes.errorbar(xs, [each.value for each in found], errors, fmt="o", capsize=3, color=color, label=label)
