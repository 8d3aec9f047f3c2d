"""Object stores through obstore: create-if-absent is a conditional put. `gs://` and `az://` are untested here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, S3Store, from_url

from stream_trainer.errors import StoreUnavailable, StoreUnwritable
from stream_trainer.settings import StoreSettings
from stream_trainer.store.storage import Storage, Stored, refuse_larger


class ObjectStorage(Storage):
    """A bucket and a prefix in it. What was put is durable, and a listing shows it at once."""

    seekable: bool = True

    def __init__(self, url: str, settings: StoreSettings) -> None:
        self.url = url.rstrip("/")
        self._store: ObjectStore = _open(self.url, settings)

    def get(self, path: str, *, limit: int | None = None) -> bytes:
        """See `Storage.get`."""
        with self._answers(path, may_be_missing=True):
            found = obstore.get(self._store, path)
            if limit is not None:
                refuse_larger(f"{self.url}/{path}", found.meta["size"], limit)
            return found.bytes().to_bytes()

    def exists(self, path: str) -> bool:
        """See `Storage.exists`."""
        try:
            with self._answers(path, may_be_missing=True):
                obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        with self._answers(path, writing=True):
            obstore.put(self._store, path, data, use_multipart=False)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`."""
        try:
            with self._answers(path, writing=True):
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    def persist(self, path: str) -> None:
        """See `Storage.persist`."""

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        try:
            with self._answers(path, may_be_missing=True, writing=True):
                obstore.delete(self._store, path)
        except FileNotFoundError:
            pass

    def tidy(self, prefix: str) -> None:
        """See `Storage.tidy`."""

    def names(self, prefix: str, after: str = "") -> list[str]:
        """See `Storage.names`."""
        if after:
            # Everything under `after` itself sorts before this; there is a request that starts there.
            keys = (item.path for item in self._listed(prefix, offset=f"{prefix}/{after}/~"))
            return sorted({key.removeprefix(f"{prefix}/").split("/", 1)[0] for key in keys})
        with self._answers(prefix):
            listed = obstore.list_with_delimiter(self._store, prefix)
        found = [*listed["common_prefixes"], *(item["path"] for item in listed["objects"])]
        return sorted(path.rsplit("/", 1)[-1] for path in found)

    def walk(self, prefix: str) -> list[str]:
        """See `Storage.walk`."""
        return [item.path for item in self.survey(prefix)]

    def survey(self, prefix: str) -> list[Stored]:
        """See `Storage.survey`."""
        return sorted(self._listed(prefix))

    def leftovers(self, prefix: str) -> list[Stored]:  # noqa: ARG002
        """See `Storage.leftovers`: a put is one request, which leaves nothing."""
        return []

    def _listed(self, prefix: str, offset: str | None = None) -> Iterator[Stored]:
        with self._answers(prefix):
            for page in obstore.list(self._store, prefix, offset=offset):
                for item in page:
                    yield Stored(str(item["path"]), item["size"], item["last_modified"])

    @contextmanager
    def _answers(self, path: str, *, may_be_missing: bool = False, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            if not may_be_missing:  # a listing or a put finds nothing only when there is no such bucket
                raise StoreUnavailable(f"{self.url}: there is no such bucket") from error
            raise FileNotFoundError(path) from error
        except (AlreadyExistsError, FileExistsError) as error:
            raise FileExistsError(path) from error
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            what = f"{self.url}/{path}: the store refuses {'to be written' if writing else 'to be read'}"
            if writing:
                raise StoreUnwritable(
                    f"{what}: give these credentials the right to, then start again; versions committed so far are intact"
                ) from error
            raise StoreUnavailable(f"{what}: are the credentials right?") from error
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"{self.url}/{path}: the store did not answer: {type(error).__name__}") from error


def _open(url: str, settings: StoreSettings) -> ObjectStore:
    if not url.startswith("s3://"):
        return from_url(url)
    options: dict[str, Any] = {"region": settings.s3_region}
    if settings.s3_endpoint:
        options |= {"endpoint": settings.s3_endpoint, "virtual_hosted_style_request": False}
    if settings.s3_access_key_id and settings.s3_secret_access_key:
        options["access_key_id"] = settings.s3_access_key_id.get_secret_value()
        options["secret_access_key"] = settings.s3_secret_access_key.get_secret_value()
    return S3Store.from_url(url, client_options={"allow_http": settings.s3_allow_http}, **options)
