#include "origin/tree_index.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/config.h"
#include "base/log.h"

namespace blobcache {
namespace {

constexpr uint64_t s_ns = 1'000'000'000;
// A volume of a million names is a thousand requests: not more often than that, whatever `revalidate` says.
constexpr int64_t pause_s_min = 10;
constexpr int64_t pause_s_max = 3600;

int64_t now_s() { return static_cast<int64_t>(std::time(nullptr)); }

}  // namespace

TreeIndex::TreeIndex(const Options& options) : options_(options), trusted_ns_(options.trusted_ns) {
  if (options_.path.empty()) return;
  Result<std::shared_ptr<const NameIndex>> found = NameIndex::open(options_.path, options_.identity);
  if (found) {
    index_ = std::move(*found);
  } else if (found.error().code != Code::not_found) {
    BC_LOG(warn, "the index of names {} is damaged or of another kind: it is made anew", options_.path);
  }
}

uint64_t TreeIndex::trusted_ns_left_locked() const {
  if (index_ == nullptr || wrong_) return 0;
  const uint64_t trusted_ns = trusted_ns_;
  if (trusted_ns == config_never_ns) return UINT64_MAX;
  const int64_t age_s = now_s() - index_->built_s();
  if (age_s < 0) return 0;  // the clock was set back: nobody knows how old it is
  const uint64_t age_ns = static_cast<uint64_t>(age_s) * s_ns;
  return age_ns < trusted_ns ? trusted_ns - age_ns : 0;
}

std::shared_ptr<const NameIndex> TreeIndex::current() {
  const std::lock_guard lock(mutex_);
  return options_.serves_outdated || trusted_ns_left_locked() > 0 ? index_ : nullptr;
}

uint64_t TreeIndex::trusted_ns_left() {
  const std::lock_guard lock(mutex_);
  return trusted_ns_left_locked();
}

void TreeIndex::distrust(const NameIndex& index) {
  const std::lock_guard lock(mutex_);
  if (index_.get() == &index) wrong_ = true;
}

bool TreeIndex::try_begin_build() {
  if (building()) return false;
  const std::lock_guard lock(mutex_);
  // A pause longer than any that we make: the clock was set back.
  const int64_t pause_s = not_before_s_ - now_s();
  if (trusted_ns_left_locked() > 0 || (pause_s > 0 && pause_s <= pause_s_max)) return false;
  if (building_.exchange(true, std::memory_order_acq_rel)) return false;
  begun_s_ = now_s();
  return true;
}

// Called when the first page has come, which may be long after it was asked for.
Result<std::unique_ptr<NameIndexWriter>> TreeIndex::create_writer() {
  int64_t begun_s = 0;
  {
    const std::lock_guard lock(mutex_);
    begun_s = begun_s_;
  }
  return NameIndexWriter::create({.path = options_.path, .identity = options_.identity, .built_s = begun_s});
}

void TreeIndex::end_build(Result<std::shared_ptr<const NameIndex>> built) {
  {
    const std::lock_guard lock(mutex_);
    failures_ = built ? 0 : std::min<uint64_t>(failures_ + 1, 16);
    not_before_s_ = now_s() + std::min(pause_s_min << failures_, pause_s_max);
    if (built) {
      index_ = std::move(*built);
      wrong_ = false;
    }
  }
  building_.store(false, std::memory_order_release);
}

}  // namespace blobcache
