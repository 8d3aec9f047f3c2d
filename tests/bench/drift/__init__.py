"""How often monitors of drift alarm while nothing changes, and how soon they find what does."""

from typing import Any


def measure(options: Any) -> Any:
    """The table of all monitors; imported only now, because peers import this package in environments of their own."""
    from tests.bench.drift import table

    return table.measure(options)
