"""Addresses of an S3 that are signed, so that who has one may do one thing for some time. Pure.

The signature is AWS's version 4, in the address, with the content left unsigned: it says nothing of what is
sent, and so needs none of the checksums that GCS and R2 refuse. boto3 signs alike, and is 14 MB of packages:
why it is not used stands in s3.py.
Source: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.bucket import Bucket

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_STANDARD: Final = {"http": 80, "https": 443}


def signed(
    bucket: Bucket,
    name: str,
    key: str,
    method: str,
    seconds: int,
    query: Mapping[str, str] | None = None,
    content_type: str | None = None,
    now: float | None = None,
) -> str:
    """Return the address for one thing that may be done with a file of a bucket.

    Args:
        bucket: Where its S3 is, and who signs.
        name: The bucket's name.
        key: The file's key.
        method: GET, PUT, POST or DELETE.
        seconds: How long it is good for.
        query: What is asked for beside the file, as `uploadId`.
        content_type: The type that has to be sent with it; None where any may.
        now: Seconds since 1970; None for what time it is.
    """
    at = time.gmtime(time.time() if now is None else now)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", at)
    scope = f"{stamp[:8]}/{bucket.region}/s3/aws4_request"
    headers = {"host": _host(bucket.server)} | ({"content-type": content_type} if content_type else {})
    named = ";".join(sorted(headers))
    said = {
        **(query or {}),
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{bucket.key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": named,
    }
    words = "&".join(f"{quote(each, safe='')}={quote(said[each], safe='')}" for each in sorted(said))
    path = f"{urlsplit(bucket.server).path}{'' if bucket.hosted else f'/{name}'}/{quote(key)}"
    lines = [f"{each}:{headers[each].strip()}" for each in sorted(headers)]
    canonical = "\n".join((method, path, words, *lines, "", named, "UNSIGNED-PAYLOAD"))
    text = "\n".join((_ALGORITHM, stamp, scope, sha256(canonical.encode()).hexdigest()))
    mac = f"AWS4{bucket.secret}".encode()
    for part in (*scope.split("/"), text):
        mac = hmac.digest(mac, part.encode(), "sha256")
    parts = urlsplit(bucket.server)
    return f"{parts.scheme}://{parts.netloc}{path}?{words}&X-Amz-Signature={mac.hex()}"


def _host(server: str) -> str:
    """Return what clients send as Host: a port that the scheme means anyway is left out."""
    parts = urlsplit(server)
    host = parts.netloc.rpartition("@")[2]
    return host.removesuffix(f":{parts.port}") if parts.port == _STANDARD.get(parts.scheme) else host
