/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Mappings of our own of what librte_vhost has mapped, and unmaps when it likes. */

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_common.h>

#include "vfn_drv.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* kernels before 5.14 refuse it: EINVAL */
#endif

/*
 * Map shared memory that is mapped already once more: *map and *map_len are for munmap(). Returns
 * what is at `at` there; NULL and errno, which is ENODATA if the file ends before.
 */
void *
vfn_map_again(uint64_t at, uint64_t len, uint8_t **map, size_t *map_len)
{
	const size_t page = sysconf(_SC_PAGESIZE), offset = at % page;
	size_t size = RTE_ALIGN_CEIL(offset + len, page);
	/* An old size of 0 makes a copy of a shared mapping. */
	uint8_t *copy = mremap((void *)(uintptr_t)(at - offset), 0, size, MREMAP_MAYMOVE);

	if (copy == MAP_FAILED)
		return NULL;
	/* Touching what is behind the file's end would be a bus error. */
	if (madvise(copy + size - page, page, MADV_POPULATE_WRITE) < 0 && errno == EFAULT) {
		munmap(copy, size);
		errno = ENODATA;
		return NULL;
	}
	*map = copy;
	*map_len = size;
	return copy + offset;
}
