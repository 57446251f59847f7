"""Names of the curve's arms: the baseline, pretext tasks, several of them joined, other encoders.

    baseline    rotation    rotation+rpl    rotation@stages    rotation+rpl@stages
"""

import difflib
from collections.abc import Sequence

from common.errors import InputError

BASELINE = "baseline"  # the arm of random initialisation
STAGES = "stages"      # what may follow the @: the head sees every stage of the encoder


def parts(name: str) -> list[str]:
    """Pretext tasks that an arm is made of: "rotation+rpl@stages" -> rotation, rpl."""
    return name.partition("@")[0].split("+")


def check(name: str, pretexts: Sequence[str], others: Sequence[str]) -> None:
    """Check an arm's name against the pretext tasks and the arms without one; InputError."""
    if name in others:
        return
    for part in parts(name):
        if part not in pretexts:
            known = [*others, *pretexts]
            near = difflib.get_close_matches(part, known, n=1, cutoff=0)
            raise InputError(f"TASKS: unknown task {part!r}; did you mean {near[0]!r}? Known: "
                             f"{' '.join(known)}; pretext tasks may be joined, as rotation+rpl, "
                             f"and @{STAGES} may follow")
        if parts(name).count(part) > 1:
            raise InputError(f"TASKS: {name!r} has {part} twice; give each once")
    _, at, where = name.partition("@")
    if at and where != STAGES:
        raise InputError(f"TASKS: {name!r}: only @{STAGES} may follow a task's name")
