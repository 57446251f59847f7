"""Values of JSON and CSV files of others: the one place where they are checked.

A JSON value is asked for with its place ("training[3].image"), so that a wrong one is one line.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.data.opening import decoding
from common.errors import InputError

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Value:
    """A value of a JSON file, and its place there."""

    file: Path
    content: Any
    place: str = ""

    def wrong(self, expected: str) -> InputError:
        """The error that says what was found here, and what was expected."""
        found = ascii(self.content)
        found = found if len(found) <= 100 else f"{found[:97]}..."
        return InputError(f"{self.file}: {self.place or 'the file'} is {found}; expected "
                          f"{expected}; correct it")

    def get(self, key: str) -> "Value | None":
        """The value of a key of this object; None without it, or if it is null."""
        content = self.mapping().get(key)
        return None if content is None else Value(self.file, content,
                                                  f"{self.place}.{key}".lstrip("."))

    def mapping(self, expected: str = "an object") -> dict[str, Any]:
        """This as an object."""
        if not isinstance(self.content, dict):
            raise self.wrong(expected)
        return self.content

    def items(self, expected: str = "a list") -> list["Value"]:
        """The entries of this list."""
        if not isinstance(self.content, list):
            raise self.wrong(expected)
        return [Value(self.file, one, f"{self.place}[{number}]")
                for number, one in enumerate(self.content)]

    def text(self, expected: str = "a text") -> str:
        """This as a text that is not empty and has no control characters."""
        if not isinstance(self.content, str) or not self.content.strip() or any(
                ord(letter) < 32 for letter in self.content):
            raise self.wrong(expected)
        return self.content

    def numbered(self, expected: str) -> list[str]:
        """Names by number, from 0: {"0": "a"}, {"a": 0}, ["a"] or "a" alone."""
        content = self.content
        if isinstance(content, str):
            content = [content]
        if isinstance(content, list):
            content = {str(number): name for number, name in enumerate(content)}
        if not isinstance(content, dict) or not content:
            raise self.wrong(expected)
        found: dict[int, str] = {}
        for key, value in content.items():
            number, name = (value, key) if type(value) is int else (key, value)
            if not (str(number).isascii() and str(number).isdecimal() and len(str(number)) < 9
                    and isinstance(name, str) and name.strip()) or int(number) in found:
                raise Value(self.file, {key: value}, self.place).wrong(expected)
            found[int(number)] = name
        if sorted(found) != list(range(len(found))):
            raise InputError(f"{self.file}: {self.place} has the numbers {sorted(found)[:20]}; "
                             f"expected {expected}, none left out")
        return [found[number] for number in range(len(found))]


class Row(NamedTuple):
    """A row of a CSV: the line it ends on, and its fields by column."""

    line: int
    fields: dict[str, str]


def read_table(file: Path, columns: Sequence[tuple[str, str]]) -> list[Row]:
    """The rows of a CSV that has ``columns``, each given with the flag that names another.

    Commas, semicolons, tabs or bars; UTF-8 or UTF-16, a byte-order mark, quotes, any line ends.
    InputError for a column that is missing or there twice, a row with more fields than the header,
    and quotes that swallow rows.
    """
    with decoding(file, "CSV"):
        text = _decoded(file.read_bytes(), file)
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
        separator, text = first.strip()[4], rest  # Excel's own line
    else:
        separator = _separator(text.lstrip().partition("\n")[0].partition("\r")[0],
                               [column for column, _ in columns])
    rows = _rows(file, text, separator)
    try:
        header = [name.strip() for name in next(rows)[1]]
    except StopIteration:
        header = []
    for wanted, flag in columns:
        if header.count(wanted) != 1:
            found = f"{header.count(wanted)} columns {wanted}" if wanted in header else (
                f"no column {wanted}, found {', '.join(header) or 'nothing'}")
            raise InputError(f"{file}: {found}; " + ("leave one of them" if wanted in header else
                                                     f"name it with {flag}"))
    return [_row(file, line, fields, header) for line, fields in rows if any(fields)]


def _decoded(content: bytes, file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark."""
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not a CSV in UTF-8 ({error}); export it again") from None


def _separator(header: str, columns: Sequence[str]) -> str:
    """The separator that makes most of the wanted columns, then the most columns, of a header."""
    def made(separator: str) -> tuple[int, int]:
        names = [name.strip().strip('"') for name in header.split(separator)]
        return len(set(columns) & set(names)), len(names)
    return max(SEPARATORS, key=made)  # the first of equal ones: the comma


def _rows(file: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line, fields without blanks around them); the header is the first."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    width = 0
    try:
        for fields in reader:
            width = width or len(fields)
            for field in fields:
                inside = field.splitlines()[1:]
                if any(line.count(separator) >= max(1, width - 1) for line in inside):
                    raise InputError(f"{file}: the quotes of the row that ends on line "
                                     f"{reader.line_num} hold {len(inside)} other rows; remove the "
                                     "stray quote, or write it twice")
            yield reader.line_num, [field.strip() for field in fields]
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}; a quote that is not closed, or "
                         "in the middle of a field, has to be removed or written twice") from None


def _row(file: Path, line: int, fields: list[str], header: list[str]) -> Row:
    """A row by column; InputError for fields that no column has."""
    if any(fields[len(header):]):
        raise InputError(f"{file}, line {line}: {len(fields)} fields, but the header has "
                         f"{len(header)}; put quotes around a field with a separator in it (a "
                         "decimal comma?)")
    return Row(line, dict(zip(header, fields, strict=False)))
