"""The files of a served model over a local hub: what is fetched, what is found here, what later starts do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from model_pods import INDEX, WEIGHTS, Pod, add_pipeline
from servers import hub_content
from servers.hub import Hub
from servers.hub_faults import Fault

from pod.errors import PodError
from podkiln.config import families
from server import settings
from server.collection import reference
from server.weights import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server.weights.model_files import ModelFiles


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        add_pipeline(hub, "org/sd")
        yield hub


@pytest.fixture
def pod(tmp_path: Path, hub: Hub) -> Pod:
    return Pod(tmp_path, hub)


def listed(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("path", "revision"),
    [("org/sd", "main"), ("org/sd/", "main"), ("org/sd/tree/fp16", "fp16"), ("org/sd/tree/main/", "main")],
)
def test_the_page_of_a_repository_names_it(path: str, revision: str) -> None:
    for host in ("huggingface.co", "hf.co", "www.huggingface.co"):
        source = reference.parse(f"https://{host}/{path}").source
        assert source == {"kind": "huggingface", "repo": "org/sd", "revision": revision}


@pytest.mark.parametrize("path", ["datasets/sd", "spaces/org/sd", "org", "org/sd/tree/a/b", "docs/diffusers"])
def test_other_pages_of_the_hub_name_no_model(path: str) -> None:
    with pytest.raises(reference.WordError):
        reference.parse(f"https://huggingface.co/{path}")


def test_a_pipeline_is_fetched_once_and_pinned(pod: Pod, hub: Hub) -> None:
    found = pod.gather(MODEL_ID="org/sd").model
    assert found.decision.pipeline == "StableDiffusionPipeline"
    commit = found.model.revision
    assert len(commit) == 40
    # Only the files of the decision: no pickle, no README.
    assert listed(found.model.folder) == sorted(
        [
            *WEIGHTS,
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            *(f"{name}/config.json" for name in ("unet", "vae", "text_encoder")),
        ]
    )
    place = pod.folder / "volume/models/diffusers/org/sd" / commit
    assert found.model.folder.joinpath(WEIGHTS[0]).resolve() == place / WEIGHTS[0]
    assert all(each.digest.startswith(("sha256:", "git:")) for each in found.model.pieces)
    assert not hub.downloads("README")
    assert not hub.downloads(".bin")
    # The branch moves on; a start from the same volume asks nobody, and serves the same.
    hub.add("org/sd", "model_index.json", b'{"_class_name": "FluxPipeline"}', lfs=False)
    again = pod.gather(MODEL_ID="org/sd").model
    assert (again.model.revision, hub.hits) == (commit, [])
    assert again.decision == found.decision
    assert "no hub is asked" in pod.said[-1]


def test_what_was_changed_on_the_volume_is_found_out(pod: Pod, hub: Hub) -> None:
    place = pod.gather(MODEL_ID="org/sd").model.model.folder.joinpath(WEIGHTS[0]).resolve()
    right = place.read_bytes()
    place.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    pod.gather(MODEL_ID="org/sd")
    assert place.read_bytes() == right
    # Beside it, heads are read again: of less than a download asks for at once.
    asked = [hit for hit in hub.downloads(".safetensors") if hit.range == "bytes=0-8388607"]
    assert len(asked) == 1
    # Without a hub, what was exchanged is not served; what is as it was recorded is.
    place.write_bytes(bytes(len(right)))
    with pytest.raises(PodError, match="has changed since"):
        pod.gather(MODEL_ID="org/sd", HF_ENDPOINT="http://127.0.0.1:9")
    os.utime(place)
    place.write_bytes(right)
    pod.gather(MODEL_ID="org/sd")
    (pod.folder / "root/detection.json").write_text(json.dumps({**families.to_json(), "newer": 1}))
    pod.gather(MODEL_ID="org/sd", HF_ENDPOINT="http://127.0.0.1:9")
    assert "served as it was recorded" in pod.said[-1]
    # So it is where the branch has moved on since, and its new files cannot be fetched.
    hub.add("org/sd", WEIGHTS[0], 4096, seed=99)
    hub.fault(Fault("flip", "diffusion_pytorch_model", times=-1, after=4000))
    pod.gather(MODEL_ID="org/sd")
    assert "(2 of 9 files failed). So it is served as it was recorded" in pod.said[-1]


ALTERED: list[tuple[tuple[str | int, ...], Any]] = [
    (("word",), "org/other"),
    (("parts", "model", "files", 0, "path"), "../x"),
    (("parts", "model", "files", 0, "at"), "/a\0b"),
    (("parts", "model", "files", 0, "size"), None),
    (("parts", "model", "files"), []),
    (("parts", "model", "source"), {}),
    (("decision", "pipeline"), 5),
    (("decision", "memory"), [{"mode": "full", "vram": "a", "ram": 1}]),
]


def test_a_record_that_somebody_altered_is_not_believed(pod: Pod) -> None:
    pod.gather(MODEL_ID="org/sd")
    (path,) = (pod.folder / "volume/models/diffusers/locks").iterdir()
    text = path.read_text()
    found = record.read(path, "org/sd")
    assert found
    assert found.changed() == ""
    for keys, value in ALTERED:
        altered = place = json.loads(text)
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(json.dumps(altered))
        assert record.read(path, "org/sd") is None, keys
    # Whoever opened a FIFO would wait for ever.
    fifo = json.loads(text)
    os.mkfifo(pod.folder / "fifo")
    told = {"at": str(pod.folder / "fifo"), "size": 0, "mtime_ns": (pod.folder / "fifo").stat().st_mtime_ns}
    fifo["parts"]["model"]["files"][0] |= told
    path.write_text(json.dumps(fifo))
    found = record.read(path, "org/sd")
    assert found
    assert found.changed() == fifo["parts"]["model"]["files"][0]["path"]


@pytest.mark.parametrize("where", ["image", "cache"])
def test_what_is_here_is_not_fetched(pod: Pod, hub: Hub, where: str) -> None:
    commit = hub.repositories["org/sd"].head
    cache = pod.folder / "endpoint/huggingface-cache/hub/models--org--sd"
    root = pod.folder / "baked/diffusers/org/sd" if where == "image" else cache / "snapshots"
    for path, file in hub.repositories["org/sd"].commits[commit].items():
        place = root / commit / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if where == "image":
            place.write_bytes(file.content)
            continue
        blob = cache / "blobs" / (file.sha256 if file.lfs else file.git_oid)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.content)
        place.symlink_to(blob)
    if where == "cache":
        (cache / "refs").mkdir()
        (cache / "refs/main").write_text(commit)
    found = pod.gather(MODEL_ID="org/sd").model
    assert (hub.hits, found.model.revision) == ([], commit)
    assert found.model.folder.joinpath(WEIGHTS[0]).resolve().is_relative_to(root.parent)
    if where == "cache":
        (pod.folder / "volume/models/diffusers/locks").rename(pod.folder / "elsewhere")
        blob = found.model.folder.joinpath(WEIGHTS[0]).resolve()
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        with pytest.raises(PodError, match="damaged or was exchanged"):
            pod.gather(MODEL_ID="org/sd")
        # Where something is missing, the hub is asked.
        (root / commit / WEIGHTS[1]).unlink()
        assert pod.gather(MODEL_ID="org/sd").model.model.folder.joinpath(WEIGHTS[1]).is_file()
        assert hub.downloads("diffusion_pytorch_model")


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"MODEL_ID": "org/none"}, "private or does not exist"),
    ({"MODEL_ID": "org/pickle"}, "org/pickle cannot be served: model.ckpt is a pickle"),
    ({"MODEL_ID": "nothing"}, "MODEL_ID: 'nothing' names no model"),
    ({"MODEL_ID": "https://example.org/a.safetensors", "MODEL_REVISION": "v1"}, "it goes with org/repo"),
    ({"MODEL_ID": "org/sd", "VAE": "org/pickle"}, "VAE: org/pickle .* a VAE is expected"),
    ({"MODEL_ID": "org/sd", "CONTROLNET": "org/vae"}, "is an AutoencoderKL, and a ControlNet is expected"),
    ({"MODEL_ID": "org/sd", "LORAS": "org/vae"}, "LORAS: org/vae cannot be used"),
    ({"MODEL_ID": "org/half"}, "lacks|no such folder"),
    ({"MODEL_ID": "~nobody-of-this-name/model"}, "names no model"),
    ({"MODEL_ID": f"{'a' * 300}/b"}, "private or does not exist|names no model"),
    ({"MODEL_ID": "org/odd"}, "not told by its commit"),
]


def test_refusals_are_sentences(pod: Pod, hub: Hub) -> None:
    hub.add("org/pickle", "model.ckpt", b"x" * 64)
    hub.add("org/vae", "config.json", b'{"_class_name": "AutoencoderKL"}', lfs=False)
    hub.add("org/vae", "diffusion_pytorch_model.safetensors", 256)
    hub.add("org/half", "model_index.json", json.dumps(INDEX).encode(), lfs=False)
    odd = b'{"sha": "../../..", "siblings": [{"rfilename": "a.safetensors"}]}'
    hub.fault(Fault("body", "/api/models/org/odd", "hub", times=-1, body=odd))
    for variables, sentence in REFUSED:
        with pytest.raises(PodError, match=sentence) as caught:
            pod.gather(**variables)
        assert str(caught.value).endswith(".")
        assert caught.value.exit_code in {69, 78}


def test_parts_beside_the_model(pod: Pod, hub: Hub, tmp_path: Path) -> None:
    hub.add("org/vae", "config.json", b'{"_class_name": "AutoencoderKL"}', lfs=False)
    hub.add("org/vae", "diffusion_pytorch_model.safetensors", 256)
    found = pod.gather(MODEL_ID="org/sd", VAE="org/vae")
    assert found.vae
    assert found.vae.decision.component == "AutoencoderKL"
    assert listed(found.vae.model.folder) == ["config.json", "diffusion_pytorch_model.safetensors"]
    # On CivitAI, a LoRA whose main file is a pickle has a safe one beside it.
    content = hub_content.tensors("unet.x.lora_A.weight", "unet.x.lora_B.weight")
    safe = hub_content.make_file("style.safetensors", content)
    hub.add_civitai(
        200,
        "style.pt",
        b"x" * 99,
        type="LORA",
        format="PickleTensor",
        beside=((safe, "Model", "SafeTensor"),),
    )
    ((lora, scale),) = pod.gather(MODEL_ID="org/sd", LORAS="civitai:100@200=0.5").loras
    assert (lora.model.first.read_bytes(), scale, lora.model.revision) == (content, 0.5, "200")
    address = f"{hub.url}/files/style.safetensors"
    hub.add_file("style.safetensors", content)
    with pytest.raises(PodError, match="no listed sha256"):
        pod.gather(MODEL_ID="org/sd", LORAS=address)
    # What an address is asked with may be a token: no log and no record has it.
    secret = f"{address}?key=sesame#sha256={safe.sha256}"
    for _ in range(2):
        ((lora, _),) = pod.gather(MODEL_ID="org/sd", LORAS=secret).loras
        assert lora.model.first.name == "style.safetensors"
        assert "sesame" not in " ".join((lora.word, *pod.said))
    for path in (pod.folder / "volume/models/diffusers/locks").iterdir():
        assert "sesame" not in path.name + path.read_text()
    found = pod.gather(MODEL_ID=str(local(tmp_path, found)), VAE="org/sd")
    assert found.model.model.first.resolve().is_relative_to(tmp_path / "mine")
    assert found.vae
    assert found.vae.decision.subfolder == "vae"


def local(tmp_path: Path, found: ModelFiles) -> Path:
    """Return a local folder with the files of a model."""
    for piece in found.model.model.pieces:
        place = tmp_path / "mine" / piece.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(piece.at.read_bytes())
    return tmp_path / "mine"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "MODEL_ID is not set"),
    ({"MODEL_ID": "a/b c/d"}, "MODEL_ID='a/b c/d' is more than one word"),
    ({"MODEL_ID": "a/b@v1", "MODEL_REVISION": "v2"}, "both name a revision"),
    ({"MODEL_ID": "a/b", "GPU_MEMORY_MODE": "modle_offload"}, "did you mean model_offload"),
    ({"MODEL_ID": "a/b", "DTYPE": "int4"}, "DTYPE='int4' is not known: it may be auto, bfloat16"),
    ({"MODEL_ID": "a/b", "QUANTIZE": "nf4"}, "it may be none, bitsandbytes_4bit"),
    ({"MODEL_ID": "a/b", "LORAS": "org/x=90"}, "has the scale 90"),
    ({"MODEL_ID": "{{ RUNPOD_SECRET_x }}"}, "not filled in"),
]


@pytest.mark.parametrize(("environ", "sentence"), WRONG)
def test_a_wrong_setting_is_one_sentence(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(PodError, match=sentence) as caught:
        settings.read(environ)
    assert caught.value.exit_code == 78


def test_settings_with_older_names_and_scales() -> None:
    found = settings.read(
        {
            "MODEL_ID": "a/b",
            "GPU_MEMORY_MODE": "model_cpu_offload_and_qfloat8",
            "DTYPE": "bf16",
            "LORAS": "hf:o/r/x.safetensors=0.8,civitai:1@2\nhttps://h/x?t=0.8",
        }
    )
    assert (found.mode, found.float8, found.dtype) == ("model_offload", True, "bfloat16")
    assert [(each.word, each.scale) for each in found.loras] == [
        ("hf:o/r/x.safetensors", 0.8),
        ("civitai:1@2", 1.0),
        ("https://h/x?t=0.8", 1.0),
    ]
