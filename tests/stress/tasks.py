"""Callers on event loops that start and end during a trial."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from subjects import ON_LOOPS

from batchify import BatcherClosedError, DeadlineError
from batchify._clock import monotonic

# The number of seconds within which all other tasks must end after the last answer.
PATIENCE = 10.0


class Caller:
    """Makes calls in random ways, and records how they end."""

    def __init__(self, trial, random, ledger):
        self._trial = trial
        self._random = random
        self._ledger = ledger

    async def call(self):
        """Make calls in one random way, and wait until they end."""
        subject = self._trial.subject(self._random)
        # Tasks call subjects of the thread engine only through acall().
        ways = self.WAYS if subject.kind in ON_LOOPS else self.BRIDGED
        await self._random.choice(ways)(self, subject)

    def start_unawaited(self):
        """Return a task with a call that no code awaits."""
        subject = self._trial.subject(self._random)
        item = self._trial.item(self._random)
        return asyncio.ensure_future(
            self._read(subject, item, mark_and_call(subject.acall, item, [item]), may_cancel=True)
        )

    def submit_unread(self):
        """Return futures that no code reads."""
        subject = self._random.choice([subject for subject in self._trial.subjects if subject.kind in ON_LOOPS])
        taken = self._submit_some(subject)
        self._ledger.note(subject, "unread", len(taken))
        return taken

    async def _call(self, subject):
        item = self._trial.item(self._random)
        await self._read(subject, item, mark_and_call(subject.acall, item, [item]))

    async def _call_directly(self, subject):
        item = self._trial.item(self._random)
        await self._read(subject, item, mark_and_call(subject.call, item, [item]))

    async def _call_with_timeout(self, subject):
        item = self._trial.item(self._random)
        timeout = self._random.choice((0, 0.00001, 0.0005, 0.003))
        answer = asyncio.wait_for(mark_and_call(subject.acall, item, [item]), timeout)
        await self._read(subject, item, answer, may_cancel=True)

    async def _call_and_cancel(self, subject):
        item = self._trial.item(self._random)
        task = asyncio.ensure_future(mark_and_call(subject.acall, item, [item]))
        for _ in range(self._random.randint(0, 4)):
            await asyncio.sleep(self._random.choice((0, 0, 0.0005)))
        task.cancel()
        await self._read(subject, item, task, may_cancel=True)

    async def _call_concurrently(self, subject):
        await asyncio.gather(*(self._call(subject) for _ in range(self._random.randint(1, 60))))

    async def _submit(self, subject):
        taken = self._submit_some(subject)
        cancelled = [future for _, future in taken if self._random.random() < 0.1]
        if self._random.random() < 0.5:
            await asyncio.sleep(0)
        for future in cancelled:
            future.cancel()
        for item, future in taken:
            await self._read(subject, item, future, may_cancel=future in cancelled)

    def _submit_some(self, subject):
        taken = []
        for item in self._trial.items(self._random, 10):
            item.started, item.caller = True, self
            try:
                taken.append((item, subject.submit(item)))
            except BatcherClosedError as error:
                self._ledger.failed(subject, item, error)
        return taken

    async def _map(self, subject):
        items = self._trial.items(self._random, 20)
        timeout = self._random.choice((None, None, None, 0.001))
        try:
            answers = await asyncio.wait_for(mark_and_call(subject.map, items, items), timeout)
        except asyncio.TimeoutError:
            self._ledger.note(subject, "unread" if items[0].started else "not started", len(items))
        except BaseException as error:
            self._ledger.failed_together(subject, items, error)
        else:
            for item, answer in zip(items, answers, strict=True):
                self._ledger.answered(subject, item, answer)

    async def _read(self, subject, item, awaitable, *, may_cancel=False):
        try:
            answer = await awaitable
        except DeadlineError as error:
            self._ledger.failed(subject, item, error)
        except (asyncio.CancelledError, asyncio.TimeoutError) as error:
            self._ledger.left(subject, item)
            if not may_cancel:
                self._trial.report_fault(
                    "wrong answer", f"{subject}: {item.number} was not cancelled, and got {error!r}"
                )
        except BaseException as error:
            self._ledger.failed(subject, item, error)
        else:
            self._ledger.answered(subject, item, answer)

    BRIDGED = (_call, _call, _call_with_timeout, _call_and_cancel, _call_concurrently)
    WAYS = (*BRIDGED, _call_directly, _submit, _map)


async def mark_and_call(call, argument, items):
    """Mark the items as started, then await ``call(argument)``; a task may be cancelled before it starts."""
    for item in items:
        item.started = True
    return await call(argument)


def call_from_loops(trial, name):
    """Make calls from one event loop after the other."""
    random, ledger = trial.random(name), trial.ledger()
    while not trial.has_ended:
        run(call_from_loop(trial, random, ledger))


async def call_from_loop(trial, random, ledger):
    """Make calls from one event loop; return tasks or futures that must stay alive until it ends."""
    caller = Caller(trial, random, ledger)
    until = trial.made + random.randint(10, 2000)

    async def calls():
        while not trial.has_ended and trial.made < until:
            await caller.call()

    await asyncio.gather(*(calls() for _ in range(random.randint(1, 30))))
    way = random.random()
    if way < 0.2:
        rest = [caller.start_unawaited() for _ in range(5)]
        await asyncio.sleep(0)
        return rest
    if way < 0.4 and any(subject.kind in ON_LOOPS for subject in trial.subjects):
        return caller.submit_unread()
    await _wait_for_other_tasks(trial)
    return None


async def _wait_for_other_tasks(trial):
    deadline = monotonic() + PATIENCE
    while len(tasks := asyncio.all_tasks()) > 1:
        if monotonic() > deadline:
            trial.report_fault("tasks", f"left over: {tasks}")
            return
        await asyncio.sleep(0.001)


def run(main):
    """Run like ``asyncio.run``, but continue after an exception of a batch function that ends the loop."""
    loop = asyncio.new_event_loop()
    # freezegun freezes ``time.monotonic()`` some milliseconds before it gives loops another clock. A loop that reads 0
    # in between would sleep until the machine has run twice as long.
    loop.time = monotonic
    try:
        _finish(loop, loop.create_task(main))
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        for task in tasks:
            _finish(loop, task)
        _finish(loop, loop.create_task(loop.shutdown_default_executor()))
    finally:
        loop.close()


def _finish(loop, task):
    while not task.done():
        with suppress(KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            loop.run_until_complete(task)
    if not task.cancelled() and not isinstance(task.exception(), (KeyboardInterrupt, SystemExit, type(None))):
        raise task.exception()
