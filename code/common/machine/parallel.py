"""One run over several processes of a machine (RANKS_PER_RUN), each with its part of every batch.

Every rank draws and prepares the same whole batch and takes its own cases of the views. Outputs,
or the sums that a loss is made of, are put together over the ranks, so that each has the loss of
the whole batch; DistributedDataParallel's mean over the ranks then is the whole batch's gradient.
Outside a group every function leaves things as they are. Run over NCCL it has not been tried yet.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

Nested = Any  # a Tensor or a tuple of Tensors



def ranks() -> int:
    """Processes that train this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def number() -> list[int]:
    """What makes the random numbers of this rank its own: nothing for a run of one."""
    return [] if ranks() == 1 else [rank()]


def leads() -> bool:
    """Whether this process validates and keeps the records."""
    return rank() == 0


def own(cases: int) -> slice:
    """This rank's cases of a batch, as many as any other's or one fewer."""
    return slice(cases * rank() // ranks(), cases * (rank() + 1) // ranks())


def part(nested: Nested, cases: int) -> Nested:
    """This rank's cases of a batch: of a tensor, or of each of a tuple."""
    if ranks() == 1:
        return nested
    if isinstance(nested, tuple):
        return tuple(part(one, cases) for one in nested)
    mine, rows = own(cases), len(nested) // cases  # rows of one case
    return nested[mine.start * rows:mine.stop * rows]


def whole(nested: Nested, cases: int) -> Nested:
    """The parts of all ranks in their order, gradients too: undoes part()."""
    if isinstance(nested, tuple):
        return tuple(whole(one, cases) for one in nested)
    mine = own(cases)
    rows = len(nested) // (mine.stop - mine.start)  # of one case
    before, after = (nested.new_zeros((count * rows, *nested.shape[1:]), dtype=torch.float32)
                     for count in (mine.start, cases - mine.stop))
    # Sums with zeros are exact, and serve parts of unequal length, which a gather does not.
    return total(torch.cat([before, nested.float(), after]))


def total(local: Tensor) -> Tensor:
    """The sum over all ranks; its gradient is the sum of theirs."""
    summed: Tensor = _Total.apply(local)
    return summed


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return _summed(local)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(local: Tensor) -> Tensor:
    copy = local.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(copy)
    return copy


def from_first(make: Callable[[], Any]) -> Any:
    """What ``make`` returns on the first rank, on all of them; the others wait for it."""
    if ranks() == 1:
        return make()
    box = [make() if leads() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def in_turn(job: Callable[[], Any]) -> Any:
    """What ``job`` returns; the first rank has done it before the others begin."""
    if ranks() == 1:
        return job()
    if not leads():
        dist.barrier()
        return job()
    result = job()
    dist.barrier()
    return result


def wrapped(model: nn.Module) -> nn.Module:
    """The model as the ranks train it, for as long as the same of its weights have a gradient."""
    if ranks() == 1:
        return model
    gc.collect()  # an earlier one would average these gradients too, until it is collected
    # BatchNorm's buffers are the same on all ranks by synchronise().
    return DistributedDataParallel(model, forward_sync_buffers=False)


def synchronise(model: nn.Module) -> None:
    """Let every BatchNorm take its statistics over all ranks; the names of weights stay."""
    if ranks() == 1:
        return
    if next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # torch's knows CUDA only
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, BatchNorm):
                setattr(parent, name, BatchNorm.like(child))


class BatchNorm(_BatchNorm):
    """BatchNorm over the batch of all ranks, in any number of dimensions, on any device."""

    @classmethod
    def like(cls, layer: _BatchNorm) -> "BatchNorm":
        """One that takes the place of ``layer``, with its weights and statistics."""
        made = cls(layer.num_features, layer.eps, layer.momentum, device="meta")
        made.__dict__.update(layer.__dict__)
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        """Any (B, C, ...) will do."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) by the statistics of all ranks in training, else by the kept."""
        if not self.training or ranks() == 1:
            return super().forward(input)
        normal: Tensor
        normal, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            assert self.momentum is not None and self.running_mean is not None
            assert self.running_var is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return normal


class _Normalise(torch.autograd.Function):
    """(B, C, ...) normalised, the mean and variance of each channel, and values a channel.

    Source of the gradient: Ioffe and Szegedy 2015, section 3, its sums taken over all ranks.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor,
                eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float32)
        sums = _summed(torch.cat([_sum(x.float()), count]))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = x.float() - _wide(mean, x)
        # From centred values: the mean of squares less the square of the mean would cancel.
        variance = _summed(_sum(centred.square())) / count
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        normal = centred * _wide(inverse * weight, x) + _wide(bias, x)
        return normal.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradients[0].float()
        normal = (x.float() - _wide(mean, x)) * _wide(inverse, x)
        of_bias, of_weight = _sum(gradient), _sum(gradient * normal)
        along_bias, along_weight = _summed(torch.stack([of_bias, of_weight])) / count
        of_x = (gradient - _wide(along_bias, x) - normal * _wide(along_weight, x)) * _wide(
            inverse * weight, x)
        return of_x.to(x.dtype), of_weight, of_bias, None


def _sum(x: Tensor) -> Tensor:
    """Sum of each channel: (B, C, ...) -> (C,)."""
    return x.sum([0, *range(2, x.dim())])


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), with as many axes as ``x``."""
    return values.view(1, -1, *(1,) * (x.dim() - 2))
