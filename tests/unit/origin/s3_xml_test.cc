#include <doctest/doctest.h>

#include "origin/s3_xml.h"

using namespace blobcache;

TEST_CASE("a page of a listing") {
  const auto page = parse_s3_page(
      "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n"
      "  <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\n"
      "  <NextContinuationToken>a&amp;b+/=</NextContinuationToken>\n"
      "  <Contents><Key>a+b%2B%C3%BC</Key><Size>5</Size><ETag>&quot;e1&quot;</ETag>"
      "<LastModified>2009-10-12T17:50:30.123Z</LastModified></Contents>\n"
      "  <Contents><Key>c</Key><Size>0</Size><ETag>e2</ETag></Contents>\n"
      "  <CommonPrefixes><Prefix>d%2F</Prefix></CommonPrefixes>\n</ListBucketResult>");
  REQUIRE(page);
  REQUIRE(page->objects.size() == 2);
  CHECK(page->objects[0].key == "a b+ü");
  CHECK(page->objects[0].size == 5);
  CHECK(page->objects[0].etag == "\"e1\"");
  CHECK(page->objects[0].mtime_s == 1255369830);
  CHECK(page->objects[1].etag == "\"e2\"");
  CHECK(page->prefixes == std::vector<std::string>{"d/"});
  CHECK(page->truncated);
  CHECK(page->next_token == "a&b+/=");
}

TEST_CASE("keys that were not encoded are not decoded") {
  const auto page =
      parse_s3_page("<ListBucketResult><Contents><Key>a+%41</Key><Size>1</Size></Contents></ListBucketResult>");
  REQUIRE(page);
  CHECK(page->objects[0].key == "a+%41");
}

TEST_CASE("what is no listing is refused") {
  for (const char* bad :
       {"", "<html>sorry</html>", "<ListBucketResult>", "{}", "<Error><Code>X</Code></Error>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%4</Key><Size>1</Size></Contents>"
        "</ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"}) {
    CAPTURE(bad);
    CHECK(!parse_s3_page(bad));
  }
  CHECK(parse_s3_page("<ListBucketResult/>"));
}

TEST_CASE("failures") {
  const S3Failure failure = parse_s3_failure("<Error><Code>NoSuchBucket</Code><Message>m</Message></Error>");
  CHECK(failure.code == "NoSuchBucket");
  CHECK(failure.message == "m");
  CHECK(parse_s3_failure("<html>").code.empty());
}
