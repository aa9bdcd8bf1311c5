// 3x3 convolutions with stride 1 and padding 1 in a quarter of the multiplications: Winograd's minimal filtering
// F(4x4, 3x3), as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016).
//
// A tile of 4x4 outputs is computed like a product of polynomials: its 6x6 input pixels and the 3x3 weights are transformed
// to values at 36 points, multiplied, summed over channels, and transformed back. In each direction the points are 0,
// +-sqrt(1/2), +-sqrt(2) and infinity, which gave the smallest rounding errors, about twice those of direct summation
// (benchmarks/winograd_points.py). All arithmetic is in float, also for bfloat16 feature maps.

#pragma once
#include "conv.h"

constexpr int64_t TILE = 4;          // outputs, in each direction
constexpr int64_t PATCH = TILE + 2;  // input pixels, and points, in each direction
constexpr int64_t POINTS = PATCH * PATCH;
constexpr int64_t AT_ONCE = 32;  // tiles, about: their transformed values stay in the L2 cache
constexpr int64_t SIDE = 8;      // tiles, or channels, that are multiplied by a register of weights

constexpr float NEAR = 0.70710678f, FAR = 1.41421356f;   // the points other than 0 and infinity; their squares are 1/2 and 2
constexpr float OF_NEAR = -2.0f / 3, OF_FAR = 1.0f / 6;  // 1 / the product of the distances to other points, of weights

INLINE __m512 all(float v) { return _mm512_set1_ps(v); }

// ---- one direction. get(i) returns the i-th value, put(i, v) stores a result

// From three weights to six points.
template <class Get, class Put>
INLINE void transform_weights(Get get, Put put) {
  const auto both = [&](int64_t at, float point, float norm) {
    const __m512 even = _mm512_mul_ps(all(norm), _mm512_fmadd_ps(all(point * point), get(2), get(0)));
    put(at, _mm512_fmadd_ps(all(norm * point), get(1), even));
    put(at + 1, _mm512_fnmadd_ps(all(norm * point), get(1), even));
  };
  put(0, get(0)), both(1, NEAR, OF_NEAR), both(3, FAR, OF_FAR), put(5, get(2));
}

// From six pixels to six points.
template <class Get, class Put>
INLINE void transform_input(Get get, Put put) {
  const __m512 d0 = get(0), d1 = get(1), d2 = get(2), d3 = get(3), d4 = get(4), d5 = get(5);
  const auto both = [&](int64_t at, float point, float other) {  // other: the square of the other point
    const __m512 even = _mm512_fnmadd_ps(all(other), d2, d4), odd = _mm512_fnmadd_ps(all(other), d1, d3);
    put(at, _mm512_fmadd_ps(all(point), odd, even));
    put(at + 1, _mm512_fnmadd_ps(all(point), odd, even));
  };
  put(0, _mm512_fnmadd_ps(all(2.5f), d2, _mm512_add_ps(d0, d4)));
  both(1, NEAR, 2.0f), both(3, FAR, 0.5f);
  put(5, _mm512_fnmadd_ps(all(2.5f), d3, _mm512_add_ps(d1, d5)));
}

// From six points to four outputs.
template <class Get, class Put>
INLINE void transform_output(Get get, Put put) {
  const __m512 m1 = get(1), m2 = get(2), m3 = get(3), m4 = get(4);
  const __m512 sum = _mm512_add_ps(m1, m2), difference = _mm512_sub_ps(m1, m2);
  const __m512 sum2 = _mm512_add_ps(m3, m4), difference2 = _mm512_sub_ps(m3, m4);
  const auto both = [&](float a, __m512 x, float b, __m512 y) {
    return _mm512_fmadd_ps(all(a), x, _mm512_mul_ps(all(b), y));
  };
  put(0, _mm512_add_ps(get(0), _mm512_add_ps(sum, sum2)));
  put(1, both(NEAR, difference, FAR, difference2));
  put(2, both(0.5f, sum, 2.0f, sum2));
  put(3, _mm512_add_ps(get(5), both(0.5f * NEAR, difference, 2.0f * FAR, difference2)));
}

// Transpose of transform_output(): from the gradients of four outputs to those of six points.
template <class Get, class Put>
INLINE void transform_output_transposed(Get get, Put put) {
  const __m512 y0 = get(0), y1 = get(1), y2 = get(2), y3 = get(3);
  const auto both = [&](int64_t at, float point, float square) {
    const __m512 even = _mm512_fmadd_ps(all(square), y2, y0), odd = _mm512_fmadd_ps(all(square), y3, y1);
    put(at, _mm512_fmadd_ps(all(point), odd, even));
    put(at + 1, _mm512_fnmadd_ps(all(point), odd, even));
  };
  put(0, y0), both(1, NEAR, 0.5f), both(3, FAR, 2.0f), put(5, y3);
}

// Transpose of transform_weights(): from the gradients of six points to those of three weights.
template <class Get, class Put>
INLINE void transform_weights_transposed(Get get, Put put) {
  const __m512 m1 = get(1), m2 = get(2), m3 = get(3), m4 = get(4);
  const __m512 sum = _mm512_add_ps(m1, m2), difference = _mm512_sub_ps(m1, m2);
  const __m512 sum2 = _mm512_add_ps(m3, m4), difference2 = _mm512_sub_ps(m3, m4);
  const auto both = [&](float a, __m512 x, float b, __m512 y) {
    return _mm512_fmadd_ps(all(a), x, _mm512_mul_ps(all(b), y));
  };
  put(0, _mm512_add_ps(get(0), both(OF_NEAR, sum, OF_FAR, sum2)));
  put(1, both(OF_NEAR * NEAR, difference, OF_FAR * FAR, difference2));
  put(2, _mm512_add_ps(get(5), both(OF_NEAR * 0.5f, sum, OF_FAR * 2.0f, sum2)));
}

// ---- tiles

// Memory layout: SIDE tiles, then blocks of `channels` channels, then points, then tiles, so that writes touch few pages.
// The distance between points is not a power of two.
constexpr int64_t of_point(int64_t channels) { return SIDE * channels + BLOCK; }
constexpr int64_t of_points(int64_t channels) { return POINTS * of_point(channels); }

// Rows of tiles, numbered through all images, that are computed together.
struct Tiles {
  int64_t height, width;  // of an image
  int64_t first, rows;

  Tiles(const Shape& s, int64_t first, int64_t rows) : height(s.height), width(s.width), first(first), rows(rows) {}

  int64_t down() const { return (height + TILE - 1) / TILE; }  // rows of an image
  int64_t across() const { return (width + TILE - 1) / TILE; }
  int64_t image(int64_t row) const { return (first + row) / down(); }
  int64_t top(int64_t row) const { return (first + row) % down() * TILE; }  // pixel
  int64_t count() const { return rows * across(); }
  int64_t sides() const { return (count() + SIDE - 1) / SIDE; }

  // The pixels that they cover, numbered through all images.
  int64_t first_pixel() const { return pixel(first); }
  int64_t pixels() const { return pixel(first + rows) - pixel(first); }

 private:
  int64_t pixel(int64_t row) const { return (row / down() * height + std::min(row % down() * TILE, height)) * width; }
};

// ---- defined in winograd.cpp and winograd_weights.cpp

// Transforms some blocks of channels of tiles; groups of SIDE tiles are `side` words apart.
template <class T>
void transform_input_tiles(const T* x, const Shape& s, const Prologue& prologue, int64_t channel, int64_t channels,
                           const Tiles& tiles, float* to, int64_t side);

// As convolve() and convolve_backward() of conv.cpp.
template <class T>
void winograd(const std::vector<const T*>& xs, int64_t outputs, const Shape& s, const Prologue& prologue,
              const float* weights, const Epilogue& epilogue, int threads);

// Transforms weights (out, 3, 3, in) and packs them for winograd(); see pack_weights() of conv.cpp.
void winograd_pack_weights(const float* w, int64_t out, int64_t in, bool backward, int64_t first, int64_t blocks, float* to,
                           int threads);

// As weight_grad() of conv_weights.cpp.
template <class T>
void winograd_weight_grad(const T* x, const std::vector<const T*>& dys, const Shape& s, const Prologue& prologue,
                          const std::vector<float*>& dws, int threads);
