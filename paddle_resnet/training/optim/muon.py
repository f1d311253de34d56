"""Muon: momentum whose step is made orthogonal, for convolutions' filters (Jordan et al. 2024).

A gradient of a filter bank is dominated by a few directions. Muon replaces the step by the nearest matrix whose
directions all count alike, so that rare ones are learned as fast: https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import paddle

from paddle_resnet.paddle_compat import momentum_velocity

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic polynomial that `orthogonalise` iterates: steep at 0, so that small singular values grow fast."""

ITERATIONS = 3
SMALLEST_NORM = 1e-7


def orthogonalise(matrix: paddle.Tensor, iterations: int = ITERATIONS) -> paddle.Tensor:
    """Bring the singular values of ``[rows, columns]`` near 1, and keep its singular vectors (Newton-Schulz).

    For ``matrix = U S V^T`` it gives about ``U V^T``: singular values end between 0.7 and 1.2 once they have grown from
    their share of the norm, which those above 1% of it do in 5 iterations.
    """
    rows, columns = matrix.shape
    x = matrix.t() if rows > columns else matrix
    x = x / (x.norm() + SMALLEST_NORM)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = paddle.matmul(x, x, transpose_y=True)
        x = a * x + paddle.matmul(b * gram + c * paddle.matmul(gram, gram), x)
    return x.t() if rows > columns else x


class Muon(paddle.optimizer.Momentum):
    """Nesterov momentum for all parameters, its step orthogonal for `filters`.

    A filter bank ``[out, in, kh, kw]`` is moved as the matrix ``[out, in * kh * kw]``. Its step is `learning_rate`
    times its norm, and the norm stays what it was: before a BatchNorm only the direction counts, so weight decay would
    merely change how far a step turns it. (Jordan's airbench fixes the norm in the same way, at ``sqrt(out)``.)

    Args:
        learning_rate: the rate or its schedule; of filters the share of the norm that a step moves.
        momentum: the share of the velocity that stays.
        parameters: all that are trained.
        filters: those of them with a step of Muon's.
        weight_decay: of the parameters besides the filters.
        grad_clip: of all gradients together.
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
        """Move one parameter: the hook that each of Paddle's optimizers overrides."""
        parameter, gradient = param_and_grad
        if parameter.name not in self._filters:
            return super()._append_optimize_op(block, param_and_grad)
        velocity = momentum_velocity(self, parameter)
        with paddle.no_grad():
            velocity.scale_(self._momentum).add_(gradient)
            step = orthogonalise((gradient + self._momentum * velocity).reshape([parameter.shape[0], -1]))
            norm = parameter.norm()
            rate = self.get_lr() * parameter.optimize_attr["learning_rate"]
            moved = parameter - (rate * norm / (step.norm() + SMALLEST_NORM)) * step.reshape(parameter.shape)
            parameter.set_value(moved * (norm / moved.norm()))
        return None
