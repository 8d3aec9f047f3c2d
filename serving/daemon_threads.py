"""A pool of threads that a process which ends does not wait for.

The standard library's pool is joined at the end of the interpreter: with it, a model or a store that hangs would keep
SIGTERM from ending the service.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from serving.lone_threads import lone_thread

T = TypeVar("T")
P = ParamSpec("P")


class DaemonThreads(Executor):
    """An executor of daemon threads; each call starts one more until there are `size`. One thread keeps the order.

    Args:
        name: of the threads, which are numbered when there is more than one.
        size: how many calls run at the same time.
    """

    def __init__(self, name: str, size: int = 1) -> None:
        self._name = name
        self._size = size
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor.submit`. Call it from one thread at a time."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

        if len(self._threads) < self._size:
            self._start()
        self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - its shape
        """End the threads once what they were given is done; never waits for that."""
        for _ in self._threads:
            self._calls.put(None)

    def _start(self) -> None:
        name = self._name if self._size == 1 else f"{self._name}-{len(self._threads)}"
        thread = lone_thread(self._run, name)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        calls: Any = iter(self._calls.get, None)
        for call in calls:
            call()
