"""Reductions over rows, one below the other, as kernels (placeholder until tile_down)."""


def down(fuser, lane, name, dtype, size, eqns):
    raise NotImplementedError
