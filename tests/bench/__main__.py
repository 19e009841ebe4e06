"""The command line: the workloads, the number of rounds, and the output files."""

from __future__ import annotations

import argparse
from pathlib import Path

import tests.bench
from tests.bench import bars, machine, screen, table
from tests.bench.contest import Plan
from tests.bench.workloads import WORKLOADS

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->"


def main(arguments=None):
    """Run the workloads that the command line names, and print the table of their bars."""
    options = _parser().parse_args(arguments)
    rounds = options.rounds or (3 if options.quick else 9)
    plan = Plan(0.25 if options.quick else 1.0)
    about = machine.about() | {"rounds": f"{rounds}, of a quarter of the calls" if options.quick else rounds}
    screen.say(", ".join(f"{name} {value}" for name, value in about.items()))
    results = []
    for workload in options.workloads or WORKLOADS:
        for contest in WORKLOADS[workload](plan):
            figures = screen.play(contest, bars.rounds(contest.title, rounds))
            screen.show(contest, figures)
            results.append((workload, contest, figures))
    screen.show_bars(results)
    if options.json:
        options.json.write_text(table.as_json(results, about), encoding="utf-8")
    if options.markdown:
        _insert(table.markdown(results, about), options.markdown)


def _insert(text, path):
    """Write ``text`` between the marks in a file; a new file gets new marks."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}{END}\n"
    before, _, rest = page.partition(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=tests.bench.__doc__.partition("\n")[0])
    parser.add_argument(
        "workloads", nargs="*", choices=[[], *WORKLOADS], metavar="WORKLOAD", help=f"any of {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--rounds", type=int, help="number of runs of each entrant (default: 9, or 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="make a quarter of the calls, in three rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of all rounds")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        nargs="?",
        const=README,
        help="write the tables into a file; the README by default",
    )
    return parser


if __name__ == "__main__":
    main()
