/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Writing and taking device parts, for parts.c, parts_set.c and the classes. Control. */

#ifndef VFN_PARTS_WRITER_H
#define VFN_PARTS_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfn_parts.h"

struct vfn_function;

struct vfn_parts_writer {
	uint8_t *at;
	size_t left;
	bool full;
};

void vfn_part_put(
	struct vfn_parts_writer *w, struct vfn_part part, const void *value, uint32_t length);

/* Fields of the common configuration that no other part has: where each is in the registers. */
struct vfn_common_field {
	uint16_t offset, len, at;
};
extern const struct vfn_common_field vfn_common_fields[];
extern const unsigned int vfn_nb_common_fields;

/* Take the parts in the window; check: only say whether they could be. 0 or a negative errno. */
int vfn_parts_set(struct vfn_function *fn, bool check);

#endif /* VFN_PARTS_WRITER_H */
