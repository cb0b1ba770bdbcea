/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A descriptor whose close waits.
 */

#ifndef LINGERING_H
#define LINGERING_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_S 100

/* close() of it waits for a peer that does not read: whoever closes it last. */
static inline int
lingering_socket(int *peer)
{
	struct linger linger = {1, LINGER_S};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	static char junk[1 << 16];
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

	assert_int_equal(bind(listener, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(listener, 1), 0);
	getsockname(listener, (struct sockaddr *)&in, &len);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	*peer = accept(listener, NULL, NULL);
	close(listener);
	while (send(fd, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	return fd;
}

#endif /* LINGERING_H */
