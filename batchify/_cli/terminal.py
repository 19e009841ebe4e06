"""The terminal: parts of a report, and how far a measurement is.

Must not know: what is told.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid
from rich.text import Text

from batchify._cli.wording import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchify._cli.wording import Part

# Columns for tables in a file; sentences go there as long as they are.
WIDE = 200


def show(parts: Iterable[Part]) -> None:
    """Print sentences and tables."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    for part in parts:
        if isinstance(part, Table):
            console.print(_grid(part))
        else:
            console.print(Text(part), soft_wrap=not console.is_terminal)
        console.print()


def follow(label: str, shares: Iterable[float]) -> None:
    """Go through the steps of a measurement, and draw a bar of the share that is done.

    It is drawn between steps only: a thread that draws by itself would take turns with what is measured.
    """
    parts = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    unseen = not console.is_terminal
    with Progress(*parts, console=console, auto_refresh=False, transient=True, disable=unseen) as progress:
        task = progress.add_task(label, total=1.0)
        for share in shares:
            progress.update(task, completed=share)
            progress.refresh()


def _grid(table: Table) -> Grid:
    grid = Grid(title=table.title, title_justify="left", title_style="bold")
    for head in table.heads:
        grid.add_column(head, justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(*row)
    return grid
