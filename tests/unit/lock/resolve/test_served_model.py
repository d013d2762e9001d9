"""The model of a variant, locked over a local hub; and a pod of its image, which takes just that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from descriptions import write
from model_pods import WEIGHTS, Pod, add_pipeline
from servers import hub_content

from pod.errors import PodError
from podkiln.config import variant as variants
from podkiln.lock import served_model as locked
from podkiln.lock.resolve import served_model

if TYPE_CHECKING:
    from pathlib import Path

    from servers.hub import Hub

    from podkiln.lock.resolve.weights import ResolveResult
    from podkiln.lock.served_model import ModelLock

MINE = "extends: server\ntitle: Mine\ndescription: For a test.\n"
STYLE = hub_content.tensors("unet.x.lora_A.weight", "unet.x.lora_B.weight")


def relock(path: Path, model: str, *, upgrade: bool = False) -> tuple[ResolveResult, ModelLock]:
    """Lock a variant with a model, and return what was said and what is locked now."""
    described = variants.load(str(write(path / "mine.yaml", f"{MINE}model: {model}\n")))
    outcome = served_model.relock(described, upgrade=upgrade)
    found, problems = locked.read(described)
    assert problems == []
    assert found
    return outcome, found.document


@pytest.fixture
def stocked(hub: Hub) -> Hub:
    add_pipeline(hub, "org/sd")
    hub.repositories["org/sd"].card = {"license": "openrail++"}
    hub.add("org/vae", "config.json", b'{"_class_name": "AutoencoderKL"}', lfs=False)
    hub.add("org/vae", "diffusion_pytorch_model.safetensors", 256)
    hub.add_civitai(200, "style.safetensors", STYLE, type="LORA")
    return hub


ALL = "{id: org/sd, vae: org/vae, loras: ['civitai:100@200=0.5']}"


def test_a_pod_takes_what_was_locked_and_asks_no_hub_what_it_is(stocked: Hub, tmp_path: Path) -> None:
    outcome, lock = relock(tmp_path, ALL)
    assert (outcome.warnings, outcome.problems, lock.unresolved) == ([], [], ())
    head = stocked.repositories["org/sd"].head
    files = stocked.repositories["org/sd"].commits[head]
    (model, vae, lora) = (word.found for word in lock.words)
    assert model
    assert lora
    assert vae
    part = model.parts["model"]
    assert (part.revision, part.licence, model.decision["pipeline"]) == (
        head,
        "openrail++",
        "StableDiffusionPipeline",
    )
    assert {each.path: (each.size, each.sha256) for each in part.files} == {
        each.path: (files[each.path].size, files[each.path].sha256) for each in part.files
    }
    assert {*WEIGHTS, "model_index.json"} < {each.path for each in part.files}
    assert lora.parts["model"].files[0].size == len(STYLE)
    # A second run asks nobody, and writes the same.
    stocked.hits.clear()
    assert relock(tmp_path, ALL)[0].changed == []
    assert stocked.hits == []
    # The branch moves on: the pod serves what was locked, by its commit, with no question to an API.
    stocked.add("org/sd", WEIGHTS[0], 4096, seed=99)
    pod = Pod(tmp_path / "pod", stocked)
    (tmp_path / "pod/root/model-lock.json").write_text(json.dumps(lock.to_json()))
    served = pod.gather()
    assert [hit.path for hit in stocked.hits if "/api/" in hit.path and "/download/" not in hit.path] == []
    assert served.model.model.revision == head
    assert {each.path: each.digest for each in served.model.model.pieces} == {
        each.path: f"sha256:{each.sha256}" for each in part.files
    }
    assert served.vae
    assert [(each.model.first.read_bytes(), scale) for each, scale in served.loras] == [(STYLE, 0.5)]
    assert f"org/sd: the image's lock has it at {head}, and no hub is asked what it is" in pod.said
    # A later start fetches nothing; another model, and another revision of it, go the ordinary way.
    assert pod.gather(MODEL_ID="org/sd").model.model.revision == head
    assert stocked.hits == []
    assert pod.gather(MODEL_REVISION="main").model.model.revision != head
    other = pod.gather(MODEL_ID="hf:org/sd")
    assert (other.model.model.revision != head, other.vae, other.loras) == (True, None, ())
    # What the hub serves at that commit is something else: refused.
    lie = json.loads(json.dumps(lock.to_json()).replace(files[WEIGHTS[0]].sha256, "a" * 64))
    (tmp_path / "pod/root/model-lock.json").write_text(json.dumps(lie))
    with pytest.raises(PodError, match=f"but sha256:{'a' * 64} is listed") as caught:
        pod.gather()
    assert str(caught.value).count(".safetensors") >= 1
