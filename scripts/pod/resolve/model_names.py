"""What a file may be called that a word names, and how the word is to be written again where it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pod.model_refs import filenames
from pod.net.http import RefusedError
from pod.resolve import remembered

if TYPE_CHECKING:
    from pod.model_refs.model_ref import ModelRef
    from pod.model_refs.models_json import ModelFile


def unvouched() -> RefusedError:
    """Return the refusal of a pickle that nobody vouches for."""
    return RefusedError(
        "is a pickle, which can run code when it is loaded: choose a .safetensors file, or vouch for it "
        "by adding its hash, #sha256=…"
    )


def safe(name: str) -> str:
    """Return a name that a source gives. Raises RefusedError for one that no file may have."""
    try:
        return filenames.safe(name)
    except ValueError as error:
        raise RefusedError(f"has an invalid file name: {error}") from None


def told_name(wish: ModelRef) -> str | None:
    """Return the name that the word itself tells of its source. Raises RefusedError."""
    try:
        return remembered.name_told(wish)
    except ValueError as error:
        raise RefusedError(f"has an invalid file name: {error}") from None


def called(wish: ModelRef, given: str) -> str:
    """Return the name that a file gets which its source calls `given`. Raises RefusedError."""
    name = wish.name or given
    if filenames.suffix(name) != filenames.suffix(given):
        raise RefusedError(f"is a {filenames.suffix(given)} file, and cannot be called {name}")
    if not filenames.suffix(name) and not wish.folder:
        raise RefusedError(f"is called {name}, which is not a model file: {say_it(wish)}")
    return name


def say_it(wish: ModelRef, folder: str | None = None) -> str:
    """Return what to do where the folder is not known, or where `folder` would be right."""
    return f"say where it belongs, as {folder or 'FOLDER'}={again(wish)}"


def another_name(wish: ModelRef, file: ModelFile) -> str:
    """Return what to do where the name is taken."""
    return f"give this one another name, {file.folder}/NAME{filenames.suffix(file.name)}={again(wish)}"


def again(wish: ModelRef) -> str:
    """Return a word as it has to be written again, without what must not be shown."""
    return f"{wish.word}#sha256=…" if wish.sha256 else wish.word
