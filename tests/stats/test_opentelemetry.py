"""Metrics for OpenTelemetry, as its own SDK collects them."""

from __future__ import annotations

import re

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, View

import batchify
from batchify import microbatch
from batchify._stats.snapshot import CALL_OUTCOMES, REASONS
from batchify._stats.totals import Totals
from batchify.opentelemetry import instrument
from batchify.opentelemetry.metrics import COUNTERS, LEVELS
from batchify.opentelemetry.tracing import NAME, REASON
from tests.kit.processes import printed_by

pytestmark = pytest.mark.usefixtures("no_others")


@pytest.fixture
def reader():
    """Return a reader of a provider that collects from all batchers."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument(provider)
    yield reader
    provider.shutdown()


def collected(reader):
    """Return the collected metrics by name."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    [resource] = data.resource_metrics
    [scope] = resource.scope_metrics
    assert ("batchify", batchify.__version__) == (scope.scope.name, scope.scope.version)
    return {metric.name: metric for metric in scope.metrics}


def points(reader):
    """Return the values of all metrics by name and attributes."""
    return {
        name: {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}
        for name, metric in collected(reader).items()
    }


def test_before_any_call_there_is_no_value(reader):
    """Without a batcher, a collection is empty."""
    assert {} == collected(reader)


def test_everything_is_collected(reader, used):
    """A collection has outcomes of calls, numbers of batches and items, times, and waiting and running calls."""
    stats = used.batch_stats
    who = (NAME, "double")
    expected = {
        f"batchify.item.{field.removesuffix('_items')}": {(who,): getattr(stats, field)} for field in CALL_OUTCOMES
    }
    assert {
        **expected,
        "batchify.item.batched": {(who,): 10},
        "batchify.item.wait_time": {(who,): pytest.approx(stats.avg_wait_time_ms * 10 / 1000, abs=1e-9)},
        "batchify.batch.run_time": {
            (who,): pytest.approx(stats.avg_run_time_ms * stats.total_batches / 1000, abs=1e-9)
        },
        "batchify.item.pending": {(who,): 0},
        "batchify.item.running": {(who,): 0},
        "batchify.batch.ended": {tuple(sorted([who, (REASON, reason)])): stats.reasons[reason] for reason in REASONS},
    } == points(reader)


async def test_waiting_and_running_calls(reader):
    """The numbers of waiting and of running calls rise and fall."""
    found = []

    @microbatch(name="look", max_size=2)
    async def look(items):
        values = points(reader)
        found.append([values[f"batchify.item.{state}"][(NAME, "look"),] for state in ("pending", "running")])
        return items

    await look.map(range(5))
    assert [[3, 2], [1, 2], [0, 1]] == found


def test_no_counter_falls(reader, used):
    """Neither a reset nor the end of a batcher makes any counter fall."""
    before = points(reader)
    used.reset_stats()
    assert before == points(reader)


def test_one_name_is_one_value(reader):
    """The instances of a class share a series, which adds up their calls."""

    class Model:
        @microbatch(name="double")
        def double(self, items):
            return [2 * item for item in items]

    models = [Model(), Model(), Model()]
    for model in models:
        model.double(1)
        model.double.close()
    assert {((NAME, "double"),): 3} == points(reader)["batchify.item.answered"]


def test_kinds(reader, used):
    """Counters are monotonic sums, levels are sums that may fall; both are cumulative."""
    metrics = collected(reader)
    counters, levels = ({name for name, *_ in described.values()} for described in (COUNTERS, LEVELS))
    assert counters | levels == set(metrics)
    assert counters == {name for name, metric in metrics.items() if metric.data.is_monotonic}
    assert {2} == {int(metric.data.aggregation_temporality) for metric in metrics.values()}


def test_batchers_are_read_once_for_each_collection(reader, used, monkeypatch):
    """All metrics of a collection come from one reading."""
    read = Totals.read
    readings = []
    monkeypatch.setattr(Totals, "read", lambda self: readings.append(1) or read(self))
    points(reader)
    points(reader)
    assert 2 == len(readings)


def test_several_readers(used):
    """Every reader collects everything, whatever another one collected, also if a view drops metrics."""
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    view = View(instrument_name="batchify.item.answered", aggregation=DropAggregation())
    provider = MeterProvider(readers, views=[view], shutdown_on_exit=False)
    instrument(provider)
    assert points(readers[0]) == points(readers[1])
    provider.shutdown()


def test_without_a_provider():
    """Without a configured provider, the call has no effect and no error."""
    instrument()


# https://opentelemetry.io/docs/specs/semconv/general/naming/ and .../metrics/


@pytest.mark.parametrize(("name", "unit", "description"), [*COUNTERS.values(), *LEVELS.values()])
def test_names_follow_the_semantic_conventions(name, unit, description):
    """A name is a path below the name of the library, in the singular and without its unit; units are UCUM."""
    assert re.fullmatch(r"batchify\.(item|batch)\.[a-z]+(_time)?", name)
    assert unit == ("s" if name.endswith("_time") else "{batch}" if name.startswith("batchify.batch") else "{item}")
    assert re.fullmatch("[A-Z].+[.]", description)


def test_a_missing_package_is_named():
    """Without the API of OpenTelemetry, the import says what to install."""
    script = """
        import sys
        sys.modules["opentelemetry"] = None
        try:
            import batchify.opentelemetry
        except ModuleNotFoundError as error:
            print(error)
    """
    expected = "batchify.opentelemetry needs opentelemetry-api: pip install 'batchify-toolkit[opentelemetry]'\n"
    assert expected == printed_by(script)
