"""``x + y`` and ``relu(x + y)`` as oneDNN primitives. Buffers are addresses; only the number of elements matters."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Algorithm, Argument, DataType, Propagation, functions
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, contiguous, describe


class Rows(NamedTuple):
    """A tensor as rows and columns: oneDNN divides a single long dimension among threads less well."""

    rows: int
    columns: int
    data_type: DataType

    def layout(self) -> Handle:
        """Its memory."""
        return contiguous(self.rows, self.columns, data_type=self.data_type)


def add_forward(context: Context, rows: Rows) -> Primitive:
    """``destination = first + second`` (arguments: first, second, destination)."""
    return _sum(context, rows, context.attributes)


def add_relu_forward(context: Context, rows: Rows) -> Primitive:
    """``destination = max(first + second, 0)`` (arguments: first, second, destination)."""
    return _sum(context, rows, context.attributes_with_relu)


def _sum(context: Context, rows: Rows, attributes: Handle) -> Primitive:
    layout = rows.layout()
    description = describe(
        functions().binary_primitive_desc_create,
        context.engine,
        Algorithm.ADD,
        layout,
        layout,
        layout,
        attributes,
    )
    return Primitive(
        context,
        description,
        [(Argument.SOURCE, layout), (Argument.SECOND_SOURCE, layout), (Argument.DESTINATION, layout)],
    )


def relu_backward(context: Context, rows: Rows) -> Primitive:
    """The gradient where the result was above zero (arguments: result, its gradient, gradient of the source).

    A ReLU's result is above zero exactly where its source is, so the source need not be kept.
    """
    layout = rows.layout()
    forward = describe(
        functions().eltwise_forward_primitive_desc_create,
        context.engine,
        Propagation.FORWARD_TRAINING,
        Algorithm.RELU,
        layout,
        layout,
        0.0,
        0.0,
        context.attributes,
    )
    description = describe(
        functions().eltwise_backward_primitive_desc_create,
        context.engine,
        Algorithm.RELU,
        layout,
        layout,
        layout,
        0.0,
        0.0,
        forward,
        context.attributes,
    )
    return Primitive(
        context,
        description,
        [(Argument.SOURCE, layout), (Argument.DIFF_DESTINATION, layout), (Argument.DIFF_SOURCE, layout)],
    )
