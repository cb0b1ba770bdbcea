/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Files that do less than they were asked to, fail, or take their time: what io_uring says of them
 * has to become the right status, and memory has to stay as long as the kernel uses it.
 */

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>

#include <liburing.h>

#include "blk_harness.h"
#include "fn_state.h"
#include "fuse_file.h"

#define SIZE (UINT64_C(4) << 20)
#define ALL  (FUSE_FILE_READ | FUSE_FILE_WRITE | FUSE_FILE_SYNC | FUSE_FILE_RANGE)

static uint8_t data[1 << 17], back[1 << 17];

/* What was read and written is said to be at most so much; 0: the truth. Linker: --wrap. */
static uint32_t most; /* atomic */
/* So often each request is said not to be aligned. */
static uint32_t odd; /* atomic */

static bool
is_odd(uint64_t request)
{
	static struct {
		uint64_t request;
		uint32_t times;
	} known[8];
	unsigned int i;

	for (i = 0; i + 1 < DIM(known) && known[i].request != request && known[i].times != 0; i++)
		;
	known[i].request = request;
	return known[i].times++ < __atomic_load_n(&odd, __ATOMIC_RELAXED);
}

unsigned int __real_io_uring_peek_batch_cqe(
	struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int n);
unsigned int __wrap_io_uring_peek_batch_cqe(
	struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int n);

unsigned int
__wrap_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int n)
{
	int32_t at = __atomic_load_n(&most, __ATOMIC_RELAXED);
	unsigned int i;

	n = __real_io_uring_peek_batch_cqe(ring, cqe, n);
	for (i = 0; i < n; i++) {
		if (at > 0 && cqe[i]->res > at)
			cqe[i]->res = at;
		if (__atomic_load_n(&odd, __ATOMIC_RELAXED) > 0 && is_odd(cqe[i]->user_data))
			cqe[i]->res = -EINVAL;
	}
	return n;
}

static void
cut_at(uint32_t bytes)
{
	__atomic_store_n(&most, bytes, __ATOMIC_RELAXED);
}

static int
teardown(void **state)
{
	cut_at(0);
	__atomic_store_n(&odd, 0, __ATOMIC_RELAXED);
	fuse_file_release();
	disks_close(state);
	fuse_file_close();
	return 0;
}

static struct guest *
fuse_disk(bool sleep)
{
	struct guest *g = disk_open(&(struct disk_conf){.backend = &vfn_blk_file,
		.path = fuse_file_open(SIZE),
		.sleep = sleep,
		.features = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) |
			BIT(VIRTIO_BLK_F_WRITE_ZEROES)});

	return g;
}

static void
write_and_read(struct guest *g, uint32_t len, enum layout layout, uint32_t number)
{
	struct answer answer;

	pattern(data, 3, len, number);
	answer = ask_wait(g, 0,
		&(struct ask){.type = VIRTIO_BLK_T_OUT,
			.sector = 3,
			.out = data,
			.out_len = len,
			.layout = layout});
	assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
	answer = ask_wait(g, 0,
		&(struct ask){
			.type = VIRTIO_BLK_T_IN, .sector = 3, .in_len = len, .layout = layout});
	assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
	assert_memory_equal(answer.in, data, len);
}

/* Threads of this process that io_uring has for what would wait. */
static unsigned int
nb_workers(void)
{
	char name[320], comm[16] = "";
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *task;
	unsigned int n = 0;
	int fd;

	assert_non_null(tasks);
	while ((task = readdir(tasks)) != NULL) {
		snprintf(name, sizeof(name), "/proc/self/task/%s/comm", task->d_name);
		fd = open(name, O_RDONLY);
		if (fd < 0)
			continue;
		n += read(fd, comm, 8) == 8 && memcmp(comm, "iou-wrk-", 8) == 0;
		close(fd);
	}
	closedir(tasks);
	return n;
}

/* What is in memory is copied at once, unless it is much. */
static void
memory_needs_no_workers(void **state)
{
	static char path[] = "/dev/shm/vfn-blk-XXXXXX";
	struct ask much = {.type = VIRTIO_BLK_T_IN, .in_len = sizeof(data) + SECTOR};
	int fd = mkstemp(path);
	struct guest *g;
	bool direct;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	/* Linux 6.6 on; before, a worker writes */
	direct = fcntl(fd, F_SETFL, O_DIRECT) == 0;
	close(fd);
	g = disk_open(&(struct disk_conf){.backend = &vfn_blk_file, .path = path});
	unlink(path);
	if (direct)
		write_and_read(g, sizeof(data), LAYOUT_SPLIT, 1);
	else
		assert_int_equal(disk_read(g, 0, data, sizeof(data)), VIRTIO_BLK_S_OK);
	assert_int_equal(nb_workers(), 0);
	assert_int_equal(ask_wait(g, 0, &much).status, VIRTIO_BLK_S_OK);
	assert_int_not_equal(nb_workers(), 0);
}

static void
cut_short(struct guest *g)
{
	static const uint32_t cuts[] = {65536, 4096, 7 * 512, 512};
	unsigned int i, layout;

	for (i = 0; i < DIM(cuts); i++) {
		cut_at(cuts[i]);
		for (layout = 0; layout < LAYOUTS; layout++)
			write_and_read(g, 98304, layout, 10 * i + layout);
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_IO), 0);
	assert_int_equal(stat_of(g, 0, VFN_STAT_READS), DIM(cuts) * LAYOUTS);
}

/* In place, where FUSE leaves pages in peace, and through a buffer, where a disk has sectors. */
static void
what_is_cut_short_goes_on(void **state)
{
	static char path[] = "/var/tmp/vfn-blk-XXXXXX";
	struct guest *g = fuse_disk(false);
	int fd;

	cut_short(g);
	assert_int_equal(stat_of(g, 0, VFN_STAT_BOUNCED), 0);
	teardown(state);
	strcpy(path + sizeof(path) - sizeof("XXXXXX"), "XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	g = disk_open(&(struct disk_conf){.backend = &vfn_blk_file, .path = path});
	unlink(path);
	cut_short(g);
}

/* Where the page cache has to help after all, it does for all that is out; an error is one then. */
static void
alignment_that_does_not_do_is_forgotten(void **state)
{
	struct guest *g = fuse_disk(false);
	struct answer answer;
	unsigned int i;

	(void)state;
	__atomic_store_n(&odd, 1, __ATOMIC_RELAXED);
	for (i = 0; i < 4; i++)
		assert_true(ask_post(g, 0,
				    &(struct ask){.type = VIRTIO_BLK_T_IN,
					    .sector = 8 * i,
					    .in_len = 4096}) >= 0);
	queue_kick(g, 0);
	for (i = 0; i < 4; i++) {
		assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
		assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
	}
	write_and_read(g, 98304, LAYOUT_SPLIT, 3);
	__atomic_store_n(&odd, UINT32_MAX, __ATOMIC_RELAXED);
	assert_int_equal(disk_read(g, 0, back, 512), VIRTIO_BLK_S_IOERR);
}

/* Every kind of request and error; what only means "again" is not seen. */
static void
errors_are_answered(void **state)
{
	static const struct {
		unsigned int op;
		uint32_t type;
	} kinds[] = {
		{FUSE_FILE_READ, VIRTIO_BLK_T_IN},
		{FUSE_FILE_WRITE, VIRTIO_BLK_T_OUT},
		{FUSE_FILE_SYNC, VIRTIO_BLK_T_FLUSH},
		{FUSE_FILE_RANGE, VIRTIO_BLK_T_DISCARD},
		{FUSE_FILE_RANGE, VIRTIO_BLK_T_WRITE_ZEROES},
	};
	static const struct {
		int error;
		unsigned int stat; /* 0: none */
	} errors[] = {
		{-EIO, VFN_STAT_ERRORS_IO},
		{-ENOSPC, VFN_STAT_ERRORS_SPACE},
		{-EDQUOT, VFN_STAT_ERRORS_SPACE},
		{-EFBIG, VFN_STAT_ERRORS_SPACE},
		{-ESTALE, VFN_STAT_ERRORS_IO},
		{-EINTR, 0},
		{-EAGAIN, 0},
	};
	struct virtio_blk_discard_write_zeroes range = {.sector = 8, .num_sectors = 8};
	struct guest *g = fuse_disk(true);
	unsigned int k, e;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct ask ask = {.type = kinds[k].type};

		if (ask.type == VIRTIO_BLK_T_IN)
			ask.in_len = 4096;
		else if (ask.type == VIRTIO_BLK_T_OUT)
			ask.out = data, ask.out_len = 4096;
		else if (ask.type != VIRTIO_BLK_T_FLUSH)
			ask.out = &range, ask.out_len = sizeof(range);
		for (e = 0; e < DIM(errors); e++) {
			unsigned int stat = errors[e].stat;
			uint64_t before = stat != 0 ? stat_of(g, 0, stat) : 0;

			fuse_file_fail(kinds[k].op, errors[e].error, 1);
			assert_int_equal(ask_wait(g, 0, &ask).status,
				stat != 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
			if (stat != 0)
				assert_int_equal(stat_of(g, 0, stat), before + 1);
			assert_int_equal(ask_wait(g, 0, &ask).status, VIRTIO_BLK_S_OK);
		}
	}
}

/* Zeroes are written where the file system knows of no other way; a discard cannot be. */
static void
ranges_without_fallocate(void **state)
{
	static const uint8_t zeroes[64 * SECTOR];
	struct guest *g = fuse_disk(false);

	(void)state;
	pattern(data, 0, sizeof(data), 1);
	assert_int_equal(disk_write(g, 0, data, sizeof(data)), 0);
	fuse_file_fail(FUSE_FILE_RANGE, -EOPNOTSUPP, UINT32_MAX);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_DISCARD, 8, 8, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 16, 40, 0), 0);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 60, 64, 1), 0);
	cut_at(1536);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 130, 64, 1), 0);
	cut_at(0);
	assert_int_equal(disk_read(g, 0, back, sizeof(back)), 0);
	memset(data + 16 * SECTOR, 0, 40 * SECTOR);
	memset(data + 60 * SECTOR, 0, 64 * SECTOR);
	memset(data + 130 * SECTOR, 0, 64 * SECTOR);
	assert_memory_equal(back, data, sizeof(back));
	assert_memory_equal(back + 60 * SECTOR, zeroes, sizeof(zeroes));
}

/* A write through the cache is one that is durable when it ends. */
static void
writes_are_synced_as_asked_for(void **state)
{
	struct disk_conf conf = {.backend = &vfn_blk_file,
		.features = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE) |
			BIT(VIRTIO_BLK_F_WRITE_ZEROES)};
	struct guest *g;
	unsigned int n;

	(void)state;
	conf.path = fuse_file_open(SIZE);
	g = disk_open(&conf);
	assert_int_equal(disk_write(g, 0, data, 4096), 0);
	assert_int_equal(fuse_file_count(FUSE_FILE_SYNC), 0);
	assert_int_equal(disk_flush(g), 0);
	assert_int_equal(fuse_file_count(FUSE_FILE_SYNC), 1);
	assert_int_equal(reg_set(g, &g->device, offsetof(struct virtio_blk_config, wce), 1, 0), 0);
	for (n = 1; n < 4; n++) {
		assert_int_equal(disk_write(g, 0, data, 4096), 0);
		assert_int_equal(fuse_file_count(FUSE_FILE_SYNC), 1 + n);
	}
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0), 0);
	assert_int_equal(fuse_file_count(FUSE_FILE_SYNC), 1 + n);
	/* one that cannot be is not said to be durable */
	fuse_file_fail(FUSE_FILE_SYNC, -EIO, 1);
	assert_int_equal(disk_write(g, 0, data, 4096), VIRTIO_BLK_S_IOERR);
}

/* ---- a file that takes its time ---- */

static void *
release_later(void *arg)
{
	nap_us((uintptr_t)arg * 1000);
	fuse_file_release();
	return NULL;
}

/* One request whose data is in a region of its own. */
static int
post_far(struct guest *g, uint32_t type, uint64_t at)
{
	struct virtio_blk_outhdr hdr = {.type = type, .sector = 3};
	struct mock_buf buf[3] = {{.len = 16},
		{.len = 4096, .write = type == VIRTIO_BLK_T_IN, .fixed = true, .iova = at},
		{.len = 1, .write = true}};
	int id = mock_post(&g->q[0].drv, buf, 3, 0, 0);

	assert_true(id >= 0);
	mock_mem_write(&g->mem, mock_buf_addr(&g->q[0].drv, id, 0), &hdr, sizeof(hdr));
	mock_publish(&g->q[0].drv);
	queue_kick(g, 0);
	return id;
}

static void
memory_stays_until_the_kernel_is_done(void **state)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
	struct guest *g = fuse_disk(true);
	unsigned int i;

	(void)state;
	for (i = 0; i < DIM(types); i++) {
		struct mock_used used;
		pthread_t thread;
		uint8_t *mine;

		mine = guest_map(g, FREE_AT, 4096, VRINGH_PERM_RW);
		pattern(mine, 3, 4096, 5);
		pattern(fuse_file_bytes() + 3 * SECTOR, 3, 4096, 6 + i);
		fuse_file_hold(ALL);
		post_far(g, types[i], FREE_AT);
		fuse_file_wait(1);
		pthread_create(&thread, NULL, release_later, (void *)300);
		/* in use until this returns, and not after */
		assert_int_equal(g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, FREE_AT, 4096), 0);
		pattern(data, 3, 4096, types[i] == VIRTIO_BLK_T_IN ? 6 + i : 5);
		assert_memory_equal(
			types[i] == VIRTIO_BLK_T_IN ? mine : fuse_file_bytes() + 3 * SECTOR, data,
			4096);
		mock_mem_remove(&g->mem, FREE_AT);
		pthread_join(thread, NULL);
		assert_true(used_try(g, 0, &used, PATIENCE_MS));
		assert_int_equal(used.len, types[i] == VIRTIO_BLK_T_IN ? 4097 : 1);
	}
}

/* Who cannot wait so long is told so, and all goes on when the file does. */
static void
file_that_hangs_is_waited_for(void **state)
{
	struct guest *g = fuse_disk(false);
	struct answer answer;
	unsigned int i, k;
	int id[4];

	(void)state;
	fuse_file_hold(ALL);
	pattern(fuse_file_bytes(), 0, SIZE, 7);
	for (i = 0; i < 4; i++)
		id[i] = ask_post(g, 0,
			&(struct ask){.type = VIRTIO_BLK_T_IN, .sector = 8 * i, .in_len = 4096});
	queue_kick(g, 0);
	fuse_file_wait(4);
	assert_false(answer_try(g, 0, &answer, 100));
	CSET(g, queue_select, 0);
	VSET(g, queue_suspend, 1);
	assert_int_equal(VGET(g, queue_suspend), 0);
	CSET(g, device_status, 0);
	assert_int_not_equal(CGET(g, device_status), 0);
	assert_int_equal(
		g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, HEAP_AT, g->heap_end - HEAP_AT),
		-EBUSY);
	fuse_file_release();
	for (i = 0; i < 4; i++) {
		assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
		assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
		for (k = 0; id[k] != answer.id; k++)
			;
		assert_memory_equal(answer.in, fuse_file_bytes() + 4096 * k, 4096);
	}
	queue_suspend(g, 0, true);
	queue_suspend(g, 0, false);
	assert_int_equal(disk_write(g, 0, data, 4096), VIRTIO_BLK_S_OK);
}

/* Other queues of the poller go on meanwhile. */
static void
hanging_writes_hold_nothing_else_up(void **state)
{
	struct guest *g = fuse_disk(false), *other;
	struct answer answer;
	unsigned int i;

	(void)state;
	/* the harness knows a chain by its queue's number */
	other = disk_open(&(struct disk_conf){.name = "other", .size = SIZE, .queues = 2});
	fuse_file_hold(FUSE_FILE_WRITE);
	assert_true(ask_post(g, 0,
			    &(struct ask){
				    .type = VIRTIO_BLK_T_OUT, .out = data, .out_len = 4096}) >= 0);
	queue_kick(g, 0);
	fuse_file_wait(1);
	for (i = 0; i < 50; i++) {
		assert_int_equal(
			ask_wait(other, 1, &(struct ask){.type = VIRTIO_BLK_T_IN, .in_len = 512})
				.status,
			VIRTIO_BLK_S_OK);
		assert_int_equal(
			ask_wait(g, 0, &(struct ask){.type = VIRTIO_BLK_T_GET_ID, .in_len = 20})
				.status,
			VIRTIO_BLK_S_OK);
		assert_int_equal(
			ask_wait(g, 0,
				&(struct ask){
					.type = VIRTIO_BLK_T_IN, .sector = 64, .in_len = 4096})
				.status,
			VIRTIO_BLK_S_OK);
	}
	fuse_file_release();
	assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
	assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
}

static void
file_that_is_gone_fails(void **state)
{
	struct guest *g = fuse_disk(true);
	struct answer answer;
	unsigned int i;

	(void)state;
	fuse_file_hold(ALL);
	for (i = 0; i < 3; i++)
		assert_true(ask_post(g, 0,
				    &(struct ask){.type = VIRTIO_BLK_T_IN,
					    .sector = 8 * i,
					    .in_len = 4096}) >= 0);
	queue_kick(g, 0);
	fuse_file_wait(3);
	fuse_file_kill();
	for (i = 0; i < 3; i++) {
		assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
		assert_int_equal(answer.status, VIRTIO_BLK_S_IOERR);
	}
	assert_int_equal(disk_write(g, 0, data, 4096), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_flush(g), VIRTIO_BLK_S_IOERR);
	guest_reset(g);
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
#define T(f) cmocka_unit_test_teardown(f, teardown)
		T(memory_needs_no_workers), /* first: there are none yet */
		T(what_is_cut_short_goes_on),
		T(alignment_that_does_not_do_is_forgotten),
		T(errors_are_answered),
		T(ranges_without_fallocate),
		T(writes_are_synced_as_asked_for),
		T(memory_stays_until_the_kernel_is_done),
		T(file_that_hangs_is_waited_for),
		T(hanging_writes_hold_nothing_else_up),
		T(file_that_is_gone_fails),
	};

	if (!fuse_file_init()) {
		printf("1..0 # SKIP this user, or this kernel, cannot mount FUSE\n");
		return 0;
	}
	if (fn_eal_init(NULL) != 0)
		return 1;
	return run_list("blk_file", plain, DIM(plain), NULL, 0);
}
