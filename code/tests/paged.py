"""A page taken apart: its elements, tables and spots, by the parser of the standard library."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


@dataclass
class Node:
    """An element with what is in it."""

    tag: str
    attributes: dict[str, str]
    parts: list["Node | str"] = field(default_factory=list)

    def every(self, tag: str = "") -> Iterator["Node"]:
        """It and all elements below it, or those of a tag."""
        if tag in ("", self.tag):
            yield self
        for part in self.parts:
            if isinstance(part, Node):
                yield from part.every(tag)

    @property
    def text(self) -> str:
        """All that is written in it, spaces plain."""
        return "".join(part if isinstance(part, str) else part.text
                       for part in self.parts).replace("\N{NO-BREAK SPACE}", " ")

    def of(self, kind: str) -> list["Node"]:
        """The elements below it of a class."""
        return [one for one in self.every() if kind in one.attributes.get("class", "").split()]


class _Parser(HTMLParser):
    """Fails where an end has no start, or a start no end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}>: an attribute twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> ends what is not open"

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def parsed(page: str) -> Node:
    """The elements of a page; fails unless it is well-formed and its ids differ."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    [root] = parser.open
    ids = [one.attributes["id"] for one in root.every() if "id" in one.attributes]
    assert len(set(ids)) == len(ids), "an id twice"
    return root


def rows(root: Node) -> list[list[str]]:
    """The cells of every row of every table."""
    return [[cell.text for cell in row.every() if cell.tag in ("th", "td")]
            for row in root.every("tr")]


def spots(panel: Node) -> list[tuple[float, float, str]]:
    """Middle of every spot of a panel, and what it says."""
    return [(float(one.attributes["x"]) + float(one.attributes["width"]) / 2,
             float(one.attributes["y"]) + float(one.attributes["height"]) / 2,
             next(one.every("title")).text)
            for group in panel.of("spots") for one in group.every("rect")]
