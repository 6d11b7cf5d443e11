// Op: one submission and the CQEs it owes.
//   Owner     embedded in whatever waits for it; the owner lives until the last CQE has been handled
//   Thread    the core that submitted it
//   Invariant never moved or destroyed while cqes_owed > 0. Most SQEs owe one CQE; multishot and SEND_ZC owe more and say
//             so with IORING_CQE_F_MORE. A linked SQE that was cancelled still owes its CQE (-ECANCELED).
//   Handlers  run on the owning core, after the batch of CQEs has been copied out of the ring; they may submit, resume a
//             task, or free the owner when cqes_owed is 0
#pragma once

#include <cstdint>

#include "base/assert.h"

namespace blobcache {

struct Op {
  // result: as in cqe->res, a count or a negative errno. flags: cqe->flags.
  using Handler = void (*)(Op& op, int32_t result, uint32_t flags);

  Op() = default;
  explicit Op(Handler handler_to_call) : handler(handler_to_call) {}
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;
  ~Op() { BC_ASSERT(cqes_owed == 0); }

  Handler handler = nullptr;
  uint32_t cqes_owed = 0;
};

}  // namespace blobcache
