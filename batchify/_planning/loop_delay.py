"""The way from a call on an event loop to its batch and back, in made-up time.

Decides: when calls that are due get to their engine, and when answers get to their calls.
Must not know: what leaves together and why, how long batches run.

A loop that sleeps takes a while to wake up. Then it sees to all there is, calls and answers alike, before it sleeps
again, and has the interpreter meanwhile: calls that come close together get to their engine together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, repeat
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchify._core.batch import Batch

# How often calls are let through, each time beside the answers of the time before; the first time there are none.
ROUNDS = 2


@dataclass(frozen=True)
class Crossing:
    """What the way takes, in seconds.

    Attributes:
        wake: from an event until a loop that sleeps sees to it.
        each: to make a call, or to give it its answer.
        hand_over: from when the loop sleeps again until a batch with what was called can leave.
    """

    wake: float
    each: float
    hand_over: float

    @property
    def capacity(self) -> float:
        """How many calls a second a loop that never sleeps can make and answer."""
        return 1 / (2 * self.each) if self.each else inf

    def through(
        self, due: Sequence[float], run: Callable[[Iterable[float]], Iterable[tuple[Batch, float]]]
    ) -> Iterator[tuple[Batch, float, float]]:
        """Yield each batch with the moments at which it is over and at which its callers have their answers.

        Args:
            due: moments at which calls are to be made, in order.
            run: tells which batches leave when calls arrive at these moments, in order, and when each is over.
        """
        left: list[tuple[Batch, float]] = []
        for _ in range(ROUNDS):
            made = self._seen(due, left)[: len(due)]
            left = list(run([moment + self.hand_over for moment in made]))
        answered = self._seen(due, left)[len(due) : -1]
        # Batches take calls in order, whenever they are over.
        calls = iter(due)
        for (batch, over), moment in zip(left, answered, strict=True):
            batch.arrived = list(islice(calls, batch.size))
            yield batch, over, moment

    def _seen(self, due: Sequence[float], left: Sequence[tuple[Batch, float]]) -> list[float]:
        """Return when the loop sleeps again after each call that is due, and after each batch that is over."""
        # In the end it sleeps for ever.
        moments = [*due, *(over for _, over in left), inf]
        counts = [*repeat(1, len(due)), *(batch.size for batch, _ in left), 0]
        seen = [inf] * len(moments)
        together: list[int] = []
        sleeps = -inf
        for index in sorted(range(len(moments)), key=moments.__getitem__):
            if moments[index] > sleeps:
                while together:
                    seen[together.pop()] = sleeps
                sleeps = moments[index] + self.wake
            together.append(index)
            sleeps += self.each * counts[index]
        return seen
