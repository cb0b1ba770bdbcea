/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A regular file or a block device: opened, locked, measured. Control. Requests are in
 * backend_uring.c.
 */

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/magic.h>

#include "blk.h"
#include "file.h"

/* Ten milliseconds each. */
#define LOCK_TRIES 50

#define PATH_LOG(blk, fmt, ...) \
	FN_LOG(ERR, &(blk)->fn, "file=%s: " fmt, (blk)->params.path, ##__VA_ARGS__)

static int
measure(const struct vfn_blk_disk *disk, uint64_t *size)
{
	struct stat st;

	if (disk->is_device)
		return ioctl(disk->fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
	if (fstat(disk->fd, &st) < 0)
		return -errno;
	*size = st.st_size;
	return 0;
}

/*
 * Nobody else has it open for writing, nor for reading if we write. Not even we ourselves. 0,
 * -EBUSY, or another error that is in the log.
 */
static int
lock(struct vfn_blk *blk, struct vfn_blk_disk *disk)
{
	struct flock whole = {
		.l_type = blk->params.read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	int ret;

	if (blk->params.share)
		return 0;
	disk->is_locked = fcntl(disk->fd, F_OFD_SETLK, &whole) == 0;
	if (disk->is_locked)
		return 0;
	ret = -errno;
	if (ret == -EAGAIN || ret == -EACCES)
		return -EBUSY;
	PATH_LOG(blk, "cannot lock it: %s", strerror(-ret));
	return ret;
}

/* A process that was killed keeps it a moment longer, until the kernel has ended its I/O. */
static int
lock_wait(struct vfn_blk *blk, struct vfn_blk_disk *disk)
{
	const struct timespec nap = {.tv_nsec = 10 * 1000000};
	unsigned int tries;
	int ret = lock(blk, disk);

	for (tries = 0; tries < LOCK_TRIES && ret == -EBUSY; tries++) {
		nanosleep(&nap, NULL);
		ret = lock(blk, disk);
	}
	if (ret == -EBUSY)
		PATH_LOG(blk, "it is in use: another function or process has locked it%s",
			blk->params.later ?
				", and has to let go of it before a guest has the disk" :
				"");
	return ret;
}

/*
 * The alignment of what is read and written around the page cache; none if that cannot be, or needs
 * more than blocks have. A file system that does not tell (Linux 6.1 on) is tried, though where a
 * file has a hole it may take anything: see data_ended().
 */
static void
find_alignment(struct vfn_blk_disk *disk, uint32_t block_size)
{
	struct statx stx;
	uint32_t align;
	void *p;

	if (statx(disk->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
		stx.stx_mask & STATX_DIOALIGN) {
		if (stx.stx_dio_offset_align <= block_size) {
			disk->align = stx.stx_dio_offset_align;
			disk->mem_align = stx.stx_dio_mem_align;
		}
		return;
	}
	if (posix_memalign(&p, 65536, 65536) != 0)
		return;
	for (align = 1; align <= block_size && disk->align == 0;
		align = align == 1 ? VFN_BLK_SECTOR : 2 * align)
		if (pread(disk->fd, (uint8_t *)p + align % 65536, align, 0) >= 0)
			disk->align = disk->mem_align = align;
	free(p);
}

/* Only of one that is locked: what a killed process has out there may not end. */
static int
go_around_cache(struct vfn_blk *blk, struct vfn_blk_disk *disk)
{
	int flags = fcntl(disk->fd, F_GETFL), ret = 0;

	if (fcntl(disk->fd, F_SETFL, flags | O_DIRECT) == 0)
		find_alignment(disk, blk->block_size);
	if (disk->align == 0 && fcntl(disk->fd, F_SETFL, flags & ~O_DIRECT) < 0) {
		ret = -errno;
		PATH_LOG(blk, "%s", strerror(-ret));
	}
	return ret;
}

static int
open_path(struct vfn_blk *blk, struct vfn_blk_disk *disk)
{
	int flags = (blk->params.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	struct statfs fs;
	struct stat st;
	int sector, ret;

	disk->fd = open(blk->params.path, flags | O_NONBLOCK);
	if (disk->fd < 0 || fstat(disk->fd, &st) < 0) {
		ret = -errno;
		PATH_LOG(blk, "%s", strerror(-ret));
		return ret;
	}
	disk->is_device = S_ISBLK(st.st_mode);
	/* A server in user space is waited for however it is asked (Linux 6.18); it may not tell.
	 */
	if (fstatfs(disk->fd, &fs) < 0)
		fs.f_type = FUSE_SUPER_MAGIC;
	disk->waits = fs.f_type == FUSE_SUPER_MAGIC;
	/* This one says that it cannot do without, but it copies; io_uring believes O_NONBLOCK. */
	disk->is_memory = fs.f_type == TMPFS_MAGIC && !disk->is_device;
	fcntl(disk->fd, F_SETFL, disk->is_memory ? O_NONBLOCK : 0);
	if (!S_ISREG(st.st_mode) && !disk->is_device) {
		PATH_LOG(blk, "it is neither a regular file nor a block device");
		return -EINVAL;
	}
	if (blk->params.block_size == 0 && disk->is_device &&
		ioctl(disk->fd, BLKSSZGET, &sector) == 0)
		blk->block_size = sector;
	ret = lock_wait(blk, disk);
	if (ret == -EBUSY && blk->params.later)
		return 0;
	return ret == 0 ? go_around_cache(blk, disk) : ret;
}

static int
file_size(struct vfn_blk *blk, const struct vfn_blk_disk *disk, uint64_t *size)
{
	int ret = measure(disk, size);

	if (ret < 0) {
		PATH_LOG(blk, "%s", strerror(-ret));
		return ret;
	}
	if (*size < blk->block_size || *size % blk->block_size != 0) {
		PATH_LOG(blk, "its size, %" PRIu64 " bytes, is %s %u", *size,
			*size < blk->block_size ? "less than a block," :
						  "not a multiple of the block size,",
			blk->block_size);
		return -EINVAL;
	}
	return 0;
}

int
vfn_blk_file_open(struct vfn_blk *blk)
{
	struct vfn_blk_disk *disk = calloc(1, sizeof(*disk));
	int ret;

	if (disk == NULL)
		return -ENOMEM;
	disk->fd = -1;
	ret = open_path(blk, disk);
	if (ret == 0)
		ret = file_size(blk, disk, &blk->capacity);
	if (ret == 0 && posix_memalign(&disk->zeroes, 4096, VFN_BLK_ZEROES) != 0)
		ret = -ENOMEM;
	if (ret < 0) {
		if (disk->fd >= 0)
			close(disk->fd);
		free(disk);
		return ret;
	}
	memset(disk->zeroes, 0, VFN_BLK_ZEROES);
	blk->end = disk;
	FN_LOG(DEBUG, &blk->fn, "file=%s: %" PRIu64 " bytes, %s", blk->params.path, blk->capacity,
		disk->align != 0 ? "around the page cache" : "by the page cache");
	return 0;
}

void
vfn_blk_file_release(struct vfn_blk *blk)
{
	struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	struct vfn_blk_disk *disk = blk->end;

	fcntl(disk->fd, F_OFD_SETLK, &whole);
	disk->is_locked = false;
}

/* Whoever had it meanwhile may have changed its size. */
int
vfn_blk_file_claim(struct vfn_blk *blk)
{
	struct vfn_blk_disk *disk = blk->end;
	int ret;

	if (disk->is_locked || blk->params.share)
		return 0;
	ret = lock(blk, disk);
	if (ret == 0)
		ret = go_around_cache(blk, disk);
	return ret == 0 ? vfn_blk_file_resize(blk, 0) : ret;
}

void
vfn_blk_file_close(struct vfn_blk *blk)
{
	struct vfn_blk_disk *disk = blk->end;

	/* The kernel lets go of what rings knew of it at leisure, and so of a lock. */
	vfn_blk_file_release(blk);
	close(disk->fd);
	free(disk->zeroes);
	free(disk);
}

/* A file grows if it has to; what lies behind the disk's end stays. */
int
vfn_blk_file_resize(struct vfn_blk *blk, uint64_t size)
{
	struct vfn_blk_disk *disk = blk->end;
	uint64_t now;
	int ret = measure(disk, &now);

	if (ret == 0 && size > now) {
		if (disk->is_device || blk->params.read_only)
			return -ENOTSUP;
		ret = ftruncate(disk->fd, size) < 0 ? -errno : 0;
	}
	if (ret < 0)
		return ret;
	size = size != 0 ? size : now;
	size -= size % blk->block_size;
	if (size == 0)
		return -EINVAL;
	blk->capacity = size;
	return 0;
}
