"""Loading a pipeline by its decision, as the docstring of server.detection.decision.Decision says.

Imported once a pipeline is loaded: it takes torch and diffusers with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import diffusers
import torch
import transformers

from pod.util.article import an
from pod.util.env import SettingError
from server.detection.decision import CHECKPOINT, LORA, PIPELINE
from server.generation import loras
from server.generation.failure import first_line
from server.loading import components
from server.loading.components import SAFE
from server.loading.faults import LoadError, heard, told
from server.loading.names import adapter_name
from server.settings import QUANTIZERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from server.detection.decision import Decision
    from server.detection.knowledge import Knowledge
    from server.weights.model_files import ModelFiles, Part, Resolved

_UNION: Final = "ControlNetUnionModel"
_FLOAT32_VAE: Final = frozenset({"wan"})
"""Families whose VAE is computed in 32 bits: their own examples load it so."""


@dataclass(frozen=True)
class Loaded:
    """A pipeline on the CPU; `tasks` are its classes by task, `loras` the adapters with their scales."""

    pipeline: Any
    task: str
    tasks: Mapping[str, str]
    loras: Mapping[str, float]
    paths: Mapping[str, Path]


class Loader:
    """Loads one model.

    Args:
        files: All files.
        known: What detection knows, for the classes that go with a ControlNet.
        dtype: As torch calls it.
        quantize: What QUANTIZE says.
        cuda: Whether there is a card.
        say: Takes sentences.
    """

    def __init__(
        self,
        files: ModelFiles,
        known: Knowledge,
        dtype: str,
        quantize: str,
        cuda: bool,
        say: Callable[[str], None],
    ) -> None:
        self._files, self._known, self._say = files, known, say
        self._dtype = getattr(torch, dtype)
        self._float32 = torch.float32
        self._quantize = _quantizer(quantize, self._dtype, cuda=cuda)
        self._decision = files.model.decision

    def load(self) -> Loaded:
        """Return the pipeline. Raises PodError."""
        _check_packages(self._decision)
        name, tasks = self._classes()
        pipeline = self._pipeline(name)
        _check_whole(pipeline, self._files.model.word)
        scales, paths = self._loras(pipeline)
        task = self._decision.task
        if self._files.controlnet:
            task = self._known.classes.task(name) or task
        return Loaded(pipeline, task, tasks, scales, paths)

    def _classes(self) -> tuple[str, dict[str, str]]:
        """Return the class to load and those by task: with a ControlNet, others. Raises LoadError."""
        name, tasks = self._decision.pipeline, dict(self._decision.tasks)
        if self._files.controlnet is None:
            return name, tasks
        union = self._files.controlnet.decision.component == _UNION
        stem = f"{name.removesuffix('Pipeline')}ControlNet{'Union' if union else ''}"
        steered = f"{stem}Pipeline"
        if steered not in self._known.classes.pipelines:
            raise LoadError(
                f"CONTROLNET: {an(name)} has no class that takes a ControlNet ({steered} is not in "
                "diffusers): leave it out, or choose a model of SD 1.5, SDXL, SD3, Flux or Qwen-Image."
            )
        return steered, tasks | dict(self._known.classes.tasks(steered))

    def _pipeline(self, name: str) -> Any:
        model, decision = self._files.model, self._decision
        cls = getattr(diffusers, name)
        folder = model.base.folder if model.base else model.model.folder
        parts: dict[str, Any] = {}
        for role, resolved in (("vae", self._files.vae), ("controlnet", self._files.controlnet)):
            if resolved:
                dtype = self._float32 if role == "vae" and decision.family in _FLOAT32_VAE else self._dtype
                parts[role] = components.beside(role, resolved, dtype, folder, self._say)
        if decision.kind == CHECKPOINT:
            return self._checkpoint(cls, model, parts)
        if decision.kind == PIPELINE:
            return self._folder(cls, model.word, model.model, parts)
        if model.base is None:
            raise LoadError(f"{model.word} has no base: set BASE_MODEL.")
        if decision.kind != LORA:
            quantization = self._quantize.of_component if self._quantize else None
            parts[decision.subfolder] = components.transformer(model, self._dtype, quantization, self._say)
        return self._folder(cls, f"the base of {model.word}", model.base, parts)

    def _folder(self, cls: Any, word: str, part: Part, parts: dict[str, Any]) -> Any:
        """Load a folder in diffusers' layout, with `parts` in place of its own."""
        more: dict[str, Any] = dict.fromkeys(self._decision.omit)
        more |= _without_checker(cls) if "safety_checker" in more else {}
        if self._quantize and (names := [each for each in components.denoisers(part) if each not in parts]):
            more["quantization_config"] = self._quantize.of_pipeline(names)
        dtype: Any = self._dtype
        if self._decision.family in _FLOAT32_VAE and self._dtype != self._float32:
            dtype = {"default": self._dtype, "vae": self._float32}
        with told(word), heard(word, self._say):
            return cls.from_pretrained(
                str(part.folder),
                dtype=dtype,
                variant=components.variant(part),
                **SAFE,
                **more,
                **parts,
            )

    def _checkpoint(self, cls: Any, model: Resolved, parts: dict[str, Any]) -> Any:
        if model.base is None:
            raise LoadError(f"{model.word} has no configuration: set BASE_MODEL.")
        more = _without_checker(cls)
        with told(model.word), heard(model.word, self._say):
            return cls.from_single_file(
                str(model.model.first),
                config=str(model.base.folder),
                dtype=self._dtype,
                local_files_only=True,
                **more,
                **parts,
            )

    def _loras(self, pipeline: Any) -> tuple[dict[str, float], dict[str, Path]]:
        """Load the LoRAs; returns scales and files by the names under which requests know them."""
        wanted = [(self._files.model, 1.0)] if self._decision.kind == LORA else []
        wanted += self._files.loras
        scales: dict[str, float] = {}
        paths: dict[str, Path] = {}
        for resolved, scale in wanted:
            name = adapter_name(resolved, scales)
            with told(resolved.word):
                _add(pipeline, name, resolved)
            scales[name], paths[name] = scale, resolved.model.first
            self._say(f"{resolved.word} is loaded as the LoRA {name!r}, with the scale {scale:g}")
        if scales:
            pipeline.set_adapters(list(scales), list(scales.values()))
        return scales, paths


def _check_whole(pipeline: Any, word: str) -> None:
    """Refuse a pipeline with weights that nothing was loaded into. Raises LoadError."""
    for name, module in pipeline.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        empty = next((key for key, each in module.named_parameters() if each.is_meta), "")
        if empty:
            raise LoadError(
                f"{word} lacks tensors of its {name} ({empty}): the file is not whole, or its base is of "
                "another size; choose another, or set BASE_MODEL."
            )


def _add(pipeline: Any, name: str, resolved: Resolved) -> None:
    try:
        loras.add(pipeline, name, resolved.model.first)
    except loras.LoraError as error:
        raise LoadError(f"LORAS: {resolved.word} {error}: leave it out.") from None


def quiet() -> None:
    """Keep bars and advice of libraries out of the log; warnings and errors stay."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _without_checker(cls: Any) -> dict[str, Any]:
    """Return what leaves the safety checker out without a warning, where the class has one."""
    takes = inspect.signature(cls.__init__).parameters
    found: dict[str, Any] = {}
    if "safety_checker" in takes:
        found["safety_checker"] = None
    if "requires_safety_checker" in takes:
        found["requires_safety_checker"] = False
    return found


def _check_packages(decision: Decision) -> None:
    for name in decision.needs:
        if importlib.util.find_spec(name) is None:
            raise LoadError(
                f"{decision.reason} It needs the Python package {name}, which this image does not have: "
                "choose the same model in plain .safetensors files."
            )


class _Quantizer:
    """Makes configurations of one backend."""

    def __init__(self, word: str, dtype: Any) -> None:
        self._word, self._dtype = word, dtype

    @property
    def of_component(self) -> Any:
        """That of one component."""
        kind, _, bits = self._word.partition("_")
        if kind == "bitsandbytes":
            four = bits == "4bit"
            return diffusers.BitsAndBytesConfig(
                load_in_4bit=four,
                load_in_8bit=not four,
                **({"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": self._dtype} if four else {}),
            )
        torchao = importlib.import_module("torchao.quantization")
        name = "Int8WeightOnlyConfig" if bits == "int8" else "Float8WeightOnlyConfig"
        return diffusers.TorchAoConfig(getattr(torchao, name)())

    def of_pipeline(self, names: list[str]) -> Any:
        """That of a pipeline, for some of its components."""
        return diffusers.PipelineQuantizationConfig(quant_mapping=dict.fromkeys(names, self.of_component))


def _quantizer(word: str, dtype: Any, *, cuda: bool) -> _Quantizer | None:
    """Return what QUANTIZE asks for. Raises SettingError where it cannot be."""
    if not word:
        return None
    package = QUANTIZERS[word]
    instead = "leave it out, or set GPU_MEMORY_MODE=layerwise_fp8, which needs no package"
    if importlib.util.find_spec(package) is None:
        raise SettingError(
            f"QUANTIZE={word} needs the Python package {package}, which this image does not have: {instead}."
        )
    if not cuda and package == "bitsandbytes":
        raise SettingError(f"QUANTIZE={word} needs a CUDA card, and there is none: leave it out.")
    try:
        importlib.import_module(package)
    except Exception as error:  # noqa: BLE001 - kernels that do not fit fail in many ways
        raise SettingError(
            f"QUANTIZE={word}: {package} does not work here ({first_line(error)}): {instead}."
        ) from None
    return _Quantizer(word, dtype)
