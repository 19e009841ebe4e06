"""The statistics of all batchers, added up by name."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify import microbatch
from batchify._batcher import base
from batchify._batcher.live import register
from batchify._batcher.registry import sources
from batchify._core.batch import Batch
from batchify._stats.counters import FIELDS
from batchify._stats.snapshot import REASONS
from batchify._stats.sums import batch_sizes
from batchify._stats.totals import Totals

pytestmark = pytest.mark.usefixtures("no_others")


class Batcher(base.Batcher):
    """Has counters, and counts batches that never ran."""

    name = ""

    def __init__(self, name="embed", parent=None):
        self.name = name
        self._parent = parent
        self._own_counters = {}
        self.queue = Queue()
        self._counters.follow(self.queue)

    def run(self, size=1, *, wait=1.0, run_time=2.0, failed=0, cancelled=0, reason="full"):
        some = batch(size, wait, reason)
        self._counters.ended(some, run_time, failed=failed, cancelled=cancelled)
        return self


class Queue:
    """A queue in which calls wait, and from which calls run."""

    waiting = running_calls = slots = room = 0


def batch(size, wait, reason):
    """Return a batch that departed after each of its items had waited so many seconds."""
    return Batch(["item"] * size, ["caller"] * size, [0.0] * size, reason, 4, wait)


def live(name="embed"):
    """Return a registered batcher."""
    batcher = Batcher(name)
    register(batcher)
    return batcher


def totals_of_all():
    """Return totals of all registered batchers."""
    return Totals(sources)


def only(totals):
    """Return the total of the only name."""
    [total] = totals.read()
    return total


def numbers(total):
    """Return all numbers of a total that must never fall, by name."""
    return {**dict.fromkeys((*FIELDS, *REASONS, "wait_time", "run_time"), 0), **total.counts}


def test_without_a_batcher_there_is_no_total():
    """Before any batcher is registered, there is no total."""
    assert [] == totals_of_all().read()


def test_an_idle_batcher_has_a_total():
    """A batcher that was never called has a total of zeros, so an exporter sees the first call as a rise."""
    idle = live()
    total = only(totals_of_all())
    assert (idle.name, 0, {}) == (total.name, total.counts["total_batches"], total.counts)


def test_a_batcher_is_counted():
    """The total of a single batcher has all its numbers."""
    batcher = live()
    batcher.run(4, failed=1, cancelled=1).run(2, reason="idle")
    total = only(totals_of_all())
    calls = {"answered_items": 4, "failed_items": 1, "cancelled_items": 1, "unanswered": 1}
    batches = {"total_items": 6, "total_batches": 2, "capacity": 8, "wait_time": 6.0, "run_time": 4.0}
    buckets = {("wait", 12): 6, ("run", 13): 2}
    assert {**calls, **batches, **buckets, "full": 1, "idle": 1, 2: 1, 4: 1} == total.counts


def test_one_name_is_one_total():
    """Batchers of one name are added up, in their past and in their present."""
    both = [live().run(1, wait=1.0), live().run(2, wait=3.0)]
    both[0].queue.waiting = 5
    both[0].queue.slots = both[1].queue.slots = 2
    both[1].queue.room = 3
    total = only(totals_of_all())
    levels = {"pending": 5, "running": 0, "slots": 4, "room": 3}
    assert (3, levels) == (total.counts["total_items"], total.levels)


def test_other_names_are_other_totals():
    """Batchers of different names have different totals."""
    several = [live("tokenize").run(1), live("embed").run(2)]
    totals = {total.name: total.counts["total_items"] for total in totals_of_all().read()}
    assert {"tokenize": 1, "embed": 2} == totals
    assert 2 == len(several)


def test_reading_twice_counts_once():
    """A second reading adds only what was counted since the first."""
    batcher = live().run(3)
    totals = totals_of_all()
    assert [3, 3] == [only(totals).counts["total_items"] for _ in range(2)]
    batcher.run(2)
    assert 5 == only(totals).counts["total_items"]


def test_a_total_does_not_change():
    """Later batches do not change a total that was read before."""
    batcher = live().run(3)
    totals = totals_of_all()
    before = only(totals)
    batcher.run(2)
    totals.read()
    assert (3, {3: 1}) == (before.counts["total_items"], batch_sizes(before.counts))


def test_readers_have_their_own_totals():
    """Each exporter counts everything, whatever another one has read."""
    batcher = live().run(3)
    assert [3, 3] == [only(totals_of_all()).counts["total_items"] for _ in range(2)]
    del batcher


def test_a_batcher_that_is_gone_stays_counted():
    """The total stays when its batcher is gone, and the present is empty."""
    batcher = live().run(3)
    totals = totals_of_all()
    before = numbers(only(totals))
    del batcher
    after = only(totals)
    assert (before, {}) == (numbers(after), after.levels)


def test_a_batcher_after_one_that_is_gone():
    """A new batcher of the same name adds to the total of the last one."""
    batcher = live().run(3)
    totals = totals_of_all()
    totals.read()
    batcher = live().run(2)
    assert 5 == only(totals).counts["total_items"]
    del batcher


def test_a_reset_loses_no_count():
    """Everything that a batcher counted is in the total, also between the last reading and a reset."""
    batcher = live().run(3)
    totals = totals_of_all()
    totals.read()
    batcher.run(1, wait=5.0)
    batcher._counters.reset()
    assert 4 == only(totals).counts["total_items"]
    batcher.run(2)
    total = only(totals)
    assert (6, {1: 1, 2: 1, 3: 1}, 10.0) == (
        total.counts["total_items"],
        batch_sizes(total.counts),
        total.counts["wait_time"],
    )


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_as_many_batches_after_a_reset_as_before_are_counted(batches):
    """A batcher whose counters are the same before a reset and after it has run twice as many batches."""
    batcher, totals = live(), Totals(sources)
    for _ in range(2):
        totals.read()
        batcher._counters.reset()
        for _ in range(batches):
            batcher.run()
    (total,) = totals.read()
    assert [2 * batches] * 2 == [total.counts[field] for field in ("total_batches", "answered_items")]


def test_a_batcher_with_a_parent_counts_once():
    """The calls of a batcher with a parent count in the total of its parent, also when the batcher is gone."""
    parent = Batcher()
    child = Batcher("child", parent).run(3)
    register(child)
    totals = totals_of_all()
    assert 3 == only(totals).counts["total_items"]
    child.run(2)
    del child
    assert (5, "embed") == ((total := only(totals)).counts["total_items"], total.name)


def test_a_method_is_counted_exactly():
    """Every call of a method is in the total, also if its instance lived only between two readings."""

    class Model:
        @microbatch
        def double(self, items):
            return [2 * item for item in items]

    def use(calls):
        model = Model()
        model.double.map(range(calls))
        model.double.close()

    totals = totals_of_all()
    seen = []
    for calls in (1, 2, 3):
        use(calls)
        use(calls)
        gc.collect()
        seen.append(only(totals).counts["answered_items"])
    assert [2, 6, 12] == seen


def test_one_thread_reads_at_a_time():
    """Only one thread reads at a time: two that add the same rise would count it twice."""
    locked = []
    totals = Totals(lambda: locked.append(totals._lock.locked()) or [])
    totals.read()
    assert [True] == locked


SECONDS = st.floats(0, 1e6)
STEPS = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 2), st.integers(1, 5), SECONDS, SECONDS),
    st.tuples(st.sampled_from(["replace", "reset"]), st.integers(0, 2)),
)


@given(st.lists(STEPS, max_size=40))
def test_totals_never_fall(steps):
    """No number of a total ever falls, while batchers run, come, go and are reset.

    A total that is read after every step has every item.
    """
    known = [live() for _ in range(3)]
    totals = totals_of_all()
    before, items = numbers(only(totals)), 0
    for step, which, *arguments in steps:
        if step == "run":
            size, wait, run_time = arguments
            known[which].run(size, wait=wait, run_time=run_time)
            items += size
        elif step == "reset":
            known[which]._counters.reset()
        else:
            known[which] = live()
        after = numbers(only(totals))
        assert set() == {key for key, value in before.items() if after[key] < value}
        assert items == after["total_items"]
        before = after
