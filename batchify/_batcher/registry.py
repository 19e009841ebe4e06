"""All live batchers, weakly held, so that they can be listed, measured, drained, and made anew after a fork.

Decides: who counts for whom, so that every number is counted once.
Must not know: the inside of an engine. It lists whatever has announced itself.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet, ref

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchify._core.batch import BatchItem
    from batchify._stats.counters import Stats
    from batchify._stats.snapshot import BatchStats


class Counting(Protocol):
    """What has counters: a batcher, or what keeps those of batchers that come and go."""

    @property
    def name(self) -> str: ...
    def _parts(self) -> list[Stats]: ...


class Batcher(Counting, Protocol):
    """What both engines offer. What is awaited of one may be returned at once by the other."""

    @property
    def stats(self) -> BatchStats: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def _takes_requests(self) -> bool: ...
    def submit(self, item: Any, keep: object = None) -> Any: ...
    def _submit_nowait(self, item: Any) -> Any: ...
    def submit_many(self, items: Iterable[Any], keep: object = None) -> Any: ...
    def waiting(self) -> list[BatchItem]: ...
    def _change(self, changes: dict[str, Any]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...
    def _reset_after_fork(self) -> None: ...


# Held by who changes options of batchers: of two at a time each would undo what the other does.
configure_lock = RLock()
# Keyed by itself: a dict of weak references can be copied in one step while other threads add to it.
_live: dict[ref[Any], None] = {}
# What counts for batchers that come and go, and those batchers.
_keepers: dict[ref[Any], None] = {}
_kept: WeakSet[Any] = WeakSet()
# What reads counters, under a lock of its own.
_readers: dict[ref[Any], None] = {}


def register(batcher: Batcher) -> None:
    """Remember ``batcher`` for as long as it lives."""
    _live[ref(batcher, lambda gone: _live.pop(gone, None))] = None


def batchers() -> list[Batcher]:
    """Return the batchers that exist at this moment, oldest first.

    A decorated function has one once it has been called, a decorated method one for each instance; the classes
    ``AsyncMicrobatcher`` and ``SyncMicrobatcher`` are their own. Each has ``name`` and ``stats``.
    """
    return [batcher for known in list(_live) if (batcher := known()) is not None]


def keep(keeper: Counting, batcher: Batcher) -> None:
    """Let ``keeper`` count for ``batcher``, also when that is gone. Must come before the batcher announces itself."""
    _kept.add(batcher)
    _keepers[ref(keeper, lambda gone: _keepers.pop(gone, None))] = None


def register_reader(reader: Any) -> None:
    """Let ``reader`` begin anew in the child of a fork, for as long as it lives."""
    _readers[ref(reader, lambda gone: _readers.pop(gone, None))] = None


def counting() -> list[Counting]:
    """Return what has all counters, each once: the batchers, but for those that are kept their keepers."""
    free = [batcher for batcher in batchers() if batcher not in _kept]
    return [*free, *(keeper for known in list(_keepers) if (keeper := known()) is not None)]


def close_all() -> None:
    """Close every live batcher: no new calls, what waits runs now, return when all is answered.

    Raises:
        RuntimeError: called on an event loop that has to run some of the batches; await ``aclose_all()`` there. All
            other batchers are closed first.
    """
    failed = None
    for batcher in batchers():
        try:
            batcher.close()
        except RuntimeError as error:  # noqa: PERF203  # one that fails must not keep the others open
            failed = error
    if failed is not None:
        raise failed


async def aclose_all() -> None:
    """Close every live batcher without blocking the event loop."""
    for batcher in batchers():
        await batcher.aclose()


def _reset_after_fork() -> None:
    """Let the child of a fork begin anew: it has the parent's items and locks, but none of its threads."""
    for batcher in batchers():
        batcher._reset_after_fork()
    for other in [other for known in (*_keepers, *_readers) if (other := known()) is not None]:
        other.reset_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # not on Windows
    # Nobody is in the middle of a change when the child begins.
    os.register_at_fork(
        before=configure_lock.acquire, after_in_parent=configure_lock.release, after_in_child=configure_lock.release
    )
    os.register_at_fork(after_in_child=_reset_after_fork)
