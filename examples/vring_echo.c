/* SPDX-License-Identifier: BSD-3-Clause
 *
 * An echo device on libvring, without EAL, sockets or a guest. A split virtqueue lies in memory of
 * this process; main() plays the driver in a few lines, and device() is what a device does: set up
 * regions and batches, fetch, copy, complete, and deal with each answer that a fetch can give.
 *
 *	cc -o vring_echo vring_echo.c $(pkg-config --cflags --libs libvring)
 *
 * Linked with any number of regions and both formats, device() would look the same.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vringh.h>

#define SIZE  8	 /* entries of the ring */
#define BURST 32 /* chains at a time */

/* What the device sees as bus addresses 0x10000 and up: rings, then buffers. */
#define RING_AT	  0x10000
#define BUFFER_AT 0x40000
#define BUFFER	  64

static _Alignas(4096) uint8_t ring_memory[4096], buffers[2 * SIZE * BUFFER];

/* Where the driver puts the three areas (2.7): descriptors, available ring, used ring. */
#define DRIVER_AREA (SIZE * sizeof(struct vring_desc))
#define DEVICE_AREA 1024

static struct vringh_region regions[] = {
	{.iova = RING_AT, .len = sizeof(ring_memory), .host = ring_memory, .perm = VRINGH_PERM_RW},
	{.iova = BUFFER_AT, .len = sizeof(buffers), .host = buffers, .perm = VRINGH_PERM_RW},
};

/* Answer what is there. The number of chains, or -1 if the queue is broken. */
static int
device(struct vringh *vr, struct vringh_batch *batch)
{
	char text[BUFFER];
	int n, i;

	batch->nb_chains = batch->nb_segs = 0;
	n = vringh_fetch(vr, batch, BURST);
	if (n < 0) { /* nothing was fetched, and nothing is until the next vringh_init() */
		printf("broken: %s\n", vringh_strerror(n));
		return -1;
	}
	for (i = 0; i < n; i++) {
		struct vringh_chain *chain = &batch->chain[i];
		struct vringh_iter in = vringh_iter_read(vr, chain);
		struct vringh_iter out = vringh_iter_write(vr, chain);
		size_t len;

		if (chain->error != VRINGH_OK) { /* it has no bytes, and is completed all the same */
			printf("chain %u: %s\n", chain->id, vringh_strerror(chain->error));
			continue;
		}
		len = vringh_pull(&in, text, sizeof(text));
		chain->written = vringh_push(&out, text, len);
	}
	if (n > 0) {
		vringh_complete(vr, batch->chain, n);
		if (vringh_need_notify(vr))
			puts("a real device would write to the call eventfd here");
	}
	return n;
}

/* The driver: one chain of a buffer to read and one to write. */
static void
post(const char *text, uint64_t addr)
{
	struct vring_desc *desc = (struct vring_desc *)ring_memory;
	struct vring_avail *avail = (struct vring_avail *)(ring_memory + DRIVER_AREA);
	uint16_t head = avail->idx % (SIZE / 2) * 2;

	strcpy((char *)buffers + head * BUFFER, text);
	desc[head] = (struct vring_desc){
		.addr = addr, .len = strlen(text) + 1, .flags = VRING_DESC_F_NEXT, .next = head + 1};
	desc[head + 1] = (struct vring_desc){.addr = BUFFER_AT + (head + 1) * BUFFER,
		.len = BUFFER,
		.flags = VRING_DESC_F_WRITE};
	avail->ring[avail->idx % SIZE] = head;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_RELEASE);
}

int
main(void)
{
	struct vringh_mem mem = {.kind = VRINGH_MEM_REGION, .table = regions, .nb_regions = 2};
	struct vringh_config config = {
		.size = SIZE,
		.desc = RING_AT,
		.driver = RING_AT + DRIVER_AREA,
		.device = RING_AT + DEVICE_AREA,
		.mem = &mem,
	};
	/* Room for the chains of a burst, and for one that is as long as the ring. */
	struct vringh_chain chains[BURST];
	struct vringh_seg segs[BURST + SIZE];
	struct vringh_batch batch = {
		.chain = chains, .seg = segs, .max_chains = BURST, .max_segs = BURST + SIZE};
	struct vring_avail *avail = (struct vring_avail *)(ring_memory + DRIVER_AREA);
	struct vring_used *used = (struct vring_used *)(ring_memory + DEVICE_AREA);
	struct vringh *vr = aligned_alloc(_Alignof(struct vringh), sizeof(*vr));
	int error;

	if (vr == NULL)
		return 1;
	error = vringh_init(vr, &config);
	if (error < 0) {
		printf("refused: %s\n", vringh_strerror(error));
		return 1;
	}
	post("hello", BUFFER_AT);
	post("ring", BUFFER_AT + 2 * BUFFER);
	if (device(vr, &batch) != 2 || used->idx != 2)
		return 1;
	printf("%s %s\n", (char *)buffers + BUFFER, (char *)buffers + 3 * BUFFER);

	post("nowhere", 0xdead0000); /* a bad chain: this one only */
	if (device(vr, &batch) != 1 || used->ring[2].len != 0)
		return 1;

	avail->idx += SIZE + 1; /* more than the ring has: the queue */
	if (device(vr, &batch) >= 0 || vringh_broken(vr) == VRINGH_OK)
		return 1;
	free(vr);
	return 0;
}
