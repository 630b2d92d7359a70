"""PyTorch and JAX on a device: their steps wait for nothing, so that calls follow one another.

The device is an argument. On "cpu" the same lines run without a GPU, as benchmarks/gpu.py
--device cpu does. Each class has forward, forward_gradient (also of 16 directions) and backprop,
which give the loss as an array on the device, and weights and gradients in dualgrad's order.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax_peer
import numpy as np
import torch_peer

RATE = 1e-8  # of timed steps: hundreds of noisy ones must not diverge
STAGES = (2, 4, 6)  # residual blocks of a ResNet-18 that halve the image
PRECISIONS = ("float32", "tf32")


def residual_weights(weights: Any) -> tuple[list, list[tuple[list, list]], list]:
    """Return the stem, (path, shortcut) of each residual block, and the head of a ResNet-18.

    A convolution is followed by its normalisation's scale and shift.
    """
    rest = list(weights)

    def take(n: int) -> list:
        taken, rest[:] = rest[:n], rest[n:]
        return taken

    stem = take(3)
    blocks = []
    for _ in range(8):
        path = take(6)
        blocks.append((path, take(3) if _pointwise(rest[0].shape) else []))
    return stem, blocks, rest


def _pointwise(shape: tuple[int, ...]) -> bool:
    """Whether a filter is 1 x 1, in dualgrad's layout or in torch's."""
    return len(shape) == 4 and (shape[:2] == (1, 1) or shape[2:] == (1, 1))


class Torch(torch_peer.Torch):
    """A network in torch on a device; captured: each step is replayed as one CUDA graph.

    residual: the network is a ResNet-18, else layers in a row.
    """

    def __init__(self, weights: list[np.ndarray], x: np.ndarray, labels: np.ndarray, *,
                 device: str, precision: str = "float32", residual: bool = False,
                 compiled: bool = False, captured: bool = False,
                 channels_last: bool = False) -> None:  # fmt: skip
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"torch {torch.__version__} finds no CUDA device")
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        self.device, self.residual, self.captured = device, residual, captured
        super().__init__(weights, x, labels, compiled=compiled, channels_last=channels_last)

    def _tensor(self, x: np.ndarray) -> Any:
        return super()._tensor(x).to(self.device)

    def feed(self, x: np.ndarray, labels: np.ndarray) -> None:
        """Take another batch."""
        super().feed(np.ascontiguousarray(x), labels)
        self.x, self.labels = self.x.to(self.device), self.labels.to(self.device)

    def weights(self) -> list[np.ndarray]:
        return [w.cpu().numpy().copy() for w in self.plain]

    def _layers(self, x: Any, weights: tuple, start: int, stop: int) -> Any:
        if not self.residual:
            return super()._layers(x, weights, start, stop)
        function = self.torch.nn.functional

        def normalised(x: Any, w: Any, scale: Any, shift: Any, stride: int = 1) -> Any:
            x = function.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)
            return function.batch_norm(x, None, None, scale, shift, training=True)

        stem, blocks, (scale, shift, w, b) = residual_weights(weights)
        x = function.relu(normalised(x, *stem))
        for place, (path, shortcut) in enumerate(blocks):
            stride = 2 if place in STAGES else 1
            y = function.relu(normalised(x, *path[:3], stride))
            y = normalised(y, *path[3:])
            x = function.relu(y + (normalised(x, *shortcut, stride) if shortcut else x))
        x = function.batch_norm(x, None, None, scale, shift, training=True)
        return function.linear(x.mean((2, 3)), w, b)

    # --- steps

    def forward(self) -> Any:
        with self.torch.no_grad():
            return self._loss(self.plain, self.x, self.labels)

    def _along(self, directions: tuple) -> tuple[Any, Any]:
        return self._jvp(self.plain, directions, self.x, self.labels)

    def forward_gradient(self, lr: float = RATE) -> Any:
        with self.torch.no_grad():
            directions = tuple(self.torch.randn_like(w) for w in self.plain)
            value, derivative = self._along(directions)
            for w, v in zip(self.plain, directions, strict=True):
                w.addcmul_(v, derivative, value=-lr)
            return value

    def forward_gradient_of_16(self, lr: float = RATE) -> Any:
        torch = self.torch
        with torch.no_grad():
            drawn = tuple(torch.randn((16, *w.shape), device=w.device) for w in self.plain)
            values, derivatives = torch.func.vmap(self._along)(drawn)
            for w, v in zip(self.plain, drawn, strict=True):
                w.sub_(torch.tensordot(derivatives, v, 1), alpha=lr / 16)
            return values[0]

    def backprop(self, lr: float = RATE) -> Any:
        value = self._loss(self.leaves, self.x, self.labels)
        gradient = self.torch.autograd.grad(value, self.leaves)
        with self.torch.no_grad():
            for w, g in zip(self.plain, gradient, strict=True):
                w.add_(g, alpha=-lr)
        return value.detach()

    def call(self, what: str) -> Callable[[], Any]:
        """Return a step by its name, or a replay of it."""
        step = getattr(self, what)
        if not self.captured:
            return step
        torch = self.torch
        stream = torch.cuda.Stream()  # a graph is captured on another stream, after warm-up there
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = step()

        def replay() -> Any:
            graph.replay()
            return value

        return replay

    def wait(self, value: Any) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def elapsed(self, run: Callable[[], Any]) -> float | None:
        """Return the seconds between events on the device before and after run()."""
        if self.device != "cuda":
            return None
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def release(self) -> None:
        """Give cached memory back to the device, and count its peak anew."""
        if self.device == "cuda":
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats()

    def used(self) -> int | None:
        """Return bytes in use on the device."""
        return self.torch.cuda.memory_allocated() if self.device == "cuda" else None

    def peak(self, what: str) -> int | None:
        """Return the most bytes that were in use since release()."""
        return self.torch.cuda.max_memory_allocated() if self.device == "cuda" else None


class Jax(jax_peer.Jax):
    """A network in jax on the device that JAX_PLATFORMS names."""

    own_layout = staticmethod(lambda weights, like: list(weights))

    def __init__(self, weights: list[np.ndarray], x: np.ndarray, labels: np.ndarray, *, device: str,
                 precision: str = "float32", residual: bool = False) -> None:  # fmt: skip
        import jax

        if device == "cuda" and jax.default_backend() not in ("cuda", "gpu"):
            raise RuntimeError(f"jax {jax.__version__} finds no CUDA device")
        name = {"float32": "highest", "tf32": "tensorfloat32"}[precision]
        jax.config.update("jax_default_matmul_precision", name)
        self.residual = residual
        super().__init__(weights, x, labels)
        self._jitted = {
            "forward": self._forward,
            "forward_gradient": self._forward_gradient,
            "forward_gradient_of_16": jax.jit(self._step_of_16, donate_argnums=0),
            "backprop": self._backprop,
        }
        self._compiled: dict[str, Any] = {}

    def _run(self, what: str, *more: Any) -> Any:
        """Run a step, compiled at the first call, so that peak() can ask what was compiled."""
        given = (self.params, *more, *self.data)
        if what not in self._compiled:
            self._compiled[what] = self._jitted[what].lower(*given).compile()
        return self._compiled[what](*given)

    def _loss_of(self, weights: list, x: Any, labels: Any) -> Any:
        if not self.residual:
            return super()._loss_of(weights, x, labels)
        jax = self.jax
        relu, layout = jax.nn.relu, ("NHWC", "HWIO", "NHWC")

        def normalise(x: Any, scale: Any, shift: Any) -> Any:
            mean = x.mean((0, 1, 2))
            variance = x.var((0, 1, 2))
            return (x - mean) * (scale * jax.lax.rsqrt(variance + 1e-5)) + shift

        def normalised(x: Any, w: Any, scale: Any, shift: Any, stride: int = 1) -> Any:
            pad = [(w.shape[0] // 2,) * 2] * 2
            x = jax.lax.conv_general_dilated(x, w, (stride,) * 2, pad, dimension_numbers=layout)
            return normalise(x, scale, shift)

        stem, blocks, (scale, shift, w, b) = residual_weights(weights)
        x = relu(normalised(x, *stem))
        for place, (path, shortcut) in enumerate(blocks):
            stride = 2 if place in STAGES else 1
            y = relu(normalised(x, *path[:3], stride))
            y = normalised(y, *path[3:])
            x = relu(y + (normalised(x, *shortcut, stride) if shortcut else x))
        logits = normalise(x, scale, shift).mean((1, 2)) @ w + b
        chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -chosen.mean()

    def _step_of_16(self, weights: list, key: Any, lr: float, x: Any, labels: Any) -> tuple:
        jax = self.jax
        key, *keys = jax.random.split(key, len(weights) + 1)
        drawn = [jax.random.normal(k, (16, *w.shape), w.dtype)
                 for k, w in zip(keys, weights, strict=True)]  # fmt: skip
        loss = partial(self._loss_of, x=x, labels=labels)
        values, derivatives = jax.vmap(lambda v: jax.jvp(loss, (weights,), (v,)))(drawn)
        new = [w - lr / 16 * jax.numpy.tensordot(derivatives, v, 1)
               for w, v in zip(weights, drawn, strict=True)]  # fmt: skip
        return new, key, values[0]

    def forward(self) -> Any:
        return self._run("forward")

    def forward_gradient(self, lr: float = RATE) -> Any:
        self.params, self.key, value = self._run("forward_gradient", self.key, lr)
        return value

    def forward_gradient_of_16(self, lr: float = RATE) -> Any:
        self.params, self.key, value = self._run("forward_gradient_of_16", self.key, lr)
        return value

    def backprop(self, lr: float = RATE) -> Any:
        self.params, value = self._run("backprop", lr)
        return value

    def call(self, what: str) -> Callable[[], Any]:
        return getattr(self, what)

    def wait(self, value: Any) -> None:
        self.jax.block_until_ready((value, self.params))

    def elapsed(self, run: Callable[[], Any]) -> None:
        """Give nothing: jax has no events of its own."""

    def release(self) -> None:
        pass

    def used(self) -> int | None:
        return 0

    def peak(self, what: str) -> int | None:
        """Return the bytes that the compiled step needs beyond what it is given."""
        found = self._compiled[what].memory_analysis()
        if found is None:
            return None
        new = found.output_size_in_bytes - found.alias_size_in_bytes
        return found.temp_size_in_bytes + new
