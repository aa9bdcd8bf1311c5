// Winograd convolutions and the gradient of their input; see winograd.h.
//
// Sums over pixels are taken image by image and then in the order of the images: results do not depend on the number of
// threads.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "winograd.h"

namespace {

// 16 channels of a pixel, with the prologue applied.
template <int KIND, class T>
INLINE __m512 apply_prologue(const T* x, const Prologue& prologue, int64_t channel) {
  const __m512 v = load(x + channel);
  if (KIND == AFFINE_RELU) return relu(_mm512_fmadd_ps(v, load(prologue.scale + channel), load(prologue.shift + channel)));
  return KIND == RELU ? relu(v) : v;
}

// Transforms 16 channels of tiles. Columns first: a transformed column serves both tiles where they overlap.
template <int KIND, class T>
void transform_input_block(const T* x, const Shape& s, const Prologue& prologue, int64_t channel, const Tiles& tiles,
                           float* to, int64_t side) {
  const int64_t columns = tiles.across() * TILE + 2, row = s.width * s.in_all();
  float* strip = (float*)scratch<3>(columns * PATCH * BLOCK);
  for (int64_t r = 0; r < tiles.rows; ++r) {
    const T* image = x + tiles.image(r) * s.pixels() * s.in_all();
    const int64_t top = tiles.top(r) - 1;
    const int64_t above = top < 0, below = std::min(PATCH, s.height - top);  // rows of the image
    for (int64_t c = 0; c < columns; ++c) {
      const T* pixel = image + (top * s.width + c - 1) * s.in_all();
      const auto get = [&](int64_t i) { return apply_prologue<KIND>(pixel + i * row, prologue, channel); };
      const auto get_if_there = [&](int64_t i) { return i >= above && i < below ? get(i) : _mm512_setzero_ps(); };
      const auto put = [&](int64_t i, __m512 v) { _mm512_store_ps(strip + (c * PATCH + i) * BLOCK, v); };
      if (c == 0 || c > s.width)
        transform_input([&](int64_t) { return _mm512_setzero_ps(); }, put);
      else if (above == 0 && below == PATCH)
        transform_input(get, put);
      else
        transform_input(get_if_there, put);
    }
    for (int64_t c = 0; c < tiles.across(); ++c) {
      const int64_t tile = r * tiles.across() + c;
      float* at = to + tile / SIDE * side + tile % SIDE * BLOCK;
      for (int64_t i = 0; i < PATCH; ++i)
        transform_input([&](int64_t j) { return _mm512_load_ps(strip + ((c * TILE + j) * PATCH + i) * BLOCK); },
                        [&](int64_t j, __m512 v) { _mm512_store_ps(at + (i * PATCH + j) * of_point(BLOCK), v); });
    }
  }
}

// At one point: sums over `blocks` blocks of channels for SIDE tiles and 16 or OUT_LANES outputs, in one or two registers.
// Not inlined, so that all registers are available to the sums.
template <int REGISTERS>
__attribute__((noinline)) void multiply(const float* x, int64_t blocks, const float* weights, float* to) {
  __m512 sum[SIDE][REGISTERS];
#pragma GCC unroll 8
  for (int t = 0; t < SIDE; ++t)
    for (int v = 0; v < REGISTERS; ++v) sum[t][v] = _mm512_setzero_ps();
  for (int64_t b = 0; b < blocks; ++b, x += of_points(BLOCK), weights += BLOCK * OUT_LANES) {
#pragma GCC unroll 16
    for (int k = 0; k < BLOCK; ++k) {
      __m512i w[REGISTERS];
      for (int v = 0; v < REGISTERS; ++v) w[v] = _mm512_load_si512(weights + k * OUT_LANES + v * 16);
#pragma GCC unroll 8
      for (int t = 0; t < SIDE; ++t) {
        const __m512i value = broadcast((const Word*)&x[t * BLOCK + k]);
        for (int v = 0; v < REGISTERS; ++v) sum[t][v] = multiply_add(float(), sum[t][v], w[v], value);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < SIDE; ++t)
    for (int v = 0; v < REGISTERS; ++v) _mm512_store_ps(to + t * OUT_LANES + v * 16, sum[t][v]);
}

// Transforms 16 channels of a tile back, to rows of PIXELS pixels of OUT_LANES channels.
INLINE void transform_output_tile(const float* values, float* to) {
  alignas(64) float half[TILE * PATCH * BLOCK];
  for (int64_t j = 0; j < PATCH; ++j)
    transform_output([&](int64_t i) { return _mm512_load_ps(values + (i * PATCH + j) * of_point(OUT_LANES)); },
                     [&](int64_t i, __m512 v) { _mm512_store_ps(half + (i * PATCH + j) * BLOCK, v); });
  for (int64_t i = 0; i < TILE; ++i)
    transform_output([&](int64_t j) { return _mm512_load_ps(half + (i * PATCH + j) * BLOCK); },
                     [&](int64_t j, __m512 v) { _mm512_store_ps(to + (i * PIXELS + j) * OUT_LANES, v); });
}

// Transforms up to OUT_LANES `channels` of all tiles back, from `o` on, two tiles at a time, and passes them to `epilogue`.
void transform_output_tiles(const float* values, const Tiles& tiles, int64_t output, int64_t o, int64_t channels,
                            const Epilogue& epilogue) {
  alignas(64) float sums[TILE * PIXELS * OUT_LANES];
  for (int64_t r = 0; r < tiles.rows; ++r)
    for (int64_t c = 0; c < tiles.across(); c += 2) {
      for (int64_t k = 0; k < 2 && c + k < tiles.across(); ++k) {
        const int64_t tile = r * tiles.across() + c + k;
        const float* at = values + tile / SIDE * of_points(OUT_LANES) + tile % SIDE * OUT_LANES;
        for (int64_t v = 0; v < channels; v += 16) transform_output_tile(at + v, sums + k * TILE * OUT_LANES + v);
      }
      const int64_t top = tiles.top(r), valid = std::min<int64_t>(PIXELS, tiles.width - c * TILE);
      for (int64_t i = 0; i < std::min(TILE, tiles.height - top); ++i)
        epilogue(tiles.image(r), (top + i) * tiles.width + c * TILE, 1, valid, output, o, sums + i * PIXELS * OUT_LANES);
    }
}

}  // namespace

template <class T>
void transform_input_tiles(const T* x, const Shape& s, const Prologue& prologue, int64_t channel, int64_t channels,
                           const Tiles& tiles, float* to, int64_t side) {
  for (const int64_t end = channel + channels; channel < end; channel += BLOCK, to += of_points(BLOCK))
    if (prologue.kind == AFFINE_RELU)
      transform_input_block<AFFINE_RELU>(x, s, prologue, channel, tiles, to, side);
    else if (prologue.kind == RELU)
      transform_input_block<RELU>(x, s, prologue, channel, tiles, to, side);
    else
      transform_input_block<NO_PROLOGUE>(x, s, prologue, channel, tiles, to, side);
}

template void transform_input_tiles(const float*, const Shape&, const Prologue&, int64_t, int64_t, const Tiles&, float*,
                                    int64_t);
template void transform_input_tiles(const bf16*, const Shape&, const Prologue&, int64_t, int64_t, const Tiles&, float*,
                                    int64_t);

template <class T>
void winograd(const std::vector<const T*>& xs, int64_t outputs, const Shape& s, const Prologue& prologue,
              const float* weights, const Epilogue& epilogue, int threads) {
  const int64_t inputs = int64_t(xs.size()), channels = inputs * s.in, lane_groups = (s.out + OUT_LANES - 1) / OUT_LANES;
  const Tiles image(s, 0, (s.height + TILE - 1) / TILE);
  const int64_t all = s.images * image.rows, fair = (all + threads - 1) / threads;
  // Some images, or a piece of one. If the epilogue accumulates over an image, one thread gets all of it, in order.
  const int64_t rows = std::max<int64_t>(1, std::min(AT_ONCE / image.across(), epilogue.sums ? all : fair));
  const int64_t step = rows >= image.rows ? rows / image.rows * image.rows : rows;
  const int64_t task = epilogue.sums ? std::max(step, image.rows) : step;
  const int64_t of_image = std::max(step, image.rows);  // pieces do not extend into the next image
  const int64_t pieces = (of_image + task - 1) / task, tasks = (all + of_image - 1) / of_image * pieces;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t t = 0; t < tasks; ++t) {
    const int64_t start = t / pieces * of_image + t % pieces * task;
    const int64_t end = std::min({all, start + task, (t / pieces + 1) * of_image});
    for (int64_t first = start; first < end; first += step) {
      const Tiles tiles(s, first, std::min(step, end - first));
      const int64_t side = channels / BLOCK * of_points(BLOCK);
      float *x = (float*)scratch<0>(tiles.sides() * side),
            *products = (float*)scratch<1>(tiles.sides() * of_points(OUT_LANES));
      for (int64_t i = 0; i < inputs; ++i)
        transform_input_tiles(xs[i], s, prologue, 0, s.in, tiles, x + i * s.in / BLOCK * of_points(BLOCK), side);
      Prefetcher prefetcher;
      if (first + step < all) {
        const Tiles next(s, first + step, std::min(step, all - first - step));
        for (const T* each : xs) prefetcher.add_pixels(each, next.first_pixel(), next.pixels(), s.in, s.in_all());
        epilogue.fetch(next.first_pixel(), next.pixels(), prefetcher);
        prefetcher.spread(outputs * lane_groups * POINTS * tiles.sides());
      }
      const float* w = weights;
      for (int64_t output = 0; output < outputs; ++output)
        for (int64_t o = 0; o < s.out; o += OUT_LANES) {
          const auto multiplied = o + 16 < s.out ? multiply<2> : multiply<1>;
          for (int64_t p = 0; p < POINTS; ++p, w += channels * OUT_LANES)
            for (int64_t i = 0; i < tiles.sides(); ++i) {
              prefetcher.some();
              multiplied(x + i * side + p * of_point(BLOCK), channels / BLOCK, w,
                         products + i * of_points(OUT_LANES) + p * of_point(OUT_LANES));
            }
          transform_output_tiles(products, tiles, output, o, std::min(OUT_LANES, s.out - o), epilogue);
        }
    }
  }
}

template void winograd(const std::vector<const float*>&, int64_t, const Shape&, const Prologue&, const float*,
                       const Epilogue&, int);
template void winograd(const std::vector<const bf16*>&, int64_t, const Shape&, const Prologue&, const float*,
                       const Epilogue&, int);

void winograd_pack_weights(const float* w, int64_t out, int64_t in, bool backward, int64_t first, int64_t blocks, float* to,
                           int threads) {
  const int64_t written = backward ? in : out, read = backward ? out : in;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t o = 0; o < (written + OUT_LANES - 1) / OUT_LANES * OUT_LANES; o += 16)
    for (int64_t i = 0; i < read; i += 16) {
      __m512 taps[TAPS][16];
      for (int64_t tap = 0; tap < TAPS; ++tap) load_tap(w, out, in, backward, o, i, tap, taps[tap]);
      float* at = to + ((o / OUT_LANES * POINTS * blocks + first) * BLOCK + i) * OUT_LANES + o % OUT_LANES;
      for (int64_t k = 0; k < 16; ++k, at += OUT_LANES) {
        __m512 rows[3][PATCH];
        for (int64_t r = 0; r < 3; ++r)
          transform_weights([&](int64_t c) { return taps[r * 3 + c][k]; }, [&](int64_t p, __m512 v) { rows[r][p] = v; });
        for (int64_t c = 0; c < PATCH; ++c)
          transform_weights(
              [&](int64_t r) { return rows[r][c]; },
              [&](int64_t p, __m512 v) { _mm512_store_ps(at + (p * PATCH + c) * blocks * BLOCK * OUT_LANES, v); });
      }
    }
}

#endif
