"""Streams as subjects: what their batch functions yield, and how a caller reads up to the answer, the last value."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, closing

from ledger import ANSWER, REFUSE, SHORT, Crossed, Left

from batchify import DONE, BatchResultError

# Streams differ in length: at most so many values come before the answer.
MOST = 4


class Part:
    """A value before the answer."""

    def __init__(self, item, place):
        self.item = item
        self.place = place


def length(item):
    """Return how many values come before the answer."""
    return item.number % (MOST + 1)


def is_open(item, step):
    """Say whether the stream of an item has not ended before a step."""
    return step <= length(item) + (item.fate is not REFUSE)


def script(subject, items):
    """Yield what is to be yielded, and raise what an item wants; tell each item what its caller is to see."""
    spoiler = next((item for item in items if item.fate not in (ANSWER, REFUSE)), None)
    steps = max(map(length, items)) + 1
    for step in range(steps):
        if spoiler is not None and step == spoiler.number % steps:
            break
        yield [_value(subject, item, step) for item in items]
    if spoiler is None:
        return
    error = BatchResultError if spoiler.fate is SHORT else spoiler.fate(spoiler.number)
    if error is not BatchResultError and not isinstance(error, Exception):
        subject.fatal.append(error)
    else:
        for item in items:
            if is_open(item, step):
                item.expect(error)
    if error is BatchResultError:
        yield items[1:]
    raise error


def _value(subject, item, step):
    if step < length(item):
        return Part(item, step)
    return subject.answer(item) if step == length(item) else DONE


def on_loop(subject):
    """Return a batch function for an event loop."""

    async def answer(items):
        place = id(asyncio.get_running_loop())
        subject.begin(items, place)
        try:
            for values in script(subject, items):
                yield values
                if items[0].pause is not None:
                    await asyncio.sleep(items[0].pause)
        finally:
            subject.stop(place)

    return answer


def in_thread(subject):
    """Return a batch function for a thread."""

    def answer(items):
        subject.begin(items, None)
        try:
            for values in script(subject, items):
                yield values
                if items[0].pause is not None:
                    time.sleep(items[0].pause)
        finally:
            subject.stop(None)

    return answer


class Reading:
    """What a caller has read of its stream."""

    def __init__(self, item):
        self._item = item
        self._count = 0
        self.last = None

    def take(self, value):
        if self._count == self._item.appetite:
            raise Left
        if type(value) is Part and (value.item is not self._item or value.place != self._count):
            raise Crossed(value.item.number, value.place)
        self.last = value
        self._count += 1


def read(item, stream):
    """Return the last value of a stream."""
    reading = Reading(item)
    with closing(stream):
        for value in stream:
            reading.take(value)
    return reading.last


async def aread(item, stream):
    """Return the last value of a stream for tasks."""
    reading = Reading(item)
    async with aclosing(stream):
        async for value in stream:
            reading.take(value)
    return reading.last
