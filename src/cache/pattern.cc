// A file may have many readers, and each read says only where it is. So the last 16 places where something was read are
// kept as regions, and a read is given to the one that it continues:
//
//   exact    it begins where the region ends (or ends where it begins), or is its next record
//   dense    as near as its own length, or 64 KiB: the reader skipped little, or a request overtook another
//   late     inside what the region has passed: an overtaken request, or read again. Moves nothing; eight in a row and
//            the region no longer claims them, or a reader that turned round would never be seen
//   sparse   within max_gap and 16 times its own length. The length counts, because 4 KiB reads a MiB apart are not a
//            scan: fetching what lies between would cost 256 times what is asked for. Two equal distances: strided
//
// What was touched ahead of a stream, and passed over by it because the page cache has it, is joined with the stream when a
// read goes on behind it. Mapped files are read so: the C library's copy touches the last page first, and the kernel reads
// around each page that is touched.
//
// A read that fits nowhere begins a region, unless the starts of two others and its own are equally far apart: then it
// is the third record of a strided reader, however far the stride.
//
// Random reads fit by chance: 16 regions of 128 KiB claim 2 % of a 100 MiB file, and of sparse fits a third. What fits
// nowhere is counted as noise, and the more there is (up to 24) the more reads must agree before a region is believed
// (trigger_reads and up to 6 more), and sparse ones count for nothing. Measured in the tests: no stream in 100,000 random
// reads of 4 KiB in 1 GiB, and 16 interleaved readers are all known after 8 reads each.
//
//   unknown -- enough reads agreed --> forward | backward | strided -- stride broken, sparse, quiet, idle --> unknown
//
// Rejected: a pattern per thread (the protocol names the thread group, and faults come from any), bitmaps of the file (a
// stream in a 100 GiB file would need blocks so large that nothing is adjacent).
#include "cache/pattern.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "base/assert.h"
#include "base/limits.h"

namespace blobcache {

namespace {

constexpr uint8_t noise_max = 24;
constexpr uint8_t noise_random = 8;      // from here on a read that fits nowhere is called random
constexpr unsigned noise_per_read = 4;   // of noise, one more read has to agree
constexpr uint64_t sparse_lengths = 16;  // a gap of so many times the read is too much
constexpr unsigned late_max = 8;
constexpr int64_t records_overtaken_max = 8;
constexpr uint32_t quiet_reads = 64;  // of others: the stream is given up
constexpr uint32_t quiet_reads_min =
    8;  // and four times as many as usual lay between its reads: another may have its place
constexpr uint64_t offset_max = uint64_t{1} << 62;

uint64_t dense_gap(uint64_t bytes) { return std::max<uint64_t>(bytes, limits::block_bytes); }

uint8_t up(uint8_t count) { return count < UINT8_MAX ? static_cast<uint8_t>(count + 1) : count; }

}  // namespace

Pattern AccessPattern::on_read(uint64_t offset, uint64_t bytes, uint64_t now_ns, const PatternOptions& options) {
  BC_ASSERT(bytes > 0);
  if (offset >= offset_max || bytes >= offset_max) return {};
  std::unique_lock held(lock_, std::try_to_lock);
  if (!held) return {};
  if (reads_ != 0 && now_ns > last_ns_ && now_ns - last_ns_ > options.idle_timeout_ns) forget();
  last_ns_ = std::max(last_ns_, now_ns);
  ++reads_;
  Pattern pattern = place({offset, bytes}, options);
  // A stream that ended and began anew in the same read is said to have changed instead.
  if (pattern.stream != Pattern::no_stream) ended_ &= static_cast<uint8_t>(~(1u << pattern.stream));
  pattern.ended = ended_;
  ended_ = 0;
  return pattern;
}

Pattern AccessPattern::place(const Read& read, const PatternOptions& options) {
  Fit best = Fit::no;
  unsigned index = 0;
  for (unsigned i = 0; i < count_ && best != Fit::exact; ++i) {
    const Fit found = fit(regions_[i], read, options);
    if (found > best) {
      best = found;
      index = i;
    }
  }
  if (best == Fit::no) {
    end_quiet_streams(options);
    add_region(read, options);
  } else {
    if (best == Fit::exact) index = join(index, read);
    make_front(index);
    if (best == Fit::late) {
      regions_[0].late = up(regions_[0].late);
    } else if (is_strided(regions_[0], options)) {
      extend_strided(regions_[0], read);
    } else {
      extend(regions_[0], read);
    }
  }
  Region& region = regions_[0];
  Pattern pattern{.kind = kind_of(region, options), .late = best == Fit::late};
  if (pattern.kind == PatternKind::unknown) {
    end_stream(region);
    if (best == Fit::no && noise_ >= noise_random) pattern.kind = PatternKind::random;
    return pattern;
  }
  pattern.confidence = pattern.kind == PatternKind::strided ? region.equal : region.run;
  pattern.position = pattern.kind == PatternKind::forward ? region.high : region.low();
  if (pattern.kind == PatternKind::strided) {
    pattern.stride_bytes = region.stride_bytes();
    pattern.record_bytes = std::max(region.record_bytes, region.span);
  }
  name_stream(region, &pattern);
  return pattern;
}

AccessPattern::Fit AccessPattern::fit(const Region& region, const Read& read, const PatternOptions& options) const {
  if (is_strided(region, options)) {
    const Fit found = fit_strided(region, read);
    if (found != Fit::no) return found;
  }
  const uint64_t low = region.low();
  const bool ahead = read.offset >= region.high;
  const uint64_t gap = ahead ? read.offset - region.high : low - std::min(low, read.end());
  // A stream passed it by, and its request came late; unless they all lie there now.
  const bool wrong_side = ahead == static_cast<bool>(region.backward) && (ahead || read.end() <= low);
  if (region.run >= 3 && wrong_side && gap <= 4 * dense_gap(read.bytes) && region.late < late_max) return Fit::late;
  if (read.offset == region.high || read.end() == low) return Fit::exact;
  if (read.offset < region.high && read.end() > low) {
    if (read.end() > region.high || read.offset < low) return Fit::dense;  // overlaps an end
    const uint64_t behind = region.backward ? read.offset - low : region.high - read.end();
    return behind <= options.max_gap_bytes && region.late < late_max ? Fit::late : Fit::no;
  }
  if (gap > options.max_gap_bytes) return Fit::no;
  if (gap <= dense_gap(read.bytes)) return Fit::dense;
  return gap <= sparse_lengths * read.bytes ? Fit::sparse : Fit::no;
}

// The read lies in record k from here: 0 is the current one, a few ahead may have been overtaken, a few behind are late.
AccessPattern::Fit AccessPattern::fit_strided(const Region& region, const Read& read) const {
  const int64_t distance = static_cast<int64_t>(read.offset) - static_cast<int64_t>(region.low());
  const int64_t stride = std::abs(region.stride_bytes());
  int64_t record = distance / stride;
  if (record * stride > distance) --record;  // towards the record that begins before it
  const uint64_t within = static_cast<uint64_t>(distance - record * stride);
  if (region.stride < 0) record = -record;
  if (within + read.bytes > 2 * uint64_t{std::max(region.record_bytes, region.span)}) return Fit::no;
  if (record == 0) return read.end() > region.high ? Fit::exact : Fit::late;
  if (record > 0) return within == 0 && record <= records_overtaken_max ? Fit::exact : Fit::no;
  return -record <= records_overtaken_max && region.late < late_max ? Fit::late : Fit::no;
}

void AccessPattern::extend(Region& region, const Read& read) {
  const uint64_t low = region.low();
  const bool ahead = read.offset >= region.high || (read.offset >= low && read.end() > region.high);
  const uint64_t gap = ahead ? read.offset - std::min(read.offset, region.high) : low - std::min(low, read.end());
  region.late = 0;
  if (gap > dense_gap(read.bytes)) {
    step(region, read, static_cast<int64_t>(read.offset) - static_cast<int64_t>(low));
    return;
  }
  if (region.run >= 2 && ahead == static_cast<bool>(region.backward)) region.run = 1;  // it turned round
  region.backward = !ahead;
  region.run = up(region.run);
  calm();
  const uint64_t span = ahead ? read.end() - low : region.high - read.offset;
  if (ahead) region.high = read.end();
  if (!ahead && span > span_max) region.high = read.offset + span_max;
  region.span = static_cast<uint32_t>(std::min<uint64_t>(span, span_max));
}

// Over a gap. The second equal distance makes records of what was read in one piece.
void AccessPattern::step(Region& region, const Read& read, int64_t delta) {
  const bool whole = delta % stride_unit == 0 && std::abs(delta / stride_unit) <= INT32_MAX;
  const int32_t stride = whole ? static_cast<int32_t>(delta / stride_unit) : 0;
  const bool agrees = stride != 0 && stride == region.stride;
  region.equal = agrees ? up(region.equal) : uint8_t{stride != 0};
  region.stride = stride;
  // A single leap is a guess, and many are no reader that goes on.
  if (!agrees) disturb();
  region.run = noise_ < noise_random ? up(region.run) : std::max<uint8_t>(1, region.run / 2);
  region.record_bytes = region.span;
  region.backward = delta < 0;
  region.high = read.end();
  region.span = static_cast<uint32_t>(std::min<uint64_t>(read.bytes, span_max));
}

void AccessPattern::extend_strided(Region& region, const Read& read) {
  const uint64_t low = region.low();
  region.late = 0;
  calm();
  // Forward within its record, whichever way the stride goes.
  if (read.offset >= low && read.end() > region.high && read.offset - low < uint64_t{2} * region.record_bytes) {
    region.span = static_cast<uint32_t>(std::min<uint64_t>(read.end() - low, span_max));
    region.high = low + region.span;
    region.run = up(region.run);
    if (region.span > uint64_t{2} * region.record_bytes) region.stride = region.equal = 0;  // it reads on and on
    region.backward = 0;
    return;
  }
  const int64_t delta = static_cast<int64_t>(read.offset) - static_cast<int64_t>(low);
  if (delta % region.stride_bytes() != 0) {  // near, but not a record
    region.stride = region.equal = 0;
    extend(region, read);
    return;
  }
  region.equal = up(region.equal);
  region.record_bytes = region.span;
  region.run = 1;
  region.high = read.end();
  region.span = static_cast<uint32_t>(std::min<uint64_t>(read.bytes, span_max));
}

void AccessPattern::add_region(const Read& read, const PatternOptions& options) {
  disturb();
  if (follow_stride(read)) return;
  if (count_ == regions_max) remove(victim(options));
  std::move_backward(regions_.begin(), regions_.begin() + count_, regions_.begin() + count_ + 1);
  ++count_;
  regions_[0] = {.high = read.end(),
                 .span = static_cast<uint32_t>(std::min<uint64_t>(read.bytes, span_max)),
                 .record_bytes = 0,
                 .stride = 0,
                 .run = 1,
                 .equal = 0,
                 .late = 0,
                 .stream = none,
                 .backward = 0};
}

// Whether the read is the third of three equally spaced starts; then the nearer of the two others has become it.
bool AccessPattern::follow_stride(const Read& read) {
  const unsigned looked_at = std::min<unsigned>(count_, paired_regions_max);
  for (unsigned near = 0; near < looked_at; ++near) {
    const int64_t delta = static_cast<int64_t>(read.offset) - static_cast<int64_t>(regions_[near].low());
    if (delta == 0 || delta % stride_unit != 0 || std::abs(delta / stride_unit) > INT32_MAX) continue;
    if (static_cast<uint64_t>(std::abs(delta)) < read.bytes) continue;
    for (unsigned far = near + 1; far < looked_at; ++far) {
      if (static_cast<int64_t>(regions_[near].low()) - static_cast<int64_t>(regions_[far].low()) != delta) continue;
      Region& region = regions_[near];
      region.stride = static_cast<int32_t>(delta / stride_unit);
      region.equal = 2;
      region.late = 0;
      region.run = 1;
      region.record_bytes = region.span;
      region.high = read.end();
      region.span = static_cast<uint32_t>(std::min<uint64_t>(read.bytes, span_max));
      remove(far);  // behind `near`: its index stays
      make_front(near);
      return true;
    }
  }
  return false;
}

// The read goes on behind an island: the stream that has come up to it goes on here. Returns whose the read is.
unsigned AccessPattern::join(unsigned index, const Read& read) {
  const Region& island = regions_[index];
  if (island.stream != none || island.backward != 0 || read.offset != island.high) return index;
  for (unsigned i = 0; i < count_; ++i) {
    Region& region = regions_[i];
    if (region.stream == none || region.backward != 0 || told_[region.stream].kind != PatternKind::forward) continue;
    if (region.high < island.low() || region.high >= island.high) continue;
    region.span = static_cast<uint32_t>(std::min<uint64_t>(island.high - region.low(), span_max));
    region.high = island.high;
    remove(index);
    return i > index ? i - 1 : i;
  }
  return index;
}

void AccessPattern::make_front(unsigned index) {
  std::rotate(regions_.begin(), regions_.begin() + index, regions_.begin() + index + 1);
}

void AccessPattern::remove(unsigned index) {
  end_stream(regions_[index]);
  std::move(regions_.begin() + index + 1, regions_.begin() + count_, regions_.begin() + index);
  --count_;
}

// The least recently read; but while half of the regions are not believed, one of those, so that random reads do not
// push a stream out.
unsigned AccessPattern::victim(const PatternOptions& options) const {
  unsigned doubtful = 0;
  unsigned oldest = count_ - 1u;
  for (unsigned i = 0; i < count_; ++i) {
    if (kind_of(regions_[i], options) != PatternKind::unknown) continue;
    ++doubtful;
    oldest = i;
  }
  return doubtful >= regions_max / 2 ? oldest : count_ - 1u;
}

void AccessPattern::end_stream(Region& region) {
  if (region.stream == none) return;
  ended_ |= static_cast<uint8_t>(1u << region.stream);
  told_[region.stream] = {};
  region.stream = none;
}

// Silent for much longer than it used to be: of 16 readers each is silent for 16 reads, and one who goes from place to place
// leaves his streams behind.
bool AccessPattern::is_over(const Told& told) const {
  return reads_ - told.seen > std::min<uint32_t>(quiet_reads, quiet_reads_min + told.interval);
}

// Where others have read for long, and at random now, the stream has probably come to its end.
void AccessPattern::end_quiet_streams(const PatternOptions& options) {
  for (unsigned i = 0; i < count_; ++i) {
    Region& region = regions_[i];
    if (region.stream == none || reads_ - told_[region.stream].seen <= quiet_reads) continue;
    if (kind_of(region, options) == PatternKind::strided) region.equal = 0;
    region.run = 1;
    end_stream(region);
  }
}

bool AccessPattern::is_strided(const Region& region, const PatternOptions& options) const {
  if (region.stride == 0) return false;
  const unsigned needed = std::max(2u, std::min(options.trigger_reads, 200u) - 1u) + noise_ / noise_per_read;
  // What is a stream stays one whatever the others do.
  return region.equal >= needed ||
         (region.equal >= 2 && region.stream != none && told_[region.stream].kind == PatternKind::strided);
}

PatternKind AccessPattern::kind_of(const Region& region, const PatternOptions& options) const {
  if (is_strided(region, options)) return PatternKind::strided;
  const unsigned needed = std::min(options.trigger_reads, 200u);
  const bool known = region.stream != none && region.run >= needed;
  if (!known && region.run < needed + noise_ / noise_per_read) return PatternKind::unknown;
  return region.backward ? PatternKind::backward : PatternKind::forward;
}

void AccessPattern::name_stream(Region& region, Pattern* pattern) {
  if (region.stream == none) {
    // A free one, or the one that has been quiet for long.
    unsigned found = Pattern::streams_max;
    for (unsigned i = 0; i < Pattern::streams_max; ++i) {
      if (told_[i].kind == PatternKind::unknown) {
        found = i;
        break;
      }
      if (is_over(told_[i]) && (found == Pattern::streams_max || told_[i].seen < told_[found].seen)) found = i;
    }
    if (found == Pattern::streams_max) return;
    for (unsigned i = 0; i < count_; ++i) {
      if (regions_[i].stream == found) end_stream(regions_[i]);
    }
    region.stream = found & 7u;
  }
  Told& told = told_[region.stream];
  const int32_t stride = pattern->kind == PatternKind::strided ? region.stride : 0;
  pattern->stream = region.stream;
  pattern->changed = told.kind != pattern->kind || told.stride != stride;
  if (told.kind != PatternKind::unknown) {
    const uint32_t quarters = std::min<uint32_t>(interval_unit * (reads_ - told.seen), UINT8_MAX);
    told.interval = static_cast<uint8_t>((3 * told.interval + quarters) / 4);
  }
  told = {.kind = pattern->kind, .interval = told.interval, .stride = stride, .seen = reads_};
}

void AccessPattern::disturb() { noise_ = std::min<uint8_t>(static_cast<uint8_t>(noise_ + 1), noise_max); }

void AccessPattern::calm() {
  if (noise_ > 0) --noise_;
}

void AccessPattern::forget() {
  for (unsigned i = 0; i < count_; ++i) end_stream(regions_[i]);
  count_ = 0;
  noise_ = 0;
}

}  // namespace blobcache
