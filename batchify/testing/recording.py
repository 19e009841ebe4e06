"""A record of the batches that ran, with their items and reasons."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchify._batcher.current import observers

if TYPE_CHECKING:
    from collections.abc import Generator


@dataclass(frozen=True)
class RecordedBatch:
    """One batch that ran, with its items, but without results and errors.

    Attributes:
        name: the batcher's name.
        items: the callers' items, in order of arrival; with several columns, tuples of one element for each.
        reason: the reason of departure, as in ``BatchStats.reasons``.
    """

    name: str
    items: tuple[Any, ...]
    reason: str

    @property
    def size(self) -> int:
        """The number of items."""
        return len(self.items)


@dataclass
class Recorder:
    """The ``batches`` that ran since ``record()`` began, of the whole process, in order of their start."""

    batches: list[RecordedBatch] = field(default_factory=list[RecordedBatch])

    def _note(self, name: str, items: tuple[Any, ...], reason: str) -> None:
        """Add a batch; any thread may call it."""
        self.batches.append(RecordedBatch(name, items, reason))

    def __str__(self) -> str:
        return "\n".join(f"{batch.name}: {batch.size}, {batch.reason}: {batch.items!r}" for batch in self.batches)


@contextmanager
def record() -> Generator[Recorder]:
    """Record every batch that starts inside the block, of all batchers, threads and event loops.

    A batch is in the record before its function is called. In nested blocks, it is in the record of each.
    """
    recorder = Recorder()
    observers.append(recorder._note)
    try:
        yield recorder
    finally:
        observers.remove(recorder._note)
