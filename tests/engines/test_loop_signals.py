"""Ctrl-C, at every point where CPython runs signal handlers, leaves a working engine on its event loop.

The interrupt ends one step of the loop, and with it a call or a batch at most. The loop then goes on, as the loop of a
notebook does.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import asynccontextmanager
from itertools import count

import pytest

from batchify import BatchAbortedError, current_batch, microbatch
from batchify.testing import VirtualLoop
from batchify.testing.virtual_time import closing_loop
from tests.kit.columns import forget_batchers
from tests.kit.engines import counted_calls, wait_until
from tests.kit.interrupter import Interrupter

pytestmark = pytest.mark.untraced

# Longer than this many seconds, virtual ones on most loops, is a hang.
PATIENCE = 5
# A loop loses a callback that is interrupted at its start. This is so for callbacks of asyncio too.
CALLBACKS = {"_answer", "_deliver", "_finish", "_on_timer", "_resolved", "call_back", "wake"}


class LoopInterrupter(Interrupter):
    error = KeyboardInterrupt

    def interrupts(self, frame):
        module = frame.f_globals.get("__name__", "")
        # A task that is interrupted there is lost as it suspends. This is so for any awaitable in Python code.
        is_suspending = frame.f_code.co_name == "add_done_callback"
        return module.startswith("batchify.") and not module.startswith("batchify.testing.") and not is_suspending

    def enter(self, frame):
        if frame.f_code.co_name not in CALLBACKS:
            super().enter(frame)


class Scene:
    """A function of a loop, and calls of it that an interrupt disturbs."""

    new_loop = VirtualLoop
    # How a call may end that the interrupt disturbs.
    errors = (KeyboardInterrupt, asyncio.CancelledError, BatchAbortedError)
    # What asyncio may log.
    logged = ()

    def __init__(self, options, calls):
        self.ran = Counter()
        self.fn = microbatch(self.double, **options)
        self._has_lifespan = "lifespan" in options
        self._calls = calls
        # The answer or the error of each call that has ended, by item.
        self.ends = {}
        self.tasks = []

    async def double(self, items):
        assert current_batch().state == ("state" if self._has_lifespan else None)
        self.ran.update(items)
        await asyncio.sleep(0)
        return [2 * item for item in items]

    def call(self, item):
        return self.fn(item)

    async def main(self):
        self.tasks += [asyncio.ensure_future(self._note(*call)) for call in enumerate(self._calls(self))]
        await asyncio.wait(self.tasks, timeout=PATIENCE)

    async def _note(self, item, call):
        try:
            self.ends[item] = await call(item)
        except BaseException as error:
            self.ends[item] = error
            if not isinstance(error, KeyboardInterrupt):
                raise

    async def later_calls(self):
        return await asyncio.wait_for(asyncio.gather(*map(self.call, (101, 102, 103))), PATIENCE)

    def run(self, loop, interrupter):
        """Run the calls until an interrupt, and then the rest."""
        main = loop.create_task(self.main())
        # From Python 3.12 on, the trace function gets opcodes only if a frame asks for them before.
        sys._getframe().f_trace_opcodes = True
        while not main.done():
            sys.settrace(interrupter)
            try:
                loop.run_until_complete(main)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)

    def check(self, loop):
        """Check that later calls work, and that all calls have ended."""
        assert [202, 204, 206] == loop.run_until_complete(self.later_calls())
        loop.run_until_complete(asyncio.sleep(0))
        assert [] == [task for task in self.tasks if not task.done()]
        for item, end in self.ends.items():
            assert isinstance(end, self.errors) or end == 2 * item
            assert self.ran[item] <= 1
        wait_until(lambda: (0, 0) == (self.fn.batch_stats.pending, self.fn.batch_stats.running))
        stats = self.fn.batch_stats
        assert 3 <= stats.answered_items <= counted_calls(stats) <= 3 + len(self.tasks)
        loop.run_until_complete(self.fn.aclose(PATIENCE))


class OfThreads(Scene):
    """The function has worker threads, which real time passes for."""

    new_loop = staticmethod(asyncio.new_event_loop)

    def double(self, items):
        self.ran.update(items)
        return [2 * item for item in items]

    def call(self, item):
        return self.fn.acall(item)


class OfStreams(Scene):
    # CPython cannot close an asynchronous generator whose step was interrupted.
    errors = (*Scene.errors, RuntimeError)
    logged = RuntimeError

    async def double(self, items):
        self.ran.update(items)
        for _ in range(2):
            await asyncio.sleep(0)
            yield [2 * item for item in items]

    async def call(self, item):
        return [answer async for answer in self.fn(item)][-1]


class OfStreamsOfThreads(OfThreads):
    def double(self, items):
        self.ran.update(items)
        for _ in range(2):
            yield [2 * item for item in items]

    async def call(self, item):
        return [answer async for answer in self.fn.acall(item)][-1]


class Mapped(Scene):
    async def call(self, item):
        [answer] = [answer async for answer in self.fn.imap([item])]
        return answer


@asynccontextmanager
async def state():
    yield "state"


def calls(number):
    return lambda scene: [scene.call] * number


def submitted(scene):
    async def submit(item):
        return await scene.fn.submit(item)

    return [submit] * 3


def in_two_waves(scene):
    async def later(item):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await scene.call(item)

    return [scene.call, scene.call, later, later, later]


def cancelled(scene):
    async def cancel(item):
        call = asyncio.ensure_future(scene.call(item))
        await asyncio.sleep(0)
        call.cancel()
        return await call

    return [scene.call, cancel, scene.call]


def with_options(**options):
    return lambda scene: [scene.call, scene.fn.options(**options)]


PAIRS = {"max_size": 2, "timeout": 0}
ROOM = {"max_size": 1, "timeout": 0, "max_pending": 1}
SCENES = {
    "at once": (Scene, {"timeout": 0}, calls(2)),
    "full": (Scene, {"max_size": 2, "timeout": 1}, calls(3)),
    "window": (Scene, {"timeout": 1}, calls(2)),
    "adaptive": (Scene, {"timeout": None}, in_two_waves),
    "2 slots": (Scene, {"max_size": 2, "timeout": None, "concurrency": 2}, in_two_waves),
    "submit": (Scene, {"max_size": 2, "timeout": None}, submitted),
    "cancel": (Scene, {"timeout": 1}, cancelled),
    "deadline": (Scene, {"max_size": 2, "timeout": 1}, with_options(deadline=0.5)),
    "groups": (Scene, {**PAIRS, "group_by": lambda item: item % 2}, calls(2)),
    "running": (Scene, {**PAIRS, "dedupe": "running"}, calls(2)),
    "isolate": (Scene, {"timeout": 0, "isolate_errors": True}, calls(3)),
    "lifespan": (Scene, {"max_size": 1, "timeout": 0, "concurrency": 2, "lifespan": state}, calls(3)),
    "max_pending": (Scene, ROOM, calls(2)),
    "imap": (Mapped, PAIRS, calls(3)),
    "stream": (OfStreams, PAIRS, calls(3)),
    "acall": (OfThreads, PAIRS, calls(3)),
    "acall, max_pending": (OfThreads, ROOM, calls(3)),
    "acall, stream": (OfStreamsOfThreads, PAIRS, calls(3)),
}


@pytest.mark.parametrize("name", SCENES)
def test_ctrl_c_at_any_point(name, monkeypatch):
    """Later calls work, each call ends, and no item runs twice."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    scene_type, options, made = SCENES[name]
    for at in count(1):
        interrupter, scene, errors = LoopInterrupter(at), scene_type(options, made), []
        with closing_loop(scene.new_loop()) as loop:
            loop.set_exception_handler(lambda _, context, errors=errors: errors.append(context))
            scene.run(loop, interrupter)
            try:
                scene.check(loop)
                assert [] == [error for error in errors if not isinstance(error.get("exception"), scene.logged)]
            except BaseException as error:
                forget_batchers()
                raise AssertionError(interrupter.where) from error
        if interrupter.where is None:
            break
    assert at > 200
