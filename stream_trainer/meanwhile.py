"""Something that runs in a thread of its own for as long as a block lasts, and never longer."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(run: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """`run` is given an event that is set at the end of the block, which waits for it to return."""
    done = threading.Event()
    thread = threading.Thread(target=run, args=(done,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
