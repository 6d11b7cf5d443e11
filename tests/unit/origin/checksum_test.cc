// Checksums that a store offers: what they are of, whole objects that are verified, and bytes that are not the store's.
#include "origin/checksum.h"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "origin/http_failure.h"
#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

constexpr uint32_t whole_bytes = 200'000;

bool is_of(std::string_view text, const HttpHead& head, ChecksumKind kind) {
  const std::unique_ptr<Checksum> checksum = Checksum::offered_by(head, true);
  REQUIRE(checksum != nullptr);
  CHECK(checksum->kind() == kind);
  // In pieces of every length.
  for (size_t at = 0, length = 1; at < text.size(); at += length++) {
    const std::string_view piece = text.substr(at, length);
    checksum->add(piece.data(), piece.size());
  }
  return checksum->matches();
}

std::string hex_md5(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(text.data(), text.size(), digest, &length, EVP_md5(), nullptr);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

std::string base64_sha256(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned char base64[2 * EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(text.data(), text.size(), digest, &length, EVP_sha256(), nullptr);
  EVP_EncodeBlock(base64, digest, static_cast<int>(length));
  return reinterpret_cast<const char*>(base64);
}

// All of an object, or a range of it, with these headers; the bit is turned in answers whose number says so.
class Store {
 public:
  std::string content = pattern(0, whole_bytes);
  std::string headers;
  std::function<bool(unsigned number)> lies = [](unsigned) { return false; };
  unsigned cut_first_at = 0;  // 0: nothing is cut
  std::atomic<unsigned> without_range{0};

  ServerReply answer(const ServerRequest& request) {
    uint64_t first = 0;
    uint64_t last = whole_bytes - 1;
    const bool ranged = request.range(&first, &last);
    without_range += !ranged;
    std::string body = content.substr(first, last - first + 1);
    if (lies(request.number)) body[body.size() / 2] = static_cast<char>(body[body.size() / 2] ^ 4);
    ServerReply reply = ranged
                            ? reply_with("206 Partial Content", content_range(first, last, whole_bytes) + headers, body)
                            : reply_with("200 OK", headers, body);
    if (request.number == 0 && cut_first_at > 0) {
      reply = {.bytes = reply.bytes.substr(0, reply.bytes.size() - whole_bytes + cut_first_at), .close = true};
    }
    return reply;
  }
};

struct Whole : HttpCore::Waited {
  explicit Whole(std::string_view etag) {
    whole = true;
    expected_version = etag;
    on_bytes = [](HttpRequest& request, uint32_t) { ++static_cast<Whole&>(request).times_told; };
  }
  unsigned times_told = 0;
};

}  // namespace

TEST_CASE("each checksum of the catalogues' text, from the header that a store sends it in") {
  constexpr std::string_view text = "123456789";
  HttpHead head;
  head.etag = "\"25f9e794323b453885f5181f1b624d0b\"";
  CHECK(is_of(text, head, ChecksumKind::md5));
  CHECK(!is_of("123456780", head, ChecksumKind::md5));
  head.checksum_sha1 = "98O8HYCOBHMq32eZZczDTKeuNEE=";
  CHECK(is_of(text, head, ChecksumKind::sha1));
  head.checksum_sha256 = "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=";
  CHECK(is_of(text, head, ChecksumKind::sha256));
  CHECK(!is_of("123456780", head, ChecksumKind::sha256));
  head.checksum_crc32 = "y/Q5Jg==";
  CHECK(is_of(text, head, ChecksumKind::crc32));
  head.checksum_crc32c = "4waSgw==";
  CHECK(is_of(text, head, ChecksumKind::crc32c));
  CHECK(!is_of("023456789", head, ChecksumKind::crc32c));
  head.checksum_crc64nvme = "rosUhgp5mIg=";
  CHECK(is_of(text, head, ChecksumKind::crc64nvme));
  CHECK(!is_of("023456789", head, ChecksumKind::crc64nvme));
}

TEST_CASE("objects in parts: one part is verified, of several nothing is known") {
  constexpr std::string_view text = "123456789";
  HttpHead head;
  head.etag = "\"5927c5d64d94a5786f90003aa26d0159-1\"";
  CHECK(is_of(text, head, ChecksumKind::md5));
  head.checksum_sha256 = "KSsNAHVmgy25S/rmic1w0at3KBH9RLn0nYVQ7p6mpJQ=-1";
  CHECK(is_of(text, head, ChecksumKind::sha256));
  head.etag = "\"5927c5d64d94a5786f90003aa26d0159-2\"";
  head.checksum_sha256 = "KSsNAHVmgy25S/rmic1w0at3KBH9RLn0nYVQ7p6mpJQ=-2";
  CHECK(Checksum::offered_by(head, true) == nullptr);
}

TEST_CASE("what is no checksum is taken for none") {
  HttpHead head;
  for (const char* etag : {"", "\"\"", "\"abc\"", "W/\"25f9e794323b453885f5181f1b624d0b\"",
                           "\"zzf9e794323b453885f5181f1b624d0b\"", "\""}) {
    CAPTURE(etag);
    head.etag = etag;
    CHECK(Checksum::offered_by(head, true) == nullptr);
  }
  for (const char* bad : {"", "y/Q5", "y/Q5Jg=", "y/Q5Jg===", "????????", "rosUhgp5mIg="}) {
    CAPTURE(bad);
    head.checksum_crc32 = bad;
    CHECK(Checksum::offered_by(head, true) == nullptr);
  }
  head = {};
  head.etag = "\"25f9e794323b453885f5181f1b624d0b\"";
  CHECK(Checksum::offered_by(head, false) == nullptr);
  head.encryption = "aws:kms";
  CHECK(Checksum::offered_by(head, true) == nullptr);
  head.encryption = "AES256";
  CHECK(Checksum::offered_by(head, true) != nullptr);
  head.customer_encryption = "AES256";
  CHECK(Checksum::offered_by(head, true) == nullptr);
}

TEST_CASE("a bit that turns on the way is found, and the object is asked for again") {
  Store store;
  store.headers = "ETag: \"one\"\r\nx-amz-checksum-sha256: " + base64_sha256(store.content) + "\r\n";
  store.lies = [](unsigned number) { return number < 2; };
  HttpServer server([&](const ServerRequest& request) { return store.answer(request); });
  HttpCore core;
  Whole request("\"one\"");
  core.begin_range(request, server, 0, whole_bytes);
  core.wait(request);
  check_bytes(request);
  CHECK(store.without_range == 3);
  CHECK(core.counters.corrupt == 2);
  CHECK(core.counters.verified == 1);
  CHECK(request.times_told == 0);
}

TEST_CASE("an object that stays wrong fails with words") {
  Store store;
  store.headers = "ETag: \"one\"\r\nx-amz-checksum-sha256: " + base64_sha256(store.content) + "\r\n";
  store.lies = [](unsigned) { return true; };
  HttpServer server([&](const ServerRequest& request) { return store.answer(request); });
  HttpCore core({.retries_max = 2});
  Whole request("\"one\"");
  core.begin_range(request, server, 0, whole_bytes);
  core.wait(request);
  REQUIRE(request.failed);
  CHECK(request.error.code == Code::corrupt);
  CHECK(request.times_told == 0);
  CHECK(core.counters.corrupt == 3);
  CHECK(core.counters.errors == 1);
  const std::string words = failure_sentence(request, core.options, "reading 'f'", "");
  CHECK(words.find("not those of the store's checksum (SHA256)") != std::string::npos);
  CHECK(words.find("compare the object") != std::string::npos);
}

TEST_CASE("a connection that breaks: the rest comes as a range, and all of it is verified") {
  Store store;
  store.headers = "ETag: \"one\"\r\nx-amz-checksum-sha256: " + base64_sha256(store.content) + "\r\n";
  store.cut_first_at = 70'000;
  for (const bool lies : {false, true}) {
    CAPTURE(lies);
    store.without_range = 0;
    store.lies = [&](unsigned number) { return lies && number == 1; };
    HttpServer server([&](const ServerRequest& request) { return store.answer(request); });
    HttpCore core;
    Whole request("\"one\"");
    core.begin_range(request, server, 0, whole_bytes);
    core.wait(request);
    check_bytes(request);
    CHECK(store.without_range == (lies ? 2 : 1));
    CHECK(core.counters.corrupt == (lies ? 1 : 0));
    CHECK(core.counters.verified == 1);
  }
}

TEST_CASE("ETags are believed to be MD5s until bytes that came twice alike say otherwise") {
  Store store;
  store.headers = "ETag: \"" + hex_md5("something else") + "\"\r\n";
  HttpServer server([&](const ServerRequest& request) { return store.answer(request); });
  HttpCore core;
  for (const unsigned requests : {2u, 1u}) {
    const unsigned before = server.requests();
    Whole request("\"" + hex_md5("something else") + "\"");
    core.begin_range(request, server, 0, whole_bytes);
    core.wait(request);
    check_bytes(request);
    CHECK(server.requests() - before == requests);
  }
  CHECK(core.counters.verified == 0);
  CHECK(core.counters.errors == 0);
}

TEST_CASE("once an ETag was the MD5 of its object, they all are") {
  Store store;
  const std::string etag = "\"" + hex_md5(store.content) + "\"";
  store.headers = "ETag: " + etag + "\r\n";
  store.lies = [](unsigned number) { return number > 0; };
  HttpServer server([&](const ServerRequest& request) { return store.answer(request); });
  HttpCore core({.retries_max = 1});
  Whole good(etag);
  core.begin_range(good, server, 0, whole_bytes);
  core.wait(good);
  check_bytes(good);
  CHECK(core.counters.verified == 1);
  Whole bad(etag);
  core.begin_range(bad, server, 0, whole_bytes);
  core.wait(bad);
  REQUIRE(bad.failed);
  CHECK(bad.error.code == Code::corrupt);
}

TEST_CASE("an object that was replaced by one of another length is stale, not wrong") {
  Store store;
  store.headers = "ETag: \"two\"\r\n";
  HttpServer server([&](const ServerRequest& request) { return store.answer(request); });
  HttpCore core;
  Whole request("\"one\"");
  core.begin_range(request, server, 0, whole_bytes - 1);
  core.wait(request);
  REQUIRE(request.failed);
  CHECK(request.error.code == Code::stale);
}
