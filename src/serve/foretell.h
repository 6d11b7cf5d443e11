// Foreteller: which files of a volume are fetched before anybody opens them: the shard behind the one that is being read, the
// small files behind those that were opened (cache/neighbours.h), the rest of a directory that is read in any order
// (cache/membership.h; foretell_members.cc). The flow is prefetch_files.cc.
//   Owner     a Volume.   Thread  any core; one lock, held for a search and a few strings
//   Lifetime  of a file: wished for -> asked for at the origin -> stands in: a handle without an open, whose FilePrefetch fetches
//             its beginning -> taken by the OPEN that was foreseen, or ended: nobody came within prefetch.idle_timeout, its
//             readers went elsewhere, another version was opened
//   Limits    files_max at a time, shards_max of them shards, one ahead of each; members_max of the rest of directories, and
//             of these what the cache has room for until they are opened; names of directories within the share of the
//             arena that layouts have (PrefetchNode::try_add_layout), those used longest ago go first
//   Invariant what is ended or taken while it is asked for has another number: the answer finds nobody who wants it
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file_info.h"
#include "base/list.h"
#include "base/spinlock.h"
#include "cache/membership.h"
#include "cache/neighbours.h"

namespace blobcache::serve {

class PrefetchNode;
struct Handle;

class Foreteller {
 public:
  static constexpr unsigned files_max = 72;
  static constexpr unsigned shards_max = 8;
  static constexpr unsigned directories_max = 4096;
  static constexpr unsigned members_max = 8;
  static constexpr uint64_t members_bytes_max = 4u << 20;

  explicit Foreteller(PrefetchNode& node) : node_(node) {}
  ~Foreteller();

  struct Place {
    uint32_t index = 0;
    uint32_t number = 0;
  };
  struct Wish {
    std::string key;
    Place place;
    uint64_t bytes = 0;     // of its beginning
    bool whole = false;     // a small file; larger ones are not wanted
    bool unproven = false;  // no shard followed another yet: an eighth of it at most
    bool member = false;    // of the rest of a directory: nobody waits for it
  };
  struct Change {
    std::vector<Wish> wishes;
    std::vector<Handle*> ended;  // each with a reference, now the caller's
    DirectoryMembership::Use members;
  };

  // Whether anything stands in for anybody, whether any directory is known: guesses. What of the rest of a directory waits is
  // told by members_wait().
  bool has_files() const { return files_.load(std::memory_order_relaxed) != 0; }
  bool knows_directories() const { return known_.load(std::memory_order_relaxed) != 0; }

  void on_listed(const std::string& key, std::unique_ptr<DirectoryNames> names);
  // An OPEN. The handle that stands in for it; null: none. `ended`: one of another version.
  Handle* take(std::string_view key, const FileVersion& version, Change* change);
  struct Opened {
    std::string_view key;
    uint64_t bytes = 0;
    bool absent = false;
    bool foretold = false;
  };
  void on_opened(const Opened& file, uint64_t now_ns, Change* change);
  // More of the rest of the directory that was opened or fetched from last. room_bytes: of the cache, for what nobody has opened.
  void want_members(uint64_t room_bytes, uint64_t now_ns, Change* change);
  // Whether files wait in the cache for their first open: a guess.
  bool members_wait() const { return members_.load(std::memory_order_relaxed) != 0; }
  // The answer to a wish: it is being fetched. Its handle is nobody's. False: nobody wants it any more.
  bool settle_member(const Place& place, uint64_t bytes);
  void on_member_landed(std::string_view key, uint64_t bytes, bool failed);
  // Its reader will want it next.
  struct Shard {
    std::string key;
    uint64_t bytes = 0;  // of its beginning
  };
  void want_shard(Shard shard, uint64_t now_ns, Change* change);
  // What was fetched of it was not read: a small file that was opened as foretold, or what was ended.
  void on_unread(std::string_view key, bool small);

  bool is_wanted(const Place& place);
  // The answer to a wish: it stands in from now on, with the caller's reference. False: nobody wants it any more.
  bool settle(const Place& place, Handle& handle);
  void drop(const Place& place);
  // Nobody opened them in time; all of them.
  void expire(uint64_t now_ns, Change* change);
  void end_all(Change* change);

 private:
  enum class State : uint8_t { free, asked, stands_in };
  struct File {
    State state = State::free;
    bool shard = false;
    bool member = false;
    uint8_t misses = 0;  // of a shard: later ones of its directory that were opened since
    uint32_t number = 0;
    uint32_t directory = 0;  // of a small file
    uint32_t stream = 0;
    uint64_t hash = 0;
    uint64_t since_ns = 0;
    std::string key;
    Handle* handle = nullptr;
  };
  struct Directory : ListNode {
    uint32_t number = 0;
    uint64_t hash = 0;
    uint64_t bytes = 0;  // accounted for
    std::string key;
    std::unique_ptr<DirectoryNames> names;
    OpenOrder order;
    std::unique_ptr<DirectoryMembership> members;
  };

  // Of the rest of a directory: fetched, and not opened.
  struct Waiting {
    explicit Waiting(const Directory& of)
        : files(of.members->waiting_files()), frame_bytes(of.members->waiting_frame_bytes()) {}
    uint32_t files;
    uint64_t frame_bytes;
  };

  static uint64_t hash_of(std::string_view key);
  static std::string_view parent_of(std::string_view key);
  static std::string_view name_of(std::string_view key);
  static std::string key_of(const Directory& directory, FileOrder order, uint32_t position);
  Directory* find_directory(std::string_view key);
  void remove_directory(Directory& directory);
  bool make_room(uint64_t bytes);
  File* find_file(std::string_view key);
  File* add_file(std::string key, uint64_t now_ns);
  void free(File& file);
  void end(File& file, Change* change);
  void wish_for(const Directory& directory, const FilesAhead& ahead, uint64_t now_ns, Change* change);
  void miss_shards(std::string_view opened, Change* change);
  // foretell_members.cc. open_member: it was fetched before.
  bool open_member(Directory& directory, const DirectoryNames::Place& place, const Opened& opened, uint64_t now_ns,
                   Change* change);
  static bool waits(const Directory& directory, FileOrder order, uint32_t position);
  bool want_member(Directory& directory, uint64_t now_ns, Change* change);
  void count_members(const Directory& directory, const Waiting& before);
  void forget_members(Directory& directory);
  void expire_members(uint64_t now_ns, Change* change);

  PrefetchNode& node_;
  std::atomic<uint32_t> files_{0};
  std::atomic<uint32_t> known_{0};
  Spinlock lock_;  // for what follows
  std::array<File, files_max> places_;
  std::unordered_map<uint64_t, Directory> directories_;  // by the hash of their keys
  List<Directory> by_use_;                               // the one used last at the end
  uint32_t numbers_ = 0;
  std::atomic<uint32_t> members_{0};  // files that wait in the cache
  uint64_t members_frame_bytes_ = 0;  // and their memory
  uint32_t members_in_flight_ = 0;    // asked for, or fetched
  uint64_t members_directory_ = 0;    // the hash of the key of the one whose turn it is
  uint64_t lost_bytes_ = 0;           // of forgotten directories, not told yet
  uint8_t shard_distrust_ = 0;        // halvings
  bool shards_follow_ = false;        // one was opened as foretold, and none since was not
};

}  // namespace blobcache::serve
