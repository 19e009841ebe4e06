"""The options of a batcher, their defaults, and their validation.

Decides: which options exist, and which of their values are valid. A wrong type is a ``TypeError``, a value out of range
is a ``ValueError``, and each message names the option, the rule and the value.
Must not know: engines, decorators.
A new option is a field of ``Config``, an entry of ``CHECKS``, its type in ``options``, and its meaning in the docstring
of ``microbatch``.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, TypeVar

from batchify._batcher.executors import BatchExecutor
from batchify._batcher.functions import is_async, is_generator, name_of
from batchify._core.limits import Limits, check_sizes, increasing, positive, seconds, whole, wrong_type
from batchify._core.run_cost import RunCost

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, kw_only=True)
class Config(Limits):
    """The valid options of one batcher."""

    on_full: str = "wait"
    # These three take the item of a call, a tuple if there are several columns.
    weigh: Callable[[Any], Any] | None = None
    length: Callable[[Any], Any] | None = None
    group_by: Callable[[Any], Any] | None = None
    # True, or "running".
    dedupe: bool | str = False
    keyed: bool = False
    isolate_errors: bool = False
    executor: BatchExecutor | None = None
    # Takes the instance, if there is one, until the batcher of the instance is made.
    lifespan: Callable[..., Any] | None = None
    capture_context: bool = False
    on_batch: Callable[[Any], object] | None = None
    name: str
    # True from the first call that passes options of the batch function, a priority or a deadline.
    takes_requests: bool = False

    @property
    def is_grouped(self) -> bool:
        """Whether calls may differ in more than their items, and so need the grouped queue."""
        asked = (self.group_by, self.weigh, self.length, self.max_pending)
        return self.takes_requests or bool(self.dedupe) or any(option is not None for option in asked)


def optional_whole(option: str, value: Any) -> int | None:
    return None if value is None else whole(option, value)


def function(option: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(wrong_type(option, "a function, or None", value))
    if is_async(value):
        msg = f"{option} must be a def function, got the async def function {name_of(value)}: nothing would await it"
        raise TypeError(msg)
    return value


def executor(option: str, value: Any) -> BatchExecutor | None:
    if value is None:
        return None
    if not isinstance(value, Executor):
        expected = "a concurrent.futures.Executor, or None for the engine's own threads"
        raise TypeError(wrong_type(option, expected, value))
    return BatchExecutor(value)


def flag(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(wrong_type(option, "True or False", value))
    return value


def equal_items(option: str, value: object) -> bool | str:
    if isinstance(value, str):
        chosen = one_of(option, value, choices=("waiting", "running"))
        return True if chosen == "waiting" else chosen
    return flag(option, value)


def one_of(option: str, value: object, *, choices: tuple[str, ...]) -> str:
    chosen = text(option, value)
    if chosen not in choices:
        msg = f"{option} must be {' or '.join(map(repr, choices))}, got {chosen!r}"
        raise ValueError(msg)
    return chosen


def text(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(wrong_type(option, "a str", value))
    if not value:
        msg = f"{option} must not be empty"
        raise ValueError(msg)
    return value


# Each option, in the order of the documentation, with the function that returns its valid value.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "max_size": whole,
    "timeout": seconds,
    "concurrency": whole,
    "max_pending": optional_whole,
    "on_full": partial(one_of, choices=("wait", "raise")),
    "weigh": function,
    "max_weight": positive,
    "length": function,
    "max_padded": positive,
    "sizes": increasing,
    "group_by": function,
    "dedupe": equal_items,
    "keyed": flag,
    "isolate_errors": flag,
    "executor": executor,
    "lifespan": function,
    "capture_context": flag,
    "on_batch": function,
    "name": text,
}
OPTIONS = tuple(CHECKS)
# The constructors of the engine classes have max_batch_size and batch_wait_timeout_s instead of the other two.
ENGINE_OPTIONS = tuple(option for option in OPTIONS if option not in {"max_size", "timeout"})
CHANGEABLE = ("max_size", "timeout", "concurrency", "executor")
NOT_FOR_STREAMS = {
    "dedupe": "each caller reads a stream of its own",
    "keyed": "each yield has one value for each position",
    "isolate_errors": "values that were yielded cannot be taken back",
    "executor": "an executor returns one result and cannot yield values",
    "length": "its run time depends on the length of its answers",
}


def config_of(fn: object, options: Mapping[str, Any]) -> Config:
    name = options.get("name")
    values = validated(fn, {**options, "name": name_of(fn) if name is None else name})
    if values.get("sizes"):
        values.setdefault("max_size", values["sizes"][-1])
    config = Config(**values, run_cost=None if values.get("length") is None else RunCost())
    if (config.weigh is None) is not (config.max_weight is None):
        given, missing = ("max_weight", "weigh") if config.weigh is None else ("weigh", "max_weight")
        msg = f"{given} needs {missing}: the sum of weigh(item) over a batch is at most max_weight"
        raise TypeError(msg)
    if config.length is None and config.max_padded is not None:
        msg = "max_padded needs length: the number of items times the longest length is at most max_padded"
        raise TypeError(msg)
    if config.length is not None and config.weigh is not None:
        msg = "length does not work with weigh: weigh keeps the order of items, and length takes the nearest first"
        raise TypeError(msg)
    check_combinations(config)
    if config.on_full == "raise" and config.max_pending is None:
        msg = "on_full='raise' needs max_pending: without it there is always room"
        raise TypeError(msg)
    return config


def check_combinations(config: Config) -> None:
    """Refuse options that do not work together, of which ``configure`` may change one."""
    check_sizes(config)
    if config.sizes is not None and config.weigh is not None:
        msg = "sizes does not work with weigh: padding repeats an item, which would exceed max_weight"
        raise TypeError(msg)
    if config.lifespan is not None and config.executor is not None:
        msg = "lifespan does not work with executor: the executor's own workers run the batches"
        raise TypeError(msg)


def engine_config(
    engine: str, batch_fn: object, max_batch_size: object, batch_wait_timeout_s: object, options: Mapping[str, Any]
) -> Config:
    check_names(f"{engine}.__init__", options, ENGINE_OPTIONS)
    if not callable(batch_fn):
        msg = f"batch_fn must be callable, got {batch_fn!r}"
        raise TypeError(msg)
    if is_generator(batch_fn):
        name = name_of(batch_fn)
        msg = f"{name}() is a generator function, which an engine class cannot run; use: microbatch({name})"
        raise TypeError(msg)
    max_size = whole("max_batch_size", max_batch_size)
    timeout = seconds("batch_wait_timeout_s", batch_wait_timeout_s)
    return config_of(batch_fn, {**options, "max_size": max_size, "timeout": timeout})


def changes(fn: object, config: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    check_names("configure", options, CHANGEABLE, hint=f"; it changes {', '.join(CHANGEABLE)}")
    values = validated(fn, options)
    check_combinations(replace(config, **values))
    if "executor" in values and config.length is not None:
        # Runs cost something else there.
        values["run_cost"] = RunCost()
    return values


def validated(fn: object, options: Mapping[str, Any]) -> dict[str, Any]:
    values = {option: CHECKS[option](option, value) for option, value in options.items()}
    if is_generator(fn):
        for option, reason in NOT_FOR_STREAMS.items():
            if values.get(option):
                msg = f"{option} does not work for {name_of(fn)}(), a generator function: {reason}"
                raise TypeError(msg)
    if values.get("executor") and is_async(fn):
        msg = f"executor runs def functions, but {name_of(fn)} is async def and runs on the event loop of its callers"
        raise TypeError(msg)
    return values


def check_names(taker: str, names: Iterable[str], known: Container[str], hint: str = "") -> None:
    """Refuse unknown options of the function ``taker`` with Python's own message for unknown arguments."""
    for name in names:
        if name not in known:
            msg = f"{taker}() got an unexpected keyword argument {name!r}{hint}"
            raise TypeError(msg)


def shows_options(*names: str) -> Callable[[F], F]:
    """Show these options with their defaults in the signature of a function that takes ``**options``."""

    def show(function: F) -> F:
        shown = signature(function)
        *own, _ = shown.parameters.values()
        # Only the name has no default in Config: None stands for the name of the batch function.
        options = [Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(Config, name, None)) for name in names]
        vars(function)["__signature__"] = shown.replace(parameters=[*own, *options])
        return function

    return show
