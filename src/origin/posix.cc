// A directory as an origin: what goes through the ring. posix_blocking.cc has what no opcode exists for.
//
//   lookup   OPENAT2 O_PATH -> STATX of it -> done; CLOSE in the background
//   open     OPENAT2 O_PATH -> STATX: a file or a directory? -> OPENAT2 /proc/self/fd/N -> STATX -> done; CLOSE of N
//            of a file of which the version is enough, only the first two
//   read     (a turn for origin.bandwidth ->) READ -link-> STATX -> done; a short READ cancels the STATX and the rest is
//            read by another pair
//            without a descriptor: as open, and the version is compared before anything is read
//
// Opening never opens a device, a fifo or a socket for reading: that may rewind a tape, let a writer through, or block.
// O_PATH opens nothing, it only holds on to the inode; once statx has called it a file or a directory, the magic link
// /proc/self/fd/N opens that very inode, so there is no moment at which another could take its place. Opening the name
// again and comparing (dev, ino) would find out too late; a private mount with nodev needs CAP_SYS_ADMIN and does not
// keep fifos shut. The descriptor is not O_NONBLOCK: the type is known, and io_uring answers EAGAIN for ever when an
// O_NONBLOCK file on a filesystem without nowait reads (NFS, FUSE) has nothing in the page cache. The last STATX comes
// after the open because that is when NFS asks its server for fresh attributes (close-to-open).
//
// What the ring makes of it (io_uring/openclose.c, statx.c, rw.c of Linux 6.18): OPENAT2 of a path in the dentry cache
// ends at once, else and through /proc it moves to an io-wq worker thread; STATX always does. A buffered READ that misses
// the page cache is asynchronous where the filesystem can do nowait reads (ext4, xfs, btrfs) and holds a worker for its
// whole time where it cannot. Workers for files are bounded (the lesser of the ring's SQ entries and 4 per CPU), and all
// volumes of a core share them: a hung file server can use them up with as many reads. Who mounts one beside other
// volumes bounds the reads in flight per origin below that number.
//
// A STATX of a descriptor on a local filesystem (ext4, xfs, btrfs, tmpfs) is a system call instead: what a descriptor holds
// is in memory, their getattr takes no lock that is held over I/O, and the worker cost ten times as much as the answer. What
// is mounted below the root may be anything, a server that hangs too: so names are first resolved without crossing a mount
// point, and where that is refused (EXDEV) the call asks by the ring as before.
//
// Closing: the last close of a file that was deleted meanwhile frees its blocks, and on NFSv4 it waits for the server.
// close(2) would do either on the core. CLOSE with IOSQE_ASYNC does it on a worker. Its Op must outlive any call and any
// origin, so each thread has one for all of its closes; it counts the CQEs owed and nobody waits for them.
#include "origin/posix.h"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/config.h"
#include "origin/posix_origin.h"
#include "ring/errno.h"
#include "ring/poster.h"

namespace blobcache {
namespace {

constexpr open_how how_path{.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .mode = 0, .resolve = posix_resolve};
constexpr open_how how_local_path{
    .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .mode = 0, .resolve = posix_resolve | RESOLVE_NO_XDEV};
constexpr open_how how_file{.flags = O_RDONLY | O_CLOEXEC, .mode = 0, .resolve = 0};
constexpr open_how how_directory{.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .mode = 0, .resolve = 0};

// EINTR and EAGAIN come from signals to a worker and from short lacks of memory. Something that says so eight times over
// is not passing, and the caller may have a better idea than to spin.
constexpr uint32_t retries_max = 8;

// In place of the result of a STATX.
constexpr int32_t not_asked = INT32_MIN;

bool may_retry(OriginCall& call, int32_t result) {
  return (result == -EINTR || result == -EAGAIN) && call.retries++ < retries_max;
}

template <class Call>
Call& call_of(Op& op) {
  return static_cast<Call&>(*static_cast<OriginCall::Step&>(op).call);
}

Sqe& prepare_step(OriginCall& call, unsigned step, Op::Handler handler) {
  call.steps[step].call = &call;
  call.steps[step].handler = handler;
  return call.home->prepare(call.steps[step]);
}

void prep_statx_of_fd(Sqe& sqe, int fd, struct statx* out) {
  prep_statx(sqe, {.directory_fd = fd, .path = "", .flags = AT_EMPTY_PATH, .mask = posix_statx_mask}, out);
}

// Never destroyed, and reachable from all_closers for tools that look for leaks: a reactor may end with closes owed.
struct Closer : Op {
  using Op::Op;
  Closer* next = nullptr;
};
std::atomic<Closer*> all_closers{nullptr};

void on_closed(Op&, int32_t result, uint32_t) {
  // Anything else is the file server's last word on a file that we only read.
  BC_ASSERT(result != -EBADF);
}

Closer& closer_of_thread() {
  thread_local Closer* closer = nullptr;
  if (closer == nullptr) {
    closer = new Closer(&on_closed);
    closer->next = all_closers.load(std::memory_order_relaxed);
    while (!all_closers.compare_exchange_weak(closer->next, closer, std::memory_order_release)) {
    }
  }
  return *closer;
}

void close_in_background(Reactor& home, int fd, uint8_t sqe_flags) {
  Sqe& sqe = home.prepare(closer_of_thread());
  prep_close(sqe, fd);
  sqe.flags |= sqe_flags;
}

// Whether attributes of an open file are always in memory. The numbers are those of statfs(2).
bool is_local(const struct statfs& filesystem) {
  constexpr unsigned long btrfs_magic = 0x9123683e;
  constexpr unsigned long ext4_magic = 0xef53;
  constexpr unsigned long tmpfs_magic = 0x01021994;
  constexpr unsigned long xfs_magic = 0x58465342;
  const auto magic = static_cast<unsigned long>(filesystem.f_type);
  return magic == btrfs_magic || magic == ext4_magic || magic == tmpfs_magic || magic == xfs_magic;
}

bool is_version_only(const OpenCall& call) { return call.version_only; }
bool is_version_only(const ReadCall&) { return false; }

// An O_PATH descriptor has nothing to flush and nobody to tell: closing it inline is cheaper than waking a worker.
void close_path(Reactor& home, int fd) { close_in_background(home, fd, 0); }

}  // namespace

PosixOrigin::PosixOrigin(Root root, const PosixOriginOptions& options)
    : root_(std::move(root)),
      young_ns_(options.young_ns),
      bandwidth_(options.bandwidth_bytes),
      blocking_(options.blocking_threads) {}

PosixOrigin::~PosixOrigin() { ::close(root_.fd); }

void PosixOrigin::stop() {
  if (stopping_.exchange(true, std::memory_order_relaxed)) return;  // the second time the cores have ended
  bandwidth_.set(0);
  blocking_.stop();
  const std::lock_guard lock(queues_mutex_);
  if (queues_.empty()) return;
  Poster poster;
  for (const std::unique_ptr<CoreQueue>& core : queues_) poster.post(*core->home, core->stop_message);
}

void PosixOrigin::on_stop(Op& op, int32_t, uint32_t) {
  BandwidthQueue& queue = *static_cast<StopMessage&>(op).queue;
  queue.stop();
  while (BandwidthWaiter* waiter = queue.pop_front()) {
    const std::unique_ptr<PacedRead> paced(static_cast<PacedRead*>(waiter));
    paced->call->finish_failed({Code::stopping});
  }
}

void PosixOrigin::set_limits(const OriginConfig& config) {
  if (!stopping_.load(std::memory_order_relaxed)) bandwidth_.set(config.bandwidth_bytes);
}

bool PosixOrigin::begin_call(Reactor& home, OriginCall& call, std::string_view key) {
  BC_ASSERT(call.on_done != nullptr);
  call.home = &home;
  call.origin = this;
  call.failed = false;
  call.error = {};
  call.retries = 0;
  call.local = root_.is_local;
  if (stopping_.load(std::memory_order_relaxed)) {
    call.finish_failed({Code::stopping});
    return false;
  }
  if (const Result<void> checked = check_posix_key(key); !checked) {
    call.finish_failed(checked.error());
    return false;
  }
  return true;
}

bool PosixOrigin::stat_now(const OriginCall& call, int fd, struct statx* out) {
  return call.local && ::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, posix_statx_mask, out) == 0;
}

// True: it is to be resolved again, across mount points.
bool PosixOrigin::left_mount(OriginCall& call, int32_t result) {
  return result == -EXDEV && std::exchange(call.local, false);
}

// Lookup.

void PosixOrigin::begin_lookup(Reactor& home, LookupCall& call) {
  if (begin_call(home, call, call.key)) lookup(call);
}

void PosixOrigin::lookup(LookupCall& call) {
  const auto& self = static_cast<PosixOrigin&>(*call.origin);
  Sqe& sqe = prepare_step(call, 0, &on_lookup_opened);
  prep_openat2(sqe, self.root_.fd, posix_path(call.key), call.local ? &how_local_path : &how_path);
}

void PosixOrigin::on_lookup_opened(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<LookupCall>(op);
  if (may_retry(call, result) || left_mount(call, result)) return lookup(call);
  if (result < 0) return call.finish_failed(error_from_result(result));
  call.fd = result;
  if (stat_now(call, call.fd, &call.statx_buffer)) return finish_lookup(call, 0);
  prep_statx_of_fd(prepare_step(call, 1, &on_lookup_stat), call.fd, &call.statx_buffer);
}

void PosixOrigin::on_lookup_stat(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<LookupCall>(op);
  if (may_retry(call, result)) {
    prep_statx_of_fd(prepare_step(call, 1, &on_lookup_stat), call.fd, &call.statx_buffer);
    return;
  }
  finish_lookup(call, result);
}

void PosixOrigin::finish_lookup(LookupCall& call, int32_t result) {
  const auto& self = static_cast<PosixOrigin&>(*call.origin);
  close_path(*call.home, std::exchange(call.fd, -1));
  if (result < 0) return call.finish_failed(error_from_result(result));
  call.info = posix_info(call.statx_buffer, self.info_options());
  call.finish();
}

// Open.

void PosixOrigin::begin_open(Reactor& home, OpenCall& call) {
  call.fd = -1;
  call.path_fd = -1;
  if (begin_call(home, call, call.key)) open_path(call);
}

template <class Call>
void PosixOrigin::open_path(Call& call) {
  const auto& self = static_cast<PosixOrigin&>(*call.origin);
  Sqe& sqe = prepare_step(call, 0, &on_open_path<Call>);
  prep_openat2(sqe, self.root_.fd, posix_path(call.key), call.local ? &how_local_path : &how_path);
}

template <class Call>
void PosixOrigin::on_open_path(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<Call>(op);
  if (may_retry(call, result) || left_mount(call, result)) return open_path(call);
  if (result < 0) return open_failed(call, error_from_result(result));
  call.path_fd = result;
  stat_path(call);
}

// When nothing is opened behind it, this STATX is the one that has to ask the file server.
template <class Call>
void PosixOrigin::stat_path(Call& call) {
  if (stat_now(call, call.path_fd, &call.statx_buffer)) return type_known(call);
  int flags = AT_EMPTY_PATH;
  if (is_version_only(call)) flags |= AT_STATX_FORCE_SYNC;
  prep_statx(prepare_step(call, 1, &on_open_type<Call>),
             {.directory_fd = call.path_fd, .path = "", .flags = flags, .mask = posix_statx_mask}, &call.statx_buffer);
}

template <class Call>
void PosixOrigin::on_open_type(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<Call>(op);
  if (may_retry(call, result)) return stat_path(call);
  if (result < 0) return open_failed(call, error_from_result(result));
  type_known(call);
}

template <class Call>
void PosixOrigin::type_known(Call& call) {
  const uint16_t mode = call.statx_buffer.stx_mode;
  if (S_ISLNK(mode)) return open_failed(call, {Code::invalid, ELOOP});
  if (!S_ISREG(mode) && !S_ISDIR(mode)) return open_failed(call, {Code::invalid, EINVAL});
  if (is_version_only(call) && S_ISREG(mode)) {
    close_path(*call.home, std::exchange(call.path_fd, -1));
    return finish_open(call);
  }
  *fmt::format_to_n(call.proc_path, sizeof call.proc_path - 1, "/proc/self/fd/{}", call.path_fd).out = '\0';
  open_for_reading(call);
}

template <class Call>
void PosixOrigin::open_for_reading(Call& call) {
  const open_how* how = S_ISDIR(call.statx_buffer.stx_mode) ? &how_directory : &how_file;
  prep_openat2(prepare_step(call, 0, &on_opened<Call>), AT_FDCWD, call.proc_path, how);
}

template <class Call>
void PosixOrigin::on_opened(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<Call>(op);
  if (may_retry(call, result)) return open_for_reading(call);
  if (result < 0) return open_failed(call, error_from_result(result));
  close_path(*call.home, std::exchange(call.path_fd, -1));
  call.fd = result;
  if (stat_now(call, call.fd, &call.statx_buffer)) return finish_open(call);
  prep_statx_of_fd(prepare_step(call, 1, &on_opened_stat<Call>), call.fd, &call.statx_buffer);
}

template <class Call>
void PosixOrigin::on_opened_stat(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<Call>(op);
  if (may_retry(call, result)) {
    prep_statx_of_fd(prepare_step(call, 1, &on_opened_stat<Call>), call.fd, &call.statx_buffer);
    return;
  }
  if (result < 0) return open_failed(call, error_from_result(result));
  finish_open(call);
}

void PosixOrigin::finish_open(OpenCall& call) {
  const auto& self = static_cast<PosixOrigin&>(*call.origin);
  call.info = posix_info(call.statx_buffer, self.info_options());
  call.finish();
}

void PosixOrigin::finish_open(ReadCall& call) {
  if (!is_version_of(call.version, call.statx_buffer)) return open_failed(call, {Code::stale});
  read(call);
}

template <class Call>
void PosixOrigin::open_failed(Call& call, Error why) {
  if (call.path_fd >= 0) close_path(*call.home, std::exchange(call.path_fd, -1));
  if (call.fd >= 0) call.origin->close(*call.home, std::exchange(call.fd, -1));
  // The version that a reader asks for had this name, and was a file.
  const bool gone = why.code == Code::not_found || why.code == Code::invalid;
  if (std::is_same_v<Call, ReadCall> && gone) why = Error{Code::stale};
  call.finish_failed(why);
}

// Read.

void PosixOrigin::begin_read(Reactor& home, ReadCall& call) {
  BC_ASSERT(call.to != nullptr && call.bytes > 0);
  if (!begin_call(home, call, call.fd >= 0 ? "" : call.key)) return;
  call.bytes_done = 0;
  if (!bandwidth_.has_limit()) return begin_bytes(call);
  auto paced = std::make_unique<PacedRead>();
  paced->call = &call;
  if (bandwidth_queue_of(home).take(*paced, call.bytes, call.background)) return begin_bytes(call);
  (void)paced.release();  // on_bandwidth's
}

BandwidthQueue& PosixOrigin::bandwidth_queue_of(Reactor& home) {
  const std::lock_guard lock(queues_mutex_);
  for (const std::unique_ptr<CoreQueue>& core : queues_) {
    if (core->home == &home) return core->queue;
  }
  const BandwidthQueue::Options options{
      .home = home, .bandwidth = bandwidth_, .on_turn = &PosixOrigin::on_bandwidth, .context = this};
  queues_.push_back(std::make_unique<CoreQueue>(options));
  return queues_.back()->queue;
}

void PosixOrigin::on_bandwidth(BandwidthWaiter& waiter, void* self_pointer) {
  auto& self = *static_cast<PosixOrigin*>(self_pointer);
  const std::unique_ptr<PacedRead> paced(static_cast<PacedRead*>(&waiter));
  ReadCall& call = *paced->call;
  if (self.stopping_.load(std::memory_order_relaxed)) return call.finish_failed({Code::stopping});
  self.begin_bytes(call);
}

void PosixOrigin::begin_bytes(ReadCall& call) {
  // Asked before the first byte is read: what is old enough now gets another timestamp from any later change, and the
  // STATX after the bytes sees it.
  call.young = is_young(call.version, {.young_ns = young_ns_, .now = realtime_now()});
  call.path_fd = -1;
  if (call.fd >= 0) {
    call.local = root_.is_local && device_of(call.version) == root_.dev;
    read(call);
  } else {
    open_path(call);
  }
}

void PosixOrigin::read(ReadCall& call) {
  call.home->reserve(2);
  Sqe& sqe = prepare_step(call, 0, &on_read);
  std::byte* to = call.to + call.bytes_done;
  const ReadRange range{.offset = call.offset + call.bytes_done, .bytes = call.bytes - call.bytes_done};
  if (call.buffer_index >= 0) {
    prep_read_fixed(sqe, FileRef::fd(call.fd), to, range, static_cast<unsigned>(call.buffer_index));
  } else {
    prep_read(sqe, FileRef::fd(call.fd), to, range);
  }
  // What the page cache has is copied at submission otherwise: 4 MiB for nobody, while readers wait for their core.
  if (call.background) sqe.flags |= IOSQE_ASYNC;
  call.statx_result = not_asked;
  if (call.local) return;
  link_next(sqe);
  stat_after_read(call);
}

void PosixOrigin::stat_after_read(ReadCall& call) {
  prep_statx_of_fd(prepare_step(call, 1, &on_read_stat), call.fd, &call.statx_buffer);
}

void PosixOrigin::on_read(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<ReadCall>(op);
  call.read_result = result;
  if (call.steps[1].cqes_owed == 0) read_turned(call);
}

void PosixOrigin::on_read_stat(Op& op, int32_t result, uint32_t) {
  auto& call = call_of<ReadCall>(op);
  call.statx_result = result;
  if (call.steps[0].cqes_owed == 0) read_turned(call);
}

// Both CQEs of a pair are in, the one of a READ alone, or the one of a repeated STATX with read_result 0 and all bytes done.
void PosixOrigin::read_turned(ReadCall& call) {
  if (call.read_result < 0) {
    if (may_retry(call, call.read_result)) return read(call);
    return call.finish_failed(error_from_result(call.read_result));
  }
  call.bytes_done += static_cast<uint32_t>(call.read_result);
  BC_ASSERT(call.bytes_done <= call.bytes);
  if (call.bytes_done < call.bytes) {
    // The version asked for has these bytes, this file ends before them.
    if (call.read_result == 0) return call.finish_failed({Code::stale});
    return read(call);
  }
  if (call.statx_result == not_asked && stat_now(call, call.fd, &call.statx_buffer)) call.statx_result = 0;
  if (call.statx_result == not_asked || may_retry(call, call.statx_result)) {
    call.read_result = 0;
    return stat_after_read(call);
  }
  if (call.statx_result < 0) return call.finish_failed(error_from_result(call.statx_result));
  if (!is_version_of(call.version, call.statx_buffer)) return call.finish_failed({Code::stale});
  call.finish();
}

void PosixOrigin::close(Reactor& home, int fd) {
  BC_ASSERT(fd >= 0);
  close_in_background(home, fd, IOSQE_ASYNC);
}

Result<std::unique_ptr<Origin>> create_posix_origin(PosixOriginOptions options) {
  const auto error_of = [](int os_errno) {
    return os_errno == ENOTDIR ? Error{Code::invalid, ENOTDIR} : error_from_errno(os_errno);
  };
  const std::unique_ptr<char, decltype(&std::free)> real_path(::realpath(options.root.c_str(), nullptr), &std::free);
  if (real_path == nullptr) return std::unexpected(error_of(errno));
  PosixOrigin::Root root;
  root.fd = ::open(real_path.get(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (root.fd < 0) return std::unexpected(error_of(errno));
  struct statx stat;
  int os_errno = 0;
  if (::statx(root.fd, "", AT_EMPTY_PATH, posix_statx_mask, &stat) != 0) os_errno = errno;
  if (os_errno == 0 && ::access("/proc/self/fd", X_OK) != 0) os_errno = ENOSYS;
  char host[HOST_NAME_MAX + 1] = {};
  if (os_errno == 0 && ::gethostname(host, sizeof host - 1) != 0) os_errno = errno;
  if (os_errno != 0) {
    ::close(root.fd);
    return os_errno == ENOSYS ? fail(Code::denied, ENOSYS) : std::unexpected(error_of(os_errno));
  }
  root.dev = device_of(stat);
  struct statfs filesystem;
  root.is_local = ::fstatfs(root.fd, &filesystem) == 0 && is_local(filesystem);
  root.canonical_source = fmt::format("file://{}{}", host, real_path.get());
  return std::make_unique<PosixOrigin>(std::move(root), options);
}

}  // namespace blobcache
