"""The base that a part of a pipeline needs beside itself, and what has to be done before it can be had."""

from __future__ import annotations

from pod.util.dataclass import replace
from server.detection.decision import Base, Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from server.detection.facts import Facts
    from server.detection.knowledge import Checkpoint


def completed(decision: Decision, facts: Facts, checkpoint: Checkpoint) -> Decision:
    """Return a decision with the base that BASE_MODEL names, or else the family's own."""
    if facts.base_model:
        base = Base(facts.base_model, "BASE_MODEL names it")
    else:
        base = Base(checkpoint.base, f"the default for {checkpoint.id}", checkpoint.gated)
    return replace(decision, base=base, missing=(*decision.missing, *missing(base)))


def missing(base: Base) -> tuple[str, ...]:
    """Return what has to be done before a base can be fetched."""
    if not base.gated:
        return ()
    page = f"https://huggingface.co/{base.repository}"
    return (f"the licence of the base accepted at {page}, and HF_TOKEN of that account",)
