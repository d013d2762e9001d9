"""What is known of a model before a byte of its weights is fetched. Who collects it does the I/O.

`wanted` says what is still to be read: a few small JSON files and the heads of .safetensors files.
"""

from __future__ import annotations

from pod.util.dataclass import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pod.resolve.safetensors_header import SafetensorsHeader


@dataclass(frozen=True)
class File:
    """A file of a repository, folder or version on CivitAI; its size in bytes where that is known."""

    path: str
    size: int | None = None

    @property
    def folder(self) -> str:
        """The folder that it is in, "" for the repository itself."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Card:
    """The front matter of README.md, as far as it tells what a model is.

    Fields: https://huggingface.co/docs/hub/model-cards#specifying-a-base-model
    """

    base_models: tuple[str, ...] = ()
    relation: str = ""
    library: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True)
class CivitaiFacts:
    """What CivitAI says of a version: the types of its model and file, and `baseModel`, in its words."""

    model_type: str
    file_type: str = ""
    base_model: str = ""


@dataclass(frozen=True)
class Facts:
    """All that `detect` looks at.

    Attributes:
        word: What a person wrote, for sentences.
        files: All files, or the one that CivitAI offers.
        chosen: The path of the file that the word names; "" where it names all of them.
        documents: JSON files that were read, by path; what was no JSON object is not there.
        headers: Heads of .safetensors files that were read, by path.
        repository: `org/name` on Hugging Face, or "".
        gated: Whether a licence has to be accepted before files are served.
        token: Whether there is a token for the hub.
        base_model: What BASE_MODEL names, or "".
        card, civitai: What their hubs say; None where the model does not come from there.
    """

    word: str
    files: tuple[File, ...] = ()
    chosen: str = ""
    documents: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, SafetensorsHeader] = field(default_factory=dict)
    repository: str = ""
    gated: bool = False
    token: bool = False
    base_model: str = ""
    card: Card | None = None
    civitai: CivitaiFacts | None = None

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return any(file.path == path for file in self.files)

    def file(self, path: str) -> File:
        """Return a file by its path. Raises KeyError."""
        for file in self.files:
            if file.path == path:
                return file
        raise KeyError(path)

    def document(self, path: str) -> Mapping[str, Any]:
        """Return a JSON object that was read; empty where it was not, or is none."""
        found = self.documents.get(path)
        return found if isinstance(found, dict) else {}
