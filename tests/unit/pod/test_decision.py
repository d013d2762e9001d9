"""`decide` as start.sh calls it: a process of its own, with the environment alone."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packaging
import pytest
import yaml

from pod import decision
from pod.commands import run
from pod.volume import package_overlay

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
FAKES = ROOT / "tests" / "fakes"
GIB = 1024**3


@pytest.fixture
def decide(tmp_path: Path, flags_json: dict[str, Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Lay out /opt/podkiln as in an image, and run it as start.sh does."""
    opt = tmp_path / "opt"
    shutil.copytree(ROOT / "scripts" / "pod", opt / "pod")
    shutil.copy(ROOT / "scripts" / "__main__.py", opt)
    (opt / "flags.json").write_text(json.dumps(flags_json), encoding="utf-8")
    (opt / "models.json").write_text('{"schema": 1, "models": []}', encoding="utf-8")
    places = {"loras": ["loras"], "vae": ["vae"]}
    (opt / "folders.json").write_text(json.dumps({"schema": 1, "folders": places}), encoding="utf-8")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 1073741824 kB\n", encoding="utf-8")

    def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        places = {
            "PATH": f"{FAKES}:/usr/bin:/bin",
            "PODKILN_ROOT": str(opt),
            "PODKILN_RUN": str(tmp_path / "run"),
            "PODKILN_LOCAL": str(tmp_path / "local"),
            "WORKSPACE": str(tmp_path / "workspace"),
            "PODKILN_CGROUP_ROOT": str(tmp_path / "cgroup"),
            "PODKILN_MEMINFO": str(tmp_path / "meminfo"),
        }
        return subprocess.run(
            [sys.executable, "-I", "-S", str(opt), *(arguments or ("decide",))],
            env=places | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return call


def arguments_written(run: Path) -> list[str]:
    return (run / "comfyui.args").read_text(encoding="utf-8").split("\0")[:-1]


def test_it_writes_down_what_it_decided(decide: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cgroup" / "memory.max").write_text(f"{62 * GIB}\n", encoding="utf-8")
    done = decide(FAKE_GPU="24", COMFYUI_ARGS="--output-directory '/data/my out'")
    assert done.returncode == 0, done.stderr
    decision = json.loads((tmp_path / "run" / "decision.json").read_text(encoding="utf-8"))
    assert decision["args"] == arguments_written(tmp_path / "run")
    assert decision["args"][-4:] == ["10", "--disable-pinned-memory", "--output-directory", "/data/my out"]
    assert (
        decision["gpu"]["vram_mib"],
        decision["ram_mib"],
        decision["tier"],
    ) == (23028, 62 * 1024, "CONSUMER_24GB")
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [f"podkiln: {reason}" for reason in decision["reasons"]] == lines[:-1]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "boot.json",
        "comfyui.args",
        "comfyui.env",
        "constraints.txt",
        "decision.json",
        "volume_paths.yaml",
    ]
    seconds = json.loads((tmp_path / "run" / "boot.json").read_text(encoding="utf-8"))["seconds"]
    assert set(seconds) == {"gpu", "flags"}
    assert 0 <= seconds["flags"] < seconds["gpu"]
    assert (tmp_path / "workspace" / "output").is_dir()


def test_explain_prints_and_writes_nothing(decide: Callable[..., Any], tmp_path: Path) -> None:
    done = decide("decide", "--explain", FAKE_GPU="48")
    assert done.returncode == 0
    assert json.loads(done.stdout)["tier"] == "DATACENTER_48GB"
    assert not any((tmp_path / name).exists() for name in ("run", "workspace", "local"))


def test_explain_shows_files_as_they_were_understood_and_no_token(decide: Callable[..., Any]) -> None:
    url = f"https://files.test/a.safetensors?token=canary#sha256={'ab' * 32}"
    done = decide("decide", "--explain", MODELS=f"none,vae={url}", LORAS="sdxl:lora:civitai:1@2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requested_files"] == [
        {
            "ref": "https://files.test/a.safetensors",
            "source_variable": "MODELS",
            "source": "https",
            "sha256": "ab" * 32,
            "folder": "vae",
            "name": None,
        },
        {
            "ref": "civitai:1@2",
            "source_variable": "LORAS",
            "source": "civitai",
            "sha256": None,
            "folder": "loras",
            "name": None,
        },
    ]
    assert "podkiln: LORAS: to be fetched besides: civitai:1@2.\n" in done.stderr
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environ", "code", "sentence"),
    [
        (
            {"COMFYUI_ARGS": "--novr"},
            64,
            "podkiln: COMFYUI_ARGS: --novr is not a full name: write --novram.\n",
        ),
        ({"GPU_TIER": "x"}, 78, "podkiln: GPU_TIER='x' is not one of "),
        ({"PODKILN_NVIDIA_SMI_TIMEOUT": "x"}, 78, "podkiln: PODKILN_NVIDIA_SMI_TIMEOUT='x' is not a number"),
        (
            {"MODELS": "sdxl"},
            78,
            "podkiln: MODELS names 'sdxl', which this image does not offer: it offers none.\n",
        ),
        ({"LORAS": "civitai:22"}, 78, "podkiln: LORAS: 'civitai:22' could be a model or a version: write"),
        ({"MODELS": "lora=civitai:1@2"}, 78, "podkiln: MODELS: 'civitai:1@2' is to go to lora, which"),
    ],
)
def test_refusals_are_one_sentence_and_a_code(
    decide: Callable[..., Any], tmp_path: Path, environ: dict[str, str], code: int, sentence: str
) -> None:
    done = decide(FAKE_GPU="24", **environ)
    assert code == done.returncode
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
    assert not any((tmp_path / name).exists() for name in ("run", "workspace", "local"))


def test_damaged_image_data(decide: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "opt" / "models.json").write_text("{", encoding="utf-8")
    done = decide(FAKE_GPU="24")
    assert done.returncode == 65
    assert "models.json is damaged" in done.stderr


def test_a_run_directory_that_cannot_be_made(decide: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = decide(FAKE_GPU="24", PODKILN_RUN=str(tmp_path / "file" / "run"))
    assert done.returncode == 70
    assert "cannot be written" in done.stderr.splitlines()[-1]


def test_a_hanging_nvidia_smi_costs_its_limit_and_no_more(decide: Callable[..., Any]) -> None:
    done = decide("decide", "--explain", FAKE_GPU="hang", PODKILN_NVIDIA_SMI_TIMEOUT="0.2")
    assert done.returncode == 0
    assert "--cpu" in json.loads(done.stdout)["args"]


def test_cuda_device_in_comfyui_args_is_what_comfyui_will_see(decide: Callable[..., Any]) -> None:
    environ = {"FAKE_GPU": "pair", "CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    done = decide("decide", "--explain", COMFYUI_ARGS="--cuda-device 0", **environ)
    assert json.loads(done.stdout)["gpu"]["vram_mib"] == 46068
    done = decide("decide", "--explain", COMFYUI_ARGS="--default-device 0", **environ)
    assert json.loads(done.stdout)["gpu"]["visible"] == 2


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        ("127.0.0.1\tlocalhost x\n", "localhost"),
        ("127.0.0.1 pod localhost # mine\n::1 localhost\n", "localhost"),
        ("", "127.1"),
        ("::1 localhost\n# 127.0.0.1 localhost\n", "127.1"),
        ("127.0.0.1 localhost.localdomain\n", "127.1"),
        (None, "127.1"),
    ],
)
def test_comfyui_listens_where_this_pod_can_look_it_up(
    hosts: str | None, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "HOSTS", tmp_path / "hosts")
    if hosts is not None:
        (tmp_path / "hosts").write_text(hosts)
    given = ("--listen", "localhost", "--port", "18188", "--user-directory", "localhost")
    assert decision._with_loopback_name(given) == ("--listen", host, *given[2:])
    assert socket.gethostbyname("127.1") == "127.0.0.1"
    with pytest.raises(ValueError, match="does not appear"):
        ipaddress.ip_address("127.1")  # as ComfyUI-Manager asks whether its owner alone can reach it


def test_a_mistake_of_our_own_is_a_sentence_too(decide: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "opt/pod/flags/choose.py").write_text("raise RuntimeError('oops')", encoding="utf-8")
    done = decide(FAKE_GPU="24")
    assert done.returncode == 70
    assert "an internal error of podkiln stopped decide (RuntimeError: oops)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in decide(FAKE_GPU="24", PODKILN_DEBUG="1").stderr


@pytest.mark.parametrize("arguments", [("explode",), ("decide", "--loud")])
def test_unknown_words(decide: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    done = decide(*arguments)
    assert done.returncode == 70
    assert len(done.stderr.splitlines()) == 1


def test_it_needs_nothing_but_the_standard_library(decide: Callable[..., Any]) -> None:
    """-I -S hides site-packages: an import of anything installed would fail."""
    assert decide(FAKE_GPU="mig").returncode == 0


def as_in_an_image(tmp_path: Path, *modules: str) -> dict[str, str]:
    """Return the environment of a pod whose packages are these, besides `packaging`."""
    site = tmp_path / "venv" / "lib" / "python3" / "site-packages"
    site.mkdir(parents=True)
    (site / "packaging").symlink_to(Path(packaging.__file__).parent)
    (site / f"packaging-{packaging.__version__}.dist-info").mkdir()
    for module in modules:
        (site / module).mkdir()
        (site / module / "__init__.py").touch()
    return {"FAKE_GPU": "24", "PODKILN_VENV": str(tmp_path / "venv")}


def test_a_node_whose_name_is_no_utf_8_beside_one_that_is_left_out(
    decide: Callable[..., Any], tmp_path: Path
) -> None:
    environ = as_in_an_image(tmp_path)
    folder = tmp_path / "workspace" / "custom_nodes"
    for name in (b"caf\xe9", b"wrong"):
        (folder / os.fsdecode(name)).mkdir(parents=True)
    (folder / "wrong" / "requirements.txt").write_text("packaging<1")
    (tmp_path / "run").mkdir()
    for locale in ({}, {"LANG": "C"}, {"LC_ALL": "C.UTF-8"}):
        done = decide(**environ, **locale)
        assert done.returncode == 0, done.stderr
        assert b"--whitelist-custom-nodes\0caf\xe9\0" in (tmp_path / "run" / "comfyui.args").read_bytes()
        assert run.chosen(str(tmp_path / "run"))[-1] == os.fsdecode(b"caf\xe9")
        assert "wrong requires packaging<1" in done.stderr
        assert json.loads(decide("decide", "--explain", **environ, **locale).stdout)["volume"]["left_out"]
        for command in ("volume", "nodes", "doctor"):
            shown = decide(command, **environ, **locale)
            assert shown.returncode == 0, shown.stderr


def test_a_workspace_whose_name_is_no_utf_8(decide: Callable[..., Any], tmp_path: Path) -> None:
    workspace = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    for locale in ({}, {"LANG": "C"}, {"LC_ALL": "C.UTF-8"}):
        environ = {
            **as_in_an_image(tmp_path / f"opt{len(locale)}{[*locale]}"),
            "WORKSPACE": workspace,
            **locale,
        }
        done = decide(**environ)
        assert done.returncode == 0, done.stderr
        assert os.path.isdir(f"{workspace}/output")  # noqa: PTH112 - the point is the text
        assert b"/caf\xe9/output\0" in (tmp_path / "run" / "comfyui.args").read_bytes()
        assert b"WORKSPACE=" + os.fsencode(workspace) in (tmp_path / "run" / "comfyui.env").read_bytes()
        assert decide("volume", **environ).returncode == 0


def test_a_flag_whose_package_neither_image_nor_volume_has_is_refused(
    decide: Callable[..., Any], tmp_path: Path
) -> None:
    environ = {**as_in_an_image(tmp_path, "flash_attn"), "COMFYUI_ARGS": "--use-sage-attention"}
    done = decide(**environ)
    assert done.returncode == 64
    assert done.stderr == (
        "podkiln: COMFYUI_ARGS: --use-sage-attention needs the Python package sageattention, which neither "
        "this image nor the volume has: remove --use-sage-attention, or use an image that has "
        "sageattention.\n"
    )
    assert decide(**{**environ, "COMFYUI_ARGS": "--use-flash-attention"}).returncode == 0
    site = package_overlay.site(environ["PODKILN_VENV"])
    place = Path(package_overlay.base(str(tmp_path / "workspace"), site))
    (place / "set" / "sageattention").mkdir(parents=True)
    (place / "current").write_text("set\n")
    assert decide(**environ).returncode == 0


def test_a_base_directory_on_the_volume_is_laid_out_before_it_is_judged(
    decide: Callable[..., Any], tmp_path: Path
) -> None:
    assert decide(FAKE_GPU="24", COMFYUI_ARGS=f"--base-directory {tmp_path}/workspace").returncode == 0
    done = decide(FAKE_GPU="24", COMFYUI_ARGS=f"--base-directory {tmp_path}/elsewhere")
    assert done.returncode == 64
    assert "there is no 'custom_nodes' in" in done.stderr


def test_a_volume_that_may_not_be_read_is_said_and_left_alone(
    decide: Callable[..., Any], tmp_path: Path
) -> None:
    """As another user, for whom it is closed: what root_squash makes of root."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = Path(folder)
        shutil.copytree(tmp_path / "opt", place / "opt")
        for name in ("run", "local", "volume", "volume/models"):
            (place / name).mkdir()
            (place / name).chmod(0o777)
        place.chmod(0o755)
        (place / "volume").chmod(0o700)
        environ = {
            "PODKILN_ROOT": f"{place}/opt",
            "PODKILN_RUN": f"{place}/run",
            "PODKILN_LOCAL": f"{place}/local",
            "WORKSPACE": f"{place}/volume",
            "PATH": f"{FAKES}:/usr/bin:/bin",
            "FAKE_GPU": "24",
        }
        python = shutil.which("python3", path="/usr/bin") or sys.executable

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, "-I", "-S", f"{place}/opt", *arguments],
                env=environ,
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
                user=65534,
                group=65534,
                extra_groups=[],
            )

        done = call("decide")
        assert done.returncode == 0, done.stderr
        assert f"{place}/volume is left alone (it cannot be read (Permission denied))" in done.stderr
        assert f"WORKSPACE={place}/local/workspace" in (place / "run/comfyui.env").read_text().split("\0")
        doctor = call("doctor")
        assert doctor.returncode == 0, doctor.stderr
        assert f"{place}/volume is left alone" in doctor.stderr
        assert "nothing is wrong" not in doctor.stderr
        assert call("volume").returncode == call("nodes").returncode == 0


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"HF_TOKEN": '"hf_canary"'},
            "HF_TOKEN has quotation marks around it, which docker --env-file keeps",
        ),
        ({"HF_TOKEN": "hf_canary\nhf_canary"}, "HF_TOKEN holds characters that no token has"),
        ({"FETCH_CONNECTIONS": "100000"}, "FETCH_CONNECTIONS='100000' is not a whole number from 1 to 256."),
        ({"HF_ENDPOINT": "nonsense"}, "HF_ENDPOINT is not an address like https://huggingface.co"),
        ({"COMFYUI_PORT": "tcp://10.0.0.1:8188"}, "Kubernetes sets it for a service called comfyui"),
        ({"WORKSPACE": "/a\x1b[31m"}, "holds control characters"),
        ({"PODKILN_DOCTOR": "wrn"}, "PODKILN_DOCTOR='wrn' is not one of warn. Did you mean warn?"),
    ],
)
def test_what_cannot_work_later_is_refused_now(
    decide: Callable[..., Any], tmp_path: Path, environ: dict[str, str], sentence: str
) -> None:
    done = decide(FAKE_GPU="24", **environ)
    assert done.returncode == 78
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "canary" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_file_of_model_paths_that_would_end_comfyui_is_refused(
    decide: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("a:\n  base_path: 3\n")
    done = decide(FAKE_GPU="24", COMFYUI_ARGS=f"--extra-model-paths-config {path}", PODKILN_VENV=sys.prefix)
    assert (done.returncode, "base_path of its section 'a' is not a path" in done.stderr) == (64, True), (
        done.stderr
    )


def test_an_empty_choice_of_cards_counts_as_none(decide: Callable[..., Any]) -> None:
    """As compose's `${X:-}` leaves it."""
    done = decide("decide", "--explain", FAKE_GPU="24", CUDA_VISIBLE_DEVICES="")
    assert json.loads(done.stdout)["gpu"]["vram_mib"] == 23028


@pytest.mark.parametrize("value", ["1_0", "٣"])
@pytest.mark.parametrize("name", ["PODKILN_NVIDIA_SMI_TIMEOUT", "PODKILN_VOLUME_TIMEOUT"])
def test_what_only_python_takes_for_a_number_is_refused(
    decide: Callable[..., Any], name: str, value: str
) -> None:
    assert decide(**{name: value}).returncode == 78


def test_nodes_of_the_image_are_chosen_with_their_folders_and_variables(
    decide: Callable[..., Any], tmp_path: Path
) -> None:
    environ = as_in_an_image(tmp_path)
    (tmp_path / "workspace" / "custom_nodes" / "Mine").mkdir(parents=True)
    (tmp_path / "linked" / "Far").mkdir(parents=True)
    (tmp_path / "links.yaml").write_text(f"a: {{custom_nodes: {tmp_path}/linked}}")
    (tmp_path / "venv/lib/python3/site-packages/yaml").symlink_to(Path(yaml.__file__).parent)
    more: dict[str, Any] = {
        "title": "",
        "repo": "",
        "tree": None,
        "submodules": [],
        "patches": [],
        "code": [],
    }
    model = {"id": "film", "env": "ENABLE_FILM", "default": False, "baked": False, "unmet": []}
    model |= {"memory_modes": [], "vram_gb": 1, "ram_gb": 1, "files": [], "task": None, "requires": []}
    nodes = [
        {
            "id": "film",
            "folder": "Film",
            "included": True,
            "environment": {"CKPTS": "{workspace}/models/film"},
        },
        {"id": "asks", "folder": "Asks", "included": False, "environment": {}},
    ]
    nodes = [{**more, **each, "commit": "c" * 40, "models": ["film"]} for each in nodes]
    (tmp_path / "opt" / "nodes.json").write_text(json.dumps({"schema": 1, "nodes": nodes}))
    (tmp_path / "opt" / "models.json").write_text(json.dumps({"schema": 1, "models": [model]}))
    args = f"--extra-model-paths-config {tmp_path}/links.yaml"
    off = decide(**environ, COMFYUI_ARGS=args)
    assert off.returncode == 0, off.stderr
    assert "not loaded: film (ENABLE_FILM=true), asks (ENABLE_FILM=true); NODES=all loads" in off.stderr
    words = arguments_written(tmp_path / "run")
    at = words.index("--whitelist-custom-nodes")
    assert words[at - 1 : at + 3] == ["--disable-all-custom-nodes", words[at], "Far", "Mine"]
    assert not (tmp_path / "workspace" / "models").exists()
    explained = json.loads(decide("decide", "--explain", **environ, ENABLE_FILM="1").stdout)
    assert [(each["id"], each["loaded"], each["fetch"], each["why"]) for each in explained["nodes"]] == [
        ("film", True, False, "film needs it"),
        ("asks", True, True, "film needs it"),
    ]
    assert decide(**environ, ENABLE_FILM="1").returncode == 0
    assert "--disable-all-custom-nodes" not in arguments_written(tmp_path / "run")
    assert (tmp_path / "workspace" / "models" / "film").is_dir()
    written = (tmp_path / "run" / "comfyui.env").read_text().split("\0")
    assert f"CKPTS={tmp_path}/workspace/models/film" in written
    assert (tmp_path / "run" / "nodes.fetch").exists()
    assert f"{tmp_path}/local/nodes" in (tmp_path / "run" / "volume_paths.yaml").read_text()
    wrong = decide(**environ, NODES="fim")
    assert (wrong.returncode, "did you mean film?" in wrong.stderr) == (78, True)
