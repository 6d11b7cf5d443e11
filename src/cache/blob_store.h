// BlobStore: the blobs of the content store on the disks: which there are, how long they live, how much room they may take.
//   Owner     serve::Content.   Lifetime  open() -> use -> stop(); longer than its readers and writers
//   Thread    any. Blocks on a disk: all but find, list and facts, so never on a core
//   Limits    limit_bytes a disk (files with their checksums), blobs_max, uploads_max at a time
//   Invariant what find() knows is on the disk, its name too: put answers after fsync of file and folder
//   Copies    of a blob that lies on several disks (one was moved here) the first is used; all of them leave together
//   Leaves    a blob leaves by its time or by remove(), never by eviction; one that does not match its checksums is set aside
//             (blobs/aside), where nobody finds it, until it is stored again or removed
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/blob_id.h"
#include "base/result.h"
#include "cache/blob_file.h"

namespace blobcache {

class BlobReader;
class BlobWriter;

struct BlobInfo {
  BlobId id;
  uint64_t bytes = 0;
  int64_t stored_s = 0;   // since 1970
  int64_t expires_s = 0;  // since 1970; 0: never
  bool pinned = false;    // does not expire, and is removed only by who says so twice
};

struct BlobLife {
  int64_t ttl_s = 0;  // 0: until it is removed
  bool pinned = false;
};

// What became of a wish to store something.
enum class PutOutcome : uint8_t {
  stored,
  known,
  refused,
  mismatched,
  failed
};  // refused: no room, or too many at a time
inline constexpr unsigned put_outcomes = 5;

class BlobStore {
 public:
  struct Disk {
    std::string path;  // a cache directory that is ours and locked
    uint64_t limit_bytes = 0;
  };
  struct Options {
    std::vector<Disk> disks;
    uint64_t blobs_max = 0;
    unsigned uploads_max = 16;
    int64_t (*now_s)() = [] { return static_cast<int64_t>(std::time(nullptr)); };
  };
  static constexpr uint64_t entry_bytes = 224;  // of memory, of one blob

  BlobStore();
  ~BlobStore();
  // Makes the folders, removes what uploads left behind, reads the seal of every blob. Errors: io, full (more blobs than
  // blobs_max); message_out: one sentence.
  Result<void> open(Options options, std::string* message_out);
  bool is_open() const { return !disks_.empty(); }
  // What writes ends with Code::stopping.
  void stop();

  // ---- any thread, also a core ----
  std::optional<BlobInfo> find(const BlobId& id) const;
  // In order of ids, those behind `after`.
  std::vector<BlobInfo> list(const std::optional<BlobId>& after, size_t count_max) const;
  struct Facts {
    uint64_t limit_bytes = 0;
    uint64_t used_bytes = 0;      // files of blobs, and what was set aside
    uint64_t reserved_bytes = 0;  // of uploads under way
    uint64_t blobs = 0;
    uint64_t blobs_max = 0;
    std::array<uint64_t, put_outcomes> puts{};  // this and what follows: since the start
    uint64_t opened = 0;                        // to be read
    uint64_t expired = 0;
    uint64_t set_aside = 0;
    uint64_t changes = 0;   // blobs that came or went
    int64_t changed_s = 0;  // the last time, or the start
    unsigned uploads = 0;
    unsigned uploads_max = 0;
  };
  Facts facts() const;

  // ---- threads that may block ----
  struct Put {
    std::optional<BlobId> expected;
    std::optional<uint64_t> bytes;  // when known: refused at once when there is no room
    BlobLife life;
  };
  // Errors: full, again (uploads_max are under way), io, stopping.
  Result<std::unique_ptr<BlobWriter>> begin_put(const Put& put);
  // Errors: not_found, corrupt (and it is set aside), io.
  Result<std::unique_ptr<BlobReader>> open_blob(const BlobId& id);
  // It lives at least as long as `life` says from now on. Errors: not_found, io.
  Result<BlobInfo> extend(const BlobId& id, const BlobLife& life);
  // Errors: not_found, denied (pinned, and not pinned_too), io.
  Result<void> remove(const BlobId& id, bool pinned_too);
  // Removes what has expired; when the next one will, 0: none.
  int64_t expire();

 private:
  friend class BlobReader;
  friend class BlobWriter;
  class NameLock;

  struct Entry {
    uint64_t bytes = 0;
    int64_t stored_s = 0;
    int64_t expires_s = 0;
    unsigned disk = 0;
    bool pinned = false;
  };
  using Expiry = std::pair<int64_t, BlobId>;
  struct DiskState {
    FileFd blobs_fd;
    uint64_t limit_bytes = 0;
    uint64_t used_bytes = 0;      // under lock_
    uint64_t reserved_bytes = 0;  // under lock_
  };

  Result<std::unique_ptr<BlobWriter>> try_begin_put(const Put& put);
  Result<void> open_disk(const Disk& disk, std::string* message_out);
  Result<void> scan_folder(unsigned disk, const std::string& folder, std::string* message_out);
  void scan_blob(unsigned disk, const BlobId& id);
  bool sync_folder(unsigned disk, const BlobId& id) const;

  // ---- for BlobWriter ----
  bool try_reserve(unsigned disk, uint64_t bytes);
  void end_upload(unsigned disk, uint64_t reserved_bytes);
  bool stopping() const;
  struct Published {
    BlobInfo info;
    bool known = false;  // it was there already: nothing was written
  };
  // write_seal makes the staged file complete and durable; called when it is wanted.
  Result<Published> publish(BlobWriter& writer, const BlobId& id);

  // ---- for BlobReader ----
  // The file behind fd is not what it should be.
  void set_aside(const BlobId& id, unsigned disk, int fd, std::string_view why);

  // Under the name's lock.
  Result<BlobInfo> extend_named(const BlobId& id, const BlobLife& life);
  Result<void> remove_named(const BlobId& id, const Entry& entry);
  void set_aside_named(const BlobId& id, unsigned disk, int fd, std::string_view why);
  bool drop_aside(unsigned disk, const BlobId& id);
  // The file of that name on this disk, the one in the table or a copy, which counts with so many bytes.
  Result<void> drop_copy(unsigned disk, const BlobId& id, uint64_t bytes);
  // Under lock_.
  bool is_over(const Entry& entry) const;
  const Entry* live(const BlobId& id) const;
  void insert(const BlobId& id, const Entry& entry);
  void erase(const BlobId& id);
  void count_put(PutOutcome outcome);
  static BlobInfo info_of(const BlobId& id, const Entry& entry);
  int64_t expires_at(const BlobLife& life) const;

  Options options_;
  std::vector<std::unique_ptr<DiskState>> disks_;

  mutable std::mutex lock_;  // held for moments only
  std::map<BlobId, Entry> blobs_;
  std::set<Expiry> expiries_;  // of blobs_ that are not pinned
  std::set<BlobId> named_;     // whose file is being published, sealed again, or removed
  std::condition_variable name_free_;
  unsigned uploads_ = 0;
  std::array<uint64_t, put_outcomes> puts_{};
  uint64_t opened_ = 0;
  uint64_t expired_ = 0;
  uint64_t set_aside_ = 0;
  uint64_t changes_ = 0;
  int64_t changed_s_ = 0;
  bool stopping_ = false;
};

}  // namespace blobcache
