// From pages of ListObjectsV2 to names: of one directory, or of everything for the index.
#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "origin/s3_origin.h"

namespace blobcache {

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

  std::vector<ListedItem> items;
  items.reserve(page->objects.size() + page->prefixes.size());
  for (const S3Object& object : page->objects) {
    // The prefix itself is what consoles leave behind to show an empty directory. Nor is a name with a slash one of the
    // directory, whatever the server says.
    if (object.key.size() <= prefix_bytes || object.key.ends_with('/')) continue;
    items.push_back({.name = object.key.substr(prefix_bytes),
                     .size = object.size,
                     .mtime_s = object.mtime_s,
                     .version = compact_version(object.etag)});
  }
  for (const std::string& prefix : page->prefixes) {
    if (prefix.size() > prefix_bytes) items.push_back({.name = prefix.substr(prefix_bytes)});
  }
  std::ranges::sort(items, {}, &ListedItem::name);  // directories by their name with the slash, as keys are sorted
  directory.token = page->next_token;
  directory.at_end = !page->truncated;
  tell_names(directory, items);
  return {};
}

void S3Origin::address_tree(HttpRequest& request, const std::string& token) {
  address_listing(request, {.prefix = place_.prefix, .token = token, .delimited = false});
}

Result<std::string> S3Origin::take_tree(const HttpRequest& request, NameIndexWriter& writer) {
  const Result<S3Page> page = parse_s3_page(request.body);
  if (!page) return std::unexpected(page.error());
  for (const S3Object& object : page->objects) {
    const std::string_view key = std::string_view(object.key).substr(std::min(object.key.size(), place_.prefix.size()));
    // Longer ones cannot be asked for.
    if (key.empty() || key.size() >= limits::path_bytes_max) continue;
    const std::string version = compact_version(object.etag);
    const IndexedName name{.key = key, .size = object.size, .mtime_s = object.mtime_s, .version = version};
    if (const Result<void> added = writer.add(name); !added) return std::unexpected(added.error());
  }
  return page->truncated ? page->next_token : std::string();
}

}  // namespace blobcache
