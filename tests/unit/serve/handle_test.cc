// Handles: found by number from any thread, gone after the last reference, never mistaken for a later one.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "serve/handle.h"

namespace blobcache::serve {
namespace {

TEST_CASE("handles: found once published, gone once put back, and the old number stays dead") {
  Handles handles;
  Handle* handle = handles.take();
  REQUIRE(handle != nullptr);
  CHECK(handles.get(handle->id()) == nullptr);
  handles.publish(*handle);
  const uint64_t id = handle->id();
  CHECK(handles.get(id) == handle);
  CHECK(handles.open_count() == 1);
  handles.reference(*handle);
  CHECK(!handles.release(*handle));
  CHECK(handles.release(*handle));
  handles.put_back(*handle);
  CHECK(handles.get(id) == nullptr);
  CHECK(handles.open_count() == 0);
  Handle* again = handles.take();
  CHECK(again == handle);
  handles.publish(*again);
  CHECK(again->id() != id);
  CHECK(handles.get(id) == nullptr);
  CHECK(handles.get(0) == nullptr);
  CHECK(handles.get(~uint64_t{0}) == nullptr);
}

TEST_CASE(
    "handles: the newest of its files is used, each is given back once, and no more are kept than there is room for") {
  Handles handles;
  Handle* handle = handles.take();
  REQUIRE(handle != nullptr);
  DiskFile files[KeptFiles::files_max + 1];
  CHECK(handle->disk_files.current() == nullptr);
  for (unsigned i = 0; i < KeptFiles::files_max; ++i) {
    CHECK(handle->disk_files.keep(files[i]));
    CHECK(!handle->disk_files.keep(files[i]));
    CHECK(handle->disk_files.current() == &files[i]);
  }
  CHECK(!handle->disk_files.keep(files[KeptFiles::files_max]));
  CHECK(handle->disk_files.current() == &files[KeptFiles::files_max - 1]);
  for (unsigned i = 0; i < KeptFiles::files_max; ++i) CHECK(handle->disk_files.take() == &files[i]);
  CHECK(handle->disk_files.take() == nullptr);
  CHECK(handles.release(*handle));
  handles.put_back(*handle);
}

TEST_CASE("handles: taken and put back by several threads while others look") {
  Handles handles;
  std::atomic<bool> done{false};
  std::atomic<uint64_t> some_id{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20'000; ++round) {
        Handle* handle = handles.take();
        handle->object_bytes = 7;
        handles.publish(*handle);
        some_id.store(handle->id(), std::memory_order_release);
        if (handles.release(*handle)) handles.put_back(*handle);
      }
    });
  }
  std::thread looker([&] {
    while (!done.load(std::memory_order_relaxed)) handles.get(some_id.load(std::memory_order_acquire));
  });
  for (std::thread& thread : threads) thread.join();
  done.store(true, std::memory_order_relaxed);
  looker.join();
  CHECK(handles.open_count() == 0);
}

}  // namespace
}  // namespace blobcache::serve
