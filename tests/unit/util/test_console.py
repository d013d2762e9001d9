"""Sentences on stderr, results on stdout; bars on terminals, lines elsewhere."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from podkiln.errors import UsageError
from podkiln.util import console


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (6_938_078_334, "6.9 GB"),
        (2 * 10**12, "2.0 TB"),
    ],
)
def test_sizes_are_shown_in_decimal_units(count: int | None, shown: str) -> None:
    assert console.size(count) == shown


@pytest.mark.parametrize(
    ("verbosity", "said"), [(-1, ["error"]), (0, ["error", "info"]), (2, ["error", "info", "debug"])]
)
def test_verbosity(verbosity: int, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    console.configure(verbosity)
    log = logging.getLogger("podkiln.somewhere")
    for level in ("error", "info", "debug"):
        getattr(log, level)(level)
    shown = capsys.readouterr()
    assert shown.err.split() == said
    assert not shown.out


def test_a_failure_is_a_sentence_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    console.failure(UsageError("It is so.", hint="Do this."))
    shown = capsys.readouterr()
    assert shown.err == "podkiln: It is so.\n    Do this.\n"
    assert not shown.out


def test_a_result_is_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.result({"schema": 1, "name": "Übung"})
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"schema": 1, "name": "Übung"}
    assert not shown.err


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.configure(0)
    clock = iter([0.0, 5.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr("podkiln.util.console.time.monotonic", lambda: next(clock))
    with console.Bytes("pushing lazy") as bar:
        bar("a", 10**6, 2 * 10**6)  # after 5 s
        bar("b", 10**6, 4 * 10**6)  # after 11 s
        bar("b", 2 * 10**6, 4 * 10**6)  # a second later
    assert capsys.readouterr().err == "pushing lazy: 2.0 MB of 6.0 MB\n"


def test_several_threads_may_report(capsys: pytest.CaptureFixture[str]) -> None:
    console.configure(-1)
    with console.Bytes("pushing") as bar:

        def move(name: int) -> None:
            for count in range(200):
                bar(f"{name}-{count}", count, 9)

        workers = [threading.Thread(target=move, args=(name,)) for name in range(4)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()
    assert not capsys.readouterr().err
