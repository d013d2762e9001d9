"""The files that the image's models consist of, as models.json lists them, and which of them are wanted."""

from __future__ import annotations

import itertools
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util import files
from pod.util.dataclass import dataclass, field
from pod.util.env import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pod.model_refs.model_ref import ModelRef


@dataclass(frozen=True)
class ModelFile:
    """One file; `size` in bytes and `sha256` are None where they were not known when the image was made.

    A file that MODELS or LORAS names has the reference; until it is resolved, it has no folder. `remarks`
    are what its hub has to say of it. Where the sha256 is `of_hub`, it was locked as the hub gave it.
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
    of_hub: bool = False

    @property
    def label(self) -> str:
        """Its name in messages: folder and name."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def vouched(self) -> bool:
        """Whether a person gave its sha256, with the reference or in the lock; a hub's own does not count."""
        return not self.of_hub and bool(self.wish.sha256 if self.wish else self.sha256)

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
    return files.read_image_data(path, _files_by_model)


def _files_by_model(data: Mapping[str, Any]) -> dict[str, tuple[ModelFile, ...]]:
    return {
        entry["id"]: tuple(ModelFile.from_json(entry["id"], row) for row in entry["files"])
        for entry in data["models"]
    }


@dataclass(frozen=True)
class Folders:
    """Folders below models/: `known` to ComfyUI, each with the directories it reads; `used` by models."""

    known: Mapping[str, Sequence[str]]
    used: frozenset[str]


def folders(root: Path) -> Folders:
    """Read folders.json and models.json, which lie below `root` in the image. Raises PodError."""
    known = files.read_image_data(root / "folders.json", lambda data: data["folders"])
    used = itertools.chain.from_iterable(read(root / "models.json").values())
    return Folders(known, frozenset(file.folder.partition("/")[0] for file in used))


def decided(run: Path) -> list[str]:
    """Return the models that `decide` enabled. Raises PodError."""
    return files.read_json(
        run / "decision.json",
        lambda data: [entry["id"] for entry in data["models"] if entry["enabled"]],
        "name the models to fetch, or run decide first",
    )


def older(run: Path) -> tuple[Path, ...]:
    """Return the models folders of older layouts that `decide` found on the volume, if it ran."""
    try:
        return tuple(map(Path, files.recall(run / "decision.json")["volume"]["models"]))
    except (KeyError, TypeError):
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
            near = nearest(name, models)
            hint = f"did you mean {near}?" if near else f"it offers {', '.join(models) or 'none'}."
            raise PodError(f"there is no model {name!r} in this image: {hint}", ARGUMENTS_REFUSED)
    chosen = [
        [file for file in models[name] if optional or not file.optional] for name in dict.fromkeys(names)
    ]
    chosen.sort(key=lambda some: sum(file.size if file.size is not None else 1 << 40 for file in some))
    places: dict[str, ModelFile] = {}
    for file in itertools.chain.from_iterable(chosen):
        places.setdefault(file.label, file)
    return list(places.values())
