"""What the libraries do that this project has to work around."""

import pytest
import torch

from common.errors import InputError
from common.machine import devices, limits
from common.settings import Settings


def test_volumes_are_never_trained_in_bfloat16_on_the_cpu(monkeypatch: pytest.MonkeyPatch
                                                          ) -> None:
    cpu = [torch.device("cpu")]
    for has, photographs in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(devices, "bfloat16_on_cpu", lambda has=has: has)
        assert devices.precision("auto", cpu, sound_on_cpu=False) == "float32"
        assert devices.precision("auto", cpu, sound_on_cpu=True) == photographs
    with pytest.raises(InputError, match="non-finite"):
        devices.precision("bfloat16", cpu, sound_on_cpu=False)


def test_as_many_runs_at_a_time_as_cores_and_memory_allow() -> None:
    cpu = [torch.device("cpu")]
    one = Settings(WORKERS=0, RANKS_PER_RUN=1, RUNS_PER_GPU=1, THREADS=1)
    assert devices.workers(Settings(**{**vars(one), "WORKERS": 3}), cpu, 1500) == 3
    assert devices.workers(one, cpu, 1500) == limits.cores()
    assert devices.workers(one, cpu, 1500e12) == 1


@pytest.mark.slow
def test_bfloat16_conv3d_on_the_cpu_now_and_then_has_non_finite_gradients() -> None:
    """The reason for the rule above; once this fails on a newer torch, the rule may go."""
    bad = 0
    for seed in range(200):
        torch.manual_seed(seed)
        layer = torch.nn.Conv3d(128, 256, 3, padding=1)
        images = torch.randn(8, 128, 2, 2, 2)
        with torch.autocast("cpu", torch.bfloat16):
            layer(images).float().square().mean().backward()
        assert layer.weight.grad is not None
        bad += not torch.isfinite(layer.weight.grad).all()
    print(f"non-finite weight gradients in {bad} of 200 tries")
    assert bad > 0
