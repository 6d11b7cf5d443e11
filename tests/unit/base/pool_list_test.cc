#include <set>

#include <doctest/doctest.h>

#include "base/list.h"
#include "base/pool.h"
#include "unit/base/death.h"

namespace blobcache {
namespace {

TEST_CASE("a pool hands out each item once and then none") {
  Pool<int> pool(5);
  std::set<int*> out;
  while (int* item = pool.try_acquire()) out.insert(item);
  CHECK(out.size() == 5);
  CHECK(pool.free_count() == 0);
  int* const back = *out.begin();
  pool.release(*back);
  CHECK(pool.try_acquire() == back);
  CHECK(pool.try_acquire() == nullptr);
  for (int* item : out) pool.release(*item);
  CHECK(pool.free_count() == 5);
}

TEST_CASE("a pool takes back nothing that is not its own, nor more than it gave") {
  CHECK(blobcache_test::dies_of_assertion("index < count_", [] {
    Pool<int> pool(5);
    Pool<int> other(5);
    pool.try_acquire();
    pool.release(*other.try_acquire());
  }));
  CHECK(blobcache_test::dies_of_assertion("free_count_ < count_", [] {
    const volatile uint32_t count = 5;  // known to the compiler, g++ refuses what this case does
    Pool<int> pool(count);
    pool.release(pool[2]);
  }));
}

struct Item : ListNode {
  int number = 0;
};

TEST_CASE("a list keeps its order through removals anywhere") {
  Item items[6];
  List<Item> list;
  for (int i = 0; i < 6; ++i) {
    items[i].number = i;
    list.push_back(items[i]);
  }
  items[0].unlink();
  items[3].unlink();
  items[5].unlink();
  CHECK(!items[3].linked());
  list.push_back(items[0]);
  int seen[8] = {};
  int count = 0;
  list.for_each([&](Item& item) {
    seen[count++] = item.number;
    if (item.number == 2) item.unlink();
  });
  REQUIRE(count == 4);
  CHECK(seen[0] == 1);
  CHECK(seen[1] == 2);
  CHECK(seen[2] == 4);
  CHECK(seen[3] == 0);
  CHECK(list.pop_front() == &items[1]);
  CHECK(list.pop_front() == &items[4]);
  CHECK(list.front() == &items[0]);
  CHECK(list.pop_front() == &items[0]);
  CHECK(list.pop_front() == nullptr);
  CHECK(list.empty());
}

TEST_CASE("a node in two lists, or destroyed in one, stops the process") {
  CHECK(blobcache_test::dies_of_assertion("!node.linked()", [] {
    List<Item> first;
    List<Item> second;
    Item item;
    first.push_back(item);
    second.push_back(item);
  }));
  CHECK(blobcache_test::dies_of_assertion("next == nullptr", [] {
    List<Item> list;
    Item item;
    list.push_back(item);
  }));
}

}  // namespace
}  // namespace blobcache
