"""Splits, subsets, batches, freezing, resuming: the parts of the protocol a curve stands on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fit
from torch import nn

from common.data import splits
from common.downstream.segmentation import Segmentation
from common.errors import InputError, RunFailed
from common.runs import checkpoint, records, training
from common.runs.records import Run
from common.runs.training import Recipe
from common.tasks.batches import Cases, batches, even_chunks, generator

IDS = [f"case_{i:03d}" for i in range(100)]
STRATA = {case: i % 3 for i, case in enumerate(IDS)}
CONTAINS = {case: [0, 1, 2] if i % 10 == 0 else [0, 1] for i, case in enumerate(IDS)}


def test_the_hold_out_is_disjoint_stratified_and_independent_of_listing_order() -> None:
    shuffled = dict(sorted(STRATA.items(), key=lambda item: item[0][::-1]))
    for folds, sizes in ((1, (20, 10, 70)), (5, (18, 10, 72))):
        made = splits.hold_out(STRATA, seed=0, folds=folds)
        assert splits.hold_out(shuffled, seed=0, folds=folds) == made
        assert splits.hold_out(STRATA, seed=1, folds=folds) != made
        for part in made.every():
            assert (len(part.test), len(part.val), len(part.train)) == sizes
            assert sorted(part.train + part.val + part.test) == IDS
            counts = np.bincount([STRATA[case] for case in part.test])
            assert counts.max() - counts.min() <= 2


def test_duplicates_stay_on_one_side() -> None:
    groups = dict.fromkeys(IDS[:30:3], IDS[0])
    for seed in range(10):
        made = splits.hold_out(STRATA, groups, seed=seed, folds=1)
        sides = [sum(case in part for case in groups)
                 for part in (made.rest, made.val, made.folds[0])]
        assert sorted(sides) == [0, 0, len(groups)]
        made = splits.hold_out(STRATA, groups, seed=seed, folds=3)
        sides = [sum(case in part for case in groups) for part in (made.val, *made.folds)]
        assert sorted(sides) == [0, 0, 0, len(groups)]


def test_subsets_are_nested_stratified_seeded_and_hold_every_class() -> None:
    train = splits.hold_out(STRATA, seed=0, folds=1).rest

    def draw(fraction: float, seed: int) -> list[str]:
        return splits.subset(train, STRATA, CONTAINS, fraction=fraction, seed=seed)
    for seed in range(5):
        drawn = [set(draw(fraction, seed)) for fraction in (5, 10, 25, 50, 100)]
        assert all(small < large for small, large in zip(drawn, drawn[1:], strict=False))
        assert [len(subset) for subset in drawn] == [4, 7, 18, 35, 70]
        assert drawn[-1] == set(train)
        assert {label for case in drawn[0] for label in CONTAINS[case]} == {0, 1, 2}
        assert np.bincount([STRATA[case] for case in drawn[2]], minlength=3).min() >= 4
    assert draw(5, 0) == draw(5, 0) != draw(5, 1)


def test_leakage_is_caught_in_every_fold() -> None:
    for folds in (1, 5):
        for part in splits.hold_out(STRATA, seed=0, folds=folds).every():
            splits.check_no_leakage(part, part.train)
            for held_out in (part.test, part.val):
                with pytest.raises(InputError, match=held_out[0]):
                    splits.check_no_leakage(part, [*part.train, held_out[0]])


@pytest.mark.parametrize(("count", "size"), [(9, 4), (8, 4), (3, 4), (5, 2)])
def test_training_batches_are_full_distinct_and_cover_every_pass(count: int, size: int) -> None:
    stream = batches(range(count), size, generator(0, "b"))
    for _ in range(3):
        one_pass = [next(stream) for _ in range(-(-count // min(size, count)))]
        assert {row for batch in one_pass for row in batch} == set(range(count))
        assert all(len(batch) == len(set(batch)) == min(size, count) for batch in one_pass)
    with pytest.raises(InputError, match="at least 2"):
        next(batches([0], 4, generator(0, "b")))


def test_evaluation_chunks_hold_every_row_once_and_never_a_single_case() -> None:
    for count in range(2, 30):
        for size in range(2, 9):
            chunks = even_chunks(list(range(count)), size)
            assert sum(chunks, []) == list(range(count))
            assert min(map(len, chunks)) >= 2


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(),
                                     nn.Dropout(0.5))
        self.decoder = nn.Conv3d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.decoder(self.encoder(x))
        return out


def cases() -> Cases:
    images = torch.rand(10, 1, 6, 6, 6, generator=generator(0, "i")).half()
    return Cases(images, (images[:, 0] > 0.5).byte(), IDS[:10], torch.device("cpu"))


def run_in(folder: Path, name: str) -> Run:
    run = Run(folder / "finetune" / name / "fraction100" / "seed0", {"stage": "finetune"})
    run.start({})
    return run


def trained(folder: Path, name: str, recipe: Recipe, **given: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = TinyNet()
    state = fit(model, Segmentation(["background", "a"]), cases(), train=[0, 1, 2, 3, 4],
                val=[5, 6, 7], run=run_in(folder, name), recipe=recipe,
                report=given.get("report", lambda steps: None))
    return model, state


RECIPE = Recipe(seed=3, epochs=6, steps=3, batch_size=2, lr=1e-2, clip=1.0, validations=4)


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(tmp_path: Path) -> None:
    first, second = trained(tmp_path, "a", RECIPE), trained(tmp_path, "b", RECIPE)
    assert same(first[0].state_dict(), second[0].state_dict())
    logs = [records.read_log(tmp_path / "finetune" / n / "fraction100/seed0") for n in "ab"]
    assert logs[0] == logs[1] and sum("val" in line for line in logs[0]) == 4
    assert [line["epoch"] for line in logs[0] if "val" not in line] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("stop", [1, 2, 4])  # with a frozen encoder, at its end, long after
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", math.inf)  # after every epoch, then
    recipe = Recipe(**{**vars(RECIPE), "warmup": 2})
    whole, state = trained(tmp_path, "whole", recipe)
    steps: list[int] = []

    def interrupt(more: int) -> None:
        steps.append(more)
        if sum(steps) == (stop + 1) * recipe.steps:
            raise KeyboardInterrupt  # before the checkpoint of this epoch
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, "parts", recipe, report=interrupt)
    last = tmp_path / "finetune/parts/fraction100/seed0/last.pt"
    assert checkpoint.load(last)["state"]["epoch"] == stop
    steps.clear()
    resumed, other = trained(tmp_path, "parts", recipe, report=steps.append)
    assert steps == [stop * recipe.steps, *[recipe.steps] * (recipe.epochs - stop)]
    assert same(whole.state_dict(), resumed.state_dict())
    assert same(state.best_weights, other.best_weights) and state.history == other.history
    logs = [(tmp_path / "finetune" / n / "fraction100/seed0/log.jsonl").read_bytes()
            for n in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_a_frozen_encoder_stays_bit_identical_its_batchnorm_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = checkpoint.weights(TinyNet().encoder)
    frozen, _ = trained(tmp_path, "f", Recipe(**{**vars(RECIPE), "warmup": 5, "epochs": 5}))
    assert same(before, frozen.encoder.state_dict())  # type: ignore[union-attr,operator]
    free, _ = trained(tmp_path, "g", Recipe(**{**vars(RECIPE), "warmup": 5}))
    assert not same(before, free.encoder.state_dict())  # type: ignore[union-attr,operator]


def test_patience_stops_and_keeps_the_best(tmp_path: Path) -> None:
    recipe = Recipe(**{**vars(RECIPE), "epochs": 60, "lr": 1e-9, "patience": 3,
                       "validations": None})
    _, state = trained(tmp_path, "p", recipe)
    assert state.epoch < 60 and len(state.history) - state.best_at == 3


def test_a_non_finite_loss_names_epoch_and_step(tmp_path: Path) -> None:
    broken = cases()
    broken.images[2] = float("nan")
    with pytest.raises(RunFailed, match=r"epoch 1, step [1-3]"):
        fit(TinyNet(), Segmentation(["background", "a"]), broken, train=[0, 1, 2], val=[5, 6],
            run=run_in(tmp_path, "n"), recipe=RECIPE, report=lambda steps: None)


def test_a_damaged_checkpoint_is_moved_aside_and_the_run_starts_anew(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, _ = trained(tmp_path, "whole", RECIPE)
    run = run_in(tmp_path, "broken")
    (run.folder / "last.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    again, _ = trained(tmp_path, "broken", RECIPE)
    assert same(whole.state_dict(), again.state_dict())
    assert "damaged" in capsys.readouterr().err and (run.folder / "last.pt.damaged").exists()


def test_of_a_checkpoint_damaged_in_part_nothing_is_kept(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path, "whole", RECIPE)
    run = run_in(tmp_path, "part")
    saved = torch.load(tmp_path / "finetune/whole/fraction100/seed0/last.pt", weights_only=True)
    del saved["state"]  # its weights could be loaded
    checkpoint.save(run.folder / "last.pt", saved)
    again, state = trained(tmp_path, "part", RECIPE)
    assert same(whole.state_dict(), again.state_dict()) and len(state.history) == 4


def test_only_one_process_holds_a_run_and_old_runs_are_kept(tmp_path: Path) -> None:
    run = run_in(tmp_path, "x")
    with run.claim() as mine, Run(run.folder, run.identity).claim() as other:
        assert mine and not other
    changed = Run(run.folder, {"stage": "finetune", "settings": {"RESOLUTION": 64}})
    assert changed.changes() and not changed.done()
    assert changed.set_aside().name == "seed0.old-1" and not run.folder.exists()
