// What S3 says in XML. Hostile input: bounded by its length, no entities are expanded.
//   Thread    any; pure functions
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace blobcache {

struct S3Object {
  std::string key;
  std::string etag;  // with its quotes; empty: not told
  uint64_t size = 0;
  int64_t mtime_s = 0;
};

// One answer of ListObjectsV2 that was asked with encoding-type=url. Keys are decoded, in the order of the answer.
struct S3Page {
  std::vector<S3Object> objects;
  std::vector<std::string> prefixes;
  bool truncated = false;
  std::string next_token;
};

// Errors: protocol (no such document, a size that is none, truncated without a token).
Result<S3Page> parse_s3_page(std::string_view xml);

struct S3Failure {
  std::string code;  // "NoSuchBucket"; empty: it is no S3 error
  std::string message;
  std::string region;  // where the bucket is, when that is the reason
};
S3Failure parse_s3_failure(std::string_view xml);

}  // namespace blobcache
