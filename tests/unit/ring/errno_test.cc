#include "ring/errno.h"

#include <cerrno>

#include <doctest/doctest.h>

namespace blobcache {
namespace {

TEST_CASE("each errno says what to do, and is kept for the log") {
  const struct {
    int os_errno;
    Code code;
  } table[] = {{ENOENT, Code::not_found}, {ENOTDIR, Code::not_found},    {EAGAIN, Code::again},
               {ENOMEM, Code::again},     {ETIMEDOUT, Code::timeout},    {ETIME, Code::timeout},
               {EIO, Code::io},           {ECANCELED, Code::canceled},   {ENOSPC, Code::full},
               {EDQUOT, Code::full},      {ESTALE, Code::stale},         {EACCES, Code::denied},
               {EPERM, Code::denied},     {ECONNRESET, Code::peer_down}, {EPIPE, Code::peer_down},
               {EINVAL, Code::invalid},   {EXDEV, Code::invalid},        {ENODATA, Code::io}};
  for (const auto& row : table) {
    CHECK(error_from_errno(row.os_errno) == Error{row.code, row.os_errno});
    CHECK(error_from_result(-row.os_errno) == Error{row.code, row.os_errno});
  }
}

}  // namespace
}  // namespace blobcache
