// Batch normalisation in training, fused with what stands beside it: ReLU, or the mix of branches and the sum with the skip.
//
// Tensors are channels_last: `rows` pixels of `c` channels each, one pixel after the other; float or bfloat16; c is a
// multiple of 16. What is reduced over pixels is summed in float over a block of pixels and in double over the blocks,
// in their order: results do not depend on the number of threads. The slow twin of every function is in tests/kernels.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;
constexpr int64_t BLOCK = 256;  // pixels

// The compiler's own vectors, as wide as a register: it takes apart wider ones number by number, at a fifth of the speed.
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

inline void store(bf16* p, Floats v) {  // to the nearest, ties to even; a NaN made from bf16 numbers stays one
  Words bits;
  std::memcpy(&bits, &v, sizeof v);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Halves h = __builtin_convertvector(rounded, Halves);
  std::memcpy(p, &h, sizeof h);
}

inline Floats relu(Floats v) { return v <= 0.0f ? Floats{} : v; }  // not a number stays one

int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

// Adds up `width` doubles of every block, in order.
void add_up(const std::vector<double>& partial, int64_t blocks, int64_t width, double* total) {
  std::fill(total, total + width, 0.0);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < width; ++i) total[i] += partial[b * width + i];
}

// K sums over the rows of a block for every channel: `term` makes a group's terms from constants that `constants` reads.
template <int K, class Constants, class Term>
inline void sum_block(int64_t from, int64_t to, int64_t c, double* out, Constants constants, Term term) {
  for (int64_t i = 0; i < c; i += LANES) {
    const auto known = constants(i);
    Floats even[K] = {}, odd[K] = {};  // two of each, so that one addition need not wait for the one before
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

// What every element of a gradient needs beside scale * gradient, so that BN's mean and variance count: a * x + k.
void corrections(int64_t c, double rows, const double* sum, const double* sum_normed, const float* scale,
                 const float* mean, const float* invstd, float* a, float* k) {
  for (int64_t i = 0; i < c; ++i) {
    a[i] = float(-scale[i] * invstd[i] * (sum_normed[i] / rows));
    k[i] = float(-scale[i] * (sum[i] / rows)) - a[i] * mean[i];
  }
}

// A batch normalisation, and what it makes of the mean and the variance (not the unbiased one) over `rows` pixels.
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
void stats(const T* x, int64_t rows, int64_t c, const Normalisation& bn, int threads) {
  const int64_t blocks = blocks_of(rows);
  std::vector<double> partial(blocks * 2 * c), total(2 * c);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t b = 0; b < blocks; ++b)
    sum_block<2>(
        b * BLOCK, std::min(rows, (b + 1) * BLOCK), c, &partial[b * 2 * c],
        // Squares are taken around the first pixel: a large mean costs no digits.
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

// The same from what conv.cpp found for each image: first pixel, sum and sum of squares around it. sums: (images, 3, c).
void stats_of_images(const float* sums, int64_t images, int64_t pixels, int64_t c, const Normalisation& bn) {
  for (int64_t i = 0; i < c; ++i) {
    double mean = 0.0, squares = 0.0;  // of the images so far: their mean, the sum of squares around it
    for (int64_t n = 0; n < images; ++n) {
      const float* own = sums + n * 3 * c + i;
      const double m = double(own[c]) / pixels, d = own[0] + m - mean;
      mean += d / (n + 1);
      squares += own[2 * c] - m * own[c] + d * d * pixels * n / (n + 1);
    }
    bn.set(i, mean, std::max(0.0, squares / (double(images) * pixels)), double(images) * pixels);
  }
}

template <class T>
void affine_relu(const T* x, int64_t rows, int64_t c, const float* scale, const float* shift, T* y, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c; i += LANES)
      store(y + r * c + i, relu(load(x + r * c + i) * load(scale + i) + load(shift + i)));
}

template <class T>
void affine_relu_backward(const T* x, const T* dy, int64_t rows, int64_t c, const float* scale, const float* shift,
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
  std::vector<float> a(c), k(c);
  corrections(c, double(rows), &total[0], &total[c], scale, mean, invstd, a.data(), k.data());
  std::copy_n(&total[0], c, dbeta);
  std::copy_n(&total[c], c, dgamma);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c; i += LANES) {
      const Floats v = load(x + r * c + i), sc = load(scale + i);
      const Floats g = v * sc + load(shift + i) > 0.0f ? load(dy + r * c + i) : Floats{};
      store(dx + r * c + i, sc * g + load(&a[i]) * v + load(&k[i]));
    }
}

// The gradient of BN's input from that of its output, g, and from what conv.cpp summed up of each image: g and
// g * (x - mean) * invstd. sums: (images, 2, c). dx may be g.
template <class T>
void affine_backward(const T* x, const T* g, int64_t images, int64_t pixels, int64_t c, const float* sums,
                     const float* scale, const float* mean, const float* invstd, T* dx, float* dgamma, float* dbeta,
                     int threads) {
  const int64_t rows = images * pixels;
  const std::vector<double> partial(sums, sums + images * 2 * c);
  std::vector<double> total(2 * c);
  add_up(partial, images, 2 * c, total.data());
  std::vector<float> a(c), k(c);
  corrections(c, double(rows), &total[0], &total[c], scale, mean, invstd, a.data(), k.data());
  std::copy_n(&total[0], c, dbeta);
  std::copy_n(&total[c], c, dgamma);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < c; i += LANES)
      store(dx + r * c + i, load(scale + i) * load(g + r * c + i) + load(&a[i]) * load(x + r * c + i) + load(&k[i]));
}

// out = skip + alpha_1 * bn_1(x_1) + alpha_2 * bn_2(x_2), with alpha (images, 2) and scale, shift (2, c).
template <class T>
void mix(const T* x1, const T* x2, const T* skip, int64_t images, int64_t pixels, int64_t c, const float* scale,
         const float* shift, const float* alpha, T* out, int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t n = 0; n < images; ++n)
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t pixel = (n * pixels + p) * c;
      for (int64_t i = 0; i < c; i += LANES) {
        const Floats y1 = load(x1 + pixel + i) * load(scale + i) + load(shift + i);
        const Floats y2 = load(x2 + pixel + i) * load(scale + c + i) + load(shift + c + i);
        store(out + pixel + i, load(skip + pixel + i) + alpha[2 * n] * y1 + alpha[2 * n + 1] * y2);
      }
    }
}

template <class T>
void mix_backward(const T* x1, const T* x2, const T* dout, int64_t images, int64_t pixels, int64_t c, const float* scale,
                  const float* mean, const float* invstd, const float* beta, T* dx1, T* dx2, float* dgamma, float* dbeta,
                  int threads) {
  struct Known {
    Floats mean1, invstd1, mean2, invstd2;
  };
  const int64_t each = blocks_of(pixels), blocks = images * each;
  std::vector<double> partial(blocks * 4 * c), total(4 * c);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t n = b / each, from = n * pixels + (b % each) * BLOCK;
    double* sums = &partial[b * 4 * c];
    sum_block<3>(
        from, std::min((n + 1) * pixels, from + BLOCK), c, sums,
        [=](int64_t i) { return Known{load(mean + i), load(invstd + i), load(mean + c + i), load(invstd + c + i)}; },
        [=](const Known& known, int64_t at, Floats* s) {
          const Floats g = load(dout + at);
          s[0] += g;
          s[1] += g * ((load(x1 + at) - known.mean1) * known.invstd1);
          s[2] += g * ((load(x2 + at) - known.mean2) * known.invstd2);
        });
    const double b1 = beta[2 * n], b2 = beta[2 * n + 1];  // an image's beta is one number: it waits until the sum
    for (int64_t i = 0; i < c; ++i) {
      const double all = sums[i], normed1 = sums[c + i], normed2 = sums[2 * c + i];
      sums[i] = b1 * all;
      sums[c + i] = b2 * all;
      sums[2 * c + i] = b1 * normed1;
      sums[3 * c + i] = b2 * normed2;
    }
  }
  add_up(partial, blocks, 4 * c, total.data());
  std::vector<float> a(2 * c), k(2 * c);
  corrections(2 * c, double(images * pixels), &total[0], &total[2 * c], scale, mean, invstd, a.data(), k.data());
  std::copy_n(&total[0], 2 * c, dbeta);
  std::copy_n(&total[2 * c], 2 * c, dgamma);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t n = 0; n < images; ++n)
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t pixel = (n * pixels + p) * c;
      const float b1 = beta[2 * n], b2 = beta[2 * n + 1];
      for (int64_t i = 0; i < c; i += LANES) {
        const Floats g = load(dout + pixel + i);
        const Floats scale1 = b1 * load(scale + i), scale2 = b2 * load(scale + c + i);
        store(dx1 + pixel + i, scale1 * g + load(&a[i]) * load(x1 + pixel + i) + load(&k[i]));
        store(dx2 + pixel + i, scale2 * g + load(&a[c + i]) * load(x2 + pixel + i) + load(&k[c + i]));
      }
    }
}

// dx = dskip + (active > 0) * (d1 + d2): the gradient of an input that goes on as it is and through a ReLU to two branches.
template <class T>
void fork_backward(const T* active, const T* dskip, const T* d1, const T* d2, int64_t n, T* dx, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n; i += LANES) {
    const Floats g = load(d1 + i) + load(d2 + i);
    store(dx + i, load(dskip + i) + (load(active + i) > 0.0f ? g : Floats{}));
  }
}

}  // namespace

// half: 1 for bfloat16, 0 for float.
#define EITHER(half, call)          \
  if (half) {                       \
    using T = bf16;                 \
    call;                           \
  } else {                          \
    using T = float;                \
    call;                           \
  }

extern "C" {

void shake_stats(int half, const void* x, int64_t rows, int64_t c, const float* gamma, const float* beta, float eps,
                 float momentum, float* running_mean, float* running_var, float* mean, float* invstd, float* scale,
                 float* shift, int threads) {
  const Normalisation bn{gamma, beta, eps, momentum, running_mean, running_var, mean, invstd, scale, shift};
  EITHER(half, stats((const T*)x, rows, c, bn, threads))
}

void shake_stats_of_images(int, const float* sums, int64_t images, int64_t pixels, int64_t c, const float* gamma,
                           const float* beta, float eps, float momentum, float* running_mean, float* running_var,
                           float* mean, float* invstd, float* scale, float* shift, int) {
  stats_of_images(sums, images, pixels, c,
                  {gamma, beta, eps, momentum, running_mean, running_var, mean, invstd, scale, shift});
}

void shake_affine_relu(int half, const void* x, int64_t rows, int64_t c, const float* scale, const float* shift, void* y,
                       int threads) {
  EITHER(half, affine_relu((const T*)x, rows, c, scale, shift, (T*)y, threads))
}

void shake_affine_relu_backward(int half, const void* x, const void* dy, int64_t rows, int64_t c, const float* scale,
                                const float* shift, const float* mean, const float* invstd, void* dx, float* dgamma,
                                float* dbeta, int threads) {
  EITHER(half, affine_relu_backward((const T*)x, (const T*)dy, rows, c, scale, shift, mean, invstd, (T*)dx, dgamma, dbeta,
                                    threads))
}

void shake_affine_backward(int half, const void* x, const void* g, int64_t images, int64_t pixels, int64_t c,
                           const float* sums, const float* scale, const float* mean, const float* invstd, void* dx,
                           float* dgamma, float* dbeta, int threads) {
  EITHER(half, affine_backward((const T*)x, (const T*)g, images, pixels, c, sums, scale, mean, invstd, (T*)dx, dgamma,
                               dbeta, threads))
}

void shake_mix(int half, const void* x1, const void* x2, const void* skip, int64_t images, int64_t pixels, int64_t c,
               const float* scale, const float* shift, const float* alpha, void* out, int threads) {
  EITHER(half, mix((const T*)x1, (const T*)x2, (const T*)skip, images, pixels, c, scale, shift, alpha, (T*)out, threads))
}

void shake_mix_backward(int half, const void* x1, const void* x2, const void* dout, int64_t images, int64_t pixels,
                        int64_t c, const float* scale, const float* mean, const float* invstd, const float* beta, void* dx1,
                        void* dx2, float* dgamma, float* dbeta, int threads) {
  EITHER(half, mix_backward((const T*)x1, (const T*)x2, (const T*)dout, images, pixels, c, scale, mean, invstd, beta,
                            (T*)dx1, (T*)dx2, dgamma, dbeta, threads))
}

void shake_fork_backward(int half, const void* active, const void* dskip, const void* d1, const void* d2, int64_t n,
                         void* dx, int threads) {
  EITHER(half, fork_backward((const T*)active, (const T*)dskip, (const T*)d1, (const T*)d2, n, (T*)dx, threads))
}
}
