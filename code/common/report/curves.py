"""The finished runs of a data set as data-efficiency curves; what is missing; what must not mix."""

from collections import defaultdict
from dataclasses import dataclass, replace

from common.arms import BASELINE, is_control
from common.errors import InputError
from common.files import Json, differences
from common.report import savings, stats
from common.report.stats import Arm, Estimate, Measure
from common.runs.records import Records

SOLVED = 0.9       # of the way from chance to a perfect score, where a pretext task is solved
SOLVED_EPOCHS = 5  # whose mean has to be there
NETWORKS = {"LEVELS": "3D U-Net (levels: {LEVELS}, filters: {FILTERS}), {RESOLUTION}³",
            "BLOCKS": "DenseNet {BLOCKS}, {RESOLUTION}²"}  # setting that tells it -> its words
# What a run's identity has for itself; the rest is the same in all runs of a data set.
OWN = ("stage", "task", "fraction", "seed", "labelled", "encoder", "weights", "own", "decoder",
       "shuffled")


@dataclass(frozen=True)
class Point:
    """One arm at one labelled fraction."""

    task: str
    fraction: int
    labelled: int                     # labelled training cases
    means: dict[str, Estimate]        # by measure name
    last: float                       # headline of the final weights, mean over seeds
    difference: Estimate | None       # of the headline, to the baseline; None for the baseline
    adjusted: float | None = None     # p by Holm, over the arms of the fraction
    interval: tuple[float, float] | None = None  # of the difference, by Bonferroni over these


@dataclass(frozen=True)
class Curves:
    """All that graph.py shows of a data set."""

    dataset: str
    runs: list[Json]
    pretraining: list[Json]
    measures: list[Measure]           # headline first
    points: list[Point]
    missing: list[str]
    reached: dict[str, savings.Reached]  # by arm: as good as the baseline on all labels
    solved: list[dict[str, int | None]]  # of each pretraining run: score -> epoch

    @property
    def tasks(self) -> list[str]:
        """Arms: baseline first, then in the order of their names, controls last."""
        return sorted({point.task for point in self.points}, key=order)

    @property
    def fractions(self) -> list[int]:
        """Labelled fractions in percent."""
        return sorted({point.fraction for point in self.points})

    @property
    def seeds(self) -> list[int]:
        """All seeds that any arm has."""
        return sorted({run["seed"] for run in self.runs})

    @property
    def generated(self) -> bool:
        """Whether the data are phantoms."""
        return bool(self.runs[0]["generated"])

    @property
    def metric(self) -> str:
        """The headline's name without its details."""
        return self.measures[0].label.partition(",")[0]

    @property
    def network(self) -> str:
        """Network and size of the images, as far as the records hold them."""
        settings = self.runs[0]["identity"].get("settings", {})
        return next((words.format(**settings) for key, words in NETWORKS.items()
                     if key in settings), "")

    def smallest_gain(self, fraction: int) -> tuple[float, float] | None:
        """Half the adjusted interval of the arm with the narrowest, and of that with the widest.

        A gain has to be larger to be told from none. Controls are left out; None without intervals.
        """
        halves = [(point.interval[1] - point.interval[0]) / 2 for point in self.points
                  if point.fraction == fraction and point.interval and not is_control(point.task)]
        return (min(halves), max(halves)) if halves else None

    def of_task(self, task: str) -> list[Point]:
        """The points of one arm, by fraction."""
        return [point for point in self.points if point.task == task]


def order(task: str) -> tuple[bool, bool, str]:
    """The place of an arm in tables and figures."""
    return task != BASELINE, is_control(task), task


def of(records: Records, measures: list[Measure]) -> Curves:
    """The curves of a data set; InputError if it has none or if its runs must not be mixed."""
    runs = records.finetune
    if not runs:
        raise InputError(f"{records.folder}: no finished finetuning runs; run exp.py first, or "
                         "name another folder with --results or --records")
    if odd := unlike(runs):
        raise InputError(f"{records.folder}: {odd}; move old runs away, or keep them apart with "
                         "--results")
    arms: dict[tuple[str, int], dict[int, Json]] = defaultdict(dict)
    for run in runs:
        arms[run["task"], run["fraction"]][run["seed"]] = run
    points = [_point(task, fraction, arms, measures) for task, fraction in
              sorted(arms, key=lambda one: (order(one[0]), one[1]))]
    return Curves(records.dataset, runs, records.pretrain, measures, _adjusted(points),
                  _missing(arms), _reached(arms, measures[0]), [*map(_solved, records.pretrain)])


def _solved(run: Json) -> dict[str, int | None]:
    """The epoch at which each score of a pretraining run is solved; none if it never is.

    Scores without validations on record are left out.
    """
    found: dict[str, int | None] = {}
    for name, chance in run["chance"].items():
        values = [value for _, value in run["validations"].get(name, [])]  # one an epoch
        enough = SOLVED_EPOCHS * (chance + SOLVED * (1 - chance)) - 1e-9
        if values:
            found[name] = next((epoch for epoch in range(SOLVED_EPOCHS, len(values) + 1) if
                                sum(values[epoch - SOLVED_EPOCHS:epoch]) >= enough), None)
    return found


def _reached(arms: dict[tuple[str, int], dict[int, Json]],
             measure: Measure) -> dict[str, savings.Reached]:
    """Where each arm reaches the baseline's score on all labels, if that was measured."""
    cases = {key: {seed: run["cases"] for seed, run in runs.items()} for key, runs in arms.items()}
    target = cases.get((BASELINE, 100))
    if target is None:
        return {}
    found = {task: savings.reached(measure, {fraction: arm for (name, fraction), arm
                                            in cases.items() if name == task}, target)
             for task in sorted({task for task, _ in arms}, key=order)}
    return {task: one for task, one in found.items() if one is not None}


def _point(task: str, fraction: int, arms: dict[tuple[str, int], dict[int, Json]],
           measures: list[Measure]) -> Point:
    runs = arms[task, fraction]
    arm: Arm = {seed: run["cases"] for seed, run in runs.items()}
    base: Arm = {seed: run["cases"] for seed, run in arms.get((BASELINE, fraction), {}).items()}
    head = measures[0]
    last = [run["last"]["test"][head.name] or 0.0 for run in runs.values()]
    return Point(task, fraction, next(iter(runs.values()))["labelled"],
                 {measure.name: stats.mean(measure, arm) for measure in measures},
                 sum(last) / len(last),
                 stats.difference(head, arm, base) if task != BASELINE and base else None)


def _adjusted(points: list[Point]) -> list[Point]:
    """Add p-values and intervals adjusted for the arms of a fraction, trained yet or not."""
    arms = len({point.task for point in points} - {BASELINE})
    result = []
    for fraction in sorted({point.fraction for point in points}):
        family = [point for point in points if point.fraction == fraction]
        found = [point.difference for point in family]
        values = stats.holm([one.p if one else None for one in found], arms)
        result += [replace(point, adjusted=p, interval=one.adjusted(arms) if one else None)
                   for point, one, p in zip(family, found, values, strict=True)]
    return result


def _missing(arms: dict[tuple[str, int], dict[int, Json]]) -> list[str]:
    """Runs that some other arm, fraction or seed suggests should be there."""
    tasks, fractions = {task for task, _ in arms}, {fraction for _, fraction in arms}
    seeds = {seed for runs in arms.values() for seed in runs}
    lines = []
    for task in sorted(tasks, key=order):
        for fraction in sorted(fractions):
            absent = sorted(seeds - arms.get((task, fraction), {}).keys())
            if absent:
                word = "seed" if len(absent) == 1 else "seeds"
                lines.append(f"{task} at {fraction} %: {word} {', '.join(map(str, absent))}")
    return lines


def unlike(runs: list[Json]) -> str | None:
    """The first run made with other settings, data, splits or code than the rest, in words."""
    first = runs[0]
    encoders: dict[tuple[str, ...], Json] = {}  # pretext tasks and the oracle have other settings
    for run in runs:
        changed = differences(_common(first["identity"]), _common(run["identity"]))
        encoder = run["identity"].get("encoder") or {}
        if encoder.get("stage") == "pretrain":  # not one from elsewhere
            reference = encoders.setdefault(tuple(sorted({*encoder} - {*OWN})), encoder)
            changed += differences(_common(reference), _common(encoder))
        if changed:
            return (f"{run['task']} at {run['fraction']} % seed {run['seed']} was made with other "
                    f"settings than {first['task']} at {first['fraction']} % "
                    f"({'; '.join(changed[:3])})")
    return None


def _common(identity: Json) -> Json:
    """The part of an identity that all runs of a data set share."""
    return {key: value for key, value in identity.items() if key not in OWN}
