// Look-ups and listings from the index of a whole volume, and how it is made.
//
//   look-up     the block where "KEY/" would be says whether it is a directory, the one where KEY would be holds the file: one
//               read of 16 KiB, two where a block ends between them
//   page        reads blocks from the key to go on from; a directory below is told once and its names are jumped over
//   making      request a page, hand it to the helper thread, which takes it apart and writes, and so on; names are asked for
//               in the background, so that readers come first
//
// A block that cannot be read or does not match ends the trust in the index, and whoever asked is sent to the server. Where
// there is no server to ask (HTTP with a manifest) he gets EIO and the next one a new index.
#include <cerrno>
#include <utility>

#include <sys/stat.h>

#include "base/assert.h"
#include "base/log.h"
#include "origin/remote_origin.h"
#include "ring/sqe.h"

namespace blobcache {
namespace {

constexpr size_t items_per_page = 1000;
constexpr char behind_slash = '/' + 1;

std::span<const std::byte> bytes_of(const IndexRead& read) {
  return {read.bytes.get(), read.index->block_bytes(read.block)};
}

}  // namespace

// Making.

void RemoteOrigin::begin_build_if_due(Reactor& home) {
  if (!tree_index_ || !tree_index_->try_begin_build()) return;
  build_ = std::make_unique<Build>();
  Build& build = *build_;
  build.origin = this;
  build.step.build = &build;
  build.step.home = &home;
  build.step.run = &RemoteOrigin::run_tree_page;
  build.step.handler = &RemoteOrigin::on_tree_page_taken;
  build.request.context = &build;
  build.request.on_done = &RemoteOrigin::on_tree_page;
  build.request.background = true;
  build.request.body_bytes_max = options_.tree_bytes_max;
  address_tree(build.request, build.token);
  client_of(home).begin(build.request);
}

void RemoteOrigin::on_tree_page(HttpRequest& request) {
  auto& build = *static_cast<Build*>(request.context);
  RemoteOrigin& self = *build.origin;
  if (request.failed) {
    self.tell_failure("listing all of", "", request);
    return self.end_build(std::unexpected(request.error));
  }
  const Result<void> begun = self.build_helper_->begin(*build.step.home, build.step);
  if (!begun) self.end_build(std::unexpected(begun.error()));
}

// On the helper's thread.
void RemoteOrigin::run_tree_page(BlockingCall& call) {
  Build& build = *static_cast<Build::Step&>(call).build;
  RemoteOrigin& self = *build.origin;
  if (build.writer == nullptr) {
    Result<std::unique_ptr<NameIndexWriter>> writer = self.tree_index_->create_writer();
    if (!writer) {
      build.result = std::unexpected(writer.error());
      return;
    }
    build.writer = std::move(*writer);
  }
  Result<std::string> next = self.take_tree(build.request, *build.writer);
  if (!next) {
    build.result = std::unexpected(next.error());
    return;
  }
  build.token = std::move(*next);
  if (build.token.empty()) build.result = build.writer->finish();
}

void RemoteOrigin::on_tree_page_taken(Op& op, int32_t, uint32_t) {
  Build& build = *static_cast<Build::Step&>(op).build;
  RemoteOrigin& self = *build.origin;
  if (!build.result || *build.result != nullptr) return self.end_build(std::move(build.result));
  if (self.stopping()) return self.end_build(fail(Code::stopping, ECANCELED));
  self.address_tree(build.request, build.token);
  self.client_of(*build.step.home).begin(build.request);
}

void RemoteOrigin::end_build(Result<std::shared_ptr<const NameIndex>> built) {
  const std::string& source = options_.volume.source;
  if (built) {
    BC_LOG(info, "the index of {} has {} names", source, (*built)->names());
  } else if (built.error().code == Code::full) {
    BC_LOG(warn, "{} has more names than an index or its disk holds: look-ups go on asking the server", source);
  } else if (built.error().code != Code::stopping && built.error().code != Code::again) {
    BC_LOG(warn, "no index of {} could be made ({}): it is tried again later", source, code_name(built.error().code));
  }
  build_.reset();
  tree_index_->end_build(std::move(built));
}

// The version that was read is no more. An index that goes on telling of it has to go.
void RemoteOrigin::forget(const ReadCall& call) {
  KnownName known;
  const bool is_known = names_.find(call.key, call.home->now_ns(), &known);
  if (is_known && known.info.version != call.version) return;
  names_.forget(call.key);
  if (!tree_index_) return;
  {
    // Nobody has looked it up since: a handle that goes on reading what is no more speaks once against the index, not against
    // each new one.
    const std::lock_guard lock(directories_mutex_);
    std::string spoken = call.key + '\n' + std::string(call.version.view());
    if (!is_known && spoken == last_distrusted_) return;
    last_distrusted_ = std::move(spoken);
  }
  if (const std::shared_ptr<const NameIndex> index = tree_index_->current()) tree_index_->distrust(*index);
}

// Blocks.

void RemoteOrigin::begin_index_read(Reactor& home, IndexRead& read, size_t block, Op::Handler handler) {
  read.block = block;
  read.handler = handler;
  const uint32_t bytes = read.index->block_bytes(block);
  read.bytes = std::make_unique_for_overwrite<std::byte[]>(bytes);
  Sqe& sqe = home.prepare(read);
  prep_read(sqe, FileRef::fd(read.index->fd()), read.bytes.get(),
            {.offset = read.index->block_offset(block), .bytes = bytes});
}

bool RemoteOrigin::index_read_ended(const IndexRead& read, int32_t result) {
  const bool whole = result >= 0 && static_cast<uint32_t>(result) == read.index->block_bytes(read.block);
  return whole && read.index->verify(read.block, bytes_of(read));
}

// Look-ups.

void RemoteOrigin::look_in_index(Reactor& home, LookJob& job, std::shared_ptr<const NameIndex> index) {
  job.read.index = std::move(index);
  job.read.job = &job;
  if (job.read.index->blocks() == 0) return end_index_look(job, nullptr);
  begin_index_read(home, job.read, job.read.index->block_of(job.key + '/'), &RemoteOrigin::on_directory_block);
}

void RemoteOrigin::on_directory_block(Op& op, int32_t result, uint32_t) {
  auto& read = static_cast<IndexRead&>(op);
  auto& job = *static_cast<LookJob*>(read.job);
  RemoteOrigin& self = *job.origin;
  if (!index_read_ended(read, result)) return self.lose_index_look(job);
  const std::string prefix = job.key + '/';
  bool directory = read.block + 1 < read.index->blocks() && read.index->first_key(read.block + 1).starts_with(prefix);
  std::span<const std::byte> block = bytes_of(read);
  for (IndexedName name; !directory && next_indexed_name(block, &name);) directory = name.key.starts_with(prefix);
  if (directory) {
    return self.end_look(job, KnownName{.exists = true, .info = self.directory_info(job.key)});
  }
  const size_t file_block = read.index->block_of(job.key);
  if (file_block == read.block) return on_file_block(op, result, 0);
  begin_index_read(*job.call->home, read, file_block, &RemoteOrigin::on_file_block);
}

void RemoteOrigin::on_file_block(Op& op, int32_t result, uint32_t) {
  auto& read = static_cast<IndexRead&>(op);
  auto& job = *static_cast<LookJob*>(read.job);
  if (!index_read_ended(read, result)) return job.origin->lose_index_look(job);
  std::span<const std::byte> block = bytes_of(read);
  for (IndexedName name; next_indexed_name(block, &name);) {
    if (name.key == job.key) return job.origin->end_index_look(job, &name);
  }
  job.origin->end_index_look(job, nullptr);
}

// Null: there is no such name.
void RemoteOrigin::end_index_look(LookJob& job, const IndexedName* file) {
  if (file == nullptr) return end_look(job, KnownName{});
  // What its version is only the server tells.
  if (file->version.empty()) return look_past_index(job);
  const FileFacts facts{.size = file->size, .mtime_s = file->mtime_s, .version = file->version};
  end_look(job, KnownName{.exists = true, .info = file_info(job.key, facts)});
}

void RemoteOrigin::lose_index_look(LookJob& job) {
  tree_index_->distrust(*job.read.index);
  BC_LOG(warn, "the index of names of {} is damaged: it is made anew", options_.volume.source);
  if (options_.index->serves_outdated) return end_look(job, fail(Code::io, EIO));
  look_past_index(job);
}

void RemoteOrigin::look_past_index(LookJob& job) {
  job.read.index.reset();
  look(client_of(*job.call->home), job);
}

// Listings.

void RemoteOrigin::begin_index_page(ListJob& job) {
  const OpenDirectory& directory = *job.directory;
  job.read.index = directory.index;
  job.read.job = &job;
  job.items.clear();
  if (directory.index->blocks() == 0) {
    job.directory->at_end = true;
    return go_on_listing(client_of(*job.call->home), &job);
  }
  const std::string& from = job.directory->token;
  const std::string prefix = directory.key.empty() ? "" : directory.key + '/';
  begin_index_read(*job.call->home, job.read, directory.index->block_of(from.empty() ? prefix : from),
                   &RemoteOrigin::on_index_block);
}

void RemoteOrigin::on_index_block(Op& op, int32_t result, uint32_t) {
  auto& read = static_cast<IndexRead&>(op);
  auto& job = *static_cast<ListJob*>(read.job);
  RemoteOrigin& self = *job.origin;
  OpenDirectory& directory = *job.directory;
  if (!index_read_ended(read, result)) return self.lose_index_page(job);
  if (self.take_index_block(job)) {
    const size_t next = std::max(read.block + 1, read.index->block_of(directory.token));
    return begin_index_read(*job.call->home, read, next, &RemoteOrigin::on_index_block);
  }
  self.tell_names(directory, job.items);
  self.remember(directory, directory.page, job.call->home->now_ns());
  self.go_on_listing(self.client_of(*job.call->home), &job);
}

// Adds what the block has of the directory to job.items. True: the page goes on, behind this block.
bool RemoteOrigin::take_index_block(ListJob& job) {
  OpenDirectory& directory = *job.directory;
  const NameIndex& index = *job.read.index;
  const std::string prefix = directory.key.empty() ? "" : directory.key + '/';
  if (directory.token.empty()) directory.token = prefix;
  std::span<const std::byte> block = bytes_of(job.read);
  for (IndexedName name; next_indexed_name(block, &name);) {
    if (name.key < directory.token) continue;
    if (!name.key.starts_with(prefix)) {
      directory.at_end = true;
      return false;
    }
    if (job.items.size() == items_per_page) return false;
    const std::string_view rest = name.key.substr(prefix.size());
    const size_t slash = rest.find('/');
    if (rest.empty()) {
      directory.token = prefix + '\0';
    } else if (slash == std::string_view::npos) {
      job.items.push_back({.name = std::string(rest),
                           .size = name.size,
                           .mtime_s = name.mtime_s,
                           .version = std::string(name.version)});
      directory.token = std::string(name.key) + '\0';
    } else {
      job.items.push_back({.name = std::string(rest.substr(0, slash + 1))});
      directory.token = std::string(name.key.substr(0, prefix.size() + slash)) + behind_slash;
    }
  }
  directory.at_end = job.read.block + 1 >= index.blocks();
  return !directory.at_end;
}

void RemoteOrigin::lose_index_page(ListJob& job) {
  OpenDirectory& directory = *job.directory;
  tree_index_->distrust(*directory.index);
  BC_LOG(warn, "the index of names of {} is damaged: it is made anew", options_.volume.source);
  if (options_.index->serves_outdated) {
    directory.begun = false;
    return end_listing(&job, {Code::io, EIO}, true);
  }
  rewind(directory, 0);
  go_on_listing(client_of(*job.call->home), &job);
}

}  // namespace blobcache
