// Listings of remote origins, page by page. See remote_origin.h for cookies.
//
// "a" and "a/b" can both be keys; the directory wins (docs/S3.md). In the order of keys any number of names ("a-1", "a.txt")
// lies between "a" and "a/", on any number of pages, so a file is told only when no directory of its name can follow: once a
// name comes that does not begin with the file's. Those that wait are prefixes of each other, so they are few (at most as
// many as a name has bytes).
#include <algorithm>
#include <cerrno>
#include <utility>

#include <dirent.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"
#include "origin/remote_origin.h"

namespace blobcache {
namespace {

// Places to go back to that an open directory remembers: 1,000 pages are a million names.
constexpr size_t starts_max = 4096;
constexpr size_t page_bytes_max = 64 * limits::MiB;

bool is_legal_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= limits::name_bytes_max &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

DirectoryEntry dot_entry(const char* name, uint64_t ino) {
  DirectoryEntry entry;
  entry.name = name;
  entry.ino = ino;
  entry.type = DT_DIR;
  return entry;
}

}  // namespace

DirectoryEntry RemoteOrigin::file_entry(const OpenDirectory& directory, std::string_view name,
                                        const FileFacts& facts) const {
  DirectoryEntry entry;
  entry.name = name;
  entry.type = DT_REG;
  const std::string key = child_of(directory.key, name);
  entry.ino = ino_of(key);
  // Without a version it has to be looked up before it can be opened.
  entry.has_info = !facts.version.empty();
  if (entry.has_info) entry.info = file_info(key, facts);
  return entry;
}

DirectoryEntry RemoteOrigin::directory_entry(const OpenDirectory& directory, std::string_view name) const {
  DirectoryEntry entry;
  entry.name = name;
  entry.type = DT_DIR;
  entry.has_info = true;
  entry.info = directory_info(child_of(directory.key, name));
  entry.ino = entry.info.attributes.ino;
  return entry;
}

void RemoteOrigin::tell_names(OpenDirectory& directory, std::span<const ListedItem> items) {
  std::vector<DirectoryEntry>& undecided = directory.undecided;
  const auto tell_last = [&] {
    directory.page.push_back(std::move(undecided.back()));
    undecided.pop_back();
  };
  for (const ListedItem& item : items) {
    std::string_view name = item.name;
    const bool is_directory = name.ends_with('/');
    if (is_directory) name.remove_suffix(1);
    if (!is_legal_name(name)) {
      count_hidden(item.name);
      continue;
    }
    while (!undecided.empty() && !name.starts_with(undecided.back().name)) tell_last();
    if (!is_directory) {
      undecided.push_back(
          file_entry(directory, name, {.size = item.size, .mtime_s = item.mtime_s, .version = item.version}));
      continue;
    }
    if (!undecided.empty() && undecided.back().name == name) {
      count_hidden(name);
      undecided.pop_back();
    }
    directory.page.push_back(directory_entry(directory, name));
  }
  while (directory.at_end && !undecided.empty()) tell_last();
}

void RemoteOrigin::begin_list(Reactor& home, ListCall& call) {
  BC_ASSERT(call.fd >= 0 && call.entries_max > 0);
  call.entries.clear();
  if (!begin_call(home, call)) return;
  OpenDirectory* directory = nullptr;
  {
    const std::lock_guard lock(directories_mutex_);
    directory = &directories_[static_cast<size_t>(call.fd)];
    if (std::exchange(directory->busy, true)) directory = nullptr;
  }
  if (directory == nullptr) return call.finish_failed({Code::again, EBUSY});
  rewind(*directory, call.offset);
  begin_build_if_due(home);
  auto* job = new ListJob;
  job->origin = this;
  job->call = &call;
  job->directory = directory;
  go_on_listing(client_of(home), job);
}

// Makes the page in hand one that lies before `offset`, or holds it.
void RemoteOrigin::rewind(OpenDirectory& directory, uint64_t offset) {
  if (offset > 0 && directory.begun && offset >= directory.page_first) return;
  OpenDirectory::Start start{};
  if (offset == 0) {
    directory.starts.clear();
  } else {
    for (const OpenDirectory::Start& candidate : directory.starts) {
      if (candidate.page_first <= offset) start = candidate;
    }
  }
  directory.begun = false;
  directory.at_end = false;
  directory.page.clear();
  directory.page_first = start.page_first;
  directory.token = start.token;
  directory.undecided = start.undecided;
  if (start.page_first == 0 && start.token.empty()) {
    directory.index = tree_index_ ? tree_index_->current() : nullptr;
    const size_t slash = directory.key.rfind('/');
    const std::string_view parent = slash == std::string::npos ? "" : std::string_view(directory.key).substr(0, slash);
    directory.page.push_back(dot_entry(".", directory.key.empty() ? 1 : ino_of(directory.key)));
    directory.page.push_back(dot_entry("..", parent.empty() ? 1 : ino_of(parent)));
  }
}

void RemoteOrigin::end_listing(ListJob* job, Error why, bool failed) {
  const std::unique_ptr<ListJob> owned(job);
  ListCall& call = *job->call;
  {
    const std::lock_guard lock(job->origin->directories_mutex_);
    job->directory->busy = false;
  }
  if (failed) return call.finish_failed(why);
  call.finish();
}

void RemoteOrigin::go_on_listing(HttpClient& client, ListJob* job) {
  OpenDirectory& directory = *job->directory;
  ListCall& call = *job->call;
  const uint64_t page_end = directory.page_first + directory.page.size();
  if (call.offset < page_end || directory.at_end) {
    for (uint64_t i = call.offset; i < page_end && call.entries.size() < call.entries_max; ++i) {
      DirectoryEntry& entry = call.entries.emplace_back(directory.page[i - directory.page_first]);
      entry.next_offset = i + 1;
    }
    return end_listing(job, {}, false);
  }
  directory.page_first = page_end;
  directory.page.clear();
  directory.begun = true;
  if (directory.starts.empty() || directory.starts.back().page_first < page_end) {
    if (directory.starts.size() >= starts_max) {
      size_t kept = 0;
      for (size_t i = 0; i < directory.starts.size(); i += 2) directory.starts[kept++] = std::move(directory.starts[i]);
      directory.starts.resize(kept);
    }
    directory.starts.push_back({.page_first = page_end, .token = directory.token, .undecided = directory.undecided});
  }
  if (directory.index != nullptr) return begin_index_page(*job);
  job->request.context = job;
  job->request.on_done = &RemoteOrigin::on_page;
  job->request.body_bytes_max = page_bytes_max;
  address_page(*job);
  client.begin(job->request);
}

void RemoteOrigin::on_page(HttpRequest& request) {
  auto* job = static_cast<ListJob*>(request.context);
  RemoteOrigin& self = *job->origin;
  OpenDirectory& directory = *job->directory;
  if (request.failed) {
    directory.begun = false;  // this page is asked for again by whoever comes next
    self.tell_failure("listing", directory.key, request);
    return end_listing(job, request.error, true);
  }
  if (const Result<void> taken = self.take_page(*job); !taken) {
    directory.begun = false;
    return end_listing(job, taken.error(), true);
  }
  self.remember(directory, directory.page, job->call->home->now_ns());
  self.go_on_listing(*request.client, job);
}

void RemoteOrigin::remember(const OpenDirectory& directory, const std::vector<DirectoryEntry>& page, uint64_t now_ns) {
  // An index that has gone or been replaced since the listing began is not believed any more.
  if (directory.index != nullptr && directory.index != tree_index_->current()) return;
  for (const DirectoryEntry& entry : page) {
    if (!entry.has_info) continue;
    names_.put(child_of(directory.key, entry.name), {.exists = true, .info = entry.info}, trusted_until(now_ns, true));
  }
}

}  // namespace blobcache
