"""The benchmark: its floors answer correctly, it detects wrong answers, and its arithmetic is right."""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier, current_thread
from types import SimpleNamespace

import pytest

from tests.bench import arrivals, clock, closed, floors, instructions, profile, subjects, table
from tests.bench.__main__ import main
from tests.bench.clock import WrongAnswerError
from tests.bench.contest import AbsentError, Contest, Entrant, Plan
from tests.bench.figures import FLOOR, OURS, Bar, Figures, Spread, judge, percentile, ratios, spread
from tests.bench.subjects import AIODATALOADER, BATCHED, ON_LOOP
from tests.bench.web import exchange, post
from tests.bench.workloads import WORKLOADS

SMALLEST = Plan(scale=0, loops=("asyncio",))


@pytest.fixture
def no_peers(monkeypatch):
    """Hide all other libraries, wherever the tests run."""
    for name in ("batched", "batched.aio", "async_batcher.batcher", "aiodataloader", "ray.serve"):
        monkeypatch.setitem(sys.modules, name, None)


class Noted:
    """Doubles its items and records the sizes of its batches."""

    def __init__(self):
        self.sizes = []

    def __call__(self, items):
        self.sizes.append(len(items))
        return [2 * item for item in items]

    async def on_loop(self, items):
        return self(items)


# Floors


@pytest.mark.parametrize("timeout", [0.002, None])
async def test_the_floor_of_a_loop(timeout):
    """It answers each call and each future with its own result, from full batches and a last one."""
    noted = Noted()
    call, submit = floors.on_loop(noted.on_loop, max_size=4, timeout=timeout)
    assert [0, 2, 4, 6, 8, 10] == await asyncio.gather(*[call(item) for item in range(6)])
    assert [0, 2, 4, 6, 8, 10] == await asyncio.gather(*[submit(item) for item in range(6)])
    assert [4, 2, 4, 2] == noted.sizes


def test_the_floor_for_threads():
    """It answers each of many threads with its own results, in full batches."""
    noted = Noted()
    call = floors.among_threads(noted, max_size=8, timeout=60)
    with ThreadPoolExecutor(8) as pool:
        assert [2 * item for item in range(400)] == list(pool.map(call, range(400)))
    assert {8} == set(noted.sizes)


def test_the_floor_for_threads_does_not_wait_for_ever():
    """A lone call runs alone when its window ends."""
    noted = Noted()
    assert 6 == floors.among_threads(noted, max_size=8, timeout=0.001)(3)
    assert [1] == noted.sizes


def test_the_floor_with_futures():
    """The call that fills a batch answers it."""
    submit = floors.with_futures(Noted(), max_size=2)
    first, second = submit(1), submit(2)
    assert [2, 4] == [first.result(0), second.result(0)]


# Wrong answers


def test_a_wrong_answer_is_an_error():
    """Callers of every kind compare their answers."""

    async def wrong(item):
        return item + 1

    for measure in (clock.tasks_rate, clock.tasks_latencies):
        with pytest.raises(WrongAnswerError):
            clock.on_loop("asyncio", partial(measure, wrong, 2, 2))
    with pytest.raises(WrongAnswerError):
        clock.threads_latencies(lambda item: item + 1, 2, 2, 2)


def test_a_long_answer_is_shortened():
    """The message has the beginnings of the answer and of the expected one."""
    with pytest.raises(WrongAnswerError, match=r"^an answer is wrong: \[0, 0, .{53} instead of 1$"):
        clock.check([0] * 100, 1)


def test_threads_are_timed_while_they_can_fill_a_batch():
    """Calls do not count once fewer threads are left than a batch has items."""
    last, quick, together = 3, [], Barrier(4)

    def call(item):
        if item != last:
            quick.append(current_thread())
        together.wait()
        if item == last:
            for thread in quick:
                thread.join()
        return item

    latencies, seconds = clock.threads_latencies(call, 4, 1, 2)
    assert 3 == len(latencies)
    assert max(latencies) <= seconds


async def test_responses_are_read_one_by_one():
    """Each response is read to its end, with a body or without, and no further."""
    sent = []
    reader = asyncio.StreamReader()
    reader.feed_data(b"HTTP/1.1 204 No Content\r\nserver: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42")
    reader.feed_eof()
    answers = [await exchange(reader, SimpleNamespace(write=sent.append), post("/", body)) for body in (1, [2, 3])]
    assert [(204, b""), (200, b"42")] == answers
    assert [b"1", b"[2, 3]"] == [request.partition(b"\r\n\r\n")[2] for request in sent]
    assert b"Content-Length: 6" in sent[1].split(b"\r\n")


# Arithmetic


def test_spread():
    """Many figures have a median and quartiles; few figures have a median, a minimum and a maximum."""
    assert Spread(3, 2, 4) == spread([5, 3, 1, 2, 4])
    assert Spread(2, 1, 9) == spread([9, 1, 2])


def test_ratios():
    """Each round is compared with itself; 0 over 0 is 1, and another number over 0 is infinite."""
    assert [2, 0.5, 1, float("inf")] == ratios([4, 1, 0, 1], [2, 2, 0, 0])


def test_percentile():
    """A percentile is one of the measured figures."""
    assert [50, 99, 100] == [percentile(range(1, 101), percent) for percent in (50, 99, 100)]
    assert 7 == percentile([7], 50)


def test_the_median_of_ratios_is_not_the_ratio_of_medians():
    """A slow round is slow for both entrants, so ratios are formed within rounds."""
    ours, floor = Figures([5, 50, 4]), Figures([10, 100, 4])
    assert Spread(0.5, 0.5, 1) == judge(Bar(0.8), {OURS: ours, FLOOR: floor}).figure


@pytest.mark.parametrize(
    ("bar", "words", "is_met"),
    [
        (Bar(0.8), "batchify >= 0.8 x floor", False),
        (Bar(0.5), "batchify >= 0.5 x floor", True),
        (Bar(1.5, ("a", "b", "c")), "batchify >= 1.5 x b", True),
        (Bar(1, ("a", "b"), most=True), "batchify <= 1 x a", False),
        (Bar(4, ("a",), most=True, apart=True), "batchify <= 4 us over a", True),
        (Bar(3, ("a",), most=True, apart=True), "batchify <= 3 us over a", False),
    ],
)
def test_bars(bar, words, is_met):
    """A bar is compared with the best entrant that took part."""
    figures = {OURS: Figures([5]), FLOOR: Figures([10]), "a": Figures([1]), "b": Figures([2])}
    figures["c"] = Figures(absent="not installed: c")
    verdict = judge(bar, figures, "us")
    assert (words, is_met) == (verdict.words, verdict.met)


def test_a_bar_without_entrants():
    """A bar about an absent entrant has no verdict."""
    figures = {OURS: Figures([5]), FLOOR: Figures(absent="not installed: it")}
    assert judge(Bar(1), figures) is None
    assert judge(Bar(1, subject=FLOOR, against=(OURS,)), figures) is None
    assert judge(Bar(1, ("another",)), figures) is None


# Contests


def contest(**entrants):
    """Return a contest of entrants with the figures of a list, one for each round."""
    return Contest("counting", "items/s", {name: Entrant(iter(given).__next__) for name, given in entrants.items()})


def test_entrants_take_turns():
    """Each round begins with another entrant, and each figure is recorded."""
    figures = {}
    order = list(contest(floor=[1, 2, 3], batchify=[4, 5, 6]).play(3, figures))
    assert [FLOOR, OURS, OURS, FLOOR, FLOOR, OURS] == order
    assert {FLOOR: Figures([1, 2, 3]), OURS: Figures([4, 5, 6])} == figures


def test_latencies_are_sampled_after_all_rounds():
    """An entrant with a sampler runs once more, and this run counts."""
    sampled = Contest("counting", "items/s", {FLOOR: Entrant(lambda: (1, 2), lambda: [3, 4])})
    figures = {}
    assert sampled.runs(2) == len(list(sampled.play(2, figures)))
    assert {FLOOR: Figures([1, 1], [2, 2], [3, 4])} == figures


def test_a_missing_peer_has_a_line(no_peers):
    """A peer that is not installed is tried once, and the others run."""

    def missing():
        return ON_LOOP[AIODATALOADER](clock.echo, max_size=1, timeout=None)

    both = Contest("counting", "items/s", {FLOOR: Entrant(lambda: 1), AIODATALOADER: Entrant(missing)})
    figures = {}
    list(both.play(2, figures))
    assert [[FLOOR, "1", "1.00 (1.00-1.00)"], [AIODATALOADER, "not installed: aiodataloader"]] == table.rows(
        both, figures
    )


def test_peers_have_versions():
    """The report has the version of each peer, or its absence."""
    assert set(subjects.PEERS) == set(subjects.versions())


def test_entrants_that_run_together():
    """The first request of a round runs all entrants of that round, with its number."""
    together = arrivals.Together(lambda number: {"a": number, "b": 10 * number, "c": AbsentError("not installed: c")})
    assert [0, 0, 1, 10, 2] == [together.outcome(name) for name in "ababa"]
    with pytest.raises(AbsentError):
        together.outcome("c")


# Tables


@pytest.fixture
def results():
    """Return the results of a contest with every kind of entrant."""
    played = Contest("counting", "ms", {}, tail="p99", note="Less is better.", bars=(Bar(1, most=True),))
    floor, ours = Figures([1.0, 2.0], [10, 10], [0.001] * 100), Figures([1.5, 3.0], [20, 20], [0.0015] * 100)
    return [("some", played, {FLOOR: floor, OURS: ours, BATCHED: Figures(absent="not installed: batched")})]


def test_markdown(results):
    """The page has the machine, the bars, and a row with all cells for each entrant."""
    expected = """\
### Environment

| property | value |
| --- | ---: |
| date | today |

### Bars

| contest | bar | measured |  |
| --- | ---: | ---: | ---: |
| counting | batchify <= 1 x floor (ms) | 1.50 (1.50-1.50) | **missed** |

### some

**counting**

|  | ms | x floor | p99 | x floor | p50 ms | p99 ms |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| floor | 1.5 | 1.00 (1.00-1.00) | 10 | 1.00 (1.00-1.00) | 1 | 1 |
| batchify | 2.25 | 1.50 (1.50-1.50) | 20 | 2.00 (2.00-2.00) | 1.5 | 1.5 |
| batched | not installed: batched |  |  |  |  |  |

Less is better.
"""
    assert expected == table.markdown(results, {"date": "today"})


def test_json(results):
    """The file has the figures of all rounds and the verdicts."""
    written = json.loads(table.as_json(results, {"date": "today"}))
    [some] = written["contests"]
    assert {"date": "today"} == written["about"]
    assert [1.5, 3.0] == some["entrants"][OURS]["values"]
    assert {"absent": "not installed: batched"} == some["entrants"][BATCHED]
    assert [{"bar": "batchify <= 1 x floor (ms)", "figure": 1.5, "met": False}] == some["bars"]


def test_the_command(monkeypatch, tmp_path, capsys):
    """The command prints a table for each contest, and replaces the old figures in the given files."""
    monkeypatch.setitem(WORKLOADS, "count", lambda plan: [contest(floor=[100, 200], batchify=[50, 150])])
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n", encoding="utf-8")
    main(["count", "--rounds", "2", "--json", str(figures), "--markdown", str(page)])
    assert "0.62 (0.50-0.75)" in capsys.readouterr().out
    assert [50, 150] == json.loads(figures.read_text(encoding="utf-8"))["contests"][0]["entrants"][OURS]["values"]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- measured: begin -->\n\n### Environment")
    assert text.endswith("|\n\n<!-- measured: end -->\nafter\n")
    assert "old" not in text


# Workloads


# The excluded workloads start processes, which takes seconds.
@pytest.mark.parametrize("workload", sorted(set(WORKLOADS) - {"idle", "import", "service", "web"}))
def test_a_workload_runs(workload, no_peers, monkeypatch):
    """Each workload runs at its smallest, and batchify takes part in all of its contests."""
    monkeypatch.setattr(arrivals, "LOADS", [95])
    monkeypatch.setattr(closed, "TASKS", {16: 1, 256: 1})
    monkeypatch.setattr(closed, "THREADS", {1: 1, 32: 1})
    for played in WORKLOADS[workload](SMALLEST):
        figures = {}
        list(played.play(1, figures))
        ours = [entry for name, entry in figures.items() if name.startswith(OURS)]
        assert all(entry.values or "tokenizers" in entry.absent for entry in ours)
        assert ours
        assert table.rows(played, figures)


@pytest.mark.parametrize("path", instructions.PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("name", [FLOOR, OURS])
def test_counted_paths_run(path, name):
    """Each path with an instruction count runs, for batchify and for the floor."""
    path(name, 1)


@pytest.mark.parametrize("path", profile.PATHS, ids=lambda path: path.__name__)
def test_profiled_paths_run(path):
    """Each path of the profiler runs, for batchify and for the floor."""
    _, names = profile.PATHS[path]
    for name in names:
        if name != subjects.AIODATALOADER:
            path(name, 256)


def test_samples_are_sorted_by_part():
    """A sample counts for the part of its innermost line; the start of a process does not count."""
    core, inside, outside = profile.PACKAGE / "_core/queue.py", profile.PACKAGE / "_asyncio/engine.py", json.__file__
    stacks = f"""
        main (x.py:1);import (<frozen importlib>:2);take ({core}:3) 5
        main (x.py:1);take ({core}:3) 2
        main (x.py:1);take ({core}:4);pump ({inside}:4) 3
        main (x.py:1);step ({outside}:5) 4
    """
    looks = profile.looks_by_part(stacks.strip())
    assert {"core": 2, "engine, decorator": 3, "standard library": 4} == looks
