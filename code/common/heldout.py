"""What is held out of a data set, made once; its duplicates; what may be pretrained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common import records, splits
from common.cache import Cache
from common.errors import InputError, few
from common.records import Json, starting
from common.settings import Settings


def make_splits(cache: Cache, strata: Mapping[str, Any], folder: Path, *, dataset: str,
                generated: bool, settings: Settings) -> splits.Splits:
    """Read splits.json, or make it once from ids, strata and SPLIT_SEED.

    Raises InputError naming what changed if the data set is not the one the splits were made for
    (with --rerun the old file is moved aside), or for duplicates under --strict.
    """
    path = folder / "splits.json"
    labelled = list(cache.facts)[:cache.labelled]
    contents = {case: cache.contents[case] for case in labelled}
    twins = duplicates(cache)
    if settings.STRICT and any(twins):
        raise InputError(f"{dataset}: exact duplicates found "
                         f"({few([case for part in twins for case in part])}); remove them, or "
                         "leave --strict out to keep each group on one side")
    made = splits.hold_out({case: strata[case] for case in labelled
                            if case not in twins.contradicting}, twins.groups,
                           seed=settings.SPLIT_SEED)
    content = {"dataset": dataset, "generated": generated, **made.to_json(),
               "digest": records.digest(made.to_json()),
               "strata": dict(strata), "duplicates": twins._asdict(), "contents": contents}
    with starting(folder):
        return _read_or_write(path, made, content, rerun=settings.RERUN)


def _read_or_write(path: Path, made: splits.Splits, content: Json, *,
                   rerun: bool) -> splits.Splits:
    """The splits on disk if they are those of this data set, else ``made``, written."""
    if path.exists():
        old = records.read_json(path)
        _check_file(path, old, content["contents"])
        changed = [*records.differences(old.get("contents", {}), content["contents"]),
                   *records.differences(old["seed"], made.seed, "SPLIT_SEED")]
        if not changed:
            return splits.Splits(old["train"], old["val"], old["test"], old["seed"])
        if not rerun:
            names = few([line.split(":")[0] for line in changed])
            raise InputError(f"{path}: made for other data; changed, added or removed: {names}; "
                             "give --results OTHER to keep both, or --rerun to set the old aside")
        print(f"set aside: {path.name} -> {records.set_aside(path).name}")
    records.write_json(path, content)
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
    parts_digest = records.digest({key: old[key] for key in ("seed", *parts)})
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


def pool_of(cache: Cache, parts: splits.Splits) -> list[str]:
    """Ids pretrained on: training cases and unlabelled ones; checked against the held-out."""
    dropped = set(duplicates(cache).unlabelled)
    rest = [case for case in list(cache.facts)[cache.labelled:] if case not in dropped]
    pool = [*parts.train, *rest]
    splits.check_no_leakage(parts, pool)
    return pool
