/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Runs in a test guest: sends frames as fast as the interface takes them, "blast INTERFACE COUNT
 * SIZE [PAUSE]", to any station; after each burst it sleeps for so many microseconds. One thread.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BURST 32

int
main(int argc, char **argv)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_halen = ETH_ALEN};
	long count = argc > 3 ? atol(argv[2]) : 0, size = argc > 3 ? atol(argv[3]) : 0, sent = 0;
	long pause = argc > 4 ? atol(argv[4]) : 0;
	static unsigned char frame[1514];
	struct iovec iov = {.iov_base = frame, .iov_len = size};
	struct mmsghdr msg[BURST];
	int fd = socket(AF_PACKET, SOCK_RAW, 0), i, n;

	if (fd < 0 || size < 60 || size > (long)sizeof(frame)) {
		fprintf(stderr, "blast INTERFACE COUNT SIZE [PAUSE]\n");
		return 2;
	}
	to.sll_ifindex = if_nametoindex(argv[1]);
	memset(frame, 0xff, ETH_ALEN);
	frame[6] = 0x02;
	frame[12] = 0x88; /* for experiments: nobody answers */
	frame[13] = 0xb5;
	for (i = 0; i < BURST; i++)
		msg[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &to,
						  .msg_namelen = sizeof(to),
						  .msg_iov = &iov,
						  .msg_iovlen = 1}};
	while (sent < count) {
		n = sendmmsg(fd, msg, count - sent < BURST ? count - sent : BURST, 0);
		if (n < 0 && errno == ENOBUFS) {
			struct pollfd pfd = {.fd = fd, .events = POLLOUT};

			poll(&pfd, 1, 1);
			continue;
		}
		if (n < 0) {
			perror(argv[1]);
			return 1;
		}
		sent += n;
		if (pause > 0)
			usleep(pause);
	}
	return 0;
}
