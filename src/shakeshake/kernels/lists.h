// An array of addresses as it comes from outside, as a list of pointers of a type, each moved on by so many.

#pragma once
#include <cstdint>
#include <vector>

template <class P, class Q>
std::vector<P> all_of(Q* const* pointers, int64_t count, int64_t further = 0) {
  std::vector<P> found;
  for (int64_t i = 0; i < count; ++i) found.push_back((P)pointers[i] + further);
  return found;
}
