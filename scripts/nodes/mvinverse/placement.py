"""Where MVInverse's weights are while it runs: on the card, there for one run, or there part by part."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from .pod_facts import FULL, OFFLOAD, SEQUENTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADS: Final = ("albedo_head", "roughness_head", "metallic_head", "normal_head", "shading_head")
VIEWS_AT_ONCE: Final = {OFFLOAD: 8, SEQUENTIAL: 1}
"""How many views each head takes at once: it looks at every view by itself, and needs most memory of all."""
BYTES_FOR_A_VIEW: Final = 800 << 20
"""Estimate of what one view of 1024 x 768 takes in the heads, in half precision."""


class Memory(Protocol):
    """A model, its device, and what brings it there."""

    model: Any
    device: Any

    def make_room(self, size: int) -> None:
        """Have `size` bytes of the device free."""

    def load(self, room: int) -> None:
        """Put the model onto the device, and have `room` bytes free beside it."""

    def unload(self) -> None:
        """Take it off the device."""


@contextmanager
def placed(memory: Memory, mode: str, views: int) -> Iterator[None]:
    """Hold a model's weights where its device can use them.

    Args:
        memory: The model, wherever its last run has left it, and what moves it.
        mode: One of pod_facts.MEMORY_MODES.
        views: How many views it is going to look at.
    """
    at_once = min(views, VIEWS_AT_ONCE.get(mode, views))
    with _heads_in_parts(memory.model, at_once if at_once < views else None):
        if mode == SEQUENTIAL:
            memory.unload()  # a run in another mode may have left it on the card
            memory.make_room(BYTES_FOR_A_VIEW)
            with _part_by_part(memory.model, memory.device):
                yield
            return
        memory.load(at_once * BYTES_FOR_A_VIEW)
        try:
            yield
        finally:
            if mode != FULL:
                memory.unload()


def parts(model: Any) -> list[Any]:
    """Return the modules that upstream's forward calls one by one: all the weights but a few."""
    resnext = model.res_encoder
    layers = [resnext.layer1, resnext.layer2, resnext.layer3, resnext.layer4]
    return [model.encoder, *layers, *model.decoder, *(getattr(model, name) for name in HEADS)]


@contextmanager
def _part_by_part(model: Any, device: Any) -> Iterator[None]:
    """Have each part's weights on the device while it runs, and only then; the few others all the time."""
    inside = {id(tensor) for part in parts(model) for tensor in _tensors(part)}
    others = [tensor for tensor in _tensors(model) if id(tensor) not in inside]
    lent = _lend(others, device)
    handles = []
    for part in parts(model):
        kept: list[Callable[[], None]] = []

        def before(module: Any, _: Any, kept: list[Callable[[], None]] = kept) -> None:
            kept.append(_lend(_tensors(module), device))

        def after(_: Any, __: Any, ___: Any, kept: list[Callable[[], None]] = kept) -> None:
            kept.pop()()

        handles += [
            part.register_forward_pre_hook(before),
            part.register_forward_hook(after, always_call=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        lent()


def _tensors(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]


def _lend(tensors: list[Any], device: Any) -> Callable[[], None]:
    """Put copies on the device in the place of tensors; returns what puts the tensors back."""
    at_home = [tensor.data for tensor in tensors]
    for tensor in tensors:
        tensor.data = tensor.data.to(device)

    def give_back() -> None:
        for tensor, data in zip(tensors, at_home, strict=True):
            tensor.data = data

    return give_back


@contextmanager
def _heads_in_parts(model: Any, views: int | None) -> Iterator[None]:
    """Have each head take a few views at once; all of them, as upstream does, where `views` is None."""
    heads = [getattr(model, name) for name in HEADS] if views else []
    for head in heads:
        head.forward = _in_parts(head.forward, views or 1)
    try:
        yield
    finally:
        for head in heads:
            del head.forward  # the class's own is there again


def _in_parts(forward: Callable[..., Any], views: int) -> Callable[..., Any]:
    """Return a head's forward that takes `views` views at once: of [1, views, ...], or of [views, ...]."""

    def in_parts(tokens: list[Any], images: Any, *rest: Any, **more: Any) -> Any:
        features = more.pop("res_features", None)
        found = []
        for first in range(0, images.shape[1], views):
            some = slice(first, first + views)
            if features is not None:
                more["res_features"] = [each[some] for each in features]
            found.append(forward([each[:, some] for each in tokens], images[:, some], *rest, **more))
        import torch  # noqa: PLC0415 - nothing else here needs it, so tests do without

        return torch.cat(found, dim=1)

    return in_parts
