"""Rewriting rules of convolutions and padding: data movement becomes parameters.

A convolution and a windowed maximum read their operand through any layout and padding, so that
transposes and pads before them need no memory. The values that they see stay the same to the bit.
"""

from tilewright.compiler import primitives as p
from tilewright.compiler.core import Literal
from tilewright.compiler.primitives_conv import ConvDimensionNumbers, conv_general_dilated_p
from tilewright.compiler.primitives_pad import max_identity, pad_p, reduce_window_max_p, rev_p
from tilewright.compiler.rewrites import Expr, op


def pad_nothing(builder, expr):
    """A pad by nothing."""
    x, _ = expr.inputs
    config = expr.params["padding_config"]
    same = x.aval == pad_p.abstract(*(a.aval for a in expr.inputs), **expr.params)
    return x if same and all(entry == (0, 0, 0) for entry in config) else None


def reverse_nothing(builder, expr):
    """A reversal of dimensions of at most one element."""
    (x,) = expr.inputs
    return x if all(x.aval.shape[d] <= 1 for d in expr.params["dimensions"]) else None


def conv_of_transpose(builder, expr):
    """A transposed operand is one with other dimension numbers."""
    inputs, numbers = list(expr.inputs), expr.params["dimension_numbers"]
    specs = [numbers.lhs_spec, numbers.rhs_spec]
    for i, spec in enumerate(specs):
        eqn = builder.definition(inputs[i])
        if eqn is not None and eqn.primitive is p.transpose_p:
            inputs[i] = eqn.inputs[0]
            specs[i] = tuple(eqn.params["permutation"][d] for d in spec)
    if all(new is old for new, old in zip(inputs, expr.inputs, strict=True)):
        return None
    numbers = ConvDimensionNumbers(*specs, numbers.out_spec)
    return Expr(expr.primitive, tuple(inputs), {**expr.params, "dimension_numbers": numbers})


def _merged(config, padding, dilation):
    """Return (padding, dilation) that do what a pad and then another one do, or None."""
    pads, steps = [], []
    for (low, high, interior), (first, last), step in zip(config, padding, dilation, strict=True):
        crops_before = (low < 0 and first > 0) or (high < 0 and last > 0)
        if crops_before or ((low or high or interior) and step != 1):
            return None
        pads.append((low + first, high + last))
        steps.append(interior + 1 if step == 1 else step)
    return tuple(pads), tuple(steps)


def _is_bits(atom, value):
    return isinstance(atom, Literal) and atom.value.tobytes() == value.tobytes()


def conv_of_pad(builder, expr, pad):
    """Zero-padding of spatial dimensions is the convolution's own."""
    x, value = pad.inputs
    config, spec = pad.params["padding_config"], expr.params["dimension_numbers"].lhs_spec
    zero = value.aval.dtype.type(0)
    if not _is_bits(value, zero) or any(config[d] != (0, 0, 0) for d in spec[:2]):
        return None
    merged = _merged(
        [config[d] for d in spec[2:]], expr.params["padding"], expr.params["lhs_dilation"]
    )
    if merged is None or x.aval.weak_type != expr.inputs[0].aval.weak_type:
        return None
    params = {**expr.params, "padding": merged[0], "lhs_dilation": merged[1]}
    return Expr(expr.primitive, (x, expr.inputs[1]), params)


def window_of_pad(builder, expr, pad):
    """Padding with the lowest value is the windowed maximum's own."""
    x, value = pad.inputs
    if not _is_bits(value, max_identity(x.aval.dtype)):
        return None
    merged = _merged(
        pad.params["padding_config"], expr.params["padding"], expr.params["base_dilation"]
    )
    if merged is None or x.aval.weak_type != expr.inputs[0].aval.weak_type:
        return None
    params = {**expr.params, "padding": merged[0], "base_dilation": merged[1]}
    return Expr(expr.primitive, (x,), params)


CONV_RULES = [
    (op(pad_p), pad_nothing),
    (op(rev_p), reverse_nothing),
    (op(conv_general_dilated_p), conv_of_transpose),
    (op(conv_general_dilated_p, of=op(pad_p)), conv_of_pad),
    (op(reduce_window_max_p, of=op(pad_p)), window_of_pad),
]
