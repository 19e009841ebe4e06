"""Pages of the site from outside of docs/: the examples, the changelog, and sections of the README; and ``llms.txt``.

Decides: which files become pages, the targets of links that leave docs/, and the format of ``llms.txt``.
Must not know: the content of any page.

Links in docs/ are links between files, so that they also work in the repository. On the site, a link to an example,
such as ``../examples/lookup.py``, leads to its page. A paragraph that is only a link to a section of the README is
replaced by that section.
"""

from __future__ import annotations

import ast
import html
import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import Environment
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SECTION = re.compile(r"^\[(?P<title>.+)\]\(\.\./README\.md#.+\)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Add the examples at the end of the navigation."""
    config.nav.append({"Examples": [{path.name: f"examples/{path.stem}.md"} for path in EXAMPLES]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Create the pages from outside of docs/, and copy the data files of examples."""
    files.append(File.generated(config, "changelog.md", content=_changelog()))
    for path in EXAMPLES:
        files.append(File.generated(config, f"examples/{path.stem}.md", content=_example(path)))
    for path in (ROOT / "examples").glob("*.json"):
        files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the sections of the README that a page includes, and adjust its links."""
    return _within(SECTION.sub(lambda link: _section(link["title"]), markdown))


def on_env(_: Environment, /, config: MkDocsConfig, files: Files) -> None:
    """Create ``llms.txt``, which lists the pages for language models: https://llmstxt.org."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    start = files.get_file_from_path("index.md").page
    for section, pages in groupby(_pages_from(start), lambda page: page.parent and page.parent.title):
        lines += ["", f"## {section or 'First steps'}", ""]
        lines += [f"- [{page.title}]({page.url}): {_first_paragraph(page)}" for page in pages]
    files.append(File.generated(config, "llms.txt", content="\n".join([*lines, ""])))


def _pages_from(page: Page | None) -> Iterator[Page]:
    """Yield a page and the pages after it, in the order of the navigation."""
    while page:
        yield page
        page = page.next_page


def _first_paragraph(page: Page) -> str:
    """Return the text of the first paragraph of a page, which says what the page is about."""
    paragraph = page.content.partition("<p>")[2].partition("</p>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", paragraph)).split())


def _changelog() -> str:
    """Return the changelog without the links between releases, which lead to other pages of the repository."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    text = re.sub(r"^\[.+\]: \.\./.*\n", "", text, flags=re.MULTILINE)
    return _within(re.sub(r"^## \[(.+)\]", r"## \1", text, flags=re.MULTILINE))


def _section(title: str) -> str:
    """Return the section of the README with this heading."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, found, after = readme.partition(f"\n## {title}\n")
    if not found:
        msg = f"the README has no section {title!r}, which a page includes"
        raise LookupError(msg)
    # Links in the README are relative to its folder, and links of a page to docs/.
    return after.partition("\n## ")[0].replace("](docs/", "](").replace("](examples/", "](../examples/").strip()


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
