"""ONNX Runtime in a loop, with the settings of a worker and nothing around it: what the engine alone takes of the processor.

Usage: raw.py MODEL   prints microseconds of processor time for each run of one row of 64 numbers.
"""

import sys
import time

import numpy as np
import onnxruntime

WARM_UP_RUNS = 2_000
RUNS = 100_000

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
# Bound once: what Python does for each run is then as little as it can be.
bound = session.io_binding()
bound.bind_cpu_input("pixels", np.ones((1, 64), np.float32))
for output in session.get_outputs():
    bound.bind_output(output.name)
for _ in range(WARM_UP_RUNS):
    session.run_with_iobinding(bound)
before = time.process_time()
for _ in range(RUNS):
    session.run_with_iobinding(bound)
print((time.process_time() - before) * 1e6 / RUNS)
