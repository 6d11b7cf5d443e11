#include "cache/disk_tier.h"

namespace blobcache {

struct DiskTier::Impl {
  DiskReads reads{1};
};

std::string_view state_name(DiskState state) {
  switch (state) {
    case DiskState::ok: return "ok";
    case DiskState::degraded: return "degraded";
    case DiskState::down: return "down";
  }
  return "";
}

DiskTier::DiskTier() : impl_(std::make_unique<Impl>()) {}
DiskTier::~DiskTier() = default;
uint64_t DiskTier::memory_wanted(uint64_t, uint64_t) { return 0; }
Result<void> DiskTier::open(const Options&, std::string*) { return {}; }
void DiskTier::start() {}
bool DiskTier::stop(unsigned) { return true; }
DiskReads& DiskTier::reads() { return impl_->reads; }
bool DiskTier::verify_always() const { return false; }
bool DiskTier::find(const ObjectId&, uint64_t, DiskView*) { return false; }
DiskFile* DiskTier::try_file(const ObjectId&, const DiskView&) { return nullptr; }
void DiskTier::release(DiskFile&) {}
uint32_t DiskTier::direct_alignment(unsigned) const { return limits::page_bytes; }
bool DiskTier::stacked(unsigned) const { return false; }
void DiskTier::mark_verified(const ObjectId&, uint64_t, uint64_t) {}
void DiskTier::on_visit(const ObjectId&, uint64_t, uint64_t, const DiskView*) {}
void DiskTier::on_read_error(unsigned, int) {}
void DiskTier::on_corrupt(unsigned, unsigned) {}
bool DiskTier::packs(uint64_t) const { return false; }
int DiskTier::disk_for(const ObjectId&) const { return -1; }
bool DiskTier::begin_write(unsigned, uint64_t) { return false; }
void DiskTier::abandon_write(unsigned, uint64_t, int) {}
uint64_t DiskTier::segment_bytes(unsigned) const { return 0; }
void DiskTier::post(Reactor& home, DiskJob& job) { job.home = &home; }
Result<void> DiskTier::remove_and_wait(const ObjectId&) { return fail(Code::not_found); }
void DiskTier::verify_soon(const ObjectId&) {}
unsigned DiskTier::disk_count() const { return 0; }
DiskStats DiskTier::stats(unsigned) const { return {}; }
DiskObjectFacts DiskTier::facts(const ObjectId&, uint64_t) { return {}; }
uint64_t DiskTier::memory_bytes() const { return 0; }

}  // namespace blobcache
