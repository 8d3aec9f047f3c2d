"""What a pipeline may be called, and the names of its Kafka topics."""

import re
from dataclasses import dataclass

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def is_name(text: str) -> bool:
    """Whether a pipeline may be called so: a topic, a folder and a metric may begin with it."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Topics:
    """The Kafka topics of a pipeline, all named after it."""

    pipeline: str

    @property
    def examples(self) -> str:
        """Labelled examples, by business key."""
        return f"{self.pipeline}.examples"

    @property
    def predictions(self) -> str:
        """What was answered, by prediction id."""
        return f"{self.pipeline}.predictions"

    @property
    def rejected(self) -> str:
        """Records that could not be used, by their position."""
        return f"{self.pipeline}.rejected"

    @property
    def models(self) -> str:
        """Announcements of versions; compacted."""
        return f"{self.pipeline}.models"

    @property
    def alerts(self) -> str:
        """Opened, updated and resolved alerts; compacted."""
        return f"{self.pipeline}.alerts"

    @property
    def actions(self) -> str:
        """What monitors and people ask of the trainer, by the id of the action; compacted."""
        return f"{self.pipeline}.actions"

    @property
    def labels(self) -> str:
        """Labels that come after the prediction, by business key or prediction id."""
        return f"{self.pipeline}.labels"

    @property
    def unmatched(self) -> str:
        """Labels that taught nothing, with the reason; see `joining.matching`."""
        return f"{self.pipeline}.unmatched"

    @property
    def join_commits(self) -> str:
        """What each batch of the joiner has read and written; compacted."""
        return f"{self.pipeline}.join_commits"
