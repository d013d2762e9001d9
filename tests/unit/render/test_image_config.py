"""The config of an image is the Dockerfile's, whichever version of BuildKit has built it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import runtimes
from plans import plan_of

from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.render.image_config import RenderedConfig, title

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = plan_of("lazy")
RENDERED = RenderedConfig.of(PLAN)


def exported(change: Callable[[dict[str, Any]], object] = id) -> spec.ImageConfig:
    """Return the config as BuildKit exports it, with a change."""
    document = json.loads(json.dumps(runtimes.make(PLAN).config.document))
    change(document)
    return spec.ImageConfig.parse(json.dumps(document).encode(), "config")


def described(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    return RENDERED.document(exported(change))


def older_words(document: dict[str, Any]) -> None:
    """Tell of settings and mounts as other versions do, with a comment and times of their own."""
    for row in document["history"][1:]:
        word, _, rest = row["created_by"].partition(" ")
        if row.get("empty_layer"):
            row["created_by"] = f"{word} {{map of {len(rest)}}}"
        elif word == "RUN":
            row["created_by"] = f"RUN --mount=type=secret,id=x {rest}"
        row |= {"comment": "buildkit.dockerfile.v1", "created": "2031-01-01T00:00:00.5Z"}
    document["created"] = "2031-01-01T00:00:00.5Z"


def settings_of_their_own(document: dict[str, Any]) -> None:
    document["config"] |= {"ArgsEscaped": True, "Cmd": None, "OnBuild": None, "User": ""}
    document["moby.buildkit.buildinfo.v1"] = "e30="
    document["variant"] = ""


def other_order(document: dict[str, Any]) -> None:
    document["config"]["Env"].reverse()
    document["config"]["Labels"] = dict(reversed(document["config"]["Labels"].items()))


@pytest.mark.parametrize("change", [older_words, settings_of_their_own, other_order])
def test_what_versions_of_buildkit_write_differently_makes_no_difference(
    change: Callable[[dict[str, Any]], object],
) -> None:
    wanted = RENDERED.document(exported())
    assert spec.canonical_json(described(change)) == spec.canonical_json(wanted)
    assert wanted["config"] == RENDERED.config
    assert [row["created_by"] for row in wanted["history"][1:]] == [step.text for step in RENDERED.steps]


def test_what_another_base_sets_stays() -> None:
    def change(document: dict[str, Any]) -> None:
        document["config"]["Env"].insert(0, "OF_THE_BASE=1")
        document["config"]["Labels"]["of.the.base"] = "1"
        document["config"] |= {"StopSignal": "SIGQUIT", "Volumes": {"/data": {}}}

    config = described(change)["config"]
    assert config["Env"] == ["OF_THE_BASE=1", *RENDERED.config["Env"]]
    assert config["Labels"] == {"of.the.base": "1", **RENDERED.config["Labels"]}
    assert (config["StopSignal"], config["Volumes"]) == ("SIGQUIT", {"/data": {}})


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["history"].pop(),
        lambda document: document["history"].clear(),
        lambda document: document["history"].insert(9, {"created_by": "RUN more"}),
        lambda document: document["history"][-1].pop("empty_layer"),
    ],
)
def test_another_history_than_that_of_the_dockerfile_is_refused(
    change: Callable[[dict[str, Any]], object],
) -> None:
    with pytest.raises(IntegrityError, match="history is not that of its Dockerfile"):
        described(change)


def test_each_layer_has_a_short_title() -> None:
    titles = [title(step.text) for step in RENDERED.steps if not step.empty_layer]
    assert titles[0] == "system packages"
    assert "Python: torch" in titles
    assert "/opt/ComfyUI" in titles
    assert "COPY podkiln/ /opt/podkiln/" in titles
    assert max(map(len, titles)) <= 31
