#include "origin/s3_xml.h"

#include <optional>

#include <pugixml.hpp>

#include "origin/http_text.h"

namespace blobcache {
namespace {

constexpr unsigned parse_flags =
    pugi::parse_minimal | pugi::parse_escapes | pugi::parse_cdata | pugi::parse_ws_pcdata_single;

std::optional<std::string> decoded(const pugi::xml_node& parent, const char* name) {
  return percent_decode(parent.child_value(name), {.plus_is_space = true});
}

}  // namespace

Result<S3Page> parse_s3_page(std::string_view xml) {
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size(), parse_flags)) return fail(Code::protocol);
  const pugi::xml_node root = document.child("ListBucketResult");
  if (!root) return fail(Code::protocol);
  // Who did not understand the parameter sends keys as they are, which must not be decoded.
  const bool encoded = std::string_view(root.child_value("EncodingType")) == "url";
  const auto text_of = [&](const pugi::xml_node& node, const char* name) -> std::optional<std::string> {
    return encoded ? decoded(node, name) : std::optional<std::string>(node.child_value(name));
  };
  S3Page page;
  for (const pugi::xml_node& node : root.children("Contents")) {
    const std::optional<std::string> key = text_of(node, "Key");
    const std::optional<uint64_t> size = parse_count(trim(node.child_value("Size")));
    if (!key || key->empty() || !size) return fail(Code::protocol);
    S3Object& object = page.objects.emplace_back();
    object.key = *key;
    object.size = *size;
    object.mtime_s = parse_iso_date(node.child_value("LastModified")).value_or(0);
    object.etag = trim(node.child_value("ETag"));
    if (!object.etag.empty() && object.etag[0] != '"') object.etag = '"' + object.etag + '"';
  }
  for (const pugi::xml_node& node : root.children("CommonPrefixes")) {
    const std::optional<std::string> prefix = text_of(node, "Prefix");
    if (!prefix || prefix->empty()) return fail(Code::protocol);
    page.prefixes.push_back(*prefix);
  }
  page.truncated = std::string_view(root.child_value("IsTruncated")) == "true";
  page.next_token = root.child_value("NextContinuationToken");
  if (page.truncated && page.next_token.empty()) return fail(Code::protocol);
  return page;
}

S3Failure parse_s3_failure(std::string_view xml) {
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size(), parse_flags)) return {};
  const pugi::xml_node root = document.child("Error");
  return {
      .code = root.child_value("Code"), .message = root.child_value("Message"), .region = root.child_value("Region")};
}

}  // namespace blobcache
