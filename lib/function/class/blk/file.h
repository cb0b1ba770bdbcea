/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the two halves of the back-end for files share. */

#ifndef VFN_BLK_FILE_H
#define VFN_BLK_FILE_H

#include <stdbool.h>
#include <stdint.h>

struct vfn_blk;

/* Bytes of zeroes to write from. */
#define VFN_BLK_ZEROES (64u * 1024)

struct vfn_blk_disk {
	int fd;
	uint32_t align;	    /* atomic: of bytes; 0: the page cache is used */
	uint32_t mem_align; /* of the memory they are in, then */
	bool is_device;
	bool is_locked;
	bool waits;	    /* the file system says that it can do without, and does not */
	bool is_memory;	    /* data is copied by who asks */
	bool no_zero_range; /* atomic: fallocate() cannot, found out by trying */
	bool no_punch;
	void *zeroes;
};

int vfn_blk_file_open(struct vfn_blk *blk);
void vfn_blk_file_close(struct vfn_blk *blk);
int vfn_blk_file_claim(struct vfn_blk *blk);
void vfn_blk_file_release(struct vfn_blk *blk);
int vfn_blk_file_resize(struct vfn_blk *blk, uint64_t size);

#endif /* VFN_BLK_FILE_H */
