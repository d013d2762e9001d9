"""The environment: every malformed value is one sentence and exit code 78."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies as st

from pod.errors import SETTING_MALFORMED, PodError
from pod.flags import settings
from pod.hardware import nvidia_smi
from pod.util import env

if TYPE_CHECKING:
    from pod.flags.rules import Rules

TOGGLES = ("ENABLE_QWEN_EDIT", "ENABLE_SDXL_BASE")

MALFORMED = [
    (
        {"COMFYUI_PORT": "http"},
        "COMFYUI_PORT='http' is not a valid port: give a whole number from 1 to 65535.",
    ),
    ({"COMFYUI_PORT": "0"}, "COMFYUI_PORT='0'"),
    ({"COMFYUI_PORT": "65536"}, "COMFYUI_PORT='65536'"),
    ({"COMFYUI_PORT": "-1"}, "COMFYUI_PORT='-1'"),
    ({"COMFYUI_PORT": "8188/http"}, "COMFYUI_PORT='8188/http'"),
    ({"COMFYUI_PORT": "8188.0"}, "COMFYUI_PORT='8188.0'"),
    ({"COMFYUI_PORT": "٨١٨٨"}, "COMFYUI_PORT='٨١٨٨'"),  # int() would take these digits
    ({"GPU_TIER": "gaming"}, "GPU_TIER='gaming' is not one of auto, consumer, prosumer, datacenter"),
    ({"GPU_TIER": "CONSUMER_24"}, "Did you mean CONSUMER_24GB?"),
    ({"GPU_TIER": "consumer,prosumer"}, "GPU_TIER='consumer,prosumer' is not one of"),
    ({"GPU_TIER": "24"}, "GPU_TIER='24' is not one of"),
    ({"GPU_MEMORY_MODE": "lowvram"}, "GPU_MEMORY_MODE='lowvram' is not one of auto, model_full_load, full"),
    ({"GPU_MEMORY_MODE": "cpu_offload"}, "Did you mean model_cpu_offload?"),
    ({"GPU_MEMORY_MODE": "model_full_load_and_qint8"}, "Did you mean model_full_load_and_qfloat8?"),
    (
        {"FLAG_PROFILE": "agressive"},
        "FLAG_PROFILE='agressive' is not one of dynamic, conservative, no_xformers.",
    ),
    ({"WORKSPACE": "workspace"}, "WORKSPACE='workspace' is not an absolute path"),
    ({"WORKSPACE": "~/work"}, "WORKSPACE='~/work' is not an absolute path"),
    ({"WORKSPACE": "/a/../etc"}, "WORKSPACE='/a/../etc' is not an absolute path"),
    ({"MODELS": ","}, "MODELS=',' names no model"),
    ({"MODELS": "all,sdxl-base"}, "all cannot be combined with ids"),
    ({"MODELS": "none all"}, "none cannot be combined with ids"),
    (
        {"MODELS": "all,sdxl-base,civitai:1@2"},
        "MODELS: all cannot be combined with ids, as in all, sdxl-base.",
    ),
    ({"MODELS": "sdxl-base,civitai:22"}, "MODELS: 'civitai:22' could be a model or a version"),
    ({"MODELS": "https://me:canary@files.test/a"}, "MODELS: 'https://…@files.test/a' holds a login"),
    (
        {"LORAS": "add-detail"},
        "LORAS: 'add-detail' is not the address of a file: write civitai:MODEL@VERSION",
    ),
    ({"LORAS": "civitai:1@2 <lora:x:0.8>"}, "LORAS: '<lora:x:0.8>' ends in a weight"),
    ({"LORAS": "https://files.test/a.pt?t=canary"}, "LORAS: 'https://files.test/a.pt?…' has no sha256"),
    ({"ENABLE_QWEN_EDIT": "maybe"}, "ENABLE_QWEN_EDIT='maybe' is neither yes nor no"),
    ({"ENABLE_QWEN_EDIT": "2"}, "ENABLE_QWEN_EDIT='2' is neither yes nor no"),
    ({"ENABLE_SDXL_BASE": "y"}, "ENABLE_SDXL_BASE='y' is neither yes nor no"),
    ({"ENABLE_SDXL_BASE": "enabled"}, "ENABLE_SDXL_BASE='enabled' is neither yes nor no"),
]


@pytest.mark.parametrize(("environ", "sentence"), MALFORMED)
def test_a_malformed_value_is_one_sentence(known: Rules, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(env.SettingError) as refused:
        settings.read(environ, known, TOGGLES)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "canary" not in str(refused.value)
    assert refused.value.exit_code == SETTING_MALFORMED == 78


def test_the_table_is_as_long_as_promised() -> None:
    assert len(MALFORMED) >= 20


def test_nothing_set_is_the_images_defaults(known: Rules) -> None:
    """Template forms send empty strings for what was not filled in: they count as unset."""
    empty = dict.fromkeys(
        ["COMFYUI_PORT", "GPU_TIER", "GPU_MEMORY_MODE", "MODELS", "WORKSPACE", "COMFYUI_ARGS", *TOGGLES], " "
    )
    expected = settings.Settings(port=8188)
    assert expected == settings.read({}, known, TOGGLES) == settings.read(empty, known, TOGGLES)


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"COMFYUI_PORT": "3000"}, "port", 3000),
        ({"GPU_TIER": "Consumer"}, "tier", "consumer"),
        ({"GPU_TIER": "consumer_24gb"}, "tier", "CONSUMER_24GB"),
        ({"GPU_TIER": "AUTO"}, "tier", "auto"),
        ({"GPU_MEMORY_MODE": "full"}, "memory_mode", "model_full_load"),
        ({"GPU_MEMORY_MODE": "Model_CPU_Offload"}, "memory_mode", "model_cpu_offload"),
        ({"GPU_MEMORY_MODE": "auto"}, "memory_mode", "auto"),
        ({"FLAG_PROFILE": "conservative"}, "profile", "conservative"),
        ({"WORKSPACE": "/data/"}, "workspace", "/data"),
        ({"MODELS": "SDXL-Base, pony\n wan"}, "models", ("sdxl-base", "pony", "wan")),
        ({"MODELS": "SDXL-Base,civitai:1@2"}, "models", ("sdxl-base",)),
        ({"MODELS": "civitai:1@2"}, "models", ()),  # none of the image's, then
        ({"MODELS": "all civitai:1@2"}, "models", ("all",)),
        ({"LORAS": "civitai:1@2"}, "models", None),
        ({"COMFYUI_ARGS": " --cpu "}, "arguments", "--cpu"),
    ],
)
def test_what_is_set(known: Rules, environ: dict[str, str], field: str, value: object) -> None:
    assert value == getattr(settings.read(environ, known, TOGGLES), field)


def test_files_named_by_their_address(known: Rules) -> None:
    environ = {
        "MODELS": "pony,hf:o/r/A.safetensors,hf:o/r/A.safetensors",
        "LORAS": "civitai:1@2\nciviTAI:3@4",
    }
    wishes = settings.read(environ, known, TOGGLES).wishes
    assert [(wish.where, wish.word) for wish in wishes] == [
        ("MODELS", "hf:o/r@main/A.safetensors"),
        ("LORAS", "civitai:1@2"),
        ("LORAS", "civitai:3@4"),
    ]


@pytest.mark.parametrize("word", ["true", "1", "yes", "TRUE", "Yes", " true "])
def test_yes(known: Rules, word: str) -> None:
    assert settings.read({"ENABLE_QWEN_EDIT": word}, known, TOGGLES).toggle("ENABLE_QWEN_EDIT") is True


@pytest.mark.parametrize("word", ["false", "0", "no", "False", "NO"])
def test_no(known: Rules, word: str) -> None:
    assert settings.read({"ENABLE_QWEN_EDIT": word}, known, TOGGLES).toggle("ENABLE_QWEN_EDIT") is False


def test_a_slip_in_a_toggles_name_is_a_warning(known: Rules) -> None:
    """It may be another tool's variable, so it cannot be an error."""
    asked = settings.read({"ENABLE_QUEN_EDIT": "maybe"}, known, TOGGLES)
    assert asked.warnings == (
        "ENABLE_QUEN_EDIT names no model of this image; did you mean ENABLE_QWEN_EDIT?",
    )


def test_other_tools_variables_are_left_alone(known: Rules) -> None:
    assert settings.read({"ENABLE_HTTPS": "maybe", "ENABLE_AUTH": "x"}, known, TOGGLES).warnings == ()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "61", "nan", "inf"])
def test_a_malformed_time_limit(text: str) -> None:
    with pytest.raises(PodError, match="PODKILN_NVIDIA_SMI_TIMEOUT=") as refused:
        nvidia_smi.limit({"PODKILN_NVIDIA_SMI_TIMEOUT": text})
    assert refused.value.exit_code == SETTING_MALFORMED


def test_time_limits() -> None:
    assert [nvidia_smi.limit({}), nvidia_smi.limit({"PODKILN_NVIDIA_SMI_TIMEOUT": "0.5"})] == [5.0, 0.5]


LATER = [
    ({"HF_TOKEN": "'canary'"}, "HF_TOKEN has quotation marks"),
    ({"HF_TOKEN": '"canary'}, "HF_TOKEN has quotation marks"),
    ({"HF_TOKEN": "hf canary"}, "HF_TOKEN holds characters that no token has"),
    ({"HF_TOKEN": "Bearer canary"}, "HF_TOKEN holds characters"),
    ({"HF_TOKEN": "hf_canary\r\nX-Evil: 1"}, "HF_TOKEN holds characters"),
    ({"HF_TOKEN": "hf_canaryé"}, "HF_TOKEN holds characters"),
    ({"HF_TOKEN": "hf_canary\udce9"}, "HF_TOKEN holds characters"),
    ({"HF_TOKEN": "canary" * 1000}, "HF_TOKEN holds characters"),
    ({"HF_TOKEN": "{{ RUNPOD_SECRET_canary }}"}, "HF_TOKEN is the name of a secret that was not filled in"),
    ({"CIVITAI_TOKEN": "$canary"}, "CIVITAI_TOKEN is the name of a secret"),
    ({"HF_ENDPOINT": "nonsense"}, "HF_ENDPOINT is not an address like https://huggingface.co"),
    ({"HF_ENDPOINT": "ftp://hub.test"}, "HF_ENDPOINT is not an address"),
    ({"HF_ENDPOINT": '"https://hub.test"'}, "HF_ENDPOINT is not an address"),
    ({"HF_ENDPOINT": "https://me:canary@hub.test"}, "HF_ENDPOINT is not an address"),
    ({"HF_ENDPOINT": "https://[::1"}, "HF_ENDPOINT is not an address"),
    ({"HF_ENDPOINT": "https://hub.test:99999"}, "HF_ENDPOINT is not an address"),
    ({"HF_ENDPOINT": "https://hub.test\nx"}, "HF_ENDPOINT is not an address"),
    ({"HF_ENDPOINT": f"https://{'a' * 64}.test"}, "HF_ENDPOINT is not an address like"),
    ({"HF_ENDPOINT": "https://a..b"}, "HF_ENDPOINT is not an address like"),
    ({"CIVITAI_ENDPOINT": "https://"}, "CIVITAI_ENDPOINT is not an address like https://civitai.com"),
    ({"FETCH_CONNECTIONS": "100000"}, "FETCH_CONNECTIONS='100000' is not a whole number from 1 to 256."),
    ({"FETCH_CONNECTIONS": "9" * 5000}, "FETCH_CONNECTIONS='999"),
    ({"FETCH_JOBS": "0"}, "FETCH_JOBS='0' is not a whole number"),
    ({"FETCH_JOBS": "²"}, "FETCH_JOBS='²' is not a whole number"),
    ({"FETCH_STAGING": "sometimes"}, "FETCH_STAGING='sometimes' is neither auto nor never"),
    ({"PODKILN_FETCH_TRIES": "-1"}, "PODKILN_FETCH_TRIES='-1' is not a whole number from 1 to 1000."),
    ({"PODKILN_DOCTOR": "off"}, "PODKILN_DOCTOR='off' is not one of warn."),
    ({"PODKILN_LOCAL": "tmp"}, "PODKILN_LOCAL='tmp' is not an absolute path: give one such as /local."),
    ({"CUDA_DEVICE_ORDER": "PCI"}, "CUDA_DEVICE_ORDER='PCI' is not one of FASTEST_FIRST, PCI_BUS_ID."),
    ({"WORKSPACE": "/work\nspace"}, "holds control characters (a line break, perhaps)"),
    ({"WORKSPACE": "/work\x7f"}, "holds control characters"),
    ({"WORKSPACE": "$HOME/work"}, "WORKSPACE='$HOME/work' is not an absolute path"),
    ({"WORKSPACE": "/home/$USER"}, "WORKSPACE='/home/$USER' holds a $, and variables are not expanded here"),
    ({"COMFYUI_PORT": "tcp://10.0.0.1:8188"}, "Kubernetes sets it for a service called comfyui; set enable"),
    ({"ENABLE_SDXL": "true"}, "ENABLE_SDXL names no model of this image: did you mean ENABLE_SDXL_BASE?"),
    ({"ENABLE_QUEN_EDIT": "1"}, "ENABLE_QUEN_EDIT names no model of this image: did you mean ENABLE_QWEN"),
    ({"enable_qwen_edit": "yes"}, "enable_qwen_edit names no model of this image: did you mean ENABLE_QWEN"),
]


@pytest.mark.parametrize(("environ", "sentence"), LATER, ids=[f"{c[0]}"[:40] for c in LATER])
def test_what_is_read_later_is_checked_now(known: Rules, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(env.SettingError) as refused:
        settings.read(environ, known, TOGGLES)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "canary" not in str(refused.value)
    assert len(str(refused.value)) < 500
    assert refused.value.exit_code == SETTING_MALFORMED


@pytest.mark.parametrize(
    "environ",
    [
        {"HF_TOKEN": " hf_abc.DEF-~+/= \n"},
        {"HF_ENDPOINT": "https://mirror.test:8443/hf/"},
        {"FETCH_CONNECTIONS": "256", "FETCH_JOBS": "007"},
        {"FETCH_STAGING": "/var/tmp/x"},
        {"PODKILN_DOCTOR": "Warn"},
        {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"},
        {"WORKSPACE": "/caf\udce9/é"},
    ],
)
def test_what_can_work_is_taken(known: Rules, environ: dict[str, str]) -> None:
    assert settings.read(environ, known, TOGGLES).warnings == ()


def test_a_model_that_the_image_does_not_offer_is_named(known: Rules) -> None:
    asked = settings.read({"ENABLE_FLUX": "true", "ENABLE_TELEMETRY": "false"}, known, TOGGLES)
    (warning,) = asked.warnings
    assert warning == (
        "ENABLE_FLUX, ENABLE_TELEMETRY name no model of this image, so podkiln does nothing about it; the "
        "models' variables are ENABLE_QWEN_EDIT, ENABLE_SDXL_BASE"
    )
    assert "are none" in settings.read({"ENABLE_FLUX": "true"}, known).warnings[0]


NAMES = st.sampled_from(
    (
        *("COMFYUI_PORT", "GPU_TIER", "GPU_MEMORY_MODE", "FLAG_PROFILE", "WORKSPACE", "MODELS", "LORAS"),
        *("HF_TOKEN", "CIVITAI_TOKEN", "HF_ENDPOINT", "CIVITAI_ENDPOINT", "FETCH_JOBS", "FETCH_STAGING"),
        *("PODKILN_DOCTOR", "PODKILN_LOCAL", "CUDA_DEVICE_ORDER", "PODKILN_FETCH_CHUNK"),
        *("ENABLE_QWEN_EDIT", "ENABLE_SDXL", "ENABLE_X"),
    )
)


@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    st.dictionaries(
        NAMES, st.one_of(st.text(), st.text("0123456789²٣"), st.text("/.$:[]@ \n\"'\udce9")), max_size=4
    )
)
@hypothesis.example({"COMFYUI_PORT": "9" * 5000})
@hypothesis.example({"HF_ENDPOINT": "https://[::1"})
@hypothesis.example({"HF_ENDPOINT": "https://a:²"})
@hypothesis.example({"WORKSPACE": "/" + "a" * 100_000})
def test_any_environment_is_read_or_refused_in_one_sentence(known: Rules, environ: dict[str, str]) -> None:
    begun = time.monotonic()
    said = ""
    try:
        settings.read(environ, known, TOGGLES)
    except env.SettingError as refused:
        said = str(refused)
    assert "\n" not in said
    assert time.monotonic() - begun < 1


def test_words_that_people_use_for_none_and_for_yes_and_no(known: Rules) -> None:
    asked = {"LORAS": "none", "ENABLE_A": "on", "ENABLE_B": "OFF"}
    found = settings.read(asked, known, {"ENABLE_A", "ENABLE_B"})
    assert (found.wishes, dict(found.toggles)) == ((), {"ENABLE_A": True, "ENABLE_B": False})


@pytest.mark.parametrize(
    "environ",
    [{"HF_ENDPOINT": "https://.."}, {"CIVITAI_ENDPOINT": "https://a..b"}, {"WORKSPACE": "/" + "n" * 300}],
)
def test_an_address_or_path_that_can_never_be_one_is_refused(known: Rules, environ: dict[str, str]) -> None:
    with pytest.raises(PodError) as refused:
        settings.read(environ, known)
    assert refused.value.exit_code == 78
