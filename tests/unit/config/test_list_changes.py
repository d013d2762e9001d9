"""Lists that a child changes instead of replacing them, and changes that contradict what is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from descriptions import write

from podkiln.config import additions, catalog, document, list_changes, strip_list
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.catalog import VariantModel
    from podkiln.config.variant import LoadedVariant

HEAD = "title: Mine\ndescription: For a test.\n"
MODELS = catalog.load()


def load(folder: Path, *texts: str) -> LoadedVariant:
    """Load a chain of files, each of which extends the one before it; the first extends `lazy`."""
    parent = "lazy"
    for number, text in enumerate(texts):
        path = write(folder / f"mine{number}.yaml", f"extends: {parent}\n{HEAD}{text}")
        parent = f"./{path.name}"
    return variants.load(str(path))


def offered(described: LoadedVariant) -> tuple[VariantModel, ...]:
    return catalog.offered(described, MODELS)


def runtime(text: str) -> str:
    return f"runtime: {{{text}}}\n"


def test_what_is_added_lies_apart_from_what_is_shared(tmp_path: Path) -> None:
    mine = load(tmp_path, runtime("apt: {add: [git, ffmpeg]}, python: {add: ['matplotlib>=3.9']}"))
    assert mine.spec.runtime.apt == variants.load("lazy").spec.runtime.apt
    assert mine.additions.packages == ("ffmpeg", "git")
    assert mine.additions.requirements == ("matplotlib>=3.9",)
    assert not variants.load("lazy").additions.packages


def test_a_child_adds_to_what_its_parent_adds_and_takes_out_of_it(tmp_path: Path) -> None:
    mine = load(
        tmp_path,
        runtime("apt: {add: [git, ffmpeg]}, python: {add: [matplotlib]}"),
        runtime("apt: {add: [tree], remove: [git]}, python: {add: [humanize]}"),
    )
    assert mine.additions.packages == ("ffmpeg", "tree")
    assert mine.additions.requirements == ("matplotlib", "humanize")


def test_a_whole_list_replaces_what_was_added_too(tmp_path: Path) -> None:
    whole = [*variants.load("lazy").spec.runtime.apt, "git"]
    mine = load(tmp_path, runtime("apt: {add: [ffmpeg]}"), runtime(f"apt: [{', '.join(whole)}]"))
    assert mine.additions.packages == ()
    assert list(mine.spec.runtime.apt) == whole
    changed = mine.lists[list_changes.APT]
    assert changed.replaced == (
        "mine1.yaml:4",
        f"base.yaml:{document.load(variants.SHIPPED / 'base.yaml').line(list_changes.APT)}",
    )


def test_a_package_that_nothing_needs_can_be_taken_out(tmp_path: Path) -> None:
    mine = load(tmp_path, runtime("apt: {remove: [libgl1]}"))
    shared = variants.load("lazy").spec.runtime
    assert set(shared.apt) - set(mine.spec.runtime.apt) == {"libgl1"}
    assert strip_list.of_system(shared)
    assert not strip_list.of_system(mine.spec.runtime)


def test_arguments_are_changed_by_the_name_of_their_flag(tmp_path: Path) -> None:
    shared = variants.load("lazy").spec.runtime.comfyui.arguments
    change = "remove: [--disable-api-nodes, --listen], add: [--verbose, '--listen=127.0.0.1,::1']"
    mine = load(tmp_path, runtime(f"comfyui: {{arguments: {{{change}}}}}"))
    kept = [word for word in shared if word not in ("--disable-api-nodes", "--listen=0.0.0.0")]
    assert list(mine.spec.runtime.comfyui.arguments) == [*kept, "--verbose", "--listen=127.0.0.1,::1"]


def test_the_words_of_an_argument_go_with_it(tmp_path: Path) -> None:
    whole = "comfyui: {arguments: [--listen, 0.0.0.0, --port, '{port}', --front-end-root, /a, --verbose]}"
    mine = load(tmp_path, runtime(whole), runtime("comfyui: {arguments: {remove: [--front-end-root]}}"))
    assert mine.spec.runtime.comfyui.arguments[-2:] == ("{port}", "--verbose")


def test_offers_are_changed_below_a_word_and_a_list(tmp_path: Path) -> None:
    mine = load(tmp_path, "models: {offer: {remove: [svd-xt]}}\n")
    assert {*MODELS} - {each.id for each in offered(mine)} == {"svd-xt"}
    tier = "tier: consumer\nmodels: {offer: tier}\n"
    before = [each.id for each in offered(load(tmp_path, tier))]
    gone = before[0]
    mine = load(tmp_path, tier, f"models: {{offer: {{add: [infcam], remove: [{gone}]}}}}\n")
    assert [each.id for each in offered(mine)] == [*before[1:], "infcam"]
    listed = "models: {offer: [sdxl-base, sdxl-vae]}\n"
    mine = load(tmp_path, listed, "models: {offer: {add: [svd-xt], remove: [sdxl-base]}}\n")
    assert [each.id for each in offered(mine)] == ["sdxl-vae", "svd-xt"]


def test_what_is_baked_keeps_its_order_and_what_is_added_comes_last(tmp_path: Path) -> None:
    listed = "models: {offer: all, bake: [sdxl-vae, sdxl-base]}\n"
    mine = load(tmp_path, listed, "models: {bake: {add: [juggernaut-xl-v9]}, default: {add: [sdxl-base]}}\n")
    baked = [each.id for each in catalog.baked(mine, offered(mine))]
    assert baked == ["sdxl-vae", "sdxl-base", "juggernaut-xl-v9"]
    assert mine.spec.models.default == ("sdxl-base",)


def test_an_extra_adds_the_packages_of_its_row(tmp_path: Path) -> None:
    mine = load(tmp_path, runtime("extras: [compiler], apt: {add: [git]}"))
    assert mine.additions.packages == tuple(sorted([*additions.load()["compiler"].apt, "git"]))
    assert mine.additions.named() == "git, compiler"


def test_an_error_in_a_changed_list_is_named_where_it_is_written(tmp_path: Path) -> None:
    mine = load(
        tmp_path,
        "models: {offer: [sdxl-base], default: [sdxl-base]}\n",
        "models:\n  default:\n    add: [nope]\n",
    )
    with pytest.raises(
        DescriptionError, match=r"mine1\.yaml:6: models\.default\.add\[0\]: 'nope' is not among"
    ):
        offered(mine)


APT, PYTHON, ARGUMENTS = "apt: {%s}", "python: {%s}", "comfyui: {arguments: {%s}}"
REFUSED = [
    (
        runtime(APT % "remove: [nginx]"),
        r"apt\.remove\[0\]: nginx cannot be taken out: the image needs it \(the door",
    ),
    (runtime(APT % "remove: [tini]"), r"tini cannot be taken out: the image needs it \(PID 1"),
    (runtime(APT % "add: [git], remove: [git]"), r"apt\.remove\[0\]: 'git' is both added and removed"),
    (
        runtime(APT % "add: [python3]"),
        r"apt\.add\[0\]: 'python3' is there already \('python3', base\.yaml:[0-9]+\)",
    ),
    (runtime(APT % "add: [git, git]"), r"apt\.add: 'git' is duplicated"),
    (runtime(APT % "remove: [libgl2]"), r"there is no 'libgl2' to take out\. Did you mean 'libgl1'\?"),
    (runtime(APT % "ad: [git]"), r"apt\.ad: unknown key\. Did you mean 'add'\?"),
    (runtime(APT % ""), r"apt: this changes nothing: write `add`, `remove` or both"),
    (runtime(APT % "add: [Git]"), r"apt\.add\[0\]: expected the name of a Debian package"),
    (runtime(APT % "add: git"), r"apt\.add: expected a list"),
    (
        runtime("extras: [compilers]"),
        r"extras\[0\]: there is no extra 'compilers'\. Did you mean 'compiler'\?",
    ),
    (
        runtime("extras: [compiler], " + APT % "add: [gcc]"),
        r"apt\.add\[0\]: gcc is there already: `extras: \[compiler\]` brings it",
    ),
    (
        runtime(PYTHON % "add: ['matplotlib>']"),
        r"python\.add\[0\]: 'matplotlib>' is not a Python requirement",
    ),
    (runtime(PYTHON % "add: [a, A]"), r"python\.add\[1\]: 'A' is there already \('a', mine0\.yaml:4\)"),
    (runtime(PYTHON % "add: ['a @ https://b.example/c']"), r"'a' has an address"),
    (runtime(PYTHON % "add: ['a; python_version>\"3\"']"), r"has a marker, and the image has one Python"),
    (runtime(PYTHON % "remove: [numpy]"), r"python\.remove: unknown key: Python packages are only added"),
    (runtime(PYTHON % "add: numpy"), r"python\.add: expected a list"),
    (runtime(ARGUMENTS % "remove: [--listen]"), r"remove\[0\]: --listen cannot be taken out: without it"),
    (runtime(ARGUMENTS % "remove: [--lowvram]"), r"there is no '--lowvram' to take out"),
    (
        runtime(ARGUMENTS % "add: ['--listen=::']"),
        r"'--listen=::' is there already \('--listen=0\.0\.0\.0', base",
    ),
    ("models: {offer: {add: [svd-xt]}}\n", r"'svd-xt' is there already: the parent offers all models"),
    ("models: {offer: {remove: [svd]}}\n", r"offer\.remove\[0\]: there is no model 'svd'"),
    (
        "models: {offer: tier}\ntier: consumer\n---\nmodels: {offer: {remove: [infcam]}}\n",
        r"is not offered, so",
    ),
    (
        "models: {offer: tier}\ntier: consumer\n---\nmodels: {offer: {add: [sdxl-base]}}\n",
        r"the parent offers it",
    ),
    ("models: {default: {remove: [svd-xt]}}\n", r"default\.remove\[0\]: there is no 'svd-xt' to take out"),
    ("apt: {add: [git]}\n", r"apt: unknown key: it stands under `runtime:`"),
    ("extras: [compiler]\n", r"extras: unknown key: it stands under `runtime:`"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_a_change_that_contradicts_what_is_there_is_one_sentence(
    text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(DescriptionError) as raised:
        offered(load(tmp_path, *text.split("---\n")))
    message = str(raised.value)
    assert re.search(says, message), message
    assert re.match(r"\S+/mine\d\.yaml:\d+: ", message)
    assert "\n" not in message
    assert message.endswith((".", "?"))
