"""What is told of measurements and forecasts: sentences and tables, of plain strings.

Decides: wording, units, columns.
Must not know: where it is shown, how anything was found out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from batchify._stats.drawing import as_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchify._cli.load import Load
    from batchify._planning.cost import Cost, Setting
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice


@dataclass(frozen=True)
class Table:
    """Figures in rows, the first column being what they are of."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


Part: TypeAlias = "str | Table"


def measured(cost: Cost) -> Table:
    """Tell what batches take, by size."""
    rows = [
        (f"{size:,}", ms(cost.function[size]), ms(seconds), ms(seconds / size), f"{size / seconds:,.0f}")
        for size, seconds in cost.together.items()
    ]
    return Table("What a batch takes", ("items", "function", "with engine", "each item", "items/s"), rows)


def verdict(cost: Cost) -> Iterable[str]:
    """Tell whether batching pays, and by how much."""
    size, each = cost.best
    off = max(abs(cost.line(items) / seconds - 1) for items, seconds in cost.together.items())
    yield (
        f"A batch of n items takes about {ms(cost.line.a)} + n x {ms(cost.line.b)}, which is off by {off:.0%} at most. "
        f"Run times vary by {cost.spread:.0%}. A call that comes while a batch runs takes {ms(cost.crowding)} from it."
    )
    compared = (
        f"an item takes {ms(cost.alone)} alone, and {ms(each)} in a batch of {size:,}, hand-over and engine included"
    )
    if cost.pays:
        yield f"Batching pays: {compared}. That is {cost.gain:.1f} times less."
    else:
        yield (
            f"Batching does not pay: {compared}. Call the function directly, from threads or tasks as they are; "
            "what follows is the best that batching can do."
        )


def advised(advice: Advice, capacity: float) -> Iterable[Part]:
    """Tell what options to use, and what they would do."""
    setting = advice.setting
    adaptive = " (timeout=None adapts: no window was better by more than 5 %)" if setting.timeout is None else ""
    yield f"Use @microbatch({setting}){adaptive}. It can answer {capacity:,.0f} calls a second at most."
    yield forecast(advice.forecasts)
    if advice.slo is not None:
        yield _kept(advice, advice.slo)


def forecast(forecasts: Mapping[float, Simulation]) -> Table:
    """Tell what is to be expected, by rate."""
    rows = [(f"{rate:,.0f}", *outcome(done)) for rate, done in forecasts.items()]
    return Table("What to expect", ("calls/s", *OUTCOME), rows)


OUTCOME = ("p50", "p99", "answered/s", "batch", "busy")


def outcome(done: Simulation) -> tuple[str, ...]:
    """Tell what came of a simulation, in the columns of ``OUTCOME``."""
    latency = done.latency_ms
    return (
        as_time(latency.p50),
        as_time(latency.p99),
        f"{done.throughput:,.0f}",
        f"{done.avg_batch_size:,.1f}",
        f"{done.utilization:.0%}",
    )


def what_if(rows: Iterable[tuple[float, Setting, Simulation]]) -> Table:
    """Tell what options would do, by rate and options."""
    told = [
        (
            f"{rate:,.0f}",
            str(setting.max_size),
            "adaptive" if setting.timeout is None else ms(setting.timeout),
            str(setting.concurrency),
            *outcome(done),
        )
        for rate, setting, done in rows
    ]
    return Table("What would be", ("calls/s", "max_size", "timeout", "slots", *OUTCOME), told)


def compared(rows: Iterable[tuple[float, Simulation, Load, float]]) -> Table:
    """Tell what was predicted beside what came: by rate, simulation, load and average size of a batch."""
    told: list[tuple[str, ...]] = []
    for rate, done, load, size in rows:
        expected = (done.latency_ms.p50, done.latency_ms.p99, done.throughput, done.avg_batch_size)
        found = (load.latency_ms.p50, load.latency_ms.p99, load.throughput, size)
        told.append((f"{rate:,.0f}", "predicted", *_figures(expected)))
        told.append(("", "measured", *_figures(found)))
        told.append(("", "", *(f"{new / old - 1:+.0%}" for new, old in zip(found, expected, strict=True))))
    return Table("Prediction and measurement", ("calls/s", "", "p50", "p99", "answered/s", "batch"), told)


def noticed(rate: float, load: Load) -> Iterable[str]:
    """Tell what else is to be known of a load: calls that failed, or were late."""
    if load.errors:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in load.errors.items())
        yield f"At {rate:,.0f} calls/s {load.errors.total():,} calls failed: {kinds}."
    if load.late_ms.p99 > load.latency_ms.p50 / 2:
        yield (
            f"At {rate:,.0f} calls/s some calls were made late (99 of 100 within {as_time(load.late_ms.p99)}): the "
            "event loop or the machine was busy. Their time counts from when they were due."
        )


def ms(seconds: float) -> str:
    """Return seconds in a unit that suits them."""
    return as_time(1000 * seconds)


def _figures(figures: tuple[float, float, float, float]) -> tuple[str, ...]:
    p50, p99, throughput, size = figures
    return as_time(p50), as_time(p99), f"{throughput:,.0f}", f"{size:,.1f}"


def _kept(advice: Advice, slo: float) -> str:
    target = f"99 of 100 calls within {ms(slo)}"
    if not advice.misses:
        return f"{target}: yes, up to {advice.limit:,.0f} calls a second."
    nearest = as_time(min(done.latency_ms.p99 for done in advice.forecasts.values()))
    at = " and ".join(f"{rate:,.0f}" for rate in advice.misses)
    most = f"but up to {advice.limit:,.0f}" if advice.limit else "nor at any other rate"
    return f"{target}: not at {at} calls a second, {most}. What comes nearest is {nearest}."
