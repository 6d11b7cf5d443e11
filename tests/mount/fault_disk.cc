// fault_disk: a disk that fails on command. A FUSE file system with one file, `disk`, whose bytes lie in IMAGE; a loop
// device over it is what the tests put a file system on. Works on every kernel with FUSE, where device-mapper's error,
// delay and flakey targets are not always there.
//
//   fault_disk IMAGE CONTROL MOUNTPOINT      in the foreground, until it is unmounted; absolute paths
//
// CONTROL is read before each request; it holds words:
//   read=fail  write=fail      answered with EIO
//   write=lose                 answered as if written
//   write=tear                 the first half is written (in units of 512), and answered as if all were
//   delay_ms=N                 every read and write is answered later
// An empty or missing CONTROL is a good disk. What was hit is counted in CONTROL.hits, one byte a fault.
#define FUSE_USE_VERSION 31
#include <fcntl.h>
#include <fuse.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

int image_fd = -1;
std::string control_path;

struct Faults {
  bool read_fails = false;
  bool write_fails = false;
  bool write_loses = false;
  bool write_tears = false;
  int delay_ms = 0;
};

Faults faults_now() {
  Faults faults;
  char text[256] = {};
  const int fd = open(control_path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return faults;
  const ssize_t bytes = read(fd, text, sizeof text - 1);
  close(fd);
  if (bytes <= 0) return faults;
  faults.read_fails = std::strstr(text, "read=fail") != nullptr;
  faults.write_fails = std::strstr(text, "write=fail") != nullptr;
  faults.write_loses = std::strstr(text, "write=lose") != nullptr;
  faults.write_tears = std::strstr(text, "write=tear") != nullptr;
  if (const char* delay = std::strstr(text, "delay_ms=")) faults.delay_ms = std::atoi(delay + std::strlen("delay_ms="));
  return faults;
}

void delay(const Faults& faults) {
  if (faults.delay_ms > 0) poll(nullptr, 0, faults.delay_ms);
}

void count_hit() {
  const int fd = open((control_path + ".hits").c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  if (write(fd, "x", 1) != 1) std::fprintf(stderr, "fault_disk: a hit could not be counted\n");
  close(fd);
}

int get_attributes(const char* path, struct stat* out, struct fuse_file_info*) {
  *out = {};
  if (std::strcmp(path, "/") == 0) {
    out->st_mode = S_IFDIR | 0700;
    out->st_nlink = 2;
    return 0;
  }
  if (std::strcmp(path, "/disk") != 0) return -ENOENT;
  struct stat image{};
  if (fstat(image_fd, &image) != 0) return -errno;
  out->st_mode = S_IFREG | 0600;
  out->st_nlink = 1;
  out->st_size = image.st_size;
  return 0;
}

int open_disk(const char* path, struct fuse_file_info* info) {
  if (std::strcmp(path, "/disk") != 0) return -ENOENT;
  info->direct_io = 1;  // a fault must not hide behind the page cache of this file
  return 0;
}

int read_disk(const char*, char* out, size_t bytes, off_t offset, struct fuse_file_info*) {
  const Faults faults = faults_now();
  delay(faults);
  if (faults.read_fails) {
    count_hit();
    return -EIO;
  }
  const ssize_t got = pread(image_fd, out, bytes, offset);
  return got < 0 ? -errno : static_cast<int>(got);
}

int write_disk(const char*, const char* from, size_t bytes, off_t offset, struct fuse_file_info*) {
  const Faults faults = faults_now();
  delay(faults);
  size_t kept = bytes;
  if (faults.write_loses) kept = 0;
  if (faults.write_tears) kept = bytes / 2 / 512 * 512;
  if (faults.write_fails || kept != bytes) count_hit();
  if (faults.write_fails) return -EIO;
  const ssize_t put = pwrite(image_fd, from, kept, offset);
  if (put < 0) return -errno;
  return static_cast<size_t>(put) == kept ? static_cast<int>(bytes) : static_cast<int>(put);
}

int sync_disk(const char*, int, struct fuse_file_info*) { return 0; }  // the image lives as long as the test

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "fault_disk: see the head of fault_disk.cc\n");
    return 2;
  }
  image_fd = open(argv[1], O_RDWR | O_CLOEXEC);
  if (image_fd < 0) {
    std::perror(argv[1]);
    return 1;
  }
  control_path = argv[2];
  struct fuse_operations operations = {};
  operations.getattr = get_attributes;
  operations.open = open_disk;
  operations.read = read_disk;
  operations.write = write_disk;
  operations.fsync = sync_disk;
  char program[] = "fault_disk", foreground[] = "-f";
  char* arguments[] = {program, foreground, argv[3], nullptr};
  return fuse_main(3, arguments, &operations, nullptr);
}
