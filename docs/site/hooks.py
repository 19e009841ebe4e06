"""What the site has beyond the files in docs/: examples, the changelog, and sections of the README.

Decides: which files become pages, and where links that leave docs/ lead to.
Must not know: what any page says.

Links in docs/ are links between files, so that pages can be read where they are: ``../examples/lookup.py`` is a file
there, and the page about it here. A link to a section of the README, alone in its paragraph, becomes that section.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SECTION = re.compile(r"^\[(?P<title>.+)\]\(\.\./README\.md#.+\)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Put the examples at the end of the navigation."""
    config.nav.append({"Examples": [{path.name: f"examples/{path.stem}.md"} for path in EXAMPLES]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Make pages of what is not in docs/, and copy what examples come with."""
    changelog = _within((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    files.append(File.generated(config, "changelog.md", content=changelog))
    for path in EXAMPLES:
        files.append(File.generated(config, f"examples/{path.stem}.md", content=_example(path)))
    for path in (ROOT / "examples").glob("*.json"):
        files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take in the sections of the README that a page asks for, and let links lead to pages."""
    return _within(SECTION.sub(lambda asked: _section(asked["title"]), markdown))


def _section(title: str) -> str:
    """Return what the README says under a heading."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, found, after = readme.partition(f"\n## {title}\n")
    if not found:
        msg = f"the README has no section {title!r}, which a page asks for"
        raise LookupError(msg)
    # Its links begin where the README is, and those of a page in docs/.
    return after.partition("\n## ")[0].replace("](docs/", "](").replace("](examples/", "](../examples/").strip()


def _within(markdown: str) -> str:
    """Let links to files outside of docs/ lead to their pages."""
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
    return markdown.replace("](../examples/", "](examples/").replace("](../CHANGELOG.md", "](changelog.md")


def _example(path: Path) -> str:
    """Return the page of an example: its docstring, and its code."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    code = "\n".join(source.splitlines()[tree.body[0].end_lineno :]).strip()
    return f"# {path.name}\n\n{ast.get_docstring(tree)}\n\n```python\n{code}\n```\n"
