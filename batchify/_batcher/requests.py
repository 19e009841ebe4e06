"""A call that passes more than its item: options of the batch function, a priority or a deadline.

Most calls pass nothing more, and are queued as their bare item. A *row* is either: an item or a ``Request``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchify._batcher.interning import InternedKey


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """One call. It never shows its item, which may be private."""

    item: Any
    # Stands for the options that the call passes; None if they are the defaults.
    options: InternedKey | None = None
    # The number of seconds by which the call counts as arrived earlier.
    priority: float = 0.0
    # The number of seconds from the arrival to the deadline; None without one.
    time_limit: float | None = None
    # Whether the call waits for room, whatever ``on_full`` is.
    waits: bool = False


def item_of(row: Any) -> Any:
    return row.item if type(row) is Request else row
