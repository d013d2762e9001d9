"""Which CUDA an image is for: by its description, by --cuda; and descriptions that contradict themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from descriptions import variant, write

from podkiln.config import cuda_releases
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_default_is_the_newest() -> None:
    assert cuda_releases.names() == ["13.0", "12.8"]
    assert cuda_releases.default() == "13.0"


@pytest.mark.parametrize("name", cuda_releases.names())
def test_each_release_is_described(name: str) -> None:
    release = cuda_releases.load(name)
    pinned = [line.partition("==")[0] for line in release.torch]
    assert pinned == ["torch", "torchvision", "torchaudio"]
    assert release.platforms["linux/amd64"].wheels == "x86_64-manylinux_2_28"


@pytest.mark.parametrize("name", variants.names())
def test_each_variant_can_be_built_for_each_release(name: str) -> None:
    runtime = variants.load(name, "12.8").spec.runtime
    assert (runtime.cuda, runtime.driver, runtime.name) == ("12.8", "570", "comfyui-0.33.0-cuda-12.8")
    own = variants.load(name)
    assert (own.spec.runtime.cuda, own.spec.runtime.driver) == ("13.0", "580.65.06")
    assert own.spec.runtime.name == "comfyui-0.33.0-cuda-13.0"
    assert own.option == ""


def test_a_variant_of_ones_own_names_its_release(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", variant('runtime: {cuda: "12.8"}\n'))
    described = variants.load(str(path))
    assert described.spec.runtime.name == "comfyui-0.33.0-cuda-12.8"
    assert [layer.name for layer in described.spec.runtime.python.layers][:2] == ["cuda-math", "cuda-solvers"]
    assert described.option == f" --variant {path}"
    other = variants.load(str(path), "13.0")
    assert other.spec.runtime.driver == "580.65.06"
    assert other.option == f" --variant {path} --cuda 13.0"


def test_what_a_variant_says_itself_is_stronger(tmp_path: Path) -> None:
    own = (
        'runtime: {name: studio, driver: "590", python: {layers: [{name: all, why: one, packages: ["*"]}]}}\n'
    )
    path = write(tmp_path / "mine.yaml", variant(own))
    runtime = variants.load(str(path)).spec.runtime
    assert (runtime.name, runtime.driver, len(runtime.python.layers)) == ("studio", "590", 1)
    assert variants.load(str(path), "12.8").spec.runtime.name == "studio-cuda-12.8", (
        "it has a lock of its own"
    )


def test_another_platform_has_wheels_and_a_lock_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", variant("platforms: [linux/arm64]\n"))
    described = variants.load(str(path))
    assert described.platform == "linux/arm64"
    assert described.spec.runtime.python.platform == "aarch64-manylinux_2_28"
    assert described.spec.runtime.name == "comfyui-0.33.0-cuda-13.0-arm64"


CONTRADICTIONS = [
    (
        'runtime: {cuda: "11.8"}\n',
        r"mine.yaml:6: runtime.cuda: there is no CUDA '11.8' in variants/cuda\. There are: 13.0, 12.8",
    ),
    (
        "runtime: {cuda: 12.8}\n",
        r"mine.yaml:6: runtime.cuda: expected text, found '12.8': write it in quotes",
    ),
    (
        'runtime: {driver: "570.26"}\n',
        r"mine.yaml:6: runtime.driver: CUDA 13.0 needs driver 580.65.06, and 570.26 is older\.",
    ),
    (
        'runtime: {cuda: "12.8", driver: "535.183.01"}\n',
        r"mine.yaml:6: runtime.driver: CUDA 12.8 needs driver 570, and 535.183.01 is older\.",
    ),
    (
        'platforms: [linux/arm64]\nruntime: {cuda: "12.8"}\n',
        r"mine.yaml:6: platforms: torch has no CUDA 12.8 for linux/arm64\. Take another CUDA for it \(13.0\)",
    ),
    (
        "platforms: [linux/arm64]\nruntime: {python: {platform: x86_64-manylinux_2_28}}\n",
        r"mine.yaml:7: runtime.python.platform: wheels for x86_64-manylinux_2_28 do not run on linux/arm64",
    ),
    (
        "runtime: {python: {platform: aarch64-manylinux_2_28}}\n",
        r"mine.yaml:6: runtime.python.platform: wheels for aarch64-manylinux_2_28 do not run on linux/amd64",
    ),
    ("platforms: [linux/amd64, linux/arm64]\n", r"mine.yaml:6: platforms: expected one platform"),
    ("platforms: []\n", r"mine.yaml:6: platforms: expected one platform"),
    ("platforms: [windows/amd64]\n", r"mine.yaml:6: platforms\[0\]: "),
]


@pytest.mark.parametrize(("text", "says"), CONTRADICTIONS)
def test_a_contradiction_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "mine.yaml", variant(text))
    with pytest.raises(DescriptionError) as refused:
        variants.load(str(path))
    told = f"{refused.value} {refused.value.hint or ''}"
    assert re.search(says, told), told


def test_a_release_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--cuda: there is no CUDA '12'\."):
        variants.load("lazy", "12")
