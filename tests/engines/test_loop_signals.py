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
from tests.kit.engines import counted_calls
from tests.kit.interrupter import Interrupter

pytestmark = pytest.mark.untraced

# A loop loses a callback that is interrupted at its start. This is so for callbacks of asyncio too.
CALLBACKS = {"_on_timer", "wake"}


class LoopInterrupter(Interrupter):
    error = KeyboardInterrupt

    def interrupts(self, frame):
        module = frame.f_globals.get("__name__", "")
        # A task that is interrupted there is lost as it suspends. This is so for awaitables of any library.
        is_suspending = frame.f_code.co_name == "add_done_callback"
        return module.startswith("batchify.") and not module.startswith("batchify.testing.") and not is_suspending

    def enter(self, frame):
        if frame.f_code.co_name not in CALLBACKS:
            super().enter(frame)


class Scene:
    """A function of a loop, and calls of it that an interrupt disturbs."""

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

    async def call(self, item, call):
        try:
            self.ends[item] = await call(item)
        except BaseException as error:
            self.ends[item] = error
            if not isinstance(error, KeyboardInterrupt):
                raise

    async def main(self):
        self.tasks += [asyncio.ensure_future(self.call(*call)) for call in enumerate(self._calls(self.fn))]
        await asyncio.wait(self.tasks, timeout=9)

    async def later_calls(self):
        return await asyncio.wait_for(asyncio.gather(*map(self.fn, (101, 102, 103))), 9)

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
            assert isinstance(end, (KeyboardInterrupt, asyncio.CancelledError, BatchAbortedError)) or end == 2 * item
            assert self.ran[item] <= 1
        stats = self.fn.batch_stats
        assert (0, 0) == (stats.pending, stats.running)
        assert 3 <= stats.answered_items <= counted_calls(stats) <= 3 + len(self.tasks)
        loop.run_until_complete(self.fn.aclose(9))


@asynccontextmanager
async def state():
    yield "state"


def calls(number):
    return lambda fn: [fn] * number


def submitted(fn):
    async def submit(item):
        return await fn.submit(item)

    return [submit] * 3


def in_two_waves(fn):
    async def later(item):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await fn(item)

    return [fn, fn, later, later, later]


def cancelled(fn):
    async def cancel(item):
        call = asyncio.ensure_future(fn(item))
        await asyncio.sleep(0)
        call.cancel()
        await call

    return [fn, cancel, fn]


def with_options(**options):
    return lambda fn: [fn, fn.options(**options), fn]


SCENES = {
    "at once": ({"timeout": 0}, calls(2)),
    "full": ({"max_size": 2, "timeout": 1}, calls(3)),
    "window": ({"timeout": 1}, calls(2)),
    "adaptive": ({"timeout": None}, in_two_waves),
    "2 slots": ({"max_size": 2, "timeout": None, "concurrency": 2}, in_two_waves),
    "submit": ({"max_size": 2, "timeout": None}, submitted),
    "cancel": ({"timeout": 1}, cancelled),
    "priority": ({"max_size": 2, "timeout": 0}, with_options(priority=1)),
    "deadline": ({"max_size": 2, "timeout": 1}, with_options(deadline=0.5)),
    "groups": ({"max_size": 2, "timeout": 0, "group_by": lambda item: item % 2}, calls(3)),
    "running": ({"max_size": 2, "timeout": 0, "dedupe": "running"}, calls(3)),
    "isolate": ({"timeout": 0, "isolate_errors": True}, calls(3)),
    "lifespan": ({"max_size": 1, "timeout": 0, "concurrency": 2, "lifespan": state}, calls(3)),
    "max_pending": ({"max_size": 1, "timeout": 0, "max_pending": 1}, calls(3)),
}


@pytest.mark.parametrize("name", SCENES)
def test_ctrl_c_at_any_point(name, monkeypatch):
    """Later calls work, each call ends, and no item runs twice."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    for at in count(1):
        interrupter, scene, errors = LoopInterrupter(at), Scene(*SCENES[name]), []
        with closing_loop(VirtualLoop()) as loop:
            loop.set_exception_handler(lambda _, context, errors=errors: errors.append(context))
            scene.run(loop, interrupter)
            try:
                scene.check(loop)
                assert [] == errors
            except BaseException as error:
                forget_batchers()
                raise AssertionError(interrupter.where) from error
        if interrupter.where is None:
            break
    assert at > 200
