"""A span of OpenTelemetry for each batch, made by a wrapper of the batch function.

Decides: names and attributes of the spans, by the semantic conventions; the links of a span.
Must not know: engines, the core.

A span has at most one parent, but a batch has many callers. So its span has no parent, and links to their spans.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from opentelemetry.context import attach, detach
from opentelemetry.trace import Link, StatusCode, get_current_span, get_tracer, set_span_in_context

from batchify import __version__
from batchify._batcher.current import current_batch
from batchify._batcher.functions import METHOD_KINDS, is_async, is_async_generator, is_generator, name_of
from batchify._decorator.proxy import Batched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextvars import Context

    from opentelemetry.trace import Span, TracerProvider

    Function: TypeAlias = Callable[..., Any]

F = TypeVar("F", bound="Function")

log = logging.getLogger("batchify")

NAME = "batchify.batcher.name"
SIZE = "batchify.batch.size"
REASON = "batchify.batch.reason"
# Names of the semantic conventions. The names for the message and the stack trace of an exception are not used.
ERROR = "error.type"
EXCEPTION, EXCEPTION_TYPE = "exception", "exception.type"


@overload
def traced(fn: F, /, *, provider: TracerProvider | None = None) -> F: ...
@overload
def traced(*, provider: TracerProvider | None = None) -> Callable[[F], F]: ...


def traced(fn: Any = None, /, *, provider: TracerProvider | None = None) -> Any:
    """Make a span of each batch that a batch function runs, with links to the spans of its callers.

    Apply it below ``microbatch``, with ``capture_context``. Without that, spans have no links (a warning is logged):

        @microbatch(capture_context=True)
        @traced
        async def embed(texts): ...

    The name of a span is ``batch``, followed by the name of the batcher. Its attributes are ``batchify.batcher.name``,
    ``batchify.batch.size`` (in items) and ``batchify.batch.reason`` (of the departure). It starts a new trace, for
    which the sampler decides again. Spans that the function or generator makes are its children. A call outside of a
    batch, or from another traced function, makes no span.

    Links are in the order of the items, one for each sampled span of a caller. By default, an SDK keeps the newest 128
    links (``OTEL_SPAN_LINK_COUNT_LIMIT``).

    If the function raises an exception, the span has the status of an error and the type of the exception, but neither
    message nor stack trace, because they may contain private items. A cancelled batch is no error, and neither is an
    exception that is the result of one item.

    Args:
        fn: the batch function: a function of any kind, a method, a partial, or a callable object.
        provider: the provider; ``None`` is the global one, which may be set later.

    Raises:
        TypeError: ``fn`` cannot be called with a list of items.
    """
    if fn is None:
        return partial(traced, provider=provider)
    if isinstance(fn, METHOD_KINDS):
        return type(fn)(traced(fn.__func__, provider=provider))
    if isinstance(fn, Batched):
        msg = f"traced stands below microbatch, got {fn!r}: decorate the batch function before it is batched"
        raise TypeError(msg)
    if not callable(fn):
        msg = f"traced decorates a batch function, got {fn!r} of type {type(fn).__name__}"
        raise TypeError(msg)
    form = _form(fn)(fn, _Spans(provider))
    # A partial or an object has no name.
    form.__name__ = form.__qualname__ = name_of(fn)
    return wraps(fn)(form)


def _form(fn: Function) -> Callable[[Any, _Spans], Function]:
    if is_async(fn):
        return _awaited
    if is_async_generator(fn):
        return _yielding_async
    return _yielding if is_generator(fn) else _returning


def _returning(fn: Function, spans: _Spans) -> Function:
    def run(*args: Any, **kwargs: Any) -> Any:
        with spans.of_batch() as span, _in(span):
            return fn(*args, **kwargs)

    return run


def _awaited(fn: Function, spans: _Spans) -> Function:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with spans.of_batch() as span, _in(span):
            return await fn(*args, **kwargs)

    return run


# The span of a generator must not be current for a reader of its values, so it is current only inside the generator.


def _yielding(fn: Function, spans: _Spans) -> Function:
    def run(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        with spans.of_batch() as span:
            values: Generator[Any, None, None] = fn(*args, **kwargs)
            try:
                while True:
                    with _in(span):
                        value = next(values, _END)
                    if value is _END:
                        return
                    yield value
            finally:
                with _in(span):
                    values.close()

    return run


def _yielding_async(fn: Function, spans: _Spans) -> Function:
    async def run(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        with spans.of_batch() as span:
            values: AsyncGenerator[Any, None] = fn(*args, **kwargs)
            try:
                while True:
                    with _in(span):
                        value = await anext(values, _END)
                    if value is _END:
                        return
                    yield value
            finally:
                with _in(span):
                    await values.aclose()

    return run


_END = object()


@contextmanager
def _in(span: Span) -> Generator[None]:
    """Make ``span`` the current one. Unlike ``use_span``, record no errors, which may be private."""
    token = attach(set_span_in_context(span))
    try:
        yield
    except GeneratorExit:
        # A coroutine that is closed after its loop has ended is in the context of other code.
        raise
    except BaseException:
        detach(token)
        raise
    detach(token)


# Whether the running batch has its span.
_has_span = ContextVar("batchify_has_span", default=False)


class _Spans:
    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = get_tracer("batchify", __version__, provider)
        # Whether the warning about missing links was logged.
        self._logged = False

    @contextmanager
    def of_batch(self) -> Generator[Span]:
        """Make the span of the running batch; without a batch, or if it has a span, yield the current span."""
        batch = current_batch()
        if batch is None or _has_span.get():
            yield get_current_span()
            return
        attributes: dict[str, str | int] = {NAME: batch.name, SIZE: batch.size, REASON: batch.reason}
        links = self._links(batch.name, batch.contexts)
        # The span has no parent because a batch runs in an empty context.
        span = self._tracer.start_span(f"batch {batch.name}", attributes=attributes, links=links)
        _has_span.set(True)
        try:
            yield span
        except Exception as error:
            _note(error, span)
            raise
        finally:
            # Not by a token, because a generator may end in another context than at its start.
            _has_span.set(False)
            span.end()

    def _links(self, name: str, contexts: tuple[Context, ...]) -> list[Link]:
        if not contexts and not self._logged:
            self._logged = True
            log.warning("the spans of %s() link to no callers: microbatch needs capture_context=True for that", name)
        callers = [context.run(get_current_span).get_span_context() for context in contexts]
        sampled = (caller for caller in callers if caller.trace_flags.sampled)
        return [Link(caller) for caller in {(caller.trace_id, caller.span_id): caller for caller in sampled}.values()]


def _note(error: Exception, span: Span) -> None:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    span.set_status(StatusCode.ERROR)
    span.set_attribute(ERROR, name)
    span.add_event(EXCEPTION, {EXCEPTION_TYPE: name})
