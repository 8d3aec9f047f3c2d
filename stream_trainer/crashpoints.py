"""Named places where a process may die: tests end it there, production passes through.

A point costs one comparison. `stream_trainer.testing.crash` finds all points in the source, so that a new one is
covered by the crash tests without being listed anywhere.
"""

from collections.abc import Callable

_reached: Callable[[str], None] | None = None


def crashpoint(name: str) -> None:
    """Tell whoever watches that the point `name` is reached; its name is a literal, unique in the source."""
    if _reached is not None:
        _reached(name)


def watch(reached: Callable[[str], None] | None) -> None:
    """Call `reached` at every point from now on; None ends it."""
    global _reached  # noqa: PLW0603 - one switch for the whole process, off in production
    _reached = reached
