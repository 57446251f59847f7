"""Names of the curve's arms: the baseline, pretext tasks, several of them joined, other encoders.

    baseline    rotation    rotation+rpl    rotation@stages    rotation+rpl@stages

and two controls, which say whether the experiment could show anything:

    oracle              a start trained with all labels: has to lie above the baseline
    rotation@shuffled   the start of rotation, each weight tensor's entries permuted: must not
"""

import difflib
from collections.abc import Sequence

from common.errors import InputError

BASELINE = "baseline"  # the arm of random initialisation
ORACLE = "oracle"      # the arm whose start has seen every label
STAGES = "stages"      # behind an @: the head sees every stage of the encoder
SHUFFLED = "shuffled"  # behind an @: what the start has learnt is destroyed
SUFFIXES = (STAGES, SHUFFLED)  # in the order in which they may follow


def parts(name: str) -> list[str]:
    """Tasks that an arm is made of: "rotation+rpl@stages" -> rotation, rpl."""
    return name.partition("@")[0].split("+")


def pretraining(name: str) -> str:
    """The name of the pretraining an arm starts from: "rpl@stages@shuffled" -> rpl@stages."""
    return name.removesuffix(f"@{SHUFFLED}")


def is_shuffled(name: str) -> bool:
    """Whether the arm is the negative control of another."""
    return name != pretraining(name)


def is_oracle(name: str) -> bool:
    """Whether the arm starts from labels: the positive control."""
    return pretraining(name) == ORACLE


def sees_stages(name: str) -> bool:
    """Whether the head of its pretext task sees every stage of the encoder."""
    return STAGES in name.split("@")[1:]


def check(name: str, pretexts: Sequence[str], others: Sequence[str]) -> None:
    """Check an arm's name against the pretext tasks and the arms without one; InputError.

    ``others`` are the baseline and encoders from elsewhere.
    """
    if name in others or is_oracle(name) or (
            pretraining(name) in others and pretraining(name) != BASELINE):
        return
    if ORACLE in parts(name):
        raise InputError(f"TASKS: {name!r}: {ORACLE} stands alone; only @{SHUFFLED} may follow it")
    for part in parts(name):
        if part not in pretexts:
            known = [*others, ORACLE, *pretexts]
            near = difflib.get_close_matches(part, known, n=1, cutoff=0)
            raise InputError(f"TASKS: unknown task {part!r}; did you mean {near[0]!r}? Known: "
                             f"{' '.join(known)}; pretext tasks may be joined, as rotation+rpl, "
                             f"and @{STAGES} or @{SHUFFLED} may follow")
        if parts(name).count(part) > 1:
            raise InputError(f"TASKS: {name!r} has {part} twice; give each once")
    given = name.split("@")[1:]
    if given != [suffix for suffix in SUFFIXES if suffix in given]:
        raise InputError(f"TASKS: {name!r}: only @{STAGES} and then @{SHUFFLED} may follow a "
                         "task's name")
