"""The model of a variant, locked over a local hub; and a pod of its image, which takes just that."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from descriptions import write
from model_pods import WEIGHTS, Pod, add_pipeline
from servers import hub_content
from servers.hub_faults import Fault

from pod.errors import PodError
from podkiln.config import variant as variants
from podkiln.errors import LockError, UsageError
from podkiln.lock import family_bases as locked_bases
from podkiln.lock import reader, validation
from podkiln.lock import served_model as locked
from podkiln.lock.resolve import additions, changes, family_bases, nodes, runtime, served_model, serving
from podkiln.lock.resolve import relock as command
from podkiln.plan import plan as plans
from podkiln.render import build_context
from server.weights.image_lock import ImageLock

if TYPE_CHECKING:
    from pathlib import Path

    from servers.hub import Hub

    from podkiln.lock.resolve.weights import ResolveResult
    from podkiln.lock.served_model import ModelLock
    from podkiln.plan.plan import Plan

SD1 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
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


def plan_of(path: Path) -> Plan:
    """Return the plan of that variant."""
    described = variants.load(str(path / "mine.yaml"))
    return plans.make(described, reader.read(described, ()), ())


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
    plan = plan_of(tmp_path)
    (tmp_path / "pod/root/model-lock.json").write_bytes(
        build_context.render(plan)["podkiln/model-lock.json"].content
    )
    assert plan.fetched_at_start == sum(file.size or 0 for file in lock.files) > 3 * 4096
    assert plan.lock.digest != replace(plan.lock, model=None).digest
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
    # What is in the image, or in RunPod's cached model, is not fetched; another file there is refused.
    cache = tmp_path / "pod/endpoint/huggingface-cache/hub/models--org--sd/snapshots" / head
    for each in part.files:
        write(cache / each.path, "").write_bytes(files[each.path].content)
    row = {"folder": "loras", "name": "x.safetensors", "size": len(STYLE), "source": {}, "optional": False}
    sha256 = hashlib.sha256(STYLE).hexdigest()
    offers = {"schema": 1, "models": [{"id": "x", "files": [{**row, "sha256": sha256}]}]}
    write(tmp_path / "pod/root/models.json", json.dumps(offers))
    write(tmp_path / "pod/baked/loras/x.safetensors", "").write_bytes(STYLE)
    again = pod.gather(WORKSPACE=str(tmp_path / "other"))
    assert {hit.path.split("/")[2] for hit in stocked.hits if "/resolve/" in hit.path} == {"vae"}
    assert again.model.model.first.resolve().is_relative_to(cache)
    assert again.loras[0][0].model.first.resolve().name == "x.safetensors"
    write(cache / WEIGHTS[0], "")
    with pytest.raises(PodError, match="the image's lock says sha256"):
        pod.gather(WORKSPACE=str(tmp_path / "third"))
    # What the hub serves at that commit is something else: refused.
    shutil.rmtree(cache)
    lie = json.loads(json.dumps(lock.to_json()).replace(files[WEIGHTS[0]].sha256, "a" * 64))
    (tmp_path / "pod/root/model-lock.json").write_text(json.dumps(lie))
    with pytest.raises(PodError, match=f"but sha256:{'a' * 64} is listed") as caught:
        pod.gather()
    assert str(caught.value).count(".safetensors") >= 1


# What is described, with which token; what it stays for, and whether a person has to change the description.
OPEN: list[tuple[str, str, str, bool]] = [
    ("{id: org/gated}", "", "org/gated is gated, and no token is set, .* set HF_TOKEN", False),
    ("{id: org/sd, vae: org/gated}", "", "org/gated stays unresolved: it is gated, .* set HF_TOKEN", False),
    ("{id: org/gated}", "wrong", "it was refused .* HF_TOKEN", False),
    ("{id: org/none}", "", "org/none is private or does not exist .* set HF_TOKEN", True),
    ("{id: org/sd, revision: nobranch}", "", "asks for a revision that .* does not have", True),
    ("{id: 'hf:org/sd:none.safetensors'}", "", "names none.safetensors, which .* does not have", True),
    ("{id: org/pickle}", "", "mine.yaml:4: model: org/pickle cannot be served: model.ckpt is a pickle", True),
    ("{id: org/sd, vae: org/pickle}", "", "mine.yaml:4: model: VAE: org/pickle .* a VAE is expected", True),
    ("{id: org/empty}", "", "mine.yaml:4: model: unet/config.json of org/empty is empty", True),
    ("{id: org/busy, loras: [org/lora]}", "", "org/busy stays unresolved: it did not come in", False),
]


@pytest.mark.parametrize(("model", "token", "says", "problem"), OPEN)
def test_what_is_not_resolved_says_why(
    model: str,
    token: str,
    says: str,
    problem: bool,
    stocked: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for repo in ("org/gated", "org/busy", "org/empty"):
        if repo in model:
            add_pipeline(stocked, repo)
    stocked.add("org/pickle", "model.ckpt", b"x" * 64)
    stocked.add("org/empty", "unet/config.json", b"", lfs=False)
    if "gated" in model:
        stocked.gate("org/gated", "hf_right")
    stocked.fault(Fault("status", "org/busy", "hub", times=-1, status=503))
    if token:
        monkeypatch.setenv("HF_TOKEN", f"hf_{token}")
    described = variants.load(str(write(tmp_path / "mine.yaml", f"{MINE}model: {model}\n")))
    outcome = served_model.relock(described, upgrade=False)
    told, others = (outcome.problems, outcome.warnings)[:: 1 if problem else -1]
    assert re.search(says, " ".join(told))
    assert others == []
    name = "model of mine"
    assert {name} == {each for each, _ in outcome.reasons}
    assert any(not file.resolved for file in outcome.models[name])
    found, problems = locked.read(described)
    if problem:  # what cannot be right is no lock, and nothing is built of it
        assert (found, [each.partition(" is not locked")[1] for each in problems]) == (
            None,
            [" is not locked"],
        )
        return
    # What may be told another day stays open: the check says so, the plan has it, and a pod asks by itself.
    assert found
    lock = found.document
    assert [each for each in locked.find_drift(described) if lock.unresolved[0].word in each]
    (note, *_) = plan_of(tmp_path).notes
    assert "is unresolved: a pod asks its hub what it is" in note
    root = tmp_path / "root"
    write(root / "model-lock.json", json.dumps(lock.to_json()))
    assert ImageLock.read(root).lacks(lock.unresolved[0].key)


def test_a_file_is_locked_by_its_address(stocked: Hub, tmp_path: Path) -> None:
    file = stocked.add("org/file", "ck.safetensors", STYLE)
    head = stocked.repositories["org/file"].head
    word = f"{stocked.url}/org/file/resolve/{head}/ck.safetensors#sha256={file.sha256}"
    outcome, lock = relock(tmp_path, f"{{id: org/sd, loras: ['{word}']}}")
    assert (outcome.warnings, outcome.problems, lock.unresolved) == ([], [], ())
    host = stocked.url.partition("//")[2]
    assert f"{host}/ck.safetensors" in {each.destination for each in lock.files}


def test_a_lock_holds_what_the_hub_serves_at_the_commit_that_is_meant(stocked: Hub, tmp_path: Path) -> None:
    head = stocked.repositories["org/sd"].head
    # A hub that answers with another commit than was asked for.
    other = json.dumps(stocked.repositories["org/sd"].info(head, blobs=True)).encode()
    stocked.fault(Fault("body", f"/revision/{'a' * 40}", "hub", times=-1, body=other))
    asked = variants.load(
        str(write(tmp_path / "mine.yaml", f"{MINE}model: {{id: org/sd, revision: {'a' * 40}}}\n"))
    )
    (said,) = served_model.relock(asked, upgrade=False).warnings
    assert f"answers with another commit, {head}" in said
    # A file that is read once and listed otherwise.
    stocked.fault(Fault("flip", "model_index.json", "hub", times=1, after=0))
    described = variants.load(str(write(tmp_path / "mine.yaml", f"{MINE}model: {{id: org/sd}}\n")))
    outcome = served_model.relock(described, upgrade=False)
    assert (outcome.problems, outcome.warnings) == ([], [])
    served = locked.read(described)[0]
    assert served
    assert served.document.words[0].found
    assert served.document.words[0].found.parts["model"].revision == head
    stocked.fault(Fault("flip", "model_index.json", "hub", times=-1, after=0))
    outcome = served_model.relock(described, upgrade=True)
    assert "serves other bytes than what is listed" in outcome.warnings[0]


def test_no_lock_is_written_that_is_too_large_to_be_read(
    stocked: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = relock(tmp_path, "{id: org/sd}")
    described = variants.load(str(tmp_path / "mine.yaml"))
    size = locked.path_of(described).stat().st_size
    stocked.add("org/sd", "text_encoder/more.json", b"{}", lfs=False)
    monkeypatch.setattr(validation, "MOST_BYTES", size)
    with pytest.raises(LockError, match=f"{size} are read: it was left as it is"):
        served_model.relock(described, upgrade=True)
    found = locked.read(described)[0]
    assert found
    assert found.document == before


# A change of the lock by hand or by a merge; what is said of it, which "" is for an odd one that is read.
DAMAGES: list[tuple[str, str]] = [
    ("words[0]['found']['parts']['model']['source'].update(revision='../../../outside')", "source.revision"),
    ("words[0]['found']['parts']['model']['source'].update(revision='b' * 40)", "two commits"),
    ("words[0]['found']['parts']['model']['source'].pop('revision')", "source.revision"),
    ("words[0]['found']['parts']['model']['source'].pop('repo')", "source.repo"),
    ("words[0]['found']['parts']['model']['source'].update(repo='../../x')", "source.repo"),
    ("words[0]['found']['parts']['model']['source'].update(kind='local')", "no kind that is known"),
    ("words[0]['found']['parts']['model'].update(revision='main')", "two commits"),
    ("words[0]['found']['parts']['model']['files'].pop(0)", "not those that the decision names"),
    (
        "words[0]['found']['parts']['model']['files'].append(words[0]['found']['parts']['model']['files'][0])",
        "a file is duplicated",
    ),
    ("words[0]['found']['decision'].update(files=[])", "not those that the decision names"),
    ("words[0]['found']['parts'].update(base=words[0]['found']['parts']['model'])", "no decision on one"),
    ("words.pop(0)", "has other words than are described"),
    ("words.pop()", "has other words than are described"),
    ("words[0].update(key=['model', 'org/other', '', ''])", "has other words than are described"),
    ("words[2].update(key=['Lora', *words[2]['key'][1:]])", "has other words than are described"),
    ("words[0].update(key=[])", "at least 2"),
    ("words.append(words[0])", "has other words than are described"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_a_lock_that_contradicts_itself_is_named_and_read_by_nobody(
    damage: str, says: str, stocked: Hub, tmp_path: Path
) -> None:
    relock(tmp_path, ALL)
    described = variants.load(str(tmp_path / "mine.yaml"))
    path = locked.path_of(described)
    data = json.loads(path.read_text())
    eval(damage, {"words": data["words"]})  # noqa: S307 - the cases above
    path.write_text(json.dumps(data))
    try:
        found, problems = locked.read(described)
    except LockError as unreadable:
        found, problems = None, [str(unreadable)]
    assert found is None
    assert says in problems[0]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("words[0]['found']['parts']['model']['files'][0].update(sha256=None)", "is damaged"),
        ("words[0]['found']['parts']['model']['source'].update(revision='../../../outside')", "is damaged"),
        ("words[0].update(key=[])", "is damaged"),
        ("words[0]['found'].update(parts={})", "is damaged"),
        ("words[0]['found']['parts']['model']['files'][0].update(path='../../x')", "is not fetched"),
    ],
)
def test_a_pod_serves_nothing_of_an_images_lock_that_is_damaged(
    damage: str, says: str, stocked: Hub, tmp_path: Path
) -> None:
    _, lock = relock(tmp_path, "{id: org/sd}")
    data = lock.to_json()
    eval(damage, {"words": data["words"]})  # noqa: S307 - the cases above
    pod = Pod(tmp_path / "pod", stocked)
    (tmp_path / "pod/root/model-lock.json").write_text(json.dumps(data))
    with pytest.raises(PodError, match=says):
        pod.gather()
    assert not [each for each in tmp_path.rglob("*.safetensors") if "volume" not in each.parts]


def test_a_lock_is_kept_until_more_is_asked_for(stocked: Hub, tmp_path: Path) -> None:
    _, first = relock(tmp_path, "{id: org/sd}")
    described = variants.load(str(tmp_path / "mine.yaml"))
    stocked.add("org/sd", WEIGHTS[0], 4096, seed=99)
    assert relock(tmp_path, "{id: org/sd, vae: org/vae}")[1].words[0] == first.words[0]
    state = changes.state([described], changes.from_disk)
    # Nobody answers: what is locked is kept, and that is said.
    stocked.fault(Fault("status", "/api/", "hub", times=-1, status=503))
    outcome, kept = relock(tmp_path, "{id: org/sd, vae: org/vae}", upgrade=True)
    assert [each for each in outcome.warnings if "stays as it was locked" in each] == outcome.warnings != []
    assert kept.words[0] == first.words[0]
    stocked.script.faults.clear()
    _, newer = relock(tmp_path, "{id: org/sd, vae: org/vae}", upgrade=True)
    assert newer.words[0] != first.words[0]
    found = changes.compare(state, changes.state([described], changes.from_disk))
    assert {each.key for each in changes.losses(found, ())} == {"sha256"}
    # Another diffusers would decide anew; what is described otherwise, damaged or not there does not fit.
    path, right = locked.path_of(described), locked.path_of(described).read_text()
    mine = variants.load(str(tmp_path / "mine.yaml"))
    for old, new, says in (
        ('"diffusers": "0', '"diffusers": "9', "locked for diffusers 9"),
        ('"MODEL_ID": "org/sd"', '"MODEL_ID": "org/x"', "something else was locked"),
        ('"kind": "pipeline"', '"kind": ""', r"model.json cannot be read: words\[0\].found.decision"),
    ):
        path.write_text(right.replace(old, new))
        with contextlib.nullcontext() if "read" not in says else pytest.raises(LockError, match=says):
            assert says in locked.read(mine)[1][0]
    path.unlink()
    assert "org/sd is not locked: there is no" in locked.read(mine)[1][0]
    # A model that is described no more leaves no lock.
    path.write_text(right)
    plain = variants.load(str(write(tmp_path / "mine.yaml", MINE)))
    assert "none is described" in locked.read(plain)[1][0]
    assert served_model.relock(plain, upgrade=False).changed == [path]
    assert locked.read(plain) == (None, [])


def test_bases_of_families_are_pinned_for_every_model(
    stocked: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, gated, away, odd = bases = (SD1, "org/gated", "org/none", "org/odd")
    monkeypatch.setattr(locked_bases, "path", lambda: tmp_path / "families.json")
    monkeypatch.setattr(locked_bases, "described", lambda: bases)
    for name in (base, gated, odd):
        add_pipeline(stocked, name)
    stocked.add(odd, "../config.json", b"{}", lfs=False)
    stocked.gate(gated, "hf_right")
    stocked.repositories[base].card = {"license": "other", "license_name": "creativeml-openrail-m"}
    pinned = stocked.repositories[base].head
    assert locked_bases.find_drift()[0].endswith(f"the base {gated} is described, and not locked.")
    outcome = family_bases.relock(upgrade=False)
    assert re.search(f"the base {gated} stays unlocked: .* set HF_TOKEN", outcome.warnings[0])
    assert re.search(f"the base {away}: .* has no repository {away}", outcome.problems[0])
    assert re.search(f"the base {odd} stays unlocked: .* lists '../config.json' in ", outcome.warnings[1])
    found = locked_bases.read().bases
    right = (tmp_path / "families.json").read_text()
    (tmp_path / "families.json").write_text(right.replace(f'"repo": "{base}"', '"repo": "org/other"'))
    with pytest.raises(LockError, match="is locked from another repository"):
        locked_bases.read()
    (tmp_path / "families.json").write_text(right)
    assert (found[odd], found[gated], found[away], locked_bases.find_drift()) == (None, None, None, [])
    part = found[base]
    assert part
    assert (part.revision, part.licence, part.gated) == (pinned, "creativeml-openrail-m", False)
    assert {each.path for each in part.files} == {
        *("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"),
        *(f"{name}/config.json" for name in ("unet", "vae", "text_encoder")),
    }
    # It moves on; a LoRA on it is locked, and served without a lock of its own, with that commit of it.
    stocked.add(base, WEIGHTS[0], 4096, seed=99)
    stocked.add("org/lora", "style.safetensors", STYLE)
    stocked.repositories["org/lora"].card = {"base_model": [base], "base_model_relation": "adapter"}
    _, lock = relock(tmp_path, "{id: org/lora}")
    assert lock.words[0].found
    assert lock.words[0].found.parts["base"].revision == pinned
    pod = Pod(tmp_path / "pod", stocked)
    write(tmp_path / "pod/root/detection.json", json.dumps(locked_bases.knowledge(locked_bases.pinned())))
    served = pod.gather(MODEL_ID="org/lora").model.base
    assert served
    assert served.revision == pinned
    assert {each.digest[:7] for each in served.pieces if each.path.endswith(".json")} == {"sha256:"}
    named = pod.gather(MODEL_ID="org/lora", BASE_MODEL=base).model.base
    assert named
    assert named.revision == stocked.repositories[base].head != pinned
    # Only those that are not known are asked for, unless more is asked for.
    stocked.hits.clear()
    family_bases.relock(upgrade=False)
    assert not [hit for hit in stocked.hits if base in hit.path]
    family_bases.relock(upgrade=True)
    newer = locked_bases.read().bases[base]
    assert newer
    assert newer.revision == stocked.repositories[base].head


def test_the_command_moves_it_when_it_is_named_and_not_before(
    stocked: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (runtime, nodes, serving, additions):
        monkeypatch.setattr(room, "relock", lambda *_: [])
    for other in ("_relock_weights", "_refuse_two_meanings"):
        monkeypatch.setattr(command, other, lambda *_: [])
    path = write(tmp_path / "mine.yaml", f"{MINE}model: {{id: org/sd}}\n")
    written = (path.with_suffix(".locks") / "model.json",)
    assert command.relock([str(path)]).changed == written
    stocked.add("org/sd", WEIGHTS[0], 4096, seed=99)
    assert command.relock([str(path)]).changed == ()
    with pytest.raises(UsageError, match="modell"):
        command.relock([str(path)], ["modell"])
    moved = command.relock([str(path)], ["model"])
    assert moved.changed == written
    assert "org/sd" in str(moved.changes)
    assert command.check([str(path)]) == []
    write(path, f"{MINE}model: {{id: org/sd, vae: org/vae}}\n")
    assert command.check([str(path)]) == ["mine: model: something else was locked than is described now."]
