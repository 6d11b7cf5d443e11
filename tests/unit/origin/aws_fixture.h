// A machine without credentials, and what is found on it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "origin/aws_credentials.h"

namespace blobcache_test {

using namespace blobcache;

// An empty HOME and none of the variables that the order looks at; the old ones come back.
class Clean {
 public:
  Clean() {
    char name[] = "/tmp/unit_origin.XXXXXX";
    home_ = ::mkdtemp(name);
    for (const char* variable : {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
                                 "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
                                 "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_ENDPOINT_URL_SSO",
                                 "AWS_ENDPOINT_URL_STS", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                 "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                 "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_SERVICE_ENDPOINT"}) {
      change(variable, nullptr);
    }
    change("HOME", home_.c_str());
    change("AWS_EC2_METADATA_DISABLED", "true");
  }
  ~Clean() {
    for (auto last = changed_.rbegin(); last != changed_.rend(); ++last) {
      if (last->had) {
        ::setenv(last->name.c_str(), last->old.c_str(), 1);
      } else {
        ::unsetenv(last->name.c_str());
      }
    }
    std::error_code ignored;
    std::filesystem::remove_all(home_, ignored);
  }
  void change(const std::string& name, const char* value) {
    const char* old = std::getenv(name.c_str());
    changed_.push_back({name, old == nullptr ? "" : old, old != nullptr});
    if (value == nullptr) {
      ::unsetenv(name.c_str());
    } else {
      ::setenv(name.c_str(), value, 1);
    }
  }
  const std::string& home() const { return home_; }
  std::string write(const std::string& name, std::string_view text) const {
    const std::string path = home_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
    return path;
  }

 private:
  struct Changed {
    std::string name;
    std::string old;
    bool had;
  };
  std::string home_;
  std::vector<Changed> changed_;
};

inline std::string found_key(const std::string& setting = "auto") {
  std::string why;
  const Result<AwsCredentials> found = find_aws_credentials({.setting = setting, .region = "r", .ca_file = ""}, &why);
  if (!found) return "refused: " + why;
  return found->access_key + ":" + found->secret_key + ":" + found->session_token;
}

}  // namespace blobcache_test
