// AccessPattern: what the readers of one open file are doing, told from the offsets of their reads alone.
//   Owner     one open file; made at its first miss, fed from then on with every read of a user, hit or miss, and never
//             with what prefetch reads
//   Thread    any core; on_read declines when another core is inside: a guess is not worth waiting for
//   Limits    512 bytes; 16 regions are remembered, 4 of them are streams that may be fetched ahead. No allocation; a read
//             that fits nowhere costs 16 comparisons and 28 of pairs of numbers
//   Invariant the same reads give the same answers: no clock inside, no randomness
//
// Offsets are bytes, below 2^62. A read that was not seen (declined) is a gap like any other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/spinlock.h"

namespace blobcache {

struct PatternOptions {
  uint32_t trigger_reads = 2;                // adjacent reads that make a reader sequential
  uint64_t max_gap_bytes = 2 * 1024 * 1024;  // still adjacent
  uint64_t idle_timeout_ns = 30'000'000'000;
};

enum class PatternKind : uint8_t {
  unknown,  // nothing can be said yet, or another core was inside
  random,
  forward,
  backward,
  strided,
};

// What one read was part of.
struct Pattern {
  static constexpr unsigned streams_max = 4;
  static constexpr uint8_t no_stream = 255;

  PatternKind kind = PatternKind::unknown;
  // Below streams_max: the stream that the read moved. Streams of forward, backward and strided readers beyond the
  // fourth have a kind and no_stream: known, and not fetched ahead.
  uint8_t stream = no_stream;
  uint8_t confidence = 0;  // reads that agreed, at most 255
  bool changed = false;    // the stream is new, or another than it was: what was fetched for it is of no use
  bool late = false;       // it lies behind where the stream has been: it moves nothing
  uint8_t ended = 0;       // bit i: stream i is no more
  // forward: the next byte; backward: the byte after the next; strided: where this record begins.
  uint64_t position = 0;
  int64_t stride_bytes = 0;   // strided: from one record to the next, may be negative
  uint64_t record_bytes = 0;  // strided: read at each
};

class AccessPattern {
 public:
  // bytes >= 1. now_ns: any clock that does not go back.
  Pattern on_read(uint64_t offset, uint64_t bytes, uint64_t now_ns, const PatternOptions& options);

 private:
  static constexpr unsigned regions_max = 16;
  static constexpr unsigned paired_regions_max = 8;
  static constexpr unsigned stride_unit = 512;
  static constexpr uint32_t span_max = 64u << 20;
  static constexpr uint8_t none = 7;
  static constexpr uint8_t interval_unit = 4;
  static constexpr uint8_t interval_first = regions_max * interval_unit;  // as if all 16 took turns

  // Bytes read one after the other, most recently up to `high` (from `high` down, when backward).
  struct Region {
    uint64_t high;
    uint32_t span;          // the region is [high - span, high); what lies further back is forgotten
    uint32_t record_bytes;  // of the one that it follows by a stride
    int32_t stride;         // in units of 512 bytes, from that one; 0: none
    uint8_t run;            // reads that agreed
    uint8_t equal;          // strides that agreed
    uint8_t late;           // reads in a row that moved nothing
    uint8_t stream : 3;
    uint8_t backward : 1;

    uint64_t low() const { return high - span; }
    int64_t stride_bytes() const { return int64_t{stride} * stride_unit; }
  };
  static_assert(sizeof(Region) == 24);

  enum class Fit : uint8_t { no, sparse, late, dense, exact };
  struct Read {
    uint64_t offset;
    uint64_t bytes;
    uint64_t end() const { return offset + bytes; }
  };
  // What was last said of a stream.
  struct Told {
    PatternKind kind = PatternKind::unknown;
    uint8_t interval = interval_first;  // reads of all from one of it to the next, in quarters, smoothed
    int32_t stride = 0;
    uint32_t seen = 0;  // number of the read
  };

  Pattern place(const Read& read, const PatternOptions& options);
  Fit fit(const Region& region, const Read& read, const PatternOptions& options) const;
  Fit fit_strided(const Region& region, const Read& read) const;
  void extend(Region& region, const Read& read);
  void extend_strided(Region& region, const Read& read);
  void step(Region& region, const Read& read, int64_t delta);
  void add_region(const Read& read, const PatternOptions& options);
  bool follow_stride(const Read& read);
  unsigned join(unsigned index, const Read& read);
  void make_front(unsigned index);
  void remove(unsigned index);
  unsigned victim(const PatternOptions& options) const;
  void end_stream(Region& region);
  bool is_over(const Told& told) const;
  void end_quiet_streams(const PatternOptions& options);
  bool is_strided(const Region& region, const PatternOptions& options) const;
  PatternKind kind_of(const Region& region, const PatternOptions& options) const;
  void name_stream(Region& region, Pattern* pattern);
  void disturb();
  void calm();
  void forget();

  Spinlock lock_;
  uint8_t count_ = 0;
  uint8_t noise_ = 0;  // reads that fitted nowhere, less those that did
  uint8_t ended_ = 0;
  uint32_t reads_ = 0;
  uint64_t last_ns_ = 0;
  std::array<Told, Pattern::streams_max> told_;
  std::array<Region, regions_max> regions_;  // the most recently read first
};
static_assert(sizeof(AccessPattern) <= 512);

}  // namespace blobcache
