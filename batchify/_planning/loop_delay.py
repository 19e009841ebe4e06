"""Model of the delay that an event loop adds between a call and its batch, and between the batch and the answer.

It decides when a due call reaches its engine, and when an answer reaches its caller. It must not know why a batch
leaves or how long it runs.

A sleeping loop takes time to wake up. Once awake, it handles all calls and answers before it sleeps again, and occupies
the interpreter meanwhile. So calls that are due close together reach their engine together.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchify._core.batch import Batch

# Fixed-point rounds: each uses the batches of the round before, and the first has none.
ROUNDS = 2


@dataclass(frozen=True)
class LoopDelay:
    """The delays of an event loop, in seconds."""

    # From an event until a sleeping loop handles it.
    wake: float
    # To make one call, or to deliver its answer.
    per_call: float
    # From the moment at which the loop sleeps again until a batch of the calls it made can leave.
    hand_over: float

    def apply(
        self, due: Sequence[float], run: Callable[[Iterable[float]], Iterable[tuple[Batch, float]]]
    ) -> Iterator[tuple[Batch, float, float]]:
        """Yield each batch, the time at which it ends, and the time at which its callers get their answers.

        ``run`` returns the batches of calls that arrive at the given times, each with its end.
        """
        batches: list[tuple[Batch, float]] = []
        for _ in range(ROUNDS):
            made, _ = self._handled(due, batches)
            batches = list(run([time + self.hand_over for time in made]))
        _, answered = self._handled(due, batches)
        for (batch, end), time in zip(batches, answered, strict=True):
            batch.arrived = [due[call] for call in batch.waiters]
            yield batch, end, time

    def _handled(self, due: Sequence[float], batches: Sequence[tuple[Batch, float]]) -> tuple[list[float], list[float]]:
        """Return the times at which each due call and each end of a batch are handled: when the loop sleeps again."""
        # The last event never happens, but makes the loop sleep after all others.
        events = [*((time, 1) for time in due), *((end, batch.size) for batch, end in batches), (inf, 0)]
        handled = [inf] * len(events)
        awake: list[int] = []
        sleeps_at = -inf
        for index in sorted(range(len(events)), key=lambda index: events[index][0]):
            time, calls = events[index]
            if time > sleeps_at:
                while awake:
                    handled[awake.pop()] = sleeps_at
                sleeps_at = time + self.wake
            awake.append(index)
            sleeps_at += self.per_call * calls
        return handled[: len(due)], handled[len(due) : -1]
