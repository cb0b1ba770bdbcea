/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* States as bytes, and functions that are exchanged. The test's thread. */

#include "fn_state.h"

static struct frame f, got;

/* ---- the window ---- */

static struct place
state_window(struct guest *g)
{
	return (struct place){g->vendor.bar, VGET(g, parts_offset), VGET(g, parts_size)};
}

int
state_command(struct guest *g, enum vfn_parts_command what)
{
	VSET(g, parts_control, what);
	return VGET(g, parts_control);
}

void
blob_get(struct guest *g, struct blob *b)
{
	struct place w = state_window(g);

	assert_int_equal(state_command(g, VFN_PARTS_GET), 0);
	b->len = VGET(g, parts_len);
	assert_in_range(b->len, STATE_HEADER, w.length);
	assert_int_equal(g->link->ops->read(g->link, w.bar, w.offset, b->data, b->len), 0);
}

int
blob_put(struct guest *g, const struct blob *b, enum vfn_parts_command what)
{
	struct place w = state_window(g);

	assert_int_equal(g->link->ops->write(g->link, w.bar, w.offset, b->data, b->len), 0);
	VSET(g, parts_len, b->len);
	return state_command(g, what);
}

bool
blob_same(const struct blob *a, const struct blob *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

void
blob_seal(struct blob *b)
{
	struct vfn_parts_header h = {.magic = VFN_PARTS_MAGIC,
		.version = VFN_PARTS_VERSION,
		.length = b->len - STATE_HEADER,
		.checksum = vfn_parts_checksum(b->data + STATE_HEADER, b->len - STATE_HEADER)};

	memcpy(b->data, &h, sizeof(h));
}

uint8_t *
blob_find(struct blob *b, uint16_t type, uint16_t selector)
{
	const uint8_t *at = b->data + STATE_HEADER;
	size_t left = b->len - STATE_HEADER;
	struct vfn_part part;

	for (;;) {
		uint8_t *begin = b->data + (at - b->data);

		if (vfn_parts_next(&at, &left, &part) == NULL) {
			fail_msg("no part 0x%x/%u", type, selector);
			return NULL;
		}
		if (part.type == type && part.selector.queue == selector)
			return begin;
	}
}

void
blob_append(struct blob *b, const struct vfn_part *part, const void *value)
{
	assert_true(b->len + sizeof(*part) + part->length <= sizeof(b->data));
	memcpy(b->data + b->len, part, sizeof(*part));
	memcpy(b->data + b->len + sizeof(*part), value, part->length);
	b->len += sizeof(*part) + part->length;
}

void
blob_cut(struct blob *b, uint8_t *at, size_t len)
{
	memmove(at, at + len, b->data + b->len - (at + len));
	b->len -= len;
}

/* ---- a guest whose function is exchanged ---- */

void
numbered_send(struct guest *g, unsigned int queue, uint32_t first, unsigned int n)
{
	for (; n > 0; n--, first++) {
		frame_make(&f, first, 60 + first % 900);
		assert_true(tx_post(g, queue, &f, NULL, 0) >= 0);
	}
	mock_publish(&g->q[queue].drv);
	queue_kick(g, queue);
}

void
numbered_receive(struct guest *g, unsigned int queue, uint32_t first, unsigned int n)
{
	for (; n > 0; n--, first++) {
		frame_make(&f, first, 60 + first % 900);
		rx_wait(g, queue, &got);
		frames_equal(&got, &f);
	}
}

void
function_exchange(struct guest *g)
{
	static unsigned int number;
	struct guest_conf conf = {.pairs = g->conf.pairs};
	char name[16];
	struct vfn_dma_map map = {
		.iova = HEAP_AT, .len = g->heap_end - HEAP_AT, .readable = true, .writable = true};
	unsigned int i;

	g->link->ops->close(g->link);
	snprintf(name, sizeof(name), "next%u", number++);
	conf.name = name;
	assert_int_equal(function_open(&conf, &g->fn, &g->link), 0);
	guest_master_on(g);
	guest_msix_on(g);
	map.host = mock_mem_at(&g->mem, map.iova, map.len);
	map.fd = mock_mem_fd(&g->mem, map.iova, &map.offset);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
	for (i = 0; i < g->nb_queues; i++) {
		g->link->ops->set_irq(g->link, i + 1, g->q[i].call);
		g->link->ops->set_doorbell(g->link, i, g->q[i].kick);
	}
}

void
function_go_on(struct guest *g)
{
	guest_driver_ok(g);
	VSET(g, suspend, 0);
}
