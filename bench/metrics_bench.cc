// metrics_bench: nanoseconds that a READ answered from memory spends on being counted, and nothing else (H2): what
// VolumeServer::read, add_reply and count_latency do for the metrics, with the ring's own clock, in the order in which they do.
// Latencies lie where those of hits do, spread over several buckets, so that the search for the bucket is none that the
// processor foretells.
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string_view>

#include "ring/uring.h"
#include "serve/counters.h"

namespace {

using namespace blobcache;
using serve::Counters;
using serve::OperationKind;
using serve::Tier;

constexpr uint32_t reply_bytes = 4096;
constexpr uint64_t latency_ns_min = 1'500;
constexpr uint64_t latency_ns_spread = 16'384;

// Who shares the processor does not count.
uint64_t thread_cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

double ns_per_hit(Ring& ring, uint64_t hits) {
  const auto counters = std::make_unique<Counters>();
  uint64_t random = 1;
  const uint64_t begin_ns = thread_cpu_ns();
  for (uint64_t i = 0; i < hits; ++i) {
    random = random * 6364136223846793005 + 1442695040888963407;  // Knuth's MMIX
    const uint64_t spent_ns = latency_ns_min + (random >> 50) % latency_ns_spread;
    counters->reads.add(1);
    counters->memory_hits.add(1);
    counters->add_reply(Tier::memory, reply_bytes);
    // The request arrived that long ago.
    const uint64_t now_ns = ring.now_ns();
    counters->latency[static_cast<unsigned>(OperationKind::read)].add(now_ns - (now_ns - spent_ns));
    asm volatile("" : : "r"(counters.get()) : "memory");
  }
  return static_cast<double>(thread_cpu_ns() - begin_ns) / static_cast<double>(hits);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view count = argc == 2 ? argv[1] : "";
  uint64_t hits = 0;
  std::from_chars(count.data(), count.data() + count.size(), hits);
  auto ring = create_uring({.sqes = 8, .cqes = 16});
  if (!ring || hits == 0) {
    std::fprintf(stderr, "usage: metrics_bench HITS\n");
    return 2;
  }
  std::printf("%.3f\n", ns_per_hit(**ring, hits));
  return 0;
}
