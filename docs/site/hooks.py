"""Pages of the site from outside of docs/: the examples and the changelog.

Decides: which files become pages, and the targets of links that leave docs/.
Must not know: the content of any page.

Links in docs/ are links between files, so that they also work in the repository. On the site, a link to an example,
such as ``../examples/lookup.py``, leads to its page.
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
DRAWING = re.compile(r'<img alt="[^"]*" src="(?P<name>[a-z]+)\.svg" ?/?>')
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def on_config(config: MkDocsConfig) -> None:
    """Add the examples at the end of the navigation, and the version beside the link to the repository."""
    version = re.search(r'__version__ = "(.+)"', (ROOT / "batchify" / "__init__.py").read_text(encoding="utf-8"))
    config.extra["release"] = version[1]
    config.nav.append({"Examples": [{path.name: f"examples/{path.stem}.md"} for path in EXAMPLES]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Create the pages from outside of docs/, and copy the data files of examples."""
    changelog = _within((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    files.append(File.generated(config, "changelog.md", content=changelog))
    for path in EXAMPLES:
        files.append(File.generated(config, f"examples/{path.stem}.md", content=_example(path)))
    for path in (ROOT / "examples").glob("*.json"):
        files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files outside of docs/ by links to their pages."""
    return _within(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Insert the drawings into the page, so that they have the colours of its scheme and can be scrolled."""
    return DRAWING.sub(lambda image: _drawing(image["name"]), html)


def _drawing(name: str) -> str:
    """Return a drawing whose styles apply to itself only, and whose dark styles follow the switch of the site."""
    drawing = (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8").replace("<svg ", f'<svg id="{name}" ', 1)
    drawing = drawing.replace("<style>", f"<style>#{name}{{", 1)
    dark = f"}}[data-md-color-scheme=slate] #{name}{{"
    drawing = drawing.replace("@media (prefers-color-scheme: dark){", dark, 1)
    return f'<div class="drawing">{drawing}</div>'


def _within(markdown: str) -> str:
    """Replace links to files outside of docs/ by links to their pages."""
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
    return markdown.replace("](../examples/", "](examples/").replace("](../CHANGELOG.md", "](changelog.md")


def _example(path: Path) -> str:
    """Return the page of an example: its docstring and its code."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    code = "\n".join(source.splitlines()[tree.body[0].end_lineno :]).strip()
    return f"# {path.name}\n\n{ast.get_docstring(tree)}\n\n```python\n{code}\n```\n"
