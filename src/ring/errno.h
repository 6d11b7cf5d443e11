// errno -> Code, once.
//   Thread    any
#pragma once

#include "base/result.h"

namespace blobcache {

// os_errno > 0.
Error error_from_errno(int os_errno);
// result < 0, as in cqe->res.
inline Error error_from_result(int result) { return error_from_errno(-result); }

}  // namespace blobcache
