"""Orders, terciles and subsets by hand: who is tested on, who is learnt from."""

from itertools import pairwise

import numpy as np
import pytest

from common.data import splits
from common.errors import InputError

SIZES = {"rare": 4, "usual": 60, "frequent": 136}
STRATA = {f"{stratum}_{i:03d}": stratum for stratum, size in SIZES.items() for i in range(size)}


def order(seed: int, purpose: str = "subset") -> list[str]:
    return splits.stratified_order(STRATA, seed=seed, purpose=purpose)


def test_the_ith_of_a_stratum_lies_within_the_ith_part_of_the_order() -> None:
    places: dict[str, list[list[float]]] = {stratum: [] for stratum in SIZES}
    for seed in range(120):
        made = order(seed)
        assert sorted(made) == sorted(STRATA)
        for stratum, size in SIZES.items():
            mine = [place / 200 for place, case in enumerate(made) if STRATA[case] == stratum]
            assert all(i / size - 0.02 <= at <= (i + 1) / size + 0.02 for i, at in enumerate(mine))
            places[stratum].append(mine)
    for stratum, size in SIZES.items():  # uniform there: in the middle on average
        middle = (np.arange(size) + 0.5) / size
        assert np.mean(places[stratum], axis=0) == pytest.approx(middle, abs=0.04)


def test_an_order_is_drawn_within_strata_by_seed_and_purpose_not_by_listing() -> None:
    first = [case for case in order(0) if STRATA[case] == "usual"]
    assert first != sorted(first)
    for other in (order(1), order(0, "hold-out")):
        assert first != [case for case in other if STRATA[case] == "usual"]
    backwards = dict(reversed(STRATA.items()))
    assert splits.stratified_order(backwards, seed=0, purpose="subset") == order(0)


def test_terciles_by_hand() -> None:
    values = {"a": 9.0, "b": 1.0, "c": 5.0, "d": 2.0, "e": 8.0, "f": 4.0}
    assert splits.terciles(values) == {"b": 0, "d": 0, "f": 1, "c": 1, "e": 2, "a": 2}
    assert splits.terciles({"y": 3.0, "x": 3.0, "z": 3.0}) == {"x": 0, "y": 1, "z": 2}  # by id
    counts = np.bincount(list(splits.terciles({str(i): float(i) for i in range(100)}).values()))
    assert counts.tolist() == [34, 33, 33]


@pytest.mark.parametrize(("count", "test", "val"), [(6, 2, 2), (30, 6, 3), (47, 9, 5)])
def test_with_one_fold_a_fifth_is_tested_on_and_a_tenth_chooses(count: int, test: int,
                                                                val: int) -> None:
    strata = {f"c{i:02d}": i % 2 for i in range(count)}
    for seed in range(5):
        made = splits.hold_out(strata, seed=seed, folds=1)
        order = splits.stratified_order(strata, seed=seed, purpose="hold-out")
        expected = splits.Part(sorted(order[test + val:]), sorted(order[test:test + val]),
                               sorted(order[:test]), 0)
        assert [made.of(k) for k in (0, 1, 7)] == [expected] * 3 and made.every() == [expected]


def test_one_fold_is_the_test_set_that_the_code_without_folds_made() -> None:
    strata = {f"c{i:02d}": i % 2 for i in range(12)}
    for seed, test, val in ((0, ["c01", "c04"], ["c00", "c11"]),
                            (1, ["c07", "c08"], ["c02", "c03"])):
        made = splits.hold_out(strata, seed=seed, folds=1)
        assert made == splits.Splits(seed, val, [test], sorted({*strata} - {*test, *val}))


@pytest.mark.parametrize(("count", "folds", "val", "sizes"), [
    (12, 5, 2, [2, 2, 2, 2, 2]), (60, 5, 6, [10, 11, 11, 11, 11]), (20, 3, 2, [6, 6, 6]),
    (47, 4, 5, [10, 11, 10, 11])])
def test_a_tenth_chooses_and_every_other_case_is_tested_once_in_as_many_seeds(
        count: int, folds: int, val: int, sizes: list[int]) -> None:
    strata = {f"c{i:02d}": i % 2 for i in range(count)}
    made = splits.hold_out(strata, seed=3, folds=folds)
    order = splits.stratified_order(strata, seed=3, purpose="hold-out")
    assert made.val == sorted(order[:val]) and made.rest == [] and made.seed == 3
    assert [len(fold) for fold in made.folds] == sizes
    assert made.folds[0] == sorted(order[val:val + sizes[0]])  # blocks of the stratified order
    for first in (0, 7):
        parts = [made.of(seed) for seed in range(first, first + folds)]
        assert sorted(case for part in parts for case in part.test) == sorted(order[val:])
        assert [part.fold for part in parts] == [seed % folds
                                                 for seed in range(first, first + folds)]
    for part in parts:
        assert part.val == made.val and part.test == made.folds[part.fold]
        assert part.train == sorted({*strata} - {*part.val, *part.test})
    assert made.every() == [made.of(k) for k in range(folds)]


def test_every_stratum_has_its_share_of_the_test_set() -> None:
    for seed in range(20):
        counts = dict.fromkeys(SIZES, 0)
        for case in splits.hold_out(STRATA, seed=seed, folds=1).folds[0]:
            counts[STRATA[case]] += 1
        assert abs(counts["usual"] - 12) <= 2 and abs(counts["frequent"] - 27) <= 2


def test_every_stratum_has_its_share_of_validation_and_of_each_fold() -> None:
    for seed in range(20):
        made = splits.hold_out(STRATA, seed=seed, folds=5)
        shares = [(made.val, 0.1), *((fold, 0.18) for fold in made.folds)]
        for part, share in shares:
            for stratum, size in SIZES.items():
                assert abs(sum(STRATA[case] == stratum for case in part) - share * size) <= 2


@pytest.mark.parametrize("folds", [1, 5])
def test_a_group_is_never_parted_and_counts_as_one(folds: int) -> None:
    groups = {f"usual_{i:03d}": f"pair{i // 2}" for i in range(60)}
    for made in (splits.hold_out(STRATA, groups, seed=seed, folds=folds) for seed in range(10)):
        sides = [made.val, *made.folds, made.rest]
        for part in sides:
            inside = [case for case in part if case in groups]
            assert all(f"usual_{int(case[-3:]) ^ 1:03d}" in inside for case in inside)
        assert sorted(case for part in sides for case in part) == sorted(STRATA)


@pytest.mark.parametrize(("count", "folds", "message"), [
    (5, 1, "5 different labelled cases; at least 6 are needed"), (11, 5, "at least 12 .*or give --"
                                                                  "folds 1"),
    (5, 5, "at least 12 are needed: 2 for validation and 2 for each of 5 test folds; add labelled "
           "cases$"), (43, 20, "at least 44 .*--folds 1")])
def test_too_few_cases_are_refused_with_the_number_needed_and_the_way_out(
        count: int, folds: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        splits.hold_out({f"c{i:02d}": 0 for i in range(count)}, seed=0, folds=folds)
    twins = {f"c{i:02d}": "all" for i in range(count + 1)}  # a group counts as one
    with pytest.raises(InputError, match="^1 different"):
        splits.hold_out({f"c{i:02d}": 0 for i in range(count + 1)}, twins, seed=0, folds=folds)
    made = splits.hold_out({f"c{i:02d}": 0 for i in range(count + 40)}, seed=0, folds=folds)
    assert min(map(len, [made.val, *made.folds, made.of(0).train])) >= 2


def test_a_subset_is_the_beginning_of_the_order_after_the_cases_with_new_classes() -> None:
    train = sorted(STRATA)[:120]
    contains = {case: [0, 1, 2] if case.endswith(("7", "77")) else [0, 1] for case in train}
    for seed in range(5):
        drawn = splits.subset(train, STRATA, contains, fraction=100, seed=seed)
        expected = splits.stratified_order({case: STRATA[case] for case in train}, seed=seed,
                                           purpose="subset")
        assert sorted(drawn) == train
        seen: set[int] = set()
        front = [case for case in expected if not set(contains[case]) <= seen
                 and not seen.update(contains[case])]  # type: ignore[func-returns-value]
        assert drawn[:len(front)] == front and len(front) <= 2
        assert drawn[len(front):] == [case for case in expected if case not in front]


def test_subsets_have_the_stated_size_and_hold_each_other() -> None:
    train = sorted(STRATA)[:30]
    contains = dict.fromkeys(train, [0])
    drawn = [splits.subset(train, STRATA, contains, fraction=fraction, seed=3)
             for fraction in (1, 5, 10, 25, 50, 100)]
    assert [len(one) for one in drawn] == [2, 2, 3, 8, 15, 30]  # at least two; 7.5 becomes 8
    assert all(small == large[:len(small)] for small, large in pairwise(drawn))


def test_a_case_in_two_parts_or_held_out_and_pretrained_on_is_caught() -> None:
    def check(train: str, val: str, test: str, pool: str) -> None:
        splits.check_no_leakage(splits.Part(list(train), list(val), list(test), 0), list(pool))
    check("ab", "cd", "ef", "abxy")
    for wrong in (("abc", "cd", "ef", "ab"), ("abe", "cd", "ef", "ab"), ("ab", "cde", "ef", "ab"),
                  ("ab", "cd", "ef", "abc"), ("ab", "cd", "ef", "abf")):
        with pytest.raises(InputError, match="[abcdef]: "):
            check(*wrong)
