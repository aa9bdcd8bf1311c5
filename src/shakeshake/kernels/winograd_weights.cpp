// The gradient of the weights of convolutions of 3x3, stride 1 and padding 1, by tiles: see winograd.h. At each
// point it is the values of the input times what the gradient of the output gives there, summed over all tiles.
//
// The images are added up in parts whose number follows from the shape, then the parts in their order: results do not
// depend on the number of threads.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "winograd.h"

namespace {

constexpr int64_t CHUNK = 64;    // input channels and
constexpr int64_t GROUP = 4;     // times WIDE output channels of a task, which
constexpr int64_t TASKS = 8;     // there are to be, at least
constexpr int64_t AT_ONCE = 32;  // tiles

// WIDE channels of the gradients of tiles at all points: (padded tiles, 32), points `point` words apart.
template <class T>
void spread_tiles(const T* dy, const Shape& s, int64_t channel, const Tiles& tiles, float* to, int64_t point) {
  for (int64_t r = 0; r < tiles.rows; ++r)
    for (int64_t c = 0; c < tiles.across(); ++c, to += WIDE)
      for (int64_t v = 0; v < WIDE; v += 16) {
        const T* image = dy + tiles.image(r) * s.out_pixels() * s.out + channel + v;
        alignas(64) float half[PATCH * TILE * BLOCK];
        for (int64_t j = 0; j < TILE; ++j) {
          const int64_t top = tiles.top(r), column = c * TILE + j;
          const auto get = [&](int64_t i) {
            const bool there = column < s.width && top + i < s.height;
            return there ? load(image + ((top + i) * s.width + column) * s.out) : _mm512_setzero_ps();
          };
          spread(get, [&](int64_t i, __m512 value) { _mm512_store_ps(half + (i * TILE + j) * BLOCK, value); });
        }
        for (int64_t i = 0; i < PATCH; ++i)
          spread([&](int64_t j) { return _mm512_load_ps(half + (i * TILE + j) * BLOCK); },
                 [&](int64_t j, __m512 value) { _mm512_store_ps(to + (i * PATCH + j) * point + v, value); });
      }
}

// Adds what tiles contribute at one point to SIDE input channels and WIDE output channels.
__attribute__((noinline)) void add(const float* x, const float* dy, int64_t tiles, float* sums) {
  __m512 sum[SIDE][2];
#pragma GCC unroll 8
  for (int i = 0; i < SIDE; ++i)
    for (int v = 0; v < 2; ++v) sum[i][v] = _mm512_load_ps(sums + i * WIDE + v * 16);
#pragma GCC unroll 4
  for (int64_t t = 0; t < tiles; ++t, x += BLOCK, dy += WIDE) {
    const __m512i d0 = _mm512_load_si512(dy), d1 = _mm512_load_si512(dy + 16);
#pragma GCC unroll 8
    for (int i = 0; i < SIDE; ++i) {
      const __m512i v = everywhere((const Word*)&x[i]);
      sum[i][0] = multiply_add(float(), sum[i][0], d0, v);
      sum[i][1] = multiply_add(float(), sum[i][1], d1, v);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < SIDE; ++i)
    for (int v = 0; v < 2; ++v) _mm512_store_ps(sums + i * WIDE + v * 16, sum[i][v]);
}

// Where the sums of a part stand: WIDE output channels, then points, then input channels.
struct Layout {
  int64_t wides, in;  // wides: of all outputs
  int64_t of_point() const { return in * WIDE; }
  int64_t size() const { return wides * POINTS * of_point(); }
  int64_t at(int64_t wide, int64_t point, int64_t channel) const {
    return (wide * POINTS + point) * of_point() + channel * WIDE;
  }
};

// Four input channels and 16 output channels of all parts, added up and written to dw (out, 3, 3, in).
void write(const float* from, const Layout& layout, int64_t parts, float* dw) {
  __m512 weights[TAPS][4];
  for (int64_t k = 0; k < 4; ++k) {
    __m512 half[3][PATCH];
    for (int64_t c = 0; c < PATCH; ++c) {
      const auto get = [&](int64_t r) {
        const float* at = from + layout.at(0, r * PATCH + c, k);
        __m512 sum = _mm512_load_ps(at);
        for (int64_t part = 1; part < parts; ++part) sum = _mm512_add_ps(sum, _mm512_load_ps(at + part * layout.size()));
        return sum;
      };
      collect(get, [&](int64_t r, __m512 value) { half[r][c] = value; });
    }
    for (int64_t r = 0; r < 3; ++r)
      collect([&](int64_t c) { return half[r][c]; }, [&](int64_t c, __m512 value) { weights[r * 3 + c][k] = value; });
  }
  for (int64_t tap = 0; tap < TAPS; ++tap)
    store_fours(weights[tap], [&](int q, int i) { return dw + ((4 * q + i) * TAPS + tap) * layout.in; });
}

}  // namespace

template <class T>
void winograd_gradient(const T* x, const std::vector<const T*>& dys, const Shape& s, const Before& before,
                       const std::vector<float*>& dws, int threads) {
  const int64_t wides = s.out / WIDE;  // of one output
  const Layout layout{wides * int64_t(dys.size()), s.in};
  const int64_t chunks = (s.in + CHUNK - 1) / CHUNK, groups = (layout.wides + GROUP - 1) / GROUP;
  const int64_t parts = std::min(s.images, std::max<int64_t>(1, TASKS / (chunks * groups)));
  const int64_t down = Tiles(s, 0, 0).down(), step = std::max<int64_t>(1, AT_ONCE / Tiles(s, 0, 0).across());
  float* sums = (float*)scratch<2>(parts * layout.size());
#pragma omp parallel for collapse(3) schedule(dynamic, 1) num_threads(threads)
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        float* own = sums + part * layout.size();
        const int64_t channel = chunk * CHUNK, channels = std::min(CHUNK, s.in - channel);
        const int64_t wide = group * GROUP, last = std::min(layout.wides, wide + GROUP);
        for (int64_t p = 0; p < (last - wide) * POINTS; ++p)
          std::fill_n(own + layout.at(wide, p, channel), channels * WIDE, 0.0f);
        const int64_t end = (part + 1) * s.images / parts * down;
        for (int64_t first = part * s.images / parts * down; first < end; first += step) {
          const Tiles tiles(s, first, std::min(step, end - first));
          const int64_t point = tiles.of_point(channels), of_gradient = tiles.of_point(WIDE), block = tiles.padded() * BLOCK;
          float *values = (float*)scratch<0>(POINTS * point), *gradient = (float*)scratch<1>(POINTS * of_gradient);
          evaluate_tiles(x, s, before, channel, channels, tiles, values, point);
          Ahead ahead;
          if (first + step < end) {
            const int64_t pixels = tiles.next_pixels(end);
            ahead.add_pixels(x, tiles.next_pixel(), pixels, s.in);
            for (int64_t output = wide / wides; output * wides < last; ++output)
              ahead.add_pixels(dys[output], tiles.next_pixel(), pixels, s.out);
            ahead.spread((last - wide) * POINTS * channels / SIDE);
          }
          for (int64_t o = wide; o < last; ++o) {
            spread_tiles(dys[o / wides], s, o % wides * WIDE, tiles, gradient, of_gradient);
            for (int64_t p = 0; p < POINTS; ++p)
              for (int64_t i = 0; i < channels; i += SIDE) {
                ahead.some();
                add(values + p * point + i / BLOCK * block + i % BLOCK, gradient + p * of_gradient, tiles.count(),
                    own + layout.at(o, p, channel + i));
              }
          }
        }
      }
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t o = 0; o < layout.wides; ++o)
    for (int64_t i = 0; i < s.in; i += 4)
      for (int64_t v = 0; v < WIDE; v += 16)
        write(sums + layout.at(o, 0, i) + v, layout, parts, dws[o / wides] + (o % wides * WIDE + v) * TAPS * s.in + i);
}

template void winograd_gradient(const float*, const std::vector<const float*>&, const Shape&, const Before&,
                                const std::vector<float*>&, int);
template void winograd_gradient(const bf16*, const std::vector<const bf16*>&, const Shape&, const Before&,
                                const std::vector<float*>&, int);

#endif
