/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The driver's side of the control queue. The test's thread. */

#include <vfn_parts.h>

#include "fn_harness.h"

int
command_post(struct guest *g, unsigned int queue, const void *cmd, uint32_t len, uint32_t step,
	uint32_t ack_len)
{
	struct mock_driver *d = &g->q[queue].drv;
	struct mock_buf buf[16] = {0};
	unsigned int n = 0;
	uint32_t done;
	int id;

	for (done = 0; done < len; done += buf[n++].len)
		buf[n].len = len - done < step ? len - done : step;
	if (ack_len > 0)
		buf[n++] = (struct mock_buf){.len = ack_len, .write = true};
	id = mock_post(
		d, buf, n, g->features & BIT(VIRTIO_RING_F_INDIRECT_DESC) ? MOCK_INDIRECT : 0, 0);
	assert_true(id >= 0);
	assert_true(mock_mem_write(&g->mem, mock_buf_addr(d, id, 0), cmd, len));
	/* neither OK nor ERR */
	assert_true(mock_mem_write(&g->mem, mock_buf_addr(d, id, len), "\x5a\x5a\x5a\x5a", 4));
	mock_publish(d);
	queue_kick(g, queue);
	return id;
}

uint8_t
command_on(struct guest *g, unsigned int queue, const void *cmd, uint32_t len)
{
	int id = command_post(g, queue, cmd, len, 2, 1);
	struct mock_used used;
	uint8_t ack[2];

	assert_true(used_try(g, queue, &used, PATIENCE_MS));
	assert_int_equal(used.id, id);
	assert_int_equal(used.len, 1);
	assert_true(mock_mem_read(&g->mem, mock_buf_addr(&g->q[queue].drv, id, len), ack, 2));
	assert_int_equal(ack[1], 0x5a);
	return ack[0];
}

void
guest_use_pairs(struct guest *g, uint16_t pairs)
{
	const uint8_t cmd[] = {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, pairs, 0};

	/* Without a control queue all that are enabled are. */
	if (!(g->features & BIT(VIRTIO_NET_F_CTRL_VQ)))
		return;
	assert_int_equal(command_on(g, 2 * g->conf.pairs, cmd, sizeof(cmd)), VIRTIO_NET_OK);
	assert_int_equal(pairs_in_use(g), pairs);
}

uint16_t
pairs_in_use(struct guest *g)
{
	static uint8_t parts[VFN_PARTS_SIZE];
	const uint8_t *at = parts + sizeof(struct vfn_parts_header), *value;
	size_t left = VFN_PARTS_SIZE;
	struct vfn_part part;
	uint16_t pairs = 0;

	VSET(g, parts_control, VFN_PARTS_GET);
	left = VGET(g, parts_len) - sizeof(struct vfn_parts_header);
	assert_int_equal(g->link->ops->read(g->link, g->vendor.bar, VGET(g, parts_offset), parts,
				 VGET(g, parts_len)),
		0);
	while ((value = vfn_parts_next(&at, &left, &part)) != NULL)
		if (part.type == VFN_PART_NET_CVQ && part.selector.cvq.class == VIRTIO_NET_CTRL_MQ)
			memcpy(&pairs, value, sizeof(pairs));
	return pairs;
}
