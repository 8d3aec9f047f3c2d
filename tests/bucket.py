"""A bucket of an S3 server on this machine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from moto.server import ThreadedMotoServer

from stream_trainer.settings import StoreSettings

BUCKET = "models"


@contextmanager
def bucket() -> Iterator[StoreSettings]:
    """An S3 server with an empty bucket, in a thread of this process."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it writes a line a request to stderr
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
        yield StoreSettings.model_validate(
            {
                "url": f"s3://{BUCKET}",
                "s3_endpoint": endpoint,
                "s3_access_key_id": "test",
                "s3_secret_access_key": "test",
                "s3_allow_http": True,
            }
        )
    finally:
        server.stop()
