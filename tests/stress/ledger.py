"""Records of all calls and of how they ended.

Every call has an ``Item``. The batch function records in it the outcome that its caller must get, and the caller
compares: a result must be the same object, and an error must come from the error that ended the batch.
"""
# ruff: noqa: N818  # these exceptions are not errors

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

from batchify import BatcherClosedError, DeadlineError

# The number of seconds within which all remaining work must end.
PATIENCE = 10.0
# Actions of an item on its batch. An exception type is an action, too: the batch function raises it.
ANSWER, REFUSE, SHORT = "answer", "refuse", "short"
# How an accepted call may end, and how a call may end that was not accepted, or may not have been.
TAKEN = ("answered", "failed", "cancelled", "expired", "unread")
NOT_TAKEN = ("refused", "not started", "interrupted")


class Refused(Exception):
    """Returned in place of a result."""


class Failure(Exception):
    """A plain exception."""


class Awkward(Exception):
    """An exception whose constructor does not take its own ``args``."""

    def __init__(self, *, number):
        super().__init__("awkward", number)

    @classmethod
    def of(cls, number):
        return cls(number=number)


class Single(Exception):
    """An exception that cannot be copied."""

    def __new__(cls, *, number):
        return super().__new__(cls, number)

    def __init__(self, *, number):
        super().__init__(number)

    @classmethod
    def of(cls, number):
        return cls(number=number)


class Fatal(BaseException):
    """An exception that is not an ``Exception``."""


class Interrupted(BaseException):
    """Raised by a signal handler."""


class StoppedReading(Exception):
    """A caller stops reading its stream."""


class WrongValue(Exception):
    """A caller got a value that is not the next one of its own stream."""


class Outcomes(list):
    """The possible outcomes for callers of equal items: answers, errors, or types of errors of the library."""

    def __init__(self, number):
        # Equal items have equal weights.
        self.weight = number % 5 + 1


class Item:
    """One call: its action on its batch, and its outcome. Items that share their outcomes are equal."""

    __slots__ = ("action", "call_options", "caller", "number", "outcomes", "pause", "reading_limit", "runs", "started")

    def __init__(self, number, action, pause, call_options, outcomes, reading_limit):
        self.number = number
        self.action = action
        # The number of seconds that its batch takes if it is the first item.
        self.pause = pause
        # Its priority and its deadline, or None if it has neither.
        self.call_options = call_options
        # The batcher decides which equal items share a batch.
        self.outcomes = outcomes
        # The number of values after which its caller stops reading the stream; None to read to the end.
        self.reading_limit = reading_limit
        self.started = False
        self.runs = 0
        # Its caller, if that caller makes its calls one after the other.
        self.caller = None

    def __eq__(self, other):
        return self.outcomes is other.outcomes

    def __hash__(self):
        return id(self.outcomes)

    def expect(self, outcome):
        """Record a possible outcome for its caller."""
        self.outcomes.append(outcome)


class Ledger:
    """The outcomes that callers of one thread got; no other thread writes to it."""

    def __init__(self, report_fault):
        self.report_fault = report_fault
        # (subject, end) -> number of calls.
        self.ends = Counter()
        # (subject, item) of callers that were cancelled or expired, so that the item must not run.
        self.withdrawn = []

    def note(self, subject, end, count=1):
        self.ends[subject, end] += count

    def answered(self, subject, item, value):
        """Record an answer, which must be the object that was computed for this item."""
        self.note(subject, "answered")
        if not any(value is expected for expected in item.outcomes):
            self.report_fault("wrong answer", f"{subject}: {item.number} was answered {value!r}, not {item.outcomes!r}")

    def failed(self, subject, item, error):
        """Record an error, which must come from the error that ended the batch of this item."""
        if isinstance(error, BatcherClosedError):
            self.note(subject, "refused")
            if not subject.closings:
                self.report_fault("broken", f"{subject} reports that it is closed")
            return
        if isinstance(error, DeadlineError) and item.call_options is not None:
            self.note(subject, "expired")
            self.withdraw(subject, item)
            return
        if isinstance(error, StoppedReading):
            self.note(subject, "cancelled")
            return
        self.note(subject, "failed")
        if not any(comes_from(error, expected) for expected in [*item.outcomes, *subject.fatal]):
            self.report_fault("wrong answer", f"{subject}: {item.number} failed with {error!r}, not {item.outcomes!r}")

    def failed_together(self, subject, items, error):
        """Record one error for several items, which must come from the outcome of one of them."""
        if isinstance(error, BatcherClosedError):
            # Some items may have been accepted before the batcher was closed.
            self.note(subject, "interrupted", len(items))
            return
        causes = (item for item in items if any(comes_from(error, expected) for expected in item.outcomes))
        self.failed(subject, next(causes, items[0]), error)
        self.note(subject, "unread", len(items) - 1)

    def withdraw(self, subject, item):
        """Record that an item must not run, unless equal items may share its run."""
        if not subject.dedupe:
            self.withdrawn.append((subject, item))

    def left(self, subject, item):
        """Record a cancelled call, or one that was cancelled before it started."""
        self.note(subject, "cancelled" if item.started else "not started")


def comes_from(error, expected):
    """Return whether ``expected`` is ``error``, its type, the original of a copy, or one of its causes."""
    while error is not None:
        if error is expected or type(error) is expected:
            return True
        if type(error) is type(expected) is Refused and error.args == expected.args:
            return True
        error = error.__cause__
    return False


class Trial:
    """The state that the threads of one trial share."""

    # Only some trials add the exceptions that end an event loop.
    actions = (ANSWER,) * 930 + (REFUSE,) * 40 + (SHORT,) * 5 + (Failure,) * 10 + (Awkward.of, Single.of) * 2
    actions += (StopIteration, StopAsyncIteration, Fatal, GeneratorExit) * 2
    pauses = (None,) * 6 + (0,) * 3 + (0.0005,)
    priorities = (0, 0, -1, 1, 1000)
    deadlines = (None, None, 0.0002, 0.001, 3600)
    reading_limits = (None,) * 16 + (0, 1, 2)

    def __init__(self, seed, calls, *, ends_loops):
        self._seed = seed
        self._calls = calls
        if ends_loops:
            self.actions += (KeyboardInterrupt, SystemExit) * 2
        self._numbers = itertools.count(1)
        self.made = 0
        # The numbers of forks and of blocks with a frozen clock.
        self.faked = Counter()
        # Outcomes that new items may still share.
        self._shared_outcomes = [Outcomes(number) for number in range(8)]
        # Runs the batches of subjects that have an executor.
        self.executor = ThreadPoolExecutor(4, "executor")
        # The subjects that callers choose from, and the ones that stay closed.
        self.subjects = []
        self.retired = []
        self.ledgers = []
        self.faults = []
        self._lock = threading.Lock()

    def random(self, name):
        return Random(f"{self._seed} {name}")  # repeatable, not secret

    def ledger(self):
        ledger = Ledger(self.report_fault)
        self.ledgers.append(ledger)
        return ledger

    def report_fault(self, kind, text):
        self.faults.append((kind, text))

    def subject(self, random):
        """Choose a subject; one that creates a batcher for each call is slow and therefore chosen less often."""
        subject = random.choice(self.subjects)
        return subject if subject.lasts or random.random() < 0.2 else random.choice(self.subjects)

    def item(self, random):
        """Create the item of a new call, with a unique number."""
        with self._lock:
            self.made = number = next(self._numbers)
        outcomes = Outcomes(number)
        if random.random() < 0.2:
            outcomes = random.choice(self._shared_outcomes)
        elif random.random() < 0.02:
            self._shared_outcomes[random.randrange(len(self._shared_outcomes))] = outcomes
        call_options = None
        if random.random() < 0.1:
            call_options = {"priority": random.choice(self.priorities), "deadline": random.choice(self.deadlines)}
        reading_limit = random.choice(self.reading_limits)
        return Item(
            number, random.choice(self.actions), random.choice(self.pauses), call_options, outcomes, reading_limit
        )

    def items(self, random, most):
        return [self.item(random) for _ in range(random.randint(1, most))]

    @property
    def has_ended(self):
        return self.made >= self._calls or bool(self.faults)

    def ends(self):
        """Return the number of calls by subject and end."""
        return sum((ledger.ends for ledger in list(self.ledgers)), Counter())

    def audit(self):
        """Check after all calls that each one has one end, and that the statistics of each batcher agree."""
        ends = self.ends()
        if lost := self.made - sum(ends.values()):
            self.report_fault("lost", f"{lost} of {self.made} calls have no end")
        for subject in [*self.subjects, *self.retired]:
            if subject.stats is not None:
                self._compare(subject, settled(subject), {end: ends[subject, end] for end in TAKEN + NOT_TAKEN})
        self.executor.shutdown()
        for ledger in self.ledgers:
            for subject, item in ledger.withdrawn:
                if item.runs:
                    self.report_fault("doubled", f"{subject}: {item.number} ran although it was withdrawn")

    def _compare(self, subject, stats, ends):
        taken = sum(ends[end] for end in TAKEN)
        # A call that a closed batcher refuses counts nowhere, and may be cancelled before its caller knows.
        uncounted = ends["cancelled"] if subject.closings else 0
        if not taken - uncounted <= accounted(stats) <= taken + ends["interrupted"]:
            self.report_fault(
                "broken", f"{subject} took {taken} calls, and counts {accounted(stats)}: {ends}, {stats!r}"
            )
        counted = {"answered": stats.answered_items, "failed": stats.failed_items, "expired": stats.expired_items}
        if subject.streams and subject.fatal:
            # An error that is not an Exception ends the whole batch, including the streams that were read to their end.
            counted["failed"] += counted.pop("answered")
            ends = {**ends, "failed": ends["failed"] + ends["answered"]}
        if any(count < ends[end] for end, count in counted.items()):
            self.report_fault("broken", f"{subject} counts too few ends: {ends}, {stats!r}")
        if stats.pending or stats.running:
            self.report_fault("broken", f"{subject} still has calls: {stats!r}")


def settled(subject):
    """Return the statistics once no call waits or runs: a thread may still have to count cancelled calls."""
    deadline = time.monotonic() + PATIENCE
    while ((stats := subject.stats()).pending or stats.running) and time.monotonic() < deadline:
        time.sleep(0.001)
    return stats


def accounted(stats):
    """Return the number of calls that a snapshot includes."""
    ended = stats.answered_items + stats.failed_items + stats.cancelled_items + stats.expired_items
    return stats.pending + stats.running + ended
