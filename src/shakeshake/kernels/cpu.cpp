// Batch normalisation in training, fused with its neighbours: ReLU, or the mix of branches and the sum with the skip.
//
// Tensors are channels_last: `rows` pixels of `c` channels each, one pixel after the other; float or bfloat16; c is a
// multiple of 16. Sums over pixels are taken in float within a block of pixels and in double over the blocks, in order:
// results do not depend on the number of threads. tests/kernels compares every function with plain operations.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pointer_array.h"

namespace {

using bf16 = uint16_t;
constexpr int64_t BLOCK = 256;  // pixels

// The compiler's vector types, exactly as wide as a register: wider ones are split into scalars, at a fifth of the speed.
#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

inline Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline Floats load(const bf16* p) {
  Halves h;
  std::memcpy(&h, p, sizeof h);
  const Words bits = __builtin_convertvector(h, Words) << 16;
  Floats v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

inline void store(bf16* p, Floats v) {  // round to nearest even; a NaN computed from bf16 values stays a NaN
  Words bits;
  std::memcpy(&bits, &v, sizeof v);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Halves h = __builtin_convertvector(rounded, Halves);
  std::memcpy(p, &h, sizeof h);
}

inline Floats relu(Floats v) { return v <= 0.0f ? Floats{} : v; }  // propagates NaN

int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

// Adds up `width` doubles of every block, in order.
void add_up(const std::vector<double>& partial, int64_t blocks, int64_t width, double* total) {
  std::fill(total, total + width, 0.0);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < width; ++i) total[i] += partial[b * width + i];
}

// K sums over the rows of a block for every channel. `constants` loads what `term` needs for a group of channels.
template <int K, class Constants, class Term>
inline void sum_block(int64_t from, int64_t to, int64_t c, double* out, Constants constants, Term term) {
  for (int64_t i = 0; i < c; i += LANES) {
    const auto known = constants(i);
    Floats even[K] = {}, odd[K] = {};  // two accumulators, so that an addition does not wait for the previous one
    int64_t r = from;
    for (; r + 1 < to; r += 2) {
      term(known, r * c + i, even);
      term(known, (r + 1) * c + i, odd);
    }
    if (r < to) term(known, r * c + i, even);
    for (int k = 0; k < K; ++k)
      for (int l = 0; l < LANES; ++l) out[k * c + i + l] = double(even[k][l]) + double(odd[k][l]);
  }
}

// From the sums over all rows of a gradient g and of g * normalised input: the gradients of BN's weight and bias, and the
// term a * x + k that the gradient of the input has beside scale * g, as mean and variance depend on the input.
struct Corrections {
  std::vector<float> a, k;

  Corrections(int64_t c, double rows, const std::vector<double>& total, const float* scale, const float* mean,
              const float* invstd, float* dgamma, float* dbeta)
      : a(c), k(c) {
    for (int64_t i = 0; i < c; ++i) {
      a[i] = float(-scale[i] * invstd[i] * (total[c + i] / rows));
      k[i] = float(-scale[i] * (total[i] / rows)) - a[i] * mean[i];
    }
    std::copy_n(&total[0], c, dbeta);
    std::copy_n(&total[c], c, dgamma);
  }
};

// A batch normalisation, which turns mean and (biased) variance over `rows` pixels into its statistics.
struct Normalisation {
  const float *gamma, *beta;
  float eps, momentum;
  float *running_mean, *running_var, *mean, *invstd, *scale, *shift;

  void set(int64_t i, double average, double variance, double rows) const {
    mean[i] = float(average);
    invstd[i] = float(1.0 / std::sqrt(variance + eps));
    scale[i] = gamma[i] * invstd[i];
    shift[i] = beta[i] - mean[i] * scale[i];
    running_mean[i] += momentum * (mean[i] - running_mean[i]);
    running_var[i] += momentum * (float(variance * (rows / std::max(1.0, rows - 1))) - running_var[i]);
  }
};

template <class T>
void bn_statistics(const T* x, int64_t rows, int64_t c, const Normalisation& bn, int threads) {
  const int64_t blocks = blocks_of(rows);
  std::vector<double> partial(blocks * 2 * c), total(2 * c);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t b = 0; b < blocks; ++b)
    sum_block<2>(
        b * BLOCK, std::min(rows, (b + 1) * BLOCK), c, &partial[b * 2 * c],
        // Squares of differences from the first pixel: a large mean loses no digits.
        [=](int64_t i) { return load(x + i); },
        [=](Floats origin, int64_t at, Floats* s) {
          const Floats v = load(x + at) - origin;
          s[0] += v;
          s[1] += v * v;
        });
  add_up(partial, blocks, 2 * c, total.data());
  for (int64_t i = 0; i < c; ++i) {
    const double m = total[i] / rows, origin = load(x + i / LANES * LANES)[i % LANES];
    bn.set(i, m + origin, std::max(0.0, total[c + i] / rows - m * m), rows);
  }
}

// The same from each image's first pixel, and sum and sum of squares of the differences from it, which conv.cpp collects.
// sums: (images, 3, c).
void bn_statistics_from_sums(const float* sums, int64_t images, int64_t pixels, int64_t c, const Normalisation& bn) {
  std::vector<double> mean(c), squares(c);  // of the images so far: mean, and sum of squares around it
  for (int64_t n = 0; n < images; ++n) {
    const float *origin = sums + n * 3 * c, *sum = origin + c, *around = sum + c;
    const double share = 1.0 / (n + 1), others = double(pixels) * n * share, each = 1.0 / pixels;
    for (int64_t i = 0; i < c; ++i) {
      const double m = sum[i] * each, d = origin[i] + m - mean[i];
      mean[i] += d * share;
      squares[i] += around[i] - m * sum[i] + d * d * others;
    }
  }
  const double rows = double(images) * pixels;
  for (int64_t i = 0; i < c; ++i) bn.set(i, mean[i], std::max(0.0, squares[i] / rows), rows);
}

template <class T>
void affine_relu(const T* x, int64_t rows, int64_t c, const float* scale, const float* shift, T* y, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c; i += LANES)
      store(y + r * c + i, relu(load(x + r * c + i) * load(scale + i) + load(shift + i)));
}

template <class T>
void bn_relu_backward(const T* x, const T* dy, int64_t rows, int64_t c, const float* scale, const float* shift,
                      const float* mean, const float* invstd, T* dx, float* dgamma, float* dbeta, int threads) {
  struct Known {
    Floats scale, shift, mean, invstd;
  };
  const int64_t blocks = blocks_of(rows);
  std::vector<double> partial(blocks * 2 * c), total(2 * c);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t b = 0; b < blocks; ++b)
    sum_block<2>(
        b * BLOCK, std::min(rows, (b + 1) * BLOCK), c, &partial[b * 2 * c],
        [=](int64_t i) { return Known{load(scale + i), load(shift + i), load(mean + i), load(invstd + i)}; },
        [=](const Known& known, int64_t at, Floats* s) {
          const Floats v = load(x + at);
          const Floats g = v * known.scale + known.shift > 0.0f ? load(dy + at) : Floats{};
          s[0] += g;
          s[1] += g * ((v - known.mean) * known.invstd);
        });
  add_up(partial, blocks, 2 * c, total.data());
  const Corrections add(c, double(rows), total, scale, mean, invstd, dgamma, dbeta);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c; i += LANES) {
      const Floats v = load(x + r * c + i), sc = load(scale + i);
      const Floats g = v * sc + load(shift + i) > 0.0f ? load(dy + r * c + i) : Floats{};
      store(dx + r * c + i, sc * g + load(&add.a[i]) * v + load(&add.k[i]));
    }
}

// The gradient of BN's input from that of its output, g, and from each image's sums of g and g * (x - mean) * invstd, which
// conv.cpp collects. sums: (images, 2, c). dx may be g.
template <class T>
void bn_backward(const T* x, const T* g, int64_t images, int64_t pixels, int64_t c, const float* sums, const float* scale,
                 const float* mean, const float* invstd, T* dx, float* dgamma, float* dbeta, int threads) {
  const int64_t rows = images * pixels;
  const std::vector<double> partial(sums, sums + images * 2 * c);
  std::vector<double> total(2 * c);
  add_up(partial, images, 2 * c, total.data());
  const Corrections add(c, double(rows), total, scale, mean, invstd, dgamma, dbeta);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c; i += LANES)
      store(dx + r * c + i, load(scale + i) * load(g + r * c + i) + load(&add.a[i]) * load(x + r * c + i) + load(&add.k[i]));
}

// out = [relu](skip + sum over k of alpha_k * bn_k(x_k)), with alpha (images, inputs) and scale, shift (inputs, c). The ReLU
// is applied if `last_relu`; skip may be null.
template <class T>
void bn_mix(const std::vector<const T*>& xs, const T* skip, int64_t images, int64_t pixels, int64_t c, const float* scale,
            const float* shift, const float* alpha, bool last_relu, T* out, int threads) {
  const int64_t inputs = int64_t(xs.size());
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t n = 0; n < images; ++n)
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t pixel = (n * pixels + p) * c;
      for (int64_t i = 0; i < c; i += LANES) {
        Floats sum = skip ? load(skip + pixel + i) : Floats{};
        for (int64_t k = 0; k < inputs; ++k)
          sum += alpha[n * inputs + k] * (load(xs[k] + pixel + i) * load(scale + k * c + i) + load(shift + k * c + i));
        store(out + pixel + i, last_relu ? relu(sum) : sum);
      }
    }
}

// out: the output of the ReLU, or null without one. With it, `masked` receives the gradient of the ReLU's input, which is
// also that of the skip.
template <class T>
void bn_mix_backward(const std::vector<const T*>& xs, const T* dout, const T* out, T* masked, int64_t images, int64_t pixels,
                     int64_t c, const float* scale, const float* mean, const float* invstd, const float* beta,
                     const std::vector<T*>& dxs, float* dgamma, float* dbeta, int threads) {
  struct Known {
    Floats mean, invstd;
  };
  const int64_t inputs = int64_t(xs.size()), width = inputs * c;
  const int64_t each = blocks_of(pixels), blocks = images * each;
  const T* gradient = out ? masked : dout;
  std::vector<double> partial(blocks * 2 * width), total(2 * width);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t n = b / each, from = n * pixels + (b % each) * BLOCK, to = std::min((n + 1) * pixels, from + BLOCK);
    std::vector<double> sums(2 * c);
    if (out)
      for (int64_t i = from * c; i < to * c; i += LANES) store(masked + i, load(out + i) > 0.0f ? load(dout + i) : Floats{});
    for (int64_t k = 0; k < inputs; ++k) {
      const T* x = xs[k];
      sum_block<2>(
          from, to, c, sums.data(), [=](int64_t i) { return Known{load(mean + k * c + i), load(invstd + k * c + i)}; },
          [=](const Known& known, int64_t at, Floats* s) {
            const Floats g = load(gradient + at);
            s[0] += g;
            s[1] += g * ((load(x + at) - known.mean) * known.invstd);
          });
      double* own = &partial[b * 2 * width + k * c];
      const double weight = beta[n * inputs + k];  // one number per image: applied to the sum
      for (int64_t i = 0; i < c; ++i) own[i] = weight * sums[i], own[width + i] = weight * sums[c + i];
    }
  }
  add_up(partial, blocks, 2 * width, total.data());
  const Corrections add(width, double(images * pixels), total, scale, mean, invstd, dgamma, dbeta);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t n = 0; n < images; ++n)
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t pixel = (n * pixels + p) * c;
      for (int64_t j = 0; j < inputs; ++j) {
        const float weight = beta[n * inputs + j];
        for (int64_t i = 0; i < c; i += LANES)
          store(dxs[j] + pixel + i, weight * load(scale + j * c + i) * load(gradient + pixel + i) +
                                        load(&add.a[j * c + i]) * load(xs[j] + pixel + i) + load(&add.k[j * c + i]));
      }
    }
}

// dx = dskip + (active > 0) * sum of ds: the gradient of an input that is read directly and, after a ReLU, by branches.
// active is null without a ReLU, dskip if nothing reads the input directly.
template <class T>
void fan_out_backward(const T* active, const T* dskip, const std::vector<const T*>& ds, int64_t n, T* dx, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n; i += LANES) {
    Floats g = load(ds[0] + i);
    for (size_t k = 1; k < ds.size(); ++k) g += load(ds[k] + i);
    if (active) g = load(active + i) > 0.0f ? g : Floats{};
    store(dx + i, dskip ? load(dskip + i) + g : g);
  }
}

}  // namespace

// half: 1 for bfloat16, 0 for float.
#define EITHER(half, ...) \
  if (half) {             \
    using T = bf16;       \
    __VA_ARGS__;          \
  } else {                \
    using T = float;      \
    __VA_ARGS__;          \
  }

extern "C" {

void shake_bn_statistics(int half, const void* x, int64_t rows, int64_t c, const float* gamma, const float* beta, float eps,
                         float momentum, float* running_mean, float* running_var, float* mean, float* invstd, float* scale,
                         float* shift, int threads) {
  const Normalisation bn{gamma, beta, eps, momentum, running_mean, running_var, mean, invstd, scale, shift};
  EITHER(half, bn_statistics((const T*)x, rows, c, bn, threads))
}

void shake_bn_statistics_from_sums(int, const float* sums, int64_t images, int64_t pixels, int64_t c, const float* gamma,
                                   const float* beta, float eps, float momentum, float* running_mean, float* running_var,
                                   float* mean, float* invstd, float* scale, float* shift, int) {
  bn_statistics_from_sums(sums, images, pixels, c,
                          {gamma, beta, eps, momentum, running_mean, running_var, mean, invstd, scale, shift});
}

void shake_bn_relu(int half, const void* x, int64_t rows, int64_t c, const float* scale, const float* shift, void* y,
                   int threads) {
  EITHER(half, affine_relu((const T*)x, rows, c, scale, shift, (T*)y, threads))
}

void shake_bn_relu_backward(int half, const void* x, const void* dy, int64_t rows, int64_t c, const float* scale,
                            const float* shift, const float* mean, const float* invstd, void* dx, float* dgamma,
                            float* dbeta, int threads) {
  EITHER(half,
         bn_relu_backward((const T*)x, (const T*)dy, rows, c, scale, shift, mean, invstd, (T*)dx, dgamma, dbeta, threads))
}

void shake_bn_backward(int half, const void* x, const void* g, int64_t images, int64_t pixels, int64_t c, const float* sums,
                       const float* scale, const float* mean, const float* invstd, void* dx, float* dgamma, float* dbeta,
                       int threads) {
  EITHER(half,
         bn_backward((const T*)x, (const T*)g, images, pixels, c, sums, scale, mean, invstd, (T*)dx, dgamma, dbeta, threads))
}

void shake_bn_mix(int half, int64_t inputs, const void* const* xs, const void* skip, int64_t images, int64_t pixels,
                  int64_t c, const float* scale, const float* shift, const float* alpha, int64_t last_relu, void* out,
                  int threads) {
  EITHER(half, bn_mix(pointers_of<const T*>(xs, inputs), (const T*)skip, images, pixels, c, scale, shift, alpha,
                      last_relu != 0, (T*)out, threads))
}

void shake_bn_mix_backward(int half, int64_t inputs, const void* const* xs, const void* dout, const void* out, void* masked,
                           int64_t images, int64_t pixels, int64_t c, const float* scale, const float* mean,
                           const float* invstd, const float* beta, void* const* dxs, float* dgamma, float* dbeta,
                           int threads) {
  EITHER(half, bn_mix_backward(pointers_of<const T*>(xs, inputs), (const T*)dout, (const T*)out, (T*)masked, images, pixels,
                               c, scale, mean, invstd, beta, pointers_of<T*>(dxs, inputs), dgamma, dbeta, threads))
}

void shake_fan_out_backward(int half, const void* active, const void* dskip, int64_t branches, const void* const* ds,
                            int64_t n, void* dx, int threads) {
  EITHER(half, fan_out_backward((const T*)active, (const T*)dskip, pointers_of<const T*>(ds, branches), n, (T*)dx, threads))
}
}
