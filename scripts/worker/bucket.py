"""The S3 bucket that results go to: named by the worker's variables, or by a job for itself. Pure.

The first three variables are worker-comfyui 5.8.5's, whose bucket is called by month and year (rp_upload.py
of the runpod SDK 1.12.0) wherever BUCKET_NAME does not say otherwise. A job's `s3Config` is RunPod's.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from pod.util import env
from pod.util.env import SettingError
from worker.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLES: Final = ("BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY")
_BESIDE: Final = ("BUCKET_NAME", "BUCKET_PREFIX", "BUCKET_REGION", "BUCKET_PUBLIC_URL")
_FIELDS: Final = ("endpointUrl", "accessId", "accessSecret", "bucketName")
_EXAMPLE: Final = "https://s3.eu-central-1.amazonaws.com"
_MALFORMED: Final = f"'s3Config' must be an object with the texts {', '.join(map(repr, _FIELDS))}"
# Of Amazon, and of all that name their hosts as it does; of DigitalOcean.
_REGION: Final = re.compile(
    r"(?:^|\.)s3[.-](?:dualstack\.)?((?=[a-z]*[0-9-])[a-z0-9-]+)\."
    r"|^(?:[^.]+\.)*([a-z0-9]+)\.digitaloceanspaces\.com$"
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")  # what S3, and older or other ones, allow
_ANY_REGION: Final = "us-east-1"  # what those without regions sign with
_CLOUDFLARE: Final = ".r2.cloudflarestorage.com"


@dataclass(frozen=True)
class Bucket:
    """A bucket, and who may write to it.

    Args:
        endpoint: The address of its S3.
        key_id: Who writes.
        secret: With which key.
        name: "" for month and year, as `11-26`.
        prefix: What each key begins with.
        region: What requests are signed for.
        public_url: Where the bucket is read without a signature; None for addresses that are signed.
        trusted: Its endpoint may be any address, also one that is not of the public internet.
    """

    endpoint: str
    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    name: str = ""
    prefix: str = ""
    region: str = _ANY_REGION
    public_url: str | None = None
    trusted: bool = False

    @property
    def host(self) -> str:
        """Return where it is, for sentences."""
        return self._host

    def called(self) -> str:
        """Return its name, now."""
        return self.name or time.strftime("%m-%y")

    @property
    def hosted(self) -> bool:
        """Whether the endpoint's host begins with the bucket's name.

        It is then asked so, since some take no other way (Alibaba's OSS, Tencent's COS). A certificate for
        *.HOST is none for a name with a dot.
        """
        return bool(self.name) and "." not in self.name and self._host.startswith(f"{self.name}.")

    @property
    def _host(self) -> str:
        return urlsplit(self.endpoint).netloc

    @property
    def server(self) -> str:
        """Return the endpoint; without the bucket's name, which consoles show as part of it, where it can."""
        parts = urlsplit(self.endpoint)
        host, path = parts.netloc, parts.path.rstrip("/")
        if self.name and not self.hosted:
            host = host.removeprefix(f"{self.name}.")
            path = path.removesuffix(f"/{self.name}")
        return urlunsplit((parts.scheme, host, path, "", ""))

    def key(self, job: str, subfolder: str, filename: str) -> str:
        """Return the key of a job's file: {prefix}/{job}/{subfolder}/{filename}."""
        # Windows has the other stroke; and a client would take `..` out of an address.
        parts = f"{self.prefix}/{job}/{subfolder}/{filename}".replace("\\", "/").split("/")
        return "/".join(each for each in parts if each not in ("", ".", ".."))

    def public(self, key: str) -> str | None:
        """Return the address under which everybody reads a key; None where it is signed for each reader."""
        return f"{self.public_url}/{quote(key)}" if self.public_url else None


def of_worker(environ: Mapping[str, str]) -> Bucket | None:
    """Return the bucket that an environment names; None without. Raises SettingError."""
    given = {name: environ.get(name, "").strip() for name in (*_VARIABLES, *_BESIDE)}
    if not any(given.values()):
        return None
    if missing := [name for name in _VARIABLES if not given[name]]:
        there = next(name for name in given if given[name])
        raise SettingError(
            f"{there} is set and {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not: results "
            f"go to a bucket with all of {', '.join(_VARIABLES)}, and to none without any."
        )
    for name in _VARIABLES:
        env.check_filled_in(name, given[name])
    name = given["BUCKET_NAME"]
    if name and not _NAME.fullmatch(name):
        raise SettingError(f"BUCKET_NAME={env.short(name)!r} is not the name of a bucket.")
    endpoint = env.endpoint("BUCKET_ENDPOINT_URL", given["BUCKET_ENDPOINT_URL"], _EXAMPLE)
    public = given["BUCKET_PUBLIC_URL"] and env.endpoint(
        "BUCKET_PUBLIC_URL", given["BUCKET_PUBLIC_URL"], "https://cdn.example.com"
    )
    return Bucket(
        endpoint,
        given["BUCKET_ACCESS_KEY_ID"],
        given["BUCKET_SECRET_ACCESS_KEY"],
        name,
        given["BUCKET_PREFIX"],
        given["BUCKET_REGION"] or region(endpoint),
        public or None,
        trusted=True,
    )


def of_job(given: Any) -> Bucket | None:
    """Return the bucket of a job's `s3Config`; None without one. Raises JobError."""
    if given is None or given == {}:
        return None
    values = [given.get(name) if isinstance(given, dict) else None for name in _FIELDS]
    texts = [each for each in values if isinstance(each, str) and each]
    if len(texts) < len(_FIELDS):
        raise JobError(_MALFORMED)
    endpoint, key_id, secret, name = texts
    try:
        endpoint = env.endpoint("endpointUrl", endpoint, _EXAMPLE)
    except SettingError:
        raise JobError(f"'endpointUrl' of 's3Config' is not an address like {_EXAMPLE}") from None
    if not _NAME.fullmatch(name):
        raise JobError("'bucketName' of 's3Config' is not the name of a bucket")
    return Bucket(endpoint, key_id, secret, name, region=region(endpoint))


def region(endpoint: str) -> str:
    """Return the region that an endpoint's host says."""
    host = urlsplit(endpoint).hostname or ""
    if host.endswith(_CLOUDFLARE):
        return "auto"
    found = _REGION.search(host)
    return (found[1] or found[2]) if found else _ANY_REGION
