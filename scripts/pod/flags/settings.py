"""The environment, read once: what a user asks of this pod. A malformed value is never a default."""

from __future__ import annotations

import os
import re

from pod.errors import SETTING_MALFORMED, PodError
from pod.flags.rules import AUTO
from pod.services import ping_config
from pod.util.dataclass import dataclass
from pod.util.env import (
    CIVITAI,
    GITHUB,
    HUGGINGFACE,
    MOST,
    NO,
    YES,
    SettingError,
    endpoint,
    is_control,
    is_on,
    nearest,
    number,
    port,
    short,
    staging,
    token,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pod.flags.rules import Rules
    from pod.model_refs.model_ref import ModelRef

_FOLDERS = ("PODKILN_ROOT", "PODKILN_RUN", "PODKILN_LOCAL", "PODKILN_BAKED", "PODKILN_VENV", "PODKILN_VOLUME")
_TOKENS = ("HF_TOKEN", "CIVITAI_TOKEN")
_ENDPOINTS = {"HF_ENDPOINT": HUGGINGFACE, "CIVITAI_ENDPOINT": CIVITAI, "GITHUB_ENDPOINT": GITHUB}
_FEW = 6
_LONGEST_NAME, _LONGEST_PATH = 255, 4000  # bytes: NAME_MAX, and PATH_MAX with room for what lies below
_CUDA_ORDERS = ("FASTEST_FIRST", "PCI_BUS_ID")


@dataclass(frozen=True)
class Settings:
    """What the environment asks for.

    `tier` and `memory_mode` are "auto" or a canonical name; `models` is None (the image's defaults), or the
    ids in MODELS; `wishes` are the other files that MODELS and LORAS name; `nodes` are the words of NODES;
    `toggles` holds the ENABLE_ variables of this image's models that are set.
    """

    port: int
    tier: str = AUTO
    memory_mode: str = AUTO
    profile: str = "dynamic"
    arguments: str = ""
    workspace: str = "/workspace"
    models: tuple[str, ...] | None = None
    nodes: tuple[str, ...] = ()
    wishes: tuple[ModelRef, ...] = ()
    toggles: tuple[tuple[str, bool], ...] = ()
    warnings: tuple[str, ...] = ()

    def toggle(self, name: str) -> bool | None:
        """Return what an ENABLE_ variable says; None when it is not set."""
        return dict(self.toggles).get(name)


def read(environ: Mapping[str, str], rules: Rules, toggles: Collection[str] = ()) -> Settings:
    """Read the environment. Raises SettingError for the first malformed variable.

    Args:
        environ: The pod's environment.
        rules: Which tiers, modes and profiles there are, and the image's own defaults.
        toggles: The ENABLE_ variables of the models that this image offers.
    """
    asked = {name: environ[name].strip() for name in environ if environ[name].strip()}
    _check_others(asked)
    return Settings(
        port=port("COMFYUI_PORT", asked.get("COMFYUI_PORT"), rules.port),
        tier=_one_of("GPU_TIER", asked, {AUTO: AUTO, **{name: name for name in rules.tiers}}),
        memory_mode=_one_of("GPU_MEMORY_MODE", asked, _memory_modes(rules)),
        profile=_one_of("FLAG_PROFILE", asked, {name: name for name in rules.profiles}, rules.profile),
        arguments=asked.get("COMFYUI_ARGS", ""),
        workspace=_workspace(asked.get("WORKSPACE", rules.workspace)),
        models=_models(asked.get("MODELS")),
        nodes=tuple(word.lower() for word in re.split(r"[\s,]+", asked.get("NODES", "")) if word),
        wishes=_wishes(asked),
        toggles=tuple((name, is_on(name, asked[name])) for name in sorted(toggles) if name in asked),
        warnings=tuple(_strangers(asked, toggles)),
    )


def read_for_server(environ: Mapping[str, str], rules: Rules) -> Settings:
    """Read what the boot of a model's server asks for; the server reads its own. Raises SettingError."""
    asked = {name: environ[name].strip() for name in environ if environ[name].strip()}
    _check_others(asked)
    return Settings(
        port=ping_config.port_of_server(environ),
        tier=_one_of("GPU_TIER", asked, {AUTO: AUTO, **{name: name for name in rules.tiers}}),
        workspace=_workspace(asked.get("WORKSPACE", rules.workspace)),
    )


def _memory_modes(rules: Rules) -> dict[str, str]:
    names = {AUTO: AUTO}
    for known in rules.memory_modes:
        names |= dict.fromkeys((known.mode, *known.aliases), known.mode)
    return names


def _one_of(name: str, asked: Mapping[str, str], known: Mapping[str, str], default: str = AUTO) -> str:
    value = asked.get(name)
    if value is None:
        return default
    found = {word.lower(): meaning for word, meaning in known.items()}.get(value.lower())
    if found is None:
        near = nearest(value.lower(), [word.lower() for word in known])
        hint = next((f" Did you mean {word}?" for word in known if word.lower() == near), "")
        raise SettingError(f"{name}={short(value)!r} is not one of {', '.join(known)}.{hint}")
    return found


def _workspace(value: str) -> str:
    _folder("WORKSPACE", value, "/workspace")
    if "$" in value:
        raise SettingError(
            f"WORKSPACE={short(value)!r} holds a $, and variables are not expanded here: write the path in "
            "full, such as /workspace."
        )
    return value.rstrip("/") or "/"


def _folder(name: str, value: str, example: str) -> None:
    parts = os.fsencode(value).split(b"/")
    if max(map(len, parts)) > _LONGEST_NAME or len(value) > _LONGEST_PATH:
        raise SettingError(
            f"{name}={short(value)!r} is longer than a path can be: give one such as {example}."
        )
    if not value.startswith("/") or ".." in value.split("/"):
        raise SettingError(f"{name}={short(value)!r} is not an absolute path: give one such as {example}.")
    if any(is_control(char) for char in value):
        raise SettingError(
            f"{name}={short(value)!r} holds control characters (a line break, perhaps): give a path such as "
            f"{example}."
        )


def _check_others(asked: Mapping[str, str]) -> None:
    """Check what is read later, by programs beside ComfyUI: an error must show before it starts."""
    for name in _FOLDERS:
        if name in asked:
            _folder(name, asked[name], f"/{name.removeprefix('PODKILN_').lower()}")
    for name in _TOKENS:
        token(name, asked.get(name))
    for name, default in _ENDPOINTS.items():
        endpoint(name, asked.get(name), default)
    for name in MOST:
        number(name, asked.get(name), 1)
    staging(asked.get("FETCH_STAGING"))
    _one_of("PODKILN_DOCTOR", asked, {"warn": "warn"})
    order = asked.get("CUDA_DEVICE_ORDER", _CUDA_ORDERS[0])
    if order not in _CUDA_ORDERS:
        raise SettingError(f"CUDA_DEVICE_ORDER={short(order)!r} is not one of {', '.join(_CUDA_ORDERS)}.")


def _models(value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    words = tuple(word.lower() for word in re.split(r"[\s,]+", value) if word)  # ids are lower case
    if not words:
        raise SettingError(f"MODELS={value!r} names no model: give ids separated by commas, all, or none.")
    ids = tuple(_read_words("MODELS", value)[0]) if _holds_address(value) else words
    alone = [word for word in ids if word in ("all", "none")]
    if alone and len(ids) > 1:
        raise SettingError(f"MODELS: {alone[0]} cannot be combined with ids, as in {', '.join(ids)}.")
    return ids


def _wishes(asked: Mapping[str, str]) -> tuple[ModelRef, ...]:
    """Return the files that are named by their addresses; a word of LORAS is always meant as one."""
    values = {"MODELS": asked.get("MODELS", ""), "LORAS": asked.get("LORAS", "")}
    if values["LORAS"].lower() == "none":
        values["LORAS"] = ""
    given = {name: value for name, value in values.items() if name == "LORAS" or _holds_address(value)}
    return tuple(wish for name, value in given.items() if value for wish in _read_words(name, value)[1])


def _holds_address(value: str) -> bool:
    return any(sign in value for sign in ":/=")


def _read_words(name: str, value: str) -> tuple[list[str], list[ModelRef]]:
    from pod.model_refs import model_ref  # noqa: PLC0415 - 3 ms that only needed where a file is named

    try:
        return model_ref.read(name, model_ref.words(value), SETTING_MALFORMED)
    except PodError as malformed:
        raise SettingError(str(malformed)) from None


def _strangers(asked: Mapping[str, str], toggles: Collection[str]) -> list[str]:
    """Say which ENABLE_ variables name no model of this image. Raises SettingError for what is meant as one.

    Other programs' variables may begin with ENABLE_ too. So what resembles no model's is only mentioned, in
    one sentence for all, while one close to a model's name that is switched on means a model that will not
    come.
    """
    strangers = sorted(name for name in asked if name.upper().startswith("ENABLE_") and name not in toggles)
    for name in strangers:
        meant = _meant(name, toggles)
        if meant and asked[name].lower() in YES:
            raise SettingError(f"{name} names no model of this image: did you mean {meant}?")
    slips = {name: meant for name in strangers if (meant := _meant(name, toggles))}
    said = [f"{name} names no model of this image; did you mean {meant}?" for name, meant in slips.items()]
    others = [name for name in strangers if name not in slips and asked[name].lower() in (*YES, *NO)]
    if others:
        said.append(
            f"{', '.join(others[:_FEW])} {'name' if len(others) > 1 else 'names'} no model of this image, so "
            f"podkiln does nothing about it; the models' variables are {', '.join(sorted(toggles)) or 'none'}"
        )
    return said


def _meant(name: str, toggles: Collection[str]) -> str | None:
    """Return the model's variable that was probably meant: one nearly the same, or one that it begins."""
    name = name.upper()
    near = nearest(name, toggles, cutoff=0.85)
    if near:
        return near
    words = name.removeprefix("ENABLE_").strip("_").split("_")
    held = [
        each for each in sorted(toggles) if each.removeprefix("ENABLE_").split("_")[: len(words)] == words
    ]
    return held[0] if held and words != [""] else None
