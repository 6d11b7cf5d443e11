// Text: bytes of unknown origin (names of files, words of servers, a producer's sentence) as text that others may read.
//   Thread    any; plain functions
//   Rule      what comes out is valid UTF-8 and steers no terminal: letters pass as they are, control characters (below
//             U+0020, U+007F, U+0080 to U+009F) and bytes that are no UTF-8 are escaped, a byte at a time for the latter
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace blobcache {

// Bytes of the UTF-8 sequence that `text` starts with, 1 to 4; 0 when there is none, or it is not complete. Overlong forms,
// surrogates and what is beyond U+10FFFF are none (RFC 3629).
size_t utf8_length(std::string_view text);

// The longest beginning of at most `bytes_max` bytes that does not end within a sequence.
std::string_view utf8_cut(std::string_view text, size_t bytes_max);

// A JSON string with its quotes. A byte that is no UTF-8 is written as the Latin-1 letter that it would be: 0xE9 is \u00e9.
std::string json_string(std::string_view text);

// For lines that people read: what is escaped is \xNN, a byte each.
std::string plain_text(std::string_view text);

// Names that are compared without regard to case, such as those of HTTP: A to Z alone, whatever the locale.
std::string ascii_lower(std::string_view text);

}  // namespace blobcache
