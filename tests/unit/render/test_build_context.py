"""Rendering: pure, strict, quoted; names, bytes and modes come out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml
from plans import plan_of

from podkiln.config import families, fields, variant
from podkiln.plan.substitutes import Substitute
from podkiln.render import build_context, image_metadata, runtime_recipe
from podkiln.render.image_config import RenderedConfig

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

VARIANTS = variant.names()


@pytest.fixture(params=VARIANTS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return plan_of(request.param)


def test_a_context_holds_all_that_the_dockerfile_takes(plan: Plan) -> None:
    files = build_context.render(plan)
    dockerfile = files["Dockerfile"].content.decode()
    for name in set(re.findall(r"/build/([\w.-]+)", dockerfile)) - {"imported"}:
        assert f"build/{name}" in files
    for name in re.findall(r"/requirements/([\w.-]+)", dockerfile):
        apart = name.startswith("node-") or name in ("runpod.txt", "diffusers.txt")
        assert f"build/{name}" in files if apart else f"requirements/{name}" in files
    for name in re.findall(r"source=(\S+),target=/patches", dockerfile):
        assert f"{name}/01.patch" in files
    assert {
        "start.sh",
        "podkiln/__main__.py",
        "podkiln/pod/decision.py",
        "podkiln/models.json",
    } <= files.keys()


def test_a_step_sees_the_files_that_it_uses_and_no_others(plan: Plan) -> None:
    """A file that is mounted is part of a step's cache key: one script changed must not rebuild all."""
    files = build_context.render(plan)
    dockerfile = files["Dockerfile"].content.decode()
    assert len(steps(dockerfile)) == dockerfile.count("\nRUN ") > 8
    for step in steps(dockerfile):
        seen = set(re.findall(r"source=\S+,target=/((?:build|requirements)/[\w.-]+) ", step))
        seen -= {"build/imported"}  # which is only waited for
        used = set(re.findall(r" /((?:build|requirements)/[\w.-]+)", step))
        for script in used | {"build/install-tree.sh"} if "install-node.sh" in step else set(used):
            if script.endswith(".sh"):
                beside = re.findall(r'(?:"\$0"\)"?|\$here)/([\w.-]+)', files[script].content.decode())
                used |= {f"build/{name}" for name in beside}
            elif script.endswith(".py"):
                beside = re.findall(r'with_name\("([\w.-]+)"\)', files[script].content.decode())
                used |= {f"build/{name}" for name in beside}
        assert seen == used, step
        assert not re.search(r"target=/(build|requirements) ", step), step


def test_a_build_that_begins_with_nothing_takes_no_wheel_from_a_cache(plan: Plan) -> None:
    """Its steps, and so its history and its recipe, are those of any other."""
    usual, fresh = (RenderedConfig.of(each) for each in (plan, replace(plan, fresh=True)))
    dockerfile = build_context.render(replace(plan, fresh=True))["Dockerfile"].content.decode()
    assert "type=cache" not in dockerfile
    assert fresh.steps == usual.steps
    assert runtime_recipe.of(replace(plan, fresh=True)) == runtime_recipe.of(plan)


def test_without_jupyter_there_is_nothing_of_it(plan: Plan) -> None:
    spec, dockerfile = plan.described.spec, build_context.render(plan)["Dockerfile"].content.decode()
    assert ("/opt/jupyter" in dockerfile) is (spec.serve is None)
    for update in ({"jupyter": None}, {"jupyterlab": False}):
        without = spec.model_copy(update={"runtime": spec.runtime.model_copy(update=update)})
        changed = replace(plan, described=replace(plan.described, spec=without))
        assert "jupyter" not in build_context.render(changed)["Dockerfile"].content.decode().lower()
        assert "jupyter" not in image_metadata.manifest(changed)["python"]["layers"]


def steps(dockerfile: str) -> list[str]:
    """Return each RUN with its continued lines."""
    return re.findall(r"^RUN (?:.*\\\n)*.*$", dockerfile, re.MULTILINE)


def test_the_same_plan_gives_the_same_bytes(plan: Plan) -> None:
    assert build_context.render(plan) == build_context.render(plan)


def test_only_scripts_and_commands_are_executable(plan: Plan) -> None:
    modes = {path: file.mode for path, file in build_context.render(plan).items()}
    called = {path for path in modes if path.endswith(".sh") or path.startswith("bin/")}
    assert {path for path, mode in modes.items() if mode == 0o755} == called
    assert ("bin/podkiln-fetch" in called) is plan.described.spec.has_comfyui
    assert set(modes.values()) == {0o644, 0o755}


def test_what_is_only_carried_along_is_not_golden(plan: Plan) -> None:
    kept = build_context.rendered_only(build_context.render(plan))
    assert {"Dockerfile", "start.sh", "podkiln/flags.json"} <= kept.keys()
    assert not [path for path in kept if path.startswith(("requirements/", "podkiln/pod/"))]
    assert {path.partition("/strip-")[0] for path in kept if path.startswith("build/")} == {"build"}


def test_each_input_is_a_stage_that_can_be_replaced(plan: Plan) -> None:
    dockerfile = build_context.render(plan)["Dockerfile"].content.decode()
    for stage in ("base", "requirements", *(["comfyui"] if plan.described.spec.has_comfyui else [])):
        assert re.search(rf"^FROM .* AS {stage}$", dockerfile, re.MULTILINE)


def test_data_is_what_programs_can_read(plan: Plan) -> None:
    files = build_context.render(plan)
    has_comfyui = plan.described.spec.has_comfyui
    for path in ("manifest", "models", "flags", "folders" if has_comfyui else "detection"):
        assert json.loads(files[f"podkiln/{path}.json"].content)["schema"] == 1
    if not has_comfyui:
        return
    paths = yaml.safe_load(files["podkiln/extra_model_paths.yaml"].content)
    assert list(paths) == ["workspace", "baked", "examples"]
    # A YAML list would crash ComfyUI.
    assert all(isinstance(value, str | bool) for place in paths.values() for value in place.values())


def test_an_image_that_serves_one_model_shares_its_layers_and_has_nothing_of_comfyui() -> None:
    server, lazy = (build_context.render(plan_of(name)) for name in ("server", "lazy"))
    mine, theirs = (steps(each["Dockerfile"].content.decode()) for each in (server, lazy))
    shared = next(at for at, step in enumerate(mine) if "/diffusers.txt" in step)
    assert mine[:shared] == theirs[:shared]
    assert "/libraries.txt" in mine[shared - 1]
    used = {path for path in server if path.startswith(("build/strip-", "requirements/"))}
    assert all(server[path] == lazy[path] for path in used), "a mounted file is part of what makes a layer"
    assert [line for line in "\n".join(mine).splitlines() if "omfy" in line.lower()] == []
    manifest = json.loads(server["podkiln/manifest.json"].content)
    assert list(manifest["python"]["layers"])[-1] == "libraries"
    assert "comfyui" not in manifest
    assert manifest["serve"]["packages"]["diffusers"] == families.DIFFUSERS
    assert [path for path in server if path.startswith("podkiln/access/")] == ["podkiln/access/sshd_config"]
    assert {path.split("/")[1] for path in server if path.startswith("podkiln/")} == {
        *("__main__.py", "access", "comfy", "pod", "server", "worker"),
        *("detection.json", "flags.json", "manifest.json", "model-types.json", "models.json"),
    }


def test_labels_name_the_pins_and_the_substitutes() -> None:
    plan = plan_of()
    assert "io.podkiln.substituted" not in build_context.labels(plan)
    other = replace(plan, inputs=(Substitute("comfyui", "/x", locked="1", actual="2"),))
    assert build_context.labels(other)["io.podkiln.substituted"] == "comfyui=2"
    assert build_context.labels(plan)["org.opencontainers.image.base.digest"] == plan.lock.runtime.base_digest


def test_no_description_gives_a_label_that_says_what_the_image_is() -> None:
    other = replace(plan_of(), inputs=(Substitute("comfyui", "/x", locked="1", actual="2"),))
    assert all(f"{name}.".startswith(fields.RESERVED_LABELS) for name in build_context.labels(other))


def test_texts_of_a_description_stay_texts() -> None:
    """Nothing that a title may hold becomes an instruction, or is expanded."""
    plan = plan_of()
    nasty = 'say "hi" to $HOME \\ and\nRUN rm -rf /\n'
    spec = plan.described.spec
    image = spec.image.model_copy(update={"labels": {"com.example.x": nasty}})
    changed = spec.model_copy(update={"title": nasty, "description": nasty, "image": image})
    other = replace(plan, described=replace(plan.described, spec=changed))
    dockerfile = build_context.render(other)["Dockerfile"].content.decode()
    assert not re.search(r"^RUN rm", dockerfile, re.MULTILINE)
    assert r'com.example.x="say \"hi\" to \$HOME \\ and RUN rm -rf /"' in dockerfile
