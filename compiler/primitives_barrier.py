"""`optimization_barrier`: the identity, which keeps equal equations on its two sides apart.

What is computed from its result is computed anew, even if the same is known of its operand.
"""

from tilewright.compiler.core import Primitive

optimization_barrier_p = Primitive("optimization_barrier")


@optimization_barrier_p.rule("abstract")
def _barrier_aval(operand):
    return operand


@optimization_barrier_p.rule("impl")
def _barrier(operand):
    return operand
