"""Callers on event loops, which come and go."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from subjects import ON_LOOPS

from batchify import BatcherClosedError, DeadlineError

# A task that is there so many seconds after all callers have their answers is left over.
PATIENCE = 10.0


class Caller:
    """Makes calls, whichever way, and notes how they end."""

    def __init__(self, game, random, ledger):
        self._game = game
        self._random = random
        self._ledger = ledger

    async def call(self):
        """Make some calls, and see them to their ends."""
        subject = self._game.subject(self._random)
        # What batches in threads is only awaited through the bridge.
        ways = self.WAYS if subject.kind in ON_LOOPS else self.BRIDGED
        await self._random.choice(ways)(self, subject)

    def stay(self):
        """Return a task with a call that nobody will wait for."""
        subject = self._game.subject(self._random)
        item = self._game.item(self._random)
        return asyncio.ensure_future(self._read(subject, item, asking(subject.acall, item, [item]), may_leave=True))

    def forget(self):
        """Return futures that nobody will read."""
        subject = self._random.choice([subject for subject in self._game.subjects if subject.kind in ON_LOOPS])
        taken = self._submit_some(subject)
        self._ledger.note(subject, "unread", len(taken))
        return taken

    async def _ask(self, subject):
        item = self._game.item(self._random)
        await self._read(subject, item, asking(subject.acall, item, [item]))

    async def _ask_directly(self, subject):
        item = self._game.item(self._random)
        await self._read(subject, item, asking(subject.call, item, [item]))

    async def _ask_impatiently(self, subject):
        item = self._game.item(self._random)
        timeout = self._random.choice((0, 0.00001, 0.0005, 0.003))
        answer = asyncio.wait_for(asking(subject.acall, item, [item]), timeout)
        await self._read(subject, item, answer, may_leave=True)

    async def _ask_and_leave(self, subject):
        item = self._game.item(self._random)
        task = asyncio.ensure_future(asking(subject.acall, item, [item]))
        for _ in range(self._random.randint(0, 4)):
            await asyncio.sleep(self._random.choice((0, 0, 0.0005)))
        task.cancel()
        await self._read(subject, item, task, may_leave=True)

    async def _ask_together(self, subject):
        await asyncio.gather(*(self._ask(subject) for _ in range(self._random.randint(1, 60))))

    async def _submit(self, subject):
        taken = self._submit_some(subject)
        leavers = [future for _, future in taken if self._random.random() < 0.1]
        if self._random.random() < 0.5:
            await asyncio.sleep(0)
        for future in leavers:
            future.cancel()
        for item, future in taken:
            await self._read(subject, item, future, may_leave=future in leavers)

    def _submit_some(self, subject):
        taken = []
        for item in self._game.items(self._random, 10):
            item.asked, item.caller = True, self
            try:
                taken.append((item, subject.submit(item)))
            except BatcherClosedError as error:
                self._ledger.failed(subject, item, error)
        return taken

    async def _map(self, subject):
        items = self._game.items(self._random, 20)
        timeout = self._random.choice((None, None, None, 0.001))
        try:
            answers = await asyncio.wait_for(asking(subject.map, items, items), timeout)
        except asyncio.TimeoutError:
            self._ledger.note(subject, "unread" if items[0].asked else "not asked", len(items))
        except BaseException as error:
            self._ledger.failed_together(subject, items, error)
        else:
            for item, answer in zip(items, answers, strict=True):
                self._ledger.answered(subject, item, answer)

    async def _read(self, subject, item, awaitable, *, may_leave=False):
        try:
            answer = await awaitable
        except DeadlineError as error:
            self._ledger.failed(subject, item, error)
        except (asyncio.CancelledError, asyncio.TimeoutError) as error:
            self._ledger.left(subject, item)
            if not may_leave:
                self._game.complain("crossed", f"{subject}: {item.number} stayed, and got {error!r}")
        except BaseException as error:
            self._ledger.failed(subject, item, error)
        else:
            self._ledger.answered(subject, item, answer)

    BRIDGED = (_ask, _ask, _ask_impatiently, _ask_and_leave, _ask_together)
    WAYS = (*BRIDGED, _ask_directly, _submit, _map)


async def asking(call, argument, items):
    """Do ``await call(argument)``, and let the items know that it was begun: a task may be cancelled before."""
    for item in items:
        item.asked = True
    return await call(argument)


def call_from_loops(game, who):
    """Call from one event loop after the other."""
    random, ledger = game.random(who), game.ledger()
    while not game.over:
        run(visit(game, random, ledger))


async def visit(game, random, ledger):
    """Call from one event loop; return what shall still be there when it ends."""
    caller = Caller(game, random, ledger)
    until = game.made + random.randint(10, 2000)

    async def calls():
        while not game.over and game.made < until:
            await caller.call()

    await asyncio.gather(*(calls() for _ in range(random.randint(1, 30))))
    way = random.random()
    if way < 0.2:
        rest = [caller.stay() for _ in range(5)]
        await asyncio.sleep(0)
        return rest
    if way < 0.4 and any(subject.kind in ON_LOOPS for subject in game.subjects):
        return caller.forget()
    await _be_alone(game)
    return None


async def _be_alone(game):
    deadline = time.monotonic() + PATIENCE
    while len(tasks := asyncio.all_tasks()) > 1:
        if time.monotonic() > deadline:
            game.complain("tasks", f"left over: {tasks}")
            return
        await asyncio.sleep(0.001)


def run(main):
    """Do what ``asyncio.run`` does, but go on after what a batch function raises at the loop."""
    loop = asyncio.new_event_loop()
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
