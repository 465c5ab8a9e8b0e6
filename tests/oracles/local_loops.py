"""A locally connected layer as loops over floats: nothing of the package, nothing of torch.

Images are [image][channel][row][column], weights [row][column][out][in of the group][kernel row][kernel column].
"""

from itertools import product


def synapses(weight, groups, stride, padding, height, width):
    """Every synapse that does not face the padding: its place in the weight, and the channel, row, column it reads."""
    rows, columns, out = len(weight), len(weight[0]), len(weight[0][0])
    inputs, kh, kw = len(weight[0][0][0]), len(weight[0][0][0][0]), len(weight[0][0][0][0][0])
    for h, w, o, c, i, j in product(*map(range, (rows, columns, out, inputs, kh, kw))):
        row, column = h * stride[0] + i - padding[0], w * stride[1] + j - padding[1]
        if 0 <= row < height and 0 <= column < width:
            yield (h, w, o, c, i, j), (o // (out // groups) * inputs + c, row, column)


def zeros(*shape):
    return 0.0 if not shape else [zeros(*shape[1:]) for _ in range(shape[0])]


def forward(x, weight, groups, stride, padding):
    m, height, width = len(x), len(x[0][0]), len(x[0][0][0])
    a = zeros(m, len(weight[0][0]), len(weight), len(weight[0]))
    for (h, w, o, c, i, j), (channel, row, column) in synapses(weight, groups, stride, padding, height, width):
        for n in range(m):
            a[n][o][h][w] += weight[h][w][o][c][i][j] * x[n][channel][row][column]
    return a


def correlate(x, post, weight, groups, stride, padding):
    """Pre times post at every synapse; only the weight's shape is used."""
    m, height, width = len(x), len(x[0][0]), len(x[0][0][0])
    sizes = (len(weight[0][0]), len(weight[0][0][0]), len(weight[0][0][0][0]), len(weight[0][0][0][0][0]))
    dW = zeros(len(weight), len(weight[0]), *sizes)
    for (h, w, o, c, i, j), (channel, row, column) in synapses(weight, groups, stride, padding, height, width):
        for n in range(m):
            dW[h][w][o][c][i][j] += post[n][o][h][w] * x[n][channel][row][column]
    return dW


def project(post, weight, groups, stride, padding, channels, height, width):
    m = len(post)
    x = zeros(m, channels, height, width)
    for (h, w, o, c, i, j), (channel, row, column) in synapses(weight, groups, stride, padding, height, width):
        for n in range(m):
            x[n][channel][row][column] += weight[h][w][o][c][i][j] * post[n][o][h][w]
    return x
