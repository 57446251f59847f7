"""A matplotlib figure as SVG that may stand in a page beside others, with spots that say values."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "page",  # letters stay letters; same ids
              "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"]}
NO_NOTES = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # of the day and the version


@dataclass(frozen=True)
class Spot:
    """An invisible rectangle over a figure, in its points from the top left, and what it says."""

    x: float
    y: float
    width: float
    height: float
    words: str


def drawn(figure: Figure, spots: Sequence[Spot], *, name: str, alt: str) -> str:
    """Draw a figure as an ``<svg>`` element and forget it.

    ``name`` begins its ids, which have to differ within a page; ``alt`` says what it shows. Each
    spot has a ``<title>``, which browsers show without any script.
    """
    out = io.StringIO()
    with plt.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata=NO_NOTES)
    plt.close(figure)
    root = ElementTree.fromstring(out.getvalue())
    _plain(root)
    _own_ids(root, name)
    for number in ("width", "height", "version"):
        root.attrib.pop(number, None)  # as wide as the page lets it be
    root.attrib |= {"role": "group", "aria-label": alt}
    group = ElementTree.SubElement(root, "g", {"class": "spots"})
    for spot in spots:
        place = {key: f"{getattr(spot, key):.1f}" for key in ("x", "y", "width", "height")}
        rectangle = ElementTree.SubElement(group, "rect", place)
        ElementTree.SubElement(rectangle, "title").text = spot.words
    return ElementTree.tostring(root, encoding="unicode")


def _plain(root: ElementTree.Element) -> None:
    """Leave out name spaces, the style of all elements (the page has it) and line breaks."""
    for parent in root.iter():
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {key.rpartition("}")[2]: " ".join(value.split())
                         for key, value in parent.attrib.items()}
        parent.tail = None
        if not (parent.text or "").strip():
            parent.text = None
        for child in [one for one in parent if one.tag.endswith("style")]:
            parent.remove(child)


def _own_ids(root: ElementTree.Element, name: str) -> None:
    """Keep the ids that something refers to, and make them this figure's."""
    used = {value.removeprefix("url(").removesuffix(")").removeprefix("#")
            for one in root.iter() for key, value in one.attrib.items()
            if key in ("href", "clip-path")}
    for one in root.iter():
        if (own := one.attrib.pop("id", None)) in used:
            one.attrib["id"] = f"{name}-{own}"
        for key, before, after in (("href", "#", ""), ("clip-path", "url(#", ")")):
            if key in one.attrib:
                value = one.attrib[key].removeprefix(before).removesuffix(after)
                one.attrib[key] = f"{before}{name}-{value}{after}"
