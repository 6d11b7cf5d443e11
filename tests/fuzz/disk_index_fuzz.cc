// Fuzzes the readers of index files, and what is done with the records they accept.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz disk_index_fuzz
//   Run    build/fuzz/tests/fuzz/disk_index_fuzz -max_len=65536 -rss_limit_mb=512 CORPUS_FOLDER
// The first byte chooses. Raw: the input is a log, or a snapshot, as it is: it hardly passes a checksum, so this is for
// the readers. Sealed: the input is cut into records, each given its right checksum and a type that exists, as a program
// gone wrong would write them: this is for the index. Invariants are the assertions of the program, and that a view shows
// no verified block that is not valid, none beyond the object, and none at all before a stamp was confirmed.
#include <cstdint>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "cache/disk_journal.h"

using namespace blobcache;
using disk_format::IndexFileHeader;
using disk_format::IndexFileKind;
using disk_format::IndexRecord;

namespace {

constexpr disk_format::Uuid disk{{1, 2}};

void check_view(DiskIndex& index, const IndexRecord& record) {
  DiskView view;
  if (!index.find({{record.id[0], record.id[1]}}, record.position, &view)) return;
  BC_ASSERT(view.size >= 1 && view.size <= disk_format::object_bytes_max);
  BC_ASSERT((view.verified & ~view.valid) == 0 && view.verified == 0 && !view.whole_verified);
  const uint64_t chunks = disk_format::index_chunks_of(view.size);
  const uint64_t possible = record.position < chunks ? disk_format::blocks_mask(view.size, record.position) : 0;
  BC_ASSERT((view.valid & ~possible) == 0);
  if (view.place.packed)
    BC_ASSERT(index.pinned_in_segment(0, view.place.segment) <= index.objects_in_segment(0, view.place.segment));
}

std::vector<IndexRecord> sealed(const uint8_t* data, size_t size, IndexFileKind kind) {
  const size_t count = size / sizeof(IndexRecord);
  std::vector<IndexRecord> file(count + 1);  // the header is of the same size
  IndexFileHeader header{.kind = static_cast<uint64_t>(kind),
                         .version = disk_format::version,
                         .record_bytes = sizeof(IndexRecord),
                         .disk = {disk.words[0], disk.words[1]},
                         .generation = 1,
                         .records = kind == IndexFileKind::snapshot ? count : 0};
  seal(header, disk);
  std::memcpy(file.data(), &header, sizeof header);
  for (size_t i = 0; i < count; ++i) {
    IndexRecord& record = file[i + 1];
    std::memcpy(&record, data + i * sizeof record, sizeof record);
    record.type = static_cast<uint8_t>(1 + record.type % disk_format::record_type_max);
    record.flags &= disk_format::flags_known;
    record.zero = 0;
    record.id[0] &= 7;  // few objects, so that records meet
    record.id[1] = 1;
    record.position &= 0x8000000f;
    seal(record, disk_format::record_seed(disk, kind, 1, i));
  }
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const IndexFileKind kind = (*data & 1) != 0 ? IndexFileKind::snapshot : IndexFileKind::log;
  const bool raw = (*data & 2) != 0;
  ++data;
  --size;
  std::vector<IndexRecord> file;
  if (!raw) {
    file = sealed(data, size, kind);
    data = reinterpret_cast<const uint8_t*>(file.data());
    size = file.size() * sizeof(IndexRecord);
  }
  const int fd = memfd_create("fuzz", MFD_CLOEXEC);
  BC_ASSERT(fd >= 0 && pwrite(fd, data, size, 0) == static_cast<ssize_t>(size));
  DiskIndex index;
  BC_ASSERT(index.allocate({.objects_max = 16, .chunks_max = 32, .segments_max = 8}));
  DiskRecordReader reader(fd, kind, disk);
  if (reader.read_header()) {
    while (const IndexRecord* record = reader.next()) {
      index.apply(0, *record);
      check_view(index, *record);
    }
  }
  BC_ASSERT(raw || reader.accepted() + 1 == file.size());
  std::vector<IndexRecord> copied;
  index.copy_segments(0, &copied);
  for (unsigned stripe = 0; stripe < DiskIndex::stripe_count; ++stripe) index.copy_stripe(0, stripe, &copied);
  // What was learned can be written and learned again.
  DiskIndex second;
  BC_ASSERT(second.allocate({.objects_max = 16, .chunks_max = 32, .segments_max = 8}));
  for (const IndexRecord& record : copied) BC_ASSERT(second.apply(0, record));
  for (const IndexRecord& record : copied) {
    if (record.type != static_cast<uint8_t>(disk_format::RecordType::segment)) continue;
    BC_ASSERT(second.pinned_in_segment(0, record.position) == index.pinned_in_segment(0, record.position));
  }
  BC_ASSERT(second.object_count() == index.object_count() && second.chunk_count() == index.chunk_count());
  close(fd);
  return 0;
}
