"""Writes the networks of `networks.py` into a directory, and int8 forms of them.

    python make.py DIRECTORY

For each NAME: NAME.onnx and NAME.input, the bytes of one sample. The same versions of the packages
give the same files.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType,
                                      quantize_dynamic, quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process

import networks

CALIBRATION = 8
IMAGES = {"mobilenetv2", "squeezenet", "resnet18"}


def sample(inputs, random):
    """One sample for the only input of a model."""
    (one,) = inputs
    shape = [1 if isinstance(d, str) else d for d in one.shape]
    if one.type == "tensor(int64)":
        return {one.name: random.integers(0, networks.WORDS, shape)}
    return {one.name: random.standard_normal(shape).astype(np.float32)}


class Samples(CalibrationDataReader):
    def __init__(self, path):
        inputs = inputs_of(path)
        random = np.random.default_rng(11)
        self.rest = iter([sample(inputs, random) for _ in range(CALIBRATION)])

    def get_next(self):
        return next(self.rest, None)


def inputs_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()


def describe(path):
    """The sample beside the model."""
    (x,) = sample(inputs_of(path), np.random.default_rng(7)).values()
    path.with_suffix(".input").write_bytes(x.tobytes())
    print(path.stem, flush=True)


def static(source, target):
    """QDQ, weights by channel: what the documentation of ONNX Runtime advises for networks of
    convolutions."""
    with tempfile.TemporaryDirectory() as aside:
        prepared = Path(aside) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, target, Samples(prepared), quant_format=QuantFormat.QDQ,
                        per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8)


def make(directory):
    directory.mkdir(parents=True, exist_ok=True)
    for network in networks.NETWORKS:
        name = network.__name__
        path = directory / f"{name}_f32.onnx"
        onnx.save(network().model(), path)
        describe(path)
        if name in IMAGES:
            static(path, directory / f"{name}_int8.onnx")
            describe(directory / f"{name}_int8.onnx")
        elif name == "encoder":
            target = directory / f"{name}_int8dyn.onnx"
            quantize_dynamic(path, target, per_channel=True, weight_type=QuantType.QInt8)
            describe(target)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
