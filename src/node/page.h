// Page: the status for people who would rather look than read; made of src/node/page/ when the program is built.
#pragma once

#include <string_view>

namespace blobcache::node {

extern const std::string_view page_html;             // one document; it asks for nothing but /v1/status
extern const std::string_view page_security_policy;  // of its script and style alone, by their hashes

}  // namespace blobcache::node
