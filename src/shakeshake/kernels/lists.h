// An array of addresses as it comes from outside, as a list of pointers of a type.

#pragma once
#include <cstdint>
#include <vector>

template <class P, class Q>
std::vector<P> all_of(Q* const* pointers, int64_t count) {
  std::vector<P> found;
  for (int64_t i = 0; i < count; ++i) found.push_back((P)pointers[i]);
  return found;
}
