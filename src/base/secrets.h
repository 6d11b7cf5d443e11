// Secrets: what must not be read in any log, status, message or report.
//   Thread    any
//   Rule      secrets are not passed to where text is made. This is the net below: text that came from elsewhere (a server's
//             words, an URL that somebody wrote, a line of a file) goes through redacted() before anybody sees it
//   Limits    known_secrets_max secrets are remembered, of 8 bytes at least: a shorter one would blot out words
#pragma once

#include <string>
#include <string_view>

namespace blobcache {

inline constexpr unsigned known_secrets_max = 64;

// From now on redacted() knows it, wherever it stands.
void remember_secret(std::string_view secret);
// The values of the environment that are secrets: AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_CONTAINER_AUTHORIZATION_TOKEN.
void remember_environment_secrets();

// user:password@ of URLs, the signature and the keys in their queries, bearer tokens, signatures of S3 requests, and what
// was remembered: each as ***. Text without any comes back as it is.
std::string redacted(std::string_view text);

}  // namespace blobcache
