"""An encoder's weights in files of other programs: found whatever they are called there.

torchvision's and timm's DenseNets, a whole network of this project (best.pt), a checkpoint in the
middle of a run (last.pt), what a training framework has wrapped. Nothing is loaded half.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from common.errors import InputError, few
from common.runs.checkpoint import faults

WRAPPERS = ("model", "state_dict", "model_state_dict", "module", "net")  # under which weights lie
PREFIXES = ("", "encoder.", "module.", "model.", "module.encoder.", "model.encoder.", "backbone.",
            "encoder.encoder.")
COUNTER = "num_batches_tracked"  # of BatchNorm; nothing depends on it, old files lack it
OLD = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # in stored files also norm.1


def taken(state: Any, own: Mapping[str, Tensor], source: Path | str) -> tuple[dict[str, Tensor],
                                                                              str]:
    """The weights of ``state`` that are those of an encoder, ``own``, and in words which they are.

    InputError, key by key, unless every one is there and fits.
    """
    while isinstance(state, Mapping) and (inner := next((
            state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)):
        state = inner
    if not isinstance(state, Mapping):
        raise InputError(f"{source}: not a mapping of names to tensors; save encoder.state_dict()")
    tensors = {name: value for name, value in state.items()
               if isinstance(name, str) and isinstance(value, Tensor)}
    prefix, found = max(((prefix, renamed(tensors, prefix)) for prefix in PREFIXES),
                        key=lambda one: _fitting(one[1], own))
    counters = {name: value for name, value in own.items() if name.endswith(COUNTER)}
    chosen = {name: found.get(name, counters.get(name)) for name in own}
    if _fitting(found, own) == 0:
        raise InputError(f"{source}: none of its {len(tensors)} tensors has a name of this "
                         f"encoder's ({few([*own], 2)}): it has {few([*tensors] or ['none'], 3)}, "
                         "another network's, of which nothing can be taken over")
    if wrong := faults(own, {name: value for name, value in chosen.items() if value is not None}):
        fits = _fitting(found, own)
        raise InputError(f"{source}: its weights do not fit this encoder: {fits} of {len(own)} "
                         f"tensors do ({'; '.join(wrong)}); give those of an encoder made with the "
                         "same LEVELS, FILTERS and channels, or BLOCKS and GROWTH")
    left = [name for name in tensors if not name.startswith(prefix)
            or renamed({name: tensors[name]}, prefix).keys().isdisjoint(own)]
    said = f"all {len(own)} tensors found" + (f", named {prefix}..." if prefix else "") + (
        f"; left out: {few(left, 3)}" if left else "") + (
        "; images are 0 to 1 here, which weights that expect them less ImageNet's mean see as "
        "others (the arm imagenet converts them)" if "classifier.weight" in left else "")
    return {name: value for name, value in chosen.items() if value is not None}, said


def renamed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those behind a prefix, without it, by today's names of a DenseNet's layers."""
    return {OLD.sub(r"\1\2", name[len(prefix):]): value for name, value in tensors.items()
            if name.startswith(prefix)}


def _fitting(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    return sum(name in found and found[name].shape == value.shape for name, value in own.items())
