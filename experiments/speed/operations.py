"""Floating-point operations and bytes of a function, counted in its jaxpr.

Products of matrices count as 2 M N K, of a sparse and a dense one as 2 nnz D, every other floating-point
result or reduced element as 1, with transcendental functions apart; a loop is multiplied by its trip count.
XLA's own analysis does not help: it counts the body of a loop once, and a sparse product, which is a custom
call, not at all. To measure a differentiated function, pass its gradient: the jaxpr of the function alone
still contains operations that a compiler would drop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn

from reland_jax.types import RelandError

SPARSE = ("bcsr_dot_general", "bcoo_dot_general")
TRANSCENDENTAL = frozenset(
    "exp exp2 expm1 log log1p pow sqrt rsqrt cbrt tanh logistic erf erfc erf_inv sin cos tan".split()
)
MOVES = frozenset(
    "reshape squeeze expand_dims broadcast_in_dim transpose slice dynamic_slice dynamic_update_slice gather "
    "scatter concatenate split pad rev tile copy convert_element_type bitcast_convert_type select_n "
    "stop_gradient optimization_barrier sort iota reduce_precision".split()
)
"""Primitives that compute nothing."""
VIEWS = frozenset("reshape squeeze expand_dims broadcast_in_dim bitcast_convert_type stop_gradient".split())
"""Primitives that touch no memory, or none once anything is fused."""
READS_SOME = frozenset("gather slice dynamic_slice split".split())
"""Primitives that read as much of their operand as they return."""


class Operations(NamedTuple):
    """What a function does; the first four are floating-point operations.

    Attributes:
        matmul: of dense products.
        sparse: of sparse with dense products.
        elementwise: one for each result, or for each element that is reduced.
        transcendental: results of exp, log, tanh, square roots and the like.
        random_bits: bits drawn.
        unfused_bytes: bytes that pass if nothing is fused and no result stays in a cache.
    """

    matmul: int = 0
    sparse: int = 0
    elementwise: int = 0
    transcendental: int = 0
    random_bits: int = 0
    unfused_bytes: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations of all groups."""
        return self.matmul + self.sparse + self.elementwise + self.transcendental


def count(function: Callable[..., Any], *arguments: Any) -> Operations:
    """Operations of one call, counted in its jaxpr.

    Raises:
        RelandError: there is a loop whose number of rounds the jaxpr does not tell.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def equations(jaxpr: Jaxpr) -> Iterator[tuple[JaxprEqn, int]]:
    """Every equation that computes something itself, with the number of times that it is run.

    Of the branches of a condition the one with the most operations is taken.
    """
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "while":
            raise RelandError("roofline: a while loop cannot be counted; use lax.scan or fori_loop")
        if name == "cond":
            inner = max((branch.jaxpr for branch in params["branches"]), key=lambda one: _count(one).flops)
        else:
            inner = params.get("jaxpr", params.get("call_jaxpr"))
        if inner is None:
            yield equation, 1
            continue
        rounds = params["length"] if name == "scan" else 1
        for each, times in equations(getattr(inner, "jaxpr", inner)):
            yield each, times * rounds


def shaped(variable: Any) -> ShapedArray:
    """Shape and dtype of what an equation reads or writes.

    Raises:
        TypeError: it is not an array, but a token or a reference.
    """
    if not isinstance(variable.aval, ShapedArray):
        raise TypeError(f"{variable.aval} is not an array")
    return variable.aval


def _count(jaxpr: Jaxpr) -> Operations:
    rows = [[times * value for value in _operations(one)] for one, times in equations(jaxpr)]
    return Operations(*map(sum, zip(*rows, strict=True)))


def _operations(equation: JaxprEqn) -> Operations:
    """Operations of one equation, run once."""
    name, inputs, out = equation.primitive.name, equation.invars, shaped(equation.outvars[0])
    moved = _unfused_bytes(equation)
    if name == "random_bits":
        return Operations(random_bits=out.size * equation.params["bit_width"], unfused_bytes=moved)
    if name == "dot_general":
        ((contracted, _), _) = equation.params["dimension_numbers"]
        depth = int(np.prod([shaped(inputs[0]).shape[axis] for axis in contracted]))
        return Operations(matmul=2 * out.size * depth, unfused_bytes=moved)
    if name in SPARSE:
        return Operations(sparse=2 * shaped(inputs[0]).size * width(equation), unfused_bytes=moved)
    if name in MOVES:
        return Operations(unfused_bytes=moved)
    if name in TRANSCENDENTAL:
        return Operations(transcendental=out.size, unfused_bytes=moved)
    return Operations(elementwise=_elementwise(equation), unfused_bytes=moved)


def _elementwise(equation: JaxprEqn) -> int:
    """One for each floating-point result, or for each floating-point number that is reduced."""
    name, counted = equation.primitive.name, shaped(equation.outvars[0])
    if name.startswith("scatter"):
        counted = shaped(equation.invars[2])
    elif name.startswith(("reduce_", "arg")):
        counted = shaped(equation.invars[0])
    return counted.size if jnp.issubdtype(counted.dtype, jnp.floating) else 0


def width(equation: JaxprEqn) -> int:
    """Columns of the dense operand of a sparse product."""
    ((_, contracted), _) = equation.params["dimension_numbers"]
    dense = shaped(equation.invars[-1])
    return dense.size // int(np.prod([dense.shape[axis] for axis in contracted]))


def _unfused_bytes(equation: JaxprEqn) -> int:
    name = equation.primitive.name
    read = [bytes_of(variable.aval) for variable in equation.invars]
    written = sum(bytes_of(variable.aval) for variable in equation.outvars)
    if name in VIEWS:
        return 0
    if name in READS_SOME:  # the elements that are wanted, and where they are
        return sum(read[1:]) + 2 * written
    if name in SPARSE:
        values, dense = shaped(equation.invars[0]), shaped(equation.invars[-1])
        return sum(read[:-1]) + values.size * width(equation) * dense.dtype.itemsize + written
    return sum(read) + written


def bytes_of(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
