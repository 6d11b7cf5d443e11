// SimFaults: how often a file of the simulator misbehaves. The fault model in prose is at the head of ring/sim.h.
#pragma once

#include <cstdint>

namespace blobcache {

// Chances in parts per million of the operations on the file.
struct SimFaults {
  uint32_t open_error_ppm = 0;
  uint32_t read_error_ppm = 0;
  uint32_t write_error_ppm = 0;
  uint32_t short_read_ppm = 0;
  uint32_t short_write_ppm = 0;
  uint32_t slow_ppm = 0;
  uint32_t bit_flip_ppm = 0;
  uint32_t torn_write_ppm = 0;
  uint32_t lost_write_ppm = 0;
  uint32_t misdirected_write_ppm = 0;
};

}  // namespace blobcache
