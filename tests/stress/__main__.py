"""Soak-test both engines, each in its own process, and report how all calls ended.

    python tests/stress --calls 50000 --seed 1 --engine threads

The exit status is 1 if a call was lost, ran twice or got the answer of another call. It is also 1 if threads, tasks or
objects remained, if an error was logged, if memory grew, or if an engine hung. The seed determines all random choices;
the operating system determines the order of threads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).with_name("soak.py")
# Seconds that a slow machine needs at most to start a process, and for each call.
START, EACH = 90, 0.005


def main():
    parser = argparse.ArgumentParser(prog="python tests/stress", description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000, help="number of calls of each engine")
    parser.add_argument("--seed", default="0", help="seed of all random choices")
    parser.add_argument("--engine", choices=["asyncio", "threads", "both"], default="both")
    args = parser.parse_args()
    engines = ["asyncio", "threads"] if args.engine == "both" else [args.engine]
    runs = [soak(engine, args.calls, args.seed) for engine in engines]
    reports = [report for _, report in runs]
    print(f"{'seed ' + args.seed:16}" + "".join(f"{engine:>12}" for engine in engines))
    for line in dict.fromkeys(line for report in reports for line in report):
        print(f"{line:16}" + "".join(f"{report.get(line, '?'):>12,}" for report in reports))
    if not all(is_ok for is_ok, _ in runs):
        sys.exit("at least one check failed")


def soak(engine, calls, seed):
    """Return whether all checks passed, and the report."""
    command = [sys.executable, str(SOAK), engine, str(calls), seed]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=START + EACH * calls, text=True)
    except subprocess.TimeoutExpired:
        print(f"{engine}: did not finish in time", file=sys.stderr)
        return False, {}
    report = json.loads(run.stdout.splitlines()[-1]) if run.stdout else {}
    return run.returncode == 0, report


main()
