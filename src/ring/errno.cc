#include "ring/errno.h"

#include <cerrno>

namespace blobcache {

Error error_from_errno(int os_errno) {
  const auto code = [os_errno] {
    switch (os_errno) {
      case ENOENT:
      case ENOTDIR: return Code::not_found;
      case EAGAIN:
      case EINTR:
      case EBUSY:
      case ENOMEM:
      case ENOBUFS:
      case EMFILE:
      case ENFILE: return Code::again;
      case ETIME:
      case ETIMEDOUT: return Code::timeout;
      case ECANCELED: return Code::canceled;
      case ENOSPC:
      case EDQUOT:
      case EFBIG: return Code::full;
      case ESTALE: return Code::stale;
      case EACCES:
      case EPERM:
      case EROFS: return Code::denied;
      case ECONNRESET:
      case ECONNREFUSED:
      case EPIPE:
      case EHOSTUNREACH:
      case ENETUNREACH:
      case ENOTCONN: return Code::peer_down;
      case EINVAL:
      case ENAMETOOLONG:
      case ELOOP:
      case EXDEV:
      case EISDIR: return Code::invalid;
      default: return Code::io;
    }
  }();
  return Error{code, os_errno};
}

}  // namespace blobcache
