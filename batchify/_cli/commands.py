"""The commands of ``python -m batchify`` and ``batchify``.

It decides the order of steps, exit codes, and where results are written. It must not know how results are measured,
computed, worded or drawn.

Exit codes: 0; 1 if measurements are too noisy for a recommendation; 2 for a mistake of the user, with one line that
explains it; 130 after Ctrl-C, with the results so far.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from batchify import __version__
from batchify._cli import loading, output, wording
from batchify._cli.arguments import parser
from batchify._cli.load import Load, arrivals, run_load
from batchify._cli.loading import CommandError
from batchify._cli.measure import Meter, PreciseLoop
from batchify._planning.cost import Cost, Setting
from batchify._planning.simulation import line_through, simulate
from batchify._planning.tuning import MAX_ERROR, curve, default_rates, forecast, pays, recommend
from batchify.errors import needs
from batchify.testing.virtual_time import closing_loop

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Generator, Iterable, Sequence

    from batchify._cli.wording import Part
    from batchify._planning.cost import Round
    from batchify._planning.simulation import Simulation
    from batchify._planning.tuning import Advice

NO_RECOMMENDATION, USER_ERROR, INTERRUPTED = 1, 2, 130
# Seconds to measure before and after each load, because the speed of a machine changes.
MEASURE_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. ``None`` means the arguments of the process."""
    top = parser()
    args = top.parse_args(arguments)
    if args.command is None:
        top.print_help(sys.stderr)
        return USER_ERROR
    try:
        # As with ``python -m``, modules are found in the current folder.
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        return COMMANDS[args.command](args)
    except CommandError as error:
        sys.stderr.write(f"batchify: {error}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("batchify: interrupted\n")
        return INTERRUPTED


def _tune(args: Namespace) -> int:
    if args.out and find_spec("matplotlib") is None:
        raise CommandError(needs("--out", "matplotlib", "cli"))
    fn = loading.load_function(args.function, plain=True)
    with closing_loop(PreciseLoop()) as loop:
        target = loading.make_target(fn, loading.load_items(args.items, loop))
        meter = Meter(target, loop, args.concurrency or fn._self_config.concurrency)
        with _shown(args, lambda: wording.cost_tables(meter.costs()) if meter.rounds else []) as parts:
            output.progress("trying items", meter.try_items(args.seconds))
            output.progress("measuring batches", meter.measure(args.seconds, args.max_size))
            costs = meter.costs()
            parts.extend([*wording.cost_tables(costs), *wording.verdict(costs)])
            if pays(costs) is None:
                return NO_RECOMMENDATION
            advice = recommend(costs, args.rate, args.slo_ms and args.slo_ms / 1000)
            if advice.capacity.error > MAX_ERROR:
                parts.append(wording.uncertainty(costs, advice))
                return NO_RECOMMENDATION
            parts.extend(wording.recommendation(advice))
            if args.out:
                parts.append(_write_report(args, target.name, costs, advice, parts))
    return 0


def _write_report(args: Namespace, name: str, costs: Sequence[Cost], advice: Advice, parts: Iterable[Part]) -> str:
    folder, predicted = args.out, curve(costs[0], advice.setting)
    light, dark = (output.picture(name, costs, advice, predicted, style) for style in ("default", "dark_background"))
    page = output.html_page(f"batchify tune: {name}", [_about(args), *parts], light, dark)
    files = {"tune.html": page.encode(), "tune.png": light, "tune-dark.png": dark}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
    except OSError as error:
        msg = f"--out {folder} cannot be written: {error.strerror}"
        raise CommandError(msg) from None
    return f"Written: {', '.join(str(folder / file) for file in files)}"


def _simulate(args: Namespace) -> int:
    run_time = args.cost or args.measured
    given = {name: getattr(args, name) for name in ("burst", "calls", "noise", "seed")}
    scenarios: list[tuple[float, Setting, float, Simulation]] = []
    with _shown(args, lambda: [wording.scenario_table(scenarios)] if scenarios else []) as parts:
        for rate, *options in product(args.rate, args.max_size, args.timeout, args.concurrency):
            setting = Setting(*options)
            try:
                prediction = simulate(run_time=run_time, rate=rate, **asdict(setting), **given)
                capacity = setting.concurrency * setting.max_size / line_through(run_time)(setting.max_size)
            except ValueError as error:
                raise CommandError(error) from None
            scenarios.append((rate, setting, capacity, prediction))
        parts.append(wording.scenario_table(scenarios))
    return 0


def _bench(args: Namespace) -> int:
    fn = loading.load_function(args.function)
    config = fn._self_config
    setting = Setting(
        args.max_size or config.max_size,
        getattr(args, "timeout", config.timeout),
        args.concurrency or config.concurrency,
    )
    loads: list[tuple[float, float, Sequence[Simulation], Load]] = []
    try:
        fn.configure(**asdict(setting))
    except ValueError as error:
        raise CommandError(error) from None
    with closing_loop(PreciseLoop()) as loop, _shown(args, lambda: wording.comparison(loads)) as parts:
        target = loading.make_target(fn, loading.load_items(args.items, loop))
        meter = Meter(target, loop, setting.concurrency)
        output.progress("trying items", meter.try_items(MEASURE_SECONDS))
        before = _measured(meter, setting)
        rates = args.rate or default_rates(Cost.of(before, target.workload).capacity(setting))
        for rate in rates:
            load, rounds = Load(arrivals(rate, args.seconds, args.seed)), before
            try:
                output.progress(f"{wording.as_rate(rate)} calls/s", [0.0])
                loop.run_until_complete(run_load(load, target.calls, args.seed))
                before = _measured(meter, setting)
                rounds += before
            finally:
                if load.answered or load.errors:
                    # An interrupted load has made only some of its calls.
                    trace = load.due[: len(load.delays)]
                    costs = Cost.resampled(rounds, target.workload)
                    predictions = forecast(costs, setting, rate, trace)
                    loads.append((rate, costs[0].capacity(setting), predictions, load))
        parts.extend(wording.comparison(loads))
    return 0


def _measured(meter: Meter, setting: Setting) -> list[Round]:
    meter.rounds = []
    output.progress("measuring batches", meter.measure(MEASURE_SECONDS, setting.max_size))
    return meter.rounds


def _about(args: Namespace) -> str:
    """Return the version, the machine, the date and the options of a report."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    options = ", ".join(f"{name}={value}" for name, value in vars(args).items() if value is not None)
    now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    return f"batchify {__version__}, {python}, {machine}, {now}: {options}."


@contextmanager
def _shown(args: Namespace, results: Callable[[], Iterable[Part]]) -> Generator[list[Part]]:
    """Show the parts that the block adds; after Ctrl-C, show the results so far."""
    parts: list[Part] = []
    try:
        yield parts
    except KeyboardInterrupt:
        parts = parts or [*results()]
        raise
    finally:
        if parts:
            (output.show_json if args.json else output.show)([_about(args), *parts])


COMMANDS = {"tune": _tune, "simulate": _simulate, "bench": _bench}
