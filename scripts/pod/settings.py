"""The environment, read once: what a user asks of this pod. A malformed value is never a default."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pod.failure import SETTING_MALFORMED, PodError
from pod.flags.rules import AUTO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pod.flags.rules import Rules
    from pod.wishes.wish import Wish

_YES = ("true", "1", "yes")
_NO = ("false", "0", "no")
HIGHEST_PORT = 65535
HUGGINGFACE = "https://huggingface.co"
CIVITAI = "https://civitai.com"
# The most that is of use or does no harm: connections are threads, and a server drops who opens hundreds.
MOST = {
    "FETCH_JOBS": 256,
    "FETCH_CONNECTIONS": 256,
    "PODKILN_FETCH_CHUNK": 1 << 30,
    "PODKILN_FETCH_TRIES": 1000,
    "PODKILN_FETCH_STALL": 3600,
}
_FOLDERS = ("PODKILN_ROOT", "PODKILN_RUN", "PODKILN_LOCAL", "PODKILN_BAKED", "PODKILN_VENV", "PODKILN_VOLUME")
_TOKENS = ("HF_TOKEN", "CIVITAI_TOKEN")
_ENDPOINTS = {"HF_ENDPOINT": HUGGINGFACE, "CIVITAI_ENDPOINT": CIVITAI}
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}")  # the letters that HTTP has for tokens (RFC 9110, token68)
_SHOWN = 100  # characters of a value that a sentence quotes
_FEW = 6
_CUDA_ORDERS = ("FASTEST_FIRST", "PCI_BUS_ID")


class SettingError(PodError):
    """An environment variable says something that it cannot mean."""

    def __init__(self, message: str) -> None:
        super().__init__(message, SETTING_MALFORMED)


@dataclass(frozen=True)
class Settings:
    """What the environment asks for.

    `tier` and `memory_mode` are "auto" or a canonical name; `models` is None (the image's defaults), or the
    ids in MODELS; `wishes` are the other files that MODELS and LORAS name; `toggles` holds the ENABLE_
    variables of this image's models that are set.
    """

    port: int
    tier: str = AUTO
    memory_mode: str = AUTO
    profile: str = "dynamic"
    arguments: str = ""
    workspace: str = "/workspace"
    models: tuple[str, ...] | None = None
    wishes: tuple[Wish, ...] = ()
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
        wishes=_wishes(asked),
        toggles=tuple((name, _boolean(name, asked[name])) for name in sorted(toggles) if name in asked),
        warnings=tuple(_strangers(asked, toggles)),
    )


def port(name: str, value: str | None, default: int) -> int:
    """Return a variable's value as a port, or the default where it is not set. Raises SettingError."""
    value = (value or "").strip()
    if not value:
        return default
    if value.startswith(("tcp://", "udp://")):
        service = name.removesuffix("_PORT").lower().replace("_", "-")
        raise SettingError(
            f"{name}={_short(value)!r} is no port: Kubernetes sets it for a service called {service}; "
            f"set enableServiceLinks to false in the pod's spec, or rename the service, or set {name}."
        )
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= HIGHEST_PORT:
        raise SettingError(
            f"{name}={_short(value)!r} is no port: give a whole number from 1 to {HIGHEST_PORT}."
        )
    return int(value)


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
        raise SettingError(f"{name}={_short(value)!r} is none of {', '.join(known)}.{hint}")
    return found


def _workspace(value: str) -> str:
    _folder("WORKSPACE", value, "/workspace")
    if "$" in value:
        raise SettingError(
            f"WORKSPACE={_short(value)!r} holds a $, and nothing is filled in here: write the path in full, "
            "such as /workspace."
        )
    return value.rstrip("/") or "/"


def _folder(name: str, value: str, example: str) -> None:
    if not value.startswith("/") or ".." in value.split("/"):
        raise SettingError(f"{name}={_short(value)!r} is no absolute path: give one such as {example}.")
    if any(_is_control(char) for char in value):
        raise SettingError(
            f"{name}={_short(value)!r} holds control characters (a line break, perhaps): give a path such as "
            f"{example}."
        )


def _check_others(asked: Mapping[str, str]) -> None:
    """Check what is read later, by programs beside ComfyUI: a mistake is to be heard of before it starts."""
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
        raise SettingError(f"CUDA_DEVICE_ORDER={_short(order)!r} is none of {', '.join(_CUDA_ORDERS)}.")


def token(name: str, value: str | None) -> str | None:
    """Return a variable's value as a token for HTTP; None when it is not set. Raises SettingError.

    The value is never said: what is wrong with it may be one character of a secret.
    """
    value = (value or "").strip()
    if not value:
        return None
    if value[0] in "\"'" or value[-1] in "\"'":
        raise SettingError(
            f"{name} has quotation marks around it, which docker --env-file keeps: leave them out."
        )
    if value.startswith(("{{", "$")):
        raise SettingError(
            f"{name} is the name of a secret that was not filled in: check that name on your platform."
        )
    if not _TOKEN.fullmatch(value):
        raise SettingError(
            f"{name} holds characters that no token has: copy it again, without spaces or quotes."
        )
    return value


def endpoint(name: str, value: str | None, default: str) -> str:
    """Return a variable's value as the address of a hub, or the default. Raises SettingError."""
    value = (value or "").strip().rstrip("/")
    if not value:
        return default
    from urllib.parse import urlsplit  # noqa: PLC0415 - only who has a mirror needs to pay

    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        good = False
    odd = not value.isascii() or not value.isprintable() or any(sign in value for sign in " \"'<>\\")
    if not good or odd or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingError(f"{name} is not an address like {default}: correct it, or unset it.")
    return value


def number(name: str, value: str | None, default: int) -> int:
    """Return a variable's value as a whole number from 1 to its MOST, or the default. Raises SettingError."""
    value = (value or "").strip()
    if not value:
        return default
    if not re.fullmatch(r"0{0,9}[1-9][0-9]{0,9}", value) or int(value) > MOST[name]:
        raise SettingError(f"{name}={_short(value)!r} is no whole number from 1 to {MOST[name]}.")
    return int(value)


def staging(value: str | None) -> str:
    """Return FETCH_STAGING: auto, never, or an absolute path. Raises SettingError."""
    value = (value or "").strip() or "auto"
    if value in ("auto", "never"):
        return value
    if not value.startswith("/") or ".." in value.split("/") or any(map(_is_control, value)):
        raise SettingError(
            f"FETCH_STAGING={_short(value)!r} is none of auto and never, and no absolute path: "
            "name a folder on a local disk, or unset it."
        )
    return value


def _is_control(char: str) -> bool:
    """Whether a character controls a terminal or a file format; bytes that are no UTF-8 do not."""
    return ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029"  # noqa: PLR2004 - C0, DEL, C1


def _short(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


def _models(value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    words = tuple(word.lower() for word in re.split(r"[\s,]+", value) if word)  # ids are lower case
    if not words:
        raise SettingError(f"MODELS={value!r} names no model: give ids separated by commas, all, or none.")
    ids = tuple(_read_words("MODELS", value)[0]) if _holds_address(value) else words
    alone = [word for word in ids if word in ("all", "none")]
    if alone and len(ids) > 1:
        raise SettingError(
            f"MODELS: {alone[0]} stands alone, without ids beside it; {', '.join(ids)} is given."
        )
    return ids


def _wishes(asked: Mapping[str, str]) -> tuple[Wish, ...]:
    """Return the files that are named by their addresses; a word of LORAS is always meant as one."""
    values = {"MODELS": asked.get("MODELS", ""), "LORAS": asked.get("LORAS", "")}
    given = {name: value for name, value in values.items() if name == "LORAS" or _holds_address(value)}
    return tuple(wish for name, value in given.items() if value for wish in _read_words(name, value)[1])


def _holds_address(value: str) -> bool:
    return any(sign in value for sign in ":/=")


def _read_words(name: str, value: str) -> tuple[list[str], list[Wish]]:
    from pod.wishes import wish  # noqa: PLC0415 - 3 ms that only who names a file needs to pay

    try:
        return wish.read(name, wish.words(value), SETTING_MALFORMED)
    except PodError as malformed:
        raise SettingError(str(malformed)) from None


def _boolean(name: str, value: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise SettingError(f"{name}={value!r} is neither yes nor no: give true, 1 or yes, or false, 0 or no.")


def _strangers(asked: Mapping[str, str], toggles: Collection[str]) -> list[str]:
    """Say which ENABLE_ variables name no model of this image. Raises SettingError for what is meant as one.

    Other programs' variables may begin with ENABLE_ too. So what resembles no model's is only mentioned, in
    one sentence for all, while one close to a model's name that is switched on means a model that will not
    come.
    """
    strangers = sorted(name for name in asked if name.upper().startswith("ENABLE_") and name not in toggles)
    for name in strangers:
        meant = _meant(name, toggles)
        if meant and asked[name].lower() in _YES:
            raise SettingError(f"{name} names no model of this image: did you mean {meant}?")
    slips = {name: meant for name in strangers if (meant := _meant(name, toggles))}
    said = [f"{name} names no model of this image; did you mean {meant}?" for name, meant in slips.items()]
    others = [name for name in strangers if name not in slips and asked[name].lower() in (*_YES, *_NO)]
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


def nearest(word: str, words: Collection[str], cutoff: float = 0.6) -> str | None:
    """Return the word that was probably meant."""
    import difflib  # noqa: PLC0415 - 5 ms that only a mistake needs to pay

    near = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return near[0] if near else None
