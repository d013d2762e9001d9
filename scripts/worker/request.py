"""A job's input, read and checked. Pure.

Format: `input` of a job as worker-comfyui 5.8.5 takes it (docs/reference/serverless.md), and a few keys more.
Keys that are not known are left alone, as it leaves them; but not beside a preset's inputs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from comfy import workflow
from comfy.answers import MOST_VALUES
from comfy.failure import ComfyError
from comfy.workflow import Named
from pod.util import bounded_json
from worker import bucket, messages, presets
from worker.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comfy.workflow import Nodes
    from worker.bucket import Bucket
    from worker.presets import Presets

FREE: Final = "free"
"""What `refresh_worker` and REFRESH_WORKER say in place of `true` for the light form of it."""
_WEB: Final = ("http://", "https://")
# In this order: the name that worker-comfyui's code reads, and the one that its documentation gives.
_API_KEYS: Final = ("comfy_org_api_key", "api_key_comfy_org")


@dataclass(frozen=True)
class Request:
    """What a job asks for.

    `pictures`: files to upload before, by the names that the workflow has for them. `api_key`: for nodes that
    ask Comfy.org's paid services. `legacy_outputs`: name videos of SaveVideo among the images too.
    `refresh_worker`: end the worker after this job. `free`: let ComfyUI give its memory back after it.
    `bucket`: where its results go, in place of the worker's. `said`: what its answer has beside the results.
    """

    nodes: Nodes
    pictures: tuple[Named, ...] = ()
    api_key: str | None = field(default=None, repr=False)
    legacy_outputs: bool = False
    refresh_worker: bool = False
    free: bool = False
    bucket: Bucket | None = None
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be said again of it."""
        keys = (self.bucket.key_id, self.bucket.secret) if self.bucket else ()
        return (*((self.api_key,) if self.api_key else ()), *keys)


def parse(given: Any, s3_config: Any = None, *, known: Presets = presets.NONE) -> Request:
    """Read a job's input: an object, or a text that is one as JSON. Raises JobError.

    Args:
        given: The input.
        s3_config: What stands beside it as `s3Config`; in the input it may stand, too.
        known: The presets that it may name in the place of a workflow.
    """
    if given is None:
        raise JobError(messages.NO_INPUT)
    if isinstance(given, str):
        given = _decoded(given)
    if not isinstance(given, dict):
        raise JobError(messages.INVALID_JSON)
    preset = known.meant(given)
    if preset is None and given.get("workflow") is None:
        raise JobError(messages.NO_WORKFLOW)
    refresh = given.get("refresh_worker")
    if refresh != FREE:
        refresh = _flag(given, "refresh_worker")
    asked = known.ask(preset, given) if preset else None
    return Request(
        asked.nodes if asked else _nodes(given["workflow"]),
        asked.files if asked else _pictures(given.get("images")),
        _api_key(given),
        _flag(given, "legacy_outputs"),
        refresh is True,
        refresh == FREE,
        bucket.of_job(s3_config if s3_config is not None else given.get("s3Config")),
        asked.said if asked else {},
    )


def _decoded(text: str) -> Any:
    try:
        return bounded_json.parse(text.encode(), MOST_VALUES)
    except ValueError:
        raise JobError(messages.INVALID_JSON) from None


def _nodes(given: Any) -> Nodes:
    try:
        return workflow.parse(json.dumps(given).encode(), "input.workflow").nodes
    except (ValueError, RecursionError):
        raise JobError(messages.INVALID_JSON) from None
    except ComfyError as error:
        raise JobError(str(error)) from None


def _pictures(given: Any) -> tuple[Named, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise JobError(messages.IMAGES_MALFORMED)
    return tuple(_picture(each) for each in given)


def _picture(given: Any) -> Named:
    about = given if isinstance(given, dict) else {}
    name, content, url = about.get("name"), about.get("image"), about.get("url")
    if not isinstance(name, str) or not name:
        raise JobError(messages.IMAGES_MALFORMED)
    if isinstance(content, str) and url is None:
        # Not an address and not a path, whatever it says: of this only what stands behind a comma is read.
        return Named(name, f"data:;base64,{content.partition(',')[2] or content}")
    if not isinstance(url, str) or content is not None:
        raise JobError(messages.IMAGES_MALFORMED)
    if not url.lower().startswith(_WEB):
        raise JobError(f"{messages.IMAGES_MALFORMED}; a 'url' in their place begins with http:// or https://")
    return Named(name, url)


def _api_key(given: dict[str, Any]) -> str | None:
    return next((given[key] for key in _API_KEYS if isinstance(given.get(key), str) and given[key]), None)


def _flag(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise JobError(f"'{name}' must be true or false")
    return value
