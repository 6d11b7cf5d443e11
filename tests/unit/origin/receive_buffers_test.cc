// The memory that libcurl receives into: given out again as it is, and what libcurl really uses.
#include "origin/receive_buffers.h"

#include <algorithm>
#include <cstring>
#include <set>

#include <doctest/doctest.h>

#include "unit/origin/http_fixture.h"

using namespace blobcache;
using namespace blobcache_test;

TEST_CASE("receive buffers: the one given back last comes first, and none twice") {
  ReceiveBuffers buffers;
  CHECK(buffers.try_take() == nullptr);  // not reserved yet
  CHECK_FALSE(buffers.owns(nullptr));
  REQUIRE(buffers.reserve().has_value());
  std::set<void*> out;
  for (unsigned i = 0; i < ReceiveBuffers::count_max; ++i) {
    void* const buffer = buffers.try_take();
    REQUIRE(buffer != nullptr);
    CHECK(buffers.owns(buffer));
    CHECK(out.insert(buffer).second);
  }
  CHECK(buffers.try_take() == nullptr);
  void* const first = *out.begin();
  void* const last = *out.rbegin();
  std::memset(last, 1, ReceiveBuffers::bytes);  // all of it is there
  CHECK_FALSE(buffers.owns(static_cast<std::byte*>(last) + ReceiveBuffers::bytes));
  buffers.give_back(first);
  buffers.give_back(last);
  CHECK(buffers.try_take() == last);
  CHECK(buffers.try_take() == first);
  CHECK(buffers.taken_at_most() == ReceiveBuffers::count_max);
  int other = 0;
  CHECK_FALSE(buffers.owns(&other));
}

TEST_CASE("receive buffers: libcurl takes them, no more than there are transfers at a time") {
  HttpServer server([](const ServerRequest& request) { return range_reply(request); });
  HttpCore core({.connections_max = 2});
  const unsigned before = receive_buffers().taken_at_most();
  for (unsigned round = 0; round < 8; ++round) check_bytes(*core.ask(server, round * 65536, 65536));
  CHECK(receive_buffers().taken_at_most() >= 1);
  CHECK(receive_buffers().taken_at_most() <= std::max(before, 2u));
}
