// Convolutions by tiles, and the gradient of their input: see winograd.h.
//
// What is summed up over pixels is taken image by image and then in the order of the images: results do not depend on
// the number of threads.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "winograd.h"

namespace {

// 16 channels of a pixel after what stands in front of the convolution.
template <int FRONT, class T>
INLINE __m512 after_front(const T* x, const Before& before, int64_t channel) {
  const __m512 v = load(x + channel);
  if (FRONT == AFFINE_RELU) return relu(_mm512_fmadd_ps(v, load(before.scale + channel), load(before.shift + channel)));
  return FRONT == RELU ? relu(v) : v;
}

// 16 channels of tiles at all points. Down first: what that gives for a column serves two tiles where they overlap.
template <int FRONT, class T>
void evaluate_block(const T* x, const Shape& s, const Before& before, int64_t channel, const Tiles& tiles, float* to,
                    int64_t side) {
  const int64_t columns = tiles.across() * TILE + 2, row = s.width * s.in_all();
  float* strip = (float*)scratch<3>(columns * PATCH * BLOCK);
  for (int64_t r = 0; r < tiles.rows; ++r) {
    const T* image = x + tiles.image(r) * s.pixels() * s.in_all();
    const int64_t top = tiles.top(r) - 1;
    const int64_t above = top < 0, below = std::min(PATCH, s.height - top);  // rows of the image
    for (int64_t c = 0; c < columns; ++c) {
      const T* pixel = image + (top * s.width + c - 1) * s.in_all();
      const auto get = [&](int64_t i) { return after_front<FRONT>(pixel + i * row, before, channel); };
      const auto get_if_there = [&](int64_t i) { return i >= above && i < below ? get(i) : _mm512_setzero_ps(); };
      const auto put = [&](int64_t i, __m512 v) { _mm512_store_ps(strip + (c * PATCH + i) * BLOCK, v); };
      if (c == 0 || c > s.width)
        evaluate([&](int64_t) { return _mm512_setzero_ps(); }, put);
      else if (above == 0 && below == PATCH)
        evaluate(get, put);
      else
        evaluate(get_if_there, put);
    }
    for (int64_t c = 0; c < tiles.across(); ++c) {
      const int64_t tile = r * tiles.across() + c;
      float* at = to + tile / SIDE * side + tile % SIDE * BLOCK;
      for (int64_t i = 0; i < PATCH; ++i)
        evaluate([&](int64_t j) { return _mm512_load_ps(strip + ((c * TILE + j) * PATCH + i) * BLOCK); },
                 [&](int64_t j, __m512 v) { _mm512_store_ps(at + (i * PATCH + j) * of_point(BLOCK), v); });
    }
  }
}

// At one point: sums over `blocks` blocks of channels for SIDE tiles and 16 outputs or WIDE, in one register or two. A
// function of its own, so that the sums stay in registers and nothing else does.
template <int REGISTERS>
__attribute__((noinline)) void multiply(const float* x, int64_t blocks, const float* weights, float* to) {
  __m512 sum[SIDE][REGISTERS];
#pragma GCC unroll 8
  for (int t = 0; t < SIDE; ++t)
    for (int v = 0; v < REGISTERS; ++v) sum[t][v] = _mm512_setzero_ps();
  for (int64_t b = 0; b < blocks; ++b, x += of_points(BLOCK), weights += BLOCK * WIDE) {
#pragma GCC unroll 16
    for (int k = 0; k < BLOCK; ++k) {
      __m512i w[REGISTERS];
      for (int v = 0; v < REGISTERS; ++v) w[v] = _mm512_load_si512(weights + k * WIDE + v * 16);
#pragma GCC unroll 8
      for (int t = 0; t < SIDE; ++t) {
        const __m512i value = everywhere((const Word*)&x[t * BLOCK + k]);
        for (int v = 0; v < REGISTERS; ++v) sum[t][v] = multiply_add(float(), sum[t][v], w[v], value);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < SIDE; ++t)
    for (int v = 0; v < REGISTERS; ++v) _mm512_store_ps(to + t * WIDE + v * 16, sum[t][v]);
}

// 16 outputs of a tile, in rows of PIXELS pixels of WIDE channels.
INLINE void interpolate_tile(const float* values, float* to) {
  alignas(64) float half[TILE * PATCH * BLOCK];
  for (int64_t j = 0; j < PATCH; ++j)
    interpolate([&](int64_t i) { return _mm512_load_ps(values + (i * PATCH + j) * of_point(WIDE)); },
                [&](int64_t i, __m512 v) { _mm512_store_ps(half + (i * PATCH + j) * BLOCK, v); });
  for (int64_t i = 0; i < TILE; ++i)
    interpolate([&](int64_t j) { return _mm512_load_ps(half + (i * PATCH + j) * BLOCK); },
                [&](int64_t j, __m512 v) { _mm512_store_ps(to + (i * PIXELS + j) * WIDE, v); });
}

// Outputs of all tiles, up to WIDE `channels` from `o` on, two tiles at a time, given to `after`.
void interpolate_tiles(const float* values, const Tiles& tiles, int64_t output, int64_t o, int64_t channels,
                       const After& after) {
  alignas(64) float sums[TILE * PIXELS * WIDE];
  for (int64_t r = 0; r < tiles.rows; ++r)
    for (int64_t c = 0; c < tiles.across(); c += 2) {
      for (int64_t k = 0; k < 2 && c + k < tiles.across(); ++k) {
        const int64_t tile = r * tiles.across() + c + k;
        const float* at = values + tile / SIDE * of_points(WIDE) + tile % SIDE * WIDE;
        for (int64_t v = 0; v < channels; v += 16) interpolate_tile(at + v, sums + k * TILE * WIDE + v);
      }
      const int64_t top = tiles.top(r), valid = std::min<int64_t>(PIXELS, tiles.width - c * TILE);
      for (int64_t i = 0; i < std::min(TILE, tiles.height - top); ++i)
        after(tiles.image(r), (top + i) * tiles.width + c * TILE, 1, valid, output, o, sums + i * PIXELS * WIDE);
    }
}

}  // namespace

template <class T>
void evaluate_tiles(const T* x, const Shape& s, const Before& before, int64_t channel, int64_t channels, const Tiles& tiles,
                    float* to, int64_t side) {
  for (const int64_t end = channel + channels; channel < end; channel += BLOCK, to += of_points(BLOCK))
    if (before.kind == AFFINE_RELU)
      evaluate_block<AFFINE_RELU>(x, s, before, channel, tiles, to, side);
    else if (before.kind == RELU)
      evaluate_block<RELU>(x, s, before, channel, tiles, to, side);
    else
      evaluate_block<NOTHING>(x, s, before, channel, tiles, to, side);
}

template void evaluate_tiles(const float*, const Shape&, const Before&, int64_t, int64_t, const Tiles&, float*, int64_t);
template void evaluate_tiles(const bf16*, const Shape&, const Before&, int64_t, int64_t, const Tiles&, float*, int64_t);

template <class T>
void winograd(const std::vector<const T*>& xs, int64_t outputs, const Shape& s, const Before& before, const float* weights,
              const After& after, int threads) {
  const int64_t inputs = int64_t(xs.size()), channels = inputs * s.in, wides = (s.out + WIDE - 1) / WIDE;
  const Tiles image(s, 0, (s.height + TILE - 1) / TILE);
  const int64_t all = s.images * image.rows, fair = (all + threads - 1) / threads;
  // Some images, or a piece of one. Where something is summed up over an image, one thread has all of it in order.
  const int64_t rows = std::max<int64_t>(1, std::min(AT_ONCE / image.across(), after.sums ? all : fair));
  const int64_t step = rows >= image.rows ? rows / image.rows * image.rows : rows;
  const int64_t task = after.sums ? std::max(step, image.rows) : step;
  const int64_t of_image = std::max(step, image.rows);  // pieces do not reach into the next image
  const int64_t pieces = (of_image + task - 1) / task, tasks = (all + of_image - 1) / of_image * pieces;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t t = 0; t < tasks; ++t) {
    const int64_t start = t / pieces * of_image + t % pieces * task;
    const int64_t end = std::min({all, start + task, (t / pieces + 1) * of_image});
    for (int64_t first = start; first < end; first += step) {
      const Tiles tiles(s, first, std::min(step, end - first));
      const int64_t side = channels / BLOCK * of_points(BLOCK);
      float *x = (float*)scratch<0>(tiles.sides() * side), *products = (float*)scratch<1>(tiles.sides() * of_points(WIDE));
      for (int64_t i = 0; i < inputs; ++i)
        evaluate_tiles(xs[i], s, before, 0, s.in, tiles, x + i * s.in / BLOCK * of_points(BLOCK), side);
      Ahead ahead;
      if (first + step < all) {
        const Tiles next(s, first + step, std::min(step, all - first - step));
        for (const T* each : xs) ahead.add_pixels(each, next.first_pixel(), next.pixels(), s.in, s.in_all());
        after.fetch(next.first_pixel(), next.pixels(), ahead);
        ahead.spread(outputs * wides * POINTS * tiles.sides());
      }
      const float* w = weights;
      for (int64_t output = 0; output < outputs; ++output)
        for (int64_t o = 0; o < s.out; o += WIDE) {
          const auto multiplied = o + 16 < s.out ? multiply<2> : multiply<1>;
          for (int64_t p = 0; p < POINTS; ++p, w += channels * WIDE)
            for (int64_t i = 0; i < tiles.sides(); ++i) {
              ahead.some();
              multiplied(x + i * side + p * of_point(BLOCK), channels / BLOCK, w,
                         products + i * of_points(WIDE) + p * of_point(WIDE));
            }
          interpolate_tiles(products, tiles, output, o, std::min(WIDE, s.out - o), after);
        }
    }
  }
}

template void winograd(const std::vector<const float*>&, int64_t, const Shape&, const Before&, const float*, const After&,
                       int);
template void winograd(const std::vector<const bf16*>&, int64_t, const Shape&, const Before&, const float*, const After&,
                       int);

void winograd_arrange(const float* w, int64_t out, int64_t in, bool back, int64_t first, int64_t blocks, float* to,
                      int threads) {
  const int64_t written = back ? in : out, read = back ? out : in;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t o = 0; o < (written + WIDE - 1) / WIDE * WIDE; o += 16)
    for (int64_t i = 0; i < read; i += 16) {
      __m512 taps[TAPS][16];
      for (int64_t tap = 0; tap < TAPS; ++tap) load_tap(w, out, in, back, o, i, tap, taps[tap]);
      float* at = to + ((o / WIDE * POINTS * blocks + first) * BLOCK + i) * WIDE + o % WIDE;
      for (int64_t k = 0; k < 16; ++k, at += WIDE) {
        __m512 rows[3][PATCH];
        for (int64_t r = 0; r < 3; ++r)
          evaluate_weights([&](int64_t c) { return taps[r * 3 + c][k]; }, [&](int64_t p, __m512 v) { rows[r][p] = v; });
        for (int64_t c = 0; c < PATCH; ++c)
          evaluate_weights([&](int64_t r) { return rows[r][c]; },
                           [&](int64_t p, __m512 v) { _mm512_store_ps(at + (p * PATCH + c) * blocks * BLOCK * WIDE, v); });
      }
    }
}

#endif
