"""What goes wrong while a model is loaded, as sentences: files that are torn, exchanged, or pickles."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from pod.errors import UNFIT, PodError
from pod.net.http import RefusedError
from pod.net.integrity import check_contents
from pod.util.printable import shown
from server.generation.failure import first_line, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from server.weights.model_files import ModelFiles, Part, Resolved

_LARGEST_JSON: Final = 1 << 20  # bytes: vocabularies are larger, and were hashed
_INDEX: Final = re.compile(r"\.safetensors(?:\.\w+)?\.index(?:\.\w+)?\.json$")
_NO_RAM: Final = "DefaultCPUAllocator: can't allocate memory"  # a RuntimeError of torch
_NAMES: Final = 2  # of tensors that a sentence has
_LONGEST: Final = 300  # characters of a library's message
_MISSING: Final = re.compile(
    r"newly initialized|were not initialized from the model checkpoint|\| *MISSING", re.IGNORECASE
)
_MISSING_LISTED: Final = re.compile(r"\[(?P<names>'[^\]]+)\]")


class LoadError(PodError):
    """A model that cannot be loaded: the sentence names the file or component."""

    def __init__(self, message: str) -> None:
        super().__init__(message, UNFIT)


def check(files: ModelFiles) -> None:
    """Look at every file before a library does. Raises LoadError."""
    found = [files.model, files.vae, files.controlnet, *(each for each, _ in files.loras)]
    for resolved in (each for each in found if each):
        for part in (resolved.model, resolved.base):
            if part:
                _check_part(resolved, part)


def _check_part(resolved: Resolved, part: Part) -> None:
    paths = {piece.path for piece in part.pieces}
    # Of a base, a folder may have lost its weights to the model.
    weighty = {path.rpartition("/")[0] for path in paths if path.endswith(".safetensors")}
    for piece in part.pieces:
        try:
            check_contents(piece.at, piece.path, vouched=False)
            folder = piece.path.rpartition("/")[0]
            index = bool(_INDEX.search(piece.path)) and folder in weighty
            if piece.path.endswith(".json") and (index or piece.at.stat().st_size < _LARGEST_JSON):
                content = json.loads(piece.at.read_bytes())
                if index and (name := _outside(content, folder, paths)):
                    raise LoadError(
                        f"{resolved.word}: {piece.path} names {shown(name, 80)}, which is no file of this "
                        "model beside it: choose another revision of it."
                    )
        except OSError as error:
            raise LoadError(
                f"{resolved.word}: {piece.path} cannot be read ({error.strerror}): it was removed since it "
                "was checked; start again."
            ) from None
        except (ValueError, RecursionError):
            raise LoadError(
                f"{resolved.word}: {piece.path} is no JSON: it is damaged; remove it, and start again."
            ) from None
        except RefusedError as error:
            raise LoadError(f"{resolved.word}: {piece.path} {_ended(str(error))}") from None


def _outside(index: Any, folder: str, paths: set[str]) -> str:
    """Return the first file that an index of pieces names and that is not one of these; "" where all are.

    Libraries open what it names, wherever that leads, and as a pickle what does not end in .safetensors.
    """
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict):
        return "no pieces"
    beside = f"{folder}/" if folder else ""
    return next((str(each) for each in names.values() if f"{beside}{each}" not in paths), "")


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Make one sentence of whatever a library raises while it loads `what`. Raises LoadError."""
    try:
        yield
    except PodError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise what they like, and a person reads it
        if isinstance(error, MemoryError) or _NO_RAM in str(error):
            raise LoadError(f"{what} does not fit into the pod's RAM: take a pod with more of it.") from None
        if is_out_of_memory(error):
            raise OutOfCardError(f"{what} does not fit onto the card.") from None
        raise LoadError(
            f"{what} cannot be loaded ({type(error).__name__}: {first_line(error)}): its files do not fit "
            "together, or are of another version; choose another revision of it."
        ) from None


class OutOfCardError(LoadError):
    """The card's memory was not enough to load a model in the mode that was chosen."""


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


class MissingWeights(logging.Handler):
    """Hears what libraries log when a file has not all tensors that its configuration asks for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep which library says so, and of which tensors."""
        text = record.getMessage()
        if _MISSING.search(text):
            listed = _MISSING_LISTED.search(text)
            told = _first_names(listed["names"]) if listed else text.strip().splitlines()[0]
            self.said.append((record.name.partition(".")[0], shown(told, _LONGEST)))


def _first_names(listed: str) -> str:
    names = listed.split(", ")
    return ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


@contextlib.contextmanager
def heard(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Refuse a model of which tensors are missing: diffusers makes them up, and the picture is noise.

    transformers says so of tensors, too, that are tied to others, and is passed on. Raises LoadError.
    """
    ear = MissingWeights()
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for each in loggers:
        each.addHandler(ear)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(ear)
    for library, told in ear.said:
        if library == "diffusers":
            raise LoadError(
                f"{what} lacks tensors that its configuration asks for ({told}): the file is of another "
                "model than its configuration; choose another revision of it."
            )
        say(f"{what}: {library} misses tensors of a text encoder ({told})")
