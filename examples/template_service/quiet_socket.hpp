// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_QUIET_SOCKET_HPP
#define TEMPLATE_SERVICE_QUIET_SOCKET_HPP

#include <poll.h>

namespace template_service {

/// Returns: whether nothing has happened on an idle connection. A server that sends something without
/// a request has closed it.
inline bool is_quiet(int socket) noexcept {
  pollfd events{.fd = socket, .events = POLLIN, .revents = 0};
  return poll(&events, 1, 0) == 0;
}

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_QUIET_SOCKET_HPP
