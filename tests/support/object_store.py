"""A server that speaks S3, to keep media in."""

import itertools
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import ThreadedMotoServer

_BUCKETS = itertools.count(1)


class S3Server:
    """An S3-compatible server in a thread of this process; everything is in its memory."""

    def __init__(self, url: str) -> None:
        self.url = url

    def bucket(self) -> dict[str, Any]:
        """Settings of a bucket of one's own, with a prefix."""
        name = f"bucket-{next(_BUCKETS)}"
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")  # noqa: S310 - ours
        with urllib.request.urlopen(request):  # noqa: S310 - the same
            pass
        return {
            "media_store": f"s3://{name}/some/where",
            "media_s3_endpoint": self.url,
            "media_s3_access_key": "an access key",
            "media_s3_secret_key": "its secret",
        }


@contextmanager
def serving() -> Iterator[S3Server]:
    """A server on a port of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
