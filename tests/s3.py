"""An S3 server for tests: moto, in a thread of the test process, started once per session.

A test that takes `bucket` gets the URL of an empty bucket, and the environment variables that S3 clients (pyarrow,
Lance, s3fs, boto3) and child processes need to reach it.
"""

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_NUMBERS = itertools.count()


def s3_environment(endpoint: str) -> dict[str, str]:
    """The environment variables with which S3 clients reach the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def s3_client(endpoint: str) -> Any:
    """A boto3 client of the server, to look at a bucket from outside of forclip."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing-secret",
    )


@contextmanager
def running_s3_server() -> Iterator[str]:
    """Run a server in a thread, and return its endpoint."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a running S3 server. Skips without moto."""
    pytest.importorskip("moto.server", reason="the S3 server of the tests needs moto[server]")
    with running_s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, such as s3://bucket-0. The environment points S3 clients to the server."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_environment(s3_server).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{next(_NUMBERS)}"
    s3_client(s3_server).create_bucket(Bucket=name)
    return f"s3://{name}"
