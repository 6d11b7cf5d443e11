// What is fetched from disk goes out as chains of linked reads.
//
//   window, in file order:   0 1 2 3 4 5 6 7 ...      three chains:  0 -> 3 -> 6 ...
//                                                                    1 -> 4 -> 7 ...
//                                                                    2 -> 5 -> 8 ...
//
// Each chain keeps one read in flight and the kernel starts the next, so all of a batch is one submission, the number of
// chains is the depth at which prefetch works the device, and demand reads find the rest of it free. A batch is up to 64
// reads of 1 MiB (a window of 16 chunks); the next one follows when half of it is left, so 16 chunks cost two submissions.
//
// They have a lower priority than demand. A reader's first miss and what is fetched because of it are neighbours on the disk and
// go out together; of one priority they would be one request of some MiB, and he would wait for all of it.
//
// How many chains: one more whenever a reader catches up with what is fetched for him, up to prefetch.streams; at each
// submission one less for every demand read that the disks are busy with, and fewer where the chains would be of one.
//
// Only verified blocks go by chain, since nothing may come between two links. Every read has its CQE and ends its load. A
// read that fails or comes back short breaks its chain: those behind it end with -ECANCELED and are read one by one
// (disk_load.cc), for their blocks are claimed and readers may wait for them.
#include <algorithm>
#include <array>

#include "base/features.h"
#include "serve/prefetch.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr unsigned batch_max = 128;  // loads that may be held: a core's pieces and what one of them is cut into
constexpr size_t links_min = 2;

}  // namespace

void Prefetcher::begin_held() {
  std::array<Load*, batch_max> loads;
  size_t count = 0;
  while (Load* load = held_.pop_front()) {
    if (count < loads.size() && server_.try_enter_chain(*load)) {
      loads[count++] = load;
    } else {
      server_.continue_load(*load);
    }
  }
  // Disk by disk: a chain over two would let one that hangs hold up the other.
  std::array<Load*, batch_max> of_disk;
  while (count > 0) {
    const unsigned disk = loads[0]->file->disk;
    size_t others = 0;
    size_t same = 0;
    for (size_t i = 0; i < count; ++i) (loads[i]->file->disk == disk ? of_disk[same++] : loads[others++]) = loads[i];
    submit_chains({of_disk.data(), same});
    count = others;
  }
}

unsigned Prefetcher::chains_for(size_t loads) const {
  const unsigned demand = server_.disk_reads_running_ + server_.disk_lane_.running;
  const unsigned chains = std::min(chains_, node_.chains_max());
  const unsigned spare = chains > demand ? chains - demand : 1;
  const auto long_enough = static_cast<unsigned>(std::max<size_t>(1, loads / links_min));
  return std::min(spare, long_enough);
}

void Prefetcher::submit_chains(std::span<Load* const> loads) {
  Counters& counters = server_.counters_;
  const unsigned chains =
      pretended_absent(Feature::linked_reads) ? static_cast<unsigned>(loads.size()) : chains_for(loads.size());
  server_.reactor().reserve(static_cast<unsigned>(loads.size()));
  for (unsigned chain = 0; chain < chains; ++chain) {
    for (size_t i = chain; i < loads.size(); i += chains) {
      Sqe& sqe = server_.submit_disk_run_data(*loads[i]);
      if (i + chains < loads.size()) link_next(sqe);
      if (loads.size() >= 2 * chains) counters.prefetch_linked_bytes.add(loads[i]->bytes);
    }
  }
  counters.prefetch_chains.add(chains);
  counters.prefetch_submissions.add(1);
}

}  // namespace blobcache::serve
