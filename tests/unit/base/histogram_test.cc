// Every time falls into the bucket whose bound is the least that is not below it.
#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "base/histogram.h"

using namespace blobcache;

namespace {

TEST_CASE("histogram: bounds") {
  CHECK(histogram::bounds_ns.front() == 1'000);
  CHECK(histogram::bounds_ns.back() == 85'000'000'000);
  for (unsigned i = 1; i < histogram::bounds_count; ++i) CHECK(histogram::bounds_ns[i - 1] < histogram::bounds_ns[i]);
  for (unsigned i = 0; i < histogram::bounds_count; ++i) {
    CHECK(histogram::bucket_of(histogram::bounds_ns[i]) == i);
    CHECK(histogram::bucket_of(histogram::bounds_ns[i] + 1) == i + 1);
  }
  CHECK(histogram::bucket_of(0) == 0);
  CHECK(histogram::bucket_of(~uint64_t{0}) == histogram::bounds_count);
}

TEST_CASE("histogram: sums of several and percentiles") {
  Histogram one;
  Histogram two;
  for (unsigned i = 0; i < 98; ++i) one.add(900);
  two.add(4'000'000);
  two.add(100'000'000'000);
  HistogramSums sums;
  CHECK(sums.percentile_ns(0.5) == 0);
  sums.add(one);
  sums.add(two);
  CHECK(sums.count() == 100);
  CHECK(sums.sum_ns == 98 * 900 + 4'000'000 + 100'000'000'000);
  CHECK(sums.percentile_ns(0.5) == 1'000);
  CHECK(sums.percentile_ns(0.98) == 1'000);
  CHECK(sums.percentile_ns(0.99) == 4'000'000);
  CHECK(sums.percentile_ns(1) == 85'000'000'000);
}

TEST_CASE("histogram: a percentile is an upper bound and hardly more than a quarter too high") {
  for (const uint64_t us : {70ull, 100ull, 1'000ull, 33'333ull, 1'000'000ull}) {
    CAPTURE(us);
    SharedHistogram histogram;
    for (int i = 0; i < 100; ++i) histogram.add(us * 1000);
    HistogramSums sums;
    sums.add(histogram);
    const uint64_t found_us = sums.percentile_ns(0.5) / 1000;
    CHECK(found_us >= us);
    CHECK(found_us <= us * 127 / 100);
  }
  // What is in the longest bucket, and what is before it.
  SharedHistogram histogram;
  for (int i = 0; i < 98; ++i) histogram.add(1'000'000);
  for (int i = 0; i < 2; ++i) histogram.add(2'000'000'000);
  HistogramSums sums;
  sums.add(histogram);
  CHECK(sums.percentile_ns(0.95) < 1'300'000);
  CHECK(sums.percentile_ns(0.99) >= 2'000'000'000);
  CHECK(sums.sum_ns == 98 * 1'000'000 + 2 * uint64_t{2'000'000'000});
}

TEST_CASE("histogram: what several threads add at once is all there") {
  constexpr unsigned each = 20'000;
  SharedHistogram histogram;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&histogram] {
      for (unsigned k = 0; k < each; ++k) histogram.add(k);
    });
  }
  for (std::thread& thread : threads) thread.join();
  HistogramSums sums;
  sums.add(histogram);
  CHECK(sums.count() == 4 * each);
  CHECK(sums.sum_ns == 4 * (uint64_t{each} * (each - 1) / 2));
}

}  // namespace
