// Small objects are written many at a time, because a write costs a disk about the same at 8 KiB and at 128 KiB, and because a
// file each would cost the filesystem two inodes and a million names.
//
// An object is packed when all of it is in memory. It is copied, not written from its frames: they lie anywhere, and 4 KiB
// headers go between. The copy and its checksums cost about 0.2 ms per MiB, so they are made a turn after the reply (step()).
//
// A header is sealed with the segment and the page it will lie on. Both are known when the buffer is written, not before:
// that is when headers are sealed, and why items count their pages from the start of the buffer until then.
//
// Each core has a current segment of its own on each disk: nobody else writes to it, so its next free page is a plain
// number. A segment that is full is ended when every write into it has been told of, because its stamp is taken then. Two
// buffers may still be in flight into two old segments while a third is current; a fourth may wait for its keeper.
#include "cache/disk_packer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/assert.h"

namespace blobcache {
namespace {

constexpr uint64_t page_bytes = limits::page_bytes;
constexpr size_t buffer_bytes_min = 2 * limits::MiB;
constexpr uint64_t object_bytes_least = 2 * page_bytes;  // what an object of one byte takes in a segment

}  // namespace

struct DiskPacker::Segment {
  enum class State : uint8_t { none, asked, open, ending, ended };
  struct Ask : DiskNewSegmentJob {
    Segment* segment = nullptr;
  };
  struct End : DiskEndSegmentJob {
    Segment* segment = nullptr;
  };

  Disk* disk = nullptr;
  State state = State::none;
  DiskFile* file = nullptr;
  uint64_t next_page = 0;
  unsigned users = 0;  // buffers whose write into it is not told yet
  Ask ask;
  End end;
};

struct DiskPacker::Buffer : Op, ListNode {  // the node: among those that are ready
  enum class State : uint8_t { unused, filling, ready, writing, telling };
  struct FlushTimer : Timer {
    Buffer* buffer = nullptr;
  };
  struct Told : DiskPackedJob {
    Buffer* buffer = nullptr;
  };

  Buffer() : Op(&DiskPacker::on_written) {}

  Disk* disk = nullptr;
  State state = State::unused;
  std::byte* bytes = nullptr;
  uint64_t used_bytes = 0;  // reserved of the tier, too
  std::unique_ptr<DiskPackedItem[]> items;
  size_t item_count = 0;
  Segment* segment = nullptr;
  FlushTimer flush_timer;
  Told told;
};

struct DiskPacker::Disk {
  DiskPacker* packer = nullptr;
  uint8_t number = 0;
  Buffer buffers[buffers_per_disk];
  Buffer* filling = nullptr;
  List<Buffer> ready;
  Segment segments[segments_max];
  Segment* current = nullptr;
  Segment* asked = nullptr;
  bool end_wanted = false;

  bool quiet() const {
    return asked == nullptr &&
           std::ranges::all_of(buffers, [](const Buffer& buffer) { return buffer.state == Buffer::State::unused; });
  }
};

size_t DiskPacker::buffer_bytes(uint64_t chunk_bytes) {
  const uint64_t largest = disk_format::packed_pages(chunk_bytes) * page_bytes;
  return std::max<size_t>(buffer_bytes_min, largest);
}

size_t DiskPacker::state_bytes(unsigned disks, uint64_t chunk_bytes) {
  const size_t items = buffer_bytes(chunk_bytes) / object_bytes_least;
  return disks * (sizeof(Disk) + sizeof(Disk*) + buffers_per_disk * items * sizeof(DiskPackedItem));
}

DiskPacker::DiskPacker(const Options& options) : options_(options) {
  const unsigned disk_count = options_.tier->disk_count();
  if (disk_count == 0) return;
  buffer_bytes_ = options_.staging.size() / disk_count / buffers_per_disk / page_bytes * page_bytes;
  BC_ASSERT(buffer_bytes_ >= buffer_bytes_min &&
            reinterpret_cast<uintptr_t>(options_.staging.data()) % page_bytes == 0);
  std::byte* bytes = options_.staging.data();
  for (unsigned number = 0; number < disk_count; ++number) {
    auto disk = std::make_unique<Disk>();
    disk->packer = this;
    disk->number = static_cast<uint8_t>(number);
    for (Buffer& buffer : disk->buffers) {
      buffer.disk = disk.get();
      buffer.bytes = bytes;
      buffer.items = std::make_unique<DiskPackedItem[]>(buffer_bytes_ / object_bytes_least);
      buffer.flush_timer.handler = &on_flush_due;
      buffer.flush_timer.buffer = &buffer;
      buffer.told.on_done = &on_told;
      buffer.told.buffer = &buffer;
      bytes += buffer_bytes_;
    }
    for (Segment& segment : disk->segments) {
      segment.disk = disk.get();
      segment.ask.on_done = &on_segment;
      segment.end.on_done = &on_segment_ended;
      segment.ask.segment = segment.end.segment = &segment;
    }
    disks_.push_back(std::move(disk));
  }
}

// A segment that is still current was not flushed: without a stamp its objects are verified anew after a restart.
DiskPacker::~DiskPacker() {
  BC_ASSERT(idle());
  for (const std::unique_ptr<Disk>& disk : disks_) {
    if (disk->current != nullptr) options_.tier->release(*disk->current->file);
  }
}

bool DiskPacker::known(const ObjectId& id) const {
  DiskView view;
  if (options_.tier->find(id, 0, &view)) return true;
  for (unsigned i = 0; i < queue_count_; ++i) {
    if (queue_[(queue_first_ + i) % queue_max].id == id) return true;
  }
  for (const std::unique_ptr<Disk>& disk : disks_) {
    for (const Buffer& buffer : disk->buffers) {
      for (size_t i = 0; i < buffer.item_count; ++i) {
        if (buffer.items[i].id == id) return true;
      }
    }
  }
  return false;
}

bool DiskPacker::add(const ObjectId& id, uint64_t object_bytes) {
  BC_ASSERT(object_bytes > 0 && object_bytes <= disk_format::packed_bytes_max);
  if (disks_.empty() || known(id) || !options_.memory->holds(id, 0, object_bytes)) return false;
  if (queue_count_ == queue_max) {
    options_.tier->on_shed(id, disk_format::packed_pages(object_bytes) * page_bytes);
    return false;
  }
  queue_[(queue_first_ + queue_count_++) % queue_max] = {id, object_bytes};
  return true;
}

void DiskPacker::step() {
  if (!has_work()) return;
  const Object object = queue_[queue_first_];
  queue_first_ = (queue_first_ + 1) % queue_max;
  --queue_count_;
  if (stage(object)) return;
  queue_first_ = (queue_first_ + queue_max - 1) % queue_max;
  ++queue_count_;
  waits_for_room_ = true;
}

// False: its disk's buffers are in use, and it stays where it is.
bool DiskPacker::stage(const Object& object) {
  const int number = options_.tier->disk_for(object.id);
  if (known(object.id)) return true;
  const uint64_t bytes = disk_format::packed_pages(object.bytes) * page_bytes;
  const bool fits =
      number >= 0 &&
      bytes <= std::min<uint64_t>(buffer_bytes_, options_.tier->segment_bytes(static_cast<unsigned>(number)));
  if (!fits) {
    options_.tier->on_shed(object.id, bytes);
    return true;
  }
  Disk& disk = *disks_[static_cast<unsigned>(number)];
  Buffer* buffer = buffer_for(disk, bytes);
  if (buffer == nullptr) return false;
  const bool pinned = options_.tier->awaits_pins(disk.number);
  if (!options_.tier->begin_write(disk.number, bytes, pinned ? DiskSpace::For::pinned : DiskSpace::For::any))
    return true;
  if (!copy(*buffer, object)) {
    options_.tier->abandon_write(disk.number, bytes, 0);
    return true;
  }
  if (buffer->state == Buffer::State::unused) {
    buffer->state = Buffer::State::filling;
    disk.filling = buffer;
    options_.reactor->arm(buffer->flush_timer, flush_ns);
  }
  buffer->used_bytes += bytes;
  // Asked for early, so that it is there when the buffer is to be written; if it cannot be, write() asks again.
  if (disk.current == nullptr && disk.asked == nullptr) (void)ask_segment(disk);
  return true;
}

// Where an object that fits into an empty one goes; null: both are in use.
DiskPacker::Buffer* DiskPacker::buffer_for(Disk& disk, uint64_t bytes) {
  const uint64_t capacity = std::min<uint64_t>(buffer_bytes_, options_.tier->segment_bytes(disk.number));
  if (disk.filling != nullptr && disk.filling->used_bytes + bytes > capacity) write(*disk.filling);
  if (disk.filling != nullptr) return disk.filling;
  for (Buffer& buffer : disk.buffers) {
    if (buffer.state == Buffer::State::unused) return &buffer;
  }
  return nullptr;
}

// Header and bytes behind what the buffer has. False: memory does not hold the object any more.
bool DiskPacker::copy(Buffer& buffer, const Object& object) {
  std::byte* at = buffer.bytes + buffer.used_bytes;
  std::byte* data = at + page_bytes;
  const auto now_s = static_cast<uint32_t>(options_.reactor->now_ns() / 1'000'000'000);
  if (!options_.memory->try_copy(object.id, 0, static_cast<uint32_t>(object.bytes), data, now_s)) return false;
  const size_t padding = (page_bytes - object.bytes % page_bytes) % page_bytes;
  std::memset(data + object.bytes, 0, padding);
  auto* header = new (at) disk_format::PackedHeader{};
  header->id[0] = object.id.words[0];
  header->id[1] = object.id.words[1];
  header->size = object.bytes;
  for (uint64_t offset = 0; offset < object.bytes; offset += limits::block_bytes) {
    const size_t bytes = std::min<uint64_t>(limits::block_bytes, object.bytes - offset);
    header->block_checksums[header->block_count++] = disk_format::block_checksum({data + offset, bytes});
  }
  buffer.items[buffer.item_count++] = {
      .id = object.id, .size = object.bytes, .page = static_cast<uint32_t>(buffer.used_bytes / page_bytes)};
  return true;
}

void DiskPacker::on_flush_due(Timer& timer) {
  Buffer& buffer = *static_cast<Buffer::FlushTimer&>(timer).buffer;
  buffer.disk->packer->write(buffer);
}

void DiskPacker::write(Buffer& buffer) {
  Disk& disk = *buffer.disk;
  BC_ASSERT(buffer.state == Buffer::State::filling && disk.filling == &buffer);
  if (buffer.flush_timer.armed()) options_.reactor->cancel(buffer.flush_timer);
  disk.filling = nullptr;
  buffer.state = Buffer::State::ready;
  disk.ready.push_back(buffer);
  advance(disk);
}

// Starts what is ready as far as segments allow, and ends the current segment when that is wanted and nothing else goes on.
void DiskPacker::advance(Disk& disk) {
  while (Buffer* buffer = disk.ready.front()) {
    Segment* current = disk.current;
    if (current != nullptr &&
        (current->file->gone.load(std::memory_order_acquire) ||
         current->next_page * page_bytes + buffer->used_bytes > options_.tier->segment_bytes(disk.number))) {
      disk.current = nullptr;
      end_segment(*current);
    }
    if (disk.current == nullptr) {
      if (disk.asked != nullptr || ask_segment(disk)) return;
      buffer->unlink();
      discard(*buffer, 0);
      continue;
    }
    buffer->unlink();
    start(*buffer, *disk.current);
  }
  if (!disk.end_wanted || !disk.quiet()) return;
  disk.end_wanted = false;
  if (disk.current == nullptr) return;
  Segment* last = disk.current;
  disk.current = nullptr;
  end_segment(*last);
}

void DiskPacker::start(Buffer& buffer, Segment& segment) {
  const auto first_page = static_cast<uint32_t>(segment.next_page);
  segment.next_page += buffer.used_bytes / page_bytes;
  ++segment.users;
  for (size_t i = 0; i < buffer.item_count; ++i) {
    DiskPackedItem& item = buffer.items[i];
    auto* header =
        std::launder(reinterpret_cast<disk_format::PackedHeader*>(buffer.bytes + uint64_t{item.page} * page_bytes));
    item.page += first_page;
    disk_format::seal(*header, disk_format::packed_place(segment.file->segment, item.page));
  }
  buffer.segment = &segment;
  buffer.state = Buffer::State::writing;
  segment.file->writing.fetch_add(1, std::memory_order_seq_cst);
  const FileRef file = FileRef::fd(segment.file->fd);
  const ReadRange range{.offset = uint64_t{first_page} * page_bytes, .bytes = static_cast<uint32_t>(buffer.used_bytes)};
  Sqe& sqe = options_.reactor->prepare(buffer);
  if (options_.staging_buffer_index >= 0)
    prep_write_fixed(sqe, file, buffer.bytes, range, static_cast<unsigned>(options_.staging_buffer_index));
  else
    prep_write(sqe, file, buffer.bytes, range);
}

void DiskPacker::on_written(Op& op, int32_t result, uint32_t) {
  auto& buffer = static_cast<Buffer&>(op);
  DiskPacker& self = *buffer.disk->packer;
  DiskFile& file = *buffer.segment->file;
  file.writing.fetch_sub(1, std::memory_order_seq_cst);
  const bool whole = result >= 0 && static_cast<uint64_t>(result) == buffer.used_bytes;
  if (!whole || file.gone.load(std::memory_order_acquire)) {
    // A short direct write is one that found no more room.
    const int os_errno = whole ? 0 : result < 0 ? -result : ENOSPC;
    self.leave_segment(buffer);
    self.discard(buffer, os_errno, true);
    self.advance(*buffer.disk);
    return;
  }
  buffer.state = Buffer::State::telling;
  buffer.told.disk = buffer.disk->number;
  buffer.told.file = &file;
  buffer.told.items = {buffer.items.get(), buffer.item_count};
  buffer.told.reserved_bytes = buffer.used_bytes;
  buffer.told.failed = false;
  self.options_.tier->post(*self.options_.reactor, buffer.told);
}

void DiskPacker::on_told(DiskJob& job) {
  Buffer& buffer = *static_cast<Buffer::Told&>(job).buffer;
  DiskPacker& self = *buffer.disk->packer;
  self.leave_segment(buffer);
  self.set_free(buffer);
  self.advance(*buffer.disk);
}

void DiskPacker::leave_segment(Buffer& buffer) {
  Segment& segment = *buffer.segment;
  buffer.segment = nullptr;
  BC_ASSERT(segment.users > 0);
  --segment.users;
  if (segment.state == Segment::State::ending) end_segment(segment);
}

void DiskPacker::discard(Buffer& buffer, int os_errno, bool written) {
  options_.tier->abandon_write(buffer.disk->number, buffer.used_bytes, os_errno, written);
  set_free(buffer);
}

void DiskPacker::set_free(Buffer& buffer) {
  buffer.state = Buffer::State::unused;
  buffer.used_bytes = 0;
  buffer.item_count = 0;
  if (!waits_for_room_) return;
  waits_for_room_ = false;
  options_.on_room(options_.on_room_context);
}

// False: the keeper still has as many as we may have.
bool DiskPacker::ask_segment(Disk& disk) {
  for (Segment& segment : disk.segments) {
    if (segment.state != Segment::State::none) continue;
    segment.state = Segment::State::asked;
    disk.asked = &segment;
    segment.ask.disk = disk.number;
    segment.ask.failed = false;
    segment.ask.file = nullptr;
    options_.tier->post(*options_.reactor, segment.ask);
    return true;
  }
  return false;
}

void DiskPacker::on_segment(DiskJob& job) {
  auto& ask = static_cast<Segment::Ask&>(job);
  Segment& segment = *ask.segment;
  Disk& disk = *segment.disk;
  DiskPacker& self = *disk.packer;
  disk.asked = nullptr;
  if (ask.failed) {
    // The keeper knows why. What waits is let go: a disk that gives no file takes no bytes either.
    segment.state = Segment::State::none;
    while (Buffer* buffer = disk.ready.pop_front()) self.discard(*buffer, 0);
  } else {
    BC_ASSERT(ask.file != nullptr && ask.file->packed && disk.current == nullptr);
    segment.state = Segment::State::open;
    segment.file = ask.file;
    segment.next_page = 0;
    disk.current = &segment;
  }
  self.advance(disk);
}

void DiskPacker::end_segment(Segment& segment) {
  BC_ASSERT(segment.disk->current != &segment);
  segment.state = Segment::State::ending;
  if (segment.users > 0) return;
  segment.state = Segment::State::ended;
  segment.end.disk = segment.disk->number;
  segment.end.file = segment.file;
  segment.end.failed = false;
  segment.file = nullptr;
  options_.tier->post(*options_.reactor, segment.end);
}

void DiskPacker::on_segment_ended(DiskJob& job) {
  Segment& segment = *static_cast<Segment::End&>(job).segment;
  segment.state = Segment::State::none;
  segment.disk->packer->advance(*segment.disk);
}

void DiskPacker::flush() {
  while (has_work()) step();
  for (const std::unique_ptr<Disk>& disk : disks_) {
    disk->end_wanted = true;
    if (disk->filling != nullptr)
      write(*disk->filling);
    else
      advance(*disk);
  }
}

bool DiskPacker::idle() const {
  const auto settled = [](const std::unique_ptr<Disk>& disk) {
    return disk->quiet() && !disk->end_wanted && std::ranges::all_of(disk->segments, [](const Segment& segment) {
             return segment.state == Segment::State::none || segment.state == Segment::State::open;
           });
  };
  return queue_count_ == 0 && std::ranges::all_of(disks_, settled);
}

}  // namespace blobcache
