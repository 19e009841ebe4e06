"""A signal handler that raises at every point where CPython runs handlers.

CPython runs the handlers of signals in the main thread, at the start of a function, after a call and at a jump back,
and inside calls that block. A trace function stands in for the handler here: it raises at the same points, one by one.
"""

from __future__ import annotations

import dis
import sys
from functools import partial
from pathlib import Path

from tests.kit.steps import traced

TESTS = str(Path(__file__).parents[1])
# CPython handles signals after these instructions; after conditional jumps only if they jump.
CHECKED = {
    number
    for name, number in dis.opmap.items()
    if name.startswith(("CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE"))
    and "NO_INTERRUPT" not in name
    and "INTRINSIC" not in name
}
CONDITIONAL = {
    number
    for name, number in dis.opmap.items()
    if name.startswith("POP_JUMP" if sys.version_info < (3, 11) else "POP_JUMP_BACKWARD")
}


class Interrupted(BaseException):
    """Raised as if by the handler of a signal."""


class Interrupter:
    """A trace function that raises at one of the points where CPython handles signals."""

    error = Interrupted

    def __init__(self, at):
        self._at = at
        self.points = 0
        self.where = None

    def __call__(self, frame, event, arg):
        if self.where is not None or not self.interrupts(frame):
            return None
        # From Python 3.13 on, a frame that is traced already gets the opcodes.
        frame.f_trace = trace = partial(self._trace, [None], frame.f_code.co_code)
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        # In Python 3.10, what a trace function raises as a coroutine goes on would pass its ``except`` clauses.
        if sys.version_info >= (3, 11) or frame.f_lasti < 0:
            self.enter(frame)
        return trace

    def interrupts(self, frame):
        """Return whether the points of a function count."""
        return not frame.f_code.co_filename.startswith(TESTS) and "importlib" not in frame.f_code.co_filename

    def enter(self, frame):
        """Pass the point at the start of a function."""
        self.pass_point(frame)

    def _trace(self, last, opcodes, frame, event, arg):
        before, last[0] = last[0], None
        if event == "opcode":
            here = frame.f_lasti
            if before is not None and (before[1] in CHECKED or (before[1] in CONDITIONAL and here != before[0] + 2)):
                self.pass_point(frame)
            last[0] = here, opcodes[here]
        return frame.f_trace

    def pass_point(self, frame):
        self.points += 1
        if self.points == self._at:
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise self.error


class Visitor(Interrupter):
    """A trace function that calls ``visit(number)`` at each of these points in the package, in place of a handler."""

    def __init__(self, visit):
        super().__init__(at=None)
        self._visit = visit

    def interrupts(self, frame):
        return frame.f_globals.get("__name__", "").startswith("batchify.")

    def pass_point(self, frame):
        self._visit(self.points)
        self.points += 1


def at_points(act, visit):
    """Call ``visit(number)`` at each point of ``act()`` where CPython runs signal handlers."""
    traced(act, Visitor(visit))
