// Convolutions of 3x3 with padding 1, and the gradient of their input, with what stands around them in a Shake-Shake block:
// in front a ReLU, or BN and ReLU; behind, the sums that the next BN needs, or the gradient of what was in front.
//
// Sums over pixels are taken image by image and then in the order of the images: results do not depend on the number of
// threads. The slow twin of every function is in tests/kernels.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "conv_after.h"
#include "winograd.h"

namespace {

constexpr int64_t ALL_TAPS = (1 << TAPS) - 1;
constexpr int64_t STRIP = 8;  // words of a block, added without a loop

// A strip of a tap: where it is read, from a pixel of the padded input on, and where its weights are.
struct Strip {
  int64_t x, weights;
};

// Pixels that are written by the same taps: each `step`th one in both directions, from (row, column) on.
struct Phase {
  int64_t row, column, step, rows, columns;
  std::vector<std::vector<Strip>> strips;  // of each output

  int64_t across() const { return (columns + PIXELS - 1) / PIXELS; }
};

// All pixels at once; for the gradient of a strided convolution's input even and odd rows and columns apart.
std::vector<Phase> phases(const Shape& s, bool back) {
  const int64_t step = back ? s.stride : 1;
  std::vector<Phase> found;
  for (int64_t row = 0; row < step; ++row)
    for (int64_t column = 0; column < step; ++column)
      found.push_back(
          {row, column, step, (s.out_height - row + step - 1) / step, (s.out_width - column + step - 1) / step, {}});
  return found;
}

// Adds the strips of `blocks` blocks of `words` words, from block `first` on. The padded input has blocks of `plane` words
// and rows of `pitch` pixels.
void add_strips(std::vector<Strip>& strips, const Phase& phase, int64_t taps, bool back, int64_t first, int64_t blocks,
                int64_t words, int64_t plane, int64_t pitch) {
  const auto place = [&](int64_t from, int64_t tap) {  // of a tap in the padded input; -1 if it does not write here
    const int64_t at = from + tap + 1;
    return at % phase.step ? -1 : at / phase.step - (phase.step == 1);
  };
  for (int64_t b = first; b < first + blocks; ++b)
    for (int64_t tap = 0; tap < TAPS; ++tap) {
      const int64_t down = place(phase.row, tap / 3), right = place(phase.column, tap % 3);
      if (!(taps >> (back ? 8 - tap : tap) & 1) || down < 0 || right < 0) continue;
      for (int64_t word = 0; word < words; word += STRIP)
        strips.push_back({b * plane + (down * pitch + right) * BLOCK + word, ((b * TAPS + tap) * BLOCK + word) * WIDE});
    }
}

// Rows of an image, from `first` on, within a border of zeros, block by block: (blocks, rows, pitch) pixels of one block
// each.
template <class T>
void pad(const T* x, const Shape& s, int64_t first, int64_t rows, int64_t pitch, const Before& before, Word* to) {
  const auto zeros = [&](int64_t pixels) {
    for (; pixels > 0; --pixels, to += BLOCK) _mm512_store_si512(to, _mm512_setzero_si512());
  };
  for (int64_t c = 0; c < s.in; c += channels_of_block<T>()) {
    for (int64_t row = first; row < first + rows; ++row) {
      if (row < 0 || row >= s.height) {
        zeros(pitch);
        continue;
      }
      zeros(1);
      const T* from = x + row * s.width * s.in;
      for (int64_t column = 0; column < s.width; ++column, from += s.in, to += BLOCK)
        _mm512_store_si512(to, block(from, c, s.in, before));
      zeros(pitch - 1 - s.width);
    }
  }
}

// The sums of strips for PIXELS x WIDE outputs. STRIDE: pixels from one to the next. A function of its own, so that the sums
// stay in registers and nothing else does.
template <class T, int STRIDE>
__attribute__((noinline)) void add_up(const Word* x, const Word* weights, const std::vector<Strip>& strips, float* sums) {
  __m512 sum[PIXELS][2];
#pragma GCC unroll 8
  for (int p = 0; p < PIXELS; ++p) sum[p][0] = sum[p][1] = _mm512_setzero_ps();
  for (const Strip& strip : strips) {
    const Word *at = x + strip.x, *w = weights + strip.weights;
    asm("" : "+r"(at), "+r"(w));  // two addresses; what is added to them is known when compiled
#pragma GCC unroll 8
    for (int k = 0; k < STRIP; ++k) {
      const __m512i w0 = _mm512_load_si512(w + k * WIDE), w1 = _mm512_load_si512(w + k * WIDE + 16);
#pragma GCC unroll 8
      for (int p = 0; p < PIXELS; ++p) {
        const __m512i v = everywhere(&at[p * STRIDE * BLOCK + k]);
        sum[p][0] = multiply_add(T(), sum[p][0], w0, v);
        sum[p][1] = multiply_add(T(), sum[p][1], w1, v);
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < PIXELS; ++p)
    for (int v = 0; v < 2; ++v) _mm512_store_ps(sums + p * WIDE + v * 16, sum[p][v]);
}

// y_j = conv(before(x), w_j), or with `back` y = sum over i of the transposed convolution of x_i. taps: those that each
// output, or each input, has. `after` is given the sums, up to PIXELS pixels of WIDE channels at a time, and writes them.
template <class T, int STRIDE>
void convolve_strided(const std::vector<const T*>& xs, const std::vector<int64_t>& taps, const Shape& s, bool back,
                      const Before& before, const Word* weights, const After& after, int threads) {
  const int64_t outputs = back ? 1 : int64_t(taps.size());
  std::vector<Phase> all = phases(s, back);
  int64_t rows = 0, columns = 0, tiles = 0;  // the most of a phase; all
  // With few images their rows are shared out, too, unless something is summed up over an image.
  const int64_t bands = after.sums || back ? 1 : std::min((threads + s.images - 1) / s.images, s.out_height);
  for (const Phase& phase : all) {
    rows = std::max(rows, (phase.rows + bands - 1) / bands), columns = std::max(columns, phase.across() * PIXELS);
    tiles += (phase.rows + bands - 1) / bands * phase.across();
  }
  rows = (rows - 1) * STRIDE + 3;
  const int64_t pitch = (columns - 1) * STRIDE + 3, plane = pitch * rows * BLOCK;
  const int64_t inputs = int64_t(xs.size()), each = blocks_of<T>(s.in), wides = (s.out + WIDE - 1) / WIDE;
  const int64_t words = std::min<int64_t>(BLOCK, s.in * sizeof(T) / sizeof(Word));
  for (Phase& phase : all) {
    phase.strips.resize(outputs);
    for (int64_t i = 0; i < int64_t(taps.size()); ++i)
      add_strips(phase.strips[back ? 0 : i], phase, taps[i], back, back ? i * each : 0, each, words, plane, pitch);
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < s.images * bands; ++part) {
    const int64_t n = part / bands, band = part % bands;
    Word* padded = scratch<0>(inputs * each * plane);
    for (int64_t i = 0; i < inputs; ++i)
      pad(xs[i] + n * s.pixels() * s.in, s, band * all[0].rows / bands * STRIDE - 1, rows, pitch, before,
          padded + i * each * plane);
    Ahead ahead;
    if (bands == 1 && n + 1 < s.images) {
      for (const T* x : xs) ahead.add_pixels(x, (n + 1) * s.pixels(), s.pixels(), s.in, s.in);
      after.fetch((n + 1) * s.out_pixels(), s.out_pixels(), ahead);
      ahead.spread(tiles * outputs * wides);
    }
    alignas(64) float sums[PIXELS * WIDE];
    const Word* w = weights;
    for (int64_t output = 0; output < outputs; ++output)
      for (int64_t o = 0; o < s.out; o += WIDE, w += inputs * each * TAPS * BLOCK * WIDE)
        for (const Phase& phase : all) {
          const int64_t top = band * phase.rows / bands, bottom = (band + 1) * phase.rows / bands;
          for (int64_t row = top; row < bottom; ++row)
            for (int64_t column = 0; column < phase.columns; column += PIXELS) {
              ahead.some();
              add_up<T, STRIDE>(padded + ((row - top) * pitch + column) * STRIDE * BLOCK, w, phase.strips[output], sums);
              const int64_t pixel = (row * phase.step + phase.row) * s.out_width + column * phase.step + phase.column;
              after(n, pixel, phase.step, std::min<int64_t>(PIXELS, phase.columns - column), output, o, sums);
            }
        }
  }
}

template <class T>
void convolve(const T* x, const std::vector<int64_t>& taps, const Shape& s, const Before& before, const Word* weights,
              const After& after, int threads) {
  if (s.tiled)
    winograd<T>({x}, int64_t(taps.size()), s, before, (const float*)weights, after, threads);
  else if (s.stride == 1)
    convolve_strided<T, 1>({x}, taps, s, false, before, weights, after, threads);
  else
    convolve_strided<T, 2>({x}, taps, s, false, before, weights, after, threads);
}

template <class T>
void convolve_back(const std::vector<const T*>& dys, const std::vector<int64_t>& taps, const Shape& s, const Word* weights,
                   const After& after, int threads) {
  const Before nothing{NOTHING, nullptr, nullptr};
  if (s.tiled)
    winograd<T>(dys, 1, s, nothing, (const float*)weights, after, threads);
  else
    convolve_strided<T, 1>(dys, taps, s, true, nothing, weights, after, threads);
}

// ---- weights

INLINE void store_words(float, const __m512* channel, Word* to) { _mm512_store_ps(to, channel[0]); }
INLINE void store_words(bf16, const __m512* channels, Word* to) {
  const __m512i low = _mm512_cvtepu16_epi32(halves(channels[0])), high = _mm512_cvtepu16_epi32(halves(channels[1]));
  _mm512_store_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

// Weights (out, 3, 3, in) in the order in which add_up() reads them: WIDE written channels, then blocks, taps, words of a
// block. back: those of the gradient of the input, which is read from `out` and written to `in`, turned by 180 degrees.
// Written are the blocks from `first` on of `blocks` in all.
template <class T>
void arrange(const float* w, int64_t out, int64_t in, bool back, int64_t first, int64_t blocks, Word* to, int threads) {
  const int64_t written = back ? in : out, read = blocks_of<T>(back ? out : in) * channels_of_block<T>();
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t o = 0; o < (written + WIDE - 1) / WIDE * WIDE; o += 16)
    for (int64_t i = 0; i < read; i += 16) {
      const int64_t block = o / WIDE * blocks + first + i / channels_of_block<T>();
      for (int64_t tap = 0; tap < TAPS; ++tap) {
        __m512 channels[16];
        load_tap(w, out, in, back, o, i, tap, channels);
        Word* p = to + ((block * TAPS + tap) * BLOCK + i % channels_of_block<T>() * sizeof(T) / 4) * WIDE + o % WIDE;
        for (int64_t k = 0; k < 16; k += 4 / sizeof(T), p += WIDE) store_words(T(), channels + k, p);
      }
    }
}

// Words of one group's weights at all points.
int64_t words_of_weights(const Shape& s) { return s.in * ((s.out + WIDE - 1) / WIDE) * WIDE * POINTS; }

}  // namespace

extern "C" {

int shake_conv_there(int half) { return !half || HALF; }

void shake_conv_arrange(int half, const float* w, int64_t out, int64_t in, int64_t tiled, int64_t back, int64_t first,
                        int64_t blocks, void* to, int threads) {
  if (tiled)
    winograd_arrange(w, out, in, back, first, blocks, (float*)to, threads);
  else
    EITHER(half, arrange<T>(w, out, in, back, first, blocks, (Word*)to, threads))
}

// x: (n, h, w, in). ys: as many as there are `outputs`, each (n, ceil(h / stride), ceil(w / stride), out). Grouped ones are
// by tiles, with one output.
void shake_conv_summed(int half, const void* x, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out, int64_t stride,
                       int64_t tiled, int64_t groups, int64_t front, const float* scale, const float* shift, int64_t outputs,
                       const int64_t* taps, const void* weights, void* const* ys, float* sums, int threads) {
  const int64_t down = (h + stride - 1) / stride, right = (w + stride - 1) / stride;
  const Shape s{n, h, w, in / groups, down, right, out / groups, stride, tiled, groups};
  for (int64_t g = 0; g < groups; ++g)
    EITHER(half, convolve<T>((const T*)x + g * s.in, {taps, taps + outputs}, s, of_group({front, scale, shift}, s, g),
                             (const Word*)weights + g * words_of_weights(s),
                             Summed<T>{all_of<T*>(ys, outputs, g * s.out), sums + g * s.out, s}, threads))
}

// x: (n, h, w, in). added, y: (n, ceil(h / stride), ceil(w / stride), out); nothing may be added.
void shake_conv_biased(int half, const void* x, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out, int64_t stride,
                       int64_t tiled, int64_t front, int64_t taps, const void* weights, const float* bias, const void* added,
                       int64_t rectified, void* y, int threads) {
  const Shape s{n, h, w, in, (h + stride - 1) / stride, (w + stride - 1) / stride, out, stride, tiled};
  EITHER(half, convolve<T>((const T*)x, {taps}, s, {front, nullptr, nullptr}, (const Word*)weights,
                           Biased<T>{bias, (const T*)added, rectified != 0, (T*)y, s}, threads))
}

// u, g: (n, h, w, in). dy: (n, h, w, out).
void shake_conv_masked(int half, const void* dy, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out, int64_t tiled,
                       int64_t groups, const void* weights, const void* u, const float* scale, const float* shift,
                       const float* mean, const float* invstd, void* g, float* sums, int threads) {
  const Shape s{n, h, w, out / groups, h, w, in / groups, 1, tiled, groups};
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * s.out;
    EITHER(half,
           convolve_back<T>({(const T*)dy + group * s.in}, {ALL_TAPS}, s, (const Word*)weights + group * words_of_weights(s),
                            Masked<T>{(const T*)u + first, scale + first, shift + first, mean + first, invstd + first,
                                      (T*)g + first, sums + first, s},
                            threads))
  }
}

// x, dskip, dx: (n, h, w, in); dskip may be absent. dys: as many as there are `outputs`, as the ys above.
void shake_conv_forked(int half, const void* x, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out, int64_t stride,
                       int64_t tiled, int64_t outputs, const int64_t* taps, const void* weights, const void* const* dys,
                       const void* dskip, void* dx, int threads) {
  const Shape s{n, (h + stride - 1) / stride, (w + stride - 1) / stride, out, h, w, in, stride, tiled};
  EITHER(half, convolve_back<T>(all_of<const T*>(dys, outputs), {taps, taps + outputs}, s, (const Word*)weights,
                                Forked<T>{(const T*)x, (const T*)dskip, (T*)dx, s}, threads))
}
}

#else  // the convolutions are oneDNN's

extern "C" int shake_conv_there(int) { return 0; }

#endif
