// SPDX-License-Identifier: MIT
// expect: the loader must be callable with nothing
#include <singleflight/group.hpp>
#include <string>

struct user {
  std::string id;
  std::string load() const { return id; }
  bool operator==(const user&) const = default;
};
struct hash {
  std::size_t operator()(const user& u) const { return std::hash<std::string>()(u.id); }
};

void load(singleflight::group<user, std::string, hash>& g) {
  (void)g.do_call(user{"a"}, &user::load);
}
