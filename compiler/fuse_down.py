"""Reductions over rows, one below the other, as kernels of their own."""


def down(fuser, lane, name, dtype, size, eqns):
    """Refused so far."""
    raise fuser.unsupported(name, "only the last dimensions can be reduced yet")
