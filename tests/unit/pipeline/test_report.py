"""Reports: what scripts rely on, and what people want to know."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from apt_locks import with_apt
from layouts import make_layout
from plans import plan_of

from podkiln.oci import layout
from podkiln.pipeline import report
from podkiln.pipeline.report import Report
from podkiln.plan.substitutes import Substitute
from podkiln.registry import PushedBlob, PushReport

if TYPE_CHECKING:
    from pathlib import Path

PROMISED = {"schema", "variant", "image", "digest", "layers", "seconds", "weights", "command"}


@pytest.fixture
def made(tmp_path: Path) -> Report:
    image = layout.read(make_layout(tmp_path / "l"))
    return Report(plan_of("baked"), "localhost/podkiln:x", "docker buildx bake", image, {"build": 1.23456})


def test_scripts_find_what_they_rely_on(made: Report) -> None:
    data = made.as_json()
    assert data.keys() >= PROMISED
    assert data["weights"].keys() >= {"fetched_bytes", "uploaded_bytes", "mounted_bytes", "existing_bytes"}
    assert data["seconds"] == {"build": 1.235}
    assert data["digest"] == made.layout.descriptor.digest
    assert [layer["what"] for layer in data["layers"]] == ["layer 0", "layer 1"]
    assert all(layer["digest"] != layer["diff_id"] for layer in data["layers"])


def test_what_was_left_out_is_said_plainly(made: Report) -> None:
    assert made.as_json()["left_out"] == [offer.id for offer in made.plan.offered]
    assert any("leaves out sdxl-base" in line for line in made.sentences())


def test_a_push_is_told_apart_from_a_build(made: Report, tmp_path: Path) -> None:
    assert made.as_json()["pushed"] is False
    one, two = made.layout.manifest.layers
    first = PushedBlob(one.digest, 10, "uploaded", 0.1)
    second = PushedBlob(two.digest, 11, "existing", 0.1)
    made = replace(made, pushed=PushReport("r", made.layout.descriptor.digest, (first,), second, 1.0))
    assert made.as_json()["runtime"] == {"uploaded_bytes": 10, "mounted_bytes": 0, "existing_bytes": 11}
    assert made.sentences()[-2:] == [
        "    pushed localhost/podkiln:x (10 B sent)",
        (
            "    start it, with --gpus all where there is a card: "
            "docker run --rm --publish 8188:8188 localhost/podkiln:x"
        ),
    ]


def test_what_was_built_and_the_next_step_come_last(made: Report) -> None:
    (*_, place) = made.sentences()
    assert place.startswith("    localhost/podkiln:x lies in ")
    assert place.endswith("baked/image, as an OCI layout; --load gives it to the engine")
    request = replace(made.plan.request, output=replace(made.plan.request.output, load=True))
    loaded = replace(made, plan=replace(made.plan, request=request))
    assert loaded.sentences()[-2] == "    loaded localhost/podkiln:x"


@pytest.mark.parametrize(
    ("content", "unchanged"),
    [
        ("{digest}", False),
        ('{{"digest": "{digest}"}}', True),
        ('{{"digest": "sha256:other"}}', False),
        ('{{"digest": 3}}', False),
        ("[]", False),
        (None, False),
    ],
)
def test_a_build_that_changed_nothing_says_so(
    made: Report, tmp_path: Path, content: str | None, unchanged: bool
) -> None:
    place = tmp_path / "report.json"
    if content:
        place.write_text(content.format(digest=made.layout.descriptor.digest))
    said = "\n".join(replace(made, before=report.last_digest(place)).sentences())
    assert (f"{made.layout.descriptor.digest}, as it was built last" in said) == unchanged


def test_substitutes_are_named_with_both_hashes(made: Report) -> None:
    plan = replace(made.plan, inputs=(Substitute("comfyui", "/x", locked="1", actual="2"),))
    made = replace(made, plan=plan)
    assert made.as_json()["substituted"] == {"comfyui": {"locked": "1", "actual": "2"}}
    assert "    substituted: comfyui is 2, the lock names 1" in made.sentences()


@pytest.mark.parametrize(("count", "keys"), [(1, PROMISED), (2, {"schema", "reports"})])
def test_one_report_stands_alone_and_several_in_a_list(
    count: int, keys: set[str], made: Report, tmp_path: Path
) -> None:
    report.write([made] * count, tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    assert data.keys() >= keys
    assert data["schema"] == 1
    assert count == 1 or len(data["reports"]) == count


def test_whether_apt_is_locked_is_said(made: Report) -> None:
    said = "    apt not locked: another day may give other versions of Debian's packages"
    assert made.as_json()["apt"] == "not locked"
    assert said in made.sentences()
    locked = replace(made, plan=with_apt(made.plan))
    assert locked.plan.apt
    assert locked.as_json()["apt"] == locked.plan.apt.digest
    assert said not in locked.sentences()
