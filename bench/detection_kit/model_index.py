"""What model_index.json says of the components of diffusers' pipelines."""

from __future__ import annotations

import inspect
import typing


def of_all() -> dict[str, dict[str, list[str]]]:
    """Return library and class by component, by pipeline: the types of the pipeline's own signature."""
    import diffusers

    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(each for each in dir(diffusers) if each.endswith("Pipeline")):
        cls = getattr(diffusers, name)
        try:
            hints = typing.get_type_hints(cls.__init__)
            parameters = inspect.signature(cls.__init__).parameters
        except (NameError, TypeError, ImportError, AttributeError, ValueError):
            continue
        rows = {}
        for parameter in parameters:
            options = typing.get_args(hints.get(parameter)) or (hints.get(parameter),)
            types = [each for each in options if isinstance(each, type) and each is not type(None)]
            where = types[0].__module__.split(".") if types else [""]
            if where[0] in {"diffusers", "transformers"}:
                own = where[0] == "diffusers" and where[1] == "pipelines" and len(where) > 3
                rows[parameter] = [where[2] if own else where[0], types[0].__name__]
        found[name] = rows
    return found
