"""The JSON Schemas that editors read: current, and named where editors look."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from podkiln.config import json_schema
from podkiln.config.model import Model
from podkiln.config.strip_list import StripList
from podkiln.config.variant import SHIPPED
from podkiln.config.variant_keys import Variant

if TYPE_CHECKING:
    from pathlib import Path

VARIANTS = [path for path in sorted(SHIPPED.glob("*.yaml")) if not path.stem.startswith("folders")]
MODELS = sorted((SHIPPED / "models").glob("*.yaml"))
CUDA = sorted((SHIPPED / "cuda").glob("*.yaml"))
PRESETS = sorted((SHIPPED / "presets").glob("*.yaml"))
FAMILIES = sorted((SHIPPED / "families").glob("*.yaml"))
STRIP = SHIPPED / "system" / "strip.yaml"


def committed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((json_schema.FOLDER / f"{name}.schema.json").read_text())
    return found


def test_the_committed_schemas_are_what_the_code_says() -> None:
    """`./build.py schemas` writes them anew."""
    assert json_schema.stale() == []


def test_a_schema_that_is_changed_by_hand_is_noticed_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_schema, "FOLDER", tmp_path / "schemas")
    assert len(json_schema.write()) == 7
    assert json_schema.write() == []
    path = tmp_path / "schemas" / "model.schema.json"
    path.write_text("{}")
    assert json_schema.stale() == [path]
    assert json_schema.write() == [path]
    names = ("cuda", "family", "model", "node", "preset", "strip", "variant")
    assert {each.name for each in path.parent.iterdir()} == {f"{name}.schema.json" for name in names}


def test_a_description_that_names_a_schema_names_its_own_in_the_first_line() -> None:
    assert [
        path.name
        for path in [*VARIANTS, *MODELS, *CUDA, *PRESETS, *FAMILIES, STRIP]
        if not names_its_own(path)
    ] == []


def names_its_own(path: Path) -> bool:
    text = path.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    if named is None:  # an editor's help that may be left out
        return "yaml-language-server" not in text
    kinds = {"models": "model", "cuda": "cuda", "presets": "preset", "families": "family", "system": "strip"}
    kind = kinds.get(path.parent.name, "variant")
    return (path.parent / named[1]).resolve() == json_schema.FOLDER / f"{kind}.schema.json"


@pytest.mark.parametrize(("name", "shape"), [("model", Model), ("strip", StripList), ("variant", Variant)])
def test_a_schema_has_every_key_and_no_other(name: str, shape: type[Model | StripList | Variant]) -> None:
    schema = committed(name)
    assert set(schema["properties"]) == set(shape.model_fields)
    assert schema["additionalProperties"] is False


def test_a_variant_need_not_say_what_its_parent_says() -> None:
    """As every shipped one does not: `extends: base` gives the runtime."""
    schema = committed("variant")
    assert "required" not in schema
    parts = {name for name, part in schema["$defs"].items() if "required" in part}
    assert not parts & {"Runtime", "Base", "Python", "PythonLayer", "ComfyUI", "Image", "Models", "Node"}


def test_a_model_is_described_whole_wherever_it_stands() -> None:
    needed = {"title", "summary", "licence", "tiers", "needs", "files"}
    assert set(committed("model")["required"]) == needed
    assert set(committed("variant")["$defs"]["Model"]["required"]) == needed


def test_forms_are_checked_by_editors_too() -> None:
    properties = committed("model")["$defs"]["ModelFile"]["properties"]
    assert re.match(properties["sha256"]["pattern"], "unresolved")
    assert not re.match(properties["sha256"]["pattern"], "unknown")
    (url,) = [choice for choice in properties["url"]["anyOf"] if choice["type"] == "string"]
    assert re.match(url["pattern"], "https://example.com/a.safetensors?x=1")
    assert not re.match(url["pattern"], "http://example.com/a")
    assert not re.match(url["pattern"], "https://me:secret@example.com/a")
