// Half precision for the host: bits, widened and narrowed (to nearest, ties to even) by hand.
#pragma once

struct __half {
  uint16_t word;
};

inline float __half2float(__half h) {
  unsigned sign = (unsigned)(h.word & 0x8000) << 16;
  unsigned exponent = h.word >> 10 & 31, fraction = h.word & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
  float small = (float)fraction * 0x1p-24f;
  return sign ? -small : small;
}

inline __half __float2half(float x) {
  unsigned word = __float_as_uint(x);
  uint16_t sign = (uint16_t)(word >> 16 & 0x8000);
  float size = fabsf(x);
  if (size != size) return {(uint16_t)(sign | 0x7e00)};
  if (size >= 65520.0f) return {(uint16_t)(sign | 0x7c00)};
  if (size < 0x1p-14f) return {(uint16_t)(sign | (uint16_t)rintf(size * 0x1p24f))};
  unsigned kept = (word & 0x7fffffffu) - (112u << 23);
  kept += 0xfff + (kept >> 13 & 1);
  return {(uint16_t)(sign | kept >> 13)};
}
