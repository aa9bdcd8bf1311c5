// 3x3 convolutions with padding 1 and the gradient of their input, with the prologue and epilogue that they have in a
// Shake-Shake block: before, a ReLU, or BN and ReLU; after, the sums that the next BN needs, or the prologue's gradient.
//
// Sums over pixels are taken image by image and then in the order of the images: results do not depend on the number of
// threads. tests/kernels compares every function with plain operations.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "epilogue.h"
#include "winograd.h"

namespace {

constexpr int64_t ALL_TAPS = (1 << TAPS) - 1;
constexpr int64_t STRIP = 8;  // words of a block in an unrolled loop

// A strip of a tap: the offset of its input, from a pixel of the padded input, and that of its weights.
struct Strip {
  int64_t x, weights;
};

// Output pixels that use the same taps: every `step`th one in both directions, from (row, column) on.
struct Phase {
  int64_t row, column, step, rows, columns;
  std::vector<std::vector<Strip>> strips;  // per output

  int64_t across() const { return (columns + PIXELS - 1) / PIXELS; }
};

// One phase; for the gradient of a strided convolution's input one for each parity of rows and columns.
std::vector<Phase> phases(const Shape& s, bool backward) {
  const int64_t step = backward ? s.stride : 1;
  std::vector<Phase> found;
  for (int64_t row = 0; row < step; ++row)
    for (int64_t column = 0; column < step; ++column)
      found.push_back(
          {row, column, step, (s.out_height - row + step - 1) / step, (s.out_width - column + step - 1) / step, {}});
  return found;
}

// Adds the strips of `blocks` blocks of `words` words, from block `first` on. The padded input has blocks of `plane` words
// and rows of `pitch` pixels.
void add_strips(std::vector<Strip>& strips, const Phase& phase, int64_t taps, bool backward, int64_t first, int64_t blocks,
                int64_t words, int64_t plane, int64_t pitch) {
  const auto place = [&](int64_t from, int64_t tap) {  // of a tap in the padded input; -1 if the tap does not contribute
    const int64_t at = from + tap + 1;
    return at % phase.step ? -1 : at / phase.step - (phase.step == 1);
  };
  for (int64_t b = first; b < first + blocks; ++b)
    for (int64_t tap = 0; tap < TAPS; ++tap) {
      const int64_t down = place(phase.row, tap / 3), right = place(phase.column, tap % 3);
      if (!(taps >> (backward ? 8 - tap : tap) & 1) || down < 0 || right < 0) continue;
      for (int64_t word = 0; word < words; word += STRIP)
        strips.push_back({b * plane + (down * pitch + right) * BLOCK + word, ((b * TAPS + tap) * BLOCK + word) * OUT_LANES});
    }
}

// Rows of an image, from `first` on, with a border of zeros, block by block: (blocks, rows, pitch) pixels of one block.
template <class T>
void pad(const T* x, const Shape& s, int64_t first, int64_t rows, int64_t pitch, const Prologue& prologue, Word* to) {
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
        _mm512_store_si512(to, block(from, c, s.in, prologue));
      zeros(pitch - 1 - s.width);
    }
  }
}

// The sums of strips for PIXELS x OUT_LANES outputs. STRIDE: input pixels per output pixel. Not inlined, so that all
// registers are available to the sums.
template <class T, int STRIDE>
__attribute__((noinline)) void add_up(const Word* x, const Word* weights, const std::vector<Strip>& strips, float* sums) {
  __m512 sum[PIXELS][2];
#pragma GCC unroll 8
  for (int p = 0; p < PIXELS; ++p) sum[p][0] = sum[p][1] = _mm512_setzero_ps();
  for (const Strip& strip : strips) {
    const Word *at = x + strip.x, *w = weights + strip.weights;
    asm("" : "+r"(at), "+r"(w));  // two base addresses with constant offsets
#pragma GCC unroll 8
    for (int k = 0; k < STRIP; ++k) {
      const __m512i w0 = _mm512_load_si512(w + k * OUT_LANES), w1 = _mm512_load_si512(w + k * OUT_LANES + 16);
#pragma GCC unroll 8
      for (int p = 0; p < PIXELS; ++p) {
        const __m512i v = broadcast(&at[p * STRIDE * BLOCK + k]);
        sum[p][0] = multiply_add(T(), sum[p][0], w0, v);
        sum[p][1] = multiply_add(T(), sum[p][1], w1, v);
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < PIXELS; ++p)
    for (int v = 0; v < 2; ++v) _mm512_store_ps(sums + p * OUT_LANES + v * 16, sum[p][v]);
}

// y_j = conv(prologue(x), w_j), or with `back` y = sum over i of the transposed convolution of x_i. taps: those that each
// output, or each input, has. `epilogue` is given the sums, up to PIXELS pixels of OUT_LANES channels at a time, and writes
// them.
template <class T, int STRIDE>
void convolve_strided(const std::vector<const T*>& xs, const std::vector<int64_t>& taps, const Shape& s, bool backward,
                      const Prologue& prologue, const Word* weights, const Epilogue& epilogue, int threads) {
  const int64_t outputs = backward ? 1 : int64_t(taps.size());
  std::vector<Phase> all = phases(s, backward);
  int64_t rows = 0, columns = 0, tiles = 0;  // largest of a phase; total
  // With few images the threads share their rows, too, unless the epilogue accumulates over an image.
  const int64_t bands = epilogue.sums || backward ? 1 : std::min((threads + s.images - 1) / s.images, s.out_height);
  for (const Phase& phase : all) {
    rows = std::max(rows, (phase.rows + bands - 1) / bands), columns = std::max(columns, phase.across() * PIXELS);
    tiles += (phase.rows + bands - 1) / bands * phase.across();
  }
  rows = (rows - 1) * STRIDE + 3;
  const int64_t pitch = (columns - 1) * STRIDE + 3, plane = pitch * rows * BLOCK;
  const int64_t inputs = int64_t(xs.size()), each = blocks_of<T>(s.in), lane_groups = (s.out + OUT_LANES - 1) / OUT_LANES;
  const int64_t words = std::min<int64_t>(BLOCK, s.in * sizeof(T) / sizeof(Word));
  for (Phase& phase : all) {
    phase.strips.resize(outputs);
    for (int64_t i = 0; i < int64_t(taps.size()); ++i)
      add_strips(phase.strips[backward ? 0 : i], phase, taps[i], backward, backward ? i * each : 0, each, words, plane,
                 pitch);
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < s.images * bands; ++part) {
    const int64_t n = part / bands, band = part % bands;
    Word* padded = scratch<0>(inputs * each * plane);
    for (int64_t i = 0; i < inputs; ++i)
      pad(xs[i] + n * s.pixels() * s.in, s, band * all[0].rows / bands * STRIDE - 1, rows, pitch, prologue,
          padded + i * each * plane);
    Prefetcher prefetcher;
    if (bands == 1 && n + 1 < s.images) {
      for (const T* x : xs) prefetcher.add_pixels(x, (n + 1) * s.pixels(), s.pixels(), s.in, s.in);
      epilogue.fetch((n + 1) * s.out_pixels(), s.out_pixels(), prefetcher);
      prefetcher.spread(tiles * outputs * lane_groups);
    }
    alignas(64) float sums[PIXELS * OUT_LANES];
    const Word* w = weights;
    for (int64_t output = 0; output < outputs; ++output)
      for (int64_t o = 0; o < s.out; o += OUT_LANES, w += inputs * each * TAPS * BLOCK * OUT_LANES)
        for (const Phase& phase : all) {
          const int64_t top = band * phase.rows / bands, bottom = (band + 1) * phase.rows / bands;
          for (int64_t row = top; row < bottom; ++row)
            for (int64_t column = 0; column < phase.columns; column += PIXELS) {
              prefetcher.some();
              add_up<T, STRIDE>(padded + ((row - top) * pitch + column) * STRIDE * BLOCK, w, phase.strips[output], sums);
              const int64_t pixel = (row * phase.step + phase.row) * s.out_width + column * phase.step + phase.column;
              epilogue(n, pixel, phase.step, std::min<int64_t>(PIXELS, phase.columns - column), output, o, sums);
            }
        }
  }
}

template <class T>
void convolve(const T* x, const std::vector<int64_t>& taps, const Shape& s, const Prologue& prologue, const Word* weights,
              const Epilogue& epilogue, int threads) {
  if (s.use_winograd)
    winograd<T>({x}, int64_t(taps.size()), s, prologue, (const float*)weights, epilogue, threads);
  else if (s.stride == 1)
    convolve_strided<T, 1>({x}, taps, s, false, prologue, weights, epilogue, threads);
  else
    convolve_strided<T, 2>({x}, taps, s, false, prologue, weights, epilogue, threads);
}

template <class T>
void convolve_backward(const std::vector<const T*>& dys, const std::vector<int64_t>& taps, const Shape& s,
                       const Word* weights, const Epilogue& epilogue, int threads) {
  const Prologue nothing{NO_PROLOGUE, nullptr, nullptr};
  if (s.use_winograd)
    winograd<T>(dys, 1, s, nothing, (const float*)weights, epilogue, threads);
  else
    convolve_strided<T, 1>(dys, taps, s, true, nothing, weights, epilogue, threads);
}

// ---- weights

INLINE void store_words(float, const __m512* channel, Word* to) { _mm512_store_ps(to, channel[0]); }
INLINE void store_words(bf16, const __m512* channels, Word* to) {
  const __m512i low = _mm512_cvtepu16_epi32(to_bf16(channels[0])), high = _mm512_cvtepu16_epi32(to_bf16(channels[1]));
  _mm512_store_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

// Weights (out, 3, 3, in) in the order in which add_up() reads them: OUT_LANES written channels, then blocks, taps, words of
// a block. backward: for the gradient of the input, which reads `out` and writes `in` channels, rotated by 180 degrees.
// Writes the blocks from `first` on, of `blocks` in total.
template <class T>
void pack_weights(const float* w, int64_t out, int64_t in, bool backward, int64_t first, int64_t blocks, Word* to,
                  int threads) {
  const int64_t written = backward ? in : out, read = blocks_of<T>(backward ? out : in) * channels_of_block<T>();
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t o = 0; o < (written + OUT_LANES - 1) / OUT_LANES * OUT_LANES; o += 16)
    for (int64_t i = 0; i < read; i += 16) {
      const int64_t block = o / OUT_LANES * blocks + first + i / channels_of_block<T>();
      for (int64_t tap = 0; tap < TAPS; ++tap) {
        __m512 channels[16];
        load_tap(w, out, in, backward, o, i, tap, channels);
        Word* p =
            to + ((block * TAPS + tap) * BLOCK + i % channels_of_block<T>() * sizeof(T) / 4) * OUT_LANES + o % OUT_LANES;
        for (int64_t k = 0; k < 16; k += 4 / sizeof(T), p += OUT_LANES) store_words(T(), channels + k, p);
      }
    }
}

// Words of one group's transformed weights.
int64_t words_of_weights(const Shape& s) { return s.in * ((s.out + OUT_LANES - 1) / OUT_LANES) * OUT_LANES * POINTS; }

}  // namespace

extern "C" {

int shake_conv_is_supported(int half) { return !half || HALF; }

void shake_conv_pack_weights(int half, const float* w, int64_t out, int64_t in, int64_t use_winograd, int64_t backward,
                             int64_t first, int64_t blocks, void* to, int threads) {
  if (use_winograd)
    winograd_pack_weights(w, out, in, backward, first, blocks, (float*)to, threads);
  else
    EITHER(half, pack_weights<T>(w, out, in, backward, first, blocks, (Word*)to, threads))
}

// x: (n, h, w, in). ys: `outputs` arrays, each (n, ceil(h / stride), ceil(w / stride), out). Grouped convolutions need
// Winograd and have one output.
void shake_conv_sums(int half, const void* x, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out, int64_t stride,
                     int64_t use_winograd, int64_t groups, int64_t prologue_kind, const float* scale, const float* shift,
                     int64_t outputs, const int64_t* taps, const void* weights, void* const* ys, float* sums, int threads) {
  const int64_t down = (h + stride - 1) / stride, right = (w + stride - 1) / stride;
  const Shape s{n, h, w, in / groups, down, right, out / groups, stride, use_winograd, groups};
  for (int64_t g = 0; g < groups; ++g)
    EITHER(half, convolve<T>((const T*)x + g * s.in, {taps, taps + outputs}, s,
                             prologue_of_group({prologue_kind, scale, shift}, s, g),
                             (const Word*)weights + g * words_of_weights(s),
                             StoreAndSum<T>{pointers_of<T*>(ys, outputs, g * s.out), sums + g * s.out, s}, threads))
}

// x: (n, h, w, in). addend, y: (n, ceil(h / stride), ceil(w / stride), out); addend may be null.
void shake_conv_bias_act(int half, const void* x, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out, int64_t stride,
                         int64_t use_winograd, int64_t prologue_kind, int64_t taps, const void* weights, const float* bias,
                         const void* addend, int64_t relu_after, void* y, int threads) {
  const Shape s{n, h, w, in, (h + stride - 1) / stride, (w + stride - 1) / stride, out, stride, use_winograd};
  EITHER(half, convolve<T>((const T*)x, {taps}, s, {prologue_kind, nullptr, nullptr}, (const Word*)weights,
                           BiasAct<T>{bias, (const T*)addend, relu_after != 0, (T*)y, s}, threads))
}

// u, g: (n, h, w, in). dy: (n, h, w, out).
void shake_conv_bn_relu_backward(int half, const void* dy, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out,
                                 int64_t use_winograd, int64_t groups, const void* weights, const void* u,
                                 const float* scale, const float* shift, const float* mean, const float* invstd, void* g,
                                 float* sums, int threads) {
  const Shape s{n, h, w, out / groups, h, w, in / groups, 1, use_winograd, groups};
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * s.out;
    EITHER(half, convolve_backward<T>({(const T*)dy + group * s.in}, {ALL_TAPS}, s,
                                      (const Word*)weights + group * words_of_weights(s),
                                      MaskAndSum<T>{(const T*)u + first, scale + first, shift + first, mean + first,
                                                    invstd + first, (T*)g + first, sums + first, s},
                                      threads))
  }
}

// x, dskip, dx: (n, h, w, in); dskip may be null. dys: `outputs` arrays like ys above.
void shake_conv_relu_backward(int half, const void* x, int64_t n, int64_t h, int64_t w, int64_t in, int64_t out,
                              int64_t stride, int64_t use_winograd, int64_t outputs, const int64_t* taps,
                              const void* weights, const void* const* dys, const void* dskip, void* dx, int threads) {
  const Shape s{n, (h + stride - 1) / stride, (w + stride - 1) / stride, out, h, w, in, stride, use_winograd};
  EITHER(half, convolve_backward<T>(pointers_of<const T*>(dys, outputs), {taps, taps + outputs}, s, (const Word*)weights,
                                    MaskAndAdd<T>{(const T*)x, (const T*)dskip, (T*)dx, s}, threads))
}
}

#else  // without AVX-512, PyTorch's convolutions are used

extern "C" int shake_conv_is_supported(int) { return 0; }

#endif
