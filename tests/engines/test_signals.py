"""A signal handler that raises, at every point where CPython runs handlers, leaves a working thread engine."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future, wait
from functools import partial
from itertools import count
from time import monotonic, sleep
from types import MappingProxyType

import pytest

from batchify import BatcherClosedError, QueueFullError, SyncMicrobatcher, microbatch
from tests.kit.columns import forget_batchers, settle
from tests.kit.engines import HOUR, doubled
from tests.kit.interrupter import Interrupted, Interrupter

pytestmark = pytest.mark.untraced

# Longer than this many seconds is a hang. On a busy machine, a scene has taken more than one second.
PATIENCE = 5.0


def until(condition):
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, "hang"
        sleep(0)


class Scene:
    """A batcher, whose batch function can wait, and one step of its user."""

    options = MappingProxyType({})

    def __init__(self):
        self.items = []
        self.opened = threading.Event()
        self.opened.set()
        self.acted = False
        self.running = 0
        self.most_running = 0
        self.started = threading.Event()
        self.build()

    def build(self):
        options = MappingProxyType({"batch_wait_timeout_s": 0, **self.options})
        self.batcher = SyncMicrobatcher(self.double, name="double", **options)

    def double(self, items):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.items += items
        self.started.set()
        assert self.opened.wait(PATIENCE)
        self.running -= 1
        return doubled(items)

    def prepare(self):
        """Bring the batcher to the state before the step."""

    def act(self):
        """Take the step that is interrupted."""
        assert 2 == self.batcher.submit(1)

    def call(self, item):
        return self.batcher.submit(item)

    @property
    def stats(self):
        return self.batcher.stats

    def engines(self):
        return [self.batcher._ensure_engine()]

    def has_threads(self):
        engines = self.engines()
        return any(engine.workers.all or engine._deadline_workers.all for engine in engines)

    def recover(self):
        """Do what a user does after the step."""
        self.opened.set()

    def close(self):
        self.batcher.close()


class FirstCall(Scene):
    pass


class LaterCall(Scene):
    def prepare(self):
        assert 0 == self.batcher.submit(0)


class InWindow(LaterCall):
    options = MappingProxyType({"batch_wait_timeout_s": 0.0005})


class FirstInWindow(Scene):
    options = MappingProxyType({"batch_wait_timeout_s": 0.0005})


class SharedWindow(LaterCall):
    """Another caller waits for the window that the interrupted caller begins."""

    options = MappingProxyType({"batch_wait_timeout_s": 0.001, "max_batch_size": 8})

    def prepare(self):
        super().prepare()
        self.other = in_thread(self._join)

    def _join(self):
        until(lambda: self.stats.pending or self.acted)
        return self.batcher.submit(3)

    def recover(self):
        super().recover()
        self.acted = True
        assert 6 == self.other.result(PATIENCE)


class Submitted(Scene):
    def act(self):
        assert 2 == self.batcher._submit_nowait(1).result(PATIENCE)


class SubmittedInWindow(LaterCall):
    options = MappingProxyType({"batch_wait_timeout_s": 0.0005})
    act = Submitted.act


class Cancelled(LaterCall):
    options = MappingProxyType({"batch_wait_timeout_s": HOUR, "max_batch_size": 3})

    def prepare(self):
        self.future = self.batcher._submit_nowait(1)
        self.other = self.batcher._submit_nowait(2)

    def act(self):
        self.future.cancel()

    def recover(self):
        super().recover()
        self.batcher.flush()
        assert 4 == self.other.result(PATIENCE)
        self.batcher._change({"timeout": 0.0})


class Flushed(Cancelled):
    def act(self):
        self.batcher.flush()


class Configured(Cancelled):
    def act(self):
        self.batcher._change({"max_size": 2, "concurrency": 2})

    def recover(self):
        super().recover()
        self.batcher._change({"concurrency": 1})


class Closed(Cancelled):
    def act(self):
        self.batcher.close()

    def recover(self):
        if self.batcher._is_closed:
            with pytest.raises(BatcherClosedError):
                self.call(9)
        self.batcher.start()
        super().recover()


class Mapped(LaterCall):
    def act(self):
        assert [2, 4, 6] == self.batcher.submit_many([1, 2, 3])


class Bounded(Scene):
    """The queue is full until the batch ends, which begins when the call waits for room."""

    options = MappingProxyType({"max_pending": 1})

    def prepare(self):
        self.opened.clear()
        self.first = self.batcher._submit_nowait(1)
        assert self.started.wait(PATIENCE)
        self.second = self.batcher._submit_nowait(2)
        self.opener = threading.Thread(target=self._open, daemon=True)
        self.opener.start()

    def _open(self):
        until(lambda: self.stats.pending > 1 or self.acted)
        self.opened.set()

    def act(self):
        assert 6 == self.batcher._submit_nowait(3).result(PATIENCE)

    def recover(self):
        self.acted = True
        self.opener.join()
        assert (2, 4) == (self.first.result(PATIENCE), self.second.result(PATIENCE))


class BoundedCall(Bounded):
    def act(self):
        assert 6 == self.batcher.submit(3)


class Refused(Scene):
    options = MappingProxyType({"max_pending": 1, "on_full": "raise"})

    def call(self, item):
        while True:
            try:
                return self.batcher.submit(item)
            except QueueFullError:
                sleep(0)

    def prepare(self):
        self.opened.clear()
        self.first = self.batcher._submit_nowait(1)
        assert self.started.wait(PATIENCE)
        self.second = self.batcher._submit_nowait(2)

    def act(self):
        try:
            self.batcher._submit_nowait(3)
        except QueueFullError:
            return

    def recover(self):
        super().recover()
        assert (2, 4) == (self.first.result(PATIENCE), self.second.result(PATIENCE))


class OfFunction(Scene):
    def build(self):
        self.fn = microbatch(self.double, name="double", **self.options)

    def call(self, item):
        return self.fn(item)

    @property
    def stats(self):
        return self.fn.batch_stats

    def engines(self):
        (batcher,) = self.fn._self_scope.batchers()
        return [batcher._ensure_engine()]

    def close(self):
        self.fn.close()


class FirstCallOfFunction(OfFunction):
    def act(self):
        assert 2 == self.fn(1)


class Urgent(OfFunction):
    def prepare(self):
        assert 0 == self.fn(0)

    def act(self):
        assert 2 == self.fn.options(priority=1)(1)


class UrgentWhileOthersWait(OfFunction):
    options = MappingProxyType({"timeout": HOUR})

    def prepare(self):
        self.first = self.fn.submit(0)

    def act(self):
        self.fn.options(priority=1).submit(1)

    def recover(self):
        super().recover()
        self.fn.flush()
        assert 0 == self.first.result(PATIENCE)
        self.fn.configure(timeout=0)


class FirstUrgent(OfFunction):
    act = Urgent.act


class LaterUrgent(Urgent):
    def prepare(self):
        assert 0 == self.fn.options(priority=1)(0)


class WithDeadline(Urgent):
    def act(self):
        assert 2 == self.fn.options(deadline=HOUR)(1)


class OfGenerator(OfFunction):
    def build(self):
        def stream(items):
            for _ in range(2):
                yield self.double(items)

        self.fn = microbatch(stream, name="double", **self.options)

    def call(self, item):
        (answer,) = {*self.fn(item)}
        return answer

    def act(self):
        assert [2, 2] == list(self.fn(1))


class ReadLater(OfGenerator):
    def prepare(self):
        assert [0, 0] == list(self.fn(0))


class ClosedStream(ReadLater):
    def act(self):
        stream = self.fn(1)
        next(stream)
        stream.close()


SCENES = [
    FirstCall, LaterCall, InWindow, FirstInWindow, SharedWindow, Submitted, SubmittedInWindow, Cancelled, Flushed,
    Configured, Closed, Mapped, Bounded, BoundedCall, Refused, FirstCallOfFunction, Urgent, UrgentWhileOthersWait,
    FirstUrgent, LaterUrgent, WithDeadline, OfGenerator, ReadLater, ClosedStream,
]  # fmt: skip


def in_thread(do):
    outcome = Future()
    threading.Thread(target=settle, args=(outcome, do), daemon=True).start()
    return outcome


def play(scene, interrupter):
    """Interrupt the step of a scene, and check that all that follows works."""
    scene.prepare()
    # From Python 3.12 on, the trace function gets opcodes only if a frame asks for them before.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(interrupter)
    try:
        scene.act()
    except BaseException as error:
        # An exception in Thread.start() makes CPython release a lock twice.
        if not isinstance(error, Interrupted) and not isinstance(error.__context__, Interrupted):
            raise
    finally:
        sys.settrace(None)
    scene.recover()
    others = [in_thread(partial(scene.call, item)) for item in (11, 12)]
    assert 20 == scene.call(10), "wrong answer"
    assert 42 == scene.call(21), "wrong answer"
    assert [22, 24] == [other.result(PATIENCE) for other in others]
    assert {*map(type, scene.items)} == {int}, scene.items
    assert 1 == scene.most_running or scene.engines()[0].line.config.concurrency > 1 or isinstance(scene, Configured)
    scene.close()
    until(lambda: not (scene.stats.pending or scene.stats.running or scene.has_threads()))


def check(scene_type, at):
    interrupter = Interrupter(at)
    scene = scene_type()
    played = in_thread(lambda: play(scene, interrupter))
    if not wait([played], PATIENCE).done:
        return interrupter, "hang"
    return interrupter, played.exception()


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_signal_at_any_point(scene, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    monkeypatch.setattr(threading, "excepthook", lambda unraisable: None)
    for at in count(1):
        interrupter, error = check(scene, at)
        if error is not None:
            forget_batchers()
        assert error is None, interrupter.where
        if interrupter.points < at:
            break
