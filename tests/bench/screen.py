"""The terminal output: a progress bar during a run, and tables after it."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tests.bench import table

# In a file, tables are not limited to the width of a terminal.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def play(contest, rounds):
    """Run a contest under a progress bar and return its figures.

    The bar is drawn only between runs: a thread that draws it would disturb the measurement.
    """
    figures = {}
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*parts, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task(contest.title, total=contest.runs(rounds))
        for name in contest.play(rounds, figures):
            progress.update(task, description=f"{contest.title}: {name}")
            progress.refresh()
            progress.advance(task)
    return figures


def show(contest, figures):
    """Print the table of a contest, and the verdicts of its bars."""
    first, *others = table.columns(contest, figures)
    shown = Table(title=contest.title, title_justify="left")
    shown.add_column(first)
    for head in others:
        shown.add_column(head, justify="right")
    for cells in table.rows(contest, figures):
        shown.add_row(*cells, style="dim" if figures[cells[0]].absent else None)
    console.print(shown)
    if contest.note:
        say(contest.note)
    for verdict in contest.verdicts(figures):
        say(table.verdict_line(verdict))
    console.print()


def say(text):
    """Print a line without wrapping or markup."""
    console.print(Text(text), soft_wrap=True)
