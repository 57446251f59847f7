"""What a network starts from: pretrained or shuffled weights, or weights from elsewhere.

From elsewhere: --encoder NAME=file.pt, or a library's. Every key must be there and fit; the
weights, not the file's name, are part of a run's identity. Beside encoder.pt lies encoder.json:
digests of the images it has learnt from and was chosen on. Where they are among the held-out cases
the arm is refused; without such a file nobody knows.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from common.errors import InputError, few
from common.files import ROOT, Json, read_json, write_json
from common.runs import checkpoint
from common.runs.training import Cases, autocast, even_chunks, generator
from common.settings import Settings
from common.tasks.siamese import batch_norms

if TYPE_CHECKING:
    from common.runs.study import Study

STATISTICS_CASES = 512  # whole images, at most, that set BatchNorm's statistics
STATISTICS_BATCH = 8   # of them at a time; without a gradient a ninth of a training step's memory


def place(study: "Study", model: nn.Module, device: torch.device) -> None:
    """Move a model to its device, in the memory layout asked for."""
    model.to(device)
    if study.settings.LAYOUT == "channels_last":
        model.to(memory_format=study.channels_last)


def for_whole_images(study: "Study", trained: nn.Module, cases: Cases, seed: int) -> nn.Module:
    """A copy of an encoder whose BatchNorm has the running statistics of whole images.

    Those of the views (patches, turned images) would normalise wrongly what a frozen encoder is
    shown in finetuning. One pass over the pool, or STATISTICS_CASES of it, without dropout.
    Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, sections 3 and 5.
    """
    encoder = study.make_encoder()  # with plain layers, where the trained one's span ranks
    encoder.load_state_dict(trained.state_dict())
    place(study, encoder, cases.device)
    encoder.eval()
    for layer in batch_norms(encoder):
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    rows = cases.rows(study.pool)
    order = torch.randperm(len(rows), generator=generator(seed, "statistics")).tolist()
    chosen = [rows[index] for index in order[:STATISTICS_CASES]]
    with torch.inference_mode():
        for chunk in even_chunks(chosen, STATISTICS_BATCH):
            images = cases.batch(chunk, labelled=False).images  # not within autocast: it stacks
            with autocast(cases.device, study.precision):
                encoder(images)
    return encoder


def shuffle(encoder: nn.Module, seed: int) -> None:
    """Permute the entries of every weight tensor: the same values, and nothing of what was learnt.

    The control of an arm <task>@shuffled; BatchNorm's statistics have to be taken anew after it.
    """
    rng = generator(seed, "shuffled")
    with torch.no_grad():
        for weight in encoder.parameters():
            order = torch.randperm(weight.numel(), generator=rng).to(weight.device)
            weight.copy_(weight.flatten()[order].view(weight.shape))

WANTED = "--encoder needs an encoder's weights, as pretrain/<task>/seed0/encoder.pt holds them"


@dataclass(frozen=True)
class External:
    """An encoder that this project did not pretrain; ``load`` may raise InputError."""

    identity: Json
    load: Callable[[], Mapping[str, Tensor]]


def named(settings: Settings, taken: Collection[str]) -> dict[str, Path]:
    """Read ENCODER = ["NAME=file.pt", ...]; names must be new, fit for a folder, and join TASKS."""
    files: dict[str, Path] = {}
    for entry in settings.ENCODER:
        name, equals, file = entry.partition("=")
        if not equals or not file or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise InputError(f"ENCODER: {entry!r} found; expected NAME=file.pt, the name of "
                             "letters, digits, '.', '_' and '-'")
        if name in taken or name in files:
            raise InputError(f"ENCODER: {name!r} is another arm's name already; choose a new one")
        files[name] = ROOT / file
    settings.TASKS = [*settings.TASKS, *(name for name in files if name not in settings.TASKS)]
    return files


def from_files(files: Mapping[str, Path],
               make_encoder: Callable[[], nn.Module]) -> dict[str, External]:
    """Check every file against the encoder before anything is trained."""
    arms = {}
    for name, file in files.items():
        if not file.is_file():
            raise InputError(f"{file}: no such file; {WANTED}")
        try:
            state = checkpoint.load(file)
        except InputError:
            raise InputError(f"{file}: not a file of weights that torch.load can read safely; "
                             f"{WANTED}") from None
        checkpoint.fit(make_encoder(), state, file)
        digest = checkpoint.weights_digest(state)
        arms[name] = External({"file": digest}, partial(_load_same, file, digest))
    return arms


def write_origin(encoder: Path, dataset: str, *, learnt_from: Sequence[str],
                 chosen_on: Sequence[str]) -> None:
    """Write down beside an encoder which images, by their digests, it has seen."""
    write_json(_origin(encoder), {"dataset": dataset, "learnt from": sorted(learnt_from),
                                  "chosen on": sorted(chosen_on)})


def _origin(encoder: Path) -> Path:
    return encoder.with_suffix(".json")


def check_origins(files: Mapping[str, Path], pixels: Mapping[str, str], *, val: Sequence[str],
                  test: Sequence[str]) -> None:
    """Check that no encoder has seen a test case, nor has learnt from a validation case.

    ``pixels`` maps case ids to digests of their images. Raises InputError naming file and cases; an
    encoder whose images are unknown is a warning.
    """
    for name, file in files.items():
        origin = _origin(file)
        if not file.is_file():  # from_files() says so
            continue
        if not origin.exists():
            print(f"warning: {name}: no {origin.name} beside {file}, so nobody knows whether it "
                  "has seen the test cases; the arm's scores are honest only if it has not")
            continue
        seen = read_json(origin)
        try:
            learnt_from, chosen_on = set(seen["learnt from"]), set(seen["chosen on"])
        except (TypeError, KeyError):
            raise InputError(f"{origin}: not the record of an encoder's images; restore it, or "
                             "move it away if you know that no test case was seen") from None
        for cases, known, what in ((test, learnt_from | chosen_on, "test"),
                                   (val, learnt_from, "validation")):
            if leaked := [case for case in cases if pixels[case] in known]:
                raise InputError(f"{file}: this encoder has seen {len(leaked)} of the {what} cases "
                                 f"({few(leaked, 3)}); its scores would not be honest. Train one "
                                 "without them, or leave it out")


def _load_same(file: Path, digest: str) -> Mapping[str, Tensor]:
    """The weights that the run's identity names; InputError if the file has other ones by now."""
    state: Mapping[str, Tensor] = checkpoint.load(file)
    if checkpoint.weights_digest(state) != digest:
        raise InputError(f"{file}: has other weights than when the command was started; start it "
                         "again")
    return state
