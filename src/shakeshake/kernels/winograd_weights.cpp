// The gradient of the weights of 3x3 convolutions with stride 1 and padding 1 by Winograd's algorithm; see winograd.h. At
// each point it is the transformed input times the transformed gradient of the output, summed over all tiles.
//
// Images are summed in parts whose number depends on the shape only, then the parts in order: results do not depend on the
// number of threads.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "winograd.h"

namespace {

constexpr int64_t PARTS = 4, SMALL = POINTS << 14;  // at least PARTS; more while their sums have at most SMALL numbers

// The size of a task: input channels, and multiples of OUT_LANES output channels. As many as the L2 cache holds, fewer if
// threads would be idle; results do not depend on it.
struct TaskSize {
  int64_t channels = 64, lane_groups = 4;

  TaskSize(int64_t in, int64_t all_wides, int64_t parts, int64_t threads) : in(in), all(all_wides) {
    while (lane_groups > 1 && parts * tasks() < threads) lane_groups /= 2;
    while (channels > BLOCK && parts * tasks() < threads) channels /= 2;
  }
  int64_t chunks() const { return (in + channels - 1) / channels; }
  int64_t groups() const { return (all + lane_groups - 1) / lane_groups; }
  int64_t tasks() const { return chunks() * groups(); }

 private:
  int64_t in, all;
};

// Transforms up to OUT_LANES channels of the gradients of tiles.
template <class T>
void transform_gradient_tiles(const T* dy, const Shape& s, int64_t channel, const Tiles& tiles, float* to) {
  for (int64_t r = 0; r < tiles.rows; ++r)
    for (int64_t c = 0; c < tiles.across(); ++c)
      for (int64_t v = 0; v < std::min(OUT_LANES, s.out - channel); v += 16) {
        const int64_t tile = r * tiles.across() + c;
        float* at = to + tile / SIDE * of_points(OUT_LANES) + tile % SIDE * OUT_LANES + v;
        const T* image = dy + tiles.image(r) * s.out_pixels() * s.out_all() + channel + v;
        const int64_t below = s.height - tiles.top(r), right = s.width - c * TILE, row = s.width * s.out_all();
        alignas(64) float half[PATCH * TILE * BLOCK];
        for (int64_t j = 0; j < TILE; ++j) {
          const T* pixel = image + (tiles.top(r) * s.width + c * TILE + j) * s.out_all();
          const auto get = [&](int64_t i) { return i < below && j < right ? load(pixel + i * row) : _mm512_setzero_ps(); };
          transform_output_transposed(
              get, [&](int64_t i, __m512 value) { _mm512_store_ps(half + (i * TILE + j) * BLOCK, value); });
        }
        for (int64_t i = 0; i < PATCH; ++i)
          transform_output_transposed(
              [&](int64_t j) { return _mm512_load_ps(half + (i * TILE + j) * BLOCK); },
              [&](int64_t j, __m512 value) { _mm512_store_ps(at + (i * PATCH + j) * of_point(OUT_LANES), value); });
      }
}

// Adds the tiles' contribution at one point to SIDE input channels and 16 or OUT_LANES output channels, in one or two
// registers.
template <int REGISTERS>
__attribute__((noinline)) void add(const float* x, int64_t side, const float* dy, int64_t tiles, float* sums) {
  __m512 sum[SIDE][REGISTERS];
#pragma GCC unroll 8
  for (int i = 0; i < SIDE; ++i)
    for (int v = 0; v < REGISTERS; ++v) sum[i][v] = _mm512_load_ps(sums + i * OUT_LANES + v * 16);
  const auto add_tile = [&](int64_t t) __attribute__((always_inline)) {
    __m512i d[REGISTERS];
    for (int v = 0; v < REGISTERS; ++v) d[v] = _mm512_load_si512(dy + t * OUT_LANES + v * 16);
#pragma GCC unroll 8
    for (int i = 0; i < SIDE; ++i) {
      const __m512i value = broadcast((const Word*)&x[t * BLOCK + i]);
      for (int v = 0; v < REGISTERS; ++v) sum[i][v] = multiply_add(float(), sum[i][v], d[v], value);
    }
  };
  for (; tiles >= SIDE; tiles -= SIDE, x += side, dy += of_points(OUT_LANES)) {
#pragma GCC unroll 8
    for (int t = 0; t < SIDE; ++t) add_tile(t);
  }
  for (int64_t t = 0; t < tiles; ++t) add_tile(t);
#pragma GCC unroll 8
  for (int i = 0; i < SIDE; ++i)
    for (int v = 0; v < REGISTERS; ++v) _mm512_store_ps(sums + i * OUT_LANES + v * 16, sum[i][v]);
}

// The layout of a part's sums: OUT_LANES output channels, then points, then input channels.
struct Layout {
  int64_t lane_groups, in;  // wides: of all outputs
  int64_t of_point() const { return in * OUT_LANES; }
  int64_t size() const { return lane_groups * POINTS * of_point(); }
  int64_t at(int64_t lane_group, int64_t point, int64_t channel) const {
    return (lane_group * POINTS + point) * of_point() + channel * OUT_LANES;
  }
};

// Four input channels and 16 output channels of all parts, summed, transformed and written to dw (out, 3, 3, in).
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
      transform_weights_transposed(get, [&](int64_t r, __m512 value) { half[r][c] = value; });
    }
    for (int64_t r = 0; r < 3; ++r)
      transform_weights_transposed([&](int64_t c) { return half[r][c]; },
                                   [&](int64_t c, __m512 value) { weights[r * 3 + c][k] = value; });
  }
  for (int64_t tap = 0; tap < TAPS; ++tap)
    store_fours(weights[tap], [&](int q, int i) { return dw + ((4 * q + i) * TAPS + tap) * layout.in; });
}

}  // namespace

template <class T>
void winograd_weight_grad(const T* x, const std::vector<const T*>& dys, const Shape& s, const Prologue& prologue,
                          const std::vector<float*>& dws, int threads) {
  const int64_t lane_groups = (s.out + OUT_LANES - 1) / OUT_LANES;  // per output
  const Layout layout{lane_groups * int64_t(dys.size()), s.in};
  const int64_t tasks = TaskSize(s.in, layout.lane_groups, 1, 1).tasks();
  const int64_t parts = std::min(s.images, std::max<int64_t>({1, PARTS / tasks, SMALL / layout.size()}));
  const TaskSize share(s.in, layout.lane_groups, parts, threads);
  const int64_t down = Tiles(s, 0, 0).down(), step = std::max<int64_t>(1, AT_ONCE / Tiles(s, 0, 0).across());
  float* sums = (float*)scratch<2>(parts * layout.size());
#pragma omp parallel for collapse(3) schedule(dynamic, 1) num_threads(threads)
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t group = 0; group < share.groups(); ++group)
      for (int64_t chunk = 0; chunk < share.chunks(); ++chunk) {
        float* own = sums + part * layout.size();
        const int64_t channel = chunk * share.channels, channels = std::min(share.channels, s.in - channel);
        const int64_t lane_group = group * share.lane_groups,
                      last = std::min(layout.lane_groups, lane_group + share.lane_groups);
        for (int64_t p = 0; p < (last - lane_group) * POINTS; ++p)
          std::fill_n(own + layout.at(lane_group, p, channel), channels * OUT_LANES, 0.0f);
        const int64_t end = (part + 1) * s.images / parts * down;
        for (int64_t first = part * s.images / parts * down; first < end; first += step) {
          const Tiles tiles(s, first, std::min(step, end - first));
          const int64_t side = channels / BLOCK * of_points(BLOCK);
          float* values = (float*)scratch<0>(tiles.sides() * side);
          float* gradient = (float*)scratch<1>(tiles.sides() * of_points(OUT_LANES));
          transform_input_tiles(x, s, prologue, channel, channels, tiles, values, side);
          const Tiles next(s, first + tiles.rows, std::min(step, end - first - tiles.rows));
          for (int64_t o = lane_group; o < last; ++o) {
            transform_gradient_tiles(dys[o / lane_groups], s, o % lane_groups * OUT_LANES, tiles, gradient);
            // Only what is read next: the sums pass through the caches, too.
            const int64_t following = o + 1 < last ? o + 1 : lane_group;
            const Tiles& of = o + 1 < last ? tiles : next;
            Prefetcher prefetcher;
            prefetcher.add_channels(
                dys[following / lane_groups] + of.first_pixel() * s.out_all() + following % lane_groups * OUT_LANES,
                OUT_LANES, of.pixels(), s.out_all());
            if (o + 1 == last)
              prefetcher.add_channels(x + next.first_pixel() * s.in_all() + channel, channels, next.pixels(), s.in_all());
            prefetcher.spread(POINTS * channels / SIDE);
            const auto addend = o % lane_groups * OUT_LANES + 16 < s.out ? add<2> : add<1>;
            for (int64_t p = 0; p < POINTS; ++p)
              for (int64_t i = 0; i < channels; i += SIDE) {
                prefetcher.some();
                addend(values + i / BLOCK * of_points(BLOCK) + p * of_point(BLOCK) + i % BLOCK, side,
                       gradient + p * of_point(OUT_LANES), tiles.count(), own + layout.at(o, p, channel + i));
              }
          }
        }
      }
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t o = 0; o < layout.lane_groups; ++o)
    for (int64_t i = 0; i < s.in; i += 4)
      for (int64_t v = 0; v < std::min(OUT_LANES, s.out - o % lane_groups * OUT_LANES); v += 16)
        write(sums + layout.at(o, 0, i) + v, layout, parts,
              dws[o / lane_groups] + (o % lane_groups * OUT_LANES + v) * TAPS * s.in + i);
}

template void winograd_weight_grad(const float*, const std::vector<const float*>&, const Shape&, const Prologue&,
                                   const std::vector<float*>&, int);
template void winograd_weight_grad(const bf16*, const std::vector<const bf16*>&, const Shape&, const Prologue&,
                                   const std::vector<float*>&, int);

#endif
