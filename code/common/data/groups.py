"""Patients: which cases are of one, so that all of them stay on one side of every split."""

import re
from collections.abc import Iterable, Mapping, Sequence

from common.errors import InputError, few

SIDES = r"^(.+?)[_ .-]?(?:left|right|od|os|[lr]|(?<=[_ .-])\d{1,2})$"  # of a patient's images
MOST = 10    # images of one patient, where a name suggests it; more are numbers of a set
SHARE = 0.5  # of the cases have to look so


def of_patients(ids: Sequence[str], given: Mapping[str, str], pattern: str,
                names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Case id -> patient: as ``given`` (of a column), else what ``pattern`` finds in the id.

    ``names``: case id -> the name that counts in its place: of the time series it is a volume of,
    of its file where the id holds the class too.
    Says how many there are, or what to give where names look like several of one patient. Empty if
    nothing is asked for. InputError for a pattern without one group, or that an id does not match.
    """
    if names:
        found = of_patients(list(dict.fromkeys(names.get(case, case) for case in ids)), given,
                            pattern)
        return {case: found[name] for case in ids if (name := names.get(case, case)) in found}
    found = {**_of_names([case for case in ids if case not in given], pattern), **given}
    if found:
        print(f"patients  {len(set(found.values()))} of {len(found)} cases, each patient on one "
              "side")
        if alone := len(ids) - len(found):
            print(f"note      {alone} cases have no patient, since no row names one; give "
                  "--group-pattern if they may be of the same")
    elif hint := suggestion(ids):
        print(hint)
    return found


def _of_names(ids: Sequence[str], pattern: str) -> dict[str, str]:
    if not pattern:
        return {}
    try:
        rule = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"GROUP_PATTERN = {pattern}: no regular expression ({error}); correct it"
                         ) from None
    if rule.groups != 1:
        raise InputError(f"GROUP_PATTERN = {pattern}: has {rule.groups} groups; expected one, as "
                         "'^(p[0-9]+)_'")
    found = {case: match[1] for case in ids if (match := rule.search(case)) and match[1]}
    if left := [case for case in ids if case not in found]:
        raise InputError(f"GROUP_PATTERN = {pattern}: finds no patient in {len(left)} of "
                         f"{len(ids)} cases ({few(left, 3)}); correct it")
    return found


def suggestion(ids: Sequence[str]) -> str | None:
    """One line, if names look like several of one patient, as p012_left and p012_right."""
    rule = re.compile(SIDES, re.IGNORECASE)
    members: dict[str, list[str]] = {}
    for case in ids:
        if match := rule.match(case):
            members.setdefault(match[1], []).append(case)
    several = [cases for cases in members.values() if 1 < len(cases) <= MOST]
    if len(several) < 3 or sum(map(len, several)) < SHARE * len(ids):
        return None
    return (f"note      names look like several cases of one patient ({few(several[0], 2)}); to "
            f"keep a patient on one side give --group-pattern '{SIDES}'")


def joined(*rules: Mapping[str, str]) -> dict[str, str]:
    """Case id -> the group's first case: cases are together if any of the rules puts them so."""
    parent: dict[str, str] = {}

    def root(case: str) -> str:
        while parent.setdefault(case, case) != case:
            case = parent[case]
        return case
    for rule in rules:
        for cases in _members(rule).values():
            first, *others = sorted(map(root, cases))
            parent.update(dict.fromkeys(others, first))
    return {case: root(case) for case in parent}


def _members(rule: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case, group in rule.items():
        found.setdefault(group, []).append(case)
    return found


def of_any(cases: Iterable[str], groups: Mapping[str, str]) -> frozenset[str]:
    """All cases of the patients that any of ``cases`` is of."""
    theirs = {groups[case] for case in cases if case in groups}
    return frozenset(case for case, group in groups.items() if group in theirs)
