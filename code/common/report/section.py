"""A part of a report: what the Markdown tables and the page are both made of; lists in words."""

from dataclasses import dataclass, field

MOST = 3  # items listed in one sentence


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it: words, a table, a list. Text is plain, not escaped."""

    title: str
    words: str = ""
    head: list[str] = field(default_factory=list)        # of the table's columns; none: no table
    rows: list[list[str]] = field(default_factory=list)  # a text a column
    items: list[str] = field(default_factory=list)
    level: int = 2

    @property
    def markdown(self) -> list[str]:
        """Its paragraphs."""
        return [f"{'#' * self.level} {self.title}", *([self.words] if self.words else []),
                *([table(self.head, self.rows)] if self.head else []),
                *(["\n".join(f"- {item}" for item in self.items)] if self.items else [])]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def some(items: list[str]) -> str:
    """As "a and b", or MOST of them and how many more."""
    more = f" and {len(items) - MOST} more" if len(items) > MOST else ""
    return ", ".join(items[:MOST]) + more if more else every(items)


def every(items: list[str]) -> str:
    """As "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
