"""The README is one page, its Python blocks run, and its links have targets."""

from __future__ import annotations

import re

import pytest

from tests.kit.processes import ROOT, printed

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
# The package index shows the README without the repository, so its links are absolute.
LINKED = re.findall(r"https://(?:raw\.)?github[a-z]*\.com/[\w-]+/batchify/(?:blob/)?main/(docs/[^)\"#]+)", README)


def test_there_are_blocks():
    """The pattern finds every Python block of the README."""
    assert README.count("```python") == len(BLOCKS) > 1


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1])
def test_a_block_runs(tmp_path, block):
    """A block runs in a process of its own, ends without an error, and prints the output in its comments."""
    script = tmp_path / "block.py"
    script.write_text(block, encoding="utf-8")
    output = printed("-W", "error", script, traced=False)
    for said in re.findall(r"print\(.*\)  # (.*)", block):
        assert said in output.splitlines()


def test_the_commands():
    """The README has commands to install the package, to run the example and to run the tests."""
    commands = re.findall(r"^```sh\n(.*?)\n```", README, flags=re.DOTALL | re.MULTILINE)
    words = ["pip install batchify-toolkit", "examples/tokenizer.py", "pytest"]
    assert words == [next(word for word in words if word in command) for command in commands]


def test_it_is_one_page():
    """The README has at most 8,000 characters."""
    assert len(README) <= 8000


def test_links_have_targets():
    """Every link into docs/ leads to a file, and no link is relative."""
    assert LINKED
    assert [] == [path for path in LINKED if not (ROOT / path).is_file()]
    assert [] == re.findall(r"\]\((?!https://)[^)]*\)", README)
