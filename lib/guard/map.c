/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Mappings of what others share: made from the file descriptor, and guarded from then on. */

#include "vfn_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "vfn_guard.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

bool
vfn_map_allowed(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type != FUSE_SUPER_MAGIC;
}

/* Mappings of a file begin and end at multiples of this. */
static uint64_t
page_size(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		return fs.f_bsize;
	return sysconf(_SC_PAGESIZE);
}

static struct vfn_map *
map_fd(int fd, uint64_t offset, uint64_t len, int prot)
{
	struct vfn_map *map;
	uint64_t page, from, to;
	struct stat st;
	void *at;
	int err;

	if (fstat(fd, &st) < 0)
		return NULL;
	page = page_size(fd);
	from = offset & ~(page - 1);
	to = offset + len + page - 1;
	errno = len == 0 || offset + len < len || to < len || to > INT64_MAX ? EINVAL :
		S_ISREG(st.st_mode) && (uint64_t)st.st_size < offset + len   ? ENODATA :
		!vfn_map_allowed(fd)					     ? EACCES :
									       0;
	if (errno != 0)
		return NULL;
	to &= ~(page - 1);
	map = calloc(1, sizeof(*map));
	if (map == NULL)
		return NULL;
	at = mmap(NULL, to - from, prot, MAP_SHARED, fd, from);
	if (at == MAP_FAILED) {
		err = errno;
		free(map);
		errno = err;
		return NULL;
	}
	*map = (struct vfn_map){.refs = 1,
		.map = at,
		.map_len = to - from,
		.host = (uint8_t *)at + (offset - from),
		.len = len,
		.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0),
		.offset = offset};
	err = map->fd < 0 ? errno : -vfn_guard_add(map->map, map->map_len, &map->lost);
	if (err != 0) {
		if (map->fd >= 0)
			close(map->fd);
		munmap(map->map, map->map_len);
		free(map);
		errno = err;
		return NULL;
	}
	return map;
}

struct vfn_map *
vfn_map_fd(int fd, uint64_t offset, uint64_t len)
{
	return map_fd(fd, offset, len, PROT_READ | PROT_WRITE);
}

struct vfn_map *
vfn_map_fd_read(int fd, uint64_t offset, uint64_t len)
{
	return map_fd(fd, offset, len, PROT_READ);
}

void
vfn_map_drop_fd(struct vfn_map *map)
{
	if (map->fd >= 0)
		close(map->fd);
	map->fd = -1;
}

struct vfn_map *
vfn_map_get(struct vfn_map *map)
{
	if (map != NULL)
		map->refs++;
	return map;
}

void
vfn_map_put(struct vfn_map *map)
{
	if (map == NULL || --map->refs > 0)
		return;
	if (map->map != NULL) {
		vfn_guard_remove(map->map, &map->lost);
		munmap(map->map, map->map_len);
	}
	if (map->fd >= 0)
		close(map->fd);
	free(map);
}

bool
vfn_map_lost(const struct vfn_map *map)
{
	return __atomic_load_n(&map->lost, __ATOMIC_ACQUIRE);
}
