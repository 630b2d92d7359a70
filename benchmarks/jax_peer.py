"""JAX's contestants: the whole step in one jit, parameters donated, the key threaded through.

Max-pooling is by reshape: its derivative is far faster than reduce_window's on a CPU.
"""

import os
from functools import partial
from typing import Any

import models
import numpy as np


class Jax:
    """A network in jax, NHWC as in dualgrad."""

    layout = staticmethod(list)

    def __init__(self, weights: list[np.ndarray], x: np.ndarray, labels: np.ndarray) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        def forward_gradient(weights, key, lr, x, labels):
            key, *keys = jax.random.split(key, len(weights) + 1)
            directions = [jax.random.normal(k, w.shape, w.dtype)
                          for k, w in zip(keys, weights, strict=True)]  # fmt: skip
            loss = partial(self._loss_of, x=x, labels=labels)
            value, derivative = jax.jvp(loss, (weights,), (directions,))
            step = lr * derivative
            return [w - step * v for w, v in zip(weights, directions, strict=True)], key, value

        def backprop(weights, lr, x, labels):
            value, gradient = jax.value_and_grad(self._loss_of)(weights, x, labels)
            return [w - lr * g for w, g in zip(weights, gradient, strict=True)], value

        self.jax = jax
        self.data = jax.numpy.asarray(x), jax.numpy.asarray(labels, "int32")
        self.key = jax.random.key(0)
        self.load(weights)
        self._forward = jax.jit(self._loss_of)
        self._forward_gradient = jax.jit(forward_gradient, donate_argnums=0)
        self._backprop = jax.jit(backprop, donate_argnums=0)

    def load(self, weights: list[np.ndarray]) -> None:
        self.params = [self.jax.numpy.array(w) for w in weights]

    def weights(self) -> list[np.ndarray]:
        return [np.array(w) for w in self.params]

    def _loss_of(self, weights: list, x: Any, labels: Any) -> Any:
        jax = self.jax
        for i in range(len(weights) // 2):
            w, b = weights[2 * i], weights[2 * i + 1]
            if w.ndim == 4:
                layout = ("NHWC", "HWIO", "NHWC")
                x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)
                x = jax.nn.relu(x + b)
                n, h, v, c = x.shape
                x = x.reshape(n, h // 2, 2, v // 2, 2, c).max((2, 4)) if i % 2 else x
            else:
                x = x.reshape(len(x), -1) @ w + b
                x = jax.nn.relu(x) if 2 * i + 2 < len(weights) else x
        chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1)
        return -chosen.mean()

    def forward(self) -> float:
        return float(self._forward(self.params, *self.data))

    def forward_gradient(self, lr: float = models.LR) -> float:
        done = self._forward_gradient(self.params, self.key, lr, *self.data)
        self.params, self.key, value = self.jax.block_until_ready(done)
        return float(value)

    def backprop(self, lr: float = models.LR) -> float:
        self.params, value = self.jax.block_until_ready(self._backprop(self.params, lr, *self.data))
        return float(value)
