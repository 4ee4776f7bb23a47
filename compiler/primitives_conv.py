"""The convolution primitive: type rule and NumPy implementation in the chip's order of additions.

A convolution is a contraction over (kernel row, kernel column, channel of the group), row major.
That axis is cut into segments, each zero-padded to a multiple of `dim` (see `packing`); the
segments one after another are the flattened K of `dot_general`, which ascends in blocks of `dim`.
Zeros from padding and from `lhs_dilation` are multiplied like any other value.

``dimension_numbers`` are JAX's: ``lhs_spec`` = (batch, feature, *spatial) dimensions of lhs,
``rhs_spec`` = (out feature, in feature, *spatial) of rhs, ``out_spec`` as ``lhs_spec``.
"""

from math import gcd, inf, prod
from typing import NamedTuple

import numpy as np
from tilewright.compiler.core import Primitive, ShapedArray
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.primitives import convert
from tilewright.compiler.primitives_dot import check_precision, matmul, result_dtype
from tilewright.compiler.primitives_pad import check_positive, dilated_size, padded, window_count

OTHER = 0.1  # what a load costs that hides behind passes, or a pass behind loads
WHOLE = 160  # granules of a patch: any chip has room
COPIED = 100  # cycles until an image's copy has begun to be read, about
FLOAT_IMAGES = 2  # for which the order of additions of floats is good
ROOM = 7000  # granules of a typical scratchpad for one operand
MOST_BLOCKS = 64  # of a segment of several kernel rows
conv_general_dilated_p = Primitive("conv_general_dilated", uses_dim=True)


class ConvDimensionNumbers(NamedTuple):
    """Which dimension of each array is what, as JAX's class of the same name."""

    lhs_spec: tuple[int, ...]
    rhs_spec: tuple[int, ...]
    out_spec: tuple[int, ...]


def segments(rows: int, kh: int, kw: int, c: int) -> list[int]:
    """Return the elements of each segment of a packing, before zero-padding."""
    if not rows:
        return [c] * (kh * kw)
    return [min(rows, kh - i) * kw * c for i in range(0, kh, rows)]


class Extent(NamedTuple):
    """A spatial dimension of a convolution: taps, results, steps between results and taps."""

    taps: int
    out: int
    stride: int = 1
    dilation: int = 1

    def positions(self, taps: int, dilation: int = 1) -> int:
        """Where so many taps, `dilation` of its own ones apart, begin for some result."""
        if taps == 1:
            return self.out
        by = gcd(self.stride, self.dilation)
        return (self.out - 1) * self.stride // by + (taps - 1) * dilation * self.dilation // by + 1


def _image(h: Extent, w: Extent, c: int, size: int, dim: int) -> float:
    """Loads of an image's copy."""
    return h.positions(h.taps) * w.positions(w.taps) * c * size / dim


def products(
    h: Extent, w: Extent, c: int, o: int, dim: int, size: int, images: int
) -> list[float]:
    """What images cost as a product of their patches: as activations, and as weights.

    Then nothing is shared between windows: each pixel's runs are loaded for each result. Runs that
    are transposed have at most 8 blocks, and neighbours are apart in an image that is dilated.
    """
    results, depth = images * h.out * w.out, h.taps * w.taps * c
    blocks, columns = -(-depth // dim), -(-o // dim)
    image = images * _image(h, w, c, size, dim)

    def beats(runs: int) -> float:
        aligned = c * size % dim == 0
        return results * (depth * size / dim + (0 if aligned else runs * (1 - 1 / dim))) + image

    short = w.taps if w.dilation // gcd(w.stride, w.dilation) > 1 else 1
    whole = blocks * size <= WHOLE  # else a pixel's patch may be too large for a small chip
    sides = (
        (blocks * columns * max(results, dim) if whole else inf, beats(h.taps)),
        (blocks * -(-results // dim) * max(o, dim),
         beats(h.taps * max(short, -(-w.taps * c // (8 * dim))))),
    )  # fmt: skip
    loads = depth * columns * size
    return [max(x, y + loads) + min(x, y + loads) * OTHER + COPIED for x, y in sides]


def packing(
    h: Extent, w: Extent, c: int, o: int, dim: int, size: int = 2, groups: int = 1,
    images: int = FLOAT_IMAGES,
) -> int:  # fmt: skip
    """Return how many kernel rows make a segment of K (the last one may have fewer); 0: each tap.

    Taps are flattened row major: (kh, kw, c), with c the channels of one group and o its outputs;
    1-D kernels have kh = 1. Each segment is zero-padded to a multiple of `dim`. The choice is
    architecture for floats, for it fixes the order of additions; it depends on the shapes of one
    image, never on the batch or on how the image is padded. Single taps reuse pixels on the chip
    best (a shifted window is the same rows at another offset); more rows have fewer zeros, but each
    pixel is loaded once for each tap in a segment, and long segments leave room for few of them, so
    that weights come again and again. The array's passes and the loads overlap, so the choice is
    what has the least of the longer one, the other one counting little.

    Parameters
    ----------
    size : bytes of an element, for loads; 2 for floats of any width.
    groups : of features or of the batch; one alone may be a product of its patches.
    images : for floats, whose bits do not depend on the batch, always the default.
    """
    results, columns = images * h.out * w.out, -(-o // dim)

    def cost(rows: int) -> tuple[float, int]:
        sizes = segments(rows, h.taps, w.taps, c)
        passes = sum(-(-n // dim) for n in sizes) * columns * max(results, dim)
        tall = h.positions(-(-h.taps // max(rows, 1)), max(rows, 1))
        wide = w.out if rows else w.positions(w.taps)
        loads = images * tall * wide * (sizes[0] * size / dim + max(rows, 1))
        if rows:  # such an image is copied, most often
            loads += images * _image(h, w, c, size, dim)
        weights = h.taps * w.taps * c * columns * size  # granules
        again = results * -(-sizes[0] // dim) * size / ROOM if weights > ROOM else 1
        loads += weights * max(1, again)
        start = COPIED * (rows > 0 and size == 1)  # of floats, more images may hide it
        return max(passes, loads) + min(passes, loads) * OTHER + start, rows

    fit = [r for r in range(2, h.taps + 1)
           if segments(r, h.taps, w.taps, c)[0] <= MOST_BLOCKS * dim]  # fmt: skip
    found = [cost(rows) for rows in (0, 1, *fit)]
    if groups == 1 and h.taps * w.taps > 1 and results:
        found.append((min(products(h, w, c, o, dim, size, images)), h.taps))
    return min(found)[1]


def _check_groups(lhs, rhs, numbers, feature_groups, batch_groups):
    batch, features = (lhs.shape[d] for d in numbers.lhs_spec[:2])
    outputs, inputs = (rhs.shape[d] for d in numbers.rhs_spec[:2])
    for name, count in (
        ("feature_group_count", feature_groups),
        ("batch_group_count", batch_groups),
    ):
        if count < 1:
            raise OperandError(f"{name} must be at least 1, not {count}")
        if outputs % count:
            raise OperandError(f"{name} must divide rhs's {outputs} output features, not {count}")
    if feature_groups > 1 and batch_groups > 1:
        raise OperandError(
            f"at most one of feature_group_count and batch_group_count may be above 1, "
            f"not {feature_groups} and {batch_groups}"
        )
    if features % feature_groups:
        raise OperandError(
            f"feature_group_count must divide lhs's {features} features, not {feature_groups}"
        )
    if features // feature_groups != inputs:
        raise OperandError(
            f"rhs must have {features // feature_groups} input features (lhs's {features} / "
            f"feature_group_count {feature_groups}), not {inputs}"
        )
    if batch % batch_groups:
        raise OperandError(
            f"batch_group_count must divide lhs's batch of {batch}, not {batch_groups}"
        )


def _check_numbers(numbers, ndim):
    for name, spec in zip(numbers._fields, numbers, strict=True):
        if sorted(spec) != list(range(ndim)):
            raise OperandError(f"{name} must permute {ndim} dimensions, not {spec}")


@conv_general_dilated_p.rule("abstract")
def _conv_aval(
    lhs, rhs, *, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
    feature_group_count=1, batch_group_count=1, precision="default", preferred_element_type=None,
):  # fmt: skip
    check_precision(precision)
    if lhs.ndim != rhs.ndim:
        raise OperandError(f"lhs and rhs must have one rank, not {lhs.ndim} and {rhs.ndim}")
    count = lhs.ndim - 2
    if count not in (1, 2):
        raise UnsupportedError(
            f"a convolution must have 1 or 2 spatial dimensions, not {count}: the chip has no "
            f"{count}-D one"
        )
    _check_numbers(dimension_numbers, lhs.ndim)
    _check_groups(lhs, rhs, dimension_numbers, feature_group_count, batch_group_count)
    check_positive("window_strides", window_strides, count)
    check_positive("lhs_dilation", lhs_dilation, count)
    check_positive("rhs_dilation", rhs_dilation, count)
    if len(padding) != count:
        raise OperandError(f"padding must have {count} (low, high) pairs, not {tuple(padding)}")
    spatial = []
    for i, (low, high) in enumerate(padding):
        size = dilated_size(lhs.shape[dimension_numbers.lhs_spec[2 + i]], lhs_dilation[i])
        if size + low + high < 0:
            raise OperandError(
                f"padding must not crop more than the size {size} of spatial dimension {i}, "
                f"not {(low, high)}"
            )
        window = dilated_size(rhs.shape[dimension_numbers.rhs_spec[2 + i]], rhs_dilation[i])
        spatial.append(window_count(size + low + high, window, window_strides[i]))
    dtype = result_dtype(lhs.dtype, rhs.dtype, preferred_element_type)
    batch = lhs.shape[dimension_numbers.lhs_spec[0]] // batch_group_count
    outputs = rhs.shape[dimension_numbers.rhs_spec[0]]
    shape = [0] * lhs.ndim
    for d, n in zip(dimension_numbers.out_spec, (batch, outputs, *spatial), strict=True):
        shape[d] = n
    weak = lhs.weak_type and rhs.weak_type and preferred_element_type is None
    return ShapedArray(tuple(shape), dtype, weak)


def _patches(x, kernel, out, strides, dilation):
    """Return (N, OH, OW, KH, KW, C) of a padded (N, H, W, C): what each output position sees."""
    patches = np.empty((x.shape[0], *out, *kernel, x.shape[3]), x.dtype)
    for i in range(kernel[0]) if patches.size else ():
        for j in range(kernel[1]):
            rows, cols = (
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip((i, j), dilation, out, strides, strict=True)
            )
            patches[:, :, :, i, j] = x[:, rows, cols]
    return patches


def _blocks(matrix, sizes, dim):
    """Flatten (R, ...) to (R, K) with each segment of these sizes zero-padded to whole blocks."""
    matrix = matrix.reshape(matrix.shape[0], sum(sizes))
    cuts = np.split(matrix, np.cumsum(sizes)[:-1], axis=1)
    return np.hstack([np.pad(cut, ((0, 0), (0, -cut.shape[1] % dim))) for cut in cuts])


@conv_general_dilated_p.rule("impl")
def _conv_impl(
    lhs, rhs, *, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
    feature_group_count=1, batch_group_count=1, precision="default", preferred_element_type=None,
    dim,
):  # fmt: skip
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    flat = len(lhs_spec) == 3  # 1-D: as 2-D with one row
    lead = (1,) if flat else ()
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(padding, lhs_dilation, strict=True)]
    x = lhs.transpose((lhs_spec[0], *lhs_spec[2:], lhs_spec[1]))
    x = padded(x, np.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    x = x.reshape(x.shape[0], *lead, *x.shape[1:])
    w = rhs.transpose((rhs_spec[0], *rhs_spec[2:], rhs_spec[1]))
    w = w.reshape(w.shape[0], *lead, *w.shape[1:])
    strides, dilation = (*lead, *window_strides), (*lead, *rhs_dilation)
    outputs, *kernel, c = w.shape
    space = tuple(
        window_count(n, dilated_size(k, d), s)
        for n, k, d, s in zip(x.shape[1:3], kernel, dilation, strides, strict=True)
    )
    dtype = result_dtype(lhs.dtype, rhs.dtype, preferred_element_type)
    batch, groups = x.shape[0] // batch_group_count, feature_group_count * batch_group_count
    share = outputs // groups
    out = np.empty((batch, *space, outputs), dtype)
    for g in range(groups):
        images, channels = slice(None), slice(g * c, (g + 1) * c)
        if batch_group_count > 1:
            images, channels = slice(g * batch, (g + 1) * batch), slice(None)
        extents = map(Extent, kernel, space, strides, dilation)
        kind = packing(*extents, c, share, dim, groups=groups)
        sizes = segments(kind, *kernel, c)
        patches = _patches(x[images, :, :, channels], kernel, space, strides, dilation)
        a = _blocks(patches.reshape(batch * prod(space), prod(kernel) * c), sizes, dim)
        b = _blocks(w[g * share : (g + 1) * share], sizes, dim).T
        result = convert(matmul(a, b, precision, dim), new_dtype=dtype)
        out[..., g * share : (g + 1) * share] = result.reshape(batch, *space, share)
    if flat:
        out = out[:, 0]
    order = (0, out.ndim - 1, *range(1, out.ndim - 1))  # batch, feature, spatial of `out`
    return out.transpose([order[out_spec.index(d)] for d in range(out.ndim)])
