// Numbers in the files that layouts read: little-endian, at any address.
//   Thread    plain functions; the caller has made sure that the bytes are there
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

namespace blobcache {

template <class Number>
Number load_little(std::span<const uint8_t> bytes, size_t at) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
  Number number;
  std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

// Whether the bytes at `at` are these characters.
inline bool has_magic(std::span<const uint8_t> bytes, size_t at, const char* magic) {
  const size_t length = std::strlen(magic);
  return at <= bytes.size() && bytes.size() - at >= length && std::memcmp(bytes.data() + at, magic, length) == 0;
}

}  // namespace blobcache
