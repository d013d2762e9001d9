"""One word of MODEL_ID, BASE_MODEL or `inspect`: which model is meant.

    org/repo, hf:org/repo@revision                a repository on Hugging Face
    hf:org/repo@revision:name.safetensors         a file of it; a slash may stand for the colon
    civitai:MODEL, civitai:MODEL@VERSION          a version on CivitAI, the newest where none is named
    urn:air:sdxl:checkpoint:civitai:101055@128078 the same as an AIR
    https://host/name.safetensors                 a file by its address, or the page of one
    https://huggingface.co/org/repo               a repository by its page
    ./folder, /path/name.safetensors              what is here

Words with a file are those of MODELS: pod.model_refs.addresses.
"""

from __future__ import annotations

import re
from pathlib import Path

from pod.model_refs import addresses
from pod.model_refs.addresses import ModelRefError
from pod.util.dataclass import dataclass, field
from pod.util.masking import masked
from pod.util.printable import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FORMS = "org/repo, hf:org/repo@revision:name.safetensors, civitai:MODEL or a path"
NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
"""A repository on Hugging Face, as a pattern."""
_REPOSITORY = re.compile(
    rf"(?P<scheme>(?:hf|huggingface):(?://)?)?(?P<repo>{NAME})"
    r"(?:@(?P<revision>refs/\w+/[\w.-]+|[\w.-]+))?(?::(?P<path>.+))?",
    re.ASCII | re.IGNORECASE,
)
_PAGE = re.compile(
    r"https://(?:www\.)?(?:huggingface\.co|hf\.co)/(?!(?:datasets|spaces|docs|blog|papers|collections)/)"
    rf"(?P<repo>{NAME})(?:/tree/(?P<revision>[\w.-]+))?/?",
    re.ASCII | re.IGNORECASE,
)
_CIVITAI_MODEL = re.compile(r"civitai:([0-9]{1,15})", re.IGNORECASE)
LOCAL = ("/", "./", "../", "~")
"""How the path of a folder or file begins."""
_HASHED = re.compile(r"(?P<word>[^#]+)#sha256=(?P<sha256>[0-9a-fA-F]{64})")
_LONGEST = 2000
MAIN = "main"
"""The branch that is meant where none is named."""


class WordError(ValueError):
    """A word that names no model; the message continues a sentence that begins with it."""


@dataclass(frozen=True)
class Reference:
    """A model that is meant, and its source as in models.json.

    Of a whole repository that has no `path`, of a model on CivitAI no `version`; of what is here it has
    `folder` or `file`.
    """

    word: str
    source: Mapping[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        """`huggingface`, `civitai`, `https` or `local`."""
        return str(self.source["kind"])


def told(word: str) -> str:
    """Return a word as logs and records may have it: an address's login and query may be secret."""
    return masked(word) if "://" in word else word


def split_hash(word: str) -> tuple[str, str]:
    """Return a word without the `#sha256=` behind it, and that in lower case; "" where there is none."""
    match = _HASHED.fullmatch(word)
    return (match["word"], match["sha256"].lower()) if match else (word, "")


def parse(word: str) -> Reference:
    """Read a word. Raises WordError."""
    try:
        return _parsed(word)
    except (OSError, RuntimeError):  # a name that is too long; the home of somebody who is not known
        raise WordError(f"names no model: write {FORMS}") from None


def _parsed(word: str) -> Reference:
    if not word or len(word) > _LONGEST or not word.isprintable():
        raise WordError(f"is empty, too long or has characters that cannot be shown: write {FORMS}")
    if word.startswith(LOCAL):
        return _local(word)
    if match := _CIVITAI_MODEL.fullmatch(word):
        return Reference(word, {"kind": "civitai", "model": int(match[1])})
    match = _REPOSITORY.fullmatch(word)
    if match and not match["scheme"] and Path(word).exists():
        return _local(word)
    if match := match or _PAGE.fullmatch(word):
        return _repository(word, match)
    if "/" not in word and ":" not in word and Path(word).exists():
        return _local(word)
    if not re.match(addresses.SCHEME, word, re.IGNORECASE):
        raise WordError(f"names no model: write {FORMS}")
    try:
        found = addresses.read(word, vouched=True)
    except ModelRefError as error:
        raise WordError(str(error)) from None
    return Reference(found.word, found.source)


def _repository(word: str, match: re.Match[str]) -> Reference:
    source = {"kind": "huggingface", "repo": match["repo"], "revision": match["revision"] or MAIN}
    path = match.groupdict().get("path")
    if path is None:
        return Reference(word, source)
    if any(part in {"", ".", ".."} for part in path.split("/")) or "\\" in path:
        raise WordError(f"has {shown(path, 80)!r} where a file's path is expected")
    return Reference(word, {**source, "path": path})


def _local(word: str) -> Reference:
    path = Path(word).expanduser()
    if path.is_dir():
        return Reference(word, {"kind": "local", "folder": str(path)})
    if path.is_file():
        return Reference(word, {"kind": "local", "file": str(path)})
    raise WordError("is not here: there is no such file or folder")
