"""A call that asks for more than its item: for options of the batch function, a priority or a deadline.

Most calls ask for nothing more, and stand in the queue as their bare item. A *row* is either: an item or a ``Request``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchify._batcher.interning import InternedKey


class Request:
    """One call.

    Args:
        item: its item.
        options: stands for the options that it passes; ``None`` if they are the defaults.
        priority: how many seconds earlier it counts as arrived.
        time_limit: seconds from its arrival to its deadline; ``None`` if it has none.
    """

    __slots__ = ("item", "options", "priority", "time_limit")

    def __init__(
        self, item: Any, options: InternedKey | None = None, priority: float = 0.0, time_limit: float | None = None
    ) -> None:
        self.item = item
        self.options = options
        self.priority = priority
        self.time_limit = time_limit


def item_of(row: Any) -> Any:
    """Return the item of a row."""
    return row.item if type(row) is Request else row
