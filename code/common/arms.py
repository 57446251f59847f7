"""Names of the curve's arms: the baseline, pretext tasks, several of them joined, other encoders.

    baseline    rotation    rotation+rpl    rotation@stages    rotation+rpl@stages    mae@decoder

rivals that use the same unlabelled images while they learn from the labels,

    meanteacher    fixmatch (2D)    from random weights too; see runs/semi.py

and two controls, which say whether the experiment could show anything:

    oracle              a start trained with all labels: has to lie above the baseline; with the
                        decoder, oracle@decoder
    rotation@shuffled   the start of rotation, each weight tensor's entries permuted: must not
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import InputError

BASELINE = "baseline"  # the arm of random initialisation
ORACLE = "oracle"      # the arm whose start has seen every label
FIXMATCH = "fixmatch"
SEMI = ("meanteacher", FIXMATCH)  # arms that learn from labels and from unlabelled images at once
FROM_SCRATCH = (BASELINE, *SEMI)  # arms that start from random weights
STAGES = "stages"      # behind an @: the head sees every stage of the encoder
DECODER = "decoder"    # behind an @: the decoder is handed on too
SHUFFLED = "shuffled"  # behind an @: what the start has learnt is destroyed
SUFFIXES = (STAGES, DECODER, SHUFFLED)  # in the order in which they may follow


def parts(name: str) -> list[str]:
    """Tasks that an arm is made of: "rotation+rpl@stages" -> rotation, rpl."""
    return name.partition("@")[0].split("+")


def suffixes(name: str) -> list[str]:
    """What stands behind the @ signs of a name."""
    return name.split("@")[1:]


def pretraining(name: str) -> str:
    """The name of the pretraining an arm starts from: "rpl@stages@shuffled" -> rpl@stages."""
    return "@".join([name.split("@")[0], *(suffix for suffix in suffixes(name)
                                           if suffix not in (DECODER, SHUFFLED))])


def is_shuffled(name: str) -> bool:
    """Whether the arm is the negative control of another."""
    return SHUFFLED in suffixes(name)


def is_control(name: str) -> bool:
    """Whether the arm says what the study can show, not what a use of unlabelled images brings."""
    return is_shuffled(name) or parts(name) == [ORACLE]


def hands_on_decoder(name: str) -> bool:
    """Whether the decoder is handed on beside the encoder."""
    return DECODER in suffixes(name)


def sees_stages(name: str) -> bool:
    """Whether the head of its pretext task sees every stage of the encoder."""
    return STAGES in suffixes(name)


def check(name: str, tasks: Mapping[str, Any], others: Sequence[str], *, decoder: bool) -> None:
    """Check an arm's name against the tasks and the arms without one; InputError.

    ``tasks`` maps names to what has ``joins`` and ``decodes``, the oracle's among them; ``others``
    are the baseline and encoders from elsewhere; ``decoder``: whether the downstream network has
    one that could be handed on.
    """
    if name == FIXMATCH and decoder:
        raise InputError(f"TASKS: {name}: is for one label an image, in 2D; take meanteacher")
    if name in FROM_SCRATCH:
        return
    if nothing := [part for part in parts(name) if part in FROM_SCRATCH]:
        raise InputError(f"TASKS: {name!r}: the {nothing[0]} starts from nothing; nothing can be "
                         "joined to it or follow it")
    rivals = [arm for arm in SEMI if arm != FIXMATCH or not decoder]
    for part in parts(name):
        _check_part(part, name, tasks, [*others, *rivals])
    given = suffixes(name)
    if given != [suffix for suffix in SUFFIXES if suffix in given]:
        raise InputError(f"TASKS: {name!r}: only @{STAGES}, @{DECODER} and @{SHUFFLED}, in this "
                         "order, may follow a task's name")
    elsewhere = parts(name)[0] in others
    if sees_stages(name) and (elsewhere or not all(tasks[part].joins for part in parts(name))):
        raise InputError(f"TASKS: {name!r}: {parts(name)[0]} has no head that could see the "
                         f"stages; leave @{STAGES} out")
    if hands_on_decoder(name):
        _check_decoder(name, tasks, elsewhere=elsewhere, decoder=decoder)


def _check_part(part: str, name: str, tasks: Mapping[str, Any], others: Sequence[str]) -> None:
    """Check one of the tasks that an arm is made of."""
    alone = len(parts(name)) == 1
    if part not in tasks and not (part in others and alone):
        known = [*others, *tasks]
        near = difflib.get_close_matches(part, known, n=1, cutoff=0)
        raise InputError(f"TASKS: unknown task {part!r}; did you mean {near[0]!r}? Known: "
                         f"{' '.join(known)}; pretext tasks may be joined, as rotation+rpl, "
                         f"and @{STAGES}, @{DECODER} or @{SHUFFLED} may follow")
    if parts(name).count(part) > 1:
        raise InputError(f"TASKS: {name!r} has {part} twice; give each once")
    if not alone and not tasks[part].joins:
        raise InputError(f"TASKS: {name!r}: {part} stands alone, it cannot be joined with others")


def _check_decoder(name: str, tasks: Mapping[str, Any], *, elsewhere: bool, decoder: bool) -> None:
    """Check that there is a decoder to hand on."""
    if not decoder:
        raise InputError(f"TASKS: {name!r}: the network that is finetuned has no decoder; leave "
                         f"@{DECODER} out")
    if elsewhere or not all(tasks[part].decodes for part in parts(name)):
        able = [task for task in tasks if tasks[task].decodes]
        raise InputError(f"TASKS: {name!r}: {parts(name)[0]} trains no decoder; @{DECODER} may "
                         f"follow {', '.join(able)}")
