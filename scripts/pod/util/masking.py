"""Logins, tokens, keys and signatures in a text, and the text without them.

Apart from pod.util.printable because its patterns take 4 ms to compile, and a boot that goes well needs none.
"""

from __future__ import annotations

import re

READ = 4096  # characters that are looked at
MASK = "…"

_RUN = re.compile(r"(\s+)")
_URL = re.compile(r":/+|//")
_ONE_SLASH = ("http", "https", "ftp", "git", "ssh", "s3", "file")
# What may precede an `@` without being a login: the forms of model_refs/addresses.py, and digests of images.
_FORM = re.compile(
    r"(?:[^=:@]*=)?"
    r"(?:(?:urn:)?(?:air:)?(?:[\w.-]+:[\w.-]+:)?(?:civitai(?:-r2)?:[0-9]+|(?:hf|huggingface):[\w.-]+/[^:@]+)"
    r"|[\w.-]+/[^:@]+)",
    re.IGNORECASE | re.ASCII,
)
_SCHEMES = re.compile(
    r"['\"(\[<{]*(?:[^=:@]*=)?(?:(?:hf|huggingface|civitai|https?|air|urn):)*", re.IGNORECASE
)
_DIGEST = re.compile(r"sha(?:256|512):", re.IGNORECASE)
_GIT = re.compile(r"(?:^|[^a-z])git\+[a-z]+:/", re.IGNORECASE)
_QUERY = re.compile(r"\?(?=[\w%&.\[~-])[^#]*")
_PARAMETER = re.compile(r"([&;])(?=[\w.%\[\]~-]{1,100}=)[^#]*")
_FRAGMENT = re.compile(r"#(?!sha256=[0-9a-f]*(?:$|[^\w=&]))(?![0-9a-f]{7,64}(?:$|[^\w=&])).*", re.IGNORECASE)
_NAMED = re.compile(
    r"((?:token|api[_-]?key|access[_-]?key|secret|passw(?:or)?d|pwd|signature|credentials?|authorization)"
    r"(?:=|%3d|[\"']?:[\"']))(?!…)[^\s#]+",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?:((?:authorization|x-api-key|x-auth-token|private-token)[\"']? ?[:=] ?[\"']?)"
    r"(?:(?:bearer|basic|token|digest) )?[^\s,]+|(cookie[\"']? ?[:=] ?[\"']?)[^\r\n\"']+)",
    re.IGNORECASE,
)
# The same in JSON and in YAML.
_FIELD = re.compile(
    r"([\"'][\w-]{0,40}?(?:token|api_?key|secret|passw(?:or)?d|credentials?)[\"'] ?: ?[\"']?"
    r"|\b(?:access|auth|api|refresh|client)[_-](?:token|key|secret) ?: ?)(?!…)[^\s\"',}]+",
    re.IGNORECASE,
)
# A password with a blank or an end of a line in it: the text after the colon is not a port, nor the tag of an
# image with a digest behind it.
_BLANK = re.compile(
    r"(:/+[^\s:/?#@]{1,100}:)(?![0-9]{1,5}(?:[/?#\s'\"]|$))(?![\w.-]+@sha256:[0-9a-f]{8,64}\b)[^/?#@]{0,200}@",
    re.ASCII,
)
_BEARER = re.compile(r"\b(bearer )[\w.~+/=-]{6,}", re.IGNORECASE)
# Tokens that are known by their beginning: Hugging Face, GitHub, GitLab, RunPod.
_TOKEN = re.compile(r"\b(hf_|gh[opsur]_|github_pat_|glpat-|rpa_)[A-Za-z0-9_-]{12,}")


def masked(text: str) -> str:
    """Return a text without the logins, queries, tokens and signatures in it.

    A login in an address or before an `@` is left out whole, however it is written; so is the query of an
    address, since any parameter of it may be a key.
    """
    beyond = len(text) > READ
    if beyond:  # what was cut off may have been the `@` that makes the rest a login
        text = f"{text[:READ]}@"
    text = _BLANK.sub(rf"\1{MASK}@", text)
    parts = [
        _without_login(part) if number % 2 == 0 else part for number, part in enumerate(_RUN.split(text))
    ]
    text = "".join(parts)
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _FIELD.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _TOKEN.sub(rf"\1{MASK}", text)
    return f"{text.removesuffix('@')}{MASK}" if beyond else text


def _without_login(run: str) -> str:
    """Mask one run of characters without blanks."""
    if len(run) < 3:  # noqa: PLR2004 - shorter than any secret and its sign
        return run
    found = _URL.search(run)
    if found:
        scheme = run[_login_start(run, found.start()) : found.start()].lower()
        # A scheme is one word, and with one slash a usual one: what stands there otherwise is in a password.
        if ":" in scheme or (found[0] == ":/" and scheme.rpartition("+")[2] not in _ONE_SLASH):
            found = None
    at = _login_end(run, found)
    if at >= 0:
        start = found.end() if found and found.end() <= at else _login_start(run, at)
        run = f"{run[:start]}{MASK}{run[at:]}"
    run, quote = (run[:-1], run[-1]) if run[-1] in "'\"" else (run, "")
    run = _PARAMETER.sub(rf"\1{MASK}", _QUERY.sub(f"?{MASK}", run))
    if ":" in run or "/" in run:
        run = _FRAGMENT.sub(f"#{MASK}", run)
    return _NAMED.sub(rf"\1{MASK}", run) + quote


def _login_end(run: str, url: re.Match[str] | None) -> int:
    """Return the index of the `@` that ends a login; -1 where there is none."""
    at = run.rfind("@")
    while at >= 0 and _DIGEST.match(run, at + 1):
        at = run.rfind("@", 0, at)
    if at < 0:
        return -1
    if url and url.end() <= at:
        # A password may hold what would end the host: from there on only a colon tells of one.
        rest = run[url.end() : at]
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" in host or ":" in host or host == rest:
            return at
        queried = "?" in rest or "#" in rest
        return -1 if queried or _GIT.search(run, 0, url.end()) else at
    before = run[:at].lstrip("'\"([<{")
    form, _, name = before.partition("@")
    if _FORM.fullmatch(form) and ":" not in name:
        return -1
    return at if ":" in before else -1


def _login_start(run: str, at: int) -> int:
    """Return where a login without `//` begins: after FOLDER= and the scheme, if there is one."""
    found = _SCHEMES.match(run, 0, at)
    return found.end() if found else 0
