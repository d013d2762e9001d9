"""The stage `baked`: how each kind of source is had by plain Docker, and what stays as it was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import descriptions
import pytest
from plans import plan_of

from podkiln.config import variant
from podkiln.options import BuildRequest
from podkiln.pipeline import planning
from podkiln.render import baked_stage, build_context, lint
from podkiln.render.baked_stage import BakedStep

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.plan import Plan

SHA = descriptions.SHA
REVISION = SHA[:40]
FETCH = "sh /build/fetch-weights.sh"
GATED = "gated: true\n"


def file(source: str, *, sha256: str = SHA, folder: str = "vae", more: str = "") -> str:
    return f"- {{{source}, folder: {folder}, size: 9, sha256: {sha256}{more}}}\n"


def plan(folder: Path, **models: str) -> Plan:
    """Return the plan of a variant that bakes these models, and no others."""
    lists = f"{{offer: [], bake: [{', '.join(models)}]}}"
    text = descriptions.variant(**models).replace("{offer: [sdxl-base]}", lists)
    path = descriptions.write(folder / "mine.yaml", text)
    return planning.make_plan(
        variant.load(str(path)), BuildRequest.of(variants=(str(path),), no_weights=True)
    )


def added(url: str, name: str) -> BakedStep:
    return BakedStep("add", f"vae/{name}", SHA, f'["{url}", "/opt/models/vae/{name}"]')


HUB = "huggingface: o/r, path: a b/x.safetensors"
RESOLVED = "${HF_ENDPOINT}/o/r/resolve"


@pytest.mark.parametrize(
    ("source", "more", "step"),
    [
        (HUB, "", added(f"{RESOLVED}/main/a%20b/x.safetensors", "x.safetensors")),
        (
            f"{HUB}, revision: {REVISION}",
            "",
            added(f"{RESOLVED}/{REVISION}/a%20b/x.safetensors", "x.safetensors"),
        ),
        ("url: 'https://x.example/y.sft?a=1'", "", added("https://x.example/y.sft?a=1", "y.sft")),
        ("civitai: {model: 1, version: 2}, name: z.sft", "", BakedStep("fetch", "m")),
        (HUB, GATED, BakedStep("fetch", "m")),
        (
            "local: w.sft",
            "",
            BakedStep("nothing", "vae/w.sft", why="is a local file, which only podkiln can bake"),
        ),
    ],
    ids=["public", "public at a commit", "https", "civitai", "gated", "local"],
)
def test_each_kind_of_source_has_its_step(tmp_path: Path, source: str, more: str, step: BakedStep) -> None:
    made = plan(tmp_path, m=descriptions.model(file(source), more=more))
    assert baked_stage.steps(made) == [step]


def test_a_file_without_a_hash_is_left_out_and_says_so(tmp_path: Path) -> None:
    made = plan(tmp_path, m=descriptions.model(file(HUB, sha256="unresolved")))
    assert [(step.what, step.name) for step in baked_stage.steps(made)] == [("nothing", "vae/x.safetensors")]


def test_files_come_in_declared_order_each_once_and_optional_ones_not_at_all(tmp_path: Path) -> None:
    first, last = file("url: https://x.example/b.sft"), file("url: https://x.example/a.sft")
    civitai = file("civitai: {model: 1, version: 2}, name: c")
    optional = file("url: https://x.example/o.sft", more=", optional: true")
    made = plan(
        tmp_path,
        two=descriptions.model(first, civitai, optional),
        one=descriptions.model(first, last),
    )
    assert [step.name for step in baked_stage.steps(made)] == ["vae/b.sft", "two", "vae/a.sft"]


def test_what_was_fetched_with_a_token_is_not_added_once_more(tmp_path: Path) -> None:
    shut, public = descriptions.model(file(HUB), more=GATED), descriptions.model(file(HUB))
    assert [step.name for step in baked_stage.steps(plan(tmp_path, m=shut, n=public))] == ["m"]
    assert [step.what for step in baked_stage.steps(plan(tmp_path, m=public, n=shut))] == ["add"]


def test_a_name_is_a_name_whatever_it_holds(tmp_path: Path) -> None:
    """Docker expands variables and takes quotes away, in a JSON list too."""
    made = plan(
        tmp_path, m=descriptions.model(file("url: 'https://x.example/$HOME'", more=', name: "a \'$b"'))
    )
    (step,) = baked_stage.steps(made)
    assert step.words == r'["https://x.example/\\$HOME", "/opt/models/vae/a \\' + r"'\\$b" + '"]'


def test_the_stage_keeps_all_rules_and_a_plain_build_has_no_weights(tmp_path: Path) -> None:
    sources = (file(HUB), file("url: 'https://x.example/a\"b.sft'"), file("local: w.sft"))
    made = plan(
        tmp_path,
        open=descriptions.model(*sources),
        shut=descriptions.model(file(HUB, folder="loras"), more=GATED),
    )
    files = build_context.render(made)
    stage = files["Dockerfile"].content.decode().partition("\nFROM image AS baked\n")[2]
    assert stage.count(f"ADD --checksum=sha256:{SHA} --chmod=0644 ") == 2
    assert stage.count(f"{FETCH} shut\n") == 1
    assert "# Left out: vae/w.sft is a local file" in stage
    assert stage.endswith("\nFROM image AS without-weights\n")
    assert list(map(str, lint.check(files))) == []


def test_no_weights_changes_nothing_and_without_a_bake_there_is_no_stage() -> None:
    stages = re.findall(r"^FROM .* AS (\S+)$", _dockerfile("baked"), re.MULTILINE)
    assert stages[-3:] == ["image", "baked", "without-weights"]
    assert _dockerfile("baked") == _dockerfile("baked", no_weights=False)
    assert "baked" not in re.findall(r"^FROM .* AS (\S+)$", _dockerfile("lazy"), re.MULTILINE)


def _dockerfile(name: str, **asked: bool) -> str:
    return build_context.render(plan_of(name, **asked))["Dockerfile"].content.decode()
