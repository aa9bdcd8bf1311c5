// What follows a convolution: each structure writes its results as Epilogue of conv.h requires. Of OUT_LANES channels only
// the first 16 may exist.

#pragma once
#include "conv.h"

// Registers of existing channels from `o` on.
INLINE int registers(const Shape& s, int64_t o) { return o + 16 < s.out ? 2 : 1; }

// y = the convolution; per image and channel: the first pixel, and sum and sum of squares of the differences from it.
template <class T>
struct StoreAndSum {
  static constexpr bool SUMS = true;
  std::vector<T*> ys;
  float* sums;  // (outputs, images, 3, channels)
  Shape s;

  void fetch(int64_t first, int64_t pixels, Prefetcher& prefetcher) const {
    for (T* y : ys) prefetcher.add_pixels(y, first, pixels, s.out, s.out_all(), true);
  }

  void write(int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t output, int64_t o, const float* sum) const {
    T* to = ys[output] + (n * s.out_pixels() + pixel) * s.out_all() + o;
    float* moments = sums + (output * s.images + n) * 3 * s.out_all() + o;
    for (int v = 0; v < registers(s, o); ++v, to += 16, moments += 16) {
      const bool first = pixel == 0;
      const __m512 origin = first ? stored(to, load(sum + v * 16)) : load(moments);
      __m512 total = first ? _mm512_setzero_ps() : load(moments + s.out_all());
      __m512 squares = first ? _mm512_setzero_ps() : load(moments + 2 * s.out_all());
      for (int64_t p = 0; p < valid; ++p) {
        const __m512 d = _mm512_sub_ps(stored(to + p * step * s.out_all(), load(sum + p * OUT_LANES + v * 16)), origin);
        total = _mm512_add_ps(total, d);
        squares = _mm512_fmadd_ps(d, d, squares);
      }
      stored(moments, origin);
      stored(moments + s.out_all(), total);
      stored(moments + 2 * s.out_all(), squares);
    }
  }
};

// g = the convolution where scale * u + shift > 0, else 0; and each image's sums of g and of g * (u - mean) * invstd.
template <class T>
struct MaskAndSum {
  static constexpr bool SUMS = true;
  const T* u;
  const float *scale, *shift, *mean, *invstd;
  T* g;
  float* sums;  // (images, 2, channels)
  Shape s;

  void fetch(int64_t first, int64_t pixels, Prefetcher& prefetcher) const {
    prefetcher.add_pixels(u, first, pixels, s.out, s.out_all());
    prefetcher.add_pixels(g, first, pixels, s.out, s.out_all(), true);
  }

  void write(int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t, int64_t o, const float* sum) const {
    float* totals = sums + n * 2 * s.out_all() + o;
    int64_t at = (n * s.out_pixels() + pixel) * s.out_all() + o;
    for (int v = 0, count = registers(s, o); v < count; ++v, at += 16, o += 16, totals += 16) {
      const __m512 scales = load(scale + o), shifts = load(shift + o), means = load(mean + o), invstds = load(invstd + o);
      __m512 total = pixel ? load(totals) : _mm512_setzero_ps();
      __m512 normed = pixel ? load(totals + s.out_all()) : _mm512_setzero_ps();
      for (int64_t p = 0; p < valid; ++p) {
        const int64_t i = at + p * step * s.out_all();
        const __m512 x = load(u + i);
        const __mmask16 passed = _mm512_cmp_ps_mask(_mm512_fmadd_ps(x, scales, shifts), _mm512_setzero_ps(), _CMP_GT_OQ);
        const __m512 d = stored(g + i, _mm512_maskz_loadu_ps(passed, sum + p * OUT_LANES + v * 16));
        total = _mm512_add_ps(total, d);
        normed = _mm512_fmadd_ps(d, _mm512_mul_ps(_mm512_sub_ps(x, means), invstds), normed);
      }
      stored(totals, total);
      stored(totals + s.out_all(), normed);
    }
  }
};

// dx = dskip (may be null) + the convolution where x > 0.
template <class T>
struct MaskAndAdd {
  static constexpr bool SUMS = false;
  const T *x, *dskip;
  T* dx;
  Shape s;

  void fetch(int64_t first, int64_t pixels, Prefetcher& prefetcher) const {
    prefetcher.add_pixels(x, first, pixels, s.out, s.out_all());
    if (dskip) prefetcher.add_pixels(dskip, first, pixels, s.out, s.out_all());
    prefetcher.add_pixels(dx, first, pixels, s.out, s.out_all(), true);
  }

  void write(int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t, int64_t o, const float* sum) const {
    const int64_t at = (n * s.out_pixels() + pixel) * s.out_all() + o;
    for (int64_t p = 0; p < valid; ++p) {
      for (int v = 0; v < registers(s, o); ++v) {
        const int64_t i = at + p * step * s.out_all() + v * 16;
        const __mmask16 passed = _mm512_cmp_ps_mask(load(x + i), _mm512_setzero_ps(), _CMP_GT_OQ);
        const __m512 own = dskip ? load(dskip + i) : _mm512_setzero_ps();
        stored(dx + i, _mm512_add_ps(own, _mm512_maskz_loadu_ps(passed, sum + p * OUT_LANES + v * 16)));
      }
    }
  }
};

// For inference: y = [relu](the convolution + bias + addend); the addend may be null, the ReLU is optional.
template <class T>
struct BiasAct {
  static constexpr bool SUMS = false;
  const float* bias;
  const T* addend;
  bool relu_after;
  T* y;
  Shape s;

  void fetch(int64_t first, int64_t pixels, Prefetcher& prefetcher) const {
    if (addend) prefetcher.add_pixels(addend, first, pixels, s.out, s.out_all());
    prefetcher.add_pixels(y, first, pixels, s.out, s.out_all(), true);
  }

  void write(int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t, int64_t o, const float* sum) const {
    const int64_t at = (n * s.out_pixels() + pixel) * s.out_all() + o;
    for (int64_t p = 0; p < valid; ++p)
      for (int v = 0; v < registers(s, o); ++v) {
        const int64_t i = at + p * step * s.out_all() + v * 16;
        __m512 value = _mm512_add_ps(load(sum + p * OUT_LANES + v * 16), load(bias + o + v * 16));
        if (addend) value = _mm512_add_ps(value, load(addend + i));
        stored(y + i, relu_after ? relu(value) : value);
      }
  }
};
