"""Columns, options, groups, weights and shared items of calls, through both engines and the bridge."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

import batchify
from batchify import microbatch
from tests.kit.engines import PATIENCE, adoubled, doubled, wait_until


class Search:
    """A gated batch function with two columns and some options, in the form that an engine needs."""

    def __init__(self, kit, **options):
        self.kit = kit
        self.fn, self.gate = kit.decorate(lambda rows: rows)
        gate = self.gate

        def search(queries, docs, limit=10, *, deep=False, **more):
            return gate([(query, doc, limit, deep, more) for query, doc in zip(queries, docs, strict=True)])

        async def asearch(queries, docs, limit=10, *, deep=False, **more):
            rows = [(query, doc, limit, deep, more) for query, doc in zip(queries, docs, strict=True)]
            return await asyncio.get_running_loop().run_in_executor(None, gate, rows)

        fn = asearch if kit.name == "asyncio" else search
        self.fn = microbatch(fn, name="search", **options)

    def hold(self):
        """Start a batch that runs until the gate opens, so that later calls wait in the queue."""
        self.gate.shut()
        caller = self.kit.call(self.fn, "h", "H")
        self.gate.await_batch()
        return caller

    def call(self, *calls):
        """Make calls one after the other, and queue each before the next."""
        callers = []
        for args, kwargs in calls:
            pending = self.fn.batch_stats.pending
            callers.append(self.kit.call(self.fn, *args, **kwargs))
            wait_until(lambda: self.fn.batch_stats.pending > pending)  # noqa: B023  # called before the next iteration
        return callers

    def batches(self):
        """Return the batches after the held one."""
        return [[row[0] for row in batch] for batch in self.gate.batches[1:]]


def test_columns_are_given_by_position_or_by_name(kit):
    """A call gives one element of each column, in any order, and gets its own result."""
    search = Search(kit)
    search.hold()
    callers = search.call((("a", "A"), {}), (("b",), {"docs": "B"}), ((), {"docs": "C", "queries": "c"}))
    search.gate.open()
    expected = [("a", "A", 10, False, {}), ("b", "B", 10, False, {}), ("c", "C", 10, False, {})]
    assert expected == kit.results(callers)
    assert [["a", "b", "c"]] == search.batches()


def test_calls_with_different_options_do_not_share_a_batch(kit):
    """Only calls with equal options share a batch, and the group with the oldest call leaves first."""
    search = Search(kit)
    search.hold()
    callers = search.call(
        (("a", "A"), {"limit": 5, "x": 1, "y": 2}),
        (("b", "B"), {}),
        (("c", "C", 5), {"y": 2, "x": 1}),
        (("d", "D"), {"limit": 10}),
        (("e", "E"), {"deep": True}),
    )
    search.gate.open()
    assert [row[2:] for row in kit.results(callers)] == [
        (5, False, {"x": 1, "y": 2}),
        (10, False, {}),
        (5, False, {"x": 1, "y": 2}),
        (10, False, {}),
        (10, True, {}),
    ]
    assert [["a", "c"], ["b", "d"], ["e"]] == search.batches()


def test_an_unhashable_option_is_refused(kit):
    """An unhashable option raises ``TypeError`` to its caller, and nothing is queued."""
    search = Search(kit)
    error = kit.call(search.fn, "a", "A", limit=[1]).exception(PATIENCE)
    expected = (
        "search() compares options to find the calls that may share a batch, so they must be hashable; limit is a list"
    )
    assert (TypeError, expected) == (type(error), str(error))
    assert 0 == search.fn.batch_stats.pending


def test_submit_takes_the_arguments_of_a_call(kit):
    """``submit`` takes columns and options as a call does."""
    search = Search(kit)
    future = kit.run(lambda: search.fn.submit("a", docs="A", deep=True))
    kit.await_done([future])
    assert ("a", "A", 10, True, {}) == future.result()


@pytest.mark.parametrize(("args", "options"), [((), {"limit": 3}), ((3,), {})])
def test_map_takes_a_tuple_for_each_item(kit, args, options):
    """``map`` takes one tuple for each call, and options for all of them, by name or by position."""
    search = Search(kit)
    pairs = [("a", "A"), ("b", "B")]

    def call(pairs):
        return search.fn.map(pairs, *args, **options)

    results = (
        call(pairs) if kit.name != "asyncio" else asyncio.run_coroutine_threadsafe(call(pairs), kit.loop).result(5)
    )
    assert [("a", "A", 3, False, {}), ("b", "B", 3, False, {})] == results


def test_waiting_items_are_shown_without_options(kit):
    """``waiting()`` of a batcher shows the elements of the columns, without the options of their calls."""
    search = Search(kit, timeout=3600)
    search.call((("a", "A"), {"limit": 5}))
    (batcher,) = [each for each in batchify.batchers() if each.name == "search" and each.waiting()]
    assert [("a", "A")] == [item.data for item in batcher.waiting()]
    search.fn.flush()


def test_a_method_has_several_columns_and_options(kit):
    """A method takes columns and options as a function does, also when it is called on its class."""
    gate = kit.decorate(lambda rows: rows)[1]

    class Model:
        @microbatch(name="search")
        def search(self, queries, docs, *, limit=10):
            return gate([(self, query, doc, limit) for query, doc in zip(queries, docs, strict=True)])

    if kit.name == "asyncio":

        class Model:
            @microbatch(name="search")
            async def search(self, queries, docs, *, limit=10):
                return [(self, query, doc, limit) for query, doc in zip(queries, docs, strict=True)]

    model = Model()
    assert (model, "a", "A", 3) == kit.call(model.search, "a", docs="A", limit=3).result(PATIENCE)
    if kit.name != "acall":
        assert (model, "b", "B", 10) == kit.call(Model.search, model, "b", "B").result(PATIENCE)
    assert 1 + (kit.name != "acall") == model.search.batch_stats.total_items


def test_groups_do_not_mix(kit):
    """Only items of one group share a batch, and the group with the oldest item leaves first."""
    double, gate = kit.held(group_by=lambda item: item % 2)
    callers = kit.call_waiting(double, 1, 2, 3, 4)
    gate.open()
    assert [2, 4, 6, 8] == kit.results(callers)
    assert [[0], [1, 3], [2, 4]] == gate.batches


def test_weights_fill_a_batch(kit):
    """The total weight of a batch never exceeds ``max_weight``, and no item overtakes another."""
    double, gate = kit.held(weigh=lambda item: item, max_weight=10)
    callers = kit.call_waiting(double, 6, 4, 5, 6, 1)
    gate.open()
    assert [12, 8, 10, 12, 2] == kit.results(callers)
    assert [[0], [6, 4], [5], [6, 1]] == gate.batches
    assert 2 == double.batch_stats.reasons["weight"]


def test_an_item_above_the_maximum_weight_is_refused(kit):
    """An item too heavy for any batch raises ``ValueError`` to its caller, and other calls are answered."""
    double, gate = kit.held(weigh=lambda item: item, max_weight=10)
    error = kit.call(double, 11).exception(PATIENCE)
    expected = "an item of double() weighs 11, more than max_weight, 10; split it, or raise max_weight"
    assert (ValueError, expected) == (type(error), str(error))
    gate.open()
    assert 4 == kit.call(double, 2).result(PATIENCE)


def test_columns_are_weighed_and_grouped_together(kit):
    """With several columns, ``weigh`` and ``group_by`` get one argument for each."""
    search = Search(
        kit, weigh=lambda query, doc: len(query + doc), max_weight=4, group_by=lambda query, doc: doc.isupper()
    )
    search.hold()
    kit.call(search.fn, "a", "A"), kit.call(search.fn, "ab", "A")
    wait_until(lambda: search.fn.batch_stats.pending == 2)
    callers = search.call((("c", "d"), {}), (("e", "f"), {}))
    search.gate.open()
    kit.results(callers)
    search.fn.close()
    assert {("a",), ("ab",), ("c", "e")} == {tuple(batch) for batch in search.batches()}


def test_equal_items_are_sent_once(kit):
    """With ``dedupe``, a batch contains equal items once, and every caller gets the result."""
    double, gate = kit.held(dedupe=True)
    callers = kit.call_waiting(double, 1, 2, 1, 1.0)
    gate.open()
    assert [2, 4, 2, 2] == kit.results(callers)
    assert [[0], [1, 2]] == gate.batches
    stats = double.batch_stats
    assert (5, 3, 2) == (stats.answered_items, stats.total_items, stats.deduped_items)


def test_unhashable_items_are_not_deduplicated(kit):
    """``dedupe`` does not merge items that are not hashable."""
    double, gate = kit.held(dedupe=True)
    callers = kit.call_waiting(double, [1], [1])
    gate.open()
    assert [[1, 1], [1, 1]] == kit.results(callers)
    assert [[0], [[1], [1]]] == gate.batches


def test_an_error_reaches_every_caller_of_a_shared_item(kit):
    """When a batch fails, each caller gets its own exception object, also if callers share an item."""

    def fail(items):
        raise KeyError

    double, _ = kit.decorate(fail, timeout=3600, dedupe=True, max_size=9)
    callers = kit.call_waiting(double, 1, 1)
    double.flush()
    one, other = kit.errors(callers)
    assert (KeyError, KeyError) == (type(one), type(other))
    assert one is not other


def test_cancelling_one_caller_does_not_affect_the_others_of_a_shared_item(kit):
    """A caller that is cancelled while it waits does not affect other callers with an equal item."""
    double, gate = kit.held(dedupe=True)
    futures = kit.run(lambda: [double.submit(1), double.submit(1), double.submit(2)])
    kit.run(futures[0].cancel)
    gate.open()
    kit.await_done(futures)
    assert [2, 4] == [future.result() for future in futures[1:]]
    assert [[0], [1, 2]] == gate.batches
    assert 1 == double.batch_stats.cancelled_items


@pytest.mark.parametrize("option", ["weigh", "group_by"])
def test_an_error_of_an_option_reaches_one_caller(kit, option):
    """An exception from ``weigh`` or ``group_by`` reaches the caller of that item, and other calls are answered."""

    def divide(item):
        return 10 // item

    options = {option: divide, **({"max_weight": 10} if option == "weigh" else {})}
    double, _ = kit.decorate(**options)
    assert ZeroDivisionError is type(kit.call(double, 0).exception(PATIENCE))
    assert 4 == kit.call(double, 2).result(PATIENCE)
    assert (0, 1) == (double.batch_stats.pending, double.batch_stats.answered_items)


def test_an_exception_as_a_shared_result_is_copied_for_each_caller(kit):
    """An exception as the result of a shared item reaches each caller as its own copy, if it can be copied."""

    class SingleError(Exception):
        def __reduce__(self):
            raise TypeError

        def __new__(cls, *args):
            if args and cls.made:
                raise TypeError
            cls.made = True
            return super().__new__(cls, *args)

        made = False

    kinds = {1: ValueError("one"), 2: SingleError("two")}
    double, _ = kit.decorate(lambda items: [kinds.get(item, item) for item in items], timeout=3600, dedupe=True)
    callers = kit.call_waiting(double, 1, 1, 2, 2)
    double.flush()
    one, other, single, same = kit.errors(callers)
    assert one is not other
    assert (ValueError, ("one",)) == (type(other), other.args)
    assert single is same


def test_weigh_may_flush_and_configure_its_function(kit):
    """``weigh`` may flush or configure its own function, and the call whose item it weighs is answered."""

    def weigh(item):
        double.flush()
        double.configure(max_size=3)
        return 1

    double, _ = kit.decorate(weigh=weigh, max_weight=10)
    assert [2, 4] == [kit.call(double, number).result(PATIENCE) for number in (1, 2)]
    assert 0 == double.batch_stats.pending


def test_a_call_that_fails_does_not_keep_its_loop_alive():
    """A call that fails before it is queued does not keep its event loop alive."""
    double = microbatch(adoubled, group_by=lambda item: 1 // item)

    async def fail():
        with pytest.raises(ZeroDivisionError):
            await double(0)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(fail())
    gc.collect()
    assert None is loop()


def test_all_options_work_together(kit):
    """Groups, weights, deduplication and captured contexts work together."""
    seen = []

    def record_contexts(items):
        seen.append(len(batchify.current_batch().contexts))
        return doubled(items)

    options = {"group_by": lambda item: item % 2, "weigh": lambda item: item, "max_weight": 10, "dedupe": True}
    double, gate = kit.decorate(record_contexts, timeout=3600, capture_context=True, max_size=3, **options)
    callers = kit.call_waiting(double, 1, 2, 1, 3, 8)
    double.flush()
    assert [2, 4, 2, 6, 16] == kit.results(callers)
    assert sorted(gate.batches) == [[1, 3], [2, 8]]
    assert sorted(seen) == [2, 2]
