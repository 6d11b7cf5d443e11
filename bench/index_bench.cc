// index_bench: the index of the disk tier at sizes that a test run does not reach (P15, P20).
//   index_bench lookup OBJECTS COPY_BYTES  p50 and p99 of DiskIndex::find in ns, over random objects that are there. So
//                                          many bytes are copied between two lookups, as serving a request does: it takes
//                                          the index out of the processor's caches at every size, also where it would fit.
//                                          Behind them the same of one load from as much plain memory: what the machine
//                                          takes for itself
//   index_bench memory OBJECTS CHUNKS      bytes of memory a chunk for so many objects of so many chunks each
//   index_bench grow DIRECTORY CHUNKS      adds so many chunks to an existing cache directory, which nobody may use now:
//                                          objects of 16 chunks in sparse files, one block valid in each chunk
// Everything is made by the classes that the daemon uses. Output: numbers on one line.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "cache/disk_directory.h"
#include "cache/disk_index.h"
#include "cache/disk_journal.h"

namespace {

using namespace blobcache;

constexpr uint64_t chunks_per_object = 16;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "index_bench: %s\n", what.c_str());
  std::exit(1);
}

template <class R>
void need(const R& result, const char* what) {
  if (!result) die(what);
}

uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// Uniform, as SHA-256 is, and made in a nanosecond.
ObjectId id_of(uint64_t number) {
  ObjectId id;
  id.words[0] = mix(number * 0x9e3779b97f4a7c15u + 1);
  id.words[1] = mix(id.words[0] + number);
  return id;
}

void add_objects(DiskIndex& index, uint64_t objects, uint64_t chunks, uint64_t blocks) {
  for (uint64_t number = 0; number < objects; ++number) {
    const ObjectId id = id_of(number);
    need(index.add({.id = id, .size = chunks * disk_format::index_chunk_bytes}), "the index is full");
    for (uint64_t position = 0; position < chunks; ++position) {
      need(index.add_valid(id, position, blocks), "the index is full");
      need(index.mark_verified(id, position, blocks), "a block cannot be marked");
    }
  }
}

std::unique_ptr<DiskIndex> new_index(uint64_t objects, uint64_t chunks) {
  auto index = std::make_unique<DiskIndex>();
  need(index->allocate({.objects_max = static_cast<uint32_t>(objects), .chunks_max = static_cast<uint32_t>(chunks)}),
       "no memory for the index");
  return index;
}

// What lies between two requests, and how long each of many calls took. The bytes come from huge pages, as the daemon's
// memory is. One more round first: pages and branch predictors are warm at every size alike.
template <class Call>
std::vector<uint32_t> timed_calls(uint64_t copy_bytes, Call&& call) {
  const uint64_t count = copy_bytes > 0 ? 100'000 : 1'000'000;
  Arena arena;
  need(arena.allocate(256 << 20), "no memory to copy from");
  const std::span<std::byte> bytes = arena.bytes();
  std::memset(bytes.data(), 1, bytes.size());
  std::vector<std::byte> payload(copy_bytes + 1);
  std::vector<uint32_t> times_ns;
  times_ns.reserve(count);
  for (unsigned round = 0; round < 2; ++round) {
    times_ns.clear();
    for (uint64_t i = 0; i < count; ++i) {
      std::memcpy(payload.data(), bytes.data() + mix(i) % (bytes.size() - copy_bytes), copy_bytes);
      asm volatile("" : : "r"(payload.data()) : "memory");
      times_ns.push_back(call(mix(i + round)));
    }
  }
  std::ranges::sort(times_ns);
  return times_ns;
}

template <class F>
uint32_t nanoseconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return static_cast<uint32_t>((std::chrono::steady_clock::now() - start).count());
}

void print_quantiles(const std::vector<uint32_t>& times_ns, const char* end) {
  std::printf("%u %u%s", times_ns[times_ns.size() / 2], times_ns[times_ns.size() * 99 / 100], end);
}

int lookup(uint64_t objects, uint64_t copy_bytes) {
  uint64_t bytes = 0;
  {
    const auto index = new_index(objects, 0);
    add_objects(*index, objects, 1, 1);
    bytes = index->memory_bytes();
    print_quantiles(timed_calls(copy_bytes,
                                [&](uint64_t number) {
                                  const ObjectId id = id_of(number % objects);
                                  DiskView view;
                                  bool found = false;
                                  const uint32_t time_ns = nanoseconds_of([&] { found = index->find(id, 0, &view); });
                                  if (!found || view.verified != 1) die("an object that was added is not found");
                                  return time_ns;
                                }),
                    " ");
  }
  Arena plain;  // on huge pages, as the tables of the index are
  need(plain.allocate(bytes), "no memory to load from");
  const volatile std::byte* loads = plain.bytes().data();
  print_quantiles(timed_calls(copy_bytes,
                              [&](uint64_t number) {
                                return nanoseconds_of([&] {
                                  (void)loads[number % bytes];
                                  asm volatile("" : : : "memory");
                                });
                              }),
                  "\n");
  return 0;
}

int memory(uint64_t objects, uint64_t chunks) {
  const auto index = new_index(objects, objects * (chunks - 1));
  add_objects(*index, objects, chunks, 1);
  std::printf("%.2f\n", static_cast<double>(index->memory_bytes()) / static_cast<double>(objects * chunks));
  return 0;
}

disk_format::FormatFile format_of(const std::string& directory) {
  std::ifstream in(directory + "/FORMAT", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const Result<disk_format::FormatFile> format = disk_format::parse_format(text);
  need(format, "this is no cache directory");
  return *format;
}

// A sparse file of the object's size, and its stamp.
disk_format::FileStamp make_file(const std::string& directory, const ObjectId& id, const disk_format::Uuid& boot) {
  const std::string path = directory + "/" + disk_format::object_path(id);
  mkdir(std::filesystem::path(path).parent_path().c_str(), 0700);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, chunks_per_object * disk_format::index_chunk_bytes) != 0) die("cannot make " + path);
  const Result<disk_format::FileStamp> stamp = stamp_of_file(fd, boot);
  need(stamp, "a file has no stamp");
  close(fd);
  return *stamp;
}

int grow(const std::string& path, uint64_t chunks) {
  const disk_format::FormatFile format = format_of(path);
  DiskDirectory directory;
  std::string message;
  if (!directory.open({.path = path, .node = format.node}, &message)) die(message);
  const uint64_t objects = chunks / chunks_per_object;
  const auto index = new_index(objects + 1000, chunks + 1000);
  DiskJournal journal(*index, {.index_fd = directory.index_fd(), .disk_uuid = directory.disk()});
  need(journal.load(), "the index cannot be loaded");
  const Result<disk_format::Uuid> boot = boot_id();
  need(boot, "no boot id");
  for (uint64_t number = 0; number < objects; ++number) {
    const ObjectId id = id_of(number);
    const disk_format::FileStamp stamp = make_file(path, id, *boot);
    need(index->add({.id = id, .size = chunks_per_object * disk_format::index_chunk_bytes}), "the index is full");
    for (uint64_t position = 0; position < chunks_per_object; ++position) {
      need(index->add_valid(id, position, 1), "the index is full");
    }
    need(index->record_stamp(id, stamp, false), "a stamp cannot be recorded");
    if (number % 512 == 0) need(journal.flush(), "the journal cannot be written");
  }
  need(journal.flush(), "the journal cannot be written");
  for (bool more = true; more;) {
    const Result<bool> step = journal.step_snapshot();
    need(step, "a snapshot cannot be made");
    more = *step;
  }
  need(journal.stop(), "the journal cannot be ended");
  std::printf("%lu\n", static_cast<unsigned long>(objects * chunks_per_object));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const auto number = [&](int index) { return std::strtoull(argv[index], nullptr, 10); };
  if (command == "lookup" && argc == 4) return lookup(number(2), number(3));
  if (command == "memory" && argc == 4) return memory(number(2), number(3));
  if (command == "grow" && argc == 4) return grow(argv[2], number(3));
  std::fprintf(stderr, "index_bench: see the head of index_bench.cc\n");
  return 2;
}
