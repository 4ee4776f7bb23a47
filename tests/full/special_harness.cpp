// Compares a verilated sequence of VECTOR's micro-operations with what it must give, @LANES@
// operations per clock cycle: bit by bit, or in units in the last place of the exact result.
//
// Oracles: SoftFloat (the Python package's shared object, loaded before this one) with DESIGN's
// flush rule, but for square roots (the package's f32_sqrt gives 1 for 2): those are IEEE's, of the
// machine; C++ integers; for the special functions the model below, written from docs/vector.md,
// and, for accuracy, the C library's float64 functions, which are 2^29 times finer than fp32.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifndef MODEL_ONLY
#include "V@TOP@.h"
#include "verilated.h"
#endif

struct F32 { uint32_t v; };
extern "C" {
F32 f32_add(F32, F32);
F32 f32_mul(F32, F32);
F32 f32_div(F32, F32);
F32 f32_mulAdd(F32, F32, F32);
F32 f32_roundToInt(F32, uint_fast8_t, bool);
int_fast32_t f32_to_i32(F32, uint_fast8_t, bool);
uint_fast32_t f32_to_ui32(F32, uint_fast8_t, bool);
F32 i32_to_f32(int32_t);
F32 ui32_to_f32(uint32_t);
}

constexpr int LANES = @LANES@, LATENCY = @LATENCY@;
constexpr uint32_t SIGN = 0x80000000, INF = 0x7F800000, NAN32 = 0x7FC00000;
struct Entry { int32_t c0, c1, c2; };
@TABLES@

static uint32_t flush(uint32_t x) { return x & INF ? x : x & SIGN; }
static bool is_nan(uint32_t x) { return (x & ~SIGN) > INF; }
static uint32_t canonical(uint32_t x) { return is_nan(x) ? NAN32 : flush(x); }
static float value(uint32_t x) { float f; x = flush(x); memcpy(&f, &x, 4); return f; }
static uint32_t bits(float f) { uint32_t x; memcpy(&x, &f, 4); return canonical(x); }
static int32_t order(uint32_t x) { return x & SIGN ? int32_t(x ^ ~SIGN) : int32_t(x); }

// ---- fp32, rounded once; `exact` below 2^-126 flushes before rounding ----

static uint32_t fma(uint32_t x, uint32_t y, uint32_t z) {
  x = canonical(x), y = canonical(y), z = canonical(z);
  uint32_t q = f32_mulAdd({x}, {y}, {z}).v;
  if (is_nan(q)) return NAN32;
  if ((q & ~SIGN) > 0x00800000) return q;
  double p = double(value(x)) * value(y), c = value(z), s = p + c, v = s - p;
  double lost = (p - (s - v)) + (c - v), least = 0x1p-126;
  bool tiny = std::fabs(s) < least || (std::fabs(s) == least && lost != 0 && (lost > 0) != (s > 0));
  if (s == 0 && lost == 0) return q;
  return tiny ? (std::signbit(s) ? SIGN : 0) : q;
}

static uint32_t add(uint32_t x, uint32_t y) { return fma(x, 0x3F800000, y); }
static uint32_t mul(uint32_t x, uint32_t y) {
  uint32_t q = f32_mul({flush(x)}, {flush(y)}).v;
  if (is_nan(q)) return NAN32;
  return std::fabs(double(value(x)) * value(y)) < 0x1p-126 ? q & SIGN : q;
}
static uint32_t divide(uint32_t x, uint32_t y) {
  uint32_t q = f32_div({flush(x)}, {flush(y)}).v;
  if (is_nan(q)) return NAN32;
  double a = std::fabs(value(x)), b = std::fabs(value(y));
  return std::isfinite(b) && a < b * 0x1p-126 ? q & SIGN : q;
}
static uint32_t to_bf16(uint32_t x) {
  x = canonical(x);
  uint32_t rest = x & 0x7FFFFF, exponent = x >> 23;
  if (!(exponent & 255) || (exponent & 255) == 255) return x;
  uint32_t whole = f32_roundToInt({rest | 134u << 23}, 0, false).v;
  return whole - (134u << 23) + (exponent << 23);
}
static uint32_t mul_fx(uint32_t x, uint32_t y, int n) {
  x = flush(x);
  int64_t p = int64_t((x & 0x7FFFFF) | 0x800000) * int32_t(y), least = -0x7FFFFFFF;  // exact
  int shift = 150 + n - int(x >> 23 & 255);
  if (is_nan(x) || ((x & ~SIGN) == INF && !y)) return SIGN;
  if (!(x & ~SIGN) || !p) return 0;
  if (x & SIGN) p = -p;
  if (shift < -7) return p < 0 ? least : 0x7FFFFFFF;
  if (shift <= 0) p <<= -shift;
  else if (shift > 60) p = 0;
  else {
    int64_t whole = p >> shift, rest = p - (whole << shift), half = 1ll << (shift - 1);
    p = whole + (rest > half || (rest == half && (whole & 1)));
  }
  return uint32_t(p > 0x7FFFFFFF ? 0x7FFFFFFF : p < least ? least : p);
}

// ---- tables: docs/vector.md ----

static uint32_t fraction(const Entry& e, int64_t u) {  // may be 2^23, a carry
  int64_t t = e.c1 + (e.c2 * u >> 18), y = e.c0 + (t * u >> 18);
  return uint32_t(y + 16 >> 5);
}
static uint32_t segment(const Entry* table, uint32_t x) {
  return fraction(table[x >> 16 & 127], (x & 0xFFFF) << 2);
}
static uint32_t recip(uint32_t x) {
  x = flush(x);
  uint32_t sign = x & SIGN, e = x >> 23 & 255, f = x & 0x7FFFFF;
  if (is_nan(x)) return NAN32;
  if (!e) return sign | INF;
  if (e >= 254 || (e == 253 && f)) return sign;
  return sign + ((253 - e) << 23) + segment(RECIP, x);
}
static uint32_t rsqrt(uint32_t x) {
  x = flush(x);
  uint32_t e = x >> 23 & 255;
  if (!e) return x | INF;
  if (is_nan(x) || x & SIGN) return NAN32;
  if (x == INF) return 0;
  return ((190 - (e + 1) / 2) << 23) + segment(RSQRT + (e & 1 ? 0 : 128), x);
}
static uint32_t exp2_fx(uint32_t t) {
  if (t == 0x7FFFFFFF) return INF;
  if (t == SIGN) return NAN32;
  int whole = int32_t(t) >> 24;
  if (whole < -126) return 0;
  return (uint32_t(whole + 127) << 23) + fraction(EXP2_TABLE[t >> 18 & 63], t & 0x3FFFF);
}
static uint32_t slope(uint32_t x) { return (127u << 23) + segment(LOG2_TABLE, x); }
static uint32_t log2_fma(uint32_t x, uint32_t g) {
  x = flush(x);
  if (!(x & ~SIGN)) return SIGN | INF;
  if (is_nan(x) || x & SIGN) return NAN32;
  if (x == INF) return x;
  uint32_t f = x & 0x7FFFFF, high = f >> 22;
  long double r = value(f | (127 - high) << 23);  // 64 bits hold the sum exactly
  g = (g & 0x7FFFFF) | 127u << 23;
  return bits(float((r - 1) * value(g) + (int(x >> 23) - 127 + int(high))));
}

// ---- what each unit must give ----

enum Op { @OPS@ };

static uint32_t flag(bool f) { return f; }

static uint32_t expected(int op, uint32_t x, uint32_t y, uint32_t z) {
  int32_t sx = int32_t(x), sy = int32_t(y);
  float fx = value(x), fy = value(y);
  switch (op) {
    case MOV: return x;
    case SELECT: return x ? y : z;
    case ADD_F32: return add(x, y);
    case SUB_F32: return add(x, y ^ SIGN);
    case MUL_F32: return mul(x, y);
    case FMA_F32: return fma(x, y, z);
    case FNMA_F32: return fma(x ^ SIGN, y, z);
    case MIN_F32: case MAX_F32: {
      uint32_t a = canonical(x), b = canonical(y);
      if (a == NAN32 || b == NAN32) return NAN32;
      return (order(a) < order(b)) == (op == MIN_F32) ? a : b;
    }
    case EQ_F32: return flag(fx == fy);
    case LT_F32: return flag(fx < fy);
    case LE_F32: return flag(fx <= fy);
    case NEG_F32: return is_nan(x) ? NAN32 : flush(x) ^ SIGN;
    case ABS_F32: return canonical(x) & ~SIGN;
    case SIGN_F32: return is_nan(x) ? NAN32 : !fx ? flush(x) : (x & SIGN) | 0x3F800000;
    case FLOOR_F32: return canonical(f32_roundToInt({canonical(x)}, 2, false).v);
    case ROUND_F32: return canonical(f32_roundToInt({canonical(x)}, 0, false).v);
    case RECIP_F32: case ACCURATE_RECIP: return recip(x);
    case RSQRT_F32: case ACCURATE_RSQRT: return rsqrt(x);
    case EXP2_FX: return exp2_fx(x);
    case LOG2_SLOPE_F32: return slope(x);
    case DIV_RECIP_F32: return (x & SIGN) + (126u << 23) + segment(RECIP, x);
    case DIV: return divide(x, y);
    case SQRT: return bits(std::sqrt(fx));
    case EXP2: return exp2_fx(mul_fx(x, 1u << 30, 6));
    case LOG2: return log2_fma(x, slope(x));
    case EXP: return exp2_fx(mul_fx(x, 1549082005, 6));
    case LOG: return mul(log2_fma(x, slope(x)), 0x3F317218);
    case LOGISTIC: return recip(add(0x3F800000, exp2_fx(mul_fx(x, -1549082005u, 6))));
    case ADD_I32: return x + y;
    case SUB_I32: return x - y;
    case MUL_I32: return x * y;
    case MULH_I32: return uint32_t(int64_t(sx) * sy >> 32);
    case MULH_U32: return uint32_t(uint64_t(x) * y >> 32);
    case MIN_I32: return sx < sy ? x : y;
    case MAX_I32: return sx < sy ? y : x;
    case MIN_U32: return x < y ? x : y;
    case MAX_U32: return x < y ? y : x;
    case EQ_I32: return flag(x == y);
    case LT_I32: return flag(sx < sy);
    case LE_I32: return flag(sx <= sy);
    case LT_U32: return flag(x < y);
    case LE_U32: return flag(x <= y);
    case MUL_FX: return mul_fx(x, y, 6);
    case MUL_FX_0: return mul_fx(x, y, 0);
    case MUL_FX_31: return mul_fx(x, y, 31);
    case AND: return x & y;
    case OR: return x | y;
    case XOR: return x ^ y;
    case SHL: return y > 31 ? 0 : x << y;
    case SHR: return y > 31 ? 0 : x >> y;
    case SAR: return uint32_t(sx >> (y > 31 ? 31 : y));
    case CLZ: return x ? __builtin_clz(x) : 32;
    case POPCOUNT: return __builtin_popcount(x);
    case I32_F32: return i32_to_f32(sx).v;
    case U32_F32: return ui32_to_f32(x).v;
    case F32_I32: return is_nan(x) ? 0 : fx >= 0x1p31f ? ~SIGN : fx < -0x1p31f ? SIGN
        : uint32_t(f32_to_i32({flush(x)}, 1, false));
    case F32_U32: return is_nan(x) || fx <= 0 ? 0 : fx >= 0x1p32f ? ~0u
        : uint32_t(f32_to_ui32({flush(x)}, 1, false));
    case F32_BF16: return to_bf16(x);
  }
  return 0;
}

// ---- units whose error is measured ----

static bool exact(int op, double x, double& want) {
  switch (op) {
    case ACCURATE_RECIP: want = 1 / x; return true;
    case ACCURATE_RSQRT: want = 1 / std::sqrt(x); return true;
    case EXP2: want = std::exp2(x); return true;
    case LOG2: want = std::log2(x); return true;
    case EXP: want = std::exp(x); return true;
    case LOG: want = std::log(x); return true;
    case LOGISTIC: want = 1 / (1 + std::exp(-x)); return true;
  }
  return false;
}

// Units in the last place between a result and the exact value; 1e9 for a wrong special value.
// Infinity counts as 2^128 and results below 2^-126 as zero, unless the exact one lies at the border.
static double distance(uint32_t got, double want) {
  if (std::isnan(want)) return got == NAN32 ? 0 : 1e9;
  if (std::isinf(want)) return got == (want < 0 ? SIGN | INF : INF) ? 0 : 1e9;
  if (want == 0) return got & ~SIGN ? 1e9 : 0;
  double size = std::fabs(want), q = std::fabs(double(value(got)));
  if ((got & ~SIGN) == INF) q = 0x1p128;
  if (is_nan(got) || (q != 0 && std::signbit(want) != bool(got & SIGN))) return 1e9;
  if (size > 0x1p128) size = 0x1p128;
  if (q == 0 || size < 0x1p-126) {
    if (q == 0 && size < 0x1p-126) return 0;
    return std::fabs((q == 0 ? 0x1p-126 : q) - size) * 0x1p149;
  }
  uint64_t raw;  // 2^-(exponent - 23), by the float64's bits
  memcpy(&raw, &size, 8);
  uint64_t e = raw >> 52 > 1023 + 127 ? 1023 + 127 : raw >> 52;
  raw = (2 * 1023 + 23 - e) << 52;
  double scale;
  memcpy(&scale, &raw, 8);
  return std::fabs(q - size) * scale;
}

// ---- cases: a pure function of (seed, index), so that a failure is one number ----
@CASES@

static void operands(bool all, uint64_t seed, uint64_t i, uint32_t& x, uint32_t& y, uint32_t& z) {
  uint64_t n = corners.size(), r = mix(seed + 3 * i), t = mix(seed + 3 * i + 1);
  if (all) { x = uint32_t(i) * 2654435761u; y = z = 0; return; }  // each once, well spread
  uint64_t u = mix(seed + 3 * i + 2);
  if (i < n * n) { x = corners[i / n]; y = corners[i % n]; z = corners[u % n]; return; }
  x = weighted(r); y = weighted(t); z = weighted(u);
  uint32_t d = uint32_t(mix(u)), e = x >> 23 & 255, ey = y >> 23 & 255;
  auto with = [](uint32_t f, int want) {
    return (f & 0x807FFFFF) | uint32_t(want < 0 ? 0 : want > 255 ? 255 : want) << 23;
  };
  auto near = [](float f, int by) { uint32_t q; memcpy(&q, &f, 4); return q + uint32_t(by); };
  int off = int(d >> 8 & 63);
  switch (d & 15) {
    case 0: y = with(y, int(e) + off - 32); break;                       // sums within reach
    case 1: y = (x ^ SIGN) + (d & 256 ? 1u : ~0u) * (1u << (d >> 9) % 24); break;  // cancellation
    case 2: y = with(y, 127 - int(e) + off % 9 - 4); break;              // product at 2^-126
    case 3: y = with(y, 381 - int(e) + off % 9 - 4); break;              // product at overflow
    case 4: x = uint32_t(r); y = uint32_t(t); z = uint32_t(u); break;    // any bits
    case 5: y = with(y, int(e) + 126 + off % 5 - 2); break;              // quotient at 2^-126
    case 6: case 7: z = with(z, int(e + ey) - 127 + off - 32); break;    // fma within reach
    case 8: case 9: z = near(-value(x) * value(y), off % 9 - 4); break;  // fma cancels
    case 10: x = with(x, 127 + off % 8); y = with(y, 127 + off / 8); break;
    case 11: x = near(value(y) * value(z), off % 5 - 2); break;          // quotient near a number
    case 12: y = d >> 8 & 63; break;                                     // shifts
    case 13: x = uint32_t(int32_t(r) >> (r >> 32 & 31));                 // integers of all sizes
             y = uint32_t(int32_t(t) >> (t >> 32 & 31)); break;
    case 14: x = y + uint32_t(off % 3) - 1; break;                       // neighbours
    default: break;
  }
}

struct Failure { uint64_t index; uint32_t x, y, got, want; };
struct Worst { double ulp; uint32_t x, got; };

extern "C" uint64_t corner_pairs() {
  if (corners.empty()) tables();
  return uint64_t(corners.size()) * corners.size();
}

static void measure(int op, uint32_t x, uint32_t got, Worst* worst) {
  double real;
  if (!exact(op, value(x), real)) return;
  double ulp = distance(got, real);
  if (ulp > worst->ulp) *worst = {ulp, x, got};
}

// The model's largest error over operands [first, first + count).
extern "C" void errors(int op, uint64_t first, uint64_t count, Worst* worst) {
  for (uint64_t i = first; i < first + count; i++)
    measure(op, uint32_t(i), expected(op, uint32_t(i), 0, 0), worst);
}

#ifndef MODEL_ONLY
// Runs cases [first, first + count); returns how many differ, the first of them in `failure`.
extern "C" uint64_t prove(int op, int all, uint64_t seed, uint64_t first, uint64_t count,
                          Failure* failure, Worst* worst) {
  corner_pairs();
  VerilatedContext context;
  V@TOP@ top{&context};
  constexpr int DEPTH = LATENCY + 1;
  static uint32_t xs[DEPTH][LANES], ys[DEPTH][LANES], zs[DEPTH][LANES];
  uint64_t bad = 0, groups = (count + LANES - 1) / LANES;
  top.rst = 0;
  for (uint64_t g = 0; g < groups + LATENCY; g++) {
    uint32_t *x = xs[g % DEPTH], *y = ys[g % DEPTH], *z = zs[g % DEPTH];
    for (int k = 0; k < LANES; k++) operands(all, seed, first + g * LANES + k, x[k], y[k], z[k]);
    for (int k = 0; k < LANES; k++) { top.x[k] = x[k]; top.y[k] = y[k]; top.z[k] = z[k]; }
    top.clk = 0; top.eval();
    if (g >= LATENCY) {
      int at = (g + 1) % DEPTH;
      for (int k = 0; k < LANES; k++) {
        uint64_t index = first + (g - LATENCY) * LANES + k;
        if (index >= first + count) continue;
        uint32_t got = top.q[k], want = expected(op, xs[at][k], ys[at][k], zs[at][k]);
        if (want != got && !bad++) *failure = {index, xs[at][k], ys[at][k], got, want};
        measure(op, xs[at][k], got, worst);
      }
    }
    top.clk = 1; top.eval();
  }
  return bad;
}
#endif
