"""A thread that computes beside requests takes no core from them."""

import torch

from serving.daemon_threads import DaemonThreads
from serving.lone_threads import lone_thread
from tests.serving.fixtures import PATIENCE


def test_torch_in_a_lone_thread_uses_no_other() -> None:
    found: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        thread = lone_thread(lambda: found.append(torch.get_num_threads()), "lone")
        thread.start()
        thread.join(PATIENCE)
        pool = DaemonThreads("pool")
        found.append(pool.submit(torch.get_num_threads).result(PATIENCE))
        pool.shutdown()
    finally:
        torch.set_num_threads(before)
    assert found == [1, 1]
