// What is done with the sums of a convolution: each of these writes them somewhere, as After of conv.h says. Of WIDE
// channels only the first 16 may be there.

#pragma once
#include "conv.h"

// Registers of the channels from `o` on that are there.
INLINE int registers(const Shape& s, int64_t o) { return o + 16 < s.out ? 2 : 1; }

// y = the convolution, and of each image's channels: the first pixel, and sum and sum of squares around it.
template <class T>
struct Summed {
  static constexpr bool SUMS = true;
  std::vector<T*> ys;
  float* sums;  // (outputs, images, 3, channels)
  Shape s;

  void fetch(int64_t first, int64_t pixels, Ahead& ahead) const {
    for (T* y : ys) ahead.add_pixels(y, first, pixels, s.out, s.out_all(), true);
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
        const __m512 d = _mm512_sub_ps(stored(to + p * step * s.out_all(), load(sum + p * WIDE + v * 16)), origin);
        total = _mm512_add_ps(total, d);
        squares = _mm512_fmadd_ps(d, d, squares);
      }
      stored(moments, origin);
      stored(moments + s.out_all(), total);
      stored(moments + 2 * s.out_all(), squares);
    }
  }
};

// g = the convolution where relu(scale * u + shift) let u pass, and each image's sums of g and of g * (u - mean) * invstd.
template <class T>
struct Masked {
  static constexpr bool SUMS = true;
  const T* u;
  const float *scale, *shift, *mean, *invstd;
  T* g;
  float* sums;  // (images, 2, channels)
  Shape s;

  void fetch(int64_t first, int64_t pixels, Ahead& ahead) const {
    ahead.add_pixels(u, first, pixels, s.out, s.out_all());
    ahead.add_pixels(g, first, pixels, s.out, s.out_all(), true);
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
        const __m512 d = stored(g + i, _mm512_maskz_loadu_ps(passed, sum + p * WIDE + v * 16));
        total = _mm512_add_ps(total, d);
        normed = _mm512_fmadd_ps(d, _mm512_mul_ps(_mm512_sub_ps(x, means), invstds), normed);
      }
      stored(totals, total);
      stored(totals + s.out_all(), normed);
    }
  }
};

// dx = dskip, if there is any, + the convolution where relu(x) let x pass.
template <class T>
struct Forked {
  static constexpr bool SUMS = false;
  const T *x, *dskip;
  T* dx;
  Shape s;

  void fetch(int64_t first, int64_t pixels, Ahead& ahead) const {
    ahead.add_pixels(x, first, pixels, s.out, s.out_all());
    if (dskip) ahead.add_pixels(dskip, first, pixels, s.out, s.out_all());
    ahead.add_pixels(dx, first, pixels, s.out, s.out_all(), true);
  }

  void write(int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t, int64_t o, const float* sum) const {
    const int64_t at = (n * s.out_pixels() + pixel) * s.out_all() + o;
    for (int64_t p = 0; p < valid; ++p) {
      for (int v = 0; v < registers(s, o); ++v) {
        const int64_t i = at + p * step * s.out_all() + v * 16;
        const __mmask16 passed = _mm512_cmp_ps_mask(load(x + i), _mm512_setzero_ps(), _CMP_GT_OQ);
        const __m512 own = dskip ? load(dskip + i) : _mm512_setzero_ps();
        stored(dx + i, _mm512_add_ps(own, _mm512_maskz_loadu_ps(passed, sum + p * WIDE + v * 16)));
      }
    }
  }
};

// For inference: y = the convolution + bias + what is to be added, if anything, and a ReLU of that, if asked for.
template <class T>
struct Biased {
  static constexpr bool SUMS = false;
  const float* bias;
  const T* added;
  bool rectified;
  T* y;
  Shape s;

  void fetch(int64_t first, int64_t pixels, Ahead& ahead) const {
    if (added) ahead.add_pixels(added, first, pixels, s.out, s.out_all());
    ahead.add_pixels(y, first, pixels, s.out, s.out_all(), true);
  }

  void write(int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t, int64_t o, const float* sum) const {
    const int64_t at = (n * s.out_pixels() + pixel) * s.out_all() + o;
    for (int64_t p = 0; p < valid; ++p)
      for (int v = 0; v < registers(s, o); ++v) {
        const int64_t i = at + p * step * s.out_all() + v * 16;
        __m512 value = _mm512_add_ps(load(sum + p * WIDE + v * 16), load(bias + o + v * 16));
        if (added) value = _mm512_add_ps(value, load(added + i));
        stored(y + i, rectified ? relu(value) : value);
      }
  }
};
