"""The batchers under test: whatever its kind, a subject has the same members."""

from __future__ import annotations

import asyncio
import time

from ledger import ANSWER, REFUSE, SHORT, Refused

from batchify import AsyncMicrobatcher, BatchResultError, SyncMicrobatcher, microbatch


class Subject:
    """A batcher with random options, and its batch function: checks what it is given, and does what its items want."""

    def __init__(self, kind, random, complain):
        self.kind = kind
        self.size = random.choice((1, 2, 3, 8, 32, 100))
        self.concurrency = random.choice((1, 1, 2, 4))
        self.window = random.choice((None, None, None, 0, 0.0005, 0.003, 3600))
        self.capture_context = random.random() < 0.2
        # How often it was told to close.
        self.closings = 0
        self._complain = complain
        # For each batch that runs: where.
        self._running = []
        KINDS[kind](self)

    def __repr__(self):
        return f"<{self.kind}: size {self.size}, window {self.window}, concurrency {self.concurrency}>"

    @property
    def needs_flush(self):
        """Whether what waits may have to be told to leave."""
        return self.window == 3600

    def options(self):
        more = {"concurrency": self.concurrency, "capture_context": self.capture_context, "name": self.kind}
        return {"max_size": self.size, "timeout": self.window, **more}

    def class_options(self):
        options = self.options()
        return {"max_batch_size": options.pop("max_size"), "batch_wait_timeout_s": options.pop("timeout"), **options}

    def use_function(self, fn):
        """Offer the members of a decorated function."""
        self.call, self.submit, self.map, self.acall = fn, fn.submit, fn.map, fn.acall
        self.flush, self.close, self.aclose = fn.flush, fn.close, fn.aclose
        self.start = None
        self.stats = lambda: fn.batch_stats

    def use_class(self, batcher):
        """Offer the members of an engine class under the same names."""
        self.call, self.submit, self.map, self.acall = batcher.submit, batcher.put, batcher.submit_many, batcher.asubmit
        self.flush, self.close, self.aclose = batcher.flush, batcher.close, batcher.aclose
        self.start = batcher.start
        self.stats = lambda: batcher.stats

    def begin(self, items, place):
        """Check a batch at its start, as far as that can be seen from the inside."""
        self._running.append(place)
        if self._running.count(place) > self.concurrency:
            self._complain("broken", f"{self} runs too many batches")
        if not 0 < len(items) <= self.size:
            self._complain("broken", f"{self} was given {len(items)} items")
        for item in items:
            item.runs += 1
            if item.runs > 1:
                self._complain("doubled", f"{self} runs {item.number} again")

    def end(self, items, place):
        """Return the answers to a batch, or raise what an item of it wants; tell each item what its caller is to see."""
        self._running.remove(place)
        spoiler = next((item for item in items if item.fate not in (ANSWER, REFUSE)), None)
        if spoiler is None:
            answers = [self._answer(item) for item in items]
            # The list is the function's own.
            items.clear()
            return answers
        error = BatchResultError if spoiler.fate is SHORT else spoiler.fate(spoiler.number)
        for item in items:
            item.expected = error
        if error is BatchResultError:
            return items[1:]
        raise error

    def _answer(self, item):
        item.expected = Refused(item.number) if item.fate is REFUSE else (self.kind, item.number)
        return item.expected


def on_loop(subject):
    """Return a batch function for an event loop."""

    async def answer(items):
        place = id(asyncio.get_running_loop())
        subject.begin(items, place)
        try:
            if items[0].pause is not None:
                await asyncio.sleep(items[0].pause)
        except BaseException:
            subject._running.remove(place)
            raise
        return subject.end(items, place)

    return answer


def in_thread(subject):
    """Return a batch function for a thread."""

    def answer(items):
        subject.begin(items, None)
        if items[0].pause is not None:
            time.sleep(items[0].pause)
        return subject.end(items, None)

    return answer


def async_function(subject):
    subject.use_function(microbatch(on_loop(subject), **subject.options()))


def async_method(subject):
    answer = on_loop(subject)

    class Owner:
        @microbatch(**subject.options())
        async def run(self, items):
            return await answer(items)

    subject.use_function(Owner().run)


def async_class(subject):
    subject.use_class(AsyncMicrobatcher(on_loop(subject), **subject.class_options()))


def off_loop_class(subject):
    """Plain functions run in threads: as many at once on each loop, and all loops share the threads."""
    subject.use_class(AsyncMicrobatcher(in_thread(subject), **subject.class_options()))


def function(subject):
    subject.use_function(microbatch(in_thread(subject), **subject.options()))


def method(subject):
    answer = in_thread(subject)

    class Owner:
        @microbatch(**subject.options())
        def run(self, items):
            return answer(items)

    subject.use_function(Owner().run)


def sync_class(subject):
    subject.use_class(SyncMicrobatcher(in_thread(subject), **subject.class_options()))


ON_LOOPS = {f.__name__: f for f in (async_function, async_method, async_class, off_loop_class)}
IN_THREADS = {f.__name__: f for f in (function, method, sync_class)}
KINDS = {**ON_LOOPS, **IN_THREADS}
