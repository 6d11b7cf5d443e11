// Checks: the lines of `doctor`, made from Facts alone.
//   Thread    any; plain functions
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/disk_probe.h"
#include "cli/facts.h"

namespace blobcache::cli {

enum class State : uint8_t {
  ok,
  slow,     // works, but below what the machine could do
  missing,  // nothing works without it
  off,      // an optional part is not in use
};

struct Check {
  std::string_view name;
  State state = State::ok;
  std::string detail;
  std::string remedy;  // empty when ok
};

std::string_view state_name(State state);
std::vector<Check> check_facts(const Facts& facts);
// How a source answered: os_errno 0 and the median of some looks at it.
Check check_source(const std::string& source, int os_errno, uint64_t median_ns, uint64_t worst_ns);
// A cache directory, or a place for one.
Check check_disk(const DiskFacts& disk);

// One aligned line each.
std::string render_checks(const std::vector<Check>& checks);
std::string render_checks_json(const std::vector<Check>& checks);

}  // namespace blobcache::cli
