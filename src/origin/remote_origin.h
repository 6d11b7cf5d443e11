// RemoteOrigin: what S3 and HTTP have in common. Private to the origins behind create_s3_origin and create_http_origin.
//   Thread    begin_* and close: any core
//   Names     a directory is what a listing or a look-up says is one; the root always is, and costs no request
//   Info      inode numbers are a hash of the key; owner and modes come from the volume. A directory's mtime moves once in
//             `revalidate`, so that a listing that the kernel keeps is no older than that
//   Listings  a cookie is the number of entries before it. The page in hand is kept with the open directory, and where each
//             page began: going on costs no request, going back one, in another open directory one for each page before
//   Index     where the volume has one (TreeIndex), look-ups and listings are answered from it, and nobody is asked
//   Stopping  stop() ends what is in flight by a message to each core that has something; join() false: such a core has
//             ended before, and nothing may be freed
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/limits.h"
#include "origin/bandwidth.h"
#include "origin/http_client.h"
#include "origin/http_failure.h"
#include "origin/name_cache.h"
#include "origin/origin.h"
#include "origin/tree_index.h"
#include "ring/blocking.h"

namespace blobcache {

struct OpenDirectory {
  std::string key;
  bool busy = false;  // a listing is in flight
  // entries [page_first, page_first + page.size()) of the listing
  uint64_t page_first = 0;
  std::vector<DirectoryEntry> page;
  bool begun = false;   // a page was asked for
  bool at_end = false;  // no page follows
  std::string token;    // of the page that follows; empty: the first
  // Files that may still turn out to be directories, not yet counted (remote_list.cc).
  std::vector<DirectoryEntry> undecided;
  // Not null: the pages are this index's, and a token is the key to go on from.
  std::shared_ptr<const NameIndex> index;

  struct Start {
    uint64_t page_first;
    std::string token;
    std::vector<DirectoryEntry> undecided;
  };
  std::vector<Start> starts;  // of pages that were asked for, a sparse choice once they are many
};

struct RemoteOptions {
  VolumeConfig volume;
  OriginConfig origin;
  bool http1_only = false;
  std::string ca_file;
  std::optional<TreeIndex::Options> index;
  size_t tree_bytes_max = 64 * limits::MiB;  // of one answer when the index is made
};

// One block of an index on its way from its file.
struct IndexRead : Op {
  std::shared_ptr<const NameIndex> index;
  size_t block = 0;
  std::unique_ptr<std::byte[]> bytes;
  void* job = nullptr;
};

// A name of a directory as its source has it.
struct ListedItem {
  std::string name;  // a directory's ends with '/'
  uint64_t size = 0;
  int64_t mtime_s = 0;
  std::string version;  // at most 63 bytes; empty: not told
};

// A look-up on its way. `call` is a LookupCall or an OpenCall.
struct LookJob {
  class RemoteOrigin* origin = nullptr;
  OriginCall* call = nullptr;
  bool opening = false;
  std::string key;
  HttpRequest requests[2];
  unsigned requests_left = 0;
  IndexRead read;
};
struct ListJob {
  class RemoteOrigin* origin = nullptr;
  ListCall* call = nullptr;
  OpenDirectory* directory = nullptr;
  HttpRequest request;
  IndexRead read;
  std::vector<ListedItem> items;
};
struct ReadJob {
  class RemoteOrigin* origin = nullptr;
  ReadCall* call = nullptr;
  HttpRequest request;
};

class RemoteOrigin : public Origin {
 public:
  explicit RemoteOrigin(RemoteOptions options);
  ~RemoteOrigin() override;

  void begin_lookup(Reactor& home, LookupCall& call) override;
  void begin_open(Reactor& home, OpenCall& call) override;
  void begin_read(Reactor& home, ReadCall& call) override;
  void begin_list(Reactor& home, ListCall& call) override;
  void begin_readlink(Reactor& home, ReadlinkCall& call) override;
  void begin_statfs(Reactor& home, StatfsCall& call) override;
  void close(Reactor& home, int fd) override;
  void stop() override;
  bool join(unsigned patience_ms) override;
  bool keeps_connections_max() const override { return true; }
  bool scatters() const override { return true; }
  void set_limits(const OriginConfig& config) override;
  void set_revalidate(uint64_t ns) override;

 protected:
  // Asks; ends with end_look.
  virtual void look(HttpClient& client, LookJob& job) = 0;
  // Fills in where the bytes are.
  virtual void address_read(const ReadCall& call, HttpRequest& request) = 0;
  // Fills in what to ask for the next page of job.directory.
  virtual void address_page(ListJob& job) = 0;
  // Adds the page that came to directory.page, and says what follows. Errors: protocol.
  virtual Result<void> take_page(ListJob& job) = 0;
  // The whole tree for the index. Fills in what to ask for next; token: empty at first.
  virtual void address_tree(HttpRequest& request, const std::string& token) = 0;
  // On a helper thread: gives the names that came to the writer. The next token, empty: those were all. Errors: protocol, or
  // the writer's.
  virtual Result<std::string> take_tree(const HttpRequest& request, NameIndexWriter& writer) = 0;
  // The server's own word for why it refused, from an answer's body; empty: it gave none.
  virtual std::string said_by(const HttpRequest& request) const = 0;
  // Says in the log what failed; the answers that are none ("not found") need no words.
  // request_id: of the user's request behind it; 0: none.
  void tell_failure(std::string_view doing, std::string_view key, const HttpRequest& request, uint64_t request_id = 0);

  // Before any core runs: asks, waits (half a minute at most) and leaves the answer in the request. False: there was no ring
  // to ask with, *why says so.
  bool ask_now(HttpRequest& request, std::string* why);

  void end_look(LookJob& job, const Result<KnownName>& found);
  // True: those were the last.
  static bool one_request_less(LookJob& job) { return --job.requests_left == 0; }

  struct FileFacts {
    uint64_t size = 0;
    int64_t mtime_s = 0;
    std::string_view version;  // as version_of() has it, at most 63 bytes
  };
  FileInfo file_info(std::string_view key, const FileFacts& facts) const;
  FileInfo directory_info(std::string_view key) const;
  DirectoryEntry file_entry(const OpenDirectory& directory, std::string_view name, const FileFacts& facts) const;
  DirectoryEntry directory_entry(const OpenDirectory& directory, std::string_view name) const;
  static uint64_t ino_of(std::string_view key);
  static std::string child_of(std::string_view directory, std::string_view name);
  void count_hidden(std::string_view key);
  // Tells the names of a page (sorted as bytes) to directory.page, by the rules of docs/S3.md; directory.at_end says whether
  // a page follows.
  void tell_names(OpenDirectory& directory, std::span<const ListedItem> items);
  TreeIndex* tree_index() { return tree_index_ ? &*tree_index_ : nullptr; }

  const RemoteOptions& options() const { return options_; }
  HttpOptions& http_options() { return http_options_; }
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

 private:
  struct Client;
  HttpClient& client_of(Reactor& home);
  bool begin_call(Reactor& home, OriginCall& call);
  void resolve(Reactor& home, OriginCall& call, const std::string& key, bool opening);
  void finish_look(OriginCall& call, bool opening, const std::string& key, const Result<KnownName>& found);
  uint64_t trusted_until(uint64_t now_ns, bool exists);

  // remote_index.cc
  struct Build {
    struct Step : BlockingCall {
      Build* build = nullptr;
    } step;
    RemoteOrigin* origin = nullptr;
    HttpRequest request;
    std::unique_ptr<NameIndexWriter> writer;
    std::string token;
    Result<std::shared_ptr<const NameIndex>> result = nullptr;  // null: not all of it yet
  };
  void begin_build_if_due(Reactor& home);
  static void on_tree_page(HttpRequest& request);
  static void run_tree_page(BlockingCall& call);
  static void on_tree_page_taken(Op& op, int32_t result, uint32_t flags);
  void forget(const ReadCall& call);
  void end_build(Result<std::shared_ptr<const NameIndex>> built);
  static void begin_index_read(Reactor& home, IndexRead& read, size_t block, Op::Handler handler);
  static bool index_read_ended(const IndexRead& read, int32_t result);
  void look_in_index(Reactor& home, LookJob& job, std::shared_ptr<const NameIndex> index);
  static void on_directory_block(Op& op, int32_t result, uint32_t flags);
  static void on_file_block(Op& op, int32_t result, uint32_t flags);
  void end_index_look(LookJob& job, const IndexedName* file);
  void lose_index_look(LookJob& job);
  void look_past_index(LookJob& job);
  void begin_index_page(ListJob& job);
  static void on_index_block(Op& op, int32_t result, uint32_t flags);
  bool take_index_block(ListJob& job);
  void lose_index_page(ListJob& job);

  void go_on_listing(HttpClient& client, ListJob* job);
  static void on_page(HttpRequest& request);
  static void on_read(HttpRequest& request);
  static void on_read_bytes(HttpRequest& request, uint32_t bytes_done);
  void remember(const OpenDirectory& directory, const std::vector<DirectoryEntry>& page, uint64_t now_ns);
  void rewind(OpenDirectory& directory, uint64_t offset);
  static void end_listing(ListJob* job, Error why, bool failed);

  const RemoteOptions options_;
  HttpOptions http_options_;
  Bandwidth bandwidth_;  // origin.bandwidth, of this volume
  LiveValue<uint64_t> revalidate_ns_;
  const int64_t started_s_;
  std::atomic<unsigned> in_flight_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> hidden_{0};
  NameCache names_;
  LinePerSecond failure_lines_;
  std::optional<TreeIndex> tree_index_;
  std::string last_distrusted_;   // key and version; under directories_mutex_
  std::unique_ptr<Build> build_;  // of whoever began it, until end_build

  std::mutex clients_mutex_;
  std::vector<std::unique_ptr<Client>> clients_;

  std::mutex directories_mutex_;
  std::deque<OpenDirectory> directories_;  // by descriptor
  std::vector<int> free_directories_;
  std::optional<BlockingCalls> build_helper_;  // last: it uses the rest
};

}  // namespace blobcache
