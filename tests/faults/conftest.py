from tests.core.conftest import s3, storage

__all__ = ["s3", "storage"]
