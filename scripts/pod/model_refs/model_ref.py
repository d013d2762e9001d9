"""One word of MODELS, of LORAS or of `podkiln-fetch`: which file to fetch, and into which folder.

    civitai:328553@368189                         a version on CivitAI: model@version
    urn:air:sdxl:lora:civitai:328553@368189       the same as an AIR; `urn:` and `air:` may be left out
    hf:org/repo@revision/path/name.safetensors    a file on Hugging Face; without a revision, main
    https://host/name.safetensors#sha256=HEX      any other address; the other forms take a #sha256= too
    FOLDER[/NAME]=…                               where it goes, said beforehand: loras/mine.safetensors=hf:…

The addresses of pages on huggingface.co and civitai.com are understood as the first forms.
"""

from __future__ import annotations

import re

from pod.errors import SETTING_MALFORMED, PodError
from pod.model_refs import addresses
from pod.model_refs.addresses import FORMS, SCHEME, Address, ModelRefError
from pod.model_refs.filenames import checked_path, suffix
from pod.util.dataclass import dataclass
from pod.util.env import nearest
from pod.util.printable import shown
from pod.util.stated import is_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from pod.model_refs.models_json import Folders

LORAS = "loras"
_PLACED = re.compile(rf"([^=:?#]*)=((?:{SCHEME}).*)", re.IGNORECASE)
_ADDRESSED = re.compile(SCHEME, re.IGNORECASE)
_WEIGHT = re.compile(r"(?P<rest>.*):(?P<weight>[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-2]))>?")
_SCHEMES = "hf|huggingface|civitai|urn|air|https?"
_NO_WEIGHT = re.compile(r"civitai|hf|https?://[^/]*", re.IGNORECASE)
_WORD = re.compile(rf"(?:[^\s,?]|\?(?:(?!,(?:[^=:?#,]*=)?(?:{SCHEME}))[^\s#])*)+", re.IGNORECASE)
_LONGEST = 8192  # letters of a word: no server takes a longer address


@dataclass(frozen=True)
class ModelRef:
    """A file that a person named; `where` is the variable or command that names it.

    `folder` and `name` are None unless they were given.
    """

    where: str
    address: Address
    sha256: str | None = None
    folder: str | None = None
    name: str | None = None

    @property
    def only_lora(self) -> bool:
        """Whether only a LoRA is accepted."""
        return self.where == "LORAS"

    @property
    def word(self) -> str:
        """What it is called in messages."""
        return self.address.word

    @property
    def source(self) -> Mapping[str, Any]:
        """Where it comes from, as in models.json."""
        return self.address.source

    @property
    def key(self) -> str:
        """Key of the cache: all that the result depends on, without tokens."""
        place = "/".join(
            part for part in (self.folder or (LORAS if self.only_lora else ""), self.name) if part
        )
        word = f"{self.word}#sha256={self.sha256}" if self.sha256 else self.word
        return f"{place}={word}" if place else word

    def to_json(self) -> dict[str, Any]:
        """Return what decision.json and --explain say of it."""
        return {
            "ref": self.word,
            "source_variable": self.where,
            "source": self.source["kind"],
            "sha256": self.sha256,
            "folder": self.folder or (LORAS if self.only_lora else None),
            "name": self.name,
        }


def words(text: str) -> list[str]:
    """Split what stands in a variable at blanks and commas; a comma in an address's query belongs to it."""
    return _WORD.findall(text)


def is_address(word: str) -> bool:
    """Tell whether a word is meant as an address; the others are meant as ids of the image's models."""
    return any(sign in word for sign in ":/=")


def read(where: str, given: Iterable[str], code: int) -> tuple[list[str], list[ModelRef]]:
    """Separate ids of models from references to files. Raises PodError for the first word that is malformed.

    Args:
        where: The variable in which the words stand, or the command; LORAS takes no ids.
        given: The words.
        code: The exit code for a malformed one.
    """
    ids, wishes = [], {}
    for word in given:
        if len(word) > _LONGEST:
            raise PodError(
                f"{where}: {shown(word)!r} has {len(word)} characters, and the limit is {_LONGEST}: "
                "put a blank or a comma between two words.",
                code,
            )
        if where != "LORAS" and not is_address(word):
            ids.append(word.lower())
            continue
        try:
            wish = parse(where, word)
        except ModelRefError as error:
            raise PodError(_sentence(where, shown(word), error), code) from None
        wishes[wish.key] = wish
    return ids, list(wishes.values())


def of_environment(environ: Mapping[str, str]) -> list[ModelRef]:
    """Return the references of MODELS and LORAS. Raises PodError."""
    return [
        each
        for where in ("MODELS", "LORAS")
        for each in read(where, words(environ.get(where, "")), SETTING_MALFORMED)[1]
    ]


def parse(where: str, word: str) -> ModelRef:
    """Read a word. Raises ModelRefError."""
    if not word.isprintable():
        raise ModelRefError("has characters that cannot be shown: copy it again")
    _check_weight(word)
    folder = name = None
    if placed := _PLACED.fullmatch(word):
        folder, name = _place(placed[1])
        word = placed[2]
    elif not _ADDRESSED.match(word):
        raise ModelRefError(f"is not the address of a file: write {FORMS}")
    text, _, fragment = word.partition("#")
    sha256 = _listed(fragment)
    address = addresses.read(text, vouched=sha256 is not None)
    if where == "LORAS" and folder and folder.partition("/")[0] != LORAS:
        raise ModelRefError(f"is to go to {folder}, and LORAS only takes LoRAs: put it into MODELS")
    return ModelRef(where, address, sha256, folder, name)


def check_folders(wishes: Iterable[ModelRef], folders: Folders, code: int) -> list[str]:
    """Check the folders that were given; returns warnings about them. Raises PodError."""
    warnings = []
    for wish in wishes:
        try:
            warnings.append(_check_folder(wish, folders.known, folders.used))
        except ModelRefError as error:
            raise PodError(_sentence(wish.where, wish.word, error), code) from None
    return [warning for warning in warnings if warning]


def _check_folder(wish: ModelRef, places: Mapping[str, Collection[str]], used: Collection[str]) -> str | None:
    folder = (wish.folder or LORAS).partition("/")[0]
    if folder in used or any(folder in directories for directories in places.values()):
        return None
    begun = (known for known in places if known.startswith(folder))
    if near := next(begun, None) or nearest(folder, places, cutoff=0.8):
        raise ModelRefError(f"is to go to {folder}, which ComfyUI does not read: did you mean {near}?")
    return f"{wish.word} goes to {folder}, which ComfyUI itself does not read: a custom node has to"


def _sentence(where: str, word: str, error: ModelRefError) -> str:
    return f"{where}: {word!r} {error}" + ("" if str(error).endswith("?") else ".")


def _check_weight(word: str) -> None:
    """Refuse a weight, as in <lora:name:0.8> of other programs' prompts. Raises ModelRefError."""
    weighted = _WEIGHT.fullmatch(word)
    if weighted and "?" not in word and not _NO_WEIGHT.fullmatch(weighted["rest"]):
        raise ModelRefError(
            "ends in a weight, which belongs in the workflow, as the strength of its LoRA loader: remove "
            f"':{weighted['weight']}'" + ("" if _ADDRESSED.match(word) else f", and write {FORMS}")
        )


def _place(text: str) -> tuple[str, str | None]:
    """Read what stands before the `=`: a folder below models/, and a name where the last part is a file's."""
    try:
        parts = checked_path(text.strip().removeprefix("models/").rstrip("/"))
    except ValueError as error:
        raise ModelRefError(
            f"begins with a place that {error}: write FOLDER=… or FOLDER/NAME.safetensors=…"
        ) from None
    name = parts[-1] if suffix(parts[-1]) else None
    folder = "/".join(parts[:-1] if name else parts)
    if not folder:
        raise ModelRefError("begins with a file's name and no folder: write FOLDER/NAME.safetensors=…")
    return folder, name


def _listed(fragment: str) -> str | None:
    kind, _, value = fragment.partition("=")
    if kind.lower() != "sha256":
        return None  # a place on a page
    value = value.lower()
    if not is_sha256(value):
        raise ModelRefError(
            f"has a sha256 of {len(value)} characters, and 64 hex digits are expected: copy it again"
        )
    return value
