// warm's parts: which files, in which pieces, what is said meanwhile, and what a daemon's status means for it.
#include <cerrno>
#include <cstdlib>
#include <fstream>

#include <doctest/doctest.h>
#include <unistd.h>

#include "cli/cached_file.h"
#include "cli/progress.h"
#include "cli/warm_files.h"
#include "cli/warm_reader.h"

using namespace blobcache;
using namespace blobcache::cli;

namespace {

struct Folder {
  Folder() { REQUIRE(mkdtemp(path) != nullptr); }
  ~Folder() {
    for (const char* name : {"/a", "/b", "/list"}) unlink((std::string(path) + name).c_str());
    rmdir(path);
  }
  std::string make(const char* name, const std::string& text) const {
    const std::string file = std::string(path) + name;
    std::ofstream(file) << text;
    return file;
  }
  char path[32] = "/tmp/blobcache-warm.XXXXXX";
};

}  // namespace

TEST_CASE("warm: pieces cover every byte of every file once") {
  const std::vector<WarmFile> files{{"a", 0}, {"b", 1}, {"c", 100}, {"d", 101}, {"e", 250}};
  const std::vector<WarmPiece> pieces = cut_pieces(files, 100);
  CHECK(pieces.size() == 0 + 1 + 1 + 2 + 3);
  std::vector<uint64_t> covered(files.size());
  for (const WarmPiece& piece : pieces) {
    CHECK(piece.offset == covered[piece.file]);
    CHECK(piece.bytes > 0);
    CHECK(piece.bytes <= 100);
    covered[piece.file] += piece.bytes;
  }
  for (size_t i = 0; i < files.size(); ++i) CHECK(covered[i] == files[i].bytes);
  CHECK(cut_pieces({}, 100).empty());
}

TEST_CASE("warm: reads to the ends, counts, and names what fails") {
  const Folder folder;
  const std::string a = folder.make("/a", std::string(300'000, 'a'));
  const std::string b = folder.make("/b", std::string(10, 'b'));
  // One that is gone, one that has become shorter, one that is empty.
  const std::vector<WarmFile> files{{a, 300'000}, {"/nonexistent", 5000}, {b, 20'000}, {"/none-either", 0}};
  WarmReader reader(files);
  CHECK(reader.files_done() == 1);
  reader.start(3);
  CHECK(reader.wait(60'000));
  reader.join();
  CHECK(reader.files_done() == 4);
  CHECK(reader.bytes_read() == 300'010);
  REQUIRE(reader.failures().size() == 2);
  for (const WarmFailure& failure : reader.failures()) {
    const bool gone = failure.path == "/nonexistent";
    CHECK((gone || failure.path == b));
    CHECK(failure.cause.find(gone ? "No such file" : "shorter") != std::string::npos);
  }
}

TEST_CASE("warm: what is stopped reads no more, and ends") {
  const Folder folder;
  const std::vector<WarmFile> files{{folder.make("/a", std::string(300'000, 'a')), 300'000}};
  WarmReader reader(files);
  reader.stop();
  reader.start(3);
  CHECK(reader.wait(60'000));
  reader.join();
  CHECK(reader.bytes_read() == 0);
  CHECK(reader.failures().empty());
}

TEST_CASE("warm: nothing to read ends at once") {
  const std::vector<WarmFile> files;
  WarmReader reader(files);
  reader.start(8);
  CHECK(reader.wait(0));
  reader.join();
  CHECK(reader.failures().empty());
}

TEST_CASE("warm: what is not on a mount, or not there, is a failure; a list is read line by line") {
  const Folder folder;
  const std::string a = folder.make("/a", "a");
  const std::string list = folder.make("/list", a + "\n\n/nonexistent\n");
  WarmFiles files;
  CHECK(files.add_list(list) == 0);
  CHECK(files.files().empty());
  REQUIRE(files.failures().size() == 2);
  CHECK(files.failures()[0].path == a);
  CHECK(files.failures()[0].cause.find("not on a blobcache mount") != std::string::npos);
  CHECK(files.failures()[1].path == "/nonexistent");
  CHECK(files.add_list("/nonexistent") == ENOENT);
}

TEST_CASE("progress: share, rate and time left; whatever the numbers, it fits") {
  const ProgressState half{
      .bytes_done = 512 << 20, .bytes_total = 1 << 30, .files_done = 3, .files_total = 7, .seconds = 2};
  const std::string bar = progress_bar(half, 200);
  for (const char* part :
       {"[##########----------]", " 50%", "512 MiB of 1.00 GiB", "3 of 7 files", "256 MiB/s", "ETA 2 s"}) {
    CAPTURE(bar);
    CHECK(bar.find(part) != std::string::npos);
  }
  CHECK(progress_bar(half, 30).size() == 30);
  CHECK(progress_line(half).starts_with("50% 512 MiB of 1.00 GiB, 3 of 7 files"));
  CHECK(progress_bar({}, 200).find("100%") != std::string::npos);
  CHECK(progress_bar({.files_done = 1, .files_total = 4, .seconds = 1}, 200).find(" 25%") != std::string::npos);
  // A file that grew.
  CHECK(progress_bar({.bytes_done = 20, .bytes_total = 10, .seconds = 1}, 200).find("100%") != std::string::npos);
}

TEST_CASE("status: passthrough of the volume that was asked for, room on the disks") {
  const std::string status =
      R"({"tiers":{"memory":{"used":5},"disk":{"used":100,"limit":1000,"disks":[{"path":"/c"}]}},"volumes":[)"
      R"({"name":"a","mountpoint":"/mnt/a","passthrough":false},{"name":"b","mountpoint":"/mnt/b","passthrough":true}]})";
  CHECK(!says_passthrough(status, "/mnt/a"));
  CHECK(says_passthrough(status, "/mnt/b"));
  CHECK(!says_passthrough(status, "/mnt"));
  CHECK(!says_passthrough("", "/mnt/b"));
  CHECK(disk_room(status) == 750);
  CHECK(disk_room(R"({"tiers":{"disk":{"used":990,"limit":1000,"disks":[{}]}}})") == 0);
  CHECK(!disk_room(R"({"tiers":{"disk":{"used":0,"limit":0,"disks":[]}}})"));
  CHECK(!disk_room("nonsense"));
}

TEST_CASE("tiers: by name, and added up") {
  std::vector<TierBytes> sum;
  add_tiers({{"memory", 1}, {"disk", 2}}, &sum);
  add_tiers({{"disk", 3}, {"peer", 4}}, &sum);
  CHECK(bytes_of(sum, "memory") == 1);
  CHECK(bytes_of(sum, "disk") == 5);
  CHECK(bytes_of(sum, "peer") == 4);
  CHECK(bytes_of(sum, "origin") == 0);
}

TEST_CASE("path: why there is none") {
  CachedFile file;
  file.size = 8 << 20;
  file.tiers = {{"disk", 1 << 20}, {"disk_verified", 0}};
  CHECK(backing_problem("F", file).find("1.00 MiB of 8.00 MiB") != std::string::npos);
  file.tiers = {{"disk", 8 << 20}, {"disk_verified", 1}};
  CHECK(backing_problem("F", file).find("verified yet") != std::string::npos);
  file.tiers = {{"disk", 8 << 20}, {"disk_verified", 8 << 20}};
  CHECK(backing_problem("F", file).find("chunk_size") != std::string::npos);
  CHECK(file_problem("F", ENODATA).find("no file on a blobcache mount") != std::string::npos);
  CHECK(file_problem("F", ENOENT).find("No such file") != std::string::npos);
}
