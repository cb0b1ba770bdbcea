/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The driver's side of the control queue. The test's thread. */

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
