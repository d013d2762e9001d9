"""Figures in Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats). Pure."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from server.api.served import READY
from server.jobs.counters import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from server.api.served import Served


def text(served: Served) -> str:
    """Return the figures."""
    return "".join(f"{line}\n" for line in _lines(served))


def _lines(served: Served) -> Iterator[str]:
    queue = served.queue
    yield from _metric("ready", "gauge", "Whether the model is served.", [("", int(served.state == READY))])
    yield from _metric("queue_length", "gauge", "Generations that wait.", [("", queue.waiting)])
    yield from _metric("running", "gauge", "Generations that run.", [("", int(queue.running))])
    counted = queue.counters
    outcomes = [(_label(outcome=name), count) for name, count in counted.outcomes.items()]
    yield from _metric("jobs_total", "counter", "Generations that are over.", outcomes)
    if served.model:
        info = served.model.info
        about = _label(model=info.id, revision=info.revision, pipeline=info.pipeline, mode=info.mode)
        yield from _metric("model_info", "gauge", "What is served.", [(about, 1)])
    if counted.vram_peak:
        peak = [("", counted.vram_peak)]
        yield from _metric("vram_peak_bytes", "gauge", "The card's memory, at most, of any generation.", peak)
    name = "podkiln_phase_seconds"
    yield f"# HELP {name} Seconds of the phases of a generation."
    yield f"# TYPE {name} histogram"
    for phase, histogram in counted.phases.items():
        bounds = [*(f"{each:g}" for each in BOUNDS), "+Inf"]
        for bound, count in zip(bounds, accumulate(histogram.buckets), strict=True):
            yield f"{name}_bucket{_label(phase=phase, le=bound)} {count}"
        yield f"{name}_sum{_label(phase=phase)} {histogram.total:.6f}"
        yield f"{name}_count{_label(phase=phase)} {histogram.count}"


def _metric(name: str, kind: str, about: str, values: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP podkiln_{name} {about}"
    yield f"# TYPE podkiln_{name} {kind}"
    for label, value in values:
        yield f"podkiln_{name}{label} {value}"


def _label(**labels: str) -> str:
    rows = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(rows)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
