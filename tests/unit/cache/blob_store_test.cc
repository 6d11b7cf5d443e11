#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include "cache/blob_reader.h"
#include "cache/blob_store.h"
#include "cache/blob_writer.h"
#include "unit/cache/disk_fixture.h"

using namespace blobcache;
using limits::KiB;
using limits::MiB;
using test::TempFolder;
namespace fs = std::filesystem;

namespace {

std::atomic<int64_t> clock_s{1'000'000};

std::string random_bytes(size_t bytes, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

BlobId id_of(std::string_view text) {
  BlobHash hash;
  hash.add(std::as_bytes(std::span(text)));
  return hash.finish();
}

struct Rig {
  TempFolder folder;
  std::unique_ptr<BlobStore> store;
  BlobStore::Options options{.disks = {{.path = folder.path(), .limit_bytes = 256 * MiB}},
                             .blobs_max = 1000,
                             .now_s = [] { return clock_s.load(); }};

  Rig() { reopen(); }
  void reopen() {
    store.reset();
    store = std::make_unique<BlobStore>();
    std::string message;
    const Result<void> opened = store->open(options, &message);
    REQUIRE_MESSAGE(opened.has_value(), message);
  }
  std::string path_of(const BlobId& id) const { return folder / ("blobs/" + blob_format::blob_path(id)); }
  std::string aside_of(const BlobId& id) const { return folder / ("blobs/aside/" + to_hex(id)); }
  uint64_t puts(PutOutcome outcome) const { return store->facts().puts[static_cast<unsigned>(outcome)]; }
  size_t staged() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder / "blobs/staging"), {}));
  }

  Result<BlobWriter::Stored> put(std::string_view text, const BlobStore::Put& put = {}, size_t piece = 100'000) {
    Result<std::unique_ptr<BlobWriter>> writer = store->begin_put(put);
    if (!writer) return std::unexpected(writer.error());
    while (!text.empty()) {
      const auto part = text.substr(0, piece);
      if (const Result<void> added = (*writer)->append(std::as_bytes(std::span(part))); !added) {
        return std::unexpected(added.error());
      }
      text.remove_prefix(part.size());
    }
    return (*writer)->finish();
  }
  Result<std::string> get(const BlobId& id) {
    Result<std::unique_ptr<BlobReader>> reader = store->open_blob(id);
    if (!reader) return std::unexpected(reader.error());
    return read_all(**reader);
  }
  static Result<std::string> read_all(BlobReader& reader) {
    PageBuffer buffer(MiB);
    std::string text;
    while (text.size() < reader.info().bytes) {
      const auto part = buffer.bytes().first(std::min<size_t>(MiB, reader.info().bytes - text.size()));
      if (const Result<void> read = reader.read(text.size(), part); !read) return std::unexpected(read.error());
      text.append(reinterpret_cast<const char*>(part.data()), part.size());
    }
    return text;
  }
};

void flip(const std::string& path, uint64_t offset) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  char byte = 0;
  REQUIRE(pread(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  byte = static_cast<char>(byte ^ 0x10);
  REQUIRE(pwrite(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  close(fd);
}

Code code_of(const auto& result) {
  REQUIRE(!result.has_value());
  return result.error().code;
}

TEST_CASE("what became of each wish is counted once") {
  Rig rig;
  const std::string text = random_bytes(300 * KiB);
  const BlobId id = id_of(text);
  REQUIRE(rig.put(text));
  REQUIRE(rig.put(text));                                                               // known when it has come
  REQUIRE(rig.store->extend(id, {}));                                                   // known before it comes
  CHECK(rig.put(text.substr(1), {.expected = id}).error().code == Code::corrupt);       // another one
  CHECK(!rig.store->begin_put({.bytes = 300 * MiB}));                                   // no room, seen before it comes
  CHECK(rig.put(std::string(300 * MiB, 'x'), {}, 8 * MiB).error().code == Code::full);  // and while it comes
  CHECK(rig.store->begin_put({}));                                                      // given up
  REQUIRE(rig.get(id));
  CHECK(!rig.get(id_of("nothing")));
  CHECK(rig.puts(PutOutcome::stored) == 1);
  CHECK(rig.puts(PutOutcome::known) == 2);
  CHECK(rig.puts(PutOutcome::mismatched) == 1);
  CHECK(rig.puts(PutOutcome::refused) == 2);
  CHECK(rig.puts(PutOutcome::failed) == 1);
  CHECK(rig.store->facts().opened == 1);
  const std::string brief = random_bytes(KiB, 2);
  REQUIRE(rig.put(brief, {.life = {.ttl_s = 10}}));
  clock_s += 11;
  rig.store->expire();
  CHECK(rig.store->facts().expired == 1);
  CHECK(rig.store->facts().set_aside == 0);
}

}  // namespace

TEST_CASE("blob ids are 64 hex digits and nothing else") {
  const BlobId id = id_of("");
  CHECK(to_hex(id) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(parse_blob_id(to_hex(id)) == id);
  CHECK(parse_blob_id("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855") == id);
  const std::string hex = to_hex(id);
  for (const std::string& bad : {std::string(), hex.substr(1), hex + "0", "../" + hex.substr(3), "g" + hex.substr(1),
                                 " " + hex.substr(1), hex.substr(0, 63) + "\n", std::string(64, '\0'),
                                 "0x" + hex.substr(2), std::string(32, '/') + std::string(32, '.')}) {
    CHECK_MESSAGE(!parse_blob_id(bad), bad);
  }
}

TEST_CASE("a blob is what was put, now and after a restart") {
  Rig rig;
  constexpr uint64_t group = blob_format::group_data_bytes;
  for (const size_t bytes : {size_t{0}, size_t{1}, 4096ul, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, 512 * KiB, MiB + 17,
                             size_t{group - 1}, size_t{group}, size_t{group + 1}}) {
    CAPTURE(bytes);
    const std::string text = random_bytes(bytes);
    const auto stored = rig.put(text);
    REQUIRE(stored.has_value());
    CHECK(!stored->known);
    CHECK(stored->info.id == id_of(text));
    CHECK(stored->info.bytes == bytes);
    CHECK(fs::file_size(rig.path_of(stored->info.id)) == blob_format::file_bytes(bytes));
    CHECK((rig.get(stored->info.id).value_or("an error") == text));
    rig.reopen();
    CHECK((rig.get(stored->info.id).value_or("an error") == text));
    CHECK(rig.staged() == 0);
  }
  CHECK(rig.store->facts().blobs == 11);
  CHECK(rig.store->list({}, 100).size() == 11);
  CHECK(code_of(rig.get(id_of("never put"))) == Code::not_found);
}

TEST_CASE("what is known is not kept twice, also when it comes eight times at once") {
  Rig rig;
  const std::string text = random_bytes(3 * MiB);
  std::atomic<int> fresh{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        const auto stored = rig.put(text);
        if (stored && !stored->known) ++fresh;
      });
    }
  }
  CHECK(fresh == 1);
  CHECK(rig.store->facts().used_bytes == blob_format::file_bytes(text.size()));
  CHECK(rig.store->facts().reserved_bytes == 0);
  CHECK(rig.staged() == 0);
  CHECK((rig.get(id_of(text)).value_or("an error") == text));
}

TEST_CASE("another blob than expected is refused and nothing stays") {
  Rig rig;
  const std::string text = random_bytes(200'000);
  CHECK(code_of(rig.put(text, {.expected = id_of("other"), .bytes = text.size(), .life = {}})) == Code::corrupt);
  CHECK(rig.staged() == 0);
  CHECK(rig.store->facts().blobs == 0);
  CHECK(rig.store->facts().reserved_bytes == 0);
  CHECK(rig.put(text, {.expected = id_of(text), .bytes = {}, .life = {}}).has_value());
}

TEST_CASE("an upload that is given up leaves nothing") {
  Rig rig;
  {
    auto writer = rig.store->begin_put({.expected = {}, .bytes = 50 * MiB, .life = {}});
    REQUIRE(writer.has_value());
    const std::string text = random_bytes(MiB);
    REQUIRE((*writer)->append(std::as_bytes(std::span(text))).has_value());
    CHECK(rig.staged() == 1);
    CHECK(rig.store->facts().reserved_bytes == blob_format::file_bytes(50 * MiB));
  }
  CHECK(rig.staged() == 0);
  CHECK(rig.store->facts().reserved_bytes == 0);
  CHECK(rig.store->facts().uploads == 0);
}

TEST_CASE("what a crash left staged is removed at the start, and no unsealed file is a blob") {
  Rig rig;
  const std::string text = random_bytes(100'000);
  const BlobId id = id_of(text);
  REQUIRE(rig.put(text).has_value());
  const std::string whole = test::read_file(rig.path_of(id));
  test::write_file(rig.folder / "blobs/staging/0123456789abcdef0123456789abcdef", whole.substr(0, 70'000));
  rig.reopen();
  CHECK(rig.staged() == 0);
  CHECK((rig.get(id).value_or("an error") == text));
  // A name without all of its file, as no order of our steps leaves it: never served.
  for (const size_t kept : {size_t{0}, size_t{1}, size_t{4096}, size_t{65536}, whole.size() - 8192, whole.size() - 4096,
                            whole.size() - 1}) {
    CAPTURE(kept);
    test::write_file(rig.path_of(id), whole.substr(0, kept));
    rig.reopen();
    CHECK(!rig.store->find(id));
    CHECK(code_of(rig.get(id)) == Code::not_found);
    CHECK(fs::exists(rig.aside_of(id)));
  }
  CHECK(rig.store->facts().set_aside == 1);
  // Another blob's whole file under this name.
  const std::string other = random_bytes(100'000, 2);
  REQUIRE(rig.put(other).has_value());
  fs::copy_file(rig.path_of(id_of(other)), rig.path_of(id));
  rig.reopen();
  CHECK(!rig.store->find(id));
  CHECK((rig.get(id_of(other)).value_or("an error") == other));
}

TEST_CASE("no byte of a blob's file can change unseen") {
  Rig rig;
  const std::string text = random_bytes(5000);
  const BlobId id = id_of(text);
  REQUIRE(rig.put(text).has_value());
  // Another inode than the blob's: what is found is told, and the blob stays.
  const std::string copy = rig.folder / "copy";
  fs::copy_file(rig.path_of(id), copy);
  const uint64_t sums = blob_format::sums_offset(text.size(), 0);
  const uint64_t seals = blob_format::seals_offset(text.size());
  for (uint64_t at = 0; at < fs::file_size(copy); ++at) {
    flip(copy, at);
    FileFd fd(open(copy.c_str(), O_RDONLY | O_CLOEXEC));
    const Result<CurrentSeal> seal = read_seal(fd.get(), id);
    const bool in_first_seal = at >= seals && at < seals + limits::page_bytes;
    REQUIRE_MESSAGE(seal.has_value() == !in_first_seal, at);
    if (seal) {
      BlobReader reader(*rig.store, 0, std::move(fd), seal->seal);
      const Result<std::string> read = Rig::read_all(reader);
      const bool in_padding = at >= text.size() && at < sums;
      if (in_padding || at >= seals) REQUIRE_MESSAGE((read.value_or("an error") == text), at);
      if (!in_padding && at < seals) REQUIRE_MESSAGE(code_of(read) == Code::corrupt, at);
    }
    flip(copy, at);
  }
  CHECK((rig.get(id).value_or("an error") == text));
}

TEST_CASE("a damaged blob is set aside, is not served, and can be stored again") {
  Rig rig;
  const std::string text = random_bytes(2 * MiB);
  const BlobId id = id_of(text);
  REQUIRE(rig.put(text).has_value());
  flip(rig.path_of(id), MiB + 5);
  const uint64_t used = rig.store->facts().used_bytes;
  CHECK(code_of(rig.get(id)) == Code::corrupt);
  CHECK(code_of(rig.get(id)) == Code::not_found);
  CHECK(!rig.store->find(id));
  CHECK(fs::exists(rig.aside_of(id)));
  CHECK(rig.store->facts().set_aside == 1);
  CHECK(rig.store->facts().used_bytes == used);  // its file takes room still
  rig.reopen();
  CHECK(!rig.store->find(id));
  CHECK(rig.store->facts().used_bytes == used);
  const auto again = rig.put(text);
  REQUIRE(again.has_value());
  CHECK(!again->known);
  CHECK((rig.get(id).value_or("an error") == text));
  CHECK(!fs::exists(rig.aside_of(id)));
  CHECK(rig.store->facts().used_bytes == used);
}

TEST_CASE("the reserved share is never exceeded") {
  Rig rig;
  rig.options.disks[0].limit_bytes = 4 * MiB;
  rig.reopen();
  const std::string text = random_bytes(3 * MiB);
  REQUIRE(rig.put(text).has_value());
  // Told before, and found out on the way.
  CHECK(code_of(rig.store->begin_put({.expected = {}, .bytes = 3 * MiB, .life = {}})) == Code::full);
  CHECK(code_of(rig.put(random_bytes(3 * MiB, 2))) == Code::full);
  CHECK(code_of(rig.store->begin_put({.expected = {}, .bytes = ~uint64_t{0}, .life = {}})) == Code::full);
  CHECK(rig.staged() == 0);
  CHECK(rig.store->facts().blobs == 1);
  CHECK(rig.store->facts().reserved_bytes == 0);
  // What is known needs no room but while it comes.
  CHECK(rig.put(random_bytes(100'000, 3)).has_value());
  REQUIRE(rig.store->remove(id_of(text), false).has_value());
  CHECK(rig.put(random_bytes(3 * MiB, 2)).has_value());
  rig.options.disks[0].limit_bytes = MiB;  // less than there is: served, and nothing comes
  rig.reopen();
  CHECK((rig.get(id_of(random_bytes(3 * MiB, 2))).value_or("an error") == random_bytes(3 * MiB, 2)));
  CHECK(code_of(rig.put("x")) == Code::full);
}

TEST_CASE("two disks share the room") {
  Rig rig;
  TempFolder second;
  rig.options.disks = {{.path = rig.folder.path(), .limit_bytes = 4 * MiB},
                       {.path = second.path(), .limit_bytes = 4 * MiB}};
  rig.reopen();
  for (unsigned i = 0; i < 2; ++i) REQUIRE(rig.put(random_bytes(3 * MiB, i)).has_value());
  CHECK(code_of(rig.put(random_bytes(3 * MiB, 2))) == Code::full);
  rig.reopen();
  for (unsigned i = 0; i < 2; ++i)
    CHECK((rig.get(id_of(random_bytes(3 * MiB, i))).value_or("an error") == random_bytes(3 * MiB, i)));
}

TEST_CASE("a blob that lies on two disks leaves both, by command and by its time") {
  Rig rig;
  TempFolder second;
  rig.options.disks.push_back({.path = second.path(), .limit_bytes = 256 * MiB});
  rig.reopen();
  const std::string removed = random_bytes(MiB, 1);
  const std::string expired = random_bytes(MiB, 2);
  const std::string kept = random_bytes(MiB, 3);
  REQUIRE(rig.put(removed));
  REQUIRE(rig.put(expired, {.life = {.ttl_s = 100}}));
  REQUIRE(rig.put(kept));
  const uint64_t used_once = rig.store->facts().used_bytes;
  // As after a disk was moved here: each disk has what the other one has.
  rig.store.reset();
  const std::string folders[] = {rig.folder / "blobs", second / "blobs"};
  for (const std::string& text : {removed, expired, kept}) {
    const std::string path = "/" + blob_format::blob_path(id_of(text));
    const unsigned has = fs::exists(folders[0] + path) ? 0 : 1;
    fs::create_directories(fs::path(folders[1 - has] + path).parent_path());
    fs::copy_file(folders[has] + path, folders[1 - has] + path);
  }
  rig.reopen();
  CHECK(rig.store->facts().blobs == 3);
  CHECK(rig.store->facts().used_bytes == 2 * used_once);
  REQUIRE(rig.store->remove(id_of(removed), false));
  clock_s += 101;
  rig.store->expire();
  for (unsigned start = 0; start < 2; ++start) {
    CHECK(rig.store->facts().blobs == 1);
    CHECK(rig.store->facts().used_bytes == 2 * used_once / 3);
    CHECK(code_of(rig.get(id_of(removed))) == Code::not_found);
    CHECK(code_of(rig.get(id_of(expired))) == Code::not_found);
    CHECK((rig.get(id_of(kept)).value_or("an error") == kept));
    rig.reopen();
  }
}

TEST_CASE("uploads are bounded, and so are blobs") {
  Rig rig;
  rig.options.uploads_max = 2;
  rig.options.blobs_max = 2;
  rig.reopen();
  {
    const auto first = rig.store->begin_put({});
    const auto second = rig.store->begin_put({});
    REQUIRE(second.has_value());
    CHECK(code_of(rig.store->begin_put({})) == Code::again);
  }
  REQUIRE(rig.put("a").has_value());
  REQUIRE(rig.put("b").has_value());
  CHECK(code_of(rig.put("c")) == Code::full);
  rig.options.blobs_max = 1;
  BlobStore smaller;
  std::string message;
  CHECK(code_of(smaller.open(rig.options, &message)) == Code::full);
  CHECK(message.find("memory.limit") != std::string::npos);
}

TEST_CASE("a blob goes when its time is over, unless it is pinned, and never before") {
  Rig rig;
  const auto put_with = [&](const std::string& text, const BlobLife& life) {
    const auto stored = rig.put(text, {.expected = {}, .bytes = {}, .life = life});
    REQUIRE(stored.has_value());
    return stored->info;
  };
  const int64_t start_s = clock_s;
  CHECK(put_with("short", {.ttl_s = 10}).expires_s == start_s + 10);
  put_with("long", {.ttl_s = 100});
  put_with("for ever", {});
  put_with("pinned", {.ttl_s = 10, .pinned = true});
  CHECK(rig.store->expire() == start_s + 10);
  CHECK(rig.store->facts().blobs == 4);
  rig.reopen();
  clock_s = start_s + 10;
  CHECK(!rig.store->find(id_of("short")));  // also before somebody looks for what has expired
  CHECK(code_of(rig.get(id_of("short"))) == Code::not_found);
  CHECK(rig.store->list({}, 10).size() == 3);
  // Put once more before it is removed: it is a new one.
  CHECK(!rig.put("short", {.expected = {}, .bytes = {}, .life = {.ttl_s = 5}})->known);
  CHECK((rig.get(id_of("short")).value_or("an error") == "short"));
  clock_s = start_s + 15;
  CHECK(rig.store->expire() == start_s + 100);
  CHECK(!fs::exists(rig.path_of(id_of("short"))));
  CHECK(rig.store->facts().blobs == 3);
  CHECK(rig.store->facts().used_bytes == 2 * blob_format::file_bytes(6) + blob_format::file_bytes(4) -
                                             blob_format::file_bytes(6) + blob_format::file_bytes(8));
  clock_s = start_s + 1000;
  CHECK(rig.store->expire() == 0);
  CHECK(rig.store->find(id_of("pinned")));
  CHECK(rig.store->find(id_of("for ever")));
  CHECK(!rig.store->find(id_of("long")));
}

TEST_CASE("a second put lengthens a life and shortens none, across restarts and torn seals") {
  Rig rig;
  const int64_t start_s = clock_s;
  const BlobId id = id_of("text");
  const auto put_with = [&](const BlobLife& life) {
    const auto stored = rig.put("text", {.expected = {}, .bytes = {}, .life = life});
    REQUIRE(stored.has_value());
    return stored->info.expires_s;
  };
  CHECK(put_with({.ttl_s = 100}) == start_s + 100);
  CHECK(put_with({.ttl_s = 50}) == start_s + 100);
  CHECK(put_with({.ttl_s = 200}) == start_s + 200);
  rig.reopen();
  CHECK(rig.store->find(id)->expires_s == start_s + 200);
  // The second seal counts; a torn one gives the first its place back.
  flip(rig.path_of(id), blob_format::seals_offset(4) + limits::page_bytes + 64);
  rig.reopen();
  CHECK(rig.store->find(id)->expires_s == start_s + 100);
  CHECK(put_with({.ttl_s = 300}) == start_s + 300);
  CHECK(put_with({.ttl_s = 400}) == start_s + 400);  // into the first one's place
  rig.reopen();
  CHECK(rig.store->find(id)->expires_s == start_s + 400);
  CHECK(put_with({.ttl_s = 1, .pinned = true}) == start_s + 400);
  CHECK(put_with({}) == 0);
  rig.reopen();
  CHECK(rig.store->find(id)->expires_s == 0);
  CHECK(rig.store->find(id)->pinned);
  CHECK((rig.get(id).value_or("an error") == "text"));
}

TEST_CASE("remove: pinned ones only when it is said, and who reads goes on") {
  Rig rig;
  const std::string text = random_bytes(MiB);
  const BlobId id = id_of(text);
  REQUIRE(rig.put(text, {.expected = {}, .bytes = {}, .life = {.pinned = true}}).has_value());
  CHECK(code_of(rig.store->remove(id, false)) == Code::denied);
  auto reader = rig.store->open_blob(id);
  REQUIRE(reader.has_value());
  CHECK(rig.store->remove(id, true).has_value());
  CHECK(!rig.store->find(id));
  CHECK(rig.store->facts().used_bytes == 0);
  CHECK((Rig::read_all(**reader).value_or("an error") == text));
  CHECK(code_of(rig.store->remove(id, true)) == Code::not_found);
  CHECK(code_of(rig.store->extend(id, {})) == Code::not_found);
}

TEST_CASE("after stop nothing comes, and what is on its way ends") {
  Rig rig;
  {
    auto writer = rig.store->begin_put({});
    REQUIRE(writer.has_value());
    rig.store->stop();
    const std::string text = random_bytes(MiB);
    CHECK(code_of((*writer)->append(std::as_bytes(std::span(text)))) == Code::stopping);
    CHECK(code_of((*writer)->finish()) == Code::stopping);
  }
  CHECK(code_of(rig.store->begin_put({})) == Code::stopping);
  CHECK(rig.staged() == 0);
}

TEST_CASE("files that are none of ours are left alone") {
  Rig rig;
  fs::create_directory(rig.folder / "blobs/ab");
  test::write_file(rig.folder / "blobs/ab/notes.txt", "mine");
  const BlobId id = id_of("x");
  const std::string wrong = to_hex(id).substr(0, 2) == "00" ? "01" : "00";
  fs::create_directory(rig.folder / ("blobs/" + wrong));
  test::write_file(rig.folder / ("blobs/" + wrong + "/" + to_hex(id)), "mine");
  rig.reopen();
  CHECK(rig.store->facts().blobs == 0);
  CHECK(test::read_file(rig.folder / "blobs/ab/notes.txt") == "mine");
  CHECK(test::read_file(rig.folder / ("blobs/" + wrong + "/" + to_hex(id))) == "mine");
}
