"""Networks that people deploy, by their published shape, with random weights.

Times do not depend on the values of weights, and random ones need no licence and no download.
"""

import numpy as np

from graph import Graph

IMAGE = ["batch", 3, 224, 224]


def mobilenetv2():
    """MobileNetV2 1.0 (arXiv 1801.04381, table 2)."""
    g = Graph("mobilenetv2", seed=1)
    x = g.relu6(g.batch_norm(g.conv(g.input("input", IMAGE), 32, 3, stride=2, pad=1)))
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, channels, count, stride in stages:
        for i in range(count):
            x = inverted_residual(g, x, expansion, channels, stride if i == 0 else 1)
    x = g.relu6(g.batch_norm(g.conv(x, 1280, 1)))
    g.output(g.classes(x, 1000), ["batch", 1000])
    return g


def inverted_residual(g, x, expansion, channels, stride):
    wide = g.width[x] * expansion
    y = x
    if expansion != 1:
        y = g.relu6(g.batch_norm(g.conv(y, wide, 1)))
    y = g.relu6(g.batch_norm(g.conv(y, wide, 3, stride=stride, pad=1, groups=wide)))
    y = g.batch_norm(g.conv(y, channels, 1, gain=1.0))
    return g.node("Add", [x, y]) if stride == 1 and g.width[x] == channels else y


def squeezenet():
    """SqueezeNet 1.1 (arXiv 1602.07360)."""
    g = Graph("squeezenet", seed=2)
    x = g.relu(g.conv(g.input("input", IMAGE), 64, 3, stride=2, bias=True))
    for fires in [[(16, 64)] * 2, [(32, 128)] * 2, [(48, 192)] * 2 + [(64, 256)] * 2]:
        x = g.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
        for squeeze, expand in fires:
            x = fire(g, x, squeeze, expand)
    x = g.relu(g.conv(x, 1000, 1, bias=True))
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])], axis=1)
    g.output(x, ["batch", 1000])
    return g


def fire(g, x, squeeze, expand):
    x = g.relu(g.conv(x, squeeze, 1, bias=True))
    one = g.relu(g.conv(x, expand, 1, bias=True))
    three = g.relu(g.conv(x, expand, 3, pad=1, bias=True))
    y = g.node("Concat", [one, three], axis=1)
    g.width[y] = 2 * expand
    return y


def resnet18():
    """ResNet-18 (arXiv 1512.03385, table 1)."""
    g = Graph("resnet18", seed=3)
    x = g.relu(g.batch_norm(g.conv(g.input("input", IMAGE), 64, 7, stride=2, pad=3)))
    x = g.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for channels, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        for step in (stride, 1):
            x = basic_block(g, x, channels, step)
    g.output(g.classes(x, 1000), ["batch", 1000])
    return g


def basic_block(g, x, channels, stride):
    y = g.relu(g.batch_norm(g.conv(x, channels, 3, stride=stride, pad=1)))
    y = g.batch_norm(g.conv(y, channels, 3, pad=1, gain=1.0))
    if stride != 1 or g.width[x] != channels:
        x = g.batch_norm(g.conv(x, channels, 1, stride=stride, gain=1.0))
    return g.relu(g.node("Add", [x, y]))


TOKENS, WIDTH, HEADS, LAYERS, WORDS = 128, 192, 6, 6, 4096


def encoder():
    """A small BERT (arXiv 1810.04805): ids of words in, the embedding of a sentence out."""
    g = Graph("encoder", seed=4)
    ids = g.input("ids", ["batch", TOKENS], np.int64)
    x = g.node("Gather", [g.constant(g.normal((WORDS, WIDTH), 1.0)), ids], axis=0)
    x = g.node("Add", [x, g.constant(g.normal((TOKENS, WIDTH), 0.3))])
    g.width[x] = WIDTH
    x = g.layer_norm(x)
    for _ in range(LAYERS):
        x = g.layer_norm(g.node("Add", [attention(g, x), x]))
        y = g.dense(g.gelu(g.dense(x, 4 * WIDTH, gain=2.0)), WIDTH)
        x = g.layer_norm(g.node("Add", [y, x]))
    g.output(g.node("ReduceMean", [x], axes=[1], keepdims=0), ["batch", WIDTH])
    return g


def attention(g, x):
    size = WIDTH // HEADS

    def heads(order):
        return g.node("Transpose", [g.reshape(g.dense(x, WIDTH), [0, 0, HEADS, size])], perm=order)

    query, key, value = heads([0, 2, 1, 3]), heads([0, 2, 3, 1]), heads([0, 2, 1, 3])
    scores = g.node("MatMul", [query, key])
    scores = g.node("Div", [scores, g.constant(np.float32(np.sqrt(size)))])
    y = g.node("MatMul", [g.node("Softmax", [scores], axis=-1), value])
    y = g.reshape(g.node("Transpose", [y], perm=[0, 2, 1, 3]), [0, 0, WIDTH])
    g.width[y] = WIDTH
    return g.dense(y, WIDTH)


STEPS, FEATURES, CELLS = 98, 40, 128


def lstm():
    """Two layers of LSTM over a second of audio features, twelve words."""
    g = Graph("lstm", seed=5)
    # The batch is not the first dimension of what an LSTM reads, so it is fixed.
    x = g.node("Transpose", [g.input("input", [1, STEPS, FEATURES])], perm=[1, 0, 2])
    for width in (FEATURES, CELLS):
        w = g.normal((1, 4 * CELLS, width), np.sqrt(1 / width))
        r = g.normal((1, 4 * CELLS, CELLS), np.sqrt(1 / CELLS))
        b = g.normal((1, 8 * CELLS), 0.1)
        constants = [g.constant(v) for v in (w, r, b)]
        x = g.node("LSTM", [x] + constants, hidden_size=CELLS)
        x = g.node("Squeeze", [x, g.constant(np.array([1], np.int64))])
    last = g.node("Gather", [x, g.constant(np.int64(-1))], axis=0)
    g.width[last] = CELLS
    g.output(g.dense(last, 12), [1, 12])
    return g


NETWORKS = [mobilenetv2, squeezenet, resnet18, encoder, lstm]
