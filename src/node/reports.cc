#include "node/reports.h"

#include <chrono>

#include <pthread.h>

namespace blobcache::node {

Reports::Reports(Options options) : options_(std::move(options)) {
  for (unsigned i = 0; i < report_kinds; ++i) {
    works_[i].reports = this;
    works_[i].kind = static_cast<ReportKind>(i);
  }
}

Reports::~Reports() { BC_ASSERT(!thread_.joinable()); }

void Reports::start(const Reactor& home) {
  home_ = &home;
  thread_ = std::thread(&Reports::run, this);
}

void Reports::begin(ReportKind kind, ReportWaiter& waiter) {
  Work& work = works_[static_cast<unsigned>(kind)];
  work.next.push_back(waiter);
  if (!work.in_flight) ask_for(work);
}

void Reports::ask_for(Work& work) {
  while (ReportWaiter* waiter = work.next.pop_front()) work.waiting.push_back(*waiter);
  work.in_flight = true;
  work.wanted.store(true, std::memory_order_release);
  wake_.release();
}

void Reports::Work::on_made(Op& op, int32_t, uint32_t) {
  auto& work = static_cast<Work&>(op);
  work.in_flight = false;
  while (ReportWaiter* waiter = work.waiting.pop_front()) waiter->on_report(work.report);
  work.report = {};
  if (!work.next.empty()) work.reports->ask_for(work);
}

void Reports::run() {
  pthread_setname_np(pthread_self(), "bc-reports");
  Poster poster;
  auto due = std::chrono::steady_clock::now();
  while (!stopping_.load(std::memory_order_acquire)) {
    if (std::chrono::steady_clock::now() >= due) {
      options_.sample();
      due = std::chrono::steady_clock::now() + std::chrono::seconds(sample_seconds);
    }
    if (!wake_.try_acquire_until(due)) continue;
    for (Work& work : works_) {
      if (!work.wanted.exchange(false, std::memory_order_acquire)) continue;
      work.report = options_.make(work.kind, poster);
      poster.post(*home_, work);
    }
  }
  ended_.release();
}

bool Reports::stop(unsigned patience_ms) {
  if (!thread_.joinable()) return true;
  stopping_.store(true, std::memory_order_release);
  wake_.release();
  if (!ended_.try_acquire_for(std::chrono::milliseconds(patience_ms))) return false;
  thread_.join();
  return true;
}

}  // namespace blobcache::node
