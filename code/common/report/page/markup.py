"""Pieces of HTML. What goes in as text is escaped here, and nowhere else."""

import base64
import html
from collections.abc import Iterable
from pathlib import Path

from common.report.section import Section


def text(words: str) -> str:
    """Escape words for the inside of an element or of a quoted attribute; % stays at its number."""
    return html.escape(words.replace(" %", "\N{NO-BREAK SPACE}%"), quote=True)


def paragraphs(lines: Iterable[str], kind: str = "") -> str:
    """A paragraph a line, of a class if there is one."""
    opened = f'<p class="{kind}">' if kind else "<p>"
    return "\n".join(f"{opened}{text(line)}</p>" for line in lines)


def items(lines: Iterable[str]) -> str:
    """A list."""
    return "<ul>\n" + "\n".join(f"<li>{text(line)}</li>" for line in lines) + "\n</ul>"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table that scrolls by itself where it is wider than the screen; the first column names."""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    body = "\n".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:]) + "</tr>" for row in rows)
    return (f'<div class="scroll"><table>\n<thead><tr>{top}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table></div>")


def section(part: Section, *, headed: bool = True) -> str:
    """A section of the tables: its heading, unless it stands above already, words, table, list."""
    level = part.level + 1
    return "\n".join([*([f"<h{level}>{text(part.title)}</h{level}>"] if headed else []),
                      *([paragraphs([part.words], "small")] if part.words else []),
                      *([table(part.head, part.rows)] if part.head else []),
                      *([items(part.items)] if part.items else [])])


def folded(title: str, *inside: str) -> str:
    """What is there for who looks for it: opened by a click, and for print."""
    return f"<details>\n<summary>{text(title)}</summary>\n" + "\n".join(inside) + "\n</details>"


def picture(path: Path, alt: str, caption: str) -> str:
    """A PNG within the page, with what it shows in words."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (f'<figure class="picture"><div class="scroll"><img alt="{text(alt)}" '
            f'src="data:image/png;base64,{data}"></div>\n'
            f"<figcaption>{text(caption)}</figcaption></figure>")
