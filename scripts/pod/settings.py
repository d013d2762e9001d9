"""The environment, read once: what a user asks of this pod. A malformed value is never a default."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pod.failure import SETTING_MALFORMED, PodError
from pod.flags.rules import AUTO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pod.flags.rules import Rules
    from pod.wishes.wish import Wish

_YES = ("true", "1", "yes")
_NO = ("false", "0", "no")
HIGHEST_PORT = 65535


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
        warnings=tuple(_near_misses(asked, toggles)),
    )


def port(name: str, value: str | None, default: int) -> int:
    """Return a variable's value as a port, or the default where it is not set. Raises SettingError."""
    value = (value or "").strip()
    if not value:
        return default
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= HIGHEST_PORT:
        raise SettingError(f"{name}={value!r} is no port: give a whole number from 1 to {HIGHEST_PORT}.")
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
        raise SettingError(f"{name}={value!r} is none of {', '.join(known)}.{hint}")
    return found


def _workspace(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or "\n" in value:
        raise SettingError(f"WORKSPACE={value!r} is no absolute path: give one such as /workspace.")
    return value.rstrip("/") or "/"


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


def _near_misses(asked: Iterable[str], toggles: Collection[str]) -> list[str]:
    """Other tools' variables may begin with ENABLE_ too, so only what looks like a slip is named."""
    others = [name for name in asked if name.startswith("ENABLE_") and name not in toggles]
    near = {name: nearest(name, toggles, cutoff=0.85) for name in others}
    return [
        f"{name} names no model of this image; did you mean {meant}?" for name, meant in near.items() if meant
    ]


def nearest(word: str, words: Collection[str], cutoff: float = 0.6) -> str | None:
    """Return the word that was probably meant."""
    import difflib  # noqa: PLC0415 - 5 ms that only a mistake needs to pay

    near = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return near[0] if near else None
