#include "long/chaos_node.h"

#include <cerrno>
#include <charconv>
#include <cstdlib>

#include <sys/mman.h>
#include <sys/stat.h>

#include <fmt/format.h>

namespace blobcache::chaos {

namespace {

constexpr unsigned arena_buffer = 0;
constexpr unsigned staging_buffer = 1;
constexpr uint16_t payload_buffer = 2;
constexpr unsigned answer_turns_max = 3;
constexpr unsigned stop_ms = 30'000;
constexpr uint64_t idle_ns = 30'000'000'000;

Memory take_memory(size_t bytes_wanted) {
  const size_t bytes = (bytes_wanted + limits::huge_page_bytes - 1) / limits::huge_page_bytes * limits::huge_page_bytes;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(limits::huge_page_bytes, bytes));
  BC_ASSERT(memory != nullptr);
  madvise(memory, bytes, MADV_HUGEPAGE);  // small pages are taken one fault at a time, by thousands of nodes
  return Memory(memory);
}

}  // namespace

void FreeMemory::operator()(std::byte* memory) const { std::free(memory); }

// ---- the origin ----

ChaosOrigin::ChaosOrigin(const World& world, Random random, unsigned first_version)
    : world_(world), random_(random), versions_(world.keys, 0) {
  for (unsigned key = 0; key < world.keys; ++key) versions_[key] = world.changes(key) ? first_version : 0;
}

int ChaosOrigin::key_of(std::string_view name) const {
  unsigned key = 0;
  if (name.size() < 2 || name[0] != 'k') return -1;
  const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), key);
  return error == std::errc() && end == name.data() + name.size() && key < world_.keys ? static_cast<int>(key) : -1;
}

FileInfo ChaosOrigin::info_of(unsigned key) const {
  FileInfo info;
  info.attributes.ino = key + 2;
  info.attributes.size = world_.size_of(key, versions_[key]);
  info.attributes.mode = S_IFREG | 0444;
  const std::string version = fmt::format("v{}", versions_[key]);
  info.version.length = static_cast<uint8_t>(version.size());
  std::memcpy(info.version.bytes, version.data(), version.size());
  return info;
}

FileInfo ChaosOrigin::root_info() {
  FileInfo info;
  info.attributes.ino = 1;
  info.attributes.mode = S_IFDIR | 0555;
  info.version.length = 1;
  info.version.bytes[0] = 'r';
  return info;
}

bool ChaosOrigin::fill_info(const std::string& key, FileInfo* info_out) {
  const int number = key_of(key);
  if (number < 0) return false;
  *info_out = info_of(static_cast<unsigned>(number));
  info_out->young = random_.chance(world_.young_percent);
  return true;
}

template <class Call>
struct ChaosOrigin::Answering : Op {
  ChaosOrigin* origin = nullptr;
  Call* call = nullptr;
  Answer<Call> answer = nullptr;
  unsigned turns_left = 0;
};

template <class Call>
void ChaosOrigin::answer_later(Reactor& home, Call& call, Answer<Call> answer) {
  call.home = &home;
  call.failed = false;
  auto* answering = new Answering<Call>();
  answering->handler = &ChaosOrigin::on_turn<Call>;
  answering->origin = this;
  answering->call = &call;
  answering->answer = answer;
  answering->turns_left = static_cast<unsigned>(random_.below(answer_turns_max));
  ++in_flight_;
  prep_nop(home.prepare(*answering));
}

template <class Call>
void ChaosOrigin::on_turn(Op& op, int32_t, uint32_t) {
  auto* answering = &static_cast<Answering<Call>&>(op);
  if (answering->turns_left > 0) {
    --answering->turns_left;
    prep_nop(answering->call->home->prepare(*answering));
    return;
  }
  ChaosOrigin& self = *answering->origin;
  Call& call = *answering->call;
  const Answer<Call> answer = answering->answer;
  delete answering;
  --self.in_flight_;
  (self.*answer)(call);
}

void ChaosOrigin::begin_lookup(Reactor& home, LookupCall& call) {
  answer_later(home, call, &ChaosOrigin::answer_lookup);
}
void ChaosOrigin::begin_open(Reactor& home, OpenCall& call) { answer_later(home, call, &ChaosOrigin::answer_open); }
void ChaosOrigin::begin_list(Reactor& home, ListCall& call) {
  answer_later(home, call, &ChaosOrigin::refuse<ListCall>);
}
void ChaosOrigin::begin_readlink(Reactor& home, ReadlinkCall& call) {
  answer_later(home, call, &ChaosOrigin::refuse<ReadlinkCall>);
}
void ChaosOrigin::begin_statfs(Reactor& home, StatfsCall& call) {
  answer_later(home, call, &ChaosOrigin::refuse<StatfsCall>);
}
void ChaosOrigin::begin_read(Reactor& home, ReadCall& call) {
  std::memset(call.to, 0xaa, call.bytes < 64 ? call.bytes : 64);
  answer_later(home, call, &ChaosOrigin::answer_read);
}

void ChaosOrigin::answer_lookup(LookupCall& call) {
  if (fill_info(call.key, &call.info)) return call.finish();
  call.finish_failed({Code::not_found, ENOENT});
}

void ChaosOrigin::answer_open(OpenCall& call) {
  if (fill_info(call.key, &call.info)) return call.finish();
  call.finish_failed({Code::not_found, ENOENT});
}

void ChaosOrigin::answer_read(ReadCall& call) {
  const int key = key_of(call.key);
  BC_ASSERT(key >= 0);
  const FileInfo info = info_of(static_cast<unsigned>(key));
  const bool stale = !(info.version == call.version);
  if (stale || random_.below(1000) < world_.origin_fails_permille) {
    std::memset(call.to, 0x55, call.bytes);
    ++failures_;
    return call.finish_failed(stale ? Error{Code::stale} : Error{Code::io, EIO});
  }
  BC_ASSERT(call.offset + call.bytes <= info.attributes.size);
  const unsigned version = versions_[static_cast<unsigned>(key)];
  fill_bytes(world_.base_of(static_cast<unsigned>(key), version), call.offset, call.to, call.bytes);
  call.young = random_.chance(world_.young_percent);
  call.finish();
}

// ---- the transport ----

ChaosTransport::ChaosTransport(Reactor& reactor, bool links, bool registered)
    : reactor_(reactor), links_(links), memory_(take_memory(memory_bytes)) {
  std::memset(memory_.get(), 0, memory_bytes);
  for (unsigned i = 0; i < slots_max; ++i) {
    std::byte* base = memory_.get() + i * slot_bytes;
    fuse::attach(slots_[i], *this,
                 {.header = reinterpret_cast<abi::UringHeader*>(base),
                  .payload = base + limits::page_bytes,
                  .payload_bytes = payload_bytes_max,
                  .buffer_index = registered ? payload_buffer : fuse::no_buffer},
                 i);
    slots_[i].handler = &ChaosTransport::on_linked;
  }
}

int ChaosTransport::free_slot() const {
  for (unsigned i = 0; i < slots_max; ++i) {
    if (slots_[i].state == fuse::SlotState::closed) return static_cast<int>(i);
  }
  return -1;
}

void ChaosTransport::begin(unsigned number, const RequestIn& in) {
  fuse::Slot& slot = slots_[number];
  BC_ASSERT(slot.state == fuse::SlotState::closed);
  auto& header = *new (slot.header->in_out) fuse_in_header{};
  header.opcode = in.opcode;
  header.nodeid = in.node;
  header.unique = slot.unique = next_unique_++;
  if (in.argument_bytes > 0) std::memcpy(slot.header->op_in, in.argument, in.argument_bytes);
  slot.body = slot.payload;
  slot.body_bytes = 0;
  if (!in.name.empty()) {
    std::memcpy(slot.payload, in.name.data(), in.name.size());
    slot.payload[in.name.size()] = std::byte{0};
    slot.body_bytes = static_cast<uint32_t>(in.name.size()) + 1;
  }
  slot.state = fuse::SlotState::serving;
  replies_[number] = {.done = false};
  handler_->on_request(slot);
}

void ChaosTransport::end(fuse::Slot& slot, Reply reply) {
  BC_ASSERT(slot.state == fuse::SlotState::serving && reply.bytes <= slot.payload_bytes);
  slot.state = fuse::SlotState::closed;
  replies_[slot.number] = reply;
}

// The commit, which reaches the kernel when the read before it has succeeded in full.
void ChaosTransport::reply_linked(fuse::Slot& slot, uint32_t payload_bytes) {
  BC_ASSERT(slot.state == fuse::SlotState::serving && payload_bytes <= slot.payload_bytes);
  slot.state = fuse::SlotState::replying;
  linked_bytes_[slot.number] = payload_bytes;
  prep_nop(reactor_.prepare(slot));
}

void ChaosTransport::on_linked(Op& op, int32_t result, uint32_t) {
  auto& slot = static_cast<fuse::Slot&>(op);
  auto& self = *static_cast<ChaosTransport*>(slot.transport);
  slot.state = fuse::SlotState::serving;
  if (result == -ECANCELED) return self.handler_->on_reply_broken(slot);
  self.end(slot, {.bytes = self.linked_bytes_[slot.number]});
}

fuse::Slot* ChaosTransport::find_serving(uint64_t unique) {
  for (fuse::Slot& slot : slots_) {
    if (slot.state == fuse::SlotState::serving && slot.unique == unique) return &slot;
  }
  return nullptr;
}

// ---- the node ----

Node::Node(const World& world_of_seed, const std::string& folder_of_disks, Random random, unsigned first_version)
    : world(world_of_seed), folder(folder_of_disks) {
  auto first = std::make_unique<ChaosOrigin>(world, random, first_version);
  origin = first.get();
  volume = std::make_unique<serve::Volume>();
  volume->origin = std::move(first);
}

std::string Node::open_memory() {
  arena = take_memory(world.arena_bytes);
  staging_bytes = DiskWriter::staging_bytes(world.disks, world.chunk_bytes);
  staging = take_memory(staging_bytes);
  transport = std::make_unique<ChaosTransport>(*reactor, world.links, world.registered);
  if (world.registered) {
    const iovec buffers[] = {{arena.get(), world.arena_bytes}, {staging.get(), staging_bytes}, transport->memory()};
    for (unsigned i = arena_buffer; i <= payload_buffer; ++i) {
      if (!reactor->ring().register_buffer(i, buffers[i])) return "memory cannot be registered with the ring";
    }
  }
  memory = std::make_unique<MemoryTier>(MemoryTier::Options{
      .arena = {arena.get(), world.arena_bytes}, .buffer_index_first = arena_buffer, .epochs = &epochs});
  return {};
}

std::string Node::open_disks() {
  tier = std::make_unique<DiskTier>();
  DiskTier::Options options;
  options.cache = Config().cache;
  options.cache.chunk_bytes = world.chunk_bytes;
  options.cache.verify = world.verify_always ? Verify::always : Verify::first;
  options.cache.disks = std::vector<DiskConfig>(world.disks);
  for (unsigned i = 0; i < world.disks; ++i) {
    options.cache.disks[i].path = disk_path(folder, i);
    options.cache.disks[i].size = {.bytes = world.limit_bytes};
    options.cache.disks[i].high_watermark = 0.99;  // of a file system that is others' too
    options.cache.disks[i].low_watermark = 0.9;
  }
  options.node = {{0x63686173, 1}};
  options.memory_bytes = 4 * MiB;
  if (world.scrubs) {
    options.scrub_delay_ns = 0;
    options.scrub_bytes_per_s = 1024 * MiB;
    options.scrub_pause_ns = 0;
  }
  std::string message;
  if (!tier->open(options, &message)) return "the cache directory was refused: " + message;
  tier->start();
  return {};
}

std::string Node::open() {
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 256, .cqes = 1024});
  if (!ring) return fmt::format("no io_uring, errno {}", ring.error().os_errno);
  reactor = std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.core = 0, .cqes = 1024, .epochs = &epochs});
  std::string why = open_memory();
  if (why.empty()) why = open_disks();
  if (!why.empty()) return why;
  writer = std::make_unique<DiskWriter>(
      DiskWriter::Options{.tier = tier.get(),
                          .memory = memory.get(),
                          .reactor = reactor.get(),
                          .registered_buffers = world.registered,
                          .staging = {staging.get(), staging_bytes},
                          .staging_buffer_index = world.registered ? static_cast<int>(staging_buffer) : -1,
                          .held_bytes_max = world.arena_bytes / 4});
  const Config defaults;
  volume->config.name = "chaos";
  volume->origin_config = defaults.origin;
  volume->live.set(defaults.fuse, defaults.origin, defaults.log);
  volume->identity = "chaos";
  volume->memory = memory.get();
  volume->disk = tier.get();
  if (!volume->inodes.create({.volume = 0, .nodes_max = 4096}, ChaosOrigin::root_info(), reactor->now_ns()))
    return "no memory for the inode table";
  server = std::make_unique<serve::VolumeServer>(serve::VolumeServer::Options{
      .volume = volume.get(),
      .reactor = reactor.get(),
      .interrupts = this,
      .writer = writer.get(),
      .registered_buffers = world.registered,
      .slots = slots_max,
      .on_idle = [](serve::VolumeServer&, void* context) { static_cast<Node*>(context)->idle = true; },
      .on_idle_context = this});
  transport->set_handler(*server);
  reactor->turn(false);
  return {};
}

std::string Node::close() {
  Timer give_up([](Timer&) {});
  reactor->arm(give_up, idle_ns);
  server->on_closed();
  writer->flush();
  while ((!idle || !writer->idle() || origin->in_flight() > 0) && give_up.armed()) reactor->turn(true);
  if (!give_up.armed()) return fmt::format("it does not end: server idle {}, writer idle {}", idle, writer->idle());
  reactor->cancel(give_up);
  if (!reactor->drain(idle_ns)) return "operations are owed to the end";
  const uint64_t pinned = memory->stats().pinned_frames;
  const uint32_t handles = volume->handles.open_count();
  if (!tier->stop(stop_ms)) return "the disk tier does not stop";
  server.reset();
  writer.reset();
  volume.reset();
  tier.reset();
  memory.reset();
  reactor.reset();
  transport.reset();
  if (pinned != 0 || handles != 0) return fmt::format("{} frames and {} handles were not given back", pinned, handles);
  return {};
}

}  // namespace blobcache::chaos
