// Look-ups, opens, reads and the clients behind them. remote_list.cc has the listings.
//
// A client belongs to a reactor and is found by it; there are as many as cores, so a list is looked through. What a call
// needs while it is in flight (requests, URLs) is allocated for it: a request to a server costs a thousand times more.
#include "origin/remote_origin.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "origin/posix_info.h"
#include "origin/receive_buffers.h"
#include "ring/poster.h"
#include "ring/uring.h"

namespace blobcache {
namespace {

constexpr size_t names_max = 16 * 1024;  // about 8 MiB with long keys
constexpr uint64_t absent_ns_max = 5'000'000'000;
constexpr uint64_t s_ns = 1'000'000'000;
constexpr unsigned first_retries_max = 2;  // of the question at the start, which somebody waits for
constexpr uint64_t first_deadline_ns = 25 * s_ns;

HttpOptions http_options_of(const RemoteOptions& options) {
  return {.connections_max = options.origin.connections,
          .attempt_timeout_ns = options.origin.attempt_timeout_ns,
          .deadline_ns = options.origin.deadline_ns,
          .retries_max = options.origin.retries,
          .ca_file = options.ca_file,
          .http1_only = options.http1_only};
}

}  // namespace

struct RemoteOrigin::Client {
  struct StopMessage : Message {
    StopMessage() : Message(&StopMessage::on_message) {}
    static void on_message(Op& op, int32_t, uint32_t) {
      auto& self = static_cast<StopMessage&>(op);
      self.client->stop();
      self.handled.store(true, std::memory_order_release);
    }
    HttpClient* client = nullptr;
    std::atomic<bool> handled{true};
  };

  Client(Reactor& reactor, const HttpOptions& options, OriginCounters& counters, std::atomic<unsigned>& in_flight)
      : home(&reactor), http(reactor, options, counters, in_flight) {
    stop_message.client = &http;
  }
  Reactor* const home;
  HttpClient http;
  StopMessage stop_message;
};

RemoteOrigin::RemoteOrigin(RemoteOptions options)
    : options_(std::move(options)),
      http_options_(http_options_of(options_)),
      bandwidth_(options_.origin.bandwidth_bytes),
      revalidate_ns_(options_.volume.revalidate_ns),
      started_s_(static_cast<int64_t>(std::time(nullptr))),
      names_(names_max) {
  set_up_libcurl();
  http_options_.bandwidth = &bandwidth_;
  if (!options_.index) return;
  tree_index_.emplace(*options_.index);
  build_helper_.emplace(1);
}

RemoteOrigin::~RemoteOrigin() = default;

HttpClient& RemoteOrigin::client_of(Reactor& home) {
  const std::lock_guard lock(clients_mutex_);
  for (const std::unique_ptr<Client>& client : clients_) {
    if (client->home == &home) return client->http;
  }
  clients_.push_back(std::make_unique<Client>(home, http_options_, counters_, in_flight_));
  return clients_.back()->http;
}

bool RemoteOrigin::begin_call(Reactor& home, OriginCall& call) {
  BC_ASSERT(call.on_done != nullptr);
  call.home = &home;
  call.origin = this;
  call.failed = false;
  call.error = {};
  if (!stopping()) return true;
  call.finish_failed({Code::stopping, ECANCELED});
  return false;
}

bool RemoteOrigin::ask_now(HttpRequest& request, std::string* why) {
  constexpr unsigned cqes = 256;
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 64, .cqes = cqes});
  if (!ring) {
    *why = "io_uring refused a small ring; raise RLIMIT_MEMLOCK";
    return false;
  }
  Reactor reactor(std::move(*ring), {.cqes = cqes});
  HttpOptions patience = http_options_;
  patience.retries_max = std::min(patience.retries_max.get(), first_retries_max);
  patience.deadline_ns = std::min(patience.deadline_ns.get(), first_deadline_ns);
  OriginCounters counters;
  std::atomic<unsigned> in_flight{0};
  HttpClient client(reactor, patience, counters, in_flight);
  bool ended = false;
  request.context = &ended;
  request.on_done = [](HttpRequest& done) { *static_cast<bool*>(done.context) = true; };
  client.begin(request);
  while (!ended) reactor.turn(true);
  reactor.drain(s_ns);
  return true;
}

// Look-ups and opens.

void RemoteOrigin::begin_lookup(Reactor& home, LookupCall& call) {
  if (begin_call(home, call)) resolve(home, call, call.key, false);
}

void RemoteOrigin::begin_open(Reactor& home, OpenCall& call) {
  call.fd = -1;
  if (begin_call(home, call)) resolve(home, call, call.key, true);
}

void RemoteOrigin::resolve(Reactor& home, OriginCall& call, const std::string& key, bool opening) {
  if (const Result<void> checked = check_posix_key(key); !checked) return call.finish_failed(checked.error());
  KnownName known;
  if (key.empty()) {
    known = {.exists = true, .info = directory_info("")};
    return finish_look(call, opening, key, known);
  }
  if (names_.find(key, home.now_ns(), &known)) return finish_look(call, opening, key, known);
  auto* job = new LookJob;
  job->origin = this;
  job->call = &call;
  job->opening = opening;
  job->key = key;
  begin_build_if_due(home);
  if (std::shared_ptr<const NameIndex> index = tree_index_ ? tree_index_->current() : nullptr) {
    return look_in_index(home, *job, std::move(index));
  }
  look(client_of(home), *job);
}

uint64_t RemoteOrigin::trusted_until(uint64_t now_ns, bool exists) {
  uint64_t trusted_ns = revalidate_ns_;
  // What the index says is as old as it is.
  if (tree_index_ && tree_index_->current() != nullptr)
    trusted_ns = std::min(trusted_ns, tree_index_->trusted_ns_left());
  if (!exists) return now_ns + std::min(trusted_ns, absent_ns_max);
  return trusted_ns == config_never_ns ? UINT64_MAX : now_ns + trusted_ns;
}

void RemoteOrigin::end_look(LookJob& job, const Result<KnownName>& found) {
  OriginCall& call = *job.call;
  const bool opening = job.opening;
  const std::string key = std::move(job.key);
  // Told by an index that has gone or been replaced meanwhile: good for this call alone.
  const bool outdated = job.read.index != nullptr && job.read.index != tree_index_->current();
  delete &job;
  if (found && !found->info.young && !outdated) {
    const uint64_t now_ns = call.home->now_ns();
    names_.put(key, *found, trusted_until(now_ns, found->exists));
  }
  finish_look(call, opening, key, found);
}

void RemoteOrigin::finish_look(OriginCall& call, bool opening, const std::string& key, const Result<KnownName>& found) {
  if (!found) return call.finish_failed(found.error());
  if (!found->exists) return call.finish_failed({Code::not_found, ENOENT});
  if (!opening) {
    static_cast<LookupCall&>(call).info = found->info;
    return call.finish();
  }
  auto& open = static_cast<OpenCall&>(call);
  open.info = found->info;
  if (!S_ISDIR(found->info.attributes.mode)) return call.finish();
  const std::lock_guard lock(directories_mutex_);
  if (free_directories_.empty()) {
    directories_.emplace_back();
    open.fd = static_cast<int>(directories_.size()) - 1;
  } else {
    open.fd = free_directories_.back();
    free_directories_.pop_back();
  }
  directories_[static_cast<size_t>(open.fd)].key = key;
  call.finish();
}

void RemoteOrigin::close(Reactor&, int fd) {
  const std::lock_guard lock(directories_mutex_);
  OpenDirectory& directory = directories_[static_cast<size_t>(fd)];
  BC_ASSERT(!directory.busy);
  directory = {};
  free_directories_.push_back(fd);
}

// Reads.

void RemoteOrigin::begin_read(Reactor& home, ReadCall& call) {
  BC_ASSERT(call.to != nullptr && call.bytes > 0);
  if (!begin_call(home, call)) return;
  call.young = false;
  auto* job = new ReadJob;
  job->origin = this;
  job->call = &call;
  address_read(call, job->request);
  job->request.expected_version = call.version.view();
  job->request.to = call.to;
  job->request.pieces = call.pieces;
  job->request.offset = call.offset;
  job->request.bytes = call.bytes;
  job->request.context = job;
  job->request.on_done = &RemoteOrigin::on_read;
  job->request.background = call.background;
  if (call.on_bytes != nullptr) job->request.on_bytes = &RemoteOrigin::on_read_bytes;
  client_of(home).begin(job->request);
}

void RemoteOrigin::on_read_bytes(HttpRequest& request, uint32_t bytes_done) {
  ReadCall& call = *static_cast<ReadJob*>(request.context)->call;
  call.on_bytes(call, bytes_done);
}

void RemoteOrigin::on_read(HttpRequest& request) {
  const std::unique_ptr<ReadJob> job(static_cast<ReadJob*>(request.context));
  ReadCall& call = *job->call;
  if (!request.failed) return call.finish();
  Error why = request.error;
  // Deleted since it was opened: its old bytes are gone.
  if (why.code == Code::not_found) why = {Code::stale, ESTALE};
  if (why.code == Code::stale) job->origin->forget(call);
  job->origin->tell_failure("reading", call.key, request, call.request_id);
  call.finish_failed(why);
}

void RemoteOrigin::tell_failure(std::string_view doing, std::string_view key, const HttpRequest& request,
                                uint64_t request_id) {
  const std::string what = fmt::format("{} '{}' of {}", doing, key, options_.volume.source);
  const std::string sentence = failure_sentence(request, http_options_, what, said_by(request));
  uint64_t left_unsaid = 0;
  if (sentence.empty() || !failure_lines_.may_say(request.client->home().now_ns(), &left_unsaid)) return;
  BC_LOG_REQUEST(warn, request_id, "{}{}", sentence,
                 left_unsaid > 0 ? fmt::format(" ({} more since the last such line)", left_unsaid) : "");
}

void RemoteOrigin::begin_readlink(Reactor& home, ReadlinkCall& call) {
  if (begin_call(home, call)) call.finish_failed({Code::invalid, EINVAL});
}

void RemoteOrigin::begin_statfs(Reactor& home, StatfsCall& call) {
  if (!begin_call(home, call)) return;
  // Nobody knows; enough for programs that look whether there is room, and none of it free.
  call.blocks = uint64_t{1} << 38;  // 1 PiB
  call.blocks_free = call.blocks_available = 0;
  call.files = uint64_t{1} << 32;
  call.files_free = 0;
  call.finish();
}

// What is shown.

uint64_t RemoteOrigin::ino_of(std::string_view key) {
  return std::max<uint64_t>(XXH3_64bits(key.data(), key.size()), 2);
}

std::string RemoteOrigin::child_of(std::string_view directory, std::string_view name) {
  std::string key(directory);
  if (!key.empty()) key += '/';
  return key.append(name);
}

FileInfo RemoteOrigin::file_info(std::string_view key, const FileFacts& facts) const {
  FileInfo info;
  FileAttributes& shown = info.attributes;
  shown.ino = ino_of(key);
  shown.size = facts.size;
  shown.blocks = (facts.size + 511) / 512;
  shown.mode = S_IFREG | options_.volume.file_mode;
  shown.uid = options_.volume.uid;
  shown.gid = options_.volume.gid;
  shown.atime = shown.mtime = shown.ctime = {.seconds = facts.mtime_s, .nanoseconds = 0};
  BC_ASSERT(facts.version.size() <= sizeof info.version.bytes);
  info.version.length = static_cast<uint8_t>(facts.version.size());
  std::copy(facts.version.begin(), facts.version.end(), info.version.bytes);
  return info;
}

FileInfo RemoteOrigin::directory_info(std::string_view key) const {
  FileInfo info;
  FileAttributes& shown = info.attributes;
  shown.ino = key.empty() ? 1 : ino_of(key);
  shown.mode = S_IFDIR | options_.volume.dir_mode;
  shown.nlink = 2;
  shown.uid = options_.volume.uid;
  shown.gid = options_.volume.gid;
  int64_t changed_s = started_s_;
  if (const uint64_t trusted_ns = revalidate_ns_; trusted_ns != config_never_ns) {
    const auto trusted_s = std::max<int64_t>(static_cast<int64_t>(trusted_ns / s_ns), 1);
    const auto now_s = static_cast<int64_t>(std::time(nullptr));
    changed_s = now_s - now_s % trusted_s;
  }
  shown.atime = shown.mtime = shown.ctime = {.seconds = changed_s, .nanoseconds = 0};
  info.version.length = 1;
  info.version.bytes[0] = '/';
  return info;
}

void RemoteOrigin::count_hidden(std::string_view key) {
  if (hidden_.fetch_add(1, std::memory_order_relaxed) > 0) return;
  BC_LOG(warn, "{} has keys that cannot be shown as files, such as \"{}\" (docs/S3.md)", options_.volume.source, key);
}

void RemoteOrigin::set_limits(const OriginConfig& config) {
  http_options_.attempt_timeout_ns.set(config.attempt_timeout_ns);
  http_options_.deadline_ns.set(config.deadline_ns);
  http_options_.retries_max.set(config.retries);
  bandwidth_.set(config.bandwidth_bytes);
}

void RemoteOrigin::set_revalidate(uint64_t ns) {
  if (ns == revalidate_ns_) return;
  revalidate_ns_.set(ns);
  if (tree_index_) tree_index_->set_trusted(ns);
  // What is known was to be trusted for as long as was said then, which may be for ever.
  names_.forget_all();
}

// The end.

void RemoteOrigin::stop() {
  if (stopping_.exchange(true)) return;
  if (build_helper_) build_helper_->stop();
  const std::lock_guard lock(clients_mutex_);
  std::unique_ptr<Poster> poster;
  for (const std::unique_ptr<Client>& client : clients_) {
    if (client->http.active() == 0) continue;
    if (poster == nullptr) poster = std::make_unique<Poster>();
    client->stop_message.handled.store(false, std::memory_order_relaxed);
    poster->post(*client->home, client->stop_message);
  }
}

bool RemoteOrigin::join(unsigned patience_ms) {
  const auto begun = std::chrono::steady_clock::now();
  const bool helper_ended = !build_helper_ || build_helper_->join(patience_ms);
  const std::lock_guard lock(clients_mutex_);
  const auto until = begun + std::chrono::milliseconds(patience_ms);
  const auto ended = [this] {
    return !(tree_index_ && tree_index_->building()) &&
           std::ranges::all_of(clients_, [](const std::unique_ptr<Client>& client) {
             return client->http.active() == 0 && client->stop_message.handled.load(std::memory_order_acquire);
           });
  };
  while (!ended()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return helper_ended;
}

}  // namespace blobcache
