"""The command line: its output, its files, and its error messages."""

from __future__ import annotations

import importlib
import json
import re
import signal
import sys
from html.parser import HTMLParser
from importlib.metadata import entry_points
from io import StringIO
from itertools import count
from pathlib import Path
from struct import unpack
from textwrap import dedent

import pytest

import batchify
from batchify._cli import output
from batchify._cli.commands import main
from batchify._cli.load import run_load
from batchify._cli.loading import load_items
from batchify.testing import VirtualLoop
from tests.kit.processes import PATIENCE, printed, start

FUNCTIONS = dedent(
    """
    import asyncio
    import random
    from batchify import microbatch

    def numbers():
        return range(20)

    async def awaited():
        return [1, 2, 3]

    def nothing():
        return []

    def none():
        return None

    def broken():
        raise KeyError("secret")

    async def broken_async():
        raise KeyError("secret")

    @microbatch(max_size=8)
    async def sleep(items):
        await asyncio.sleep(0.004 + 0.0001 * len(items))
        return items

    async def grow(items):
        await asyncio.sleep(0.001 * len(items))
        return items

    @microbatch(max_size=8, concurrency=2, timeout=0.001)
    async def two(items):
        await asyncio.sleep(0.01)
        return items

    @microbatch
    async def picky(items):
        if 13 in items:
            raise KeyError("secret")
        return items

    def pairs():
        return [(1, 2), (3, 4)]

    @microbatch(max_size=4)
    async def add(left, right, *, more=0):
        await asyncio.sleep(0.001)
        return [a + b + more for a, b in zip(left, right)]

    def no_column(*items):
        return items

    class Model:
        def __init__(self):
            self.pause = 0.002

        @microbatch(max_size=4)
        async def embed(self, items):
            await asyncio.sleep(self.pause)
            return items

        @staticmethod
        @microbatch(max_size=4)
        async def bare(items):
            await asyncio.sleep(0.002)
            return items

    model = Model()
    calls = 0

    def few():
        return [1, 1, 1, 1, 1, 20]

    @microbatch(weigh=float, max_weight=5)
    async def heavy(items):
        return items

    @microbatch
    async def sleep_for(items):
        await asyncio.sleep(0.001 * sum(items))
        return items

    @microbatch(length=float)
    async def pad(items):
        await asyncio.sleep(0.001 * len(items) * max(items))
        return items

    draws = random.Random(0)

    @microbatch
    async def unsteady(items):
        await asyncio.sleep(draws.choice([0.001, 0.003]))
        return items

    @microbatch
    async def erratic(items):
        await asyncio.sleep(len(items) * draws.choice([0.001, 0.002]))
        return items

    @microbatch(max_size=2)
    async def until(items):
        global calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        await asyncio.sleep(0.001)
        return items

    @microbatch(keyed=True)
    async def price(items):
        await asyncio.sleep(0.002)
        return {item: item for item in items}

    @microbatch(sizes=(4, 16))
    async def graph(items):
        assert len(items) in (4, 16)
        await asyncio.sleep(0.001 * len(items))
        return items

    @microbatch
    def ask(items, *, model):
        return items

    @microbatch
    async def count(items):
        yield items

    stop = 40

    async def brief(items):
        await asyncio.sleep(0.0005)
        return items
    """
)


@pytest.fixture(autouse=True)
def _shop(tmp_path, monkeypatch):
    """Change to a folder with a module ``shop``, make time virtual, and simulate as few calls as possible."""
    for name, value in (("cost.MIN_CALLS", 1000), ("cost.MAX_CALLS", 1000), ("tuning.REFINE", 1)):
        monkeypatch.setattr(f"batchify._planning.{name}", value)
    (tmp_path / "shop.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("batchify._cli.commands.PreciseLoop", VirtualLoop)
    yield
    for name in [name for name in sys.modules if name == "shop" or name.startswith("other")]:
        del sys.modules[name]


@pytest.fixture
def command(capsys):
    """Return a function that runs a command and returns its exit code, its output and its errors."""

    def command(line):
        code = main(line.split())
        done = capsys.readouterr()
        return code, done.out, done.err

    return command


def cells(output):
    """Return the rows of all tables in the output, without their heads and intervals."""
    rows, columns = [], []
    for line in output.splitlines():
        if line.startswith("--"):
            columns = [found.span() for found in re.finditer("-+", line)]
        elif not line:
            columns = []
        elif columns:
            rows.append([line[start:end].strip().partition(" ±")[0] for start, end in columns])
    return rows


# tune


def test_tune_recommends_options(command):
    """The command measures growing sizes, prints the cost and the verdict, and recommends options."""
    code, output, errors = command("tune shop:sleep --items shop:numbers --max-size 16 --seconds 0.5 --rate 100 1000")
    assert (0, "") == (code, errors)
    assert ["1", "4.10 ms", "4.10 ms", "4.10 ms", "244"] in cells(output)
    assert ["16", "5.60 ms", "5.60 ms", "350 us", "2,857"] in cells(output)
    assert "a batch of n items takes about 4.00 ms ±0% + n x 100 us ±0%, with an error of at most 0%." in output
    assert "an item takes 4.10 ms ±0% without batching, and 350 us ±0% in a batch of 16 at overload. " in output
    assert "Batching pays" in output
    assert "That is 11.7 ±0% times less." in output
    assert re.search(r"Use @microbatch\(max_size=\d+, timeout=None, concurrency=1\): no window was clearly", output)
    assert ["100", "1,000"] == [row[0] for row in cells(output)[-2:]]


def test_a_quantity_has_one_number(command):
    """The capacity is that of the table of costs, which is that of the prediction at overload."""
    _, output, _ = command("tune shop:sleep --items shop:numbers --max-size 16 --seconds 0.5")
    *_, recommended, _, _, _, overload = cells(output)
    assert [recommended[-1]] == [row[-1] for row in cells(output) if row[0] == recommended[0]][:1]
    assert [25, 50, 75, 150] == pytest.approx([int(row[1].rstrip("%")) for row in cells(output)[-4:]], abs=2)
    assert ["grows", "grows"] == overload[2:4]
    number = [float(cell.replace(",", "")) for cell in (recommended[-1], overload[4])]
    assert number[0] == pytest.approx(number[1], rel=0.02)


def test_the_output_says_how_it_was_made(command):
    """The first line has the version, Python, the machine, the date and the options."""
    _, output, _ = command("simulate --cost 4 --rate 0.1 --calls 10")
    made = r"batchify \S+, \w+ \S+, .*, \d+ cores, \d{4}-\d\d-\d\d \d\d:\d\d UTC: "
    assert re.match(f"{made}command=simulate, .*cost={{1: 4.0, 2: 4.0}}, .*calls=10", output)


def test_tune_prints_json(command):
    """With ``--json``, the output has all sentences and tables, and each figure has its interval."""
    code, output, _ = command("tune shop:sleep --items shop:numbers --max-size 4 --seconds 0.5 --rate 100 --json")
    found = json.loads(output)
    assert 0 == code
    assert {"text", "Cost of a batch", "Recommended options", "Prediction"} == found.keys()
    last = found["Cost of a batch"][-1]
    figure = last["per item at overload"]
    assert (4, {"value": 0.0011, "low": 0.0011, "high": 0.0011}) == (last["items"], pytest.approx(figure))
    assert (None, 1) == tuple(found["Recommended options"][0][option] for option in ("timeout", "concurrency"))
    assert any("Batching pays" in sentence for sentence in found["text"])


def test_tune_says_when_batching_does_not_pay(command):
    """Batching does not pay for a function whose time is proportional to the number of items."""
    code, output, _ = command("tune shop:grow --items shop:numbers --max-size 4 --seconds 0.5 --rate 100")
    assert 0 == code
    assert "Batching does not pay: an item takes 1.00 ms ±0% without batching, and 1.00 ms" in output
    assert "Call the function directly" in output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "shop:erratic --max-size 2",
            r"No recommendation: the noise is larger than the difference\. .* That is between \S+ and \S+ times",
        ),
        (
            "shop:unsteady --max-size 8",
            r"No recommendation: the measurements vary too much\. With max_size=\d, .* is [\d,]+ ±\d+% calls",
        ),
    ],
)
def test_tune_refuses_a_recommendation_in_noise(command, line, expected):
    """If the time of a batch varies more than the difference, or by too much, the output says what would help."""
    code, output, _ = command(f"tune {line} --items shop:numbers --seconds 0.1")
    assert 1 == code
    assert re.search(expected, output)
    assert " A quiet machine or a longer measurement (--seconds) would help.\n" in output
    assert "Recommended" not in output


def test_tune_reports_items_of_unequal_cost(command):
    """Where the cost of items differs, the output says so; if it also refuses, more items would help."""
    line = "tune shop:sleep_for --items shop:few --max-size 2 --seconds"
    _, output, _ = command(f"{line} 2")
    assert re.search(r"Items differ in cost: the standard deviation is \d+% ±\d+% of the mean", output)
    assert "No recommendation: " in output
    assert " (--seconds) or more items would help.\n" in output


def test_tune_says_that_padding_depends_on_the_load(command):
    """With lengths, the output says in which direction a prediction of a high load is wrong."""
    _, output, _ = command("tune shop:pad --items shop:few --max-size 2 --seconds 0.5 --rate 10")
    assert "Items share batches by length. The more calls are queued, the less padding a batch has" in output


def test_tune_says_that_all_cores_are_busy(command, monkeypatch):
    """A function that uses all cores delays its callers, so the prediction is said to be uncertain."""
    line = "tune shop:sleep --items shop:numbers --max-size 2 --seconds 0.2 --rate 100"
    monkeypatch.setattr("batchify._cli.measure.process_time", count(0, 1_000_000).__next__)
    _, output, _ = command(line)
    assert "cores busy. The event loop that calls it has to wait for a core, so the predicted latencies" in output


@pytest.mark.parametrize(("function", "is_short"), [("brief", True), ("sleep", False)])
def test_tune_says_that_wake_ups_matter(command, function, is_short):
    """If a batch takes less time than wake-ups may take, the prediction is said to be uncertain."""
    _, output, _ = command(f"tune shop:{function} --items shop:numbers --max-size 2 --seconds 0.2 --rate 100")
    expected = "for an item. How long a thread and an event loop take to wake up matters as much"
    assert is_short == (expected in output)


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        ("50", r"99 of 100 calls within 50\.0 ms: yes, up to [\d,]+ ±0% calls a second\."),
        ("8.9", r"within 8\.90 ms: not at 2,000 calls a second, but up to [\d,]+ ±0%\. The lowest 99th percentile is"),
        ("1", r"within 1\.00 ms: not at 100 and 2,000 calls a second, nor at any other rate\. The lowest 99th"),
    ],
)
def test_tune_checks_a_target(command, slo, expected):
    """The output names the highest rate that meets the target, and the lowest percentile if a rate misses it."""
    line = f"tune shop:sleep --items shop:numbers --max-size 16 --seconds 0.5 --rate 100 2000 --slo-ms {slo}"
    assert re.search(expected, command(line)[1])


def test_tune_uses_the_slots_of_the_function(command):
    """A function decorated for two batches at once is measured with two, and ``--concurrency`` changes that."""
    line = "tune shop:two --items shop:numbers --max-size 1 --seconds 0.5 --rate"
    code, output, _ = command(f"{line} 150")
    assert 0 == code
    assert "concurrency=2" in output
    assert "concurrency=1" in command(f"{line} 150 --concurrency 1")[1]


@pytest.mark.parametrize("named", ["shop:model.embed", "shop:Model.bare", "shop:add"])
def test_tune_takes_methods_and_columns(command, named):
    """Methods of instances, static methods and functions of several columns are measured like functions."""
    items = "pairs" if named == "shop:add" else "awaited"
    code, output, _ = command(f"tune {named} --items shop:{items} --max-size 2 --seconds 0.2 --rate 100")
    assert 0 == code
    assert "Batching pays" in output


def test_tune_takes_results_by_key(command):
    """A function with ``keyed`` is measured like any other."""
    code, output, _ = command("tune shop:price --items shop:numbers --max-size 2 --seconds 0.2 --rate 100")
    assert 0 == code
    assert "Batching pays" in output


@pytest.mark.parametrize(("largest", "sizes"), [(256, ["1", "4", "16"]), (2, ["1", "4"])])
def test_tune_pads_batches(command, largest, sizes):
    """A function with ``sizes`` is measured in these sizes, and one is recommended. One item takes as long as four."""
    line = "tune shop:graph --items shop:numbers --seconds 0.5 --rate 10"
    code, output, _ = command(f"{line} --max-size {largest}")
    assert 0 == code
    rows = cells(output)
    assert sizes == [row[0] for row in rows[: len(sizes)]]
    assert ["4.00 ms", "4.00 ms"] == [row[1] for row in rows[:2]]
    assert "max_size=4" in output


def test_bench_predicts_padded_batches(command):
    """A batch of five items takes as long as the sixteen that it is padded to."""
    [predicted, measured, _] = cells(command("bench shop:graph --items shop:numbers --seconds 2 --rate 700")[1])
    assert predicted[3] == measured[3]


class Page(HTMLParser):
    """The tags of a page, and the addresses that it refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.names = [], [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.sources += [attributes[name] for name in ("src", "href", "data", "srcset") if name in attributes]
        self.names.update({attributes["name"]: attributes["content"]} if "name" in attributes else {})
        if tag not in {"meta", "img", "source"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == self.open.pop()


def test_tune_writes_a_report(command, tmp_path):
    """The page is well-formed and needs no other file; it has the text of the terminal and the picture."""
    line = "tune shop:sleep --items shop:numbers --max-size 16 --seconds 0.5 --slo-ms 20 --out new/folder"
    code, output, _ = command(line)
    folder = Path("new") / "folder"
    assert 0 == code
    assert f"Written: {folder / 'tune.html'}, {folder / 'tune.png'}, {folder / 'tune-dark.png'}" in output
    text = (folder / "tune.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [] == page.open
    tags = {"table", "img", "source", "script", "link", "iframe"}
    assert ["table", "table", "table", "source", "img"] == [tag for tag in page.tags if tag in tags]
    assert "width=device-width, initial-scale=1" == page.names["viewport"]
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for source in page.sources:
        text = text.replace(source, "")
    assert not re.search(r"https?:|url\(|@import", text)
    for words in ("Batching pays", "Use @microbatch(", "99 of 100 calls within 20.0 ms", "Prediction", " UTC: "):
        assert words in text
        assert words in output
    pictures = [(folder / name).read_bytes() for name in ("tune.png", "tune-dark.png")]
    assert pictures[0] != pictures[1]
    for picture in pictures:
        assert (b"\x89PNG", (600, 800)) == (picture[:4], unpack(">II", picture[16:24]))


def test_tune_cannot_write(command, tmp_path):
    """A folder that cannot be created is an error."""
    Path("taken").touch()
    line = "tune shop:sleep --items shop:numbers --max-size 1 --seconds 0.1 --out taken --rate 100"
    assert (2, "batchify: --out taken cannot be written: File exists\n") == command(line)[::2]


# simulate


def test_simulate_predicts(command):
    """The table has a row for each rate and each choice of options, with the figures of ``simulate()``."""
    code, output, errors = command(
        "simulate --cost 0.004+0.0001n --rate 300 500 --max-size 16 32 --timeout adaptive 0.002 --concurrency 1 2 "
        "--calls 1000"
    )
    assert (0, "") == (code, errors)
    rows = cells(output)
    assert 16 == len(rows)
    latency = batchify.simulate(run_time={1: 0.0041, 2: 0.0042}, rate=300.0, max_size=16, calls=1000).latency_ms
    assert ["300", "16", "adaptive", "1", "10%", f"{latency.p50:.2f} ms", f"{latency.p99:.2f} ms"] == rows[0][:7]
    assert ["300", "16", "2.00 ms", "2"] == rows[3][:4]


@pytest.mark.parametrize(
    ("cost", "run_time"),
    [
        ("--cost 0.004+0.0001n", {1: 0.0041, 2: 0.0042}),
        ("--cost 4e-3+1e-4*n", {1: 0.0041, 2: 0.0042}),
        ("--cost .001n", {1: 0.001, 2: 0.002}),
        ("--cost 0.004", {1: 0.004}),
        ("--measured 1:0.0041,32:0.0072", {1: 0.0041, 32: 0.0072}),
    ],
)
def test_simulate_accepts_costs(command, cost, run_time):
    """A cost is a formula or a list of measurements."""
    options = "--rate 100 --calls 1000 --seed 3 --burst 4 --noise 0.5"
    _, output, _ = command(f"simulate {cost} {options}")
    expected = batchify.simulate(run_time=run_time, rate=100, calls=1000, seed=3, burst=4, noise=0.5)
    assert f"{expected.avg_batch_size:.1f}" == cells(output)[0][8]
    assert f"{expected.latency_ms.p99:.3g} ms" == cells(output)[0][6]


def test_simulate_shows_an_overload(command):
    """At a rate above the capacity, the latency grows and the capacity is answered."""
    [row] = cells(command("simulate --cost 0.004+0.0001n --rate 9000")[1])
    assert ["202%", "grows", "grows", "4,44"] == [*row[4:7], row[7][:4]]


# bench


def test_bench_compares(command):
    """The table has the prediction, the measurement and their difference for each rate."""
    code, output, errors = command("bench shop:sleep --items shop:numbers --rate 100 1000 --seconds 4")
    assert (0, "") == (code, errors)
    rows = cells(output)
    assert [["100", "6%", "predicted"], ["", "", "measured"], ["", "", ""]] == [row[:3] for row in rows[:3]]
    assert [["1,000", "60%", "predicted"], ["", "", "measured"], ["", "", ""]] == [row[:3] for row in rows[3:]]
    # In virtual time, there is hardly any difference.
    differences = [abs(int(cell.rstrip("%"))) for row in rows[2::3] for cell in row[3:]]
    assert max(differences) <= 2


def test_bench_chooses_rates(command):
    """The default rates are shares of the capacity with the options, and an overload."""
    _, output, _ = command("bench shop:sleep --items shop:numbers --seconds 1 --max-size 4")
    assert ["230", "450", "680", "1,400"] == [row[0] for row in cells(output)[::3]]


def test_bench_changes_options(command):
    """Options of the command line replace those of the decorator."""
    line = "bench shop:sleep --items shop:numbers --seconds 30 --rate 0.5 --max-size 3 --timeout 0.5 --concurrency 2"
    [predicted, measured, _] = cells(command(line)[1])
    # A call at a time waits for half a second, and runs for 4.1 ms.
    assert ["504 ms"] * 2 == [predicted[3], measured[3]]


def test_bench_keeps_options(command):
    """Without options on the command line, the function keeps its own: here, a window and two slots."""
    code, output, _ = command("bench shop:two --items shop:numbers --seconds 1 --rate 200")
    assert 0 == code
    assert "200" == cells(output)[0][0]


def test_bench_calls_with_columns(command):
    """A function with several columns is called with one element of each."""
    code, _, errors = command("bench shop:add --items shop:pairs --seconds 1 --rate 100")
    assert (0, "") == (code, errors)


def test_bench_counts_failures(command, monkeypatch):
    """Calls that fail under load are counted by type of error."""

    async def failing(load, calls, seed):
        load.answered.append((0.01, 0.01))
        load.delays.append(0.0)
        load.errors.update(["KeyError", "KeyError", "ValueError"])

    monkeypatch.setattr("batchify._cli.commands.run_load", failing)
    code, output, _ = command("bench shop:sleep --items shop:numbers --seconds 1 --rate 1500")
    assert 0 == code
    assert "At 1,500 calls/s, 3 of the calls failed: KeyError 2, ValueError 1." in output


def test_bench_without_a_call_shows_nothing(command, monkeypatch):
    """A load that made no call has neither figures nor failures."""

    async def idle(load, calls, seed):
        pass

    monkeypatch.setattr("batchify._cli.commands.run_load", idle)
    assert (0, "", "") == command("bench shop:sleep --items shop:numbers --seconds 1 --rate 100")


def test_bench_without_an_answer_reports_only_failures(command, monkeypatch):
    """A load without any answer has no row in the table, but its failures are reported."""

    async def failing(load, calls, seed):
        load.delays.append(0.0)
        load.errors.update(["KeyError"])

    monkeypatch.setattr("batchify._cli.commands.run_load", failing)
    code, output, errors = command("bench shop:sleep --items shop:numbers --seconds 1 --rate 100")
    assert (0, "") == (code, errors)
    assert "At 100 calls/s, 1 of the calls failed: KeyError 1." in output
    assert "Prediction" not in output


def test_bench_reports_late_calls(command, monkeypatch):
    """A remark says that calls were made late."""

    async def late(load, *others):
        await run_load(load, *others)
        load.delays[:] = [1.0] * len(load.delays)

    monkeypatch.setattr("batchify._cli.commands.run_load", late)
    _, output, _ = command("bench shop:sleep --items shop:numbers --seconds 1 --rate 100")
    assert "At 100 calls/s, some calls were made late (99 of 100 within 1.00 s), because the event loop" in output


# Invalid commands.

TUNE = "tune shop:sleep --items"
MEASURED = "argument --measured: must be pairs of size and seconds, at least two, such as 1:0.0041,32:0.0072"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tune sleep --items x:y", "sleep must be module:name or file.py:name, for example package.module:function"),
        ("tune shop: --items x:y", "shop: must be module:name or file.py:name, for example package.module:function"),
        ("tune nowhere:f --items x:y", "there is no module 'nowhere' in {here} or on the module search path of Python"),
        ("tune shop.no:f --items x:y", "there is no module 'shop.no' in {here} or on the module search path of Python"),
        ("tune shop:slep --items x:y", "shop has no 'slep'"),
        ("tune shop:model.slep --items x:y", "shop:model has no 'slep'"),
        ("tune shop:model.e --items x:y", "shop:model has no 'e'"),
        ("tune other:f --items x:y", "module other needs 'missing_one', which is not installed"),
        ("tune other2:f --items x:y", "module other2 cannot be imported: ValueError: no at other2.py, line 1"),
        (
            "tune other3:f --items x:y",
            "module other3 cannot be imported: SyntaxError: '(' was never closed (other3.py, line 1)",
        ),
        ("tune shop:FUN --items x:y", "shop has no 'FUN'"),
        (
            "tune shop:calls --items x:y",
            "shop:calls is not a batch function: microbatch decorates a function of a list of items, got 0 of type int",
        ),
        (
            "tune shop:no_column --items x:y",
            (
                "shop:no_column is not a batch function: no_column() has *items, which cannot be a column; "
                "give it one parameter by name for the list of items"
            ),
        ),
        (
            "tune shop:Model.embed --items x:y",
            "shop:Model.embed is a method; name the method of an instance, for example module:instance.embed",
        ),
        (
            "bench shop:grow --items x:y",
            "shop:grow is not decorated with microbatch; put @microbatch above it, or run: batchify tune shop:grow",
        ),
        (f"{TUNE} nofile.jsonl", "--items nofile.jsonl cannot be read: No such file or directory"),
        (f"{TUNE} plain", "--items plain must be module:name, or a file ending in .jsonl, .ndjson, .json, .csv, .txt"),
        (f"{TUNE} empty.csv", "--items empty.csv has no items; at least one is needed"),
        (f"{TUNE} long.csv", "--items long.csv: field larger than field limit (131072)"),
        ("tune no/file.py:f --items x:y", "there is no module 'file' in {here} or on the module search path of Python"),
        (
            "tune shop:heavy --items shop:numbers",
            (
                "items[6] cannot be queued: ValueError: an item of heavy() weighs 6, more than max_weight, 5; "
                "split it, or raise max_weight"
            ),
        ),
        (f"{TUNE} bad.jsonl", "--items bad.jsonl, line 3, column 7: not JSON (Expecting ',' delimiter)"),
        (f"{TUNE} bytes.jsonl", "--items bytes.jsonl is not UTF-8 text"),
        (f"{TUNE} empty.jsonl", "--items empty.jsonl has no items; at least one is needed"),
        (f"{TUNE} shop:nothing", "--items shop:nothing has no items; at least one is needed"),
        (f"{TUNE} shop:none", "--items shop:none must return a list of items, got NoneType"),
        (f"{TUNE} shop:calls", "--items shop:calls must be a function that returns items, got int"),
        (f"{TUNE} shop:broken", "--items shop:broken raised KeyError at shop.py, line 19"),
        (f"{TUNE} shop:broken_async", "--items shop:broken_async raised KeyError at shop.py, line 22"),
        (
            "tune shop:add --items shop:numbers",
            "items[0] does not fit add(left, right, *, more=0): it must have one element for each column",
        ),
        (
            "tune shop:add --items short.jsonl",
            "items[1] does not fit add(left, right, *, more=0): it must have one element for each column",
        ),
        (
            "tune shop:ask --items shop:numbers",
            "ask(items, *, model) needs a default for model, because a measurement passes only items",
        ),
        (
            "tune shop:count --items shop:numbers",
            (
                "shop:count is a generator function; "
                "only functions that return all results of a batch at once are measured"
            ),
        ),
        (
            "bench shop:graph --items shop:numbers --max-size 8",
            "the last of sizes must be max_size, 8, got (4, 16)",
        ),
        ("tune shop:picky --items shop:numbers", "items[13] makes picky() fail: KeyError at shop.py, line 41"),
        ("bench shop:picky --items shop:numbers", "items[13] makes picky() fail: KeyError at shop.py, line 41"),
        (
            f"{TUNE} shop:numbers --seconds 0.01",
            (
                "only batches of one item of sleep() could be measured, which says nothing about larger ones; "
                "measure for longer: --seconds 0.04"
            ),
        ),
    ],
)
def test_a_mistake_is_explained_in_one_line(command, tmp_path, line, expected):
    """The exit code is 2, and there is no traceback."""
    Path("other.py").write_text("import missing_one", encoding="utf-8")
    Path("other2.py").write_text("raise ValueError('no')", encoding="utf-8")
    Path("other3.py").write_text("f(", encoding="utf-8")
    Path("bad.jsonl").write_text('"good"\n\n[1, 2 3]\n', encoding="utf-8")
    Path("short.jsonl").write_text("[1, 2]\n[1]\n", encoding="utf-8")
    Path("bytes.jsonl").write_bytes(b"\xff")
    Path("empty.jsonl").touch()
    Path("empty.csv").touch()
    Path("long.csv").write_text(f"text\n{'a' * 200_000}", encoding="utf-8")
    code, _, errors = command(line)
    assert (2, f"batchify: {expected.format(here=tmp_path)}\n") == (code, errors)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("simulate --rate 1", "one of the arguments --cost --measured is required"),
        ("simulate --cost 1 --rate 0", "argument --rate: must be a finite number above 0, got 0.0"),
        ("simulate --cost 1 --rate x", "argument --rate: must be a number, got 'x'"),
        ("simulate --cost 1 --rate 1 --max-size 0", "argument --max-size: must be at least 1, got 0"),
        ("simulate --cost 1 --rate 1 --max-size 1.5", "argument --max-size: must be a whole number, got '1.5'"),
        (
            "simulate --cost 1 --rate 1 --timeout -1",
            "argument --timeout: must be a finite number of seconds, at least 0, got -1.0",
        ),
        (
            "simulate --cost n+n --rate 1",
            "argument --cost: must be seconds such as 0.004+0.0001n, where n is the number of items, got 'n+n'",
        ),
        (
            "simulate --cost 0+0n --rate 1",
            "argument --cost: must be seconds such as 0.004+0.0001n, where n is the number of items, got '0+0n'",
        ),
        (
            "simulate --measured 1=2 --rate 1",
            f"{MEASURED}, got '1=2'",
        ),
        (
            "simulate --measured 0:2 --rate 1",
            f"{MEASURED}, got '0:2'",
        ),
        (
            "simulate --measured 1:nan --rate 1",
            f"{MEASURED}, got '1:nan'",
        ),
        (
            "simulate --measured 1:2 --rate 1",
            f"{MEASURED}, got '1:2'",
        ),
        ("tune shop:sleep", "the following arguments are required: --items"),
    ],
)
def test_an_invalid_value_is_a_usage_error(capsys, line, expected):
    """The error names the valid values."""
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert 2 == caught.value.code
    assert capsys.readouterr().err.endswith(f"error: {expected}\n")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--measured 1:2,2:1", "run_time must be above 0 for every batch size, got 0 s for size 3"),
        ("--measured 1:2,2:1 --calls 2", "run_time must be above 0 for every batch size, got -29 s for size 32"),
        ("--measured 1:inf,2:1", "run_time[1] must be a finite number above 0, got inf"),
        ("--cost 1 --noise 20", "noise must be at most 10, got 20.0"),
    ],
)
def test_simulate_refuses_invalid_arguments(command, options, expected):
    """An argument that ``simulate()`` refuses gets the same message."""
    code, _, errors = command(f"simulate --rate 0.1 --calls 10 {options}")
    assert (2, f"batchify: {expected}\n") == (code, errors)


def test_items_are_not_shown(command):
    """Neither items nor messages of exceptions, which may quote items, are printed."""
    code, output, errors = command("tune shop:picky --items shop:numbers")
    assert "secret" not in output + errors


def test_items_are_read_from_a_file(command):
    """Each line is an item, except for empty lines."""
    Path("items.jsonl").write_text("\n".join(map(json.dumps, ["a", {"b": 1}, "", None])) + "\n\n", encoding="utf-8")
    code, output, _ = command("tune shop:sleep --items items.jsonl --max-size 2 --seconds 0.2 --rate 100")
    assert 0 == code


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("items.txt", "one\n\ntwo words\n", ["one", "two words"]),
        # Only these ends of lines, which are those of some system, end an item.
        ("items.txt", "one\r\ntwo\rthree\u2028four\x0cfive", ["one", "two", "three\u2028four\x0cfive"]),
        ("items.jsonl", '"one\u2028two"\r\n3', ["one\u2028two", 3]),
        ("items.csv", 'text\none\n"two, words"\n', ["one", "two, words"]),
        ("items.csv", 'text\r\none\r\n"two\r\nlines"\r\n', ["one", "two\r\nlines"]),
        ("items.csv", "left,right\n1,2\n\n3,4\n", [["1", "2"], ["3", "4"]]),
    ],
)
def test_items_are_read_from_text_and_csv(name, content, expected):
    """A line of text is an item, and so is a row of CSV below the header: a string, or a list of several columns."""
    Path(name).write_text(content, encoding="utf-8")
    assert expected == load_items(name, None)


def test_a_function_is_found_in_a_file(command):
    """A path names a file, which imports from its own folder."""
    Path("deep").mkdir()
    Path("deep/other_helper.py").write_text("seconds = 0.001", encoding="utf-8")
    Path("deep/other_app.py").write_text(
        "import asyncio\nfrom other_helper import seconds\n"
        "async def run(items):\n    await asyncio.sleep(seconds)\n    return items\n",
        encoding="utf-8",
    )
    line = "tune deep/other_app.py:run --items shop.py:numbers --max-size 2 --seconds 0.2 --rate 100"
    assert 0 == command(line)[0]


def test_pictures_need_the_extra(command, monkeypatch):
    """Without matplotlib, ``--out`` is an error before anything is measured, and the message says what to install."""
    monkeypatch.setattr("batchify._cli.commands.find_spec", lambda name: None)
    line = "tune shop:sleep --items shop:numbers --max-size 2 --seconds 0.2 --rate 100"
    expected = "batchify: --out needs matplotlib: pip install 'batchify-toolkit[cli]'\n"
    assert (2, "", expected) == command(f"{line} --out x")
    assert 0 == command(line)[0]


def test_the_command_alone_shows_its_usage(command):
    """Without a command, the exit code is 2, and the output names the commands and the extra."""
    code, output, errors = command("")
    assert (2, "") == (code, output)
    assert all(words in errors for words in ("tune", "simulate", "bench", "pip install 'batchify-toolkit[cli]'"))


def test_the_version_is_shown(capsys):
    """``--version`` prints the version of the package."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert f"batchify {batchify.__version__}\n" == capsys.readouterr().out


# Ctrl-C.


def interrupted(command, line, stop):
    """Run a command whose function is interrupted in its call number ``stop``."""
    sys.path.insert(0, str(Path.cwd()))
    import shop

    shop.stop = stop
    return command(line)


def test_an_interrupt_before_the_first_measurement_leaves_no_output(command):
    """Only the message about the interrupt is printed."""
    line = "tune shop:until --items shop:awaited"
    assert (130, "", "batchify: interrupted\n") == interrupted(command, line, 1)


@pytest.mark.parametrize(("stop", "is_shown"), [(2, False), (6, False), (10, False), (100, True), (101, True)])
def test_an_interrupted_measurement_shows_complete_rounds(command, stop, is_shown):
    """The cost is shown if at least one round is complete."""
    line = "tune shop:until --items shop:awaited --max-size 2 --seconds 5"
    code, output, errors = interrupted(command, line, stop)
    assert (130, "batchify: interrupted\n") == (code, errors)
    assert (["1", "2"] if is_shown else []) == [row[0] for row in cells(output)]


def test_an_interrupted_recommendation_shows_the_cost_once(command, monkeypatch):
    """The cost is measured and shown, and an interrupt while options are compared adds nothing."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("batchify._cli.commands.recommend", interrupted)
    code, output, errors = command("tune shop:sleep --items shop:numbers --max-size 2 --seconds 1")
    assert (130, "batchify: interrupted\n") == (code, errors)
    assert 1 == output.count("Cost of a batch")


def test_an_interrupted_load_shows_its_calls(command, monkeypatch):
    """The finished rates are shown, and the interrupted one with the calls that it has made."""
    loads = []

    async def interrupted(load, calls, seed):
        loads.append(load)
        if len(loads) == 2:
            del load.due[50:]
        await run_load(load, calls, seed)
        if len(loads) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("batchify._cli.commands.run_load", interrupted)
    code, output, errors = command("bench shop:sleep --items shop:numbers --seconds 1 --rate 100 400")
    assert (130, "batchify: interrupted\n") == (code, errors)
    assert ["100", "400"] == [row[0] for row in cells(output)[::3]]


def test_an_interrupt_before_the_first_answer_leaves_no_output(command, monkeypatch):
    """A load without an answer has no row."""

    async def interrupted(load, calls, seed):
        raise KeyboardInterrupt

    monkeypatch.setattr("batchify._cli.commands.run_load", interrupted)
    line = "bench shop:sleep --items shop:numbers --seconds 1 --rate 100 400"
    assert (130, "", "batchify: interrupted\n") == command(line)


def test_an_interrupted_simulation_shows_finished_rows(command, monkeypatch):
    """Rows that are finished before the interrupt are shown."""
    finished = []

    def simulate(**options):
        if finished:
            raise KeyboardInterrupt
        finished.append(True)
        return batchify.simulate(**options)

    monkeypatch.setattr("batchify._cli.commands.simulate", simulate)
    code, output, _ = command("simulate --cost 1 --rate 0.1 0.2 --calls 10")
    assert 130 == code
    assert ["0.1"] == [row[0] for row in cells(output)]


# In a separate process.


def test_a_process_runs_the_command():
    """``python -m batchify`` runs the command."""
    assert "Prediction" in printed("-m", "batchify", "simulate", "--cost", "0.004", "--rate", "100")


def test_an_import_runs_no_command():
    """A spawned process of an executor imports the main module, which must not run the command again."""
    assert main is importlib.import_module("batchify.__main__").main


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_a_process_is_interrupted():
    """Ctrl-C ends the process with exit code 130 and without a traceback."""
    Path("slow.py").write_text(
        "import asyncio, sys\nasync def slow(items):\n    print('running', flush=True)\n    await asyncio.sleep(60)\n",
        encoding="utf-8",
    )
    Path("items.jsonl").write_text("1\n", encoding="utf-8")
    running = start("-m", "batchify", "tune", "slow:slow", "--items", "items.jsonl")
    assert "running\n" == running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=PATIENCE)
    assert (130, "batchify: interrupted\n") == (running.returncode, errors)


def test_the_package_installs_a_script():
    """The package installs the command ``batchify``."""
    [script] = [script for script in entry_points(group="console_scripts") if script.name == "batchify"]
    assert main is script.load()


def terminal(monkeypatch):
    """Return a terminal of 20 columns, to which all output goes."""
    screen = StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "20")
    return screen


def test_sentences_are_wrapped_on_a_terminal(monkeypatch):
    """The width of the terminal limits the lines."""
    screen = terminal(monkeypatch)
    output.show(["a sentence of some length"])
    assert ["a sentence of some", "length", ""] == screen.getvalue().splitlines()


def test_a_terminal_shows_the_progress(monkeypatch):
    """The label and the share are shown, and removed at the end."""
    screen = terminal(monkeypatch)
    output.progress("measuring", [0.5, 1.0])
    assert "\r\x1b[Kmeasuring: 50%\r\x1b[K" == screen.getvalue()
