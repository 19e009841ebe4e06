"""What batchers did, added up by name."""

from __future__ import annotations

import gc
from dataclasses import fields
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify import BatchStats, microbatch
from batchify._batcher import registry
from batchify._batcher.registry import keep, register
from batchify._stats.counters import Stats
from batchify._stats.snapshot import REASONS
from batchify._stats.totals import COUNTS, Totals

pytestmark = pytest.mark.usefixtures("no_others")


class Batcher:
    """Has counters, and can run made-up batches."""

    def __init__(self, name="embed"):
        self.name = name
        # Not an attribute of its own: a cycle would let it live on when nobody holds it.
        self.arrived = arrived = []
        self.counters = Stats(lambda: len(arrived))

    def _parts(self):
        return [self.counters]

    def run(self, size=1, *, wait=1.0, run_time=2.0, failed=0, cancelled=0, reason="full"):
        self.arrived += ["item"] * size
        some = batch(size, wait, reason)
        self.counters.departed(some)
        self.counters.ended(some, run_time, failed=failed, cancelled=cancelled)
        return self


class Keeper:
    """Counts for others, those included that are gone."""

    name = "embed"

    def __init__(self, *kept):
        self.counters = [part for batcher in kept for part in batcher._parts()]
        for batcher in kept:
            keep(self, batcher)

    def _parts(self):
        return self.counters


def batch(size, wait, reason):
    """Return a batch that left after all its items had waited so many seconds."""
    return SimpleNamespace(
        waiters=["caller"] * size, arrived=[0.0] * size, size=size, max_size=4, reason=reason, departed=wait
    )


def live(name="embed"):
    """Return a batcher that has announced itself."""
    batcher = Batcher(name)
    register(batcher)
    return batcher


def only(totals):
    """Return the total of the one name that there is."""
    [total] = totals.read()
    return total


def numbers(total):
    """Return all numbers of a total that must never fall, by what they are."""
    return {
        **{name: total.counts[name] for name in COUNTS},
        **{reason: total.reasons[reason] for reason in REASONS},
        **total.sizes,
        "wait": total.wait_ns,
        "run": total.run_ns,
    }


def test_nothing_is_there_at_first():
    """Without a batcher there is no total."""
    assert [] == Totals().read()


def test_an_idle_batcher_has_a_total():
    """A batcher that was never called has a total, all zeros, so that the first call is seen as a rise."""
    idle = live()
    total = only(Totals())
    assert (BatchStats(idle.name), 0, {}) == (total.present, total.batches, total.counts)


def test_a_batcher_is_counted():
    """The total of a batcher that is alone is what its own snapshot says."""
    batcher = live()
    batcher.run(4, failed=1, cancelled=1).run(2, reason="idle")
    total = only(Totals())
    expected = {"answered_items": 4, "failed_items": 1, "cancelled_items": 1, "total_items": 6}
    assert (expected, {"full": 1, "idle": 1}, {2: 1, 4: 1}) == (total.counts, total.reasons, total.sizes)


def test_derived_numbers():
    """A total says how many batches and items there were, and how long they took, in nanoseconds."""
    batcher = live()
    batcher.run(3, wait=0.5, run_time=2.0).run(1, wait=1.5, run_time=0.25)
    total = only(Totals())
    expected = (2, 4, 4, 3_000_000_000, 2_250_000_000)
    assert expected == (total.batches, total.items, total.waits, total.wait_ns, total.run_ns)


def test_one_name_is_one_total():
    """Batchers of one name are added up, in what they did and in what they are at."""
    both = [live().run(1, wait=1.0), live().run(2, wait=3.0)]
    both[0].arrived += ["item"] * 5
    total = only(Totals())
    assert (3, 5, 3000.0) == (total.items, total.present.pending, total.present.wait_ms.p90)


def test_other_names_are_other_totals():
    """Batchers of different names stay apart."""
    several = [live("tokenize").run(1), live("embed").run(2)]
    totals = {total.present.name: total.items for total in Totals().read()}
    assert {"tokenize": 1, "embed": 2} == totals
    assert 2 == len(several)


def test_reading_twice_counts_once():
    """What was read is not added again, and what came since is."""
    batcher = live().run(3)
    totals = Totals()
    assert [3, 3] == [only(totals).items for _ in range(2)]
    batcher.run(2)
    assert 5 == only(totals).items


def test_what_was_read_stays_as_it_is():
    """Later batches do not change a total that somebody has read."""
    batcher = live().run(3)
    totals = Totals()
    before = only(totals)
    batcher.run(2)
    totals.read()
    assert (3, {3: 1}) == (before.items, before.sizes)


def test_readers_have_their_own_totals():
    """What one reader has seen is news to another."""
    batcher = live().run(3)
    assert [3, 3] == [only(Totals()).items for _ in range(2)]
    del batcher


def test_a_batcher_that_is_gone_has_been_counted():
    """The total stays when its batcher is gone, and there is nothing present any more."""
    batcher = live().run(3)
    totals = Totals()
    before = numbers(only(totals))
    del batcher
    after = only(totals)
    assert (before, BatchStats("embed")) == (numbers(after), after.present)


def test_a_batcher_after_one_that_is_gone():
    """A new batcher of the same name goes on where the last one has ended."""
    batcher = live().run(3)
    totals = Totals()
    totals.read()
    batcher = live().run(2)
    assert 5 == only(totals).items
    del batcher


def test_a_reset_does_not_show():
    """A batcher that starts over is added up from there."""
    batcher = live().run(3).run(1, wait=5.0)
    totals = Totals()
    totals.read()
    batcher.counters.reset()
    assert 4 == only(totals).items
    batcher.run(2)
    assert (6, {1: 1, 2: 1, 3: 1}, 10) == (only(totals).items, only(totals).sizes, only(totals).wait_ns // 10**9)


def test_who_is_kept_is_counted_once():
    """A batcher that is listed and kept counts once, at its keeper, and there it stays when it is gone."""
    batcher = Batcher()
    keeper = Keeper(batcher)
    register(batcher)
    batcher.run(3)
    totals = Totals()
    assert 3 == only(totals).items
    batcher.run(2)
    del batcher
    assert 5 == only(totals).items
    del keeper


def test_a_keeper_that_is_gone_has_been_counted():
    """The total stays when the keeper is gone, and nothing of it is left behind."""
    keeper = Keeper(Batcher().run(3))
    totals = Totals()
    totals.read()
    del keeper
    assert (3, {}) == (only(totals).items, registry._keepers)


def test_a_method_is_counted_exactly():
    """Every call of a method is in the total, also where the instance came and went between two readings."""

    class Model:
        @microbatch
        def double(self, items):
            return [2 * item for item in items]

    def use(calls):
        model = Model()
        model.double.map(range(calls))
        model.double.close()

    totals = Totals()
    seen = []
    for calls in (1, 2, 3):
        use(calls)
        use(calls)
        gc.collect()
        seen.append(only(totals).counts["answered_items"])
    assert [2, 6, 12] == seen


def test_instances_and_the_past_are_one_total():
    """Instances that live and those that are gone are added up under the name of their method."""

    class Model:
        @microbatch(name="double")
        def double(self, items):
            return [2 * item for item in items]

    models = [Model(), Model()]
    for model in models:
        model.double(1)
        model.double.close()
    totals = Totals()
    assert 2 == only(totals).counts["answered_items"]
    models.pop()
    del model
    gc.collect()
    assert 2 == only(totals).counts["answered_items"]


def test_one_thread_reads_at_a_time(monkeypatch):
    """While somebody reads, nobody else does: two that add the same rise would count it twice."""
    batcher = live()
    totals = Totals()
    locked = []
    monkeypatch.setattr(batcher, "_parts", lambda: locked.append(totals._lock.locked()) or [])
    totals.read()
    assert [True] == locked


def test_every_count_of_a_snapshot_is_a_number_of_it():
    """What is added up are fields of a snapshot."""
    assert set() == set(COUNTS) - {field.name for field in fields(BatchStats)}


SECONDS = st.floats(0, 1e6)
STEPS = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 2), st.integers(1, 5), SECONDS, SECONDS),
    st.tuples(st.sampled_from(["renew", "reset"]), st.integers(0, 2)),
)


@given(st.lists(STEPS, max_size=40))
def test_totals_never_fall(steps):
    """Whatever batchers do, also when they come, go and start over, every number of a total is as high as before.

    Read after every step, a total misses nothing.
    """
    known = [live() for _ in range(3)]
    totals = Totals()
    before, items = numbers(only(totals)), 0
    for step, which, *arguments in steps:
        if step == "run":
            size, wait, run_time = arguments
            known[which].run(size, wait=wait, run_time=run_time)
            items += size
        elif step == "reset":
            known[which].counters.reset()
        else:
            known[which] = live()
        after = numbers(only(totals))
        assert set() == {key for key, value in before.items() if after[key] < value}
        assert items == after["total_items"]
        before = after
