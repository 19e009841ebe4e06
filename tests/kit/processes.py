"""Run programs in subprocesses, with the running Python and the batchify under test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import batchify

ROOT = Path(__file__).parents[2]
# A program takes a few seconds, or more on a busy machine. One that takes longer than this many seconds hangs.
PATIENCE = 60


def _process(*arguments, cwd=None, path=(), traced=True, **variables):
    """Return the arguments of ``subprocess`` for a program.

    Args:
        arguments: The arguments of the Python interpreter.
        cwd: The working directory.
        path: Additional folders from which the program can import.
        traced: Whether to measure coverage in the program.
        variables: Additional environment variables.
    """
    folders = [*path, Path(batchify.__file__).parents[1], os.environ.get("PYTHONPATH")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder),
        # The statistics are drawn with characters that the default encoding of a pipe lacks on some platforms.
        "PYTHONUTF8": "1",
        **variables,
    }
    if not traced:
        environment.pop("COVERAGE_PROCESS_CONFIG", None)
    return {"args": [sys.executable, *arguments], "cwd": cwd, "env": environment, "encoding": "utf-8"}


def start(*arguments, **options):
    """Start a program whose standard streams are pipes."""
    pipe = subprocess.PIPE
    return subprocess.Popen(**_process(*arguments, **options), stdin=pipe, stdout=pipe, stderr=pipe)


def run(*arguments, **options):
    """Run a program to its end; return the completed process, whatever its exit code."""
    return subprocess.run(**_process(*arguments, **options), capture_output=True, timeout=PATIENCE, check=False)


def printed(*arguments, **options):
    """Return the output of a program, which must exit with code 0 and write nothing to stderr."""
    done = run(*arguments, **options)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def printed_by(script, **options):
    """Return the output of a script that is given as source; in it, every warning is an error."""
    return printed("-W", "error", "-c", dedent(script), **options)
