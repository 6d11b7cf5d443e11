// DiskVerifier: the thread that reads back what was written to a disk and compares checksums: soon what has become whole or
// was packed, and when there is nothing else everything, slowly (the scrubber). While the disk is not well, it is the one
// that probes it.
//   Owner     DiskUnit.   Thread  verify_soon, verify_packed_soon: any, also cores; the rest is its own
//   Lifetime  start() -> begin_stop() -> join_until(), before the keeper of the disk ends: it waits for its jobs
//   Limits    queue_max objects wait, and packed_max packed ones; more are dropped, and verified by the scrubber, or when they
//             are next opened or read
//   Marks     are made while the read still counts in DiskReads: what the keeper takes out, and what is written in its place,
//             comes before or after, never between the read and the mark
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

#include <sys/types.h>

#include "base/spinlock.h"
#include "cache/disk_check.h"
#include "cache/disk_keeper.h"

namespace blobcache {

class DiskVerifier {
 public:
  static constexpr unsigned queue_max = 1024;
  // 1 MiB: a disk that is busy with what it fills verifies half of it later.
  static constexpr unsigned packed_max = 32768;

  explicit DiskVerifier(DiskUnit& unit);

  void start();
  void begin_stop() { thread_.begin_stop(); }
  DiskThread& thread() { return thread_; }
  void verify_soon(const ObjectId& id);
  // An object of a segment, header and all. What is told in the order in which it lies there is read at once.
  struct Packed {
    ObjectId id;
    uint32_t segment = 0;
    uint32_t page = 0;
    uint32_t pages = 0;
  };
  void verify_packed_soon(const Packed& packed);

 private:
  enum class Which : uint8_t { unverified, all };
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  // What waits, in a ring.
  template <class T, unsigned items_max>
  class Line {
   public:
    // False: it is full.
    bool push(const T& item) {
      if (count_ == items_max) return false;
      items_[(first_ + count_++) % items_max] = item;
      return true;
    }
    const T* front() const { return count_ == 0 ? nullptr : &items_[first_]; }
    void pop() {
      first_ = (first_ + 1) % items_max;
      --count_;
    }

   private:
    std::unique_ptr<T[]> items_ = std::make_unique<T[]>(items_max);
    unsigned first_ = 0;
    unsigned count_ = 0;
  };

  void run();
  bool take(ObjectId* id_out);
  // disk_verifier_packed.cc
  bool take_packed();  // false: none waits; else run_ has some
  DiskFile* open_segment();
  void verify_packed();
  // Marks what matches. The blocks that do not.
  uint64_t check_packed(const DiskFile& file, const Packed& packed, size_t in_buffer, size_t bytes_read);
  DiskFile* open(const ObjectId& id);  // with a reference; null: it is not there
  void verify_object(const ObjectId& id);
  // Bytes read. False: the rest is not worth trying.
  bool verify_chunk(DiskFile& file, const ObjectId& id, uint64_t position, Which which, uint64_t* bytes_out);
  // Into page_. False: it cannot be read, or is damaged.
  bool read_page(const DiskFile& file, const BlockCheck& check);
  // Which of the blocks (at most buffer_bytes) match, which do not or cannot be read. False: the disk fails.
  bool check_run(const DiskFile& file, BlockCheck check, uint64_t* good_out, uint64_t* bad_out);
  // All of it, or less at the end of the file; -1: errno.
  static ssize_t read_at(int fd, std::byte* memory, size_t bytes, uint64_t offset);
  void scrub();
  void probe();
  int try_probe();

  static constexpr size_t buffer_bytes = limits::MiB;
  static constexpr unsigned run_max = 64;  // packed objects of one read

  DiskUnit& unit_;
  DiskShared& shared_;
  DiskIndex& index_;
  DiskThread thread_;
  std::unique_ptr<std::byte, Free> buffer_;
  std::byte* page_ = nullptr;  // behind the buffer

  Spinlock lock_;
  Line<ObjectId, queue_max> queue_;
  Line<Packed, packed_max> packed_;

  Packed run_[run_max];
  unsigned run_count_ = 0;

  uint64_t next_scrub_ns_ = 0;
  DiskCursor cursor_;
  std::vector<DiskEntry> entries_;  // of the scrubber, from next_entry_ on
  size_t next_entry_ = 0;
};

}  // namespace blobcache
