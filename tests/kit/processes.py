"""Programs in processes of their own, run by this Python with the batchify that is tested here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import batchify

ROOT = Path(__file__).parents[2]
# A program takes a few seconds, and on a busy machine some more. One that takes longer than this many hangs.
PATIENCE = 60


def _process(*arguments, cwd=None, path=(), traced=True, **variables):
    """Return how to start a program that imports from the folders of ``path``, too, and has ``variables`` set.

    Coverage is not measured in one that is not ``traced``.
    """
    folders = [*path, Path(batchify.__file__).parents[1], os.environ.get("PYTHONPATH")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder),
        # The drawing of statistics needs more than the encoding that a pipe has on some platforms.
        "PYTHONUTF8": "1",
        **variables,
    }
    if not traced:
        environment.pop("COVERAGE_PROCESS_CONFIG", None)
    return {"args": [sys.executable, *arguments], "cwd": cwd, "env": environment, "encoding": "utf-8"}


def start(*arguments, **options):
    """Start a program, with pipes to it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(**_process(*arguments, **options), stdin=pipe, stdout=pipe, stderr=pipe)


def run(*arguments, **options):
    """Run a program; return the completed process, however it ended."""
    return subprocess.run(**_process(*arguments, **options), capture_output=True, timeout=PATIENCE, check=False)


def printed(*arguments, **options):
    """Return the output of a program, which ends well and has nothing on its error stream."""
    done = run(*arguments, **options)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def printed_by(script, **options):
    """Return the output of a script, which also does nothing that Python warns of."""
    return printed("-W", "error", "-c", dedent(script), **options)
