// What the tests of the disk index share: folders, and a reference of the index that is slow and plain.
//   Thread    one
#pragma once

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cache/disk_journal.h"

namespace blobcache::test {

inline constexpr disk_format::Uuid node_uuid{{0x1111, 0x2222}};
inline constexpr disk_format::Uuid disk_uuid{{0x3333, 0x4444}};

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "blobcache-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// index/ of one disk and an index over it. Destroyed without stop(): what a killed process leaves.
struct Opened {
  int fd;
  std::unique_ptr<DiskIndex> index = std::make_unique<DiskIndex>();
  std::unique_ptr<DiskJournal> journal;
  DiskLoadReport report;

  explicit Opened(const std::string& folder, uint32_t items_max = 4096, uint32_t log_records_max = 32768)
      : fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    REQUIRE(fd >= 0);
    REQUIRE(index->allocate({.objects_max = items_max, .chunks_max = items_max, .segments_max = 256}));
    journal = std::make_unique<DiskJournal>(
        *index, DiskJournal::Options{.index_fd = fd, .disk_uuid = disk_uuid, .log_records_max = log_records_max});
    const Result<DiskLoadReport> loaded = journal->load();
    REQUIRE(loaded);
    report = *loaded;
  }
  ~Opened() { close(fd); }
  void snapshot() {
    while (true) {
      const Result<bool> more = journal->step_snapshot();
      REQUIRE(more);
      if (!*more) return;
    }
  }
};

inline ObjectId id_of(uint64_t number) { return object_id("test", std::to_string(number), "1"); }

// The index as a map.
struct Model {
  struct Chunk {
    uint64_t valid = 0;
    uint64_t verified = 0;
  };
  struct Object {
    uint64_t size = 0;
    DiskPlace place;
    uint64_t stamp = 0;
    bool confirmed = true;
    bool pinned = false;
    std::map<uint64_t, Chunk> chunks;
  };
  struct Segment {
    uint64_t stamp = 0;
    int known = 1;  // 1: ours or confirmed, 0: not looked at, -1: another
  };
  std::map<uint64_t, Object> objects;  // by the number of id_of
  std::map<uint32_t, Segment> segments;

  void restart() {
    for (auto& [number, object] : objects) object.confirmed = false;
    for (auto& [number, segment] : segments) segment.known = 0;
  }
  // Looks at the object as find() does.
  void settle(Object& object) {
    if (!object.place.packed || object.confirmed) return;
    const int known = segments.at(object.place.segment).known;
    object.confirmed = known != 0;
    if (known < 0) {
      for (auto& [position, chunk] : object.chunks) chunk.verified = 0;
    }
  }
  void check(DiskIndex& index) {
    uint64_t wrong = 0;
    for (auto& [number, object] : objects) {
      settle(object);
      const uint64_t chunks = disk_format::index_chunks_of(object.size);
      bool all_verified = true;
      for (uint64_t position = 0; position < chunks; ++position) {
        const auto found = object.chunks.find(position);
        const Chunk chunk = found == object.chunks.end() ? Chunk{} : found->second;
        all_verified = all_verified && chunk.verified == disk_format::blocks_mask(object.size, position);
        DiskView view;
        if (!index.find(id_of(number), position, &view)) {
          ++wrong;
          continue;
        }
        wrong += view.size != object.size || view.valid != chunk.valid || view.confirmed != object.confirmed ||
                 view.verified != (object.confirmed ? chunk.verified : 0) || view.place.packed != object.place.packed ||
                 view.place.segment != object.place.segment || view.pinned != object.pinned ||
                 view.place.page != object.place.page;
      }
      DiskView view;
      wrong += index.find(id_of(number), 0, &view) && view.whole_verified != (object.confirmed && all_verified);
    }
    CHECK(wrong == 0);
    CHECK(index.object_count() == objects.size());
  }
};

// Files of this process may be so long; longer writes are short, or fail, without a signal.
struct FileSizeLimit {
  explicit FileSizeLimit(uint64_t bytes) {
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
  }
  rlimit before{};
  void (*handler)(int) = nullptr;
};

}  // namespace blobcache::test
