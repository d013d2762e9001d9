"""Environment variables, read one by one: a value that cannot be meant is a SettingError, never a default."""

from __future__ import annotations

import re

from pod.errors import SETTING_MALFORMED, PodError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

YES = ("true", "1", "yes", "on")
NO = ("false", "0", "no", "off")
HIGHEST_PORT = 65535
HUGGINGFACE = "https://huggingface.co"
CIVITAI = "https://civitai.com"
GITHUB = "https://github.com"
# Upper limits: each connection is a thread, and servers drop clients that open hundreds.
MOST = {
    "FETCH_JOBS": 256,
    "FETCH_CONNECTIONS": 256,
    "PODKILN_FETCH_CHUNK": 1 << 30,
    "PODKILN_FETCH_TRIES": 1000,
    "PODKILN_FETCH_STALL": 3600,
    "SERVE_QUEUE": 10_000,
    "WORKER_CONCURRENCY": 64,
    "SERVE_RATE": 100_000,
    "SERVE_REQUEST_MB": 1000,
    "SERVE_RESPONSE_MB": 1000,
    "SERVE_KEEP_MB": 100_000,
}
# Patterns are compiled when they are first used: nvidia-smi is started before.
_TOKEN = r"[A-Za-z0-9._~+/=-]{1,4096}"  # noqa: S105 - the letters that HTTP has for tokens (RFC 9110)
# {{ RUNPOD_SECRET_name }} of RunPod, $NAME and ${NAME} of shells and compose files, $(NAME) of Kubernetes.
_PLACEHOLDER = r"""(?s)["']?(?:\{\{.*\}\}?|\$\{[^}]*\}|\$\([^)]*\)|\$[A-Z_][A-Z0-9_]*)["']?"""
_LABEL = r"[A-Za-z0-9_-]{1,63}"  # of a host's name; with underscores, as some hosts have
_LONGEST_HOST = 253
_SHOWN = 100  # characters of a value that a sentence quotes


class SettingError(PodError):
    """An environment variable has an invalid value."""

    def __init__(self, message: str) -> None:
        super().__init__(message, SETTING_MALFORMED)


def is_on(name: str, value: str | None) -> bool:
    """Tell whether a variable's value says yes; one that is not set says no. Raises SettingError."""
    word = (value or "").strip().lower()
    if word in YES:
        return True
    if not word or word in NO:
        return False
    said = f"{name}={short(value or '')!r} is neither yes nor no"
    raise SettingError(f"{said}: give true, 1, yes or on, or false, 0, no or off.")


def port(name: str, value: str | None, default: int) -> int:
    """Return a variable's value as a port, or the default where it is not set. Raises SettingError."""
    value = (value or "").strip()
    if not value:
        return default
    if value.startswith(("tcp://", "udp://")):
        service = name.removesuffix("_PORT").lower().replace("_", "-")
        raise SettingError(
            f"{name}={short(value)!r} is not a valid port: Kubernetes sets it for a service called "
            f"{service}; set enableServiceLinks to false in the pod's spec, or rename the "
            f"service, or set {name}."
        )
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= HIGHEST_PORT:
        raise SettingError(
            f"{name}={short(value)!r} is not a valid port: give a whole number from 1 to {HIGHEST_PORT}."
        )
    return int(value)


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
    check_filled_in(name, value)
    if value.startswith(("{{", "$")):
        raise _not_filled_in(name)
    if not re.fullmatch(_TOKEN, value):
        raise SettingError(
            f"{name} holds characters that no token has: copy it again, without spaces or quotes."
        )
    return value


def check_filled_in(name: str, value: str) -> None:
    """Raise SettingError where a value is a placeholder that a platform should have filled in."""
    if re.fullmatch(_PLACEHOLDER, value.strip()) or "{{ RUNPOD_SECRET_" in value:
        raise _not_filled_in(name)


def _not_filled_in(name: str) -> SettingError:
    return SettingError(
        f"{name} is the name of a secret that was not filled in: check that name on your platform."
    )


def endpoint(name: str, value: str | None, default: str) -> str:
    """Return a variable's value as the address of a hub, or the default. Raises SettingError."""
    value = (value or "").strip().rstrip("/")
    if not value:
        return default
    from urllib.parse import urlsplit  # noqa: PLC0415 - only needed with a mirror

    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and is_host(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, unclosed brackets
        good = False
    odd = not value.isascii() or not value.isprintable() or any(sign in value for sign in " \"'<>\\")
    if not good or odd or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingError(f"{name} is not an address like {default}: correct it, or unset it.")
    return value


def is_host(name: str | None) -> bool:
    """Tell whether a host can be called so: an IPv6 address, or a name of DNS (RFC 1035, section 2.3.4).

    Letters beyond ASCII count as IDNA writes them.
    """
    if not name:
        return False
    try:
        if ":" in name:
            from ipaddress import IPv6Address  # noqa: PLC0415 - 3 ms that hardly anybody needs to pay

            return bool(IPv6Address(name))
        plain = name if name.isascii() else name.encode("idna").decode()
    except ValueError:  # UnicodeError is one
        return False
    plain = plain.removesuffix(".")
    return len(plain) <= _LONGEST_HOST and all(re.fullmatch(_LABEL, each) for each in plain.split("."))


def number(name: str, value: str | None, default: int) -> int:
    """Return a variable's value as a whole number from 1 to its MOST, or the default. Raises SettingError."""
    value = (value or "").strip()
    if not value:
        return default
    if not re.fullmatch(r"0{0,9}[1-9][0-9]{0,9}", value) or int(value) > MOST[name]:
        raise SettingError(f"{name}={short(value)!r} is not a whole number from 1 to {MOST[name]}.")
    return int(value)


def seconds(name: str, environ: Mapping[str, str], default: float, longest: float) -> float:
    """Return a variable as seconds above 0 and up to the longest, or the default. Raises SettingError."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        # float() takes 1_0 and digits of all scripts.
        found = float(text) if text.isascii() and "_" not in text else 0.0
    except ValueError:
        found = 0.0
    if not 0 < found <= longest:
        raise SettingError(
            f"{name}={short(text)!r} is not a number of seconds above 0 and up to {longest:g}."
        )
    return found


def staging(value: str | None) -> str:
    """Return FETCH_STAGING: auto, never, or an absolute path. Raises SettingError."""
    value = (value or "").strip() or "auto"
    if value in ("auto", "never"):
        return value
    if not value.startswith("/") or ".." in value.split("/") or any(map(is_control, value)):
        raise SettingError(
            f"FETCH_STAGING={short(value)!r} is neither auto nor never nor an absolute path: "
            "name a folder on a local disk, or unset it."
        )
    return value


def is_control(char: str) -> bool:
    """Whether a character controls a terminal or a file format; bytes that are not UTF-8 do not."""
    return ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029"  # noqa: PLR2004 - C0, DEL, C1


def short(value: str) -> str:
    """Return a value as a sentence quotes it: cut where it is long."""
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


def nearest(word: str, words: Collection[str], cutoff: float = 0.6) -> str | None:
    """Return the word that was probably meant."""
    import difflib  # noqa: PLC0415 - 5 ms that only a mistake needs to pay

    near = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return near[0] if near else None
