// TreeIndex: which NameIndex of a volume may be believed now, and when to make the next one.
//   Owner     a RemoteOrigin.   Thread  any; one lock for a few instructions
//   Trust     an index is believed for `trusted_ns` from the moment its listing began, by the machine's clock, which goes on
//             while nobody is mounted; one that was found wrong, not at all
//   Making    by one caller at a time, when one is needed and somebody asks; after a failure not for a while, longer each time
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/live_value.h"
#include "origin/name_index.h"

namespace blobcache {

class TreeIndex {
 public:
  struct Options {
    std::string path;  // of the file; empty: in memory
    ObjectId identity;
    uint64_t trusted_ns = 0;  // config_never_ns: for ever
    // There is no other source of names: an old index is better than none, while a new one is made.
    bool serves_outdated = false;
  };
  // Takes up what lies at `path`, if it is one.
  explicit TreeIndex(const Options& options);

  // Null: none that may be believed.
  std::shared_ptr<const NameIndex> current();
  // Another `trusted_ns` from now on, for the index that there is too.
  void set_trusted(uint64_t trusted_ns) { trusted_ns_.set(trusted_ns); }
  // How long that will be so; UINT64_MAX: for ever.
  uint64_t trusted_ns_left();
  // What it says is not so.
  void distrust(const NameIndex& index);

  // True: a new one is needed, and the caller makes it and says so with end_build. Its listing begins now.
  bool try_begin_build();
  // Errors: of the listing or the writer.
  Result<std::unique_ptr<NameIndexWriter>> create_writer();
  void end_build(Result<std::shared_ptr<const NameIndex>> built);
  bool building() const { return building_.load(std::memory_order_acquire); }

 private:
  uint64_t trusted_ns_left_locked() const;

  const Options options_;
  LiveValue<uint64_t> trusted_ns_;
  std::mutex mutex_;
  std::shared_ptr<const NameIndex> index_;
  bool wrong_ = false;  // index_ is to be replaced as soon as can be
  uint64_t failures_ = 0;
  int64_t not_before_s_ = 0;
  int64_t begun_s_ = 0;  // the one that is being made
  std::atomic<bool> building_{false};
};

}  // namespace blobcache
