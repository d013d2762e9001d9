"""What CivitAI calls a model, where that alone decides that it cannot be served."""

from __future__ import annotations

from pod.util.printable import shown
from server.detection.decision import Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from server.detection.facts import Facts
    from server.detection.knowledge import Knowledge


def refused(facts: Facts, known: Knowledge) -> Decision | None:
    """Refuse by the type of a model or of its file, and by a baseModel that is no model to be had."""
    if facts.civitai is None:
        return None
    told = facts.civitai
    evidence = f"CivitAI: {shown(told.model_type, 40)}, file {shown(told.file_type, 40)}"
    seen = Decision(files=facts.files, evidence=(f"{evidence}, baseModel {shown(told.base_model, 40)}",))
    for type_ in (told.file_type, told.model_type):
        row = known.unservable["civitai_types"].get(type_.lower())
        if row:
            return seen.refused(row["code"], f"{facts.word} is {row['says']}.", row["instead"])
    if told.base_model in known.unservable["civitai_hosted"]:
        return seen.refused(
            "hosted-only",
            f"{facts.word} is for {shown(told.base_model, 40)}, which runs at its maker's service alone.",
            "Choose a model whose base can be downloaded.",
        )
    return None
