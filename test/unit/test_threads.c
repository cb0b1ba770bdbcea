/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A driver thread and a device thread that share nothing but the ring and two eventfds. Both
 * sleep when there is nothing to do, so a lost notification stops the traffic and fails the
 * test: doc/concurrency.md. Under ThreadSanitizer, numbers in the buffers are plain accesses
 * that only the ring's release and acquire put in order, which shows those that x86 hides.
 */

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

/* All indices go round; small rings sleep for every few chains. */
#ifdef NB_CHAINS
#elif defined(__SANITIZE_THREAD__)
#define NB_CHAINS 10000
#else
#define NB_CHAINS 30000
#endif
#define NB_CHAINS_SMALL (NB_CHAINS / 10 + 2048)
#define PATIENCE	10000 /* ms without a notification */

struct pair {
	struct queue *q;
	int kick, call;
	uint32_t nb_chains;
	bool stop;
	char device_fault[128];
	char driver_fault[160];
	uint64_t nb_kicks, nb_calls, nb_device_sleeps, nb_driver_sleeps;
};

static bool
sleep_on(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t count;

	return poll(&p, 1, PATIENCE) == 1 && read(fd, &count, sizeof(count)) == sizeof(count);
}

static void
wake(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

/* What a chain with a number is made of, as far as the ring has room. */
static bool
is_read_only(uint32_t number)
{
	return number % 7 > 3;
}

static bool
has_number(const struct queue *q, uint32_t number)
{
	return is_read_only(number) || q->v.size > 1;
}

static bool
serve_one(struct pair *p, struct vringh_chain *chain, uint32_t number, uint32_t follow)
{
	struct vringh *vr = &p->q->vr;
	struct vringh_iter r = vringh_iter_read(vr, chain), w = vringh_iter_write(vr, chain);
	uint32_t v[2] = {number};

	if (chain->error != VRINGH_OK || (has_number(p->q, number) && vringh_pull(&r, v, 4) != 4) ||
		v[0] != number) {
		snprintf(p->device_fault, sizeof(p->device_fault), "chain %u: '%s', number %u",
			number, vringh_strerror(chain->error), v[0]);
		return false;
	}
	v[0] = ~v[0];
	v[1] = follow;
	/* 8, or 0 of the chains that are only to be read */
	chain->written = vringh_push(&w, v, sizeof(v));
	return true;
}

/*
 * What the traffic is like, in turns: the ring full; bursts of which all come back before the
 * next; one chain at a time, and the driver does not sleep while the device arms itself at any
 * moment; and the other way round. The last two hit the few instructions in which a missing
 * barrier loses a notification.
 */
enum lap { FULL, BURSTS, DEVICE_ARMS, DRIVER_ARMS, NB_LAPS };

static enum lap
lap_of(uint32_t number)
{
	return number / 512 % NB_LAPS;
}

/* How often to look before sleeping. */
static uint32_t
looks(uint64_t *seed, bool patient)
{
	return patient ? 1 << 14 : mock_random(seed) % (1 << mock_random(seed) % 12);
}

static bool
device_wait(struct pair *p, uint32_t seen, uint64_t *seed)
{
	struct vringh *vr = &p->q->vr;
	uint32_t i;

	for (i = looks(seed, lap_of(seen) == DRIVER_ARMS); i > 0; i--)
		if (vringh_pending(vr))
			return true;
	if (!vringh_notify_enable(vr)) {
		p->nb_device_sleeps++;
		if (!sleep_on(p->kick))
			return false;
	}
	vringh_notify_disable(vr);
	return true;
}

/* Reads a number from each chain, writes its complement and how many follow in its batch. */
static void *
device(void *arg)
{
	struct pair *p = arg;
	struct vringh *vr = &p->q->vr;
	struct vringh_batch *batch = &p->q->batch;
	uint64_t seed = 1;
	uint32_t seen = 0;

	vringh_notify_disable(vr);
	while (seen < p->nb_chains && !__atomic_load_n(&p->stop, __ATOMIC_RELAXED)) {
		int i, n;

		batch->nb_chains = batch->nb_segs = 0;
		n = vringh_fetch(vr, batch, 1 + seen % 40);
		if (n < 0) {
			snprintf(
				p->device_fault, sizeof(p->device_fault), "%s", vringh_strerror(n));
			break;
		}
		if (n == 0) {
			if (device_wait(p, seen, &seed))
				continue;
			snprintf(
				p->device_fault, sizeof(p->device_fault), "no kick after %u", seen);
			break;
		}
		if (n > 1 && seen % 5 == 0) { /* to be fetched again */
			vringh_discard(vr, &batch->chain[n / 2], n - n / 2);
			n /= 2;
		}
		for (i = 0; i < n; i++)
			if (!serve_one(p, &batch->chain[i], seen++, n - i - 1))
				return NULL;
		vringh_complete(vr, batch->chain, n);
		if (vringh_need_notify(vr)) {
			p->nb_calls++;
			wake(p->call);
		}
	}
	return NULL;
}

/* What came back of one batch: in order, right, and the batch all at once. */
static bool
driver_check(struct pair *p, const struct mock_used *used, int n, uint32_t *back, uint32_t *left)
{
	struct mock_driver *d = &p->q->drv;
	int i;

	if (n < 0 || (n == 0 && *left > 0)) {
		snprintf(p->driver_fault, sizeof(p->driver_fault), "%s: %s",
			n < 0 ? "fault" : "batch seen in part", d->fault);
		return false;
	}
	for (i = 0; i < n; i++) {
		uint32_t at = has_number(p->q, *back) ? 4 : 0, v[2];

		if (is_read_only(*back) && used[i].token == *back && used[i].len == 0) {
			*left -= *left > 0;
			(*back)++;
			continue;
		}
		memcpy(v, mock_mem_at(&p->q->mem, mock_buf_addr(d, used[i].id, at), 8), 8);
		if (used[i].token != *back || used[i].len != 8 || v[0] != ~*back ||
			is_read_only(*back) || (*left > 0 && v[1] != *left - 1)) {
			snprintf(p->driver_fault, sizeof(p->driver_fault),
				"chain %u: token %ju, len %u, %u, %u", *back,
				(uintmax_t)used[i].token, used[i].len, v[0], v[1]);
			return false;
		}
		*left = v[1];
		(*back)++;
	}
	return true;
}

/* As many buffers as fit; in a table where that is negotiated, now and then. */
static bool
driver_post(struct pair *p, uint32_t number)
{
	static const struct mock_buf three[] = {
		{.len = 4}, {.len = 3, .write = true}, {.len = 5, .write = true}};
	static const struct mock_buf two[] = {{.len = 4}, {.len = 8, .write = true}};
	const struct queue *q = p->q;
	const struct mock_buf *buf = q->v.size > 2 ? three : q->v.size > 1 ? two : &two[1];
	uint32_t nb = q->v.size > 2 ? 3 : q->v.size, flags = 0;
	int id;

	if (is_read_only(number)) {
		buf = two;
		nb = 1;
	}
	if (q->v.indirect && number % 3 == 0)
		flags = MOCK_INDIRECT | (q->v.packed || number % 2 ? 0 : MOCK_SCATTER);
	id = mock_post(&p->q->drv, buf, nb, flags, number);
	if (id >= 0 && has_number(q, number))
		memcpy(mock_mem_at(&q->mem, mock_buf_addr(&q->drv, id, 0), 4), &number, 4);
	return id >= 0;
}

/* Ask for a call, now and then only when most of what is out is used; sleep. */
static bool
driver_wait(struct pair *p, uint32_t back, uint64_t *seed)
{
	struct mock_driver *d = &p->q->drv;
	uint32_t out = p->q->v.packed ? d->cfg.size - d->nb_room : d->nb_busy, i;
	bool later = p->q->v.event_idx && mock_random(seed) % 3 == 0;

	for (i = looks(seed, lap_of(back) == DEVICE_ARMS); i > 0; i--)
		if (mock_has_used(d))
			return true;
	if (!mock_events_enable(d, later ? out * 3 / 4 : 0)) {
		p->nb_driver_sleeps++;
		if (!sleep_on(p->call))
			return false;
	}
	mock_events_disable(d);
	return true;
}

/* How many chains to send. */
static uint32_t
driver_burst(uint32_t sent, uint32_t back, uint64_t *seed)
{
	enum lap lap = lap_of(sent);
	uint32_t i;

	if (lap != FULL && sent != back)
		return 0;
	if (lap < DEVICE_ARMS)
		return 1 + sent % 50;
	for (i = looks(seed, false); i > 0; i--)
		__asm__ volatile("" ::: "memory");
	return 1;
}

static void
driver(struct pair *p)
{
	struct mock_driver *d = &p->q->drv;
	uint32_t sent = 0, back = 0, left = 0;
	uint64_t seed = 2;

	mock_events_disable(d);
	while (back < p->nb_chains) {
		uint32_t k = driver_burst(sent, back, &seed), first = sent;
		struct mock_used used[64];
		int n;

		while (k-- > 0 && sent < p->nb_chains && driver_post(p, sent))
			sent++;
		if (sent != first) {
			mock_publish(d);
			if (mock_should_kick(d)) {
				p->nb_kicks++;
				wake(p->kick);
			}
		}
		n = mock_collect(d, used, DIM(used));
		if (!driver_check(p, used, n, &back, &left))
			return;
		if (n == 0 && sent == first && !driver_wait(p, back, &seed)) {
			snprintf(
				p->driver_fault, sizeof(p->driver_fault), "no call after %u", back);
			return;
		}
	}
}

static void
traffic(struct queue *q)
{
	struct pair p = {.q = q, .nb_chains = q->v.size < 256 ? NB_CHAINS_SMALL : NB_CHAINS};
	pthread_t thread;

	p.kick = eventfd(0, 0);
	p.call = eventfd(0, 0);
	assert_true(p.kick >= 0 && p.call >= 0);
	queue_rewind(q, near_end(&q->v, 7));
	assert_int_equal(pthread_create(&thread, NULL, device, &p), 0);
	driver(&p);
	__atomic_store_n(&p.stop, true, __ATOMIC_RELAXED); /* where the driver gave up */
	wake(p.kick);
	pthread_join(thread, NULL);
	close(p.kick);
	close(p.call);
	if (p.driver_fault[0] != '\0' || p.device_fault[0] != '\0')
		fail_msg("driver: %s; device: %s", p.driver_fault, p.device_fault);
	print_message("# %u chains, %ju kicks, %ju calls, slept %ju and %ju times\n", p.nb_chains,
		(uintmax_t)p.nb_kicks, (uintmax_t)p.nb_calls, (uintmax_t)p.nb_device_sleeps,
		(uintmax_t)p.nb_driver_sleeps);
	expect_none(q);
}

#ifndef __SANITIZE_THREAD__ /* here two sides race, and are to */
/* Rewrites the ring while it is read, with values that are nearly right. */
struct scribbler {
	struct queue *q;
	uint64_t end; /* of what buffers may lie in */
	bool stop;
};

static void *
scribble(void *arg)
{
	struct scribbler *s = arg;
	struct mock_driver *d = &s->q->drv;
	uint64_t *ring = d->cfg.packed ? (uint64_t *)d->packed : (uint64_t *)d->desc;
	uint64_t seed = 5, turns = 0;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		uint64_t r = mock_random(&seed);
		uint64_t addr[4] = {
			BUFS_AT + r % 4096, s->end - r % 64, TABLES_AT, UINT64_MAX - r % 99};
		uint32_t at = (r >> 40) % d->cfg.size;
		uint64_t len = r >> 32 & 1 ? 16 * (r >> 33 & 3) : r >> 33 & 127;
		uint64_t flags = (r >> 12 & 3) | (r >> 14 & 3 ? 0 : VRING_DESC_F_INDIRECT);
		uint64_t ref = (r >> 50) % (d->cfg.size + 1);

		if (turns++ % 512 == 0) /* on one core the other side needs its turns */
			sched_yield();
		__atomic_store_n(&ring[2 * at], addr[r >> 16 & 3], __ATOMIC_RELAXED);
		if (d->cfg.packed) {
			/* One lap's bits for a while, now and then the other's. */
			bool lap = (turns >> 10 & 1) ^ ((r >> 20 & 15) == 0);

			flags |= 1 << (lap ? VRING_PACKED_DESC_F_AVAIL : VRING_PACKED_DESC_F_USED);
			__atomic_store_n(
				&ring[2 * at + 1], len | ref << 32 | flags << 48, __ATOMIC_RELAXED);
			continue;
		}
		__atomic_store_n(
			&ring[2 * at + 1], len | flags << 32 | ref << 48, __ATOMIC_RELAXED);
		__atomic_store_n(
			&d->avail_ring->ring[at], (r >> 22 & 63) == 0 ? ref : at, __ATOMIC_RELAXED);
		if ((r >> 30 & 3) == 0)
			__atomic_fetch_add(&d->avail_ring->idx, r >> 44 & 7, __ATOMIC_RELAXED);
	}
	return NULL;
}

static uint64_t
time_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Whether a segment lies in the buffers, in the table, or in the last page of a window. */
static bool
allowed(struct queue *q, const struct vringh_seg *seg, uint64_t end)
{
	const uint64_t part[3][2] = {{BUFS_AT, BUFS_AT + 4096ull * q->drv.cfg.nb_bufs},
		{TABLES_AT, TABLES_AT + 128}, {end - 4096, end}};
	unsigned int i;

	for (i = 0; i < DIM(part); i++)
		if (seg->iova >= part[i][0] && seg->iova < part[i][1] &&
			seg->len <= part[i][1] - seg->iova &&
			seg->addr == mock_mem_device_at(&q->mem, seg->iova, seg->len))
			return true;
	return false;
}

static void
start_again(struct queue *q)
{
	uint16_t at =
		q->v.packed ? 0x8000 : __atomic_load_n(&q->drv.avail_ring->idx, __ATOMIC_RELAXED);

	q->cfg.state = (struct vringh_state){at, at};
	vringh_init(&q->vr, &q->cfg);
}

/* What is fetched is used and given back, or handed back. */
static void
serve(struct queue *q, int n, bool back)
{
	int i;

	for (i = 0; i < n; i++) {
		struct vringh_chain *chain = &q->batch.chain[i];
		struct vringh_iter r = vringh_iter_read(&q->vr, chain),
				   w = vringh_iter_write(&q->vr, chain);
		uint8_t byte[64] = {0};

		vringh_pull(&r, byte, sizeof(byte));
		chain->written = vringh_push(&w, byte, sizeof(byte));
	}
	if (back)
		vringh_discard(&q->vr, q->batch.chain, n);
	else
		complete(q, 0, n);
	vringh_need_notify(&q->vr);
	vringh_notify_enable(&q->vr);
}

/* Whatever is fetched lies where it may; nothing else is promised but an end. */
static void
hostile(struct queue *q)
{
	struct scribbler s = {.q = q, .end = BUFS_AT + 4096ull * q->drv.cfg.nb_bufs};
	uint32_t round, wrong = 0, served = 0, broken = 0;
	struct vring_desc *e = (struct vring_desc *)mock_mem_at(&q->mem, TABLES_AT, 48);
	uint64_t start = time_ms();
	pthread_t thread;
	uint32_t i;

	if (q->mem.window.len > 0) { /* it has no end where the buffers have */
		s.end = WINDOW_END;
		queue_map(q, WINDOW_END - 4096, 4096, VRINGH_PERM_RW);
	}
	for (i = 0; i < 3; i++)
		e[i] = (struct vring_desc){.addr = BUFS_AT + i, .len = 5, .flags = i};
	assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
	/* Enough, or what a busy machine gives in a short time, if that is anything. */
	for (round = 0; served + broken < 5000; round++) {
		uint64_t ms = time_ms() - start;
		int n;

		if (ms > PATIENCE || (ms > 60 && served + broken > 0))
			break;
		n = fetch(q, 1 + round % 16);
		if (n == 0 && round % 16 == 0)
			sched_yield();
		if (n == -VRINGH_E_MISS) {
			vringh_refuse_miss(&q->vr);
			continue;
		}
		if (n < 0) {
			broken++;
			start_again(q);
			continue;
		}
		for (i = 0; i < q->batch.nb_segs; i++)
			wrong += !allowed(q, &q->batch.seg[i], s.end);
		for (i = 0; (int)i < n; i++) {
			const struct vringh_chain *chain = &q->batch.chain[i];

			wrong += chain->error >= VRINGH_E_SIZE ||
				(chain->error != VRINGH_OK && chain->nb_read + chain->nb_write > 0);
		}
		served += n;
		serve(q, n, round % 3 == 0);
	}
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	print_message("# %u chains served, broken %u times\n", served, broken);
	assert_int_equal(wrong, 0);
	assert_true(served + broken > 0);
}

#endif

int
main(void)
{
	static const struct ring_test tests[] = {
		{"two threads lose data or a notification", traffic, T_COHERENT, 1, 256},
#ifndef __SANITIZE_THREAD__
		{"ring rewritten while it is read", hostile, T_COHERENT | T_ALL, 8, 8},
#endif
	};

	return RUN("threads", tests);
}
