"""Model folders, and how extra_model_paths.yaml adds to them.

Source: folder_paths.py, utils/extra_config.py and apply_custom_paths of ComfyUI 0.33.0. A section is a
mapping; a value is one path or a block of lines, and a YAML list ends the boot with the real one's
AttributeError.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

log = logging.getLogger(__name__)
RECORDED = Path(__file__).parent / "recorded" / "folders.json"
_LEGACY = {"unet": "diffusion_models", "clip": "text_encoders"}
_SAVED_TO = ("checkpoints", "clip", "vae", "diffusion_models", "loras")


@dataclass
class Folder:
    """Where the files of one kind are looked for, first match first; no extensions: every file is listed."""

    paths: list[Path]
    extensions: frozenset[str] = frozenset()

    def files(self) -> list[str]:
        """Return the sorted union of relative names."""
        return sorted(set(itertools.chain.from_iterable(self._below(path) for path in self.paths)))

    def _below(self, top: Path) -> Iterable[str]:
        for folder, below, names in os.walk(top, followlinks=True):
            below[:] = [name for name in below if name != ".git"]
            for name in names:
                if not self.extensions or os.path.splitext(name)[1].lower() in self.extensions:  # noqa: PTH122
                    yield str((Path(folder) / name).relative_to(top))


@dataclass
class Folders:
    """All kinds, by name."""

    kinds: dict[str, Folder] = field(default_factory=dict)

    @classmethod
    def of(cls, args: argparse.Namespace, install: Path) -> Folders:
        """Build the table as the real one does at boot."""
        base = Path(args.base_directory or install).absolute()
        models = Path(args.models_directory or base / "models").absolute()
        found = cls(
            {
                name: Folder(
                    [(models if below else base) / path for path in row["paths"]],
                    frozenset(row["extensions"]),
                )
                for name, row in json.loads(RECORDED.read_bytes()).items()
                for below in [name not in ("custom_nodes", "datasets")]
            }
        )
        beside = install / "extra_model_paths.yaml"
        configs = [str(beside)] if beside.is_file() else []
        for config in [*configs, *itertools.chain.from_iterable(args.extra_model_paths_config or ())]:
            found.load(config)
        output = Path(args.output_directory or base / "output").absolute()
        for name in _SAVED_TO:
            found.add(name, output / name, first=False)
        return found

    def load(self, path: str) -> None:
        """Read an extra_model_paths.yaml; what it cannot be is as fatal as in the real one."""
        with open(path, encoding="utf-8") as stream:  # noqa: PTH123
            config: dict[str, dict[str, Any] | None] = yaml.safe_load(stream)
        here = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120
        for name in config:  # noqa: PLC0206 - as the real one: what is no mapping fails in its words
            section = config[name]
            if section is None:
                continue
            base = os.path.expandvars(os.path.expanduser(section.pop("base_path", "")))  # noqa: PTH111
            top = os.path.join(here, base)  # noqa: PTH118 - an absolute base stands as it is
            first = section.pop("is_default", False)
            for kind, lines in section.items():
                for line in filter(None, lines.split("\n")):
                    place = os.path.normpath(os.path.join(top, line))  # noqa: PTH118
                    log.info("Adding extra search path %s %s", kind, place)
                    self.add(kind, Path(place), first=first)

    def add(self, kind: str, path: Path, *, first: bool) -> None:
        """Add a folder to a kind; an unknown kind is a new one."""
        paths = self.kinds.setdefault(_LEGACY.get(kind, kind), Folder([])).paths
        if path in paths:
            if first:
                paths.remove(path)
                paths.insert(0, path)
        elif first:
            paths.insert(0, path)
        else:
            paths.append(path)
