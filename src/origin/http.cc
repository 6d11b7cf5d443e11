// Look-ups ask for the name first: a file answers, and most servers send who leaves out a directory's slash to the name with
// one, which is how a directory is known. Where they say "not found" instead, the name with a slash is asked for too.
//
// ETag and Last-Modified are made from whole seconds by most servers, so what changed a moment ago may change again without
// a trace. The server's own Date says what a moment ago is.
#include "origin/http.h"

#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/units.h"
#include "origin/http_listing.h"
#include "origin/http_manifest.h"
#include "origin/http_text.h"
#include "origin/remote_origin.h"

namespace blobcache {
namespace {

constexpr int64_t young_s = 2;

struct HttpPlace {
  std::string scheme_and_host;
  std::string path;  // encoded, begins and ends with '/'
};

Result<HttpPlace> parse_http_place(std::string_view source, std::string* why) {
  const size_t host = source.find("://") + 3;
  const size_t slash = std::min(source.find('/', host), source.size());
  HttpPlace place{.scheme_and_host = std::string(source.substr(0, slash)), .path = std::string(source.substr(slash))};
  const std::string_view authority = std::string_view(place.scheme_and_host).substr(host);
  const auto refuse = [&](std::string text) {
    *why = std::move(text);
    return fail(Code::invalid, EINVAL);
  };
  if (authority.find('@') != std::string_view::npos) {
    return refuse(
        "a source with a user name and password in it would be shown in logs and mount tables; leave them out");
  }
  if (authority.empty() || source.find_first_of("?#") != std::string_view::npos) {
    return refuse(fmt::format("the source {} is no http(s)://HOST/PATH/; write it without a query", source));
  }
  // As given where it is encoded already; encoded where it is not.
  const std::optional<std::string> plain = percent_decode(place.path);
  if (!plain) return refuse(fmt::format("the source {} has a % without two digits; write it as %25", source));
  place.path = percent_encode_path(*plain);
  if (!place.path.ends_with('/')) place.path += '/';
  return place;
}

// The path of a URL, decoded.
std::string path_of_url(std::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) return {};
  const size_t slash = url.find('/', scheme + 3);
  if (slash == std::string_view::npos) return "/";
  const std::string_view path = url.substr(slash);
  return percent_decode(path.substr(0, path.find_first_of("?#"))).value_or("");
}

class HttpOrigin final : public RemoteOrigin {
 public:
  HttpOrigin(RemoteOptions options, HttpPlace place)
      : RemoteOrigin(std::move(options)), place_(std::move(place)), source_(place_.scheme_and_host + place_.path) {}

  std::string_view canonical_source() const override { return source_; }
  bool check(std::string* why);
  // Takes up the manifest; true: it is one.
  bool load_manifest(std::string* why);
  Result<std::shared_ptr<const NameIndex>> fetch_manifest(std::string* why);

 protected:
  void look(HttpClient& client, LookJob& job) override;
  void address_read(const ReadCall& call, HttpRequest& request) override;
  void address_page(ListJob& job) override;
  std::string said_by(const HttpRequest&) const override { return {}; }
  Result<void> take_page(ListJob& job) override;
  void address_tree(HttpRequest& request, const std::string& token) override;
  Result<std::string> take_tree(const HttpRequest& request, NameIndexWriter& writer) override;

 private:
  Result<void> write_manifest(std::string_view text, NameIndexWriter& writer, std::string* why) const;
  void address(HttpRequest& request, std::string_view key, std::string_view behind) const {
    request.scheme_and_host = place_.scheme_and_host;
    request.path = place_.path + percent_encode_path(key).append(behind);
    request.may_follow = true;
  }
  static void on_looked(HttpRequest& request);
  static void on_looked_with_slash(HttpRequest& request);
  Result<KnownName> file_of(const LookJob& job) const;

  const HttpPlace place_;
  const std::string source_;
};

void HttpOrigin::address_read(const ReadCall& call, HttpRequest& request) { address(request, call.key, ""); }

void HttpOrigin::look(HttpClient& client, LookJob& job) {
  HttpRequest& head = job.requests[0];
  head.verb = HttpVerb::head;
  address(head, job.key, "");
  head.context = &job;
  head.on_done = &HttpOrigin::on_looked;
  client.begin(head);
}

void HttpOrigin::on_looked(HttpRequest& request) {
  auto& job = *static_cast<LookJob*>(request.context);
  auto& self = static_cast<HttpOrigin&>(*job.origin);
  // A directory that may not be listed is one all the same.
  const bool answered = !request.failed || request.error.code == Code::denied;
  if (answered && path_of_url(request.effective_url).ends_with('/')) {
    return self.end_look(job, KnownName{.exists = true, .info = self.directory_info(job.key)});
  }
  if (!request.failed) return self.end_look(job, self.file_of(job));
  if (request.error.code != Code::not_found) {
    self.tell_failure("looking up", job.key, request);
    return self.end_look(job, std::unexpected(request.error));
  }
  HttpRequest& second = job.requests[1];
  second.verb = HttpVerb::head;
  self.address(second, job.key, "/");
  second.context = &job;
  second.on_done = &HttpOrigin::on_looked_with_slash;
  request.client->begin(second);
}

void HttpOrigin::on_looked_with_slash(HttpRequest& request) {
  auto& job = *static_cast<LookJob*>(request.context);
  auto& self = static_cast<HttpOrigin&>(*job.origin);
  if (!request.failed) return self.end_look(job, KnownName{.exists = true, .info = self.directory_info(job.key)});
  if (request.error.code == Code::not_found) return self.end_look(job, KnownName{});
  self.tell_failure("looking up", job.key, request);
  self.end_look(job, std::unexpected(request.error));
}

Result<KnownName> HttpOrigin::file_of(const LookJob& job) const {
  const HttpHead& head = job.requests[0].head;
  const std::optional<uint64_t> size = parse_count(head.content_length);
  const std::string version = version_of(head);
  if (!size || version.empty()) {
    BC_LOG(error, "{}{} has no {}: it cannot be shown, since {}", place_.scheme_and_host, job.requests[0].path,
           size ? "ETag and no Last-Modified" : "Content-Length",
           size ? "a changed file could not be told from the old one" : "its size is unknown");
    return fail(Code::protocol, EPROTO);
  }
  const std::optional<int64_t> changed_s = parse_http_date(head.last_modified);
  KnownName known{.exists = true,
                  .info = file_info(job.key, {.size = *size, .mtime_s = changed_s.value_or(0), .version = version})};
  const std::optional<int64_t> answered_s = parse_http_date(head.date);
  known.info.young = changed_s && answered_s && *changed_s > *answered_s - young_s;
  return known;
}

void HttpOrigin::address_page(ListJob& job) {
  const std::string& key = job.directory->key;
  address(job.request, key, key.empty() ? "" : "/");
}

Result<void> HttpOrigin::take_page(ListJob& job) {
  const HttpRequest& request = job.request;
  const bool json = request.head.content_type.find("json") != std::string::npos;
  const Result<std::vector<ListedName>> names =
      json ? parse_json_listing(request.body) : parse_html_listing(request.body, path_of_url(request.effective_url));
  if (!names) {
    BC_LOG(error, "{}{} answered with no listing: switch autoindex on (nginx: autoindex on; autoindex_format json)",
           request.scheme_and_host, request.path);
    return std::unexpected(names.error());
  }
  OpenDirectory& directory = *job.directory;
  for (const ListedName& listed : *names) {
    // What a file's version is only a look-up tells.
    directory.page.push_back(listed.directory ? directory_entry(directory, listed.name)
                                              : file_entry(directory, listed.name, {}));
  }
  directory.at_end = true;
  return {};
}

// Manifests.

void HttpOrigin::address_tree(HttpRequest& request, const std::string&) {
  address(request, options().volume.http.manifest, "");
}

Result<void> HttpOrigin::write_manifest(std::string_view text, NameIndexWriter& writer, std::string* why) const {
  const Result<std::vector<ManifestFile>> files = parse_manifest(text, why);
  if (!files) return std::unexpected(files.error());
  for (const ManifestFile& file : *files) {
    const IndexedName name{.key = file.path, .size = file.size, .mtime_s = file.mtime_s, .version = file.version};
    if (const Result<void> added = writer.add(name); !added) {
      *why = "no room for its names";
      return added;
    }
  }
  return {};
}

Result<std::string> HttpOrigin::take_tree(const HttpRequest& request, NameIndexWriter& writer) {
  std::string why;
  const Result<void> written = write_manifest(request.body, writer, &why);
  if (written) return std::string();
  BC_LOG(error, "the manifest {}{} is not taken, the one before goes on: {}", place_.scheme_and_host, request.path,
         why);
  return std::unexpected(written.error());
}

bool HttpOrigin::load_manifest(std::string* why) {
  tree_index()->try_begin_build();
  Result<std::shared_ptr<const NameIndex>> index = fetch_manifest(why);
  const bool made = index.has_value();
  tree_index()->end_build(std::move(index));
  return made;
}

Result<std::shared_ptr<const NameIndex>> HttpOrigin::fetch_manifest(std::string* why) {
  HttpRequest request;
  address_tree(request, "");
  request.body_bytes_max = manifest_bytes_max;
  if (!ask_now(request, why)) return fail(Code::io, EIO);
  const std::string place = place_.scheme_and_host + request.path;
  if (request.failed) {
    const bool too_long = request.head.status == 200 && request.error.code == Code::protocol;
    *why = fmt::format("the manifest {} cannot be fetched: {}; check volume.http.manifest", place,
                       too_long ? fmt::format("it is longer than {}", format_bytes_short(manifest_bytes_max))
                       : request.head.status != 0 ? fmt::format("the answer has status {}", request.head.status)
                       : request.sentence.empty() ? "no answer"
                                                  : request.sentence);
    return std::unexpected(request.error);
  }
  std::string wrong = "there is no memory for it";
  Result<std::unique_ptr<NameIndexWriter>> writer = tree_index()->create_writer();
  if (writer && write_manifest(request.body, **writer, &wrong)) {
    if (Result<std::shared_ptr<const NameIndex>> index = (*writer)->finish()) return index;
  }
  *why = fmt::format("the manifest {} cannot be used: {}", place, wrong);
  return fail(Code::protocol, EPROTO);
}

// The question at the start.

bool HttpOrigin::check(std::string* why) {
  HttpRequest request;
  request.verb = HttpVerb::head;
  address(request, "", "");
  if (!ask_now(request, why)) return false;
  // Servers that let nobody list, or know no HEAD of a directory, may still have the files.
  const long status = request.head.status;
  if (!request.failed || status == 403 || status == 405) return true;
  if (status == 0) {
    *why = fmt::format("cannot reach {}: {}; check the host, the network and the certificates (volume.s3.ca_file)",
                       source_, request.sentence.empty() ? "no answer" : request.sentence);
  } else if (status == 404) {
    *why = fmt::format("there is nothing at {}; check the path", source_);
  } else if (status == 401) {
    *why = fmt::format("{} asks for a password, which this version cannot give; use a server that does not", source_);
  } else {
    *why = fmt::format("{} answered with status {}; check that it is a tree of files", source_, status);
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<Origin>> create_http_origin(const VolumeConfig& volume, const OriginConfig& origin,
                                                   std::string* why) {
  Result<HttpPlace> place = parse_http_place(volume.source, why);
  if (!place) return std::unexpected(place.error());
  RemoteOptions options{.volume = volume, .origin = origin, .ca_file = volume.s3.ca_file};
  const bool has_manifest = !volume.http.manifest.empty();
  if (has_manifest) {
    options.index = {.trusted_ns = volume.revalidate_ns, .serves_outdated = true};
    options.tree_bytes_max = manifest_bytes_max;
  }
  auto created = std::make_unique<HttpOrigin>(std::move(options), std::move(*place));
  if (!(has_manifest ? created->load_manifest(why) : created->check(why))) {
    created->stop();
    created->join(1000);
    return fail(Code::io, EIO);
  }
  return created;
}

}  // namespace blobcache
