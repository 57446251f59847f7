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

from common import arms
from common.data.cache import Cache
from common.data.splits import Splits
from common.errors import InputError, RunFailed, few
from common.files import ROOT, Json, read_json, write_json
from common.runs import checkpoint, elsewhere
from common.runs.checkpoint import LAST, handed_on
from common.runs.records import Run
from common.runs.training import autocast
from common.settings import Settings
from common.tasks.batches import Cases, even_chunks, generator
from common.tasks.siamese import batch_norms

if TYPE_CHECKING:
    from common.runs.study import Study

STATISTICS_CASES = 512  # whole images, at most, that set BatchNorm's statistics
STATISTICS_BATCH = 8   # of them at a time; without a gradient a ninth of a training step's memory
PARTS = ("encoder", "decoder")  # what may be handed on, and the names of its files
WANTED = "--encoder needs an encoder's weights, as pretrain/<task>/seed0/encoder.pt holds them"


def place(study: "Study", model: nn.Module, device: torch.device) -> None:
    """Move a model to its device, in the memory layout asked for."""
    model.to(device)
    if study.settings.LAYOUT == "channels_last":
        model.to(memory_format=study.networks.channels_last)


def shared(trained: nn.Module, downstream: nn.Module) -> dict[str, Tensor]:
    """The weights of a pretraining's network that the downstream network has too, by name.

    Those of the encoder, and of a decoder but for its last layer.
    """
    wanted = downstream.state_dict()
    return {name: tensor for name, tensor in trained.state_dict().items()
            if name.split(".")[0] in PARTS and name.split(".")[1] != LAST and name in wanted}


def for_whole_images(study: "Study", weights: Mapping[str, Tensor], cases: Cases,
                     seed: int, *, pool: int = 100) -> dict[str, Tensor]:
    """The weights handed on, their BatchNorm with the running statistics of whole images.

    Those of the views (patches, turned images) would normalise wrongly what a frozen encoder is
    shown in finetuning. One pass over ``pool`` percent of the seed's pool, or STATISTICS_CASES of
    them, without dropout.
    Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, sections 3 and 5.
    """
    network = study.networks.downstream(study.networks.encoder())
    network.load_state_dict(weights, strict=False)  # a decoder's last layer has none
    if all(name.split(".")[0] == "encoder" for name in weights):
        assert isinstance(network.encoder, nn.Module)
        seen: nn.Module = network.encoder
    else:
        seen = network
    place(study, seen, cases.device)
    seen.eval()
    for layer in batch_norms(seen):
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    rows = cases.rows(study.pool(seed, pool))
    order = torch.randperm(len(rows), generator=generator(seed, "statistics")).tolist()
    chosen = [rows[index] for index in order[:STATISTICS_CASES]]
    check_rows(study, cases, seed, train=chosen)
    with torch.inference_mode():
        for chunk in even_chunks(chosen, STATISTICS_BATCH):
            images = cases.batch(chunk, labelled=False).images  # not within autocast: it stacks
            with autocast(cases.device, study.precision):
                seen(images)
    state = network.state_dict()
    return {name: state[name].detach().cpu().contiguous() for name in weights}


def check_rows(study: "Study", cases: Cases, seed: int, *, train: Sequence[int],
               val: Sequence[int] = ()) -> None:
    """Check, at the last moment and on rows, that nothing held out for a seed is learnt from.

    No row of ``train`` may be a validation or test case, no row of ``val`` a test case. Raises
    RunFailed naming them.
    """
    part = study.part(seed)
    test, chooses = set(cases.rows(part.test)), set(cases.rows(part.val))
    for rows, held_out, what in ((train, test | chooses, "learnt from"), (val, test, "chosen on")):
        if leaked := sorted(held_out & set(rows)):
            names = few([cases.ids[row] for row in leaked])
            raise RunFailed(f"seed {seed}, fold {part.fold}: {names}: held out, and would be "
                            f"{what}; no score would be honest. This is a defect of the program: "
                            "report it")


def keep(weights: Mapping[str, Tensor], run: Run) -> dict[str, str]:
    """Write encoder.pt, and decoder.pt where there is one; returns their digests."""
    digests = {}
    for part in PARTS:
        state = {name.removeprefix(f"{part}."): tensor for name, tensor in weights.items()
                 if name.startswith(f"{part}.")}
        if state:
            checkpoint.save(run.folder / f"{part}.pt", state)
            digests[part] = checkpoint.weights_digest(state)
    return digests


def load_start(study: "Study", model: nn.Module, arm: str, seed: int, cases: Cases, *,
               pool: int = 100) -> None:
    """Put the weights that an arm starts from into ``model``: from ``pool`` percent of the pool."""
    if arm in arms.FROM_SCRATCH:
        return
    name, decoder = arms.pretraining(arm), arms.hands_on_decoder(arm)
    first, *rest = handed_on(model, decoder=decoder)
    if name in study.external:
        checkpoint.fit(first, study.external[name].load(), name)
    else:
        run = study.pretrain_run(name, seed, pool=pool)
        checkpoint.load_into(first, run.encoder)
        if decoder:
            assert isinstance(model.decoder, nn.Module)
            checkpoint.load_into(nn.ModuleDict({part: module for part, module in
                                                model.decoder.named_children()
                                                if module in rest}), run.folder / "decoder.pt")
    if arms.is_shuffled(arm):
        shuffle([first, *rest], seed)
        names = [known for known, module in model.named_modules() if module in (first, *rest)]
        weights = {name: tensor for name, tensor in model.state_dict().items()
                   if any(name.startswith(f"{known}.") for known in names)}
        model.load_state_dict(for_whole_images(study, weights, cases, seed), strict=False)


def shuffle(parts: Sequence[nn.Module], seed: int) -> None:
    """Permute the entries of every weight tensor: the same values, and nothing of what was learnt.

    The control of an arm <task>@shuffled; BatchNorm's statistics have to be taken anew after it.
    """
    rng = generator(seed, "shuffled")
    with torch.no_grad():
        for weight in (weight for part in parts for weight in part.parameters()):
            order = torch.randperm(weight.numel(), generator=rng).to(weight.device)
            weight.copy_(weight.flatten()[order].view(weight.shape))


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


def from_files(files: Mapping[str, Path], make_encoder: Callable[[], nn.Module], cache: Cache,
               splits: Splits, *, seeds: Sequence[int]) -> dict[str, External]:
    """Check every file against the encoder, and what it has seen, before anything is trained.

    One encoder serves all seeds: it may have seen no test case of any.
    """
    folds = {part.fold: part.test for part in map(splits.of, seeds)}
    check_origins(files, {case: fact["pixels"] for case, fact in cache.facts.items()},
                  val=splits.val, test=[case for test in folds.values() for case in test])
    found = {}
    for name, file in files.items():
        if not file.is_file():
            raise InputError(f"{file}: no such file; {WANTED}")
        try:
            state = checkpoint.load(file)
        except InputError:
            raise InputError(f"{file}: not a file of weights that torch.load can read safely; "
                             f"{WANTED}") from None
        own = make_encoder().state_dict()
        weights, said = elsewhere.taken(state, own, file)
        print(f"encoder   {name}: {said}")
        digest = checkpoint.weights_digest(weights)
        found[name] = External({"file": digest}, partial(_load_same, file, make_encoder, digest))
    return found


def write_origin(encoder: Path, dataset: str, *, learnt_from: Sequence[str],
                 chosen_on: Sequence[str]) -> None:
    """Write down beside an encoder which images, by their digests, it has seen."""
    write_json(_origin(encoder), {"dataset": dataset, "learnt from": sorted(learnt_from),
                                  "chosen on": sorted(chosen_on)})


def _origin(encoder: Path) -> Path:
    return encoder.with_suffix(".json")


def seen_by(weights: Path) -> frozenset[str]:
    """Digests of the images that a network has learnt from or was chosen on; none if not known."""
    origin = _origin(weights)
    return frozenset[str]().union(*_images(origin)) if origin.exists() else frozenset()


def _images(origin: Path) -> tuple[set[str], set[str]]:
    """Digests of the images that were learnt from, and of those chosen on; InputError."""
    seen = read_json(origin)
    try:
        return set(seen["learnt from"]), set(seen["chosen on"])
    except (TypeError, KeyError):
        raise InputError(f"{origin}: not the record of an encoder's images; restore it, or "
                         "move it away if you know that no test case was seen") from None


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
        if not origin.exists() and (file.parent / "config.json").exists():
            raise InputError(f"{file}: of a run of this project, and no {origin.name} beside it "
                             "says which images it has seen; give a pretraining's encoder.pt, or "
                             "the best.pt of a finished run")
        if not origin.exists():
            print(f"warning: {name}: no {origin.name} beside {file}, so nobody knows whether it "
                  "has seen the test cases; the arm's scores are honest only if it has not")
            continue
        learnt_from, chosen_on = _images(origin)
        for cases, known, what in ((test, learnt_from | chosen_on, "test"),
                                   (val, learnt_from, "validation")):
            if leaked := [case for case in cases if pixels[case] in known]:
                raise InputError(f"{file}: this encoder has seen {len(leaked)} of the {what} cases "
                                 f"({few(leaked, 3)}); its scores would not be honest. Train one "
                                 "without them, or leave it out")


def _load_same(file: Path, make_encoder: Callable[[], nn.Module], digest: str
               ) -> Mapping[str, Tensor]:
    """The weights that the run's identity names; InputError if the file has other ones by now.

    Not handed a tensor: torch sends those to other processes by shared memory, a file each.
    """
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are not used
        own = make_encoder().state_dict()
    state, _ = elsewhere.taken(checkpoint.load(file), own, file)
    if checkpoint.weights_digest(state) != digest:
        raise InputError(f"{file}: has other weights than when the command was started; start it "
                         "again")
    return state
