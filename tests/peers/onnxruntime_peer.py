"""ONNX Runtime on one thread, behind the protocol of this directory (see src/lib.rs).

The inputs are bound once: no copy of them is in the times, which favours this engine. Beside its
outputs it gives `plain`: those of the model without any optimisation, where a quantised layer is
computed in floats between its scales. On an x86 CPU without VNNI the optimised int8 kernels saturate
in 16 bits; the plain outputs say what the file means.
"""

import json
import sys
import time

import numpy
import onnxruntime

TYPES = {"tensor(float)": "<f4", "tensor(int64)": "<i8", "tensor(int32)": "<i4",
         "tensor(uint8)": "u1", "tensor(int8)": "i1", "tensor(bool)": "?"}


def session(path, optimised):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load(asked):
    loaded = session(asked["model"], True)
    binding, given = loaded.io_binding(), {}
    for port, path in zip(loaded.get_inputs(), asked["inputs"]):
        shape = [size if isinstance(size, int) else 1 for size in port.shape]
        given[port.name] = numpy.fromfile(path, dtype=TYPES[port.type]).reshape(shape)
        binding.bind_cpu_input(port.name, given[port.name])
    for port in loaded.get_outputs():
        binding.bind_output(port.name)
    loaded.run_with_iobinding(binding)
    values = lambda outputs: [output.ravel().tolist() for output in outputs]
    reply = {"outputs": values(binding.copy_outputs_to_cpu()),
             "plain": values(session(asked["model"], False).run(None, given))}
    return reply, (loaded, binding)


def timed(model, runs):
    loaded, binding = model
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        loaded.run_with_iobinding(binding)
        times.append(time.perf_counter_ns() - start)
    return times


def main():
    print(json.dumps({"version": f"ONNX Runtime {onnxruntime.__version__}"}), flush=True)
    model = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "model" in asked:
                reply, model = load(asked)
            else:
                reply = {"ns": timed(model, asked["runs"])}
        except Exception as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
