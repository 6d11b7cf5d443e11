// One suite, two rings: every case runs against the kernel and against the simulator (worlds.h), so that the simulator
// cannot drift from what the kernel does, and each fact that the design relies on is tried on the kernel at hand.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
