// A name is bytes: Linux forbids only '/' and NUL. JSON must be UTF-8, so what is none needs some other form. Names that are
// no UTF-8 are mostly old ones in Latin-1, and as that they can be read; it cannot be told from the same letter in UTF-8, which
// is what a reader of a status loses. The lossless way, lone surrogates as Python has them, is refused by parsers of JSON, and
// one odd name would cost the whole status.
//
// C1 control characters are valid UTF-8, but terminals act on them: U+009B begins a sequence as ESC [ does.
#include "base/text.h"

#include <cstdint>
#include <iterator>

#include <fmt/format.h>

namespace blobcache {
namespace {

unsigned byte_at(std::string_view text, size_t at) {
  return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
}

// What one step over a text finds at its front.
struct Letter {
  size_t bytes = 1;
  bool plain = false;  // it may be shown as it is
  unsigned code = 0;   // otherwise: a control character, or a byte that is no UTF-8
};

Letter front_letter(std::string_view text) {
  const unsigned first = byte_at(text, 0);
  const size_t length = utf8_length(text);
  if (length == 0) return {.bytes = 1, .plain = false, .code = first};
  if (length == 1) return {.bytes = 1, .plain = first >= 0x20 && first != 0x7f, .code = first};
  const bool c1 = length == 2 && first == 0xc2 && byte_at(text, 1) < 0xa0;
  return {.bytes = length, .plain = !c1, .code = byte_at(text, 1)};
}

}  // namespace

size_t utf8_length(std::string_view text) {
  const auto continues = [&](size_t at) { return (byte_at(text, at) & 0xc0) == 0x80; };
  if (text.empty()) return 0;
  const unsigned first = byte_at(text, 0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first < 0xf0) {
    const bool overlong = first == 0xe0 && byte_at(text, 1) < 0xa0;
    const bool surrogate = first == 0xed && byte_at(text, 1) >= 0xa0;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first < 0xf5) {
    const bool overlong = first == 0xf0 && byte_at(text, 1) < 0x90;
    const bool beyond = first == 0xf4 && byte_at(text, 1) >= 0x90;
    return continues(1) && continues(2) && continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

std::string_view utf8_cut(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  // A sequence has at most three bytes behind its first; more of them are none.
  for (size_t back = 0; back < 4 && back < bytes_max; ++back) {
    const size_t at = bytes_max - back;
    if ((byte_at(text, at) & 0xc0) == 0x80) continue;
    return text.substr(0, at + utf8_length(text.substr(at)) > bytes_max ? at : bytes_max);
  }
  return text.substr(0, bytes_max);
}

std::string json_string(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 2);
  out += '"';
  while (!text.empty()) {
    const Letter letter = front_letter(text);
    if (!letter.plain) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", letter.code);
    } else {
      if (text[0] == '"' || text[0] == '\\') out += '\\';
      out += text.substr(0, letter.bytes);
    }
    text.remove_prefix(letter.bytes);
  }
  out += '"';
  return out;
}

std::string plain_text(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Letter letter = front_letter(text);
    if (letter.plain) {
      out += text.substr(0, letter.bytes);
    } else {
      for (size_t i = 0; i < letter.bytes; ++i) fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte_at(text, i));
    }
    text.remove_prefix(letter.bytes);
  }
  return out;
}

std::string ascii_lower(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return lowered;
}

}  // namespace blobcache
