// What a support bundle is made of. Every text is redacted (base/secrets.h) before it is kept.
//   Thread    main; what may hang is asked in a child process or with a deadline
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"

namespace blobcache::cli {

class Bundle {
 public:
  struct File {
    std::string name;
    std::string text;
  };

  void add(std::string name, std::string_view text);
  // What was looked for and not had, and why.
  void add_missing(std::string_view name, std::string_view why);

  const std::vector<File>& files() const { return files_; }
  // One line for each thing in it and each that is missing.
  std::string contents() const;

 private:
  std::vector<File> files_;
  std::string missing_;
};

// Kernel, machine, limits and mounts.
void add_machine(Bundle& bundle);
// Of the daemon that listens there.
void add_metrics(Bundle& bundle, const HttpConfig& config);
// Status and command line of each daemon that this user may ask, and what it logged last.
void add_daemons(Bundle& bundle);

}  // namespace blobcache::cli
