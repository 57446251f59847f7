"""A machine with GPUs that is not there: tensors that compute on the CPU and lie on ``cuda:0``.

    with fake_card.machine() as machine:
        x = torch.ones(3, device="cuda")    # x.device is cuda:0, x.is_cuda is True
        x + torch.ones(3)                   # MixedDevicesError: the other one lies on the CPU
        x.sum().item()                      # machine.waits: ["item at tests/test_x.py:12"]

CUDA mistakes so show without a card: tensors of two places in one operation, waits for the card,
a device without its index, weights saved where they lie. What a kernel does there does not: these
are the CPU's kernels, so that results equal the CPU's, and autocast casts what it casts on the CPU.
torch's C++ takes the tensors for the CPU's; what it would say of their place is said here.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CODE = Path(__file__).resolve().parents[1]
MEMORY = 80 * 10**9  # bytes of each card, all of them free

# The card must have come to the result before the host goes on: it asks for a value or a size.
WAITING = {"_local_scalar_dense": "item", "nonzero": "nonzero", "masked_select": "masked_select",
           "equal": "equal", "_unique2": "unique", "unique_dim": "unique",
           "unique_consecutive": "unique", "bincount": "bincount",  # its largest value
           "repeat_interleave": "repeat_interleave"}
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
COPYING = ("_to_copy", "copy_", "_copy_from")
CONVOLVING = ("convolution", "convolution_backward")


class MixedDevicesError(RuntimeError):
    """An operation got tensors of two devices."""


class CardTensor(torch.Tensor):
    """A tensor on a card; ``held`` has its values, on the CPU."""

    held: Tensor
    card: int
    machine: "Machine"

    @staticmethod
    def __new__(cls, held: Tensor, card: int, machine: "Machine") -> "CardTensor":
        """Put ``held`` on a card, without a copy."""
        made: CardTensor = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=torch.device("cpu"))
        made.held, made.card, made.machine = held, card, machine
        return made

    def __init__(self, held: Tensor, card: int, machine: "Machine") -> None:
        super().__init__()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The machine, a mode, comes first; so it has been left."""
        raise RuntimeError(f"{func} of a tensor whose machine is gone")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"CardTensor({self.held!r}, device={self.device})"

    device = property(lambda self: torch.device("cuda", self.card))  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return self.card

    def to(self, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """As Tensor.to(); no gradient flows through a copy to the CPU."""
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type == "cpu":
            return self.machine.fetched(self, non_blocking=non_blocking).to(
                dtype or self.dtype, memory_format=memory_format or torch.preserve_format)
        if device is not None and device.index in (None, self.card):
            device = None
        return super().to(device=device, dtype=dtype, copy=copy,
                          memory_format=memory_format or torch.preserve_format)

    def cpu(self, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
        return self.to("cpu", memory_format=memory_format)

    def cuda(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.to("cuda")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> NoReturn:  # type: ignore[override]
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use "
                        "Tensor.cpu() to copy the tensor to host memory first.")

    __array__ = numpy  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A file gets the values, and the machine remembers that they were saved from a card."""
        self.machine.saved.append(_place())
        return self.held.__reduce_ex__(protocol)


class Machine(TorchDispatchMode):
    """Runs every operation on the CPU, as if it ran where its tensors lie.

    ``waits``: what the host has waited for, "item at common/training.py:99"; ``saved``: places that
    wrote tensors of a card to a file; ``precisions``: dtypes that autocast was asked for.
    """

    def __init__(self, cards: int, capability: tuple[int, int], memory: int) -> None:
        super().__init__()
        self.cards, self.capability, self.memory = cards, capability, memory
        self.current = 0
        self.waits: list[str] = []
        self.saved: list[str] = []
        self.precisions: list[torch.dtype | None] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Check where the tensors lie, count a wait, compute, and say where the result lies."""
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        card = self._card(leaves, kwargs.get("device"))
        pinned = kwargs.pop("pin_memory", False)
        if card is None:
            made = func(*args, **kwargs)
            return _pinned(made) if pinned else made
        if name in COPYING:
            self._copies(name, leaves, args, kwargs)
        else:
            self._check(name, leaves, args, kwargs)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        made = _computed(func, name, *tree_map_only(CardTensor, _held, (args, kwargs)))
        if name == "_local_scalar_dense":
            return made
        if (given := _written(func, args, kwargs)) is not None:
            return given
        return tree_map_only(Tensor, lambda x: CardTensor(x, card, self), made)

    def _card(self, tensors: Sequence[Tensor], device: torch.device | None) -> int | None:
        """Where the result of an operation lies: the number of a card, or None for the CPU."""
        if device is not None and torch.device(device).type == "cuda":
            return self.number(device)
        # "cpu" beside tensors of a card is C++ speaking: fetched() is what copies to the CPU.
        return next((x.card for x in tensors if isinstance(x, CardTensor)), None)

    def number(self, device: Any) -> int:
        """The card that is meant; without an index the current one, as torch takes it."""
        index: int = torch.cuda._utils._get_device_index(device, optional=True)
        if index >= self.cards:
            raise RuntimeError(f"CUDA error: invalid device ordinal ({index} of {self.cards})")
        return index

    def _copies(self, name: str, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> None:
        """A copy between CPU and card waits unless it is queued from, or into, pinned memory."""
        queued = kwargs.pop("non_blocking", name != "_to_copy" and len(args) > 2 and args[2])
        source = args[0] if name == "_to_copy" else args[1]
        for tensor in tensors:
            if not isinstance(tensor, CardTensor) and not (queued and _is_pinned(tensor)) and (
                    source.dim() or name != "copy_"):
                self.wait("copy to the card" if tensor is source else "copy to the CPU")

    def _check(self, name: str, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> None:
        """Raise MixedDevicesError as CUDA would, and count a wait."""
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError(f"{name}: Expected a 'cuda' device type for generator but found "
                               f"'cpu', at {_place()}")
        indices = []
        if name in INDEXING:
            indices = [index for index in args[1] if index is not None]
            if any(not isinstance(index, CardTensor) for index in indices):
                self.wait("index from the CPU")
            # A mask is counted, unless one number is written wherever it holds.
            elif any(index.dtype in (torch.bool, torch.uint8) for index in indices) and not (
                    len(args) > 2 and args[2].numel() == 1):
                self.wait("mask")
        others = [x for x in tensors if not any(x is index for index in indices)]
        places = {str(x.device) for x in others if isinstance(x, CardTensor) or x.dim()}
        if len(places) > 1 or "cpu" in places:
            shapes = ", ".join(f"{x.device} {list(x.shape)}" for x in tensors)
            raise MixedDevicesError(f"{name} at {_place()}: tensors on several devices ({shapes})")
        if name in WAITING:
            self.wait(WAITING[name])

    def fetched(self, tensor: CardTensor, *, non_blocking: bool) -> Tensor:
        """The values on the CPU. A copy that nobody waits for may be read before it is there."""
        self.wait("copy to the CPU, read too early" if non_blocking else "copy to the CPU")
        return tensor.detach().held.clone()  # type: ignore[attr-defined, no-any-return]

    def wait(self, what: str) -> None:
        """Count a wait and its place."""
        self.waits.append(f"{what} at {_place()}")


def _held(tensor: CardTensor) -> Tensor:
    return tensor.held


def _computed(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Compute on the CPU; convolutions of bfloat16 by way of float32 (see tests/test_traps.py)."""
    if name not in CONVOLVING or args[0].dtype != torch.bfloat16:
        return func(*args, **kwargs)
    args, kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
    return tree_map_only(Tensor, Tensor.bfloat16, func(*args, **kwargs))


def _written(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operation in place returns, the tensors that it was given; None for any other."""
    schema = func._schema
    if not schema.returns or any(one.alias_info is None or not one.alias_info.is_write
                                 for one in schema.returns):
        return None
    given = [args[place] if place < len(args) else kwargs[one.name]
             for place, one in enumerate(schema.arguments)
             if one.alias_info is not None and one.alias_info.is_write]
    if torch.Tag.inplace_view in func.tags:  # transpose_() of the values; now of the shape
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    return given[0] if len(schema.returns) == 1 else tuple(given)


def _place() -> str:
    """The line of code/ that is being run, this file's not counted."""
    frame = sys._getframe()
    while frame.f_back is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(CODE) and path != Path(__file__):
            return f"{path.relative_to(CODE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _pinned(tensor: Tensor, device: Any = None) -> Tensor:
    """A copy in pinned memory."""
    if isinstance(tensor, CardTensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be "
                           "pinned")
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


def _is_pinned(tensor: Tensor, device: Any = None) -> bool:
    """Whether a tensor, or the one that it is a view of, lies in pinned memory."""
    return hasattr(tensor if tensor._base is None else tensor._base, "pinned")


@contextmanager
def machine(*, cards: int = 1, capability: tuple[int, int] = (8, 0),
            memory: int = MEMORY) -> Iterator[Machine]:
    """Be a machine with ``cards`` GPUs of ``memory`` bytes each, as far as torch is asked."""
    if torch.cuda.is_available():
        torch.cuda.init()  # a real card is set up once in a process, and not from in here
    made = Machine(cards, capability, memory)
    lifts = torch._C._only_lift_cpu_tensors()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        for target, answers in _answers(made).items():
            for name, answer in answers.items():
                stack.enter_context(patch.object(target, name, answer))
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        torch._C._set_only_lift_cpu_tensors(True)  # tensor(data, device=...) by way of the CPU
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # another class of tensor
        stack.enter_context(made)
        yield made


def _answers(made: Machine) -> dict[Any, dict[str, Callable[..., Any]]]:
    """What stands in for torch's own functions on the machine."""
    autocast, load, group = torch.autocast, torch.load, torch._C._group_tensors_by_device_and_dtype
    to = torch.Tensor.to
    properties = SimpleNamespace(name="Fake card", major=made.capability[0],
                                 minor=made.capability[1], total_memory=made.memory,
                                 multi_processor_count=108)

    def of(answer: Any) -> Callable[..., Any]:
        return lambda device=None: (made.number(device), answer)[1]

    def set_device(device: Any) -> None:
        made.current = made.number(torch.cuda._utils._get_device_index(device))

    def autocast_of(device_type: str, dtype: torch.dtype | None = None,
                    enabled: bool = True, **kwargs: Any) -> torch.autocast:
        if device_type == "cuda" and enabled:
            made.precisions.append(dtype)
        return autocast("cpu", dtype, enabled=enabled, **kwargs)

    def to_indexed(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return to(tensor, *map(indexed, args), **{k: indexed(v) for k, v in kwargs.items()})

    def indexed(value: Any) -> Any:
        cuda = isinstance(value, torch.device | str) and torch.device(value).type == "cuda"
        return torch.device("cuda", made.number(value)) if cuda else value

    def load_onto(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        if map_location is None or torch.device(map_location).type != "cuda":
            return load(file, map_location=map_location, **kwargs)
        return tree_map_only(Tensor, lambda x: x.to(map_location),
                             load(file, map_location="cpu", **kwargs))

    def grouped(*args: Any) -> Any:
        return {(next(x for x in lists[0] if x is not None).device, dtype): (lists, places)
                for (_, dtype), (lists, places) in group(*args).items()}

    return {
        torch.cuda: {
            "_lazy_init": lambda: None, "init": lambda: None, "is_available": lambda: True,
            "device_count": lambda: made.cards, "current_device": lambda: made.current,
            "set_device": set_device, "get_device_properties": of(properties),
            "get_device_capability": of(made.capability), "get_device_name": of(properties.name),
            "mem_get_info": of((made.memory, made.memory)), "empty_cache": lambda: None,
            "synchronize": lambda device=None: made.wait("synchronize"),
            "is_bf16_supported": lambda including_emulation=True: including_emulation
            or made.capability >= (8, 0)},
        torch.accelerator: {"current_stream": lambda: SimpleNamespace(is_capturing=lambda: False)},
        torch: {"autocast": autocast_of, "load": load_onto, "inference_mode": torch.no_grad},
        torch.amp: {"autocast": autocast_of},
        torch._C: {"_group_tensors_by_device_and_dtype": grouped},
        torch.Tensor: {"to": to_indexed, "pin_memory": _pinned, "is_pinned": _is_pinned},
        torch.nn.RNNBase: {"flatten_parameters": lambda self: None},  # of cuDNN's own memory
    }
