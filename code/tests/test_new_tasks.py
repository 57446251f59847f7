"""A task is one class and its name: two of a few lines each, trained and drawn by exp.py itself.

One reconstructs: a decoder, no score of a guess. One compares crops, and averages its weights.
"""

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from commands import TINY, Result, alone, call
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from common.files import read_json
from common.machine.devices import send
from common.runs import checkpoint, encoders, stages
from common.runs.records import validations
from common.runs.stages import load_cases
from common.runs.study import Study
from common.runs.training import Fit
from common.schedule import grid
from common.settings import from_flags
from common.tasks.contract import Batch, Parts, Pretext
from common.tasks.heads import dense
from common.tasks.siamese import EncoderDecoder, Nested

CPU = torch.device("cpu")


class Filling(Pretext):
    """What was in the half that is blank?"""

    name = "filling"
    batch_size, lr, steps, schedule = 3, 2e-3, 8, "cosine"
    decodes, joins = True, False

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Each image without its first or its second half."""
        first = send(torch.rand(len(batch.cases), generator=rng) < 0.5, batch.device)
        half = torch.arange(self.side, device=batch.device) < self.side // 2
        kept = (half != first[:, None]).view(len(first), *(1,) * (batch.images.dim() - 2), -1)
        return (batch.images * kept)[:, None], batch.images[:, None]

    def network(self, parts: Parts) -> nn.Module:
        """An encoder and a decoder to as many channels as there are."""
        return EncoderDecoder(parts.encoder, parts.decoder(parts.views.shape[2]))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared difference."""
        return F.mse_loss(outputs.float(), targets)

    def pictures(self, views: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Side by side."""
        return torch.cat([views, outputs, targets], dim=1)


class Twins(Pretext):
    """Which other crop of the batch is of the same image?"""

    name = "twins"
    batch_size, lr, steps = 4, 1e-3, 6
    joins = False

    def __init__(self, size: int, batch_size: int = 0) -> None:
        super().__init__(size // 2, batch_size)
        self.chance = {"found": 1 / self.batch_size}

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Two corners of each image."""
        views = []
        for _ in range(2):
            cut = batch.images
            for axis in range(2, cut.dim()):
                low = int(torch.randint(cut.shape[axis] - self.side + 1, (), generator=rng))
                cut = cut.narrow(axis, low, self.side)
            views.append(cut)
        own = torch.arange(len(batch.cases))
        return torch.stack(views, dim=1), send(own, batch.device)

    def head(self, widths: Any) -> nn.Module:
        """A code of eight numbers, and a moving average of what makes it."""
        return Averaged(sum(widths))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy over the second crops of the batch."""
        return F.cross_entropy(self._similar(outputs), targets)

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Whether the own second crop is the most similar."""
        return {"found": (self._similar(outputs).argmax(1) == targets).double()}

    def after_step(self, model: nn.Module) -> None:
        """Move the average."""
        head: Any = model.head
        head.slow.lerp_(head.fast.weight.detach(), 0.5)
        head.moved += 1

    def _similar(self, outputs: Tensor) -> Tensor:
        one, other = F.normalize(outputs.float(), dim=2).unbind(1)
        return one @ other.T / 0.2


class Averaged(nn.Module):
    """A dense layer and its average."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.fast = dense(inputs, 8)
        self.register_buffer("slow", self.fast.weight.detach().clone())
        self.register_buffer("moved", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor) -> Nested:
        """(B, 2, F) -> (B, 2, 8)."""
        return self.fast(features)


class Trial(NamedTuple):
    tree: str
    result: Result
    folder: Path  # of the data set's records
    study: Study
    run: Any      # the command once more, with other flags


@pytest.fixture(scope="module", params=["3d", "2d"])
def trial(request: pytest.FixtureRequest, scans: Path, photographs: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Both tasks beside the baseline, and what each allows behind an @, by the user's command."""
    tree, folder = request.param, tmp_path_factory.mktemp("new")
    data = {"3d": scans, "2d": photographs}[tree]
    arms = ["filling", "filling@shuffled", "twins", "twins@shuffled"]
    large = ["--resolution", 64] if tree == "2d" else []  # half of it is a crop
    if tree == "3d":
        arms += ["filling@decoder", "filling@decoder@shuffled", "oracle@decoder"]
    flags = ["--data", data, "--results", folder / "r", "--cache", folder / "c", *TINY[tree],
             *large, "--finetune-epochs", 2, "--warmup-epochs", 1, "--validations", 1,
             "--device", "cpu", "--workers", 1, "--fractions", 100, "--seeds", 0,
             "--pretext-epochs", 50]
    with alone(tree):
        exp = importlib.import_module("exp")
    with pytest.MonkeyPatch.context() as patch:
        for task in (Filling, Twins):
            patch.setitem(exp.pretext.PRETEXTS, task.name, task)

        def run(*more: Any) -> Result:
            return call(f"{tree}/exp.py", *flags, *more)
        result = run("--tasks", "baseline", *arms)
        settings = from_flags(vars(exp), [str(flag) for flag in (*flags, "--tasks", *arms)])
        study = exp.make_study(settings, "float32", grid.check(settings, exp.TREE))
        yield Trial(tree, result, next((folder / "r" / tree).iterdir()), study, run)


def test_a_new_task_is_trained_and_drawn(trial: Trial, tmp_path: Path) -> None:
    assert trial.result.returncode == 0, trial.result.stderr
    assert "filling/seed0: loss" in trial.result.stdout  # nothing to compare with
    drawn = call(f"{trial.tree}/graph.py", "--results", trial.folder.parents[1])
    assert drawn.returncode == 0, drawn.stderr
    table = next(trial.folder.parents[1].glob("train_*.md")).read_text()
    assert "| filling | 100 % |" in table and "| twins | found |" in table
    assert (trial.folder.parents[1] / f"views_{trial.folder.name}.png").exists()


def test_what_a_reconstruction_answers_on_held_out_images_is_kept_and_drawn(trial: Trial) -> None:
    kept = dict(np.load(trial.folder / "pretrain/filling/seed0/answers.npz"))
    answered, held_out = kept["images"], trial.study.part(0).val
    assert set(kept["ids"].tolist()) <= set(held_out)
    assert not (trial.folder / "pretrain/twins/seed0/answers.npz").exists()
    assert answered.shape[0] == 2 and answered.shape[2] == 3 * answered.shape[1]  # three pictures
    with np.load(trial.folder / "views.npz") as shown:
        assert np.array_equal(shown["views filling"], answered)
        assert "held out" in str(shown["captions filling"][0])


def test_each_task_has_its_own_batch_rate_steps_and_schedule(trial: Trial) -> None:
    recipes = {name: trial.study.pretrain_recipe(trial.study.task(name), 0)
               for name in ("filling", "twins")}
    assert recipes["filling"].batch_size == 3 and recipes["filling"].lr == 2e-3
    assert recipes["filling"].schedule == "cosine" and recipes["filling"].patience is None
    assert recipes["twins"].schedule == "constant" and recipes["twins"].patience == 50
    for name, task in (("filling", Filling), ("twins", Twins)):
        recipe, own = recipes[name], trial.study.pretrain_run(name, 0).identity["own"]
        steps = recipe.epochs * recipe.steps
        assert task.steps <= steps < task.steps + recipe.steps  # whole epochs
        assert read_json(trial.folder / f"pretrain/{name}/seed0/scores.json")["steps"] == steps
        assert own == {"batch": task.batch_size, "lr": task.lr, "steps": task.steps,
                       "schedule": task.schedule}


def test_constants_that_are_not_zero_override_a_tasks_own(trial: Trial) -> None:
    settings = type(trial.study.settings)(**{**vars(trial.study.settings), "PRETEXT_LR": 0.5,
                                             "PRETEXT_STEPS": 1, "PRETEXT_BATCH_SIZE": 2,
                                             "PRETEXT_SCHEDULE": "constant"})
    study = replace(trial.study, settings=settings)
    recipe = study.pretrain_recipe(study.task("filling"), 0)
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.schedule, recipe.patience) == (
        0.5, 2, 1, "constant", 50)
    assert study.task("twins").chance == {"found": 1 / 2}  # of the batch that is trained with


def test_without_the_score_of_a_guess_nothing_is_compared(trial: Trial) -> None:
    scores = read_json(trial.folder / "pretrain/filling/seed0/scores.json")
    assert scores["chance"] == {} and scores["score"] == {} and scores["loss"] > 0
    twins = read_json(trial.folder / "pretrain/twins/seed0/scores.json")
    assert twins["chance"] == {"found": 1 / 4} and 0 <= twins["score"]["found"] <= 1
    assert validations(trial.folder / "pretrain/filling/seed0", "loss")


def test_what_follows_a_step_is_done_after_every_step(
        trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[dict[str, Tensor]] = []
    plain = stages.finish_pretraining

    def finished(study: Study, fit: Any) -> str:
        kept.append({name: value.clone() for name, value in fit.model.state_dict().items()})
        return plain(study, fit)
    monkeypatch.setitem(stages.STAGES, "pretrain", (stages.pretraining, finished))
    run = type(trial.study.pretrain_run("twins", 0))(
        tmp_path / "pretrain/twins/seed0", trial.study.pretrain_run("twins", 0).identity)
    run.start({})
    stages.train(trial.study, run, load_cases(trial.study, CPU), lambda steps: None)
    assert int(kept[0]["head.moved"]) == run.scores()["steps"]
    assert not torch.equal(kept[0]["head.slow"], kept[0]["head.fast.weight"])


def test_the_encoder_is_handed_on_and_where_it_is_asked_for_the_decoder(trial: Trial) -> None:
    study, cases = trial.study, load_cases(trial.study, CPU)
    folder = trial.folder / "pretrain/filling/seed0"
    assert (folder / "encoder.pt").exists()
    assert (folder / "decoder.pt").exists() == (trial.tree == "3d")

    def started(arm: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = study.networks.downstream(study.networks.encoder())
        encoders.load_start(study, model, arm, 0, cases)
        return {name: value.clone() for name, value in model.state_dict().items()}
    fresh, plain = started("baseline"), started("filling")
    learnt = {f"encoder.{name}": value
              for name, value in checkpoint.load(folder / "encoder.pt").items()}
    assert all(torch.equal(plain[name], learnt.get(name, fresh[name])) for name in plain)
    if trial.tree == "2d":
        return
    learnt |= {f"decoder.{name}": value
               for name, value in checkpoint.load(folder / "decoder.pt").items()}
    whole = started("filling@decoder")
    assert all(torch.equal(whole[name], learnt.get(name, fresh[name])) for name in whole)
    last = {name for name in whole if name not in learnt}
    assert last == {"decoder.last.weight", "decoder.last.bias"}  # always new
    shuffled = started("filling@decoder@shuffled")
    for name, weight in shuffled.items():
        if name in last:
            assert torch.equal(weight, fresh[name])
        elif "running" not in name and "tracked" not in name:
            assert torch.equal(weight.flatten().sort()[0], learnt[name].flatten().sort()[0])
    moved = "decoder.blocks.0.0.weight"
    assert not torch.equal(shuffled[moved], learnt[moved])


def test_the_decoders_statistics_are_those_of_whole_images(trial: Trial) -> None:
    if trial.tree == "2d":
        pytest.skip("what grades has no decoder")
    folder, cases = trial.folder / "pretrain/filling/seed0", load_cases(trial.study, CPU)
    network: Any = trial.study.networks.downstream(trial.study.networks.encoder())
    network.encoder.load_state_dict(checkpoint.load(folder / "encoder.pt"))
    network.decoder.load_state_dict(checkpoint.load(folder / "decoder.pt"), strict=False)
    seen: list[Tensor] = []
    norm = network.decoder.blocks[0][2]
    norm.register_forward_pre_hook(lambda layer, given: seen.append(given[0].detach()))
    images = cases.batch(cases.rows(trial.study.pool(0)), labelled=False).images
    network.eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.train()  # each batch by its own, as the statistics are taken
    kept = norm.running_mean.clone()
    with torch.inference_mode():
        network(images)
    spread = seen[0].transpose(0, 1).flatten(1).std(1)
    assert bool(((kept - seen[0].mean((0, 2, 3, 4))).abs() < 0.03 * spread + 1e-6).all())


def test_arms_of_one_task_share_its_pretraining(trial: Trial) -> None:
    wanted = ["filling", "twins", *(["oracle"] if trial.tree == "3d" else [])]
    assert sorted(path.name for path in (trial.folder / "pretrain").iterdir()) == sorted(wanted)
    starts = {arm: read_json(trial.folder / f"finetune/{arm}/fraction100/seed0/config.json")[
        "identity"]["encoder"] for arm in ("filling", "filling@shuffled")}
    assert starts["filling@shuffled"] == {**starts["filling"], "shuffled": True}
    if trial.tree == "3d":
        own = read_json(trial.folder / "finetune/filling@decoder/fraction100/seed0/config.json")
        first, _, second = own["identity"]["encoder"]["weights"].partition("+")
        assert first == starts["filling"]["weights"] and len(second) == 16


def test_with_the_decoder_it_too_is_frozen_first_and_has_the_starts_rate(trial: Trial) -> None:
    if trial.tree == "2d":
        pytest.skip("what grades has no decoder")
    study, cases = trial.study, load_cases(trial.study, CPU)
    for arm, parts in (("filling", {"encoder"}), ("filling@decoder", {"encoder", "ups", "blocks"})):
        model = study.networks.downstream(study.networks.encoder())
        recipe = replace(study.finetune_recipe(arm, 100, 0), start_lr_factor=0.25)
        fit = Fit(model, study.downstream(), cases, train=[0, 1], val=[2, 3],
                  run=study.finetune_run(arm, 100, 0), recipe=recipe)
        slow, rest = fit.optimiser.param_groups
        assert (slow["lr"], rest["lr"]) == (recipe.lr / 4, recipe.lr)
        fit._begin(1)
        frozen = {name.split(".")[1] if name.startswith("decoder.") else "encoder"
                  for name, weight in model.named_parameters() if not weight.requires_grad}
        assert frozen == parts and len(slow["params"]) == sum(
            not weight.requires_grad for weight in model.parameters())
        fit._begin(2)
        assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(("arm", "message"), [
    ("filling+rotation", "filling stands alone"), ("twins+rotation", "twins stands alone"),
    ("twins@decoder", "decoder"), ("filling@stages", "filling has no head")])
def test_what_a_task_cannot_do_is_one_line(trial: Trial, arm: str, message: str) -> None:
    result = trial.run("--tasks", "baseline", arm)
    assert result.returncode == 2 and message in result.stderr and len(result.lines) == 1


def test_in_2d_there_is_no_decoder_to_hand_on(trial: Trial) -> None:
    if trial.tree == "2d":
        for arm in ("filling@decoder", "oracle@decoder"):
            result = trial.run("--tasks", "baseline", arm)
            assert result.returncode == 2 and "has no decoder" in result.stderr


def test_a_reconstruction_is_learnt_by_both_networks(trial: Trial) -> None:
    torch.manual_seed(0)
    task, cases = trial.study.task("filling"), load_cases(trial.study, CPU)
    rows = cases.rows(trial.study.pool(0))[:3]
    views, targets = task.prepare(cases.batch(rows, labelled=False), Generator().manual_seed(0),
                                  training=True)
    encoder = trial.study.networks.encoder()
    network = task.network(Parts(encoder, lambda outputs: trial.study.networks.decoder(
        encoder, outputs), lambda: nn.Identity(), views))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = task.loss(network(views), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], json.dumps(losses[::10])
