// Compares a verilated float unit with Berkeley SoftFloat, @LANES@ operations per clock cycle.
//
// SoftFloat's f32_*, f64_* come from the Python package's shared object, loaded before this one.
// DESIGN's flush rule is laid over them: subnormal inputs are zero with their sign; a non-zero
// exact result below 2^-126 is zero with its sign, where "exact" is SoftFloat's f64 (products of
// two f32 are exact there) or f32 (sums below 2^-126 are exact); every NaN is 0x7fc00000.
#include <cstdint>
#include <vector>
#include "V@TOP@.h"
#include "verilated.h"

struct F32 { uint32_t v; };
struct F64 { uint64_t v; };
extern "C" {
F32 f32_add(F32, F32);
F32 f32_mul(F32, F32);
F64 f32_to_f64(F32);
F64 f64_mul(F64, F64);
bool f64_lt(F64, F64);
F32 f32_roundToInt(F32, uint_fast8_t, bool);
int_fast32_t f32_to_i32(F32, uint_fast8_t, bool);
F32 i32_to_f32(int32_t);
}

constexpr int LANES = @LANES@, LATENCY = @LATENCY@;
constexpr uint32_t SIGN = 0x80000000, INF = 0x7F800000, NAN32 = 0x7FC00000;
enum { ADD, MUL, PRODUCT, FIRST, ITOF, FTOI, TO_BF16 };

static uint32_t flush(uint32_t x) { return x & INF ? x : x & SIGN; }
static bool is_nan(uint32_t x) { return (x & ~SIGN) > INF; }

static uint32_t add(uint32_t x, uint32_t y) {
  uint32_t q = f32_add({flush(x)}, {flush(y)}).v;
  return is_nan(q) ? NAN32 : flush(q);
}

static uint32_t mul(uint32_t x, uint32_t y) {
  F32 a{flush(x)}, b{flush(y)};
  uint32_t q = f32_mul(a, b).v;
  if (is_nan(q)) return NAN32;
  if ((q & ~SIGN) > 0x00800000) return q;  // far from the border: only there rounding matters
  F64 exact = f64_mul(f32_to_f64(a), f32_to_f64(b));
  exact.v &= ~(1ull << 63);
  return f64_lt(exact, {uint64_t(1023 - 126) << 52}) ? q & SIGN : q;
}

static uint32_t to_bf16(uint32_t x) {  // SoftFloat has no bf16: round to 8 bits as an integer
  x = flush(x);
  if (is_nan(x)) return NAN32 >> 16;
  uint32_t rest = x & 0x7FFFFF, exponent = x >> 23;  // with the sign
  if (!(exponent & 255) || (exponent & 255) == 255) return x >> 16;
  uint32_t whole = f32_roundToInt({rest | 134u << 23}, 0, false).v;  // [128, 256): unit is 1
  return (whole - (134u << 23) + (exponent << 23)) >> 16;  // overflow carries into infinity
}

static uint32_t expected(int op, uint32_t x, uint32_t y) {
  switch (op) {
    case ADD: return add(x, y);
    case MUL: case PRODUCT: return mul(x, y);
    case FIRST: return add(0, mul(x, y));
    case ITOF: return i32_to_f32(int32_t(x)).v;
    case FTOI: return is_nan(x) ? 0
        : (x & ~SIGN) >= 0x4F000000 ? (x & SIGN ? SIGN : ~SIGN)
        : uint32_t(f32_to_i32({flush(x)}, 0, false));
    default: return to_bf16(x);
  }
}

// ---- cases: a pure function of (seed, index), so that a failure is one number ----

static uint64_t mix(uint64_t z) {  // splitmix64
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}

static std::vector<uint32_t> fractions, corners, outs;

static void tables() {
  // fractions as TestFloat's: one bit, all but one bit, runs of ones from either end
  for (int k = 0; k < 23; k++) {
    uint32_t bit = 1u << k, all = 0x7FFFFF;
    for (uint32_t f : {bit, all ^ bit, all ^ (bit - 1), bit - 1}) fractions.push_back(f);
  }
  const int in[] = {0, 1, 2, 22, 23, 103, 125, 126, 127, 128, 129, 151, 253, 254, 255};
  for (int e : in)
    for (uint32_t s : {0u, SIGN})
      for (uint32_t f : fractions) corners.push_back(s | uint32_t(e) << 23 | f);
  for (int e : {0, 1, 2, 12, 24, 63, 64, 65, 103, 123, 124, 125, 126, 127, 128, 129, 130, 131, 151,
                156, 157, 158, 159, 189, 190, 191, 192, 252, 253, 254, 255})
    for (uint32_t s : {0u, SIGN}) outs.push_back(s | uint32_t(e) << 23);
}

static uint32_t weighted(uint64_t r) {  // TestFloat's random classes
  uint32_t low = uint32_t(r >> 32) & 0x7FFFFF;
  uint32_t pattern = (fractions[r % fractions.size()] + fractions[r / 97 % fractions.size()])
      & 0x7FFFFF;
  uint32_t fraction = r >> 60 & 1 ? low : pattern, place = uint32_t(r >> 8);
  if (r >> 61 & 1) return outs[place % outs.size()] | fraction;
  int narrow = r >> 57 & 7;  // exponent within 2^(8 - narrow) of the middle, or any
  uint32_t e = narrow < 2 ? place & 255 : 128 - (128 >> narrow) + (place & ((256 >> narrow) - 1));
  return (place & 0x100 ? SIGN : 0) | (e & 255) << 23 | fraction;
}

static void operands(int op, uint64_t seed, uint64_t i, uint32_t& x, uint32_t& y) {
  if (op == PRODUCT || op == FIRST) { x = uint32_t(i >> 16) << 16; y = uint32_t(i) << 16; return; }
  if (op >= ITOF) { x = uint32_t(i); y = 0; return; }
  uint64_t n = corners.size();
  if (i < n * n) { x = corners[i / n]; y = corners[i % n]; return; }
  uint64_t r = mix(seed + 3 * i), t = mix(seed + 3 * i + 1), u = mix(seed + 3 * i + 2);
  x = weighted(r); y = weighted(t);
  uint32_t e = x >> 23 & 255, f = uint32_t(t) & 0x807FFFFF, d = uint32_t(u >> 8);
  auto with = [&](int want) { return f | uint32_t(want < 0 ? 0 : want > 255 ? 255 : want) << 23; };
  switch (u & 7) {
    case 0: y = with(int(e) + int(d % 57) - 28); break;               // alignment within reach
    case 1: y = (x ^ SIGN) + (d & 1 ? 1u : ~0u) * (1u << d / 2 % 24); break;   // cancellation
    case 2: y = with(127 - int(e) + int(d % 9) - 4); break;           // product at 2^-126
    case 3: y = with(381 - int(e) + int(d % 9) - 4); break;           // product at overflow
    case 4: x = uint32_t(r); y = uint32_t(t); break;                  // any bits
    case 5: x = (x & 0x807FFFFF) | (d % 26) << 23; y = with(int(d / 26 % 26)); break;  // sum at 2^-126
    case 6: {  // a product whose fraction is near a tie or all ones: y close to k / x
      double s = 1.0 + (x & 0x7FFFFF) / 8388608.0, k = 1.0 + double(d % 64) / 64.0;
      double q = k / s; if (q < 1) q *= 2;
      f = (f & SIGN) | ((uint32_t(q * 8388608.0) + (d >> 6) % 5 - 2) & 0x7FFFFF);
      y = with(d >> 9 & 1 ? 127 - int(e) + int(d >> 10) % 3 : int(t >> 40 & 255));
      break;
    }
    default: break;                                                    // weighted, both
  }
}

struct Failure { uint64_t index; uint32_t x, y, got, want; };

extern "C" uint64_t corner_pairs() {
  if (corners.empty()) tables();
  return uint64_t(corners.size()) * corners.size();
}

// Runs cases [first, first + count); returns how many differ, the first of them in `failure`.
extern "C" uint64_t prove(int op, uint64_t seed, uint64_t first, uint64_t count, Failure* failure) {
  corner_pairs();
  VerilatedContext context;
  V@TOP@ top{&context};
  static uint32_t xs[LATENCY + 1][LANES], ys[LATENCY + 1][LANES];
  uint64_t bad = 0, groups = (count + LANES - 1) / LANES;
  for (uint64_t g = 0; g < groups + LATENCY; g++) {
    uint32_t *x = xs[g % (LATENCY + 1)], *y = ys[g % (LATENCY + 1)];
    for (int k = 0; k < LANES; k++) operands(op, seed, first + g * LANES + k, x[k], y[k]);
    for (int k = 0; k < LANES; k++) { top.x[k] = x[k]; top.y[k] = y[k]; }
    top.clk = 0; top.eval();
    if (g >= LATENCY) {
      uint32_t *u = xs[(g + 1) % (LATENCY + 1)], *v = ys[(g + 1) % (LATENCY + 1)];
      for (int k = 0; k < LANES; k++) {
        uint64_t index = first + (g - LATENCY) * LANES + k;
        uint32_t want = expected(op, u[k], v[k]);
        if (want != top.q[k] && index < first + count && !bad++)
          *failure = {index, u[k], v[k], top.q[k], want};
      }
    }
    top.clk = 1; top.eval();
  }
  return bad;
}
