"""Code that runs before each step of other code, in place of another thread or a signal handler."""

from __future__ import annotations

import gc
import sys
from functools import partial
from itertools import count


def traced(act, trace, install=sys.settrace):
    """Run ``act()`` with a trace function."""
    # Python 3.12 traces instructions only if some frame asked for it before the trace function is set.
    sys._getframe().f_trace_opcodes = True
    # Garbage of earlier tests, collected at any of the steps, would add its own.
    gc.disable()
    install(trace)
    try:
        act()
    finally:
        install(None)
        gc.enable()


def at_steps(act, other):
    """Call ``other(number)`` before each step of ``act()`` in the package, and return the number of steps.

    A step is an instruction of the interpreter. Another thread can run before many of them.
    """
    steps = count()

    def trace(frame, event, _):
        if not frame.f_globals.get("__name__", "").startswith("batchify."):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            other(next(steps))
        return trace

    traced(act, trace)
    return next(steps)


def at_calls(act, other):
    """Call ``other(number)`` at each call of ``act()`` in the package and each return, and return the number of these.

    This is where CPython runs signal handlers, apart from loops.
    """
    steps = count()

    def profile(frame, *_):
        if frame.f_globals.get("__name__", "").startswith("batchify."):
            other(next(steps))

    traced(act, profile, sys.setprofile)
    return next(steps)


def interrupted(new, act, other, at=at_steps):
    """For each step of ``act(state)``, yield a ``new()`` state on which ``other(state)`` ran before this step."""
    for number in count():
        state = new()
        steps = at(partial(act, state), partial(_call_at, number, partial(other, state)))
        if number == steps:
            assert steps
            return
        yield state


def _call_at(number, other, step):
    if step == number:
        other()
