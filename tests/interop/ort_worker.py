"""Runs models in onnxruntime in a process of its own, so that bench/as_avx2 can mask its CPU.

Each line of stdin names a model, a .npz of inputs (samples along a new first axis) and a .npz to
write the first output of every sample to.
"""

import sys

import numpy as np
import onnxruntime as ort


def main():
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    for line in sys.stdin:
        model, inputs, output = line.rstrip("\n").split("\t")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        with np.load(inputs) as arrays:
            feeds = {name: arrays[name] for name in arrays.files}
        count = len(next(iter(feeds.values())))
        rows = [
            session.run(None, {name: array[i] for name, array in feeds.items()})[0]
            for i in range(count)
        ]
        np.savez(output, y=np.stack(rows))


if __name__ == "__main__":
    main()
