"""DenseNet-121 (Huang et al. 2017; torchvision's wiring) and the head that answers; knows no tasks.

Images are (B, 3, H, W). With the default width and depth the encoder has 6,953,856 parameters,
randomly initialised; imagenet() has weights learnt on photographs of other things, for an arm.
"""

from collections.abc import Sequence
from itertools import pairwise
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet, DenseNet121_Weights, densenet121

from common.errors import InputError
from common.tasks.heads import Float32, dense, full_precision

BLOCKS = (6, 12, 24, 16)  # dense layers of each block: DenseNet-121
GROWTH = 32               # channels each layer adds: DenseNet-121
SMALLEST = 29             # pixels a side; below it the last pooling has nothing left
EPS = 1e-3                # BatchNorm of the head; official code (Keras)
DROPOUT = 0.5             # official code
STEP_BYTES = 5000         # activations of a training step, per pixel, float32 (counted)
HIDDEN = 1024             # of the head; official code
DECODED = (128, 64, 32, 16, 16)  # channels of the decoder at each doubling
IMAGENET = DenseNet121_Weights.IMAGENET1K_V1


class Encoder(nn.Module):
    """Features and global average pooling: (B, 3, H, W) -> (B, 1024), for any side from 29 px."""

    def __init__(self, blocks: Sequence[int] = BLOCKS, growth: int = GROWTH) -> None:
        super().__init__()
        if len(blocks) != 4:
            raise ValueError(f"{len(blocks)} blocks given; a DenseNet has 4")
        layers = (blocks[0], blocks[1], blocks[2], blocks[3])
        self.features = DenseNet(growth, layers, 2 * growth).features
        self.width: int = self.features.norm5.num_features  # of the code

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the map of every dense block, each half the side of the one before, then the code.

        The last map is normalised and rectified, as the code is made from it.
        """
        maps = []
        for name, layer in self.features.named_children():
            images = layer(images)
            if name.startswith("denseblock"):
                maps.append(images)
        maps[-1] = F.relu(images)
        return [*maps, F.adaptive_avg_pool2d(maps[-1], 1).flatten(1)]

    def forward(self, images: Tensor) -> Tensor:
        """Return the code: (B, 3, H, W) -> (B, 1024)."""
        return self.stages(images)[-1]


def imagenet() -> dict[str, Tensor]:
    """torchvision's ImageNet weights as an Encoder's; fetched once, InputError without network.

    They expect images less a mean, over a standard deviation; ours are 0 to 1. The difference is
    put into the first layer and the BatchNorm behind it (exact but for the zero padding).
    """
    folder = f"{torch.hub.get_dir()}/checkpoints"
    try:
        features = densenet121(weights=IMAGENET, progress=False).features
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(f"imagenet: its weights could not be fetched ({error}); with a network, "
                         f"save {IMAGENET.url} into {folder}, or leave imagenet out of TASKS"
                         ) from None
    usual = IMAGENET.transforms()
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (usual.mean, usual.std))
    with torch.no_grad():
        features.conv0.weight /= deviation  # (64, 3, 7, 7)
        features.norm0.running_mean += (features.conv0.weight * mean).sum((1, 2, 3))
    return {f"features.{name}": tensor for name, tensor in features.state_dict().items()}


class Decoder(nn.Module):
    """A light decoder for reconstruction: an encoder's stages -> (B, outputs, H, W).

    From the last map alone: with the finer ones a missing piece could be copied from beside it.
    Five times twice as large, for the DenseNet has halved the side five times; no norm, so that
    brightness is kept.
    """

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        widths = [encoder.width, *DECODED]
        self.ups = nn.ModuleList(nn.Conv2d(wide, narrow, 3, padding=1)
                                 for wide, narrow in pairwise(widths))
        self.last = nn.Conv2d(DECODED[-1], outputs, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Enlarge the last map step by step."""
        x = stages[-2]  # the code behind it has no place
        for layer in self.ups:
            x = F.relu(layer(F.interpolate(x, scale_factor=2, mode="nearest")))
        with full_precision(x.device):
            outputs: Tensor = self.last(x.float())
        return outputs


class Grader(nn.Module):
    """Encoder and head: images (B, 3, H, W) -> a logit a grade or class (B, classes)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = Float32(dense(encoder.width, HIDDEN), nn.ReLU(),
                            nn.BatchNorm1d(HIDDEN, eps=EPS), nn.Dropout(DROPOUT),
                            dense(HIDDEN, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logit k says that the grade is at least k, or is that of class k: (B, classes)."""
        logits: Tensor = self.head(self.encoder(images))
        return logits
