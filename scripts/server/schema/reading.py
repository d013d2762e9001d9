"""From a pipeline's signature, docstring, code and figures to the schema of a task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from server.schema import docstring, exposure, hints, source
from server.schema.exposure import Limits
from server.schema.parameters import BOOLEAN, INTEGER, MEDIA, NUMBER, TEXT, Parameter, Schema

if TYPE_CHECKING:
    import inspect
    from collections.abc import Mapping

_LAST_SEED = 2**63 - 1
_NUMBERS = {INTEGER, NUMBER}
_CLASSES: dict[str, type] = {TEXT: str, BOOLEAN: bool}
# What a task cannot do without, even where the signature has a default for it: arrays could be given instead.
_NEEDS = {
    "image-to-image": {"image", "images"},
    "inpainting": {"image", "mask_image", "mask"},
    "image-to-video": {"image"},
    "image-to-3d": {"image"},
    "video-to-video": {"video"},
    "controlled text-to-image": {"control_image"},
}
# Tasks whose pictures come in the size of the one that is given.
_SIZE_OF_INPUT = {"image-to-image", "inpainting"}
_NO_EFFECT = "This model was not made for it, and does as if it was not given."
_OWN = {
    "seed": "The same seed makes the same output on the same card; each further output of a request has one"
    " more. Without it, one is drawn and told.",
    "scheduler": "How noise is removed step by step. Without it, the model's own.",
}


@dataclass(frozen=True)
class Facts:
    """What is known of a loaded pipeline beside its signature and docstring.

    Attributes:
        code: The source of its class; "" where it cannot be had.
        values: Numbers, texts and tuples of the pipeline and its components by dotted name:
            "vae_scale_factor", "transformer.config.sample_size"; ... for a component that is there.
            `source.names` says which are asked for.
        schedulers: Classes that go with it; empty where it takes none but its own.
        scheduler: The class that it has.
    """

    code: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    schedulers: tuple[str, ...] = ()
    scheduler: str = ""


def read(
    pipeline: str,
    task: str,
    signature: inspect.Signature,
    described: str = "",
    facts: Facts | None = None,
    limits: Limits | None = None,
) -> Schema:
    """Return the schema of a task.

    `pipeline` is the class's name, `signature` and `described` (its docstring) are those of its __call__.
    """
    facts, limits = facts or Facts(), limits or Limits()
    taken = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name != "self" and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }
    given = {
        name: None if parameter.default is parameter.empty else parameter.default
        for name, parameter in taken.items()
    }
    made = source.defaults(facts.code, given, facts.values)
    says = docstring.descriptions(described)
    found: list[Parameter] = []
    for name, each in taken.items():
        parameter = None if exposure.hidden(name, frozenset(taken)) else _parameter(each, given[name])
        if parameter is not None:
            default = (
                parameter.default if parameter.default is not None else _fitting(made.get(name), parameter)
            )
            found.append(replace(parameter, default=default, description=says.get(name, "")))
    found = _without_effect(found, facts)
    found = _bounded(
        [_needed(each, task, frozenset(taken)) for each in found],
        source.rules(facts.code, facts.values),
        facts,
        limits,
    )
    return Schema(task, pipeline, tuple(_ordered(found, facts)), _megapixels(found, limits))


def _parameter(each: inspect.Parameter, default: Any) -> Parameter | None:
    """Return a parameter as its annotation has it; None where a client cannot send what it takes."""
    taken = hints.read(hints.text(each.annotation), default)
    kind = taken.kind
    if kind in {MEDIA, "tensor"}:
        if kind == "tensor" and not exposure.file_for_tensor(each.name):
            return None
        return _file(each, taken)
    if not kind:
        return None
    parameter = Parameter(
        each.name,
        kind,
        required=each.default is each.empty,
        many=taken.many,
        single=taken.single,
        length=taken.length,
        choices=taken.choices,
    )
    return replace(parameter, default=_fitting(default, parameter))


def _file(each: inspect.Parameter, taken: hints.Type) -> Parameter:
    """Return a parameter that takes files."""
    media = exposure.media(each.name, taken.many and not taken.single)
    several = taken.many and media == "image"
    single = taken.single or not several
    required = each.default is each.empty
    return Parameter(each.name, MEDIA, required=required, many=several, single=single, media=media)


def _fitting(default: Any, parameter: Parameter) -> Any:
    """Return a default as its parameter's kind has it; None where it does not fit."""
    if isinstance(default, list | tuple):
        found = [_fitting(each, replace(parameter, many=False)) for each in default]
        whole = parameter.many and None not in found and len(found) == (parameter.length or len(found))
        return tuple(found) if whole else None
    if parameter.kind not in _NUMBERS:
        return default if isinstance(default, _CLASSES.get(parameter.kind, ())) else None
    if isinstance(default, bool) or not isinstance(default, int | float) or not math.isfinite(default):
        return None
    if parameter.kind == NUMBER:
        return float(default)
    return int(default) if default == int(default) else None


def _without_effect(found: list[Parameter], facts: Facts) -> list[Parameter]:
    """Leave out what this model's configuration makes an error, and say what it makes void."""
    values = facts.values
    names = {each.name for each in found}
    if "config.boundary_ratio" in values and values["config.boundary_ratio"] is None:
        found = [
            each for each in found if each.name != "guidance_scale_2"
        ]  # of a transformer that is not there
    if values.get("transformer.config.guidance_embeds") is False and "true_cfg_scale" in names:
        return [_void(each) if each.name == "guidance_scale" else each for each in found]
    return found


def _void(each: Parameter) -> Parameter:
    return replace(each, advanced=True, description=f"{each.description} {_NO_EFFECT}".strip())


def _needed(each: Parameter, task: str, taken: frozenset[str]) -> Parameter:
    """Return a parameter, required where the task has no sense without it."""
    needed = each.name in _NEEDS.get(task, set()) or (each.name == "prompt" and each.default is None)
    if task == "controlled text-to-image" and each.name == "image" and "control_image" not in taken:
        needed = True
    if task in _SIZE_OF_INPUT and each.name in {"width", "height"} and each.default is None:
        return replace(each, description=f"{each.description} Without it, that of the picture.".strip())
    return replace(each, required=True) if needed else each


def _bounded(found: list[Parameter], rules: source.Rules, facts: Facts, limits: Limits) -> list[Parameter]:
    """Return parameters with their bounds; a bound that the pipeline's own default breaks is none."""
    bounded = []
    for each in found:
        if each.kind not in _NUMBERS:
            bounded.append(each)
            continue
        low, high = exposure.bounds(each.name, limits)
        own_low, own_high = rules.minima.get(each.name), rules.maxima.get(each.name)
        low = own_low if low is None else max(low, own_low if own_low is not None else low)
        high = own_high if high is None else min(high, own_high if own_high is not None else high)
        multiple, offset = rules.multiples.get(each.name, (_fallback(each.name, facts), 0))
        default = each.default if isinstance(each.default, int | float) else None
        if default is not None:
            high = None if high is None else max(high, default)
            low = None if low is None else min(low, default)
            if multiple and (default - offset) % multiple:
                multiple, offset = 0, 0
        if multiple and not offset:
            low = max(low or 0, multiple)
        bounded.append(replace(each, minimum=low, maximum=high, multiple=multiple or None, offset=offset))
    return bounded


def _fallback(name: str, facts: Facts) -> int:
    """Return what sides are a multiple of where the pipeline does not check it: a latent has no half."""
    if name not in {"width", "height"}:
        return 0
    for key in ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio"):
        if isinstance(facts.values.get(key), int):
            return int(facts.values[key])
    return 0


def _ordered(found: list[Parameter], facts: Facts) -> list[Parameter]:
    own = [Parameter("seed", INTEGER, _OWN["seed"], minimum=0, maximum=_LAST_SEED)]
    if facts.schedulers:
        own.append(
            Parameter(
                "scheduler",
                TEXT,
                _OWN["scheduler"],
                default=facts.scheduler or None,
                choices=facts.schedulers,
                advanced=True,
            )
        )
    ranks = {each.name: "" if each.advanced else exposure.rank(each.name) for each in found}
    main = sorted((each for each in found if ranks[each.name]), key=lambda each: ranks[each.name])
    rest = [replace(each, advanced=not each.required) for each in found if not ranks[each.name]]
    needed = [each for each in rest if each.required]
    return [*main, *needed, *own, *(each for each in rest if not each.required)]


def _megapixels(found: list[Parameter], limits: Limits) -> float:
    sides = {each.name: each.default for each in found if each.name in {"width", "height"}}
    if len(sides) < 2:  # noqa: PLR2004 (both of them)
        return 0
    width, height = sides["width"], sides["height"]
    own = width * height / 1e6 if isinstance(width, int) and isinstance(height, int) else 0
    return max(limits.megapixels, own)
