/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Runs in a test guest: asks a DPDK process by its telemetry socket, "telemetry SOCKET COMMAND",
 * and prints the answer.
 */

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	static char text[16384];
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	ssize_t n = -1;

	if (argc != 3 || strlen(argv[1]) >= sizeof(un.sun_path))
		return 2;
	strcpy(un.sun_path, argv[1]);
	/* It says first what it is. */
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0 &&
		recv(fd, text, sizeof(text) - 1, 0) > 0 &&
		send(fd, argv[2], strlen(argv[2]), 0) > 0)
		n = recv(fd, text, sizeof(text) - 1, 0);
	if (n < 0) {
		perror(argv[1]);
		return 1;
	}
	text[n] = '\0';
	puts(text);
	return 0;
}
