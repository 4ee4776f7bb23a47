"""NumPy's functions that join arrays, repeat them, or make them of numbers."""

from tilewright.compiler import trace
from tilewright.compiler.primitives_join import concatenate_p, iota_p


def joined(arrays, dimension):
    """Arrays of one dtype and rank, one behind the other; of one array itself."""
    if len(arrays) == 1:
        return arrays[0]
    return trace.bind(concatenate_p, *arrays, dimension=dimension)


def counts(dtype, shape, dimension):
    """An array whose elements are their indices along a dimension; concrete outside of a trace."""
    params = {"dtype": dtype, "shape": shape, "dimension": dimension}
    if trace.current_trace() is not None:
        return trace.bind(iota_p, **params)
    trace.abstract(iota_p, (), params, trace.user_source())
    return trace.asarray_hook(iota_p.impl(**params), False)
