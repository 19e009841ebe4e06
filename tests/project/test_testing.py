"""The test kit: calls without batching, a record of batches, and virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time
from functools import partial

import pytest

import batchify
from batchify import AsyncMicrobatcher, SyncMicrobatcher, current_batch, microbatch
from batchify.testing import RecordedBatch, Recorder, VirtualLoop, inline, record, run
from tests.kit import processes
from tests.kit.engines import doubled, wait_until
from tests.kit.examples import EXAMPLES

# Options that change what the queue holds for an item.
OPTIONS = [
    {"max_pending": 1},
    {"max_pending": 1, "on_full": "raise"},
    {"dedupe": True},
    {"group_by": bool},
    {"weigh": abs, "max_weight": 9},
    {"capture_context": True},
    {"capture_context": True, "dedupe": True, "max_pending": 1},
]
# A long window: a test that waits for it takes too long.
window = partial(microbatch, timeout=3600)


def whose_thread(items):
    return [threading.get_ident()] * len(items)


async def whose_task(items):
    return [asyncio.current_task()] * len(items)


async def plain_doubled(items):
    return doubled(items)


class TestInlineThreads:
    """Calls that run in their caller's thread."""

    @pytest.fixture(autouse=True)
    def _inline(self):
        with inline():
            yield

    def test_a_call_runs_in_its_own_thread(self):
        """The batch function runs in the thread of the call, and no thread is started."""
        before = threading.active_count()
        assert threading.get_ident() == window(whose_thread)(1)
        assert before == threading.active_count()

    def test_every_kind_of_call_is_answered_at_once(self):
        """``submit`` returns a future that is done, and ``map`` runs one batch for each item."""
        fn = window(doubled, max_size=8)
        assert (2, 4, [6, 8]) == (fn(1), fn.submit(2).result(0), fn.map([3, 4]))
        assert {1: 4} == fn.batch_stats.size_histogram

    async def test_acall_runs_in_the_thread_of_the_loop(self):
        """``acall`` runs a ``def`` function in the thread of the event loop."""
        assert threading.get_ident() == await window(whose_thread).acall(1)

    def test_columns_options_and_instances_work(self):
        """Several columns, options and instances work."""

        class Scale:
            @window
            def of(self, xs, ys, *, by=1):
                return [(self, x, y, by) for x, y in zip(xs, ys, strict=True)]

        scale = Scale()
        assert [(scale, 1, 2, 3), (scale, 1, 2, 1)] == [scale.of(1, 2, by=3), scale.of(1, 2)]

    def test_the_class_works(self):
        """The engine class is inline, too."""
        with SyncMicrobatcher(whose_thread, batch_wait_timeout_s=3600) as batcher:
            assert [threading.get_ident()] * 2 == batcher.submit_many([1, 2])

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (lambda items: {}[items[0]], KeyError),
            (lambda items: [ValueError("bad")], ValueError),
            (lambda items: [], batchify.BatchResultError),
        ],
        ids=["raised", "returned", "wrong length"],
    )
    def test_errors_are_the_same(self, answer, error):
        """The caller gets the error that it would get from a batch of one."""
        with pytest.raises(error):
            window(answer)(1)

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    async def test_options_of_the_queue_make_no_difference(self, options):
        """With every option there is room, and equal items do not share a run."""
        fn = window(doubled, **options)
        with record() as recorder:
            assert (2, [4, 4], 6) == (fn(1), fn.map([2, 2]), await fn.acall(3))
        assert [(1,), (2,), (2,), (3,)] == [batch.items for batch in recorder.batches]

    def test_weights_are_checked(self):
        """An item heavier than ``max_weight`` is refused."""
        with pytest.raises(ValueError, match="more than max_weight"):
            window(doubled, weigh=abs, max_weight=5)(6)

    def test_a_call_from_its_own_batch_is_refused(self):
        """A batch function that calls itself gets the usual error."""
        fn = window(lambda items: [fn(items[0])])
        with pytest.raises(batchify.ReentrantCallError):
            fn(1)

    def test_a_closed_function_refuses_calls(self):
        """A function can be flushed and closed, and then refuses calls."""
        fn = window(doubled)
        assert 2 == fn(1)
        fn.flush()
        fn.close()
        with pytest.raises(batchify.BatcherClosedError):
            fn(1)

    def test_a_configured_function_stays_inline(self):
        """A function whose options are changed still runs batches of one."""
        fn = window(whose_thread)
        assert threading.get_ident() == fn(1)
        fn.configure(max_size=5, timeout=3600, concurrency=1)
        assert threading.get_ident() == fn(1)

    def test_a_batch_runs_in_a_neutral_context(self):
        """The batch function sees its batch, but no context variable of its caller."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("set")
        fn = window(lambda items: [(current_batch(), variable.get())], name="fn")
        assert (batchify.CurrentBatch("fn", 1, "full", slot=0), "unset") == fn(1)

    def test_threads_run_side_by_side(self):
        """Several threads that call together each run their own item."""
        barrier = threading.Barrier(4)
        fn = window(lambda items: [(barrier.wait(5) * 0, threading.get_ident())])
        seen = []
        threads = [threading.Thread(target=lambda: seen.append(fn(1) == (0, threading.get_ident()))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [True] * 4 == seen


class TestInlineTasks:
    """Calls that run in a task on their caller's loop."""

    @pytest.fixture(autouse=True)
    def _inline(self):
        with inline():
            yield

    async def test_a_call_runs_in_a_task_of_its_own(self, moment):
        """The batch function runs at once, in a task of its own on the caller's loop."""
        task = await window(whose_task)(1)
        assert (True, asyncio.get_running_loop()) == (task is not asyncio.current_task(), task.get_loop())
        assert 0 == moment()

    async def test_calls_run_side_by_side(self, moment):
        """Tasks do not wait for each other, whatever ``concurrency`` is."""

        async def slow(items):
            await asyncio.sleep(1)
            return doubled(items)

        assert [2, 4, 6] == await asyncio.gather(*map(window(slow), [1, 2, 3]))
        assert 1 == moment()

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    async def test_options_of_the_queue_make_no_difference(self, options):
        """With every option there is room."""
        fn = window(plain_doubled, **options)
        with record() as recorder:
            assert (2, [4, 6], 8) == (await fn(1), await fn.map([2, 3]), await fn.submit(4))
        assert [(1,), (2,), (3,), (4,)] == [batch.items for batch in recorder.batches]

    async def test_equal_items_do_not_share_a_run(self):
        """Each of two equal items that are queued together is a batch of one."""
        fn = window(plain_doubled, dedupe=True)
        assert [2, 2] == await fn.map([1, 1])
        assert {1: 2} == fn.batch_stats.size_histogram

    async def test_a_future_that_no_task_awaits_is_answered(self):
        """The items of ``submit()`` and ``map()`` run in tasks of their own."""
        fn = window(whose_task)
        future = fn.submit(1)
        await asyncio.wait([future])
        assert 3 == len({asyncio.current_task(), future.result(), *await fn.map([2])})

    async def test_a_def_function_runs_on_the_loop(self):
        """A ``def`` function of an async batcher gets no thread."""
        async with AsyncMicrobatcher(whose_thread) as batcher:
            assert threading.get_ident() == await batcher.submit(1)
        async with AsyncMicrobatcher(lambda items: {}[0]) as batcher:
            with pytest.raises(KeyError):
                await batcher.submit(1)

    async def test_a_configured_function_stays_inline(self):
        """A function whose options are changed still runs batches of one."""
        fn = window(plain_doubled)
        await fn(1)
        fn.configure(max_size=5, timeout=3600, concurrency=1)
        assert [2, 4] == await asyncio.gather(fn(1), fn(2))
        assert {1: 3} == fn.batch_stats.size_histogram

    async def test_a_batch_runs_in_a_neutral_context(self):
        """Before and after an await, the batch function sees no context variable of its caller."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("set")

        async def look(items):
            before = variable.get()
            await asyncio.sleep(1)
            return [(before, variable.get(), current_batch().size)]

        assert ("unset", "unset", 1) == await window(look)(1)
        assert current_batch() is None

    async def test_an_error_is_copied_for_its_caller(self):
        """The caller gets a copy of the error, raised from the original."""
        original = KeyError("no")

        async def fail(items):
            raise original

        with pytest.raises(KeyError) as caught:
            await window(fail)(1)
        assert original is caught.value.__cause__

    async def test_a_cancelled_caller_cancels_its_batch(self):
        """A caller that times out cancels its batch, and counts as cancelled."""
        ended = []

        async def slow(items):
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(items)

        fn = window(slow)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(fn(1), 1)
        await asyncio.sleep(0)
        assert ([[1]], 1, 0) == (ended, fn.batch_stats.cancelled_items, fn.batch_stats.failed_items)

    async def test_a_batch_may_outlive_its_cancelled_caller(self):
        """The caller of a batch function that ignores its cancellation stays cancelled."""

        async def stubborn(items):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(10)
            return doubled(items)

        caller = asyncio.ensure_future(window(stubborn)(1))
        await asyncio.sleep(1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    async def test_a_batch_that_cancels_itself_is_aborted(self):
        """A batch that cancels itself does not cancel its caller."""

        async def cancel(items):
            raise asyncio.CancelledError

        with pytest.raises(batchify.BatchAbortedError):
            await window(cancel)(1)

    def test_an_exit_leaves_the_loop(self, caplog):
        """``SystemExit`` is raised out of the loop, and asyncio logs nothing about an unread future."""

        async def leave(items):
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            run(window(leave)(1))
        gc.collect()
        assert [] == caplog.messages

    async def test_a_closed_caller_cancels_its_batch(self):
        """When the coroutine of a call is closed while its batch runs, the batch is cancelled."""
        ended = []

        async def slow(items):
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(items)

        caller = window(slow)(1)
        caller.send(None)
        await asyncio.sleep(1)
        caller.close()
        await asyncio.sleep(1)
        assert [[1]] == ended


class TestInline:
    """How batchers change to inline engines and back."""

    def test_a_batcher_continues_where_it_was(self):
        """Before and after, a function has the same thread and counters; inside, it counts from zero."""
        fn = microbatch(whose_thread)
        worker = fn(1)
        with inline():
            assert threading.get_ident() == fn(2)
            fn.close()
            assert 1 == fn.batch_stats.total_items
        assert worker == fn(3)
        assert 2 == fn.batch_stats.total_items

    def test_a_class_ends_where_it_began(self):
        """Inside, the statistics of a class start at zero; afterwards they are as before, and count on."""

        class Model:
            @microbatch
            def double(self, items):
                return [2 * item for item in items]

        models = [Model(), Model()]
        models[0].double(1)
        with inline():
            assert 0 == Model.double.batch_stats.total_items
            assert [2, 4, 6] == [model.double(item) for item, model in enumerate([*models, Model()], 1)]
            assert 3 == Model.double.batch_stats.total_items
        assert 1 == Model.double.batch_stats.total_items
        assert [4, 4] == [model.double(2) for model in models]
        assert [2, 1, 3] == [fn.batch_stats.total_items for fn in (models[0].double, models[1].double, Model.double)]
        Model.double.close()

    def test_a_function_first_used_inside_works_outside(self):
        """A function that was first called, and closed, inside is open and unused outside."""
        fn = microbatch(whose_thread)
        with inline():
            fn(1)
            fn.close()
        assert threading.get_ident() != fn(2)
        assert 1 == fn.batch_stats.total_items

    def test_nesting_does_nothing(self):
        """The end of an inner ``inline()`` does not end the outer one."""
        fn = microbatch(whose_thread)
        with inline():
            fn(1)
            with inline():
                fn(2)
            assert threading.get_ident() == fn(3)
            assert 3 == fn.batch_stats.total_items

    def test_it_ends_with_an_error_too(self):
        """A failing test does not leave other tests inline."""
        with pytest.raises(KeyError), inline():
            raise KeyError
        assert threading.get_ident() != microbatch(whose_thread)(1)

    async def test_waiting_calls_end_as_they_began(self, moment):
        """A call that is under way keeps its window and its batch."""
        fn = microbatch(plain_doubled, timeout=5, name="double")
        waiting = [fn.submit(1), fn.submit(2)]
        with inline():
            assert 6 == await fn(3)
            assert (0, [2, 4], 5) == (moment(), await asyncio.gather(*waiting), 5)
        assert {2: 1} == fn.batch_stats.size_histogram


class TestRecord:
    """The record of batches that run."""

    async def test_it_has_every_batch_with_its_reason(self):
        """The record has every batch in order, with its name, its items, its size and its reason."""
        fn = microbatch(plain_doubled, max_size=2, timeout=1, name="double")
        with record() as recorder:
            await asyncio.gather(*map(fn, [1, 2, 3]))
        assert recorder.batches == [
            RecordedBatch(name="double", items=(1, 2), reason="full"),
            RecordedBatch(name="double", items=(3,), reason="timeout"),
        ]
        assert [2, 1] == [batch.size for batch in recorder.batches]

    def test_it_shows_itself(self):
        """``repr`` shows code that creates the record, and ``print`` shows one batch on each line."""
        recorder = Recorder()
        recorder._note("double", (1, 2), "full")
        recorder._note("halve", (3,), "idle")
        assert repr(recorder) == (
            "Recorder(batches=[RecordedBatch(name='double', items=(1, 2), reason='full'), "
            "RecordedBatch(name='halve', items=(3,), reason='idle')])"
        )
        assert "double: 2, full: (1, 2)\nhalve: 1, idle: (3,)" == str(recorder)

    @pytest.mark.parametrize("options", [{}, {"capture_context": True}])
    def test_items_are_those_of_the_callers(self, options):
        """A record has items without options and contexts, and the batch function may change its own list."""

        def drain(xs, ys, *, k=1):
            found = [(xs.pop(), ys.pop(), k) for _ in range(len(xs))]
            return found[::-1]

        fn = microbatch(drain, **options)
        with record() as recorder:
            assert ("a", "b", 2) == fn("a", "b", k=2)
        assert [(("a", "b"),)] == [batch.items for batch in recorder.batches]

    def test_inline_calls_are_recorded(self):
        """``inline()`` and ``record()`` work together."""
        with inline(), record() as recorder:
            microbatch(doubled, name="double").map([1, 2])
        assert [RecordedBatch("double", (1,), "full"), RecordedBatch("double", (2,), "full")] == recorder.batches

    def test_it_begins_and_ends(self):
        """Batches before and after a record are not in it, and a batch inside two records is in both."""
        fn = microbatch(doubled)
        fn(1)
        with record() as outer:
            fn(2)
            with record() as inner:
                fn(3)
        fn(4)
        assert ([(2,), (3,)], [(3,)]) == tuple([batch.items for batch in seen.batches] for seen in (outer, inner))


class TestVirtualTime:
    """The event loop on which timers take no time."""

    def test_time_passes_in_leaps(self):
        """Timers fire in order, each at its own time, without real waiting."""
        seen = []

        async def sleeper(seconds):
            await asyncio.sleep(seconds)
            seen.append(asyncio.get_running_loop().time())

        async def main():
            await asyncio.gather(*map(sleeper, [3600, 0.1, 0.3, 0.2, 0]))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.1)
            return asyncio.get_running_loop().time(), asyncio.get_running_loop().leaps

        began = time.monotonic()
        assert (3600.1, 5) == run(main())
        assert [0, 0.1, 0.2, 0.3, 3600] == seen
        assert 5 > time.monotonic() - began

    def test_steps_add_up(self):
        """Ten sleeps of a tenth of a second take exactly one second."""

        async def main():
            for _ in range(10):
                await asyncio.sleep(0.1)
            return asyncio.get_running_loop().time()

        assert 1.0 == run(main())

    @pytest.mark.parametrize("at", [8.649333833333333, 0.1 + 0.2, 1 / 3, 2 / 3])
    def test_no_timer_is_early(self, at):
        """A timer never fires before its time, whatever digits that has."""

        async def main():
            loop = asyncio.get_running_loop()
            came = loop.create_future()
            loop.call_at(at, lambda: came.set_result(loop.time()))
            return await came

        assert at <= run(main())

    def test_a_hang_is_an_error_at_once(self, monkeypatch):
        """When nothing can happen any more, the loop raises an error that names the waiting tasks."""
        monkeypatch.setattr(threading, "active_count", lambda: 1)

        async def wait_for_ever():
            await asyncio.Event().wait()

        async def main():
            await asyncio.create_task(wait_for_ever(), name="forlorn")

        began = time.monotonic()
        with pytest.raises(RuntimeError) as caught:
            run(main())
        assert str(caught.value).startswith("hang: no timer, thread or file is going to wake the event loop; waiting: ")
        assert f"forlorn in wait_for_ever(), line {wait_for_ever.__code__.co_firstlineno + 1}" in str(caught.value)
        assert 1 > time.monotonic() - began

    def test_a_hang_without_tasks_is_an_error(self):
        """A loop that runs for ever with nothing to do raises an error."""
        loop = VirtualLoop(patience=0.01)
        with pytest.raises(RuntimeError, match=r"waiting: no task$"):
            loop.run_forever()
        loop.close()

    def test_a_thread_that_takes_too_long_is_a_hang(self):
        """After its patience, a loop without timers gives up, and its error does not deny the thread."""
        loop = VirtualLoop(patience=0.01)
        gate = threading.Event()
        with pytest.raises(
            RuntimeError, match=r"hang: nothing has woken the event loop in the 0.01 s of its patience;"
        ):
            loop.run_until_complete(loop.run_in_executor(None, gate.wait, 5))
        gate.set()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def test_threads_may_wake_the_loop(self):
        """A loop without timers waits for other threads."""
        loop = VirtualLoop()
        thread = threading.Timer(0.01, lambda: loop.call_soon_threadsafe(loop.stop))
        thread.start()
        loop.run_forever()
        thread.join()
        loop.close()

    def test_time_waits_for_its_own_threads(self):
        """The clock does not leap past a timeout while a thread of the loop's executor runs."""

        async def main():
            await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.01), 0.001)
            return asyncio.get_running_loop().time()

        assert 0 == run(main())

    def test_patience_with_its_own_threads_ends(self):
        """When a thread waits for a timer, the clock goes on after ``patience`` seconds."""
        loop = VirtualLoop(patience=0.01)
        gate = threading.Event()
        loop.call_later(1, gate.set)
        assert loop.run_until_complete(loop.run_in_executor(None, gate.wait, 5))
        loop.run_until_complete(loop.shutdown_default_executor())
        assert 1 == loop.time()
        loop.close()

    def test_run_cleans_up(self):
        """``run()`` cancels tasks, closes generators, ends threads and closes the loop."""
        ended = []

        async def numbers():
            try:
                yield 1
            finally:
                ended.append("generator")

        async def forever():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("task")

        async def main():
            ended.append(asyncio.create_task(forever()))
            generator = numbers()
            ended.append((generator, await generator.__anext__()))
            return asyncio.get_running_loop()

        loop = run(main())
        assert ["task", "generator"] == ended[2:]
        assert loop.is_closed()

    def test_run_raises_the_error_of_its_coroutine(self):
        """An error of the coroutine reaches the test."""

        async def fail():
            raise KeyError

        with pytest.raises(KeyError):
            run(fail())

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner is new in Python 3.11")
    def test_it_is_a_loop_factory(self):
        """``asyncio.Runner`` accepts it."""
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(asyncio.sleep(3600))

    async def test_windows_take_no_time(self, moment):
        """A batch leaves exactly when its window ends."""
        assert 2 == await window(plain_doubled)(1)
        assert 3600 == moment()


def pytest_run(path, mode):
    """Run pytest in a process of its own, with batchify installed."""
    scope = "asyncio_default_fixture_loop_scope=function"
    options = ["-o", mode, "-o", scope] if mode else ["-p", "no:asyncio"]
    command = ["-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *options]
    return processes.run(*command, path.name, cwd=path.parent)


class TestPlugin:
    """The fixtures that pytest finds, with pytest-asyncio and without."""

    @pytest.mark.parametrize("mode", ["asyncio_mode=strict", "asyncio_mode=auto", None])
    def test_the_example_passes(self, mode, tmp_path):
        """All tests of the example pass in virtual time."""
        path = tmp_path / "test_prices.py"
        path.write_text((EXAMPLES / path.name).read_text(encoding="utf-8"), encoding="utf-8")
        done = pytest_run(path, mode)
        assert "3 passed" in done.stdout, done.stdout
        assert "" == done.stderr

    @pytest.mark.parametrize("mode", ["asyncio_mode=strict", "asyncio_mode=auto", None])
    def test_a_hang_fails(self, mode, tmp_path):
        """A test that waits for ever fails with an error."""
        path = tmp_path / "test_hang.py"
        path.write_text(
            "import asyncio\nasync def test_hang(batchify_virtual_time):\n    await asyncio.Event().wait()\n",
            encoding="utf-8",
        )
        done = pytest_run(path, mode)
        assert "RuntimeError: hang: no timer, thread or file is going to wake the event loop" in done.stdout
        assert "1 failed" in done.stdout

    @pytest.mark.parametrize("mode", ["asyncio_mode=auto", None])
    def test_parameters_need_not_be_fixtures(self, mode, tmp_path):
        """A test in virtual time may have parameters with defaults and parameters that ``mock.patch`` passes."""
        path = tmp_path / "test_parameters.py"
        path.write_text(
            "import os\n"
            "from unittest.mock import patch\n"
            "@patch('os.getcwd')\n"
            "async def test_patch(getcwd, batchify_virtual_time):\n"
            "    assert os.getcwd is getcwd\n"
            "async def test_default(batchify_virtual_time, n=3):\n"
            "    assert n == 3\n",
            encoding="utf-8",
        )
        assert "2 passed" in pytest_run(path, mode).stdout

    @pytest.mark.parametrize("mode", ["asyncio_mode=strict", "asyncio_mode=auto"])
    def test_other_tests_keep_their_loop(self, mode, tmp_path):
        """A test that does not ask for virtual time runs on its usual event loop."""
        path = tmp_path / "test_other.py"
        path.write_text(
            "import asyncio, pytest\n"
            "@pytest.mark.asyncio\n"
            "async def test_other():\n"
            "    assert 'Virtual' not in type(asyncio.get_running_loop()).__name__\n"
            "def test_plain(): pass\n",
            encoding="utf-8",
        )
        assert "2 passed" in pytest_run(path, mode).stdout


def test_unknown_names():
    """A name that the package does not have is an ``AttributeError``, as for any module."""
    with pytest.raises(AttributeError, match=r"^module 'batchify\.testing' has no attribute 'replay'$"):
        _ = batchify.testing.replay


def test_nothing_is_left_inline():
    """After all these tests, a function runs in a thread of its own."""
    fn = microbatch(whose_thread)
    assert threading.get_ident() != fn(1)
    fn.close()
    wait_until(lambda: not fn.batch_stats.running)
