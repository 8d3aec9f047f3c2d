import subprocess
import sys
import threading

import pytest

from serving.inference_thread import InferenceThread


def named(number: int) -> tuple[int, str]:
    return number, threading.current_thread().name


def test_calls_are_made_in_order_in_one_thread_and_failures_are_the_callers() -> None:
    executor = InferenceThread()
    futures = [executor.submit(named, i) for i in range(5)]
    assert [future.result(20) for future in futures] == [(i, "inference") for i in range(5)]
    failed = executor.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(20)
    executor.shutdown()
    assert executor._thread is not None
    executor._thread.join(20)
    assert not executor._thread.is_alive()


def test_a_call_that_hangs_does_not_keep_the_process_from_ending() -> None:
    code = (
        "import threading; from serving.inference_thread import InferenceThread\n"
        "inside = threading.Event()\n"
        "InferenceThread().submit(lambda: (inside.set(), threading.Event().wait()))\n"
        "inside.wait()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
