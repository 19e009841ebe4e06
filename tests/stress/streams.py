"""Batch functions and callers of streams. The last value of a stream is the answer to its call."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, closing

from ledger import ANSWER, REFUSE, SHORT, StoppedReading, WrongValue

from batchify import DONE, BatchResultError

# The maximum number of values before the answer; streams differ in length.
MOST = 4


class Part:
    """A value before the answer."""

    def __init__(self, item, position):
        self.item = item
        self.position = position


def length(item):
    """Return the number of values before the answer."""
    return item.number % (MOST + 1)


def is_open(item, step):
    """Return whether the stream of an item has not ended before a step."""
    return step <= length(item) + (item.action is not REFUSE)


def steps_of(subject, items):
    """Yield the values of each step, raise the error that an item requires, and record the outcomes."""
    failing = next((item for item in items if item.action not in (ANSWER, REFUSE)), None)
    steps = max(map(length, items)) + 1
    for step in range(steps):
        if failing is not None and step == failing.number % steps:
            break
        yield [_value(subject, item, step) for item in items]
    if failing is None:
        return
    error = BatchResultError if failing.action is SHORT else failing.action(failing.number)
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
            for values in steps_of(subject, items):
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
            for values in steps_of(subject, items):
                yield values
                if items[0].pause is not None:
                    time.sleep(items[0].pause)
        finally:
            subject.stop(None)

    return answer


class Reading:
    """The values that a caller has read from its stream."""

    def __init__(self, item):
        self._item = item
        self._count = 0
        self.last = None

    def take(self, value):
        if self._count == self._item.reading_limit:
            raise StoppedReading
        if type(value) is Part and (value.item is not self._item or value.position != self._count):
            raise WrongValue(value.item.number, value.position)
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
    """Return the last value of an asynchronous stream."""
    reading = Reading(item)
    async with aclosing(stream):
        async for value in stream:
            reading.take(value)
    return reading.last
