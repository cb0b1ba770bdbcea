/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The shapes of hostile.h. The test's thread. */

#include "hostile.h"

#define MOST 32768u

/* What lies in the memory beside the heap. */
#define SEND	(FREE_AT)	      /* a header of zeroes, and what follows */
#define RECEIVE (FREE_AT + (1 << 20)) /* buffers, all the same */
#define TABLE	(FREE_AT + (4 << 20)) /* indirect */
#define MEMORY	(8 << 20)

static uint8_t *memory; /* of the guest that is laid out */

static void
desc_set(struct vring_desc *d, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	*d = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

/* Every descriptor is a chain of its own. */
static void
lay_singles(struct mock_driver *d, uint64_t addr, uint32_t len, uint16_t flags)
{
	uint32_t i;

	for (i = 0; i < d->cfg.size; i++) {
		desc_set(&d->desc[i], addr, len, flags, 0);
		d->avail_ring->ring[i] = i;
	}
}

/* Every chain is the one that begins at head. */
static void
lay_head(struct mock_driver *d, uint16_t head)
{
	uint32_t i;

	for (i = 0; i < d->cfg.size; i++)
		d->avail_ring->ring[i] = head;
}

/* One chain of n descriptors, in order, or not. */
static uint16_t
lay_chain(struct vring_desc *desc, uint32_t n, uint64_t addr, uint32_t len, uint16_t flags,
	bool shuffled)
{
	static uint16_t order[MOST];
	uint64_t seed = 5;
	uint32_t i;

	for (i = 0; i < n; i++)
		order[i] = i;
	for (i = n - 1; shuffled && i > 0; i--) {
		uint32_t k = mock_random(&seed) % (i + 1);
		uint16_t was = order[i];

		order[i] = order[k];
		order[k] = was;
	}
	for (i = 0; i < n; i++)
		desc_set(&desc[order[i]], addr, len, flags | (i + 1 < n ? VRING_DESC_F_NEXT : 0),
			i + 1 < n ? order[i + 1] : 0);
	return order[0];
}

static void
lay_receive(struct guest *g, uint32_t len)
{
	lay_singles(&g->q[0].drv, RECEIVE, len, VRING_DESC_F_WRITE);
}

static void
small(struct guest *g)
{
	lay_singles(&g->q[1].drv, SEND, HDR_LEN + 64, 0);
	lay_receive(g, 2048);
}

static void
large(struct guest *g)
{
	lay_singles(&g->q[1].drv, SEND, HDR_LEN + 64000, 0);
	lay_receive(g, 65536);
}

static void
checksums(struct guest *g)
{
	struct virtio_net_hdr *hdr = (struct virtio_net_hdr *)memory;

	large(g);
	*hdr = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
}

static void
pieces(struct guest *g)
{
	struct mock_driver *d = &g->q[1].drv;

	lay_head(d, lay_chain(d->desc, 250, SEND, 256, 0, true));
	lay_receive(g, 65536);
}

static void
circle_of(struct guest *g, uint32_t len)
{
	struct mock_driver *d = &g->q[1].drv;
	uint32_t i;

	lay_singles(d, SEND, len, VRING_DESC_F_NEXT);
	for (i = 0; i < d->cfg.size; i++)
		d->desc[i].next = (i + 1) % d->cfg.size;
}

static void
circle(struct guest *g)
{
	circle_of(g, 8);
}

static void
circle_of_nothing(struct guest *g)
{
	circle_of(g, 0);
}

static void
long_chain(struct guest *g)
{
	struct mock_driver *d = &g->q[1].drv;

	lay_head(d, lay_chain(d->desc, MOST, SEND, 2, 0, false));
}

static void
long_shuffled_chain(struct guest *g)
{
	struct mock_driver *d = &g->q[1].drv;

	lay_head(d, lay_chain(d->desc, MOST, SEND, 2, 0, true));
	lay_receive(g, 4096);
}

static void
long_table(struct guest *g)
{
	struct vring_desc *table = (struct vring_desc *)(memory + (TABLE - FREE_AT));

	lay_chain(table, MOST, SEND, 2, 0, false);
	lay_singles(&g->q[1].drv, TABLE, MOST * sizeof(*table), VRING_DESC_F_INDIRECT);
}

/* Good up to the last one. */
static void
late_error(struct guest *g)
{
	struct mock_driver *d = &g->q[1].drv;

	lay_head(d, lay_chain(d->desc, 500, SEND, 8, 0, false));
	desc_set(&d->desc[499], SEND, 8, VRING_DESC_F_NEXT, UINT16_MAX);
}

static void
unmapped(struct guest *g)
{
	lay_singles(&g->q[1].drv, 0x10, 1514, 0);
}

static void
outside(struct guest *g)
{
	struct mock_driver *d = &g->q[1].drv;
	uint32_t i;

	/* every other piece in another region, and the error at the end */
	lay_head(d, lay_chain(d->desc, 200, SEND, 8, 0, false));
	for (i = 0; i < 200; i += 2)
		d->desc[i].addr = HEAP_AT;
	d->desc[199].addr = 0x10;
}

static void
tiny_buffers(struct guest *g)
{
	lay_singles(&g->q[1].drv, SEND, HDR_LEN + 64000, 0);
	lay_receive(g, HDR_LEN);
}

static void
bad_buffers(struct guest *g)
{
	uint32_t i;

	large(g);
	lay_receive(g, 2048);
	for (i = 1; i < g->q[0].drv.cfg.size; i += 2)
		g->q[0].drv.desc[i].flags = 0;
}

static void
long_buffers(struct guest *g)
{
	struct mock_driver *d = &g->q[0].drv;

	small(g);
	lay_head(d, lay_chain(d->desc, MOST, RECEIVE, 2, VRING_DESC_F_WRITE, false));
}

static void
called(struct guest *g)
{
	small(g);
	mock_set_avail_flags(&g->q[0].drv, 0);
	mock_set_avail_flags(&g->q[1].drv, 0);
}

static void
commands(struct guest *g)
{
	int head = command_post(g, 2, "\0\0\1", 3, 3, 1);

	stat_wait(g, 2, VFN_STAT_PACKETS, 1);
	lay_head(&g->q[2].drv, head);
	small(g);
}

#define LOOP .wiring = VFN_WIRING_LOOPBACK
#define SINK .wiring = VFN_WIRING_SINK
#define MRG  .features = BIT(VIRTIO_NET_F_MRG_RXBUF)
#define BIG  .size = MOST, .buf_len = 64

const struct hostile hostiles[] = {
	{"frames of 64 bytes", {LOOP}, small, false, 32, VFN_STAT_PACKETS, 1},
	{"frames of 64,000 bytes", {LOOP}, large, false, 192 << 10, VFN_STAT_BYTES, 1},
	{"the same in 250 shuffled pieces", {LOOP}, pieces, false, 192 << 10, VFN_STAT_BYTES, 1},
	{"checksums of 64,000 bytes", {LOOP, .features = BIT(VIRTIO_NET_F_CSUM)}, checksums, false,
		1, VFN_STAT_PACKETS, 1},
	{"circles of 32,768", {SINK, BIG}, circle, false, 1, VFN_STAT_ERRORS_LOOP, 1},
	{"circles of nothing", {SINK, BIG}, circle_of_nothing, false, 1, VFN_STAT_ERRORS_LOOP, 1},
	{"chains of 32,768", {SINK, BIG}, long_chain, false, 1, VFN_STAT_PACKETS, 1},
	{"the same shuffled", {SINK, BIG}, long_shuffled_chain, false, 1, VFN_STAT_PACKETS, 1},
	{"the same, into buffers", {LOOP, BIG, MRG}, long_shuffled_chain, false, 0,
		VFN_STAT_PACKETS, 1},
	{"tables of 32,768", {SINK, BIG, .features = BIT(VIRTIO_RING_F_INDIRECT_DESC)}, long_table,
		false, 1, VFN_STAT_PACKETS, 1},
	{"chains of 500 with an error", {SINK, BIG}, late_error, false, 2, VFN_STAT_ERRORS_NEXT, 1},
	{"unmapped buffers", {SINK}, unmapped, false, 32, VFN_STAT_ERRORS_ADDR, 1},
	{"chains over two regions", {SINK}, outside, false, 3, VFN_STAT_ERRORS_ADDR, 1},
	{"receive buffers of 12 bytes", {LOOP, BIG, MRG}, tiny_buffers, false, 4,
		VFN_STAT_DROPPED_SIZE, 1},
	{"every other one read-only", {LOOP, BIG, MRG}, bad_buffers, false, 192 << 10,
		VFN_STAT_BYTES, 1},
	{"receive chains of 32,768", {LOOP, BIG}, long_buffers, false, 2, VFN_STAT_PACKETS, 1},
	{"no receive buffers", {LOOP}, small, true, 32, VFN_STAT_PACKETS, 1},
	{"a generator for such of 12 bytes", {.wiring = VFN_WIRING_GEN, .gen = 64000, BIG, MRG},
		tiny_buffers, false, 1, VFN_STAT_DROPPED_SIZE, 0},
	{"calls for every burst", {LOOP}, called, false, 32, VFN_STAT_PACKETS, 1},
	{"a rate of 1 Mbit/s", {LOOP, .rate_mbps = 1}, small, false, 32, VFN_STAT_PACKETS, 1},
	{"commands without end",
		{LOOP, .size = 1024,
			.features = BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX)},
		commands, false, 0, VFN_STAT_PACKETS, 1},
};
const unsigned int nb_hostiles = DIM(hostiles);

static struct guest *
lay_open(struct guest_conf conf, const unsigned int *cpu, void (*lay)(struct guest *))
{
	struct guest *g;

	if (cpu != NULL) {
		conf.nb_cpus = 1;
		conf.cpu[0] = *cpu;
	}
	g = guest_open(&conf);

	memory = guest_map(g, FREE_AT, MEMORY, VRINGH_PERM_RW);
	memset(memory, 0, MEMORY);
	lay(g);
	return g;
}

struct guest *
hostile_open(const struct hostile *h, const unsigned int *cpu)
{
	struct guest_conf conf = h->conf;

	conf.name = "hostile";
	return lay_open(conf, cpu, h->lay);
}

static void
pump(struct mock_driver *d)
{
	uint16_t used = __atomic_load_n(&d->used_ring->idx, __ATOMIC_ACQUIRE);

	__atomic_store_n(&d->avail_ring->idx, (uint16_t)(used + d->cfg.size), __ATOMIC_RELEASE);
}

void
hostile_pump(struct guest *g, const struct hostile *h)
{
	if (!h->stands)
		pump(&g->q[0].drv);
	/* A generator's guest is one queue here. */
	if (h->conf.wiring != VFN_WIRING_GEN)
		pump(&g->q[1].drv);
	if (g->features & BIT(VIRTIO_NET_F_CTRL_VQ))
		pump(&g->q[2].drv);
}

struct guest *
honest_open(const char *name, uint32_t len, const unsigned int *cpu)
{
	struct guest *g = lay_open((struct guest_conf){.name = name, LOOP}, cpu, small);
	uint32_t i;

	for (i = 0; i < g->q[1].drv.cfg.size; i++)
		g->q[1].drv.desc[i].len = HDR_LEN + len;
	return g;
}

void
honest_pump(struct guest *g)
{
	pump(&g->q[0].drv);
	pump(&g->q[1].drv);
}
