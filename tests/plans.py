"""Plans of shipped and own variants for tests, made as the command makes them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from podkiln.config import variant
from podkiln.options import BuildRequest
from podkiln.pipeline import planning

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan


@cache
def plan_of(name: str = "lazy", *, nodes: bool = True, **asked: Any) -> Plan:
    """Return the plan of a variant; nothing is baked unless that is asked for. `nodes`: False for none."""
    request = BuildRequest.of([name], **{"no_weights": True, **asked})
    return planning.make_plan(variant.load(name), request, nodes=nodes)
