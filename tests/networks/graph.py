"""An ONNX graph that is written layer by layer, with random weights from one seed."""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

OPSET = 17
# The oldest file format that carries this operator set: every engine reads it.
IR_VERSION = 8

TYPES = {np.float32: TensorProto.FLOAT, np.int64: TensorProto.INT64}


class Graph:
    """Nodes and weights in the order in which they are written."""

    def __init__(self, name, seed):
        self.name = name
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.inputs, self.outputs = [], [], [], []
        # Channels of a value, for those who read it.
        self.width = {}

    def input(self, name, shape, dtype=np.float32):
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        self.width[name] = shape[1] if len(shape) > 2 else shape[-1]
        return name

    def output(self, value, shape, name="output"):
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, array, kind="w"):
        name = f"{kind}{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operator, inputs, **attributes):
        return self.nodes_of(operator, inputs, 1, **attributes)[0]

    def nodes_of(self, operator, inputs, outputs, **attributes):
        names = [f"{operator.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        self.width[names[0]] = self.width.get(inputs[0])
        return names

    def normal(self, shape, deviation):
        return (self.random.standard_normal(shape) * deviation).astype(np.float32)

    def uniform(self, shape, low, high):
        return self.random.uniform(low, high, shape).astype(np.float32)

    # Layers of convolutional networks.

    def conv(self, x, channels, kernel, stride=1, pad=0, groups=1, gain=2.0, bias=False):
        """Convolution with He's initialisation: `gain` is 2 before a Relu, 1 without one."""
        fan_in = self.width[x] // groups * kernel * kernel
        shape = (channels, self.width[x] // groups, kernel, kernel)
        inputs = [x, self.constant(self.normal(shape, np.sqrt(gain / fan_in)))]
        if bias:
            inputs.append(self.constant(self.normal(channels, 0.05), "b"))
        y = self.node("Conv", inputs, kernel_shape=[kernel, kernel], strides=[stride, stride],
                      pads=[pad] * 4, group=groups, dilations=[1, 1])
        self.width[y] = channels
        return y

    def batch_norm(self, x):
        n = self.width[x]
        parts = [self.uniform(n, 0.8, 1.2), self.normal(n, 0.1), self.normal(n, 0.1),
                 self.uniform(n, 0.8, 1.2)]
        return self.node("BatchNormalization", [x] + [self.constant(p) for p in parts],
                         epsilon=1e-5)

    def relu(self, x):
        return self.node("Relu", [x])

    def relu6(self, x):
        low, high = (self.constant(np.float32(v)) for v in (0, 6))
        return self.node("Clip", [x, low, high])

    def classes(self, x, count):
        """Mean over the image and one dense layer."""
        y = self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)
        weights = self.normal((count, self.width[x]), np.sqrt(1 / self.width[x]))
        y = self.node("Gemm", [y, self.constant(weights), self.constant(self.normal(count, 0.05))],
                      transB=1)
        self.width[y] = count
        return y

    # Layers of sequence networks.

    def dense(self, x, width, gain=1.0):
        """A product with constants along the last axis, and a bias."""
        weights = self.normal((self.width[x], width), np.sqrt(gain / self.width[x]))
        y = self.node("MatMul", [x, self.constant(weights)])
        y = self.node("Add", [y, self.constant(self.normal(width, 0.02), "b")])
        self.width[y] = width
        return y

    def layer_norm(self, x):
        scale = self.constant(self.uniform(self.width[x], 0.8, 1.2))
        bias = self.constant(self.normal(self.width[x], 0.1), "b")
        return self.node("LayerNormalization", [x, scale, bias], axis=-1, epsilon=1e-5)

    def gelu(self, x):
        """As exporters write it: x * (1 + erf(x / sqrt 2)) / 2."""
        root = self.constant(np.float32(np.sqrt(2)))
        y = self.node("Erf", [self.node("Div", [x, root])])
        y = self.node("Mul", [x, self.node("Add", [y, self.constant(np.float32(1))])])
        return self.node("Mul", [y, self.constant(np.float32(0.5))])

    def reshape(self, x, shape):
        return self.node("Reshape", [x, self.constant(np.array(shape, np.int64))])

    def model(self):
        """The finished file, checked by ONNX."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.weights)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION,
                                  producer_name="sandpiper-networks")
        checker.check_model(model)
        return shape_inference.infer_shapes(model, strict_mode=True)
