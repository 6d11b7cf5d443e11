// Reports: texts about the node for the HTTP endpoint, made on a thread of their own: to ask all tiers takes a while and may
// wait for a lock that a disk holds, which no core should.
//   Owner     Node.   Thread  begin() and what it calls back: the home core's; the texts are made on the helper thread
//   Limits    one text of a kind at a time; who asks while it is being made waits for the next one, so that each text is
//             younger than the request for it
//   Lifetime  start() -> (the home core runs) -> stop(); a waiter that is gone unlinks itself
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <semaphore>
#include <string>
#include <thread>

#include "base/list.h"
#include "ring/poster.h"
#include "ring/reactor.h"

namespace blobcache::node {

struct Report {
  unsigned status = 200;
  std::string_view content_type = "text/plain; charset=utf-8";
  std::string text;
};

enum class ReportKind : uint8_t { metrics, status, readiness };
inline constexpr unsigned report_kinds = 3;

class ReportWaiter : public ListNode {
 public:
  virtual void on_report(const Report& report) = 0;

 protected:
  ~ReportWaiter() = default;
};

class Reports {
 public:
  // make: called on the helper thread. sample: the same, every sample_ns.
  struct Options {
    std::function<Report(ReportKind kind, Poster& poster)> make;
    std::function<void()> sample;
  };
  static constexpr unsigned sample_seconds = 5;

  explicit Reports(Options options);
  ~Reports();
  Reports(const Reports&) = delete;
  Reports& operator=(const Reports&) = delete;

  void start(const Reactor& home);
  void begin(ReportKind kind, ReportWaiter& waiter);
  // False: it hangs in a tier, and nothing that it looks at may be freed.
  bool stop(unsigned patience_ms);

 private:
  struct Work : Message {
    Work() : Message(&Work::on_made) {}
    static void on_made(Op& op, int32_t result, uint32_t flags);
    Reports* reports = nullptr;
    ReportKind kind{};
    bool in_flight = false;
    std::atomic<bool> wanted{false};
    List<ReportWaiter> waiting;
    List<ReportWaiter> next;  // came while it was being made
    Report report;
  };
  void ask_for(Work& work);
  void run();

  const Options options_;
  const Reactor* home_ = nullptr;
  std::array<Work, report_kinds> works_;
  std::thread thread_;
  std::counting_semaphore<> wake_{0};
  std::binary_semaphore ended_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace blobcache::node
