"""The command line: ``python -m batchify`` and ``batchify``.

Decides: the order of things, exit codes, and what is written where.
Must not know: how anything is measured, computed, worded or drawn.

Exit codes: 0; 2 for what a person has to put right, said in one line; 130 after Ctrl-C, with what was found until then.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchify._cli import arguments as _arguments
from batchify._cli import load as _load
from batchify._cli import loading, measure, wording
from batchify._cli.loading import CommandError
from batchify._planning import cost as _cost
from batchify._planning import tuning
from batchify._planning.simulation import simulate

if TYPE_CHECKING:
    from argparse import Namespace
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator, Iterable, Sequence

    from batchify._cli.wording import Part
    from batchify._decorator.proxy import Batched
    from batchify._planning.simulation import Simulation

WRONG, INTERRUPTED = 2, 130
# Seconds to measure for before and after each load.
AROUND = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command and return its exit code.

    Args:
        arguments: those of the command line; ``None`` for those of the process.
    """
    asked = _arguments.parser().parse_args(arguments)
    try:
        _needs("rich", *(["matplotlib"] if getattr(asked, "out", None) else []))
        # As ``python -m`` has it: the user's modules are found from where they are.
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        COMMANDS[asked.command](asked)
    except CommandError as error:
        sys.stderr.write(f"batchify: {error}\n")
        return WRONG
    except KeyboardInterrupt:
        sys.stderr.write("batchify: interrupted\n")
        return INTERRUPTED
    return 0


def _needs(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        msg = f"this needs {' and '.join(missing)}: pip install 'batchify-toolkit[cli]'"
        raise CommandError(msg)


def _tune_command(asked: Namespace) -> None:
    fn = loading.function(asked.function, plain=True)
    concurrency = asked.concurrency or fn._self_config.concurrency
    with measure.looping() as loop:
        target = loading.target(fn, _items(asked.items, loop))
        cost = _measured(measure.Meter(target, loop, concurrency), asked.seconds, asked.max_size)
    most, largest = cost.most()
    rates = _rates(asked.rate, most, f"with {largest}")
    advice = tuning.recommend(cost, rates, asked.slo_ms and asked.slo_ms / 1000)
    capacity = cost.capacity(advice.setting.max_size, advice.setting.concurrency)
    told = [*wording.verdict(cost), *wording.advised(advice, capacity)]
    _show(told)
    if asked.out:
        _write(asked.out, target.name, cost, advice, [wording.measured(cost), *told])


def _write(out: Path, name: str, cost: _cost.Cost, advice: tuning.Advice, told: list[Part]) -> None:
    from batchify._cli import html, plot  # noqa: PLC0415  # matplotlib is loaded by those who want a picture

    picture = plot.picture(name, cost, advice, tuning.curve(cost, advice.setting))
    page = html.page(f"batchify tune: {name}", told, picture)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "tune.png").write_bytes(picture)
        (out / "tune.html").write_text(page, encoding="utf-8")
    except OSError as error:
        msg = f"--out {out} cannot be written: {error.strerror}"
        raise CommandError(msg) from None
    _show([f"Written: {out / 'tune.html'}, {out / 'tune.png'}"])


def _simulate_command(asked: Namespace) -> None:
    cost = _cost.Cost(asked.cost or asked.measured, {}, slowdown=dict.fromkeys(asked.concurrency, 1.0))
    rows: list[Any] = []
    with _at_the_end(lambda: [wording.what_if(rows)] if rows else []):
        for rate, *options in product(asked.rate, asked.max_size, asked.timeout, asked.concurrency):
            setting = _cost.Setting(*options)
            try:
                _below([rate], cost.capacity(setting.max_size, setting.concurrency), f"with {setting}")
                rows.append((rate, setting, _simulated(asked, cost, rate, setting)))
            except ValueError as error:
                raise CommandError(error) from None


def _simulated(asked: Namespace, cost: _cost.Cost, rate: float, setting: _cost.Setting) -> Simulation:
    return simulate(
        run_time=cost.together,
        rate=rate,
        burst=asked.burst,
        calls=asked.calls,
        noise=asked.noise,
        seed=asked.seed,
        max_size=setting.max_size,
        timeout=setting.timeout,
        concurrency=setting.concurrency,
    )


def _bench_command(asked: Namespace) -> None:
    fn = loading.function(asked.function)
    given = fn._self_config
    setting = _cost.Setting(
        asked.max_size or given.max_size,
        getattr(asked, "timeout", given.timeout),
        asked.concurrency or given.concurrency,
    )
    with measure.looping() as loop:
        target = loading.target(fn, _items(asked.items, loop))
        meter = measure.Meter(target, loop, setting.concurrency)
        _try(meter, AROUND)
        before = _samples(meter, setting)
        capacity = _cost.cost(before).capacity(setting.max_size, setting.concurrency)
        rates = _rates(asked.rate, capacity, f"with {setting}")
        fn.configure(max_size=setting.max_size, timeout=setting.timeout, concurrency=setting.concurrency)
        rows: list[Any] = []
        with _at_the_end(lambda: _result(rows)):
            for rate in rates:
                load = _load.Load(_load.poisson(rate, asked.seconds, asked.seed))
                fn.reset_stats()
                around = before
                try:
                    _follow(f"{rate:,.0f} calls/s", _offering(loop, load, target, asked.seed))
                    before = _samples(meter, setting)
                    around += before
                finally:
                    rows += _row(rate, load, fn, _cost.cost(around), setting)


def _row(rate: float, load: _load.Load, fn: Batched, cost: _cost.Cost, setting: _cost.Setting) -> list[Any]:
    """Return what was predicted and what came, if anything came."""
    if not load.latencies:
        return []
    # Calls that were not made, since they were interrupted, are none.
    expected = cost.predict(setting, rate, trace=load.due[: len(load.late)])
    return [(rate, expected, load, fn.batch_stats.avg_batch_size)]


def _offering(loop: AbstractEventLoop, load: _load.Load, target: loading.Target, seed: int) -> Generator[float]:
    yield 0.0
    loop.run_until_complete(_load.offer(load, target.calls, seed))


def _samples(meter: measure.Meter, setting: _cost.Setting) -> _cost.Samples:
    """Measure anew: machines change, so that what is measured long before a load says little about it."""
    meter.samples = _cost.Samples()
    _follow("measuring batches", meter.measure(AROUND, setting.max_size))
    return meter.samples


def _follow(label: str, shares: Iterable[float]) -> None:
    from batchify._cli import terminal  # noqa: PLC0415  # rich is loaded when it is sure to be there

    terminal.follow(label, shares)


def _result(rows: list[Any]) -> list[Part]:
    notes = [note for rate, _, load, _ in rows for note in wording.noticed(rate, load)]
    return [wording.compared(rows), *notes] if rows else []


def _items(named: str, loop: AbstractEventLoop) -> list[Any]:
    made = loading.items(named)
    return loading.listed(named, loop.run_until_complete(made) if inspect.iscoroutine(made) else made)


def _try(meter: measure.Meter, seconds: float) -> None:
    _follow("trying items", meter.try_items(seconds))


def _measured(meter: measure.Meter, seconds: float, largest: int) -> _cost.Cost:
    """Return what batches take; show it, or as much as there is when it is interrupted."""
    with _at_the_end(lambda: [wording.measured(_cost.cost(meter.samples))] if meter.samples.runs else []):
        _try(meter, seconds)
        _follow("measuring batches", meter.measure(seconds, largest))
    return _cost.cost(meter.samples)


def _rates(asked: list[float] | None, capacity: float, how: str) -> list[float]:
    """Return the rates that are asked for, or else some below the capacity."""
    if asked is None:
        return [float(f"{load * capacity:.2g}") for load in tuning.LOADS]
    _below(asked, capacity, how)
    return asked


def _below(rates: list[float], capacity: float, how: str) -> None:
    for rate in rates:
        if rate >= capacity:
            msg = f"--rate {rate:g} is beyond what can be answered: {capacity:,.0f} calls a second at most, {how}"
            raise CommandError(msg)


@contextmanager
def _at_the_end(parts: Callable[[], list[Part]]) -> Generator[None]:
    """Show what there is when all is done, or when Ctrl-C ends it."""
    try:
        yield
    except KeyboardInterrupt:
        _show(parts())
        raise
    _show(parts())


def _show(parts: list[Part]) -> None:
    from batchify._cli import terminal  # noqa: PLC0415  # as above

    terminal.show(parts)


COMMANDS = {"tune": _tune_command, "simulate": _simulate_command, "bench": _bench_command}
