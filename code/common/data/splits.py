"""Who is tested on, who chooses the model, who is learnt from; made once, kept in splits.json.

Splits come before everything else. The labelled subsets of a seed are nested: one stratified order
of the training cases, of which every fraction takes the beginning. Exact duplicates stay on one
side; nothing held out is pretrained on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.data.cache import Cache
from common.errors import InputError, few
from common.files import Json, differences, digest, read_json, set_aside, starting, write_json
from common.settings import Settings

TEST = 0.2        # share of the labelled cases
VALIDATION = 0.1  # share of the labelled cases
MINIMUM = 6       # labelled cases: two each for test, validation and training


@dataclass(frozen=True)
class Splits:
    """The case ids of each part, sorted, and what was left out and why."""

    train: list[str]
    val: list[str]
    test: list[str]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """As kept in splits.json."""
        return {"seed": self.seed, "test": self.test, "val": self.val, "train": self.train}


def hold_out(strata: Mapping[str, Any], groups: Mapping[str, str] | None = None, *,
             seed: int) -> Splits:
    """Split labelled cases into test (20 %), validation (10 %) and train (the rest), stratified.

    ``strata`` maps case id -> stratum; ``groups`` maps ids of exact duplicates to a common name,
    so that one group stays on one side. Raises InputError if there are too few cases.
    """
    groups = groups or {}
    members: dict[str, list[str]] = {}
    for case in sorted(strata):
        members.setdefault(groups.get(case, case), []).append(case)
    if len(members) < MINIMUM:
        raise InputError(f"{len(members)} different labelled cases; at least {MINIMUM} are needed "
                         "for test, validation and training: add labelled cases")
    order = stratified_order({name: strata[cases[0]] for name, cases in members.items()},
                             seed=seed, purpose="hold-out")
    test = max(2, round(TEST * len(order)))
    val = max(2, round(VALIDATION * len(order)))
    parts = order[:test], order[test:test + val], order[test + val:]
    ids = [sorted(case for name in part for case in members[name]) for part in parts]
    return Splits(test=ids[0], val=ids[1], train=ids[2], seed=seed)


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


def check_no_leakage(splits: Splits, pool: Sequence[str]) -> None:
    """Check that the parts are disjoint and no test or validation case is pretrained on.

    Raises InputError naming a case: the parts may have been edited by hand.
    """
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    for one, other in combinations(parts, 2):
        if both := sorted(set(parts[one]) & set(parts[other])):
            raise InputError(f"splits.json: {few(both)}: in {one} and in {other}; a case must be "
                             "in one of them. Move the file away, it is made anew")
    held_out = {*splits.val, *splits.test}
    if leaked := sorted(held_out & set(pool)):
        raise InputError(f"{few(leaked)}: held out for validation or test, and in the pretraining "
                         "pool; no score would be honest. Move splits.json away, it is made anew")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def divide(cache: Cache, strata: Mapping[str, Any], folder: Path, *, generated: bool,
           settings: Settings) -> tuple[Splits, list[str]]:
    """Read or make the splits of a data set, kept in ``folder``; and the ids pretrained on."""
    parts = make_splits(cache, strata, folder, generated=generated, settings=settings)
    return parts, pool_of(cache, parts)


def make_splits(cache: Cache, strata: Mapping[str, Any], folder: Path, *,
                generated: bool, settings: Settings) -> Splits:
    """Read splits.json, or make it once from ids, strata and SPLIT_SEED.

    Raises InputError naming what changed if the data set is not the one the splits were made for
    (with --rerun the old file is moved aside), or for duplicates under --strict.
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
                            if case not in twins.contradicting}, twins.groups,
                           seed=settings.SPLIT_SEED)
    content = {"dataset": dataset, "generated": generated, **made.to_json(),
               "digest": digest(made.to_json()),
               "strata": dict(strata), "duplicates": twins._asdict(), "contents": contents}
    with starting(folder):
        return _read_or_write(path, made, content, rerun=settings.RERUN)


def _read_or_write(path: Path, made: Splits, content: Json, *,
                   rerun: bool) -> Splits:
    """The splits on disk if they are those of this data set, else ``made``, written."""
    if path.exists():
        old = read_json(path)
        _check_file(path, old, content["contents"])
        changed = [*differences(old.get("contents", {}), content["contents"]),
                   *differences(old["seed"], made.seed, "SPLIT_SEED")]
        if not changed:
            return Splits(old["train"], old["val"], old["test"], old["seed"])
        if not rerun:
            names = few([line.split(":")[0] for line in changed])
            raise InputError(f"{path}: made for other data; changed, added or removed: {names}; "
                             "give --results OTHER to keep both, or --rerun to set the old aside")
        print(f"set aside: {path.name} -> {set_aside(path).name}")
    write_json(path, content)
    return made


def _check_file(path: Path, old: Any, contents: Mapping[str, str]) -> None:
    """Check that a file holds splits that can be used; it may have been edited by hand."""
    remedy = "move it away, it is made anew"
    parts = ("train", "val", "test")
    if not isinstance(old, dict) or not {*parts, "seed"} <= old.keys() or not all(
            isinstance(old[part], list) and len(old[part]) >= 2 for part in parts):
        raise InputError(f"{path}: not the splits of a data set, with two or more cases in each of "
                         f"train, val and test; {remedy}")
    listed = [case for part in parts for case in old[part]]
    if len(listed) != len(set(map(str, listed))):
        raise InputError(f"{path}: a case is listed twice; {remedy}")
    parts_digest = digest({key: old[key] for key in ("seed", *parts)})
    if old.get("digest", parts_digest) != parts_digest:
        raise InputError(f"{path}: edited since it was made: a case is on another side than the "
                         f"runs beside it were made with; put it back, or {remedy}")
    known = old["contents"] if isinstance(old.get("contents"), dict) else contents
    if strange := [case for case in map(str, listed) if case not in known]:
        raise InputError(f"{path}: {few(strange)}: no labelled case of this data set; {remedy}")


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


def pool_of(cache: Cache, parts: Splits) -> list[str]:
    """Ids pretrained on: training cases and unlabelled ones; checked against the held-out."""
    dropped = set(duplicates(cache).unlabelled)
    rest = [case for case in list(cache.facts)[cache.labelled:] if case not in dropped]
    pool = [*parts.train, *rest]
    check_no_leakage(parts, pool)
    return pool
