"""A record of which batches left, with which items, and why."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchify._batcher.current import observers

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


@dataclass(frozen=True)
class RecordedBatch:
    """One batch that left.

    Nothing else in batchify shows items to anybody but the batch function; a test that asks for a record gets them.
    Results and errors are not in it: the callers have those.

    Attributes:
        name: the batcher's name.
        items: what its callers gave, in order of arrival; with several columns, tuples of one element for each.
        reason: why it left, as in ``BatchStats.reasons``.
    """

    name: str
    items: tuple[Any, ...]
    reason: str

    @property
    def size(self) -> int:
        """How many items it has."""
        return len(self.items)


@dataclass
class Recorder:
    """What has left since ``record()`` began.

    Attributes:
        batches: all batches of the process, in the order in which they began to run.
    """

    batches: list[RecordedBatch] = field(default_factory=list[RecordedBatch])

    def note(self, name: str, items: Sequence[Any], reason: str) -> None:
        """Add a batch. May be called from any thread."""
        self.batches.append(RecordedBatch(name, tuple(items), reason))

    def __str__(self) -> str:
        return "\n".join(f"{batch.name}: {batch.size}, {batch.reason}: {batch.items!r}" for batch in self.batches)


@contextmanager
def record() -> Generator[Recorder]:
    """Record every batch that begins to run inside, of all batchers, threads and event loops.

    The batch of a function that is in the middle of it is there already. What is inside of another ``record()`` is in
    both.
    """
    recorder = Recorder()
    observers.append(recorder.note)
    try:
        yield recorder
    finally:
        observers.remove(recorder.note)
