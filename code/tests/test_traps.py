"""What the libraries do that this project has to work around."""

import pytest
import torch

from common import devices
from common.errors import InputError


def test_volumes_are_never_trained_in_bfloat16_on_the_cpu() -> None:
    cpu = torch.device("cpu")
    assert devices.precision("auto", cpu, sound_on_cpu=False) == "float32"
    assert devices.precision("auto", cpu, sound_on_cpu=True) == "bfloat16"
    with pytest.raises(InputError, match="non-finite"):
        devices.precision("bfloat16", cpu, sound_on_cpu=False)


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
