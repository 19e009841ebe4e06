"""Helpers for tests that use the queue of the core directly."""

from __future__ import annotations

import sys

from batchify._core.limits import Limits


def limits(**options):
    """Return limits with two items a batch, adaptive timing and one slot, unless ``options`` override them."""
    return Limits(**{"max_size": 2, "timeout": None, "concurrency": 1, **options})


def caller(item):
    """Return the capital of a letter. Queues find waiters by identity, and a literal is the same object as this one."""
    return sys.intern(item.upper())


def reason(queue, now):
    """Take the next batch; return its reason, or ``None`` if no batch can start."""
    batch = queue.take(now)
    return batch and batch.reason
