"""The examples, and what they print."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from tests.kit import processes
from tests.kit.processes import ROOT

EXAMPLES = ROOT / "examples"


def needs(package):
    """Skip a test where a package of the ``examples`` extra has no wheel for this Python.

    It is looked for and not imported: NumPy starts threads, and with those about, fork() warns in other tests.
    """
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def printed(name, *arguments, **variables):
    """Return the output of an example."""
    return processes.printed(EXAMPLES / name, *arguments, traced=False, **variables)


def numbers(line, output):
    """Return the numbers of each line of ``output`` that matches ``line``, a pattern in which # is a number."""
    found = re.finditer(f"^{line.replace('#', '([0-9]+)')}$", output, re.MULTILINE)
    return [[int(number) for number in match.groups()] for match in found]
