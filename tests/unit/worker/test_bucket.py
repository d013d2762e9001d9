"""Which bucket results go to."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest

from pod.errors import SETTING_MALFORMED
from pod.util.env import SettingError
from worker import bucket
from worker.bucket import Bucket
from worker.errors import JobError

THREE = {
    "BUCKET_ENDPOINT_URL": "https://s3.eu-central-1.amazonaws.com",
    "BUCKET_ACCESS_KEY_ID": "AKIA",
    "BUCKET_SECRET_ACCESS_KEY": "secret",
}
CONFIG = {"endpointUrl": "https://s3.example.com", "accessId": "A", "accessSecret": "S", "bucketName": "mine"}


def test_the_three_variables_of_worker_comfyui_are_enough() -> None:
    assert bucket.of_worker({}) is None
    found = bucket.of_worker(THREE)
    assert found == Bucket(
        THREE["BUCKET_ENDPOINT_URL"], "AKIA", "secret", region="eu-central-1", trusted=True
    )
    assert found.called() == time.strftime("%m-%y")
    assert "secret" not in repr(found)


def test_the_others_say_where_in_it() -> None:
    others = {
        "BUCKET_NAME": "mine",
        "BUCKET_PREFIX": "a/b",
        "BUCKET_REGION": "moon-1",
        "BUCKET_PUBLIC_URL": "https://cdn.example.com/",
    }
    found = bucket.of_worker(THREE | others)
    assert found is not None
    assert (found.called(), found.region) == ("mine", "moon-1")
    assert found.key("job-1", "night/../x", "a b.png") == "a/b/job-1/night/x/a b.png"
    assert found.public("a/ü.png") == "https://cdn.example.com/a/%C3%BC.png"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"BUCKET_NAME": "mine", "BUCKET_ENDPOINT_URL": "https://s3.example.com"},
            "BUCKET_ENDPOINT_URL is set and BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY are not",
        ),
        ({**THREE, "BUCKET_ENDPOINT_URL": "s3.example.com"}, "BUCKET_ENDPOINT_URL is not an address like"),
        ({**THREE, "BUCKET_NAME": "a/b"}, "BUCKET_NAME='a/b' is not the name of a bucket."),
        ({**THREE, "BUCKET_PUBLIC_URL": "cdn"}, "BUCKET_PUBLIC_URL is not an address like"),
        (
            {**THREE, "BUCKET_SECRET_ACCESS_KEY": "{{ RUNPOD_SECRET_s3 }}"},
            "BUCKET_SECRET_ACCESS_KEY is the name of a secret that was not filled in",
        ),
    ],
)
def test_variables_that_cannot_be_meant_stop_the_worker(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError, match=f"^{re.escape(said)}") as failed:
        bucket.of_worker(given)
    assert failed.value.exit_code == SETTING_MALFORMED


def test_a_job_may_bring_its_own() -> None:
    assert bucket.of_job(None) is None
    assert bucket.of_job({}) is None
    assert bucket.of_job(CONFIG) == Bucket("https://s3.example.com", "A", "S", "mine", region="us-east-1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("s3", "'s3Config' must be an object with the texts 'endpointUrl', 'accessId'"),
        ({**CONFIG, "accessSecret": ""}, "'s3Config' must be an object with the texts 'endpointUrl'"),
        ({**CONFIG, "accessId": 5}, "'s3Config' must be an object with the texts 'endpointUrl'"),
        ({**CONFIG, "endpointUrl": "file:///etc"}, "'endpointUrl' of 's3Config' is not an address like"),
        ({**CONFIG, "bucketName": "../x"}, "'bucketName' of 's3Config' is not the name of a bucket"),
    ],
)
def test_one_that_cannot_be_used_fails_the_job(given: Any, said: str) -> None:
    with pytest.raises(JobError, match=f"^{re.escape(said)}"):
        bucket.of_job(given)


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://mine.s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://s3.dualstack.eu-west-3.amazonaws.com", "eu-west-3"),
        ("https://s3.amazonaws.com", "us-east-1"),
        ("https://s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("https://mine.fra1.digitaloceanspaces.com", "fra1"),
        ("https://account.r2.cloudflarestorage.com", "auto"),
        ("https://storage.googleapis.com", "us-east-1"),
        ("http://minio:9000", "us-east-1"),
        ("https://s3.example.co.uk", "us-east-1"),
    ],
)
def test_the_region_is_what_the_host_says(endpoint: str, region: str) -> None:
    assert bucket.region(endpoint) == region


@pytest.mark.parametrize(
    ("endpoint", "name", "server"),
    [
        ("https://mine.s3.eu-central-1.amazonaws.com", "mine", "https://mine.s3.eu-central-1.amazonaws.com"),
        ("https://my.own.s3.amazonaws.com", "my.own", "https://s3.amazonaws.com"),
        ("https://account.r2.cloudflarestorage.com/mine", "mine", "https://account.r2.cloudflarestorage.com"),
        ("https://mine.s3.eu-central-1.amazonaws.com", "", "https://mine.s3.eu-central-1.amazonaws.com"),
        ("http://minio:9000", "mine", "http://minio:9000"),
    ],
)
def test_a_name_that_the_endpoint_holds_already_is_not_said_twice(
    endpoint: str, name: str, server: str
) -> None:
    assert replace(Bucket("", "A", "S"), endpoint=endpoint, name=name).server == server
