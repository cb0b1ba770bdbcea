/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * BAR 2 as memory: a file that a front-end maps, so that its guest rings a doorbell by a plain
 * store. Control.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "function.h"

/* The file, made on demand, or a negative errno value. */
int
vfn_doorbells_fd(struct vfn_function *fn)
{
	int fd = fn->doorbells_fd, ret;

	if (fd >= 0)
		return fd;
	fd = memfd_create("vfn-doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	/* Sealed: whoever has it could take the pages away under others who have mapped them. */
	if (ftruncate(fd, VFN_BAR2_SIZE) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	fn->doorbells_fd = fd;
	return fd;
}

/* The next guest gets a file that the last one has not mapped. */
void
vfn_doorbells_close(struct vfn_function *fn)
{
	if (fn->doorbells_fd >= 0)
		close(fn->doorbells_fd);
	fn->doorbells_fd = -1;
}

void
vfn_doorbells_read(const struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	if (fn->doorbells_fd < 0 || pread(fn->doorbells_fd, buf, len, offset) != (ssize_t)len)
		memset(buf, 0, len);
}

/* A register access is seen by those who have mapped the file. */
static void
store(const struct vfn_function *fn, uint64_t offset, const void *buf, size_t len)
{
	if (fn->doorbells_fd >= 0 && pwrite(fn->doorbells_fd, buf, len, offset) != (ssize_t)len)
		FN_LOG(ERR, fn, "cannot write to its doorbells");
}

/* A doorbell rings by being written, whatever the value (4.1.5.2). */
int
vfn_doorbells_write(struct vfn_function *fn, uint64_t offset, const void *buf, size_t len)
{
	uint64_t index = offset / VFN_NOTIFY_STEP;

	if (offset % VFN_NOTIFY_STEP != 0 || index >= fn->nb_queues || (len != 2 && len != 4))
		return -EINVAL;
	store(fn, offset, buf, len);
	vfn_work_wake(&fn->queue[index]);
	return 0;
}
