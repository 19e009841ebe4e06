"""``sizes``: the batch function only gets lists of certain sizes, on both engines and the bridge."""

from __future__ import annotations

import pytest

from batchify import AsyncMicrobatcher, BatchResultError, SyncMicrobatcher, current_batch, microbatch, simulate
from batchify.testing import inline, record, run
from tests.kit.engines import HOUR, doubled
from tests.kit.streams import KITS

SIZES = (1, 4, 8)


def call_as_batch(kit, items, answer=doubled, **options):
    """Call with ``items``, which share a batch; return the callers, the gate, and the function."""
    fn, gate = kit.decorate(answer, timeout=HOUR, sizes=SIZES, **options)
    callers = kit.call_waiting(fn, *items)
    kit.run(fn.flush)
    return callers, gate, fn


@pytest.mark.parametrize(
    ("items", "given"),
    [
        ([1], [1]),
        ([1, 2], [1, 2, 2, 2]),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 5, 5, 5]),
    ],
)
def test_a_batch_is_padded_with_its_last_item(kit, items, given):
    """A batch between two sizes is padded with its last item, and the results of padding are dropped and counted."""
    callers, gate, fn = call_as_batch(kit, items)
    assert doubled(items) == kit.results(callers)
    assert [given] == gate.batches
    stats = fn.batch_stats
    assert (len(items), len(items), len(given) - len(items)) == (
        stats.answered_items,
        stats.total_items,
        stats.padded_items,
    )
    assert ({len(items): 1}, len(items) / 8) == (stats.size_histogram, stats.fill_ratio)


def test_the_last_size_is_the_maximum(kit):
    """A batch that has as many items as the last size is full."""
    callers, gate, fn = call_as_batch(kit, range(8))
    assert doubled(range(8)) == kit.results(callers)
    assert ([[*range(8)]], 1) == (gate.batches, fn.batch_stats.reasons["full"])


def test_everything_else_counts_the_items_of_callers(kit):
    """``current_batch()``, ``on_batch`` and ``record()`` do not see the padding."""
    reports, sizes = [], []

    def answer(items):
        sizes.append(current_batch().size)
        return doubled(items)

    with record() as recorder:
        callers, _, fn = call_as_batch(kit, [1, 2], answer, on_batch=reports.append)
        kit.results(callers)
        fn.close()
    assert ([2], [2], [(1, 2)]) == (sizes, [each.size for each in reports], [each.items for each in recorder.batches])


def test_one_result_for_each_item_is_too_few(kit):
    """The batch function returns results for the padding too: another number is an error."""
    callers, _, fn = call_as_batch(kit, [1, 2], lambda items: doubled(items[:2]))
    expected = "double() was given 4 items and returned 2 results; it must return one for each item, in order"
    assert [(BatchResultError, expected)] * 2 == [(type(error), str(error)) for error in kit.errors(callers)]
    assert 2 == fn.batch_stats.padded_items


def test_parts_of_an_isolated_batch_are_padded(kit):
    """The parts that run again to isolate an error are padded too."""

    def answer(items):
        if 5 in items:
            raise ValueError
        return doubled(items)

    callers, gate, fn = call_as_batch(kit, [1, 2, 3, 4, 5, 6], answer, isolate_errors=True)
    assert [None] * 4 + [ValueError, None] == [e and type(e) for e in kit.errors(callers)]
    assert [[1, 2, 3, 4, 5, 6, 6, 6], [1, 2, 3, 3], [4, 5, 6, 6], [4], [5, 6, 6, 6], [5], [6]] == gate.batches
    assert 1 == fn.batch_stats.padded_items


def test_with_other_options(kit):
    """Padding works with equal items that are sent once, with mappings, with contexts, and in groups."""

    def answer(items):
        return {item: (2 * item, len(items), len(current_batch().contexts)) for item in items}

    options = {"dedupe": True, "keyed": True, "capture_context": True, "group_by": lambda item: 0}
    callers, gate, fn = call_as_batch(kit, [1, 2, 2, 3], answer, **options)
    assert [(2, 4, 3), (4, 4, 3), (4, 4, 3), (6, 4, 3)] == kit.results(callers)
    assert ([[1, 2, 3, 3]], 1, 1) == (gate.batches, fn.batch_stats.padded_items, fn.batch_stats.deduped_items)


def test_adaptive_timing_with_several_slots(kit):
    """With several slots, the time of a padded run counts for its padded size."""
    fn, gate = kit.decorate(sizes=SIZES, concurrency=2)
    assert [2] == kit.results([kit.call(fn, 1)])


def test_columns_and_options(kit):
    """All columns are padded, also for calls that pass options."""
    given = []

    def add(left, right, *, top_k=1):
        given.append((left, right))
        return [top_k * sum(pair) for pair in zip(left, right, strict=True)]

    async def aadd(left, right, *, top_k=1):
        return add(left, right, top_k=top_k)

    fn = microbatch(aadd if kit.name == "asyncio" else add, sizes=[2])
    assert [3, 15] == [kit.results([kit.call(fn, 1, 2, **options)])[0] for options in ({}, {"top_k": 5})]
    assert [([1, 1], [2, 2])] * 2 == given


def test_inline(kit):
    """Inside ``inline()``, a batch of one is padded too."""
    with inline():
        fn, gate = kit.decorate(sizes=(2, 4))
        assert [2] == kit.results([kit.call(fn, 1)])
    assert [[1, 1]] == gate.batches


@pytest.mark.parametrize("kind", KITS)
def test_a_generator_yields_padded_lists(kind):
    """A generator function yields a value for the padding too."""
    kit = kind()
    try:
        fn, source = kit.decorate(lambda items: [[*items], [*items[:-1]]], sizes=(3,))
        source.allow_all()
        reader = kit.call(fn, "a")
        error = reader.exception(5)
        assert (["a"], [["a", "a", "a"]]) == (reader.values, source.batches)
        expected = "generate() was given 3 items and yielded 2 results; it must yield one for each item, in order"
        assert (BatchResultError, expected) == (type(error), str(error))
    finally:
        kit.close()


def test_engine_classes():
    """The engine classes have the option too."""

    async def submit():
        async with AsyncMicrobatcher(doubled, 4, sizes=[2, 4]) as batcher:
            return await batcher.submit_many([1])

    assert [2] == run(submit())
    with SyncMicrobatcher(doubled, 4, sizes=[2, 4]) as batcher:
        assert ([2], 1) == (batcher.submit_many([1]), batcher.stats.padded_items)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TypeError, {"sizes": 8}, "sizes must be increasing ints, such as (1, 8, 32), or None, got 8 of type int"),
        (TypeError, {"sizes": "8"}, "sizes must be increasing ints, such as (1, 8, 32), or None, got '8' of type str"),
        (TypeError, {"sizes": [1.0]}, "each of sizes must be an int, got 1.0 of type float"),
        (ValueError, {"sizes": [0]}, "each of sizes must be at least 1, got 0"),
        (ValueError, {"sizes": []}, "sizes must be increasing ints, such as (1, 8, 32), got ()"),
        (ValueError, {"sizes": [4, 4]}, "sizes must be increasing ints, such as (1, 8, 32), got (4, 4)"),
        (ValueError, {"sizes": (1, 8), "max_size": 16}, "the last of sizes must be max_size, 16, got (1, 8)"),
        (
            TypeError,
            {"sizes": (1, 8), "weigh": len, "max_weight": 8},
            "sizes does not work with weigh: padding repeats an item, which would exceed max_weight",
        ),
    ],
)
def test_other_sizes_are_refused(kind, options, message):
    """Values that are no sizes, and options that contradict them, are refused at decoration, with the reason."""
    with pytest.raises(kind) as caught:
        microbatch(doubled, **options)
    assert (kind, message) == (caught.type, str(caught.value))


def test_another_maximum_is_refused_later():
    """``configure()`` refuses another ``max_size`` than the last size."""
    fn = microbatch(doubled, sizes=(1, 8), max_size=8)
    fn.configure(max_size=8)
    with pytest.raises(ValueError, match=r"^the last of sizes must be max_size, 4, got \(1, 8\)$"):
        fn.configure(max_size=4)


def test_simulation():
    """A simulated batch takes the run time of its padded size, and its padding is counted."""
    run_time = {1: 1.0, 4: 4.0}
    padded = simulate(run_time=run_time, trace=[0, 0, 0, 10], sizes=(1, 4))
    assert (2, 1, {1: 1, 3: 1}) == (padded.batches, padded.padded_items, padded.size_histogram)
    assert (4000, 1000) == (padded.latency_ms.p50, 1000 * (padded.duration_s - 10))
    assert 3000 == simulate(run_time=run_time, trace=[0, 0, 0, 10]).latency_ms.p50
    with pytest.raises(ValueError, match=r"^the last of sizes must be max_size, 8, got \(1, 4\)$"):
        simulate(run_time=run_time, trace=[0], sizes=(1, 4), max_size=8)
