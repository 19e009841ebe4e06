"""``keyed``: the batch function returns a mapping from each item to its result, on both engines and the bridge."""

from __future__ import annotations

from collections import defaultdict

import pytest

from batchify import AsyncMicrobatcher, BatchResultError, SyncMicrobatcher, microbatch
from batchify.testing import inline, run
from tests.kit.engines import HOUR, PATIENCE, doubled

MISSING = ("double() returned no result for this item",)


def by_item(items):
    """Return the results in another order, with an entry that is no item, and none for negative items."""
    return {item: 2 * item for item in [1000, *reversed(items)] if item >= 0}


def test_each_caller_gets_the_entry_of_its_item(kit):
    """Each caller gets the entry of its item, whatever the order of the mapping, and extra entries are ignored."""
    fn, _ = kit.decorate(by_item, keyed=True, max_size=3, timeout=HOUR)
    assert [2, 4, 6] == kit.results(kit.call_waiting(fn, 1, 2, 3))


def test_a_missing_entry_is_an_error_of_its_own_callers(kit):
    """An item without an entry is a ``KeyError`` for each of its callers, whose message does not name the item."""
    fn, _ = kit.decorate(by_item, keyed=True, dedupe=True, max_size=2, timeout=HOUR)
    callers = kit.call_waiting(fn, -1, -1, 2)
    missing = kit.errors(callers[:2])
    assert [(KeyError, MISSING)] * 2 == [(type(error), error.args) for error in missing]
    assert missing[0] is not missing[1]
    assert [4] == kit.results(callers[2:])
    assert (1, 2) == (fn.batch_stats.answered_items, fn.batch_stats.failed_items)


def test_a_missing_entry_is_not_isolated(kit):
    """A missing entry is not a failure of its batch, so it starts no isolation."""
    fn, gate = kit.decorate(by_item, keyed=True, isolate_errors=True, max_size=2, timeout=HOUR)
    bad, good = kit.call_waiting(fn, -1, 2)
    assert (4, [KeyError]) == (good.result(PATIENCE), [type(error) for error in kit.errors([bad])])
    assert ([[-1, 2]], 0) == (gate.batches, fn.batch_stats.isolation_runs)


def test_a_failure_of_the_batch_is_isolated(kit):
    """With ``isolate_errors``, the parts of a batch that raises return mappings too."""

    def answer(items):
        if 2 in items:
            raise ValueError
        return by_item(items)

    fn, _ = kit.decorate(answer, keyed=True, isolate_errors=True, max_size=3, timeout=HOUR)
    assert [None, ValueError, None] == [e and type(e) for e in kit.errors(kit.call_waiting(fn, 1, 2, 3))]


@pytest.mark.parametrize(("returned", "shown"), [([2], "a list"), (None, "None"), ("ab", "a str")])
def test_anything_but_a_mapping_is_refused(kit, returned, shown):
    """A batch function that returns no mapping is a ``BatchResultError``, even if it is one result for each item."""
    fn, _ = kit.decorate(lambda items: returned, keyed=True)
    [error] = kit.errors([kit.call(fn, 1)])
    rule = "with keyed=True, it must return a mapping from each item to its result"
    assert (BatchResultError, f"double() returned {shown}; {rule}") == (type(error), str(error))


def test_the_batch_function_may_change_its_list(kit):
    """The batch function may empty its list without an effect on the results."""

    def consume(items):
        answers = by_item(items)
        items.clear()
        return answers

    fn, _ = kit.decorate(consume, keyed=True, max_size=2, timeout=HOUR)
    assert [2, 4] == kit.results(kit.call_waiting(fn, 1, 2))


def test_an_entry_is_looked_up_by_its_mapping(kit):
    """A mapping may make an entry when it is asked for it."""
    fn, _ = kit.decorate(lambda items: defaultdict(lambda: "none", {1: "one"}), keyed=True, max_size=2, timeout=HOUR)
    assert ["one", "none"] == kit.results(kit.call_waiting(fn, 1, 2))


def test_an_item_that_cannot_be_hashed_is_an_error_of_its_own_caller(kit):
    """Items must be hashable: another item has an error of its own."""
    fn, _ = kit.decorate(lambda items: {1: "one"}, keyed=True, max_size=2, timeout=HOUR)
    good, bad = kit.call_waiting(fn, 1, [2])
    assert ("one", [TypeError]) == (good.result(PATIENCE), [type(error) for error in kit.errors([bad])])


def test_an_exception_as_an_entry_is_raised(kit):
    """An entry that is an ``Exception`` is raised to its callers."""
    fn, _ = kit.decorate(lambda items: {item: ValueError(item) for item in items}, keyed=True)
    assert [ValueError] == [type(error) for error in kit.errors([kit.call(fn, 1)])]


def test_columns_and_options(kit):
    """With several columns, the items of the mapping are tuples, also for calls that pass options."""

    def scores(queries, docs, *, top_k=1):
        return {pair: (*pair, top_k) for pair in zip(queries, docs, strict=True)}

    async def ascores(queries, docs, *, top_k=1):
        return scores(queries, docs, top_k=top_k)

    fn = microbatch(ascores if kit.name == "asyncio" else scores, keyed=True)
    callers = [kit.call(fn, "a", "b"), kit.call(fn, "a", "c", top_k=5)]
    assert [("a", "b", 1), ("a", "c", 5)] == kit.results(callers)


def test_contexts(kit):
    """``keyed`` works with ``capture_context``."""
    fn, _ = kit.decorate(by_item, keyed=True, capture_context=True)
    assert [2] == kit.results([kit.call(fn, 1)])


def test_inline(kit):
    """Inside ``inline()``, a batch of one returns a mapping too."""
    with inline():
        fn, _ = kit.decorate(by_item, keyed=True)
        assert [2] == kit.results([kit.call(fn, 1)])


def test_engine_classes():
    """The engine classes have the option too."""

    async def submit():
        async with AsyncMicrobatcher(by_item, keyed=True) as batcher:
            return await batcher.submit_many([1, 2])

    assert [2, 4] == run(submit())
    with SyncMicrobatcher(by_item, keyed=True) as batcher:
        assert [2, 4] == batcher.submit_many([1, 2])


@pytest.mark.parametrize("value", [1, "yes", None])
def test_it_is_a_flag(value):
    """A value that is neither ``True`` nor ``False`` is refused."""
    with pytest.raises(TypeError, match=r"^keyed must be True or False, got "):
        microbatch(doubled, keyed=value)
