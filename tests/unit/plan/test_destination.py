"""Where a push goes: by the option, the environment, the variant, or GitHub Actions, in this order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from descriptions import VARIANT, write
from layouts import make_layout

from podkiln.cli import main
from podkiln.config import variant
from podkiln.errors import PodkilnError, UsageError
from podkiln.oci import layout
from podkiln.options import BuildRequest
from podkiln.pipeline import build as job
from podkiln.pipeline import planning
from podkiln.pipeline.report import Report
from podkiln.pipeline.request import image_name
from podkiln.plan import destination
from podkiln.registry import PushedBlob, PushReport

if TYPE_CHECKING:
    from podkiln.plan.destination import Destination

ACTIONS = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY_OWNER": "Acme-Labs"}
NAMED = {"PODKILN_REGISTRY": "quay.io/env", **ACTIONS}
ROOT = Path(__file__).resolve().parents[3]


def own(folder: Path, registry: str | None = "registry.example.com/team") -> str:
    image = f"image: {{registry: {registry}}}\n" if registry else ""
    write(folder / "up.yaml", f"{VARIANT}{image}")
    return str(write(folder / "mine.yaml", "extends: up.yaml\n"))


def found(path: str, **asked: Any) -> Destination | None:
    request = BuildRequest.of((path,), **{"push": True, **asked})
    return destination.find(variant.load(path), request)


@pytest.mark.parametrize(
    ("given", "environ", "registry", "expected"),
    [
        ("localhost:1/x", NAMED, "registry.example.com/team", ("localhost:1/x", "--registry")),
        (None, NAMED, "registry.example.com/team", ("quay.io/env", "PODKILN_REGISTRY")),
        (None, ACTIONS, "registry.example.com/team", ("registry.example.com/team", "image.registry, ")),
        (None, ACTIONS, None, ("ghcr.io/acme-labs", "GITHUB_REPOSITORY_OWNER")),
        (None, {**ACTIONS, "PODKILN_REGISTRY": ""}, None, ("ghcr.io/acme-labs", "GITHUB_REPOSITORY_OWNER")),
        (None, {**ACTIONS, "GITHUB_ACTIONS": ""}, None, None),
        (None, {"GITHUB_ACTIONS": "true"}, None, None),
        (None, {}, None, None),
        (None, {}, "you", ("you", "image.registry, ")),
    ],
)
def test_the_first_who_names_a_registry_wins(
    given: str | None,
    environ: dict[str, str],
    registry: str | None,
    expected: tuple[str, str] | None,
    tmp_path: Path,
) -> None:
    where = found(own(tmp_path, registry), registry=given, environ=environ)
    if expected is None:
        assert where is None
        return
    assert where
    assert where.registry == expected[0]
    assert where.source.startswith(expected[1])
    if registry and expected[0] == registry:  # said by the parent, and there by its line
        assert where.source == f"image.registry, {tmp_path / 'up.yaml'}:6"


def test_docker_hub_is_the_host_of_a_bare_namespace(tmp_path: Path) -> None:
    where = found(own(tmp_path, "you"))
    assert where
    assert where.host == "docker.io"


def test_without_a_push_only_the_option_counts(tmp_path: Path) -> None:
    path = own(tmp_path)
    assert found(path, push=False, environ=NAMED) is None
    assert found(path, push=False, environ=NAMED, registry="localhost:1/x")


def test_each_variant_goes_to_its_own_registry(tmp_path: Path) -> None:
    path = own(tmp_path)
    request = BuildRequest.of((path, "lazy"), push=True, environ=ACTIONS, dry_run=True)
    plans = planning.decide(request)
    assert [image_name(made).name for made in plans] == [
        "registry.example.com/team/podkiln",
        "ghcr.io/acme-labs/podkiln",
    ]
    assert [made.host for made in plans] == ["registry.example.com", "ghcr.io"]


def test_a_push_to_nowhere_names_the_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["--variant", "lazy", "--push"], ["verify", "--variant", "lazy"]):
        assert main(line) == 2
        told = capsys.readouterr().err
        ways = ("--registry HOST/NAMESPACE", "PODKILN_REGISTRY", "image.registry into variants/lazy.yaml")
        assert all(way in told for way in (*ways, "ghcr.io/OWNER")), told


@pytest.mark.parametrize("name", ["PODKILN_REGISTRY", "GITHUB_REPOSITORY_OWNER"])
def test_a_malformed_registry_is_blamed_on_who_names_it(name: str, tmp_path: Path) -> None:
    environ = {"GITHUB_ACTIONS": "true", name: "a b"}
    with pytest.raises(UsageError, match=rf"^{name}: .* is not the name of a registry"):
        found(own(tmp_path, None), environ=environ)


def test_a_login_in_the_environment_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"PODKILN_REGISTRY: .*docker login") as raised:
        found(own(tmp_path), environ={"PODKILN_REGISTRY": "me:hunter2@ghcr.io/you"})
    assert "hunter2" not in f"{raised.value}{raised.value.hint}"


def test_plan_shows_the_push_that_would_be_made_and_who_named_its_registry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asks = str(ROOT / "tests/fixtures/variants/asks.yaml")
    monkeypatch.setattr("podkiln.weights.layer_lookup.probe", lambda *_: {})
    assert main(["plan", "--variant", asks]) == 0  # nothing is pushed, so nobody asks for the licence
    capsys.readouterr()
    monkeypatch.setenv("PODKILN_REGISTRY", "quay.io/me")
    assert main(["plan", "--variant", asks]) == 5
    assert "  registry: quay.io/me (PODKILN_REGISTRY)\n" in capsys.readouterr().out
    assert main(["plan", "--variant", "lazy", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["destination"] == {"registry": "quay.io/me", "source": "PODKILN_REGISTRY"}


def test_verify_without_an_image_looks_at_the_one_that_a_push_would_make(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def verify(_made: object, _known: object, reference: object, *_: object, **__: object) -> None:
        asked.append(str(reference))
        raise PodkilnError("enough")

    monkeypatch.setattr("podkiln.verify.image.verify", verify)
    monkeypatch.setenv("PODKILN_REGISTRY", "quay.io/me")
    assert main(["verify", "--variant", "lazy"]) == 1
    assert main(["verify", "--variant", "lazy", "--registry", "localhost:1/x", "--tag", "v1"]) == 1
    assert main(["verify", "--variant", "lazy", "ghcr.io/you/x:y"]) == 1
    assert asked == [
        "quay.io/me/podkiln:lazy-0.33.0-cuda-13.0",
        "localhost:1/x/podkiln:v1",
        "ghcr.io/you/x:y",
    ]


@pytest.mark.parametrize(
    ("given", "environ", "said"),
    [
        ("ghcr.io/you", {}, "pushed ghcr.io/you/podkiln:lazy-0.33.0-cuda-13.0 (0 B sent)"),
        (None, ACTIONS, "(0 B sent; the registry is that of GITHUB_REPOSITORY_OWNER)"),
    ],
)
def test_the_report_says_who_named_the_registry(
    given: str | None, environ: dict[str, str], said: str, tmp_path: Path
) -> None:
    request = BuildRequest.of(("lazy",), push=True, registry=given, environ=environ)
    (made,) = planning.decide(request)
    image = str(image_name(made))
    built = layout.read(make_layout(tmp_path / "l"))
    sent = PushedBlob(built.manifest.layers[0].digest, 0, "existing", 0.1)
    pushed = PushReport(image, built.descriptor.digest, (), sent, 1.0)
    report = Report(made, image, "bake", built, {}, pushed=pushed)
    assert any(line.strip().endswith(said) for line in report.sentences()), report.sentences()
    assert report.as_json()["registry_source"] == ("--registry" if given else "GITHUB_REPOSITORY_OWNER")


def test_the_command_hands_the_environment_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKILN_REGISTRY", "quay.io/me")
    seen: list[BuildRequest] = []

    def build(request: BuildRequest) -> list[Report]:
        seen.append(request)
        return []

    monkeypatch.setattr(job, "build", build)
    assert main(["--variant", "lazy", "--push"]) == 0
    assert seen[0].environ["PODKILN_REGISTRY"] == "quay.io/me"


def test_our_own_workflow_leaves_the_registry_to_the_command() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/images.yml").read_text())
    ran = [step.get("run", "") for step in workflow["jobs"]["image"]["steps"]]
    (line,) = [each for each in ran if "./build.py" in each]
    assert line.split()[:6] == ["./build.py", "--variant", '"$VARIANT"', "--cuda", '"$CUDA"', "--push"]
    assert "--registry" not in line
