"""A machine with GPUs that is not there: tensors that compute on the CPU and lie on ``cuda:0``.

    with fake_card.machine() as machine:
        x = torch.ones(3, device="cuda")   # x.device is cuda:0, x.is_cuda is True
        x + torch.ones(3)                  # MixedDevicesError: the other one lies on the CPU
        x.sum().item()                     # machine.waits: ["item at tests/test_x.py:12"]

CUDA mistakes so show without a card: tensors of two places in one operation, waits for the card,
a device without its index, files that need a card to be read. What its kernels do does not: these
are the CPU's, so that results equal the CPU's. torch's C++ takes the tensors for tensors of the
CPU; wherever it would say so, an answer of the machine stands in for it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CODE = f"{Path(__file__).parents[1]}/"
CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
MEMORY = 80 * 10**9  # bytes of each card, all of them free

# The host goes on when it knows a value, or the size of the result.
WAITING = {"_local_scalar_dense": "item", "nonzero": "nonzero", "masked_select": "masked_select",
           "equal": "equal", "_unique2": "unique", "unique_dim": "unique",
           "unique_consecutive": "unique", "bincount": "bincount",  # asks for the largest value
           "repeat_interleave": "repeat_interleave"}
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
FILLING = ("fill_", "masked_fill", "masked_fill_", *INDEXING)  # with one number of the CPU, too
CONVOLVING = ("convolution", "convolution_backward")


class MixedDevicesError(RuntimeError):
    """An operation got tensors of several devices."""


class CardTensor(Tensor):
    """A tensor on a card of a machine; ``held`` has its values, on the CPU."""

    held: Tensor
    card: int
    machine: "Machine"

    @staticmethod
    def __new__(cls, held: Tensor, card: int, machine: "Machine") -> "CardTensor":
        """Put ``held`` on a card, without a copy."""
        made: CardTensor = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=torch.device("cpu"))
        made.held, made.card, made.machine = held, card, machine
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any,  # type: ignore[override]
                           args: Any = (), kwargs: Any = None) -> Any:
        """A machine, which is a mode, comes before; so this one has been left."""
        raise RuntimeError(f"{func} of a tensor whose machine is gone")

    device = property(lambda self: torch.device("cuda", self.card))
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> NoReturn:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use "
                        "Tensor.cpu() to copy the tensor to host memory first.")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"CardTensor({self.held!r}, device={self.device})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A file gets the values, and the machine notes that they were saved from a card."""
        self.machine.saved.append(_place())
        return self.held.__reduce_ex__(protocol)


class Machine(TorchDispatchMode):
    """Runs every operation on the CPU, as if it ran where its tensors lie; ``used``: how many.

    ``waits``: what the host has waited for, as "item at training.py:99"; ``saved``: places
    that wrote a card's tensors to a file; ``precisions``: what autocast was asked for.
    """

    def __init__(self, cards: int, capability: tuple[int, int], memory: int) -> None:
        super().__init__()
        self.cards, self.capability, self.memory, self.current = cards, capability, memory, 0
        self.used = 0
        self.waits: list[str] = []
        self.saved: list[str] = []
        self.precisions: list[torch.dtype | None] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Check where the tensors lie, count a wait, compute, and say where the result lies."""
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        tensors = list(_tensors([*args, *kwargs.values()]))
        device = kwargs.get("device")
        if device is not None and device.type == "cuda":
            card = self.number(device)
            kwargs["device"] = torch.device("cpu")
        else:  # "cpu" beside a card's tensor is C++ speaking: move() is what copies to the CPU
            cards = [x.card for x in tensors if isinstance(x, CardTensor)]
            if not cards:
                return func(*args, **kwargs)
            card = cards[0]
        self.used += 1
        places, in_place = _writes(func)
        written = list(_tensors(args[place] if place < len(args) else kwargs.get(key)
                                for place, key in places))
        if name in ("_to_copy", "copy_"):
            self._copies(*reversed(args[:2]), queued=kwargs.get("non_blocking", any(args[2:])))
        else:
            self._count(name, args)
            self._check(func, name, tensors, written, args, kwargs)
        made = _computed(func, name, _mapped(_held, args), {
            key: _mapped(_held, value) for key, value in kwargs.items()})
        if made is None or name == "_local_scalar_dense":
            return made
        if in_place:
            if torch.Tag.inplace_view in func.tags:  # transpose_() of the values; now of the shape
                with torch._C._DisableTorchDispatch():
                    func(*args, **kwargs)
            return written[0] if len(written) == 1 else tuple(written)
        return _mapped(lambda x: CardTensor(x, card, self), made)

    def number(self, device: Any) -> int:
        """The card that is meant; without an index the current one, as torch takes it."""
        index: int = torch.cuda._utils._get_device_index(device, optional=True)
        if index >= self.cards:
            raise RuntimeError(f"CUDA error: invalid device ordinal ({index} of {self.cards})")
        return index

    def wait(self, what: str) -> None:
        """Count a wait and its place."""
        self.waits.append(f"{what} at {_place()}")

    def kinds(self) -> list[str]:
        """What was waited for, without the places."""
        return [wait.split(" at ")[0] for wait in self.waits]

    def _copies(self, source: Tensor, target: Tensor | None = None, *, queued: bool) -> None:
        """A copy between CPU and card waits unless it is queued from, or into, pinned memory."""
        number = target is not None and not source.dim()  # of the CPU: written as a number is
        if not (isinstance(source, CardTensor) or number or queued and _is_pinned(source)):
            self.wait("copy to the card")
        if not (target is None or isinstance(target, CardTensor) or queued and _is_pinned(target)):
            self.wait("copy to the CPU")

    def _count(self, name: str, args: Any) -> None:
        """Count the wait of an operation that asks for a value, or for a size made of values."""
        if name in WAITING:
            self.wait(WAITING[name])
        elif name in INDEXING:
            indices = [index for index in args[1] if index is not None]
            number = len(args) > 2 and args[2].numel() == 1  # then a mask needs no size
            if not all(isinstance(index, CardTensor) for index in indices):
                self.wait("index from the CPU")
            elif any(index.dtype in (torch.bool, torch.uint8) for index in indices) and not number:
                self.wait("mask")

    def _check(self, func: Any, name: str, tensors: Sequence[Tensor], written: Sequence[Tensor],
               args: Any, kwargs: Any) -> None:
        """Raise as CUDA would where a tensor or the generator lies elsewhere."""
        if getattr(kwargs.get("generator"), "device", None) == torch.device("cpu"):
            raise RuntimeError(f"{name}: Expected a 'cuda' device type for generator but found cpu")
        free = list(_tensors(args[1])) if name in INDEXING else []
        if torch.Tag.pointwise in func.tags or name in FILLING:
            free += [x for x in tensors if not x.dim() and not isinstance(x, CardTensor)]
        bound = [x for x in tensors if not any(x is one for one in free)]
        if len({getattr(x, "card", None) for x in (*bound, *written)}) > 1:
            shapes = ", ".join(f"{x.device} {list(x.shape)}" for x in tensors)
            raise MixedDevicesError(f"{name} at {_place()}: tensors on several devices ({shapes})")


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments, and in the lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply ``function`` to a tensor, or to those of a list or tuple."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(function, one) for one in value)
    return value


def _held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, CardTensor) else tensor


def _computed(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Compute on the CPU; convolutions of bfloat16 by way of float32 (see test_traps.py)."""
    if name not in CONVOLVING or args[0].dtype != torch.bfloat16:
        return func(*args, **kwargs)
    return _mapped(Tensor.bfloat16, func(*_mapped(Tensor.float, args), **kwargs))


@cache
def _writes(func: Any) -> tuple[list[tuple[int, str]], bool]:
    """The arguments that an operation writes to, and whether these are what it returns."""
    places = [(place, one.name) for place, one in enumerate(func._schema.arguments)
              if one.alias_info is not None and one.alias_info.is_write]
    return places, all(one.alias_info is not None and one.alias_info.is_write
                       for one in func._schema.returns)


def _place() -> str:
    """The line of code/ that is being run, this file's not counted."""
    frame = sys._getframe()
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if file.startswith(CODE) and file != __file__:
            return f"{file.removeprefix(CODE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _pin(tensor: Tensor, device: Any = None) -> Tensor:
    """A copy in pinned memory."""
    if isinstance(tensor, CardTensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be")
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
    # tensor(data, device=...) is made on the CPU, then sent; Module.to() puts in other parameters.
    switches = (torch._C._set_only_lift_cpu_tensors,
                torch.__future__.set_overwrite_module_params_on_conversion)
    with ExitStack() as stack:
        for target, answers in _answers(made).items():
            for name, answer in answers.items():
                stack.enter_context(patch.object(target, name, answer))
        for switch in switches:
            stack.callback(switch, False)
            switch(True)
        yield stack.enter_context(made)


def _answers(made: Machine) -> dict[Any, dict[str, Callable[..., Any]]]:
    """What stands in for torch's own functions on the machine."""
    autocast, load, to = torch.autocast, torch.load, Tensor.to
    group = torch._C._group_tensors_by_device_and_dtype
    properties = SimpleNamespace(name="Fake card", total_memory=made.memory,
                                 major=made.capability[0], minor=made.capability[1])

    def of(answer: Any) -> Callable[..., Any]:
        def ask(device: Any = None) -> Any:
            made.number(device)
            return answer
        return ask

    def set_device(device: Any) -> None:
        made.current = made.number(torch.cuda._utils._get_device_index(device))

    def autocast_of(device_type: str, dtype: torch.dtype | None = None, enabled: bool = True,
                    **kwargs: Any) -> torch.autocast:
        if device_type == "cuda" and enabled:
            made.precisions.append(dtype)
        return autocast("cpu", dtype, enabled=enabled, **kwargs)

    def move(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type == "cuda":
            device = torch.device("cuda", made.number(device))
        if isinstance(tensor, CardTensor) and device is not None and device.type == "cpu":
            made.wait("copy to the CPU" + ", read before it is there" * non_blocking)
            tensor = tensor.held.detach().clone()  # no gradient flows through it
        same = device is None or device == tensor.device
        return to(tensor, device=None if same else device, dtype=dtype, copy=copy,
                  non_blocking=non_blocking, memory_format=layout or torch.preserve_format)

    def load_onto(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
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
            "synchronize": lambda device=None: made.wait("synchronize")},
        torch.accelerator: {"current_stream": lambda: SimpleNamespace(is_capturing=lambda: False)},
        torch: {"autocast": autocast_of, "load": load_onto, "inference_mode": torch.no_grad},
        torch.amp: {"autocast": autocast_of},
        torch._C: {"_group_tensors_by_device_and_dtype": grouped},
        Tensor: {"to": move, "cpu": lambda tensor, **kwargs: tensor.to("cpu", **kwargs),
                 "pin_memory": _pin, "is_pinned": _is_pinned},
        torch.nn.RNNBase: {"flatten_parameters": lambda self: None},  # into cuDNN's one block
    }
