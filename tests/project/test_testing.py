"""The test kit: calls without batching, a record of what left, and virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

import batchify
from batchify import AsyncMicrobatcher, SyncMicrobatcher, current_batch, microbatch
from batchify.testing import RecordedBatch, Recorder, VirtualLoop, inline, record, run
from tests.kit.engines import doubled, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
# What calls may ask for, each with what it makes stand in the line.
DEMANDS = [
    {"max_pending": 1},
    {"max_pending": 1, "on_full": "raise"},
    {"dedupe": True},
    {"group_by": bool},
    {"weigh": abs, "max_weight": 9},
    {"capture_context": True},
    {"capture_context": True, "dedupe": True, "max_pending": 1},
]
# Long windows: who waits for one fails by the time it took.
window = partial(microbatch, timeout=3600)


def whose_thread(items):
    return [threading.get_ident()] * len(items)


async def whose_task(items):
    return [asyncio.current_task()] * len(items)


async def plain_doubled(items):
    return doubled(items)


class TestInlineThreads:
    """What is run by its own caller, in a thread."""

    @pytest.fixture(autouse=True)
    def _inline(self):
        with inline():
            yield

    def test_a_call_runs_in_its_own_thread(self):
        """The batch function runs in the thread of the call, and no other one is started."""
        before = threading.active_count()
        assert threading.get_ident() == window(whose_thread)(1)
        assert before == threading.active_count()

    def test_all_ways_to_call_are_answered_at_once(self):
        """A future is done when it is handed out, and a list of items is as many batches."""
        fn = window(doubled, max_size=8)
        assert (2, 4, [6, 8]) == (fn(1), fn.submit(2).result(0), fn.map([3, 4]))
        assert {1: 4} == fn.batch_stats.size_histogram

    async def test_acall_runs_in_the_thread_of_the_loop(self):
        """A coroutine of a plain function runs it on the event loop."""
        assert threading.get_ident() == await window(whose_thread).acall(1)

    def test_columns_options_and_instances_work(self):
        """What a call is made of, and what it is made on, makes no difference."""

        class Scale:
            @window
            def of(self, xs, ys, *, by=1):
                return [(self, x, y, by) for x, y in zip(xs, ys, strict=True)]

        scale = Scale()
        assert [(scale, 1, 2, 3), (scale, 1, 2, 1)] == [scale.of(1, 2, by=3), scale.of(1, 2)]

    def test_the_class_works(self):
        """The engine as a class is inline as well."""
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
    def test_what_goes_wrong_is_told_as_otherwise(self, answer, error):
        """The caller gets what it would get from a batch of one."""
        with pytest.raises(error):
            window(answer)(1)

    @pytest.mark.parametrize("options", DEMANDS, ids=str)
    async def test_what_calls_ask_for_makes_no_difference(self, options):
        """There is always room, and nothing to share, whatever else stands in the line for an item."""
        fn = window(doubled, **options)
        with record() as recorder:
            assert (2, [4, 4], 6) == (fn(1), fn.map([2, 2]), await fn.acall(3))
        assert [(1,), (2,), (2,), (3,)] == [batch.items for batch in recorder.batches]

    def test_what_an_item_asks_for_is_checked(self):
        """An item that is too heavy is refused."""
        with pytest.raises(ValueError, match="more than max_weight"):
            window(doubled, weigh=abs, max_weight=5)(6)

    def test_a_call_from_its_own_batch_is_refused(self):
        """A batch function that calls itself is told so, though it could go on for a while."""
        fn = window(lambda items: [fn(items[0])])
        with pytest.raises(batchify.ReentrantCallError):
            fn(1)

    def test_a_closed_function_takes_no_more(self):
        """Closing works, and finds nothing that waits."""
        fn = window(doubled)
        assert 2 == fn(1)
        fn.flush()
        fn.close()
        with pytest.raises(batchify.BatcherClosedError):
            fn(1)

    def test_a_change_of_options_makes_no_larger_batches(self):
        """A function that is configured is inline still."""
        fn = window(whose_thread)
        assert threading.get_ident() == fn(1)
        fn.configure(max_size=5, timeout=3600, concurrency=1)
        assert threading.get_ident() == fn(1)

    def test_a_batch_sees_itself_and_nothing_of_its_caller(self):
        """The batch function is told of its batch, and runs in a neutral context, as otherwise."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("set")
        fn = window(lambda items: [(current_batch(), variable.get())], name="fn")
        assert (batchify.CurrentBatch("fn", 1, "full"), "unset") == fn(1)

    def test_threads_run_side_by_side(self):
        """Each of several threads that call at once runs its own item."""
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
    """What is run by its own caller, in a task."""

    @pytest.fixture(autouse=True)
    def _inline(self):
        with inline():
            yield

    async def test_a_call_runs_in_its_own_task(self, moment):
        """The batch function runs in the task that awaits it, before anything else happens."""
        assert asyncio.current_task() is await window(whose_task)(1)
        assert 0 == moment()

    async def test_calls_run_side_by_side(self, moment):
        """Tasks do not wait for each other, whatever ``concurrency`` says."""

        async def slow(items):
            await asyncio.sleep(1)
            return doubled(items)

        assert [2, 4, 6] == await asyncio.gather(*map(window(slow), [1, 2, 3]))
        assert 1 == moment()

    @pytest.mark.parametrize("options", DEMANDS, ids=str)
    async def test_what_calls_ask_for_makes_no_difference(self, options):
        """There is always room, whatever else stands in the line for an item."""
        fn = window(plain_doubled, **options)
        with record() as recorder:
            assert (2, [4, 6], 8) == (await fn(1), await fn.map([2, 3]), await fn.submit(4))
        assert [(1,), (2,), (3,), (4,)] == [batch.items for batch in recorder.batches]

    async def test_what_is_queued_together_is_deduplicated(self):
        """Equal items that wait for the end of the iteration share a batch of one."""
        fn = window(plain_doubled, dedupe=True)
        assert [2, 2] == await fn.map([1, 1])
        assert {1: 1} == fn.batch_stats.size_histogram

    async def test_a_future_has_a_task_of_its_own(self):
        """What nobody awaits at once runs all the same."""
        fn = window(whose_task)
        future = fn.submit(1)
        await asyncio.wait([future])
        assert asyncio.current_task() is not future.result() is await future
        assert 2 == len(set(await fn.map([1, 2])))

    async def test_a_future_awaited_at_once_does_not_need_one(self):
        """Who awaits a future before the loop has come to it runs it, and leaves those before it to their tasks."""
        fn = window(whose_task)
        first, second = fn.submit(1), fn.submit(2)
        assert asyncio.current_task() is await second
        assert asyncio.current_task() is not await first

    async def test_a_future_that_has_a_task_keeps_it(self):
        """Who awaits a future after its task has begun waits for that."""

        async def slow(items):
            await asyncio.sleep(1)
            return await whose_task(items)

        future = window(slow).submit(1)
        await asyncio.sleep(0.5)
        assert asyncio.current_task() is not await future

    async def test_a_plain_function_runs_on_the_loop(self):
        """A plain function does not get a thread."""
        async with AsyncMicrobatcher(whose_thread) as batcher:
            assert threading.get_ident() == await batcher.submit(1)
        async with AsyncMicrobatcher(lambda items: {}[0]) as batcher:
            with pytest.raises(KeyError):
                await batcher.submit(1)

    async def test_a_change_of_options_makes_no_larger_batches(self):
        """A function that is configured is inline still."""
        fn = window(whose_task)
        await fn(1)
        fn.configure(max_size=5, timeout=3600, concurrency=1)
        assert asyncio.current_task() is await fn(1)

    async def test_a_batch_sees_itself_and_nothing_of_its_caller(self):
        """Before and after it has waited, the batch function runs in a neutral context of its own."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("set")

        async def look(items):
            before = variable.get()
            await asyncio.sleep(1)
            return [(before, variable.get(), current_batch().size)]

        assert ("unset", "unset", 1) == await window(look)(1)
        assert current_batch() is None

    async def test_an_error_is_told_as_otherwise(self):
        """The caller gets a copy of what was raised, from the original."""
        original = KeyError("no")

        async def fail(items):
            raise original

        with pytest.raises(KeyError) as caught:
            await window(fail)(1)
        assert original is caught.value.__cause__

    async def test_a_cancelled_caller_cancels_its_batch(self):
        """A caller that times out ends its batch, and counts as cancelled."""
        ended = []

        async def slow(items):
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(items)

        fn = window(slow)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(fn(1), 1)
        assert ([[1]], 1, 0) == (ended, fn.batch_stats.cancelled_items, fn.batch_stats.failed_items)

    async def test_a_batch_may_outlive_its_cancelled_caller(self):
        """A batch function that goes on when it is cancelled is waited for, but its caller stays cancelled."""

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
        """A caller that nobody cancelled is not cancelled by its batch."""

        async def cancel(items):
            raise asyncio.CancelledError

        with pytest.raises(batchify.BatchAbortedError):
            await window(cancel)(1)

    def test_what_ends_the_program_goes_through(self, caplog):
        """``SystemExit`` leaves by way of the caller, and nobody complains of a future that was not looked at."""

        async def leave(items):
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            run(window(leave)(1))
        gc.collect()
        assert [] == caplog.messages

    async def test_a_caller_that_is_torn_down_tears_down_its_batch(self):
        """A coroutine that is closed in the middle closes what it runs."""
        ended = []

        async def slow(items):
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(items)

        caller = window(slow)(1)
        caller.send(None)
        caller.close()
        assert [[1]] == ended


class TestInline:
    """How batchers change over."""

    def test_it_ends_where_it_began(self):
        """Before and after, a function has its thread, and counts on; inside, it counts from zero."""
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

    def test_what_was_first_used_inside_works_outside(self):
        """A function that was called and closed inside is as good as new outside."""
        fn = microbatch(whose_thread)
        with inline():
            fn(1)
            fn.close()
        assert threading.get_ident() != fn(2)
        assert 1 == fn.batch_stats.total_items

    def test_inside_of_itself_it_does_nothing(self):
        """The end of the inner one does not end the outer one."""
        fn = microbatch(whose_thread)
        with inline():
            fn(1)
            with inline():
                fn(2)
            assert threading.get_ident() == fn(3)
            assert 3 == fn.batch_stats.total_items

    def test_it_ends_with_an_error_too(self):
        """A failing test does not leave others inline."""
        with pytest.raises(KeyError), inline():
            raise KeyError
        assert threading.get_ident() != microbatch(whose_thread)(1)

    async def test_what_waits_is_answered_as_it_began(self, moment):
        """A call that is under way ends in its own time, and its batch in its own size."""
        fn = microbatch(plain_doubled, timeout=5, name="double")
        waiting = [fn.submit(1), fn.submit(2)]
        with inline():
            assert 6 == await fn(3)
            assert (0, [2, 4], 5) == (moment(), await asyncio.gather(*waiting), 5)
        assert {2: 1} == fn.batch_stats.size_histogram


class TestRecord:
    """What is seen of batches that leave."""

    async def test_it_tells_what_left_and_why(self):
        """Each batch is there, in order, with its name, its items, their number, and the reason."""
        fn = microbatch(plain_doubled, max_size=2, timeout=1, name="double")
        with record() as recorder:
            await asyncio.gather(*map(fn, [1, 2, 3]))
        assert recorder.batches == [
            RecordedBatch(name="double", items=(1, 2), reason="full"),
            RecordedBatch(name="double", items=(3,), reason="timeout"),
        ]
        assert [2, 1] == [batch.size for batch in recorder.batches]

    def test_it_shows_itself(self):
        """A failing assertion shows what could be written in its place; ``print`` shows one batch a line."""
        recorder = Recorder()
        recorder.note("double", [1, 2], "full")
        recorder.note("halve", [3], "idle")
        assert repr(recorder) == (
            "Recorder(batches=[RecordedBatch(name='double', items=(1, 2), reason='full'), "
            "RecordedBatch(name='halve', items=(3,), reason='idle')])"
        )
        assert "double: 2, full: (1, 2)\nhalve: 1, idle: (3,)" == str(recorder)

    @pytest.mark.parametrize("options", [{}, {"capture_context": True}])
    def test_items_are_what_callers_gave(self, options):
        """Whatever else travels with them is left out, and what the batch function does to its list does not matter."""

        def drain(xs, ys, *, k=1):
            found = [(xs.pop(), ys.pop(), k) for _ in range(len(xs))]
            return found[::-1]

        fn = microbatch(drain, **options)
        with record() as recorder:
            assert ("a", "b", 2) == fn("a", "b", k=2)
        assert [(("a", "b"),)] == [batch.items for batch in recorder.batches]

    def test_inline_calls_are_recorded(self):
        """Both parts of the kit work together."""
        with inline(), record() as recorder:
            microbatch(doubled, name="double").map([1, 2])
        assert [RecordedBatch("double", (1,), "full"), RecordedBatch("double", (2,), "full")] == recorder.batches

    def test_it_begins_and_ends(self):
        """What leaves before or after is not there, and what leaves inside of two is in both."""
        fn = microbatch(doubled)
        fn(1)
        with record() as outer:
            fn(2)
            with record() as inner:
                fn(3)
        fn(4)
        assert ([(2,), (3,)], [(3,)]) == tuple([batch.items for batch in seen.batches] for seen in (outer, inner))


class TestVirtualTime:
    """An event loop on which nothing takes time."""

    def test_time_passes_in_leaps(self):
        """Timers go off in order, at their time, and in no time."""
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
        """Ten tenths of a second are a second, also in floating point."""

        async def main():
            for _ in range(10):
                await asyncio.sleep(0.1)
            return asyncio.get_running_loop().time()

        assert 1.0 == run(main())

    @pytest.mark.parametrize("at", [8.649333833333333, 0.1 + 0.2, 1 / 3, 2 / 3])
    def test_no_timer_is_early(self, at):
        """When a timer goes off, its time has come, whatever digits that has."""

        async def main():
            loop = asyncio.get_running_loop()
            came = loop.create_future()
            loop.call_at(at, lambda: came.set_result(loop.time()))
            return await came

        assert at <= run(main())

    def test_a_hang_is_an_error_at_once(self, monkeypatch):
        """When nothing can happen any more, the loop says so, and who waits for it."""
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

    def test_a_hang_without_tasks_is_one_too(self):
        """A loop that runs for ever, and has nothing to do, says so."""
        loop = VirtualLoop(patience=0.01)
        with pytest.raises(RuntimeError, match=r"waiting: no task$"):
            loop.run_forever()
        loop.close()

    def test_threads_may_wake_the_loop(self):
        """A loop without timers is patient with other threads."""
        loop = VirtualLoop()
        thread = threading.Timer(0.01, lambda: loop.call_soon_threadsafe(loop.stop))
        thread.start()
        loop.run_forever()
        thread.join()
        loop.close()

    def test_time_waits_for_its_own_threads(self):
        """What runs in an executor of the loop is not timed out by a leap."""

        async def main():
            await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.01), 0.001)
            return asyncio.get_running_loop().time()

        assert 0 == run(main())

    def test_patience_with_its_own_threads_ends(self):
        """If a thread waits for a timer, time goes on after a while."""
        loop = VirtualLoop(patience=0.01)
        gate = threading.Event()
        loop.call_later(1, gate.set)
        assert loop.run_until_complete(loop.run_in_executor(None, gate.wait, 5))
        loop.run_until_complete(loop.shutdown_default_executor())
        assert 1 == loop.time()
        loop.close()

    def test_run_ends_what_is_left(self):
        """Tasks are cancelled, generators are closed, threads end, and the loop is closed."""
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

    def test_run_raises_what_was_raised(self):
        """An error of the coroutine is an error of the test."""

        async def fail():
            raise KeyError

        with pytest.raises(KeyError):
            run(fail())

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner is new in Python 3.11")
    def test_it_is_a_loop_factory(self):
        """The runner of asyncio itself takes it."""
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(asyncio.sleep(3600))

    async def test_windows_take_no_time(self, moment):
        """A batch leaves when its window is over, and not before."""
        assert 2 == await window(plain_doubled)(1)
        assert 3600 == moment()


def pytest_run(path, mode):
    """Run pytest in a process of its own, as somebody who has installed batchify."""
    scope = "asyncio_default_fixture_loop_scope=function"
    options = ["-o", mode, "-o", scope] if mode else ["-p", "no:asyncio"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *options]
    return subprocess.run([*command, path.name], cwd=path.parent, capture_output=True, text=True, check=False)


class TestPlugin:
    """The fixtures, as pytest finds them, with pytest-asyncio and without."""

    @pytest.mark.parametrize("mode", ["asyncio_mode=strict", "asyncio_mode=auto", None])
    def test_the_example_passes(self, mode, tmp_path):
        """The tests of the example pass, each of them in virtual time."""
        path = tmp_path / "test_prices.py"
        path.write_text((EXAMPLES / path.name).read_text(encoding="utf-8"), encoding="utf-8")
        done = pytest_run(path, mode)
        assert "3 passed" in done.stdout, done.stdout
        assert "" == done.stderr

    @pytest.mark.parametrize("mode", ["asyncio_mode=strict", "asyncio_mode=auto", None])
    def test_a_hang_fails(self, mode, tmp_path):
        """A test that waits for ever fails, and says where."""
        path = tmp_path / "test_hang.py"
        path.write_text(
            "import asyncio\nasync def test_hang(batchify_virtual_time):\n    await asyncio.Event().wait()\n",
            encoding="utf-8",
        )
        done = pytest_run(path, mode)
        assert "RuntimeError: hang: no timer, thread or file is going to wake the event loop" in done.stdout
        assert "1 failed" in done.stdout

    @pytest.mark.parametrize("mode", ["asyncio_mode=strict", "asyncio_mode=auto"])
    def test_others_are_left_alone(self, mode, tmp_path):
        """A test that does not ask for virtual time has the event loop that it would have otherwise."""
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


def test_nothing_is_left_inline():
    """After all these tests a function has its thread again."""
    fn = microbatch(whose_thread)
    assert threading.get_ident() != fn(1)
    fn.close()
    wait_until(lambda: not fn.batch_stats.running)
