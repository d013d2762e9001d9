"""What wishes turn out to be, against a hub that answers as the real ones do; nothing is guessed."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from servers.hub import Hub
from servers.hub_content import make_file, tensors
from servers.hub_faults import Fault

from pod.downloads.model_store import ModelStore
from pod.errors import PodError
from pod.model_refs import model_ref
from pod.model_refs.models_json import ModelFile
from pod.net.http import Limits, RefusedError
from pod.net.hubs import Hubs
from pod.net.transfer_policy import TransferPolicy
from pod.resolve import model_facts
from pod.resolve.hashes import Resolver
from pod.resolve.model_facts import Facts
from pod.resolve.model_refs import ModelRefResolver
from podkiln.config import model_types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACTS = Facts(model_types.to_json)

POLICY = TransferPolicy(tries=3, backoff=0.01, limits=Limits(1, 0.3))
LORA = ("lora_unet_a.lora_up.weight", "lora_unet_a.lora_down.weight")
BARE = ("double_blocks.0.img_attn.norm.key_norm.scale",)
WHOLE = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight")
VAE = ("decoder.conv_in.weight",)
CLIP = (
    "text_model.encoder.layers.0.mlp.fc1.weight",
    "vision_model.encoder.layers.0.layer_norm1.weight",
)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


class Look:
    """Looks into words as one start of a pod does; `again` is the next start."""

    def __init__(self, hub: Hub, tmp_path: Path, offered: tuple[ModelFile, ...] = ()) -> None:
        self.hub, self.tmp_path, self.offered = hub, tmp_path, offered
        self.target = tmp_path / "workspace/models"
        store = ModelStore(
            tmp_path / "baked", self.target, tmp_path / "v", tmp_path / "c", lambda _text: None
        )
        hubs = Hubs(hub.url, hub.url)
        path = tmp_path / "workspace/.podkiln/resolved.json"
        self.finder = ModelRefResolver(Resolver(path, hubs, POLICY, threading.Event(), FACTS), store, offered)

    def __call__(self, word: str, where: str = "MODELS") -> ModelFile:
        return self.finder.find(ModelFile.wished(model_ref.parse(where, word)), lambda _: None)

    def refused(self, word: str, where: str = "MODELS") -> str:
        with pytest.raises(RefusedError) as caught:
            self(word, where)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def again(self) -> Look:
        return Look(self.hub, self.tmp_path, self.offered)


@pytest.fixture
def look(hub: Hub, tmp_path: Path) -> Look:
    return Look(hub, tmp_path)


# --- the folder


@pytest.mark.parametrize(
    ("type_", "names", "folder"),
    [
        ("LORA", LORA, "loras"),
        ("LoCon", LORA, "loras"),
        ("DoRA", ("unknown",), "loras"),
        ("Checkpoint", WHOLE, "checkpoints"),
        ("Checkpoint", BARE, "diffusion_models"),  # CivitAI calls both so
        ("Checkpoint", VAE, "vae"),
        ("VAE", VAE, "vae"),
        ("TextualInversion", ("emb_params",), "embeddings"),
        ("TextualInversion", ("unknown",), "embeddings"),
        ("Upscaler", ("unknown",), "upscale_models"),
        ("Controlnet", ("unknown",), "controlnet"),
        ("Hypernetwork", ("unknown",), "hypernetworks"),
        ("Other", VAE, "vae"),
    ],
)
def test_civitais_type_and_the_tensors_say_the_folder(
    look: Look, hub: Hub, type_: str, names: tuple[str, ...], folder: str
) -> None:
    file = hub.add_civitai(22, "a.safetensors", tensors(*names), type=type_)
    found = look("civitai:11@22")
    assert (found.folder, found.name, found.sha256) == (folder, "a.safetensors", file.sha256)


@pytest.mark.parametrize(
    ("type_", "names", "parts"),
    [
        ("LORA", WHOLE, ("is a checkpoint by its tensors, and a LoRA on CivitAI", "FOLDER=civitai:11@22")),
        ("VAE", LORA, ("is a LoRA by its tensors, and a VAE on CivitAI",)),
        ("Checkpoint", ("unknown",), ("does not say what kind of model it is", "FOLDER=civitai:11@22")),
        ("Other", ("unknown",), ("does not say what kind of model it is",)),
        ("Checkpoint", CLIP, ("does not say what kind of model it is",)),
        (
            "MotionModule",
            ("unknown",),
            (
                "is a motion module of AnimateDiff, for which ComfyUI itself has no folder",
                "ComfyUI-AnimateDiff-Evolved reads models/animatediff_models",
                "as animatediff_models=civitai:11@22",
            ),
        ),
        ("Workflows", ("unknown",), ("is of the type Workflows", "which is not a model")),
        ("Poses", VAE, ("is of the type Poses",)),
    ],
)
def test_where_they_do_not_agree_nobody_guesses(
    look: Look, hub: Hub, type_: str, names: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    hub.add_civitai(22, "a.safetensors", tensors(*names), type=type_)
    sentence = look.refused("civitai:11@22")
    assert [part for part in parts if part not in sentence] == []


def test_a_folder_that_was_said_beforehand_is_obeyed_unseen(look: Look, hub: Hub) -> None:
    hub.add_civitai(22, "a.safetensors", tensors(*WHOLE), type="LORA")
    assert look("vae/x=civitai:11@22").label == "vae/x/a.safetensors"
    assert look("unet/b.safetensors=civitai:11@22").label == "unet/b.safetensors"
    assert not hub.downloads()


@pytest.mark.parametrize(("names", "folder"), [(LORA, "loras"), (BARE, "diffusion_models"), (VAE, "vae")])
def test_on_hugging_face_the_tensors_say_it(
    look: Look, hub: Hub, names: tuple[str, ...], folder: str
) -> None:
    file = hub.add("o/r", "x/a.safetensors", tensors(*names))
    found = look("hf:o/r/x/a.safetensors")
    assert (found.label, found.sha256, found.size) == (f"{folder}/a.safetensors", file.sha256, file.size)
    assert found.source["revision"] == hub.repositories["o/r"].head
    assert len(hub.downloads()) == 1  # the head, once


def test_loras_takes_what_does_not_say_otherwise(look: Look, hub: Hub) -> None:
    hub.add("o/r", "a.safetensors", tensors("unknown"))
    hub.add("o/r", "b.safetensors", tensors(*WHOLE))
    assert look("hf:o/r/a.safetensors", "LORAS").folder == "loras"
    sentence = look.refused("hf:o/r/b.safetensors", "LORAS")
    assert "is a checkpoint, not a LoRA: put it into MODELS, or insist by loras=hf:o/r@main/b" in sentence
    assert look("loras=hf:o/r/b.safetensors", "LORAS").folder == "loras"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("a.gguf", "does not say what kind of model it is"),
        ("model-00001-of-00003.safetensors", "is one piece of several"),
        ("config.json", "is called config.json, which is not a model file"),
    ],
)
def test_what_has_no_head_to_tell(look: Look, hub: Hub, path: str, sentence: str) -> None:
    hub.add("o/r", path, b"x" * 200)
    assert sentence in look.refused(f"hf:o/r/{path}")
    assert look(f"text_encoders=hf:o/r/{path}").label == f"text_encoders/{path}"


def test_a_head_that_lies_is_refused(look: Look, hub: Hub) -> None:
    hub.add("o/r", "a.safetensors", tensors(*LORA) + b"more")
    assert "is not a valid .safetensors file" in look.refused("hf:o/r/a.safetensors")


# --- which file


def test_a_version_of_another_model_is_refused(look: Look, hub: Hub) -> None:
    hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA")
    assert "22 belongs to 11; write civitai:11@22 if" in look.refused("civitai:99@22")


def test_an_air_must_say_what_civitai_says(look: Look, hub: Hub) -> None:
    hub.add_civitai(22, "a.safetensors", tensors(*WHOLE))
    assert "is a Checkpoint on CivitAI, but a lora by its AIR" in look.refused("sdxl:lora:civitai:11@22")
    assert look("urn:air:sdxl:checkpoint:civitai:11@22").folder == "checkpoints"


def test_another_file_of_a_version(look: Look, hub: Hub) -> None:
    vae = make_file("vae.safetensors", tensors(*VAE))
    hub.add_civitai(22, "a.safetensors", tensors(*WHOLE), beside=((vae, "VAE", "SafeTensor"),))
    for word in ("civitai:11@22+221", "https://civitai.com/api/download/models/22?type=VAE"):
        found = look(word)
        assert (found.label, found.sha256) == ("vae/vae.safetensors", vae.sha256)
        assert found.source["query"] == "type=VAE&format=SafeTensor&fileId=221"
        before = len(hub.hits)
        assert look.again()(word) == found
        assert len(hub.hits) == before  # it is remembered, and its query is one of that file


@pytest.mark.parametrize(
    ("url", "called", "name"),
    [
        ("files/x/a%20b.safetensors?sig=canary", None, "a b.safetensors"),
        ("files/4711", "über/mäßig.safetensors", "mäßig.safetensors"),
    ],
)
def test_an_address_is_asked_for_its_files_name(
    look: Look, hub: Hub, url: str, called: str | None, name: str
) -> None:
    path = "x/a b.safetensors" if called is None else "4711"
    file = hub.add_file(path, tensors(*VAE), called)
    found = look(f"{hub.url}/{url}#sha256={file.sha256}")
    assert found.label == f"vae/{name}"
    assert "canary" not in (look.target.parent / ".podkiln/resolved.json").read_text()
    assert look.again()(f"{hub.url}/{url}#sha256={file.sha256}").source["url"] == f"{hub.url}/{url}"


def test_an_address_that_tells_no_name(look: Look, hub: Hub) -> None:
    file = hub.add_file("4711", tensors(*VAE))
    word = f"{hub.url}/files/4711#sha256={file.sha256}"
    assert "say it beforehand, FOLDER/NAME.safetensors=" in look.refused(word)
    assert look(f"vae/mine.safetensors={word}").label == "vae/mine.safetensors"


# --- what is not trusted


@pytest.mark.parametrize("word", ["hf:o/r/a.ckpt", "civitai:11@22", "embeddings=civitai:11@22"])
def test_a_pickle_needs_somebody_who_vouches_for_it(look: Look, hub: Hub, word: str) -> None:
    file = hub.add("o/r", "a.ckpt", b"pickle")
    hub.add_civitai(22, "a.pt", b"pickle", type="TextualInversion", format="PickleTensor")
    assert "is a pickle, which can run code" in look.refused(word)
    placed = word if word.startswith("emb") else f"embeddings={word}"
    assert look(f"{placed}#sha256={file.sha256}").sha256 == file.sha256


def test_the_safetensors_beside_a_pickle(look: Look, hub: Hub) -> None:
    safe = make_file("a.safetensors", tensors(*WHOLE))
    beside = ((safe, "Model", "SafeTensor"),)
    hub.add_civitai(22, "a.ckpt", b"pickle", format="PickleTensor", beside=beside)
    found = look("civitai:11@22")
    assert (found.label, found.sha256) == ("checkpoints/a.safetensors", safe.sha256)
    assert found.source["query"] == "type=Model&format=SafeTensor&fileId=221"


def test_a_hash_that_is_not_the_hubs_is_refused(look: Look, hub: Hub) -> None:
    hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA")
    assert "and not the sha256 that was given" in look.refused(f"civitai:11@22#sha256={'ab' * 32}")


def test_what_scanners_warn_of_is_refused(look: Look, hub: Hub) -> None:
    hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA", scan="Danger")
    assert "is reported as dangerous" in look.refused("civitai:11@22")


def test_a_hubs_name_cannot_lead_out_of_its_folder(look: Look, hub: Hub) -> None:
    file = hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA")
    for name in ("../../x.safetensors", "..\\x.safetensors", "/x.safetensors", "\u202ex.safetensors"):
        object.__setattr__(file, "path", name.replace("/", "\u2215") if name.startswith("/") else name)
        hub.versions[22].file = file
        assert "/" not in look.again()("civitai:11@22").name


def test_a_renamed_file_keeps_what_it_is(look: Look, hub: Hub) -> None:
    file = hub.add("o/r", "a.ckpt", b"pickle")
    word = f"checkpoints/a.safetensors=hf:o/r/a.ckpt#sha256={file.sha256}"
    assert "is a .ckpt file, and cannot be called a.safetensors" in look.refused(word)


@pytest.mark.parametrize(
    ("fault", "word", "sentence"),
    [
        (Fault("status", where="hub", status=404, times=-1), "civitai:11@22", "is not there (404 from"),
        (Fault("status", where="hub", status=401, times=-1), "civitai:11@22", "set CIVITAI_TOKEN"),
        (Fault("status", where="hub", status=200, times=-1), "civitai:11@22", "lists no file at"),
        (Fault("html", where="hub", times=-1), "hf:o/r/a.safetensors", "did not answer with JSON"),
        (Fault("status", where="hub", status=500, times=-1), "hf:o/r/a.safetensors", "in 3 tries"),
        (Fault("status", status=500, times=-1), "hf:o/r/a.safetensors", "in 3 tries"),
    ],
)
def test_what_the_hub_does_not_tell(look: Look, hub: Hub, fault: Fault, word: str, sentence: str) -> None:
    hub.add("o/r", "a.safetensors", tensors(*LORA))
    hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA")
    hub.fault(fault)
    assert sentence in look.refused(word)


# --- names that are taken


def offer(file: Any, folder: str = "loras", sha256: str | None = None) -> ModelFile:
    source = {"kind": "huggingface", "repo": "o/r", "revision": None, "path": file.path}
    return ModelFile("style", folder, file.name, file.size, sha256, False, source)


def test_two_files_do_not_share_a_name(look: Look, hub: Hub) -> None:
    hub.add("o/one", "pytorch_lora_weights.safetensors", tensors(*LORA))
    hub.add("o/two", "pytorch_lora_weights.safetensors", tensors(*LORA, seed=1))
    hub.add("o/same", "pytorch_lora_weights.safetensors", tensors(*LORA))
    look("hf:o/one/pytorch_lora_weights.safetensors")
    sentence = look.refused("hf:o/two/pytorch_lora_weights.safetensors")
    assert "as hf:o/one@main/pytorch_lora_weights.safetensors is, which is another file" in sentence
    assert "loras/NAME.safetensors=hf:o/two@main/pytorch_lora_weights.safetensors" in sentence
    assert look("hf:o/same/pytorch_lora_weights.safetensors").label.startswith("loras/")
    assert look("loras/two.safetensors=hf:o/two/pytorch_lora_weights.safetensors").name == "two.safetensors"


def test_the_names_of_the_images_models_are_taken(hub: Hub, tmp_path: Path) -> None:
    file = hub.add("o/r", "a.safetensors", tensors(*LORA))
    hub.add("o/other", "a.safetensors", tensors(*LORA, seed=1))
    for offered in (offer(file, sha256=file.sha256), offer(file)):
        look = Look(hub, tmp_path, (offered,))
        assert look("hf:o/r/a.safetensors").label == "loras/a.safetensors"
        assert "as style is, which is another file" in look.again().refused("hf:o/other/a.safetensors")


def test_what_the_image_has_under_another_name_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    file = hub.add("o/r", "a.safetensors", tensors(*LORA))
    hub.add_civitai(22, "b.safetensors", file.content, type="LORA")
    look = Look(hub, tmp_path, (offer(file, "loras/sub", file.sha256),))
    assert look("civitai:11@22").label == "loras/sub/a.safetensors"
    assert look("loras/c.safetensors=civitai:11@22").label == "loras/c.safetensors"


@pytest.mark.parametrize("content", [b"mine", b"x" * 10_000])
def test_a_file_of_somebody_else_is_left_alone(look: Look, hub: Hub, content: bytes) -> None:
    hub.add("o/r", "a.safetensors", tensors(*LORA))
    hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA")
    place = look.target / "loras/a.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    for word in ("hf:o/r/a.safetensors", "civitai:11@22"):
        assert f"would be {place}, where another file lies" in look.again().refused(word)
    assert place.read_bytes() == content
    place.write_bytes(tensors(*LORA))
    assert look.again()("civitai:11@22").label == "loras/a.safetensors"


# --- the next start


@pytest.mark.parametrize("word", ["civitai:11@22", "hf:o/r/a.safetensors", "hf:o/r/small.bin"])
def test_the_next_start_needs_no_hub_and_expects_the_same(look: Look, hub: Hub, word: str) -> None:
    hub.add("o/r", "a.safetensors", tensors(*LORA))
    hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA")
    if word.endswith(".bin"):
        file = hub.add("o/r", "small.bin", b"x")
        word = f"embeddings={word}#sha256={file.sha256}"
    first = look(word)
    hub.add("o/r", "a.safetensors", tensors(*LORA, seed=9))
    hub.fault(Fault("status", where="hub", status=500, times=-1))
    before = len(hub.hits)
    assert look.again()(word) == first
    assert len(hub.hits) == before


def test_a_small_file_outside_lfs_is_pinned_too(look: Look, hub: Hub) -> None:
    hub.add("o/r", "a.safetensors", tensors(*LORA), lfs=False)
    first = look("hf:o/r/a.safetensors")
    assert (first.sha256, first.source["revision"]) == (None, hub.repositories["o/r"].head)
    before = len(hub.hits)
    assert look.again()("hf:o/r/a.safetensors") == first
    assert len(hub.hits) == before


@pytest.mark.parametrize(
    "row",
    [
        {"folder": "../..", "name": "x", "size": 1, "sha256": "a", "source": {}},
        {"folder": "loras", "name": "../x", "size": 1, "sha256": "a", "source": {}},
        {"folder": "loras"},
        [],
        None,
    ],
)
def test_a_record_that_leads_astray_is_not_believed(look: Look, hub: Hub, row: Any) -> None:
    hub.add_civitai(22, "a.safetensors", tensors(*LORA), type="LORA")
    path = look.target.parent / ".podkiln/resolved.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema": 1, "wishes": {"civitai:11@22": row}}))
    assert look("civitai:11@22").label == "loras/a.safetensors"


GOOD, EVIL = "b" * 64, "e" * 64
COMMIT, OTHER = "c" * 40, "d" * 40
HF = {"kind": "huggingface", "repo": "o/r", "revision": "main", "path": "a.safetensors"}
AIR = {"kind": "civitai", "version": 22, "model": 11}
PLANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "another hash": (f"loras=hf:o/r/a.safetensors#sha256={GOOD}", {"source": HF, "sha256": EVIL}),
    "no hash": (f"loras=hf:o/r/a.safetensors#sha256={GOOD}", {"source": HF, "sha256": None}),
    "another hash of CivitAI's": (f"loras=civitai:11@22#sha256={GOOD}", {"source": AIR, "sha256": EVIL}),
    "another hash of an address": (f"loras=https://h/a.safetensors#sha256={GOOD}", {"sha256": EVIL}),
    "another folder": ("loras=hf:o/r/a.safetensors", {"folder": "vae"}),
    "a folder of LORAS": ("LORAS hf:o/r/a.safetensors", {"folder": "vae"}),
    "a folder that no kind has": ("hf:o/r/a.safetensors", {"folder": "custom_nodes/x"}),
    "another name": ("loras/mine.safetensors=hf:o/r/a.safetensors", {}),
    "a name that the path has not": ("hf:o/r/a.safetensors", {"name": "b.safetensors"}),
    "a name that the address has not": (
        f"https://h/a.safetensors#sha256={GOOD}",
        {"name": "b.safetensors", "sha256": GOOD},
    ),
    "a name in a folder of its own": ("civitai:11@22", {"source": AIR, "name": "x/a.safetensors"}),
    "a name that is mended": ("civitai:11@22", {"source": AIR, "name": "a:b.safetensors"}),
    "no model's name": ("civitai:11@22", {"source": AIR, "name": "__init__.py"}),
    "another suffix": (
        f"loras/a.pt=hf:o/r/a.safetensors#sha256={GOOD}",
        {"name": "a.pt", "sha256": GOOD},
    ),
    "a pickle": ("civitai:11@22", {"source": AIR, "folder": "embeddings", "name": "a.pt"}),
    "a pickle by its path": (
        "embeddings=hf:o/r/a.pth.tar",
        {"source": HF | {"path": "a.pth.tar"}, "folder": "embeddings", "name": "a.pth.tar"},
    ),
    "one piece of several": (
        "hf:o/r/a-00001-of-00002.safetensors",
        {"source": HF | {"path": "a-00001-of-00002.safetensors"}, "name": "a-00001-of-00002.safetensors"},
    ),
    "another commit": (f"loras=hf:o/r@{COMMIT}/a.safetensors", {"source": HF | {"revision": OTHER}}),
    "another short commit": ("loras=hf:o/r@ccccccc/a.safetensors", {"source": HF | {"revision": OTHER}}),
    "another branch": ("loras=hf:o/r/a.safetensors", {"source": HF | {"revision": "refs/pr/1"}}),
    "another path": ("loras=hf:o/r/a.safetensors", {"source": HF | {"path": "x/a.safetensors"}}),
    "a key of a source": ("loras=hf:o/r/a.safetensors", {"source": HF | {"query": "x"}}),
    "another model": ("loras=civitai:11@22", {"source": AIR | {"model": 12}}),
    "another file": ("loras=civitai:11@22+221", {"source": AIR | {"file": 222}}),
    "another file's query": (
        "loras=civitai:11@22+221",
        {"source": AIR | {"file": 221, "query": "fileId=222"}},
    ),
    "another format's query": (
        "loras=civitai:11@22?format=SafeTensor",
        {"source": AIR | {"choice": {"format": "SafeTensor"}, "query": "format=PickleTensor&fileId=1"}},
    ),
    "no query": (
        "loras=civitai:11@22?format=SafeTensor",
        {"source": AIR | {"choice": {"format": "SafeTensor"}}},
    ),
    "two queries": ("loras=civitai:11@22", {"source": AIR | {"query": "fileId=1&fileid=2"}}),
    "a query with more": ("loras=civitai:11@22", {"source": AIR | {"query": "fileId=1#x"}}),
    "a size below nothing": ("loras=hf:o/r/a.safetensors", {"size": -1}),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_record_that_disagrees_with_the_word_is_asked_anew(look: Look, hub: Hub, case: str) -> None:
    word, planted = PLANTED[case]
    where, _, word = word.rpartition(" ")
    if word.startswith(("https:", "loras=https:")):
        word = word.replace("https://h", f"{hub.url}/files")
    row = {"folder": "loras", "name": "a.safetensors", "size": None, "sha256": EVIL, "source": HF, **planted}
    wish = model_ref.parse(where or "MODELS", word)
    path = look.target.parent / ".podkiln/resolved.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema": 1, "files": {}, "wishes": {wish.key: row}}))
    try:
        found = look(word, where or "MODELS")
    except RefusedError:
        return  # there is nothing on the hub
    assert (found.sha256, wish.folder or found.folder) == (wish.sha256, found.folder)
    assert "b.safetensors" not in found.name


def test_a_damaged_list_of_kinds_costs_only_what_is_looked_into(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"types": [{}]}', None):
        if text is not None:
            (tmp_path / model_facts.NAME).write_text(text)
        loaded = model_facts.load(tmp_path)
        with pytest.raises(PodError, match=r"model-types\.json .*: rebuild the image"):
            assert loaded.types
        with pytest.raises(PodError, match=r"model-types\.json .*: rebuild the image"):
            assert loaded.terms
        (tmp_path / model_facts.NAME).unlink(missing_ok=True)
