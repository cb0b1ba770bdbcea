/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* File descriptors that are given to the function, and stay the giver's. Any thread. */

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fd.h"

int
vfn_fd_replace(int *fd, int with)
{
	int dup = -1;

	if (with >= 0) {
		dup = fcntl(with, F_DUPFD_CLOEXEC, 3);
		if (dup < 0)
			return -errno;
	}
	if (*fd >= 0)
		close(*fd);
	*fd = dup;
	return 0;
}
