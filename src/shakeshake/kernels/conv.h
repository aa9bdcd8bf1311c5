// Shared by the convolutions in conv.cpp and conv_weights.cpp, for CPUs with AVX-512.
//
// Tensors are channels_last, float or bfloat16. The unit is a word of 32 bits: a float, or two adjacent bfloat16 channels,
// which one instruction multiplies and accumulates in float. A block is 64 bytes of channels, a register: 16 floats
// or 32 bfloat16. Channels come in multiples of 16, those that conv.cpp and conv_weights.cpp write in multiples of 32.

#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pointer_array.h"

#define INLINE inline __attribute__((always_inline))

using Word = uint32_t;
using bf16 = uint16_t;

constexpr int64_t BLOCK = 16;      // words
constexpr int64_t OUT_LANES = 32;  // channels that are written together: two registers of floats
constexpr int PIXELS = 8;          // adjacent in a row, that are written together
constexpr int TAPS = 9;            // of a 3x3 kernel; a bit mask selects them

template <class T>
constexpr int64_t channels_of_block() {
  return 64 / sizeof(T);
}

template <class T>
constexpr int64_t blocks_of(int64_t channels) {
  return (channels + channels_of_block<T>() - 1) / channels_of_block<T>();
}

// The sizes of a 3x3 convolution with padding 1, or of its gradient: input read and output written. For a grouped
// convolution, which needs Winograd, those of one group, whose channels are interleaved with those of the others.
struct Shape {
  int64_t images, height, width, in, out_height, out_width, out;
  int64_t stride, use_winograd;  // see winograd.h
  int64_t groups = 1;

  int64_t in_all() const { return in * groups; }  // channels from one pixel to the next
  int64_t out_all() const { return out * groups; }
  int64_t pixels() const { return height * width; }
  int64_t out_pixels() const { return out_height * out_width; }
};

// ---- 16 numbers

INLINE __m512 load(const float* p) { return _mm512_loadu_ps(p); }
INLINE __m512 load(const bf16* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}

// A word in all lanes. In assembler because compilers otherwise keep words across iterations in registers that the sums
// need.
INLINE __m512i broadcast(const Word* p) {
  __m512i v;
  asm("vpbroadcastd %1, %0" : "=v"(v) : "m"(*p));
  return v;
}

INLINE __m512 multiply_add(float, __m512 sum, __m512i w, __m512i x) {
  return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), sum);
}

#ifdef __AVX512BF16__
constexpr bool HALF = true;
INLINE __m512 multiply_add(bf16, __m512 sum, __m512i w, __m512i x) {
  return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
}
INLINE __m256i to_bf16(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }
#else  // never called: see shake_conv_is_supported()
constexpr bool HALF = false;
INLINE __m512 multiply_add(bf16, __m512 sum, __m512i, __m512i) { return sum; }
INLINE __m256i to_bf16(__m512) { return _mm256_setzero_si256(); }
#endif

// Stores values and returns them as rounded by the store.
INLINE __m512 stored(float* p, __m512 v) {
  _mm512_storeu_ps(p, v);
  return v;
}
INLINE __m512 stored(bf16* p, __m512 v) {
  const __m256i h = to_bf16(v);
  _mm256_storeu_si256((__m256i*)p, h);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

// ---- one block of a pixel, and the prologue of a convolution

enum PrologueKind { NO_PROLOGUE, RELU, AFFINE_RELU };  // the last: relu(scale * x + shift) by channel
struct Prologue {
  int64_t kind;
  const float *scale, *shift;
};

inline Prologue prologue_of_group(const Prologue& prologue, const Shape& s, int64_t group) {
  return prologue.scale ? Prologue{prologue.kind, prologue.scale + group * s.in, prologue.shift + group * s.in} : prologue;
}

INLINE __m512 relu(__m512 v) {  // propagates NaN
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NLE_UQ), v);
}
INLINE __m512i relu(float, __m512i v) { return _mm512_castps_si512(relu(_mm512_castsi512_ps(v))); }
INLINE __m512i relu(bf16, __m512i v) {  // as integers, -0 to -infinity are 0x8000 to 0xff80
  const __m512i from_least = _mm512_sub_epi16(v, _mm512_set1_epi16((short)0x8000));
  return _mm512_maskz_mov_epi16(_mm512_cmpgt_epu16_mask(from_least, _mm512_set1_epi16(0x7f80)), v);
}

INLINE __m512i affine_relu(const float* x, const float* scale, const float* shift) {
  return _mm512_castps_si512(relu(_mm512_fmadd_ps(load(x), load(scale), load(shift))));
}
INLINE __m512i affine_relu(const bf16* x, const float* scale, const float* shift) {
  const __m256i low = to_bf16(relu(_mm512_fmadd_ps(load(x), load(scale), load(shift))));
  const __m256i high = to_bf16(relu(_mm512_fmadd_ps(load(x + 16), load(scale + 16), load(shift + 16))));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// The block of a pixel `x` of `channels` channels that starts at `channel`; a half block is filled with zeros.
template <class T>
INLINE __m512i block(const T* x, int64_t channel, int64_t channels, const Prologue& prologue) {
  if (prologue.kind == AFFINE_RELU) return affine_relu(x + channel, prologue.scale + channel, prologue.shift + channel);
  const bool whole = sizeof(T) == 4 || channel + OUT_LANES <= channels;
  const __m512i v = _mm512_maskz_loadu_epi32(whole ? 0xffff : 0x00ff, x + channel);
  return prologue.kind == RELU ? relu(T(), v) : v;
}

// ---- weights (out, 3, 3, in)

// 4 x 16 numbers, transposed: quarter q of to[i] holds column 4 q + i.
INLINE void transpose_fours(const __m512* from, __m512* to) {
  const __m512 low = _mm512_unpacklo_ps(from[0], from[1]), high = _mm512_unpackhi_ps(from[0], from[1]);
  const __m512 low2 = _mm512_unpacklo_ps(from[2], from[3]), high2 = _mm512_unpackhi_ps(from[2], from[3]);
  to[0] = _mm512_shuffle_ps(low, low2, 0x44), to[1] = _mm512_shuffle_ps(low, low2, 0xee);
  to[2] = _mm512_shuffle_ps(high, high2, 0x44), to[3] = _mm512_shuffle_ps(high, high2, 0xee);
}

// to[q] has quarter q of each.
INLINE void transpose_quarters(__m512 a, __m512 b, __m512 c, __m512 d, __m512* to) {
  const __m512 ab = _mm512_shuffle_f32x4(a, b, 0x44), cd = _mm512_shuffle_f32x4(c, d, 0x44);
  const __m512 ab2 = _mm512_shuffle_f32x4(a, b, 0xee), cd2 = _mm512_shuffle_f32x4(c, d, 0xee);
  to[0] = _mm512_shuffle_f32x4(ab, cd, 0x88), to[1] = _mm512_shuffle_f32x4(ab, cd, 0xdd);
  to[2] = _mm512_shuffle_f32x4(ab2, cd2, 0x88), to[3] = _mm512_shuffle_f32x4(ab2, cd2, 0xdd);
}

// One tap of 16 written channels, from `o` on, for each of 16 read channels, from `i` on; zero beyond the last channel.
// backward: for the gradient of the input, which reads `out` channels and writes `in` channels, rotated by 180 degrees.
INLINE void load_tap(const float* w, int64_t out, int64_t in, bool backward, int64_t o, int64_t i, int64_t tap, __m512* to) {
  if (i >= (backward ? out : in) || o >= (backward ? in : out)) {
    std::fill_n(to, 16, _mm512_setzero_ps());
  } else if (backward) {
    for (int k = 0; k < 16; ++k) to[k] = _mm512_loadu_ps(w + ((i + k) * TAPS + 8 - tap) * in + o);
  } else {
    __m512 rows[4], fours[4][4], column[4];
    for (int g = 0; g < 4; ++g) {
      for (int k = 0; k < 4; ++k) rows[k] = _mm512_loadu_ps(w + ((o + 4 * g + k) * TAPS + tap) * in + i);
      transpose_fours(rows, fours[g]);
    }
    for (int k = 0; k < 4; ++k) {
      transpose_quarters(fours[0][k], fours[1][k], fours[2][k], fours[3][k], column);
      for (int q = 0; q < 4; ++q) to[4 * q + k] = column[q];
    }
  }
}

// Stores 16 written channels of each of four read channels as groups of four that are adjacent in memory. place(q, i): the
// address for channel 4 q + i.
template <class Place>
INLINE void store_fours(const __m512* from, Place place) {
  __m512 fours[4];
  transpose_fours(from, fours);
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_ps(place(0, i), _mm512_extractf32x4_ps(fours[i], 0));
    _mm_storeu_ps(place(1, i), _mm512_extractf32x4_ps(fours[i], 1));
    _mm_storeu_ps(place(2, i), _mm512_extractf32x4_ps(fours[i], 2));
    _mm_storeu_ps(place(3, i), _mm512_extractf32x4_ps(fours[i], 3));
  }
}

// ---- memory

// Memory of the calling thread that is reused by the next call, aligned to 64 bytes. One buffer per NUMBER.
template <int NUMBER>
Word* scratch(int64_t words) {
  static thread_local std::vector<Word> memory;
  if (int64_t(memory.size()) < words + BLOCK) memory.resize(words + BLOCK);
  return (Word*)(((uintptr_t)memory.data() + 63) & ~uintptr_t(63));
}

// Prefetches what is needed next into the L2 cache, a few cache lines between computations, so that memory and arithmetic
// units work at the same time.
class Prefetcher {
 public:
  void add(const void* first, int64_t stride, int64_t lines, bool write = false) {
    if (lines <= 0 || count == MOST) return;
    ranges[count++] = {(const char*)first, stride, lines, write};
    all += lines;
  }
  template <class T>
  void add_pixels(const T* image, int64_t first, int64_t pixels, int64_t channels, int64_t all_channels,
                  bool write = false) {
    if (channels == all_channels)
      add(image + first * channels, 64, pixels * channels * int64_t(sizeof(T)) / 64, write);
    else
      add_channels(image + first * all_channels, channels, pixels, all_channels, write);
  }
  template <class T>
  void add_channels(const T* pixel, int64_t channels, int64_t pixels, int64_t all_channels, bool write = false) {
    for (int64_t c = 0; c < channels; c += channels_of_block<T>()) add(pixel + c, all_channels * sizeof(T), pixels, write);
  }
  void spread(int64_t calls) { at_once = (all + calls - 1) / calls; }

  INLINE void some() {
    for (int64_t i = 0; i < at_once && now < count; ++i) {
      Range& r = ranges[now];
      if (r.write)
        __builtin_prefetch(r.at, 1, 2);
      else
        __builtin_prefetch(r.at, 0, 2);
      r.at += r.stride;
      if (--r.lines == 0) ++now;
    }
  }

 private:
  static constexpr int MOST = 12;
  struct Range {
    const char* at;
    int64_t stride, lines;
    bool write;
  } ranges[MOST];
  int count = 0, now = 0;
  int64_t all = 0, at_once = 0;
};

// ---- what is done with the results

// Any of the structures of epilogue.h, with its type erased: it is called rarely enough for an indirect call.
class Epilogue {
 public:
  const bool sums;  // whether it accumulates over an image; it then needs the image's pixels in order

  template <class What>
  Epilogue(const What& what) : sums(What::SUMS), what(&what), write(write_of<What>), fetch_(fetch_of<What>) {}

  // n: image. pixel, step, valid: the first pixel, the distance to the next one, and their number, at most PIXELS. output,
  // o: the output and its first channel. sum: OUT_LANES values per pixel.
  void operator()(int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t output, int64_t o, const float* sum) const {
    write(what, n, pixel, step, valid, output, o, sum);
  }

  // Adds what will be read and written for some pixels, numbered through all images.
  void fetch(int64_t first, int64_t pixels, Prefetcher& prefetcher) const { fetch_(what, first, pixels, prefetcher); }

 private:
  template <class What>
  static void write_of(const void* what, int64_t n, int64_t pixel, int64_t step, int64_t valid, int64_t output, int64_t o,
                       const float* sum) {
    ((const What*)what)->write(n, pixel, step, valid, output, o, sum);
  }
  template <class What>
  static void fetch_of(const void* what, int64_t first, int64_t pixels, Prefetcher& prefetcher) {
    ((const What*)what)->fetch(first, pixels, prefetcher);
  }

  const void* what;
  void (*write)(const void*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const float*);
  void (*fetch_)(const void*, int64_t, int64_t, Prefetcher&);
};

// half: 1 for bfloat16, 0 for float.
#define EITHER(half, ...) \
  if (half) {             \
    if constexpr (HALF) { \
      using T = bf16;     \
      __VA_ARGS__;        \
    }                     \
  } else {                \
    using T = float;      \
    __VA_ARGS__;          \
  }
