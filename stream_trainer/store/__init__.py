"""The model store: versions that commit weights and offsets as one. The manifest is the only commit point."""

from stream_trainer.store.chain import Version
from stream_trainer.store.manifest import FileEntry, Manifest, Rows, Span
from stream_trainer.store.store import ModelStore, open_store

__all__ = ["FileEntry", "Manifest", "ModelStore", "Rows", "Span", "Version", "open_store"]
