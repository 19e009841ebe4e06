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
        task = progress.add_task(contest.title, total=rounds * len(contest.entrants))
        for name in contest.play(rounds, figures):
            progress.update(task, description=f"{contest.title}: {name}")
            progress.refresh()
            progress.advance(task)
    return figures


def show(contest, figures):
    """Print the table of a contest."""
    _print(contest.title, table.columns(contest), table.rows(contest, figures))
    if contest.note:
        say(contest.note)
    console.print()


def show_bars(results):
    """Print the table of all bars."""
    if rows := table.bar_rows(results):
        _print("bars", table.BAR_COLUMNS, rows)


def _print(title, heads, rows):
    shown = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        shown.add_column(head, justify="right" if place else "left")
    for cells in rows:
        shown.add_row(*cells)
    console.print(shown)


def say(text):
    """Print a line without wrapping or markup."""
    console.print(Text(text), soft_wrap=True)
