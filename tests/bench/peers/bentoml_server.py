"""BentoML: a service class with an async NumPy endpoint; one worker, metrics as by default, no access log."""

import bentoml
import numpy as np
import torch

from tests.bench.peers import net


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Mlp:
    def __init__(self) -> None:
        self.net = net.load()

    @bentoml.api
    async def predict(self, rows: np.ndarray) -> np.ndarray:
        return net.probabilities(self.net, torch.from_numpy(rows).to(torch.float32)).numpy()
