"""PyTorch's contestants: plain functions of a tuple of tensors, updates in place.

A module through functional_call takes longer, and so would tangents of weights that require a
graph: torch.func.jvp runs on detached tensors over the same memory.
"""

import math
from functools import partial
from typing import Any

import models
import numpy as np
import timing


class Torch:
    """A network in torch; channels_last: of the memory; compiled: loss by torch.compile.

    checkpointed: keep the activations of about sqrt(layers) of the layers, recompute the others.
    """

    def __init__(self, weights: list[np.ndarray], x: np.ndarray, labels: np.ndarray, *,
                 channels_last: bool = False, compiled: bool = False,
                 checkpointed: bool = False) -> None:  # fmt: skip
        import torch

        if timing.PINNED:
            torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch, self.checkpointed = torch, checkpointed
        self.memory = torch.channels_last if channels_last else torch.contiguous_format
        self.feed(x, labels)
        self.load(weights)
        wrap = partial(torch.compile, dynamic=False) if compiled else lambda function: function
        self._loss = wrap(self._loss_of)
        self._jvp = wrap(self._jvp_of)

    def _tensor(self, x: np.ndarray) -> Any:
        tensor = self.torch.from_numpy(np.array(x))
        return tensor.contiguous(memory_format=self.memory) if x.ndim == 4 else tensor.contiguous()

    def load(self, weights: list[np.ndarray]) -> None:
        """Start again from these weights, in dualgrad's layout."""
        self.leaves = tuple(self._tensor(w).requires_grad_() for w in self.layout(weights))
        self.plain = tuple(w.detach() for w in self.leaves)  # the same memory, no graph

    @staticmethod
    def layout(weights: list[np.ndarray]) -> list[np.ndarray]:
        """Return dualgrad's weights as torch has them: (out, in), and (out, in, h, w) of NCHW."""
        found, channels = [], 0
        for w in weights:
            if w.ndim == 4:
                channels = w.shape[3]
                w = w.transpose(3, 2, 0, 1)
            elif w.ndim == 2 and channels:  # rows are (h, w, c), and in torch (c, h, w)
                side = math.isqrt(len(w) // channels)
                w = w.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(w.shape[::-1])
                channels = 0
            elif w.ndim == 2:
                w = w.T
            found.append(w)
        return found

    @staticmethod
    def own_layout(weights: list[np.ndarray], like: list[np.ndarray]) -> list[np.ndarray]:
        """Return torch's weights as dualgrad has them; `like` are dualgrad's, for the shapes."""
        found, channels = [], 0
        for w, own in zip(weights, like, strict=True):
            if own.ndim == 4:
                channels = own.shape[3]
                w = w.transpose(2, 3, 1, 0)
            elif own.ndim == 2 and channels:
                side = math.isqrt(len(own) // channels)
                w = w.reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
                channels = 0
            elif own.ndim == 2:
                w = w.T
            found.append(np.ascontiguousarray(w.reshape(own.shape)))
        return found

    def feed(self, x: np.ndarray, labels: np.ndarray) -> None:
        """Take another batch, without a copy where the layout is right."""
        x = self.torch.from_numpy(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)
        self.x = x.contiguous(memory_format=self.memory) if x.ndim == 4 else x
        self.labels = self.torch.from_numpy(labels.astype(np.int64))

    def weights(self) -> list[np.ndarray]:
        return [w.numpy().copy() for w in self.plain]

    def _layers(self, x: Any, weights: tuple, start: int, stop: int) -> Any:
        function = self.torch.nn.functional
        for i in range(start, stop):
            w, b = weights[2 * i], weights[2 * i + 1]
            if w.ndim == 4:
                x = function.relu(function.conv2d(x, w, b, padding=1))
                x = function.max_pool2d(x, 2) if i % 2 else x
            else:
                x = function.linear(x.flatten(1), w, b)
                x = function.relu(x) if 2 * i + 2 < len(weights) else x
        return x

    def _loss_of(self, weights: tuple, x: Any, labels: Any) -> Any:
        layers = len(weights) // 2
        if self.checkpointed:
            from torch.utils.checkpoint import checkpoint

            size = max(1, round(math.sqrt(layers)))
            for start in range(0, layers, size):
                stop = min(start + size, layers)
                x = checkpoint(self._layers, x, weights, start, stop, use_reentrant=False)
        else:
            x = self._layers(x, weights, 0, layers)
        return self.torch.nn.functional.cross_entropy(x, labels)

    def _jvp_of(self, weights: tuple, directions: tuple, x: Any, labels: Any) -> Any:
        loss = partial(self._loss_of, x=x, labels=labels)
        return self.torch.func.jvp(loss, (weights,), (directions,))

    def forward(self) -> float:
        with self.torch.inference_mode():
            return self._loss(self.plain, self.x, self.labels).item()

    def forward_gradient(self, lr: float = models.LR) -> float:
        with self.torch.no_grad():
            directions = tuple(self.torch.randn_like(w) for w in self.plain)
            value, derivative = self._jvp(self.plain, directions, self.x, self.labels)
            step = -lr * derivative.item()
            for w, v in zip(self.plain, directions, strict=True):
                w.add_(v, alpha=step)
            return value.item()

    def backprop(self, lr: float = models.LR) -> float:
        value = self._loss(self.leaves, self.x, self.labels)
        gradient = self.torch.autograd.grad(value, self.leaves)
        with self.torch.no_grad():
            for w, g in zip(self.plain, gradient, strict=True):
                w.add_(g, alpha=-lr)
        return value.item()
