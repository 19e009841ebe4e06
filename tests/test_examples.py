"""Every example runs, says what it promises to say, and its numbers agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
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
    done = subprocess.run(  # noqa: S603  # our own examples
        [sys.executable, EXAMPLES / name],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def numbers(pattern, output):
    """Return the numbers in each line that matches ``pattern``, where # stands for a number."""
    lines = re.finditer(f"^{pattern.replace('#', '([0-9]+)')}$", output, re.MULTILINE)
    return [tuple(map(int, line.groups())) for line in lines]


@needs("tokenizers")
def test_tokenizer():
    """From threads and from tasks, each paragraph is a call, batches hold them all, and every id is the direct one."""
    output = run("tokenizer.py")
    ((paragraphs, _, _),) = numbers("# paragraphs, # tokens, a vocabulary of #", output)
    assert ["64 threads", "256 asyncio tasks"] == re.findall("^From (.+)$", output, re.MULTILINE)
    assert [(paragraphs, paragraphs)] * 2 == numbers("calls made: #, total_items: #", output)
    savings = numbers("calls of the tokenizer: #, saved: #", output)
    assert [paragraphs] * 2 == [batches + saved for batches, saved in savings]
    assert all(saved > batches for batches, saved in savings)
    equal = numbers(r"Ids are equal to direct encoding for every paragraph \(# of #, both ways\),", output)
    assert [(paragraphs, paragraphs)] == equal
    assert output.endswith("and total_items equals the number of calls made.\n")


@needs("sklearn")
def test_digits():
    """Each image is a call and gets the direct prediction, from a small part of the calls of the model."""
    output = run("digits.py")
    ((images, alone),) = numbers(r"# images, one prediction .*\n(?:.*\n){2}alone +# .*", output)
    ((batched,),) = numbers("batched +# .*", output)
    assert images == alone
    assert images / 10 > batched
    assert [(images, images)] == numbers("calls made: #, total_items: #", output)
    assert [(images, images)] == numbers(r"Predictions are equal to direct ones for every image \(# of #\)\.", output)


def test_lookup():
    """Each id is a call and gets its name or None, in order, from a small part of the queries."""
    output = run("lookup.py")
