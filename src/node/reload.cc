// Nothing is stopped for a reload: what may change while requests are served lies in values that are read one by one
// (serve::LiveSettings and its like), so a request sees the old or the new value, never half of one.
#include "node/reload.h"

#include <fmt/format.h>

#include "base/config_change.h"
#include "base/log.h"
#include "node/disks.h"

namespace blobcache::node {
namespace {

// Every line counts here, so none is held back.
void say(log::Level level, const std::string& line) {
  if (log::enabled(level)) log::write_line(level, line, 0);
}

void say_change(const ConfigChange& change) {
  const bool whole = change.place.ends_with(']');
  if (whole && change.before.empty()) {
    say(log::Level::warn, fmt::format("reload: {} = {} is new: it needs a restart", change.place, change.after));
  } else if (whole) {
    say(log::Level::warn, fmt::format("reload: {} = {} is gone: it needs a restart", change.place, change.before));
  } else if (change.reloadable) {
    say(log::Level::info, fmt::format("reload: {} = \"{}\" (was \"{}\")", change.place, change.after, change.before));
  } else {
    say(log::Level::warn, fmt::format("reload: {} = \"{}\" needs a restart; \"{}\" stays in force until then",
                                      change.place, change.after, change.before));
  }
}

}  // namespace

Problems reload(Problems problems, const Config& fresh, Config& config, Config& written) {
  Config merged = config;
  if (problems.empty()) {
    take_reloadable(merged, written, fresh);
    // Values that stay until a restart may not go together with those that would not.
    problems = check_config(merged);
  }
  for (const std::string& problem : problems) say(log::Level::error, "reload: " + problem);
  if (!problems.empty()) {
    say(log::Level::error, "reload: the configuration was not taken over; nothing has changed");
    return problems;
  }
  const std::vector<ConfigChange> changes = config_changes(written, fresh);
  for (const ConfigChange& change : changes) say_change(change);
  if (changes.empty()) say(log::Level::info, "reload: the configuration is the same");
  // Not as a whole: others read what cannot be reloaded.
  take_reloadable(config, written, fresh);
  take_reloadable(written, written, fresh);
  return {};
}

void apply_live(const Config& config, SharedState& shared) {
  log::configure({.level = config.log.level, .format = config.log.format});
  if (shared.disk != nullptr) shared.disk->change(config.cache, volumes_quota(config));
  shared.prefetch->change(config.prefetch);
  for (size_t i = 0; i < shared.volumes.size(); ++i) {
    shared.volumes[i]->live.set(config.fuse, config.origin, config.log);
    shared.volumes[i]->origin->set_limits(config.origin);
    shared.volumes[i]->origin->set_revalidate(config.volumes[i].revalidate_ns);
  }
}

}  // namespace blobcache::node
