"""``executor``: batches run in an executor of the user, and each caller is answered even if the executor fails."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from textwrap import dedent

import pytest

import batchify
from batchify import AsyncMicrobatcher, BatchAbortedError, SyncMicrobatcher, microbatch
from batchify._batcher.executors import BatchExecutor, LocalCall
from batchify._core.batch import Batch
from batchify._threads.shutdown import _drain_executors
from batchify.testing import inline
from tests.kit import processes
from tests.kit.engines import PATIENCE, doubled, wait_until

request = ContextVar("request", default=None)


class Pool(ThreadPoolExecutor):
    """An executor that counts the calls it gets."""

    def __init__(self, workers=1):
        super().__init__(workers, thread_name_prefix="theirs")
        self.calls = 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def pool():
    with Pool() as pool:
        yield pool


@contextmanager
def by_class(kind, fn, executor, **options):
    """Yield a function that runs several items in a batcher of ``kind``."""
    if kind is SyncMicrobatcher:
        with SyncMicrobatcher(fn, executor=executor, **options) as batcher:
            yield batcher.submit_many
    else:
        with asyncio.Runner() if sys.version_info >= (3, 11) else Runner() as runner:
            batcher = AsyncMicrobatcher(fn, executor=executor, **options)

            async def submit_many(items):
                return await batcher.submit_many(items)

            yield lambda items: runner.run(submit_many(items))
            runner.run(batcher.stop())


class Runner:
    """Replaces ``asyncio.Runner`` on Python 3.10."""

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        return self

    def run(self, main):
        return self._loop.run_until_complete(main)

    def __exit__(self, *error):
        self._loop.close()


async def until(condition):
    """Wait until other tasks make ``condition()`` true."""
    for _ in range(100):
        await asyncio.sleep(0)
        if condition():
            return
    pytest.fail("the condition stayed false")


KINDS = [SyncMicrobatcher, AsyncMicrobatcher]


def test_batches_run_in_the_executor(pool):
    """A decorated function runs in the threads of the executor, once for each batch."""

    @microbatch(executor=pool, timeout=3600, max_size=3)
    def thread_names(items):
        return [(item, threading.current_thread().name) for item in items]

    assert [(item, "theirs_0") for item in range(6)] == thread_names.map(range(6))
    assert (2, 2) == (pool.calls, thread_names.batch_stats.total_batches)


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_class_runs_batches_in_the_executor(kind, pool):
    """Both engine classes run the batches of a ``def`` function in the executor."""
    seen = []

    def double(items):
        seen.append(threading.current_thread().name)
        return doubled(items)

    with by_class(kind, double, pool, max_batch_size=2, batch_wait_timeout_s=3600) as submit_many:
        assert [2, 4] == submit_many([1, 2])
    assert ["theirs_0"] == seen


def test_the_executor_runs_as_many_batches_as_there_are_slots():
    """With ``concurrency=2``, two batches run in the executor at once."""
    both = threading.Barrier(2)

    def meet(items):
        both.wait(PATIENCE)
        return items

    with Pool(2) as pool:
        fn = microbatch(meet, executor=pool, concurrency=2, max_size=1)
        assert [1, 2] == fn.map([1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_function_runs_in_the_context_of_the_batch(kind, pool):
    """An executor thread has the current batch, and no context variables of the callers."""
    seen = []

    def look(items):
        seen.append((batchify.current_batch(), request.get()))
        return items

    request.set("mine")
    with by_class(kind, look, pool, name="look", batch_wait_timeout_s=None) as submit_many:
        submit_many([1])
    [(current, visible)] = seen
    assert ("look", 1, None) == (current.name, current.size, visible)


def test_a_batch_in_an_executor_cannot_call_its_own_function(pool):
    """A call from inside its own batch is refused, also if an executor runs the batch."""

    @microbatch(executor=pool)
    def double(items):
        return [double(item) for item in items]

    with pytest.raises(batchify.ReentrantCallError):
        double(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error", [ValueError(1), KeyboardInterrupt(), SystemExit(1), StopIteration(), CancelledError()]
)
def test_an_error_in_the_executor_reaches_the_caller(kind, pool, error):
    """An error in an executor reaches its caller as an error in a worker thread does."""

    def fail(items):
        raise error

    def outcome(executor):
        with by_class(kind, fail, executor) as submit_many:
            try:
                submit_many([1])
            except BaseException as raised:
                return type(raised), raised.args, type(raised.__cause__)
        return None

    assert outcome(None) == outcome(pool)


class Refusing(Executor):
    """An executor that refuses every call."""

    def submit(self, fn, /, *args, **kwargs):
        msg = "it is dead"
        raise BrokenExecutor(msg)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_broken_executor_reaches_the_caller(kind):
    """If the executor refuses a batch, its error reaches the caller."""
    with by_class(kind, doubled, Refusing()) as submit_many, pytest.raises(BrokenExecutor, match="it is dead"):
        submit_many([1])


def test_a_new_executor_replaces_the_old_one(pool):
    """After ``configure(executor=)``, batches run in the new executor, and after ``None`` in a worker thread."""

    @microbatch(executor=Refusing())
    def thread_name(items):
        return [threading.current_thread().name for _ in items]

    with pytest.raises(BrokenExecutor):
        thread_name(1)
    thread_name.configure(executor=pool)
    assert "theirs_0" == thread_name(1)
    thread_name.configure(executor=None)
    assert thread_name(1).startswith("test_a_new_executor")


def test_waiting_items_run_in_the_new_executor(pool):
    """Items that wait when the executor changes run in the new one."""
    gate = threading.Event()

    @microbatch
    def thread_name(items):
        assert gate.wait(PATIENCE)
        return [threading.current_thread().name for _ in items]

    first = thread_name.submit(1)
    wait_until(lambda: thread_name.batch_stats.running)
    second = thread_name.submit(2)
    thread_name.configure(executor=pool)
    gate.set()
    assert "theirs_0" != first.result(PATIENCE)
    assert "theirs_0" == second.result(PATIENCE)


async def test_a_batcher_on_a_loop_uses_the_new_executor(pool):
    """An asyncio batcher of a ``def`` function switches between its own threads and an executor."""
    batcher = AsyncMicrobatcher(lambda items: [threading.current_thread().name for _ in items], name="ours")
    names = []
    for executor in (None, BatchExecutor(pool), None):
        batcher._change({"executor": executor})
        names.append(await asyncio.wait_for(batcher.submit(1), PATIENCE))
    await batcher.stop()
    assert ["ours-0_0", "theirs_0", "ours-0_0"] == names


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_cancelled_by_its_executor_is_aborted(kind):
    """Callers whose batch is cancelled in the executor get a ``BatchAbortedError``, because they did not cancel it."""
    calls = []

    class Lazy(Executor):
        def submit(self, fn, /, *args, **kwargs):
            calls.append(Future())
            threading.Timer(0, calls[-1].cancel).start()
            return calls[-1]

    expected = "the Lazy was shut down before the batch was done; close the batcher before its executor"
    with by_class(kind, doubled, Lazy()) as submit_many, pytest.raises(BatchAbortedError, match=expected):
        submit_many([1])


async def test_an_abandoned_batch_is_cancelled_in_the_executor(pool):
    """On a loop, a batch without callers is cancelled in an executor that has not started it."""
    gate = threading.Event()
    pool.submit(gate.wait, PATIENCE)
    ran = []
    batcher = AsyncMicrobatcher(ran.append, executor=pool, batch_wait_timeout_s=None)
    caller = asyncio.ensure_future(batcher.submit(1))
    await until(lambda: batcher.stats.running)
    caller.cancel()
    await asyncio.wait([caller])
    await until(lambda: not batcher.stats.running)
    gate.set()
    pool.submit(int).result(PATIENCE)
    assert [] == ran


@pytest.mark.parametrize("has_executor", [True, False])
async def test_an_abandoned_batch_keeps_its_slot(has_executor):
    """On a loop, the slot of a batch that all its callers left is free only when its thread is."""
    has_begun, gate, ran = threading.Event(), threading.Event(), []

    def block(items):
        ran.extend(items)
        has_begun.set()
        assert gate.wait(PATIENCE)
        raise ValueError(items)

    with Pool(2) as pool:
        batcher = AsyncMicrobatcher(block, batch_wait_timeout_s=None, executor=pool if has_executor else None)
        callers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2)]
        assert await asyncio.to_thread(has_begun.wait, PATIENCE)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        last = asyncio.ensure_future(batcher.submit(3))
        for _ in range(10):
            await asyncio.sleep(0)
        assert ([1, 2], 1) == (ran, batcher.stats.pending)
        gate.set()
        with pytest.raises(ValueError, match="3"):
            await last
        await batcher.stop()


def test_a_loop_may_close_before_its_batch_ends(pool):
    """A result for a closed loop is dropped."""
    gate = threading.Event()

    async def main():
        batcher = AsyncMicrobatcher(
            lambda items: gate.wait(PATIENCE) and items, executor=pool, batch_wait_timeout_s=None
        )
        caller = batcher.submit_many([1])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(caller, 0)

    asyncio.run(main())
    gate.set()
    assert 0 == pool.submit(int).result(PATIENCE)


def test_reports_name_the_executor(pool):
    """A report has the type of the executor."""
    reports = []
    fn = microbatch(doubled, executor=pool, on_batch=reports.append)
    fn(1)
    fn.configure(executor=None)
    fn(1)
    fn.close()
    assert ["Pool", None] == [report.executor for report in reports]


def test_inline_does_not_use_the_executor(pool):
    """With ``inline()``, the caller or its loop runs an item, and the executor runs nothing."""
    fn, on_loop = microbatch(doubled, executor=pool), AsyncMicrobatcher(doubled, executor=pool)
    with inline():
        assert (2, 4) == (fn(1), asyncio.run(on_loop.submit(2)))
    assert 0 == pool.calls


def test_an_executor_for_an_async_function_is_refused(pool):
    """An executor for an ``async def`` function is refused, at decoration and by ``configure()``."""

    async def embed(items):
        return items

    expected = "executor runs def functions, but .*embed is async def and runs on the event loop of its callers"
    with pytest.raises(TypeError, match=expected):
        microbatch(embed, executor=pool)
    with pytest.raises(TypeError, match=expected):
        microbatch(embed).configure(executor=pool)
    with pytest.raises(TypeError, match=expected):
        AsyncMicrobatcher(embed, executor=pool)


def test_isolated_parts_run_in_the_executor(pool):
    """With ``isolate_errors``, the parts of a failed batch also run in the executor."""
    fn = microbatch(
        lambda items: [1 // item for item in items], executor=pool, isolate_errors=True, timeout=3600, max_size=3
    )
    futures = [fn.submit(item) for item in (1, 0, 2)]
    assert [None, ZeroDivisionError, None] == [e and type(e) for e in (f.exception(PATIENCE) for f in futures)]
    assert 5 == pool.calls


# Calls that are sent to other processes.


def call_of(fn, items):
    return LocalCall(fn, Batch(items, [], [], "full", len(items), 0.0))


@microbatch
def squares(numbers):
    return [number * number for number in numbers]


class Model:
    """A class with batch functions of every kind."""

    def __init__(self, factor):
        self.factor = factor

    @microbatch
    def times(self, numbers):
        return [self.factor * number for number in numbers]

    def plain(self, numbers):
        return [self.factor + number for number in numbers]

    @staticmethod
    @microbatch
    def halves(numbers):
        return [number / 2 for number in numbers]

    @microbatch
    @classmethod
    def named(cls, numbers):
        return [cls.__name__] * len(numbers)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (squares.__wrapped__, [4, 9]),
        (Model(10).times.__wrapped__, [20, 30]),
        (Model(10).plain, [12, 13]),
        (Model.halves.__wrapped__, [1, 1.5]),
        (Model.named.__wrapped__, ["Model", "Model"]),
        (doubled, [4, 6]),
        (sorted, [2, 3]),
    ],
    ids=["function", "method", "bound method", "static method", "class method", "undecorated", "builtin"],
)
def test_the_batch_function_is_pickled_by_name(fn, expected):
    """The process that unpickles a batch function finds it by name, however it was decorated."""
    assert expected == pickle.loads(pickle.dumps(call_of(fn, [2, 3])))()  # noqa: S301  # our own bytes


def test_a_missing_function_is_named(monkeypatch):
    """If the other process lacks the function, the error names it."""
    call = pickle.loads(pickle.dumps(call_of(squares.__wrapped__, [2])))  # noqa: S301  # our own bytes
    monkeypatch.delattr(sys.modules[__name__], "squares")
    expected = (
        "the process that runs the batch finds no decorated function squares in test_executors; define it in a "
        "module that can be imported there"
    )
    with pytest.raises(RuntimeError, match=expected) as caught:
        call()
    assert caught.value.__cause__ is None


def test_a_missing_module_is_named(monkeypatch):
    """If the other process cannot import the module, the error names the function, caused by the failed import."""
    call = pickle.loads(pickle.dumps(call_of(squares.__wrapped__, [2])))  # noqa: S301  # our own bytes
    monkeypatch.setitem(sys.modules, __name__, None)
    with pytest.raises(RuntimeError, match="finds no decorated function squares in test_executors;") as caught:
        call()
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_missing_method_is_named(monkeypatch):
    """If the class lacks the method in the other process, the error names the class, and not the instance."""
    call = pickle.loads(pickle.dumps(call_of(Model(10).times.__wrapped__, [2])))  # noqa: S301  # our own bytes
    monkeypatch.delattr(Model, "times")
    with pytest.raises(RuntimeError, match="finds no decorated function times in Model;"):
        call()


def test_a_process_may_forward_a_call_without_its_function(monkeypatch):
    """A process that only forwards a call does not need the function."""
    call = pickle.dumps(call_of(squares.__wrapped__, [2, 3]))
    with monkeypatch.context() as patch:
        patch.delattr(sys.modules[__name__], "squares")
        call = pickle.dumps(pickle.loads(call))  # noqa: S301  # our own bytes
    assert [4, 9] == pickle.loads(call)()  # noqa: S301  # our own bytes


def test_the_representation_of_a_call_hides_its_items():
    """The representation of a call shows no items, before or after pickling."""
    call = call_of(squares.__wrapped__, ["private"])
    unpickled = pickle.loads(pickle.dumps(call))  # noqa: S301  # our own bytes
    assert "private" not in repr(call) + repr(unpickled)


def test_an_executor_gets_no_options_of_the_batch_function():
    """Options of a batch function do not reach the executor, even if its ``submit`` has the same names."""
    seen = []

    class Prioritizing(Executor):
        def submit(self, fn, /, *args, priority=0):
            seen.append((fn.__name__, args, priority))
            future = Future()
            future.set_result(fn())
            return future

    @microbatch(executor=Prioritizing())
    def urgent(items, *, priority):
        return [(item, priority) for item in items]

    assert (1, 7) == urgent(1, priority=7)
    assert [("urgent", (), 0)] == seen


def test_the_current_batch_is_pickled_with_the_call():
    """Another process has the look batch too, without the contexts of the callers."""
    seen = []

    class Copying(Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_result(pickle.loads(pickle.dumps(fn))(*args, **kwargs))  # noqa: S301  # our own bytes
            return future

    look = microbatch(look_around, executor=Copying(), capture_context=True, name="look")
    seen = look(1)
    assert ("look", 1, "idle", (), None) == seen
    assert (None, None) == pickle.loads(pickle.dumps(call_of(look_around, [1])))()[0]  # noqa: S301  # our own bytes


def look_around(items):
    current = batchify.current_batch()
    if current is None:
        return [(None, request.get())]
    # Inside a batch in another process, a call of another function works.
    assert [1] == squares.map([1])
    return [(current.name, current.size, current.reason, current.contexts, request.get())] * len(items)


MODULE = """
    import os, signal
    from batchify import current_batch, microbatch

    @microbatch(max_size=4, timeout=3600)
    def score(numbers, *, factor=1):
        return [(factor * number, os.getpid(), current_batch().size) for number in numbers]

    @microbatch(timeout=None)
    def die(items):
        os.kill(os.getpid(), signal.SIGKILL)

    class Model:
        halves = staticmethod(microbatch(lambda numbers: [number / 2 for number in numbers]))

        def __init__(self, bias):
            self.bias = bias

        @microbatch(max_size=2, timeout=3600)
        def predict(self, numbers):
            return [self.bias + number for number in numbers]
"""
MAIN = """
    import multiprocessing, os, sys
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    import theirs
    from batchify import microbatch

    @microbatch(max_size=2, timeout=3600)
    def of_main(items):
        return [-item for item in items]

    def new_pool():
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(sys.argv[1]))

    if __name__ == "__main__":
        with new_pool() as pool:
            for fn in (theirs.score, theirs.die, theirs.Model.predict, of_main):
                fn.configure(executor=pool)
            answers = theirs.score.map(range(4), factor=3)
            assert [0, 3, 6, 9] == [answer[0] for answer in answers]
            assert {4} == {answer[2] for answer in answers}
            assert os.getpid() not in {answer[1] for answer in answers}
            assert [11, 12] == theirs.Model(10).predict.map([1, 2])
            assert [-1, -2] == of_main.map([1, 2])
            try:
                theirs.die(1)
            except BrokenProcessPool:
                print("died")
            futures = [theirs.score.submit(number) for number in range(4)]
            assert [BrokenProcessPool] * 4 == [type(future.exception(30)) for future in futures]
        with new_pool() as pool:
            theirs.score.configure(executor=pool)
            assert [0, 1, 2, 3] == [answer[0] for answer in theirs.score.map(range(4))]
        print("done")
"""


def run_script(folder, source, *args):
    (folder / "theirs.py").write_text(dedent(MODULE))
    (folder / "main.py").write_text(dedent(source))
    done = processes.run("-W", "error", "main.py", *args, cwd=folder)
    return done.returncode, done.stdout.split(), done.stderr


@pytest.mark.skipif(os.name != "posix", reason="processes are killed by signal")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_pool_runs_functions_and_methods(tmp_path, method):
    """A process pool runs functions and methods. If a process dies, all callers get the error; a new pool works."""
    assert (0, ["died", "done"], "") == run_script(tmp_path, MAIN, method)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pool_of_forked_processes_runs_functions_and_methods(tmp_path):
    """The same holds for forked processes, though newer Pythons warn about the worker thread."""
    source = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + dedent(MAIN)
    assert (0, ["died", "done"], "") == run_script(tmp_path, source, "fork")


@pytest.mark.parametrize("imported", ["before", "after"])
@pytest.mark.parametrize("kind", ["ThreadPoolExecutor(1)", "ProcessPoolExecutor(1, mp_context=get_context('spawn'))"])
def test_calls_are_answered_when_the_process_exits(tmp_path, kind, imported):
    """A process that exits answers submitted calls before its executor ends, in either import order."""
    imports = """
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        from multiprocessing import get_context
    """
    body = f"""
        import theirs

        if __name__ == "__main__":
            theirs.Model.halves(1)
            theirs.score.configure(executor={kind})
            # Python 3.12 starts no thread at exit, not even for an executor, so the executor needs its thread before.
            theirs.score.map(range(4))
            for number in range(3):
                theirs.score.submit(number).add_done_callback(lambda future: print(future.result()[0], flush=True))
    """
    parts = [dedent(imports), "from batchify import microbatch\n"]
    source = "".join(parts if imported == "before" else reversed(parts)) + dedent(body)
    assert (0, ["0", "1", "2"], "") == run_script(tmp_path, source)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_use_the_executor(tmp_path):
    """In the child of a fork, a call is refused instead of waiting for threads of the parent."""
    source = """
        import os, warnings
        from concurrent.futures import ThreadPoolExecutor
        from batchify import microbatch

        warnings.simplefilter("ignore", DeprecationWarning)

        @microbatch(executor=ThreadPoolExecutor(1))
        def double(items):
            return [2 * item for item in items]

        def write(value):
            # In one step, because both processes write to one pipe.
            os.write(1, f"{value}\\n".encode())

        assert 2 == double(1)
        child = os.fork()
        try:
            write(double(2))
        except RuntimeError as error:
            write("ThreadPoolExecutor" in str(error))
            double.configure(executor=ThreadPoolExecutor(1))
            write(double(3))
        if child:
            assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    """
    code, printed, errors = run_script(tmp_path, source)
    assert (0, ["4", "6", "True"], "") == (code, sorted(printed), errors)


def test_a_broken_pool_fails_all_calls_on_a_loop(tmp_path):
    """On an event loop, all callers of a batch get the error of the pool if its process dies."""
    source = """
        import asyncio, multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from batchify import AsyncMicrobatcher
        import theirs

        async def main():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                batcher = AsyncMicrobatcher(theirs.die.__wrapped__, executor=pool)
                calls = [batcher.submit(number) for number in range(3)]
                print(*{type(error).__name__ for error in await asyncio.gather(*calls, return_exceptions=True)})

        if __name__ == "__main__":
            asyncio.run(main())
    """
    assert (0, ["BrokenProcessPool"], "") == run_script(tmp_path, source)


def test_the_exit_hook_is_registered_once(monkeypatch):
    """For all executors of one type, the exit hook is registered once."""
    registered = []
    monkeypatch.setattr("batchify._threads.shutdown._register_atexit", registered.append)

    class Own(Refusing):
        pass

    double = microbatch(doubled, executor=Own())
    for _ in range(3):
        double.configure(executor=Own())
    assert [_drain_executors] == registered


async def test_an_executor_whose_submit_blocks(pool, monkeypatch):
    """While ``submit`` of the executor blocks, other callers queue their items, and an event loop stays free."""
    entered, free = threading.Event(), threading.Event()
    submit = pool.submit

    def submit_late(call):
        entered.set()
        assert free.wait(PATIENCE)
        return submit(call)

    monkeypatch.setattr(pool, "submit", submit_late)
    double = microbatch(doubled, executor=pool)
    first = double.submit(1)
    assert entered.wait(PATIENCE)
    second = double.submit(2)
    third = asyncio.ensure_future(double.acall(3))
    await until(lambda: 2 == double.batch_stats.pending)
    assert not first.done()
    free.set()
    assert [2, 4, 6] == [first.result(PATIENCE), second.result(PATIENCE), await third]
