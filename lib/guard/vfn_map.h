/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Mappings of our own of memory that others share: made from the file descriptor, guarded from
 * then on (vfn_guard.h), and kept as long as anybody here uses them. Others may map the same file,
 * and unmap it when they like, as librte_vhost does; nothing is ever read through those.
 *
 * Threads: any; one at a time for a mapping.
 */

#ifndef VFN_MAP_H
#define VFN_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A part of a file, mapped and guarded. */
struct vfn_map {
	uint32_t refs;
	bool lost;    /**< The file was cut off; set by a signal handler. */
	uint8_t *map; /**< Whole pages. */
	size_t map_len;
	uint8_t *host; /**< The part, in map. */
	uint64_t len;
	int fd;		 /**< Ours, of the file; -1: dropped. */
	uint64_t offset; /**< Of the part in it. */
};

/**
 * May the file be mapped? What a page fault in it costs has to be up to the kernel, not to a
 * process that may take as long as it likes.
 */
bool vfn_map_allowed(int fd);

/**
 * Map a part of a file, to be read and written.
 *
 * @param fd
 *   Stays the caller's; the mapping has a duplicate.
 * @param offset
 *   Of the part; it need not be a whole page.
 * @param len
 *   Bytes.
 * @return
 *   The mapping, with one user; or NULL and errno: EINVAL if there is no such part, ENODATA if the
 *   file ends before, EACCES if it is none that may be mapped, or why it cannot be.
 */
struct vfn_map *vfn_map_fd(int fd, uint64_t offset, uint64_t len);

/** The same, to be read only: the descriptor may be one that is. */
struct vfn_map *vfn_map_fd_read(int fd, uint64_t offset, uint64_t len);

/** The descriptor is not needed any more. */
void vfn_map_drop_fd(struct vfn_map *map);

/** Another user of it; NULL stays NULL. */
struct vfn_map *vfn_map_get(struct vfn_map *map);

/** One user less; the last one unmaps it. NULL: nothing. */
void vfn_map_put(struct vfn_map *map);

/** Was it replaced by zeroes, since the file was cut off? */
bool vfn_map_lost(const struct vfn_map *map);

#endif /* VFN_MAP_H */
