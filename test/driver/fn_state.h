/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The state of a function as bytes, and guests whose function is exchanged. The test's thread. */

#ifndef FN_STATE_H
#define FN_STATE_H

#include <vfn_parts.h>

#include "fn_harness.h"

#define STATE_HEADER sizeof(struct vfn_parts_header)

struct blob {
	uint8_t data[VFN_PARTS_SIZE];
	uint32_t len;
};

/* Result of a command: 0 or an errno. */
int state_command(struct guest *g, enum vfn_parts_command what);
void blob_get(struct guest *g, struct blob *b);
int blob_put(struct guest *g, const struct blob *b, enum vfn_parts_command what);

bool blob_same(const struct blob *a, const struct blob *b);
/* The right header for whatever the parts are. */
void blob_seal(struct blob *b);
/* Header of the part with a type and a selector's first 16 bits; the value follows. */
uint8_t *blob_find(struct blob *b, uint16_t type, uint16_t selector);
void blob_append(struct blob *b, const struct vfn_part *part, const void *value);
void blob_cut(struct blob *b, uint8_t *at, size_t len);

/* Change a field v_ of a part's value. */
#define EDIT(b, type, selector, kind, field, value) \
	do { \
		uint8_t *part_ = blob_find(b, type, selector) + sizeof(struct vfn_part); \
		kind v_; \
		memcpy(&v_, part_, sizeof(v_)); \
		v_.field = (value); \
		memcpy(part_, &v_, sizeof(v_)); \
	} while (0)
#define EDIT_CFG(b, queue, field, value) \
	EDIT(b, VFN_PART_VQ_CFG, queue, struct vfn_part_vq_cfg, field, value)
#define EDIT_STATE(b, queue, field, value) \
	EDIT(b, VFN_PART_VQ_POSITION, queue, struct vfn_part_vq_position, field, value)

/* Frames first, first + 1, ...; received whole and in order. */
void numbered_send(struct guest *g, unsigned int queue, uint32_t first, unsigned int n);
void numbered_receive(struct guest *g, unsigned int queue, uint32_t first, unsigned int n);

/* A fresh function under the guest's memory; its rings stay as they are. */
void function_exchange(struct guest *g);
/* After its state was set. */
void function_go_on(struct guest *g);

#endif /* FN_STATE_H */
