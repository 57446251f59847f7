"""Who is tested on, who chooses the model, who is learnt from; made once, kept in splits.json.

Splits come before everything else. A tenth of the labelled cases is validation, for every seed; the
others lie in FOLDS folds: a seed is tested on one of them and trains on the rest. The labelled
subsets of a seed are nested: one stratified order of its training cases, of which every fraction
takes the beginning. Exact duplicates stay on one side; nothing held out is pretrained on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.data.cache import Cache
from common.data.groups import joined, of_any, of_patients
from common.errors import InputError, few
from common.files import Json, differences, digest, read_json, set_aside, starting, write_json
from common.settings import Settings

TEST = 0.2        # share of the labelled cases, where there is one fold
VALIDATION = 0.1  # share of the labelled cases
LEAST = 2         # different cases in validation, in each fold, and in training


class Part(NamedTuple):
    """The labelled cases as one seed has them: ids, sorted, and the number of its test fold."""

    train: list[str]
    val: list[str]
    test: list[str]
    fold: int
    barred: frozenset[str] = frozenset()  # every case of a patient in val or test


@dataclass(frozen=True)
class Splits:
    """The case ids of validation and of every test fold, sorted."""

    seed: int               # SPLIT_SEED
    val: list[str]          # of every seed; tested in no fold
    folds: list[list[str]]  # seed k is tested on fold k mod FOLDS, and trains on the others
    rest: list[str]         # training cases of every seed, tested in no fold; only with one fold
    groups: Mapping[str, str] = field(default_factory=dict)  # case -> patient, where asked for

    def of(self, seed: int) -> Part:
        """Who a seed learns from, is chosen on and is tested on."""
        fold = seed % len(self.folds)
        others = [case for number, cases in enumerate(self.folds) if number != fold
                  for case in cases]
        return Part(sorted([*self.rest, *others]), self.val, self.folds[fold], fold,
                    of_any([*self.val, *self.folds[fold]], self.groups))

    def every(self) -> list[Part]:
        """What there is to a seed, once for each fold."""
        return [self.of(fold) for fold in range(len(self.folds))]

    def to_json(self) -> dict[str, Any]:
        """As kept in splits.json."""
        return {"seed": self.seed, "val": self.val, "folds": self.folds, "rest": self.rest,
                **({"groups": dict(self.groups)} if self.groups else {})}


def hold_out(strata: Mapping[str, Any], groups: Mapping[str, str] | None = None, *,
             seed: int, folds: int) -> Splits:
    """Split labelled cases into validation (10 %) and test folds, stratified.

    Several folds share all other cases, their sizes within one of each other; a single one has
    20 %, and the rest is trained on by every seed. ``strata`` maps case id -> stratum; ``groups``
    maps ids of exact duplicates to a common name, so that one group stays on one side. Raises
    InputError if there are too few cases.
    """
    groups = groups or {}
    members: dict[str, list[str]] = {}
    for case in sorted(strata):
        members.setdefault(groups.get(case, case), []).append(case)
    _check_enough(len(members), folds)
    order = stratified_order({name: strata[cases[0]] for name, cases in members.items()},
                             seed=seed, purpose="hold-out")
    val = _validation(len(order))
    if folds == 1:
        test = max(LEAST, round(TEST * len(order)))
        parts = [order[test:test + val], order[:test], order[test + val:]]
    else:
        edges = [val + (len(order) - val) * fold // folds for fold in range(folds + 1)]
        parts = [order[:val], *(order[a:b] for a, b in pairwise(edges)), []]
    first, *tested, rest = [sorted(case for name in part for case in members[name])
                            for part in parts]
    return Splits(seed, first, tested, rest)


def _validation(count: int) -> int:
    """How many of ``count`` different labelled cases choose the model."""
    return max(LEAST, round(VALIDATION * count))


def _check_enough(found: int, folds: int) -> None:
    """Check that every part has LEAST different cases; InputError says how many that takes."""
    least = {number: next(n for n in count(LEAST) if n - _validation(n) >= LEAST * max(2, number))
             for number in (1, folds)}  # one fold: training takes the place of a second
    if found < least[folds]:
        way_out = ", or give --folds 1" if found >= least[1] else ""
        raise InputError(f"{found} different labelled cases; at least {least[folds]} are needed: "
                         f"{LEAST} for validation and {LEAST} for " + (
                             "each of test and training" if folds == 1 else
                             f"each of {folds} test folds") + f"; add labelled cases{way_out}")


def stratified_order(strata: Mapping[str, Any], *, seed: int, purpose: str) -> list[str]:
    """Order cases so that every beginning of the list holds each stratum in about its share.

    Within a stratum the order is random; the i-th of n gets the place (i + u) / n, u uniform.
    """
    rng = np.random.default_rng([seed, _number(purpose)])
    places: list[tuple[float, str]] = []
    for stratum in sorted(set(strata.values()), key=str):
        cases = rng.permutation(sorted(case for case in strata if strata[case] == stratum))
        places += [((i + rng.random()) / len(cases), str(case)) for i, case in enumerate(cases)]
    return [case for _, case in sorted(places)]


def subset(train: Sequence[str], strata: Mapping[str, Any], contains: Mapping[str, Sequence[Any]],
           *, fraction: float, seed: int) -> list[str]:
    """Draw the labelled subset of ``fraction`` percent: nested over fractions, stratified, seeded.

    ``contains`` maps case id -> classes seen in it; cases that bring a class not yet present come
    first, so that the smallest subset has every class where the number of cases allows it.
    At least 2 cases (BatchNorm). Returns ids in the order drawn.
    """
    order = stratified_order({case: strata[case] for case in train}, seed=seed, purpose="subset")
    first: list[str] = []
    seen: set[Any] = set()
    for case in order:
        if not seen.issuperset(contains[case]):
            seen.update(contains[case])
            first.append(case)
    order = first + [case for case in order if case not in set(first)]
    return order[:max(2, round(len(order) * fraction / 100))]


def terciles(values: Mapping[str, float]) -> dict[str, int]:
    """Assign each case the tercile (0, 1, 2) of its value; ties broken by id."""
    ranked = sorted(values, key=lambda case: (values[case], case))
    return {case: 3 * rank // len(ranked) for rank, case in enumerate(ranked)}


def check_no_leakage(part: Part, pool: Sequence[str]) -> None:
    """Check that a seed's parts are disjoint and it pretrains on no test or validation case.

    Raises InputError naming a case: the parts may have been edited by hand.
    """
    parts = {"train": part.train, "val": part.val, "test": part.test}
    for one, other in combinations(parts, 2):
        if both := sorted(set(parts[one]) & set(parts[other])):
            raise InputError(f"splits.json: {few(both)}: in {one} and in {other}; a case must be "
                             "in one of them. Move the file away, it is made anew")
    held_out = {*part.val, *part.test}
    if leaked := sorted((held_out | part.barred) & set(pool)):
        raise InputError(f"{few(leaked)}: held out for validation or test, and in the pretraining "
                         "pool; no score would be honest. Move splits.json away, it is made anew")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def divide(cache: Cache, strata: Mapping[str, Any], folder: Path, *, generated: bool,
           settings: Settings, groups: Mapping[str, str] | None = None,
           names: Mapping[str, str] | None = None) -> tuple[Splits, list[str]]:
    """Read or make the splits of a data set, kept in ``folder``; and the unlabelled ids to use.

    ``groups``: case id -> patient, as a column says; others by GROUP_PATTERN, which is sought in
    ``names``: case id -> the file's own name, where the id is another. Raises InputError if any
    fold would leak.
    """
    series = {case: str(fact["series"]) for case, fact in cache.facts.items() if "series" in fact}
    patients = with_series(cache, series, of_patients(list(cache.facts), groups or {},
                                                      settings.GROUP_PATTERN,
                                                      {**series, **(names or {})}))
    made = make_splits(cache, strata, folder, generated=generated, settings=settings,
                       patients=patients)
    free = unlabelled(cache)
    for part in made.every():
        pool_of(part, free)
    return made, free


def with_series(cache: Cache, series: Mapping[str, str], patients: Mapping[str, str]
                ) -> dict[str, str]:
    """Patients, where a labelled image that is a volume of a time series is of its patient.

    ``series``: case id -> the time series it is a volume of. Without such an image nothing changes.
    """
    labelled = {cache.facts[case]["pixels"]: case for case in list(cache.facts)[:cache.labelled]}
    same = {case: labelled[digest] for case in series for digest in cache.facts[case]["alike"]
            if digest in labelled}
    if not same:
        return dict(patients)
    known = {series[case] for case in same}
    print(f"note      {len(known)} time series have volumes that are labelled scans too "
          f"({few(sorted(known), 3)}); each lies on the side of these")
    return joined(patients, {case: name for case, name in series.items() if name in known},
                  same | {case: case for case in same.values()})


def make_splits(cache: Cache, strata: Mapping[str, Any], folder: Path, *,
                generated: bool, settings: Settings,
                patients: Mapping[str, str] | None = None) -> Splits:
    """Read splits.json, or make it once from ids, strata, SPLIT_SEED and FOLDS.

    Raises InputError naming what changed if the splits were made for another data set, seed or
    number of folds (with --rerun the old file is moved aside), or for duplicates under --strict.
    """
    path, dataset = folder / "splits.json", folder.name
    labelled = list(cache.facts)[:cache.labelled]
    contents = {case: cache.contents[case] for case in labelled}
    twins = duplicates(cache)
    if settings.STRICT and any(twins):
        raise InputError(f"{dataset}: exact duplicates found "
                         f"({few([case for part in twins for case in part])}); remove them, or "
                         "leave --strict out to keep each group on one side")
    made = hold_out({case: strata[case] for case in labelled
                            if case not in twins.contradicting},
                           joined(twins.groups, patients) if patients else twins.groups,
                           seed=settings.SPLIT_SEED, folds=settings.FOLDS)
    made = replace(made, groups=patients or {})
    content = {"dataset": dataset, "generated": generated, **made.to_json(),
               "digest": digest(made.to_json()),
               "strata": dict(strata), "duplicates": twins._asdict(), "contents": contents}
    if settings.PLAN and (settings.RERUN or not path.exists()):
        return made  # nothing is written for a plan
    with starting(folder):
        return _read_or_write(path, made, content, rerun=settings.RERUN)


def _read_or_write(path: Path, made: Splits, content: Json, *,
                   rerun: bool) -> Splits:
    """The splits on disk if they are those of this data set, else ``made``, written."""
    if path.exists():
        old = read_json(path)
        why = _unlike(path, old, made, content["contents"])
        if why is None:
            return Splits(old["seed"], old["val"], old["folds"], old["rest"], made.groups)
        if not rerun:
            raise InputError(f"{path}: {why}; give --results OTHER to keep both, or --rerun to set "
                             "the old aside")
        print(f"set aside: {path.name} -> {set_aside(path).name}")
    write_json(path, content)
    return made


def _unlike(path: Path, old: Any, made: Splits, contents: Mapping[str, str]) -> str | None:
    """Why the splits on disk are not those of this data set and these constants, if they are not.

    InputError if they cannot be used at all.
    """
    if isinstance(old, dict) and "train" in old and "folds" not in old:
        return "made by an earlier version, with one fixed test set"
    _check_file(path, old, contents)
    changed = [*differences(old.get("contents", {}), contents),
               *(["patients"] if old.get("groups", {}) != made.groups else []),
               *differences(old["seed"], made.seed, "SPLIT_SEED"),
               *differences(len(old["folds"]), len(made.folds), "FOLDS")]
    names = few([line.split(":")[0] for line in changed])
    return f"made for other data; changed, added or removed: {names}" if changed else None


def _check_file(path: Path, old: Any, contents: Mapping[str, str]) -> None:
    """Check that a file holds splits that can be used; it may have been edited by hand."""
    remedy = "move it away, it is made anew"
    if not _is_splits(old):
        raise InputError(f"{path}: not the splits of a data set, with two or more cases in val and "
                         f"in each of its folds; {remedy}")
    listed = [case for part in (old["val"], *old["folds"], old["rest"]) for case in part]
    if len(listed) != len(set(map(str, listed))):
        raise InputError(f"{path}: a case is listed twice; {remedy}")
    parts_digest = digest({key: old[key] for key in ("seed", "val", "folds", "rest", "groups")
                           if key in old})
    if old.get("digest", parts_digest) != parts_digest:
        raise InputError(f"{path}: edited since it was made: a case is on another side than the "
                         f"runs beside it were made with; put it back, or {remedy}")
    known = old["contents"] if isinstance(old.get("contents"), dict) else contents
    if strange := [case for case in map(str, listed) if case not in known]:
        raise InputError(f"{path}: {few(strange)}: no labelled case of this data set; {remedy}")


def _is_splits(old: Any) -> bool:
    """Whether what a file holds has the form of splits."""
    if not isinstance(old, dict) or not {"seed", "val", "folds", "rest"} <= old.keys() or not (
            isinstance(old["folds"], list) and isinstance(old["rest"], list) and old["folds"]):
        return False
    needed = [old["val"], *old["folds"], *([old["rest"]] if len(old["folds"]) == 1 else [])]
    return all(isinstance(part, list) and len(part) >= LEAST for part in needed)


class Duplicates(NamedTuple):
    """Exact duplicate images of a data set, and what becomes of them."""

    groups: dict[str, str]    # labelled id -> its group's name; a group stays on one side
    contradicting: list[str]  # labelled ids of groups whose labels differ; left out of all splits
    unlabelled: list[str]     # ids equal to a labelled image; left out of the pretraining pool


def duplicates(cache: Cache) -> Duplicates:
    """Find the exact duplicates by the digest of their pixels."""
    same: dict[str, list[str]] = {}
    for case in list(cache.facts)[:cache.labelled]:
        same.setdefault(cache.facts[case]["pixels"], []).append(case)
    twins = [cases for cases in same.values() if len(cases) > 1]
    agree = [len({cache.facts[case]["truth"] for case in cases}) == 1 for cases in twins]
    return Duplicates(
        {case: cases[0] for cases, same_label in zip(twins, agree, strict=True) if same_label
         for case in cases},
        [case for cases, same_label in zip(twins, agree, strict=True) if not same_label
         for case in cases],
        [case for case in list(cache.facts)[cache.labelled:]
         if cache.facts[case]["pixels"] in same])


def unlabelled(cache: Cache) -> list[str]:
    """Ids without a label that may be pretrained on: those that equal no labelled image."""
    dropped = set(duplicates(cache).unlabelled)
    return [case for case in list(cache.facts)[cache.labelled:] if case not in dropped]


def pool_of(part: Part, free: Sequence[str]) -> list[str]:
    """Ids that a seed is pretrained on: its training cases and the unlabelled ones, checked.

    Unlabelled cases of a patient who is in validation or test are left out.
    """
    pool = [*part.train, *(case for case in free if case not in part.barred)]
    check_no_leakage(part, pool)
    return pool
