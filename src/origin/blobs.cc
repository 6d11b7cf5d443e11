// A listing goes on behind a cookie that is made of the first 62 bits of an id: nothing is kept between two calls, and what
// comes or goes meanwhile is seen or not. Who makes two blobs whose ids agree in 62 bits may see one of them left out.
#include "origin/blobs.h"

#include <algorithm>
#include <atomic>
#include <cerrno>

#include <dirent.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"

namespace blobcache {
namespace {

constexpr unsigned helpers = 8;
constexpr uint64_t root_ino = 1;

uint64_t first_bits(const BlobId& id) {
  uint64_t bits = 0;
  for (unsigned i = 0; i < 8; ++i) bits = bits << 8 | id.bytes[i];
  return bits;
}
uint64_t cookie_of(const BlobId& id) { return (first_bits(id) >> 2) + 1; }
// The last id that has this cookie.
BlobId last_of(uint64_t cookie) {
  BlobId id;
  id.bytes.fill(0xff);
  const uint64_t bits = (cookie - 1) << 2 | 3;
  for (unsigned i = 0; i < 8; ++i) id.bytes[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  return id;
}

class BlobsOrigin final : public Origin {
 public:
  BlobsOrigin(BlobSource& source, const VolumeConfig& volume) : source_(source), volume_(volume), blocking_(helpers) {}

  std::string_view canonical_source() const override { return blobs_scheme; }
  void begin_lookup(Reactor& home, LookupCall& call) override;
  void begin_open(Reactor& home, OpenCall& call) override;
  void begin_read(Reactor& home, ReadCall& call) override;
  void begin_list(Reactor& home, ListCall& call) override;
  void begin_readlink(Reactor& home, ReadlinkCall& call) override;
  void begin_statfs(Reactor& home, StatfsCall& call) override;
  void close(Reactor& home, int fd) override;
  void stop() override {
    stopping_.store(true, std::memory_order_relaxed);
    blocking_.stop();
  }
  bool join(unsigned patience_ms) override { return blocking_.join(patience_ms); }

 private:
  // Of open directories; blobs have their handles from 1 on.
  static constexpr int directory_fd = 0;
  struct CloseCall : BlockingCall {
    BlobSource* source = nullptr;
    int handle = -1;
  };

  bool begin_call(Reactor& home, OriginCall& call);
  void begin_blocking(OriginCall& call, void (*run)(BlockingCall& call));
  // False: the call has failed.
  bool find(OriginCall& call, const std::string& key, FileInfo* info_out) const;
  FileInfo directory_info() const;
  FileInfo blob_info(const BlobSource::Blob& blob) const;

  BlobSource& source_;
  const VolumeConfig volume_;
  std::atomic<bool> stopping_{false};
  BlockingCalls blocking_;  // last: its helpers use the rest
};

BlobsOrigin& origin_of(OriginCall& call) { return static_cast<BlobsOrigin&>(*call.origin); }
template <class Call>
Call& call_of(BlockingCall& call) {
  return static_cast<Call&>(*static_cast<OriginCall::Blocking&>(call).call);
}

bool BlobsOrigin::begin_call(Reactor& home, OriginCall& call) {
  BC_ASSERT(call.on_done != nullptr);
  call.home = &home;
  call.origin = this;
  call.failed = false;
  call.error = {};
  if (!stopping_.load(std::memory_order_relaxed)) return true;
  call.finish_failed({Code::stopping, ECANCELED});
  return false;
}

void BlobsOrigin::begin_blocking(OriginCall& call, void (*run)(BlockingCall& call)) {
  call.blocking.call = &call;
  call.blocking.run = run;
  call.blocking.handler = [](Op& op, int32_t, uint32_t) { static_cast<OriginCall::Blocking&>(op).call->finish(); };
  if (const Result<void> begun = blocking_.begin(*call.home, call.blocking); !begun) call.finish_failed(begun.error());
}

FileInfo BlobsOrigin::directory_info() const {
  const BlobSource::Facts facts = source_.blob_facts();
  FileInfo info;
  FileAttributes& shown = info.attributes;
  shown.ino = root_ino;
  shown.mode = S_IFDIR | volume_.dir_mode;
  shown.nlink = 2;
  shown.uid = volume_.uid;
  shown.gid = volume_.gid;
  // A listing that the kernel keeps is dropped when this changes: several times a second, too.
  shown.atime = shown.mtime =
      shown.ctime = {.seconds = facts.changed_s, .nanoseconds = static_cast<uint32_t>(facts.changes % 1'000'000'000)};
  info.version.length = 1;
  info.version.bytes[0] = '/';
  return info;
}

FileInfo BlobsOrigin::blob_info(const BlobSource::Blob& blob) const {
  FileInfo info;
  FileAttributes& shown = info.attributes;
  shown.ino = std::max<uint64_t>(first_bits(blob.id), root_ino + 1);
  shown.size = blob.bytes;
  shown.blocks = (blob.bytes + 511) / 512;
  shown.mode = S_IFREG | volume_.file_mode;
  shown.uid = volume_.uid;
  shown.gid = volume_.gid;
  shown.atime = shown.mtime = shown.ctime = {.seconds = blob.stored_s, .nanoseconds = 0};
  shown.btime = shown.mtime;
  info.version.length = sizeof blob.id.bytes;
  std::copy(blob.id.bytes.begin(), blob.id.bytes.end(), info.version.bytes);
  info.key_in_identity = false;
  return info;
}

bool BlobsOrigin::find(OriginCall& call, const std::string& key, FileInfo* info_out) const {
  if (key.empty()) {
    *info_out = directory_info();
    return true;
  }
  const std::optional<BlobId> id = parse_blob_id(key);
  const std::optional<BlobSource::Blob> blob = id && to_hex(*id) == key ? source_.find_blob(*id) : std::nullopt;
  if (!blob) {
    call.finish_failed({Code::not_found, ENOENT});
    return false;
  }
  *info_out = blob_info(*blob);
  return true;
}

void BlobsOrigin::begin_lookup(Reactor& home, LookupCall& call) {
  if (begin_call(home, call) && find(call, call.key, &call.info)) call.finish();
}

void BlobsOrigin::begin_open(Reactor& home, OpenCall& call) {
  call.fd = -1;
  if (!begin_call(home, call) || !find(call, call.key, &call.info)) return;
  if (call.key.empty()) {
    call.fd = directory_fd;
    return call.finish();
  }
  begin_blocking(call, [](BlockingCall& blocking) {
    auto& open = call_of<OpenCall>(blocking);
    const Result<int> handle = origin_of(open).source_.open_blob(*parse_blob_id(open.key));
    open.failed = !handle;
    if (handle) open.fd = *handle;
    if (!handle) open.error = handle.error();
  });
}

void BlobsOrigin::begin_read(Reactor& home, ReadCall& call) {
  BC_ASSERT(call.fd > directory_fd && call.to != nullptr && call.bytes > 0);
  if (!begin_call(home, call)) return;
  call.young = false;
  begin_blocking(call, [](BlockingCall& blocking) {
    auto& read = call_of<ReadCall>(blocking);
    const Result<void> done = origin_of(read).source_.read_blob(read.fd, read.offset, {read.to, read.bytes});
    read.failed = !done;
    if (!done) read.error = done.error();
  });
}

void BlobsOrigin::begin_list(Reactor& home, ListCall& call) {
  BC_ASSERT(call.fd == directory_fd && call.entries_max > 0);
  call.entries.clear();
  if (!begin_call(home, call)) return;
  std::optional<BlobId> after;
  if (call.offset != 0) after = last_of(call.offset);
  for (const BlobSource::Blob& blob : source_.list_blobs(after, call.entries_max)) {
    DirectoryEntry& entry = call.entries.emplace_back();
    entry.name = to_hex(blob.id);
    entry.type = DT_REG;
    entry.next_offset = cookie_of(blob.id);
    entry.has_info = true;
    entry.info = blob_info(blob);
    entry.ino = entry.info.attributes.ino;
  }
  call.finish();
}

void BlobsOrigin::begin_readlink(Reactor& home, ReadlinkCall& call) {
  if (begin_call(home, call)) call.finish_failed({Code::invalid, EINVAL});
}

void BlobsOrigin::begin_statfs(Reactor& home, StatfsCall& call) {
  if (!begin_call(home, call)) return;
  const BlobSource::Facts facts = source_.blob_facts();
  call.block_bytes = limits::page_bytes;
  call.blocks = facts.limit_bytes / limits::page_bytes;
  const uint64_t used = facts.used_bytes / limits::page_bytes;
  call.blocks_free = call.blocks_available = call.blocks - std::min(call.blocks, used);
  call.files = facts.blobs_max;
  call.files_free = facts.blobs_max - std::min(facts.blobs_max, facts.blobs);
  call.finish();
}

// The last descriptor of a blob that was removed frees its room: that may take a while.
void BlobsOrigin::close(Reactor& home, int fd) {
  if (fd == directory_fd) return;
  auto* call = new CloseCall;
  call->source = &source_;
  call->handle = fd;
  call->run = [](BlockingCall& blocking) {
    const auto& closing = static_cast<CloseCall&>(blocking);
    closing.source->close_blob(closing.handle);
  };
  call->handler = [](Op& op, int32_t, uint32_t) { delete &static_cast<CloseCall&>(op); };
  if (blocking_.begin(home, *call)) return;
  source_.close_blob(fd);  // the process is about to end
  delete call;
}

}  // namespace

std::unique_ptr<Origin> create_blobs_origin(BlobSource& source, const VolumeConfig& volume) {
  return std::make_unique<BlobsOrigin>(source, volume);
}

}  // namespace blobcache
