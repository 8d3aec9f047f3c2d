from tests.core.conftest import place, s3, storage

__all__ = ["place", "s3", "storage"]
