"""What is told of a contest: the rows of its table, as text, for a screen, for Markdown and for JSON.

Must not know: how figures came to be.
"""

from __future__ import annotations

import json

from tests.bench.figures import percentile, ratios, spread


def columns(contest, figures):
    """Return the heads of the columns."""
    heads = ["", contest.unit, f"x {contest.baseline}"]
    if contest.tail:
        heads += [contest.tail, f"x {contest.baseline}"]
    if any(entry.latencies for entry in figures.values()):
        heads += ["p50 ms", "p99 ms"]
    return heads


def rows(contest, figures):
    """Return the cells of each entrant; of one that did not take part, its name and why."""
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
    """Write a figure with three digits that count, or whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(values):
    """Write a ratio and its quartiles."""
    return f"{values.middle:.2f} ({values.low:.2f}-{values.high:.2f})"


def verdict_line(verdict):
    """Write how a bar is met."""
    return f"{'met' if verdict.met else 'MISSED'}: {verdict.words}: {ratio(verdict.figure)}"


def markdown(results, about):
    """Return all in Markdown: where it was run, how the bars are met, then the tables of each workload."""
    lines = ["### Where, when, with what", "", *_table(["what", "which"], about.items()), ""]
    lines += ["### Bars", "", *_table(["what", "bar", "measured", ""], _bars(results)), ""]
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
    """Return all figures of all rounds; of latencies their percentiles."""
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
