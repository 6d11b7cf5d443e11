// What a secret looks like where nobody told us of it: the password of an URL, the value of a parameter that signs or opens
// something, the word behind "Bearer". Parameters are known by their names, as S3, Google, Azure and gateways write them; a
// name too many costs a reader a value, a name too few a secret.
#include "base/secrets.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace blobcache {
namespace {

constexpr size_t secret_bytes_min = 8;
constexpr std::string_view stars = "***";

struct Known {
  std::mutex lock;
  std::vector<std::string> secrets;
};
Known& known() {
  static Known instance;
  return instance;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}

// Of a word in running text: what ends a value.
bool ends_value(char c) {
  return static_cast<unsigned char>(c) <= ' ' || c == '&' || c == '"' || c == '\'' || c == '<' || c == '>' ||
         c == ',' || c == ';' || c == ')' || c == '#';
}

bool is_name_byte(char c) {
  return (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

constexpr std::array secret_names{
    std::string_view("x-amz-signature"),
    std::string_view("x-amz-credential"),
    std::string_view("x-amz-security-token"),
    std::string_view("x-goog-signature"),
    std::string_view("x-goog-credential"),
    std::string_view("awsaccesskeyid"),
    std::string_view("googleaccessid"),
    std::string_view("signature"),
    std::string_view("credential"),
    std::string_view("sig"),
    std::string_view("token"),
    std::string_view("access_token"),
    std::string_view("id_token"),
    std::string_view("key"),
    std::string_view("api_key"),
    std::string_view("apikey"),
    std::string_view("password"),
    std::string_view("passwd"),
    std::string_view("secret"),
    std::string_view("client_secret"),
    std::string_view("aws_secret_access_key"),
    std::string_view("aws_session_token"),
    std::string_view("policy"),
};

// These stand in words of ours too ("key = value"): only in a query they are somebody's.
bool only_in_query(std::string_view name) { return same_word(name, "key") || same_word(name, "policy"); }

bool is_secret_name(std::string_view name, bool in_query) {
  const auto found = std::find_if(secret_names.begin(), secret_names.end(),
                                  [&](std::string_view secret) { return same_word(secret, name); });
  return found != secret_names.end() && (in_query || !only_in_query(name));
}

// "://user:password@host": the bytes between :// and the last @ before the host ends.
void hide_user_info(std::string& text) {
  for (size_t at = text.find("://"); at != std::string::npos; at = text.find("://", at)) {
    at += 3;
    size_t end = at;
    while (end < text.size() && text[end] != '/' && text[end] != '?' && text[end] != '#' && text[end] != '"' &&
           static_cast<unsigned char>(text[end]) > ' ') {
      ++end;
    }
    const size_t mark = text.rfind('@', end);
    if (mark == std::string::npos || mark <= at || mark >= end) continue;
    text.replace(at, mark - at, stars);
  }
}

// NAME=VALUE, NAME = VALUE, NAME: VALUE of the names above.
void hide_parameters(std::string& text) {
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '=' && text[at] != ':') continue;
    size_t last = at;
    while (text[at] == '=' && last > 0 && text[last - 1] == ' ') --last;
    size_t first = last;
    while (first > 0 && is_name_byte(text[first - 1])) --first;
    const bool in_query = text[at] == '=' && first > 0 && (text[first - 1] == '?' || text[first - 1] == '&');
    const std::string_view name = std::string_view(text).substr(first, last - first);
    // A colon ends many a word of ours; only headers are told by it.
    if (text[at] == ':' && name.find('-') == std::string_view::npos) continue;
    if (!is_secret_name(name, in_query)) continue;
    size_t value = at + 1;
    while (value < text.size() && (text[value] == ' ' || text[value] == '"')) ++value;
    size_t end = value;
    while (end < text.size() && !ends_value(text[end])) ++end;
    if (end == value) continue;
    text.replace(value, end - value, stars);
    at = value + stars.size() - 1;
  }
}

// "Bearer TOKEN", "Basic TOKEN".
void hide_schemes(std::string& text) {
  for (const std::string_view scheme : {std::string_view("bearer "), std::string_view("basic ")}) {
    for (size_t at = 0; at + scheme.size() < text.size(); ++at) {
      if (!same_word(std::string_view(text).substr(at, scheme.size()), scheme)) continue;
      if (at > 0 && is_name_byte(text[at - 1])) continue;
      const size_t value = at + scheme.size();
      size_t end = value;
      while (end < text.size() && !ends_value(text[end])) ++end;
      if (end - value >= secret_bytes_min) text.replace(value, end - value, stars);
    }
  }
}

void hide_known(std::string& text) {
  Known& all = known();
  const std::lock_guard guard(all.lock);
  for (const std::string& secret : all.secrets) {
    for (size_t at = text.find(secret); at != std::string::npos; at = text.find(secret, at)) {
      text.replace(at, secret.size(), stars);
      at += stars.size();
    }
  }
}

}  // namespace

void remember_secret(std::string_view secret) {
  if (secret.size() < secret_bytes_min) return;
  Known& all = known();
  const std::lock_guard guard(all.lock);
  if (std::find(all.secrets.begin(), all.secrets.end(), secret) != all.secrets.end()) return;
  // Keys that are renewed every hour would fill it: the oldest has had its day.
  if (all.secrets.size() >= known_secrets_max) all.secrets.erase(all.secrets.begin());
  all.secrets.emplace_back(secret);
}

void remember_environment_secrets() {
  for (const char* name : {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"}) {
    if (const char* value = std::getenv(name); value != nullptr) remember_secret(value);
  }
}

std::string redacted(std::string_view text) {
  std::string out(text);
  if (out.find('=') != std::string::npos || out.find(':') != std::string::npos) {
    hide_user_info(out);
    hide_parameters(out);
  }
  hide_schemes(out);
  hide_known(out);
  return out;
}

}  // namespace blobcache
