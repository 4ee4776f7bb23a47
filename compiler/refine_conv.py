"""The default schedule of a convolution: the formula's best candidates, timed exactly.

As in `refine`, the effort is bounded by the operations that are timed, so the choice is
deterministic; where the first candidate is too long already, it is taken as it is.
"""

from __future__ import annotations

from tilewright.compiler.kernels import Kernel
from tilewright.compiler.refine import BUDGET, TRIAL, exact_cycles
from tilewright.compiler.schedule import A_BANKS
from tilewright.compiler.schedule_conv import ConvPlan
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_conv import conv_plans, tile_conv
from tilewright.compiler.tiles import Plan
from tilewright.isa.config import ChipConfig

BASES = 24  # candidates of the formula that are timed, if they are short


def choose_conv(config: ChipConfig, kernel: Kernel) -> ConvPlan:
    """The schedule that a kernel gets by default.

    Raises
    ------
    ScheduleError
        None fits.
    """
    plans = conv_plans(config, kernel, BASES)
    best, price, left = plans[0], None, BUDGET
    for plan in plans:
        count = plan.operations
        if len(plans) == 1 or count + TRIAL > left:
            break
        left -= count + TRIAL
        ops, _ = tile_conv(Plan(config, A_BANKS), kernel, 0, plan, 0)
        synchronise(ops, config)
        cycles = exact_cycles(config, ops)
        if price is None or cycles < price:
            best, price = plan, cycles
    return best
