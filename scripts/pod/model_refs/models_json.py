"""The files that the image's models consist of, as models.json lists them, and which of them are wanted."""

from __future__ import annotations

import difflib
import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pod.errors import ARGUMENTS_REFUSED, DATA_UNREADABLE, PodError
from pod.util.dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pod.model_refs.model_ref import ModelRef


@dataclass(frozen=True)
class ModelFile:
    """One file; `size` in bytes and `sha256` are None where they were not known when the image was made.

    A file that MODELS or LORAS names has the reference; until it is resolved, it has no folder. `remarks`
    are what its hub has to say of it.
    """

    model: str
    folder: str
    name: str
    size: int | None
    sha256: str | None
    optional: bool
    source: Mapping[str, Any] = field(repr=False)
    wish: ModelRef | None = None
    remarks: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        """Its name in messages: folder and name."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def vouched(self) -> bool:
        """Whether a person gave its sha256, with the reference or in the lock; a hub's own does not count."""
        return bool(self.wish.sha256 if self.wish else self.sha256)

    @classmethod
    def wished(cls, wish: ModelRef) -> ModelFile:
        """Return a file that is still to be resolved; the log calls it by the variable that names it."""
        return cls(wish.where, "", wish.word, None, None, False, wish.source, wish)

    @classmethod
    def from_json(cls, model: str, row: Mapping[str, Any]) -> ModelFile:
        """Read a row. Raises KeyError, TypeError, ValueError."""
        label = PurePosixPath(row["folder"]) / row["name"]
        if label.is_absolute() or ".." in label.parts:
            raise ValueError(f"{label} leads out of the models folder")
        sha256 = row["sha256"].lower() if row["sha256"] else None
        return cls(model, row["folder"], row["name"], row["size"], sha256, row["optional"], row["source"])


def read(path: Path) -> dict[str, tuple[ModelFile, ...]]:
    """Read models.json: the files of each model. Raises PodError."""
    data = load_json(path, "rebuild the image")
    try:
        if data["schema"] != 1:
            raise ValueError(f"schema {data['schema']}, and 1 is known")  # noqa: TRY301
        models = data["models"]
        return {
            entry["id"]: tuple(ModelFile.from_json(entry["id"], row) for row in entry["files"])
            for entry in models
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PodError(
            f"{path} is damaged or of another podkiln ({error}): rebuild the image.", DATA_UNREADABLE
        ) from None


@dataclass(frozen=True)
class Folders:
    """Folders below models/: `known` to ComfyUI, each with the directories it reads; `used` by models."""

    known: Mapping[str, Sequence[str]]
    used: frozenset[str]


def folders(root: Path) -> Folders:
    """Read folders.json and models.json, which lie below `root` in the image. Raises PodError."""
    places, models = (load_json(root / name, "rebuild the image") for name in ("folders.json", "models.json"))
    try:
        rows = [row for entry in models["models"] for row in entry["files"]]
        return Folders(places["folders"], frozenset(row["folder"].partition("/")[0] for row in rows))
    except (KeyError, TypeError, AttributeError) as error:
        raise PodError(
            f"folders.json or models.json below {root} is damaged ({error!r}): rebuild the image.",
            DATA_UNREADABLE,
        ) from None


def decided(run: Path) -> list[str]:
    """Return the models that `decide` enabled. Raises PodError."""
    path = run / "decision.json"
    data = load_json(path, "name the models to fetch, or run decide first")
    try:
        return [entry["id"] for entry in data["models"] if entry["enabled"]]
    except (KeyError, TypeError) as error:
        raise PodError(f"{path} is damaged ({error!r}): restart the pod.", DATA_UNREADABLE) from None


def older(run: Path) -> tuple[Path, ...]:
    """Return the models folders of older layouts that `decide` found on the volume, if it ran."""
    try:
        found = json.loads((run / "decision.json").read_bytes())["volume"]["models"]
        return tuple(map(Path, found))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def wanted(
    models: Mapping[str, Sequence[ModelFile]], names: Sequence[str], *, optional: bool = False
) -> list[ModelFile]:
    """Return the files to fetch, smallest model first, so that the first one can be used soonest.

    The files of a model stay together, in the order of its description. A file that two models share is
    fetched once. Raises PodError for a model that the image does not offer.
    """
    for name in names:
        if name not in models:
            near = difflib.get_close_matches(name, models, 1)
            hint = f"did you mean {near[0]}?" if near else f"it offers {', '.join(models) or 'none'}."
            raise PodError(f"there is no model {name!r} in this image: {hint}", ARGUMENTS_REFUSED)
    chosen = [
        [file for file in models[name] if optional or not file.optional] for name in dict.fromkeys(names)
    ]
    chosen.sort(key=lambda files: sum(file.size if file.size is not None else 1 << 40 for file in files))
    places: dict[str, ModelFile] = {}
    for files in chosen:
        for file in files:
            places.setdefault(file.label, file)
    return list(places.values())


def load_json(path: Path, remedy: str) -> Any:
    """Read a data file of the image. Raises PodError with what to do about it."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise PodError(f"{path} cannot be read ({error.strerror}): {remedy}.", DATA_UNREADABLE) from None
    except ValueError as error:
        raise PodError(f"{path} is not JSON ({error}): {remedy}.", DATA_UNREADABLE) from None
