// blobcache: one binary, one word per thing it does.
#include <array>

#include "cli/command.h"
#include "cli/commands.h"

int main(int argc, char** argv) {
  using namespace blobcache::cli;
  constexpr std::array commands{
      Command{"mount", "show a directory through the cache", mount_command},
      Command{"umount", "end a mount, also a dead or a hung one", umount_command},
      Command{"run", "serve every volume of a configuration file", run_command},
      Command{"status", "what a running node is doing", status_command},
      Command{"top", "what a running node is doing, live", top_command},
      Command{"warm", "fill the cache with files, report on them, or drop them", warm_command},
      Command{"stat", "what the cache knows of a file", stat_command},
      Command{"path", "the backing file of a file that is whole on disk", path_command},
      Command{"put", "store a file under the SHA-256 of its bytes", put_command},
      Command{"get", "write out what is stored under a SHA-256", get_command},
      Command{"has", "say whether something is stored under a SHA-256", has_command},
      Command{"remove", "remove what is stored under a SHA-256", remove_command},
      Command{"doctor", "check this machine, and say what to change", doctor_command},
      Command{"config", "check, show or explain the configuration", config_command},
      Command{"report", "a support bundle, without secrets", report_command},
      Command{"version", "version, build and what this kernel offers", version_command},
      Command{"generate", "", generate_command},
  };
  return run_command(commands, argc, argv);
}
