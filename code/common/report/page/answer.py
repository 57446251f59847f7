"""The answer of a study for who has a minute: four questions, a word to each, then the reading.

The words follow from the conditions under which reading.py words its sentences; the sentences are
its own, each once.
"""

from dataclasses import dataclass

from common.arms import BASELINE, is_control, parts
from common.report import claims, reading
from common.report.curves import SOLVED, Curves
from common.report.section import every

YES, NO, OPEN = "yes", "no", "open"  # tones, which are colours; the word says it too
GENERATED = "Generated data: this page says nothing about patients."
WORDS = {
    "arm": "a way to start the network, named after the pretext task with which its encoder was "
           "pretrained without labels",
    "baseline": "the arm that starts from random weights, trained with the same steps on the same "
                "labels; every other arm is compared with it",
    "control": "an arm that checks the study. The oracle starts from weights that have seen all "
               "labels: a gain has to show here. In a shuffled start all that was learnt is "
               "destroyed: none should",
    "labelled share": "percent of the training cases whose labels are used, in brackets how many; "
                      "the test cases are never among them",
    "seed": "a repetition with its own labelled cases, start and test fold",
    "interval": "95 %; a gain is shown where the interval of a difference leaves out zero",
    "saves labels": "is as good as the baseline on all labels, with fewer, and earlier than the "
                    "baseline itself; or gains, with labels that are worth more than as many of "
                    "the baseline",
}
NAMES = {  # of tasks whose name does not say what they ask
    "rotation": "by how much an image was turned",
    "jigsaw": "in which order its patches were put",
    "rpl": "relative patch location: where a patch lies beside another",
    "exemplar": "which of the images is another view of the same",
    "cpc": "contrastive predictive coding: which patch comes next",
    "mae": "masked autoencoding: what hidden parts of an image are",
    "genesis": "Models Genesis: what an image was before it was spoilt",
    "volumefusion": "how much of each of two images a voxel is made of",
    "simclr": "which of the crops is of the same image",
    "vicreg": "codes of two crops of an image that agree and do not collapse",
    "meanteacher": "no pretraining: agrees with an average of its own weights on unlabelled images",
    "fixmatch": "no pretraining: agrees with its own sure answers on unlabelled images",
    "imagenet": "weights that were trained on photographs",
}


@dataclass(frozen=True)
class Tile:
    """A question, its answer in a word or two, and the sentences of the reading behind it."""

    question: str
    answer: str
    tone: str
    lines: list[str]


def tiles(curves: Curves) -> list[Tile]:
    """The questions that a reader comes with, in the order in which they matter."""
    said = reading.by_topic(curves)
    if "none" in said:
        return [Tile("Was a gain shown?", "Nothing can be claimed", OPEN, said["none"]),
                *_learnt(curves, said.get("learnt", []))]
    return [_gain(curves, said), _could(curves, said), _saved(curves, said),
            *_learnt(curves, said["learnt"])]


def rest(curves: Curves) -> list[str]:
    """What the reading says besides: of the baseline first, and whether the last weights agree."""
    said = reading.by_topic(curves)
    return [line for topic in ("baseline", "seeds", "last") for line in said.get(topic, [])]


def arms(curves: Curves) -> list[str]:
    """Who is compared with whom, a sentence each."""
    others = [task for task in curves.tasks if task != BASELINE]
    compared = [task for task in others if not is_control(task)]
    controls = [task for task in others if is_control(task)]
    return [f"{name}: {', '.join(tasks)}." for name, tasks in
            (("Compared with the baseline", compared), ("Controls", controls)) if tasks]


def words(curves: Curves) -> dict[str, str]:
    """What the words of a page mean, those of its tasks behind them."""
    used = dict.fromkeys(part for task in curves.tasks for part in parts(task))
    return WORDS | {task: NAMES[task] for task in used if task in NAMES}


def _gain(curves: Curves, said: dict[str, list[str]]) -> Tile:
    """Whether any arm lies above the baseline, and whether that is the task's doing."""
    verdicts = {claims.verdict(point) for point in curves.points if not is_control(point.task)}
    doubtful = [point for point, _, less in claims.starts(curves)
                if less.interval and less.interval[0] <= 0]
    if any(point.primary and claims.verdict(point) == "above" for point in curves.points):
        doubtful = [point for point in doubtful if point.primary]  # what the study was made for
    answer, tone = (
        ("Doubtful", OPEN) if "above" in verdicts and doubtful else
        ("Yes", YES) if "above" in verdicts else
        ("No; a loss was", NO) if "below" in verdicts else ("None shown", NO))
    return Tile("Was a gain shown?", answer, tone, [
        *said["primary"], *said["starts"], *said["gain"], *said["shuffled"]])


def _could(curves: Curves, said: dict[str, list[str]]) -> Tile:
    """Whether a gain would have been seen: the oracle, and the spread."""
    points = [point for point in curves.points if point.difference is not None]
    oracles = [point for point in reading.oracles_of(points, curves) if point.interval]
    answer, tone = (
        ("Not known", OPEN) if not oracles else
        ("Yes", YES) if any(claims.verdict(point) == "above" for point in oracles) else
        ("No", NO))
    return Tile("Could this study show one?", answer, tone,
                [*said["oracle"], *said["kept"], *said["could"], *said["planned"]])


def _saved(curves: Curves, said: dict[str, list[str]]) -> Tile:
    """Whether labels are saved, and what they are worth."""
    arms, lines = reading.savers(curves), [
        *said["worth"], *said["saved"], *said["exchange"], *said["pools"]]
    fewer = curves.exchange is not None and curves.exchange.bounded and any(
        one.saved and one.fewer for one in curves.exchange.rates.values())
    if arms or fewer or said["worth"]:
        at = dict.fromkeys(f"{point.fraction} %" for point, _ in reading.worth(curves))
        where = "" if arms or fewer else f", at {every([*at])}"
        return Tile("Were labels saved?", f"Yes{where}", YES, lines)
    if arms is None and not said["exchange"]:
        return Tile("Were labels saved?", "Not known", OPEN,
                    lines or ["That takes a baseline on all labels whose score rises with them, "
                              "and intervals."])
    return Tile("Were labels saved?", "None shown", NO, lines)


def _learnt(curves: Curves, lines: list[str]) -> list[Tile]:
    """Whether the encoders learnt their pretext tasks; no tile where a guess is not known."""
    if not any(run["chance"] for run in curves.pretraining):
        return []
    question = "Were the pretext tasks learnt?"
    shares = [(value - chance) / (1 - chance) for _, _, value, chance in curves.learnt]
    values = [f"{task}: {name} {value:.3f}, where a guess has {chance:.3f}: {100 * share:.0f} % of "
              "the way to a perfect score." for (task, name, value, chance), share in zip(
                  curves.learnt, shares, strict=True)]
    solved = min(shares, default=0) >= SOLVED
    answer, tone = (("Not all", NO) if lines else ("Solved", YES) if solved else ("In part", YES))
    return [Tile(question, answer, tone, [*lines, *values])]
