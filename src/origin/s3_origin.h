// S3Origin: the class behind create_s3_origin (origin/s3.h has the contract). Private to s3*.cc.
//   Thread    credentials and the clock's offset are shared by all cores, under a lock
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <string_view>

#include "origin/aws_credentials.h"
#include "origin/remote_origin.h"
#include "origin/s3_xml.h"
#include "ring/blocking.h"

namespace blobcache {

// Where a bucket is asked for.
struct S3Place {
  std::string bucket;
  std::string prefix;  // "" or ends with '/'
  std::string region;
  std::string endpoint;  // "" AWS; else "http(s)://host[:port]" without a path
  bool bucket_in_host = false;

  std::string scheme_and_host() const;
  std::string host() const;  // as the Host header has it
  std::string path(std::string_view key) const;
  std::string canonical_source() const;
};
// Errors: invalid; *why is one sentence.
Result<S3Place> parse_s3_place(const VolumeConfig& volume, std::string* why);

class S3Origin final : public RemoteOrigin, public HttpAuthorizer {
 public:
  S3Origin(RemoteOptions options, S3Place place, CredentialOptions credential_options, AwsCredentials credentials);
  ~S3Origin() override;

  std::string_view canonical_source() const override { return canonical_source_; }
  void stop() override;
  bool join(unsigned patience_ms) override;

  Result<void> authorize(const HttpRequest& request, std::vector<std::string>& headers) override;
  bool may_ask_again(const HttpRequest& request) override;

  // Lists one key; true: it could be done. False: *why is one sentence.
  bool check(std::string* why);

 protected:
  void look(HttpClient& client, LookJob& job) override;
  void address_read(const ReadCall& call, HttpRequest& request) override;
  void address_page(ListJob& job) override;
  std::string said_by(const HttpRequest& request) const override;
  Result<void> take_page(ListJob& job) override;
  void address_tree(HttpRequest& request, const std::string& token) override;
  Result<std::string> take_tree(const HttpRequest& request, NameIndexWriter& writer) override;

 private:
  struct ListingOptions {
    std::string_view prefix;
    std::string_view token;
    unsigned keys_max = 1000;
    bool delimited = true;
  };
  void address_listing(HttpRequest& request, const ListingOptions& listing) const;
  static void on_looked(HttpRequest& request);
  Result<KnownName> judge_look(const LookJob& job) const;
  void begin_refresh(Reactor& home);
  static void run_refresh(BlockingCall& call);
  std::string failure_sentence(const HttpRequest& request) const;

  S3Place place_;
  std::string canonical_source_;
  const CredentialOptions credential_options_;

  std::mutex mutex_;
  AwsCredentials credentials_;
  int64_t loaded_s_ = 0;
  bool must_refresh_ = false;
  bool refreshing_ = false;
  std::atomic<int64_t> clock_offset_s_{0};  // the server's clock minus ours

  struct Refresh : BlockingCall {
    S3Origin* origin = nullptr;
  } refresh_;
  BlockingCalls blocking_;  // last: its helper uses the rest
};

}  // namespace blobcache
