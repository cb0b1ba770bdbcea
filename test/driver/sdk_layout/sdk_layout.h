/* SPDX-License-Identifier: BSD-3-Clause */

/* What sdk_layout.c hands to the comparison, once for our declarations and once for DPDK's. */

#ifndef SDK_LAYOUT_H
#define SDK_LAYOUT_H

#include <stddef.h>

struct sdk_layout_row {
	const char *what; /**< a structure, a field of one, or a constant */
	size_t offset;	  /**< of a field in bytes, 0 otherwise */
	size_t size;	  /**< in bytes, or the value of a constant */
};

struct sdk_layout {
	const char *headers;  /**< who declares */
	unsigned int version; /**< RTE_VERSION the headers were compiled as */
	size_t nb_rows;
	const struct sdk_layout_row *rows;
	const void *driver;	 /**< registered with RTE_PMD_REGISTER_VDEV */
	const char *const *name; /**< its name, filled in when it was registered */
};

extern const struct sdk_layout sdk_layout_ours;
extern const struct sdk_layout sdk_layout_real;

#endif /* SDK_LAYOUT_H */
