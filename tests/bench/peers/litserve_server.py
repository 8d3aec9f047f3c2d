"""LitServe: decode, predict, encode; one worker and one API server."""

import sys
from typing import Any

import litserve as ls
import torch
from torch import Tensor

from tests.bench.peers import net


class Mlp(ls.LitAPI):
    def setup(self, device: Any) -> None:
        self.net = net.load()

    def decode_request(self, request: dict[str, Any]) -> Tensor:
        return torch.tensor(request["input"])

    def predict(self, rows: Tensor) -> Tensor:
        return net.probabilities(self.net, rows)

    def encode_response(self, output: Tensor) -> dict[str, Any]:
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Mlp(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
