/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Runs in a test guest: makes two taps, as a hypervisor without vhost has them, and moves each
 * frame from one to the other, until SIGTERM: "tapwire NAME NAME". One thread.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BURST 64

static int
tap(const char *name)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK), header = 12;

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 ||
		ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) <
			0) {
		perror(name);
		return -1;
	}
	return fd;
}

int
main(int argc, char **argv)
{
	static char frame[70000];
	struct pollfd pfd[2];
	int i, n;

	for (i = 0; i < 2 && argc == 3; i++) {
		pfd[i] = (struct pollfd){.fd = tap(argv[1 + i]), .events = POLLIN};
		if (pfd[i].fd < 0)
			return 1;
	}
	if (argc != 3)
		return 2;
	puts("ready");
	fflush(stdout);
	while (poll(pfd, 2, -1) > 0 || errno == EINTR) {
		for (i = 0; i < 2; i++) {
			for (n = 0; n < BURST && pfd[i].revents != 0; n++) {
				ssize_t len = read(pfd[i].fd, frame, sizeof(frame));

				if (len <= 0)
					break;
				if (write(pfd[!i].fd, frame, len) < 0 && errno != EAGAIN &&
					errno != EIO)
					return 1;
			}
		}
	}
	return 0;
}
