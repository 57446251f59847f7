"""nnU-Net's PlainConvUNet with the pooling of the 3D U-Net of Taleb et al. 2020.

Lies beside weights that code/3d/export.py has written; nnU-Net finds it where PYTHONPATH names this
folder, in training and in prediction. Needs nnunetv2; nothing of the repository.
"""

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn
from torch.nn import functional as F


class PooledPlainConvUNet(PlainConvUNet):
    """Max-pool 2 where PlainConvUNet has strides, and one more below the bottleneck, undone."""

    def __init__(self, **plans: Any) -> None:  # PlainConvUNet's, as the plans of nnU-Net give them
        super().__init__(**plans)
        for number, stage in enumerate(self.encoder.stages[1:], 1):
            stage[0].convs[0].conv.stride = (1, 1, 1)
            self.encoder.stages[number] = nn.Sequential(nn.MaxPool3d(2), *stage)

    def forward(self, volumes: Tensor) -> Any:
        """Return logits (B, classes, D, H, W), or those of every level with deep supervision.

        Sides are divisible by 2^stages, so that the bottleneck can be pooled.
        """
        *skips, bottleneck = self.encoder(volumes)
        code = F.max_pool3d(bottleneck, 2)
        return self.decoder([*skips, F.interpolate(code, size=bottleneck.shape[2:],
                                                   mode="nearest")])
