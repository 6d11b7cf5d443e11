// ram_server: the baseline of the large reads, and nothing more: one file, held in RAM, served as fast as FUSE allows.
//
// The question of P4 is how much our cache (index, tiers, request slots) costs over what the kernel's interface costs
// anyway. So this server has the shape of ours, one thread pinned to every CPU and the same transports, and none of its
// work: every reply body already lies in memory, no lookup, no locks, no counters.
//   --transport=uring   one ring and one FUSE queue per CPU; a read is one memcpy into the payload the kernel gave us
//   --transport=dev     one blocking read(2) on /dev/fuse per CPU; the reply is one writev straight from the file's bytes
//   --transport=splice  as dev, but the reply goes through a pipe: vmsplice of the header and the bytes, then splice
// The second has no copy of its own. The third shows what splice would bring: the kernel copies out of the pipe's pages
// what it cannot steal, and memory that we go on using can never be stolen.
//
// Protocol: linux/fuse.h and what fuse/abi.h adds; for the ring, Documentation/filesystems/fuse/fuse-io-uring.rst.

#include <fcntl.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "fuse/abi.h"

namespace {

namespace abi = blobcache::abi;

constexpr size_t page_bytes = 4096;
constexpr size_t request_bytes_max = 1 << 20;
constexpr unsigned entries_per_queue = 8;
constexpr uint64_t root_node = FUSE_ROOT_ID;
constexpr uint64_t file_node = 2;
constexpr uint64_t valid_seconds = 3600;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "ram_server: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

void* map_memory(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) fail("memory");
  return memory;
}

void pin_to_cpu(unsigned cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(cpu, &cpus);
  if (pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus) != 0) fail("pin to a CPU");
}

// The file system: a root directory and the file "data".
struct Tree {
  const char* bytes = nullptr;
  uint64_t size = 0;
};

// What a reply holds: an error, or a body that lies in `small` or in the file.
struct Reply {
  int error = 0;
  const void* body = nullptr;
  size_t body_bytes = 0;
};
union Small {
  fuse_entry_out entry;
  fuse_attr_out attr;
  fuse_open_out open;
  fuse_statfs_out statfs;
};

fuse_attr attributes(const Tree& tree, uint64_t node) {
  fuse_attr attr{};
  attr.ino = node;
  attr.nlink = 1;
  attr.blksize = page_bytes;
  attr.mode = node == root_node ? S_IFDIR | 0755 : S_IFREG | 0444;
  attr.size = node == root_node ? 0 : tree.size;
  attr.blocks = attr.size / 512;
  return attr;
}

Reply answer_read(const Tree& tree, const fuse_read_in& read) {
  const uint64_t begin = read.offset < tree.size ? read.offset : tree.size;
  const uint64_t left = tree.size - begin;
  return {.body = tree.bytes + begin, .body_bytes = read.size < left ? read.size : left};
}

// `op_in` is the opcode's own header, `name` what follows it (for LOOKUP they are the same place on /dev/fuse).
Reply answer(const Tree& tree, const fuse_in_header& in, const void* op_in, const char* name, Small& small) {
  std::memset(&small, 0, sizeof small);
  switch (in.opcode) {
    case FUSE_READ: return answer_read(tree, *static_cast<const fuse_read_in*>(op_in));
    case FUSE_LOOKUP:
      if (in.nodeid != root_node || std::string_view(name) != "data") return {.error = -ENOENT};
      small.entry.nodeid = file_node;
      small.entry.entry_valid = small.entry.attr_valid = valid_seconds;
      small.entry.attr = attributes(tree, file_node);
      return {.body = &small, .body_bytes = sizeof small.entry};
    case FUSE_GETATTR:
      small.attr.attr_valid = valid_seconds;
      small.attr.attr = attributes(tree, in.nodeid);
      return {.body = &small, .body_bytes = sizeof small.attr};
    case FUSE_OPEN:
    case FUSE_OPENDIR:
      small.open.open_flags = FOPEN_KEEP_CACHE;
      return {.body = &small, .body_bytes = sizeof small.open};
    case FUSE_STATFS: small.statfs.st.bsize = page_bytes; return {.body = &small, .body_bytes = sizeof small.statfs};
    case FUSE_READDIR:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return {};
    default: return {.error = -ENOSYS};
  }
}

// ---- /dev/fuse ----

// -1: no splice.
struct Pipe {
  int ends[2] = {-1, -1};
};

bool send_reply(int device, const Pipe& pipe, const iovec* parts, unsigned count, size_t bytes) {
  if (pipe.ends[0] < 0) return writev(device, parts, static_cast<int>(count)) >= 0;
  return vmsplice(pipe.ends[1], parts, count, 0) == static_cast<ssize_t>(bytes) &&
         splice(pipe.ends[0], nullptr, device, nullptr, bytes, SPLICE_F_MOVE) == static_cast<ssize_t>(bytes);
}

// One request by read(2), its reply by writev(2) or splice(2). False when the mount is gone.
bool serve_one_from_device(const Tree& tree, int device, const Pipe& pipe, char* buffer, size_t buffer_bytes) {
  const ssize_t got = read(device, buffer, buffer_bytes);
  if (got < 0) return errno == EINTR || errno == EAGAIN || errno == ENOENT;
  const auto& in = *reinterpret_cast<const fuse_in_header*>(buffer);
  if (in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET || in.opcode == FUSE_INTERRUPT) return true;
  const char* rest = buffer + sizeof in;
  Small small;
  const Reply reply = answer(tree, in, rest, rest, small);
  fuse_out_header out{};
  out.unique = in.unique;
  out.error = reply.error;
  out.len = static_cast<uint32_t>(sizeof out + reply.body_bytes);
  const iovec parts[] = {{&out, sizeof out}, {const_cast<void*>(reply.body), reply.body_bytes}};
  return send_reply(device, pipe, parts, reply.body_bytes == 0 ? 1 : 2, out.len) || errno == ENOENT || errno == EINTR;
}

void serve_device(const Tree& tree, int device, bool by_splice = false) {
  Pipe pipe;
  if (by_splice && (pipe2(pipe.ends, O_CLOEXEC) != 0 || fcntl(pipe.ends[1], F_SETPIPE_SZ, request_bytes_max) < 0)) {
    fail("a pipe of 1 MiB");
  }
  const size_t buffer_bytes = request_bytes_max + page_bytes;
  auto* buffer = static_cast<char*>(map_memory(buffer_bytes));
  while (serve_one_from_device(tree, device, pipe, buffer, buffer_bytes)) {
  }
}

// ---- FUSE over io_uring ----

struct Entry {
  abi::UringHeader* request;
  char* payload;
  iovec parts[2];
};

void push_command(io_uring& ring, int device, uint16_t queue, Entry& entry, uint32_t command) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  if (sqe == nullptr) std::abort();      // the ring has room for every entry at once
  std::memset(sqe, 0, 2 * sizeof *sqe);  // SQE128: the command area reaches into a second 64 bytes
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = device;
  sqe->cmd_op = command;
  sqe->user_data = reinterpret_cast<uint64_t>(&entry);
  auto& area = *reinterpret_cast<abi::UringCommand*>(sqe->cmd);
  area.queue = queue;
  if (command == abi::uring_cmd_register) {
    sqe->addr = reinterpret_cast<uint64_t>(entry.parts);
    sqe->len = 2;
  } else {
    area.commit_id = entry.request->entry.commit_id;
  }
}

void answer_in_place(const Tree& tree, Entry& entry) {
  const fuse_in_header in = *reinterpret_cast<const fuse_in_header*>(entry.request->in_out);
  Small small;
  const Reply reply = answer(tree, in, entry.request->op_in, entry.payload, small);
  if (reply.body_bytes != 0) std::memcpy(entry.payload, reply.body, reply.body_bytes);
  auto& out = *reinterpret_cast<fuse_out_header*>(entry.request->in_out);
  out.unique = in.unique;
  out.error = reply.error;
  out.len = static_cast<uint32_t>(sizeof out + reply.body_bytes);
  entry.request->entry.payload_bytes = static_cast<uint32_t>(reply.body_bytes);
}

void serve_ring(const Tree& tree, int device, uint16_t queue) {
  pin_to_cpu(queue);
  io_uring ring;
  io_uring_params params{};
  params.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  errno = -io_uring_queue_init_params(4 * entries_per_queue, &ring, &params);
  if (errno != 0) fail("io_uring");
  std::vector<Entry> entries(entries_per_queue);
  for (Entry& entry : entries) {
    entry.request = static_cast<abi::UringHeader*>(map_memory(page_bytes));
    entry.payload = static_cast<char*>(map_memory(request_bytes_max));
    entry.parts[0] = {entry.request, page_bytes};
    entry.parts[1] = {entry.payload, request_bytes_max};
    push_command(ring, device, queue, entry, abi::uring_cmd_register);
  }
  for (;;) {
    const int submitted = io_uring_submit_and_wait(&ring, 1);
    if (submitted < 0 && submitted != -EINTR) return;
    io_uring_cqe* cqe = nullptr;
    unsigned head = 0;
    unsigned seen = 0;
    io_uring_for_each_cqe(&ring, head, cqe) {
      ++seen;
      if (cqe->res < 0) return;  // -ENOTCONN: unmounted
      auto& entry = *reinterpret_cast<Entry*>(cqe->user_data);
      answer_in_place(tree, entry);
      push_command(ring, device, queue, entry, abi::uring_cmd_commit_and_fetch);
    }
    io_uring_cq_advance(&ring, seen);
  }
}

// ---- start and end ----

// The first request is always INIT, and always comes by the device.
void answer_init(int device, bool over_ring) {
  std::vector<char> buffer(request_bytes_max + page_bytes);
  if (read(device, buffer.data(), buffer.size()) < 0) fail("read INIT");
  const auto& in = *reinterpret_cast<const fuse_in_header*>(buffer.data());
  const auto& init = *reinterpret_cast<const fuse_init_in*>(buffer.data() + sizeof in);
  const uint64_t offered = init.flags | (static_cast<uint64_t>(init.flags2) << 32);
  const uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS | FUSE_ASYNC_DIO |
                          FUSE_INIT_EXT | (over_ring ? abi::init_over_io_uring : 0);
  if (over_ring && (offered & abi::init_over_io_uring) == 0) {
    std::fprintf(stderr, "ram_server: no FUSE over io_uring: echo 1 > /sys/module/fuse/parameters/enable_uring\n");
    std::exit(3);
  }
  struct {
    fuse_out_header header;
    fuse_init_out init;
  } out{};
  out.header.len = sizeof out;
  out.header.unique = in.unique;
  out.init.major = FUSE_KERNEL_VERSION;
  out.init.minor = init.minor < FUSE_KERNEL_MINOR_VERSION ? init.minor : FUSE_KERNEL_MINOR_VERSION;
  out.init.max_readahead = init.max_readahead;
  out.init.flags = static_cast<uint32_t>(wanted & offered);
  out.init.flags2 = static_cast<uint32_t>((wanted & offered) >> 32);
  out.init.max_background = 512;
  out.init.congestion_threshold = 384;
  out.init.max_write = request_bytes_max;
  out.init.max_pages = request_bytes_max / page_bytes;
  out.init.time_gran = 1;
  if (write(device, &out, sizeof out) < 0) fail("answer INIT");
}

Tree load(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) fail(path);
  const auto size = static_cast<uint64_t>(status.st_size);
  auto* bytes = static_cast<char*>(map_memory(size));
  for (uint64_t done = 0; done < size;) {
    const ssize_t got = pread(fd, bytes + done, size - done, static_cast<off_t>(done));
    if (got <= 0) fail("load the file");
    done += static_cast<uint64_t>(got);
  }
  close(fd);
  return {.bytes = bytes, .size = size};
}

int mount_here(const char* mountpoint) {
  const int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) fail("/dev/fuse");
  const std::string options = "fd=" + std::to_string(device) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
  if (mount("ram_server", mountpoint, "fuse.ram_server", MS_NOSUID | MS_NODEV | MS_RDONLY, options.c_str()) != 0)
    fail("mount");
  return device;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view transport = argc == 4 ? argv[1] : "";
  const bool over_ring = transport == "--transport=uring";
  const bool by_splice = transport == "--transport=splice";
  if (!over_ring && !by_splice && transport != "--transport=dev") {
    std::fprintf(stderr, "usage: ram_server --transport=uring|dev|splice FILE MOUNTPOINT\n");
    return 2;
  }
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGINT);
  sigaddset(&stop_signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);

  const Tree tree = load(argv[2]);
  const int device = mount_here(argv[3]);
  answer_init(device, over_ring);
  const auto cpus = static_cast<unsigned>(sysconf(_SC_NPROCESSORS_CONF));
  for (unsigned cpu = 0; cpu < cpus; ++cpu) {
    std::thread([&tree, device, over_ring, by_splice, cpu] {
      if (over_ring) return serve_ring(tree, device, static_cast<uint16_t>(cpu));
      pin_to_cpu(cpu);
      serve_device(tree, device, by_splice);
    }).detach();
  }
  // FORGET and INTERRUPT come by the device even when the requests come by the ring.
  if (over_ring) std::thread([&tree, device] { serve_device(tree, device); }).detach();

  int signal_number = 0;
  sigwait(&stop_signals, &signal_number);
  umount2(argv[3], MNT_DETACH);
  _exit(0);
}
