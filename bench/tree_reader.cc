// tree_reader: a training job's reader: a tree of small files, each read once an epoch in a new random order by a few
// threads, every byte compared (P12).
//   tree_reader make ROOT COUNT BYTES_MIN BYTES_MAX     COUNT files in folders of 1,000
//   tree_reader read ROOT COUNT THREADS SEED            one epoch; prints seconds and bytes
// Each 8 bytes of a file are (number of the file << 32 | index of the word), so a file costs little to make and to check,
// on both sides of a comparison alike. The size of file N follows from N.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t word_bytes = 8;
constexpr uint64_t folder_files = 1000;

[[noreturn]] void die(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

std::string folder_of(const std::string& root, uint64_t number) {
  return root + "/" + std::to_string(number / folder_files);
}
std::string path_of(const std::string& root, uint64_t number) {
  return folder_of(root, number) + "/" + std::to_string(number);
}

void fill(std::vector<uint64_t>& words, uint64_t number) {
  for (uint64_t i = 0; i < words.size(); ++i) words[i] = number << 32 | i;
}

int make(const std::string& root, uint64_t count, uint64_t bytes_min, uint64_t bytes_max) {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<uint64_t> sizes(bytes_min / word_bytes, bytes_max / word_bytes);
  std::vector<uint64_t> words;
  for (uint64_t number = 0; number < count; ++number) {
    if (number % folder_files == 0) mkdir(folder_of(root, number).c_str(), 0755);
    words.resize(sizes(random));
    fill(words, number);
    const std::string path = path_of(root, number);
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    const size_t bytes = words.size() * word_bytes;
    if (fd < 0 || write(fd, words.data(), bytes) != static_cast<ssize_t>(bytes)) die(path);
    close(fd);
  }
  return 0;
}

class Epoch {
 public:
  Epoch(std::string root, uint64_t count, uint64_t seed) : root_(std::move(root)), order_(count) {
    std::iota(order_.begin(), order_.end(), 0);
    std::mt19937_64 random(seed);
    std::shuffle(order_.begin(), order_.end(), random);
  }

  void read_files() {
    std::vector<uint64_t> words(bytes_max / word_bytes + 1);
    for (size_t i = next_++; i < order_.size(); i = next_++) read_file(order_[i], words);
  }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  static constexpr uint64_t bytes_max = 4 << 20;

  void read_file(uint64_t number, std::vector<uint64_t>& words) {
    const std::string path = path_of(root_, number);
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info{};
    if (fd < 0 || fstat(fd, &info) != 0) die(path);
    const auto size = static_cast<uint64_t>(info.st_size);
    uint64_t done = 0;
    while (done < size) {
      const ssize_t got = read(fd, reinterpret_cast<char*>(words.data()) + done, bytes_max - done);
      if (got <= 0) die(path);
      done += static_cast<uint64_t>(got);
    }
    close(fd);
    for (uint64_t i = 0; i < size / word_bytes; ++i) {
      if (words[i] != (number << 32 | i)) {
        std::fprintf(stderr, "%s: wrong bytes at %lu\n", path.c_str(), i * word_bytes);
        std::exit(1);
      }
    }
    bytes_ += size;
  }

  std::string root_;
  std::vector<uint64_t> order_;
  std::atomic<size_t> next_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
};

int read_epoch(const std::string& root, uint64_t count, uint64_t threads_count, uint64_t seed) {
  Epoch epoch(root, count, seed);
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < threads_count; ++i) threads.emplace_back([&epoch] { epoch.read_files(); });
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%.6f %lu\n", seconds.count(), epoch.bytes());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const auto number = [&](int index) { return std::strtoull(argv[index], nullptr, 10); };
  if (command == "make" && argc == 6) return make(argv[2], number(3), number(4), number(5));
  if (command == "read" && argc == 6) return read_epoch(argv[2], number(3), number(4), number(5));
  std::fprintf(stderr, "tree_reader: see the head of tree_reader.cc\n");
  return 2;
}
