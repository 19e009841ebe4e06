"""The batchers under test. Subjects of all kinds have the same members."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from math import ceil, log2

import streams
from ledger import ANSWER, REFUSE, SHORT, Refused

from batchify import AsyncMicrobatcher, BatchResultError, SyncMicrobatcher, _bridge, microbatch

SIZES = (1, 2, 3, 8, 32, 100)
SLOTS = (1, 1, 2, 4)


def weight(item):
    return item.outcomes.weight


class Subject:
    """A batcher with random options. Its batch function checks each batch and takes the actions of its items."""

    def __init__(self, kind, random, report_fault, executor):
        self.kind = kind
        # The largest values so far: both options may change while the batcher runs.
        self.size = random.choice(SIZES)
        self.concurrency = random.choice(SLOTS)
        self.window = random.choice((None, None, None, 0, 0.0005, 0.003, 3600))
        self.capture_context = random.random() < 0.2
        self.groups = random.choice((None, None, 2, 5))
        self.max_weight = random.choice((None, None, 12))
        self.max_pending = random.choice((None, None, None, 1, 7, 50))
        self.streams = kind in STREAMS
        # Streams do not support these options.
        self.dedupe = not self.streams and random.random() < 0.3 and random.choice([True, "running"])
        self.isolate_errors = not self.streams and random.random() < 0.3
        self.executor = executor if not self.streams and kind not in ASYNC and random.random() < 0.3 else None
        # The errors that ended batches and are not an Exception.
        self.fatal = []
        # (caller, group) -> number of the last item that ran, for callers that make calls one after the other.
        self._last = {}
        # The number of calls of close() and aclose().
        self.closings = 0
        # The number of calls in its statistics at the last check.
        self.seen = 0
        self._report_fault = report_fault
        # The event loop or thread of each running batch.
        self._running = []
        answer, install = KINDS[kind]
        install(self, answer(self))

    def __repr__(self):
        # The options have a method of this object, whose representation would recurse.
        options = {**self.options(), "group_by": self.groups}
        options.pop("name")
        return f"<{self.kind}: {options}>"

    @property
    def lasts(self):
        """Whether it can be closed and replaced. Other subjects create a batcher for each call."""
        return self.close is not None

    def options(self):
        return {
            "max_size": self.size,
            "timeout": self.window,
            "concurrency": self.concurrency,
            "max_pending": self.max_pending,
            "group_by": self.groups and self.group,
            "weigh": self.max_weight and weight,
            "max_weight": self.max_weight,
            "dedupe": self.dedupe,
            "isolate_errors": self.isolate_errors,
            "executor": self.executor,
            "capture_context": self.capture_context,
            "name": self.kind,
        }

    def group(self, item):
        return item.number % self.groups

    def reconfigure(self, random):
        """Change the size, the number of slots and the executor while batches run."""
        size, slots = random.choice(SIZES), random.choice(SLOTS)
        self.size, self.concurrency = max(size, self.size), max(slots, self.concurrency)
        where = {"executor": random.choice((self.executor, None))} if self.executor and self.start is None else {}
        self.configure(max_size=size, concurrency=slots, **where)

    def class_options(self):
        options = self.options()
        return {"max_batch_size": options.pop("max_size"), "batch_wait_timeout_s": options.pop("timeout"), **options}

    def use_function(self, fn):
        """Use the members of a decorated function, and of a view of it for items with call options."""
        self.use_views(lambda item: fn if item.call_options is None else fn.options(**item.call_options))
        self.map = fn.map
        self.flush, self.close, self.aclose, self.configure = fn.flush, fn.close, fn.aclose, fn.configure
        self.start = None
        self.stats = lambda: fn.batch_stats

    def use_streams(self, fn):
        """Use the members of a decorated generator function; each call reads its stream to the last value."""
        self.use_function(fn)
        call, acall, submit, many = self.call, self.acall, self.submit, self.map
        self.acall = lambda item: streams.aread(item, acall(item))
        if self.kind in ASYNC:
            self.call = lambda item: streams.aread(item, call(item))
            self.submit = lambda item: _reading(item, submit(item))
            self.map = lambda items: self._last_of_all(many(items))
        else:
            self.call = lambda item: streams.read(item, call(item))
            self.map = lambda items: [values[-1] for values in many(items)]

    async def _last_of_all(self, streams):
        return [values[-1] for values in await streams]

    def use_class(self, batcher):
        """Use the members of an engine class under the same names."""
        self.call, self.submit, self.map = batcher.submit, batcher._submit_nowait, batcher.submit_many
        is_sync = isinstance(batcher, SyncMicrobatcher)
        self.acall = partial(_bridge.acall, batcher) if is_sync else batcher.submit
        self.flush, self.close, self.aclose = batcher.flush, batcher.close, batcher.aclose
        self.configure = lambda **options: batcher._change(options)
        self.start = batcher.start
        self.stats = lambda: batcher.stats

    def use_new(self, make):
        """Create a new function for each call, and release it with the call."""
        self.window = min(self.window or 0, 0.003)
        self.use_views(lambda item: make() if item.call_options is None else make().options(**item.call_options))
        self.map = lambda items: make().map(items)
        self.flush = self.close = self.aclose = self.start = self.stats = None

    def use_views(self, view):
        self.call = lambda item: view(item)(item)
        self.acall = lambda item: view(item).acall(item)
        self.submit = lambda item: view(item).submit(item)

    def begin(self, items, place):
        """Check the limits, the group and the order of a batch that starts."""
        self._running.append(place)
        if self._running.count(place) > self.concurrency:
            self._report_fault("broken", f"{self} runs too many batches")
        if not 0 < len(items) <= self.size:
            self._report_fault("broken", f"{self} got {len(items)} items")
        if self.groups and len(set(map(self.group, items))) > 1:
            self._report_fault("broken", f"{self} mixes groups")
        if self.max_weight and sum(map(weight, items)) > self.max_weight:
            self._report_fault("broken", f"{self} got too heavy a batch")
        for item in items:
            item.runs += 1
            if item.runs > 1 + self.isolate_errors * ceil(log2(self.size)):
                self._report_fault("doubled", f"{self} runs {item.number} again")
        self._check_order(items)

    def _check_order(self, items):
        """Check that items that one caller queued one after the other run in this order."""
        last = self._last if self.concurrency == 1 and self.lasts else {}
        for item in items:
            if item.caller is None or item.call_options is not None or item.runs > 1 or self.dedupe:
                continue
            order_key = (item.caller, self.groups and self.group(item))
            if last.get(order_key, 0) > item.number:
                self._report_fault("broken", f"{self} runs {item.number} after {last[order_key]}")
            last[order_key] = item.number

    def stop(self, place):
        """Record that a batch has ended."""
        self._running.remove(place)

    def end(self, items, place):
        """Return the answers of a batch, or raise the error that an item requires, and record the outcomes."""
        self.stop(place)
        failing = next((item for item in items if item.action not in (ANSWER, REFUSE)), None)
        if failing is None:
            answers = [self.answer(item) for item in items]
            # The batch function owns its list.
            items.clear()
            return answers
        error = BatchResultError if failing.action is SHORT else failing.action(failing.number)
        if error is not BatchResultError and not isinstance(error, Exception):
            # With isolated errors, it ends the rest of the whole batch.
            self.fatal.append(error)
        elif len(items) == 1 or not self.isolate_errors:
            for item in items:
                item.expect(error)
        if error is BatchResultError:
            return items[1:]
        raise error

    def answer(self, item):
        """Return the answer of an item, and record it as an outcome."""
        outcome = Refused(item.number) if item.action is REFUSE else (self.kind, item.number)
        item.expect(outcome)
        return outcome


def on_loop(subject):
    """Return a batch function for an event loop."""

    async def answer(items):
        place = id(asyncio.get_running_loop()) if subject.lasts else object()
        subject.begin(items, place)
        try:
            if items[0].pause is not None:
                await asyncio.sleep(items[0].pause)
        except BaseException:
            subject.stop(place)
            raise
        return subject.end(items, place)

    return answer


def in_thread(subject, place=lambda: None):
    """Return a batch function for a thread."""

    def answer(items):
        here = place() if subject.lasts else object()
        subject.begin(items, here)
        if items[0].pause is not None:
            time.sleep(items[0].pause)
        return subject.end(items, here)

    return answer


def _reading(item, stream):
    """Return a future of the last value of a stream; its error may stay unread."""
    task = asyncio.ensure_future(streams.aread(item, stream))
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


def owner_of(answer, options):
    """Return a class with a decorated method."""
    if asyncio.iscoroutinefunction(answer):

        class Owner:
            @microbatch(**options)
            async def run(self, items):
                return await answer(items)
    else:

        class Owner:
            @microbatch(**options)
            def run(self, items):
                return answer(items)

    return Owner


def function(subject, answer):
    subject.use_function(microbatch(answer, **subject.options()))


def stream(subject, answer):
    subject.use_streams(microbatch(answer, **subject.options()))


def method(subject, answer):
    subject.use_function(owner_of(answer, subject.options())().run)


def functions(subject, answer):
    subject.use_new(lambda: microbatch(answer, **subject.options()))


def instances(subject, answer):
    subject.use_new(lambda: owner().run)
    owner = owner_of(answer, subject.options())
    # The statistics of the class include those of its instances.
    subject.stats = lambda: owner.run.batch_stats


def engine(kind):
    return lambda subject, answer: subject.use_class(kind(answer, **subject.class_options()))


STREAMS = ("stream", "async stream")
ASYNC = ("async function", "async method", "async functions", "async instances", "async stream", "AsyncMicrobatcher")
# An asyncio engine runs at most one batch of a plain function on a thread at the same time.
OFF_LOOP = partial(in_thread, place=threading.get_ident)
ON_LOOPS = {
    "async function": (on_loop, function),
    "async method": (on_loop, method),
    "async functions": (on_loop, functions),
    "async instances": (on_loop, instances),
    "async stream": (streams.on_loop, stream),
    "AsyncMicrobatcher": (on_loop, engine(AsyncMicrobatcher)),
    "AsyncMicrobatcher of def": (OFF_LOOP, engine(AsyncMicrobatcher)),
}
IN_THREADS = {
    "function": (in_thread, function),
    "method": (in_thread, method),
    "functions": (in_thread, functions),
    "instances": (in_thread, instances),
    "stream": (streams.in_thread, stream),
    "SyncMicrobatcher": (in_thread, engine(SyncMicrobatcher)),
}
KINDS = {**ON_LOOPS, **IN_THREADS}
