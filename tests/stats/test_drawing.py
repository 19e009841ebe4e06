"""Drawings of snapshots as text and as HTML."""

from __future__ import annotations

from textwrap import dedent
from xml.etree import ElementTree as ET

import pytest

from batchify._stats.snapshot import BatchStats, Percentiles

SVG = "{http://www.w3.org/2000/svg}"
TERMINAL = 80
HOSTILE = "</title><script>alert('&')</script>"

EMPTY = BatchStats("tokenize")
BUSY = BatchStats(
    name="embed",
    total_items=12_480,
    total_batches=512,
    avg_batch_size=24.375,
    max_batch_size_seen=30,
    pending=3,
    running=32,
    failed_items=2,
    cancelled_items=1,
    deduped_items=41,
    wait_ms=Percentiles(p50=1.2034, p90=2.049, p99=2.4, max=3.1),
    run_ms=Percentiles(p50=0.85, p90=9.5, p99=121.0, max=1530.2),
    size_histogram={**dict.fromkeys(range(1, 13), 4), 18: 84, 27: 140, 30: 240},
    reasons={"full": 240, "timeout": 0, "idle": 20, "slot": 251, "weight": 0, "close": 1},
    fill_ratio=0.7617,
    utilization=0.9376,
)


def with_sizes(histogram: dict[int, int]) -> BatchStats:
    """Return a snapshot of batches of these sizes."""
    batches = sum(histogram.values())
    return BatchStats("f", total_batches=batches, size_histogram=histogram, reasons={"full": batches})


def with_wait(ms: float) -> BatchStats:
    """Return a snapshot of one batch that waited this long."""
    return BatchStats("f", total_batches=1, size_histogram={1: 1}, reasons={"idle": 1}, wait_ms=Percentiles(p50=ms))


def size_rows(stats: BatchStats) -> list[list[str]]:
    """Return the words of each line of the last chart in the text: size, bar unless empty, count, share."""
    return [line.split() for line in str(stats).split("\n\n")[-1].splitlines()[1:]]


def parse(stats: BatchStats) -> ET.Element:
    """Return the HTML as a tree, which proves that it is valid XML."""
    return ET.fromstring(stats._repr_html_())  # noqa: S314  # the library wrote it


def panel(stats: BatchStats, heading: str) -> tuple[list[str | None], list[float]]:
    """Return the words under a heading of the picture, and the lengths of the bars."""
    group = next(group for group in parse(stats).iter(f"{SVG}g") if group.findtext(f"{SVG}text") == heading)
    words = [text.text for text in group.iter(f"{SVG}text")]
    return words[1:], [float(bar.attrib["width"]) for bar in group.iter(f"{SVG}rect")]


def test_text_of_a_busy_batcher() -> None:
    """Numbers, percentiles, reasons and sizes are in aligned columns below the name."""
    expected = """\
        embed ──────────────────────────────────────────────────────
        items                 12,480    pending                    3
        batches                  512    running                   32
        avg size               24.38    failed                     2
        fill ratio             76.2%    cancelled                  1
        utilization            93.8%    deduped                   41

                             p50         p90         p99         max
        wait             1.20 ms     2.05 ms     2.40 ms     3.10 ms
        run               850 us     9.50 ms      121 ms      1.53 s

        left because                                 batches   share
        slot        █████████████████████████████        251   49.0%
        full        ███████████████████████████▊         240   46.9%
        idle        ██▎                                   20    3.9%
        close       ▏                                      1    0.2%

        batch size                                   batches   share
        1-4         █▉                                    16    3.1%
        5-8         █▉                                    16    3.1%
        9-12        █▉                                    16    3.1%
        13-16                                              0    0.0%
        17-20       ██████████▏                           84   16.4%
        21-24                                              0    0.0%
        25-28       ████████████████▉                    140   27.3%
        29-30       █████████████████████████████        240   46.9%"""
    assert dedent(expected) == str(BUSY)


def test_text_before_any_call() -> None:
    """Before any call, everything is zero, and the text says that there are no batches."""
    expected = """\
        tokenize ───────────────────────────────────────────────────
        items                      0    pending                    0
        batches                    0    running                    0
        avg size                0.00
        fill ratio              0.0%
        utilization             0.0%

        no batches yet"""
    assert dedent(expected) == str(EMPTY)


def test_calls_without_an_answer_are_listed_before_any_batch_ends() -> None:
    """Failed, cancelled, expired, rejected, deduped and padded items and isolation runs have a row if there are any."""
    stats = BatchStats(
        "f",
        failed_items=1,
        cancelled_items=2,
        expired_items=3,
        rejected_items=4_000,
        deduped_items=5,
        padded_items=6,
        isolation_runs=7,
    )
    rows = dict(line[32:].rsplit(maxsplit=1) for line in str(stats).splitlines()[3:10])
    calls = {"failed": "1", "cancelled": "2", "expired": "3", "rejected": "4,000", "deduped": "5"}
    assert calls | {"padded": "6", "isolation": "7"} == rows
    assert 60 == max(map(len, str(stats).splitlines()))


def test_text_of_large_numbers_fits_a_terminal() -> None:
    """No line is wider than 80 columns, however long the name and however large the numbers are."""
    many = 10**12
    stats = BatchStats(
        name="package.module." * 20,
        total_items=many,
        total_batches=many,
        avg_batch_size=1e9,
        pending=many,
        failed_items=many,
        wait_ms=Percentiles(max=1e9),
        size_histogram={10**9 - size: many for size in range(20)},
        reasons={"deadline": many},
        fill_ratio=1.0,
    )
    assert TERMINAL >= max(map(len, str(stats).splitlines()))


def test_long_name_keeps_its_end() -> None:
    """The end of a name that does not fit is shown, because the ends of names differ."""
    title = str(BatchStats("package." * 10 + "Model.encode")).splitlines()[0]
    assert (60, "…", "Model.encode") == (len(title), title[0], title.rstrip("─ ")[-12:])


def test_unprintable_characters_of_a_name_are_replaced() -> None:
    """Characters that would break a line or are not allowed in XML appear as replacement characters."""
    stats = BatchStats("a\nb\x00c\ud800")
    assert "a\ufffdb\ufffdc\ufffd" == str(stats).split()[0]
    assert "a\ufffdb\ufffdc\ufffd" == parse(stats).findtext("table/caption")


@pytest.mark.parametrize(
    ("expected", "ms"),
    [
        ("0 ms", 0.0),
        ("0.50 us", 0.0005),
        ("1.00 us", 0.001),
        ("10.0 us", 0.01),
        ("850 us", 0.85),
        ("1.00 ms", 0.9999),
        ("1.00 ms", 1.0),
        ("10.0 ms", 9.996),
        ("100 ms", 99.96),
        ("1.00 s", 999.9),
        ("12.3 s", 12_345.0),
        ("12,346 s", 12_345_678.0),
    ],
)
def test_times_have_three_digits_and_a_fitting_unit(expected: str, ms: float) -> None:
    """A time has three significant digits, in the largest unit in which it is at least 1."""
    wait = next(line for line in str(with_wait(ms)).splitlines() if line.startswith("wait"))
    assert expected == " ".join(wait.split()[1:3])


def test_few_sizes_have_a_bar_each() -> None:
    """Up to ten different sizes have a bar each, in order, however far apart they are."""
    sizes = [1, 2, 3, 5, 8, 13, 21, 34, 55, 1000]
    rows = size_rows(with_sizes(dict.fromkeys(reversed(sizes), 1)))
    assert [str(size) for size in sizes] == [words[0] for words in rows]


@pytest.mark.parametrize(
    ("expected", "sizes"),
    [
        (["1-2", "3-4", "5-6", "7-8", "9-10", "11"], range(1, 12)),
        (["1-4", "5-8", "9-12", "13-16", "17-20", "21-24", "25-28", "29-32"], range(1, 33)),
        (["1-16", "17-32", "33-48", "49-64", "65-80", "81-96", "97-100"], range(1, 101)),
        (["989-990", "991-992", "993-994", "995-996", "997-998", "999-1000"], range(990, 1001)),
    ],
)
def test_many_sizes_share_bars(expected: list[str], sizes: range) -> None:
    """More than ten sizes share at most ten equal ranges, the last of which ends at the largest size."""
    assert expected == [words[0] for words in size_rows(with_sizes(dict.fromkeys(sizes, 1)))]


def test_ranges_keep_every_batch() -> None:
    """The counts of all ranges add up to the number of batches."""
    stats = with_sizes({size: size for size in range(3, 40)})
    assert stats.total_batches == sum(int(words[-2]) for words in size_rows(stats))


def test_one_in_a_million_is_visible() -> None:
    """A bar is at least an eighth of a character, so that a rare size differs from a size without batches."""
    assert "▏" == size_rows(with_sizes({1: 1, 32: 1_000_000}))[0][1]


def test_bars_are_in_proportion_to_their_counts() -> None:
    """Half as many batches have a bar of half the length, to the eighth of a character."""
    bars = [words[1] for words in size_rows(with_sizes({1: 1, 2: 2}))]
    assert ["█" * 14 + "▌", "█" * 29] == bars


def test_html_has_the_numbers_in_a_table() -> None:
    """The caption of the table is the name, and the table has a cell for each number of the text."""
    table = parse(BUSY).find("table")
    assert table is not None
    headings = [cell.text for cell in table.iter("th")]
    assert "embed" == table.findtext("caption")
    cells = dict(zip(headings, (cell.text for cell in table.iter("td")), strict=True))
    batches = {"items": "12,480", "batches": "512", "avg size": "24.38"}
    batches |= {"fill ratio": "76.2%", "utilization": "93.8%"}
    calls = {"pending": "3", "running": "32", "failed": "2", "cancelled": "1", "deduped": "41"}
    assert batches | calls == cells


def test_html_lists_the_reasons() -> None:
    """The reasons are between table and charts, the most frequent first."""
    summary = parse(BUSY).findtext("p")
    assert "left because: slot 49.0%, full 46.9%, idle 3.9%, close 0.2%" == summary


def test_html_before_any_call() -> None:
    """Before any call, there is a table of zeros, a sentence and no drawing."""
    fragment = parse(EMPTY)
    assert ["0", "0", "0.00", "0.0%", "0.0%", "0", "0"] == [cell.text for cell in fragment.iter("td")]
    assert "no batches yet" == fragment.findtext("p")
    assert fragment.find(f"{SVG}svg") is None


def test_html_draws_the_sizes() -> None:
    """Each size has its label, its count, and a bar in proportion to the count."""
    stats = with_sizes({8: 1_000, 32: 4_000})
    assert (["8", "1,000", "32", "4,000"], [45.0, 180.0]) == panel(stats, "batches by size")


def test_html_draws_wait_and_run_times() -> None:
    """Each percentile has its label, its time, and a bar in proportion to the maximum."""
    wait = ["p50", "1.20 ms", "p90", "2.05 ms", "p99", "2.40 ms", "max", "3.10 ms"]
    run = ["p50", "850 us", "p90", "9.50 ms", "p99", "121 ms", "max", "1.53 s"]
    assert (wait, [69.9, 119.0, 139.4, 180.0]) == panel(BUSY, "wait")
    assert (run, [0.1, 1.1, 14.2, 180.0]) == panel(BUSY, "run")


def test_html_of_times_that_are_all_zero() -> None:
    """Times of zero have bars without length, and nothing is divided by zero."""
    assert [0.0, 0.0, 0.0, 0.0] == panel(with_wait(0.0), "wait")[1]


@pytest.mark.parametrize("stats", [BUSY, with_sizes({1: 1}), with_sizes({10**6 + size: 10**6 for size in range(200)})])
def test_html_draws_inside_the_picture(stats: BatchStats) -> None:
    """Every bar, with room for the figure beside it, is inside the picture."""
    picture = parse(stats).find(f"{SVG}svg")
    assert picture is not None
    for group in picture.iter(f"{SVG}g"):
        left, top = map(float, group.attrib["transform"].removeprefix("translate(").removesuffix(")").split())
        for bar in group.iter(f"{SVG}rect"):
            x, y, width, height = (float(bar.attrib[key]) for key in ("x", "y", "width", "height"))
            assert float(picture.attrib["width"]) >= left + x + width + 60
            assert float(picture.attrib["height"]) >= top + y + height


@pytest.mark.parametrize("stats", [BUSY, EMPTY])
def test_html_takes_its_colours_from_the_theme(stats: BatchStats) -> None:
    """Text and axes have the colour of the theme; only the bars have a colour, which fits light and dark themes."""
    fragment = parse(stats)
    colours = {node.attrib[key] for node in fragment.iter() for key in ("fill", "stroke") if key in node.attrib}
    assert {"currentColor", "#3b82f6"} >= colours


@pytest.mark.parametrize("stats", [BUSY, EMPTY])
def test_html_has_no_external_resources(stats: BatchStats) -> None:
    """The fragment has no scripts, links, images, style sheets or ids, and no attribute that loads a resource."""
    nodes = list(parse(stats).iter())
    tags = {node.tag.removeprefix(SVG) for node in nodes}
    attributes = {name for node in nodes for name in node.attrib}
    assert set() == tags & {"script", "link", "img", "image", "style", "iframe", "a", "use"}
    assert set() == {name for name in attributes if name in {"id", "src", "href"} or name.startswith("on")}
    assert "url(" not in stats._repr_html_()


def test_html_is_accessible() -> None:
    """The picture has the role of an image, a title, and a description with every figure."""
    stats = BatchStats("f", total_batches=3, size_histogram={1: 1, 4: 2}, wait_ms=Percentiles(1, 2, 3, 4))
    picture = parse(stats).find(f"{SVG}svg")
    assert picture is not None
    assert "img" == picture.attrib["role"]
    assert "f: batch sizes, wait times and run times" == picture.findtext(f"{SVG}title")
    assert (
        "batches by size (1: 1, 4: 2); wait (p50: 1.00 ms, p90: 2.00 ms, p99: 3.00 ms, max: 4.00 ms); "
        "run (p50: 0 ms, p90: 0 ms, p99: 0 ms, max: 0 ms)"
    ) == picture.findtext(f"{SVG}desc")


def test_html_escapes_the_name() -> None:
    """A name that looks like markup appears as text."""
    fragment = parse(BatchStats(HOSTILE, total_batches=1, size_histogram={1: 1}, reasons={"idle": 1}))
    assert HOSTILE == fragment.findtext("table/caption")
    assert f"{HOSTILE}: batch sizes, wait times and run times" == fragment.findtext(f"{SVG}svg/{SVG}title")
