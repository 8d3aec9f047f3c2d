"""MLServer: a custom runtime that speaks the Open Inference Protocol; in the server's own process."""

import numpy as np
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from tests.bench.peers import net


class Mlp(MLModel):
    async def load(self) -> bool:
        self.net = net.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows: np.ndarray = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        outputs = net.probabilities(self.net, torch.from_numpy(rows)).numpy()
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name="probability", payload=outputs)]
        )
