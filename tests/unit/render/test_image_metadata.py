"""What an image knows of itself: every pin, every substitute, every model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from plans import plan_of

from podkiln.plan.substitutes import Substitute
from podkiln.render import image_metadata

VARIANTS = ["baked", "consumer", "datacenter", "lazy", "prosumer"]


def test_the_manifest_names_every_pin() -> None:
    plan = plan_of()
    data = image_metadata.manifest(plan)
    assert data["base"] == {"image": "debian:trixie-slim", "digest": plan.lock.runtime.base_digest}
    assert data["comfyui"] == {
        "version": "0.33.0",
        "commit": plan.lock.runtime.comfyui_commit,
        "tree": plan.lock.runtime.comfyui_tree,
    }
    assert data["lock"] == plan.lock.digest
    assert list(data["python"]["layers"]) == [layer.name for layer in plan.lock.runtime.installed]


def test_the_manifest_names_what_takes_jobs() -> None:
    plan = plan_of("serverless")
    data = image_metadata.manifest(plan)
    assert data["serve"]["by"] == "runpod"
    release = data["serve"]["packages"]["runpod"].split(".")
    assert tuple(map(int, release)) >= (1, 10, 1), "older ones stop taking jobs where there is a volume"
    assert "serve" not in image_metadata.manifest(plan_of())
    assert [(each.kind, each.name) for each in plan.layers][-2:] == [("addition", "serve"), ("podkiln", "")]


def test_the_manifest_names_what_is_substituted_and_nothing_else() -> None:
    inputs = (
        Substitute("base", "x", locked="a", actual="b"),
        Substitute("comfyui", "y", locked="c", actual="c"),
    )
    data = image_metadata.manifest(replace(plan_of(), inputs=inputs))
    assert data["substituted"] == {"base": {"locked": "a", "actual": "b"}}
    assert image_metadata.manifest(plan_of())["substituted"] == {}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_model_on_offer_is_listed(name: str) -> None:
    plan = plan_of(name)
    data = image_metadata.models(plan)
    assert [model["id"] for model in data["models"]] == [offer.id for offer in plan.offered]
    assert [model["default"] for model in data["models"]] == [offer.default for offer in plan.offered]
    assert not any(model["baked"] for model in data["models"])


def files() -> list[dict[str, Any]]:
    return [file for model in image_metadata.models(plan_of())["models"] for file in model["files"]]


def test_every_file_says_where_it_comes_from() -> None:
    keys = {
        "huggingface": {"kind", "repo", "revision", "path"},
        "civitai": {"kind", "model", "version"},
        "https": {"kind", "url"},
    }
    assert files()
    assert all(file["source"].keys() == keys[file["source"]["kind"]] for file in files())


def test_hashes_are_those_of_the_lock() -> None:
    locked = [known.sha256 for offer in plan_of().offered for known in plan_of().lock.weights[offer.id]]
    assert [file["sha256"] for file in files()] == locked
    assert None in locked, "an unresolved file stays unresolved"
    assert any(locked)


def test_it_is_json() -> None:
    assert json.loads(json.dumps(image_metadata.models(plan_of()))) == image_metadata.models(plan_of())
