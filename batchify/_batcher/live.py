"""Weak references to all live batchers, and a fresh start for them in the child of a fork.

Must not know: what a batcher is.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import Any
from weakref import ref

# Held while options of batchers change: two changes at the same time would undo each other.
configure_lock = RLock()
# All batchers, and whether ``batchers()`` lists them. A dict of weak references is copied in one step, also while other
# threads add to it.
_live: dict[ref[Any], bool] = {}
# Other objects that start afresh after a fork.
_others: dict[ref[Any], None] = {}


def register(batcher: Any, *, listed: bool = True) -> None:
    """Remember ``batcher`` for as long as it lives. A listed batcher remains listed."""
    known = ref(batcher, lambda gone: _live.pop(gone, None))
    if listed:
        _live[known] = True
    else:
        _live.setdefault(known, False)


def register_for_fork(other: Any) -> None:
    """Call ``other._reset_after_fork()`` in the child of a fork, for as long as ``other`` lives."""
    _others[ref(other, lambda gone: _others.pop(gone, None))] = None


def registered() -> list[tuple[Any, bool]]:
    """Return all live batchers, oldest first, and whether each is listed."""
    return [(batcher, listed) for known, listed in _live.copy().items() if (batcher := known()) is not None]


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
