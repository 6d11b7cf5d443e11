// TopScreen: a TopView as lines of text, as wide as there is room.
//   Thread    main; pure functions of their arguments
//   Limits    no line is wider than `columns`, and from 80 columns on none is cut in a number
#pragma once

#include <string>
#include <vector>

#include "cli/top_view.h"

namespace blobcache::cli {

inline constexpr unsigned top_columns_default = 80;

struct TopLook {
  unsigned columns = top_columns_default;
  bool colour = false;
};

// What is told on the right of the first line: "every 1 s".
std::vector<std::string> top_lines(const TopView& view, const TopLook& look, const std::string& note);

}  // namespace blobcache::cli
