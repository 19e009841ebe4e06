"""All live batchers, held weakly: for listing, statistics and closing, and for a fresh start after a fork.

Must not know: the inside of an engine.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from batchify._stats.counters import Stats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchify._batcher.config import Config
    from batchify._core.batch import BatchItem
    from batchify._stats.snapshot import BatchStats


class Counted:
    """A batcher that shares one ``Stats`` with its engines."""

    # The batcher that counts the calls of this one too.
    _parent: Batcher | None = None
    # Empty until first use. A dict, because the first of several threads that add counters must win.
    _own_counters: dict[None, Stats]

    @property
    def _counters(self) -> Stats:
        if not self._own_counters:
            register(self, listed=False)
            self._own_counters.setdefault(None, Stats(None if self._parent is None else self._parent._counters))
        return self._own_counters[None]

    def _settle(self) -> None:
        """Count calls as cancelled that no engine can answer any more."""


class BaseBatcher(Counted):
    """The members that both batchers implement alike."""

    _config: Config

    @property
    def name(self) -> str:
        """The name in errors, statistics and thread names."""
        return self._config.name

    @property
    def stats(self) -> BatchStats:
        """A snapshot of the statistics. Any thread may read it."""
        self._settle()
        return self._counters.snapshot(self.name)


class Batcher(Protocol):
    """The members of both batchers. The methods of one may be coroutines where those of the other are not."""

    _parent: Batcher | None
    _config: Config

    @property
    def name(self) -> str: ...
    @property
    def _counters(self) -> Stats: ...
    @property
    def stats(self) -> BatchStats: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def _takes_requests(self) -> bool: ...
    def submit(self, item: Any, keep: object = None) -> Any: ...
    def _submit_nowait(self, item: Any) -> Any: ...
    def _acall(self, item: Any, keep: object = None) -> Any: ...
    def submit_many(self, items: Iterable[Any], keep: object = None) -> Any: ...
    def waiting(self) -> list[BatchItem]: ...
    def _settle(self) -> None: ...
    def _change(self, changes: dict[str, Any]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...
    def _reset_after_fork(self) -> None: ...


# Held while options of batchers change: two changes at the same time would undo each other.
configure_lock = RLock()
# All batchers, and whether ``batchers()`` lists them. A dict of weak references is copied in one step, also while other
# threads add to it.
_live: dict[ref[Any], bool] = {}
# Other objects that start afresh after a fork.
_others: dict[ref[Any], None] = {}


def register(batcher: Counted, *, listed: bool = True) -> None:
    """Remember ``batcher`` for as long as it lives. A listed batcher remains listed."""
    known = ref(batcher, lambda gone: _live.pop(gone, None))
    if listed:
        _live[known] = True
    else:
        _live.setdefault(known, False)


def register_for_fork(other: Any) -> None:
    """Call ``other._reset_after_fork()`` in the child of a fork, for as long as ``other`` lives."""
    _others[ref(other, lambda gone: _others.pop(gone, None))] = None


def registered() -> list[Batcher]:
    """Return all live batchers, oldest first, including those that only count for others."""
    return [batcher for known in list(_live) if (batcher := known()) is not None]


def batchers() -> list[Batcher]:
    """Return the live batchers, oldest first. Each has ``name`` and ``stats``.

    A decorated function has one after its first call, and a decorated method has one for each instance. An
    ``AsyncMicrobatcher`` or ``SyncMicrobatcher`` is one itself.
    """
    return [batcher for known, listed in _live.copy().items() if listed and (batcher := known()) is not None]


def sources() -> list[Batcher]:
    """Return the batchers whose counters together count every call once."""
    live = registered()
    for batcher in live:
        batcher._settle()
    return [batcher for batcher in live if batcher._parent is None]


def close_all() -> None:
    """Close every live batcher: refuse new calls, run the queued items, and return when all calls are answered.

    Raises:
        RuntimeError: the caller blocks an event loop that has to run some of the batches; use ``await aclose_all()``
            there. All other batchers are closed first.
    """
    failed = None
    for batcher in batchers():
        try:
            batcher.close()
        except RuntimeError as error:  # noqa: PERF203  # an error in one must not keep the others open
            failed = error
    if failed is not None:
        raise failed


async def aclose_all() -> None:
    """Close every live batcher without blocking the event loop."""
    for batcher in batchers():
        await batcher.aclose()


# The child has the items and locks of its parent, but none of its threads.
def _reset_after_fork() -> None:
    for known in (*_live, *_others):
        live = known()
        if live is not None:
            live._reset_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # not on Windows
    # No thread is in the middle of a change when the child begins.
    os.register_at_fork(
        before=configure_lock.acquire, after_in_parent=configure_lock.release, after_in_child=configure_lock.release
    )
    os.register_at_fork(after_in_child=_reset_after_fork)
