// An array of addresses passed from Python, as a vector of typed pointers, each advanced by `offset` elements.

#pragma once
#include <cstdint>
#include <vector>

template <class P, class Q>
std::vector<P> pointers_of(Q* const* pointers, int64_t count, int64_t offset = 0) {
  std::vector<P> found;
  for (int64_t i = 0; i < count; ++i) found.push_back((P)pointers[i] + offset);
  return found;
}
