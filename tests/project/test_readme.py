"""Every Python block of the README runs."""

from __future__ import annotations

import re

import pytest

from tests.kit.processes import ROOT, printed

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_there_are_blocks():
    """The pattern finds every Python block of the README."""
    assert README.count("```python") == len(BLOCKS) > 8


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1])
def test_a_block_runs(tmp_path, block):
    """A block runs in a process of its own, ends without an error, and prints the output in its comments."""
    script = tmp_path / "block.py"
    script.write_text(block, encoding="utf-8")
    output = printed("-W", "error", script, traced=False)
    for said in re.findall(r"print\(.*\)  # (.*)", block):
        assert said in output.splitlines()


def test_the_commands():
    """The README has commands for the example, the tests, the soak, the benchmark and choosing options."""
    commands = re.findall(r"^```sh\n(.*?)\n```", README, flags=re.DOTALL | re.MULTILINE)
    words = ["examples/tokenizer.py", "pytest", "tests/stress", "tests.bench", "batchify tune"]
    assert words == [next(word for word in words if word in command) for command in commands]
