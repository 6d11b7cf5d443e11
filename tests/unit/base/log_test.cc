#include "base/log.h"

#include <string>

#include <fcntl.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace blobcache {
namespace {

// What body writes to stderr.
template <class Body>
std::string stderr_of(Body body) {
  char name[] = "/tmp/log-test.XXXXXX";
  const int file = mkstemp(name);
  REQUIRE(file >= 0);
  unlink(name);
  const int saved = dup(STDERR_FILENO);
  dup2(file, STDERR_FILENO);
  body();
  dup2(saved, STDERR_FILENO);
  close(saved);
  std::string text(static_cast<size_t>(lseek(file, 0, SEEK_END)), '\0');
  REQUIRE(pread(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  close(file);
  return text;
}

size_t lines_in(const std::string& text) {
  size_t lines = 0;
  for (const char c : text) lines += c == '\n' ? 1 : 0;
  return lines;
}

// The bytes that a JSON reader gets for the string that starts after at; an empty answer where it is no JSON string.
std::string decode_json_string(const std::string& line, size_t at) {
  std::string bytes;
  for (; at < line.size() && line[at] != '"'; ++at) {
    const auto byte = static_cast<unsigned char>(line[at]);
    if (byte < 0x20 || byte > 0x7e) return {};
    if (byte != '\\') {
      bytes.push_back(line[at]);
      continue;
    }
    const char kind = line.at(++at);
    if (kind == 'u') {
      bytes.push_back(static_cast<char>(std::stoi(line.substr(at + 1, 4), nullptr, 16)));
      at += 4;
    } else if (kind == '"' || kind == '\\') {
      bytes.push_back(kind);
    } else {
      return {};
    }
  }
  return line.compare(at, 3, "\"}\n") == 0 ? bytes : std::string();
}

TEST_CASE("a JSON line is valid and gives every byte back") {
  log::configure({.level = log::Level::info, .format = log::Format::json});
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte.push_back(static_cast<char>(byte));
  const std::string line = stderr_of([&] { log::write_line(log::Level::warn, every_byte, 0); });
  CHECK(lines_in(line) == 1);
  CHECK(line.starts_with("{\"time\":\"20"));
  const std::string before = "\",\"level\":\"warn\",\"message\":\"";
  const size_t at = line.find(before);
  REQUIRE(at != std::string::npos);
  CHECK(decode_json_string(line, at + before.size()) == every_byte);
  CHECK(line[at - 1] == 'Z');
}

TEST_CASE("a text line stays one line, and a long one is cut") {
  log::configure({.level = log::Level::info, .format = log::Format::text});
  const std::string line = stderr_of([] { log::write_line(log::Level::error, "a\nb\x1b[31m\x7f", 3); });
  CHECK(lines_in(line) == 1);
  CHECK(line.ends_with("error a\\x0ab\\x1b[31m\\x7f (3 like it held back)\n"));
  const std::string cut = stderr_of([] { log::write_line(log::Level::error, std::string(5000, 'x'), 0); });
  CHECK(cut.size() < 2200);
  CHECK(cut.size() > 2048);
}

TEST_CASE("levels below the configured one say nothing and do not evaluate their arguments") {
  log::configure({.level = log::Level::warn, .format = log::Format::text});
  int evaluated = 0;
  const std::string text = stderr_of([&] {
    BC_LOG(info, "quiet {}", ++evaluated);
    BC_LOG(warn, "loud {}", ++evaluated);
  });
  CHECK(evaluated == 1);
  CHECK(text.ends_with("warn  loud 1\n"));
  CHECK(lines_in(text) == 1);
}

TEST_CASE("fields are members of the JSON object and stand behind the text; secrets are in neither") {
  constexpr std::string_view message = "reading http://me:hidden@host/ was slow";
  const auto say = [&] {
    const log::Field fields[] = {log::request_field(77), log::request_field(0), {.name = "origin_ms", .value = 1200}};
    BC_LOG_WITH(warn, fields, "{}", message);
    BC_LOG_REQUEST(warn, 78, "{}, {}", 1, 2);
  };
  log::configure({.level = log::Level::info, .format = log::Format::json});
  const std::string json = stderr_of(say);
  CHECK(json.find(R"("message":"reading http://***@host/ was slow","request":77,"origin_ms":1200})") !=
        std::string::npos);
  CHECK(json.find(R"("message":"1, 2","request":78})") != std::string::npos);
  log::configure({.level = log::Level::info, .format = log::Format::text});
  const std::string text = stderr_of(say);
  CHECK(text.find("warn  reading http://***@host/ was slow request=77 origin_ms=1200\n") != std::string::npos);
  CHECK(lines_in(text) == 2);
}

TEST_CASE("a call site says at most 20 lines in its window, and then how many it held back") {
  log::configure({.level = log::Level::info, .format = log::Format::text});
  CHECK(lines_in(stderr_of([] {
          for (int i = 0; i < 1000; ++i) BC_LOG(warn, "again {}", i);
        })) == 20);
  log::Site site;
  uint32_t held_back = 77;
  int passed = 0;
  for (int i = 0; i < 100; ++i) passed += site.try_pass(&held_back) ? 1 : 0;
  CHECK(passed == 20);
  CHECK(held_back == 0);
  site.window_start_s -= 11;  // ten seconds pass
  CHECK(site.try_pass(&held_back));
  CHECK(held_back == 80);
  CHECK(site.try_pass(&held_back));
  CHECK(held_back == 0);
}

}  // namespace
}  // namespace blobcache
