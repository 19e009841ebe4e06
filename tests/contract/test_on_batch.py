"""``on_batch``: a hook that the engine calls after each batch."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import FrozenInstanceError, fields

import pytest

from batchify import AsyncMicrobatcher, BatchReport, microbatch
from batchify._batcher.config import Config
from batchify._batcher.report import report
from batchify._core.batch import Batch
from tests.kit.engines import PATIENCE, doubled


@pytest.fixture
def hook(kit):
    """Return a function that decorates with a hook, and a function that waits for the next report."""
    reports = []
    reported = threading.Semaphore(0)

    def on_batch(report):
        reports.append(report)
        reported.release()

    def decorate(answer=doubled, **options):
        return kit.decorate(answer, on_batch=on_batch, **options)

    def next_report():
        assert reported.acquire(timeout=PATIENCE), "no batch was reported in time"
        return reports.pop(0)

    return decorate, next_report


def test_each_batch_is_reported(kit, hook):
    """The hook gets the name, size, weight, reason, times and thread of each finished batch."""
    decorate, next_report = hook
    double, _ = decorate(max_size=2, timeout=3600, weigh=lambda item: item, max_weight=100)
    assert [2, 4] == kit.results(kit.call_waiting(double, 1, 2))
    report = next_report()
    assert ("double", 2, 3.0, "full", None) == (report.name, report.size, report.weight, report.reason, report.error)
    assert len(report.wait_ms) == 2
    assert report.wait_ms[0] >= report.wait_ms[1] >= 0 <= report.run_ms
    assert report.thread == ("event loop" if kit.name == "asyncio" else "double-0")


def test_the_error_of_a_batch_is_reported(kit, hook):
    """The report of a failed batch contains the error that the batch function raised."""
    error = KeyError("failed")

    def fail(items):
        raise error

    decorate, next_report = hook
    double, _ = decorate(fail)
    kit.errors([kit.call(double, 1)])
    assert error is next_report().error


def test_the_error_of_a_single_item_is_not_reported(kit, hook):
    """An exception that the batch function returns as a result is not an error of the batch."""
    decorate, next_report = hook
    double, _ = decorate(lambda items: [ValueError() for _ in items])
    kit.errors([kit.call(double, 1)])
    assert None is next_report().error


@pytest.mark.parametrize("kind", [KeyError, SystemExit])
def test_an_error_in_the_hook_is_logged(kit, caplog, kind):
    """An error in the hook is logged, and affects neither the callers nor the next batch."""

    def fail(report):
        raise kind if kit.name != "asyncio" else KeyError

    double, _ = kit.decorate(on_batch=fail)
    assert [2, 4] == [kit.call(double, number).result(PATIENCE) for number in (1, 2)]
    double.close()
    logged = [record.getMessage() for record in caplog.records if record.name == "batchify"]
    assert ["on_batch of double() raised"] * 2 == logged


def test_an_error_of_a_logging_filter_is_contained(kit):
    """An error of a logging filter, for the error of a hook, does not end the engine: the next call is answered."""

    def fail(report):
        raise KeyError

    def refuse(record):
        raise ValueError

    double, _ = kit.decorate(on_batch=fail)
    logger = logging.getLogger("batchify")
    logger.addFilter(refuse)
    try:
        assert [2, 4] == [kit.call(double, number).result(PATIENCE) for number in (1, 2)]
        double.close()
    finally:
        logger.removeFilter(refuse)
    assert (2, 0) == (double.batch_stats.total_batches, double.batch_stats.running)


def test_a_hook_may_stop_the_event_loop():
    """A ``KeyboardInterrupt`` in the hook stops the event loop, after the batch has been counted."""

    async def double(items):
        return doubled(items)

    def interrupt(report):
        raise KeyboardInterrupt

    batcher = AsyncMicrobatcher(double, on_batch=interrupt)

    async def call():
        await batcher.submit(1)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(call())
    assert (1, 0, 0) == (batcher.stats.answered_items, batcher.stats.running, batcher.stats.pending)


def test_a_report_omits_callers_that_left_at_the_last_moment():
    """A report omits callers that left at the last moment, and lists waits in order of arrival."""
    batch = Batch(["a", "b"], [1, 2, 3], [5.0, 7.0, 6.0], "full", 9, 8.0)
    batch.shares, batch.weights = [0, 0, 1], [1.0, 2.0]
    reports = []
    options = {**dict.fromkeys(field.name for field in fields(Config)), "name": "double", "on_batch": reports.append}
    report(reports.append, Config(**options), batch, 1.0, None, on_loop=False)
    batch.drop([False, False, True])
    report(reports.append, Config(**options), batch, 1.0, None, on_loop=False)
    seen = [(each.size, each.weight, each.wait_ms) for each in reports]
    assert [(2, 3.0, (3000.0, 2000.0, 1000.0)), (1, 1.0, (3000.0, 1000.0))] == seen


def test_the_hook_may_flush_and_close(kit):
    """The hook may flush and close the function; closing does not wait for the reported batch."""
    closed = threading.Event()

    def close(report):
        double.flush()
        if kit.name == "asyncio":
            asyncio.run_coroutine_threadsafe(double.aclose(), kit.loop).add_done_callback(lambda _: closed.set())
        else:
            double.close()
            closed.set()

    double, _ = kit.decorate(on_batch=close)
    assert 2 == kit.call(double, 1).result(PATIENCE)
    assert closed.wait(PATIENCE)


def test_a_report_is_immutable():
    """The fields of a report cannot be changed."""
    report = BatchReport("double", 1, 0.0, "full", (1.0,), 1.0, None, "main")
    with pytest.raises(FrozenInstanceError):
        report.size = 2


def test_a_function_without_a_hook_logs_nothing(caplog):
    """A function without a hook runs its batches and logs nothing."""
    assert 2 == microbatch(doubled)(1)
    assert [] == caplog.records
