"""The optimiser of a run: its rates and their schedule, its clipping, the gradient of a step."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import fit
from test_loop import RECIPE, TRAIN, VAL, Net, Watched, cases, fitted, run_in
from torch import Tensor, nn

from common.runs import records
from common.runs.training import Fit


def test_the_optimiser_is_fresh_where_the_encoder_starts_and_only_there(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, **k: made.append(k) or real(*a, **k))
    fitted(tmp_path, Watched(), replace(RECIPE, warmup=1))
    assert len(made) == 2 and {(k["lr"], k["eps"]) for k in made} == {(1e-2, 1e-7)}
    made.clear()
    fitted(tmp_path, Watched(), run=run_in(tmp_path, "b"))
    assert len(made) == 1



@pytest.mark.parametrize("factor", [1.0, 0.1, 0.0])
def test_the_encoder_has_its_own_rate(tmp_path: Path, factor: float) -> None:
    net = Net()
    start = {name: value.clone() for name, value in net.state_dict().items()}
    fitted(tmp_path, Watched(), replace(RECIPE, epochs=1, steps=1, start_lr_factor=factor), net)
    moved = {name: float((value - start[name]).abs().max())
             for name, value in net.state_dict().items()}
    assert moved["decoder.bias"] == pytest.approx(1e-2, rel=1e-3)  # Adam's first step is the rate
    assert moved["encoder.1.weight"] == pytest.approx(1e-2 * factor, rel=0.05, abs=1e-8)



@pytest.mark.parametrize("clip", [None, 1.0, 0.25])
def test_the_gradients_global_norm_is_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              clip: float | None) -> None:
    monkeypatch.setattr(torch.optim, "Adam",
                        lambda groups, lr, **_: torch.optim.SGD(groups, lr=lr))
    net = Net()
    start = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
    fitted(tmp_path, Watched(scale=1000.0),
           replace(RECIPE, epochs=1, steps=1, clip=clip, lr=1.0), net)
    moved = torch.cat([p.detach().flatten() for p in net.parameters()]) - start
    found = float(moved.norm())
    assert found > 10 if clip is None else found == pytest.approx(clip, rel=1e-3)



def test_every_step_has_the_gradient_of_its_own_batch(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "Adam",
                        lambda groups, lr, **_: torch.optim.SGD(groups, lr=lr))

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Identity(), nn.Linear(1, 1)
            nn.init.zeros_(self.decoder.weight)
            nn.init.zeros_(self.decoder.bias)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.decoder(x.flatten(1))
            return out
    net, task = Line(), Watched()
    fit(net, task, cases(), train=TRAIN, val=VAL, run=run_in(tmp_path), recipe=RECIPE,
        report=lambda steps: None)
    w = b = 0.0
    for batch in task.trained:  # gradient descent by hand
        residual = [(w * i / 10 + b - i, i / 10) for i in batch]
        w, b = (w - 1e-2 * sum(2 * r * x for r, x in residual) / 2,
                b - 1e-2 * sum(2 * r for r, _ in residual) / 2)
    assert net.decoder.weight.item() == pytest.approx(w, rel=1e-4)
    assert net.decoder.bias.item() == pytest.approx(b, rel=1e-4)
    losses = [line["loss"] for line in records.read_log(run_in(tmp_path).folder)
              if "val" not in line]
    assert len(losses) == 3 and losses[2] < losses[0]


def rates(folder: Path, monkeypatch: pytest.MonkeyPatch, **recipe: object) -> list[list[float]]:
    """The rate of what is handed on, and of the rest, at every step of a run."""
    seen: list[list[float]] = []
    plain = Fit.step

    def step(self: Fit, *given: object) -> Tensor:
        seen.append([group["lr"] for group in self.optimiser.param_groups])
        return plain(self, *given)  # type: ignore[arg-type]
    monkeypatch.setattr(Fit, "step", step)
    fitted(folder, Watched(), replace(RECIPE, **recipe))  # type: ignore[arg-type]
    return seen


def test_a_cosine_goes_from_the_rate_to_nearly_none_and_a_constant_stays(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        found = rates(tmp_path / "a", patch, schedule="cosine", start_lr_factor=0.1)
    wanted = [1e-2 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    assert [rest for _, rest in found] == pytest.approx(wanted)
    assert [slow for slow, _ in found] == pytest.approx([rate / 10 for rate in wanted])
    with monkeypatch.context() as patch:
        assert rates(tmp_path / "b", patch) == [[1e-2, 1e-2]] * 12


def test_the_schedule_goes_on_behind_a_warm_up_and_behind_a_stop(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        whole = rates(tmp_path / "a", patch, schedule="cosine", warmup=1)
    with monkeypatch.context() as patch:
        plain = rates(tmp_path / "b", patch, schedule="cosine")
    assert whole == plain  # the optimiser is fresh after the first epoch, the schedule is not
    monkeypatch.setattr("common.runs.training.CHECKPOINT_EVERY", 0)
    monkeypatch.setattr("common.runs.training.CHECKPOINT_SHARE", math.inf)

    def stop(steps: int) -> None:
        stop.done = getattr(stop, "done", 0) + 1  # type: ignore[attr-defined]
        if stop.done == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
    run = run_in(tmp_path, "c")
    recipe = replace(RECIPE, schedule="cosine")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, Watched(), recipe, run=run, report=stop)
    again, _ = fitted(tmp_path, Watched(), recipe, run=run)
    other, _ = fitted(tmp_path, Watched(), recipe, run=run_in(tmp_path, "d"))
    for name, value in again.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
