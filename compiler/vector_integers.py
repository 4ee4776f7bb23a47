"""Integer functions as sequences of VECTOR's micro-operations: quotients, remainders, Threefry.

Quotients are those of XLA: towards zero; by zero all bits set, and the lowest integer by -1 itself.
"""

from tilewright.compiler.vector_sequences import Machine, Operand, div

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def divide_bytes(m: Machine, a: Operand, b: Operand) -> Operand:
    """A quotient of integers up to 2^12 in size: as float32, which is never rounded up to one."""
    q = m.run("f32_i32", div(m, m.run("i32_f32", a), m.run("i32_f32", b)))
    return m.run("select", b, q, -1)


def divide_u32(m: Machine, a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """Quotient and remainder: 2^32 / b from below, one Newton step, two corrections.

    Of a division by 0 only the remainder, a, is right.
    """
    r = m.run("recip_f32", m.run("u32_f32", b))
    r = m.run("f32_u32", m.run("mul_f32", r, 2.0**32 * (1 - 2.0**-22)))
    rest = m.run("sub_i32", 0, m.run("mul_i32", b, r))
    r = m.run("add_i32", r, m.run("mulh_u32", r, rest))
    q = m.run("mulh_u32", a, r)
    rest = m.run("sub_i32", a, m.run("mul_i32", q, b))
    for _ in range(2):
        again = m.run("le_u32", b, rest)
        q = m.run("add_i32", q, again)
        rest = m.run("select", again, m.run("sub_i32", rest, b), rest)
    return q, rest


def divide_i32(m: Machine, a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """Quotient and remainder of the sizes, with the signs of a / b and of a."""
    sizes = [m.run("max_i32", x, m.run("sub_i32", 0, x)) for x in (a, b)]
    q, rest = divide_u32(m, *sizes)
    sign = m.run("sar", m.run("xor", a, b), 31)
    q = m.run("sub_i32", m.run("xor", q, sign), sign)
    sign = m.run("sar", a, 31)
    return q, m.run("sub_i32", m.run("xor", rest, sign), sign)


def threefry2x32(
    m: Machine, k1: Operand, k2: Operand, x1: Operand, x2: Operand
) -> tuple[Operand, Operand]:
    """20 rounds of Threefry on a pair of words.

    **Source** : J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
    """
    keys = (k1, k2, m.run("xor", m.run("xor", k1, k2), 0x1BD11BDA))
    x1, x2 = m.run("add_i32", x1, k1), m.run("add_i32", x2, k2)
    for i in range(5):
        for left in _ROTATIONS[i % 2]:
            x1 = m.run("add_i32", x1, x2)
            turned = m.run("or", m.run("shl", x2, left), m.run("shr", x2, 32 - left))
            x2 = m.run("xor", x1, turned)
        x1 = m.run("add_i32", x1, keys[(i + 1) % 3])
        x2 = m.run("add_i32", x2, m.run("add_i32", keys[(i + 2) % 3], i + 1))
    return x1, x2
