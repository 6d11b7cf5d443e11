// version: what was built, from what, and what this kernel offers it.
#include <array>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/limits.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/facts.h"
#include "cli/git_hash.h"
#include "cli/version.h"

namespace blobcache::cli {
namespace {

#if defined(__clang__)
constexpr std::string_view compiler = "clang " __clang_version__;
#else
constexpr std::string_view compiler = "g++ " __VERSION__;
#endif

struct Offered {
  std::string_view name;
  bool there;
};

std::string trimmed(std::string_view text) { return std::string(text.substr(0, text.find_last_not_of(' ') + 1)); }

}  // namespace

std::string version_text(bool json) {
  const Facts facts = read_facts();
  const std::array offered{
      Offered{"io_uring", facts.uring.available && facts.uring.all_opcodes},
      Offered{"defer_taskrun", facts.uring.defer_taskrun},
      Offered{"uring_fuse", offers_uring_fuse(facts)},
      Offered{"passthrough", offers_passthrough(facts)},
      Offered{"hugepages", offers_huge_pages(facts)},
  };
  const uint64_t request_bytes = facts.max_pages_limit.value_or(256) * limits::page_bytes;
  std::string list;
  if (json) {
    for (const Offered& feature : offered) {
      list += fmt::format("{}\"{}\":{}", list.empty() ? "" : ",", feature.name, feature.there);
    }
    return fmt::format(
        "{{\"version\":\"{}\",\"git\":\"{}\",\"compiler\":{},\"kernel\":{},\"features\":{{{}}},"
        "\"max_request_bytes\":{}}}\n",
        BLOBCACHE_VERSION, BLOBCACHE_GIT_HASH, json_string(trimmed(compiler)), json_string(facts.kernel_release), list,
        request_bytes);
  }
  for (const Offered& feature : offered) list += fmt::format(" {}{}", feature.there ? "+" : "-", feature.name);
  return fmt::format("blobcache {} ({}, {})\nkernel    {}\nfeatures {}\nrequests  up to {}\n", BLOBCACHE_VERSION,
                     BLOBCACHE_GIT_HASH, trimmed(compiler), facts.kernel_release, list,
                     format_bytes_short(request_bytes));
}

int version_command(int argc, char** argv) {
  CLI::App app("Version, git hash, compiler, and the features found on this kernel.", "blobcache version");
  bool json = false;
  app.add_flag("--json", json, "for programs");
  app.footer("Example:\n  blobcache version --json");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  fmt::print("{}", version_text(json));
  return exit_done;
}

}  // namespace blobcache::cli
