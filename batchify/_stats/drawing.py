"""Draws labelled figures, as text for a terminal and as HTML for a notebook, with the same content.

Decides: layout, units, rounding, which sizes share a bar.
Must not know: the meaning of a figure, or how it was counted.

The title is arbitrary text, so it is made printable, and escaped in markup.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


NO_BATCHES = "no batches yet"
MOST_BARS = 10
BY_SIZE = "batches by size"
# Each unit with its length in milliseconds.
UNITS = (("s", 1000.0), ("ms", 1.0), ("us", 0.001))

# Columns of text. Every section fills the whole width, so that the right edges are aligned.
WIDTH = 60
LABEL = 12
GAP = "    "
EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")

# Pixels of SVG.
ROW = 18
CHARACTER = 8
BAR = 180
PANEL = 370
FIGURE = 80
# Its contrast is at least 3:1 against white and against black, so bars are visible on either theme.
BAR_COLOR = "#3b82f6"


@dataclass(frozen=True)
class Figures:
    """The figures of a drawing, by label: the halves of the table, numbers of batches, and times in milliseconds."""

    title: str
    totals: Mapping[str, str]
    calls: Mapping[str, str]
    reasons: Mapping[str, int]
    sizes: Mapping[int, int]
    wait: Mapping[str, float]
    run: Mapping[str, float]

    def as_text(self) -> str:
        """Return an aligned table with bars of block characters."""
        lines = [_rule(_printable(self.title))]
        for left, right in zip_longest(self.totals.items(), self.calls.items(), fillvalue=("", "")):
            lines.append(f"{_cell(*left)}{GAP}{_cell(*right)}".rstrip())
        if not self.sizes:
            return "\n".join([*lines, "", NO_BATCHES])
        lines += ["", _grid_row("", self.wait)]
        for label, times in ("wait", self.wait), ("run", self.run):
            lines.append(_grid_row(label, map(as_time, times.values())))
        reasons, sizes = _chart("left because", self.reasons), _chart("batch size", _sizes(self.sizes))
        return "\n".join([*lines, "", *reasons, "", *sizes])

    def as_html(self) -> str:
        """Return an HTML fragment without external resources: a table, and charts as inline SVG."""
        below = _summary(self) + _svg(self) if self.sizes else _paragraph(NO_BATCHES)
        return f'<div style="overflow-x:auto">{_table(self)}{below}</div>'


def _printable(name: str) -> str:
    # Line breaks would break the table, and XML does not allow control characters even when escaped.
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def _sizes(histogram: Mapping[int, int]) -> dict[str, int]:
    """Return the number of batches of each size, or of each range of sizes if there are many sizes."""
    if len(histogram) <= MOST_BARS:
        return {str(size): histogram[size] for size in sorted(histogram)}
    smallest, largest = min(histogram), max(histogram)
    # A power of two, because most values of max_size are powers of two. So a full batch is the end of a range.
    width = 2
    while (largest - 1) // width - (smallest - 1) // width >= MOST_BARS:
        width *= 2
    bins: Counter[int] = Counter()
    for size, count in histogram.items():
        bins[(size - 1) // width] += count
    ranges: dict[str, int] = {}
    for index in range(min(bins), max(bins) + 1):
        first, last = index * width + 1, min((index + 1) * width, largest)
        ranges[str(first) if first == last else f"{first}-{last}"] = bins[index]
    return ranges


def _count(number: float) -> str:
    return f"{number:,.0f}"


def as_time(ms: float) -> str:
    """Return a time with three significant digits, in the largest unit that keeps it at least 1."""
    if not ms:
        return "0 ms"
    # Rounded before the unit is chosen, so that 0.9999 ms does not become 1000 us.
    rounded = float(f"{ms:.3g}")
    unit, length = next((pair for pair in UNITS if rounded >= pair[1]), UNITS[-1])
    decimals = sum(rounded < limit * length for limit in (10, 100))
    return f"{ms / length:,.{decimals}f} {unit}"


def _parts_of_largest(figures: Mapping[str, float]) -> Iterable[tuple[str, float, float]]:
    """Return each label with its figure, and with the figure as a fraction of the largest."""
    largest = max(figures.values(), default=0)
    return ((label, figure, figure / largest if largest else 0.0) for label, figure in figures.items())


def _rule(title: str) -> str:
    most = WIDTH - 4
    # The end of a qualified name is more specific than its beginning.
    shown = title if len(title) <= most else "…" + title[1 - most :]
    return f"{shown} ".ljust(WIDTH, "─")


def _cell(label: str, figure: str) -> str:
    return f"{label:<{LABEL}}{figure:>{(WIDTH - len(GAP)) // 2 - LABEL}}"


def _grid_row(label: str, cells: Iterable[str]) -> str:
    return f"{label:<{LABEL}}" + "".join(f"{cell:>{(WIDTH - LABEL) // 4}}" for cell in cells)


def _chart(heading: str, counts: Mapping[str, int]) -> list[str]:
    total = sum(counts.values())
    columns = max(len("batches"), len(_count(total)))
    label_width = max([LABEL, *(len(label) + 2 for label in counts)])
    bar_width = WIDTH - label_width - columns - len(GAP) - 8
    lines = [f"{heading:<{label_width + bar_width}}{GAP}{'batches':>{columns}}{'share':>8}"]
    for label, count, part in _parts_of_largest(counts):
        start = f"{label:<{label_width}}{_bar(part, bar_width):<{bar_width}}"
        lines.append(f"{start}{GAP}{_count(count):>{columns}}{count / total:>8.1%}")
    return lines


def _bar(part: float, width: int) -> str:
    # A figure above zero is visible, however small it is.
    eighths = max(round(part * width * 8), 1) if part else 0
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8]


def _table(figures: Figures) -> str:
    cells = {**figures.totals, **figures.calls}
    cell = 'style="text-align:right;padding:.2em .6em"'
    head = "".join(f'<th scope="col" {cell}>{label}</th>' for label in cells)
    body = "".join(f"<td {cell}>{figure}</td>" for figure in cells.values())
    style = "caption-side:top;text-align:left;color:inherit;font-weight:bold"
    caption = f'<caption style="{style}">{escape(_printable(figures.title))}</caption>'
    # A notebook would center the table, above charts that stand on the left.
    return f'<table style="margin:0">{caption}<thead><tr>{head}</tr></thead><tbody><tr>{body}</tr></tbody></table>'


def _summary(figures: Figures) -> str:
    total = sum(figures.reasons.values())
    shares = ", ".join(f"{reason} {count / total:.1%}" for reason, count in figures.reasons.items())
    return _paragraph(f"left because: {shares}")


def _paragraph(words: str) -> str:
    return f'<p style="margin:.5em 0">{escape(words)}</p>'


def _svg(figures: Figures) -> str:
    sizes, wait, run = _sizes(figures.sizes), figures.wait, figures.run
    below = ROW * (2 + len(wait))
    height = max(ROW * (1 + len(sizes)), below + ROW * (1 + len(run)))
    width = PANEL + BAR + 5 * CHARACTER + FIGURE
    # Text and axes have the colour of the surrounding text, which is legible on every theme.
    # A screen reader reads only the title and the description of an image.
    spoken = "; ".join((_spoken(BY_SIZE, sizes, _count), _spoken("wait", wait, as_time), _spoken("run", run, as_time)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" style="max-width:100%;height:auto"'
        ' font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
        f"<title>{escape(_printable(figures.title))}: batch sizes, wait times and run times</title>"
        f"<desc>{escape(spoken)}</desc>{_panel(BY_SIZE, sizes, _count, 0, 0)}"
        f"{_panel('wait', wait, as_time, PANEL, 0)}{_panel('run', run, as_time, PANEL, below)}</svg>"
    )


def _spoken(heading: str, figures: Mapping[str, float], show: Callable[[float], str]) -> str:
    return f"{heading} ({', '.join(f'{label}: {show(figure)}' for label, figure in figures.items())})"


def _panel(heading: str, figures: Mapping[str, float], show: Callable[[float], str], x: int, y: int) -> str:
    """Draw a heading, and below it a horizontal bar for each label, with the figure at its end."""
    axis = CHARACTER * (2 + max(map(len, figures), default=0))
    parts = [_words(axis, 12, heading, "start", ' font-weight="bold"')]
    for row, (label, figure, part) in enumerate(_parts_of_largest(figures), start=1):
        length = round(part * BAR, 1)
        top = row * ROW
        parts.append(_words(axis - 6, top + 13, label, "end"))
        parts.append(f'<rect x="{axis}" y="{top + 2}" width="{length}" height="{ROW - 4}" fill="{BAR_COLOR}"/>')
        parts.append(_words(axis + length + 6, top + 13, show(figure), "start"))
    line = f'<path d="M{axis} {ROW}v{ROW * len(figures)}" stroke="currentColor" stroke-opacity=".5"/>'
    return f'<g transform="translate({x} {y})">{"".join(parts)}{line}</g>'


def _words(x: float, y: int, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(words)}</text>'
