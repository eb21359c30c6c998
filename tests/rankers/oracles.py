"""Networks in NumPy, float64, one row at a time, written from the papers' equations."""

from __future__ import annotations

from typing import Any

import numpy as np

Params = dict[str, Any]


def linear(params: Params, x: np.ndarray) -> np.ndarray:
    """W x + b, unit by unit."""
    kernel, bias = params["kernel"], params.get("bias")
    out = np.zeros(kernel.shape[1])
    for unit in range(kernel.shape[1]):
        out[unit] = sum(x[i] * kernel[i, unit] for i in range(len(x)))
        out[unit] += 0.0 if bias is None else bias[unit]
    return out


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Shares."""
    e = np.exp(x)
    return e / e.sum()


def layers(params: Params, x: np.ndarray) -> np.ndarray:
    """Hidden layers with ReLU."""
    for number in range(len(params)):
        x = relu(linear(params[f"layer_{number}"], x))
    return x


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Population variance, 1e-5 added to it."""
    mean = sum(x) / len(x)
    variance = sum((each - mean) ** 2 for each in x) / len(x)
    normal = [(each - mean) / (variance + 1e-5) ** 0.5 for each in x]
    return np.array([g * n + b for n, g, b in zip(normal, gain, bias, strict=True)])


def dnn(params: Params, fields: np.ndarray) -> np.ndarray:
    """Hidden layers on the concatenated fields ``[f, k]``."""
    return layers(params["layers"], np.concatenate(list(fields)))


def output(params: Params, hidden: np.ndarray) -> float:
    """A linear output of one number."""
    return float(linear(params["output"], hidden)[0])


def tower(params: Params, hidden: np.ndarray) -> float:
    """Hidden layers and an output."""
    return output(params["logit"], layers(params["layers"], hidden))


def gate(params: Params, by: np.ndarray, experts: list[np.ndarray]) -> np.ndarray:
    """Experts mixed by a linear softmax."""
    shares = softmax(linear(params["weights"], by))
    return sum(share * expert for share, expert in zip(shares, experts, strict=True))
