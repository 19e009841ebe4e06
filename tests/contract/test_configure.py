"""``configure()`` of a function in use, through both engines and the bridge."""

from __future__ import annotations

import asyncio
import threading

import pytest

from batchify import AsyncMicrobatcher, microbatch
from batchify._batcher.live import configure_lock
from tests.kit.engines import PATIENCE, adoubled, doubled, wait_until


def configure(kit, fn, **options):
    """Configure ``fn``, and wait until its event loop has applied the change."""
    fn.configure(**options)
    kit.run(lambda: None)


def test_a_new_size_applies_to_waiting_items(kit):
    """Waiting items leave in batches of the new size."""
    double, gate = kit.held()
    callers = kit.call_waiting(double, 1, 2, 3)
    configure(kit, double, max_size=2)
    gate.open()
    assert [2, 4, 6] == kit.results(callers)
    assert [[0], [1, 2], [3]] == gate.batches


def test_a_shorter_window_applies_to_waiting_items(kit):
    """Items that have waited longer than the new window leave at once."""
    double, _ = kit.decorate(timeout=3600)
    callers = kit.call_waiting(double, 1, 2)
    double.configure(timeout=0)
    assert [2, 4] == kit.results(callers)
    assert [4] == kit.results([kit.call(double, 2)])


def test_adaptive_timing_applies_to_waiting_items(kit):
    """After a change to ``timeout=None``, waiting items leave at once."""
    double, _ = kit.decorate(timeout=3600)
    callers = kit.call_waiting(double, 1, 2)
    double.configure(timeout=None)
    assert [2, 4] == kit.results(callers)
    assert {"idle"} == {reason for reason, batches in double.batch_stats.reasons.items() if batches}


def test_a_smaller_size_can_complete_a_batch(kit):
    """If the waiting items fill a batch of the new size, they leave before their window ends."""
    double, gate = kit.decorate(timeout=3600, group_by=lambda item: 0)
    callers = kit.call_waiting(double, 1, 2)
    double.configure(max_size=2)
    assert [2, 4] == kit.results(callers)
    assert [[1, 2]] == gate.batches


def test_more_slots_start_waiting_items(kit):
    """If the number of slots grows, waiting items run beside the current batch."""
    double, gate = kit.held(timeout=0)
    kit.call_waiting(double, 1)
    double.configure(concurrency=2)
    gate.await_batch()
    assert [[0], [1]] == gate.batches
    gate.open()


def test_fewer_slots_do_not_affect_running_batches(kit):
    """If the number of slots shrinks, running batches go on, and the next batch waits for a slot."""
    double, gate = kit.held(timeout=0, concurrency=2)
    callers = kit.call_waiting(double, 1)
    gate.await_batch()
    configure(kit, double, concurrency=1, max_size=1)
    callers += kit.call_waiting(double, 2, 3)
    gate.open()
    assert [2, 4, 6] == kit.results(callers)
    if kit.name != "asyncio":
        wait_until(lambda: len(double._self_route.find()._engine.workers.all) == 1)
    assert 8 == kit.call(double, 4).result(PATIENCE)


def test_a_function_can_be_configured_before_its_first_call(kit):
    """A function that was never called uses its new options."""
    double, gate = kit.decorate(timeout=3600)
    double.configure(max_size=1)
    assert [2, 4] == kit.results([*kit.call_waiting(double, 1), *kit.call_waiting(double, 2)])
    assert [[1], [2]] == gate.batches


def test_a_class_configures_all_its_instances(kit):
    """A change of a class applies to all instances, also later ones; a change of an instance to that one."""

    class Model:
        @microbatch(timeout=3600)
        def double(self, items):
            return doubled(items)

    old, other = Model(), Model()
    futures = [old.double.submit(1), other.double.submit(2)]
    Model.double.configure(timeout=0)
    kit.await_done(futures)
    assert 6 == Model().double(3)
    old.double.configure(timeout=3600)
    future = old.double.submit(4)
    assert 10 == other.double(5)
    assert not future.done()
    old.double.flush()
    assert 8 == future.result(PATIENCE)


async def test_a_def_function_on_a_loop_uses_the_new_concurrency():
    """A ``def`` function on a loop has as many threads as the new options allow."""
    batcher = AsyncMicrobatcher(doubled, 1, 0)
    assert 2 == await batcher.submit(1)
    batcher._change({"concurrency": 2})
    assert [2, 4] == await asyncio.gather(batcher.submit(1), batcher.submit(2))
    await batcher.stop()


def test_closed_loops_are_ignored(kit):
    """A change does not reach event loops that are closed or collected, and the others apply it."""
    batcher = AsyncMicrobatcher(adoubled)
    loop = asyncio.new_event_loop()
    assert 2 == loop.run_until_complete(batcher.submit(1))
    loop.close()
    batcher._change({"max_size": 1})
    assert 4 == asyncio.run(batcher.submit(2))


def test_a_change_while_an_engine_is_made_is_not_lost(kit, monkeypatch):
    """A change applies also if it happens while the first call creates the engine."""
    batcher = type(kit.decorate()[0]._self_route.find())
    make_engine = batcher._engine_kind

    threads = []

    def make_and_configure(*args):
        engine = make_engine(*args)
        threads.append(threading.Thread(target=double.configure, kwargs={"max_size": 1}))
        threads[0].start()
        return engine

    monkeypatch.setattr(batcher, "_engine_kind", staticmethod(make_and_configure))
    double, gate = kit.decorate(timeout=3600)
    first = kit.call_waiting(double, 1)
    threads[0].join(PATIENCE)
    assert [2, 4] == kit.results([*first, *kit.call_waiting(double, 2)])
    assert [[1], [2]] == gate.batches


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ValueError, {"max_size": 0}, "max_size must be at least 1, got 0"),
        (
            TypeError,
            {"timeout": "1"},
            "timeout must be a number of seconds, or None, got '1' of type str",
        ),
        (ValueError, {"max_size": 8, "concurrency": 0}, "concurrency must be at least 1, got 0"),
        (
            TypeError,
            {"name": "other"},
            (
                "configure() got an unexpected keyword argument 'name'; "
                "it changes max_size, timeout, concurrency, executor"
            ),
        ),
    ],
)
def test_invalid_changes_are_refused(kit, kind, options, message):
    """Invalid options are refused as at decoration, and no option changes."""
    double, gate = kit.decorate(max_size=2, timeout=3600)
    with pytest.raises(kind) as caught:
        double.configure(**options)
    assert message == str(caught.value)
    assert [2, 4] == kit.results(kit.call_waiting(double, 1, 2))
    assert [[1, 2]] == gate.batches


async def test_a_change_starts_no_batch_under_its_lock():
    """A batch that a change makes ready starts after the lock of option changes is released."""
    held = []

    @microbatch(max_size=4, timeout=3600)
    async def double(items):
        held.append(configure_lock._is_owned())
        return [item * 2 for item in items]

    futures = [double.submit(item) for item in (1, 2)]
    double.configure(max_size=2)
    assert [2, 4] == await asyncio.wait_for(asyncio.shield(asyncio.gather(*futures)), PATIENCE)
    assert [False] == held
