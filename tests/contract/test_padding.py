"""The options ``length`` and ``max_padded``, through both engines and the bridge."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import pytest

from batchify import AsyncMicrobatcher, SyncMicrobatcher, microbatch
from batchify._core.run_cost import RunCost
from batchify._threads import engine as threads
from batchify.testing import inline, virtual_time
from tests.bench import padding
from tests.kit.columns import in_time
from tests.kit.engines import PATIENCE, counted_calls, doubled, wait_until


@pytest.fixture
def learnt(monkeypatch):
    """Return the list of the runs that are learnt: size, longest and total length."""
    runs = []
    monkeypatch.setattr(RunCost, "learn", lambda _, *run: runs.append(run[:3]))
    return runs


def test_the_nearest_lengths_share_a_batch(kit):
    """The oldest item leaves with the nearest ones, in order of arrival, and each caller gets its own answer."""
    double, gate = kit.held(max_size=3, length=abs)
    callers = kit.call_waiting(double, 10, 200, 11, 210, -9, 190)
    gate.open()
    assert [20, 400, 22, 420, -18, 380] == kit.results(callers)
    assert [[0], [10, 11, -9], [200, 210, 190]] == gate.batches


def test_padding_is_limited(kit):
    """The number of items times the longest length is at most ``max_padded``."""
    double, gate = kit.held(length=abs, max_padded=40)
    callers = kit.call_waiting(double, 20, 20, 20, 10)
    gate.open()
    kit.results(callers)
    assert [[0], [20, 20], [20, 10]] == gate.batches


def test_groups_priorities_and_equal_items_work_with_lengths(kit):
    """Items of one group and of near lengths share a batch, equal ones as one item, in the order of priorities."""
    double, gate = kit.held(length=abs, group_by=lambda item: item > 0, dedupe=True, max_size=2)
    callers = kit.call_waiting(double, -100, 100, 10, 100)
    callers += kit.call_waiting(double.options(priority=1), 102)
    gate.open()
    assert [-200, 200, 20, 200, 204] == kit.results(callers)
    assert [[0], [100, 102], [-100], [10]] == gate.batches


def test_a_bad_length_is_the_error_of_its_own_caller(kit):
    """A length that is no finite number of at least 0, or more than ``max_padded``, fails only its own call."""
    lengths = {1: "1", 2: -1, 3: float("nan"), 4: 10**400, 5: 6}
    double, gate = kit.held(length=lambda item: lengths.get(item, 0), max_padded=5)
    other = kit.call_waiting(double, 9)
    errors = [kit.call(double, item).exception(PATIENCE) for item in lengths]
    gate.open()
    assert [18] == kit.results(other)
    assert [TypeError] + 4 * [ValueError] == [type(error) for error in errors]
    assert "length of double() must return a number, got a str" == str(errors[0])
    assert "length of double() must return a finite number of at least 0, got -1" == str(errors[1])
    assert "an item of double() has length 6, more than max_padded, 5; split it, or raise max_padded" == str(errors[4])


def test_padding_up_to_a_size_limits_an_item(kit):
    """With ``sizes``, an item whose smallest batch exceeds ``max_padded`` fails its own call."""
    double, _ = kit.decorate(length=lambda item: item, max_padded=20, sizes=(4, 8))
    assert 10 == kit.call(double, 5).result(PATIENCE)
    message = "an item of double() has length 6, more than max_padded / 4, 5; split it, or raise max_padded"
    assert message == str(kit.call(double, 6).exception(PATIENCE))


def test_an_error_of_length_reaches_its_own_caller(kit):
    """``length`` is user code, and its error is that of the call."""
    double, _ = kit.decorate(length=len)
    assert TypeError is type(kit.call(double, 1).exception(PATIENCE))
    assert 0 == double.batch_stats.total_batches


def test_with_several_columns_length_gets_all_elements(kit):
    """``length`` gets one argument for each column."""

    def score(queries, docs):
        return [len(queries)] * len(docs)

    async def ascore(queries, docs):
        return score(queries, docs)

    fn = microbatch(ascore if kit.name == "asyncio" else score, length=lambda query, doc: query + doc)
    assert 1 == kit.call(fn, 1, 2).result(PATIENCE)


# The learnt cost.


def test_runs_are_learnt_with_their_items(kit, learnt):
    """A batch that returned is learnt: its size, and the longest and the total length, in order of departure."""
    double, gate = kit.held(length=abs, max_padded=1000)
    callers = kit.call_waiting(double, 10, 11)
    gate.open()
    kit.results(callers)
    wait_until(lambda: len(learnt) == 2)
    assert [(1, 0.0, 0.0), (2, 11.0, 21.0)] == learnt


def test_failed_runs_and_reruns_are_not_learnt(kit, learnt):
    """A batch that raised is not learnt, and neither are its halves."""

    def fail(items):
        if 2 in items:
            raise ValueError
        return doubled(items)

    double, gate = kit.decorate(fail, length=abs, isolate_errors=True, max_size=3)
    gate.shut()
    callers = kit.call_waiting(double, 1)
    gate.await_batch()
    callers += kit.call_waiting(double, 2, 2, 2)
    gate.open()
    kit.await_done(callers)
    in_time(double.drain)
    assert [(1, 1.0, 1.0)] == learnt


def test_the_first_run_of_a_lifespan_is_not_learnt(kit, learnt):
    """A first run may compile or load something."""

    @contextmanager
    def lifespan():
        yield

    @asynccontextmanager
    async def alifespan():
        yield

    double, _ = kit.decorate(length=abs, lifespan=alifespan if kit.name == "asyncio" else lifespan)
    for item in (1, 2):
        kit.call(double, item).result(PATIENCE)
    wait_until(lambda: learnt)
    assert [(1, 2.0, 2.0)] == learnt


def test_all_instances_share_what_is_learnt():
    """The cost of a run belongs to the decorated function, and another executor starts afresh."""

    class Model:
        @microbatch(length=abs)
        def double(self, items):
            return doubled(items)

    models, double = (Model(), Model()), vars(Model)["double"]
    costs = {costs_of(model.double) for model in models}
    assert costs == {costs_of(double)}
    with ThreadPoolExecutor(1) as pool:
        Model.double.configure(max_size=3)
        assert costs == {costs_of(double)}
        Model.double.configure(executor=pool)
        assert costs_of(double) not in costs
        assert costs_of(models[0].double) == costs_of(double)
        in_time(Model.double.close)


def costs_of(method):
    """Return what the batcher of a function or a method has learnt."""
    return method._self_route.find()._config.run_cost


# Refusals.


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_padded": 10}, "max_padded needs length"),
        ({"length": len, "weigh": len, "max_weight": 9}, "length does not work with weigh"),
        ({"length": 3}, "length must be a function"),
    ],
)
def test_combinations_without_a_meaning_are_refused(options, error):
    """A combination that cannot work is a ``TypeError`` at decoration."""
    with pytest.raises(TypeError, match=error):
        microbatch(doubled, **options)


def test_lengths_are_refused_for_generator_functions():
    """The run time of a generator depends on the length of its answers."""

    def stream(items):
        yield items

    with pytest.raises(TypeError, match=r"length does not work for .*stream"):
        microbatch(stream, length=len)


@pytest.mark.parametrize("value", [0, -1, float("inf")])
def test_max_padded_is_above_0(value):
    """``max_padded`` is a finite number above 0."""
    with pytest.raises(ValueError, match="max_padded must be a finite number above 0"):
        microbatch(doubled, length=len, max_padded=value)


# Other forms of a batcher.


def test_the_engine_classes_take_lengths():
    """Both engine classes have the options."""
    with SyncMicrobatcher(doubled, length=abs, max_padded=10) as batcher:
        assert 6 == batcher.submit(3)

    async def main():
        async with AsyncMicrobatcher(doubled, length=abs, max_padded=10) as batcher:
            return await batcher.submit(3)

    assert 6 == asyncio.run(main())


def test_inline_calls_take_lengths(kit):
    """Under ``inline()``, a call is still refused if its item is too long."""
    double, _ = kit.decorate(length=abs, max_padded=5)
    with inline():
        assert 10 == kit.call(double, 5).result(PATIENCE)
        assert ValueError is type(kit.call(double, 6).exception(PATIENCE))


def test_reports_have_the_total_length(kit):
    """The weight of a report is the sum of the lengths."""
    reports = []
    double, gate = kit.held(length=abs, on_batch=reports.append)
    callers = kit.call_waiting(double, 10, 11)
    gate.open()
    kit.results(callers)
    wait_until(lambda: len(reports) == 2)
    assert [0, 21] == [report.weight for report in reports]


# Callers that call again at once.


@pytest.mark.parametrize("timeout", [None, 0])
def test_tasks_that_call_again_at_once_stay_together(timeout):
    """The answered tasks call again before the next batch is taken, so 16 callers do not become two halves."""
    sizes = []

    async def main():
        @microbatch(length=abs, timeout=timeout)
        async def double(items):
            sizes.append(len(items))
            await asyncio.sleep(1)
            return doubled(items)

        async def caller(number):
            await asyncio.sleep(number % 2 / 2)
            for _ in range(10):
                await double(50)

        await asyncio.gather(*map(caller, range(16)))

    virtual_time.run(main())
    assert [8, *[16] * 9, 8] == sizes


def test_threads_that_call_again_at_once_stay_together(monkeypatch):
    """A worker lets the threads that it answered call again before it takes the next batch, also if none waits."""
    sizes, yields = [], []

    @microbatch(length=abs, timeout=0)
    def double(items):
        sizes.append(len(items))
        return doubled(items)

    def caller():
        for _ in range(3):
            double(50)

    def let_others_run(_):
        yields.append(len(sizes))
        calls = min(4 + sum(sizes), 12)
        wait_until(lambda: calls == counted_calls(double.batch_stats))

    monkeypatch.setattr(threads, "sleep", let_others_run)
    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(PATIENCE)
    assert [4, 4] == sizes[1:3]
    assert {*range(1, len(sizes) + 1)} == {*yields}


# The gain.


@pytest.mark.parametrize(("callers", "items", "share"), [(16, 1000, 0.75), (64, 1500, 0.85), (256, 3000, 0.92)])
def test_callers_nearly_reach_the_rate_of_a_sorted_list(callers, items, share):
    """With sentences of real text, single calls reach most of the rate of the list sorted beforehand."""
    rates = padding.rates({"length": {"length": float}}, callers, items, seed=1)
    assert rates["length"] > share * rates[padding.SORTED]
