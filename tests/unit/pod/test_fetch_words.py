"""`fetch` with files that somebody named: at a boot by MODELS and LORAS, by hand on the command line."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from fakes.pod import SCRIPTS, Pod, huggingface, row
from servers.hub import Hub
from servers.hub_answers import Handler
from servers.hub_content import generate, make_file, tensors
from servers.hub_faults import Fault

from pod.downloads.part_journal import PartMetadata
from pod.downloads.partial_file import PartialFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers.hub_content import HubFile

LORA = ("lora_unet_a.lora_up.weight", "lora_unet_a.lora_down.weight")
VAE = ("decoder.conv_in.weight",)
CANARY = "canary0123456789"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path, hub: Hub) -> Pod:
    made = Pod(tmp_path, hub)
    made.offer({})
    return made


def there(pod: Pod) -> set[str]:
    """Return the files below models/, without what is ours."""
    paths = (path for path in pod.models.rglob("*") if path.is_file() and ".podkiln" not in path.parts)
    return {str(path.relative_to(pod.models)) for path in paths}


def lora(pod: Pod, version: int = 22, seed: int = 0) -> HubFile:
    return pod.hub.add_civitai(version, f"l{version}.safetensors", tensors(*LORA, seed=seed), type="LORA")


def test_a_boot_fetches_what_models_and_loras_name(pod: Pod) -> None:
    base = pod.hub.add("org/base", "base.safetensors", 2000)
    pod.offer({"base": [row(base, huggingface(base, "org/base"))]})
    lora(pod)
    pod.hub.add("org/repo", "x/style.safetensors", tensors(*LORA, seed=1))
    vae = pod.hub.add_file("vae.safetensors", tensors(*VAE))
    environment = {
        "MODELS": f"base,{pod.hub.url}/files/vae.safetensors?token={CANARY}#sha256={vae.sha256}",
        "LORAS": "urn:air:sdxl:lora:civitai:11@22, loras/a/b.safetensors=hf:org/repo/x/style.safetensors",
    }
    code, said = pod.fetch(settings=environment)
    assert code == 0, said
    expected = {"checkpoints/base.safetensors", "loras/l22.safetensors", "loras/a/b.safetensors"}
    assert there(pod) == {*expected, "vae/vae.safetensors"}
    assert "fetch: LORAS: loras/l22.safetensors: this is what civitai:11@22 names\n" in said
    assert [file["model"] for file in pod.state()["files"]] == ["LORAS", "LORAS", "base", "MODELS"]
    assert CANARY not in said + json.dumps(pod.state())
    assert not [
        path for path in pod.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ]


def test_the_second_boot_needs_no_hub(pod: Pod) -> None:
    lora(pod)
    pod.hub.add("org/repo", "style.safetensors", tensors(*LORA, seed=1))
    vae = pod.hub.add_file("v", tensors(*VAE), "v.safetensors")
    environment = {
        "MODELS": f"{pod.hub.url}/files/v#sha256={vae.sha256}",
        "LORAS": "civitai:11@22 hf:org/repo/style.safetensors",
    }
    assert pod.fetch(settings=environment)[0] == 0
    hits = len(pod.hub.hits)
    code, said = pod.fetch(settings=environment)
    assert code == 0, said
    assert "0 fetched (0 B), 3 already there, 0 failed, of 3 files" in said
    assert len(pod.hub.hits) == hits


def test_what_was_deleted_comes_back_as_it_was(pod: Pod) -> None:
    """The hub's `main` may be another file by now."""
    pod.hub.add("org/repo", "style.safetensors", tensors(*LORA, seed=1))
    assert pod.fetch("hf:org/repo/style.safetensors")[0] == 0
    place = pod.models / "loras/style.safetensors"
    first = place.read_bytes()
    place.unlink()
    pod.hub.add("org/repo", "style.safetensors", tensors(*LORA, seed=2))
    assert pod.fetch("hf:org/repo/style.safetensors")[0] == 0
    assert place.read_bytes() == first


def test_by_hand_ids_and_addresses_go_together(pod: Pod) -> None:
    base = pod.hub.add("org/base", "base.safetensors", 2000)
    pod.offer({"base": [row(base, huggingface(base, "org/base"))]}, enabled=[])
    lora(pod)
    code, said = pod.fetch("base", "https://civitai.com/models/11/x?modelVersionId=22")
    assert code == 0, said
    assert there(pod) == {"checkpoints/base.safetensors", "loras/l22.safetensors"}
    assert "fetch: podkiln-fetch: loras/l22.safetensors: fetched and checked" in said


def test_by_hand_what_models_and_loras_say_does_not_count(pod: Pod) -> None:
    lora(pod)
    lora(pod, 44, seed=1)
    assert pod.fetch("civitai:22@44", settings={"LORAS": "civitai:11@22"})[0] == 0
    assert there(pod) == {"loras/l44.safetensors"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("civitai:22",), "podkiln: podkiln-fetch: 'civitai:22' could be a model or a version"),
        (("add-detail:0.8",), "podkiln: podkiln-fetch: 'add-detail:0.8' ends in a weight"),
        (("lora=civitai:11@22",), "podkiln: podkiln-fetch: 'civitai:11@22' is to go to lora, which"),
        ((f"https://a..b/x.pt#sha256={'a' * 64}",), "podkiln: podkiln-fetch: 'https://a..b/x.pt#sha256=aaa"),
        (("sdxl",), "podkiln: there is no model 'sdxl' in this image: it offers none."),
        ((f"https://x:{CANARY}@h/a?t={CANARY}",), "podkiln: podkiln-fetch: 'https://…@h/a?…' holds a login"),
    ],
)
def test_a_malformed_word_is_one_sentence(pod: Pod, words: tuple[str, ...], sentence: str) -> None:
    code, said = pod.fetch(*words)
    assert code == 64
    assert said.startswith(sentence)
    assert len(said.splitlines()) == 1
    assert CANARY not in said
    assert not pod.hub.hits


def test_a_wish_that_fails_costs_nobody_else(pod: Pod) -> None:
    lora(pod)
    pod.hub.add_civitai(33, "c.safetensors", generate(2000), type="LORA", token="other")
    pod.hub.add("org/repo", "big.safetensors", tensors("model.diffusion_model.input_blocks.0.0.weight"))
    words = "civitai:1@404 civitai:16@33 hf:org/repo/big.safetensors civitai:11@22"
    code, said = pod.fetch(settings={"LORAS": words})
    assert code == 1
    assert there(pod) == {"loras/l22.safetensors"}
    for sentence in (
        "LORAS: civitai:1@404 is not there (404 from",
        "LORAS: civitai:16@33 needs a login (401)",
        "LORAS: hf:org/repo@main/big.safetensors is a bare diffusion model, not a LoRA: put it",
        "B), 0 already there, 3 failed, of 4 files",
    ):
        assert sentence in said
    assert "Traceback" not in said


def test_a_token_goes_to_civitai_alone(pod: Pod) -> None:
    pod.hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA", token=CANARY)
    code, said = pod.fetch("civitai:11@22", settings={"CIVITAI_TOKEN": CANARY})
    assert code == 0, said
    assert {hit.authorization for hit in pod.hub.hits if hit.where == "cdn"} == {None}
    assert CANARY not in said


def test_several_pods_take_one_wish_once(tmp_path: Path, hub: Hub) -> None:
    pods = [Pod(tmp_path / str(number), hub, tmp_path / "volume") for number in range(3)]
    hub.rate = 400_000
    file = hub.add("org/repo", "style.safetensors", tensors(*LORA, size=200_000))
    processes = []
    for pod in pods:
        pod.offer({})
        processes.append(pod.start("hf:org/repo/style.safetensors"))
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    served = sum(hit.sent for hit in hub.hits if hit.file and hit.range != "bytes=0-1048575")
    assert served == file.size


def test_a_kill_in_the_middle_goes_on_under_the_same_name(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "style.safetensors", tensors(*LORA, size=800_000))
    pod.hub.rate = 400_000
    with pod.start("hf:org/repo/style.safetensors") as process:
        while pod.hub.served() < 1_300_000:  # its head, and some of it
            assert process.poll() is None
        process.kill()
    pod.hub.rate, before = 0, pod.hub.served()
    assert pod.fetch("hf:org/repo/style.safetensors")[0] == 0
    assert (pod.models / "loras/style.safetensors").read_bytes() == file.content
    assert pod.hub.served() - before < file.size


def test_a_cached_model_is_linked(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "x/style.safetensors", tensors(*LORA))
    cached = pod.root / "volume/huggingface-cache/hub/models--org--repo/snapshots/abc/x/style.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(file.content)
    assert pod.fetch("hf:org/repo/x/style.safetensors")[0] == 0
    assert (pod.models / "loras/style.safetensors").resolve() == cached
    assert len(pod.hub.downloads()) == 1  # its head


def test_a_custom_nodes_file_is_fetched_and_said(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "a.gguf", b"GGUF" * 100)
    code, said = pod.fetch("unet=hf:org/repo/a.gguf", "yolo/a.onnx=hf:org/repo/a.gguf")
    assert code == 1
    assert "is a .gguf file, and cannot be called a.onnx" in said
    assert "warning: hf:org/repo@main/a.gguf goes to yolo, which ComfyUI itself does not read" in said
    assert "unet/a.gguf: ComfyUI itself does not list files of this kind; a custom node has to" in said
    assert (pod.models / "unet/a.gguf").read_bytes() == file.content


def test_a_pickle_that_somebody_vouches_for_is_fetched_with_a_warning(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "a.pt", b"pickle")
    code, said = pod.fetch(f"embeddings=hf:org/repo/a.pt#sha256={file.sha256}")
    assert code == 0, said
    assert (
        "embeddings/a.pt: it is a pickle, which can run code when it is loaded; it is taken because" in said
    )


def test_a_dead_hub_says_what_could_not_be_looked_into(pod: Pod) -> None:
    pod.hub.fault(Fault("status", where="hub", status=404, times=-1))
    code, said = pod.fetch("hf:org/repo/style.safetensors")
    assert code == 1
    assert "podkiln-fetch: hf:org/repo@main/style.safetensors is not there (404 from" in said


def test_the_command_on_the_path_is_the_same(pod: Pod) -> None:
    """scripts/bin/ is what an image has in /usr/local/bin."""
    script = (SCRIPTS / "bin/podkiln-fetch").read_text()
    assert script.splitlines()[-1] == (
        'exec /usr/bin/python3 -I -S "${PODKILN_ROOT:-/opt/podkiln}" fetch "$@"'
    )
    assert (SCRIPTS / "bin/podkiln-fetch").stat().st_mode & 0o777 == 0o755


# --- what others say and plant


@pytest.mark.parametrize(
    "name", ["evil.pt.", "evil.ckpt ", "evil.PTH\u200b", "evil.pt. .", "evil.pkl\u00a0", "x/evil.bin."]
)
def test_a_pickle_by_the_name_that_is_written_comes_only_with_a_hash(pod: Pod, name: str) -> None:
    """`evil.pt.` was published as loras/evil.pt, and the log said that somebody had vouched for it."""
    file = pod.hub.add_civitai(22, name.replace("/", "\\"), b"a pickle of some kind", type="LORA")
    code, said = pod.fetch("civitai:11@22")
    assert code == 1
    assert "is a pickle, which can run code" in said
    assert "vouches" not in said
    assert there(pod) == set()
    code, said = pod.fetch(f"loras=civitai:11@22#sha256={file.sha256}")
    assert (code, len(there(pod))) == (0, 1), said
    assert "it is taken because its sha256 was given" in said


def test_a_pickle_under_another_name_is_refused_at_the_gate_and_leaves_nothing(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "a.gguf", b"PK\x03\x04" + bytes(300_000))
    code, said = pod.fetch("text_encoders=hf:org/repo/a.gguf")
    assert code == 1
    assert "is a zip archive, as PyTorch writes its pickles, whatever its name says" in said
    assert there(pod) == set()
    assert pod.left_over() == []
    code, said = pod.fetch(f"text_encoders=hf:org/repo/a.gguf#sha256={file.sha256}")
    assert code == 0, said


def test_a_refused_file_leaves_no_part(pod: Pod) -> None:
    pod.hub.add("org/repo", "a.safetensors", b"no header at all" * 20_000)
    code, said = pod.fetch("loras=hf:org/repo/a.safetensors")
    assert code == 1
    assert "is not a .safetensors file, whatever its name says" in said
    assert [
        path for path in pod.workspace.rglob("*") if path.is_file() and path.stat().st_size > 10_000
    ] == []


def test_a_file_that_is_named_by_its_number_is_the_one_that_comes(pod: Pod) -> None:
    """The primary file came once, with exit code 0."""
    low = make_file("low.safetensors", tensors(*LORA, seed=5))
    high = pod.hub.add_civitai(
        22,
        "high.safetensors",
        tensors(*LORA),
        type="LORA",
        beside=((low, "Model", "SafeTensor"), (low, "Model", "SafeTensor")),
    )
    page = "https://civitai.com/api/download/models/22"
    for word, name in ((f"{page}?fileId=221", "low"), ("civitai:11@22+220", "high"), (page, "high")):
        code, said = pod.fetch(word)
        assert code == 0, said
        assert f"loras/{name}.safetensors: this is what" in said
    assert {"loras/low.safetensors", "loras/high.safetensors"} == there(pod)
    assert (pod.models / "loras/low.safetensors").read_bytes() == low.content
    assert (pod.models / "loras/high.safetensors").read_bytes() == high.content
    code, said = pod.fetch(f"{page}?fileId=7771")
    assert code == 1
    assert "is not one of the files at" in said


def test_early_access_that_was_bought_is_asked_for(pod: Pod) -> None:
    ends = "2999-01-01T00:00:00Z"
    pod.hub.add_civitai(
        22, "a.safetensors", tensors(*LORA), type="LORA", early_access_ends=ends, token=CANARY
    )
    code, said = pod.fetch("civitai:11@22")
    assert code == 1
    assert f"is in early access until {ends}" in said
    assert "set CIVITAI_TOKEN to a token of an account that may download it" in said
    code, said = pod.fetch("civitai:11@22", settings={"CIVITAI_TOKEN": "another"})
    assert code == 1
    assert "it is asked for with CIVITAI_TOKEN" in said
    assert "refused" in said
    code, said = pod.fetch("civitai:11@22", settings={"CIVITAI_TOKEN": CANARY})
    assert code == 0, said
    assert there(pod) == {"loras/a.safetensors"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"row": {"virusScanResult": "Danger"}}, "reported as dangerous by the virus scanner"),
        ({"scan": "Danger"}, "which found code in it"),
        ({"row": {"type": "Training Data"}}, "is training data"),
        ({"fields": {"status": "Draft"}}, "is not published at"),
        ({"fields": {"requireAuth": True}}, "requires a login"),
        ({"fields": {"files": []}}, "lists no file at"),
        ({"fields": {"model": {"mode": "TakenDown"}}}, "was taken down"),
        ({"fields": {"usageControl": "Generation"}}, "but not downloaded"),
    ],
)
def test_what_civitai_warns_of_is_not_fetched(pod: Pod, fields: dict[str, Any], sentence: str) -> None:
    pod.hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA", **fields)
    code, said = pod.fetch("civitai:11@22")
    assert code == 1
    assert sentence in said
    assert there(pod) == set()


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (("brushnet_down_blocks.0.weight", "time_embedding.linear_1.weight"), "inpaint"),
        (("a.motion_modules.0.temporal_transformer.x.to_q_lora.up.weight",), "animatediff_motion_lora"),
    ],
)
def test_what_only_a_custom_node_reads_lands_in_no_other_folder(
    pod: Pod, names: tuple[str, ...], folder: str
) -> None:
    pod.hub.add_civitai(22, "a.safetensors", tensors(*names), type="LORA")
    pod.hub.add("org/repo", "a.safetensors", tensors(*names))
    for word in ("civitai:11@22", "hf:org/repo/a.safetensors"):
        code, said = pod.fetch(word)
        assert code == 1
        assert folder == "inpaint" or f"reads models/{folder}): say where it belongs, as {folder}=" in said
    assert there(pod) == set()
    code, said = pod.fetch(f"{folder}=hf:org/repo/a.safetensors")
    assert (code, there(pod)) == (0, {f"{folder}/a.safetensors"}), said


@pytest.mark.parametrize("what", ["fifo", "link", "deep", "odd", "huge"])
def test_a_record_of_wishes_that_was_planted_stops_nothing(pod: Pod, what: str) -> None:
    """A FIFO in its place let every fetch wait for ever."""
    lora(pod)
    record = pod.workspace / ".podkiln/resolved.json"
    record.parent.mkdir(parents=True)
    victim = pod.root / "passwd"
    victim.write_text("root")
    match what:
        case "fifo":
            os.mkfifo(record)
        case "link":
            record.symlink_to(victim)
        case "deep":
            record.write_bytes(b"[" * 1_000_000)
        case "odd":
            known = {"expected": 5, "size": "x", "revision": []}
            files = {"civitai:22": known, "huggingface:org/repo@main/a.safetensors": known}
            wishes = {"civitai:11@22": {"folder": 5, "name": [], "size": "1", "sha256": 5, "source": 5}}
            record.write_text(json.dumps({"schema": 1, "files": files, "wishes": wishes}))
        case "huge":
            record.write_bytes(b" " * (20 << 20))
    begun = time.monotonic()
    code, said = pod.fetch("civitai:11@22")
    assert code == 0, said
    assert "mistake" not in said
    assert time.monotonic() - begun < 10
    assert victim.read_text() == "root"


def test_a_folder_of_ours_that_leads_elsewhere_takes_nothing(pod: Pod) -> None:
    elsewhere = pod.root / "etc"
    elsewhere.mkdir()
    (pod.models / "loras").mkdir(parents=True)
    (pod.models / "loras/.podkiln").symlink_to(elsewhere)
    lora(pod)
    code, said = pod.fetch("civitai:11@22")
    assert code == 1
    assert "loras/.podkiln is a link where a folder is expected: remove it, then fetch again" in said
    assert list(elsewhere.iterdir()) == []


def test_a_header_made_of_digits_holds_up_no_other_file_and_no_stop(pod: Pod) -> None:
    shape = b",".join([b"9" * 4000] * 900)
    header = b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":[' + shape + b"]}}"
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    pod.hub.add("org/repo", "evil.safetensors", content)
    lora(pod)
    begun = time.monotonic()
    code, said = pod.fetch("hf:org/repo/evil.safetensors", "civitai:11@22")
    assert code == 1
    assert "is not a valid .safetensors file" in said
    assert there(pod) == {"loras/l22.safetensors"}
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 200_000,
        b'{"siblings": 5, "sha": 5}',
        b'{"siblings": [5], "sha": "a"}',
        b'{"siblings": [{"rfilename": "a.safetensors", "size": -1, "lfs": {"sha256": 5}}], "sha": 5}',
        b'{"siblings": [{"rfilename": "a.safetensors", "size": 1, "lfs": {"sha256": "x"}}], "sha": "a"}',
        b'{"siblings": [{"rfilename": "a.safetensors", "size": 1, "lfs": []}], "sha": ["a"]}',
        b"1" * 6000,
        b"\xff\xfe",
        b"null",
    ],
)
def test_no_answer_of_a_hub_is_a_mistake_of_ours(
    pod: Pod, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.hub.add("org/repo", "a.safetensors", tensors(*LORA))
    monkeypatch.setattr(Handler, "_model_info", lambda self, *_: self._send(200, answer, {}))
    code, said = pod.fetch("hf:org/repo/a.safetensors")
    assert code == 1
    assert "mistake" not in said
    assert "cannot be" in said


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 43)


ENDLESS: dict[str, Callable[[Path], None]] = {
    "sparse": sparse,
    "of the kernel": lambda path: path.symlink_to("/proc/self/pagemap"),
}


@pytest.mark.parametrize("plant", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("known", [False, True])
def test_a_file_of_another_size_than_its_source_has_is_not_hashed(
    pod: Pod, plant: Callable[[Path], None], known: bool
) -> None:
    """A word tells no size; without one a planted file would be hashed for hours, or for ever."""
    file = pod.hub.add_file("a.safetensors", generate(2000, safetensors=True))
    word = f"loras={pod.hub.url}/files/a.safetensors#sha256={file.sha256}"
    place = pod.models / "loras/a.safetensors"
    if known:
        assert pod.fetch(word)[0] == 0
        place.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    plant(place)
    code, said = pod.fetch(word)
    if known:
        assert (code, place.stat().st_size) == (0, 2000), said
    else:
        assert code == 1, said
        assert "where another file lies" in said


def test_a_planted_part_of_another_size_is_not_hashed(pod: Pod) -> None:
    file = pod.hub.add_file("a.safetensors", generate(2000, safetensors=True))
    part = pod.models / "loras/.podkiln/a.safetensors.part"
    contents = PartMetadata(1 << 43, 1 << 43, "", f"sha256:{file.sha256}")
    PartialFile.create(part, contents).mark_complete(0)
    code, said = pod.fetch(f"loras={pod.hub.url}/files/a.safetensors#sha256={file.sha256}")
    assert (code, (pod.models / "loras/a.safetensors").stat().st_size) == (0, 2000), said


def test_a_source_that_tells_no_size_costs_no_file(pod: Pod) -> None:
    """What is there is hashed then, as long as it is."""
    content = generate(2000, safetensors=True)
    file = pod.hub.add_file("a.safetensors", content)
    place = pod.models / "loras/a.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    pod.hub.fault(Fault("status", where="hub", status=404, times=-1))
    code, said = pod.fetch(f"loras={pod.hub.url}/files/a.safetensors#sha256={file.sha256}")
    assert code == 0, said
