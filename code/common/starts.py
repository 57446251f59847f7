"""What a network starts with: its place and layout, its statistics, the shuffled control."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from common.task import batch_norms
from common.training import Cases, autocast, even_chunks, generator

if TYPE_CHECKING:
    from common.experiment import Study

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
