"""Who asked for what, and what came of it.

Every call has an ``Item``. The batch function writes into it what its caller is to see, and the caller compares: the
very object that was computed for it, or an error that comes from the very one that ended its batch.
"""
# ruff: noqa: N818  # these exceptions are no errors

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

from batchify import BatcherClosedError, DeadlineError

# For how many seconds something may still be on its way.
PATIENCE = 10.0
# What a caller may do to its batch, beside raising one of the exceptions below.
ANSWER, REFUSE, SHORT = "answer", "refuse", "short"
# Ends of a call that the batcher has taken, and of one that it has not, or that cannot tell.
TAKEN = ("answered", "failed", "cancelled", "expired", "unread")
NOT_TAKEN = ("refused", "not asked", "interrupted")


class Refused(Exception):
    """One in the place of a result."""


class Failure(Exception):
    """A plain one."""


class Awkward(Exception):
    """One whose constructor does not take its own ``args``."""

    def __init__(self, *, number):
        super().__init__("awkward", number)

    @classmethod
    def of(cls, number):
        return cls(number=number)


class Single(Exception):
    """One that can't be copied."""

    def __new__(cls, *, number):
        return super().__new__(cls, number)

    def __init__(self, *, number):
        super().__init__(number)

    @classmethod
    def of(cls, number):
        return cls(number=number)


class Fatal(BaseException):
    """One that is not an ``Exception``."""


class Interrupted(BaseException):
    """What a signal handler raises."""


class Left(Exception):
    """A caller has had enough of its stream."""


class Crossed(Exception):
    """A caller was given what is not the next value of its own stream."""


class Family(list):
    """What the callers of items that are equal are to see: answers, errors, or types of errors of the library."""

    def __init__(self, number):
        # What is equal weighs the same.
        self.weight = number % 5 + 1


class Item:
    """One call: what it does to its batch, and what came of it. It is equal to those of its family."""

    __slots__ = ("appetite", "asked", "caller", "family", "fate", "number", "pause", "runs", "urgency")

    def __init__(self, number, fate, pause, urgency, family, appetite):
        self.number = number
        self.fate = fate
        # How long a batch takes that it is the first of, in seconds.
        self.pause = pause
        # Its priority and its deadline; None if it has neither.
        self.urgency = urgency
        # Which of it travel together is up to the batcher.
        self.family = family
        # How many values of a stream are enough; None if it is read to its end.
        self.appetite = appetite
        self.asked = False
        self.runs = 0
        # Who makes its calls one after the other, if it was one of those.
        self.caller = None

    def __eq__(self, other):
        return self.family is other.family

    def __hash__(self):
        return id(self.family)

    def expect(self, outcome):
        """Note what its caller is to see."""
        self.family.append(outcome)


class Ledger:
    """What the callers of one thread saw; no other thread writes into it."""

    def __init__(self, complain):
        self.complain = complain
        # (subject, end) -> how many.
        self.ends = Counter()
        # Items whose callers were told that they would never run, with their subjects.
        self.taken_back = []

    def note(self, subject, end, count=1):
        self.ends[subject, end] += count

    def answered(self, subject, item, value):
        """Note an answer, which must be the one that was computed for this item."""
        self.note(subject, "answered")
        if not any(value is expected for expected in item.family):
            self.complain("crossed", f"{subject}: {item.number} was answered {value!r}, not {item.family!r}")

    def failed(self, subject, item, error):
        """Note an error, which must come from the one that ended the batch of this item."""
        if isinstance(error, BatcherClosedError):
            self.note(subject, "refused")
            if not subject.closings:
                self.complain("broken", f"{subject} says that it is closed")
            return
        if isinstance(error, DeadlineError) and item.urgency is not None:
            self.note(subject, "expired")
            self.take_back(subject, item)
            return
        if isinstance(error, Left):
            self.note(subject, "cancelled")
            return
        self.note(subject, "failed")
        if not any(comes_from(error, expected) for expected in [*item.family, *subject.fatal]):
            self.complain("crossed", f"{subject}: {item.number} failed with {error!r}, not {item.family!r}")

    def failed_together(self, subject, items, error):
        """Note one error for several items, which must come from the end of one of them."""
        if isinstance(error, BatcherClosedError):
            # Some may have been taken before it was closed.
            self.note(subject, "interrupted", len(items))
            return
        causes = (item for item in items if any(comes_from(error, expected) for expected in item.family))
        self.failed(subject, next(causes, items[0]), error)
        self.note(subject, "unread", len(items) - 1)

    def take_back(self, subject, item):
        """Note that the caller of an item was told that it would not run; an equal one may have it run for its own."""
        if not subject.dedupe:
            self.taken_back.append((subject, item))

    def left(self, subject, item):
        """Note a caller that left, if it had come at all."""
        self.note(subject, "cancelled" if item.asked else "not asked")


def comes_from(error, expected):
    """Say whether ``expected`` is ``error``, its type, a copy or the cause of it."""
    while error is not None:
        if error is expected or type(error) is expected:
            return True
        if type(error) is type(expected) is Refused and error.args == expected.args:
            return True
        error = error.__cause__
    return False


class Game:
    """What the threads of one game share."""

    # What ends the loop it is raised on is left to some of the games.
    fates = (ANSWER,) * 930 + (REFUSE,) * 40 + (SHORT,) * 5 + (Failure,) * 10 + (Awkward.of, Single.of) * 2
    fates += (StopIteration, StopAsyncIteration, Fatal, GeneratorExit) * 2
    pauses = (None,) * 6 + (0,) * 3 + (0.0005,)
    priorities = (0, 0, -1, 1, 1000)
    deadlines = (None, None, 0.0002, 0.001, 3600)
    appetites = (None,) * 16 + (0, 1, 2)

    def __init__(self, seed, calls, *, loud):
        self._seed = seed
        self._calls = calls
        if loud:
            self.fates += (KeyboardInterrupt, SystemExit) * 2
        self._numbers = itertools.count(1)
        self.made = 0
        # What families of equal items have seen that may still grow.
        self._families = [Family(number) for number in range(8)]
        # Runs batches of whoever wants it to.
        self.executor = ThreadPoolExecutor(4, "executor")
        # Those that callers choose from, and those that were closed for good.
        self.subjects = []
        self.retired = []
        self.ledgers = []
        self.complaints = []
        self._lock = threading.Lock()

    def random(self, who):
        return Random(f"{self._seed} {who}")  # to be repeated, not to be secret

    def ledger(self):
        ledger = Ledger(self.complain)
        self.ledgers.append(ledger)
        return ledger

    def complain(self, kind, text):
        self.complaints.append((kind, text))

    def subject(self, random):
        """Choose a subject; one that makes a batcher for each call less often, since that takes time."""
        subject = random.choice(self.subjects)
        return subject if subject.lasts or random.random() < 0.2 else random.choice(self.subjects)

    def item(self, random):
        """Make a new call; no two have the same number."""
        with self._lock:
            self.made = number = next(self._numbers)
        family = Family(number)
        if random.random() < 0.2:
            family = random.choice(self._families)
        elif random.random() < 0.02:
            self._families[random.randrange(len(self._families))] = family
        urgency = None
        if random.random() < 0.1:
            urgency = {"priority": random.choice(self.priorities), "deadline": random.choice(self.deadlines)}
        appetite = random.choice(self.appetites)
        return Item(number, random.choice(self.fates), random.choice(self.pauses), urgency, family, appetite)

    def items(self, random, most):
        return [self.item(random) for _ in range(random.randint(1, most))]

    @property
    def over(self):
        return self.made >= self._calls or bool(self.complaints)

    def ends(self):
        """Return how many calls ended how, by subject and end."""
        return sum((ledger.ends for ledger in list(self.ledgers)), Counter())

    def audit(self):
        """Check, when all is over, that every call has one end, and that each batcher counted the same."""
        ends = self.ends()
        if lost := self.made - sum(ends.values()):
            self.complain("lost", f"{lost} of {self.made} calls have no end")
        for subject in [*self.subjects, *self.retired]:
            if subject.stats is not None:
                self._compare(subject, settled(subject), {end: ends[subject, end] for end in TAKEN + NOT_TAKEN})
        self.executor.shutdown()
        for ledger in self.ledgers:
            for subject, item in ledger.taken_back:
                if item.runs:
                    self.complain("doubled", f"{subject}: {item.number} ran although it was taken back")

    def _compare(self, subject, stats, ends):
        taken = sum(ends[end] for end in TAKEN)
        if not taken <= accounted(stats) <= taken + ends["interrupted"]:
            self.complain("broken", f"{subject} took {taken} calls, and counts {accounted(stats)}: {ends}, {stats!r}")
        counted = {"answered": stats.answered_items, "failed": stats.failed_items, "expired": stats.expired_items}
        if subject.streams and subject.fatal:
            # What is no Exception ends a whole batch, and with it the streams that had been read to their end.
            counted["failed"] += counted.pop("answered")
            ends = {**ends, "failed": ends["failed"] + ends["answered"]}
        if any(count < ends[end] for end, count in counted.items()):
            self.complain("broken", f"{subject} forgot answers: {ends}, {stats!r}")
        if stats.pending or stats.running:
            self.complain("broken", f"{subject} is not done: {stats!r}")


def settled(subject):
    """Return the numbers when nothing waits and nothing runs: a thread may yet have to count who has left."""
    deadline = time.monotonic() + PATIENCE
    while ((stats := subject.stats()).pending or stats.running) and time.monotonic() < deadline:
        time.sleep(0.001)
    return stats


def accounted(stats):
    """Return how many calls a snapshot accounts for."""
    ended = stats.answered_items + stats.failed_items + stats.cancelled_items + stats.expired_items
    return stats.pending + stats.running + ended
