#include "origin/receive_buffers.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <tuple>

#include <curl/curl.h>

#include "base/assert.h"

namespace blobcache {

void* ReceiveBuffers::try_take() {
  const std::lock_guard held(lock_);
  if (memory_.data() == nullptr) return nullptr;
  unsigned number = 0;
  if (free_count_ > 0) {
    number = free_[--free_count_];
  } else if (count_ < count_max) {
    number = count_++;
  } else {
    return nullptr;
  }
  return memory_.data() + number * bytes;
}

bool ReceiveBuffers::owns(const void* memory) const {
  // Addresses of different objects: compared as numbers.
  const auto begin = reinterpret_cast<uintptr_t>(memory_.data());
  return reinterpret_cast<uintptr_t>(memory) - begin < count_max * bytes && begin != 0;
}

void ReceiveBuffers::give_back(void* buffer) {
  const auto offset = static_cast<size_t>(static_cast<std::byte*>(buffer) - memory_.data());
  BC_ASSERT(offset % bytes == 0);
  const std::lock_guard held(lock_);
  BC_ASSERT(free_count_ < count_);
  free_[free_count_++] = static_cast<uint16_t>(offset / bytes);
}

unsigned ReceiveBuffers::taken_at_most() const {
  const std::lock_guard held(lock_);
  return count_;
}

namespace {

// Never destroyed: libcurl may free a buffer when the process ends.
ReceiveBuffers& buffers() {
  static auto& all = *new ReceiveBuffers;
  return all;
}

void* take(size_t bytes) {
  const bool receives = bytes >= http_receive_buffer_bytes && bytes <= ReceiveBuffers::bytes;
  void* const buffer = receives ? buffers().try_take() : nullptr;
  return buffer != nullptr ? buffer : std::malloc(bytes);
}

void give_back(void* memory) {
  if (buffers().owns(memory)) return buffers().give_back(memory);
  std::free(memory);
}

void* change(void* memory, size_t bytes) {
  if (!buffers().owns(memory)) return std::realloc(memory, bytes);
  void* const other = std::malloc(bytes);
  if (other == nullptr) return nullptr;
  std::memcpy(other, memory, std::min(bytes, ReceiveBuffers::bytes));
  buffers().give_back(memory);
  return other;
}

}  // namespace

const ReceiveBuffers& receive_buffers() { return buffers(); }

void set_up_libcurl() {
  static std::once_flag once;
  std::call_once(once, [] {
    std::ignore = buffers().reserve();  // without them libcurl has malloc's
    BC_ASSERT(curl_global_init_mem(CURL_GLOBAL_DEFAULT, take, give_back, change, strdup, calloc) == CURLE_OK);
  });
}

}  // namespace blobcache
