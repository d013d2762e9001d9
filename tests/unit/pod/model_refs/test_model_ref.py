"""Words of MODELS, LORAS and the command line: what they wish for, and what is told off."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pod.errors import PodError
from pod.model_refs import model_ref
from pod.model_refs.addresses import ModelRefError
from pod.model_refs.models_json import Folders
from pod.util import printable

HEX = "ab" * 32
FOLDERS = Folders(
    {name: [name] for name in ("loras", "checkpoints", "vae", "upscale_models")}
    | {"diffusion_models": ["diffusion_models", "unet"]},
    frozenset({"animatediff_models"}),
)


@pytest.mark.parametrize(
    ("word", "folder", "name"),
    [
        ("civitai:1@2", None, None),
        ("loras=civitai:1@2", "loras", None),
        ("loras/style=civitai:1@2", "loras/style", None),
        ("loras/style/mine.safetensors=hf:o/r/a.safetensors", "loras/style", "mine.safetensors"),
        ("models/vae/=hf:o/r/a.safetensors", "vae", None),
        (f"vae/a.pt=https://files.test/a?x=y#sha256={HEX}", "vae", "a.pt"),
        ("vae=https://civitai.com/models/1?modelVersionId=2", "vae", None),
    ],
)
def test_the_place_may_be_said_beforehand(word: str, folder: str | None, name: str | None) -> None:
    parsed = model_ref.parse("MODELS", word)
    assert (parsed.folder, parsed.name) == (folder, name)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("../x=civitai:1@2", "is not a plain path below the models folder"),
        ("/etc=civitai:1@2", "is not a plain path"),
        ("loras//x=civitai:1@2", "is not a plain path"),
        ("=civitai:1@2", "is not a plain path"),
        (".git=civitai:1@2", "which is not the name of a file or folder"),
        ("loras/-x=civitai:1@2", "which is not the name of a file or folder"),
        (f"{'x' * 201}=civitai:1@2", "more than 200 bytes"),
        ("mine.safetensors=civitai:1@2", "begins with a file's name and no folder"),
        ("loras=mine", "is not the address of a file: write civitai:MODEL@VERSION"),
        ("org/repo/a.safetensors", "is not the address of a file"),
        ("add-detail:0.8", "ends in a weight, which belongs in the workflow"),
        ("<lora:add-detail:1>", "remove ':1', and write civitai:MODEL@VERSION"),
        ("civitai:1@2:0.8", "remove ':0.8'"),
        ("hf:o/r/a.safetensors:-.5", "remove ':-.5'"),
        (f"civitai:1@2#sha256={HEX[1:]}", "has a sha256 of 63 characters"),
        (f"civitai:1@2#sha256={HEX[1:]}g", "64 hex digits are expected"),
        ("https://files.test/a.safetensors", "has no sha256"),
        ("https://files.test/a.safetensors#sha512=0", "has no sha256"),
    ],
)
def test_a_malformed_word_is_told_off(word: str, sentence: str) -> None:
    with pytest.raises(ModelRefError) as caught:
        model_ref.parse("MODELS", word)
    assert sentence in str(caught.value)


def test_a_listed_hash_goes_with_every_form_in_either_case() -> None:
    for word in ("civitai:1@2", "hf:o/r/a.ckpt", "https://files.test/a"):
        assert model_ref.parse("MODELS", f"{word}#sha256={HEX.upper()}").sha256 == HEX
    assert model_ref.parse("MODELS", "https://civitai.com/models/1?modelVersionId=2#gallery").sha256 is None


def test_loras_takes_loras_alone() -> None:
    assert model_ref.parse("LORAS", "loras/style=civitai:1@2").only_lora
    assert not model_ref.parse("MODELS", "loras/style=civitai:1@2").only_lora
    with pytest.raises(ModelRefError, match="is to go to vae, and LORAS only takes LoRAs"):
        model_ref.parse("LORAS", "vae=civitai:1@2")


def test_ids_and_addresses_are_told_apart() -> None:
    ids, wishes = model_ref.read("MODELS", ["SDXL-Base", "civitai:1@2", "pony", "civitai:1@2"], 78)
    assert ids == ["sdxl-base", "pony"]
    assert [each.word for each in wishes] == ["civitai:1@2"]  # once
    with pytest.raises(PodError, match=r"^LORAS: 'pony' is not the address of a file: write") as caught:
        model_ref.read("LORAS", ["pony"], 78)
    assert caught.value.exit_code == 78


def test_words_are_split_at_blanks_and_commas_but_not_inside_a_query() -> None:
    signed = f"https://files.test/a.pt?sig=1,2&x=3#sha256={HEX}"
    assert model_ref.words(f" sdxl-base,pony\n civitai:1@2 ,{signed},vae=hf:o/r/a.pt ") == [
        *("sdxl-base", "pony", "civitai:1@2"),
        signed,
        "vae=hf:o/r/a.pt",
    ]
    page = "https://hf.co/o/r/blob/main/a.pt?download=true"
    assert model_ref.words(f"{page},civitai:1@2") == [page, "civitai:1@2"]
    assert model_ref.words(" , ") == []


@pytest.mark.parametrize(
    "word",
    [
        "https://me:canary@files.test/a",
        "https://canary@files.test/a",
        "https://files.test/a?token=canary",
        "https://files.test:x/a?token=canary#canary",
        "vae=https://me:canary@files.test/a",
        "me:canary@files.test/a",
        "hf:org/repo?token=canary",
        "https://civitai.com/api/download/images/1?token=canary",
        f"https://me:can@ary:canary@files.test/a#sha256={HEX}",
        "https:/me:canary@files.test/a",
        "hf:me:canary@files.test",
        "https://files.test/a&token=canary",
        "hf:org/repo?api_key=canary",
    ],
)
def test_no_secret_of_a_malformed_word_is_shown(word: str) -> None:
    with pytest.raises(PodError) as caught:
        model_ref.read("MODELS", [word], 78)
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_remembered_and_told_holds_no_secret() -> None:
    parsed = model_ref.parse("LORAS", f"https://files.test/a.pt?token=canary#sha256={HEX}")
    assert parsed.key == f"loras=https://files.test/a.pt#sha256={HEX}"
    assert parsed.to_json() == {
        "ref": "https://files.test/a.pt",
        "source_variable": "LORAS",
        "source": "https",
        "sha256": HEX,
        "folder": "loras",
        "name": None,
    }
    assert "canary" not in repr(parsed)


def test_the_same_file_for_two_places_is_two_wishes() -> None:
    keys = {
        model_ref.parse(where, word).key
        for where, word in (
            ("MODELS", "civitai:1@2"),
            ("LORAS", "civitai:1@2"),
            ("MODELS", "vae/x.pt=civitai:1@2"),
            ("MODELS", f"civitai:1@2#sha256={HEX}"),
        )
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("lora=civitai:1@2", "is to go to lora, which ComfyUI does not read: did you mean loras?"),
        ("upscale=civitai:1@2", "did you mean upscale_models?"),
        ("checkpoint/sdxl=civitai:1@2", "did you mean checkpoints?"),
        ("lroas=civitai:1@2", "did you mean loras?"),
    ],
)
def test_a_slip_in_a_folder_is_refused(word: str, sentence: str) -> None:
    with pytest.raises(PodError) as caught:
        model_ref.check_folders([model_ref.parse("MODELS", word)], FOLDERS, 78)
    assert str(caught.value).startswith("MODELS: 'civitai:1@2' ")
    assert str(caught.value).endswith(sentence)


def test_a_folder_of_a_custom_node_is_taken_and_said() -> None:
    words = ("ipadapter=civitai:1@2", "animatediff_models=civitai:1@2", "unet=civitai:1@2", "civitai:1@2")
    wishes = [model_ref.parse("MODELS", word) for word in words]
    assert model_ref.check_folders(wishes, FOLDERS, 78) == [
        "civitai:1@2 goes to ipadapter, which ComfyUI itself does not read: a custom node has to"
    ]


def test_the_boots_wishes() -> None:
    found = model_ref.of_environment({"MODELS": "sdxl-base,civitai:1@2", "LORAS": "civitai:3@4"})
    assert [(each.where, each.word) for each in found] == [
        ("MODELS", "civitai:1@2"),
        ("LORAS", "civitai:3@4"),
    ]
    assert model_ref.of_environment({}) == []


# --- of any length and shape

PIECES = (
    *("/", "?", "?,", "a:", "=:", "@", ",a=b", "#", "hf:", "civitai:", ".:", "//@", "https://a?b,", ":@"),
    *(
        "-:a:",
        "\\",
        "hf:a/b/c.pt,",
        "a:1.",
        "hf://",
        "\u00b2",
        "a.b-c:",
        "[",
        "%",
        "urn:air:",
        "&",
        "x:y:civitai:",
    ),
    *("#sha256=", "\ud800", "\0", "+", "civitai:1@2?fileId=", "models/"),
)


@pytest.mark.parametrize("piece", PIECES)
def test_a_variable_as_long_as_can_be_takes_no_time(piece: str) -> None:
    """100 kB of slashes took 153 s once."""
    value = (piece * 130_000)[:130_000]
    begun = time.process_time()
    for where in ("MODELS", "LORAS"):
        for given_words in (model_ref.words(value), [value]):
            try:
                model_ref.read(where, given_words, 78)
            except PodError as refused:
                assert len(str(refused)) < 600  # noqa: PT017 - not all are refused
    printable.shown(value)
    assert time.process_time() - begun < 5  # a core that is shared takes up to three times as long


@settings(max_examples=300, deadline=5000)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@example("https:/me:canary@h/a")
@example("hf:me:canary@h")
@example("https://h/a&token=canary")
@example("https://civitai.com/api/download/models/777?fileId=" + "7" * 5000)
@example("https://[::1/a")
@example("civitai:\u00b2@\u0662")
@example("hf:a/b@" + "x" * 5000 + " y/z")
def test_any_word_is_a_wish_or_one_sentence(text: str) -> None:
    said = ""
    try:
        _, wishes = model_ref.read("MODELS", model_ref.words(text), 78)
        for each in wishes:
            assert model_ref.parse("MODELS", each.word + ("#sha256=" + HEX if each.sha256 else "")).key
    except PodError as refused:
        said = str(refused)
    assert "canary" not in said
    assert said.isprintable()
    assert len(said) < 600
