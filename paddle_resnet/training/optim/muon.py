"""Muon: momentum with an orthogonalised step, for the filters of convolutions (Jordan et al. 2024).

A few directions dominate the gradient of a filter bank. Muon replaces the step by the nearest matrix with equal
singular values, so that rare directions are learned as fast: https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import paddle

from paddle_resnet.paddle_compat import momentum_velocity

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic polynomial that `orthogonalise` iterates: steep at 0, so small singular values grow fast."""

ITERATIONS = 3
SMALLEST_NORM = 1e-7


def orthogonalise(matrix: paddle.Tensor, iterations: int = ITERATIONS) -> paddle.Tensor:
    """Return about ``U V^T`` for ``matrix = U S V^T``, ``[rows, columns]``, by Newton-Schulz iterations.

    In 5 iterations, singular values above 1% of the norm end between 0.7 and 1.2.
    """
    rows, columns = matrix.shape
    x = matrix.t() if rows > columns else matrix
    x = x / (_norm(x) + SMALLEST_NORM)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = paddle.matmul(x, x, transpose_y=True)
        x = a * x + paddle.matmul(b * gram + c * paddle.matmul(gram, gram), x)
    return x.t() if rows > columns else x


def _norm(x: paddle.Tensor) -> paddle.Tensor:
    """Return the root of the sum of squares: `Tensor.norm` takes 18 times as long on a CPU (Paddle 3.3.1)."""
    return x.square().sum().sqrt()


class Muon(paddle.optimizer.Momentum):
    """Nesterov momentum for all parameters, with an orthogonalised step for `filters`.

    A filter bank ``[out, in, kh, kw]`` is updated as the matrix ``[out, in * kh * kw]``. The norm of its step is
    `learning_rate` times its own norm, which stays constant: before a BatchNorm only the direction matters, so weight
    decay would only change how far a step turns it. (Jordan's airbench fixes the norm too, at ``sqrt(out)``.)

    Args:
        learning_rate: a number or a schedule; for filters the share of their norm that a step moves.
        momentum: decay of the velocity.
        parameters: all trained parameters, filters included.
        filters: the parameters that Muon's step updates.
        weight_decay: of the other parameters.
        grad_clip: by the norm of all gradients.
    """

    def __init__(
        self,
        learning_rate: float | paddle.optimizer.lr.LRScheduler,
        momentum: float,
        parameters: Iterable[paddle.Tensor],
        filters: Iterable[paddle.Tensor],
        weight_decay: float = 0.0,
        grad_clip: paddle.nn.ClipGradByGlobalNorm | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            momentum=momentum,
            parameters=list(parameters),
            use_nesterov=True,
            weight_decay=weight_decay,
            grad_clip=grad_clip,
        )
        self._filters = {parameter.name for parameter in filters}

    def _append_optimize_op(self, block: Any, param_and_grad: tuple[paddle.Tensor, paddle.Tensor]) -> None:
        # The method that each of Paddle's optimizers overrides to update one parameter.
        parameter, gradient = param_and_grad
        if parameter.name not in self._filters:
            return super()._append_optimize_op(block, param_and_grad)
        velocity = momentum_velocity(self, parameter)
        with paddle.no_grad():
            velocity.scale_(self._momentum).add_(gradient)
            step = orthogonalise((gradient + self._momentum * velocity).reshape([parameter.shape[0], -1]))
            norm = _norm(parameter)
            rate = self.get_lr() * parameter.optimize_attr["learning_rate"]
            moved = parameter - (rate * norm / (_norm(step) + SMALLEST_NORM)) * step.reshape(parameter.shape)
            parameter.set_value(moved * (norm / _norm(moved)))
        return None
