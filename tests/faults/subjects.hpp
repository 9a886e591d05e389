// SPDX-License-Identifier: MIT
// Keys, values, loaders and executors whose every operation can be made to fail, and that are
// counted.
#ifndef SINGLEFLIGHT_TESTS_FAULTS_SUBJECTS_HPP
#define SINGLEFLIGHT_TESTS_FAULTS_SUBJECTS_HPP

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "injector.hpp"

namespace faults {

/// How many objects there are of the types below.
inline std::atomic<int> alive{0};

class counted {
 public:
  counted() noexcept { ++alive; }
  counted(const counted&) noexcept { ++alive; }
  counted& operator=(const counted&) = default;
  ~counted() { --alive; }
};

/// Its copy allocates, as that of a string does.
class key {
 public:
  explicit key(int id) : id_(std::make_unique<int>(id)) {}
  key(const key& other) : id_(std::make_unique<int>(*other.id_)) { use(point::key_copy); }
  key(key&& other) : id_(std::make_unique<int>(*other.id_)) { use(point::key_move); }
  key& operator=(const key&) = delete;
  ~key() = default;
  [[nodiscard]] int id() const noexcept { return *id_; }

 private:
  std::unique_ptr<int> id_;
  counted counted_;
};

/// One hash for all keys, so that equality has to tell them apart.
struct key_hash {
  std::size_t operator()(const key&) const {
    use(point::hash);
    return 1;
  }
};

struct key_equal {
  bool operator()(const key& a, const key& b) const {
    use(point::equality);
    return a.id() == b.id();
  }
};

struct value {
  explicit value(int n) noexcept : number(n) {}
  value(const value& other) : number(other.number) { use(point::value_copy); }
  value(value&& other) : number(other.number) { use(point::value_move); }
  value& operator=(const value&) = delete;
  ~value() = default;

  int number;
  counted counted_;
};

/// A loader that does what `Body` says.
template <class Body>
struct faulty_loader {
  explicit faulty_loader(Body b) : body(std::move(b)) {}
  faulty_loader(const faulty_loader& other) : body(other.body) { use(point::loader_copy); }
  faulty_loader& operator=(const faulty_loader&) = delete;
  ~faulty_loader() = default;
  decltype(auto) operator()() const {
    use(point::loader);
    return body();
  }

  Body body;
  counted counted_;
};

/// A loader that takes the key.
template <class Body>
struct key_loader : faulty_loader<Body> {
  using faulty_loader<Body>::faulty_loader;
  decltype(auto) operator()(const key& of_the_call) const {
    use(point::loader);
    return this->body(of_the_call);
  }
};
template <class Body>
key_loader(Body) -> key_loader<Body>;

/// A loader of many keys.
template <class Body>
struct faulty_bulk_loader : faulty_loader<Body> {
  using faulty_loader<Body>::faulty_loader;
  template <class Batch>
  void operator()(Batch& missing) const {
    use(point::loader);
    this->body(missing);
  }
};
template <class Body>
faulty_bulk_loader(Body) -> faulty_bulk_loader<Body>;

#if defined(__cpp_lib_jthread)
/// A loader that takes a stop token.
template <class Body>
struct stoppable_loader : faulty_loader<Body> {
  using faulty_loader<Body>::faulty_loader;
  decltype(auto) operator()(std::stop_token token) const {
    use(point::loader);
    return this->body(std::move(token));
  }
};
template <class Body>
stoppable_loader(Body) -> stoppable_loader<Body>;
#endif

}  // namespace faults

#endif  // SINGLEFLIGHT_TESTS_FAULTS_SUBJECTS_HPP
