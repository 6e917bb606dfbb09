"""The digits model behind FastAPI, as a team would write it that has an afternoon."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


@app.post("/infer")
async def infer(request: Request):
    tensor = request.inputs[0]
    rows = np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)
    label, probabilities = session.run(["label", "probabilities"], {"pixels": rows})
    return {"outputs": [
        {"name": "label", "datatype": "INT64", "shape": list(label.shape), "data": label.tolist()},
        {"name": "probabilities", "datatype": "FP32", "shape": list(probabilities.shape),
         "data": probabilities.ravel().tolist()},
    ]}
