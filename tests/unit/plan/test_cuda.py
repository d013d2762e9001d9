"""What the plan says of an image's CUDA."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click
import pytest
from plans import plan_of

from podkiln import cli
from podkiln.config import variant
from podkiln.options import BuildRequest
from podkiln.pipeline import planning
from podkiln.pipeline.request import image_name
from podkiln.plan import cuda
from podkiln.render import build_context

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan


def for_cuda(release: str | None, name: str = "lazy") -> Plan:
    return planning.make_plan(
        variant.load(name, release), BuildRequest.of([name], cuda=release, no_weights=True)
    )


def test_drivers_and_cards_are_said() -> None:
    own, older = plan_of("lazy"), for_cuda("12.8")
    assert cuda.sentence(own.described, own.lock) == (
        "CUDA 13.0 on linux/amd64: NVIDIA driver 580.65.06 or newer, with a warning from 580; "
        "cards: sm_75, sm_80, sm_86, sm_90, sm_100, sm_120"
    )
    assert cuda.sentence(older.described, older.lock) == (
        "CUDA 12.8 on linux/amd64: NVIDIA driver 570 or newer, with a warning from 525; "
        "cards: sm_70, sm_75, sm_80, sm_86, sm_90, sm_100, sm_120"
    )


def test_kernels_that_are_off_are_said_with_the_models_that_need_them() -> None:
    (said,) = [note for note in for_cuda("12.8").notes if "comfy-kitchen" in note]
    assert said.startswith("CUDA 12.8: ComfyUI leaves comfy-kitchen's CUDA kernels off below CUDA 13.0, ")
    names = said.partition("That concerns ")[2].rstrip(".").split(", ")
    assert "scail-wan2gp" in names
    assert "sdxl-base" not in names
    assert not any("comfy-kitchen" in note for note in plan_of("lazy").notes)


def test_an_image_without_the_package_is_not_concerned() -> None:
    made = for_cuda("12.8")
    bare = [replace(made.lock, runtime=made.lock.runtime.model_copy(update={"python_layers": ()}))]
    assert cuda.limits(made.described, bare[0]) == ()


def test_what_was_never_tried_is_said() -> None:
    assert "CUDA 12.8 on linux/amd64: it was booted without a GPU only." in for_cuda("12.8").notes
    described = variant.load("lazy", platform="linux/arm64")
    notes = planning.make_plan(described, BuildRequest.of(["lazy"], no_weights=True)).notes
    assert (
        "CUDA 13.0 on linux/arm64: all of its wheels are locked, and no image of it was ever built or booted."
        in notes
    )
    assert not any("booted" in note for note in plan_of("lazy").notes)


def test_a_layer_that_is_too_large_is_said() -> None:
    made = plan_of("lazy")
    layers = made.lock.runtime.python_layers
    large = layers[0].model_copy(update={"wheel_bytes": 1_600_000_000})
    lock = replace(made.lock, runtime=made.lock.runtime.model_copy(update={"python_layers": (large,)}))
    (note,) = cuda.notes(made.described, lock, ())
    assert note.startswith("the wheels of the Python layer cuda-math come to 1.6 GB: above 1.5 GB, ")


@pytest.mark.parametrize("name", variant.names())
def test_tag_labels_and_data_of_the_pod_say_the_cuda(name: str) -> None:
    made = for_cuda("12.8", name)
    release = "0.33.0" if made.described.spec.has_comfyui else "0.42.1"  # of diffusers
    assert str(image_name(made)) == f"localhost/podkiln:{name}-{release}-cuda-12.8"
    assert build_context.labels(made)["io.podkiln.cuda"] == "12.8"
    told = build_context.flags_json(made)["cuda"]
    assert (told["version"], told["driver"], told["least_driver"]) == ("12.8", "570", "525")
    assert told["architectures"][0] == "sm_70"
    assert len(told["limits"]) == 1
    (other,) = told["others"]
    assert (other["version"], other["least_driver"], other["architectures"][0]) == ("13.0", "580", "sm_75")


def test_what_cuda_12_brings_and_no_pod_needs_is_left_out() -> None:
    """Its packages have other names and folders than those of CUDA 13."""
    files = build_context.render(for_cuda("12.8"))
    rules = "".join(
        file.content.decode() for path, file in files.items() if path.startswith("build/strip-python-")
    )
    for line in (
        "remove nvidia-cuda-nvrtc-cu12 nvidia/cu*/lib/libnvrtc*.alt.so.*",
        "remove nvidia-cusolver-cu12 nvidia/cu*/lib/libcusolverMg.so.*",
        "remove nvidia-cufft-cu12 nvidia/cu*/lib/libcufftw.so.*",
        "remove nvidia-cublas-cu12 nvidia/cu*/lib/libnvblas.so.*",
    ):
        assert line in rules.splitlines()


def test_the_dockerfile_has_a_step_for_each_of_its_layers() -> None:
    text = build_context.dockerfile(for_cuda("12.8"))
    for layer in ("cuda-math", "cuda-solvers", "cuda-deep-learning"):
        assert f"requirements/{layer}.txt" in text
    assert 'io.podkiln.cuda="12.8"' in text


def test_every_command_that_takes_a_variant_takes_a_cuda() -> None:
    with click.Context(cli.cli) as context:
        commands = [cli.cli, *filter(None, (cli.cli.get_command(context, name) for name in cli.COMMANDS))]
    taken = [{option.name for option in command.params} for command in commands]
    assert sum("cuda" in names for names in taken) == 10, "also `variants`, which takes none"
    assert all("cuda" in names for names in taken if "variant" in names)
