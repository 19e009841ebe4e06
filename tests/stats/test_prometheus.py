"""Metrics for Prometheus, as its own client writes and reads them."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections import Counter
from math import ceil, inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families

from batchify import microbatch
from batchify._core.batch import Batch
from batchify._stats.counters import Stats
from batchify._stats.snapshot import CALL_OUTCOMES, REASONS
from batchify._stats.sums import BOUNDS
from batchify._stats.totals import Totals
from batchify.prometheus import BatchCollector
from tests.kit.examples import EXAMPLES
from tests.kit.processes import printed_by

pytestmark = pytest.mark.usefixtures("no_others")

DASHBOARD = json.loads((EXAMPLES / "grafana.json").read_text(encoding="utf-8"))


@pytest.fixture
def registry():
    """Return a registry that collects from all batchers, and describes them as the default registry does."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(BatchCollector())
    return registry


def echo(items):
    return items


async def aecho(items):
    return items


def scraped(registry):
    """Return the families of a scrape by name, as a parser reads its text."""
    return {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}


def samples(registry, family):
    """Return the values of a family, by the name and the labels of a sample."""
    found = scraped(registry)[family].samples
    values = {(sample.name, *sample.labels.values()): sample.value for sample in found}
    assert len(found) == len(values), "a series is listed twice"
    return values


def values(registry, name):
    """Return the values of all series of one metric."""
    return [sample.value for family in scraped(registry).values() for sample in family.samples if sample.name == name]


def test_before_any_call_there_is_no_series(registry):
    """Without a batcher, the metrics have names and descriptions, and no series."""
    families = scraped(registry)
    assert {"batchify_batches", "batchify_wait_seconds", "batchify_batch_items"} < set(families)
    assert [] == [sample for family in families.values() for sample in family.samples]


def test_calls_are_counted(registry, used):
    """Each outcome of a call has a counter."""
    counted = {field: values(registry, f"batchify_{field}_total") for field in CALL_OUTCOMES}
    none = [0.0]
    assert {
        "answered_items": [9.0],
        "failed_items": [1.0],
        "cancelled_items": none,
        "expired_items": none,
        "rejected_items": none,
        "deduped_items": none,
        "padded_items": none,
    } == counted


def test_batches_are_counted_by_reason(registry, used):
    """Every reason of a departure has a series from the start."""
    expected = {("batchify_batches_total", "double", reason): used.batch_stats.reasons[reason] for reason in REASONS}
    assert expected == samples(registry, "batchify_batches")


async def test_waiting_and_running_calls(registry):
    """The numbers of waiting and of running calls are gauges."""
    found = []

    @microbatch(name="look", max_size=2, timeout=None)
    async def look(items):
        await asyncio.sleep(1)
        found.append([values(registry, f"batchify_{state}_items") for state in ("pending", "running")])
        return items

    await look.map(range(5))
    assert [[[3.0], [2.0]], [[1.0], [2.0]], [[0.0], [1.0]]] == found


def test_sizes_are_a_histogram(registry, used):
    """A bucket counts the batches up to its size, the last one counts all; the sum is the number of items."""
    found = samples(registry, "batchify_batch_items")
    stats = used.batch_stats
    for (name, _, *bound), value in found.items():
        if name.endswith("_bucket"):
            assert value == sum(count for size, count in stats.size_histogram.items() if size <= float(bound[0]))
    count, total = found["batchify_batch_items_count", "double"], found["batchify_batch_items_sum", "double"]
    assert (stats.total_batches, 10, count) == (count, total, found["batchify_batch_items_bucket", "double", "+Inf"])


@pytest.mark.parametrize("kind", ["wait", "run"])
def test_times_are_histograms(registry, used, kind):
    """A histogram has the number of times, their sum in seconds, and how many are below each bound."""
    stats = used.batch_stats
    count = {"wait": stats.total_items, "run": stats.total_batches}[kind]
    average, recent = getattr(stats, f"avg_{kind}_time_ms"), getattr(stats, f"{kind}_ms")
    name = f"batchify_{kind}_seconds"
    found = samples(registry, name)
    total = pytest.approx(count * average / 1000, abs=1e-9)
    assert (count, total) == (found.pop((f"{name}_count", "double")), found.pop((f"{name}_sum", "double")))
    assert [f"{name}_bucket"] * (len(BOUNDS) + 1) == [sample for sample, _, _ in found]
    longest = next(bound for (_, _, bound), value in found.items() if value == count)
    assert recent.max / 1000 <= float(longest)


def test_slots_are_a_gauge(registry):
    """Each batcher has its number of slots; the instances of a class add up."""

    class Model:
        @microbatch(name="double", concurrency=3)
        def double(self, items):
            return items

    models = [Model(), Model()]
    for model in models:
        model.double(1)
    assert [6.0] == values(registry, "batchify_slots")
    models[0].double.configure(concurrency=1)
    assert [4.0] == values(registry, "batchify_slots")


async def test_room_is_a_gauge(registry):
    """The room is the number of calls that the queue still takes; a queue without a bound has no series."""
    bounded = microbatch(aecho, name="bounded", max_pending=3, timeout=None)
    unbounded = microbatch(aecho, name="unbounded")
    calls, found = [unbounded.submit(1)], []
    # The first three run, and one of the others waits for room.
    for count in (2, 5):
        calls += map(bounded.submit, range(count))
        found += values(registry, "batchify_room_items")
    await asyncio.gather(*calls)
    assert [1.0, 0.0, 3.0] == [*found, *values(registry, "batchify_room_items")]


def test_one_name_is_one_series(registry):
    """The instances of a class and a function of the same name share a series, which adds up their calls."""

    class Model:
        @microbatch(name="double")
        def double(self, items):
            return [2 * item for item in items]

    models = [Model(), Model(), Model()]
    for model in models:
        model.double(1)
        model.double.close()
    other = microbatch(echo, name="double")
    other(1)
    other.close()
    assert {("batchify_answered_items_total", "double"): 4.0} == samples(registry, "batchify_answered_items")


def test_no_counter_falls(registry, used):
    """Neither a reset nor the end of a batcher makes any counter fall."""

    def counters():
        families = [family for family in scraped(registry).values() if family.type != "gauge"]
        return {
            (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
        }

    before = counters()
    used.reset_stats()
    assert before == counters()


def test_a_function_that_is_gone_stays_counted(registry):
    """The series of a dropped function keep their values."""

    def use():
        double = microbatch(echo, name="double")
        double.map(range(5))
        double.close()
        return values(registry, "batchify_answered_items_total")

    before = use()
    gc.collect()
    assert ([5.0], [5.0]) == (before, values(registry, "batchify_answered_items_total"))


def test_any_name_is_a_label(registry):
    """A parser reads every name back, whatever characters it has."""
    name = 'a "b"\\n\nc'
    odd = microbatch(echo, name=name)
    odd(1)
    odd.close()
    assert {("batchify_answered_items_total", name): 1.0} == samples(registry, "batchify_answered_items")


def test_openmetrics(registry, used):
    """The stricter parser of the OpenMetrics format accepts the metrics."""
    text = exposition.generate_latest(registry).decode()
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert {"counter", "gauge", "histogram"} == {family.type for family in families.values()}
    assert {"seconds", ""} == {family.unit for family in families.values()}


def test_a_registry_takes_one_collector(registry):
    """A registry refuses a second collector, which would list every series twice."""
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(BatchCollector())


def test_a_scrape_may_be_restricted(registry, used):
    """A scrape may select metrics by name, as ``name[]=`` in its address does."""
    restricted = registry.restricted_registry(["batchify_answered_items_total"])
    text = generate_latest(restricted).decode()
    assert ['batchify_answered_items_total{batcher="double"} 9.0'] == re.findall("^[^#].+$", text, re.MULTILINE)


# https://prometheus.io/docs/practices/naming/, and the checks of ``promtool check metrics``.


@pytest.mark.parametrize("family", BatchCollector().describe(), ids=lambda family: family.name)
def test_names_follow_the_conventions_of_prometheus(family):
    """A name has the prefix of the library and the base unit in full, and no type; its documentation is a sentence."""
    assert re.fullmatch("batchify(_[a-z]+)+_(items|batches|seconds)|batchify_(batches|slots)", family.name)
    assert not re.search("_(total|count|sum|bucket|counter|gauge|histogram|summary)(_|$)", family.name)
    assert re.fullmatch("[A-Z].+[.]", family.documentation)
    assert family.name.endswith("_seconds") == (family.unit == "seconds")


def test_labels(registry, used):
    """The only labels are the name, the reason, and the bounds of histograms."""
    families = scraped(registry).values()
    found = {label for family in families for sample in family.samples for label in sample.labels}
    assert {"batcher", "reason", "le"} == found


def test_a_missing_package_is_named():
    """Without ``prometheus_client``, the import says what to install."""
    script = """
        import sys
        sys.modules["prometheus_client"] = None
        try:
            import batchify.prometheus
        except ModuleNotFoundError as error:
            print(error)
    """
    expected = "batchify.prometheus needs prometheus-client: pip install 'batchify-toolkit[prometheus]'\n"
    assert expected == printed_by(script)


def test_multiprocess_mode_is_reported(monkeypatch, caplog, tmp_path):
    """In the multiprocess mode of ``prometheus_client``, which omits the metrics, a warning in the log says so."""
    BatchCollector()
    assert [] == caplog.messages
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    BatchCollector()
    [message] = caplog.messages
    assert "multiprocess mode of prometheus_client omits the metrics of batchify" in message


# Percentiles over several processes.


def replica(waits):
    """Return the registry of a process in which calls waited this many seconds."""
    counters = Stats()
    for wait in waits:
        counters.ended(Batch(["item"], ["caller"], [0.0], "full", 1, wait), 0.0, failed=0, cancelled=0)
    collector, registry = BatchCollector(), CollectorRegistry()
    collector._totals = Totals(lambda: [("embed", counters)])
    registry.register(collector)
    return registry


def histogram_quantile(share, registries):
    """Return a quantile of the wait times of several processes, as the query ``histogram_quantile`` estimates it.

    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    buckets = Counter()
    for registry in registries:
        for (name, _, *bound), value in samples(registry, "batchify_wait_seconds").items():
            if name.endswith("_bucket"):
                buckets[float(*bound)] += value
    rank = share * buckets[inf]
    lower = below = 0.0
    for bound, up_to in sorted(buckets.items()):
        if up_to >= rank:
            return lower if bound == inf else lower + (bound - lower) * (rank - below) / (up_to - below)
        lower, below = bound, up_to
    raise AssertionError


def bucket(seconds):
    """Return the bounds between which a time lies."""
    upper = next(index for index, bound in enumerate((*BOUNDS, inf)) if seconds <= bound)
    return (0.0, *BOUNDS)[upper], (*BOUNDS, inf)[upper]


def p99(waits):
    return sorted(waits)[ceil(0.99 * len(waits)) - 1]


@settings(max_examples=30)
@example(several=[[0.002] * 990, [2.0] * 10])
@example(several=[[0.002] * 990, [2.0] * 11])
@given(several=st.lists(st.lists(st.floats(0, 50), min_size=1, max_size=40), min_size=2, max_size=3))
def test_p99_over_processes(several):
    """The 99th percentile over all processes is in the right bucket, unlike the highest or the mean of theirs."""
    low, high = bucket(p99([wait for waits in several for wait in waits]))
    assert low <= histogram_quantile(0.99, map(replica, several)) <= high


def test_p99_of_a_slow_process():
    """A process that answers 1 % of the calls slowly does not decide the 99th percentile of all, and 2 % do."""
    fast = [0.002] * 980
    few, more = ([fast, [2.0] * slow] for slow in (9, 20))
    assert [True, False] == [histogram_quantile(0.99, map(replica, several)) <= 0.0025 for several in (few, more)]
    assert [2.0, 2.0] == [max(map(p99, several)) for several in (few, more)]


# The dashboard.


def queries(panel):
    return [target["expr"] for target in panel["targets"]]


def test_every_query_of_the_dashboard_finds_a_series(registry, used):
    """The dashboard queries existing metrics, by labels that they have."""
    found = [sample for family in scraped(registry).values() for sample in family.samples]
    labels = {}
    for sample in found:
        labels.setdefault(sample.name, set()).update(sample.labels)
    for query in (query for panel in DASHBOARD["panels"] for query in queries(panel)):
        selectors = re.findall(r"(\w+)\{([^}]*)\}", query)
        assert {name for name, _ in selectors} == set(re.findall(r"batchify_\w+", query))
        for name, matchers in selectors:
            assert set(re.findall(r'(\w+)=~?"', matchers)) <= labels[name]
            grouped = {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
            assert grouped <= labels[name]


def test_the_dashboard_shows_all_metrics():
    """Every metric is on the dashboard."""
    shown = " ".join(query for panel in DASHBOARD["panels"] for query in queries(panel))
    assert [] == [family.name for family in BatchCollector().describe() if family.name not in shown]


def test_the_dashboard_is_well_formed():
    """Panels have distinct ids and positions, and query the data source that is selected on the dashboard."""
    panels = DASHBOARD["panels"]
    assert list(range(1, len(panels) + 1)) == [panel["id"] for panel in panels]
    assert len(panels) == len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels})
    assert {"${datasource}"} == {panel["datasource"]["uid"] for panel in panels}
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert ["datasource", "batcher"] == variables
    used = {name for panel in panels for query in queries(panel) for name in re.findall(r"\$(\w+)", query)}
    assert {"batcher", "__rate_interval"} == used
