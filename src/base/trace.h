// Static tracepoints (USDT): places that perf and bpftrace can watch in a running program; docs/OPERATING.md lists them.
//   Cost      a nop where nobody watches. Arguments are what lies in a register or in memory at that place anyway: nothing is
//             computed or loaded for a tracepoint alone
//   Form      BC_TRACE(name, integer...): at most 12; found in the binary by `readelf -n` as blobcache:name
//   Rule      a name and its arguments are a contract, like a metric's: additions go to the end
#pragma once

#define SDT_USE_VARIADIC
#if defined(__clang__)
// Given the choice, clang copies each argument onto the stack; told to take registers it loads what lies in memory.
#define STAP_SDT_ARG_CONSTRAINT nr
#endif
#include <sys/sdt.h>

#define BC_TRACE(name_, ...) STAP_PROBEV(blobcache, name_, __VA_ARGS__)
