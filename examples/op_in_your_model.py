"""Use one op of rvc_fast in an MLX model of your own: python examples/op_in_your_model.py"""

import mlx.core as mx
import mlx.nn as nn

from rvc_fast import ops


class Block(nn.Module):
    """x + conv(leaky_relu(x)), as stock MLX writes it."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel_size=3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.conv(nn.leaky_relu(x, 0.1))


class FusedBlock(nn.Module):
    """The same in one call: the activation, the bias and the addition cost no pass over memory."""

    def __init__(self, block: Block):
        super().__init__()
        # The weight is rearranged for the kernel once, here.
        self.weight = ops.pack_conv1d(block.conv.weight)
        self.bias = block.conv.bias

    def __call__(self, x: mx.array) -> mx.array:
        return ops.conv1d(x, self.weight, self.bias, padding=1, leaky=0.1, residual=x)


def main() -> None:
    mx.random.seed(0)
    block = Block(64)
    x = mx.random.normal((1, 4800, 64))
    want, got = block(x), FusedBlock(block)(x)
    difference = mx.abs(got - want).max() / mx.abs(want).max()
    print(f"largest difference: {difference.item():.1e} of the largest value")
    assert difference < 1e-5


if __name__ == "__main__":
    main()
