// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_TEMP_FILE_HPP
#define EXAMPLES_TEMP_FILE_HPP

#include <filesystem>
#include <random>
#include <string>
#include <system_error>

namespace examples {

/// A unique name in the system's directory for temporary files. The destructor deletes the file.
class temp_file {
 public:
  temp_file() {
    std::random_device random;
    path_ = std::filesystem::temp_directory_path() /
            ("singleflight-example-" + std::to_string(random()) + std::to_string(random()) + ".db");
  }
  temp_file(const temp_file&) = delete;
  temp_file& operator=(const temp_file&) = delete;
  ~temp_file() { remove(); }

  [[nodiscard]] std::string path() const { return path_.string(); }

  void remove() noexcept {
    std::error_code ignored;  // it may be gone already
    std::filesystem::remove(path_, ignored);
  }

 private:
  std::filesystem::path path_;
};

}  // namespace examples

#endif  // EXAMPLES_TEMP_FILE_HPP
