#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include <dirent.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include "ring/uring.h"
#include "serve/content.h"
#include "unit/cache/disk_fixture.h"
#include "unit/origin/posix_fixture.h"

using namespace blobcache;
using blobcache_test::Waited;
using limits::MiB;

namespace {

constexpr unsigned cqes = 256;

std::string random_bytes(size_t bytes, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// A store, its volume's origin, and a core.
struct Rig {
  test::TempFolder folder;
  serve::Content content;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Origin> origin;

  Rig() {
    std::string message;
    REQUIRE(content.open({{.path = folder.path(), .limit_bytes = 64 * MiB}}, 1000, &message).has_value());
    content.start();
    auto ring = create_uring({.sqes = 64, .cqes = cqes});
    REQUIRE(ring.has_value());
    reactor = std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.cqes = cqes});
    VolumeConfig volume;
    volume.file_mode = 0444;
    volume.dir_mode = 0555;
    origin = create_blobs_origin(content, volume);
  }
  ~Rig() {
    origin->stop();
    CHECK(origin->join(10'000));
    content.stop();
    CHECK(content.join(10'000));
    for (unsigned turns = 0; turns < 10; ++turns) reactor->turn(false);  // what the helpers brought
  }

  std::string put(std::string_view text, const BlobLife& life = {}) {
    auto writer = content.store().begin_put({.expected = {}, .bytes = text.size(), .life = life});
    REQUIRE(writer.has_value());
    REQUIRE((*writer)->append(std::as_bytes(std::span(text))).has_value());
    const auto stored = (*writer)->finish();
    REQUIRE(stored.has_value());
    if (life.ttl_s != 0) content.note_put();
    return to_hex(stored->info.id);
  }
  template <class Call>
  void wait(Waited<Call>& call) {
    while (call.times_done == 0) reactor->turn(true);
    CHECK(call.times_done == 1);
  }
  std::unique_ptr<Waited<LookupCall>> lookup(const std::string& key) {
    auto call = std::make_unique<Waited<LookupCall>>();
    call->key = key;
    origin->begin_lookup(*reactor, *call);
    wait(*call);
    return call;
  }
  std::unique_ptr<Waited<OpenCall>> open(const std::string& key) {
    auto call = std::make_unique<Waited<OpenCall>>();
    call->key = key;
    origin->begin_open(*reactor, *call);
    wait(*call);
    return call;
  }
  // The whole of an open blob in one read.
  Result<std::string> read(const OpenCall& opened) {
    PageBuffer buffer(8 * MiB);
    Waited<ReadCall> call;
    call.version = opened.info.version;
    call.fd = opened.fd;
    call.bytes = static_cast<uint32_t>(opened.info.attributes.size);
    call.to = buffer.data();
    origin->begin_read(*reactor, call);
    wait(call);
    if (call.failed) return std::unexpected(call.error);
    return std::string(reinterpret_cast<const char*>(buffer.data()), call.bytes);
  }
  std::vector<std::string> list(uint32_t entries_max) {
    std::vector<std::string> names;
    Waited<ListCall> call;
    call.fd = open("")->fd;
    call.entries_max = entries_max;
    while (true) {
      call.times_done = 0;
      origin->begin_list(*reactor, call);
      wait(call);
      REQUIRE(!call.failed);
      REQUIRE(call.entries.size() <= entries_max);
      if (call.entries.empty()) return names;
      for (const DirectoryEntry& entry : call.entries) {
        CHECK(entry.type == DT_REG);
        CHECK(entry.has_info);
        CHECK(entry.next_offset > call.offset);
        CHECK(entry.next_offset <= uint64_t{INT64_MAX});
        names.push_back(entry.name);
      }
      call.offset = call.entries.back().next_offset;
    }
  }
};

}  // namespace

TEST_CASE("the volume shows blobs by their ids and nothing else") {
  Rig rig;
  const std::string text = random_bytes(5 * MiB + 4321, 1);
  const std::string id = rig.put(text);
  const auto found = rig.lookup(id);
  REQUIRE(!found->failed);
  CHECK(found->info.attributes.size == text.size());
  CHECK(found->info.attributes.mode == (S_IFREG | 0444));
  std::string upper = id;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  for (const std::string& key : {upper, id.substr(1), id + "0", "ab/" + id, std::string("staging"),
                                 std::string("../FORMAT"), std::string(64, '0'), std::string("aside/") + id}) {
    CAPTURE(key);
    CHECK(rig.lookup(key)->failed);
    CHECK(rig.lookup(key)->error.code == Code::not_found);
    CHECK(rig.open(key)->failed);
  }
  const auto opened = rig.open(id);
  REQUIRE(!opened->failed);
  CHECK((rig.read(*opened).value_or("an error") == text));
  // Who has it open goes on when it is removed, and nobody else finds it.
  REQUIRE(rig.content.store().remove(*parse_blob_id(id), false).has_value());
  CHECK(rig.lookup(id)->failed);
  CHECK((rig.read(*opened).value_or("an error") == text));
  rig.origin->close(*rig.reactor, opened->fd);
}

TEST_CASE("a listing has every blob once, however small its pages") {
  Rig rig;
  std::vector<std::string> ids;
  const auto empty = rig.lookup("")->info.attributes.mtime;
  for (unsigned i = 0; i < 40; ++i) ids.push_back(rig.put("blob " + std::to_string(i)));
  std::sort(ids.begin(), ids.end());
  for (const uint32_t entries_max : {1u, 7u, 1000u}) CHECK(rig.list(entries_max) == ids);
  // A listing that the kernel keeps is dropped when this changes.
  const auto full = rig.lookup("")->info.attributes.mtime;
  CHECK(full != empty);
  REQUIRE(rig.content.store().remove(*parse_blob_id(ids[20]), false).has_value());
  CHECK(rig.lookup("")->info.attributes.mtime != full);
  ids.erase(ids.begin() + 20);
  CHECK(rig.list(3) == ids);
}

TEST_CASE("a damaged blob is an error for its reader and gone for the next") {
  Rig rig;
  const std::string text = random_bytes(2 * MiB, 2);
  const std::string id = rig.put(text);
  const auto opened = rig.open(id);
  REQUIRE(!opened->failed);
  const std::string path = rig.folder / ("blobs/" + blob_format::blob_path(*parse_blob_id(id)));
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  REQUIRE(pwrite(fd, text[MiB] == 'x' ? "y" : "x", 1, MiB) == 1);
  close(fd);
  const Result<std::string> read = rig.read(*opened);
  REQUIRE(!read.has_value());
  CHECK(read.error().code == Code::corrupt);
  CHECK(rig.lookup(id)->failed);
  rig.origin->close(*rig.reactor, opened->fd);
}

TEST_CASE("what has expired leaves the disk without being asked for") {
  Rig rig;
  const std::string id = rig.put("short", {.ttl_s = 1});
  const std::string path = rig.folder / ("blobs/" + blob_format::blob_path(*parse_blob_id(id)));
  CHECK(std::filesystem::exists(path));
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (std::filesystem::exists(path) && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  CHECK(!std::filesystem::exists(path));
  CHECK(rig.lookup(id)->failed);
}

TEST_CASE("every refusal of a put is one sentence with a remedy") {
  Rig rig;
  const auto full = rig.content.store().begin_put({.expected = {}, .bytes = 100 * MiB, .life = {}});
  REQUIRE(!full.has_value());
  CHECK(rig.content.put_problem(full.error()).find("cache.blobs_reserved") != std::string::npos);
  for (const Code code : {Code::corrupt, Code::again, Code::stopping, Code::full, Code::io}) {
    const std::string sentence = rig.content.put_problem({code, code == Code::io ? EIO : 0});
    CHECK(sentence.size() > 20);
    CHECK(sentence.find('\n') == std::string::npos);
  }
}
