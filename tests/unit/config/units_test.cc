// Sizes, durations and shares as people write them, and as nobody should.
#include <cstdint>
#include <string>

#include <doctest/doctest.h>

#include "base/units.h"

using namespace blobcache;

TEST_CASE("units: sizes") {
  CHECK(parse_bytes("0") == 0);
  CHECK(parse_bytes("0.0") == 0);
  CHECK(parse_bytes("1B") == 1);
  CHECK(parse_bytes("4MiB") == 4u << 20);
  CHECK(parse_bytes("100GB") == 100'000'000'000);
  CHECK(parse_bytes("1.5KiB") == 1536);
  CHECK(parse_bytes("0.1GB") == 100'000'000);
  CHECK(parse_bytes("64kB") == 64'000);
  CHECK(parse_bytes("8191PiB") == 8191ull << 50);
}

TEST_CASE("units: what is no size is turned down with a reason") {
  for (const char* text : {"",
                           " ",
                           "4",
                           "-1",
                           "+1B",
                           "4MiBx",
                           "4 MiB",
                           "4mib",
                           "1e400",
                           "1e3B",
                           "0x10B",
                           "99999999999999GB",
                           "18446744073709551616B",
                           "9223372036854775808B",
                           "8192PiB",
                           "1.B",
                           ".5B",
                           "1..2B",
                           "0.3B",
                           "1.0000000000001GiB",
                           "nan",
                           "inf",
                           "\xff\xfe",
                           "4MiB\n",
                           "12%"}) {
    CAPTURE(text);
    const Parsed<uint64_t> parsed = parse_bytes(text);
    REQUIRE(!parsed);
    CHECK(parsed.error().size() > 10);
    CHECK(parsed.error().find('\xff') == std::string::npos);
  }
  CHECK(!parse_bytes(std::string(1u << 20, '9')));
  CHECK(parse_bytes(std::string(1u << 20, 'x')).error().size() < 200);
}

TEST_CASE("units: durations") {
  CHECK(parse_duration_ns("0") == 0);
  CHECK(parse_duration_ns("0s") == 0);
  CHECK(parse_duration_ns("200ms") == 200'000'000);
  CHECK(parse_duration_ns("5s") == 5'000'000'000);
  CHECK(parse_duration_ns("1.5h") == 5'400'000'000'000);
  CHECK(parse_duration_ns("3min") == 180'000'000'000);
  for (const char* text : {"", "5", "-5s", "5m", "5S", "1e9s", "0.5ns", "999999999d", "never"}) {
    CAPTURE(text);
    CHECK(!parse_duration_ns(text));
  }
}

TEST_CASE("units: shares and amounts") {
  CHECK(parse_share("0%") == 0.0);
  CHECK(parse_share("100%") == 1.0);
  CHECK(parse_share("12.5%") == 0.125);
  for (const char* text : {"", "%", "101%", "100.1%", "-1%", "0.5", "1e1%", "10%%", "10 %"}) {
    CAPTURE(text);
    CHECK(!parse_share(text));
  }
  CHECK(parse_amount("25%").value().resolve(1000) == 250);
  CHECK(parse_amount("1KiB").value().resolve(1000) == 1024);
  CHECK(!parse_amount("110%"));
}

TEST_CASE("units: counts and modes") {
  CHECK(parse_count("7", 1, 9) == 7);
  for (const char* text : {"0", "10", "", "-1", "7x", "7.0", "18446744073709551617"}) {
    CAPTURE(text);
    CHECK(!parse_count(text, 1, 9));
  }
  CHECK(parse_mode("0444") == 0444u);
  CHECK(parse_mode("755") == 0755u);
  for (const char* text : {"", "0", "888", "04755", "1777", "-444", "rwx", "000000000444"}) {
    CAPTURE(text);
    CHECK(!parse_mode(text));
  }
}

TEST_CASE("units: what is written is read back as the same") {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{1000}, uint64_t{1024}, uint64_t{1'234'567},
                               uint64_t{4} << 20, uint64_t{100'000'000'000}, uint64_t{INT64_MAX}}) {
    CHECK(parse_bytes(format_bytes(bytes)) == bytes);
    CHECK(parse_duration_ns(format_duration_ns(bytes)) == bytes);
  }
  CHECK(format_bytes(4u << 20) == "4MiB");
  CHECK(format_bytes(100'000'000'000) == "100GB");
  CHECK(format_duration_ns(5'000'000'000) == "5s");
  CHECK(format_share(0.85) == "85%");
  CHECK(format_share(0.125) == "12.5%");
  CHECK(format_mode(0444) == "0444");
  CHECK(format_bytes_short(1536) == "1.50 KiB");
  CHECK(format_bytes_short(999) == "999 B");
}
