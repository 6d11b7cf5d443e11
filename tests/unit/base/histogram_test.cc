// Every time falls into the bucket whose bound is the least that is not below it.
#include <doctest/doctest.h>

#include "base/histogram.h"

using namespace blobcache;

namespace {

TEST_CASE("histogram: bounds") {
  CHECK(histogram::bounds_ns.front() == 1'000);
  CHECK(histogram::bounds_ns.back() == 70'000'000'000);
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
  CHECK(sums.percentile_ns(0.99) == 5'000'000);
  CHECK(sums.percentile_ns(1) == 70'000'000'000);
}

}  // namespace
