"""The options of a batcher, validated once.

Decides: which values an option may have, and what is said of the others.
Must not know: engines, decorators.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from batchify._batcher.executors import BatchExecutor
from batchify._batcher.functions import is_async, is_generator, name_of
from batchify._core.limits import Limits, positive, seconds, whole

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Config(Limits):
    """What a batcher was asked to do. All numbers are valid.

    ``weigh`` and ``group_by`` take the item of a call, a tuple if there are several columns. A batcher that
    ``takes_requests`` has been asked for more than items: for options of the batch function, a priority or a deadline.
    """

    weigh: Callable[[Any], Any] | None
    group_by: Callable[[Any], Any] | None
    dedupe: bool
    isolate_errors: bool
    executor: BatchExecutor | None
    capture_context: bool
    on_batch: Callable[[Any], object] | None
    name: str
    takes_requests: bool = False

    @property
    def is_grouped(self) -> bool:
        """Whether calls may differ in more than their items, and so need the grouped queue."""
        asked = (self.group_by, self.weigh, self.max_pending)
        return self.takes_requests or self.dedupe or any(option is not None for option in asked)


def for_engine(batch_fn: object, max_batch_size: object, batch_wait_timeout_s: object, **others: object) -> Config:
    """Return the validated options of an engine class, under the names its constructor gives them.

    Args:
        batch_fn: the batch function.
        max_batch_size: ``max_size`` by its other name.
        batch_wait_timeout_s: ``timeout`` by its other name.
        others: the options that have one name.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    if not callable(batch_fn):
        msg = f"batch_fn must be callable, got {batch_fn!r}"
        raise TypeError(msg)
    if is_generator(batch_fn):
        name = name_of(batch_fn)
        msg = f"{name}() is a generator function, and only a decorated one streams; use: microbatch({name})"
        raise TypeError(msg)
    return validated(
        batch_fn,
        max_size=whole("max_batch_size", max_batch_size),
        timeout=seconds("batch_wait_timeout_s", batch_wait_timeout_s),
        **others,
    )


def validated(
    fn: object,
    *,
    max_size: object,
    timeout: object,
    concurrency: object,
    max_pending: object,
    on_full: object,
    weigh: object,
    max_weight: object,
    group_by: object,
    dedupe: object,
    isolate_errors: object,
    executor: object,
    capture_context: object,
    on_batch: object,
    name: object,
) -> Config:
    """Return the options of the batch function ``fn``.

    Raises:
        TypeError: an option is of the wrong kind, or does nothing without another one that is missing.
        ValueError: an option is out of range.
    """
    if (weigh is None) is not (max_weight is None):
        given, missing = ("max_weight", "weigh") if weigh is None else ("weigh", "max_weight")
        msg = (
            f"{given} needs {missing}: the weights of a batch, as weigh(item) tells them, sum up to max_weight at most"
        )
        raise TypeError(msg)
    if is_generator(fn):
        _check_stream(fn, dedupe=dedupe, isolate_errors=isolate_errors)
    if max_pending is None and on_full == "raise":
        msg = "on_full='raise' needs max_pending: without it there is always room"
        raise TypeError(msg)
    return Config(
        max_size=whole("max_size", max_size),
        timeout=seconds("timeout", timeout),
        concurrency=whole("concurrency", concurrency),
        max_pending=None if max_pending is None else whole("max_pending", max_pending),
        on_full=one_of("on_full", on_full, ("wait", "raise")),
        weigh=function("weigh", weigh),
        max_weight=positive("max_weight", max_weight),
        group_by=function("group_by", group_by),
        dedupe=flag("dedupe", dedupe),
        isolate_errors=flag("isolate_errors", isolate_errors),
        executor=elsewhere("executor", executor, fn),
        capture_context=flag("capture_context", capture_context),
        on_batch=function("on_batch", on_batch),
        name=text("name", name_of(fn) if name is None else name),
    )


def _check_stream(fn: object, **flags: object) -> None:
    reasons = {
        "dedupe": "each caller reads a stream of its own",
        "isolate_errors": "what a stream has brought cannot be taken back",
    }
    for option, value in flags.items():
        if value is True:
            msg = f"{option}=True is not for {name_of(fn)}(), a generator function: {reasons[option]}"
            raise TypeError(msg)


def changes(fn: object, given: dict[str, Any]) -> dict[str, Any]:
    """Return the validated options that are to change while a batcher of the batch function ``fn`` works.

    Raises:
        TypeError: one is of the wrong kind, or none that can change.
        ValueError: one is out of range.
    """
    check: dict[str, Callable[[str, Any], Any]] = {
        "max_size": whole,
        "timeout": seconds,
        "concurrency": whole,
        "executor": partial(elsewhere, fn=fn),
    }
    for option in given:
        if option not in check:
            msg = f"configure() changes {', '.join(check)}, got an unexpected keyword argument {option!r}"
            raise TypeError(msg)
    return {option: check[option](option, value) for option, value in given.items()}


def function(option: str, value: Any) -> Any:
    """Return ``value`` if it can be called and returns what it finds, or is ``None``.

    Raises:
        TypeError: it is anything else.
    """
    if value is not None and not callable(value):
        msg = f"{option} must be a function, or None, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if is_async(value):
        msg = f"{option} must be a def function, got the async def function {name_of(value)}: nothing would await it"
        raise TypeError(msg)
    return value


def elsewhere(option: str, value: Any, fn: object) -> BatchExecutor | None:
    """Return where the batch function ``fn`` is to run if ``value`` is an executor, ``None`` if it is ``None``.

    Raises:
        TypeError: it is anything else, or the function is one for event loops, or a generator function.
    """
    if value is None:
        return None
    if not isinstance(value, Executor):
        msg = (
            f"{option} must be a concurrent.futures.Executor, or None for threads of its own, got {value!r} of type "
            f"{type(value).__name__}"
        )
        raise TypeError(msg)
    if is_async(fn):
        msg = f"{option} runs def functions, and {name_of(fn)} is async def: it runs on the event loop of its callers"
        raise TypeError(msg)
    if is_generator(fn):
        msg = f"{option} is not for {name_of(fn)}(), a generator function: what an executor runs answers only once"
        raise TypeError(msg)
    return BatchExecutor(value)


def flag(option: str, value: object) -> bool:
    """Return ``value`` if it is ``True`` or ``False``.

    Raises:
        TypeError: it is anything else, whether true or not.
    """
    if not isinstance(value, bool):
        msg = f"{option} must be True or False, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    return value


def one_of(option: str, value: object, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        TypeError: it is not a string.
        ValueError: it is another one.
    """
    chosen = text(option, value)
    if chosen not in choices:
        msg = f"{option} must be {' or '.join(map(repr, choices))}, got {chosen!r}"
        raise ValueError(msg)
    return chosen


def text(option: str, value: object) -> str:
    """Return ``value`` if it is a string that is not empty.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty.
    """
    if not isinstance(value, str):
        msg = f"{option} must be a str, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    if not value:
        msg = f"{option} must not be empty"
        raise ValueError(msg)
    return value
