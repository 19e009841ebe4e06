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

from tests.bench import (
    arrivals,
    bars,
    clock,
    closed,
    floors,
    frames,
    growth,
    instructions,
    profile,
    single,
    subjects,
    table,
)
from tests.bench.__main__ import main
from tests.bench.bars import Bar, at_least, at_most
from tests.bench.clock import WrongAnswerError
from tests.bench.contest import AbsentError, Contest, Plan, Together
from tests.bench.figures import FLOOR, OURS, Figures, Spread, percentile, ratios, spread
from tests.bench.subjects import AIODATALOADER, BATCHED, ON_LOOP
from tests.bench.web import exchange, post
from tests.bench.workloads import WORKLOADS

SMALLEST = Plan(scale=0)
PYTHON = (3, 12, 1)


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

    for measure in (partial(clock.tasks_rates, wrong, 2, 2), partial(clock.lone_latencies, wrong, 2)):
        with pytest.raises(WrongAnswerError):
            clock.on_loop("asyncio", measure)
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


# Bars


def verdict(bar, tail="", **figures):
    """Return the verdict of a bar about figures, of which each is a list of rounds or the reason of an absence."""
    entries = {name: Figures(absent=of) if isinstance(of, str) else Figures(of) for name, of in figures.items()}
    return bars.judge(bar, Contest("counting", "us", {}, tail=tail), entries, PYTHON)


def test_the_median_of_ratios_is_not_the_ratio_of_medians():
    """A slow round is slow for both entrants, so ratios are formed within rounds."""
    assert Spread(0.5, 0.5, 1) == verdict(at_least("", 0.8), batchify=[5, 50, 4], floor=[10, 100, 4]).figure


@pytest.mark.parametrize(
    ("bar", "against", "words"),
    [
        (at_least("", 0.8), "x floor", "not met"),
        (at_least("", 0.5), "x floor", "met"),
        (at_least("", 2.5, "a", "b", "c"), "x b", "met"),
        (at_most("", 4, "a", "b", "c"), "x a", "not met"),
        (at_most("", 5, "a"), "x a", "met"),
        (Bar("", {(3, 10): 4}, (), most=True), "", "not met"),
        (Bar("", {(3, 10): 5}, ()), "", "met"),
    ],
)
def test_bars(bar, against, words):
    """A bar is compared with the best entrant that took part, or with the figure itself."""
    found = verdict(bar, batchify=[5], floor=[10], a=[1], b=[2], c="not installed: c")
    assert (against, words) == (found.against, found.words)


def test_quartiles_decide():
    """A minimum is met if the upper quartile reaches it, and a maximum is met if the lower quartile keeps it."""
    rounds = {"batchify": [1, 2, 3, 4, 5], "floor": [1] * 5}
    assert ["met", "not met"] == [verdict(at_least("", limit), **rounds).words for limit in (4, 4.1)]
    assert ["met", "not met"] == [verdict(at_most("", limit), **rounds).words for limit in (2, 1.9)]


@pytest.mark.parametrize(
    "entries",
    [{"batchify": [5], "floor": "not installed: it"}, {"batchify": "not installed", "floor": [1]}, {"floor": [1]}],
)
def test_a_bar_without_entrants(entries):
    """A bar about an absent entrant is not measured."""
    found = verdict(at_least("", 1), **entries)
    assert (None, "not measured") == (found.figure, found.words)


def test_limits_differ_by_python():
    """The limit of the newest version that is not newer than this one counts; before the first, there is no bar."""
    bar = at_least("", {(3, 11): 0.8, (3, 13): 0.9})
    assert [None, 0.8, 0.8, 0.9, 0.9] == [bar.limit((3, minor, 0)) for minor in (10, 11, 12, 13, 14)]
    assert ">= 0.8 from 3.11, >= 0.9 from 3.13" == bar.limit_words()
    assert "no bar on this Python" == verdict(at_least("", {(3, 13): 1}), batchify=[5], floor=[1]).words


def test_the_worst_contest_counts(monkeypatch):
    """A bar about several contests has the verdict of the worst of them; a bar without contests has none."""
    monkeypatch.setattr(bars, "BARS", (at_most("count *", 1), at_most("another", 1)))
    played = [(Contest(f"count {n}", "us", {}), {OURS: Figures([n]), FLOOR: Figures([1])}) for n in (0.5, 3, 2)]
    [found] = bars.verdicts(played)
    assert ("count 3", "not met") == (found.contest.title, found.words)


def test_rounds(monkeypatch):
    """A contest without bars takes a third of the rounds, and a bar may ask for more rounds."""
    monkeypatch.setattr(bars, "BARS", (at_least("some", 1), at_least("many", 1, rounds=9)))
    assert [3, 9, 1] == [bars.rounds(title, 3) for title in ("some", "many", "other")]


def test_each_bar_has_its_contest():
    """Every bar is about a contest of the benchmark, and its entrants take part in it."""
    # The contests of the other workloads start servers, and have no bars.
    contests = [contest for name in set(WORKLOADS) - {"web", "service"} for contest in WORKLOADS[name](Plan())]
    for bar in bars.BARS:
        judged = [contest for contest in contests if bar.is_about(contest.title)]
        assert judged
        for contest in judged:
            assert {bar.subject, *bar.against} <= set(contest.entrants)
            assert "tails" != bar.of or contest.tail


# Contests


def contest(**entrants):
    """Return a contest of entrants with the figures of a list, one for each round."""
    return Contest("counting", "items/s", {name: iter(given).__next__ for name, given in entrants.items()})


def test_entrants_take_turns():
    """Each round begins with another entrant, and each figure is recorded."""
    figures = {}
    order = list(contest(floor=[1, 2, 3], batchify=[4, 5, 6]).play(3, figures))
    assert [FLOOR, OURS, OURS, FLOOR, FLOOR, OURS] == order
    assert {FLOOR: Figures([1, 2, 3]), OURS: Figures([4, 5, 6])} == figures


def test_a_run_may_have_a_tail():
    """A run returns one figure, or two."""
    figures = {}
    list(Contest("counting", "items/s", {FLOOR: lambda: (1, 2)}).play(2, figures))
    assert {FLOOR: Figures([1, 1], [2, 2])} == figures


def test_a_missing_peer_has_a_line(no_peers):
    """A peer that is not installed is tried once, and the others run."""

    def missing():
        return ON_LOOP[AIODATALOADER](clock.echo, max_size=1, timeout=None)

    both = Contest("counting", "items/s", {FLOOR: lambda: 1, AIODATALOADER: missing})
    figures = {}
    list(both.play(2, figures))
    assert [[FLOOR, "1", "1", ""], [AIODATALOADER, "not installed: aiodataloader"]] == table.rows(both, figures)


def test_peers_have_versions():
    """The report has the version of each peer, or its absence."""
    assert set(subjects.PEERS) == set(subjects.versions())


def test_entrants_that_run_together():
    """The first request of a round runs all entrants of that round, with its number."""
    together = Together(lambda number: {"a": number, "b": 10 * number, "c": AbsentError("not installed: c")})
    assert [0, 0, 1, 10, 2] == [together.outcome(name) for name in "ababa"]
    with pytest.raises(AbsentError):
        together.outcome("c")


# Tables


@pytest.fixture
def results(monkeypatch):
    """Return the results of a contest with every kind of entrant."""
    monkeypatch.setattr(bars, "BARS", (at_most("counting", 1), at_least("counting", 2, BATCHED, of="tails")))
    played = Contest("counting", "ms", {}, tail="p99 ms", note="Less is better.")
    floor, ours = Figures([1.0, 2.0], [10, 10]), Figures([1.5, 3.0], [20, 20])
    return [("some", played, {FLOOR: floor, OURS: ours, BATCHED: Figures(absent="not installed: batched")})]


def test_markdown(results):
    """The page has the machine, the bars, and for each workload a table with a row for each entrant."""
    expected = """\
### Environment

| property | value |
| --- | ---: |
| date | today |

### Bars

| bar | measure | figure | limit |  |
| --- | ---: | ---: | ---: | ---: |
| counting | batchify x floor (ms) | 1.50 (1.50-1.50) | <= 1 | not met |
| counting | batchify x batched (p99 ms) |  | >= 2 | not measured |

### some

|  | entrant | ms | ratio | p99 ms | ratio | limit |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| counting | floor | 1.5 | 1 | 10 | 1 |  |
| counting | batchify | 2.25 | 1.50 (1.50-1.50) | 20 | 2.00 (2.00-2.00) | x floor (ms) <= 1; x batched (p99 ms) >= 2 |
| counting | batched | not installed: batched |  |  |  |  |

Less is better.
"""
    assert expected == table.markdown(results, {"date": "today"})


def test_json(results):
    """The file has the figures of all rounds and the verdicts."""
    written = json.loads(table.as_json(results, {"date": "today"}))
    [some] = written["contests"]
    assert {"date": "today"} == written["about"]
    assert {"values": [1.5, 3.0], "tails": [20, 20], "absent": ""} == some["entrants"][OURS]
    assert "not installed: batched" == some["entrants"][BATCHED]["absent"]
    assert ["counting", "batchify x floor (ms)", "1.50 (1.50-1.50)", "<= 1", "not met"] == written["bars"][0]


def test_the_command(monkeypatch, tmp_path, capsys):
    """The command prints a table for each contest and one of the bars, and replaces old figures in the given files."""
    monkeypatch.setattr(bars, "BARS", (at_least("counting", 0.8),))
    monkeypatch.setitem(WORKLOADS, "count", lambda plan: [contest(floor=[100, 200], batchify=[50, 150])])
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n", encoding="utf-8")
    main(["count", "--rounds", "2", "--json", str(figures), "--markdown", str(page)])
    output = capsys.readouterr().out
    assert 2 == output.count("0.62 (0.50-0.75)")
    assert "not met" in output
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
    monkeypatch.setattr(single, "GATHERED", 100)
    for name in ("WAITING", "PRIORITIES", "LENGTHS", "GROUPS", "INSTANCES"):
        monkeypatch.setattr(growth, name, (1, 100))
    monkeypatch.setattr(growth, "ENOUGH", 100)
    monkeypatch.setattr(growth, "DEPARTING", 1)
    for played in WORKLOADS[workload](SMALLEST):
        figures = {}
        list(played.play(1, figures))
        ours = [entry for name, entry in figures.items() if name.startswith(OURS)]
        assert all(
            entry.values or entry.absent in {"not installed: tokenizers", "not installed: uvloop"} for entry in ours
        )
        assert ours
        assert table.rows(played, figures)


@pytest.mark.parametrize("path", instructions.PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("name", [FLOOR, OURS])
def test_counted_paths_run(path, name):
    """Each path with an instruction count runs, for batchify and for the floor."""
    path(name, 1)


def timed(seconds):
    """Return a replacement for the CPU time of a path: the seconds of each round of batchify, and 1 for the floor."""
    rounds = iter(seconds)
    return lambda path, name: next(rounds) if name == OURS else 1.0


@pytest.mark.parametrize(
    ("instructions_each", "seconds", "status"),
    [
        (2, [3] * 9, None),
        (2, [3] * 3 + [9] * 6, None),
        (2.1, [3] * 9, "a hot path costs more than its limit allows"),
        (2, [3] * 2 + [9] * 7, "a hot path costs more than its limit allows"),
    ],
)
def test_limits_of_the_hot_paths(instructions_each, seconds, status, monkeypatch, capsys):
    """Too many instructions fail the command, and so does the CPU time of most rounds."""
    monkeypatch.setattr(instructions, "VALGRIND", [sys.executable])
    monkeypatch.setattr(instructions, "PATHS", {instructions.submit: instructions.Limits(2, 3)})
    monkeypatch.setattr(instructions, "cpu_time", timed(seconds))
    monkeypatch.setattr(
        instructions, "count", lambda path, name, calls: 100 + calls * (instructions_each if name == OURS else 1)
    )
    if status:
        with pytest.raises(SystemExit, match=status):
            instructions.main()
    else:
        instructions.main()
    assert f" {instructions_each:.2f}    2.00 " in capsys.readouterr().out


def test_frames_of_a_call():
    """Only the second call counts, in both threads, with the frames of the entrant's own files."""
    [played] = frames.frame_contests(SMALLEST)
    figures = {}
    list(played.play(1, figures))
    assert Figures([2], [1]) == figures[FLOOR]
    assert figures[OURS].values > [2]
    assert figures[OURS].tails > [1]


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
