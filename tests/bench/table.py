"""The table of a contest as rows of text, as Markdown and as JSON.

Must not know: the source of the figures.
"""

from __future__ import annotations

import json

from tests.bench.figures import percentile, ratios, spread


def columns(contest, figures):
    """Return the headings of the columns."""
    heads = ["", contest.unit, f"x {contest.baseline}"]
    if contest.tail:
        heads += [contest.tail, f"x {contest.baseline}"]
    if any(entry.latencies for entry in figures.values()):
        heads += ["p50 ms", "p99 ms"]
    return heads


def rows(contest, figures):
    """Return the cells of each entrant; an absent entrant has its name and the reason."""
    base = figures[contest.baseline]
    return [
        [name, entry.absent]
        if entry.absent
        else [
            name,
            *_compared(entry.values, base.values),
            *(_compared(entry.tails, base.tails) if contest.tail else ()),
            *(number(1000 * percentile(entry.latencies, percent)) for percent in (50, 99) if entry.latencies),
        ]
        for name, entry in figures.items()
    ]


def _compared(values, base):
    return number(spread(values).middle), ratio(spread(ratios(values, base))) if base else ""


def number(value):
    """Format a figure with three significant digits, or as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(values):
    """Format a ratio and its quartiles."""
    return f"{values.middle:.2f} ({values.low:.2f}-{values.high:.2f})"


def verdict_line(verdict):
    """Format the verdict of a bar."""
    return f"{'met' if verdict.met else 'MISSED'}: {verdict.words}: {ratio(verdict.figure)}"


def markdown(results, about):
    """Return all results in Markdown: the environment, the bars, and the tables of each workload."""
    lines = ["### Environment", "", *_table(["property", "value"], about.items()), ""]
    lines += ["### Bars", "", *_table(["contest", "bar", "measured", ""], _bars(results)), ""]
    last = None
    for workload, contest, figures in results:
        if workload != last:
            lines += [f"### {workload}", ""]
        last = workload
        lines += [f"**{contest.title}**", "", *_table(columns(contest, figures), rows(contest, figures)), ""]
        if contest.note:
            lines += [contest.note, ""]
    return "\n".join(lines)


def _bars(results):
    for _, contest, figures in results:
        for verdict in contest.verdicts(figures):
            yield contest.title, verdict.words, ratio(verdict.figure), "met" if verdict.met else "**missed**"


def _table(heads, cells):
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [[*row, *[""] * (len(heads) - len(row))] for row in cells]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def as_json(results, about):
    """Return all figures of all rounds, and the percentiles of latencies."""
    return json.dumps({"about": about, "contests": [_contest(*result) for result in results]}, indent=1)


def _contest(workload, contest, figures):
    return {
        "workload": workload,
        "title": contest.title,
        "unit": contest.unit,
        "tail": contest.tail,
        "baseline": contest.baseline,
        "entrants": {name: _entrant(entry) for name, entry in figures.items()},
        "bars": [
            {"bar": verdict.words, "figure": verdict.figure.middle, "met": verdict.met}
            for verdict in contest.verdicts(figures)
        ],
    }


def _entrant(entry):
    known = {f"p{percent}": percentile(entry.latencies, percent) for percent in (50, 99) if entry.latencies}
    return {"absent": entry.absent} if entry.absent else {"values": entry.values, "tails": entry.tails, **known}
