"""The suite's rules: only what needs a GPU is skipped, what is collected runs, and cheap comes first."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

# Workers share processors: how long an example takes, or takes to be made, says nothing of the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

NO_GPU = "needs a real NVIDIA GPU, nvidia-smi, and GPU_ARGS: `make gpu`"
PARTS = ("unit", "container", "full", "gpu")  # in this order, from milliseconds to minutes


def part_of(item: pytest.Item) -> str:
    """Return which part of the suite a test belongs to."""
    marked = next((name for name in ("gpu", "full") if item.get_closest_marker(name)), None)
    return marked or ("container" if "container" in item.path.parts else "unit")


@dataclass
class Tally:
    """What became of the tests. `whole`: each test that is collected must have run."""

    whole: bool = False
    collected: int = 0
    run: set[str] = field(default_factory=set)
    gpu: set[str] = field(default_factory=set)
    parts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def problem(self) -> str | None:
        """Return what is wrong with the counts, as a sentence."""
        if not self.whole:
            return None
        missing = self.collected - len(self.run) - len(self.gpu)
        return f"{missing} tests were collected and then not run." if missing else None


TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="Fail when a test that is collected does not run.")


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts the suite in the background makes it deaf to Ctrl-C, and so all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[TALLY] = Tally(whole=config.getoption("--whole"))
    config.pluginmanager.register(Counting(config.stash[TALLY]))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The slow ones first: several workers end together then.
    items.sort(key=lambda item: (PARTS.index(part_of(item)), item.get_closest_marker("slow") is None))
    if hasattr(
        config, "workerinput"
    ):  # one of several workers, which end together if the longest file is first
        items.sort(key=lambda item: part_of(item) != "full")
    # They write to /opt, so a card alone is not asked for them.
    if shutil.which("nvidia-smi") is None or "GPU_ARGS" not in os.environ:
        for item in items:
            if part_of(item) == "gpu":
                item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[TALLY].collected = len(session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """With workers, it is they who collect, each of them all."""
    node.config.stash[TALLY].collected = len(ids)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself whole is a failure, too."""
    report = yield
    if report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} skips itself: only tests marked gpu may be skipped."
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure, unless it is ours, for want of a GPU."""
    report = yield
    report.user_properties = [*report.user_properties, ("part", part_of(item))]
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.endswith(NO_GPU):
            report.outcome = "failed"
            report.longrepr = f"Only tests marked gpu may be skipped. {reason}"
    return report


class Counting:
    """Counts reports where they arrive: with workers, in the process that started them."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tally, part = self._tally, dict(report.user_properties).get("part", "unit")
        tally.seconds[str(part)] += report.duration
        if report.nodeid in tally.run or report.nodeid in tally.gpu:
            return
        skipped = report.skipped and not hasattr(report, "wasxfail")
        if skipped or report.failed or report.when == "call":
            (tally.gpu if skipped else tally.run).add(report.nodeid)
            tally.parts[str(part)] += 1


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash[TALLY].problem() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[TALLY]
    terminalreporter.section("the suite")
    for part in filter(tally.parts.__getitem__, PARTS):
        terminalreporter.line(f"{part:10} {tally.parts[part]:5} tests  {tally.seconds[part]:8.1f} s")
    terminalreporter.line(f"{tally.collected} collected = {len(tally.run)} run + {len(tally.gpu)} gpu")
    if tally.gpu:
        terminalreporter.write_sep(
            "!", f"{len(tally.gpu)} gpu tests NOT RUN: {NO_GPU}", yellow=True, bold=True
        )
    if problem := tally.problem():
        terminalreporter.write_sep("!", problem, red=True, bold=True)
