"""Spans for OpenTelemetry, as its SDK exports them: one for each batch, with links to its callers."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

import batchify
from batchify import microbatch
from batchify.opentelemetry import traced
from batchify.opentelemetry.tracing import ERROR, NAME, REASON, SIZE
from tests.kit.engines import doubled


class Traces:
    """A provider that keeps its ended spans."""

    def __init__(self, sampler=None):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.span = self.provider.get_tracer("test").start_as_current_span

    def ended(self, name):
        """Return the spans of a name, in the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def traces():
    traces = Traces()
    yield traces
    traces.provider.shutdown()


def callers(span):
    """Return the ids of the spans to which a span links."""
    return [link.context.span_id for link in span.links]


def ids(spans):
    return [span.get_span_context().span_id for span in spans]


class InThreads:
    """Calls a ``def`` batch function from threads."""

    def make(self, body):
        def double(items):
            return body(items)

        return double

    def together(self, fn, items, enter):
        """Call ``fn`` for all items at once, each inside ``enter(item)``."""

        def call(item):
            with enter(item):
                return fn(item)

        with ThreadPoolExecutor(len(items)) as pool:
            return list(pool.map(call, items))


class OnLoop:
    """Calls an ``async def`` batch function from tasks."""

    def make(self, body):
        async def double(items):
            await asyncio.sleep(0)
            return body(items)

        return double

    def together(self, fn, items, enter):
        async def call(item):
            with enter(item):
                return await fn(item)

        async def main():
            return await asyncio.gather(*map(call, items))

        return asyncio.run(main())


class Bridged(InThreads):
    """Calls a ``def`` batch function from tasks."""

    def together(self, fn, items, enter):
        return OnLoop().together(fn.acall, items, enter)


@pytest.fixture(params=[InThreads, OnLoop, Bridged])
def engine(request):
    return request.param()


def full(size):
    """Return options with which calls of so many threads or tasks make one batch, whenever they arrive."""
    return {"max_size": size, "timeout": 60, "name": "double", "capture_context": True}


# Spans


def test_a_batch_has_a_span_with_links_to_its_callers(traces, engine):
    """The span has no parent, the name, size and reason of the batch, and links to the spans of its callers."""
    double = microbatch(traced(engine.make(doubled), provider=traces.provider), **full(3))
    assert [2, 4, 6] == engine.together(double, [1, 2, 3], lambda item: traces.span("request"))
    [batch] = traces.ended("batch double")
    requests = traces.ended("request")
    assert batch.parent is None
    assert SpanKind.INTERNAL is batch.kind
    assert {NAME: "double", SIZE: 3, REASON: "full"} == batch.attributes
    assert sorted(ids(requests)) == sorted(callers(batch))
    assert 4 == len({span.get_span_context().trace_id for span in [batch, *requests]})
    assert StatusCode.UNSET is batch.status.status_code
    assert () == batch.events
    assert ("batchify", batchify.__version__) == (batch.instrumentation_scope.name, batch.instrumentation_scope.version)


def test_spans_of_the_batch_function_are_children(traces, engine):
    """Spans that the batch function makes are children of the span of its batch."""

    def body(items):
        with traces.span("inside"):
            return doubled(items)

    double = microbatch(traced(engine.make(body), provider=traces.provider), **full(2))
    engine.together(double, [1, 2], lambda item: traces.span("request"))
    [inside], [batch] = traces.ended("inside"), traces.ended("batch double")
    assert batch.get_span_context().span_id == inside.parent.span_id
    assert batch.start_time <= inside.start_time <= inside.end_time <= batch.end_time


def test_every_batch_has_a_span_of_its_own(traces, engine):
    """Consecutive batches have consecutive spans, each with links to its own callers."""
    double = microbatch(traced(engine.make(doubled), provider=traces.provider), **full(1))
    for item in (1, 2):
        engine.together(double, [item], lambda item: traces.span("request"))
    batches = traces.ended("batch double")
    assert [[request] for request in ids(traces.ended("request"))] == [callers(batch) for batch in batches]
    assert [None, None] == [batch.parent for batch in batches]


def test_calls_of_one_span_are_one_link(traces, engine):
    """A request with many items has one link, and links are in the order of the items."""

    def enter(item):
        return trace.use_span(first if item < 2 else second)

    with traces.span("first") as first, traces.span("second") as second:
        pass
    double = microbatch(traced(OnLoop().make(doubled), provider=traces.provider), **full(4))
    OnLoop().together(double, range(4), enter)
    assert ids([first, second]) == callers(traces.ended("batch double")[0])


def elsewhere(span_id, flags):
    """Return a span of another process, as it arrives with a request."""
    return NonRecordingSpan(SpanContext(1, span_id, is_remote=True, trace_flags=TraceFlags(flags)))


def test_callers_with_a_link(traces, engine):
    """A caller has a link if its span is sampled, also if the span has ended or belongs to another process."""
    with traces.span("ended") as ended:
        pass
    spans = [INVALID_SPAN, elsewhere(1, TraceFlags.DEFAULT), elsewhere(2, TraceFlags.SAMPLED), ended]
    double = microbatch(traced(engine.make(doubled), provider=traces.provider), **full(4))
    engine.together(double, range(4), lambda item: trace.use_span(spans[item]))
    [batch] = traces.ended("batch double")
    assert sorted([2, *ids([ended])]) == sorted(callers(batch))
    assert 4 == batch.attributes[SIZE]


def test_deduplicated_calls(traces):
    """With ``dedupe``, the first caller of each item has a link, and the size is the number of distinct items."""
    double = microbatch(traced(OnLoop().make(doubled), provider=traces.provider), dedupe=True, **full(32))
    double.configure(timeout=0)
    OnLoop().together(double, [1, 1, 2], lambda item: traces.span("request"))
    [batch] = traces.ended("batch double")
    assert 2 == batch.attributes[SIZE] == len(batch.links)
    assert set(callers(batch)) <= set(ids(traces.ended("request")))


def test_a_sampler_sees_the_links(engine):
    """A sampler can decide by the callers whether a batch is recorded."""

    class Linked(Sampler):
        def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None):
            return SamplingResult(Decision.RECORD_AND_SAMPLE if links or name == "request" else Decision.DROP)

        def get_description(self):
            return "spans with links"

    traces = Traces(Linked())
    double = microbatch(traced(engine.make(doubled), provider=traces.provider), **full(1))
    engine.together(double, [1], lambda item: trace.use_span(INVALID_SPAN))
    assert [] == traces.ended("batch double")
    engine.together(double, [1], lambda item: traces.span("request"))
    assert 1 == len(traces.ended("batch double"))
    traces.provider.shutdown()


# Without callers


def test_without_captured_contexts_there_are_no_links(traces, engine, caplog):
    """Without ``capture_context``, spans have no links, which is logged once for each function."""
    double = microbatch(traced(engine.make(doubled), provider=traces.provider), name="double", max_size=1)
    for item in (1, 2):
        engine.together(double, [item], lambda item: traces.span("request"))
    assert [[], []] == [callers(batch) for batch in traces.ended("batch double")]
    message = "the spans of double() link to no callers: microbatch needs capture_context=True for that"
    assert [("batchify", logging.WARNING, message)] == caplog.record_tuples


def test_with_captured_contexts_nothing_is_logged(traces, engine, caplog):
    """Callers without spans are no reason for a warning if their contexts are captured."""
    double = microbatch(traced(engine.make(doubled), provider=traces.provider), **full(1))
    engine.together(double, [1], lambda item: trace.use_span(INVALID_SPAN))
    assert 1 == len(traces.ended("batch double"))
    assert [] == caplog.record_tuples


@pytest.mark.parametrize("decorate", [traced, traced(), traced(provider=None)])
def test_without_a_provider(engine, decorate):
    """Without a configured provider, traced functions work."""
    double = microbatch(decorate(engine.make(doubled)), **full(2))
    assert [2, 4] == engine.together(double, [1, 2], lambda item: trace.use_span(INVALID_SPAN))


def test_the_global_provider_may_come_later(traces, monkeypatch):
    """A function that is decorated before the program sets up tracing has spans from then on."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    double = microbatch(traced(InThreads().make(doubled)), **full(1))
    double(1)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", traces.provider)
    double(2)
    assert 1 == len(traces.ended("batch double"))


def test_called_directly(traces):
    """Outside of a batch, there is no new span, and the span of the caller stays current."""
    seen = []

    @traced(provider=traces.provider)
    def double(items):
        seen.append(trace.get_current_span())
        return doubled(items)

    with traces.span("request") as request:
        assert [2] == double([1])
        with pytest.raises(TypeError):
            double([{}])
    assert [request, request] == seen
    assert [] == traces.ended("batch double")
    [request] = traces.ended("request")
    assert (StatusCode.UNSET, ()) == (request.status.status_code, request.events)


def test_a_batch_has_one_span(traces, engine):
    """Another traced function that a batch calls directly adds no span."""
    seen = []

    @traced(provider=traces.provider)
    def other(items):
        seen.append(trace.get_current_span().name)
        return items

    def body(items):
        return doubled(other(items))

    double = microbatch(traced(engine.make(body), provider=traces.provider), **full(1))
    for item in (1, 2):
        engine.together(double, [item], lambda item: traces.span("request"))
    assert ["batch double", "batch double"] == seen
    assert 2 == len(traces.ended("batch double"))


def test_repeated_runs_inside_a_batch(traces, engine):
    """A traced function that a batch runs repeatedly has a span each time, also after a failure, and none nested."""
    outcomes = [KeyError, None, None]

    @traced(provider=traces.provider)
    def other(items):
        if outcome := outcomes.pop(0):
            raise outcome

    def body(items):
        with suppress(KeyError):
            other(items)
        other(items)
        other(items)
        return doubled(items)

    double = microbatch(engine.make(body), **full(1))
    engine.together(double, [1], lambda item: traces.span("request"))
    assert [None] * 3 == [span.parent for span in traces.ended("batch double")]


def test_a_batch_within_a_batch(traces):
    """A batch that runs for a call from another batch has a span of its own, with a link to the span of that batch."""

    @microbatch(name="inner", capture_context=True)
    @traced(provider=traces.provider)
    def inner(items):
        return doubled(items)

    @microbatch(name="outer", capture_context=True)
    @traced(provider=traces.provider)
    def outer(items):
        return inner.map(items)

    assert 2 == outer(1)
    [inside], [outside] = traces.ended("batch inner"), traces.ended("batch outer")
    assert inside.parent is None
    assert ids([outside]) == callers(inside)


# Failures


PRIVATE = "a private text"


class SecretError(Exception):
    """Has private data in its message."""


def failed(traces):
    """Return the error type in the span of the only batch, which must have nothing else of the error."""
    [batch] = traces.ended("batch double")
    [event] = batch.events
    assert (StatusCode.ERROR, None) == (batch.status.status_code, batch.status.description)
    assert "exception" == event.name
    assert {"exception.type": batch.attributes[ERROR]} == event.attributes
    assert PRIVATE not in batch.to_json()
    return batch.attributes[ERROR]


@pytest.mark.parametrize(
    ("error", "name"),
    [(KeyError, "KeyError"), (SecretError, f"{__name__}.SecretError"), (StopIteration, "StopIteration")],
)
def test_an_error_is_recorded_without_its_message(traces, error, name):
    """The span has the status of an error and its type, and no message; the caller has everything."""

    def double(items):
        raise error(PRIVATE)

    double = microbatch(traced(double, provider=traces.provider), **full(1))
    expected = RuntimeError if error is StopIteration else error
    with pytest.raises(expected) as caught:
        double(PRIVATE)
    assert (PRIVATE,) == caught.value.__cause__.args
    assert name == failed(traces)


async def test_an_error_on_a_loop(traces):
    """The error of an ``async def`` function is recorded in the same way."""

    async def double(items):
        await asyncio.sleep(0)
        raise SecretError(PRIVATE)

    double = microbatch(traced(double, provider=traces.provider), **full(1))
    with pytest.raises(SecretError, match=PRIVATE):
        await double(PRIVATE)
    assert f"{__name__}.SecretError" == failed(traces)


def test_an_error_inside_a_span_of_the_function(traces):
    """An error that passes through a span of the function itself marks both spans."""

    def double(items):
        with traces.span("inside"):
            raise SecretError(PRIVATE)

    double = microbatch(traced(double, provider=traces.provider), **full(1))
    with pytest.raises(SecretError):
        double(1)
    [inside] = traces.ended("inside")
    assert StatusCode.ERROR is inside.status.status_code
    assert f"{__name__}.SecretError" == failed(traces)


def test_an_error_of_one_item_is_no_error_of_the_batch(traces, engine):
    """A result that is an exception does not change the span."""
    double = microbatch(traced(engine.make(lambda items: [KeyError()]), provider=traces.provider), **full(1))
    with pytest.raises(KeyError):
        engine.together(double, [1], lambda item: traces.span("request"))
    assert StatusCode.UNSET is traces.ended("batch double")[0].status.status_code


async def test_a_batch_that_is_cancelled(traces):
    """When all callers have left, the span ends without an error."""
    running = asyncio.Event()

    async def double(items):
        running.set()
        await asyncio.Event().wait()

    double = microbatch(traced(double, provider=traces.provider), **full(1))
    caller = asyncio.create_task(double(1))
    await running.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await double.aclose()
    [batch] = traces.ended("batch double")
    assert (StatusCode.UNSET, ()) == (batch.status.status_code, batch.events)


def test_a_loop_that_is_closed_under_a_batch(traces, caplog):
    """The span ends with the coroutine, wherever that is torn down, and nothing is logged."""

    async def double(items):
        asyncio.get_running_loop().stop()
        await asyncio.Event().wait()

    double = microbatch(traced(double, provider=traces.provider), **full(1))
    loop = asyncio.new_event_loop()
    loop.call_soon(double.submit, 1)
    loop.run_forever()
    loop.close()
    del double, loop
    with traces.span("another") as another:
        gc.collect()
        assert another is trace.get_current_span()
    [batch] = traces.ended("batch double")
    assert StatusCode.UNSET is batch.status.status_code
    assert [] == caplog.record_tuples


# Functions that can be decorated


def shape(items: list[int], *, factor: int = 2) -> list[int]:
    """Multiply."""
    return [factor * item for item in items]


async def async_shape(items: list[int], *, factor: int = 2) -> list[int]:
    """Multiply."""
    return [factor * item for item in items]


@pytest.mark.parametrize("fn", [shape, async_shape])
def test_metadata_is_kept(fn):
    """Name, documentation, module, signature, kind and attributes stay, and ``__wrapped__`` is the function."""
    fn.mark = "mine"
    again = traced(fn)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "mark"):
        assert getattr(fn, name) == getattr(again, name)
    assert inspect.signature(fn) == inspect.signature(again)
    assert inspect.signature(microbatch(fn)) == inspect.signature(microbatch(again))
    assert inspect.iscoroutinefunction(fn) is inspect.iscoroutinefunction(again)
    assert fn is again.__wrapped__


class Multiplier:
    """A callable object."""

    def __init__(self, factor=2):
        self.factor = factor

    def __call__(self, items):
        return [self.factor * item for item in items]


class AsyncMultiplier(Multiplier):
    async def __call__(self, items):
        return super().__call__(items)


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (Multiplier(), "Multiplier"),
        (AsyncMultiplier(), "AsyncMultiplier"),
        (Multiplier().__call__, "Multiplier.__call__"),
        (partial(shape, factor=2), "shape"),
        (partial(async_shape, factor=2), "async_shape"),
    ],
)
async def test_callables(traces, fn, name):
    """Objects, bound methods and partials keep the names of their batchers."""
    double = microbatch(traced(fn, provider=traces.provider), capture_context=True)
    assert 4 == await double.acall(2)
    assert name == microbatch(fn).batch_stats.name == double.batch_stats.name
    assert 1 == len(traces.ended(f"batch {name}"))


def test_methods(traces):
    """Methods of each kind can be traced, above or below ``classmethod`` and ``staticmethod``."""
    trace_it = traced(provider=traces.provider)

    class Model:
        factor = 2

        @microbatch(name="method")
        @trace_it
        def method(self, items):
            return [self.factor * item for item in items]

        @microbatch(name="of class")
        @trace_it
        @classmethod
        def of_class(cls, items):
            return [cls.factor * item for item in items]

        @classmethod
        @microbatch(name="of class")
        @trace_it
        def of_class_too(cls, items):
            return [cls.factor * item for item in items]

        @microbatch(name="static")
        @trace_it
        @staticmethod
        def static(items):
            return doubled(items)

    model = Model()
    assert [2, 2, 2, 2] == [model.method(1), model.of_class(1), Model.of_class_too(1), model.static(1)]
    assert [1, 2, 1] == [len(traces.ended(f"batch {name}")) for name in ("method", "of class", "static")]


def test_misuse():
    """An object that cannot be a batch function is refused, and so is a decorated function."""
    with pytest.raises(TypeError, match=r"^traced decorates a batch function, got 3 of type int$"):
        traced(3)
    batched = microbatch(shape)
    expected = (
        "traced stands below microbatch, got <microbatch shape>: decorate the batch function before it is batched"
    )
    with pytest.raises(TypeError, match=f"^{expected}$"):
        traced(batched)


# Generators


class Stream:
    """Runs a generator function inside a batch, from its first value to its end."""

    def __init__(self, traces):
        self.traces = traces
        self.outside = []

    def run(self, fn, most):
        """Return at most so many values of ``fn``."""

        @microbatch(name="stream", capture_context=True)
        def drive(items):
            stream = fn(items)
            got = []
            for value in stream:
                self.outside.append(trace.get_current_span())
                got.append(value)
                if len(got) == most:
                    stream.close()
            return [got]

        with self.traces.span("request"):
            return drive(1)

    async def arun(self, fn, most):
        @microbatch(name="stream", capture_context=True)
        async def drive(items):
            stream = fn(items)
            got = []
            async for value in stream:
                self.outside.append(trace.get_current_span())
                got.append(value)
                if len(got) == most:
                    await stream.aclose()
            return [got]

        with self.traces.span("request"):
            return await drive(1)


def counting(traces, *, fail=False):
    """Return a generator function and an asynchronous one that make a span before each value and at their end."""

    def count(items):
        try:
            for number in range(3):
                with traces.span("inside"):
                    pass
                yield number
            if fail:
                raise SecretError(PRIVATE)
        finally:
            with traces.span("inside"):
                pass

    async def acount(items):
        try:
            for number in range(3):
                with traces.span("inside"):
                    await asyncio.sleep(0)
                yield number
            if fail:
                raise SecretError(PRIVATE)
        finally:
            with traces.span("inside"):
                await asyncio.sleep(0)

    return count, acount


def test_generator_functions_keep_their_kind():
    """A traced generator function is a generator function, asynchronous as before."""
    count, acount = counting(None)
    assert inspect.isgeneratorfunction(traced(count))
    assert inspect.isasyncgenfunction(traced(acount))


@pytest.mark.parametrize(("most", "values", "inside"), [(9, [0, 1, 2], 4), (1, [0], 2)])
async def test_a_generator_has_its_span_as_long_as_it_lives(traces, most, values, inside):
    """The span lasts from the first value to the end, and is current only while the generator runs."""
    count, acount = map(traced(provider=traces.provider), counting(traces))
    stream = Stream(traces)
    assert values == await asyncio.to_thread(stream.run, count, most)
    assert values == await stream.arun(acount, most)
    batches, requests, spans = map(traces.ended, ["batch stream", "request", "inside"])
    assert [[request] for request in ids(requests)] == [callers(batch) for batch in batches]
    assert [batch for batch in ids(batches) for _ in range(inside)] == [span.parent.span_id for span in spans]
    assert batches[0].end_time >= spans[inside - 1].end_time
    assert batches[1].end_time >= spans[-1].end_time
    assert {INVALID_SPAN} == set(stream.outside)


async def test_a_generator_that_fails(traces):
    """The span of a failed generator has the error."""
    count, acount = map(traced(provider=traces.provider), counting(traces, fail=True))
    with pytest.raises(SecretError):
        await asyncio.to_thread(Stream(traces).run, count, 5)
    with pytest.raises(SecretError):
        await Stream(traces).arun(acount, 5)
    assert [f"{__name__}.SecretError"] * 2 == [batch.attributes[ERROR] for batch in traces.ended("batch stream")]


def test_a_generator_that_ends_in_another_context(traces, caplog):
    """Each step of a generator may run in another context, also the last."""
    streams = []

    @traced(provider=traces.provider)
    def count(items):
        yield from items

    @microbatch(name="stream", capture_context=True)
    def begin(items):
        streams.append(count(items))
        return [next(streams[0])]

    assert 1 == begin(1)
    assert [] == traces.ended("batch stream")
    streams[0].close()
    assert 1 == len(traces.ended("batch stream"))
    assert [] == caplog.record_tuples
