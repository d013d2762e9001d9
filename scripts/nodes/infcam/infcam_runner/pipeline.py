"""Where the pipeline's weights lie while it runs: upstream's class has ways that its script does not use."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from . import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FULL: Final = "model_full_load"
SEQUENTIAL: Final = "sequential_cpu_offload"
PARTS: Final = {
    "text_encoder": "models_t5_umt5-xxl-enc-bf16.pth",
    "dit": "diffusion_pytorch_model.safetensors",
    "vae": "Wan2.1_VAE.pth",
}


def install(mode: str, device: str) -> None:
    """Have upstream's script run its pipeline in a memory mode, on a device.

    Args:
        mode: One of podkiln's names.
        device: In the place of the card that the script names.
    """
    import diffsynth  # noqa: PLC0415 - upstream's

    pipeline = diffsynth.WanVideoInfCamPipeline
    make, call, move = pipeline.from_model_manager, pipeline.__call__, pipeline.to

    def from_model_manager(manager: Any, *_: Any, **__: Any) -> Any:
        made = make(manager, device=device)
        for part, file in PARTS.items():
            if getattr(made, part) is None:
                raise ValueError(f"it does not know {file} for what it should be")
        # It asks for the card whatever the pipeline's own device is.
        made.prompter.encode_prompt = functools.partial(made.prompter.encode_prompt, device=device)
        return made

    def called(self: Any, **wishes: Any) -> Any:
        return call(self, **wishes, progress_bar_cmd=_reported)

    def to(self: Any, where: Any = None, *, dtype: Any = None) -> Any:
        if dtype is not None:
            return move(self, dtype=dtype)
        if mode == FULL:
            return move(self, "cpu" if where == "cpu" else device)
        if where != "cpu" and not self.cpu_offload:
            _offload(self, mode, move)
        self.load_models_to_device([])
        return self

    pipeline.from_model_manager = staticmethod(from_model_manager)
    pipeline.__call__ = called
    pipeline.to = to


def _offload(pipeline: Any, mode: str, move: Any) -> None:
    """Have each model on the card only while it is used, or each layer of each."""
    move(pipeline, dtype=pipeline.torch_dtype)  # what the script does right after, and has to be before
    if mode == SEQUENTIAL:
        pipeline.enable_vram_management(num_persistent_param_in_dit=0)
    else:
        pipeline.enable_cpu_offload()


def _reported(steps: Iterable[Any]) -> Iterator[Any]:
    """Tell the node how far it is; stands for tqdm."""
    every = list(steps)
    for done, step in enumerate(every):
        words.say(done=done, of=len(every))
        yield step
    words.say(done=len(every), of=len(every))
