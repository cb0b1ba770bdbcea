/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a network device that is looped back makes of buffers (virtio 1.3, 5.1.6): what is sent on
 * a pair is received on it. The test's thread.
 */

#include "device.h"

#define ROOM 2048u

static uint8_t
byte_of(uint32_t number, uint32_t i)
{
	return (number * 31 + i * 7 + (i >> 8)) & 0xff;
}

void
frame_write(uint8_t *to, uint32_t number, uint32_t len)
{
	uint32_t i;

	memset(to, 0, HDR);
	for (i = 0; i < len - HDR; i++)
		to[HDR + i] = byte_of(number, i);
	to[HDR] = 0x02; /* to one station */
}

void
frame_post(struct dev *d, uint32_t number, uint32_t len)
{
	struct elem e = {.len = len};

	frame_write(mem_alloc(d, len, &e.at), number, len);
	ring_post(&d->tx, &e, 1, 1);
}

uint8_t *
buffer_post(struct dev *d, uint32_t len)
{
	struct elem e = {.len = len, .write = true};
	uint8_t *to = mem_alloc(d, len, &e.at);

	ring_post(&d->rx, &e, 1, 1);
	return to;
}

void
frame_loops(struct dev *d, uint32_t number)
{
	const uint32_t len = HDR + 60 + number % 1000;
	uint8_t *got = buffer_post(d, ROOM), sent[ROOM];

	ring_notify(&d->rx);
	frame_post(d, number, len);
	ring_notify(&d->tx);
	assert_int_equal(ring_wait(&d->rx), len);
	assert_int_equal(ring_wait(&d->tx), 0);
	frame_write(sent, number, len);
	sent[offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers)] = 1;
	assert_memory_equal(got, sent, len);
}

uint8_t
command(struct dev *d, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	struct elem e[2] = {{.len = 2 + len}, {.len = 1, .write = true}};
	uint8_t *in = mem_alloc(d, 2 + len, &e[0].at), *ack = mem_alloc(d, 1, &e[1].at);

	in[0] = class;
	in[1] = cmd;
	memcpy(in + 2, data, len);
	*ack = 0xff;
	ring_post(&d->ctrl, e, 2, 2);
	ring_notify(&d->ctrl);
	assert_int_equal(ring_wait(&d->ctrl), 1);
	return *ack;
}
