"""The line of a batcher: each step in the life of a batch, in the queue and in the counters."""

from __future__ import annotations

import gc
import math
from dataclasses import fields, replace
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchify._batcher.admission import entry_factory
from batchify._batcher.config import Config
from batchify._batcher.current import batch_context
from batchify._batcher.cycles import check_reentrancy
from batchify._batcher.line import Line
from batchify._core.grouped import GroupedQueue
from batchify._core.queue import PlainQueue
from batchify._stats.counters import Stats
from batchify.errors import BatchResultError, QueueFullError, ReentrantCallError
from tests.kit.queues import caller
from tests.kit.steps import at_steps, interrupted

OFF = {
    **dict.fromkeys(field.name for field in fields(Config)),
    "max_size": 2,
    "concurrency": 1,
    "on_full": "wait",
    "name": "embed",
}
KINDS = pytest.mark.parametrize("options", [{}, {"takes_requests": True}], ids=["plain", "grouped"])


def new(**options):
    """Return a line with two items a batch, adaptive timing and one slot, unless ``options`` override them."""
    return Line(Config(**{**OFF, **options}), Stats())


def arrive(line, items, now=0.0):
    """Let each letter arrive as an item of the caller named by its capital, as in an engine; return the marks."""
    prepare = entry_factory(line.config)
    marks = []
    for item in items:
        marks.append(line.add(prepare(item) if prepare else item, caller(item), now))
        line.admit()
    return marks


def counted(line):
    """Return the counts of calls that are not 0."""
    seen = line.stats.snapshot("embed")
    names = ("pending", "running", "answered_items", "failed_items", "cancelled_items", "expired_items")
    return {name.removesuffix("_items"): count for name in names if (count := getattr(seen, name))}


def calls(line):
    """Return the number of calls that the counters account for."""
    return sum(counted(line).values())


def run(line, now=0.0):
    """Take a batch and answer it."""
    batch = line.take(now)
    line.count(batch, now, failed=0, cancelled=0)
    line.end(batch, now)


# Arrivals.


@KINDS
def test_arrivals_wait(options):
    """Calls that arrive wait, and the line is not idle until they are answered."""
    line = new(**options)
    idle = [line.idle]
    arrive(line, "ab")
    assert (2, {"pending": 2}) == (line.waiting, counted(line))
    idle.append(line.idle)
    run(line)
    assert ([True, False], True) == (idle, line.idle)


def test_calls_can_join_a_plain_queue_by_themselves():
    """If calls differ only in their items, they may extend the list of the queue, and are counted all the same."""
    line = new()
    line.plain.places += ("a", "A", 0.0)
    assert (line.queue, 1, {"pending": 1}) == (line.plain, line.waiting, counted(line))


def test_calls_cannot_join_a_grouped_queue_by_themselves():
    """If calls may differ in more than their items, there is no plain queue."""
    assert None is new(dedupe=True).plain


def test_a_full_queue_refuses_a_call():
    """A call that is refused counts as rejected, and as nothing else."""
    line = new(max_pending=1, on_full="raise")
    arrive(line, "a")
    with pytest.raises(QueueFullError, match="embed"):
        arrive(line, "b")
    assert ({"pending": 1}, 1) == (counted(line), line.stats.snapshot("embed").rejected_items)


def test_the_waiting_calls_can_be_listed():
    """The entries have the items without what is queued with them."""
    for options in ({}, {"capture_context": True}, {"dedupe": True}, {"capture_context": True, "dedupe": True}):
        line = new(**options)
        arrive(line, "ab", 1.5)
        assert [("a", "A", 1.5), ("b", "B", 1.5)] == line.entries


# Batches.


@KINDS
def test_a_batch_that_departs_runs(options):
    """The calls of a batch run, and the others wait."""
    line = new(**options)
    arrive(line, "abc")
    batch = line.take(1.0)
    assert (["a", "b"], "embed", {"pending": 1, "running": 2}) == (batch.items, batch.name, counted(line))


def test_nothing_departs_before_its_time():
    """If no batch may leave, nothing is counted."""
    line = new(timeout=5.0)
    arrive(line, "a")
    assert (None, {"pending": 1}) == (line.take(4.0), counted(line))


def test_a_batch_has_the_contexts_of_its_callers():
    """With ``capture_context``, the batch function gets the bare items, and the contexts of the callers that stay."""
    line = new(capture_context=True)
    arrive(line, "ab")
    contexts = [context for (_, context), _, _ in line.queue.entries]
    batch = line.take(0.0)
    assert line.drop(batch, [True, False], 0.0)
    [run] = line.runs(batch)
    assert (["b"], (contexts[1],)) == (run.items, run.contexts)


@KINDS
def test_a_batch_that_ends_frees_its_slot(options):
    """The calls are answered, and the batch no longer holds items and callers."""
    line = new(**options)
    arrive(line, "ab")
    batch = line.take(1.0)
    assert 3.0 == line.count(batch, 4.0, failed=1, cancelled=0)
    assert {"answered": 1, "failed": 1} == counted(line)
    assert line.end(batch, 4.0)
    assert ([], [], []) == (line.queue.running, batch.items, batch.waiters)


@KINDS
def test_callers_that_leave_before_the_run_are_dropped(options):
    """The items of callers that left between departure and run are dropped, and the calls are cancelled."""
    line = new(**options)
    arrive(line, "ab")
    batch = line.take(0.0)
    assert line.drop(batch, [True, False], 0.0)
    assert (["b"], {"running": 1, "cancelled": 1}) == (batch.items, counted(line))


@KINDS
def test_a_batch_without_callers_does_not_run(options):
    """If all callers left before the run, the slot is free, and no batch is counted."""
    line = new(**options)
    arrive(line, "ab")
    assert not line.drop(line.take(0.0), [True, True], 0.0)
    assert (True, {"cancelled": 2}) == (line.idle, counted(line))
    assert 0 == line.stats.snapshot("embed").total_batches


@pytest.mark.parametrize("gone", [[], [False, False]])
def test_a_batch_whose_callers_stay_does_not_change(gone):
    """If no caller has left, the batch runs as it is."""
    line = new()
    arrive(line, "ab")
    batch = line.take(0.0)
    assert line.drop(batch, gone, 0.0)
    assert (["A", "B"], {"running": 2}) == (batch.waiters, counted(line))


@KINDS
def test_an_item_is_dropped_without_the_lock(options):
    """The finalizer of an item is user code, so it runs after the lock of the counters is released."""

    class Item:
        def __del__(self):
            owned.append(line.stats.lock._is_owned())

    owned = []
    line = new(**options)
    prepare = entry_factory(line.config) or (lambda item: item)
    for waiter in "AB":
        line.add(prepare(Item()), waiter, 0.0)
    line.admit()
    batch = line.take(0.0)
    line.drop(batch, [True, False], 0.0)
    batch.forget()
    gc.collect()
    assert [False, False] == owned


def failed(line, items, *, is_abandoned=False):
    """Let a batch of these items fail as a whole. Return it, the parts that this ends, and the parts that run next."""
    arrive(line, items)
    batch = line.take(0.0)
    runs = line.runs(batch)
    parts = iter(runs)
    assert batch is next(parts)
    return batch, line.ended(runs, batch, ValueError(), is_abandoned=is_abandoned), parts


def test_the_slot_is_free_after_the_last_part():
    """While errors are isolated, each half is counted when it ends, and the last one frees the slot."""
    line = new(isolate_errors=True)
    batch, ended, parts = failed(line, "ab")
    first = next(parts)
    line.count(first, 0.0, failed=1, cancelled=0)
    assert ([], 1, {"running": 1, "failed": 1}) == (ended, line.running_calls, counted(line))
    assert (None, [], ["a", "b"]) == (line.end(first, 0.0), first.items, batch.items)
    second = next(parts)
    line.count(second, 0.0, failed=0, cancelled=0)
    assert (0, {"answered": 1, "failed": 1}) == (line.running_calls, counted(line))
    assert (batch, [], []) == (line.end(second, 0.0), second.items, batch.items)
    seen = line.stats.snapshot("embed")
    assert (2, 2, None) == (seen.isolation_runs, seen.total_batches, next(parts, None))


@pytest.mark.parametrize(("isolate", "is_abandoned"), [(False, False), (False, True), (True, True)])
def test_a_batch_is_not_isolated_without_need(isolate, is_abandoned):
    """The error ends the batch if errors are not isolated, or if all callers have left."""
    line = new(isolate_errors=isolate)
    batch, ended, parts = failed(line, "ab", is_abandoned=is_abandoned)
    assert ([batch], None) == (ended, next(parts, None))
    assert 0 == line.stats.snapshot("embed").isolation_runs


def test_a_single_bad_item_ends_its_part():
    """The error of a part with one item is the answer of its callers."""
    line = new(isolate_errors=True)
    batch, ended, _ = failed(line, "a")
    assert ([batch], 0) == (ended, line.stats.snapshot("embed").isolation_runs)


def test_a_changed_list_does_not_change_the_halves():
    """The function may change its list of items, although they may have to run again."""
    line = new(isolate_errors=True)
    arrive(line, "ab")
    runs = line.runs(line.take(0.0))
    seen = []
    for part in runs:
        seen.append([*part.given])
        part.given.clear()
        line.ended(runs, part, ValueError(), is_abandoned=False)
    assert [["a", "b"], ["a"], ["b"]] == seen


def test_a_batch_ends_with_its_last_part():
    """The slot is free after the last part, whether that is a half of a half or the whole batch."""
    line = new(max_size=3)
    arrive(line, "abcd")
    batch = line.take(0.0)
    first, rest = batch.halves()
    parts = [first, *rest.halves()]
    seen = []
    for part in parts:
        line.count(part, 0.0, 0, 0)
        seen.append((line.end(part, 0.0), len(line.queue.running)))
    line.queue.flush("flush")
    assert [(None, 1), (None, 1), (batch, 0)] == seen
    whole = line.take(0.0)
    line.count(whole, 0.0, 0, 0)
    assert (whole, True) == (line.end(whole, 0.0), line.idle)


# Answers.


class Unhashable(type):
    """The type of classes that have no hash."""

    __hash__ = None


class Odd(metaclass=Unhashable):
    """A result whose class has no hash."""


@pytest.mark.parametrize(
    ("returned", "any_failed"),
    [([1, 2], False), ([1, ValueError()], True), ([Odd(), 2], True)],
    ids=["results", "an exception", "a class without a hash"],
)
def test_answers_may_be_exceptions(returned, any_failed):
    """The answers are the results, with whether an exception may be among them."""
    line = new()
    arrive(line, "ab")
    assert (returned, any_failed) == line.answers(line.take(0.0), returned)


def test_each_caller_has_an_answer():
    """Callers that share an item share its answer."""
    line = new(dedupe=True, timeout=0.0)
    prepare = entry_factory(line.config)
    entries = prepare("a"), prepare("a")
    for waiter, entry in zip(("A", "B"), entries, strict=True):
        line.add(entry, waiter, 0.0)
    line.admit()
    assert ([1, 1], False) == line.answers(line.take(0.0), [1])


def test_a_wrong_number_of_results_is_refused():
    """The error names the function."""
    line = new()
    arrive(line, "ab")
    with pytest.raises(BatchResultError, match=r"^embed\(\) was given 2 items and returned 1 result"):
        line.answers(line.take(0.0), [1])


# Callers that leave.


@KINDS
def test_a_caller_leaves_the_queue(options):
    """A caller that leaves while its item is queued is cancelled, once; a later one is not."""
    line = new(**options)
    mark = arrive(line, "abc")[1]
    item, waiter, _ = line.leave(mark, "B")
    assert (("b", "B"), {"pending": 2, "cancelled": 1}) == ((item, waiter), counted(line))
    line.take(0.0)
    assert [None, None] == [line.leave(mark, waiter) for waiter in ("B", "C")]
    assert {"running": 2, "cancelled": 1} == counted(line)


@KINDS
def test_all_calls_of_the_queue_fail(options):
    """If no batch can run, the waiters get their answer from the engine, and the calls have failed."""
    line = new(**options)
    arrive(line, "abc")
    assert (["A", "B", "C"], True, {"failed": 3}) == (line.fail_all(), line.idle, counted(line))


def urgent(line, item, time_limit):
    """Let a call with a deadline arrive."""
    entry = entry_factory(line.config)(item)
    entry.time_limit = time_limit
    line.add(entry, caller(item), 0.0)
    line.admit()


def test_calls_expire():
    """A call that misses its deadline counts as expired."""
    line = new(takes_requests=True, timeout=50.0)
    urgent(line, "a", 2.0)
    urgent(line, "b", 9.0)
    assert 2.0 == line.expires_at
    assert (["A"], {"pending": 1, "expired": 1}) == ([entry.waiter for entry in line.expire(3.0)], counted(line))
    assert 9.0 == line.expires_at


@pytest.mark.parametrize(("executor", "expected"), [(object(), 2.0), (None, math.inf)], ids=["executor", "no executor"])
def test_the_deadline_of_a_batch_that_departs(executor, expected):
    """The deadline of a batch stays the next one while its executor may not have started it."""
    line = new(takes_requests=True, executor=executor)
    urgent(line, "a", 2.0)
    line.take(0.0)
    assert expected == line.expires_at


def test_a_deadline_that_passes_as_a_batch_is_handed_over():
    """A batch whose deadline passes before its executor has it counts as started."""
    line = new(takes_requests=True, executor=object())
    urgent(line, "a", 2.0)
    line.take(0.0)
    assert ([], math.inf, {"running": 1}) == ([*line.expire(2.0)], line.expires_at, counted(line))


@KINDS
def test_calls_without_deadlines_do_not_expire(options):
    """A call without a deadline does not expire, however long it waits."""
    line = new(**options)
    arrive(line, "a")
    assert (math.inf, 0, {"pending": 1}) == (line.expires_at, len(line.expire(math.inf)), counted(line))


def test_the_next_decision_is_a_departure_or_a_deadline():
    """The next decision is due when a batch may leave or an entry expires, whichever is earlier."""
    plain, line = new(timeout=5.0), new(takes_requests=True, timeout=5.0)
    seen = [plain.plan()]
    arrive(plain, "a")
    seen.append(plain.plan())
    urgent(line, "a", 100.0)
    seen.append(line.plan())
    line.queue.flush("flush")
    line.take(0.0)
    seen.append(line.plan())
    urgent(line, "b", 3.0)
    seen.append(line.plan())
    assert [None, 5.0, 5.0, None, 3.0] == seen


# Calls from inside a batch.


def test_the_running_code_may_belong_to_a_batch():
    """A call from inside a batch of the line is refused, also from a part of it; any other call is not."""
    line, other = new(), new()
    arrive(line, "ab")
    arrive(other, "ab")
    batch, strange = line.take(0.0), other.take(0.0)
    check = partial(check_reentrancy, line.queue, "embed")
    batch_context(strange).run(check)
    check()
    for some in (batch, batch.halves()[0]):
        with pytest.raises(ReentrantCallError, match="embed"):
            batch_context(some).run(check)


# Changes of options.


def configure(line, **options):
    line.configure(replace(line.config, **options))


def test_new_options_apply_to_the_same_queue():
    """A change that needs no other queue keeps the queue."""
    for options in ({}, {"takes_requests": True}):
        line = new(timeout=5.0, **options)
        queue = line.queue
        arrive(line, "abc")
        configure(line, max_size=3)
        assert (queue, 3, ["a", "b", "c"]) == (line.queue, line.config.max_size, line.take(0.0).items)


def test_a_plain_queue_is_replaced_by_a_grouped_one():
    """Calls that wait and calls that run continue in the new queue, in order, and are counted once."""
    line = new()
    mark, *_ = arrive(line, "abcd")
    batch = line.take(0.0)
    before, retired = counted(line), line.queue
    configure(line, takes_requests=True)
    assert (PlainQueue, GroupedQueue, None) == (type(retired), type(line.queue), line.plain)
    assert {"pending": 2, "running": 2} == before == counted(line)
    arrive(line, "e")
    assert "C" == line.leave(mark, "C").waiter
    line.count(batch, 0.0, failed=0, cancelled=0)
    assert line.end(batch, 0.0)
    assert (["d", "e"], {"running": 2, "answered": 2, "cancelled": 1}) == (line.take(0.0).items, counted(line))


def test_the_plan_of_a_replaced_queue_has_deadlines():
    """After the replacement, the next decision may be a deadline."""
    line = new(timeout=5.0)
    arrive(line, "a")
    configure(line, takes_requests=True)
    before = line.plan()
    line.queue.flush("flush")
    line.take(0.0)
    urgent(line, "b", 3.0)
    assert (5.0, 3.0) == (before, line.plan())


def test_an_item_prepared_for_the_plain_queue_joins_the_grouped_one():
    """A call that prepared its item before the change may arrive after it."""
    line = new()
    configure(line, takes_requests=True)
    line.add("a", "A", 0.0)
    line.admit()
    assert ["a"] == line.take(0.0).items


def test_a_late_arrival_in_the_retired_queue_matters():
    """A call that found the plain queue before the change and joins it later can move to the other queue."""
    line = new()
    arrive(line, "ab")
    line.take(0.0)
    retired = line.plain
    configure(line, takes_requests=True)
    mark = retired.mark
    retired.places += ("c", "C", 1.0)
    assert len(retired.places) >= retired.wake_length
    item, waiter, arrived = retired.withdraw(mark, "C")
    line.add(item, waiter, arrived)
    assert (0, 1, {"pending": 1, "running": 2}) == (retired.waiting, line.waiting, counted(line))


@pytest.mark.untraced
@pytest.mark.parametrize("items", ["", "a", "abcdef"])
def test_a_call_that_arrives_during_the_change_is_not_lost(items):
    """A call that joins the plain queue while it is replaced continues in the other queue, or matters and can move."""

    def busy():
        line = new()
        arrive(line, "xx" + items)
        line.take(0.0)
        return line, line.plain, []

    def change(state):
        line, _, _ = state
        configure(line, takes_requests=True)

    def join(state):
        _, plain, marks = state
        marks.append(plain.mark)
        plain.places += ("z", "Z", 0.0)
        # Another thread compares the lengths now or later.
        marks.append(len(plain.places) >= plain.wake_length)

    for line, plain, (mark, mattered) in interrupted(busy, change, join):
        matters = mattered and len(plain.places) >= plain.wake_length
        entry = plain.withdraw(mark, "Z")
        if entry is not None:
            assert matters
            line.add(entry[0], entry[1], 0.0)
            line.admit()
        assert sorted(items.upper() + "Z") == sorted(waiter for _, waiter, _ in line.entries)


# The counters, read at any moment.


def watcher(line):
    """Return a function that acts, and checks before each step that another thread would read the right sum."""
    made = calls(line)

    def look(_):
        # Another thread would wait for the lock.
        if not line.stats.lock._is_owned():
            assert made == calls(line)

    def watch(act):
        assert at_steps(act, look)
        assert made == calls(line)

    return watch


@pytest.mark.untraced
@KINDS
def test_the_counters_add_up_at_any_moment(options):
    """While calls leave, depart, are dropped, answered and moved, another thread finds each of them counted once."""
    line = new(timeout=0.0, concurrency=2, **options)
    marks = arrive(line, "abcdefgh")
    watch = watcher(line)
    watch(lambda: line.leave(marks[1], "B"))
    watch(lambda: line.take(0.0))
    watch(lambda: line.take(0.0))
    first, second = line.queue.running
    watch(lambda: line.drop(first, [True, False], 0.0))
    watch(lambda: line.drop(second, [True, True], 0.0))
    watch(lambda: line.count(first, 0.0, failed=0, cancelled=0))
    watch(lambda: line.end(first, 0.0))
    watch(lambda: configure(line, max_size=3, takes_requests=True))
    watch(lambda: line.take(0.0))
    watch(lambda: line.fail_all())
    arrive(line, "xyz")
    watch = watcher(line)
    watch(lambda: line.stats.retire(line))


@pytest.mark.untraced
def test_the_counters_add_up_while_calls_expire():
    """A call that expires counts once."""
    line = new(takes_requests=True, timeout=50.0)
    urgent(line, "a", 1.0)
    urgent(line, "b", 2.0)
    watch = watcher(line)
    watch(lambda: line.expire(1.5))


@pytest.mark.untraced
def test_the_counters_add_up_while_a_call_finds_room():
    """A call that waited for room counts once, while it is admitted."""
    line = new(max_pending=1)
    arrive(line, "abc")
    line.take(0.0)
    watch = watcher(line)
    watch(line.admit)


class LineMachine(RuleBasedStateMachine):
    """Uses a line as an engine does; each call is counted once, where it is."""

    @initialize(
        options=st.fixed_dictionaries(
            {
                "max_size": st.integers(1, 3),
                "timeout": st.sampled_from([None, 0.0, 2.0]),
                "concurrency": st.integers(1, 2),
                "isolate_errors": st.booleans(),
                "takes_requests": st.booleans(),
            },
        ),
    )
    def begin(self, options):
        self.parent = Stats()
        self.line = Line(Config(**{**OFF, **options}), Stats(self.parent))
        # Mark and waiter of each call that waits.
        self.waiting = {}
        # For each batch, its iterator and its part to run.
        self.runs = {}
        self.made = 0
        self.now = 0.0

    @rule(time_limit=st.none() | st.sampled_from([0.5, 3.0]))
    def arrive(self, time_limit):
        waiter = object()
        prepare = entry_factory(self.line.config)
        data = prepare("item") if prepare else "item"
        if prepare:
            data.time_limit = time_limit
        self.waiting[waiter] = self.line.add(data, waiter, self.now)
        self.line.admit()
        self.line.plan()
        self.made += 1

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data):
        waiter = [*self.waiting][data.draw(st.integers(0, len(self.waiting) - 1))]
        assert waiter is [*self.line.leave(self.waiting[waiter], waiter)][1]
        assert None is self.line.leave(self.waiting.pop(waiter), waiter)

    @rule()
    def fail_all(self):
        assert [*self.waiting] == self.line.fail_all()
        self.waiting = {}

    @rule()
    def expire(self):
        for entry in self.line.expire(self.now):
            del self.waiting[entry.waiter]

    @rule(flush=st.booleans(), gone=st.lists(st.booleans(), min_size=3, max_size=3))
    def take(self, flush, gone):
        self.expire()
        if flush:
            self.line.queue.flush("flush")
        batch = self.line.take(self.now)
        if batch is None:
            return
        for waiter in batch.waiters:
            del self.waiting[waiter]
        if self.line.drop(batch, gone[: len(batch.waiters)], self.now):
            runs = self.line.runs(batch)
            parts = iter(runs)
            self.runs[batch] = runs, parts, [next(parts)]

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), error=st.sampled_from([None, ValueError(), KeyboardInterrupt()]), cancelled=st.integers(0, 1))
    def end(self, data, error, cancelled):
        batch = [*self.runs][data.draw(st.integers(0, len(self.runs) - 1))]
        runs, parts, part = self.runs[batch]
        ended = part if error is None else self.line.ended(runs, *part, error, is_abandoned=False)
        is_last = False
        for some in ended:
            assert not is_last
            failed = 0 if error is None else len(some.waiters) - cancelled
            self.line.count(some, self.now, failed=failed, cancelled=cancelled)
            is_last = self.line.end(some, self.now)
        part[:] = [some for some in [next(parts, None)] if some]
        assert is_last is not bool(part)
        if is_last:
            del self.runs[batch]

    @rule(size=st.integers(1, 3), grouped=st.booleans())
    def configure(self, size, grouped):
        configure(self.line, max_size=size, takes_requests=self.line.config.takes_requests or grouped)

    @invariant()
    def each_call_is_counted_once(self):
        if not hasattr(self, "line"):
            return
        running = sum(len(some.waiters) for some in self.line.queue.running)
        with self.line.stats.lock:
            for stats in (self.line.stats, self.parent):
                seen = stats.snapshot("embed")
                answered = seen.answered_items + seen.failed_items + seen.cancelled_items + seen.expired_items
                assert (len(self.waiting), self.made) == (seen.pending, seen.pending + seen.running + answered)
                assert running >= seen.running
        assert [*self.waiting] == [waiter for _, waiter, _ in self.line.entries]
        assert set(self.runs) == set(self.line.queue.running)
        assert self.line.idle is not bool(self.waiting or self.runs)


TestLineMachine = pytest.mark.untraced(LineMachine.TestCase)
TestLineMachine.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_later_batch_of_an_equal_item_can_be_joined():
    """The end of a batch does not stop calls from joining a later batch of an equal item."""
    line = new(dedupe="running", concurrency=2, max_size=1)
    prepare = entry_factory(line.config)
    entries = [prepare("a") for _ in range(3)]
    batches = []
    for entry in entries[:2]:
        # Not running yet, so the second call cannot join the first one.
        line.add(entry, object(), 0.0)
        line.admit()
        batches.append(line.take(0.0))
    for batch in batches:
        line.runs(batch)
    line.answers(batches[0], ["A"])
    assert line.join(entries[2], "waiter")
    assert (["waiter"], [0, 0]) == (batches[1].waiters[1:], batches[1].shares)
    line.answers(batches[1], ["A"])
    assert not line.join(entries[2], "waiter")
