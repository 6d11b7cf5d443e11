// List: a doubly linked list of nodes embedded in their owners. No allocation; O(1) removal.
//   Thread    as the owner says
//   Invariant a node is in at most one list and is not destroyed while in it
#pragma once

#include "base/assert.h"

namespace blobcache {

struct ListNode {
  ListNode* next = nullptr;
  ListNode* previous = nullptr;

  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { BC_ASSERT(next == nullptr); }
  bool linked() const { return next != nullptr; }
  void unlink() {
    BC_ASSERT(linked());
    next->previous = previous;
    previous->next = next;
    next = previous = nullptr;
  }
};

// T derives from ListNode.
template <class T>
class List {
 public:
  List() { head_.next = head_.previous = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    BC_ASSERT(empty());
    head_.next = nullptr;
  }

  bool empty() const { return head_.next == &head_; }
  T* front() { return empty() ? nullptr : static_cast<T*>(head_.next); }
  void push_back(T& node) {
    BC_ASSERT(!node.linked());
    node.previous = head_.previous;
    node.next = &head_;
    head_.previous->next = &node;
    head_.previous = &node;
  }
  T* pop_front() {
    T* first = front();
    if (first != nullptr) first->unlink();
    return first;
  }
  // Calls f(T&) for each; f may unlink the node that it is given.
  template <class F>
  void for_each(F&& f) {
    ListNode* node = head_.next;
    while (node != &head_) {
      ListNode* following = node->next;
      f(*static_cast<T*>(node));
      node = following;
    }
  }

 private:
  ListNode head_;
};

}  // namespace blobcache
