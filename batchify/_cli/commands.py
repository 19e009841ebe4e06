"""The commands of ``python -m batchify`` and ``batchify``.

It decides the order of steps, exit codes, and where results are written. It must not know how results are measured,
computed, worded or drawn.

Exit codes: 0; 2 for a mistake of the user, with one line that explains it; 130 after Ctrl-C, with the results so far.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from batchify._cli import loading, output, wording
from batchify._cli.arguments import parser
from batchify._cli.load import Load, arrivals, run_load
from batchify._cli.loading import CommandError
from batchify._cli.measure import Meter, PreciseLoop
from batchify._planning.cost import Cost, Samples, Setting
from batchify._planning.simulation import simulate
from batchify._planning.tuning import LOADS, curve, recommend
from batchify.errors import needs
from batchify.testing.virtual_time import closing_loop

if TYPE_CHECKING:
    from argparse import Namespace
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from batchify._cli.loading import Target
    from batchify._cli.wording import Part
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice

USER_ERROR, INTERRUPTED = 2, 130
# Seconds to measure before and after each load, because the speed of a machine changes.
MEASURE_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. ``None`` means the arguments of the process."""
    args = parser().parse_args(arguments)
    try:
        _require("rich", *(["matplotlib"] if getattr(args, "out", None) else []))
        # As with ``python -m``, modules are found in the current folder.
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        COMMANDS[args.command](args)
    except CommandError as error:
        sys.stderr.write(f"batchify: {error}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("batchify: interrupted\n")
        return INTERRUPTED
    return 0


def _require(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise CommandError(needs("this command", " and ".join(missing), "cli"))


def _tune(args: Namespace) -> None:
    fn = loading.load_function(args.function, plain=True)
    concurrency = args.concurrency or fn._self_config.concurrency
    with closing_loop(PreciseLoop()) as loop:
        target = loading.make_target(fn, loading.load_items(args.items, loop))
        cost = _measured(Meter(target, loop, concurrency), args.seconds, args.max_size)
    advice = recommend(cost, _rates(args.rate, cost, cost.fastest), args.slo_ms and args.slo_ms / 1000)
    parts = [*wording.verdict(cost), *wording.recommendation(cost, advice)]
    output.show(parts)
    if args.out:
        _write_report(args.out, target.name, cost, advice, [wording.cost_table(cost), *parts])


def _measured(meter: Meter, seconds: float, largest: int) -> Cost:
    samples = meter.samples
    with _shown_at_end(lambda: [wording.cost_table(Cost.from_samples(samples))] if samples.runs else []):
        output.progress("trying items", meter.try_items(seconds))
        output.progress("measuring batches", meter.measure(seconds, largest))
    return Cost.from_samples(samples)


def _write_report(folder: Path, name: str, cost: Cost, advice: Advice, parts: Iterable[Part]) -> None:
    picture = output.picture(name, cost, advice, curve(cost, advice.setting))
    page = output.html_page(f"batchify tune: {name}", parts, picture)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tune.png").write_bytes(picture)
        (folder / "tune.html").write_text(page, encoding="utf-8")
    except OSError as error:
        msg = f"--out {folder} cannot be written: {error.strerror}"
        raise CommandError(msg) from None
    output.show([f"Written: {folder / 'tune.html'}, {folder / 'tune.png'}"])


def _simulate(args: Namespace) -> None:
    cost = Cost(args.cost or args.measured, {}, slowdown=dict.fromkeys(args.concurrency, 1.0))
    given = {name: getattr(args, name) for name in ("burst", "calls", "noise", "seed")}
    scenarios: list[tuple[float, Setting, Simulation]] = []
    with _shown_at_end(lambda: [wording.scenario_table(scenarios)] if scenarios else []):
        for rate, *options in product(args.rate, args.max_size, args.timeout, args.concurrency):
            setting = Setting(*options)
            try:
                _check_rate(rate, cost, setting)
                prediction = simulate(run_time=cost.with_engine, rate=rate, **asdict(setting), **given)
            except ValueError as error:
                raise CommandError(error) from None
            scenarios.append((rate, setting, prediction))


def _bench(args: Namespace) -> None:
    fn = loading.load_function(args.function)
    config = fn._self_config
    setting = Setting(
        args.max_size or config.max_size,
        getattr(args, "timeout", config.timeout),
        args.concurrency or config.concurrency,
    )
    loads: list[tuple[float, Simulation, Load, float]] = []
    with closing_loop(PreciseLoop()) as loop, _shown_at_end(lambda: wording.comparison(loads) if loads else []):
        target = loading.make_target(fn, loading.load_items(args.items, loop))
        meter = Meter(target, loop, setting.concurrency)
        output.progress("trying items", meter.try_items(MEASURE_SECONDS))
        before = _sampled(meter, setting)
        rates = _rates(args.rate, Cost.from_samples(before), setting)
        fn.configure(**asdict(setting))
        for rate in rates:
            load, samples = Load(arrivals(rate, args.seconds, args.seed)), before
            fn.reset_stats()
            try:
                output.progress(f"{rate:,.0f} calls/s", _run_load(loop, load, target, args.seed))
                before = _sampled(meter, setting)
                samples += before
            finally:
                if load.latencies:
                    # An interrupted load has made only some of its calls.
                    trace = load.due[: len(load.delays)]
                    prediction = Cost.from_samples(samples).predict(setting, rate, trace=trace)
                    loads.append((rate, prediction, load, fn.batch_stats.avg_batch_size))


def _sampled(meter: Meter, setting: Setting) -> Samples:
    meter.samples = Samples()
    output.progress("measuring batches", meter.measure(MEASURE_SECONDS, setting.max_size))
    return meter.samples


def _run_load(loop: AbstractEventLoop, load: Load, target: Target, seed: int) -> Iterator[float]:
    yield 0.0
    loop.run_until_complete(run_load(load, target.calls, seed))


def _rates(rates: list[float] | None, cost: Cost, setting: Setting) -> list[float]:
    if rates is None:
        return [float(f"{load * cost.capacity(setting):.2g}") for load in LOADS]
    for rate in rates:
        _check_rate(rate, cost, setting)
    return rates


def _check_rate(rate: float, cost: Cost, setting: Setting) -> None:
    capacity = cost.capacity(setting)
    if rate >= capacity:
        msg = f"--rate {rate:g} must be below the capacity, which is {capacity:,.0f} calls a second with {setting}"
        raise CommandError(msg)


@contextmanager
def _shown_at_end(parts: Callable[[], Iterable[Part]]) -> Generator[None]:
    """Show results at the end of the block; after Ctrl-C, show the results so far."""
    try:
        yield
    except KeyboardInterrupt:
        output.show(parts())
        raise
    output.show(parts())


COMMANDS = {"tune": _tune, "simulate": _simulate, "bench": _bench}
