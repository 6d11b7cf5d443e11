// SimFiles: the in-memory tree of a SimWorld.
//   Owner     SimWorld
//   Thread    the simulation's
//   Lifetime  a node lives as long as the world, also after remove(): open files keep using it
//   Paths     walked as openat2(2) says: symlinks (40 at most), "..", RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS; no permissions
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ring/sim_faults.h"

struct statx;

namespace blobcache {

struct SimNode {
  enum class Kind : uint8_t { directory, file, symlink };
  Kind kind = Kind::file;
  uint32_t permissions = 0644;
  uint64_t inode = 0;
  uint64_t changed_ns = 0;
  SimNode* parent = nullptr;
  std::vector<std::byte> bytes;
  std::string target;
  std::map<std::string, SimNode*, std::less<>> children;
  SimFaults faults;
};

class SimFiles {
 public:
  // faults: of every node made here, until it gets its own.
  explicit SimFiles(const SimFaults& faults);

  // Absolute paths; the directories above must be there. What was there before is replaced.
  SimNode& add_directory(std::string_view path) { return add(path, SimNode::Kind::directory); }
  SimNode& add_file(std::string_view path, std::span<const std::byte> bytes);
  SimNode& add_symlink(std::string_view path, std::string_view target);
  void remove(std::string_view path);
  // Null when there is none.
  SimNode* find(std::string_view path);
  SimNode& root() { return *root_; }

  struct Walk {
    uint64_t resolve = 0;  // RESOLVE_* of openat2
    bool follow_last = true;
  };
  struct Found {
    SimNode* node = nullptr;
    int error = 0;              // negative errno; -ENOENT with a parent: only the last name is missing
    SimNode* parent = nullptr;  // of a missing last name
    std::string name;
  };
  Found walk(SimNode& from, std::string_view path, Walk how);

  SimNode& make(SimNode& parent, std::string_view name, SimNode::Kind kind);
  static void fill_statx(const SimNode& node, struct statx& out);

 private:
  SimNode& add(std::string_view path, SimNode::Kind kind);

  const SimFaults faults_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  SimNode* root_ = nullptr;
};

}  // namespace blobcache
