"""Detection over the table of real models and files, and what no facts may do to it."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any

import detection_rows as rows
import pytest

from pod.resolve.safetensors_header import SafetensorsHeader
from pod.util.dataclass import replace
from server.detection import single_file
from server.detection.detect import detect, wanted, with_base_files
from server.detection.facts import Facts, File

if TYPE_CHECKING:
    from server.detection.decision import Decision

KNOWN = rows.known()


def found_of(row: dict[str, Any]) -> Decision:
    return detect(rows.facts(row), KNOWN)


@pytest.mark.parametrize("row", rows.MODELS, ids=lambda row: row["id"])
def test_a_real_model_is_what_it_is(row: dict[str, Any]) -> None:
    found, wanted_ = found_of(row), dict(row["is"])
    if code := wanted_.pop("refused", None):
        assert found.refusal is not None, found
        assert found.refusal.code == code, found.refusal
        said = f"{found.refusal.sentence} {found.refusal.instead}"
        assert re.search(wanted_.pop("says", ""), said), said
        assert found.refusal.sentence.endswith(".")
        assert found.refusal.instead.endswith(".")
        assert not wanted_
        return
    assert found.refusal is None, found.refusal
    paths = {file.path for file in found.files}
    assert found.reason.endswith(".")
    assert found.evidence
    for key, value in wanted_.items():
        match key:
            case "with":
                assert paths.issuperset(value), paths
            case "without":
                assert not paths.intersection(value), paths
            case "tasks":
                assert sorted(dict(found.tasks)) == value
            case "files":
                assert len(paths) == value, sorted(paths)
            case "base":
                assert found.base is not None
                assert found.base.repository == value, found.base
            case "missing" | "evidence":
                assert any(value in line for line in getattr(found, key)), getattr(found, key)
            case "omit" | "needs":
                assert list(getattr(found, key)) == value
            case _:
                assert getattr(found, key) == value, found


def test_the_table_is_as_large_as_it_has_to_be() -> None:
    published = [row for row in rows.MODELS if row["cite"] != "made"]
    assert {row["cite"] for row in rows.MODELS} == set(rows.TABLE["cites"]), "a source that nobody cites"
    assert len(published) >= 60
    assert sum(bool(row.get("odd")) for row in rows.MODELS) >= 15
    assert len({row["id"] for row in rows.MODELS}) == len(rows.MODELS)


def test_no_head_is_two_families_files() -> None:
    """A rule that fits what another describes would make both unknown."""
    heads = {row["head"]: rows.header(row) for row in rows.MODELS if row.get("head")}
    several = {name: single_file.matches(KNOWN, head, "x") for name, head in heads.items()}
    assert len(heads) >= 50
    assert {name: found for name, found in several.items() if len(found) > 1} == {}


def test_odd_facts_are_refused_and_never_raise() -> None:
    """Each row again, with its files, documents and tensors shuffled, damaged and left out."""
    chance = random.Random(7)
    junk: list[Any] = [None, [], {}, "x", 7, [None], ["a"], {"_class_name": []}, {"_class_name": {}}]
    for row in rows.MODELS:
        facts = rows.facts(row)
        for _ in range(1 if row.get("head") else 3):
            names = chance.sample(facts.files, chance.randint(0, len(facts.files)))
            documents = {key: chance.choice(junk) for key in (*facts.documents, "config.json")}
            index = facts.document("model_index.json")
            if index and chance.random() < 0.5:
                documents["model_index.json"] = {
                    key: chance.choice([value, *junk]) for key, value in index.items()
                }
            chosen = facts.chosen if any(file.path == facts.chosen for file in names) else ""
            changed = replace(facts, files=tuple(names), documents=documents, chosen=chosen)
            json.dumps(detect(changed, KNOWN).to_json())
            wanted(changed)


def test_what_is_wanted_is_what_is_looked_at() -> None:
    flux = rows.facts(next(row for row in rows.MODELS if row["id"] == "black-forest-labs/FLUX.1-dev"))
    asked = wanted(flux)
    assert asked.documents[0] == "model_index.json"
    assert "transformer/config.json" in asked.documents
    assert "transformer/diffusion_pytorch_model-00001-of-00003.safetensors" in asked.headers
    assert wanted(replace(flux, chosen="ae.safetensors")).headers == ("ae.safetensors",)
    assert not wanted(Facts("x", (File("a.gguf"),)))


def test_a_checkpoint_is_counted_by_its_parts() -> None:
    row = next(row for row in rows.MODELS if row.get("head") == "sdxl")
    facts = replace(rows.facts(row), files=(File(row["chosen"], 6_938_078_334),))
    found = {each.mode: each.vram / 1e9 for each in detect(facts, KNOWN).memory}
    assert found["full"] - found["model_offload"] == pytest.approx(1.8, abs=0.2), "text, VAE"


def test_memory_follows_from_sizes_and_numbers() -> None:
    """Of the base, the part that the file brings is not counted; 32-bit numbers count half."""
    gib = 1 << 30
    sizes = {"transformer": 20 * gib, "text_encoder_2": 8 * gib, "text_encoder": gib, "vae": gib}
    row = next(row for row in rows.MODELS if row["id"] == "black-forest-labs/FLUX.1-dev")
    base = rows.facts({**row, "files": [line for line in row["files"] if "-*-" not in line]})
    files = [file for file in base.files if ".index." not in file.path]
    files += [
        File(f"{name}/diffusion_pytorch_model.safetensors", size)
        for name, size in sizes.items()
        if name != "vae"
    ]
    files = [
        replace(file, size=sizes["vae"]) if file.path.startswith("vae/diffusion") else file
        for file in files
        if file.path != "text_encoder/model.safetensors"
    ]
    wide = SafetensorsHeader({}, {}, 8 * gib, {"F32": 8 * gib})
    base = replace(
        base, files=tuple(files), headers={"text_encoder_2/diffusion_pytorch_model.safetensors": wide}
    )
    whole = {each.mode: each for each in detect(base, KNOWN).memory}
    assert round((whole["full"].vram) / gib) == 20 + 4 + 1 + 1 + 3
    assert whole["model_offload"].vram < whole["full"].vram
    assert whole["sequential_offload"].vram < whole["model_offload_fp8"].vram
    assert whole["model_offload"].ram > whole["full"].ram
    file = next(row for row in rows.MODELS if row["id"] == "black-forest-labs/FLUX.1-dev flux1-dev")
    facts = replace(rows.facts(file), files=(File("flux1-dev.safetensors", 24 * gib),))
    alone = with_base_files(detect(facts, KNOWN), facts, base, KNOWN)
    assert {each.mode: round(each.vram / gib) for each in alone.memory}["full"] == 24 + 4 + 1 + 1 + 3
    eight = {name: replace(head, dtypes={"F8_E4M3": 1}) for name, head in facts.headers.items()}
    half = replace(facts, headers=eight, files=(File("flux1-dev.safetensors", 12 * gib),))
    assert with_base_files(detect(half, KNOWN), half, base, KNOWN).memory[0] == alone.memory[0]
    refused = with_base_files(detect(facts, KNOWN), facts, replace(base, gated=True, token=False), KNOWN)
    assert refused.refusal is not None
    assert "gated" in refused.refusal.sentence
