"""Einstein summation: a path of contractions of two operands, each one `dot_general`.

The subscripts are parsed into one string of letters per operand; a dimension of size 1 that
broadcasts is dropped, a repeated letter becomes its diagonal (a strided slice), `np.einsum_path`
chooses the order. A letter that only one operand of a contraction has, and that nobody needs
later, is summed there by broadcasting the other operand along it; with a single operand it is
contracted with ones. That is exact for integers and rounds once for bfloat16, but would round
float32 to bfloat16 first: it is refused.
"""

from collections import Counter
from string import ascii_letters

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler.contraction import contraction_operands, dot_general
from tilewright.compiler.elementwise import multiply
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.indexing import basic_index
from tilewright.compiler.operands import convert, dtype_named, operand_avals
from tilewright.compiler.shaping import broadcast_to, reshape, transpose
from tilewright.compiler.source import user_source

OPTIMAL_UP_TO = 4  # operands: the search for the best order is exponential


def _refuse(subscripts, problem):
    raise OperandError(f"einsum({subscripts!r}): {problem} (at {user_source()})")


def _from_sublists(arguments):
    """Return (subscripts, operands) of the form ``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""
    operands = list(arguments[: len(arguments) // 2 * 2 : 2])
    lists = list(arguments[1::2]) + (list(arguments[-1:]) if len(arguments) % 2 else [])
    labels = sorted({v for axes in lists for v in axes if v is not Ellipsis})
    letter = dict(zip(labels, ascii_letters, strict=False))
    if len(letter) < len(labels):
        raise OperandError(
            f"einsum: at most {len(ascii_letters)} axes, not {len(labels)} (at {user_source()})"
        )
    texts = ["".join("..." if v is Ellipsis else letter[v] for v in axes) for axes in lists]
    inputs = ",".join(texts[: len(operands)])
    return (f"{inputs}->{texts[-1]}" if len(arguments) % 2 else inputs), operands


def _spelled(subscripts, text, ndim, spare):
    """Return one operand's letters, those of its ellipsis taken from the end of `spare`."""
    head, dots, tail = text.partition("...")
    width = ndim - len(head) - len(tail) if dots else 0
    letters = head + spare[len(spare) - width :] + tail if 0 <= width <= len(spare) else ""
    if len(letters) != ndim or not all(c in ascii_letters for c in head + tail):
        _refuse(subscripts, f"{text!r} does not name the {ndim} dimensions of its operand")
    return letters


def parse(subscripts, ndims):
    """Return (letters of each operand, letters of the result), ellipses spelled out."""
    text = subscripts.replace(" ", "")
    inputs, arrow, output = text.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ndims):
        _refuse(subscripts, f"it must name {len(ndims)} operands, not {len(terms)}")
    unused = "".join(c for c in ascii_letters if c not in text)
    dots = [n - len(t) + 3 for t, n in zip(terms, ndims, strict=True) if "..." in t]
    width = max(dots, default=0)
    spare = unused[: max(width, 0)]
    names = [_spelled(subscripts, t, n, spare) for t, n in zip(terms, ndims, strict=True)]
    counts = Counter("".join(names))
    if not arrow:
        once = [c for c in sorted(counts) if counts[c] == 1 and c not in spare]
        return names, spare + "".join(once)
    if "..." not in output and spare:
        _refuse(subscripts, "the result must have an ellipsis as the operands have one")
    result = output.replace("...", spare)
    if len(set(result)) != len(result) or not set(result) <= set(counts):
        _refuse(subscripts, f"the result {output!r} must hold letters of the operands once each")
    return names, result


def _diagonal(x, names):
    """Replace a letter that occurs twice by its diagonal: every (n + 1)-th of n * n elements."""
    for letter in sorted(c for c, count in Counter(names).items() if count > 1):
        while names.count(letter) > 1:
            first = names.index(letter)
            second = names.index(letter, first + 1)
            rest = [d for d in range(len(names)) if d not in (first, second)]
            x = transpose(x, (*rest, first, second))
            *outer, n, _ = trace.aval_of(x).shape
            x = basic_index(reshape(x, (*outer, n * n)), (..., slice(None, None, n + 1)))
            names = "".join(names[d] for d in rest) + letter
    return x, names


def _sizes(subscripts, names, avals):
    """Return the size of each letter; 1 gives way to another."""
    sizes = {}
    for text, aval in zip(names, avals, strict=True):
        for letter, n in zip(text, aval.shape, strict=True):
            known = sizes.get(letter, 1)
            again = aval.shape[text.index(letter)]
            if n != again:
                _refuse(subscripts, f"{letter!r} has sizes {again} and {n} in one operand")
            if n != known and 1 not in (n, known):
                _refuse(subscripts, f"{letter!r} has sizes {known} and {n}")
            sizes[letter] = n if known == 1 else known
    return sizes


def _simple(x, names, sizes):
    """Return an operand without broadcast dimensions and without repeated letters."""
    shape = trace.aval_of(x).shape
    narrow = [d for d, c in enumerate(names) if shape[d] == 1 and sizes[c] != 1]
    if narrow:
        x = reshape(x, tuple(n for d, n in enumerate(shape) if d not in narrow))
        names = "".join(c for d, c in enumerate(names) if d not in narrow)
    return _diagonal(x, names)


def _path(names, result, sizes, optimize):
    """Return the pairs of operands to contract, each result appended at the end."""
    steps = [(0, 1)] * (len(names) - 1)
    if isinstance(optimize, tuple | list):
        steps = [tuple(s) for s in optimize if not isinstance(s, str)]
    elif optimize is not False:
        if optimize not in (True, "auto", "optimal", "greedy"):
            raise UnsupportedError(
                f"einsum: optimize must be a bool, 'auto', 'optimal', 'greedy' or a path, "
                f"not {optimize!r} (at {user_source()})"
            )
        if optimize in (True, "auto"):
            optimize = "optimal" if len(names) <= OPTIMAL_UP_TO else "greedy"
        shapes = [np.broadcast_to(np.float32(0), [sizes[c] for c in t]) for t in names]
        text = f"{','.join(names)}->{result}"
        steps = np.einsum_path(text, *shapes, optimize=optimize)[0][1:]
    pairs, count = [], len(names)
    for step in steps:
        chosen = sorted(set(step))
        is_valid = len(chosen) == len(step) > 1 and 0 <= chosen[0] <= chosen[-1] < count
        if not is_valid and count > 1:
            break
        while len(chosen) > 1:  # a step of several operands: two at a time, the result is last
            a, b, *rest = chosen
            pairs.append((a, b))
            count -= 1
            chosen = [*(c - 2 for c in rest), count - 1]
    if count != 1:
        raise OperandError(
            f"einsum: the path {optimize!r} must contract {len(names)} operands to one, at least "
            f"two at a time (at {user_source()})"
        )
    return pairs


def _constant_along(x, names, letters, sizes):
    """Broadcast an operand along letters that it does not have."""
    shape = (*(sizes[c] for c in letters), *trace.aval_of(x).shape)
    return broadcast_to(x, shape), "".join(letters) + names


def _contract(left, right, keep, sizes, precision, preferred):
    """Contract two (array, letters); return the result and its letters."""
    (x, xs), (y, ys) = left, right
    alone = [[c for c in p if c not in q and c not in keep] for p, q in ((xs, ys), (ys, xs))]
    y, ys = _constant_along(y, ys, alone[0], sizes)  # summed on one side only
    x, xs = _constant_along(x, xs, alone[1], sizes)
    summed = sorted(c for c in xs if c in ys and c not in keep)
    x, y = contraction_operands("einsum", x, y, preferred)
    batch = [c for c in keep if c in xs and c in ys]
    first = [c for c in xs if c not in batch and c not in summed]
    second = [c for c in ys if c not in batch and c not in summed]
    if not summed and not (first and second):
        return _product((x, xs), (y, ys), keep, sizes, preferred)

    def places(names, letters):
        return tuple(names.index(c) for c in letters)

    if [*batch, *second, *first] == [c for c in keep if c in xs or c in ys]:
        (x, xs, first), (y, ys, second) = (y, ys, second), (x, xs, first)
    numbers = (
        (places(xs, summed), places(ys, summed)),
        (places(xs, batch), places(ys, batch)),
    )
    out = dot_general(x, y, numbers, precision, preferred, "einsum")
    return out, "".join([*batch, *first, *second])


def _product(left, right, keep, sizes, preferred):
    """Multiply two (array, letters), the letters of one of which the other one has, too."""
    names = "".join(c for c in keep if c in left[1] or c in right[1])
    aligned = []
    for x, letters in (left, right):
        own = [c for c in names if c in letters]
        x = transpose(x, tuple(letters.index(c) for c in own))
        x = reshape(x, tuple(sizes[c] if c in letters else 1 for c in names))
        aligned.append(x if preferred is None else convert(x, dtype_named("einsum", preferred)))
    return multiply(*aligned), names


def _sum_single(x, names, keep, precision, preferred):
    """Sum the letters of one operand that the result does not have, by a contraction with ones."""
    summed = [c for c in names if c not in keep]
    aval = trace.aval_of(x)
    if not summed:
        return x, names
    if aval.dtype == core.float32:
        letters = ", ".join(summed)
        raise UnsupportedError(
            f"einsum: a sum of one float32 operand over {letters} is not available: a "
            f"contraction with ones would round it to bfloat16 first (at {user_source()})"
        )
    dims = tuple(names.index(c) for c in summed)
    one = core.Literal(np.ones((), aval.dtype), core.ShapedArray((), aval.dtype, aval.weak_type))
    ones = broadcast_to(one, tuple(aval.shape[d] for d in dims))
    numbers = ((dims, tuple(range(len(dims)))), ((), ()))
    out = dot_general(x, ones, numbers, precision, preferred, "einsum")
    return out, "".join(c for c in names if c not in summed)


def einsum(
    subscripts, /, *operands, out=None, optimize="auto", precision=None, preferred_element_type=None
):
    """NumPy's einsum, with subscripts or lists of axes; see the module for what is refused."""
    if out is not None:
        raise UnsupportedError(f"einsum: out must be None, not an array (at {user_source()})")
    if not isinstance(subscripts, str):
        subscripts, operands = _from_sublists((subscripts, *operands))
    avals = operand_avals("einsum", operands)
    names, result = parse(subscripts, [a.ndim for a in avals])
    sizes = _sizes(subscripts, names, avals)
    pairs = [_simple(x, text, sizes) for x, text in zip(operands, names, strict=True)]
    for i, j in _path([text for _, text in pairs], result, sizes, optimize):
        left, right = pairs[i], pairs[j]
        pairs = [p for k, p in enumerate(pairs) if k not in (i, j)]
        needed = "".join(text for _, text in pairs)
        keep = result + "".join(c for c in dict.fromkeys(needed) if c not in result)
        pairs.append(_contract(left, right, keep, sizes, precision, preferred_element_type))
    x, letters = pairs[0]
    x, letters = _sum_single(x, letters, result, precision, preferred_element_type)
    if preferred_element_type is not None:
        x = convert(x, dtype_named("einsum", preferred_element_type))
    return transpose(x, tuple(letters.index(c) for c in result))
