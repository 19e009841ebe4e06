"""Admission: the queue of a batcher, and the entry of each call: its group, its weight or length, and equal items.

Decides, once for each engine: the kind of queue, and how an item becomes an entry. An unused option costs nothing.
Must not know: engines, or when a batch leaves.
``weigh``, ``length``, ``group_by``, hashing and comparing are user code. They run before an item is queued, and an
error in them reaches only the caller.
"""

from __future__ import annotations

import sys
from contextvars import Context, copy_context
from numbers import Real
from typing import TYPE_CHECKING, Any

from batchify._batcher import requests
from batchify._batcher.interning import InternedKey, Interner, is_hashable
from batchify._batcher.requests import Request
from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.outcome import type_in_words
from batchify._core.queue import PlainQueue
from batchify._core.run_cost import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchify._batcher.config import Config

# The group of all calls without options and without ``group_by``.
_UNGROUPED = InternedKey(None)


def make_queue(config: Config) -> PlainQueue | GroupedQueue:
    return GroupedQueue(config) if config.is_grouped else PlainQueue(config)


def reconfigured(queue: PlainQueue | GroupedQueue, config: Config) -> tuple[PlainQueue | GroupedQueue, int]:
    """Return the queue for changed options, and the number of places of ``queue`` that it has taken.

    It is ``queue`` itself, or a grouped one that continues it.
    """
    if isinstance(queue, GroupedQueue) or not config.is_grouped:
        queue.change(config)
        return queue, 0
    grouped = GroupedQueue(config)
    entries, places = queue.retire()
    adopted: list[Entry] = []
    for ticket, (data, waiter, arrived) in entries:
        entry = as_entry(data)
        entry.ticket, entry.waiter, entry.arrived = ticket, waiter, arrived
        adopted.append(entry)
    grouped.adopt(queue, adopted)
    return grouped, places


def mended(queue: PlainQueue | GroupedQueue, config: Config) -> PlainQueue | GroupedQueue:
    """Return a sound queue with the same calls, after an exception interrupted a step at any point."""
    if isinstance(queue, PlainQueue):
        queue.mend()
        return queue
    grouped = GroupedQueue(config)
    grouped.adopt(queue, queue.entries)
    return grouped


def as_entry(data: Any) -> Entry:
    # An item that was prepared for a plain queue is not an entry yet.
    return data if isinstance(data, Entry) else Entry(data, _UNGROUPED, 0.0, None)


def entry_factory(config: Config) -> Callable[[Any], Any] | None:
    """Return the function that turns a row into its data in the queue; ``None`` if the row itself is queued."""
    if config.is_grouped:
        return Admission(config).entry
    return captured if config.capture_context else None


def grouped_entry_factory(factory: Callable[[Any], Any] | None, config: Config) -> Callable[[Any], Any]:
    """Return the factory once calls make requests: *factory* itself, if it makes entries already."""
    return Admission(config).entry if factory is None or factory is captured else factory


def item_of(data: Any, config: Config) -> Any:
    return requests.item_of(data[0] if config.capture_context else data)


def captured(item: Any) -> tuple[Any, Context]:
    return item, copy_context()


class Admission:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._groups = Interner()
        self._items = Interner()

    def entry(self, row: Any) -> Entry:
        """Return the entry of a row. Its item remains a request if the batch function needs the options."""
        if type(row) is Request:
            item, options, priority, time_limit, waits = row.item, row.options, row.priority, row.time_limit, row.waits
            if options is None:
                row = item
        else:
            item, options, priority, time_limit, waits = row, None, 0.0, None, False
        config = self._config
        group = self._group(item, options or _UNGROUPED)
        weight = 0.0
        if config.weigh is not None:
            weight = self._number("weigh", config.weigh(item), "weighs", "max_weight", config.max_weight)
        elif config.length is not None:
            limit, most = "max_padded", config.max_padded
            if config.sizes is not None and most is not None:
                limit, most = f"max_padded / {config.sizes[0]}", most / config.sizes[0]
            weight = self._number("length", config.length(item), "has length", limit, most)
        equal = self._items.get(item) if config.dedupe and is_hashable(item) else None
        data = captured(row) if config.capture_context else row
        return Entry(data, group, weight, equal, priority, time_limit, waits=waits)

    def _group(self, item: Any, options: InternedKey) -> InternedKey:
        config = self._config
        if config.group_by is None:
            return options
        key = config.group_by(item)
        try:
            return self._groups.get((options, key))
        except TypeError:
            if is_hashable(key):
                raise
            msg = f"group_by of {config.name}() must return something hashable, got {type_in_words(key)}"
            raise TypeError(msg) from None

    def _number(self, option: str, value: Any, verb: str, limit: str, most: float | None) -> float:
        name = self._config.name
        if isinstance(value, bool) or not isinstance(value, Real):
            msg = f"{option} of {name}() must return a number, got {type_in_words(value)}"
            raise TypeError(msg)
        try:
            number = float(value)
        except OverflowError:
            # It exceeds every float, and so the limit.
            number = sys.float_info.max
        if not 0 <= number <= (LONGEST if option == "length" else sys.float_info.max):
            msg = f"{option} of {name}() must return a finite number of at least 0, got {_exactly(number)}"
            raise ValueError(msg)
        if most is not None and number > most:
            msg = (
                f"an item of {name}() {verb} {_exactly(number)}, more than {limit}, {_exactly(most)}; "
                f"split it, or raise {limit.split(maxsplit=1)[0]}"
            )
            raise ValueError(msg)
        return number


def _exactly(number: float) -> str:
    # All digits, so that two different numbers never read the same.
    return repr(float(number)).removesuffix(".0")
