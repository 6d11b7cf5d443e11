// Fuzzes where credentials come from: AWS's profile files, the sign-in's cache, and what services and programs answer.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz aws_credentials_fuzz
//   Run    build/fuzz/tests/fuzz/aws_credentials_fuzz -max_len=16384 -rss_limit_mb=512 CORPUS_FOLDER tests/fuzz/seeds/aws_credentials
// The input is five texts with a line "%%" between them: the name of a profile, the credentials file, the config file, the
// cache of the sign-in "s", and what is answered. No service is asked and no program run: both are replaced here by that
// answer. Checked besides crashes: what is found has both keys, and nothing of it could end a header's line or be the secret
// that a refusal tells of.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "origin/aws_credentials.h"
#include "origin/aws_profile.h"
#include "origin/http_blocking.h"

namespace blobcache {
namespace {

std::string_view answer_body;

}  // namespace

// In place of http_blocking.cc and aws_program.cc.
BlockingAnswer ask_blocking(const BlockingHttp&) {
  const bool refused = answer_body.starts_with('!');
  return {.status = refused ? 403 : 200, .body = std::string(answer_body)};
}
Result<AwsCredentials> from_program(const std::string& command, std::string* why) {
  Result<AwsCredentials> found = parse_service_credentials(answer_body);
  if (!found) *why = "credential_process " + command.substr(0, command.find(' '));
  return found;
}

}  // namespace blobcache

using namespace blobcache;

namespace {

const std::string& home() {
  static const std::string made = [] {
    char name[] = "/dev/shm/aws_credentials_fuzz.XXXXXX";
    BC_ASSERT(::mkdtemp(name) != nullptr);
    for (const char* below : {"/.aws", "/.aws/sso", "/.aws/sso/cache"})
      ::mkdir((name + std::string(below)).c_str(), 0700);
    ::setenv("HOME", name, 1);
    ::setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    return std::string(name);
  }();
  return made;
}

std::string_view next_text(std::string_view& left) {
  constexpr std::string_view between = "\n%%\n";
  const size_t end = std::min(left.find(between), left.size());
  const std::string_view text = left.substr(0, end);
  left.remove_prefix(std::min(end + between.size(), left.size()));
  return text;
}

void write_file(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
}

bool is_sendable(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view left(reinterpret_cast<const char*>(data), size);
  const std::string profile(next_text(left));
  write_file(home() + "/.aws/credentials", next_text(left));
  write_file(home() + "/.aws/config", next_text(left));
  // The name is the SHA-1 of "s".
  write_file(home() + "/.aws/sso/cache/a0f1490a20d0211c997b44bc357e1972deab8ae3.json", next_text(left));
  answer_body = left;
  ::setenv("AWS_PROFILE", profile.c_str(), 1);
  std::string why;
  const Result<AwsCredentials> found =
      find_aws_credentials({.setting = "auto", .region = "us-east-1", .ca_file = ""}, &why);
  if (found) {
    BC_ASSERT(!found->access_key.empty() && !found->secret_key.empty());
    BC_ASSERT(is_sendable(found->access_key) && is_sendable(found->secret_key) && is_sendable(found->session_token));
  } else {
    BC_ASSERT(!why.empty());
  }
  const Result<AwsCredentials> named =
      find_aws_credentials({.setting = home() + "/.aws/credentials", .region = "us-east-1", .ca_file = ""}, &why);
  BC_ASSERT(!named || (!named->access_key.empty() && is_sendable(named->access_key)));
  return 0;
}
