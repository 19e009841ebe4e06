"""The option ``lifespan``, tested on both engines and across the bridge."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _global_shutdown_lock
from contextlib import asynccontextmanager, contextmanager

import pytest

from batchify import AsyncMicrobatcher, SyncMicrobatcher, current_batch, microbatch
from batchify.errors import ReentrantCallError
from batchify.testing import inline
from batchify.testing.virtual_time import closing_loop
from tests.kit.columns import in_time
from tests.kit.engines import HOUR, PATIENCE, doubled, wait_until
from tests.kit.processes import printed_by

NO_DEVICE = "no device"


class Resource:
    """Makes context managers that log when they are entered and exited, and raise on request."""

    def __init__(self, kit):
        self.log = []
        self.fail_on_enter = None
        self.fail_on_exit = None
        self.lifespan = self.on_loop if kit.name == "asyncio" else self.on_thread

    def enter(self):
        if self.fail_on_enter:
            raise self.fail_on_enter
        self.log.append("enter")
        return f"state {self.log.count('enter')}"

    def exit(self):
        self.log.append("exit")
        if self.fail_on_exit:
            raise self.fail_on_exit

    @contextmanager
    def on_thread(self):
        state = self.enter()
        thread = threading.get_ident()
        yield state
        assert thread == threading.get_ident()
        self.exit()

    @asynccontextmanager
    async def on_loop(self):
        task = asyncio.current_task()
        state = self.enter()
        await asyncio.sleep(0)
        yield state
        assert task is asyncio.current_task()
        self.exit()


@pytest.fixture
def resource(kit):
    """Return a resource for the engine of the kit."""
    return Resource(kit)


def states(items):
    """Return the slot and the state of the batch for each item."""
    batch = current_batch()
    return [(batch.slot, batch.state) for _ in items]


def test_a_worker_enters_its_lifespan_before_its_first_batch(kit, resource):
    """The value of the context manager is the state of all batches of the worker, until it is drained."""
    fn, _ = kit.decorate(states, lifespan=resource.lifespan)
    assert [] == resource.log
    assert [(0, "state 1")] * 2 == [kit.call(fn, item).result(PATIENCE) for item in range(2)]
    assert ["enter"] == resource.log
    in_time(fn.drain)
    assert ["enter", "exit"] == resource.log
    assert (0, "state 2") == kit.call(fn, 1).result(PATIENCE)
    in_time(fn.close)
    assert ["enter", "exit"] * 2 == resource.log


def test_each_slot_has_its_own_lifespan(kit, resource):
    """Batches that run at once have different slots and states. A lower ``concurrency`` ends the highest slots."""
    fn, gate = kit.decorate(states, lifespan=resource.lifespan, concurrency=3, max_size=1, timeout=0)
    gate.shut()
    callers = [kit.call(fn, item) for item in range(3)]
    for _ in callers:
        gate.await_batch()
    gate.open()
    slots = dict(kit.results(callers))
    assert ({0, 1, 2}, {"state 1", "state 2", "state 3"}) == ({*slots}, {*slots.values()})
    fn.configure(concurrency=1)
    wait_until(lambda: resource.log.count("exit") == 2)
    assert (0, slots[0]) == kit.call(fn, 1).result(PATIENCE)
    in_time(fn.drain)
    assert 3 == resource.log.count("exit")


def test_a_lifespan_belongs_to_its_first_batch_while_it_is_entered(kit, resource):
    """The context manager sees its slot on entering, to choose a device, and no batch on its exit."""
    seen = []
    resource.enter = lambda: seen.append(current_batch())
    resource.exit = lambda: seen.append(current_batch())
    fn, _ = kit.decorate(states, lifespan=resource.lifespan)
    assert (0, None) == kit.call(fn, 1).result(PATIENCE)
    in_time(fn.drain)
    entering, exiting = seen
    assert (1, 0, None) == (entering.size, entering.slot, entering.state)
    assert exiting is None


def test_entering_a_lifespan_calls_its_own_function(kit, resource):
    """The call would wait for the batch that waits for the context manager, so it is refused."""

    @contextmanager
    def on_thread():
        fn(1)
        yield

    @asynccontextmanager
    async def on_loop():
        await fn(1)
        yield

    fn, _ = kit.decorate(states, lifespan=on_loop if kit.name == "asyncio" else on_thread, concurrency=2)
    with pytest.raises(ReentrantCallError):
        kit.call(fn, 1).result(PATIENCE)


def test_a_busy_worker_above_a_lower_concurrency_ends_after_its_batch(kit, resource):
    """A batch in a slot that is gone keeps its state until it ends."""
    fn, gate = kit.decorate(states, lifespan=resource.lifespan, concurrency=2, max_size=1, timeout=0)
    gate.shut()
    callers = [kit.call(fn, item) for item in range(2)]
    for _ in callers:
        gate.await_batch()
    fn.configure(concurrency=1)
    gate.open()
    assert {0, 1} == {slot for slot, _ in kit.results(callers)}
    wait_until(lambda: resource.log.count("exit") == 1)


def test_an_error_on_entering_is_that_of_the_batch(kit, resource):
    """All callers of the batch get the error, also with ``isolate_errors``; the next batch tries again."""
    fn, _ = kit.decorate(states, lifespan=resource.lifespan, isolate_errors=True, timeout=HOUR, max_size=2)
    resource.fail_on_enter = ValueError(NO_DEVICE)
    errors = kit.errors(kit.call_waiting(fn, 1, 2))
    assert [NO_DEVICE] * 2 == [str(error) for error in errors]
    assert (0, 2) == (fn.batch_stats.isolation_runs, fn.batch_stats.failed_items)
    resource.fail_on_enter = None
    assert [(0, "state 1")] * 2 == kit.results(kit.call_waiting(fn, 1, 2))


def test_an_error_on_exit_is_logged(kit, resource, caplog):
    """No caller gets an error of the exit, and the function works as before."""
    fn, _ = kit.decorate(states, lifespan=resource.lifespan)
    kit.call(fn, 1).result(PATIENCE)
    resource.fail_on_exit = ValueError()
    in_time(fn.drain)
    assert ["the lifespan of double() raised on exit"] == [record.getMessage() for record in caplog.records]
    caplog.clear()
    resource.fail_on_exit = None
    assert (0, "state 2") == kit.call(fn, 1).result(PATIENCE)


def test_a_lifespan_that_is_no_context_manager(kit):
    """The error names the function and what its lifespan must return."""
    fn, _ = kit.decorate(lifespan=lambda: 1)
    kind = "an asynchronous context manager" if kit.name == "asyncio" else "a context manager"
    message = f"the lifespan of double() must return {kind}, got an object of type int"
    assert (TypeError, message) == next((type(error), str(error)) for error in kit.errors([kit.call(fn, 1)]))


def test_entering_is_not_run_time(kit, resource):
    """The run time of a batch begins after the context manager was entered."""
    entering = threading.Event()
    enter = resource.enter

    def slow():
        assert entering.wait(PATIENCE)
        return enter()

    resource.enter = slow
    reports = []
    fn, _ = kit.decorate(states, lifespan=resource.lifespan, on_batch=reports.append)
    caller = kit.call(fn, 1)
    wait_until(lambda: fn.batch_stats.running)
    entering.set()
    caller.result(PATIENCE)
    wait_until(lambda: reports)
    assert reports[0].wait_ms[0] > 0


def test_without_a_lifespan_there_is_no_state(kit):
    """The slot of a batch is known without a lifespan too."""
    fn, _ = kit.decorate(states)
    assert (0, None) == kit.call(fn, 1).result(PATIENCE)


def test_an_executor_has_no_slots(kit):
    """With an executor, slot and state are ``None``, and a lifespan is refused, also by ``configure()``."""
    if kit.name == "asyncio":
        pytest.skip("an executor runs def functions")
    with ThreadPoolExecutor(1) as pool:
        fn, _ = kit.decorate(states, executor=pool)
        assert (None, None) == kit.call(fn, 1).result(PATIENCE)
        with pytest.raises(TypeError, match="lifespan does not work with executor"):
            kit.decorate(executor=pool, lifespan=contextmanager(lambda: iter([1])))
        fn, _ = kit.decorate(lifespan=contextmanager(lambda: iter([1])))
        with pytest.raises(TypeError, match="lifespan does not work with executor"):
            fn.configure(executor=pool)
        in_time(fn.close)


def test_a_method_has_a_lifespan_for_each_instance(kit, resource):
    """The lifespan of a method gets the instance."""
    seen = []

    def lifespan(instance):
        seen.append(instance)
        return resource.lifespan()

    async def run_on_loop(self, items):
        return states(items)

    class Model:
        run = microbatch(run_on_loop if kit.name == "asyncio" else lambda self, items: states(items), lifespan=lifespan)

    models = [Model(), Model()]
    assert [(0, "state 1"), (0, "state 2")] == [kit.call(model.run, 1).result(PATIENCE) for model in models]
    assert seen == models


def test_the_last_reference_ends_the_lifespan(kit, resource):
    """A function that nothing refers to any more exits the context manager."""
    fn, _ = kit.decorate(states, lifespan=resource.lifespan)
    assert (0, "state 1") == kit.call(fn, 1).result(PATIENCE)
    # The end of the call may still hold the function.
    kit.run(lambda: None)
    del fn

    def is_exited():
        gc.collect()
        return "exit" in resource.log

    wait_until(is_exited)


def test_the_collector_ends_a_lifespan_in_the_middle_of_a_submit():
    """The end of an engine does not wait for a lock that its own thread holds in ``ThreadPoolExecutor.submit()``."""
    log = []

    @contextmanager
    def lifespan():
        log.append("enter")
        yield
        log.append("exit")

    batchers = [AsyncMicrobatcher(doubled, lifespan=lifespan)]
    with closing_loop(asyncio.new_event_loop()) as loop:
        assert 2 == loop.run_until_complete(batchers[0].submit(1))

    def collect():
        with _global_shutdown_lock:
            batchers.clear()
            gc.collect()

    in_time(collect)
    wait_until(lambda: log == ["enter", "exit"])


def test_inline_enters_the_lifespan_around_each_call(kit, resource):
    """With ``inline()``, each call has a worker of its own."""
    fn, _ = kit.decorate(states, lifespan=resource.lifespan)
    with inline():
        results = [kit.call(fn, item).result(PATIENCE) for item in range(2)]
        assert [(0, "state 1"), (0, "state 2")] == results
        wait_until(lambda: resource.log == ["enter", "exit"] * 2)


async def test_the_end_of_a_loop_exits_the_context_manager():
    """``asyncio.run()`` exits the context manager as it ends, and a new loop enters it again."""
    log = []

    @asynccontextmanager
    async def lifespan():
        log.append("enter")
        yield
        await asyncio.sleep(0)
        log.append("exit")

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return items

    def run():
        return asyncio.run(fn.acall(1))

    for turn in (1, 2):
        assert 1 == await asyncio.get_running_loop().run_in_executor(None, run)
        assert ["enter", "exit"] * turn == log


async def test_a_batch_that_is_cancelled_while_it_enters_leaves_the_lifespan():
    """If all callers leave while the context manager is entered, the next batch finds it entered."""
    entering, log = asyncio.Event(), []

    @asynccontextmanager
    async def lifespan():
        log.append("enter")
        await entering.wait()
        yield "state"

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return states(items)

    caller = asyncio.ensure_future(fn(1))
    await asyncio.sleep(1)
    caller.cancel()
    await asyncio.wait([caller])
    later = asyncio.ensure_future(fn(2))
    await asyncio.sleep(1)
    entering.set()
    assert ((0, "state"), ["enter"], 1) == (await later, log, fn.batch_stats.cancelled_items)


async def test_an_interrupt_on_entering_ends_the_loop_after_its_callers():
    """A ``SystemExit`` on entering is the error of the batch, and the loop raises it."""

    @asynccontextmanager
    async def lifespan():
        raise SystemExit
        yield

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return items

    def run():
        with pytest.raises(SystemExit):
            asyncio.run(fn.acall(1))

    await asyncio.get_running_loop().run_in_executor(None, run)


@pytest.mark.parametrize("executor", [False, True])
async def test_a_def_function_on_a_loop_has_its_lifespan_on_its_thread(executor):
    """``AsyncMicrobatcher`` enters and exits the context manager of a ``def`` function on the thread of the slot."""
    log = []

    @contextmanager
    def lifespan():
        thread = threading.current_thread().name
        log.append(thread)
        assert 0 == current_batch().slot
        yield "state"
        log.append(threading.current_thread().name == thread)

    def run(items):
        return [(*state, threading.current_thread().name) for state in states(items)]

    if executor:
        with ThreadPoolExecutor(1) as pool:
            batcher = AsyncMicrobatcher(run, executor=pool, batch_wait_timeout_s=0, name="run")
            assert (None, None) == (await batcher.submit(1))[:2]
            await batcher.stop()
        return
    batcher = AsyncMicrobatcher(run, lifespan=lifespan, batch_wait_timeout_s=0, name="run")
    slot, state, thread = await batcher.submit(1)
    assert (0, "state", [thread]) == (slot, state, log)
    await batcher.drain()
    assert [thread, True] == log
    with inline():
        assert (0, "state") == (await batcher.submit(1))[:2]
        assert [True, "MainThread"] == log[1:3]
        await asyncio.sleep(0)
        assert 4 == len(log)


async def test_an_error_of_a_def_lifespan_on_a_loop():
    """An error on entering, also a ``StopIteration``, is the error of the batch."""

    @contextmanager
    def lifespan():
        raise ValueError(NO_DEVICE)
        yield

    batcher = AsyncMicrobatcher(doubled, lifespan=lifespan, batch_wait_timeout_s=0)
    with pytest.raises(ValueError, match=NO_DEVICE):
        await batcher.submit(1)


def test_the_end_of_the_interpreter_exits_the_context_manager():
    """At exit, the context managers of idle workers are exited, after all calls are answered."""
    script = """
        from contextlib import contextmanager
        from batchify import current_batch, microbatch

        @contextmanager
        def lifespan():
            print("enter")
            yield 1
            print("exit")

        @microbatch(lifespan=lifespan)
        def fn(items):
            print(current_batch().state)
            return items

        fn(1)
        fn.submit(2)
    """
    assert "enter\n1\n1\nexit\n" == printed_by(script)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_enters_its_own_lifespan():
    """The child of a fork enters a context manager of its own, and never exits that of its parent."""
    script = """
        import os, warnings
        from contextlib import contextmanager
        from batchify import current_batch, microbatch

        warnings.simplefilter("ignore", DeprecationWarning)

        @contextmanager
        def lifespan():
            process = os.getpid()
            print("enter", flush=True)
            yield process
            print("exit", process == os.getpid(), flush=True)

        @microbatch(lifespan=lifespan)
        def fn(items):
            return [current_batch().state for _ in items]

        assert fn(1) == os.getpid()
        child = os.fork()
        if not child:
            assert fn(1) == os.getpid()
            fn.close()
            os._exit(0)
        os.waitpid(child, 0)
    """
    assert "enter\nenter\nexit True\nexit True\n" == printed_by(script)


def test_streams_have_a_lifespan():
    """A generator function runs in the lifespan of its worker."""

    @contextmanager
    def lifespan():
        yield "state"

    @microbatch(lifespan=lifespan)
    def fn(items):
        yield [current_batch().state for _ in items]

    assert ["state"] == [*fn(1)]
    batcher = SyncMicrobatcher(states, lifespan=lifespan)
    assert (0, "state") == batcher.submit(1)
    batcher.close()


def test_a_loop_closed_with_a_lifespan_logs_nothing(caplog):
    """A loop that closes without the end of its tasks leaves them to the garbage collector, which is silent."""

    @asynccontextmanager
    async def lifespan():
        yield "state"

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return [current_batch().state for _ in items]

    loop = asyncio.new_event_loop()
    assert "state" == loop.run_until_complete(fn(1))
    loop.close()
    del loop
    gc.collect()
    assert [] == caplog.records


def test_a_loop_that_has_ended_is_freed():
    """A function with a lifespan keeps nothing of a loop after ``asyncio.run()``, also if its lifespan has failed."""
    errors = [OSError(NO_DEVICE)]

    @asynccontextmanager
    async def lifespan():
        if errors:
            raise errors.pop()
        yield "state"

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return [current_batch().state for _ in items]

    async def call():
        answers = await asyncio.gather(fn(1), return_exceptions=True)
        return repr(answers[0]), weakref.ref(asyncio.get_running_loop())

    for expected in (f"OSError('{NO_DEVICE}')", "'state'"):
        answer, loop = asyncio.run(call())
        assert expected == answer
        gc.collect()
        assert loop() is None


async def test_a_slot_whose_lifespan_was_cancelled_enters_it_again():
    """Code that cancels all tasks of a loop ends a lifespan, and the next batch enters it again."""
    entered = []

    @asynccontextmanager
    async def lifespan():
        entered.append(len(entered))
        yield entered[-1]

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return [current_batch().state for _ in items]

    assert 0 == await fn(1)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert 1 == await fn(1)


def test_a_drain_waits_for_the_exits_of_all_slots(kit, resource):
    """Two workers exit their context managers before the drain returns."""
    fn, gate = kit.decorate(states, lifespan=resource.lifespan, concurrency=2, max_size=1, timeout=0)
    gate.shut()
    callers = [kit.call(fn, item) for item in range(2)]
    for _ in callers:
        gate.await_batch()
    gate.open()
    kit.results(callers)
    in_time(fn.drain)
    assert ["enter", "enter", "exit", "exit"] == resource.log


def test_a_drain_that_takes_too_long_for_the_exit_of_a_lifespan():
    """After its timeout, a drain that waits only for the end of a worker raises an error that says so."""
    gate = threading.Event()

    @contextmanager
    def lifespan():
        yield
        assert gate.wait(PATIENCE)

    fn = microbatch(doubled, lifespan=lifespan)
    assert 2 == fn(1)
    with pytest.raises(TimeoutError, match="doubled still had workers to end at the end of its timeout"):
        fn.drain(0.001)
    gate.set()
    in_time(fn.drain)


@pytest.mark.parametrize("end", ["drain", "close"])
def test_the_exit_of_a_lifespan_ends_its_own_function(end):
    """On a worker, a ``drain()`` or ``close()`` in the exit of a context manager does not wait for that exit."""
    ended = threading.Event()

    @contextmanager
    def lifespan():
        yield
        if not ended.is_set():
            getattr(fn, end)()
            ended.set()

    fn = microbatch(doubled, lifespan=lifespan)
    assert 2 == fn(1)
    in_time(fn.drain)
    assert ended.wait(PATIENCE)


def test_the_exit_of_a_lifespan_calls_its_own_function():
    """A call in the exit of a context manager on a worker runs on another worker."""
    answers = []

    @contextmanager
    def lifespan():
        yield
        if not answers:
            answers.append("exit")
            answers.append(fn(2))

    fn = microbatch(doubled, lifespan=lifespan)
    assert 2 == fn(1)
    in_time(fn.drain)
    in_time(fn.drain)
    assert ["exit", 4] == answers


@pytest.mark.parametrize(("end", "instead"), [("drain", "adrain"), ("close", "aclose")])
def test_a_blocking_end_on_the_loop_that_has_to_exit_a_lifespan(end, instead):
    """``drain()`` and ``close()`` would block the loop that has to exit the context manager, and say so."""

    @asynccontextmanager
    async def lifespan():
        yield "state"

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return items

    async def main():
        assert 1 == await fn(1)
        with pytest.raises(RuntimeError, match=f"would block the event loop .*; use: await {instead}"):
            getattr(fn, end)()
        await getattr(fn, instead)()
        # Nothing is left to exit.
        getattr(fn, end)()

    in_time(lambda: asyncio.run(main()))


@pytest.mark.parametrize("ends", ["in time", "inside"])
async def test_a_close_that_does_not_wait_for_a_batch_leaves_no_lifespan(ends, moment):
    """After a timeout, or if it comes from inside the batch, the context manager is exited once the batch has ended."""
    exits = []

    @asynccontextmanager
    async def lifespan():
        yield
        exits.append(moment())

    @microbatch(lifespan=lifespan)
    async def fn(items):
        if ends == "inside":
            await fn.aclose()
        await asyncio.sleep(5)
        return items

    call = asyncio.ensure_future(fn(1))
    if ends == "in time":
        await asyncio.sleep(1)
        await fn.aclose(timeout=1)
        assert ([], 2.0) == (exits, moment())
    assert 1 == await call
    await asyncio.sleep(1)
    assert [5.0] == exits


async def test_a_drain_while_the_loop_ends():
    """``asyncio.run()`` cancels all tasks at once. One of them may then drain the function."""
    log = []

    @asynccontextmanager
    async def lifespan():
        yield
        log.append("exit")

    @microbatch(lifespan=lifespan)
    async def fn(items):
        return items

    async def serve():
        try:
            await asyncio.Event().wait()
        finally:
            await fn.adrain()
            log.append("drained")

    async def main():
        log.append(asyncio.create_task(serve()))
        return await fn(1)

    await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(main()))
    assert {"exit", "drained"} == {*log[1:]}
