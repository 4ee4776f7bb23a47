"""Simplification: rewriting rules, common subexpressions, constant folding, dead code.

One forward pass rebuilds the program. Each equation, its operands already simplified, is offered to
the rules of `compiler.rewrites` (a list of (pattern, function)); what a rule returns is simplified
in turn, so one pass reaches the fixed point. An equation equal to an earlier one is that one. The
result computes the same bits for every input and every `dim`; `eval_jaxpr` is the judge. Result
variables may then be inputs, literals, or one variable twice.
"""

from dataclasses import replace

import numpy as np
from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler.core import Eqn, Jaxpr, Literal, Var, check_jaxpr
from tilewright.compiler.errors import JaxprError
from tilewright.compiler.primitives_barrier import optimization_barrier_p
from tilewright.compiler.primitives_debug import calls_back
from tilewright.compiler.rewrites import RULES, Expr
from tilewright.compiler.rewrites_conv import CONV_RULES
from tilewright.compiler.rewrites_lanes import LANE_RULES

FOLD_BYTES = 1 << 16  # a folded constant may be this large even if it grew (a conversion)
COMMUTATIVE = (
    *(p.add_p, p.mul_p, p.max_p, p.min_p, p.eq_p, p.ne_p),
    *(lanes.and_p, lanes.or_p, lanes.xor_p),
)


def simplify(jaxpr):
    """Return an equivalent jaxpr, bit for bit, with fewer or cheaper equations."""
    check_jaxpr(jaxpr)
    builder = Builder(jaxpr)
    for eqn in jaxpr.eqns:
        inputs = tuple(builder.resolve(a) for a in eqn.inputs)
        if eqn.primitive.multiple_results:
            builder.eqns.append(replace(eqn, inputs=inputs))
            continue
        (out,) = eqn.outputs
        result = builder.emit(Expr(eqn.primitive, inputs, eqn.params), eqn.source)
        if result.aval != out.aval:
            raise JaxprError(f"a rule for {eqn.primitive} made {out.aval} into {result.aval}")
        builder.renamed[id(out)] = result
    return check_jaxpr(eliminate_dead_code(builder.finish()))


def eliminate_dead_code(jaxpr):
    """Return the jaxpr without the equations and constants that nothing needs."""
    needed = {id(a) for a in jaxpr.outvars}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if any(id(v) in needed for v in eqn.outputs) or calls_back(eqn):
            kept.append(eqn)
            needed.update(id(a) for a in eqn.inputs)
    pairs = zip(jaxpr.constvars, jaxpr.consts, strict=True)
    pairs = [(var, const) for var, const in pairs if id(var) in needed]
    constvars, consts = [var for var, _ in pairs], [const for _, const in pairs]
    return Jaxpr(jaxpr.invars, constvars, consts, kept[::-1], jaxpr.outvars)


class Builder:
    """The program being rebuilt: `definition` tells rules what a variable is."""

    def __init__(self, jaxpr):
        self.jaxpr = jaxpr
        self.constants = dict(zip(jaxpr.constvars, jaxpr.consts, strict=True))
        self.renamed = {}  # id of an old variable -> atom of the new program
        self.eqns = []
        self.definitions = {}  # new Var -> its Eqn
        self.available = {}  # key of an equation -> its Var

    def resolve(self, atom):
        """Return the new program's atom for an old one."""
        return self.renamed.get(id(atom), atom)

    def definition(self, atom):
        """Return the equation that defines an atom, or None (inputs, constants, literals)."""
        return self.definitions.get(atom) if isinstance(atom, Var) else None

    def emit(self, expr, source):
        """Add an expression to the program, simplified; return the atom that holds its value."""
        inputs = tuple(
            self.emit(a, source) if isinstance(a, Expr) else self.resolve(a) for a in expr.inputs
        )
        expr = Expr(expr.primitive, inputs, expr.params)
        if expr.primitive is optimization_barrier_p:
            return self.barrier(expr, source)
        for pattern, rewrite in (*RULES, *LANE_RULES, *CONV_RULES):
            match = pattern.match(expr, self)
            found = rewrite(self, expr, *match) if match is not None else None
            if isinstance(found, Expr):
                return self.emit(found, source)
            if found is not None:
                return found
        folded = self.fold(expr)
        return folded if folded is not None else self.append(expr, source)

    def barrier(self, expr, source):
        """Append a barrier, which equals no other one; constants need none."""
        (atom,) = expr.inputs
        if isinstance(atom, Literal) or atom in self.constants:
            return atom
        var = Var(atom.aval)
        self.eqns.append(Eqn(expr.primitive, expr.inputs, (var,), expr.params, source))
        return var

    def append(self, expr, source):
        """Append an equation, or find the equal one."""
        keys = [a.key if isinstance(a, Literal) else id(a) for a in expr.inputs]
        if expr.primitive in COMMUTATIVE:
            keys.sort(key=str)
        key = (expr.primitive, tuple(keys), expr.params)
        if key not in self.available:
            aval = expr.primitive.abstract(*(a.aval for a in expr.inputs), **expr.params)
            var = Var(aval)
            eqn = Eqn(expr.primitive, expr.inputs, (var,), expr.params, source)
            self.eqns.append(eqn)
            self.definitions[var] = eqn
            self.available[key] = var
        return self.available[key]

    def fold(self, expr):
        """Return the constant that an expression of constants is, or None.

        A device array stays where it is; a contraction depends on `dim`, so it is the chip's.
        """
        values = [a.value if isinstance(a, Literal) else self.constants.get(a) for a in expr.inputs]
        known = all(isinstance(v, np.ndarray) for v in values)
        if not values or expr.primitive.uses_dim or not known:
            return None
        aval = expr.primitive.abstract(*(a.aval for a in expr.inputs), **expr.params)
        size = max(v.nbytes for v in values)
        if expr.primitive is p.broadcast_in_dim_p and aval.nbytes > size:
            return None  # it costs nothing as it is, and an epilogue wants the vector
        is_fill = aval.shape and all(isinstance(a, Literal) for a in expr.inputs)
        if is_fill or aval.nbytes > max(FOLD_BYTES, size):
            return None
        value = np.array(expr.primitive.impl(*values, **expr.params))
        if not aval.shape:
            return Literal(value, aval)
        value.setflags(write=False)
        var = Var(aval)
        self.constants[var] = value
        return var

    def finish(self):
        """Return the new program."""
        outvars = [self.resolve(a) for a in self.jaxpr.outvars]
        constvars, consts = list(self.constants), list(self.constants.values())
        return Jaxpr(self.jaxpr.invars, constvars, consts, self.eqns, outvars)
