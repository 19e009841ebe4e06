"""The results in words: sentences, and tables of figures.

It decides wording, units and columns. It must not know where results are shown or how they are computed.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from batchify._planning.cost import Estimate
from batchify._planning.tuning import pays
from batchify._stats.drawing import as_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchify._cli.load import Load
    from batchify._planning.cost import Cost, Setting
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice


@dataclass(frozen=True)
class Figure:
    """A figure, measured or known exactly, and how its value is written."""

    value: Estimate | float
    write: Callable[[float], str]

    @classmethod
    def of(cls, values: Iterable[float], write: Callable[[float], str]) -> Figure:
        """Return the figure whose value comes first, and is followed by the values of bootstrap resamples."""
        found = [*values]
        return cls(found[0] if len(found) == 1 else Estimate.of(found), write)

    def __str__(self) -> str:
        if isinstance(self.value, Estimate):
            return f"{self.write(self.value.value)} ±{self.value.error:.0%}"
        return self.write(self.value)


Cell: TypeAlias = "Figure | str | float | None"


@dataclass(frozen=True)
class Table:
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


Part: TypeAlias = "str | Table"

PREDICTED = ("load", "p50", "p99", "answered/s", "batch")
# The cost of items is said to differ from this standard deviation on, as a share of the mean.
UNEQUAL = 0.2
# Rates below this have two digits.
MANY = 10
# A function that uses this share of all cores leaves none to the loop that calls it.
ALL_CORES = 0.8
# Seconds below which waking up a thread and a loop takes a large part of the time of a call.
SHORT = 0.001


def as_rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= MANY else f"{rate:.2g}"


def cost_tables(costs: Sequence[Cost]) -> Iterator[Table]:
    heads = ("items", "function alone", "call to answer", "per item at overload", "items/s at overload")
    for slots in costs[0].loaded:
        rows = [
            (
                size,
                _time(cost.function[size] for cost in costs),
                _time(cost.answered[size] for cost in costs),
                _time(cost.loaded[slots][size] / size / slots for cost in costs),
                _rate(*(slots * size / cost.loaded[slots][size] for cost in costs)),
            )
            for size in costs[0].function
        ]
        yield Table("Cost of a batch" if slots == 1 else f"Cost of a batch, {slots} at once at overload", heads, rows)


def verdict(costs: Sequence[Cost]) -> Iterator[str]:
    cost, linear = costs[0], costs[0].linear
    error = max(abs(linear(size) / seconds - 1) for size, seconds in cost.loaded[1].items())
    yield (
        f"At overload, a batch of n items takes about {_time(each.linear.fixed for each in costs)} + n x "
        f"{_time(each.linear.per_item for each in costs)}, with an error of at most {error:.0%}."
    )
    if _is_unequal(costs):
        deviation = Figure.of((each.inequality for each in costs), "{:.0%}".format)
        yield (
            f"Items differ in cost: the standard deviation is {deviation} of the mean. So "
            "the time of a batch depends on the items that share it, and the items should be typical of your calls."
        )
    if cost.workload.limits.run_cost is not None:
        yield (
            "Items share batches by length. The more calls are queued, the less padding a batch has, so the function "
            "carries more calls than its predicted capacity. Check high loads with: batchify bench"
        )
    cores = os.cpu_count() or 1
    if cost.cores > ALL_CORES * cores:
        yield (
            f"The function keeps {cost.cores:.1f} of {cores} cores busy. The event loop that calls it has to wait for "
            "a core, so the predicted latencies may be wrong by more than 25%. Check them with: batchify bench"
        )
    if cost.unbatched < SHORT:
        yield (
            f"The function takes {_time(each.unbatched for each in costs)} for an item. How long a thread and an event "
            "loop take to wake up matters as much, and depends on the load, so the predicted latencies may be wrong by "
            "more than 25%. Check them with: batchify bench"
        )
    gain = Estimate.of(each.gain for each in costs)
    best = max(cost.loaded[1], key=lambda size: size / cost.loaded[1][size])
    times = (
        f"an item takes {_time(each.unbatched for each in costs)} without batching, and "
        f"{_time(each.loaded[1][best] / best for each in costs)} in a batch of {best:,} at overload"
    )
    answer = pays(costs)
    if answer:
        yield f"Batching pays: {times}. That is {Figure(gain, '{:,.1f}'.format)} times less."
    elif answer is None:
        yield (
            f"No recommendation: the noise is larger than the difference. In this measurement, {times}. That is "
            f"between {gain.low:.3g} and {gain.high:.3g} times less. {_help(costs)}"
        )
    else:
        yield (
            f"Batching does not pay: {times}. Call the function directly, from your threads or tasks. If you batch "
            "anyway, the options below are the best ones."
        )


def uncertainty(costs: Sequence[Cost], advice: Advice) -> str:
    capacity = Figure(advice.capacity, as_rate)
    return (
        f"No recommendation: the measurements vary too much. With {advice.setting}, the capacity is {capacity} calls a "
        f"second, and all predictions depend on it. {_help(costs)}"
    )


def _is_unequal(costs: Sequence[Cost]) -> bool:
    return Estimate.of(cost.inequality for cost in costs).low > UNEQUAL


def _help(costs: Sequence[Cost]) -> str:
    items = " or more items" if _is_unequal(costs) else ""
    return f"A quiet machine or a longer measurement (--seconds){items} would help."


def recommendation(advice: Advice) -> Iterator[Part]:
    setting = advice.setting
    adaptive = ": no window was clearly better than adaptive timing" if setting.timeout is None else ""
    yield f"Use @microbatch({setting}){adaptive}."
    capacity = Figure(advice.capacity, as_rate)
    heads = (*asdict(setting), "capacity in calls/s")
    yield Table("Recommended options", heads, [(*asdict(setting).values(), capacity)])
    rows = [(_rate(rate), *_prediction(rate, advice.capacity.value, each)) for rate, each in advice.forecasts.items()]
    yield Table("Prediction", ("calls/s", *PREDICTED), rows)
    if advice.slo is not None and advice.max_rate is not None:
        yield _target(advice, advice.slo, advice.max_rate)


def scenario_table(scenarios: Iterable[tuple[float, Setting, float, Simulation]]) -> Table:
    """Return the predictions of (rate, setting, capacity, prediction)."""
    rows = [
        (
            _rate(rate),
            setting.max_size,
            "adaptive" if setting.timeout is None else _time([setting.timeout]),
            setting.concurrency,
            *_prediction(rate, capacity, [prediction]),
        )
        for rate, setting, capacity, prediction in scenarios
    ]
    return Table("Prediction", ("calls/s", "max_size", "timeout", "slots", *PREDICTED), rows)


def comparison(loads: Sequence[tuple[float, float, Sequence[Simulation], Load]]) -> Iterator[Part]:
    """Yield predictions beside measurements, and remarks, for loads of (rate, capacity, predictions, load)."""
    rows: list[Sequence[Cell]] = []
    for rate, capacity, predictions, load in loads:
        if not load.answered:
            continue
        predicted = [(each.latency_ms.p50, each.latency_ms.p99, each.throughput) for each in predictions]
        measured = [*load.outcomes()]
        differences = [f"{new / old - 1:+.0%}" for new, old in zip(measured[0], predicted[0], strict=True)]
        rows += [
            (_rate(rate), Figure(rate / capacity, "{:.0%}".format), "predicted", *_outcome(predicted)),
            ("", "", "measured", *_outcome(measured)),
            ("", "", "", *differences),
        ]
    if rows:
        yield Table("Prediction and measurement", ("calls/s", "load", "", "p50", "p99", "answered/s"), rows)
    for rate, _, _, load in loads:
        yield from _remarks(rate, load)


def _remarks(rate: float, load: Load) -> Iterator[str]:
    if load.errors:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in load.errors.items())
        yield f"At {as_rate(rate)} calls/s, {load.errors.total():,} of the calls failed: {kinds}."
    if load.answered and load.delay_ms.p99 > next(load.outcomes())[0] / 2:
        yield (
            f"At {as_rate(rate)} calls/s, some calls were made late (99 of 100 within {as_time(load.delay_ms.p99)}), "
            "because the event loop or the machine was busy. Latency counts from the time at which a call was due."
        )


def _prediction(rate: float, capacity: float, predictions: Sequence[Simulation]) -> Iterator[Cell]:
    p50, p99, answered = _outcome([(each.latency_ms.p50, each.latency_ms.p99, each.throughput) for each in predictions])
    load = rate / capacity
    yield Figure(load, "{:.0%}".format)
    # At overload, the latency depends only on how long the overload lasts.
    yield from (p50, p99) if load < 1 else ("grows", "grows")
    yield answered
    yield Figure.of((each.avg_batch_size for each in predictions), "{:,.1f}".format)


def _outcome(outcomes: Sequence[tuple[float, float, float]]) -> tuple[Figure, Figure, Figure]:
    """Return the figures for (p50, p99, throughput), of which the first two are in milliseconds."""
    p50, p99, throughput = zip(*outcomes, strict=True)
    return _time(each / 1000 for each in p50), _time(each / 1000 for each in p99), _rate(*throughput)


def _time(values: Iterable[float]) -> Figure:
    return Figure.of(values, lambda seconds: as_time(1000 * seconds))


def _rate(*values: float) -> Figure:
    return Figure.of(values, as_rate)


def _target(advice: Advice, slo: float, max_rate: Estimate) -> str:
    target = f"99 of 100 calls within {as_time(1000 * slo)}"
    highest = Figure(max_rate, as_rate)
    if not advice.missed_rates:
        return f"{target}: yes, up to {highest} calls a second."
    nearest = as_time(min(prediction.latency_ms.p99 for prediction in advice.carried.values()))
    missed = " and ".join(map(as_rate, advice.missed_rates))
    met = f"but up to {highest}" if max_rate.value else "nor at any other rate"
    return f"{target}: not at {missed} calls a second, {met}. The lowest 99th percentile is {nearest}."
