"""How an end is put into words."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from pod.supervisor import exit_status

if TYPE_CHECKING:
    from pathlib import Path

_BY_SOMETHING = (
    "exit code 137, SIGKILL: something killed it, and the pod's control group counts no lack of memory"
)
CHAINED = """\
[INFO] ready
Traceback (most recent call last):
  File "main.py", line 1, in <module>
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "main.py", line 3, in <module>
    raise RuntimeError("second")
RuntimeError: second
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ("all is well\n", ""),
        (CHAINED, "RuntimeError: second"),
        (CHAINED + "cleaning up\n", "RuntimeError: second"),
        (
            "usage: main.py\nmain.py: error: unrecognized arguments: --x\n",
            "main.py: error: unrecognized arguments: --x",
        ),
        ("\x1b[31mRuntimeError: red\x1b[0m\n", "RuntimeError: red"),
        ("torch.OutOfMemoryError: CUDA out of memory.\nbye\n", "torch.OutOfMemoryError: CUDA out of memory."),
        (" 50%|##\r100%|####\rValueError: \xe9\n", "ValueError: \xe9"),
        ("ValueError: " + "x" * 400, "ValueError: " + "x" * 288 + "…"),
        ("Error handling is not an error\n", ""),
    ],
)
def test_the_reason_is_found_in_what_was_printed(text: str, reason: str) -> None:
    tail = exit_status.Tail()
    for number in range(0, len(text.encode()), 7):
        tail.feed(text.encode()[number : number + 7])
    assert tail.reason() == reason


def test_only_the_end_is_kept() -> None:
    tail = exit_status.Tail()
    tail.feed(b"ValueError: long ago\n")
    tail.feed(b"x\n" * 20000)
    assert tail.reason() == ""


@pytest.mark.parametrize(
    ("status", "said", "words", "code"),
    [
        (0, "", "exit code 0", 0),
        (1, "ValueError: no", "exit code 1: ValueError: no", 1),
        (-signal.SIGSEGV, "", "exit code 139, SIGSEGV", 139),
        (-signal.SIGABRT, "Fatal", "exit code 134, SIGABRT: Fatal", 134),
        (-63, "", "exit code 191, signal 63", 191),
        (
            -signal.SIGKILL,
            "",
            _BY_SOMETHING,
            137,
        ),
    ],
)
def test_an_end_is_a_code_a_signal_and_a_reason(status: int, said: str, words: str, code: int) -> None:
    assert exit_status.words(status, said, 0, {}) == words
    assert exit_status.exit_code(status) == code


def test_out_of_memory_comes_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("536870912\n")
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\n")
    usage = type("Usage", (), {"ru_maxrss": 500 * 1024})
    monkeypatch.setattr("resource.getrusage", lambda _: usage)
    environ = {"PODKILN_CGROUP_ROOT": str(tmp_path), "PODKILN_MEMINFO": str(tmp_path / "meminfo")}
    assert exit_status.words(-signal.SIGKILL, "", 1, environ) == (
        "exit code 137, SIGKILL: out of memory, as the pod may use 512 MiB of RAM and ComfyUI had 500 MiB; "
        "smaller models, COMFYUI_ARGS=--cache-none or a pod with more RAM help"
    )


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", 0),  # before Linux 4.13
        ("memory.events", "", 0),
        ("unknown", "oom_kill 9\n", 0),
    ],
)
def test_kills_are_counted_in_both_versions_of_control_groups(
    tmp_path: Path, name: str, text: str, count: int
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / name).write_text(text)
    assert exit_status.memory_kills({"PODKILN_CGROUP_ROOT": str(tmp_path)}) == count
