"""The clients that applications use, against an agent that serves the digits model.

Usage: serving.py HTTP_URL MODEL ROWS.json   ROWS.json is [[64 numbers], ...]; prints the labels that each client was given.
"""

import json
import sys

import boto3
import botocore.config
import botocore.exceptions
import numpy as np
import requests
import tritonclient.grpc as grpc
import tritonclient.http as http
from mlflow.deployments import get_deploy_client  # noqa: F401  mlflow is there, and not only its name
from tritonclient.utils import InferenceServerException

PIXELS = "pixels"


def triton(module, url, model, rows, binary):
    with module.InferenceServerClient(url) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready(model), model
        metadata = client.get_model_metadata(model)
        name = metadata["inputs"][0]["name"] if module is http else metadata.inputs[0].name
        assert name == PIXELS, name
        tensor = module.InferInput(PIXELS, list(rows.shape), "FP32")
        if module is http:
            tensor.set_data_from_numpy(rows, binary_data=binary)
            outputs = [module.InferRequestedOutput(each, binary_data=binary) for each in ("label", "probabilities")]
        else:
            tensor.set_data_from_numpy(rows)
            outputs = None
        answer = client.infer(model, [tensor], outputs=outputs, request_id="7", timeout=10_000_000)
        wrong = module.InferInput(PIXELS, [1, 63], "FP32")
        wrong.set_data_from_numpy(rows[:1, :63].copy())
        try:
            client.infer(model, [wrong])
            raise AssertionError("63 pixels were taken")
        except InferenceServerException as error:
            assert "expected shape [-1, 64], [1, 63] given" in str(error), error
        try:
            client.infer("letters", [tensor])
            raise AssertionError("a model that is not there has answered")
        except InferenceServerException as error:
            assert "letters" in str(error), error
        return answer.as_numpy("label"), answer.as_numpy("probabilities")


def sagemaker(url, model, rows):
    config = botocore.config.Config(retries={"max_attempts": 1})
    client = boto3.client("sagemaker-runtime", endpoint_url=url, region_name="us-east-1", config=config,
                          aws_access_key_id="none", aws_secret_access_key="none")
    name = model.rpartition("/")[2]
    ask = lambda kind, body, **more: client.invoke_endpoint(EndpointName=name, ContentType=kind, Body=body, **more)
    answer = json.loads(ask("application/json", json.dumps({"instances": rows.tolist()}))["Body"].read())
    csv = "\n".join(",".join(str(cell) for cell in row) for row in rows)
    lines = ask("text/csv", csv, Accept="text/csv")["Body"].read().decode().splitlines()
    labels = np.array([row["label"] for row in answer["predictions"]])
    assert [int(line.split(",")[0]) for line in lines] == labels.tolist(), lines
    try:
        ask("application/json", b'{"instances": [[1]]}')
        raise AssertionError("one pixel was taken")
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "ValidationError", error.response
        assert "expected shape [-1, 64], [1, 1] given" in error.response["Error"]["Message"], error
    return labels, np.array([row["probabilities"] for row in answer["predictions"]], dtype=np.float32)


def mlflow(url, rows):
    """As `mlflow.pyfunc.scoring_server.client.ScoringServerClient` asks; that class itself needs pandas."""
    assert requests.get(f"{url}/ping").status_code == 200
    assert requests.get(f"{url}/version").status_code == 200
    answer = requests.post(f"{url}/invocations", json={"dataframe_split": {
        "columns": [f"p{row}{column}" for row in range(8) for column in range(8)], "data": rows.tolist()}})
    assert answer.status_code == 200, answer.text
    wrong = requests.post(f"{url}/invocations", json={"dataframe_split": {"columns": ["p00"], "data": [[1]]}})
    assert wrong.status_code == 400 and wrong.json()["error_code"] == "BAD_REQUEST", wrong.text
    rows = answer.json()["predictions"]
    return np.array([row["label"] for row in rows]), np.array([row["probabilities"] for row in rows], dtype=np.float32)


def azure(url, rows):
    assert requests.get(url).status_code == 200
    answer = requests.post(f"{url}/score", json={"data": rows.tolist()})
    rows = answer.json()
    return np.array([row["label"] for row in rows]), np.array([row["probabilities"] for row in rows], dtype=np.float32)


def main(url, model, file):
    rows = np.array(json.load(open(file)), dtype=np.float32)
    host = url.removeprefix("http://")
    answers = {
        "tritonclient http, JSON": triton(http, host, model.rpartition("/")[2], rows, binary=False),
        "tritonclient http, binary": triton(http, host, model.rpartition("/")[2], rows, binary=True),
        "tritonclient grpc": triton(grpc, host, model, rows, binary=True),
        "boto3": sagemaker(url, model, rows),
        "MLflow": mlflow(url, rows),
        "Azure ML": azure(url, rows),
    }
    labels, probabilities = answers["tritonclient grpc"]
    for client, (other_labels, other_probabilities) in answers.items():
        assert np.array_equal(labels, other_labels), client
        assert probabilities.tobytes() == other_probabilities.astype(np.float32).tobytes(), client
    print(json.dumps(labels.tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:])
