/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A block function as people write it down, such as "file=/srv/a.img,queues=4": what is of this
 * class alone.
 *
 * Threads: any.
 */

#ifndef VFN_BLK_ARGS_H
#define VFN_BLK_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "vfn_blk_function.h"

/** An argument that is known. */
struct vfn_blk_arg {
	const char *key;
	const char *values; /**< Which there are, for an error message. */
	/** False: it is none of its values. */
	bool (*parse)(const char *value, struct vfn_blk_params *blk);
	const char *none; /**< What is in force without it. */
};
extern const struct vfn_blk_arg vfn_blk_args_known[];
extern const unsigned int vfn_nb_blk_args;

/** Without arguments. */
void vfn_blk_args_init(struct vfn_blk_params *blk);

/**
 * All are parsed: do they go together?
 *
 * @param why
 *   Gets the reason, which begins with the argument in quotes, if they do not.
 * @return
 *   0 or -EINVAL.
 */
int vfn_blk_args_check(const struct vfn_blk_params *blk, char *why, size_t size);

#endif /* VFN_BLK_ARGS_H */
