"""What a variant adds: layers above those that it shares, in the plan, the Dockerfile and the image."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import added
import pytest
from descriptions import variant, write
from plans import plan_of

from podkiln.cli import plan as plan_command
from podkiln.config import strip_list
from podkiln.config import variant as variants
from podkiln.options import BuildRequest
from podkiln.pipeline.planning import make_plan
from podkiln.plan import plan as planning
from podkiln.render import apt_index, build_context, runtime_recipe
from podkiln.render.image_config import RenderedConfig, title

if TYPE_CHECKING:
    from pathlib import Path


def test_layers_of_additions_lie_above_the_shared_ones_with_their_sizes(tmp_path: Path) -> None:
    made = added.plan(tmp_path)
    shared = [layer.what for layer in plan_of("consumer").layers]
    assert [layer.what for layer in made.layers] == [
        *shared[:-1],
        "added Debian packages: git, compiler",
        "added Python packages: humanize",
        shared[-1],
    ]
    assert made.added_apt
    sizes = [layer.about for layer in made.layers if layer.kind == "addition"]
    assert sizes == [made.added_apt.deb_bytes, 128_000]
    assert [row["about_bytes"] for row in made.as_json()["layers"]][-3:-1] == sizes
    assert made.refusals == ()


def test_the_plan_shows_about_how_large_an_addition_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_command.show(added.plan(tmp_path))
    assert re.search(r"added Debian packages: git, compiler  \(about [0-9.]+ kB\)", capsys.readouterr().out)


def test_shared_steps_are_those_of_the_shipped_variants(tmp_path: Path) -> None:
    """The same instructions on the same files give the same layers: none comes between them."""
    mine = RenderedConfig.of(added.plan(tmp_path))
    shipped = RenderedConfig.of(plan_of("consumer"))
    count = shipped.steps_below
    assert mine.steps[:count] == shipped.steps[:count]
    above = [title(step.text) for step in mine.steps[count : mine.steps_below] if not step.empty_layer]
    assert above == ["added Debian packages", "added Python packages"]


def test_a_recipe_covers_what_is_added(tmp_path: Path) -> None:
    made = added.plan(tmp_path)
    assert made.added_apt
    index = made.added_apt.index.model_copy(update={"base_packages": "1" * 64})
    assert made.lock.additions
    other = replace(
        made,
        lock=replace(
            made.lock,
            additions=replace(
                made.lock.additions, apt={made.base_digest: replace(made.added_apt, index=index)}
            ),
        ),
    )
    assert len({runtime_recipe.of(each) for each in (made, other, plan_of("lazy"))}) == 3
    assert made.lock.digest != other.lock.digest


def test_the_image_tells_what_was_added(tmp_path: Path) -> None:
    made = added.plan(tmp_path)
    assert made.added_apt
    labels = build_context.labels(made)
    assert labels["io.podkiln.added"].split() == [*made.described.additions.packages, "humanize"]
    assert labels["io.podkiln.added-apt"] == made.added_apt.digest
    told = json.loads(build_context.render(made)["podkiln/manifest.json"].content)["additions"]
    assert told["python_packages"] == {"humanize": "4.12.3"}
    assert told["debian_packages"] == {name: each.version for name, each in made.added_apt.all.items()}
    assert told["extras"] == ["compiler"]
    assert "humanize" in made.lock.python_packages()
    assert not any(name.startswith("io.podkiln.added") for name in build_context.labels(plan_of("lazy")))


def test_packages_that_are_not_locked_are_refused_with_the_command(tmp_path: Path) -> None:
    made = added.plan(tmp_path, locked=False)
    request = BuildRequest.of([str(made.described.chain[0].path)], base="bootstrap")
    made = planning.make(made.described, made.lock, made.offered, (), request)
    (refusal,) = made.refusals
    assert (
        "the Debian packages that are added (git, compiler) are not locked for the base sha256:"
        in refusal.what
    )
    lock = f"./build.py lock --variant {made.described.chain[0].path} --base bootstrap"
    assert refusal.instead == (f"Lock them with `{lock}`.",)


def test_what_draws_brings_back_what_the_system_layer_leaves_out(tmp_path: Path) -> None:
    made = added.plan(tmp_path, apt="xvfb")
    restored = strip_list.restored(made.described.spec.runtime, ["xvfb"])
    assert "mesa-libgallium" in restored
    text = build_context.dockerfile(made)
    assert all(f"        {name} \\\n" in text.partition("add-packages.sh \\\n")[2] for name in restored)
    assert "mesa-libgallium" not in build_context.dockerfile(added.plan(tmp_path, apt="git"))
    shared = made.described.spec.runtime.model_copy(update={"strip": False})
    assert strip_list.restored(shared, ["xvfb"]) == ()


def test_packages_that_come_back_are_in_the_index_that_apt_is_given(tmp_path: Path) -> None:
    made = added.plan(tmp_path)
    assert made.added_apt
    bare = replace(made.added_apt, packages={"debian": made.added_apt.packages["debian"][:1]})
    found = apt_index.with_restored(bare, made.apt, ["nginx"])
    assert found
    assert {name: [each.name for each in group] for name, group in found.packages.items()} == {
        "debian": ["libedit2"],
        "debian-security": ["nginx"],
    }
    assert [each.name for each in found.index.archives] == ["debian", "debian-security"]
    assert apt_index.with_restored(bare, made.apt, []) is bare


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            (
                "runtime: {apt: [ca-certificates, nginx, openssh-server, python3, python3-venv, "
                "systemd-standalone-sysusers, tini]}\n"
            ),
            r"mine.yaml:6 replaces the list runtime.apt of base.yaml:\d+ whole, and the layers from the",
        ),
        (
            "runtime: {apt: {remove: [libgl1]}}\n",
            "Without libgl1, the layers from the system packages on are",
        ),
        (
            "runtime: {comfyui: {arguments: [--listen, '--port={port}']}}\n",
            r"mine.yaml:6 replaces the list runtime.comfyui.arguments of base.yaml:\d+ whole; `{add",
        ),
    ],
)
def test_a_list_that_is_replaced_is_said(text: str, says: str, tmp_path: Path) -> None:
    described = variants.load(str(write(tmp_path / "mine.yaml", variant(text))))
    made = make_plan(described, BuildRequest.of(["mine"]))
    assert any(re.search(says, note) for note in made.notes), made.notes
    assert not any("whole" in note for note in plan_of("baked").notes)
