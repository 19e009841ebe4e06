"""The arguments of the command line.

It decides the commands, their options and defaults, and which values are valid. It must not know how a command works.
"""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchify import __version__
from batchify._core.limits import positive, seconds, whole

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER = r"(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)"
LINEAR_COST = re.compile(rf"(?:{NUMBER}\s*\+\s*)?{NUMBER}\s*\*?\s*n")
DEFAULT_RATES = "default: 25, 50, 75 and 150 %% of the capacity"


def parser() -> ArgumentParser:
    top = ArgumentParser(
        "batchify",
        description="Choose the options of a batched function by measuring it.",
        epilog="Only pictures need the extra cli: pip install 'batchify-toolkit[cli]'.",
    )
    top.add_argument("--version", action="version", version=f"batchify {__version__}")
    commands = top.add_subparsers(dest="command", metavar="command")
    _add_tune(commands.add_parser("tune", help="measure a batch function and recommend options"))
    _add_simulate(commands.add_parser("simulate", help="predict the effect of options from a known cost"))
    _add_bench(commands.add_parser("bench", help="put a decorated function under load and compare with the prediction"))
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print the results as JSON, with times in seconds")
    return top


def linear_cost(text: str) -> dict[int, float]:
    """Return run times by size for a cost of a + b n seconds."""
    found = LINEAR_COST.fullmatch(text.strip())
    fixed, per_item = found.groups() if found else (text, "0")
    try:
        a, b = float(fixed or 0), float(per_item)
    except ValueError:
        a = b = 0.0
    if not a + b > 0:
        msg = f"must be seconds such as 0.004+0.0001n, where n is the number of items, got {text!r}"
        raise ArgumentTypeError(msg)
    return {1: a + b, 2: a + 2 * b}


def measured_cost(text: str) -> dict[int, float]:
    pairs = [pair.partition(":") for pair in text.split(",")]
    try:
        found = {int(size): float(time) for size, _, time in pairs}
    except ValueError:
        found = {}
    # A single size says nothing about the others. If the cost is the same for all, it is --cost.
    if len(found) <= 1 or min(found) < 1 or not min(found.values()) > 0:
        msg = f"must be pairs of size and seconds, at least two, such as 1:0.0041,32:0.0072, got {text!r}"
        raise ArgumentTypeError(msg)
    return found


def _checked(kind: Callable[[str], object], check: Callable[[str, object], object], text: str) -> object:
    try:
        value = kind(text)
    except ValueError:
        msg = f"must be {'a whole number' if kind is int else 'a number'}, got {text!r}"
        raise ArgumentTypeError(msg) from None
    try:
        return check("it", value)
    except ValueError as error:
        raise ArgumentTypeError(str(error).removeprefix("it ")) from None


_whole = partial(_checked, int, whole)
_positive = partial(_checked, float, positive)


def _timeout(text: str) -> object:
    return None if text in {"adaptive", "None"} else _checked(float, seconds, text)


def _add_function(command: ArgumentParser) -> None:
    command.add_argument("function", metavar="module:function", help="the batch function; also file.py:function")
    command.add_argument(
        "--items",
        required=True,
        metavar="FILE|module:function",
        help=(
            "items to call it with: a file with one JSON value (.jsonl) or text (.txt) on each line, or with a header "
            "and rows (.csv); or a function that returns items"
        ),
    )


def _add_tune(command: ArgumentParser) -> None:
    _add_function(command)
    command.add_argument("--rate", type=_positive, nargs="+", help=f"expected calls per second ({DEFAULT_RATES})")
    command.add_argument("--slo-ms", type=_positive, help="target in milliseconds for the 99th percentile of latency")
    command.add_argument("--max-size", type=_whole, default=256, help="largest batch to try (default: %(default)s)")
    command.add_argument(
        "--concurrency",
        type=_whole,
        help="maximum number of batches at once, if the function allows several (default: as decorated, or 1)",
    )
    command.add_argument("--seconds", type=_positive, default=15.0, help="time to measure (default: %(default)s)")
    command.add_argument("--out", type=Path, help="folder for the report and its pictures; needs the extra cli")


def _add_simulate(command: ArgumentParser) -> None:
    known = command.add_mutually_exclusive_group(required=True)
    known.add_argument(
        "--cost", type=linear_cost, help="run time in seconds of a batch of n items, for example 0.004+0.0001n"
    )
    known.add_argument(
        "--measured", type=measured_cost, help="run times in seconds by size, for example 1:0.0041,32:0.0072"
    )
    command.add_argument("--rate", type=_positive, nargs="+", required=True, help="calls per second")
    command.add_argument(
        "--max-size", type=_whole, nargs="+", default=[32], help="maximum number of items in a batch (default: 32)"
    )
    command.add_argument(
        "--timeout",
        type=_timeout,
        nargs="+",
        default=[None],
        help="seconds that the first item waits for others, or adaptive (default: adaptive)",
    )
    command.add_argument(
        "--concurrency", type=_whole, nargs="+", default=[1], help="maximum number of batches at once (default: 1)"
    )
    command.add_argument("--burst", type=_whole, default=1, help="calls that arrive at the same time (default: 1)")
    command.add_argument(
        "--noise", type=_positive, help="standard deviation of run times as a share of their mean (default: none)"
    )
    command.add_argument("--calls", type=_whole, default=50_000, help="calls to simulate (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="seed of all randomness (default: %(default)s)")


def _add_bench(command: ArgumentParser) -> None:
    _add_function(command)
    command.add_argument(
        "--rate", type=_positive, nargs="+", help=f"calls per second, at random times ({DEFAULT_RATES})"
    )
    command.add_argument("--max-size", type=_whole, help="maximum number of items in a batch (default: as decorated)")
    # A missing option sets no attribute, because None means adaptive.
    command.add_argument(
        "--timeout", type=_timeout, default=SUPPRESS, help="seconds, or adaptive (default: as decorated)"
    )
    command.add_argument("--concurrency", type=_whole, help="maximum number of batches at once (default: as decorated)")
    command.add_argument("--seconds", type=_positive, default=5.0, help="maximum time per rate (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="seed of all randomness (default: %(default)s)")
