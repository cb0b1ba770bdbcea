/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A net function as people write it down, such as "queues=4,idle=sleep": what the driver's device
 * arguments and the options of programs that make functions have in common.
 *
 * Threads: any.
 */

#ifndef VFN_NET_ARGS_H
#define VFN_NET_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "vfn_net_function.h"

struct vfn_net_args {
	struct vfn_function_params function; /**< Without class_params: that is net. */
	struct vfn_net_params net;
	bool wiring_given;
};

/** An argument that is known. */
struct vfn_net_arg {
	const char *key;
	const char *values; /**< Which there are, for an error message. */
	/** False: it is none of its values. */
	bool (*parse)(const char *value, struct vfn_net_args *args);
	const char *none; /**< What is in force without it. */
	bool any_class;	  /**< Functions of other classes have it, too. */
};
extern const struct vfn_net_arg vfn_net_args_known[];
extern const unsigned int vfn_nb_net_args;

/** Without arguments. -EINVAL: the name is longer than VFN_NAME_SIZE - 1. */
int vfn_net_args_init(struct vfn_net_args *args, const char *name);

/** The same as vfn_net_args_check(), of those that any class has. */
int vfn_any_args_check(const struct vfn_function_params *function, char *why, size_t size);

/**
 * All are parsed: do they go together?
 *
 * @param why
 *   Gets the reason, which begins with the argument in quotes, if they do not.
 * @return
 *   0 or -EINVAL.
 */
int vfn_net_args_check(struct vfn_net_args *args, char *why, size_t size);

#endif /* VFN_NET_ARGS_H */
