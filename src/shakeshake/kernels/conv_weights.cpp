// The gradient of the weights of 3x3 convolutions with padding 1.
//
// Steps go along the rows of the output: one pixel for float, two for bfloat16, whose gradients make one word. For four
// channels the three taps of a row of the kernel then read 16 bytes each. The input is packed so that these are
// contiguous. With stride 1, neighbouring taps share them: for float the columns -1, 0, 1, 2 ..., for bfloat16 the
// pairs (-1, 0), (0, 1), (1, 2), (2, 3) ...; a step advances by one or by two. With stride 2 every step has its own three.
//
// Images are summed in parts whose number depends on the shape only, then the parts in order: results do not depend on the
// number of threads.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "conv.h"
#include "winograd.h"

namespace {

constexpr int64_t GROUP = 4;        // input channels that are packed together
constexpr int64_t ROW = 3 * GROUP;  // sums for one row of the kernel

template <class T>
constexpr int64_t pixels_of_step() {
  return sizeof(Word) / sizeof(T);
}

// Words from one step to the next, and of a packed row, which is a whole number of registers.
template <class T>
int64_t step_words(const Shape& s) {
  return s.stride == 1 ? GROUP * pixels_of_step<T>() : BLOCK;
}

template <class T>
int64_t steps_of_row(const Shape& s) {
  return (s.out_width + pixels_of_step<T>() - 1) / pixels_of_step<T>();
}

template <class T>
int64_t row_words(const Shape& s) {
  const int64_t words = (steps_of_row<T>(s) - 1) * step_words<T>(s) + ROW;
  return (words + BLOCK - 1) / BLOCK * BLOCK;
}

// Stores quarter i of each register to `to + i * apart`.
INLINE void store_quarters(Word* to, int64_t apart, __m512i a, __m512i b, __m512i c, __m512i d) {
  __m512 quarters[4];
  transpose_quarters(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(c), _mm512_castsi512_ps(d),
                     quarters);
  for (int i = 0; i < 4; ++i) _mm512_store_ps(to + i * apart, quarters[i]);
}

// One register of a row: four times 16 bytes per group. get(column): a block of the row.
template <class Get>
INLINE void arrange_register(float, Get get, int64_t index, bool strided, int64_t group, Word* to) {
  const int64_t column = (strided ? 2 : 4) * index - 1;
  const __m512i last = strided ? _mm512_setzero_si512() : get(column + 3);
  store_quarters(to, group, get(column), get(column + 1), get(column + 2), last);
}

template <class Get>
INLINE void arrange_register(bf16, Get get, int64_t index, bool strided, int64_t group, Word* to) {
  const int64_t column = 4 * index - 1;
  const __m512i a = get(column), b = get(column + 1), c = get(column + 2), d = get(column + 3), e = get(column + 4);
  if (strided) {
    const __m512i zero = _mm512_setzero_si512();
    store_quarters(to, 2 * group, _mm512_unpacklo_epi16(a, c), _mm512_unpacklo_epi16(b, d), _mm512_unpacklo_epi16(c, e),
                   zero);
    store_quarters(to + group, 2 * group, _mm512_unpackhi_epi16(a, c), _mm512_unpackhi_epi16(b, d),
                   _mm512_unpackhi_epi16(c, e), zero);
  } else {
    store_quarters(to, 2 * group, _mm512_unpacklo_epi16(a, b), _mm512_unpacklo_epi16(b, c), _mm512_unpacklo_epi16(c, d),
                   _mm512_unpacklo_epi16(d, e));
    store_quarters(to + group, 2 * group, _mm512_unpackhi_epi16(a, b), _mm512_unpackhi_epi16(b, c),
                   _mm512_unpackhi_epi16(c, d), _mm512_unpackhi_epi16(d, e));
  }
}

int64_t arranged_rows(const Shape& s) { return (s.out_height - 1) * s.stride + 3; }

// One block of an image's channels, from channel `c` on: groups, each of arranged_rows() rows.
template <class T>
void arrange_input(const T* x, const Shape& s, int64_t c, const Prologue& prologue, int64_t group, Word* to) {
  const int64_t registers = row_words<T>(s) / BLOCK;
  const __m512i zero = _mm512_setzero_si512();
  for (int64_t row = -1; row < arranged_rows(s) - 1; ++row) {
    const bool inside = row >= 0 && row < s.height;
    const auto get = [&](int64_t column) {
      const bool there = inside && column >= 0 && column < s.width;
      return there ? block(x + (row * s.width + column) * s.in, c, s.in, prologue) : zero;
    };
    for (int64_t i = 0; i < registers; ++i, to += BLOCK) arrange_register(T(), get, i, s.stride == 2, group, to);
  }
}

// OUT_LANES channels of an image's gradient, step by step. Two bfloat16 pixels are interleaved within quarters of a
// register; channel_of() gives the resulting order of the channels.
void arrange_gradient(const float* dy, const Shape& s, Word* to) {
  for (int64_t p = 0; p < s.out_pixels(); ++p, dy += s.out, to += OUT_LANES) {
    stored((float*)to, load(dy));
    stored((float*)to + 16, load(dy + 16));
  }
}

void arrange_gradient(const bf16* dy, const Shape& s, Word* to) {
  for (int64_t row = 0; row < s.out_height; ++row)
    for (int64_t column = 0; column < s.out_width; column += 2, to += OUT_LANES) {
      const bf16* p = dy + (row * s.out_width + column) * s.out;
      const __m512i a = _mm512_loadu_si512(p);
      const __m512i b = column + 1 < s.out_width ? _mm512_loadu_si512(p + s.out) : _mm512_setzero_si512();
      _mm512_store_si512(to, _mm512_unpacklo_epi16(a, b));
      _mm512_store_si512(to + 16, _mm512_unpackhi_epi16(a, b));
    }
}

// The first of the four channels in quarter `q` of register `v`.
INLINE int64_t channel_of(float, int v, int q) { return v * 16 + q * 4; }
INLINE int64_t channel_of(bf16, int v, int q) { return q * 8 + v * 4; }

// Adds the images' contribution to one row of the kernel, one group of input channels and OUT_LANES output channels.
template <class T>
INLINE void add(const Word* x, const Word* dy, int64_t images, int64_t x_image, const Shape& s, float* dw,
                Prefetcher& prefetcher) {
  const int64_t steps = steps_of_row<T>(s), further = step_words<T>(s), down = s.stride * row_words<T>(s);
  __m512 sum[ROW][2];
#pragma GCC unroll 12
  for (int i = 0; i < ROW; ++i)
    for (int v = 0; v < 2; ++v) sum[i][v] = _mm512_load_ps(dw + i * OUT_LANES + v * 16);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t row = 0; row < s.out_height; ++row) {
      const Word* at = x + n * x_image + row * down;
      prefetcher.some();
#pragma GCC unroll 4
      for (int64_t step = 0; step < steps; ++step, at += further, dy += OUT_LANES) {
        const __m512i d0 = _mm512_load_si512(dy), d1 = _mm512_load_si512(dy + 16);
#pragma GCC unroll 12
        for (int i = 0; i < ROW; ++i) {
          const __m512i v = broadcast(&at[i]);
          sum[i][0] = multiply_add(T(), sum[i][0], d0, v);
          sum[i][1] = multiply_add(T(), sum[i][1], d1, v);
        }
      }
    }
#pragma GCC unroll 12
  for (int i = 0; i < ROW; ++i)
    for (int v = 0; v < 2; ++v) _mm512_store_ps(dw + i * OUT_LANES + v * 16, sum[i][v]);
}

// The layout of a part's sums: blocks, then OUT_LANES output channels, groups of input channels, rows of the kernel.
struct Layout {
  int64_t blocks, lane_groups, groups;
  int64_t of_block() const { return lane_groups * groups * 3 * ROW * OUT_LANES; }
  int64_t size() const { return blocks * of_block(); }
  int64_t at(int64_t block, int64_t lane_group, int64_t group, int64_t row) const {
    return block * of_block() + ((lane_group * groups + group) * 3 + row) * ROW * OUT_LANES;
  }
};

// One tap of GROUP input channels and 16 output channels: all parts summed and written to dw (out, 3, 3, in).
template <class T>
void write(const float* from, int64_t parts, int64_t size, int v, int64_t in, float* dw) {
  __m512 c[GROUP];
  for (int i = 0; i < GROUP; ++i) c[i] = load(from + i * OUT_LANES + v * 16);
  for (int64_t part = 1; part < parts; ++part)
    for (int i = 0; i < GROUP; ++i) c[i] = _mm512_add_ps(c[i], load(from + part * size + i * OUT_LANES + v * 16));
  store_fours(c, [&](int q, int i) { return dw + (channel_of(T(), v, q) + i) * TAPS * in; });
}

// dw_j (out, 3, 3, in), float: the gradient of w_j in y_j = conv(prologue(x), w_j), from dy_j. taps: those to compute;
// others are not written.
template <class T>
void weight_grad(const T* x, const std::vector<const T*>& dys, const std::vector<int64_t>& taps, const Shape& s,
                 const Prologue& prologue, const std::vector<float*>& dws, int threads) {
  if (s.use_winograd) return winograd_weight_grad(x, dys, s, prologue, dws, threads);
  const int64_t lane_groups = s.out / OUT_LANES;  // per output
  const Layout layout{blocks_of<T>(s.in), lane_groups * int64_t(dys.size()), std::min(s.in, channels_of_block<T>()) / GROUP};
  const int64_t parts = std::min(s.images, std::max<int64_t>(2, std::min<int64_t>(16, 512 / s.in)));
  const int64_t together = std::max<int64_t>(1, 1024 / s.out_pixels());  // images that are packed at once
  const int64_t x_image = arranged_rows(s) * row_words<T>(s), x_group = x_image * together;
  const int64_t dy_image = s.out_height * steps_of_row<T>(s) * OUT_LANES, dy_wide = dy_image * together;
  float* sums = (float*)scratch<2>(parts * layout.size());
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(threads)
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t b = 0; b < layout.blocks; ++b) {
      float* own = sums + part * layout.size();
      std::fill_n(own + layout.at(b, 0, 0, 0), layout.of_block(), 0.0f);
      Word* inputs = scratch<0>(channels_of_block<T>() / GROUP * x_group);  // including the empty groups of a half block
      Word* gradients = scratch<1>(layout.lane_groups * dy_wide);
      const int64_t end = (part + 1) * s.images / parts;
      for (int64_t n = part * s.images / parts; n < end; n += together) {
        const int64_t images = std::min(together, end - n), next = std::min(together, end - n - images);
        for (int64_t i = 0; i < images; ++i) {
          arrange_input(x + (n + i) * s.pixels() * s.in, s, b * channels_of_block<T>(), prologue, x_group,
                        inputs + i * x_image);
          for (int64_t o = 0; o < layout.lane_groups; ++o)
            arrange_gradient(dys[o / lane_groups] + (n + i) * s.out_pixels() * s.out + o % lane_groups * OUT_LANES, s,
                             gradients + o * dy_wide + i * dy_image);
        }
        Prefetcher prefetcher;
        prefetcher.add(x + (n + images) * s.pixels() * s.in + b * channels_of_block<T>(), s.in * sizeof(T),
                       next * s.pixels());
        for (const T* dy : dys)
          prefetcher.add(dy + (n + images) * s.out_pixels() * s.out, 64,
                         next * s.out_pixels() * s.out * int64_t(sizeof(T)) / 64);
        prefetcher.spread(layout.lane_groups * layout.groups * 3 * images * s.out_height);
        for (int64_t o = 0; o < layout.lane_groups; ++o)
          for (int64_t g = 0; g < layout.groups; ++g)
            for (int row = 0; row < 3; ++row)
              if (taps[o / lane_groups] >> 3 * row & 7)
                add<T>(inputs + g * x_group + row * row_words<T>(s), gradients + o * dy_wide, images, x_image, s,
                       own + layout.at(b, o, g, row), prefetcher);
      }
    }
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t o = 0; o < layout.lane_groups; ++o)
    for (int64_t b = 0; b < layout.blocks; ++b)
      for (int64_t g = 0; g < layout.groups; ++g)
        for (int tap = 0; tap < TAPS; ++tap)
          for (int v = 0; v < 2 && (taps[o / lane_groups] >> tap & 1); ++v)
            write<T>(sums + layout.at(b, o, g, tap / 3) + tap % 3 * GROUP * OUT_LANES, parts, layout.size(), v, s.in,
                     dws[o / lane_groups] + (o % lane_groups * OUT_LANES * TAPS + tap) * s.in + b * channels_of_block<T>() +
                         g * GROUP);
}

}  // namespace

// x: (n, h, w, in). dys: `outputs` arrays, each (n, ceil(h / stride), ceil(w / stride), out).
extern "C" void shake_conv_weight_grad(int half, const void* x, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out,
                                       int64_t stride, int64_t use_winograd, int64_t groups, int64_t prologue_kind,
                                       const float* scale, const float* shift, int64_t outputs, const int64_t* taps,
                                       const void* const* dys, float* const* dws, int threads) {
  const int64_t down = (h + stride - 1) / stride, right = (w + stride - 1) / stride;
  const Shape s{n, h, w, in / groups, down, right, out / groups, stride, use_winograd, groups};
  for (int64_t g = 0; g < groups; ++g)
    EITHER(half, weight_grad<T>((const T*)x + g * s.in, pointers_of<const T*>(dys, outputs, g * s.out),
                                {taps, taps + outputs}, s, prologue_of_group({prologue_kind, scale, shift}, s, g),
                                pointers_of<float*>(dws, outputs, g * s.out * TAPS * s.in), threads))
}

#endif
