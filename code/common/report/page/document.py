"""A study on one page, results/<dataset>.html: the answer, the figures, the tables, where from.

One file that opens without a network and holds nothing of elsewhere: styles, script, figures and
pictures are in it. The same records give the same bytes. A tenth of a second or two a
panel, of which there is one an arm and one a fraction.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from common.files import write_text
from common.report import tables
from common.report.curves import Curves
from common.report.page import answer, markup, panels, provenance
from common.report.section import Section

HERE = Path(__file__).parent
MOST_BYTES = 600_000  # of a page: small enough for a mail. Pictures that do not fit are named
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
QUESTION = ("Is a network that was pretrained on unlabelled images better, when few images are "
            "labelled, than the same network trained from scratch? Each arm is one such "
            "pretraining; the baseline starts from random weights.")
ALONG = ("Left to right: more labels. Thin black: the baseline; thick: an arm's mean over seeds, "
         "dots: single seeds. A mean within the grey band cannot be told from the baseline's. "
         "Point at a mark for its numbers.")
APART = ("Right of the line: better than the baseline. Thick: the 95 % interval that a claim rests "
         "on; thin and dots: the one that is not adjusted, and single seeds. A mean within the "
         "grey of its row cannot be told from zero.")
UNTIL = ("The labelled share at which an arm is as good as the baseline on all labels, with its "
         "95 % interval; line and grey: the baseline itself. An arm further left saves labels "
         "only if its interval ends before the grey begins.")
PICTURES = {  # kind -> heading, what it shows
    "examples": ("Test cases", "Images of the test set with what the networks made of them. This "
                 "page holds images: look whose they are before you hand it on."),
    "views": ("What the pretext tasks show", "What each pretext task shows the network, and asks. "
              "Images too: look whose they are before you hand the page on."),
    "learning": ("Has the baseline converged?", "Validation score against optimiser step."),
    "exchange": ("Labels to a score", "Labelled cases that reach a score, and those saved there."),
}
NOTICE = "Research code; not for clinical use."


def write(path: Path, curves: Curves, *, axis: str, pictures: Sequence[Path] = ()) -> None:
    """Write the page of a study; ``axis`` names score and grid, ``pictures`` are PNG files.

    Those that would make it larger than MOST_BYTES are named instead of shown.
    """
    write_text(path, page(curves, axis=axis, pictures=pictures))


def page(curves: Curves, *, axis: str, pictures: Sequence[Path] = ()) -> str:
    """The whole page, in UTF-8."""
    paths = {path.name.partition("_")[0]: path for path in pictures}  # views of views_<dataset>.png
    marks = {kind: f"<!--{kind}-->" for kind in PICTURES if kind in paths}
    text = _whole(curves, axis, marks)
    for kind, mark in marks.items():  # the most telling first
        block = markup.picture(paths[kind], ": ".join(PICTURES[kind]), PICTURES[kind][1])
        if len((text + block).encode()) > MOST_BYTES:
            block = markup.paragraphs([f"{paths[kind].name} is too large for this page; it lies "
                                       "beside it."])
        text = text.replace(mark, block)
    return text


def _whole(curves: Curves, axis: str, blocks: dict[str, str]) -> str:
    """Head and body; ``blocks`` stand for the pictures that there are, by kind."""
    parts = {part.title: part for part in tables.sections(curves)}
    body = [_top(curves), _curves(curves, axis), _differences(curves, parts), _saved(
        curves, parts, blocks), _learnt(parts, blocks), _pictures(blocks), _tables(parts),
        _made(curves), _cite(curves)]
    script, style = ((HERE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{markup.text(tables.title(curves))}</title>
<style>
{style}</style>
</head>
<body>
<main>
{"".join(part + chr(10) for part in body if part)}<footer>
{markup.paragraphs([f"Drawn by graph.py from the records of the runs. {NOTICE}"], "small")}
</footer>
</main>
<div id="tip" hidden></div>
<script>
{script}</script>
</body>
</html>
"""


def _top(curves: Curves) -> str:
    """What was asked, of whom, and the answer."""
    tiles = "\n".join(
        f'<section class="tile {tile.tone}"><h2>{markup.text(tile.question)}</h2>\n'
        f'{markup.paragraphs([tile.answer], "answer")}\n{markup.paragraphs(tile.lines)}</section>'
        for tile in answer.tiles(curves))
    words = "\n".join(f"<dt>{markup.text(word)}</dt><dd>{markup.text(meaning)}</dd>"
                      for word, meaning in answer.words(curves).items())
    return "\n".join([
        f"<header><h1>{markup.text(curves.dataset)}</h1>",
        *([markup.paragraphs([answer.GENERATED], "warn")] if curves.generated else []),
        markup.paragraphs([QUESTION, " ".join(answer.arms(curves))]),
        markup.paragraphs([tables.opening(curves)], "small"), "</header>",
        f'<div class="tiles">\n{tiles}\n</div>', markup.paragraphs(answer.rest(curves)),
        markup.folded("What arm, baseline, control, interval and the names of tasks mean",
                      f"<dl>\n{words}\n</dl>")])


def _curves(curves: Curves, axis: str) -> str:
    """The data-efficiency curves."""
    hidden = panels.left_out(curves)
    more = f" {hidden} more arms: see train_{curves.dataset}.png." if hidden else ""
    return _figures("Score against labels", panels.curve_panels(curves),
                    f"{' '.join(axis.split())}, against the labelled share in percent (number of "
                    f"cases), logarithmic. {ALONG}{more}")


def _differences(curves: Curves, parts: dict[str, Section]) -> str:
    """Each arm less the baseline, with the table that says it in numbers."""
    return _figures("Difference to the baseline", panels.difference_panels(curves),
                    f"Difference in {curves.metric}, paired by seed and test case. {APART}",
                    markup.section(parts["At a glance"]))


def _saved(curves: Curves, parts: dict[str, Section], blocks: dict[str, str]) -> str:
    """Labels saved, and at what exchange rate."""
    names = ("Labels saved", "Labels worth", "Exchange rates", "Shares of the pool")
    there = [parts[name] for name in names if name in parts]
    return _figures("Labels saved", panels.reached_panels(curves), UNTIL,
                    *(markup.section(part, headed=part.title != "Labels saved") for part in there),
                    _block("exchange", blocks)) if there else ""


def _learnt(parts: dict[str, Section], blocks: dict[str, str]) -> str:
    """What the pretext tasks have reached, and whether finetuning went on long enough."""
    there = [markup.section(parts["Pretext tasks"], headed=False)] if (
        "Pretext tasks" in parts) else []
    inside = [*there, _block("learning", blocks), _block("views", blocks)]
    return "\n".join([_heading("Learnt or not"), *filter(None, inside)]) if any(inside) else ""


def _pictures(blocks: dict[str, str]) -> str:
    """Test cases."""
    return f"{_heading('Examples')}\n{blocks['examples']}" if blocks.get("examples") else ""


def _tables(parts: dict[str, Section]) -> str:
    """All that stands in no table above; what is missing is open to see."""
    above = ("At a glance", "Labels saved", "Labels worth", "Exchange rates", "Shares of the pool",
             "Pretext tasks", "Missing")
    rest = [part for title, part in parts.items() if title not in above]
    missing = [markup.section(parts["Missing"])] if "Missing" in parts else []
    return "\n".join([_heading("All numbers"), *missing, markup.folded(
        "Scores of every measure, and every comparison", *map(markup.section, rest))])


def _made(curves: Curves) -> str:
    """Settings and provenance."""
    return "\n".join([_heading("Settings and provenance"), *(
        markup.folded(part.title, markup.section(part, headed=False))
        for part in provenance.sections(curves))])


def _cite(curves: Curves) -> str:
    """Whom to cite."""
    return "\n".join([
        _heading("How to cite"),
        "<p>The methods: Taleb et al. 2020, "
        '<a href="https://arxiv.org/abs/2006.03829">3D Self-Supervised Methods for Medical '
        "Imaging</a>, NeurIPS 33; the numbers: this repository at its commit; and whoever made "
        "the data set.</p>",
        *(f"<pre>{markup.text(entry)}</pre>" for entry in provenance.citation(curves))])


def _figures(title: str, drawn: Sequence[str], caption: str, *below: str) -> str:
    """A heading, panels with their caption, and what stands below."""
    figure = "\n".join(f'<div class="panel">{one}</div>' for one in drawn)
    return "\n".join([_heading(title), *([
        f'<figure><div class="panels">\n{figure}\n</div>\n'
        f"<figcaption>{markup.text(caption)}</figcaption></figure>"] if drawn else []),
        *filter(None, below)])


def _block(kind: str, blocks: dict[str, str]) -> str:
    """A picture, folded."""
    return markup.folded(PICTURES[kind][0], blocks[kind]) if blocks.get(kind) else ""


def _heading(title: str) -> str:
    """A heading to which an address may point."""
    name = re.sub(r"[^a-z]+", "-", title.lower())
    return f'<h2 id="{name}">{markup.text(title)}</h2>'
