// Traces of what real readers read (tests/data/traces; record.py there says how), and a reader that is followed: each
// read goes to the pattern and the windows as in the program, and what they ask for arrives at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "cache/pattern.h"
#include "cache/window.h"

namespace blobcache {

struct Trace {
  uint64_t size = 0;
  std::vector<ByteRange> reads;
};

inline Trace load_trace(const std::string& name) {
  std::ifstream file(std::string(TRACES_FOLDER) + "/" + name + ".trace");
  REQUIRE_MESSAGE(file.good(), name);
  Trace trace;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first.empty() || first == "#") continue;
    if (first == "size") {
      words >> trace.size;
      continue;
    }
    uint64_t offset = std::stoull(first);
    uint64_t bytes = 0;
    words >> bytes;
    std::string count;
    int64_t stride = 0;
    words >> count >> stride;
    for (uint64_t left = count.empty() ? 1 : std::stoull(count.substr(1)); left > 0; --left) {
      trace.reads.push_back({offset, bytes});
      offset += static_cast<uint64_t>(stride);
    }
  }
  REQUIRE(trace.size > 0);
  REQUIRE(!trace.reads.empty());
  for (const ByteRange& read : trace.reads) REQUIRE(read.end() <= trace.size);
  return trace;
}

// Pieces of a file, kept apart and merged.
class Pieces {
 public:
  void add(const ByteRange& range) {
    uint64_t low = range.offset;
    uint64_t high = range.end();
    auto at = pieces_.upper_bound(low);
    if (at != pieces_.begin() && std::prev(at)->second >= low) --at;
    while (at != pieces_.end() && at->first <= high) {
      low = std::min(low, at->first);
      high = std::max(high, at->second);
      at = pieces_.erase(at);
    }
    pieces_[low] = high;
  }
  uint64_t common_bytes(const ByteRange& range) const {
    uint64_t bytes = 0;
    auto at = pieces_.upper_bound(range.offset);
    if (at != pieces_.begin()) --at;
    for (; at != pieces_.end() && at->first < range.end(); ++at) {
      const uint64_t low = std::max(at->first, range.offset);
      const uint64_t high = std::min(at->second, range.end());
      bytes += high > low ? high - low : 0;
    }
    return bytes;
  }
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const auto& [low, high] : pieces_) sum += high - low;
    return sum;
  }
  const std::map<uint64_t, uint64_t>& pieces() const { return pieces_; }

 private:
  std::map<uint64_t, uint64_t> pieces_;
};

struct Follower {
  static constexpr PrefetchBudget::Options budget_options{.in_flight_bytes_max = limits::GiB,
                                                          .memory_bytes_max = 2 * limits::GiB};

  explicit Follower(uint64_t size) : file_bytes(size), windows(WindowOptions(), size), budget(budget_options) {}

  void set_layout(const Layout& layout) {
    pieces = std::make_unique<PiecesRead>(layout);
    windows.set_layout(layout, *pieces);
  }
  Pattern read(const ByteRange& range, uint64_t now = 0) {
    PatternOptions options = pattern_options;
    if (pieces != nullptr && pieces->on_read(range)) options.trigger_reads = 1;
    const Pattern found = pattern.on_read(range.offset, range.bytes, now, options);
    const uint64_t ready = fetched.common_bytes(range);
    read_bytes += range.bytes;
    ready_bytes += ready;
    touched.add(range);
    for (windows.on_read(found, range, budget, now, &plan);; windows.next_fetch(found.stream, budget, now, &plan)) {
      for (unsigned i = 0; i < plan.cancel_count; ++i) cancels.push_back(plan.cancels[i]);
      for (unsigned i = 0; i < plan.fetch_count; ++i) {
        const WindowRange& fetch = plan.fetches[i];
        CHECK(fetch.range.end() <= file_bytes);
        CHECK(!fetch.range.empty());
        fetches.push_back(fetch);
        fetched.add(fetch.range);
        budget.on_landed(fetch.granted_bytes);
      }
      if (!plan.more) break;
    }
    return found;
  }
  void follow(const Trace& trace) {
    for (const ByteRange& range : trace.reads) read(range);
  }
  void stop() {
    windows.stop(budget, &plan);
    for (unsigned i = 0; i < plan.cancel_count; ++i) cancels.push_back(plan.cancels[i]);
    CHECK(budget.in_flight_bytes() == 0);
    CHECK(budget.memory_bytes() == 0);
    const PrefetchWindows::Totals& totals = windows.totals();
    CHECK(totals.asked_bytes == totals.used_bytes + totals.unused_bytes);
  }
  // Of what was fetched ahead, what nobody has read, in blocks.
  uint64_t wasted_bytes() const {
    uint64_t wasted = 0;
    for (const auto& [low, high] : fetched.pieces()) {
      for (uint64_t at = low; at < high; at += limits::block_bytes) {
        const uint64_t bytes = std::min<uint64_t>(limits::block_bytes, high - at);
        if (touched.common_bytes({at, bytes}) == 0) wasted += bytes;
      }
    }
    return wasted;
  }

  uint64_t file_bytes;
  PatternOptions pattern_options;
  AccessPattern pattern;
  std::unique_ptr<PiecesRead> pieces;
  PrefetchWindows windows;
  PrefetchBudget budget;
  WindowPlan plan;
  Pieces fetched;
  Pieces touched;
  std::vector<WindowRange> fetches;
  std::vector<WindowRange> cancels;
  uint64_t read_bytes = 0;
  uint64_t ready_bytes = 0;  // of these: had been fetched ahead
};

}  // namespace blobcache
