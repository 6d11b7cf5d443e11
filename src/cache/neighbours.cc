// Small files cost a round trip each, and their reader waits for every one. Who opens them in a known order will open the
// next ones too; who opens them shuffled must cost nothing.
//
// Two orders are known: that of the listing (find, scandir) and that of the names (sorted file lists). A file that is opened is
// looked for behind each stream; several readers, or one with several workers, are several streams.
//
// How many in order make a stream: by chance a shuffled reader continues one of eight streams with probability 8 in N, so four
// in a row happen once in 512 opens of a directory of 64 files; a smaller directory needs more (6 of 32, 10 of 16, below that
// none). Only where the first file that is opened is the first of all, two are enough (three below 32 files): that happens to
// one shuffled epoch in a thousand, and once.
//
// How far ahead: as many files as were in order so far, 16 or 4 MiB at most; topped up when half is left. Two opens that fit
// nowhere end the streams that have something ahead. Files above 1 MiB are none of this: their readers make windows.
//
// Nothing is foretold while what is opened is there already: a second epoch costs nothing.
#include "cache/neighbours.h"

#include <algorithm>
#include <numeric>

namespace blobcache {

namespace {

constexpr uint32_t run_min = 4;
constexpr uint8_t misses_max = 2;
constexpr uint8_t distrust_max = 4;
constexpr uint32_t trusted_run = 64;
constexpr std::string_view digits = "0123456789";

// Of "...A<number>-of-<number>...": where the first number begins, and how many digits both have.
struct ShardNumbers {
  size_t at = 0;
  size_t length = 0;  // 0: there are none
};

ShardNumbers shard_numbers(std::string_view name) {
  constexpr std::string_view between = "-of-";
  const size_t of = name.rfind(between);
  if (of == std::string_view::npos) return {};
  const size_t behind = of + between.size();
  const size_t behind_end = std::min(name.find_first_not_of(digits, behind), name.size());
  size_t at = of;
  while (at > 0 && digits.find(name[at - 1]) != std::string_view::npos) --at;
  const size_t length = of - at;
  if (length < 2 || length > 9 || behind_end - behind != length) return {};
  return {at, length};
}

}  // namespace

bool is_shard(std::string_view name) { return shard_numbers(name).length != 0; }

std::string next_shard(std::string_view name) {
  const ShardNumbers found = shard_numbers(name);
  if (found.length == 0) return {};
  const std::string_view number = name.substr(found.at, found.length);
  const std::string_view count = name.substr(found.at + found.length + 4, found.length);
  if (number >= count) return {};
  std::string next(name);
  for (size_t i = found.at + found.length; i-- > found.at;) {
    if (next[i] != '9') {
      ++next[i];
      break;
    }
    next[i] = '0';
  }
  return next;
}

bool DirectoryNames::add(std::string_view name) {
  if (count() == names_max) return false;
  begins_.push_back(static_cast<uint32_t>(text_.size()));
  text_.append(name);
  return true;
}

bool DirectoryNames::settle() {
  text_.shrink_to_fit();
  begins_.shrink_to_fit();
  bool sorted = true;
  for (uint32_t i = 1; sorted && i < count(); ++i) sorted = name(i - 1) < name(i);
  if (sorted) return true;
  if (count() > sorted_max) return false;
  by_name_.resize(count());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  std::sort(by_name_.begin(), by_name_.end(), [this](uint32_t a, uint32_t b) { return name(a) < name(b); });
  return true;
}

std::optional<DirectoryNames::Place> DirectoryNames::find(std::string_view wanted) const {
  uint32_t low = 0;
  uint32_t high = count();
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (at(FileOrder::by_name, middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == count() || at(FileOrder::by_name, low) != wanted) return std::nullopt;
  return Place{.listed = one_order() ? low : by_name_[low], .by_name = low};
}

void OpenOrder::distrust() {
  if (distrust_ < distrust_max) ++distrust_;
  for (Stream& stream : streams_) stream.number = 0;
}

uint32_t OpenOrder::run_needed(const Stream& stream, uint32_t count) const {
  uint32_t needed = count >= 64 ? run_min : count >= 32 ? 6 : count >= 16 ? 10 : UINT32_MAX >> distrust_max;
  if (stream.from_start) needed = count >= 32 ? 2 : 3;
  return needed << distrust_;
}

FilesAhead OpenOrder::on_open(const Opened& file) {
  ++opens_;
  FilesAhead ahead;
  Stream* stream = move(file);
  if (stream == nullptr) {
    // Foretold, and not in turn: its neighbours were faster.
    if (file.foretold) return ahead;
    miss(&ahead);
    begin(file);
    return ahead;
  }
  if (stream->run >= trusted_run) distrust_ = 0;
  if (stream->run < run_needed(*stream, file.count) || (!file.absent && !file.foretold)) return ahead;
  if (stream->mean_bytes > small_file_bytes_max) return ahead;
  const uint64_t fitting = bytes_ahead_max / std::max<uint64_t>(1, stream->mean_bytes);
  const uint32_t files =
      std::min({files_ahead_max, stream->run, static_cast<uint32_t>(std::min<uint64_t>(fitting, 64))});
  const uint32_t goal = std::min(file.count, stream->next + files);
  const uint32_t first = std::max(stream->issued, stream->next);
  if (goal <= first || (first > stream->next && first - stream->next > files / 2)) return ahead;
  stream->issued = goal;
  ahead.order = stream->order;
  ahead.first = first;
  ahead.end = goal;
  ahead.stream = stream->number;
  return ahead;
}

// The longest one that it continues.
OpenOrder::Stream* OpenOrder::move(const Opened& file) {
  Stream* moved = nullptr;
  for (Stream& stream : streams_) {
    const uint32_t position = stream.order == FileOrder::by_name ? file.place.by_name : file.place.listed;
    if (stream.number == 0 || position < stream.next) continue;
    if (position != stream.next && position >= stream.issued) continue;
    stream.next = position + 1;
    stream.issued = std::max(stream.issued, stream.next);
    ++stream.run;
    stream.misses = 0;
    stream.moved = opens_;
    stream.mean_bytes = (stream.mean_bytes * 3 + file.bytes) / 4;
    if (moved == nullptr || stream.run > moved->run) moved = &stream;
  }
  return moved;
}

void OpenOrder::miss(FilesAhead* ahead) {
  for (Stream& stream : streams_) {
    if (stream.number == 0 || stream.issued <= stream.next || ++stream.misses < misses_max) continue;
    ahead->stopped[ahead->stopped_count++] = stream.number;
    stream.number = 0;
  }
}

void OpenOrder::begin(const Opened& file) {
  begin_stream(file, FileOrder::by_name, file.place.by_name);
  if (!file.one_order) begin_stream(file, FileOrder::listed, file.place.listed);
}

// In the place of the one that moved longest ago.
void OpenOrder::begin_stream(const Opened& file, FileOrder order, uint32_t position) {
  Stream& stream = *std::min_element(streams_.begin(), streams_.end(), [](const Stream& a, const Stream& b) {
    return (a.number == 0 ? 0 : a.moved) < (b.number == 0 ? 0 : b.moved);
  });
  stream = {.number = ++numbers_,
            .order = order,
            .from_start = opens_ == 1 && position == 0,
            .next = position + 1,
            .issued = position + 1,
            .run = 1,
            .moved = opens_,
            .mean_bytes = file.bytes};
}

}  // namespace blobcache
