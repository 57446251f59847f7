"""Saving and loading training state and encoders; tensors and plain values only; what goes on."""

import errno
import hashlib
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from common.errors import InputError, few

LAST = "last"  # name of the layer of a decoder that is always new


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that ``path`` is at every moment absent, old or new, never half.

    Its tensors lie on the CPU, so that it loads where there is no GPU.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(tree_map_only(Tensor, Tensor.cpu, dict(state)), partial)
        os.replace(partial, path)
    except RuntimeError as error:  # torch's word for a disk that takes no more
        free = shutil.disk_usage(path.parent).free
        raise OSError(errno.ENOSPC, f"cannot be written ({free / 1e9:.2f} GB are free: "
                      f"{str(error).splitlines()[0][:80]})", str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read a checkpoint; InputError naming the file if it is truncated or not one of ours."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile,
            KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable checkpoint ({reason[:120]}); move it away and "
                         "start the same command again") from None


def load_into(module: nn.Module, path: Path) -> None:
    """Load a file of weights into ``module``; every key must be there and fit, none is dropped."""
    fit(module, load(path), path)


def fit(module: nn.Module, state: Any, source: Path | str) -> None:
    """Load weights into ``module``; InputError naming what is missing, unexpected or misshapen."""
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{source}: not a mapping of names to tensors; save encoder.state_dict()")
    if found := faults(module.state_dict(), state):
        raise InputError(f"{source}: its weights do not fit this encoder ({'; '.join(found)}); "
                         "give those of a bare encoder, made with the same LEVELS, FILTERS and "
                         "channels, or BLOCKS and GROWTH")
    module.load_state_dict(state, strict=True)


def faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What of ``state`` is missing, unexpected or of another shape than ``own``, in words."""
    kinds = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [f"{name} {list(state[name].shape)} for {list(own[name].shape)}"
                             for name in own if name in state
                             and state[name].shape != own[name].shape]}
    return [f"{kind}: {few(names, 3)}" for kind, names in kinds.items() if names]


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers, safe from later steps."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and values, 16 hex digits; independent of file format and device."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        values = state[name].detach().cpu().contiguous().flatten()
        sha.update(values.view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return sha.hexdigest()[:16]


def handed_on(network: nn.Module, *, decoder: bool = False) -> list[nn.Module]:
    """The parts of a network that a pretraining may hand on: its encoder, and its decoder.

    The last layer of a decoder is never handed on: what it answers is another task's.
    """
    assert isinstance(network.encoder, nn.Module)
    if not decoder:
        return [network.encoder]
    assert isinstance(network.decoder, nn.Module)
    return [network.encoder, *(part for name, part in network.decoder.named_children()
                               if name != LAST)]
