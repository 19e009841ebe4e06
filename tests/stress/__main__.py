"""Soak both engines, each in a process of its own, and report what came of all calls.

    python tests/stress --calls 50000 --seed 1 --engine threads

Ends with status 1 if a call was lost, answered twice or with the answer to another one, if anything was left over or
logged, if memory grew, or if an engine hung. The choices are those of the seed; who comes first is up to the system.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).with_name("soak.py")
# Seconds for a process to begin, and for each call, on a slow machine.
START, EACH = 90, 0.005


def main():
    parser = argparse.ArgumentParser(prog="python tests/stress", description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000, help="how many calls to make of each engine")
    parser.add_argument("--seed", default="0", help="what the choices are made from")
    parser.add_argument("--engine", choices=["asyncio", "threads", "both"], default="both")
    args = parser.parse_args()
    engines = ["asyncio", "threads"] if args.engine == "both" else [args.engine]
    runs = [soak(engine, args.calls, args.seed) for engine in engines]
    reports = [report for _, report in runs]
    print(f"{'seed ' + args.seed:16}" + "".join(f"{engine:>12}" for engine in engines))
    for line in dict.fromkeys(line for report in reports for line in report):
        print(f"{line:16}" + "".join(f"{report.get(line, '?'):>12,}" for report in reports))
    if not all(well for well, _ in runs):
        sys.exit("something is wrong")


def soak(engine, calls, seed):
    """Return whether all went well, and the report."""
    command = [sys.executable, str(SOAK), engine, str(calls), seed]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=START + EACH * calls, text=True)
    except subprocess.TimeoutExpired:
        print(f"{engine}: not done in time", file=sys.stderr)
        return False, {}
    report = json.loads(run.stdout.splitlines()[-1]) if run.stdout else {}
    return run.returncode == 0, report


main()
