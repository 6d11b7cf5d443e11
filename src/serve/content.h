// Content: the content store of a node: its blobs, the threads that may wait for their disks, and its face as an origin.
//   Owner     Node.   Thread  open, start, stop, join: the main thread; store() as BlobStore says; begin, and what BlobSource
//             has: any
//   Lifetime  made before the origins; open() -> start() with the cores -> stop() -> (the cores end) -> join()
//   Limits    downloads_max answers under way, uploads as BlobStore; helpers threads wait for disks on behalf of the cores
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cache/blob_reader.h"
#include "cache/blob_store.h"
#include "cache/blob_writer.h"
#include "cache/disk_thread.h"
#include "origin/blobs.h"
#include "ring/blocking.h"

namespace blobcache::serve {

class Content final : public BlobSource {
 public:
  static constexpr unsigned uploads_max = 16;
  static constexpr unsigned downloads_max = 16;
  static constexpr size_t piece_bytes = 256 * limits::KiB;  // of a download; an upload has two halves of it
  // What it may take, without the table of blobs.
  static constexpr uint64_t memory_bytes =
      uploads_max * (BlobWriter::buffer_bytes + piece_bytes) + downloads_max * (piece_bytes + limits::page_bytes);

  Content() = default;
  ~Content();

  // disks: those with a share of the store. Errors: io, full; message_out: one sentence.
  Result<void> open(std::vector<BlobStore::Disk> disks, uint64_t blobs_max, std::string* message_out);
  bool is_open() const { return store_.is_open(); }
  void start();
  // Uploads end; nothing more begins.
  void stop();
  // False: a disk hangs, and nothing of this may be freed.
  bool join(unsigned patience_ms);

  BlobStore& store() { return store_; }
  BlobStore::Facts facts() const { return store_.facts(); }
  // call.run on a thread that may wait. Errors: stopping.
  Result<void> begin(Reactor& home, BlockingCall& call) { return helpers_->begin(home, call); }
  // Somebody's life may have an end now.
  void note_put() { expiry_.wake(); }
  // One sentence for who wanted to put something.
  std::string put_problem(const Error& error) const;

  std::optional<Blob> find_blob(const BlobId& id) const override;
  std::vector<Blob> list_blobs(const std::optional<BlobId>& after, size_t count_max) const override;
  Facts blob_facts() const override;
  Result<int> open_blob(const BlobId& id) override;
  Result<void> read_blob(int handle, uint64_t offset, std::span<std::byte> to) override;
  void close_blob(int handle) override;

 private:
  static constexpr unsigned helpers_count = 8;

  void run_expiry();
  BlobReader& reader_of(int handle);

  BlobStore store_;
  std::unique_ptr<BlockingCalls> helpers_;  // null: not started
  DiskThread expiry_;

  std::mutex readers_mutex_;
  std::vector<std::unique_ptr<BlobReader>> readers_;  // by handle - 1
  std::vector<int> free_handles_;
};

}  // namespace blobcache::serve
