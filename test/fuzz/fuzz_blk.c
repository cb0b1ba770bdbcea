/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Requests of the block class over memory, beside a model of the disk that is written from the
 * specification alone: every status, every byte read, and in the end every byte of the disk. The
 * class's files are linked without the rest of the function, whose place is taken here. A program
 * of its own, and a target of libFuzzer. One thread.
 */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>

#include "class/blk/blk.h"
#include "mock_driver.h"

#define DISK	 (1u << 20)
#define SECTORS	 (DISK / 512)
#define RING	 8
#define ROOM	 0x2a000u /* of a chain: more than a turn moves */
#define BUFS_AT	 0x100000
#define RING_AT	 0x10000
#define UNMAPPED 0x7000000

/* An input is a head and steps; every value of every field means something. */
struct head {
	uint8_t flags; /* packed, event index, indirect, FLUSH, DISCARD, WRITE_ZEROES, read-only,
			  in order */
	uint8_t block; /* size */
};

struct step {
	uint8_t what; /* requests, but for one in four */
	uint8_t type;
	uint8_t layout;
	uint8_t odd; /* one bit each for what a right driver does not do */
	uint16_t sector;
	uint16_t len;
	uint32_t seed;
	uint32_t value;
};

/* What a request has to become. */
struct expected {
	int status; /* -1: none */
	uint32_t read_len, in_len;
	uint8_t *in; /* NULL: no matter */
};

static struct vfn_blk blk;
static struct vfn_blk_queue bq;
static struct vfn_queue queue;
static struct mock_driver drv;
static struct mock_mem mem;
static struct expected expected[RING];
static uint8_t model[DISK], out[ROOM];
static struct vringh_chain chains[64];
static struct vringh_seg segs[1024];
static struct vringh_batch batch = {
	.chain = chains, .seg = segs, .max_chains = 64, .max_segs = 1024, .max_descs = 512};

/* ---- in place of the rest of the function ---- */

int vfn_logtype;

struct vringh_batch *
vfn_poller_batch(struct vfn_poller *poller, unsigned int direction)
{
	(void)poller;
	(void)direction;
	batch.nb_chains = batch.nb_segs = 0;
	return &batch;
}

void
vfn_queue_call(struct vfn_queue *q)
{
	(void)q;
}

void
vfn_queue_broken(struct vfn_queue *q)
{
	fprintf(stderr, "broken: %s\n", vringh_strerror(vringh_broken(&q->vr)));
	abort();
}

/* Nothing is translated. */
int
vfn_fetch_slow(struct vfn_queue *q, struct vringh_batch *to, unsigned int max)
{
	return vringh_fetch(&q->vr, to, max);
}

void
vfn_lock(struct vfn_function *fn)
{
	(void)fn;
}

void
vfn_unlock(struct vfn_function *fn)
{
	(void)fn;
}

bool
vfn_queue_active(const struct vfn_queue *q)
{
	(void)q;
	return true;
}

/* ---- ---- */

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "blk: line %d: does not hold: %s\n", __LINE__, \
				#condition); \
			abort(); \
		} \
	} while (0)

static uint64_t
next(uint64_t *state)
{
	*state += UINT64_C(0x9e3779b97f4a7c15);
	return (*state ^ *state >> 31) * UINT64_C(0xbf58476d1ce4e5b9) >> 17;
}

static bool
in_disk(uint64_t sector, uint64_t len)
{
	return sector <= SECTORS && len <= DISK - sector * 512;
}

/* Carried out on the model. Returns the status. */
static int
model_ranges(const struct head *h, uint32_t type, uint32_t len)
{
	struct virtio_blk_discard_write_zeroes r;
	uint32_t i, n = len / sizeof(r);

	if (len % sizeof(r) != 0 || n == 0 || n > 16)
		return 1;
	for (i = 0; i < n; i++) {
		memcpy(&r, out + 16 + i * sizeof(r), sizeof(r));
		if (r.flags > 1 || (r.flags == 1 && type == VIRTIO_BLK_T_DISCARD))
			return 2;
		if (r.num_sectors > (1u << 31) / 512)
			return 1;
		if (r.sector % (blk.block_size / 512) || r.num_sectors % (blk.block_size / 512))
			return 1;
		if (r.sector > SECTORS || r.num_sectors > SECTORS - r.sector)
			return 1;
	}
	(void)h;
	for (i = 0; i < n; i++) {
		memcpy(&r, out + 16 + i * sizeof(r), sizeof(r));
		memset(model + r.sector * 512, 0, r.num_sectors * 512);
	}
	return 0;
}

static void
model_request(const struct head *h, const struct virtio_blk_outhdr *hdr, uint32_t read_len,
	uint32_t write_len, bool bad, struct expected *e)
{
	bool offered = hdr->type == VIRTIO_BLK_T_IN || hdr->type == VIRTIO_BLK_T_OUT ||
		hdr->type == VIRTIO_BLK_T_FLUSH || hdr->type == VIRTIO_BLK_T_GET_ID ||
		(hdr->type == VIRTIO_BLK_T_DISCARD && (h->flags & 0x10)) ||
		(hdr->type == VIRTIO_BLK_T_WRITE_ZEROES && (h->flags & 0x20));
	uint32_t data = read_len - 16;

	*e = (struct expected){.read_len = read_len, .in_len = write_len - 1};
	if (bad || write_len == 0)
		e->status = -1;
	else if (read_len < 16)
		e->status = 1;
	else if (!offered)
		e->status = 2;
	else if (hdr->type == VIRTIO_BLK_T_IN) {
		if (data > 0 || e->in_len % blk.block_size ||
			hdr->sector % (blk.block_size / 512) || !in_disk(hdr->sector, e->in_len)) {
			e->status = 1;
			return;
		}
		e->in = malloc(e->in_len + 1);
		memcpy(e->in, model + hdr->sector * 512, e->in_len);
	} else if (hdr->type == VIRTIO_BLK_T_GET_ID) {
		e->in = calloc(1, e->in_len + 1);
		memset(e->in, 0xee, e->in_len);
		memcpy(e->in, "abcdefghijklmnopqrst", e->in_len < 20 ? e->in_len : 20);
	} else if (hdr->type == VIRTIO_BLK_T_FLUSH) {
		e->status = 0;
	} else if ((h->flags & 0x40) || write_len > 1) {
		e->status = 1;
	} else if (hdr->type == VIRTIO_BLK_T_OUT) {
		if (data % blk.block_size || hdr->sector % (blk.block_size / 512) ||
			!in_disk(hdr->sector, data))
			e->status = 1;
		else
			memcpy(model + hdr->sector * 512, out + 16, data);
	} else {
		e->status = model_ranges(h, hdr->type, data);
	}
}

static unsigned int
pieces(struct mock_buf *buf, unsigned int most, uint32_t len, bool write, uint64_t *seed)
{
	unsigned int n = 0;

	while (len > 0) {
		uint64_t r = next(seed);
		uint32_t take = r % 3 == 0 ? 1 + r / 8 % 4 : r % 3 == 1 ? 1 + r / 8 % 4096 : len;

		if (n + 1 == most || take > len)
			take = len;
		buf[n++] = (struct mock_buf){.len = take, .write = write};
		len -= take;
	}
	return n;
}

static void
step_request(const struct head *h, const struct step *s)
{
	static const uint32_t types[] = {0, 1, 0, 1, 0, 1, 4, 8, 11, 13, 13, 11, 14, 2, 0x80000001};
	struct virtio_blk_outhdr hdr = {.sector = s->sector % (SECTORS + 2)};
	uint32_t block = blk.block_size, read_len = 16, write_len = 1, i;
	uint64_t seed = s->seed, at;
	struct mock_buf buf[64];
	bool indirect, bad;
	unsigned int n;
	int id;

	hdr.type = types[s->type % RTE_DIM(types)];
	if (!(s->odd & 1))
		hdr.sector -= hdr.sector % (block / 512);
	if ((s->odd & 6) == 6)
		hdr.sector = UINT64_MAX - s->sector;
	if (hdr.type == VIRTIO_BLK_T_IN)
		write_len += (s->odd & 8 ? s->len * 3u % 0x28000 : s->len % 40u * block) % 0x28000;
	else if (hdr.type == VIRTIO_BLK_T_OUT)
		read_len += (s->odd & 8 ? s->len * 3u % 0x28000 : s->len % 40u * block) % 0x28000;
	else if (hdr.type == VIRTIO_BLK_T_GET_ID)
		write_len += s->len % 24;
	else if (hdr.type == VIRTIO_BLK_T_DISCARD || hdr.type == VIRTIO_BLK_T_WRITE_ZEROES)
		read_len += s->odd & 8 ? s->len % 320 : s->len % 18u * 16;
	if ((s->odd & 0x30) == 0x30)
		read_len = s->len % 20;
	if ((s->odd & 0x50) == 0x50)
		write_len = s->seed % 3 == 0 ? 0 : write_len + 1;
	for (i = 16; i < read_len; i += 8) {
		uint64_t v = next(&seed);

		memcpy(out + i, &v, 8);
	}
	if (hdr.type != VIRTIO_BLK_T_OUT)
		for (i = 16; i + 16 <= read_len; i += 16) {
			struct virtio_blk_discard_write_zeroes r;

			memcpy(&r, out + i, sizeof(r));
			r.sector %= SECTORS;
			r.num_sectors %= 64;
			r.flags = r.flags % 16 < 14 ? 0 : r.flags % 4;
			if (!(s->odd & 1)) {
				r.sector -= r.sector % (block / 512);
				r.num_sectors -= r.num_sectors % (block / 512);
			}
			if (s->odd & 2 && r.num_sectors == 7)
				r.sector = s->value * UINT64_C(0x100000001);
			memcpy(out + i, &r, sizeof(r));
		}
	memcpy(out, &hdr, sizeof(hdr));
	n = pieces(buf, 8 + s->layout % 8, read_len, false, &seed);
	n += pieces(buf + n, 1 + s->layout / 8 % 12, write_len, true, &seed);
	if (n == 0)
		return;
	indirect = h->flags & 4 && s->layout & 1;
	/* no table is longer than the queue (2.7.5.3.1) */
	bad = (s->odd & 0x90) == 0x90 || (indirect && n > RING);
	if ((s->odd & 0x90) == 0x90) {
		buf[n - 1].fixed = true;
		buf[n - 1].iova = UNMAPPED;
	}
	id = mock_post(&drv, buf, n, indirect ? MOCK_INDIRECT : 0, 0);
	if (id < 0)
		return;
	at = mock_buf_addr(&drv, id, 0);
	CHECK(mock_mem_write(&mem, at, out, read_len));
	memset(mock_mem_at(&mem, at + read_len, write_len + 1), 0xee, write_len + 1);
	model_request(h, &hdr, read_len, write_len, bad, &expected[id]);
	mock_publish(&drv);
}

static void
collect(void)
{
	struct mock_used used;
	int n;

	while ((n = mock_collect(&drv, &used, 1)) != 0) {
		struct expected *e = &expected[used.id];
		const uint8_t *in;

		if (n < 0)
			fprintf(stderr, "%s\n", drv.fault);
		CHECK(n > 0);
		if (e->status < 0) {
			CHECK(used.len == 0);
			continue;
		}
		CHECK(used.len == e->in_len + 1);
		in = mock_mem_at(
			&mem, mock_buf_addr(&drv, used.id, 0) + e->read_len, e->in_len + 1);
		if (in[e->in_len] != e->status)
			fprintf(stderr, "status %u, not %d\n", in[e->in_len], e->status);
		CHECK(in[e->in_len] == e->status);
		if (e->in != NULL)
			CHECK(memcmp(in, e->in, e->in_len) == 0);
		free(e->in);
		e->in = NULL;
	}
}

static void
disk_open(const struct head *h)
{
	struct mock_config cfg = {
		.packed = h->flags & 1,
		.event_idx = h->flags & 2,
		.in_order = h->flags & 0x80,
		.size = RING,
		.desc = RING_AT,
		.driver = RING_AT + 0x1000,
		.device = RING_AT + 0x2000,
		.bufs = BUFS_AT,
		.buf_len = ROOM,
		.tables = RING_AT + 0x3000,
		.table_entries = 64,
		.start.used = h->flags & 1 ? 0x8000 : 0,
	};
	unsigned int i;

	memset(&mem, 0, sizeof(mem));
	CHECK(mock_mem_add(&mem, RING_AT, 0x10000, VRINGH_PERM_RW) != NULL);
	CHECK(mock_mem_add(&mem, BUFS_AT, RING * ROOM, VRINGH_PERM_RW) != NULL);
	CHECK(mock_init(&drv, &mem, &cfg));
	memset(&blk, 0, sizeof(blk));
	memset(&queue, 0, sizeof(queue));
	blk.params = (struct vfn_blk_params){.backend = &vfn_blk_mem,
		.size = DISK,
		.queues = 1,
		.read_only = h->flags & 0x40,
		.serial = "abcdefghijklmnopqrst"};
	blk.block_size = 512u << h->block % 4;
	blk.fn.regs.driver_features = FEATURE(VIRTIO_F_VERSION_1) |
		(h->flags & 8 ? FEATURE(VIRTIO_BLK_F_FLUSH) : 0) |
		(h->flags & 0x10 ? FEATURE(VIRTIO_BLK_F_DISCARD) : 0) |
		(h->flags & 0x20 ? FEATURE(VIRTIO_BLK_F_WRITE_ZEROES) : 0);
	queue.fn = &blk.fn;
	free(bq.slot);
	memset(&bq, 0, sizeof(bq));
	bq.blk = &blk;
	bq.q = &queue;
	bq.hz = rte_reciprocal_value_u64(1000000000);
	bq.work = (struct vfn_work){.ops = &vfn_blk_ops, .fn = &blk.fn, .queue = &queue};
	bq.slot = calloc(VFN_BLK_SLOTS, sizeof(*bq.slot));
	for (i = 0; i < VFN_BLK_SLOTS; i++)
		bq.free[bq.nb_free++] = i;
	CHECK(vfn_blk_mem.open(&blk) == 0);
	CHECK(vfn_blk_mem.queue_open(&bq) == 0);
	CHECK(vringh_init(&queue.vr,
		      &(struct vringh_config){.packed = h->flags & 1,
			      .event_idx = h->flags & 2,
			      .indirect = h->flags & 4,
			      .in_order = h->flags & 0x80,
			      .size = RING,
			      .desc = cfg.desc,
			      .driver = cfg.driver,
			      .device = cfg.device,
			      .mem = mock_mem_view(&mem),
			      .state = h->flags & 1 ? VRINGH_PACKED_START :
						      (struct vringh_state){0}}) == 0);
	memset(model, 0, sizeof(model));
	memset(expected, 0, sizeof(expected));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int i, steps;
	struct head h;

	if (size < sizeof(h))
		return 0;
	memcpy(&h, data, sizeof(h));
	steps = (size - sizeof(h)) / sizeof(struct step);
	disk_open(&h);
	for (i = 0; i < steps && i < 128; i++) {
		struct step s;

		memcpy(&s, data + sizeof(h) + i * sizeof(s), sizeof(s));
		if (s.what % 4 != 3)
			step_request(&h, &s);
		else if (s.what % 32 == 31)
			CHECK(vfn_blk_queue_drain(&bq, rte_rdtsc() + (UINT64_C(1) << 40)));
		else
			bq.work.ops->run(&bq.work);
		collect();
	}
	for (i = 0; drv.nb_busy > 0; i++) {
		bq.work.ops->run(&bq.work);
		collect();
		CHECK(i < 10000);
	}
	CHECK(bq.nb_free == VFN_BLK_SLOTS && bq.nb_out == 0);
	for (i = 0; i < DISK; i += ROOM - 16) {
		/* by the disk's own face, as nobody reaches into it here */
		struct vfn_blk_req *r = &bq.slot[0];
		uint32_t len = DISK - i < ROOM - 16 ? DISK - i : ROOM - 16;
		struct vringh_seg seg = {.addr = out, .len = len};

		memset(r, 0, sizeof(*r));
		r->type = VIRTIO_BLK_T_IN;
		r->offset = i;
		r->len = len;
		r->status = VIRTIO_BLK_S_OK;
		r->data = (struct vringh_iter){.seg = &seg, .nb_segs = 1};
		bq.nb_out = 1;
		if (vfn_blk_mem.submit(&bq, r) == VFN_BLK_OUT) {
			/* more than a turn: the second half comes in another */
			r->chain = (struct vringh_chain){.error = VRINGH_E_ADDR};
			while (bq.nb_out > 0) {
				r->chain.seg = &seg;
				r->chain.nb_write = 1;
				r->chain.write_len = len;
				vfn_blk_mem.poll(&bq);
				if (bq.nb_done > 0)
					break;
			}
			bq.nb_done = 0;
		}
		bq.nb_out = 0;
		/* the status has overwritten the last byte */
		CHECK(memcmp(out, model + i, len - 1) == 0);
	}
	vfn_blk_mem.queue_close(&bq);
	vfn_blk_mem.close(&blk);
	mock_free(&drv);
	mock_mem_free(&mem);
	for (i = 0; i < RING; i++)
		free(expected[i].in);
	return 0;
}

#ifndef FUZZ_LIBFUZZER

#define NB_SEEDS 32
#define STEPS	 48
#define SEED_LEN (sizeof(struct head) + STEPS * sizeof(struct step))
static uint8_t seeds[NB_SEEDS][SEED_LEN];

/* Right requests, in all kinds of rings. */
static void
make_seeds(void)
{
	uint64_t state = 1;
	unsigned int i, k;

	for (i = 0; i < NB_SEEDS; i++) {
		seeds[i][0] = (i & 7) | 0x38 | (i & 8) << 4;
		seeds[i][1] = i / 16;
		for (k = 0; k < STEPS; k++) {
			struct step s = {.what = next(&state),
				.type = next(&state) % 12,
				.layout = next(&state),
				.sector = next(&state),
				.len = next(&state),
				.seed = next(&state)};

			memcpy(&seeds[i][sizeof(struct head) + k * sizeof(s)], &s, sizeof(s));
		}
	}
}

static void
run_file(const char *path)
{
	static uint8_t input[65536];
	FILE *in = fopen(path, "rb");
	size_t n;

	if (in == NULL) {
		perror(path);
		exit(1);
	}
	n = fread(input, 1, sizeof(input), in);
	fclose(in);
	LLVMFuzzerTestOneInput(input, n);
}

static unsigned int
run_path(const char *path)
{
	struct dirent **list;
	int i, n = scandir(path, &list, NULL, alphasort);
	unsigned int done = 0;
	char name[4096];

	if (n < 0) {
		run_file(path);
		return 1;
	}
	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, list[i]->d_name);
		if (list[i]->d_name[0] != '.') {
			run_file(name);
			done++;
		}
		free(list[i]);
	}
	free(list);
	return done;
}

/* replay_blk --write-seeds DIRECTORY | [--executions N] [FILE | DIRECTORY]... */
int
main(int argc, char **argv)
{
	unsigned int executions = 2000, given = 0, i, k;
	uint8_t now[SEED_LEN];
	uint64_t state = 1;
	char path[4096];
	int a;

	make_seeds();
	for (a = 1; a < argc; a++) {
		if (strcmp(argv[a], "--write-seeds") == 0 && a + 1 < argc) {
			for (i = 0; i < NB_SEEDS; i++) {
				FILE *to;

				snprintf(path, sizeof(path), "%s/%u", argv[a + 1], i);
				to = fopen(path, "wb");
				if (to == NULL || fwrite(seeds[i], 1, SEED_LEN, to) != SEED_LEN ||
					fclose(to) != 0) {
					perror(path);
					return 1;
				}
			}
			return 0;
		}
		if (strcmp(argv[a], "--executions") == 0 && a + 1 < argc)
			executions = atoi(argv[++a]);
		else
			given += run_path(argv[a]);
	}
	for (i = 0; i < NB_SEEDS; i++)
		LLVMFuzzerTestOneInput(seeds[i], SEED_LEN);
	for (i = 0; i < executions; i++) {
		memcpy(now, seeds[next(&state) % NB_SEEDS], SEED_LEN);
		for (k = next(&state) % 24; k < 24; k++)
			now[next(&state) % SEED_LEN] ^= next(&state);
		LLVMFuzzerTestOneInput(now, SEED_LEN);
	}
	printf("blk: %u inputs given, %u seeds, %u mutations\n", given, NB_SEEDS, executions);
	return 0;
}

#endif /* FUZZ_LIBFUZZER */
