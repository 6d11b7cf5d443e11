#include "base/object_id.h"

#include <doctest/doctest.h>

namespace blobcache {
namespace {

// Expected values: hashlib.sha256 over, for each part, its length as 8 little-endian bytes and the part; 32 hex digits.
TEST_CASE("ids are the first half of SHA-256 over length-prefixed parts") {
  CHECK(to_hex(object_id("", "", "")) == "9d908ecfb6b256def8b49a7c504e6c88");
  CHECK(to_hex(object_id("s3://endpoint/bucket/prefix", "models/a.safetensors", "\"etag-1\"")) ==
        "bb600e692a1c70543fb4fa0b9ef1693c");
}

TEST_CASE("where one part ends and the next begins matters") {
  CHECK(to_hex(object_id("a", "bc", "")) == "4bba87d4404fb83649a19d4ee7df22a3");
  CHECK(to_hex(object_id("ab", "c", "")) == "03bbec117707a23f74de53c77d0ac02d");
  CHECK(object_id("a", "", "b") != object_id("a", "b", ""));
  CHECK(object_id("a", std::string_view("b\0", 2), "") != object_id("a", "b", ""));
  CHECK(object_id("a", "b", "c") == object_id("a", "b", "c"));
  CHECK(!object_id("", "", "").is_null());
  CHECK(ObjectId{}.is_null());
}

}  // namespace
}  // namespace blobcache
