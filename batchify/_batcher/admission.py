"""What a call asks for, found before it is queued: its group, its weight, and which waiting items it is equal to.

Decides: what stands in the line for an item, and which core it takes. What is switched off costs nothing: the way is
chosen once, when an engine is made.
Must not know: engines, when anything leaves.

All that is asked here is somebody else's code. It may raise, and then nobody but the caller sees it.
"""

from __future__ import annotations

import sys
from contextvars import Context, copy_context
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any, cast

from batchify._batcher.interning import InternedKey, Interner, is_hashable
from batchify._core.entries import Entry
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchify._batcher.config import Config
    from batchify._core.batch import Batch

_same = InternedKey(None)


class Prioritized:
    """A row whose call has a priority, or a deadline."""

    __slots__ = ("priority", "row", "time_limit")

    def __init__(self, row: Any, priority: float, time_limit: float | None) -> None:
        self.row = row
        self.priority = priority
        self.time_limit = time_limit


def make_queue(config: Config) -> PlainQueue | GroupedQueue:
    """Return the core for calls that ask for what the options say."""
    return GroupedQueue(config) if _asks(config) else PlainQueue(config)


def reconfigured(queue: PlainQueue | GroupedQueue, config: Config) -> PlainQueue | GroupedQueue:
    """Return the core that goes on where ``queue`` has come to, by the options as they are now.

    It is another one if calls may ask for more now.
    """
    if isinstance(queue, GroupedQueue) or not _asks(config):
        queue.change(config)
        return queue
    groups = GroupedQueue(config)
    groups.adopt(queue, _entries(queue))
    return groups


def as_entry(data: Any) -> Entry:
    """Return the place for ``data`` that was prepared when no call could ask for more, or for what is one already."""
    return data if isinstance(data, Entry) else Entry(data, _same, 0.0, None)


def _entries(queue: PlainQueue) -> Iterator[Entry]:
    for ticket, (data, waiter, arrived) in queue.with_tickets():
        place = as_entry(data)
        place.arrive(ticket, waiter, arrived)
        yield place


def entry_factory(config: Config) -> Callable[[Any], Any] | None:
    """Return what makes of a row what stands in the line for it; ``None`` if it does so as it is."""
    if not _asks(config):
        return captured if config.capture_context else None
    place: Callable[[Any], Entry] = Admission(config).place
    if config.allows_priority:
        place = _urging(place)
    return _capturing(place) if config.capture_context else place


def urgent_entry_factory(prepare: Callable[[Any], Any] | None, config: Config) -> Callable[[Any], Any]:
    """Return what does so for urgent calls, too, where ``prepare`` did it before: what was equal for it stays equal."""
    if prepare is None or prepare is captured:
        return cast("Callable[[Any], Entry]", entry_factory(config))
    return _urging(prepare)


def item_of(data: Any, config: Config) -> Any:
    """Return the item of what stands in the line."""
    row = data[0] if config.capture_context else data
    return row[0] if config.has_options else row


def captured(item: Any) -> tuple[Any, Context]:
    """Return ``item`` together with the context of its caller."""
    return item, copy_context()


def depart(batch: Batch, config: Config) -> None:
    """Name ``batch`` after its batcher, and separate its items from the contexts of their callers."""
    batch.name = config.name
    if config.capture_context:
        batch.contexts = tuple(context for _, context in batch.items)
        batch.items = [item for item, _ in batch.items]


def _asks(config: Config) -> bool:
    asked = (config.group_by, config.weigh, config.max_pending)
    asks = config.dedupe or config.has_options or config.allows_priority
    return asks or any(option is not None for option in asked)


def _urging(place_of: Callable[[Any], Entry]) -> Callable[[Any], Entry]:
    def place(row: Any) -> Entry:
        if not isinstance(row, Prioritized):
            return place_of(row)
        place = place_of(row.row)
        place.priority, place.time_limit = row.priority, row.time_limit
        return place

    return place


def _capturing(place_of: Callable[[Any], Entry]) -> Callable[[Any], Entry]:
    def place(row: Any) -> Entry:
        place = place_of(row)
        place.item = captured(place.item)
        return place

    return place


class Admission:
    """Asks what the options of a batcher say that is to be asked of every item."""

    __slots__ = ("_config", "_equals", "_groups")

    def __init__(self, config: Config) -> None:
        self._config = config
        self._groups = Interner()
        self._equals = Interner()

    def place(self, row: Any) -> Entry:
        """Return the place of a row.

        Raises:
            ValueError: it weighs more than a batch may.
        """
        config = self._config
        group = self._group(row)
        weight = 0.0 if config.weigh is None else self._weight(config.weigh(row))
        return Entry(row, group, weight, self._equal(row) if config.dedupe else None)

    def _group(self, row: Any) -> InternedKey:
        config = self._config
        options = row[1] if config.has_options else _same
        if config.group_by is None:
            return options
        key = config.group_by(row)
        try:
            return self._groups.get((options, key))
        except TypeError:
            if is_hashable(key):
                raise
            msg = f"group_by of {config.name}() must return something hashable, got a {type(key).__name__}"
            raise TypeError(msg) from None

    def _weight(self, weight: Any) -> float:
        name, most = self._config.name, self._config.max_weight
        if isinstance(weight, bool) or not isinstance(weight, Real):
            msg = f"weigh of {name}() must return a number, got a {type(weight).__name__}"
            raise TypeError(msg)
        try:
            number = float(weight)
        except OverflowError:
            # More than any float, and so than max_weight.
            number = sys.float_info.max
        if not isfinite(number) or number < 0:
            msg = f"weigh of {name}() must return a finite number of at least 0, got {_plain(number)}"
            raise ValueError(msg)
        if most is not None and number > most:
            msg = (
                f"an item of {name}() weighs {_plain(number)}, more than max_weight, {_plain(most)}; "
                "split it, or raise max_weight"
            )
            raise ValueError(msg)
        return number

    def _equal(self, row: Any) -> InternedKey | None:
        return self._equals.get(row) if is_hashable(row) else None


def _plain(number: float) -> str:
    """Return all digits that tell a number from its neighbours, and no more."""
    return repr(float(number)).removesuffix(".0")
