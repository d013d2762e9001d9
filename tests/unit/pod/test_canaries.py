"""No secret of the environment or of a word is left in what is printed or written, whatever fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fakes.pod import Pod
from images import ROOT
from servers.hub import Hub

from pod.util import secret_variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "canary0123456789"
SETTINGS = {
    name: f"{CANARY}-{name.lower()}"
    for name in (*secret_variables.ACCESS, *secret_variables.HUBS, "RUNPOD_API_KEY")
}
WORDS = [
    f"https://me:{CANARY}@HUB/a.safetensors",
    f"https:/me:{CANARY}@HUB/a.safetensors",
    f"hf:me:{CANARY}@127.0.0.1",
    f"http://HUB/a.safetensors?token={CANARY}",
    f"loras=http://HUB/a.safetensors?api_key={CANARY}#sha256={'ab' * 32}",
    f"http://HUB/a.safetensors&token={CANARY}",
    f"hf:org/repo/a.safetensors?token={CANARY}",
    f"me:{CANARY}@127.0.0.1/a.safetensors",
    f"http://HUB/Authorization:Bearer+{CANARY}@/a.safetensors",
]


@pytest.fixture
def pod(tmp_path: Path, flags_json: dict[str, Any]) -> Iterator[Pod]:
    with Hub() as hub:
        made = Pod(tmp_path, hub)
        made.offer({})
        (made.run / "decision.json").unlink()
        shutil.copytree(ROOT / "scripts" / "pod", made.image / "pod")
        shutil.copy(ROOT / "scripts" / "__main__.py", made.image)
        (made.image / "flags.json").write_text(json.dumps(flags_json))
        yield made


def call(pod: Pod, *words: str, **settings: str) -> str:
    """Run a command as start.sh does, with a canary in every secret variable; returns all that it said."""
    hub = pod.hub.url.removeprefix("http://")  # it answers 404
    changes = {name: value.replace("HUB", hub) for name, value in settings.items()}
    environ = pod.environment(**{**SETTINGS, "WEB_USER": "me", "FAKE_GPU": "24", **changes})
    environ["PATH"] = f"{ROOT}/tests/fakes:{environ['PATH']}"
    environ |= {"PODKILN_CGROUP_ROOT": str(pod.root), "PODKILN_LOCAL": str(pod.root / "local")}
    argv = [sys.executable, "-I", "-S", str(pod.image), *(word.replace("HUB", hub) for word in words)]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def holders(root: Path) -> list[Path]:
    """Return the files that hold a canary; shells get theirs from a file that root alone may read."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "command",
    [("decide",), ("decide", "--explain"), ("fetch",), ("doctor",), ("volume",), ("run", "1", "8", "/none")],
)
def test_no_canary_is_printed_or_written_for_a_word(pod: Pod, command: tuple[str, ...], word: str) -> None:
    said = call(pod, *command, MODELS=f"none,{word}")
    assert CANARY not in said
    assert holders(pod.root) == []


@pytest.mark.parametrize("word", WORDS)
def test_no_canary_is_printed_or_written_for_a_word_by_hand(pod: Pod, word: str) -> None:
    said = call(pod, "decide") + call(pod, "fetch", word)
    assert CANARY not in said
    assert holders(pod.root) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"HF_TOKEN": f'"{CANARY}"'},
        {"HF_ENDPOINT": f"https://me:{CANARY}@127.0.0.1:9"},
        {"HF_ENDPOINT": f"nonsense?token={CANARY}"},
        {"CIVITAI_ENDPOINT": f"http:/me:{CANARY}@h"},
        {"CIVITAI_TOKEN": f"two\n{CANARY}"},
        {"WEB_PASSWORD": f"{CANARY}\n"},
        {"JUPYTER_TOKEN": f"{CANARY}\x1b"},
    ],
)
def test_no_canary_is_printed_for_a_setting_that_cannot_be_meant(pod: Pod, settings: dict[str, str]) -> None:
    for command in ("decide", "fetch", "doctor"):
        assert CANARY not in call(pod, command, MODELS="hf:org/repo/a.safetensors", **settings)
    assert holders(pod.root) == []
