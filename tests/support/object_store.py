"""A real S3 interface on this machine: moto's server, spoken to by pyarrow as it would speak to AWS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ObjectStore:
    """The server; what it holds outlives a stop."""

    def __init__(self) -> None:
        self._port = 0
        self.start()
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self._port}", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)

    @property
    def query(self) -> str:
        """Of a URI that leads here: ``s3://bucket/folder?<query>``."""
        return f"endpoint_override=127.0.0.1:{self._port}&scheme=http&region=us-east-1"

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """A server for as long as the block runs."""
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    store = ObjectStore()
    try:
        yield store
    finally:
        store.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def object_store() -> Iterator[str]:
    """Yield the query of a URI that leads to a server that is always there."""
    with running_object_store() as store:
        yield store.query
