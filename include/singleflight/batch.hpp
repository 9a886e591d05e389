// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BATCH_HPP
#define SINGLEFLIGHT_BATCH_HPP

#include <concepts>
#include <cstddef>
#include <exception>
#include <iterator>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "detail/assert.hpp"
#include "detail/bulk_keys.hpp"
#include "detail/config.hpp"
#include "detail/key.hpp"
#include "detail/loader.hpp"
#include "detail/traits.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {

/// Copies a value. Made where a loader asks for copies: not every `Value` that says that it can be
/// copied can be, such as a vector of what cannot.
template <class Value>
using copy_function = void (*)(std::optional<loaded<Value>>& to, const loaded<Value>& from);

/// The calls of a batch, for whoever ends them.
template <class Key, class Value>
class open_batch {
 public:
  using key_type = bulk_key<Key, Value>;

  open_batch() = default;
  open_batch(const open_batch&) = delete;
  open_batch& operator=(const open_batch&) = delete;

  [[nodiscard]] virtual std::span<key_type* const> keys() const noexcept = 0;
  /// Returns: that key of the batch, or null. Throws: what hash and equality throw.
  [[nodiscard]] virtual key_type* find(const Key& key) const = 0;
  /// Ends the call of a key, unless it has ended. What moving the value throws fails the call.
  virtual void end_with(key_type& k, loaded<Value>& value) = 0;
  virtual void fail(key_type& k, std::exception_ptr why) = 0;
  /// Ends all calls that have not ended, with copies of a value.
  virtual void end_rest_with(const loaded<Value>& value, copy_function<Value> copy) = 0;
  [[nodiscard]] virtual bool wanted(const key_type& k) const noexcept = 0;
  [[nodiscard]] virtual bool forgotten(const key_type& k) const noexcept = 0;

 protected:
  ~open_batch() = default;
};

struct batch_maker;

}  // namespace detail

/// The keys that a bulk loader is to load: those that nobody else loads, each once, in the order in
/// which the caller mentioned them first. A key is *settled* by one of the members below. Then its
/// call ends at once: those who wait for it need not wait for the rest of the batch. To settle it
/// again does nothing.
///
///     flights.do_many(ids, [&](auto& missing) {
///       for (row& r : db.query("SELECT ... WHERE id IN (...)", missing)) missing.set(r.id, r);
///       missing.rest(row::none());  // the others do not exist
///     });
///
/// Thread safety: all members may be called at once from any thread, as long as the loader has not
/// returned. Lifetime: until the loader returns.
template <class Key, class Value>
class batch {
  using open = detail::open_batch<Key, Value>;
  using key_type = detail::bulk_key<Key, Value>;

 public:
  /// Over the keys.
  class iterator {
   public:
    using value_type = Key;                               ///< A key.
    using difference_type = std::ptrdiff_t;               ///< Of positions.
    using reference = const Key&;                         ///< The key is the call's own.
    using pointer = const Key*;                           ///< Likewise.
    using iterator_category = std::forward_iterator_tag;  ///< It has no way back.

    iterator() = default;
    /// Returns: the key.
    [[nodiscard]] const Key& operator*() const noexcept { return (*at_)->own.key; }
    /// Returns: where the key is.
    [[nodiscard]] const Key* operator->() const noexcept { return &(*at_)->own.key; }
    /// Goes on to the next key.
    iterator& operator++() noexcept {
      ++at_;
      return *this;
    }
    /// Goes on to the next key. Returns: the iterator as it was.
    iterator operator++(int) noexcept { return iterator(at_++); }
    /// Whether both show the same position.
    [[nodiscard]] bool operator==(const iterator&) const = default;

   private:
    friend class batch;
    explicit iterator(key_type* const* at) noexcept : at_(at) {}
    key_type* const* at_ = nullptr;
  };
  using const_iterator = iterator;  ///< The keys cannot be changed.
  using value_type = Key;           ///< A key.

  batch(const batch&) = delete;
  batch& operator=(const batch&) = delete;

  /// Returns: how many keys there are, settled or not: at least one.
  [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }
  /// Precondition: `i < size()`, as for the members below. Lifetime: of the batch.
  [[nodiscard]] const Key& operator[](std::size_t i) const noexcept { return at(i).own.key; }
  /// Returns: the first key.
  [[nodiscard]] iterator begin() const noexcept { return iterator(keys_.data()); }
  /// Returns: behind the last key.
  [[nodiscard]] iterator end() const noexcept { return iterator(keys_.data() + keys_.size()); }

  /// Settles a key with its value. What moving the value throws, all who wait for the key get.
  /// Complexity: one lock.
  void set_at(std::size_t i, detail::loaded<Value> value) requires(!std::is_void_v<Value>) {
    all_.end_with(at(i), value);
  }
  /// The same where `Value` is `void`.
  void set_at(std::size_t i) requires std::is_void_v<Value> {
    detail::loaded<Value> done;
    all_.end_with(at(i), done);
  }

  /// Settles a key with its value. Returns: whether it is one of these keys; if not, the value is
  /// dropped. Throws: what hash and equality throw. Complexity: one hash, one lock.
  ///
  /// `key` is a `Key` or converts to one without loss. A number beyond the range of an integer `Key`
  /// is none of these keys.
  template <class K = Key>
  bool set(const K& key, detail::loaded<Value> value) requires(!std::is_void_v<Value>) {
    key_type* const found = find(key);
    if (found != nullptr) all_.end_with(*found, value);
    return found != nullptr;
  }
  /// The same where `Value` is `void`.
  template <class K = Key>
  bool set(const K& key) requires std::is_void_v<Value> {
    detail::loaded<Value> done;
    key_type* const found = find(key);
    if (found != nullptr) all_.end_with(*found, done);
    return found != nullptr;
  }

  /// Settles a key with an exception, which all who wait for it get. The other keys do not notice.
  /// Precondition: `why` is not null. Complexity: as `set_at`, as `set`.
  void fail_at(std::size_t i, std::exception_ptr why) { all_.fail(at(i), checked(std::move(why))); }
  /// As above, by key. Returns: false, with no effect, if the batch does not have the key.
  template <class K = Key>
  bool fail(const K& key, std::exception_ptr why) {
    key_type* const found = find(key);
    if (found != nullptr) all_.fail(*found, checked(std::move(why)));
    return found != nullptr;
  }

  /// Settles all keys that are not settled yet with copies of one value: "the others do not exist".
  /// What a copy throws, those who wait for its key get. Complexity: one lock per shard.
  void rest(const detail::loaded<Value>& value) requires(!std::is_void_v<Value> &&
                                                         detail::copyable<Value>) {
    all_.end_rest_with(value, [](auto& to, const auto& from) { to.emplace(from); });
  }
  /// The same where `Value` is `void`.
  void rest() requires std::is_void_v<Value> {
    all_.end_rest_with({}, [](auto& to, const auto&) { to.emplace(); });
  }

  /// Returns: whether a caller still waits for the key: false once it is settled, and once all who
  ///   wanted it have left. Complexity: one lock.
  [[nodiscard]] bool wanted(std::size_t i) const noexcept { return all_.wanted(at(i)); }

  /// Returns: as `call_context::forgotten`, for this key. That of the context is true if this is
  ///   true of any key. Complexity: one lock.
  [[nodiscard]] bool forgotten(std::size_t i) const noexcept { return all_.forgotten(at(i)); }

 private:
  friend struct detail::batch_maker;

  explicit batch(open& all) noexcept : all_(all), keys_(all.keys()) {}

  [[nodiscard]] key_type& at(std::size_t i) const noexcept {
    SINGLEFLIGHT_ASSERT(i < keys_.size(), "a batch has no key of that number");
    return *keys_[i];
  }
  template <class K>
  [[nodiscard]] key_type* find(const K& key) const {
    using from = detail::number_of<K>;
    constexpr bool converts = std::is_convertible_v<const K&, Key>;
    if constexpr (std::same_as<K, Key>) {
      return all_.find(key);
    } else if constexpr (converts && std::integral<Key> && std::integral<from>) {
      return detail::is_in_range<Key, from>(key) ? all_.find(static_cast<Key>(key)) : nullptr;
    } else {
      constexpr bool without_loss = converts && detail::converts_without_loss<const K&, Key>();
      static_assert(without_loss,
                    "singleflight: the key that a bulk loader settles must convert to Key without "
                    "loss; convert it in sight of the reader");
      if constexpr (without_loss) return all_.find(key);
    }
  }
  [[nodiscard]] static std::exception_ptr checked(std::exception_ptr why) noexcept {
    SINGLEFLIGHT_ASSERT(why != nullptr, "a key must not fail with a null exception_ptr");
    return why;
  }

  open& all_;
  const std::span<key_type* const> keys_;
};

namespace detail {

struct batch_maker {
  template <class Key, class Value>
  [[nodiscard]] static batch<Key, Value> make(open_batch<Key, Value>& all) noexcept {
    return batch<Key, Value>(all);
  }
};

}  // namespace detail
}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_BATCH_HPP
