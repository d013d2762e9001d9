"""What Python packages are asked for, and which layer each of the compiled ones goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from descriptions import SHA, variant, write

from podkiln.config import variant as variants
from podkiln.config.runtime import PythonLayer
from podkiln.errors import DescriptionError, LockError
from podkiln.lock import requirements

if TYPE_CHECKING:
    from pathlib import Path

PINNED = f"foo==1.0 \\\n    --hash=sha256:{SHA}\n"


def layer(name: str, *packages: str) -> PythonLayer:
    return PythonLayer(name=name, why="a test", packages=packages)


def compiled(*names: str) -> str:
    return "".join(f"{name}==1.0 \\\n    --hash=sha256:{SHA}\n" for name in names)


def dealt(layers: list[PythonLayer], *names: str) -> dict[str, list[str]]:
    texts = requirements.assign(compiled(*names), layers)
    return {name: list(requirements.pinned_blocks(text)) for name, text in texts.items()}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([layer("all", "*")], {"all": ["nvidia-cublas", "torch", "zipp"]}),
        (
            [
                layer("rest", "*"),
                layer("torch", "torch"),
            ],  # `*` takes what nobody else wants, wherever it stands
            {"rest": ["nvidia-cublas", "zipp"], "torch": ["torch"]},
        ),
        (
            [
                layer("math", "nvidia-cublas"),
                layer("cuda", "nvidia-*"),
                layer("rest", "*"),
            ],  # the first one wins
            {"math": ["nvidia-cublas"], "cuda": [], "rest": ["torch", "zipp"]},
        ),
    ],
)
def test_each_package_goes_to_one_layer(layers: list[PythonLayer], expected: dict[str, list[str]]) -> None:
    assert dealt(layers, "nvidia-cublas", "torch", "zipp") == expected


def test_a_package_keeps_its_own_lines_and_no_others() -> None:
    text = f"# by hand\n{PINNED}    # via bar\nBar_Baz==2.0 ; python_version > '3' --hash=sha256:{SHA}\n"
    assert requirements.pinned_blocks(text) == {
        "foo": PINNED.rstrip(),
        "bar-baz": f"Bar_Baz==2.0 ; python_version > '3' --hash=sha256:{SHA}",
    }


def test_a_package_without_a_hash_is_refused() -> None:
    with pytest.raises(LockError, match="The package foo has no hash in the lock"):
        requirements.pinned_blocks("foo==1.0\n")


def test_a_package_that_no_layer_takes_is_refused() -> None:
    with pytest.raises(
        LockError, match="No Python layer of the description takes the package zipp"
    ) as raised:
        dealt([layer("torch", "torch")], "torch", "zipp")
    assert raised.value.hint == "Add a layer for `*`."


@pytest.mark.parametrize(
    ("change", "drifted"),
    [
        (lambda text: text + "\n# a comment\n", False),
        (lambda text: "".join(sorted(text.splitlines(keepends=True))), False),
        (lambda text: text.replace("-r {comfyui}", "-r {comfyui}   # and no other"), False),
        (lambda text: text + "\nwheel\n", True),
        (lambda text: text + "\ntorch>=2.11.0\n", True),
        (lambda text: text.replace("-r {comfyui}", ""), True),
    ],
)
def test_the_requirements_count_and_their_comments_do_not(change: Any, drifted: bool, tmp_path: Path) -> None:
    shipped = (variants.SHIPPED / "python" / "requirements.in").read_text()
    write(tmp_path / "mine.in", change(shipped))
    path = write(tmp_path / "mine.yaml", variant("runtime: {python: {requirements: mine.in}}\n"))
    own, shipped = (requirements.inputs_digest(variants.load(name)) for name in (str(path), "lazy"))
    assert (own != shipped) is drifted


def test_a_requirements_file_that_is_not_there_is_blamed_on_who_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", variant("runtime: {python: {requirements: none.in}}\n"))
    with pytest.raises(DescriptionError, match=r"mine.yaml:6: runtime.python.requirements: there is no file"):
        requirements.inputs_digest(variants.load(str(path)))
