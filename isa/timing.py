"""Latencies in cycles, from the edge that registers an input to the edge that registers the result.

The only place that knows them: the RTL asserts its pipelines against these constants, the cycle
engine adds them up. A latency of n means: input presented in cycle t, output valid in cycle t + n.
"""

#: Cycles of one fp32 addition; also what the data wave spends per PE row.
HOP = 4

#: Cycles of the exact bf16 x bf16 product in a PE.
PRODUCT_LATENCY = 1

#: The accumulator foot, every mode: fp32 addition, or exact conversion to int32 and addition.
FOOT_LATENCY = HOP


def array_latency(dim):
    """Cycles from a row at the array's input (`i_valid`) to its sums at the output (`o_valid`).

    One cycle into the first column's registers; PE row 0 only multiplies, every other row adds;
    column c starts c cycles late, and the output is de-skewed, so every column waits for the last
    one. The array is busy for as many cycles after the last valid input.
    """
    return 1 + PRODUCT_LATENCY + HOP * (dim - 1) + dim - 1


#: Cycles from a tile's first weight row to the first row that may use it, if weights come gapless.
WEIGHT_LEAD = 2

#: Cycles of STORE's epilogue: integer bias, to fp32, scale, bias, clamp, to int32, saturate.
EPILOGUE_LATENCY = 1 + 2 + 3 + HOP + 1 + 2 + 1
