"""The results in words: sentences and tables of plain strings.

It decides wording, units and columns. It must not know where results are shown or how they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from batchify._stats.drawing import as_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batchify._cli.load import Load
    from batchify._planning.cost import Cost, Setting
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice


@dataclass(frozen=True)
class Table:
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


Part: TypeAlias = "str | Table"

FIGURES = ("p50", "p99", "answered/s", "batch")


def cost_table(cost: Cost) -> Table:
    rows = [
        (f"{size:,}", _time(cost.function[size]), _time(seconds), _time(seconds / size), f"{size / seconds:,.0f}")
        for size, seconds in cost.with_engine.items()
    ]
    return Table("Cost of a batch", ("items", "function", "with engine", "per item", "items/s"), rows)


def verdict(cost: Cost) -> Iterator[str]:
    linear = cost.linear
    error = max(abs(linear(size) / seconds - 1) for size, seconds in cost.with_engine.items())
    yield (
        f"A batch of n items takes about {_time(linear.fixed)} + n x {_time(linear.per_item)}, with an error of at "
        f"most {error:.0%}. Run times vary by {cost.spread:.0%}. A call that arrives while a batch runs delays it by "
        f"{_time(cost.interference)}."
    )
    size, per_item = cost.best
    times = (
        f"an item takes {_time(cost.unbatched)} without batching, and {_time(per_item)} in a batch of {size:,}, "
        "hand-over and engine included"
    )
    if cost.pays:
        yield f"Batching pays: {times}. That is {cost.gain:.1f} times less."
    else:
        yield (
            f"Batching does not pay: {times}. Call the function directly, from your threads or tasks. The options "
            "below are the best ones for batching all the same."
        )


def recommendation(cost: Cost, advice: Advice) -> Iterator[Part]:
    setting = advice.setting
    adaptive = " (timeout=None is adaptive: no window was better by more than 5%)" if setting.timeout is None else ""
    yield f"Use @microbatch({setting}){adaptive}. The capacity is {cost.capacity(setting):,.0f} calls a second."
    rows = [(f"{rate:,.0f}", *_prediction(prediction)) for rate, prediction in advice.forecasts.items()]
    yield Table("Prediction", ("calls/s", *FIGURES, "busy"), rows)
    if advice.slo is not None:
        yield _target(advice, advice.slo)


def scenario_table(scenarios: Iterable[tuple[float, Setting, Simulation]]) -> Table:
    rows = [
        (
            f"{rate:,.0f}",
            str(setting.max_size),
            "adaptive" if setting.timeout is None else _time(setting.timeout),
            str(setting.concurrency),
            *_prediction(prediction),
        )
        for rate, setting, prediction in scenarios
    ]
    return Table("Prediction", ("calls/s", "max_size", "timeout", "slots", *FIGURES, "busy"), rows)


def comparison(loads: Sequence[tuple[float, Simulation, Load, float]]) -> Iterator[Part]:
    """Yield predictions beside measurements, and remarks, for loads of (rate, prediction, load, mean batch size)."""
    rows: list[tuple[str, ...]] = []
    for rate, prediction, load, size in loads:
        expected, measured = _figures(prediction, prediction.avg_batch_size), _figures(load, size)
        rows.append((f"{rate:,.0f}", "predicted", *_cells(expected)))
        rows.append(("", "measured", *_cells(measured)))
        rows.append(("", "", *(f"{new / old - 1:+.0%}" for new, old in zip(measured, expected, strict=True))))
    yield Table("Prediction and measurement", ("calls/s", "", *FIGURES), rows)
    for rate, _, load, _ in loads:
        yield from _remarks(rate, load)


def _remarks(rate: float, load: Load) -> Iterator[str]:
    if load.errors:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in load.errors.items())
        yield f"At {rate:,.0f} calls/s, {load.errors.total():,} calls failed: {kinds}."
    if load.delay_ms.p99 > load.latency_ms.p50 / 2:
        yield (
            f"At {rate:,.0f} calls/s, some calls were made late (99 of 100 within {as_time(load.delay_ms.p99)}), "
            "because the event loop or the machine was busy. Latency counts from the time at which a call was due."
        )


def _prediction(prediction: Simulation) -> tuple[str, ...]:
    return (*_cells(_figures(prediction, prediction.avg_batch_size)), f"{prediction.utilization:.0%}")


def _figures(outcome: Simulation | Load, batch_size: float) -> tuple[float, float, float, float]:
    latency = outcome.latency_ms
    return latency.p50, latency.p99, outcome.throughput, batch_size


def _cells(figures: tuple[float, float, float, float]) -> tuple[str, ...]:
    p50, p99, throughput, batch_size = figures
    return as_time(p50), as_time(p99), f"{throughput:,.0f}", f"{batch_size:,.1f}"


def _time(seconds: float) -> str:
    return as_time(1000 * seconds)


def _target(advice: Advice, slo: float) -> str:
    target = f"99 of 100 calls within {_time(slo)}"
    if not advice.missed_rates:
        return f"{target}: yes, up to {advice.max_rate:,.0f} calls a second."
    nearest = as_time(min(prediction.latency_ms.p99 for prediction in advice.forecasts.values()))
    missed = " and ".join(f"{rate:,.0f}" for rate in advice.missed_rates)
    met = f"but up to {advice.max_rate:,.0f}" if advice.max_rate else "nor at any other rate"
    return f"{target}: not at {missed} calls a second, {met}. The lowest 99th percentile is {nearest}."
