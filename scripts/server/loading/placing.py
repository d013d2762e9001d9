"""Bringing a pipeline to the card in a memory mode, and to the next lower one.

Imported once a pipeline is loaded: it takes torch with it.
Calls: https://huggingface.co/docs/diffusers/optimization/memory
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Final

import torch

from server.generation.failure import first_line
from server.loading.faults import told
from server.settings import FP8, FULL, GROUP, MODEL, SEQUENTIAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.loading.modes import Chosen

DENOISERS: Final = ("transformer", "transformer_2", "unet", "prior", "decoder")
_GROUP_HOOKS: Final = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
"""Those of diffusers 0.42.1, hooks/group_offloading.py."""
_CPU: Final = torch.device("cpu")
_FLOAT8: Final = torch.float8_e4m3fn


def place(pipeline: Any, chosen: Chosen, device: torch.device, say: Callable[[str], None]) -> None:
    """Apply a mode to a pipeline that lies on the CPU. Raises LoadError.

    Args:
        pipeline: Whose components are to be placed.
        chosen: The mode.
        device: The card, or the CPU, where every mode is the same.
        say: Takes sentences.
    """
    pipeline.set_progress_bar_config(disable=True)
    _frugal_vae(pipeline, always=chosen.mode != FULL)
    if device.type == "cpu":
        return
    if chosen.float8:
        _float8(pipeline, say)
    with told(f"the model, in the mode {chosen.mode},"):
        match chosen.mode:
            case str(mode) if mode in {FULL, FP8}:
                pipeline.to(device)
            case str(mode) if mode == MODEL:
                pipeline.enable_model_cpu_offload(device=device)
            case str(mode) if mode == SEQUENTIAL:
                pipeline.enable_sequential_cpu_offload(device=device)
            case str(mode) if mode == GROUP:
                _group(pipeline, device, pinned=chosen.pinned)
            case mode:
                raise ValueError(f"unknown mode {mode}")


def displace(pipeline: Any) -> None:
    """Undo what `place` did: no hooks, and all weights on the CPU. What was made float8 stays it."""
    pipeline.remove_all_hooks()
    for component in _modules(pipeline):
        for module in component.modules():
            registry: Any = getattr(module, "_diffusers_hook", None)
            for name in _GROUP_HOOKS if registry is not None else ():
                registry.remove_hook(name, recurse=False)
    pipeline.to(_CPU)
    free()


def free() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()


def compile_denoisers(pipeline: Any, say: Callable[[str], None]) -> None:
    """Have the denoisers compiled when they are first used; blocks that repeat are compiled once."""
    for name in DENOISERS:
        module = getattr(pipeline, name, None)
        if not isinstance(module, torch.nn.Module):
            continue
        try:
            if getattr(module, "_repeated_blocks", None):
                module.compile_repeated_blocks(dynamic=True)
            else:
                module.compile(dynamic=True)
        except (RuntimeError, ValueError, AttributeError) as error:
            say(f"{name} is not compiled: {first_line(error)}")


def _modules(pipeline: Any) -> list[torch.nn.Module]:
    return [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]


def _float8(pipeline: Any, say: Callable[[str], None]) -> None:
    """Keep the denoisers' weights in float8, and compute in the numbers that they had."""
    for name in DENOISERS:
        module = getattr(pipeline, name, None)
        if module is None or not hasattr(module, "enable_layerwise_casting"):
            continue
        if any(each.dtype == _FLOAT8 for each in module.parameters()):
            continue  # by a mode before this one, of which it is not undone
        if getattr(module, "hf_quantizer", None) is not None:
            say(f"{name} is quantised already, so its weights are not kept in float8")
            continue
        module.enable_layerwise_casting(storage_dtype=_FLOAT8, compute_dtype=module.dtype)


def _group(pipeline: Any, device: torch.device, *, pinned: bool) -> None:
    """Keep a few layers on the card at a time; the VAE, which is small and used once, stays there."""
    stays = [name for name in ("vae", "vocoder", "audio_vae") if getattr(pipeline, name, None) is not None]
    pipeline.enable_group_offload(
        onload_device=device,
        offload_device=_CPU,
        offload_type="leaf_level",
        use_stream=pinned,
        exclude_modules=stays,
    )
    for name in stays:
        getattr(pipeline, name).to(device)


def _frugal_vae(pipeline: Any, *, always: bool) -> None:
    """Decode picture by picture, and big ones tile by tile; videos always so."""
    vae: Any = getattr(pipeline, "vae", None)
    if hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    video = "3d" in type(vae).__name__.lower() or hasattr(vae, "temporal_compression_ratio")
    if hasattr(vae, "enable_tiling") and (always or video):
        vae.enable_tiling()
