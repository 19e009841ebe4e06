"""Queues of the core, driven by hand."""

from __future__ import annotations

from batchify._core.limits import Limits


def limits(**options):
    """Return limits: batches of two, adaptive timing and one slot, unless ``options`` has others."""
    return Limits(**{"max_size": 2, "timeout": None, "concurrency": 1, **options})


def reason(queue, now):
    """Return the reason why the next batch leaves now, or ``None`` if none does."""
    batch = queue.take(now)
    return batch and batch.reason
