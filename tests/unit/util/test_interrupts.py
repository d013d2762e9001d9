"""The first interruption is raised where it may be; later ones change nothing until the third Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from podkiln.errors import InterruptedByUserError, Terminated, TerminatedError
from podkiln.util import interrupts
from podkiln.util.interrupts import Interruptions, error_of
from podkiln.util.open_uploads import UPLOADS, Unfinished

INT, TERM = signal.SIGINT, signal.SIGTERM


def test_the_first_is_raised_and_the_second_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    it = Interruptions()
    with pytest.raises(KeyboardInterrupt):
        it.take(INT, None)
    it.take(TERM, None)
    assert capfd.readouterr().err == ""
    it.take(INT, None)
    assert capfd.readouterr().err.startswith("podkiln: Cleaning up what is half-made; another Ctrl-C ends")


def test_sigterm_is_raised_as_what_it_is() -> None:
    with pytest.raises(Terminated):
        Interruptions().take(TERM, None)


def test_the_third_ctrl_c_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    it = Interruptions()
    with pytest.raises(KeyboardInterrupt):
        it.take(INT, None)
    it.take(INT, None)
    assert codes == []
    it.take(INT, None)
    assert codes == [130]


def test_what_cleans_up_is_not_broken_off_and_the_interruption_comes_after_it() -> None:
    it, done = Interruptions(), []

    def clean_up() -> None:
        with it.held():
            with it.held():
                it.take(TERM, None)
                done.append("inner")
            done.append("outer")

    with pytest.raises(Terminated):
        clean_up()
    assert done == ["inner", "outer"]


def test_only_the_main_thread_is_held() -> None:
    it = Interruptions()

    def work() -> None:
        with it.held(), pytest.raises(KeyboardInterrupt):
            it.take(INT, None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_an_ignored_sigint_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    monkeypatch.setattr(signal, "signal", lambda number, _: handled.append(number))
    Interruptions().install()
    assert handled == [TERM]


def test_what_is_left_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Unfinished()
    monkeypatch.setattr(interrupts, "UPLOADS", uploads)
    assert str(error_of(KeyboardInterrupt())) == "Interrupted; nothing half-made was left behind."
    numbers = [uploads.begin(host) for host in ("ghcr.io", "ghcr.io", "quay.io")]
    uploads.end(numbers[0])
    uploads.end(None)
    error = error_of(Terminated())
    assert isinstance(error, TerminatedError)
    assert "1 half-made upload at ghcr.io and 1 half-made upload at quay.io could not be deleted" in str(
        error
    )
    assert isinstance(error_of(KeyboardInterrupt()), InterruptedByUserError)
    assert UPLOADS is not uploads
