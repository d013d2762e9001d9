"""podkiln-comfy in a pod: from its PATH, with the Python and the libraries that ComfyUI has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from containers import Container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images import Image

pytestmark = pytest.mark.engine

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "first"}},
}
WRITE = "cat > /tmp/workflow.json"


@pytest.fixture(scope="module")
def pod(lazy: Image) -> Iterator[Container]:
    """A pod with a login before ComfyUI, which the command goes past from inside."""
    env = {"MODELS": "none", "WEB_USER": "me", "WEB_PASSWORD": "secret"}
    with Container(lazy.name, env=env) as started:
        started.wait_log("ready in")
        started.exec("sh", "-c", f"{WRITE} <<'E'\n{json.dumps(WORKFLOW)}\nE\n")
        yield started


def test_a_first_prompt_is_run_and_its_output_saved(pod: Container) -> None:
    done = pod.exec("podkiln-comfy", "run", "/tmp/workflow.json", "--out", "/tmp/out", "--json")
    said = json.loads(done.stdout)
    assert said["outputs"] == [{"node": "2", "type": "output", "path": "/tmp/out/first_00001_.png"}]
    assert "node 2 (SaveImage)" in done.stderr
    assert pod.exec("sh", "-c", "head -c 4 /tmp/out/first_00001_.png | tail -c 3").stdout == "PNG"


def test_a_file_is_uploaded_into_the_folder_that_outlives_the_pod(pod: Container) -> None:
    done = pod.exec("podkiln-comfy", "upload", "/tmp/workflow.json", "--subfolder", "mine")
    assert done.stdout == "mine/workflow.json\n"
    assert json.loads(pod.read("/workspace/input/mine/workflow.json")) == WORKFLOW


def test_a_workflow_that_is_refused_is_said_with_its_exit_code(pod: Container) -> None:
    pod.exec("sh", "-c", "sed s/EmptyImage/Unknown/ /tmp/workflow.json > /tmp/wrong.json")
    done = pod.exec("podkiln-comfy", "run", "/tmp/wrong.json", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("podkiln: ComfyUI refused the workflow: Node 'Unknown' not found.")
