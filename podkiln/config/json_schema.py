"""JSON Schemas of the descriptions, so that editors complete and check them while they are written.

They are committed in variants/schemas/ and named in the first line of each description, which the YAML
language server reads (https://github.com/redhat-developer/yaml-language-server#using-inlined-schema).
`./build.py schemas` writes them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from podkiln.config.cuda_releases import CudaRelease
from podkiln.config.families import Family
from podkiln.config.model import Model
from podkiln.config.node import Node
from podkiln.config.preset import Preset
from podkiln.config.strip_list import StripList
from podkiln.config.variant import SHIPPED
from podkiln.config.variant_keys import Variant
from podkiln.util import atomic

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = SHIPPED / "schemas"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def rendered() -> dict[Path, str]:
    """Return the text of each schema, by the path where it is committed."""
    variant = Variant.model_json_schema()
    # What a parent gives need not be said again, in any part of a variant; a model is always described whole.
    whole = {"Model"}  # and the parts of a node, but not a node, which a child may change in part
    whole |= {name for each in (Model, Node) for name in each.model_json_schema().get("$defs", {})}
    for name, part in (("Variant", variant), *variant["$defs"].items()):
        if name not in whole:
            part.pop("required", None)
    # A release that is described may be written alone (podkiln.config.comfyui_release).
    release = variant["$defs"]["ComfyUI"]["properties"]["version"]
    comfyui = variant["$defs"]["Runtime"]["properties"]["comfyui"]
    variant["$defs"]["Runtime"]["properties"]["comfyui"] = {"anyOf": [comfyui, release]}
    return {
        FOLDER / "cuda.schema.json": _text("A CUDA release", CudaRelease.model_json_schema()),
        FOLDER / "family.schema.json": _text("A family of models", Family.model_json_schema()),
        FOLDER / "model.schema.json": _text("A model", Model.model_json_schema()),
        FOLDER / "node.schema.json": _text("A custom node", Node.model_json_schema()),
        FOLDER / "preset.schema.json": _text("A preset", Preset.model_json_schema()),
        FOLDER / "strip.schema.json": _text("The strip list", StripList.model_json_schema()),
        FOLDER / "variant.schema.json": _text("A variant", variant),
    }


def stale() -> list[Path]:
    """Return the committed schemas that are not what the code says now."""
    return [path for path, text in rendered().items() if not path.is_file() or path.read_text() != text]


def write() -> list[Path]:
    """Write the schemas that are stale; return them."""
    return [path for path, text in rendered().items() if atomic.write(path, text)]


def _text(title: str, schema: dict[str, Any]) -> str:
    return json.dumps({"$schema": _DIALECT, **_plain(schema), "title": title}, indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Drop what says nothing to a person: titles that repeat the key, null defaults."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _plain(each)
        for key, each in value.items()
        if not (key == "title" and isinstance(each, str)) and not (key == "default" and each is None)
    }
