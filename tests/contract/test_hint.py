"""The hint about a function that gains nothing from batching, on both engines and across the bridge."""

from __future__ import annotations

import logging
from itertools import count

import pytest

from batchify import microbatch
from batchify._stats import counters
from batchify.testing import inline
from tests.kit.engines import HOUR, Threads

BEGINNING = "double() gains nothing from batching so far, as each of its batches held one item: "


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Let the hint come after a few batches."""
    monkeypatch.setattr(counters, "MANY_LONE_ITEMS", 5)
    monkeypatch.setattr(counters, "MANY", 1)


@pytest.fixture
def hints(caplog):
    """Return a function that returns the messages that were logged."""
    caplog.set_level(logging.INFO, logger="batchify")
    return lambda: [record.getMessage() for record in caplog.records]


def call_each(kit, fn, calls):
    for item in range(calls):
        kit.results([kit.call(fn, item)])


def test_one_call_after_the_other(kit, hints):
    """A function whose callers call one after the other logs one hint, which says so."""
    fn, _ = kit.decorate()
    call_each(kit, fn, 4)
    assert [] == hints()
    call_each(kit, fn, 20)
    fn.reset_stats()
    call_each(kit, fn, 20)
    [hint] = hints()
    assert hint.startswith(f"{BEGINNING}each call came after the answer of the one before")


def test_statistics_that_are_read_often(kit, hints, monkeypatch):
    """The hint comes also if the statistics are read after each batch."""
    monkeypatch.setattr(counters, "MANY", 1000)
    fn, _ = kit.decorate()
    for _ in range(8):
        call_each(kit, fn, 1)
        assert fn.batch_stats.total_batches
    assert 1 == len(hints())


def test_calls_that_overlap(kit, hints):
    """If calls overlap without sharing a batch, the hint says that they differ."""
    numbers = count()
    fn, gate = kit.held(group_by=lambda item: next(numbers))
    callers = kit.call_waiting(fn, *range(10))
    gate.open()
    kit.results(callers)
    [hint] = hints()
    assert hint.startswith(f"{BEGINNING}calls overlap, but differ in their instance, event loop, options or group")


def test_one_shared_batch_is_enough(kit, hints):
    """A function that has run one batch of several items logs no hint."""
    fn, _ = kit.decorate(max_size=2, timeout=HOUR)
    kit.results(kit.call_waiting(fn, 1, 2))
    fn.configure(timeout=None)
    call_each(kit, fn, 20)
    assert [] == hints()


def test_batches_that_cannot_be_larger(kit, hints):
    """With ``max_size=1``, as inside ``inline()``, there is no hint."""
    fn, _ = kit.decorate(max_size=1)
    call_each(kit, fn, 20)
    with inline():
        fn, _ = kit.decorate()
        call_each(kit, fn, 20)
    assert [] == hints()


def test_a_method_logs_one_hint(hints):
    """The hint about a method counts the batches of all instances."""

    class Adder:
        @microbatch(name="double")
        def add(self, items):
            return items

    for _ in range(20):
        Adder().add(1)
    assert 1 == len(hints())


def test_an_error_of_a_logging_filter_is_dropped(hints):
    """An error of a logging filter does not reach a caller or end a worker."""
    kit = Threads()
    log = logging.getLogger("batchify")

    def refuse(record):
        raise ValueError

    log.addFilter(refuse)
    try:
        fn, _ = kit.decorate()
        call_each(kit, fn, 20)
    finally:
        log.removeFilter(refuse)
        kit.close()
    assert [] == hints()
