"""What the server of one model is told by its environment. How it serves is worker.serve_settings' part."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pod.util import env, files
from pod.util.env import SettingError, nearest, short

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE_LOCK: Final = "model-lock.json"
"""Among the image's data: the model that its variant names, and what is locked of it."""
AUTO: Final = "auto"
FULL, FP8, GROUP, MODEL, SEQUENTIAL = (
    "full",
    "layerwise_fp8",
    "group_offload",
    "model_offload",
    "sequential_offload",
)
MODES: Final = (FULL, FP8, MODEL, GROUP, SEQUENTIAL)
"""What `auto` chooses from, the fastest first."""
_MODEL_FP8: Final = "model_offload_fp8"
"""MODEL with the denoiser's weights in float8: what GPU_MEMORY_MODE may say beside MODES."""
OLDER: Final = {
    "model_full_load": FULL,
    "model_full_load_and_qfloat8": FP8,
    "model_cpu_offload": MODEL,
    "model_cpu_offload_and_qfloat8": _MODEL_FP8,
    "sequential_cpu_offload": SEQUENTIAL,
    "sequential_cpu_offload_and_qfloat8": SEQUENTIAL,
}
"""Names of modes in podkiln's other variants, and in records of earlier releases."""
DTYPES: Final = ("bfloat16", "float16", "float32")
_SHORT_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
QUANTIZERS: Final = {
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "torchao_int8": "torchao",
    "torchao_fp8": "torchao",
}
"""What QUANTIZE may say, and the package that does it."""
_REVISION: Final = re.compile(r"refs/\w+/[\w.-]+|\w[\w.-]*", re.ASCII)
_SCALED: Final = re.compile(r"(?P<word>.+?)=(?P<scale>[-+]?(?:[0-9]{1,3}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}))")
_LARGEST_SCALE: Final = 10.0
_MODEL_FORMS: Final = "org/repo, hf:org/repo@revision:name.safetensors, civitai:MODEL@VERSION or a path"
_HAS_REVISION: Final = re.compile(r"[^@:]+(?::[^@/:]+/[^@:]+)?@|civitai:[0-9]+@|urn:", re.IGNORECASE)


@dataclass(frozen=True)
class LoraWord:
    """A word of LORAS, and how strongly that LoRA is used where a request says nothing."""

    word: str
    scale: float = 1.0


@dataclass(frozen=True)
class Settings:
    """Which model to load, and how.

    Attributes:
        model: The word of MODEL_ID.
        revision: A branch, tag, commit, or version on CivitAI; "" where nothing says which.
        base_model: What the model belongs on; "" where that is to be found out.
        loras: LoRAs to load with it.
        vae: A word: the VAE to use in place of the model's own; "" for that.
        controlnet: A word: the ControlNet to steer it with; "" for none.
        dtype: One of DTYPES, or AUTO.
        mode: One of MODES, or AUTO.
        float8: Whether weights are kept in float8 beside the mode.
        quantize: One of QUANTIZERS, "" for none.
        compile: Whether the denoiser is compiled.
        auto_downgrade: Whether the next lower mode is taken at once where memory was not enough.
        workspace: The volume's folder.
        run: Where this container keeps what it knows.
        root: Where the image's data are.
        baked: Where the image's models are.
        volume: Where serverless pods have their volume, and RunPod its cached models.
        offline: Whether no hub may be asked.
    """

    model: str
    revision: str = ""
    base_model: str = ""
    loras: tuple[LoraWord, ...] = ()
    vae: str = ""
    controlnet: str = ""
    dtype: str = AUTO
    mode: str = AUTO
    float8: bool = False
    quantize: str = ""
    compile: bool = False
    auto_downgrade: bool = False
    workspace: Path = Path("/workspace")
    run: Path = Path("/run/podkiln")
    root: Path = Path("/opt/podkiln")
    baked: Path = Path("/opt/models")
    volume: Path = Path("/runpod-volume")
    offline: bool = False


def read(environ: Mapping[str, str]) -> Settings:
    """Read the environment, and where that names no other model the image's own.

    Raises SettingError, PodError for an image that is damaged.
    """
    return parse(_with_image_model(environ))


def parse(environ: Mapping[str, str]) -> Settings:
    """Read the environment alone. Raises SettingError."""
    model = _word(environ, "MODEL_ID")
    if not model:
        raise SettingError(f"MODEL_ID is not set, so that there is no model to serve: give {_MODEL_FORMS}.")
    revision = _word(environ, "MODEL_REVISION")
    if revision and _HAS_REVISION.match(model):
        raise SettingError(
            f"MODEL_REVISION={short(revision)!r} and MODEL_ID={short(model)!r} both name a revision: "
            "leave out one of them."
        )
    if revision and (".." in revision or not _REVISION.fullmatch(revision)):
        raise SettingError(
            f"MODEL_REVISION={short(revision)!r} is no revision: give a branch, a tag, a commit, or the "
            "number of a version on CivitAI."
        )
    mode, float8 = _mode(environ)
    return Settings(
        model,
        revision,
        _word(environ, "BASE_MODEL"),
        _loras(environ.get("LORAS", "")),
        _word(environ, "VAE"),
        _word(environ, "CONTROLNET"),
        _one_of("DTYPE", environ, (AUTO, *DTYPES), _SHORT_DTYPES),
        mode,
        float8,
        _one_of("QUANTIZE", environ, ("none", *QUANTIZERS), {"": "none"}).removeprefix("none"),
        env.is_on("COMPILE", environ.get("COMPILE")),
        env.is_on("AUTO_DOWNGRADE", environ.get("AUTO_DOWNGRADE")),
        _folder(environ, "WORKSPACE", Settings.workspace),
        _folder(environ, "PODKILN_RUN", Settings.run),
        _folder(environ, "PODKILN_ROOT", Settings.root),
        _folder(environ, "PODKILN_BAKED", Settings.baked),
        _folder(environ, "PODKILN_VOLUME", Settings.volume),
        env.is_on("HF_HUB_OFFLINE", environ.get("HF_HUB_OFFLINE")),
    )


def _with_image_model(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with the variables of the image's own model, unless it names another one."""
    path = _folder(environ, "PODKILN_ROOT", Settings.root) / IMAGE_LOCK
    if not path.exists():
        return environ
    own = files.read_image_data(path, _own_variables)
    given = {name: value for name, value in environ.items() if value.strip()}
    if given.get("MODEL_ID", own["MODEL_ID"]).strip() != own["MODEL_ID"]:
        return environ
    return {**environ, **own, **{name: given[name] for name in own if name in given}}


def _own_variables(data: Mapping[str, Any]) -> dict[str, str]:
    """Read the variables of the image's lock. Raises ValueError, KeyError, TypeError, AttributeError."""
    found = {str(name): value.strip() for name, value in data["variables"].items()}
    if not found["MODEL_ID"]:
        raise ValueError("no model")
    return found


def _word(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    env.check_filled_in(name, value)
    if not value.isprintable() or re.search(r"\s", value):
        raise SettingError(f"{name}={short(value)!r} is more than one word: name one model.")
    return value


def _folder(environ: Mapping[str, str], name: str, default: Path) -> Path:
    return Path(environ.get(name) or default)


def _one_of(name: str, environ: Mapping[str, str], words: tuple[str, ...], others: Mapping[str, str]) -> str:
    value = environ.get(name, "").strip().lower()
    found = others.get(value, value or words[0])
    if found in words:
        return found
    near = nearest(found, words)
    hint = f"did you mean {near}? " if near else ""
    raise SettingError(f"{name}={short(value)!r} is not known: {hint}it may be {', '.join(words)}.")


def _mode(environ: Mapping[str, str]) -> tuple[str, bool]:
    mode = _one_of("GPU_MEMORY_MODE", environ, (AUTO, *MODES, _MODEL_FP8), OLDER)
    return (MODEL, True) if mode == _MODEL_FP8 else (mode, mode == FP8)


def _loras(text: str) -> tuple[LoraWord, ...]:
    """Read LORAS: words between commas, blanks and lines, each with `=scale` behind it or not."""
    found: dict[str, LoraWord] = {}
    if text.strip().lower() == "none":
        return ()
    for word in (each for each in re.split(r"[\s,]+", text) if each):
        env.check_filled_in("LORAS", word)
        match = _SCALED.fullmatch(word)
        if match and "?" in match["word"] and "=" not in match["word"].rpartition("?")[2]:
            match = None  # the value of an address's query
        scale = float(match["scale"]) if match else 1.0
        name = match["word"] if match else word
        if abs(scale) > _LARGEST_SCALE:
            raise SettingError(
                f"LORAS: {short(word)!r} has the scale {scale:g}: give one from -{_LARGEST_SCALE:g} to "
                f"{_LARGEST_SCALE:g}."
            )
        found[name] = LoraWord(name, scale)
    return tuple(found.values())
