import subprocess
import sys
import threading

import pytest

from serving.daemon_threads import DaemonThreads

STORE = """
import asyncio, threading
inside = threading.Event()
class Store:
    def hang(self, *_):
        inside.set()
        threading.Event().wait()
    read = file = highest = hang
async def ask(answer):
    asking = asyncio.ensure_future(answer)
    await asyncio.wait([asking], timeout=0)
    while not inside.is_set():
        await asyncio.sleep(0.001)
    asking.cancel()
"""
HUNG = {
    "a pool": """
from serving.daemon_threads import DaemonThreads
DaemonThreads("one", 2).submit(Store().hang)
inside.wait()
""",
    "lineage": """
from serving.lineage import LineageEndpoint
asyncio.run(ask(LineageEndpoint(Store())._answer("1")))
""",
    "page": """
from types import SimpleNamespace
from serving.page.form import Examples
served = SimpleNamespace(manifest=None, sha256="")
asyncio.run(ask(Examples(None, Store(), SimpleNamespace(served=served)).rows()))
""",
    "admin": """
from serving.admin import Admin
from stream_trainer.settings import KafkaSettings
asyncio.run(ask(Admin(None, None, KafkaSettings(), None, None)._in_thread(Store().hang)))
""",
}


def named(number: int) -> tuple[int, str]:
    return number, threading.current_thread().name


def test_calls_are_made_in_order_in_one_thread_and_failures_are_the_callers() -> None:
    executor = DaemonThreads("inference")
    futures = [executor.submit(named, i) for i in range(5)]
    assert [future.result(20) for future in futures] == [(i, "inference") for i in range(5)]
    failed = executor.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(20)
    executor.shutdown()
    assert len(executor._threads) == 1
    executor._threads[0].join(20)
    assert not executor._threads[0].is_alive()


def test_so_many_calls_run_at_once_and_all_threads_end() -> None:
    executor = DaemonThreads("store", 3)
    meeting = threading.Barrier(3)
    futures = [executor.submit(meeting.wait, 20) for _ in range(6)]
    assert sorted(future.result(20) for future in futures) == [0, 0, 1, 1, 2, 2]
    assert [thread.name for thread in executor._threads] == ["store-0", "store-1", "store-2"]
    executor.shutdown()
    for thread in executor._threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("where", HUNG)
def test_a_call_that_hangs_does_not_keep_the_process_from_ending(where: str) -> None:
    ended = subprocess.run([sys.executable, "-c", STORE + HUNG[where]], check=False, timeout=60)
    assert ended.returncode == 0
