"""The optimizers' updates in numpy, and gradient descent in a valley, where theory says what to expect."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle

Update = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a parameter and its gradient to the next parameter; keeps its own state."""

RATE, MOMENTUM, DECAY = 0.02, 0.9, 0.01
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
STEPS = 20


def sgd() -> Update:
    """Return ``w - rate * g``."""
    return lambda w, g: w - RATE * g


def nesterov() -> Update:
    """Return ``w - rate * (g + momentum * v)`` with ``v = momentum * v + g``, the form of Sutskever et al. 2013."""
    velocity = np.zeros(1)

    def update(w: np.ndarray, g: np.ndarray) -> np.ndarray:
        nonlocal velocity
        velocity = MOMENTUM * velocity + g
        return w - RATE * (g + MOMENTUM * velocity)

    return update


def adamw() -> Update:
    """Return the update of Loshchilov and Hutter 2019, algorithm 2: Adam's step, and weight decay beside it."""
    mean: np.ndarray = np.zeros(1)
    square: np.ndarray = np.zeros(1)
    step = 0

    def update(w: np.ndarray, g: np.ndarray) -> np.ndarray:
        nonlocal mean, square, step
        step += 1
        mean = BETA1 * mean + (1 - BETA1) * g
        square = BETA2 * square + (1 - BETA2) * g**2
        unbiased, spread = mean / (1 - BETA1**step), np.sqrt(square / (1 - BETA2**step))
        return w - RATE * DECAY * w - RATE * unbiased / (spread + EPSILON)

    return update


UPDATES: dict[str, tuple[str, Callable[[], Update], Callable[[paddle.Tensor], paddle.optimizer.Optimizer]]] = {
    "SGD": (
        "w -= rate * g",
        sgd,
        lambda w: paddle.optimizer.SGD(RATE, parameters=[w]),
    ),
    "Nesterov": (
        "v = m * v + g;  w -= rate * (g + m * v)",
        nesterov,
        lambda w: paddle.optimizer.Momentum(RATE, MOMENTUM, parameters=[w], use_nesterov=True),
    ),
    "AdamW": (
        "w -= rate * decay * w + rate * mean(g) / sqrt(mean(g^2))",
        adamw,
        lambda w: paddle.optimizer.AdamW(RATE, BETA1, BETA2, EPSILON, parameters=[w], weight_decay=DECAY),
    ),
}
"""By name: the formula, the update in numpy, and Paddle's optimizer for one parameter."""

CURVATURES = np.array([1.0, 25.0])
"""Of the valley ``L(w) = (1 * w1^2 + 25 * w2^2) / 2``."""
START = np.array([-1.0, 0.4])


def valley(w: np.ndarray) -> float:
    """Return the loss at `w`."""
    return float(0.5 * (CURVATURES * w**2).sum())


def difference_from_paddle(name: str) -> float:
    """Take `STEPS` steps down the valley in numpy and in Paddle; return the largest difference of the paths."""
    _, make_update, make_optimizer = UPDATES[name]
    update, w = make_update(), START.copy()
    parameter = paddle.create_parameter([2], "float64", default_initializer=paddle.nn.initializer.Assign(START))
    optimizer = make_optimizer(parameter)
    curvatures, worst = paddle.to_tensor(CURVATURES), 0.0
    for _ in range(STEPS):
        w = update(w, CURVATURES * w)
        (0.5 * (curvatures * parameter**2).sum()).backward()
        optimizer.step()
        optimizer.clear_grad()
        worst = max(worst, float(np.abs(parameter.numpy() - w).max()))
    return worst


def descend(rate: float, momentum: float = 0.0, steps: int = STEPS) -> np.ndarray:
    """Return the path of gradient descent with heavy-ball momentum (Polyak 1964) from `START`, ``[steps + 1, 2]``."""
    path, velocity = [START], np.zeros(2)
    for _ in range(steps):
        velocity = momentum * velocity + CURVATURES * path[-1]
        path.append(path[-1] - rate * velocity)
    return np.array(path)


def best_settings() -> dict[str, tuple[float, float, float]]:
    """Return each method's rate, momentum and factor of a step's error, by the theory of quadratics (Polyak 1964).

    With the curvatures m and M: gradient descent at ``2 / (m + M)`` has ``(M - m) / (M + m)``; with momentum the
    factor is ``(sqrt(M) - sqrt(m)) / (sqrt(M) + sqrt(m))``, at its square as momentum.
    """
    low, high = CURVATURES
    roots = np.sqrt(high) + np.sqrt(low)
    factor = (np.sqrt(high) - np.sqrt(low)) / roots
    return {
        "gradient_descent": (2 / (low + high), 0.0, (high - low) / (high + low)),
        "with_momentum": ((2 / roots) ** 2, factor**2, factor),
    }
