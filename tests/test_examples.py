"""Every example runs, says what it promises to say, and its numbers agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from math import ceil
from pathlib import Path

import pytest

import batchify

EXAMPLES = Path(__file__).parent.parent / "examples"
# An example takes a few seconds; what takes longer than this many hangs.
PATIENCE = 60


def needs(package):
    """Skip a test where a package of the ``examples`` extra has no wheel for this Python.

    It is looked for and not imported: NumPy starts threads, and with those about, fork() warns in other tests.
    """
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def run(name):
    """Return what an example prints, with the batchify that is tested here."""
    path = [str(Path(batchify.__file__).parent.parent), os.environ.get("PYTHONPATH")]
    # The drawing of statistics needs more than the encoding that a pipe has on some platforms.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUTF8": "1"}
    done = subprocess.run(  # our own examples
        [sys.executable, EXAMPLES / name],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def numbers(line, output):
    """Return the numbers of each line of ``output`` that matches ``line``, a pattern in which # is a number."""
    found = re.finditer(f"^{line.replace('#', '([0-9]+)')}$", output, re.MULTILINE)
    return [[int(number) for number in match.groups()] for match in found]


@needs("tokenizers")
def test_tokenizer():
    """From threads and from tasks each paragraph is one call, fewer batches hold them all, and every id is right."""
    output = run("tokenizer.py")
    [[paragraphs]] = numbers("# paragraphs, .+", output)
    assert ["64 threads", "256 asyncio tasks"] == re.findall("^From (.+)$", output, re.MULTILINE)
    assert [[paragraphs, paragraphs]] * 2 == numbers("calls made: #, total_items: #", output)
    savings = numbers("calls of the tokenizer: #, saved: #", output)
    assert [paragraphs] * 2 == [batches + saved for batches, saved in savings]
    assert all(0 < saved for _, saved in savings)
    equal = numbers(r"Ids are equal to direct encoding for every paragraph \(# of #, both ways\),", output)
    assert [[paragraphs, paragraphs]] == equal
    assert output.endswith("and total_items equals the number of calls made.\n")


@needs("sklearn")
def test_digits():
    """Calls that tasks make together fill their batches, and every image gets the prediction that it gets alone."""
    output = run("digits.py")
    [[images]] = numbers("# images, .+", output)
    assert [[images]] == numbers(r"alone +# +[\d.]+ ms", output)
    assert [[ceil(images / 64)]] == numbers(r"batched +# +[\d.]+ ms", output)
    assert [[images, images]] == numbers("calls made: #, total_items: #", output)
    assert [[images, images]] == numbers(r"Predictions are equal to direct ones for every image \(# of #\)\.", output)


def test_lookup():
    """Each id gets its row or None, in order, from fewer queries than there are ids."""
    output = run("lookup.py")
    [[characters]] = numbers("# characters .+", output)
    [[ids, items, missing]] = numbers("calls made: #, total_items: #, of them None: #", output)
    assert ids == items == characters + missing
    assert ["LATIN CAPITAL LETTER A", "None"] == re.findall(r"^U\+(?:0041|0378)  (.+)$", output, re.MULTILINE)
    assert [[ids]] == numbers("queries without batching: #", output)
    [[queries]] = numbers("queries with batching: #, .+", output)
    assert ids > queries
    equal = numbers(r"Names are equal to those looked up one by one, in the same order \(# of #\)\.", output)
    assert [[ids, ids]] == equal
