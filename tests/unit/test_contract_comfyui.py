"""The contract server says and does what ComfyUI 0.33.0 was seen to say and do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

import pytest
from images import COMFYUI
from registries import free_port

from comfy import command
from podkiln.render import flags_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an image has in /opt/podkiln."""
    folder = tmp_path_factory.mktemp("podkiln")
    (folder / "flags.json").write_text(json.dumps(flags_json.to_json("0.33.0", [])))
    return folder


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PODKILN_ROOT": str(root), "CONTRACT_BOOT_SECONDS": "0"}


def run(root: Path, *words: str) -> tuple[int, str]:
    """Run it to its end; returns the exit code and the last line that it printed."""
    argv = [sys.executable, "main.py", *words]
    done = subprocess.run(
        argv, cwd=COMFYUI, env=environment(root), capture_output=True, text=True, check=False, timeout=20
    )
    return done.returncode, (done.stderr + done.stdout).strip().splitlines()[-1]


# Words, exit code, the end of the last line: as the real parser answers them.
REFUSED = [
    ("--medvram --cpu-text-encoder --force-fp16", "unrecognized arguments: --medvram --cpu-text-encoder"),
    ("--normalvram", "unrecognized arguments: --normalvram"),
    ("--lowvram --cpu", "argument --cpu: not allowed with argument --lowvram"),
    ("--lowvram --novram", "argument --novram: not allowed with argument --lowvram"),
    ("--cache-none --cache-lru 2", "argument --cache-lru: not allowed with argument --cache-none"),
    ("--reserve-vram", "argument --reserve-vram: expected one argument"),
    ("--cache-lru", "argument --cache-lru: expected one argument"),
    ("--fast bogus", "argument --fast: invalid PerformanceFeature value: 'bogus'"),
    ("--cache-ram 1 2 3", "--cache-ram accepts at most two values: active GB and inactive GB"),
    ("--verbose file", "--verbose expects no values, a console LEVEL, or LEVEL FILE"),
    ("--port x", "argument --port: invalid int value: 'x'"),
    ("--user-directory /none", "argument --user-directory: The path '/none' does not exist."),
    (
        "--cache 2",
        "ambiguous option: --cache could match --cache-ram, --cache-classic, --cache-lru, --cache-none",
    ),
    ("stray", "unrecognized arguments: stray"),
]


@pytest.mark.parametrize(("line", "says"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_refused_command_line_ends_with_2_and_argparse_words(root: Path, line: str, says: str) -> None:
    assert run(root, *line.split()) == (2, f"main.py: error: {says}")


def test_a_wrong_choice_names_the_choices(root: Path) -> None:
    code, line = run(root, "--preview-method", "foo")
    assert code == 2
    assert "argument --preview-method: invalid choice: 'foo' (choose from" in line


@pytest.mark.parametrize(
    "line",
    [
        "--cpu --cpu-vae --force-fp16 --preview-method auto",
        "--cpu --fast",
        "--cpu --fast autotune cublas_ops",
        "--cpu --verbose DEBUG --verbose INFO file",
        "--cpu --disable-auto",  # argparse takes abbreviations, which is why podkiln checks names itself
        "--cpu --listen --cache-ram 1 2",
    ],
)
def test_a_good_command_line_boots(root: Path, line: str) -> None:
    assert run(root, *line.split(), "--quick-test-for-ci")[0] == 0


def test_without_a_gpu_it_does_not_boot_but_with_cpu(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, line = run(root)
    assert code == 1
    assert line.startswith("RuntimeError: Found no NVIDIA driver on your system.")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a:\n  checkpoints: [x, y]\n", "AttributeError: 'list' object has no attribute 'split'"),
        ("", "TypeError: 'NoneType' object is not iterable"),
        (None, "FileNotFoundError: [Errno 2] No such file or directory: '{path}'"),
    ],
)
def test_folders_that_comfyui_cannot_read_end_the_boot(
    root: Path, tmp_path: Path, text: str | None, error: str
) -> None:
    path = tmp_path / "paths.yaml"
    if text is not None:
        path.write_text(text)
    code, line = run(root, "--cpu", "--extra-model-paths-config", str(path))
    assert (code, line) == (1, error.format(path=path))


class Server:
    """A served contract server, until the block ends."""

    def __init__(self, root: Path, *words: str) -> None:
        self.port = free_port()
        self.argv = ["main.py", "--cpu", "--port", str(self.port), f"--output-directory={root}", *words]
        self.process = subprocess.Popen(
            [sys.executable, *self.argv], cwd=COMFYUI, env=environment(root), stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                self.get("/prompt")
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError("the contract server does not serve")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.load(answer)

    def post(self, value: object) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}/prompt"
        request = urllib.request.Request(url, json.dumps(value).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)


def test_system_stats_shows_the_command_line_and_the_recorded_keys(root: Path) -> None:
    with Server(root) as server:
        stats = server.get("/system_stats")
        assert server.argv == stats["system"]["argv"]
    assert stats["system"]["comfyui_version"] == "0.33.0"
    assert stats["system"]["required_frontend_version"] == "1.48.7"
    assert [(device["name"], device["type"], device["index"]) for device in stats["devices"]] == [
        ("cpu", "cpu", None)
    ]


def test_a_prompt_gets_an_id_and_a_wrong_one_comfyuis_error(root: Path) -> None:
    image = {"1": {"class_type": "EmptyImage", "inputs": {}}}
    with Server(root) as server:
        status, taken = server.post({"prompt": {**image, "2": {"class_type": "SaveImage", "inputs": {}}}})
        refused = [
            server.post(body) for body in ({}, {"prompt": image}, {"prompt": {"1": {"class_type": "No"}}})
        ]
    assert (status, taken["number"], taken["node_errors"]) == (200, 0, {})
    assert len(taken["prompt_id"]) == 36
    assert [(code, body["error"]["type"]) for code, body in refused] == [
        (400, "no_prompt"),
        (400, "prompt_no_outputs"),
        (400, "missing_node_type"),
    ]


def test_models_are_the_union_of_all_folders_and_new_files_appear(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "paths.yaml"
    config.write_text(
        "volume:\n  base_path: $CONTRACT_VOLUME\n  is_default: true\n  unet: |\n    a\n    b\n  own: own\n"
        f"other:\n  base_path: {tmp_path}/other\n  checkpoints: c\nempty:\n"
    )
    monkeypatch.setenv("CONTRACT_VOLUME", str(tmp_path / "volume"))
    (tmp_path / "volume/a").mkdir(parents=True)
    (tmp_path / "volume/a/one.safetensors").touch()
    (tmp_path / "volume/a/notes.txt").touch()
    with Server(root, "--extra-model-paths-config", str(config)) as server:
        assert server.get("/models/diffusion_models") == ["one.safetensors"]
        (tmp_path / "volume/b/sub").mkdir(parents=True)
        (tmp_path / "volume/b/sub/two.safetensors").touch()
        assert server.get("/models/diffusion_models") == ["one.safetensors", "sub/two.safetensors"]
        (tmp_path / "volume/own").mkdir()
        (tmp_path / "volume/own/x.gguf").touch()
        assert server.get("/models/own") == ["x.gguf"]  # an unknown kind lists every file
        assert server.get("/models")[-1] == "own"
        assert server.get("/models/checkpoints") == []
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.get("/models/unet")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_sigint_is_the_clean_end_and_sigterm_is_not(root: Path, number: signal.Signals, code: int) -> None:
    with Server(root) as server:
        server.process.send_signal(number)
        assert server.process.wait(10) == code


SAVED = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "night/lake"}},
}


def test_podkiln_comfy_runs_a_prompt_and_saves_what_it_wrote(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "workflow.json").write_text(json.dumps(SAVED))
    (tmp_path / "cat.png").write_bytes(b"a cat")
    words = [f"--output-directory={tmp_path}", f"--input-directory={tmp_path}"]
    with Server(root, *words) as server:
        url = f"http://127.0.0.1:{server.port}"
        run = ["run", str(tmp_path / "workflow.json"), "--server", url, "--out", str(tmp_path / "out")]
        assert [command.main(run), command.main(run)] == [0, 0]
        assert command.main(["upload", str(tmp_path / "cat.png"), "--server", url]) == 0
        (tmp_path / "cat.png").write_bytes(b"another cat")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "cat.png").write_bytes(b"my cat")
        assert command.main(["upload", str(tmp_path / "mine" / "cat.png"), "--server", url]) == 0
    names = ["out/night/lake_00001_.png", "out/night/lake_00002_.png"]
    assert capsys.readouterr().out.split() == [
        *[str(tmp_path / name) for name in names],
        "cat.png",
        "cat",
        "(1).png",
    ]
    assert [(tmp_path / name).read_bytes()[:4] for name in names] == [b"\x89PNG"] * 2


def test_a_prompt_in_work_is_listed_and_can_be_interrupted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACT_PROMPT_SECONDS", "20")
    with Server(root) as server:
        _, taken = server.post({"prompt": SAVED})
        end = time.monotonic() + 10
        while not server.get("/queue")["queue_running"] and time.monotonic() < end:
            time.sleep(0.02)
        assert server.get("/prompt") == {"exec_info": {"queue_remaining": 1}}
        url = f"http://127.0.0.1:{server.port}/interrupt"
        urllib.request.urlopen(urllib.request.Request(url, b"{}", method="POST"), timeout=5).close()
        while taken["prompt_id"] not in server.get("/history") and time.monotonic() < end:
            time.sleep(0.02)
        record = server.get(f"/history/{taken['prompt_id']}")[taken["prompt_id"]]
    assert (record["status"]["status_str"], record["outputs"]) == ("error", {})
    assert record["status"]["messages"][-1][0] == "execution_interrupted"


def node(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def boot(root: Path, *words: str, **variables: str) -> tuple[int, str]:
    """Boot as far as --quick-test-for-ci does; returns the exit code and all that it printed."""
    done = subprocess.run(
        [sys.executable, "main.py", "--cpu", "--quick-test-for-ci", *words],
        cwd=COMFYUI,
        env=environment(root) | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done.returncode, done.stdout + done.stderr


def test_custom_nodes_are_loaded_in_the_order_of_their_folders(root: Path, tmp_path: Path) -> None:
    """As seen of the real one: the default folder first; a failing node costs itself."""
    volume = node(tmp_path / "nodes", "fine", "NODE_CLASS_MAPPINGS = {}")
    node(volume, "broken", "import a_module_that_is_not_there")
    node(volume, "off.disabled", "raise SystemExit('loaded')")
    config = tmp_path / "paths.yaml"
    config.write_text(f"nodes:\n  is_default: true\n  custom_nodes: {volume}\n")
    code, said = boot(root, f"--extra-model-paths-config={config}")
    assert code == 0
    times = said[said.index("Import times for custom nodes:") :]
    assert f"seconds: {volume}/fine" in times
    assert f"seconds (IMPORT FAILED): {volume}/broken" in times
    assert times.index("fine") < times.index("websocket_image_save.py")
    assert "off.disabled" not in times
    names = ["--disable-all-custom-nodes", "--whitelist-custom-nodes", "fine"]
    _, said = boot(root, f"--extra-model-paths-config={config}", *names)
    assert "Skipping broken due to disable_all_custom_nodes and whitelist_custom_nodes" in said
    assert f"seconds: {volume}/fine" in said


def test_a_folder_of_nodes_that_is_not_there_ends_the_boot(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "paths.yaml"
    config.write_text(f"nodes:\n  custom_nodes: {tmp_path}/gone\n")
    code, said = boot(root, f"--extra-model-paths-config={config}")
    assert code == 1
    assert f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}/gone'" in said


def test_a_database_is_held_by_one_process(root: Path, tmp_path: Path) -> None:
    url = f"--database-url=sqlite:///{tmp_path}/comfyui.db"
    with Server(root, url):
        code, said = boot(root, url)
        assert (code, "Could not acquire lock on database" in said) == (0, True)
        code, said = boot(root, url, CONTRACT_ASSETS="required")
        assert (code, "ASSETS_STARTUP_FAILED: in_use" in said) == (1, True)
    assert boot(root, url, CONTRACT_ASSETS="required")[0] == 0
    code, _ = boot(root, f"--user-directory={tmp_path}", CONTRACT_ASSETS="required")
    assert (code, (tmp_path / "comfyui.db.lock").exists()) == (0, True)
