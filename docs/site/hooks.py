"""Files of the site from outside of docs/: examples, changelog, benchmark, Python for browsers, and ``llms.txt``.

Decides: which files become pages, the targets of links that leave docs/, and the format of ``llms.txt``.
Must not know: the content of any page.

Links in docs/ are links between files, so that they also work in the repository. On the site, a link to an example,
such as ``../examples/digits.py``, leads to its page. A paragraph that is only a link to a section of the
benchmark's README is replaced by that section, whose ratios are drawn as bars.
"""

from __future__ import annotations

import ast
import html
import io
import re
import shutil
import subprocess
import zipfile
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
FIGURES = re.compile(r"^\[\w+\]\((\.\./tests/bench/README\.md)#(?P<section>\w+)\)$", re.MULTILINE)
RATIO = re.compile(r"<td[^>]*>(?P<text>(?P<ratio>\d+\.\d\d) \([\d.-]+\))</td>")
DRAWING = re.compile(r'<img alt="[^"]*" src="(?P<name>[a-z]+)\.svg" ?/?>')
# The tests run on the same version: .ci/run.
PYODIDE = "pyodide@314.0.7"
PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")
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
    for path in _pyodide():
        files.append(File.generated(config, f"pyodide/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "pyodide/batchify.zip", content=_package()))


def _pyodide() -> list[Path]:
    """Return the files of Python for browsers, from npm; without npm, the playground says that they are missing."""
    npm, folder = shutil.which("npm"), ROOT / "build" / "npm"
    package = folder / "node_modules" / "pyodide"
    if npm and not package.exists():
        options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
        subprocess.run([npm, "install", *options, PYODIDE], check=True)  # noqa: S603  # all arguments are constants
    return [package / name for name in PYODIDE_FILES] if package.exists() else []


def _package() -> bytes:
    """Return an archive of the package, which the playground imports."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((ROOT / "batchify").rglob("*.py")):
            archive.write(path, path.relative_to(ROOT))
    return content.getvalue()


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Insert the tables of the benchmark, and adjust links that leave docs/."""
    markdown = FIGURES.sub(lambda link: _figures(link["section"]), markdown)
    markdown = re.sub(r"\]\(\.\./(tests/[^)]+)\)", rf"]({config.repo_url}/blob/main/\1)", markdown)
    return _within(markdown)


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


def _figures(section: str) -> str:
    """Return a section of the benchmark's README with a table for each contest, without limits, which tests need."""
    readme = (ROOT / "tests" / "bench" / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^### {section}\n(.*?)(?=^###? |<!--)", readme, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    if not found:
        msg = f"the benchmark has no section {section!r}, which a page includes"
        raise LookupError(msg)
    table, _, note = found[1].strip().partition("\n\n")
    head, line, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    if head[-1] != "limit":
        return table
    parts = []
    for contest, entrants in groupby(rows, lambda row: row[0]):
        lines = [row[1:-1] for row in (head, [*line[:1], ":---", *line[2:]], *entrants)]
        parts.append("\n".join([f"**{contest}**", "", *(f"| {' | '.join(cells)} |" for cells in lines)]))
    return "\n\n".join([*parts, note])


def on_page_content(content: str, /, **_: Any) -> str:
    """Draw ratios as bars, and insert drawings, which then have the colours of the scheme and can be scrolled."""
    content = RATIO.sub(r'<td class="ratio" style="--ratio: \g<ratio>">\g<text></td>', content)
    return DRAWING.sub(lambda image: _drawing(image["name"]), content)


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
    """Return the page of an example: its docstring and its code, which takes the place of the table of contents."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    code = "\n".join(source.splitlines()[tree.body[0].end_lineno :]).strip()
    return f"---\nhide: [toc]\n---\n\n# {path.name}\n\n{ast.get_docstring(tree)}\n\n```python\n{code}\n```\n"
