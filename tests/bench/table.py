"""The table of a contest and the table of all bars as rows of text, as Markdown and as JSON.

Must not know: the source of the figures.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter

from tests.bench import bars
from tests.bench.figures import ratios, spread

BAR_COLUMNS = ("bar", "measure", "figure", "limit", "")


def columns(contest):
    """Return the headings of the columns."""
    return ["", *(head for unit in contest.units() for head in (unit, "ratio")), "limit"]


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
            "; ".join(
                _words(bar.against_words(), _unit(bar, contest), bar.limit_words())
                for bar in bars.about(contest.title)
                if bar.subject == name
            ),
        ]
        for name, entry in figures.items()
    ]


def bar_rows(results):
    """Return the cells of each bar: the contest, the measure, the figure, the limit, and whether it is met."""
    return [
        [
            found.contest.title,
            _words(found.bar.subject, found.against or found.bar.against_words(), _unit(found.bar, found.contest)),
            ratio(found.figure) if found.figure else "",
            found.bar.limit_words(),
            found.words,
        ]
        for found in bars.verdicts([(contest, figures) for _, contest, figures in results])
    ]


def _unit(bar, contest):
    """Return the unit that a bar is about, if the contest has two."""
    return contest.tail and f"({contest.tail if bar.of == 'tails' else contest.unit})"


def _words(*parts):
    return " ".join(filter(None, parts))


def _compared(values, base):
    middle = number(spread(values).middle)
    if values is base:
        return middle, "1"
    return middle, ratio(spread(ratios(values, base))) if base else ""


def number(value):
    """Format a figure with three significant digits, or as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(values):
    """Format a ratio and its quartiles."""
    return f"{values.middle:.2f} ({values.low:.2f}-{values.high:.2f})"


def markdown(results, about):
    """Return all results in Markdown: the environment, the bars, and a table for each workload."""
    lines = ["### Environment", "", *_table(["property", "value"], about.items()), ""]
    lines += ["### Bars", "", *_table(BAR_COLUMNS, bar_rows(results)), ""]
    for workload, played in groupby(results, itemgetter(0)):
        contests = [(contest, figures) for _, contest, figures in played]
        heads = columns(contests[0][0])
        heads[0] = "entrant"
        cells = [[contest.title, *row] for contest, figures in contests for row in rows(contest, figures)]
        lines += [f"### {workload}", "", *_table(["", *heads], cells), ""]
        for note in dict.fromkeys(contest.note for contest, _ in contests if contest.note):
            lines += [note, ""]
    return "\n".join(lines)


def _table(heads, cells):
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [[*row, *[""] * (len(heads) - len(row))] for row in cells]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def as_json(results, about):
    """Return the figures of all rounds, and the bars."""
    contests = [
        {
            "workload": workload,
            "title": contest.title,
            "unit": contest.unit,
            "tail": contest.tail,
            "entrants": {name: asdict(entry) for name, entry in figures.items()},
        }
        for workload, contest, figures in results
    ]
    return json.dumps({"about": about, "contests": contests, "bars": bar_rows(results)}, indent=1)
