"""A report as one page of HTML that needs nothing from outside.

Must not know: what is told, or drawn.
"""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

from batchify._cli.wording import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchify._cli.wording import Part

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 1rem }
body { color: #222; background: #fff }
h1 { font-size: 1.4rem; overflow-wrap: anywhere }
p { overflow-wrap: anywhere }
div { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: 1rem 0 }
caption { text-align: left; font-weight: bold }
th, td { text-align: right; padding: .2rem .5rem; white-space: nowrap; border-bottom: 1px solid #ddd }
img { max-width: 100%; height: auto }
"""


def page(title: str, parts: Iterable[Part], picture: bytes) -> str:
    """Return a page.

    Args:
        title: its heading.
        parts: sentences and tables, in order.
        picture: a PNG, which stands below them.
    """
    body = "\n".join(_table(part) if isinstance(part, Table) else f"<p>{escape(part)}</p>" for part in parts)
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    alt = "Two charts: the time of an item by batch size, and latency by calls a second; the tables have the figures."
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'{body}\n<img alt="{alt}" src="{source}">\n</body>\n</html>\n'
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.heads)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<div><table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
