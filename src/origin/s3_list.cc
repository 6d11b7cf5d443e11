// From a page of ListObjectsV2 to directory entries (the rules of names are docs/S3.md).
//
// "a" and "a/b" can both be keys; the directory wins. In the order of keys any number of names ("a-1", "a.txt") lies between
// "a" and "a/", on any number of pages, so a file is told only when no directory of its name can follow: once a name comes
// that does not begin with the file's. Those that wait are prefixes of each other, so they are few (at most as many as a
// name has bytes).
#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "origin/s3_origin.h"

namespace blobcache {
namespace {

bool is_legal_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= limits::name_bytes_max &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

struct Item {
  std::string_view name;
  const S3Object* object;  // null: a directory
};

}  // namespace

void S3Origin::address_page(ListJob& job) {
  const std::string& key = job.directory->key;
  const std::string prefix = key.empty() ? place_.prefix : place_.prefix + key + "/";
  address_listing(job.request, {.prefix = prefix, .token = job.directory->token});
}

Result<void> S3Origin::take_page(ListJob& job) {
  const Result<S3Page> page = parse_s3_page(job.request.body);
  if (!page) return std::unexpected(page.error());
  OpenDirectory& directory = *job.directory;
  const size_t prefix_bytes = place_.prefix.size() + (directory.key.empty() ? 0 : directory.key.size() + 1);

  std::vector<Item> items;
  items.reserve(page->objects.size() + page->prefixes.size());
  for (const S3Object& object : page->objects) {
    // The prefix itself is what consoles leave behind to show an empty directory.
    if (object.key.size() <= prefix_bytes) continue;
    items.push_back({std::string_view(object.key).substr(prefix_bytes), &object});
  }
  for (const std::string& prefix : page->prefixes) {
    if (prefix.size() <= prefix_bytes) continue;
    items.push_back({std::string_view(prefix).substr(prefix_bytes), nullptr});
  }
  std::ranges::sort(items, {}, &Item::name);  // directories by their name with the slash, as keys are sorted

  std::vector<DirectoryEntry>& undecided = directory.undecided;
  const auto tell_last = [&] {
    directory.page.push_back(std::move(undecided.back()));
    undecided.pop_back();
  };
  for (const Item& item : items) {
    std::string_view name = item.name;
    if (item.object == nullptr) name.remove_suffix(1);
    if (!is_legal_name(name)) {
      count_hidden(item.name);
      continue;
    }
    while (!undecided.empty() && !name.starts_with(undecided.back().name)) tell_last();
    if (item.object != nullptr) {
      undecided.push_back(file_entry(
          directory, name,
          {.size = item.object->size, .mtime_s = item.object->mtime_s, .version = compact_version(item.object->etag)}));
      continue;
    }
    if (!undecided.empty() && undecided.back().name == name) {
      count_hidden(name);
      undecided.pop_back();
    }
    directory.page.push_back(directory_entry(directory, name));
  }
  directory.token = page->next_token;
  directory.at_end = !page->truncated;
  while (directory.at_end && !undecided.empty()) tell_last();
  return {};
}

}  // namespace blobcache
