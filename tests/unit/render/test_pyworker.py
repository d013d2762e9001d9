"""What is rendered for vast.ai: a configuration that PyWorker takes, and a request that it can time."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of

from pod.errors import UNFIT
from pod.supervisor import program
from pod.util import serving
from podkiln.lock.served_model import LockedModel, ModelLock
from podkiln.render import build_context
from server.detection.decision import Decision
from server.detection.facts import File as ModelFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.plan.plan import Plan
    from podkiln.render.context_file import File


def served_over_http(preset: str = "", default: tuple[str, ...] = ()) -> Plan:
    plan = plan_of("serverless")
    spec = plan.described.spec
    spec = spec.model_copy(
        update={
            "serve": "http",
            "preset": preset or None,
            "models": spec.models.model_copy(update={"default": list(default)}),
        }
    )
    return replace(plan, described=replace(plan.described, spec=spec))


def configured(files: Mapping[str, File], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run worker.py with the classes of PyWorker standing in for themselves; return its WorkerConfig."""
    for name, file in files.items():
        (folder / name.rpartition("/")[2]).write_bytes(file.content)
    given: list[Any] = []
    pyworker = ModuleType("vastai.serverless.server.worker")
    for name in ("BenchmarkConfig", "HandlerConfig", "LogActionConfig", "WorkerConfig"):
        setattr(pyworker, name, SimpleNamespace)
    pyworker.Worker = lambda config: SimpleNamespace(run=lambda: given.append(config))  # type: ignore[attr-defined]
    for name in ("vastai", "vastai.serverless", "vastai.serverless.server"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, pyworker.__name__, pyworker)
    path = folder / "worker.py"
    exec(compile(path.read_bytes(), str(path), "exec"), {"__file__": str(path)})  # noqa: S102 - our own rendering
    return given.pop()


def rendered(plan: Plan) -> dict[str, File]:
    return {path: file for path, file in build_context.render(plan).items() if path.startswith("pyworker/")}


@pytest.mark.parametrize(
    ("plan", "routes"),
    [
        (lambda: plan_of("server"), ["/generate", "/v1/images/generations"]),
        (lambda: served_over_http(default=("flux1-schnell",)), ["/runsync"]),
    ],
)
def test_pyworker_follows_the_line_that_says_ready_and_times_one_request(
    plan: Any, routes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = rendered(plan())
    config = configured(files, tmp_path, monkeypatch)
    assert [each.route for each in config.handlers] == routes
    assert config.log_action_config.on_load == [serving.READY]
    ends = program.ModelServer({}).final(UNFIT, served=False)
    for line in (serving.NOT_READY, f"podkiln: {ends}: exit code 69."):
        assert any(each in line for each in config.log_action_config.on_error), line
    timed = [each.benchmark_config for each in config.handlers if hasattr(each, "benchmark_config")]
    assert [each.dataset for each in timed] == [[json.loads(files["pyworker/benchmark.json"].content)]]
    (tmp_path / "benchmark.json").unlink()
    with pytest.raises(SystemExit, match=f"cannot be read: .*; write one for {routes[0]}"):
        configured({"x/worker.py": files["pyworker/worker.py"]}, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("preset", "default", "chosen"),
    [("scail", (), "scail"), ("", ("flux1-schnell",), "flux1-schnell")],
)
def test_the_request_that_is_timed_is_of_the_fixed_preset_or_of_a_model_that_is_on(
    preset: str, default: tuple[str, ...], chosen: str
) -> None:
    plan = served_over_http(preset, default)
    said = json.loads(rendered(plan)["pyworker/benchmark.json"].content)["input"]
    assert said.pop("preset") == chosen
    assert "seed" not in said
    assert said


def test_without_a_preset_that_can_run_somebody_has_to_write_the_request() -> None:
    assert sorted(rendered(served_over_http())) == ["pyworker/requirements.txt", "pyworker/worker.py"]


def of_locked_model(**tasks: str | None) -> Plan:
    """A plan of the model's server whose lock has a word of each role, of that task; None: not locked."""
    words = [
        {"key": [role, "org/x", "", ""], "found": task and {"decision": decided(task), "parts": PARTS}}
        for role, task in tasks.items()
    ]
    lock = {"variables": {"MODEL_ID": "org/x"}, "diffusers": "1", "words": words}
    plan = plan_of("server")
    model = LockedModel(Path("model.json"), ModelLock.model_validate_json(json.dumps(lock)))
    return replace(plan, lock=replace(plan.lock, model=model))


def decided(task: str) -> dict[str, Any]:
    files = (ModelFile("model_index.json", 1),)
    tasks = ((task, "XPipeline"),)
    return Decision("pipeline", task=task, tasks=tasks, pipeline="XPipeline", files=files).to_json()


PARTS = {
    "model": {
        "source": {"kind": "huggingface", "repo": "org/x", "revision": "0" * 40},
        "revision": "0" * 40,
        "files": [{"path": "model_index.json", "size": 1, "sha256": "0" * 64}],
    }
}


@pytest.mark.parametrize(
    ("tasks", "timed"),
    [
        ({"model": "text-to-video"}, True),
        ({"model": None, "vae": None}, True),
        ({"model": "image-to-video"}, False),
        ({"model": "unconditional-image"}, False),
        ({"model": "text-to-image", "controlnet": None}, False),
    ],
)
def test_a_locked_model_is_timed_by_a_prompt_where_that_is_all_it_needs(
    tasks: dict[str, str | None], timed: bool
) -> None:
    assert ("pyworker/benchmark.json" in rendered(of_locked_model(**tasks))) == timed


def test_what_takes_jobs_from_a_queue_has_nothing_for_pyworker() -> None:
    assert not rendered(plan_of("serverless"))
