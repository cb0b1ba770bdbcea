/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Disks behind the driver: a file that somebody else has still, and shadow rings and dirty logs
 * with requests that end in any order.
 */

#include <fcntl.h>
#include <stdio.h>

#include <rte_log.h>

#include "vhost_play.h"
#include "vfn_shadow.h"

#define SIZE	(UINT64_C(1) << 20)
#define SECTORS (SIZE / SECTOR)
#define LOG_ALL BIT(VHOST_F_LOG_ALL)

static uint8_t data[16384], back[16384];
static char path[64];
static char text[65536];
static FILE *stream;
static struct faulty *f;
static bool listed;

static int
teardown(void **state)
{
	if (f != NULL) {
		faulty_set(f, false, 0);
		faulty_release(f, 1000000, false);
	}
	if (listed)
		vfn_dev_del(plays[0].dev);
	listed = false;
	plays_close(state);
	if (f != NULL) {
		free(f->bytes);
		free(f);
		f = NULL;
	}
	if (stream != NULL) {
		rte_openlog_stream(NULL);
		fclose(stream);
		stream = NULL;
	}
	if (path[0] != '\0')
		unlink(path);
	path[0] = '\0';
	return 0;
}

/* ---- a file in use ---- */

/* By a description of its own, as another process has. -1: it is in use. */
static int
other_locks(void)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return fd;
	assert_int_equal(errno, EAGAIN);
	close(fd);
	return -1;
}

static struct play *
file_play(void)
{
	struct play *p;
	int fd;

	strcpy(path, "/dev/shm/vfn-blk-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	fd = other_locks();
	memset(text, 0, sizeof(text));
	stream = fmemopen(text, sizeof(text) - 1, "w");
	assert_non_null(stream);
	setbuf(stream, NULL);
	rte_openlog_stream(stream);
	p = play_open(0,
		&(struct play_conf){.size = 32,
			.buf_len = ROOM,
			.disk = &(struct disk_conf){
				.backend = &vfn_blk_file, .path = path, .later = true}});
	close(fd);
	vfn_dev_add(p->dev);
	listed = true;
	return p;
}

static enum vfn_state
state_now(struct play *p)
{
	enum vfn_state now;

	vfn_dev_lock(p->dev);
	now = p->dev->state;
	vfn_dev_unlock(p->dev);
	return now;
}

static void
start(struct play *p)
{
	vfn_dev_lock(p->dev);
	vfn_life_vring(p->dev, 0, 0, true);
	assert_int_equal(vfn_life_start(p->dev, 0), 0);
	vfn_dev_unlock(p->dev);
}

static void
wait_running(struct play *p)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (state_now(p) != VFN_RUNNING && now_ms() < end)
		nap_us(1000);
	assert_int_equal(state_now(p), VFN_RUNNING);
}

static unsigned int
times_said(const char *what)
{
	const char *at = text;
	unsigned int n = 0;

	for (; (at = strstr(at, what)) != NULL; at++)
		n++;
	return n;
}

/* The guest waits, however long, and has the disk as it is when it is let go of. */
static void
guest_waits_for_a_file_in_use(void **state)
{
	struct play *p = file_play();
	uint32_t capacity;
	uint8_t generation;
	int other = other_locks();

	(void)state;
	assert_int_equal(times_said("it is in use"), 1);
	start(p);
	start(p); /* librte_vhost may ask several times */
	nap_us(500000);
	assert_int_equal(state_now(p), VFN_FAILED);
	assert_int_equal(times_said("what it works on is in use, the guest waits for it"), 1);
	assert_int_equal(ftruncate(other, 2 * SIZE), 0);
	close(other);
	wait_running(p);
	assert_int_equal(vfn_vpci_config(&p->dev->pci, 0, &capacity, 4, &generation), 0);
	assert_int_equal(capacity, 2 * SECTORS);
	pattern(data, 2 * SECTORS - 8, 4096, 1);
	assert_int_equal(disk_write(p->g, 2 * SECTORS - 8, data, 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_read(p->g, 2 * SECTORS - 8, back, 4096), VIRTIO_BLK_S_OK);
	assert_memory_equal(back, data, 4096);
	assert_int_equal(other_locks(), -1);
}

/* One that is stopped, or leaves, waits no more; the next one does. */
static void
guest_that_leaves_waits_no_more(void **state)
{
	struct play *p = file_play();
	int other = other_locks();

	(void)state;
	start(p);
	play_stop(p);
	nap_us(200000);
	assert_int_equal(state_now(p), VFN_IDLE);
	start(p);
	vfn_dev_lock(p->dev);
	vfn_life_forget(p->dev, 0);
	vfn_dev_unlock(p->dev);
	close(other);
	nap_us(300000);
	assert_int_equal(state_now(p), VFN_IDLE);
	start(p);
	assert_int_equal(state_now(p), VFN_RUNNING);
	assert_int_equal(disk_write(p->g, 0, data, 512), VIRTIO_BLK_S_OK);
}

/* ---- shadow rings and logs ---- */

static struct play *
faulty_play(const struct shape *shape, enum vfn_lm lm, unsigned int faults)
{
	f = faulty_new(SIZE);
	return play_open(0,
		&(struct play_conf){.size = 32,
			.buf_len = ROOM,
			.lm = lm,
			.faults = faults,
			.features = (shape_features(shape) & ~BIT(VIRTIO_NET_F_MRG_RXBUF)) |
				LOG_ALL | BIT(VIRTIO_BLK_F_FLUSH),
			.disk = &(struct disk_conf){.backend = &faulty_backend,
				.arg = f,
				.size = SIZE,
				.faults = faults}});
}

/* So many requests at a time, of which the last ones end first; pages that they wrote are found. */
static void
round_trip(struct play *p, unsigned int n, uint32_t number)
{
	struct mock_driver *d = &p->g->q[0].drv;
	struct {
		bool in;
		uint64_t sector;
	} sent[32] = {0};
	struct answer answer;
	unsigned int i;
	uint64_t page;
	int id;

	faulty_set(f, true, 0);
	for (i = 0; i < n; i++) {
		/* reads of what the turn before wrote */
		struct ask ask = {.sector = 8 * i, .layout = i % 2};

		if ((number + i) % 2 == 0) {
			pattern(data, ask.sector, 4096, number);
			ask.type = VIRTIO_BLK_T_OUT;
			ask.out = data;
			ask.out_len = 4096;
		} else {
			ask.type = VIRTIO_BLK_T_IN;
			ask.in_len = 4096;
		}
		id = ask_post(p->g, 0, &ask);
		assert_in_range(id, 0, 31);
		sent[id].in = ask.type == VIRTIO_BLK_T_IN;
		sent[id].sector = ask.sector;
	}
	queue_kick(p->g, 0);
	faulty_wait(f, n);
	faulty_release(f, n, true);
	for (i = 0; i < n; i++) {
		uint64_t first;

		if (!answer_try(p->g, 0, &answer, PATIENCE_MS))
			fail_msg("%u answers of %u are missing", n - i, n);
		assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
		first = mock_buf_addr(d, answer.id, sent[answer.id].in ? 16 : 16 + 4096);
		for (page = first >> 12; page <= (first + answer.used_len - 1) >> 12; page++)
			page_set(p->found, page);
		if (!sent[answer.id].in || number == 0)
			continue;
		pattern(data, sent[answer.id].sector, 4096, number - 1);
		assert_memory_equal(answer.in, data, 4096);
	}
}

/* Pages of which somebody has written, and the log does not know. */
static unsigned int
missing(const struct play *p, const uint8_t *before)
{
	const struct mock_driver *d = &p->g->q[0].drv;
	uint64_t at = d->cfg.packed ? d->cfg.desc : d->cfg.device;
	uint64_t end = at + mock_area_len(&d->cfg, d->cfg.packed ? 0 : 2), page;
	unsigned int n = 0;

	for (page = 0; page < 8 * p->log_len; page++)
		n += page_get(p->found, page) && !page_get(p->log, page);
	/* of a packed ring the guest writes, too */
	for (at &= ~UINT64_C(4095); at < end; at += 4096)
		n += memcmp(before + (at - HEAP_AT), mock_mem_at(&p->g->mem, at, 4096), 4096) !=
				0 &&
			!play_logged(p, at);
	return n;
}

static unsigned int
missing_after_requests(const struct shape *shape, enum vfn_lm lm, unsigned int faults)
{
	struct play *p = faulty_play(shape, lm, faults);
	uint64_t len = play_end(p) - HEAP_AT;
	uint8_t *before = malloc(len);
	unsigned int turn, tries, now, lacks = 0;

	assert_non_null(before);
	play_log(p, play_log_len(p));
	play_start(p);
	assert_int_equal(p->dev->shadow[0] != NULL, lm == VFN_LM_SHADOW);
	for (turn = 0; turn < 10 && lacks == 0; turn++) {
		memset(p->log, 0, p->log_len);
		memset(p->found, 0, p->log_len);
		memcpy(before, mock_mem_at(&p->g->mem, HEAP_AT, len), len);
		round_trip(p, 6, turn);
		/* told again, nothing new: what is logged meanwhile is there */
		play_log_all(p, true);
		if (turn % 4 == 3) {
			play_stop(p);
			assert_int_equal(p->base[0].used, mock_used_position(&p->g->q[0].drv, 0));
			assert_int_equal(p->base[0].avail, p->base[0].used);
			lacks += missing(p, before);
			play_start(p);
		} else {
			/* what is not logged with the answer is soon, or never */
			for (tries = 0; (now = missing(p, before)) > 0 && tries < 100; tries++)
				nap_us(1000);
			lacks += now;
		}
	}
	free(before);
	teardown(NULL);
	return lacks;
}

static void
log_has_what_was_written(const struct shape *shape)
{
	if (shape->mergeable) /* net's */
		return;
	assert_int_equal(missing_after_requests(shape, VFN_LM_SHADOW, 0), 0);
	assert_int_equal(missing_after_requests(shape, VFN_LM_HW, 0), 0);
}

/* Negative control. */
static void
log_that_lacks_something_is_noticed(const struct shape *shape)
{
	static const unsigned int faults[] = {VFN_FAULT_NO_DIRTY, VFN_FAULT_NO_USED_DIRTY};
	unsigned int i;

	for (i = 0; i < DIM(faults) && !shape->mergeable; i++) {
		assert_int_not_equal(missing_after_requests(shape, VFN_LM_SHADOW, faults[i]), 0);
		assert_int_not_equal(missing_after_requests(shape, VFN_LM_HW, faults[i]), 0);
	}
}

static void *
release_later(void *arg)
{
	nap_us(100000);
	faulty_release(f, (uintptr_t)arg, true);
	return NULL;
}

/* A log begins and ends while requests are out: rings change, and no request is lost. */
static void
requests_outlast_a_change_of_rings(const struct shape *shape)
{
	unsigned int turn, i;
	pthread_t thread;
	struct play *p;

	if (shape->mergeable)
		return;
	p = faulty_play(shape, VFN_LM_SHADOW, 0);
	p->features &= ~LOG_ALL;
	play_log(p, play_log_len(p));
	play_start(p);
	for (turn = 0; turn < 4; turn++) {
		struct answer answer;

		faulty_set(f, true, 0);
		for (i = 0; i < 5; i++) {
			pattern(data, 8 * i, 4096, turn);
			assert_true(ask_post(p->g, 0,
					    &(struct ask){.type = VIRTIO_BLK_T_OUT,
						    .sector = 8 * i,
						    .out = data,
						    .out_len = 4096,
						    .layout = i % 2}) >= 0);
		}
		queue_kick(p->g, 0);
		faulty_wait(f, 5);
		pthread_create(&thread, NULL, release_later, (void *)5);
		play_log_all(p, turn % 2 == 0);
		pthread_join(thread, NULL);
		assert_int_equal(p->dev->shadow[0] != NULL, turn % 2 == 0);
		for (i = 0; i < 5; i++) {
			assert_true(answer_try(p->g, 0, &answer, PATIENCE_MS));
			assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
		}
		for (i = 0; i < 5; i++) {
			pattern(data, 8 * i, 4096, turn);
			assert_memory_equal(f->bytes + 4096 * i, data, 4096);
		}
		assert_false(answer_try(p->g, 0, &answer, 20));
	}
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
#define T(test) cmocka_unit_test_teardown(test, teardown)
		T(guest_waits_for_a_file_in_use),
		T(guest_that_leaves_waits_no_more),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(log_has_what_was_written),
		SHAPED(log_that_lacks_something_is_noticed),
		SHAPED(requests_outlast_a_change_of_rings),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	shaped_teardown = teardown;
	return run_list("blk_driver", plain, DIM(plain), shaped, DIM(shaped));
}
