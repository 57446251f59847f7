"""Who is tested on, who chooses the model, and who is learnt from; pure functions of ids and seed.

Splits come before everything else and are made once. The labelled subsets of a seed are nested:
one stratified order of the training cases, of which every fraction takes the beginning.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from common.errors import InputError, few

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
