"""FastAPI alone: a pydantic model, an async endpoint, one process; rows as lists, and rows of named fields."""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, create_model

from tests.bench.peers import net

app = FastAPI()
mlp = net.load()


class Rows(BaseModel):
    rows: list[list[float]]


Instance = create_model("Instance", **{f"f{i}": (float, ...) for i in range(20)})  # type: ignore[call-overload]


class Instances(BaseModel):
    instances: list[Instance]


class Outputs(BaseModel):
    outputs: list[float]


@app.post("/predict")
async def predict(request: Rows) -> Outputs:
    return Outputs(outputs=net.probabilities(mlp, torch.tensor(request.rows)).tolist())


@app.post("/predict_named")
async def predict_named(request: Instances) -> Outputs:
    rows = torch.tensor([list(vars(instance).values()) for instance in request.instances])
    return Outputs(outputs=net.probabilities(mlp, rows).tolist())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False)
