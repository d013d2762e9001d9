"""The table of tests/fixtures/detection, read into facts."""

from __future__ import annotations

import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import yaml

from pod.resolve.safetensors_header import SafetensorsHeader
from podkiln.config import families
from server.detection.facts import Card, CivitaiFacts, Facts, File
from server.detection.knowledge import Knowledge

FOLDER = Path(__file__).parent / "fixtures/detection"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TABLE: dict[str, Any] = yaml.load((FOLDER / "models.yaml").read_text(encoding="utf-8"), _LOADER)  # noqa: S506
MODELS: list[dict[str, Any]] = TABLE["models"]
_MADE = json.loads((FOLDER / "headers.json").read_text(encoding="utf-8"))
# What signatures have, and model_index.json of some models as null.
_OPTIONAL = {"image_encoder", "image_processor", "feature_extractor", "transformer_2"}
_PIECES = re.compile(r"(.*)-\*-of-(\d{5})(.*)")


@functools.cache
def known() -> Knowledge:
    """What detection knows beforehand, as a pod reads it."""
    return Knowledge(json.loads(json.dumps(families.to_json())))


@functools.cache
def tensors(name: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a head: `{0-3}` stands for four of them."""
    row = _MADE["headers"][name]
    found = dict(tensors_of(row["tensors"]))
    if "like" in row:
        lacking = tensors_of(dict.fromkeys(row["without"], ()))
        found = {key: shape for key, shape in tensors(row["like"]).items() if key not in lacking} | found
    return found


def tensors_of(lines: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return what lines stand for."""
    found = {}
    for line, shape in lines.items():
        parts = re.split(r"\{(\d+)-(\d+)\}", line)
        spans = [range(int(low), int(high) + 1) for low, high in zip(parts[1::3], parts[2::3], strict=True)]
        for numbers in itertools.product(*spans):
            words = [*map(str, numbers), ""]
            found["".join(text + word for text, word in zip(parts[::3], words, strict=True))] = tuple(shape)
    return found


def header(row: dict[str, Any]) -> SafetensorsHeader:
    """Return the head of a row's file."""
    found = (tensors(row["head"]) if row["head"] else {}) | tensors_of(row.get("more", {}))
    return SafetensorsHeader(found, row.get("metadata", {}), 1 << 30, {"BF16": 1 << 30})


def facts(row: dict[str, Any]) -> Facts:
    """Return the facts of a row."""
    files = tuple(_files(row.get("files") or [row["chosen"]]))
    chosen = row.get("chosen", "")
    single = chosen or next((file.path for file in files if file.path.endswith(".safetensors")), "")
    documents = dict(row.get("documents", {}))
    if "class" in row or "index" in row:
        documents["model_index.json"] = _index(row, files)
    told = row.get("civitai")
    card = dict(row.get("card", {}))
    return Facts(
        word=row["id"],
        files=files,
        chosen=chosen,
        documents=documents,
        headers={single: header(row)} if "head" in row else {},
        repository=row["id"].split()[0] if "/" in row["id"].split()[0] else "org/repo",
        gated=row.get("gated", False),
        token=row.get("token", False),
        base_model=row.get("base_model", ""),
        card=Card(tuple(card.pop("base_models", ())), **card) if card else None,
        civitai=CivitaiFacts(told["model_type"], told["file_type"], told["base_model"]) if told else None,
    )


def _files(lines: list[str]) -> list[File]:
    found = []
    for line in lines:
        path, _, size = line.partition("=")
        size_bytes = int(float(size) * 1e9) if size else None
        if pieces := _PIECES.fullmatch(path):
            count = int(pieces[2])
            names = [f"{pieces[1]}-{at:05}-of-{pieces[2]}{pieces[3]}" for at in range(1, count + 1)]
            found += [File(name, size_bytes) for name in names]
        else:
            found.append(File(path, size_bytes))
    return found


def _index(row: dict[str, Any], files: tuple[File, ...]) -> dict[str, Any]:
    """Return model_index.json as the class's signature has it; what has no folder is null, if it may be."""
    folders = {file.folder for file in files}
    name = row.get("class")
    found: dict[str, Any] = {"_class_name": name, "_diffusers_version": "0.32.0"}
    given: dict[str, Any] = row.get("index", {})
    for component, (library, cls) in _MADE["pipelines"].get(name, {}).items():
        there = component in folders or component not in _OPTIONAL
        cls_named = "EulerDiscreteScheduler" if cls.endswith("Schedulers") else cls
        found[component] = [library, cls_named] if there else [None, None]
    return found | given
