// A reader's core has enough to do: it copies what he reads, and his system calls take the same CPU. What his file still
// has at the origin is therefore brought by the others, where the copies out of the network and TLS are paid for:
//
//   on_read, on the reader's core --in files_--> begin_next --at the origin: pass--> files_ of another core --> pieces
//                                                    '--on disk--> its own chains (and back to here, when it has gone)
//
// A file is in one list at a time and goes on from core to core with its place in it, 16 MiB at each, so that a reader who is
// alone has all of them. The frames are everybody's, and who waits for one is told on his own core. With one core nothing
// passes; nor do small files, whose fetch costs less than the message.
#include "serve/prefetch.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t turn_bytes = 4 * limits::chunk_frame_bytes;
constexpr uint64_t passed_bytes_min = limits::chunk_frame_bytes;

}  // namespace

// Decided once for a turn: a reader's threads may be on all cores.
Prefetcher& Prefetcher::fetcher_of(FilePrefetch& file, const WindowRange& front, bool at_origin) {
  const unsigned cores = server_.options_.cores;
  if (cores < 2 || file.handle.object_bytes < passed_bytes_min || file.member()) return *this;
  if (FilePrefetch::is_layout(front)) return *this;  // what the next read is to be understood by
  const uint64_t place = (front.descending ? front.range.end() - 1 : front.range.offset) / turn_bytes;
  const uint64_t turn = place * 2 + at_origin;
  if (file.turn == turn) return *this;
  file.turn = turn;
  unsigned core = file.reader_core();
  if (at_origin) core = (core + 1 + static_cast<unsigned>(place % (cores - 1))) % cores;
  Prefetcher* fetcher = server_.volume().prefetchers[core].load(std::memory_order_acquire);
  return fetcher == nullptr ? *this : *fetcher;
}

void Prefetcher::leave_others() {
  server_.volume().prefetchers[server_.reactor().core()].store(nullptr, std::memory_order_relaxed);
}

// With the list's reference to its handle.
void Prefetcher::pass(FilePrefetch& file, Prefetcher& to) {
  file.passage.to = &to;
  server_.reactor().post(to.server_.reactor(), file.passage);
}

void Prefetcher::on_passed(Op& op, int32_t, uint32_t) {
  FilePrefetch& file = *static_cast<FilePrefetch::Passage&>(op).file;
  Prefetcher& self = *file.passage.to;
  if (self.closed_) return self.server_.release_handle(file.handle);
  self.files_.push_back(file);
  ++self.file_count_;
  self.begin_wanted();
}

}  // namespace blobcache::serve
