"""The finished runs of a data set as data-efficiency curves; what is missing; what must not mix."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from common.arms import BASELINE, is_control, pretraining
from common.errors import InputError
from common.files import Json, differences
from common.report import missing
from common.runs.records import Records, cases_of, folds_of, of_share, share_of
from common.stats import estimates, family, power, savings, shares
from common.stats.estimates import Design, Estimate
from common.stats.exchange import Exchange, exchange
from common.stats.family import Family
from common.stats.measures import Arm, Measure

SOLVED = 0.9       # of the way from chance to a perfect score, where a pretext task is solved
SOLVED_EPOCHS = 5  # whose mean has to be there
NETWORKS = {"LEVELS": "3D U-Net (levels: {LEVELS}, filters: {FILTERS}), {RESOLUTION}³",
            "BLOCKS": "DenseNet {BLOCKS}, {RESOLUTION}²"}  # setting that tells it -> its words
# What a run's identity has for itself; the rest is the same in all runs of a data set.
OWN = ("stage", "task", "fraction", "seed", "fold", "draw", "labelled", "encoder", "weights", "own",
       "decoder", "shuffled", "pool", "rates", "unlabelled")
OF_FOLD = ("pool images",)  # the same in all pretrainings of a fold on a share of its pool

Grid = dict[tuple[str, int], dict[int, dict[int, Json]]]  # arm, fraction -> seed -> draw -> run


@dataclass(frozen=True)
class Point:
    """One arm at one labelled fraction."""

    task: str
    fraction: int
    labelled: tuple[int, ...]         # labelled training cases; folds may differ by one
    means: dict[str, Estimate]        # by measure name
    last: float                       # headline of the final weights, mean over seeds
    difference: Estimate | None       # of the headline, to the baseline; None for the baseline
    primary: bool = False             # whether this comparison was named before it was made

    @property
    def alone(self) -> bool:
        """Whether its interval is not adjusted: the primary comparison, and controls."""
        return self.primary or is_control(self.task)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the difference that a claim rests on."""
        if self.difference is None:
            return None
        return self.difference.interval if self.alone else self.difference.adjusted

    @property
    def p(self) -> float | None:
        """The p that a claim rests on."""
        if self.difference is None:
            return None
        return self.difference.p if self.alone else self.difference.adjusted_p

    @property
    def could_show(self) -> tuple[float, float] | None:
        """The gains that are shown in half of all repetitions, and with power.POWER."""
        if self.difference is None or self.difference.spread is None:
            return None
        return power.shown(self.difference.spread, 1 if self.alone else self.difference.arms)


@dataclass(frozen=True)
class Curves:
    """All that graph.py shows of a data set."""

    dataset: str
    runs: list[Json]
    pretraining: list[Json]
    measures: list[Measure]           # headline first
    points: list[Point]
    families: dict[int, Family]       # by fraction, of the headline
    lasts: dict[int, Family]          # the same of the final weights
    missing: list[str]
    reached: dict[str, savings.Reached]  # by arm: as good as the baseline on all labels
    solved: list[dict[str, int | None]]  # of each pretraining run: score -> epoch
    plan: Json = field(default_factory=dict)  # what was said before training (plan.json)
    exchange: Exchange | None = None
    pools: list[shares.Pool] = field(default_factory=list)  # arms on shares of their pool

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
    def folds(self) -> int:
        """The test folds that seeds rotate over; 1 for one fixed test set."""
        return folds_of(self.runs[0])

    @property
    def generated(self) -> bool:
        """Whether the data are phantoms."""
        return bool(self.runs[0]["generated"])

    @property
    def protocol(self) -> str:
        """The name of a protocol of finetuning that is not the default one."""
        return str(self.runs[0].get("protocol", ""))

    @property
    def rates(self) -> Json:
        """What --tune chose for each arm, where the runs have it; else {}."""
        found: Json = self.plan.get("rates", {})
        return found if "rates" in self.runs[0]["identity"] else {}

    @property
    def primary_fraction(self) -> int:
        """Percent at which the comparison that was named first is made; 0 without one."""
        return int((self.plan.get("primary") or {}).get("fraction", 0))

    @property
    def learnt(self) -> list[tuple[str, str, float, float]]:
        """Of each pretext task with a chance level: arm, score's name, mean score, chance."""
        found = []
        for task in dict.fromkeys(run["task"] for run in self.pretraining):
            runs = [run for run in self.pretraining if run["task"] == task]
            for name, chance in runs[0]["chance"].items():
                if values := [run["score"][name] for run in runs if name in run["score"]]:
                    found.append((task, name, sum(values) / len(values), chance))
        return found

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

    @cached_property
    def test_cases(self) -> int:
        """Different test cases."""
        return len({case for run in self.runs for case in run["cases"]})

    @cached_property
    def draws(self) -> dict[int, str]:
        """By fraction, the labelled subsets of a seed, as "4", or "1-4" where not all have all."""
        found = {}
        for fraction in self.fractions:
            count: dict[tuple[str, int], int] = defaultdict(int)
            for run in self.runs:
                count[run["task"], run["seed"]] += run["fraction"] == fraction
            numbers = sorted({number for number in count.values() if number})
            found[fraction] = "-".join(map(str, dict.fromkeys([numbers[0], numbers[-1]])))
        return found

    def could_show(self, fraction: int) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Gains shown in half of the repetitions, and with power.POWER; each least and most.

        Over the arms of the fraction, over controls if these are alone; None without intervals.
        """
        arms = [point for point in self.points if point.fraction == fraction and point.could_show]
        found = [one for point in [arm for arm in arms if not is_control(arm.task)] or arms
                 if (one := point.could_show)]
        half, most = [[one[index] for one in found] for index in (0, 1)]
        return ((min(half), max(half)), (min(most), max(most))) if found else None

    def of_task(self, task: str) -> list[Point]:
        """The points of one arm, by fraction."""
        return [point for point in self.points if point.task == task]

    def labelled(self, fraction: int) -> str:
        """The number of labelled cases of a fraction, as "9", or "9-10" where folds differ."""
        numbers = sorted({number for point in self.points if point.fraction == fraction
                          for number in point.labelled})
        return "-".join(map(str, dict.fromkeys([numbers[0], numbers[-1]])))


def order(task: str) -> tuple[bool, bool, str]:
    """The place of an arm in tables and figures."""
    return task != BASELINE, is_control(task), task


def of(records: Records, measures: list[Measure], *, target: float | None = None) -> Curves:
    """The curves of a data set; InputError if it has none or if its runs must not be mixed.

    Runs from a share of the pool are no points of the arms'. ``target``: the score that exchange
    rates are given at; None: the baseline's best.
    """
    runs = of_share(records.finetune)
    if not runs:
        raise InputError(f"{records.folder}: no finished finetuning runs; run exp.py first, or "
                         "name another folder with --results or --records")
    if odd := unlike(records.finetune):
        raise InputError(f"{records.folder}: {odd}; move old runs away, or keep them apart with "
                         "--results")
    grid: Grid = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        grid[run["task"], run["fraction"]][run["seed"]][run.get("draw", 0)] = run
    head, folds = measures[0], folds_of(runs[0])
    cases = cases_of(runs)
    families, lasts = _families(grid, cases, head, folds)
    primary = records.plan.get("primary") or {}
    points = [_point(grid, (task, fraction), measures, families.get(fraction),
                     primary=(task, fraction) == (primary.get("arm"), primary.get("fraction")))
              for task, fraction in sorted(grid, key=lambda one: (order(one[0]), one[1]))]
    controls = {task for task, _ in grid if is_control(task)}
    tried = (records.plan.get("rates") or {}).get("seeds", [])  # by --tune: none of the study's
    whole = [run for run in of_share(records.pretrain) if run["seed"] not in tried]
    labelled = {fraction: _mean([run["labelled"] for run in runs if run["fraction"] == fraction])
                for _, fraction in grid}
    rates = exchange(head, cases, BASELINE, labelled, folds=folds, controls=controls, target=target)
    return Curves(records.dataset, runs, whole, measures, points, families, lasts,
                  [*missing.runs(grid, order, primary.get("fraction", 0)),
                   *missing.cases(families)],
                  dict(sorted(savings.reached(head, cases, BASELINE, folds, controls).items(),
                              key=lambda one: order(one[0]))),
                  [*map(_solved, whole)], records.plan, rates,
                  _pools(records, head, cases, labelled, rates))


def _pools(records: Records, measure: Measure, cases: Mapping[tuple[str, int], Arm],
           labelled: Mapping[int, float], rates: Exchange | None) -> list[shares.Pool]:
    """Arms on shares of their pool, each at its fraction."""
    parts: dict[tuple[str, int], dict[int, Arm]] = defaultdict(dict)
    for share in sorted({*map(share_of, records.finetune)} - {shares.WHOLE}):
        for key, arm in cases_of(records.finetune, pool=share).items():
            parts[key][share] = arm
    images: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in records.pretrain:
        if "pool" in run:
            images[run["task"], share_of(run)].append(run["pool"])
    base = rates.rates.get(BASELINE) if rates else None
    found_pools = [shares.pool(
        measure, task, {name: arm for (name, at), arm in cases.items()
                        if at == fraction and not is_control(name)}, here,
        Design(folds_of(records.finetune[0]), fraction),
        images={share: _mean(numbers) for (name, share), numbers in images.items()
                if name == pretraining(task)}, baseline=BASELINE, base=base.fit if base else None,
        labelled=labelled.get(fraction, 0)) for (task, fraction), here in sorted(parts.items())]
    return [one for one in found_pools if one is not None]


def _families(grid: Grid, cases: Mapping[tuple[str, int], Arm], measure: Measure, folds: int
              ) -> tuple[dict[int, Family], dict[int, Family]]:
    """The arms of every fraction that has a baseline: of the chosen weights, and of the last."""
    families, lasts = {}, {}
    for fraction in sorted({fraction for _, fraction in grid}):
        here = {task: cases[task, at] for task, at in sorted(
            grid, key=lambda one: order(one[0])) if at == fraction}
        if BASELINE not in here:
            continue
        design, controls = Design(folds, fraction), [task for task in here if is_control(task)]
        draws = {seed: set.intersection(*(set(arm[seed]) for arm in here.values() if seed in arm))
                 for arm in here.values() for seed in arm}
        last = {task: {seed: _mean([runs[draw]["last"]["test"][measure.name] or 0.0
                                    for draw in draws[seed]])
                       for seed, runs in grid[task, fraction].items() if draws[seed]}
                for task in here}
        families[fraction] = family.compare(measure, here, BASELINE, design, controls=controls)
        lasts[fraction] = family.compare(measure, here, BASELINE, design, controls=controls,
                                         scores=last)
    return families, lasts


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


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


def _point(grid: Grid, key: tuple[str, int], measures: list[Measure], found: Family | None, *,
           primary: bool) -> Point:
    """An arm at a fraction."""
    runs = [run for draws in grid[key].values() for run in draws.values()]
    name, design = measures[0].name, Design(folds_of(runs[0]), key[1])
    arm = cases_of(runs)[key]
    return Point(*key, tuple(sorted({run["labelled"] for run in runs})),
                 {measure.name: estimates.mean(measure, arm, design) for measure in measures},
                 _mean([_mean([run["last"]["test"][name] or 0.0 for run in draws.values()])
                        for draws in grid[key].values()]),
                 found.differences.get(key[0]) if found else None, primary)


def unlike(runs: list[Json]) -> str | None:
    """The first run made with other settings, data, splits or code than the rest, in words."""
    first = runs[0]
    encoders: dict[tuple[object, ...], Json] = {}  # of pretext tasks and of the oracle are others
    pools: dict[tuple[str, object], Json] = {}
    rates: dict[str, Json] = {}                    # an arm's, where they were chosen for each
    for run in runs:
        changed = differences(_common(first["identity"]), _common(run["identity"]))
        own = {"rates": run["identity"].get("rates")}
        changed += differences(rates.setdefault(run["task"], own), own)
        changed += differences({"rates chosen": "rates" in first["identity"]},
                               {"rates chosen": "rates" in run["identity"]})
        pool = {"unlabelled": run["identity"].get("unlabelled")}  # of what learns from it beside
        changed += differences(pools.setdefault((run["task"], run.get("fold")), pool), pool)
        encoder = run["identity"].get("encoder") or {}
        if encoder.get("stage") == "pretrain":  # not one from elsewhere
            kind = tuple(sorted({*encoder} - {*OWN}))
            part: tuple[object, ...] = (encoder.get("fold", 0),)
            if "pool" in encoder:  # a share of it is a seed's own
                part = (*part, encoder["pool"], encoder.get("seed"))
            for which, skipped in ((kind, OF_FOLD), ((*kind, *part), ())):
                reference = encoders.setdefault(which, encoder)
                changed += differences(_common(reference, skipped), _common(encoder, skipped))
        if changed:
            return (f"{run['task']} at {run['fraction']} % seed {run['seed']} was made with other "
                    f"settings than {first['task']} at {first['fraction']} % "
                    f"({'; '.join(changed[:3])})")
    return None


def _common(identity: Json, skipped: Collection[str] = ()) -> Json:
    """The part of an identity that all runs of a data set share."""
    return {key: value for key, value in identity.items() if key not in {*OWN, *skipped}}
