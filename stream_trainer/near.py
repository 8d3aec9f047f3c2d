"""Whether a request names this machine: what a port without keys looks at.

A browser that was told a false address by its DNS names another host, and a page of elsewhere says so in `Origin`. Only
the headers are judged here; which ports are guarded is for those who serve them.
"""

import re
from functools import lru_cache
from urllib.parse import urlsplit

from stream_trainer.settings import is_loopback

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-]+)(?::[0-9]{1,5})?")


@lru_cache(maxsize=64)
def is_near(host: bytes) -> bool:
    """Whether a `Host` header names this machine by its loopback."""
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found[1].decode().lower())


@lru_cache(maxsize=64)
def is_near_page(origin: bytes) -> bool:
    """Whether an `Origin` header names a page that this machine serves on its loopback."""
    try:
        parts = urlsplit(origin.decode("latin-1"))
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and is_near(parts.netloc.encode("latin-1"))
