/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A function that does not do what it is told: each completion in turn is lost behind a posted
 * link, and the driver keeps what the function may still touch, says so, and takes the next guest
 * once the function is reset.
 */

#include <fcntl.h>
#include <stdio.h>

#include "play_traffic.h"
#include "posted_link.h"

#define SHORT_MS 50

/* What is logged from log_begin() on. */
static char text[65536];
static FILE *stream;

static void
log_begin(void)
{
	memset(text, 0, sizeof(text));
	stream = fmemopen(text, sizeof(text) - 1, "w");
	assert_non_null(stream);
	setbuf(stream, NULL);
	rte_openlog_stream(stream);
}

static void
logged(const char *what)
{
	if (strstr(text, what) == NULL)
		fail_msg("not in the log: \"%s\"", what);
}

static int
teardown(void **state)
{
	if (stream != NULL) {
		rte_openlog_stream(NULL);
		fclose(stream);
		stream = NULL;
	}
	return plays_close(state);
}

static struct play *
play_new(int vid, enum vfn_lm lm)
{
	struct play *p = play_open(vid, &(struct play_conf){.lm = lm, .sleep = true, .size = 64});

	p->dev->pci.drain_ms = p->dev->pci.answer_ms = SHORT_MS;
	return p;
}

static void
lose(struct play *p, const char *what, unsigned int n)
{
	posted_lose(p->dev->pci.link, what, n);
}

static int
start_again(struct play *p)
{
	int ret;

	vfn_dev_lock(p->dev);
	ret = vfn_life_start(p->dev, p - plays);
	vfn_dev_unlock(p->dev);
	return ret;
}

/* The connection ends, and with it what librte_vhost knows. */
static void
leave(struct play *p)
{
	vfn_dev_lock(p->dev);
	vfn_life_forget(p->dev, p - plays);
	vfn_dev_unlock(p->dev);
}

static void
traffic_passes(struct play *p)
{
	struct traffic t = traffic_start(p, 1, p, 0);

	while (t.sent < 100)
		traffic_round(&t);
	traffic_finish(&t);
}

/* Mapped by the driver, for the function. */
static bool
has_memory(const struct play *p)
{
	return p->dev->memory.nb_regions > 0;
}

static void
is_failed(struct play *p, unsigned int failures)
{
	assert_true(p->dev->pci.failed);
	assert_int_equal(p->dev->state, VFN_FAILED);
	assert_int_equal(p->dev->pci.failures, failures);
	assert_true(has_memory(p));
	logged("the function has failed: ");
}

static void
works_again(struct play *p)
{
	lose(p, "", 0);
	play_start(p);
	assert_false(p->dev->pci.failed);
	assert_int_equal(p->dev->state, VFN_RUNNING);
	play_stop(p);
	assert_int_equal(p->dev->state, VFN_IDLE);
	assert_false(has_memory(p));
}

/* ---- each completion ---- */

static void
every_completion_may_be_late(void **state)
{
	struct play *p = play_new(0, VFN_LM_HW);

	(void)state;
	play_log(p, play_log_len(p));
	play_start(p);
	traffic_passes(p);
	play_log_all(p, true);
	assert_true(p->dev->dirty.on);
	play_log_all(p, false);
	assert_false(p->dev->dirty.on);
	play_stop(p);
	assert_int_equal(p->dev->pci.failures, 0);
	assert_int_equal(p->dev->state, VFN_IDLE);
}

static void
lost_reset_at_the_end(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF), *other = play_new(1, VFN_LM_OFF);
	unsigned int i;
	uint64_t begin;

	(void)state;
	play_start(p);
	play_start(other);
	lose(p, "reset", UINT32_MAX);
	log_begin();
	play_stop(p);
	is_failed(p, 1);
	assert_null(p->dev->guest);
	/* the function goes on with memory that is there */
	leave(p);
	assert_true(has_memory(p));
	/* and is not waited for as long again */
	p->dev->pci.answer_ms = PATIENCE_MS;
	begin = now_ms();
	for (i = 0; i < 3; i++) {
		assert_int_equal(start_again(p), -EIO);
		logged("dev0: takes no guest: the function has failed (device_status)");
		assert_int_equal(p->dev->state, VFN_FAILED);
		assert_true(has_memory(p));
	}
	assert_true(now_ms() - begin < PATIENCE_MS);
	assert_int_equal(p->dev->pci.failures, 1);
	traffic_passes(other);
	play_stop(other);
	works_again(p);
	logged("the function is reset, and does what it is told again");
}

static void
lost_reset_and_the_device_is_removed(void **state)
{
	struct play *p = play_new(0, VFN_LM_SHADOW);

	(void)state;
	play_log(p, play_log_len(p));
	play_start(p);
	play_log_all(p, true);
	lose(p, "reset", UINT32_MAX);
	play_stop(p);
	assert_true(has_memory(p));
	assert_non_null(p->dev->shadow[0]);
	/* plays_close() closes the link first, and then frees all that was kept */
}

static void
lost_suspend_at_the_end(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	(void)state;
	play_start(p);
	lose(p, "suspend", 1);
	log_begin();
	play_stop(p);
	logged("does not answer for 50 ms: suspend stays");
	logged("is reset while it runs");
	/* the reset that follows is one that succeeds */
	assert_int_equal(p->dev->pci.failures, 1);
	assert_false(p->dev->pci.failed);
	assert_int_equal(p->dev->state, VFN_IDLE);
	assert_false(has_memory(p));
	works_again(p);
}

static void
lost_suspend_of_a_queue(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	(void)state;
	play_start(p);
	lose(p, "queue_suspend", 1);
	log_begin();
	vfn_dev_lock(p->dev);
	assert_int_equal(vfn_life_vring(p->dev, 0, 0, false), -EIO);
	vfn_dev_unlock(p->dev);
	is_failed(p, 1);
	logged("serves its guest no more");
	play_stop(p);
	assert_int_equal(p->dev->state, VFN_IDLE);
	assert_false(has_memory(p));
	works_again(p);
}

/* As after a new memory table of a guest whose function has failed. */
static void
lost_suspend_and_another_start(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	(void)state;
	play_start(p);
	lose(p, "queue_suspend", 1);
	vfn_dev_lock(p->dev);
	assert_int_equal(vfn_life_vring(p->dev, 0, 0, false), -EIO);
	assert_int_equal(vfn_life_vring(p->dev, 0, 0, true), 0);
	vfn_dev_unlock(p->dev);
	assert_int_equal(start_again(p), 0);
	assert_int_equal(p->dev->state, VFN_RUNNING);
	assert_true(p->dev->started[0] && p->dev->started[1]);
	traffic_passes(p);
	play_stop(p);
	works_again(p);
}

static void
lost_start(const char *what, int ret, bool fails)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	lose(p, what, 1);
	log_begin();
	vfn_dev_lock(p->dev);
	assert_int_equal(vfn_life_vring(p->dev, 0, 0, true), 0);
	assert_int_equal(vfn_life_start(p->dev, 0), ret);
	vfn_dev_unlock(p->dev);
	assert_int_equal(p->dev->state, VFN_FAILED);
	assert_int_equal(p->dev->pci.failures, fails);
	assert_false(p->dev->started[0]);
	assert_false(has_memory(p));
	works_again(p);
}

static void
lost_features_ok(void **state)
{
	(void)state;
	/* which is what a refusal looks like */
	lost_start("features_ok", -ENOTSUP, false);
}

static void
lost_driver_ok(void **state)
{
	(void)state;
	lost_start("driver_ok", -EIO, true);
}

static void
lost_queue_enable(void **state)
{
	(void)state;
	lost_start("queue_enable", -EIO, true);
}

static void
lost_queue_reset(void **state)
{
	struct play *p = play_new(0, VFN_LM_SHADOW);

	(void)state;
	play_log(p, play_log_len(p));
	play_start(p);
	lose(p, "queue_reset", 1);
	log_begin();
	play_log_all(p, true);
	is_failed(p, 1);
	play_stop(p);
	assert_int_equal(p->dev->state, VFN_IDLE);
	play_log_all(p, false);
	works_again(p);
}

/* Another log while one is in use: everything is suspended and resumed. */
static void
lost_at_another_log(const char *what)
{
	struct play *p = play_new(0, VFN_LM_HW);
	uint64_t page;

	play_log(p, play_log_len(p));
	play_start(p);
	play_log_all(p, true);
	assert_true(p->dev->dirty.on);
	play_log(p, play_log_len(p));
	lose(p, what, 1);
	log_begin();
	play_log_all(p, true);
	is_failed(p, 1);
	/* the log that the function may still write is not unmapped */
	assert_non_null(p->dev->dirty.map);
	play_stop(p);
	assert_int_equal(p->dev->state, VFN_IDLE);
	assert_null(p->dev->dirty.map);
	/* what nobody has logged is dirty */
	if (strcmp(what, "queue_resume") != 0)
		for (page = HEAP_AT >> 12; page < play_end(p) >> 12; page++)
			assert_true(page_get(p->log, page));
	play_log_all(p, false);
	works_again(p);
}

static void
lost_suspend_at_another_log(void **state)
{
	(void)state;
	lost_at_another_log("suspend");
}

static void
lost_dirty_stop(void **state)
{
	(void)state;
	lost_at_another_log("dirty_stop");
}

static void
lost_resume(void **state)
{
	(void)state;
	lost_at_another_log("queue_resume");
}

static void
lost_dirty_start_is_a_refusal(void **state)
{
	struct play *p = play_new(0, VFN_LM_HW);

	(void)state;
	play_log(p, play_log_len(p));
	play_start(p);
	lose(p, "dirty_start", 1);
	log_begin();
	play_log_all(p, true);
	logged("dirty log: the function refuses it");
	assert_false(p->dev->pci.failed);
	assert_int_equal(p->dev->state, VFN_RUNNING);
	traffic_passes(p);
	play_log_all(p, false);
	play_stop(p);
	works_again(p);
}

static void
lost_parts(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	(void)state;
	play_start(p);
	lose(p, "parts", 1);
	log_begin();
	play_stop(p);
	logged("parts_control stays");
	/* the reset has made it good */
	assert_int_equal(p->dev->pci.failures, 1);
	assert_int_equal(p->dev->state, VFN_IDLE);
	works_again(p);
}

/* ---- what the link itself refuses ---- */

static void
memory_that_is_not_given_back(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	(void)state;
	play_start(p);
	lose(p, "dma_unmap", 1);
	log_begin();
	play_stop(p);
	is_failed(p, 1);
	logged("it keeps memory that is to be taken back");
	works_again(p);
}

static void
eventfds_that_are_not_given_back(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	(void)state;
	play_start(p);
	lose(p, "set_irq", 1);
	log_begin();
	play_stop(p);
	logged("it keeps eventfds that are to be given back");
	assert_int_equal(p->dev->pci.failures, 1);
	assert_int_equal(p->dev->state, VFN_IDLE);
	works_again(p);
}

static void
job_that_does_not_end(void **state)
{
	struct play *p = play_new(0, VFN_LM_SHADOW);
	const struct vfn_shadow *shadow;

	(void)state;
	play_log(p, play_log_len(p));
	play_start(p);
	play_log_all(p, true);
	shadow = p->dev->shadow[0];
	assert_non_null(shadow);
	lose(p, "set_job", UINT32_MAX);
	log_begin();
	play_stop(p);
	/* again, after the function was reset */
	is_failed(p, 2);
	logged("it keeps a job that is to end");
	/* what the job works on is still there */
	assert_ptr_equal(p->dev->shadow[0], shadow);
	assert_non_null(p->dev->dirty.map);
	assert_int_equal(start_again(p), -EIO);
	assert_ptr_equal(p->dev->shadow[0], shadow);
	play_log_all(p, false);
	works_again(p);
}

static void
link_that_is_gone(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF), *other = play_new(1, VFN_LM_OFF);
	uint64_t begin = now_ms();

	(void)state;
	/* nobody is waited for who is not there */
	p->dev->pci.drain_ms = p->dev->pci.answer_ms = PATIENCE_MS;
	play_start(p);
	play_start(other);
	posted_gone(p->dev->pci.link, true);
	log_begin();
	play_stop(p);
	is_failed(p, 1);
	logged("its link is gone");
	logged("its ring tells that it stood at");
	assert_int_equal(start_again(p), -EIO);
	traffic_passes(other);
	play_stop(other);
	posted_gone(p->dev->pci.link, false);
	works_again(p);
	assert_true(now_ms() - begin < PATIENCE_MS);
}

/* The guest's memory is, as everything passes; this is what else the function gets. */
static void
everything_mapped_is_a_file(void **state)
{
	struct play *p = play_new(0, VFN_LM_SHADOW);
	char dir[] = "/tmp/vfn-lost-XXXXXX", path[64];
	unsigned int q;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(vfn_inflight_open(p->dev, dir), 0);
	snprintf(path, sizeof(path), "%s/dev0.inflight", dir);
	play_log(p, play_log_len(p));
	play_start(p);
	play_log_all(p, true);
	assert_non_null(p->dev->shadow[0]);
	play_log_all(p, false);
	traffic_passes(p);
	/* the function has written to the regions, by its own mapping of the file */
	for (q = 0; q < 2; q++) {
		const uint64_t *word = vfn_inflight_host(p->dev, q);

		assert_non_null(word);
		assert_int_not_equal(*word, 0);
	}
	play_stop(p);
	assert_int_equal(p->dev->pci.failures, 0);
	vfn_inflight_close(p->dev);
	p->dev->inflight.fd = -1;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void
maps_without_a_file_are_refused(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);
	static uint8_t memory[4096];
	struct vfn_dma_map map = {.space = VFN_DMA_OWN,
		.iova = 4096,
		.len = sizeof(memory),
		.host = memory,
		.fd = -1};

	(void)state;
	assert_int_equal(vfn_vpci_map(&p->dev->pci, &map), -EBADF);
}

/* ---- the table ---- */

static void
illegal_moves_are_refused(void **state)
{
	struct play *p = play_new(0, VFN_LM_OFF);

	(void)state;
	play_start(p);
	log_begin();
	assert_int_equal(start_again(p), -EBUSY);
	logged("dev0: cannot become configured while running");
	/* and nothing was done that goes with it */
	assert_int_equal(p->dev->state, VFN_RUNNING);
	traffic_passes(p);
	play_stop(p);
	works_again(p);
}

#define PLAY(test) cmocka_unit_test_teardown(test, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAY(every_completion_may_be_late),
		PLAY(lost_reset_at_the_end),
		PLAY(lost_reset_and_the_device_is_removed),
		PLAY(lost_suspend_at_the_end),
		PLAY(lost_suspend_of_a_queue),
		PLAY(lost_suspend_and_another_start),
		PLAY(lost_features_ok),
		PLAY(lost_driver_ok),
		PLAY(lost_queue_enable),
		PLAY(lost_queue_reset),
		PLAY(lost_suspend_at_another_log),
		PLAY(lost_dirty_stop),
		PLAY(lost_resume),
		PLAY(lost_dirty_start_is_a_refusal),
		PLAY(lost_parts),
		PLAY(memory_that_is_not_given_back),
		PLAY(eventfds_that_are_not_given_back),
		PLAY(job_that_does_not_end),
		PLAY(link_that_is_gone),
		PLAY(everything_mapped_is_a_file),
		PLAY(maps_without_a_file_are_refused),
		PLAY(illegal_moves_are_refused),
	};

	if (fn_eal_init("--log-level=pmd.vdpa.vfn.*:debug", NULL) < 0)
		return 1;
	return run_list("lost", tests, DIM(tests), NULL, 0);
}
