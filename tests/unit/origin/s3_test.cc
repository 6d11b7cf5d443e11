// The S3 origin against a server of this test that knows a bucket as a sorted map: names, listings, versions, look-ups.
// tests/mount/s3_*.sh ask a real one.
#include <doctest/doctest.h>

#include <ctime>
#include <map>
#include <set>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "origin/name_index.h"
#include "origin/s3.h"
#include "unit/origin/http_fixture.h"
#include "unit/origin/posix_fixture.h"

using namespace blobcache_test;

namespace {

void wait_for_clock(int64_t time_s) {
  const int clock = ::timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC);
  const itimerspec when{.it_interval = {}, .it_value = {.tv_sec = time_s, .tv_nsec = 0}};
  uint64_t times = 0;
  CHECK(::timerfd_settime(clock, TFD_TIMER_ABSTIME, &when, nullptr) == 0);
  CHECK(::read(clock, &times, sizeof times) == sizeof times);
  ::close(clock);
}

// ListObjectsV2, HEAD and GET of a bucket "b"; a page has page_keys_max keys at most.
class Bucket {
 public:
  std::map<std::string, std::string> objects;  // key -> content
  unsigned page_keys_max = 1000;
  bool requester_pays = false;
  bool may_list = true;
  std::atomic<bool> silent{false};
  std::atomic<unsigned> listings{0};
  std::atomic<unsigned> heads{0};
  std::atomic<int64_t> listing_all_s{0};  // when a listing of all names was asked for: it is answered a second later
  std::atomic<unsigned> wholes{0};        // objects asked for without a range, with their checksum

  static std::string etag_of(const std::string& content) {
    return fmt::format("\"{:x}\"", std::hash<std::string>{}(content));
  }

  ServerReply answer(const ServerRequest& request) {
    if (silent) return {.bytes = "", .close = false, .hang = true};
    if (requester_pays && request.header("x-amz-request-payer") != "requester") {
      return reply_with("403 Forbidden", "", "<Error><Code>AccessDenied</Code></Error>");
    }
    const size_t question = request.target.find('?');
    const std::string path = *percent_decode(request.target.substr(0, question));
    if (path == "/b" && question != std::string::npos) return list(request.target.substr(question + 1));
    const auto found = path.starts_with("/b/") ? objects.find(path.substr(3)) : objects.end();
    if (request.verb == "HEAD") ++heads;
    if (found == objects.end()) return reply_with("404 Not Found", "", "<Error><Code>NoSuchKey</Code></Error>");
    const std::string& content = found->second;
    const std::string headers = "ETag: " + etag_of(content) + "\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    if (request.verb == "HEAD") return reply_with("200 OK", headers, content);
    const std::string wanted = request.header("if-match");
    if (!wanted.empty() && wanted != etag_of(content)) return reply_with("412 Precondition Failed", "", "");
    uint64_t first = 0;
    uint64_t last = 0;
    if (request.header("range").empty()) {
      wholes += request.header("x-amz-checksum-mode") == "ENABLED";
      return reply_with("200 OK", headers, content);
    }
    if (!request.range(&first, &last) || first >= content.size()) return reply_with("416 Range", "", "");
    last = std::min<uint64_t>(last, content.size() - 1);
    return reply_with("206 Partial Content",
                      headers + fmt::format("Content-Range: bytes {}-{}/{}\r\n", first, last, content.size()),
                      content.substr(first, last - first + 1));
  }

 private:
  ServerReply list(const std::string& query) {
    ++listings;
    if (!may_list) return reply_with("403 Forbidden", "", "<Error><Code>AccessDenied</Code></Error>");
    std::map<std::string, std::string> fields;
    for (size_t at = 0; at < query.size();) {
      const size_t end = std::min(query.find('&', at), query.size());
      const std::string field = query.substr(at, end - at);
      fields[field.substr(0, field.find('='))] = *percent_decode(field.substr(field.find('=') + 1));
      at = end + 1;
    }
    const std::string& prefix = fields["prefix"];
    if (fields["delimiter"].empty() && fields["max-keys"] == "1000") {
      listing_all_s = std::time(nullptr);
      while (std::time(nullptr) == listing_all_s) wait_for_clock(listing_all_s + 1);
    }
    const unsigned keys_max = std::min<unsigned>(page_keys_max, static_cast<unsigned>(std::stoul(fields["max-keys"])));
    std::string body;
    std::string last;
    unsigned count = 0;
    bool truncated = false;
    for (const auto& [key, content] : objects) {
      if (!key.starts_with(prefix)) continue;
      const size_t slash = fields["delimiter"].empty() ? std::string::npos : key.find('/', prefix.size());
      const std::string name = slash == std::string::npos ? key : key.substr(0, slash + 1);
      if (name == last || name <= fields["continuation-token"]) continue;
      if (count == keys_max) {
        truncated = true;
        break;
      }
      ++count;
      last = name;
      if (slash == std::string::npos) {
        body += fmt::format(
            "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag><LastModified>1994-11-06T08:49:37.500Z</LastModified>"
            "</Contents>",
            percent_encode(key), content.size(), etag_of(content));
      } else {
        body += fmt::format("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", percent_encode(name));
      }
    }
    if (truncated) {
      body += "<IsTruncated>true</IsTruncated><NextContinuationToken>" + last + "</NextContinuationToken>";
    }
    return reply_with("200 OK", "",
                      "<ListBucketResult><EncodingType>url</EncodingType>" + body + "</ListBucketResult>");
  }
};

class Mounted {
 public:
  struct Options {
    std::string prefix;
    uint64_t revalidate_ns = 0;
    bool pays = false;
    uint64_t bandwidth_bytes = 0;
    std::string names_directory;  // not empty: with an index
  };
  explicit Mounted(Bucket& bucket) : Mounted(bucket, Options()) {}
  Mounted(Bucket& bucket, const Options& options)
      : server([&bucket](const ServerRequest& request) { return bucket.answer(request); }), reactor(make_reactor()) {
    VolumeConfig volume;
    volume.source = "s3://b/" + options.prefix;
    volume.s3.endpoint = server.url();
    volume.s3.credentials = "anonymous";
    volume.s3.requester_pays = options.pays;
    volume.revalidate_ns = options.revalidate_ns;
    volume.index = options.names_directory.empty() ? Indexing::off : Indexing::on;
    OriginConfig config = Config().origin;
    config.retries = 1;
    config.bandwidth_bytes = options.bandwidth_bytes;
    auto created = create_s3_origin(volume, config, &why, options.names_directory);
    if (created) origin = std::move(*created);
  }
  ~Mounted() {
    if (origin == nullptr) return;
    origin->stop();
    CHECK(origin->join(1000));
    reactor->drain(1'000'000'000);
  }
  template <class Call>
  void wait(const Waited<Call>& call) {
    while (call.times_done == 0) reactor->turn(true);
  }
  Waited<LookupCall>& lookup(const std::string& key) {
    auto& call = *lookups.emplace_back(std::make_unique<Waited<LookupCall>>());
    call.key = key;
    origin->begin_lookup(*reactor, call);
    wait(call);
    return call;
  }
  int open(const std::string& key) {
    Waited<OpenCall> call;
    call.key = key;
    origin->begin_open(*reactor, call);
    wait(call);
    REQUIRE(!call.failed);
    return call.fd;
  }
  std::vector<DirectoryEntry> list_some(int fd, uint64_t offset, uint32_t entries_max = 100) {
    Waited<ListCall> call;
    call.fd = fd;
    call.offset = offset;
    call.entries_max = entries_max;
    origin->begin_list(*reactor, call);
    wait(call);
    REQUIRE(!call.failed);
    CHECK(call.entries.size() <= entries_max);
    return std::move(call.entries);
  }
  std::vector<std::string> names(const std::string& key, uint32_t entries_max = 100) {
    const int fd = open(key);
    std::vector<std::string> all;
    uint64_t offset = 0;
    while (true) {
      const auto some = list_some(fd, offset, entries_max);
      if (some.empty()) break;
      for (const DirectoryEntry& entry : some) all.push_back(entry.name + (entry.type == DT_DIR ? "/" : ""));
      offset = some.back().next_offset;
    }
    origin->close(*reactor, fd);
    REQUIRE(all.size() >= 2);
    CHECK(all[0] == "./");
    CHECK(all[1] == "../");
    all.erase(all.begin(), all.begin() + 2);
    return all;
  }

  HttpServer server;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Origin> origin;
  std::string why;
  std::vector<std::unique_ptr<Waited<LookupCall>>> lookups;
};

std::set<std::string> set_of(const std::vector<std::string>& names) {
  std::set<std::string> all(names.begin(), names.end());
  CHECK(all.size() == names.size());
  return all;
}

}  // namespace

TEST_CASE("keys become a tree, page by page, each name once") {
  Bucket bucket;
  std::set<std::string> wanted;
  for (int i = 0; i < 250; ++i) {
    bucket.objects[fmt::format("p/file-{}", i)] = "x";
    wanted.insert(fmt::format("file-{}", i));
    bucket.objects[fmt::format("p/directory-{}/a", i)] = bucket.objects[fmt::format("p/directory-{}/b", i)] = "y";
    wanted.insert(fmt::format("directory-{}/", i));
  }
  bucket.objects["q"] = "outside";
  for (const unsigned page : {1u, 7u, 1000u}) {
    bucket.page_keys_max = page;
    Mounted mounted(bucket, {.prefix = "p"});
    REQUIRE_MESSAGE(mounted.origin != nullptr, mounted.why);
    for (const uint32_t entries_max : {3u, 100u}) CHECK(set_of(mounted.names("", entries_max)) == wanted);
    CHECK(set_of(mounted.names("directory-7")) == std::set<std::string>{"a", "b"});
  }
}

TEST_CASE("a directory wins over a file of its name, however far apart the two are listed") {
  Bucket bucket;
  bucket.objects["a"] = "file";
  for (int i = 0; i < 20; ++i) bucket.objects[fmt::format("a-{}", i)] = "between";
  bucket.objects["a/b"] = "inside";
  bucket.objects["a0"] = "after";
  bucket.objects["ab"] = bucket.objects["abc"] = "chain";
  for (const unsigned page : {1u, 2u, 1000u}) {
    bucket.page_keys_max = page;
    Mounted mounted(bucket);
    const std::set<std::string> names = set_of(mounted.names(""));
    CHECK(names.contains("a/"));
    CHECK(!names.contains("a"));
    CHECK(names.size() == 24);
    CHECK(S_ISDIR(mounted.lookup("a").info.attributes.mode));
    CHECK(mounted.lookup("a/b").info.attributes.size == 6);
  }
}

TEST_CASE("keys that are no names are hidden, and the rest is shown") {
  Bucket bucket;
  const std::string longest(255, 'n');
  for (const std::string key : {"d//x", "d/./x", "d/../x", "d/", "/root"}) bucket.objects[key] = "hidden";
  bucket.objects["d/" + longest + "n"] = "hidden";
  bucket.objects["d/" + longest] = "shown";
  bucket.objects["d/line\nbreak"] = bucket.objects["d/ü 漢"] = bucket.objects["d/%41+&<>\"'"] = "shown";
  Mounted mounted(bucket);
  CHECK(set_of(mounted.names("d")) == std::set<std::string>{longest, "line\nbreak", "ü 漢", "%41+&<>\"'"});
  CHECK(set_of(mounted.names("")) == std::set<std::string>{"d/"});
  for (const char* key : {"line\nbreak", "ü 漢", "%41+&<>\"'"}) {
    CHECK(mounted.lookup("d/" + std::string(key)).info.attributes.size == 5);
  }
  CHECK(mounted.lookup("d/../x").error.code == Code::invalid);
}

TEST_CASE("a cookie goes on where it was taken, in the same and in another open directory") {
  Bucket bucket;
  bucket.page_keys_max = 10;
  for (int i = 0; i < 95; ++i) bucket.objects[fmt::format("f{:03}", i)] = "x";
  Mounted mounted(bucket);
  const int fd = mounted.open("");
  std::vector<DirectoryEntry> all;
  while (true) {
    const auto some = mounted.list_some(fd, all.empty() ? 0 : all.back().next_offset, 7);
    if (some.empty()) break;
    all.insert(all.end(), some.begin(), some.end());
  }
  REQUIRE(all.size() == 97);
  const int other = mounted.open("");
  for (const int from : {other, fd}) {
    for (const size_t at : {96u, 50u, 3u, 1u, 77u}) {
      CAPTURE(at);
      const auto some = mounted.list_some(from, all[at - 1].next_offset, 5);
      REQUIRE(!some.empty());
      CHECK(some[0].name == all[at].name);
    }
  }
  bucket.objects.erase("f000");
  CHECK(mounted.list_some(fd, 0, 2).at(1).name == "..");  // from the start: what is there now
  CHECK(mounted.list_some(fd, 2, 3).at(0).name == "f001");
  mounted.origin->close(*mounted.reactor, fd);
  mounted.origin->close(*mounted.reactor, other);
}

TEST_CASE("a look-up and a listing say the same of a file, and both are trusted for revalidate") {
  Bucket bucket;
  bucket.objects["f"] = "content";
  bucket.objects["d/x"] = "";
  Mounted mounted(bucket, {.revalidate_ns = 3'600'000'000'000});
  const FileInfo looked = mounted.lookup("f").info;
  CHECK(looked.attributes.mode == (S_IFREG | 0444));
  CHECK(looked.attributes.mtime.seconds == 784111777);
  const unsigned heads = bucket.heads;
  const auto entries = mounted.list_some(mounted.open(""), 2);
  for (const DirectoryEntry& entry : entries) {
    if (entry.name != "f") continue;
    CHECK(entry.info.version == looked.version);
    CHECK(entry.info.attributes.ino == looked.attributes.ino);
    CHECK(entry.info.attributes.mtime == looked.attributes.mtime);
    CHECK(entry.ino == looked.attributes.ino);
  }
  CHECK(mounted.lookup("f").info.version == looked.version);
  CHECK(S_ISDIR(mounted.lookup("d").info.attributes.mode));
  CHECK(mounted.open("f") == -1);
  CHECK(bucket.heads == heads);
  CHECK(mounted.lookup("none").error.code == Code::not_found);
  const unsigned listings = bucket.listings;
  CHECK(mounted.lookup("none").error.code == Code::not_found);
  CHECK(bucket.listings == listings);
}

TEST_CASE("reads give the bytes of the version asked for, or stale") {
  Bucket bucket;
  bucket.objects["f"] = pattern(0, 300'000);
  Mounted mounted(bucket);
  const FileInfo info = mounted.lookup("f").info;
  std::string bytes(100'000, '#');
  const auto read = [&](Waited<ReadCall>& call) {
    call.key = "f";
    call.version = info.version;
    call.offset = 65536;
    call.bytes = 100'000;
    call.to = reinterpret_cast<std::byte*>(bytes.data());
    mounted.origin->begin_read(*mounted.reactor, call);
    mounted.wait(call);
  };
  Waited<ReadCall> good;
  read(good);
  CHECK(!good.failed);
  CHECK(bytes == pattern(65536, 100'000));
  bucket.objects["f"] = pattern(1, 300'000);
  Waited<ReadCall> replaced;
  read(replaced);
  CHECK(replaced.error.code == Code::stale);
  bucket.objects.erase("f");
  Waited<ReadCall> deleted;
  read(deleted);
  CHECK(deleted.error.code == Code::stale);
}

TEST_CASE("all of an object is asked for with its checksum, a part of it by a range") {
  Bucket bucket;
  bucket.objects["f"] = pattern(0, 100'000);
  Mounted mounted(bucket);
  const FileInfo info = mounted.lookup("f").info;
  std::string bytes(100'000, '#');
  for (const uint64_t object_bytes_known : {0u, 100'000u, 200'000u}) {
    Waited<ReadCall> call;
    call.key = "f";
    call.version = info.version;
    call.bytes = 100'000;
    call.object_bytes = object_bytes_known;
    call.to = reinterpret_cast<std::byte*>(bytes.data());
    mounted.origin->begin_read(*mounted.reactor, call);
    mounted.wait(call);
    CHECK(!call.failed);
    CHECK(bytes == bucket.objects["f"]);
  }
  CHECK(bucket.wholes == 1);
}

TEST_CASE("origin.bandwidth bounds what is read in a second") {
  Bucket bucket;
  bucket.objects["f"] = pattern(0, 300'000);
  Mounted mounted(bucket, {.bandwidth_bytes = 500'000});
  const FileInfo info = mounted.lookup("f").info;
  std::string bytes(300'000, '#');
  std::vector<std::unique_ptr<Waited<ReadCall>>> calls;
  const uint64_t before_ns = mounted.reactor->ring().now_ns();
  for (uint32_t i = 0; i < 3; ++i) {
    auto& call = *calls.emplace_back(std::make_unique<Waited<ReadCall>>());
    call.key = "f";
    call.version = info.version;
    call.offset = i * 100'000;
    call.bytes = 100'000;
    call.to = reinterpret_cast<std::byte*>(bytes.data()) + call.offset;
    mounted.origin->begin_read(*mounted.reactor, call);
  }
  for (const auto& call : calls) mounted.wait(*call);
  // The third is begun when the two before it are paid, less a burst of a tenth of a second.
  CHECK(mounted.reactor->ring().now_ns() - before_ns >= 300'000'000);
  CHECK(bytes == pattern(0, 300'000));
}

TEST_CASE("limits change while reads wait") {
  Bucket bucket;
  bucket.objects["f"] = pattern(0, 300'000);
  Mounted mounted(bucket, {.bandwidth_bytes = 1000});  // a range is worth minutes
  const FileInfo info = mounted.lookup("f").info;
  std::string bytes(300'000, '#');
  Waited<ReadCall> calls[3];
  for (uint32_t i = 0; i < 3; ++i) {
    calls[i].key = "f";
    calls[i].version = info.version;
    calls[i].offset = i * 100'000;
    calls[i].bytes = 100'000;
    calls[i].to = reinterpret_cast<std::byte*>(bytes.data()) + calls[i].offset;
    mounted.origin->begin_read(*mounted.reactor, calls[i]);
  }
  mounted.wait(calls[0]);
  CHECK(calls[2].times_done == 0);
  OriginConfig config = Config().origin;
  config.bandwidth_bytes = 0;
  mounted.origin->set_limits(config);
  const uint64_t before_ns = mounted.reactor->ring().now_ns();
  for (const auto& call : calls) mounted.wait(call);
  CHECK(mounted.reactor->ring().now_ns() - before_ns < 10'000'000'000);
  CHECK(bytes == pattern(0, 300'000));

  // And the patience with a server that says nothing.
  config.attempt_timeout_ns = 50'000'000;
  config.deadline_ns = 2'000'000'000;
  config.retries = 0;
  mounted.origin->set_limits(config);
  bucket.silent = true;
  Waited<ReadCall> late;
  late.key = "f";
  late.version = info.version;
  late.bytes = 100;
  late.to = reinterpret_cast<std::byte*>(bytes.data());
  const unsigned requests = mounted.server.requests();
  mounted.origin->begin_read(*mounted.reactor, late);
  mounted.wait(late);
  CHECK(late.error.code == Code::timeout);
  CHECK(mounted.server.requests() == requests + 1);
}

TEST_CASE("an index is as old as the moment at which its listing began, however long its first page took") {
  Bucket bucket;
  bucket.objects["f"] = "x";
  const Tree folder;
  Mounted mounted(bucket, {.revalidate_ns = 3'600'000'000'000, .names_directory = folder.at("names")});
  REQUIRE_MESSAGE(mounted.origin != nullptr, mounted.why);
  const ObjectId identity = object_id(mounted.origin->canonical_source(), "", "names");
  mounted.lookup("f");
  while (!std::filesystem::exists(folder.at("names/" + to_hex(identity)))) mounted.reactor->turn(true);
  const auto index = NameIndex::open(folder.at("names/" + to_hex(identity)), identity);
  REQUIRE(index);
  CHECK((*index)->names() == 1);
  CHECK((*index)->built_s() > 0);
  CHECK((*index)->built_s() <= bucket.listing_all_s);
}

TEST_CASE("a bucket whose requester pays is read by who agrees to pay") {
  Bucket bucket;
  bucket.requester_pays = true;
  bucket.objects["f"] = "content";
  Mounted refused(bucket);
  CHECK(refused.origin == nullptr);
  CHECK(refused.why.find("denies") != std::string::npos);
  Mounted mounted(bucket, {.pays = true});
  REQUIRE(mounted.origin != nullptr);
  CHECK(mounted.lookup("f").info.attributes.size == 7);
}

TEST_CASE("who may not list still reads what he can name") {
  Bucket bucket;
  bucket.objects["f"] = "content";
  Mounted mounted(bucket);
  REQUIRE(mounted.origin != nullptr);
  bucket.may_list = false;
  CHECK(mounted.lookup("f").info.attributes.size == 7);
  CHECK(mounted.lookup("none").error.code == Code::not_found);
}

TEST_CASE("what is wrong at the start is said in one sentence") {
  Bucket bucket;
  bucket.objects["f"] = "x";
  CHECK(Mounted(bucket, {.prefix = "missing"}).why.find("nothing under s3://b/missing") != std::string::npos);
  bucket.may_list = false;
  CHECK(Mounted(bucket).why.find("s3:ListBucket") != std::string::npos);
  VolumeConfig volume;
  std::string why;
  for (const char* source : {"s3://", "s3:///x", "s3://a b/x"}) {
    volume.source = source;
    CHECK(!create_s3_origin(volume, Config().origin, &why));
    CHECK(why.find("names no bucket") != std::string::npos);
  }
}
