"""The main job: everything that can be refused is refused before the first byte moves."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from descriptions import VARIANT, write
from descriptions import variant as description
from plans import plan_of
from servers.registry import Registry

from podkiln import registry
from podkiln.build import base_image, engine
from podkiln.config import variant
from podkiln.errors import (
    DescriptionError,
    EngineError,
    PlanRefusedError,
    PodkilnError,
    RegistryError,
    UsageError,
)
from podkiln.oci import spec
from podkiln.options import BuildRequest
from podkiln.pipeline import build, planning
from podkiln.pipeline.request import image_name
from podkiln.render import bake_file
from podkiln.util import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

LAZY = ("lazy",)
FOLDER = Path(__file__).parents[2] / "fixtures/variants"  # a folder that can be read
ASKS = str(Path(__file__).parents[2] / "fixtures/variants/asks.yaml")
BEGIN = "-----BEGIN CERTIFICATE-----"


@pytest.fixture(autouse=True)
def nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a test that is refused gets as far as the engine."""
    monkeypatch.setattr(build, "prepare_engine", lambda _: pytest.fail("asked for an engine"))


@pytest.mark.parametrize(
    ("request_", "error", "sentence"),
    [
        (BuildRequest.of(("lazy", "lazy")), UsageError, "--variant: lazy is named twice"),
        (BuildRequest.of(LAZY, push=True), UsageError, "--push needs a registry"),
        (
            BuildRequest.of(("lazy", "consumer"), tag="v1"),
            UsageError,
            "--tag v1 would be one tag for 2 images",
        ),
        (BuildRequest.of(LAZY, tag="a b"), UsageError, "--tag: 'a b' is not 1 to 128 of"),
        (BuildRequest.of(LAZY, tag="a/b"), UsageError, "--tag: 'a/b' is not"),
        (BuildRequest.of(LAZY, tag=f"a@sha256:{'0' * 64}"), UsageError, "--tag: 'a@sha256:0+' is not"),
        (BuildRequest.of(LAZY, tag=""), UsageError, "--tag: '' is not"),
        (BuildRequest.of(LAZY, tag="a" * 129), UsageError, "--tag: 'a+' is not"),
        (BuildRequest.of(LAZY, registry="https://ghcr.io/you"), UsageError, "it begins with a scheme"),
        (BuildRequest.of(LAZY, registry="ghcr.io/You"), UsageError, "upper-case"),
        (BuildRequest.of(LAZY, spool=Path("/tmp/x")), UsageError, "--spool needs --push"),
        (BuildRequest.of(LAZY, mount_from=("you/x",)), UsageError, "--mount-from needs --push"),
        (BuildRequest.of(LAZY, copy_from=("UP/x y",)), UsageError, "'UP/x y' is not an image name"),
        (
            BuildRequest.of(LAZY, push=True, registry="ghcr.io/you", mount_from=("quay.io/You",)),
            UsageError,
            "--mount-from: 'quay.io/You' is not in the registry that is pushed to, ghcr.io",
        ),
        (
            BuildRequest.of(LAZY, report=Path("/no/such/r.json")),
            UsageError,
            "--report: there is no folder /no/such",
        ),
        (
            BuildRequest.of(LAZY, source=(f"requirements={FOLDER}", f"requirements={FOLDER}")),
            UsageError,
            "--source: requirements is given twice",
        ),
        (
            BuildRequest.of((ASKS,), push=True, registry="quay.io/me"),
            PlanRefusedError,
            "^asks: svd-xt is under ",
        ),
        (BuildRequest.of(("no-such",)), DescriptionError, "There is no variant 'no-such'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    request_: BuildRequest, error: type[PodkilnError], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podkiln.plan.substitutes.tree_id", lambda *_: "1")
    with pytest.raises(error, match=sentence):
        build.build(request_)


@pytest.mark.parametrize("content", ["", "none", f"{BEGIN}\nAAAA\n{BEGIN.replace('BEGIN', 'END')}\n"])
def test_a_bundle_without_certificates_is_refused(content: str, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(content)
    with pytest.raises(UsageError, match=r"^--ca-bundle: .*ca\.pem holds no PEM certificate"):
        build.build(BuildRequest.of(LAZY, ca_bundle=bundle))


def test_one_mirror_serves_one_suite(tmp_path: Path) -> None:
    own = write(tmp_path / "older.yaml", description("runtime: {base: {suite: bookworm}}\n"))
    mirror = "http://m.example/debian"
    with pytest.raises(UsageError, match="--apt-mirror: these variants stand on bookworm and trixie"):
        build.build(BuildRequest.of(("lazy", str(own)), apt_mirror=mirror))


@pytest.mark.parametrize("name", ["My Variant.yaml", "Ü.yaml", "a.b.yaml", "-x.yaml", f"{'a' * 65}.yaml"])
def test_a_file_whose_name_is_no_tag_is_refused(name: str, tmp_path: Path) -> None:
    own = write(tmp_path / name, description())
    with pytest.raises(DescriptionError, match="the file's name is the variant's"):
        variant.load(str(own))


def test_a_variant_of_ones_own_is_not_called_like_a_shipped_one(tmp_path: Path) -> None:
    own = write(tmp_path / "lazy.yaml", description())
    with pytest.raises(DescriptionError, match="lazy is the name of a shipped variant"):
        variant.load(str(own))
    assert variant.load(str(variant.SHIPPED / "lazy.yaml")).name == "lazy"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "localhost/podkiln:lazy-0.33.0-cuda-13.0"),
        ({"registry": "ghcr.io/you"}, "ghcr.io/you/podkiln:lazy-0.33.0-cuda-13.0"),
        (
            {"registry": "localhost:5000/x", "tag": "{variant}-2026.11"},
            "localhost:5000/x/podkiln:lazy-2026.11",
        ),
        ({"registry": "you"}, "docker.io/you/podkiln:lazy-0.33.0-cuda-13.0"),
    ],
)
def test_an_image_is_named_after_variant_comfyui_and_cuda(asked: dict[str, str], name: str) -> None:
    assert str(image_name(plan_of(**asked))) == name


def test_a_dry_run_makes_no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_image, "base_layout", lambda _: pytest.fail("made a base"))
    (plan,) = planning.decide(BuildRequest.of(LAZY, base="bootstrap", dry_run=True))
    assert [each.name for each in plan.substituted] == ["base"]


class _Refusing:
    """A registry that does not let us write."""

    asked: list[str] = []  # noqa: RUF012

    def __init__(self, image: Any, settings: Any, *, push: bool) -> None:
        self.asked.append(image.name)
        assert push

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def try_upload(self) -> str:
        raise RegistryError("denied")

    def cancel_upload(self, _location: str) -> None:
        pytest.fail("there is none")


def test_a_login_that_may_not_push_is_said_before_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "Repository", _Refusing)
    _Refusing.asked.clear()
    with pytest.raises(RegistryError, match="denied"):
        build.build(BuildRequest.of(("lazy", "consumer"), push=True, registry="ghcr.io/you"))
    assert _Refusing.asked == ["ghcr.io/you/podkiln"], "asked once for both"


@contextlib.contextmanager
def leaves(tmp_path: Path) -> Iterator[None]:
    partial = tmp_path / "lazy" / "image.partial"
    partial.mkdir(parents=True)
    with build._partials([plan_of()], tmp_path):
        assert not partial.exists(), "what an earlier run left is no part of this one"
        partial.mkdir()
        yield
    assert not partial.exists()


@pytest.fixture
def baking(tmp_path: Path) -> Path:
    """A variant that bakes one file, whose layer the lock remembers."""
    text = (
        "extends: lazy\ntitle: T\ndescription: D\n"
        "models: {offer: [], default: [], bake: [one]}\n"
        "define:\n  one:\n    title: One\n    summary: One.\n"
        "    licence: {id: MIT, commercial: true, bake: 'yes'}\n"
        "    tiers: [consumer]\n    needs: {vram_gb: 1, ram_gb: 1}\n"
        f"    files: [{{huggingface: a/b, path: c.safetensors, folder: vae, size: 9, sha256: {'1' * 64}}}]\n"
    )
    path = tmp_path / "one.yaml"
    path.write_text(text)
    (bundle,) = planning.make_plan(variant.load(str(path)), BuildRequest.of((str(path),))).bundles
    layer = {"name": "n", "digest": spec.digest_of(b"layer"), "size": bundle.size}
    (tmp_path / "one.locks").mkdir()
    (tmp_path / "one.locks/layers.json").write_text(
        json.dumps({"schema_version": 1, "layers": {bundle.recipe: layer}})
    )
    return path


@pytest.mark.parametrize(
    ("held", "options", "fetched", "sent"),
    [
        ("team/podkiln", {}, False, False),
        ("team/other", {}, True, True),
        ("team/other", {"mount_from": ("team/other",)}, False, False),
        ("team/other", {"mount_from": ("{host}/team/other",)}, False, False),
        ("far/other", {"copy_from": ("localhost:{port}/far/other",)}, False, True),
    ],
)
def test_a_plan_is_exact_once_the_registry_was_asked(
    baking: Path, held: str, options: dict[str, tuple[str]], *, fetched: bool, sent: bool
) -> None:
    with Registry() as server:
        host = server.host()
        names = {"host": host, "port": host.rpartition(":")[2]}
        given: dict[str, Any] = {key: (value[0].format(**names),) for key, value in options.items()}
        asked = BuildRequest.of((str(baking),), push=True, registry=f"{host}/team", **given)
        made = planning.make_plan(variant.load(str(baking)), asked)
        server.blobs[held, spec.digest_of(b"layer")] = bytes(made.bundles[0].size)
        seen = planning.with_registry_state(made, registry.RegistryOptions())
    assert (seen.fetch_bytes, seen.upload_bytes) == (9 * fetched, made.bundles[0].size * sent)


def test_a_registry_that_cannot_be_asked_is_said(baking: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "podkiln")
    asked = BuildRequest.of((str(baking),), push=True, registry="localhost:1/team")
    made = planning.make_plan(variant.load(str(baking)), asked)
    assert planning.with_registry_state(made, registry.RegistryOptions()) == made
    assert "What is there already is not known." in caplog.text


def test_no_half_made_image_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), leaves(tmp_path):
        raise KeyboardInterrupt
    assert not (tmp_path / "lazy" / "image.partial").exists()


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder.path() == tmp_path / "podkiln"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder.path() == Path.home() / ".cache" / "podkiln"


def test_no_base_is_made_here_for_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = write(tmp_path / "arm.yaml", VARIANT + "platforms: [linux/arm64]\n")
    request = BuildRequest.of((str(path),), base="bootstrap", dry_run=True)
    says = r"^--base bootstrap makes a base for linux/amd64, and arm is for linux/arm64\."
    with pytest.raises(UsageError, match=says):
        planning.make_plan(variant.load(str(path)), request)


def test_a_builder_of_another_platform_is_refused_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(builder: str | None, platform: str) -> None:
        raise EngineError(f"{builder} is not for {platform}.")

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(build, "prepare_engine", lambda _: "mine")
    monkeypatch.setattr(engine, "require_platform", other)
    path = write(tmp_path / "arm.yaml", VARIANT + "platforms: [linux/arm64]\n")
    with pytest.raises(EngineError, match=r"^mine is not for linux/arm64\."):
        build.build(BuildRequest.of((str(path),), out=tmp_path / "dist"))


def test_the_platform_is_what_bake_builds_for(tmp_path: Path) -> None:
    path = write(tmp_path / "arm.yaml", VARIANT + "platforms: [linux/arm64]\n")
    made = planning.make_plan(variant.load(str(path)), BuildRequest.of((str(path),), no_weights=True))
    target = bake_file.bake_file([made], bake_file.BuildSecrets(), {})["target"]["arm"]
    assert target["platforms"] == ["linux/arm64"]
    assert str(image_name(made)) == "localhost/podkiln:arm-0.33.0-cuda-13.0"
    assert made.as_json()["platform"] == "linux/arm64"
