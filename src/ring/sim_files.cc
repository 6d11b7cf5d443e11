// Paths are walked name by name with a stack of names still to go; a symlink pushes its target onto it. This is the
// kernel's own way (fs/namei.c, link_path_walk) and makes RESOLVE_BENEATH two comparisons: "..", when standing on the
// start, and anything absolute.
#include "ring/sim_files.h"

#include <cerrno>
#include <cstring>

#include <linux/openat2.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"

namespace blobcache {
namespace {

constexpr unsigned symlinks_max = 40;  // the kernel's MAXSYMLINKS

// Pushes the names of path so that the first one is popped first.
void push_names(std::vector<std::string>& names, std::string_view path) {
  size_t end = path.size();
  while (end > 0) {
    const size_t slash = path.rfind('/', end - 1);
    const size_t begin = slash == std::string_view::npos ? 0 : slash + 1;
    if (begin < end) names.emplace_back(path.substr(begin, end - begin));
    end = slash == std::string_view::npos ? 0 : slash;
  }
}

}  // namespace

SimFiles::SimFiles(const SimFaults& faults) : faults_(faults) {
  nodes_.push_back(std::make_unique<SimNode>());
  root_ = nodes_.back().get();
  root_->kind = SimNode::Kind::directory;
  root_->permissions = 0755;
  root_->inode = 1;
  root_->parent = root_;
}

SimNode& SimFiles::make(SimNode& parent, std::string_view name, SimNode::Kind kind) {
  BC_ASSERT(parent.kind == SimNode::Kind::directory && !name.empty());
  nodes_.push_back(std::make_unique<SimNode>());
  SimNode& node = *nodes_.back();
  node.kind = kind;
  node.permissions = kind == SimNode::Kind::directory ? 0755 : 0644;
  node.inode = nodes_.size();
  node.parent = &parent;
  node.faults = faults_;
  parent.children[std::string(name)] = &node;
  return node;
}

SimNode& SimFiles::add(std::string_view path, SimNode::Kind kind) {
  const size_t slash = path.rfind('/');
  BC_ASSERT(slash != std::string_view::npos);
  SimNode* parent = slash == 0 ? root_ : find(path.substr(0, slash));
  BC_ASSERT(parent != nullptr);
  return make(*parent, path.substr(slash + 1), kind);
}

SimNode& SimFiles::add_file(std::string_view path, std::span<const std::byte> bytes) {
  SimNode& node = add(path, SimNode::Kind::file);
  node.bytes.assign(bytes.begin(), bytes.end());
  return node;
}

SimNode& SimFiles::add_symlink(std::string_view path, std::string_view target) {
  SimNode& node = add(path, SimNode::Kind::symlink);
  node.target = target;
  return node;
}

SimNode* SimFiles::find(std::string_view path) { return walk(*root_, path, {.follow_last = false}).node; }

void SimFiles::remove(std::string_view path) {
  const size_t slash = path.rfind('/');
  BC_ASSERT(slash != std::string_view::npos);
  SimNode* parent = slash == 0 ? root_ : find(path.substr(0, slash));
  BC_ASSERT(parent != nullptr && parent->children.erase(std::string(path.substr(slash + 1))) == 1);
}

SimFiles::Found SimFiles::walk(SimNode& from, std::string_view path, Walk how) {
  const bool beneath = (how.resolve & RESOLVE_BENEATH) != 0;
  if (path.empty()) return {.error = -ENOENT};
  if (path.size() >= limits::path_bytes_max) return {.error = -ENAMETOOLONG};
  if (path.front() == '/' && beneath) return {.error = -EXDEV};
  SimNode* at = path.front() == '/' ? root_ : &from;
  const bool wants_directory = path.back() == '/';
  std::vector<std::string> names;
  push_names(names, path);
  unsigned symlinks = 0;
  while (!names.empty()) {
    const std::string name = std::move(names.back());
    names.pop_back();
    if (at->kind != SimNode::Kind::directory) return {.error = -ENOTDIR};
    if (name == ".") continue;
    if (name == "..") {
      if (beneath && at == &from) return {.error = -EXDEV};
      at = at->parent;
      continue;
    }
    if (name.size() > limits::name_bytes_max) return {.error = -ENAMETOOLONG};
    const auto child = at->children.find(name);
    if (child == at->children.end()) {
      if (!names.empty()) return {.error = -ENOENT};
      return {.error = -ENOENT, .parent = at, .name = name};
    }
    SimNode& node = *child->second;
    if (node.kind != SimNode::Kind::symlink || (names.empty() && !how.follow_last && !wants_directory)) {
      at = &node;
      continue;
    }
    if ((how.resolve & RESOLVE_NO_SYMLINKS) != 0 || ++symlinks > symlinks_max) return {.error = -ELOOP};
    if (node.target.front() == '/') {
      if (beneath) return {.error = -EXDEV};
      at = root_;
    }
    push_names(names, node.target);
  }
  if (wants_directory && at->kind != SimNode::Kind::directory) return {.error = -ENOTDIR};
  return {.node = at};
}

void SimFiles::fill_statx(const SimNode& node, struct statx& out) {
  std::memset(&out, 0, sizeof out);
  const uint32_t kind = node.kind == SimNode::Kind::directory ? S_IFDIR
                        : node.kind == SimNode::Kind::symlink ? S_IFLNK
                                                              : S_IFREG;
  out.stx_mask = STATX_BASIC_STATS;
  out.stx_mode = static_cast<uint16_t>(kind | (node.kind == SimNode::Kind::symlink ? 0777 : node.permissions));
  out.stx_ino = node.inode;
  out.stx_nlink = node.kind == SimNode::Kind::directory ? 2 : 1;
  out.stx_size = node.kind == SimNode::Kind::symlink ? node.target.size() : node.bytes.size();
  out.stx_blksize = limits::page_bytes;
  out.stx_blocks = (node.bytes.size() + 511) / 512;
  constexpr uint64_t ns_per_s = 1'000'000'000;
  out.stx_mtime.tv_sec = static_cast<int64_t>(node.changed_ns / ns_per_s);
  out.stx_mtime.tv_nsec = static_cast<uint32_t>(node.changed_ns % ns_per_s);
  out.stx_ctime = out.stx_mtime;
}

}  // namespace blobcache
