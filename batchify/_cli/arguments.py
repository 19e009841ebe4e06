"""What can be asked on the command line.

Decides: commands, their options and defaults, and which values make sense.
Must not know: how a command is carried out.
"""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchify._core.limits import positive, seconds, whole

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER = r"(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)"
COST = re.compile(rf"(?:{NUMBER}\s*\+\s*)?{NUMBER}\s*\*?\s*n")


def parser() -> ArgumentParser:
    """Return the parser of ``batchify``."""
    top = ArgumentParser("batchify", description="Choose the options of a batched function by measuring it.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    _tune(commands.add_parser("tune", help="measure a batch function and recommend its options"))
    _simulate(commands.add_parser("simulate", help="tell what options would do to a function of known cost"))
    _bench(commands.add_parser("bench", help="call a decorated function at random and compare with the prediction"))
    return top


def cost(text: str) -> dict[int, float]:
    """Return the run times of a function that takes a + b n seconds for n items.

    Raises:
        ArgumentTypeError: ``text`` is nothing of the kind.
    """
    found = COST.fullmatch(text.strip())
    a, b = found.groups() if found else (text, "0")
    try:
        start, each = float(a or 0), float(b)
    except ValueError:
        start = each = 0.0
    if not start + each > 0:
        msg = f"must be seconds like 0.004+0.0001n, of which n is the number of items, got {text!r}"
        raise ArgumentTypeError(msg)
    return {1: start + each, 2: start + 2 * each}


def run_times(text: str) -> dict[int, float]:
    """Return run times by size, as measured.

    Raises:
        ArgumentTypeError: ``text`` is nothing of the kind.
    """
    pairs = [pair.partition(":") for pair in text.split(",")]
    try:
        found = {int(size): float(time) for size, _, time in pairs}
    except ValueError:
        found = {}
    if not found or min(found) < 1 or not min(found.values()) > 0:
        msg = f"must be sizes with seconds like 1:0.0041,32:0.0072, got {text!r}"
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


def _subject(command: ArgumentParser) -> None:
    command.add_argument("function", metavar="module:function", help="the batch function, as package.module:name")
    command.add_argument(
        "--items",
        required=True,
        metavar="FILE|module:function",
        help="items to call it with: a file with one JSON value a line, or a function that returns them",
    )


def _tune(command: ArgumentParser) -> None:
    _subject(command)
    command.add_argument(
        "--rate",
        type=_positive,
        nargs="+",
        help="calls a second to choose for; not given: 25, 50 and 75 %% of what can be answered",
    )
    command.add_argument(
        "--slo-ms", type=_positive, help="milliseconds within which 99 of 100 calls are to be answered"
    )
    command.add_argument("--max-size", type=_whole, default=256, help="the largest batch to try (%(default)s)")
    command.add_argument(
        "--concurrency",
        type=_whole,
        help="most batches to run at once (as decorated, else 1): more only if the function can bear it",
    )
    command.add_argument("--seconds", type=_positive, default=15.0, help="how long to measure (%(default)s)")
    command.add_argument("--out", type=Path, help="a folder for tune.html and tune.png")


def _simulate(command: ArgumentParser) -> None:
    known = command.add_mutually_exclusive_group(required=True)
    known.add_argument("--cost", type=cost, help="seconds that a batch of n items runs, as 0.004+0.0001n")
    known.add_argument("--measured", type=run_times, help="seconds by batch size, as 1:0.0041,32:0.0072")
    command.add_argument("--rate", type=_positive, nargs="+", required=True, help="calls a second")
    command.add_argument("--max-size", type=_whole, nargs="+", default=[32], help="most items in a batch (32)")
    command.add_argument(
        "--timeout",
        type=_timeout,
        nargs="+",
        default=[None],
        help="seconds that the first item waits for others, or adaptive (adaptive)",
    )
    command.add_argument("--concurrency", type=_whole, nargs="+", default=[1], help="most batches at once (1)")
    command.add_argument("--burst", type=_whole, default=1, help="calls that come at the same moment (1)")
    command.add_argument(
        "--noise", type=_positive, help="standard deviation of run times as a share of the mean (none)"
    )
    command.add_argument("--calls", type=_whole, default=50_000, help="calls to simulate (%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="the number that all chance follows from (%(default)s)")


def _bench(command: ArgumentParser) -> None:
    _subject(command)
    command.add_argument(
        "--rate",
        type=_positive,
        nargs="+",
        help="calls a second, at random moments; not given: 25, 50 and 75 %% of what can be answered",
    )
    command.add_argument("--max-size", type=_whole, help="most items in a batch (as decorated)")
    # There is no value that could stand for none: None adapts.
    command.add_argument("--timeout", type=_timeout, default=SUPPRESS, help="seconds, or adaptive (as decorated)")
    command.add_argument("--concurrency", type=_whole, help="most batches at once (as decorated)")
    command.add_argument("--seconds", type=_positive, default=5.0, help="how long at each rate (%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="the number that all chance follows from (%(default)s)")
