"""SimCLR and VICReg: which crops, which loss, how far a guess gets, and codes that collapse."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import RunFailed
from common.runs.records import SilentRun
from common.runs.training import Fit, Recipe
from common.tasks import augment, contrast
from common.tasks.batches import Cases, generator
from common.tasks.contract import Batch
from common.tasks.contrast import Contrast, VarianceCovariance


def codes_of(cases: int, width: int = 16) -> Tensor:
    return torch.randn(cases, 2, width, generator=generator(0, "codes"))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_crops_show_at_least_three_tenths_and_stay_within_the_image(dimensions: int) -> None:
    matrix, offset = augment.crops(2000, dimensions, 0.3, generator(0, "x"))
    share = torch.linalg.det(matrix)
    assert float(share.min()) == pytest.approx(0.3, abs=0.01) and float(share.max()) <= 1.0
    assert float(share.mean()) == pytest.approx(0.65, abs=0.02)
    reach = offset.abs() + matrix.diagonal(dim1=1, dim2=2)
    assert float(reach.max()) <= 1 + 1e-6 and float(reach.max()) > 0.98
    assert abs(float(offset.mean())) < 0.01


def test_a_crop_is_the_part_of_the_image_it_says() -> None:
    ramp = torch.linspace(-1, 1, 65)[None, None, None].expand(1, 1, 65, 65).contiguous()
    matrix, offset = torch.eye(2)[None] * 0.5, torch.tensor([[0.25, 0.0]])
    part = augment.resample(ramp, matrix, offset)[0, 0, 32]
    assert part[32].item() == pytest.approx(0.25 * 65 / 64, abs=0.01)  # its centre
    assert (part[-1] - part[0]).item() == pytest.approx(1.0, abs=0.03)  # half of the width
    plain = augment.resample(ramp, matrix)[0, 0, 32]
    assert plain[32].item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("tree", ["2d", "3d"])
def test_views_are_two_crops_of_each_case_drawn_apart(tree: str) -> None:
    made = importlib.import_module(f"{tree}.pretext").PRETEXTS["simclr"](32)
    space = (32,) * int(tree[0])
    image = torch.rand(1, 1, *space, generator=generator(0, "image"))
    views, _ = made.prepare(Batch([*image, image[0] * 0.5], None, [0, 1]), generator(0, "x"),
                            training=True)
    assert views.shape == (2, 2, 1, *space) and not torch.equal(views[:, 0], views[:, 1])
    for rows in ([0], [0, 0]):
        with pytest.raises((ValueError, AssertionError)):
            made.prepare(Batch([image[0]] * len(rows), None, rows), generator(0, "x"),
                         training=True)


def test_nt_xent_is_that_of_the_paper() -> None:
    codes = codes_of(4)
    flat = F.normalize(codes, dim=2)
    every = [flat[case, view] for view in range(2) for case in range(4)]
    losses = []
    for i, one in enumerate(every):
        j = (i + 4) % 8
        others = sum(torch.exp(one @ every[k] / 0.2) for k in range(8) if k != i)
        losses.append(-torch.log(torch.exp(one @ every[j] / 0.2) / others))
    assert Contrast(32).loss(codes, torch.arange(4)).item() == pytest.approx(
        torch.stack(losses).mean().item(), rel=1e-5)


def test_vicreg_is_that_of_the_paper() -> None:
    codes = codes_of(6)
    parts = []
    for view in range(2):
        one = codes[:, view].double().numpy()
        below = np.maximum(0, 1 - np.sqrt(one.var(0, ddof=1) + 1e-4)).mean()
        table = np.cov(one.T)
        parts.append((below, ((table**2).sum() - (np.diag(table)**2).sum()) / 16))
    (v1, c1), (v2, c2) = parts
    like = float(((codes[:, 0] - codes[:, 1]) ** 2).mean())
    assert VarianceCovariance(32).loss(codes, torch.arange(6)).item() == pytest.approx(
        25 * like + 25 * (v1 + v2) / 2 + c1 + c2, rel=1e-4)


@pytest.mark.parametrize("make", [Contrast, VarianceCovariance])
def test_a_guess_finds_the_partner_as_often_as_said(make: Callable[..., Any]) -> None:
    task = make(32, 8)
    assert task.chance == {"accuracy": 1 / 15}
    drawn = torch.randn(8, 2, 64, generator=generator(0, "codes"))
    scores = task.score(drawn, torch.arange(8))
    found = task.summarise({key: value.numpy() for key, value in scores.items()})
    assert task.chance_of(found) == {"accuracy": 1 / 15}
    many = [task.score(torch.randn(8, 2, 64, generator=generator(seed, "c")), torch.arange(8))[
        "accuracy"] for seed in range(300)]
    assert float(torch.cat(many).mean()) == pytest.approx(1 / 15, abs=0.01)
    same = drawn[:, :1].expand(-1, 2, -1) + 0.01 * drawn
    assert task.score(same, torch.arange(8))["accuracy"].tolist() == [1.0] * 8
    fewer = task.score(drawn[:3], torch.arange(3))  # a last batch of three: of five others
    assert fewer["guess"].tolist() == [1 / 5] * 3
    assert task.chance_of(task.summarise({key: value.numpy() for key, value in fewer.items()})) == {
        "accuracy": pytest.approx(1 / 5)}


def figures_of(codes: Tensor) -> dict[str, Any]:
    task = Contrast(32)
    scores = task.score(codes, torch.arange(len(codes)))
    return task.summarise({key: value.numpy() for key, value in scores.items()})


def test_spread_and_rank_tell_codes_that_are_one_or_lie_on_a_line() -> None:
    task, rng = Contrast(32), generator(0, "codes")
    sound = figures_of(torch.randn(64, 2, 32, generator=rng))
    assert sound["spread"] == pytest.approx(1.0, abs=0.05) and sound["rank"] > 25
    assert task.collapsed(sound) == ""
    constant = figures_of(torch.ones(64, 2, 32) + 1e-4 * torch.randn(64, 2, 32, generator=rng))
    assert constant["spread"] < 0.001 and "collapsed" in task.collapsed(constant)
    line = figures_of(torch.randn(64, 1, 1, generator=rng) * torch.randn(32, generator=rng) +
                      torch.zeros(64, 2, 32))
    assert line["spread"] > 0.5 and line["rank"] < 1.1 and "collapsed" in task.collapsed(line)
    assert contrast.effective_rank(np.zeros((5, 3))) == 1.0
    few = figures_of(torch.randn(2, 1, 32, generator=rng).expand(-1, 2, -1).repeat(4, 1, 1))
    assert few["rank"] < 1.1 and few["spread"] > 0.3  # two cases told apart: all that can be
    assert task.collapsed(few) == ""
    assert np.isnan(contrast.effective_rank(np.full((5, 3), np.inf)))  # the loss says it


def test_effective_rank_is_the_exponential_of_the_entropy() -> None:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(50, 4)))
    basis -= basis.mean(0)
    codes = np.linalg.qr(basis)[0] * [4, 4, 2, 2] @ np.eye(4, 20)
    shares = np.array([4, 4, 2, 2]) / 12
    assert contrast.effective_rank(codes) == pytest.approx(
        np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


@pytest.mark.parametrize("said", ["its codes have collapsed", ""])
def test_a_run_whose_codes_have_collapsed_stops_with_a_line(tmp_path: Path, said: str) -> None:
    class Codes(Contrast):
        def changed(self, images: Tensor, rng: Any) -> Tensor:
            return images

        def collapsed(self, figures: Any) -> str:
            asked.append(figures)
            return said

    asked: list[Any] = []
    images = torch.rand(8, 1, 4, 4, generator=generator(0, "images"))
    model: Any = torch.nn.Module()
    model.encoder = torch.nn.Flatten(2)
    model.layer = torch.nn.Linear(16, 8)
    model.forward = lambda views: model.layer(model.encoder(views))
    task = Codes(4, 2)
    recipe = Recipe(seed=0, epochs=10, steps=2, batch_size=2, lr=1e-3)
    fit = Fit(model, task, Cases(images, None, list("abcdefgh"), torch.device("cpu")),
              train=[0, 1, 2, 3], val=[4, 5, 6, 7],
              run=SilentRun(tmp_path / "pretrain/simclr/seed0",
                            {"stage": "pretrain", "task": "simclr", "seed": 0}),
              recipe=recipe)
    fit._save_now_and_then = lambda: None  # type: ignore[method-assign]
    if not said:
        fit.epoch()
        assert len(asked) == 1 and set(asked[0]) >= {"spread", "rank", "accuracy"}
        return
    with pytest.raises(RunFailed, match="collapsed at epoch 1, step 2.*PRETEXT_LR"):
        fit.epoch()
    asked.clear()
    longer = SimpleNamespace(**{**vars(recipe), "epochs": 100})
    fit.recipe = longer  # type: ignore[assignment]
    fit.validate(19, 10)  # a tenth of 200 steps is not done: not asked yet
    assert not asked
