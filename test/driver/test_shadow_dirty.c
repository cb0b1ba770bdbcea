/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The dirty log of shadow rings: exact, late, replaced; and relays that do not log are noticed. */

#include "endpoint_link.h"
#include "play_traffic.h"
#include "vfn_shadow.h"

#define LOG_ALL BIT(VHOST_F_LOG_ALL)

/* Where a packed ring stands, counted in slots over two laps. */
static uint32_t
lap_position(const struct mock_driver *d)
{
	return d->used + (d->used_wrap ? 0 : d->cfg.size);
}

/*
 * Packed: used entries were written to the slots from a position on, but not to each of a chain's:
 * which pages of the descriptor area have to be logged, and which may be.
 */
static void
slots_written(const struct mock_driver *d, uint32_t from, uint8_t *must, uint8_t *may)
{
	uint32_t n = (lap_position(d) + 2 * d->cfg.size - from) % (2 * d->cfg.size), i;

	for (i = 0; i < n; i++) {
		uint64_t at = d->cfg.desc + (from + i) % d->cfg.size * 16 + 8;

		page_set(may, at >> 12);
		/* in the last few a chain may lie that began before */
		if (i == 0 || i + 8 < n)
			page_set(must, at >> 12);
	}
}

/*
 * Is a page missing in the log, or one in it that the device has not written? *what says where. The
 * device area may be written with what was there before, so that only missing it counts.
 */
static bool
log_is_wrong(struct play *p, const uint8_t *before, const uint32_t from[2], const char **what)
{
	uint8_t *must = calloc(1, play_log_len(p)), *may = calloc(1, play_log_len(p));
	uint64_t page;
	unsigned int q;

	assert_true(must != NULL && may != NULL);
	*what = NULL;
	memcpy(must, p->found, play_log_len(p));
	memcpy(may, p->found, play_log_len(p));
	for (page = 0; page < 8 * play_log_len(p) && *what == NULL; page++)
		if (page_get(p->log, page) < page_get(must, page))
			*what = "buffer";
	for (q = 0; q < 2; q++) {
		const struct mock_driver *d = &p->g->q[q].drv;
		uint64_t at = d->cfg.device, end = at + mock_area_len(&d->cfg, 2);

		if (d->cfg.packed)
			slots_written(d, from[q], must, may);
		for (at &= ~UINT64_C(4095); at < end; at += 4096) {
			page_set(may, at >> 12);
			if (memcmp(before + (at - HEAP_AT), mock_mem_at(&p->g->mem, at, 4096),
				    4096) != 0)
				page_set(must, at >> 12);
		}
	}
	for (page = 0; page < 8 * play_log_len(p) && *what == NULL; page++) {
		if (page_get(p->log, page) < page_get(must, page))
			*what = "ring";
		if (page_get(p->log, page) > page_get(may, page))
			*what = "page that was not written";
	}
	free(must);
	free(may);
	return *what != NULL;
}

static bool
log_after_traffic(const struct shape *shape, bool in_order, bool thread, unsigned int faults,
	const char **what)
{
	struct play *p = play_open(0,
		&(struct play_conf){.features = features_of(shape, in_order) | LOG_ALL,
			.lm = VFN_LM_SHADOW,
			.thread = thread,
			.faults = faults,
			.size = 512});
	uint64_t len = play_end(p) - HEAP_AT;
	uint8_t *before = malloc(len);
	unsigned int step, frames = 0;
	uint32_t from[2];
	struct traffic t;
	bool wrong = false;

	assert_non_null(before);
	play_log(p, play_log_len(p));
	play_start(p); /* shadowed from the beginning */
	assert_non_null(p->dev->shadow[1]);
	/* the function's own log has no part in it */
	assert_int_equal(VGET(p->g, dirty_control), 0);
	t = traffic_start(p, 1, p, 0);
	t.window = 32;
	for (step = 0; step < 4 && !wrong; step++) {
		/* what a front-end does at each pass: fetch and clear, then copy */
		memset(p->log, 0, p->log_len);
		memset(p->found, 0, p->log_len);
		memcpy(before, mock_mem_at(&p->g->mem, HEAP_AT, len), len);
		from[0] = lap_position(&p->g->q[0].drv);
		from[1] = lap_position(&p->g->q[1].drv);
		/* never two laps of the ring */
		for (frames += 40 * step; t.sent < frames;)
			traffic_round(&t);
		traffic_finish(&t);
		if (step == 3)
			play_stop(p);
		else
			play_log_all(p, true); /* told again, nothing new */
		nap_us(1000);
		wrong = log_is_wrong(p, before, from, what);
	}
	free(before);
	return wrong;
}

static void
log_has_what_was_written_and_nothing_else(const struct shape *shape)
{
	const char *what;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		if (log_after_traffic(shape, i & 1, i & 2, 0, &what))
			fail_msg("wrong in the log: %s", what);
		plays_close(NULL);
	}
}

/* Negative control: a relay that does not log is found out. */
static void
log_that_is_not_written_is_noticed(const struct shape *shape)
{
	const char *what;

	assert_true(log_after_traffic(shape, false, false, VFN_FAULT_NO_DIRTY, &what));
	/* a relay on a thread of its own may get to its event word first */
	if (!over_endpoint() || strcmp(what, "ring") != 0)
		assert_string_equal(what, "buffer");
}

static void
log_without_used_entries_is_noticed(const struct shape *shape)
{
	const char *what;

	assert_true(log_after_traffic(shape, false, false, VFN_FAULT_NO_USED_DIRTY, &what));
	assert_string_equal(what, "ring");
}

static bool
all_dirty(const struct play *p)
{
	uint64_t page;

	for (page = HEAP_AT >> 12; page <= (play_end(p) - 1) >> 12; page++)
		if (!page_get(p->log, page))
			return false;
	return true;
}

static void
log_that_is_late_makes_all_dirty(void **state)
{
	struct play *p = play_open(0, &(struct play_conf){.lm = VFN_LM_SHADOW});
	uint64_t len = play_log_len(p);
	unsigned int step;

	(void)state;
	play_start(p);
	rx_post(p->g, 0, 20, 2048, 1);
	for (step = 0; step < 4; step++) {
		/* wanted before it is there; too short; right; another one */
		play_log(p, step == 0 ? 0 : step == 1 ? len - 1 : len);
		play_log_all(p, true);
		assert_int_equal(p->dev->shadow[0] != NULL, step >= 2);
		assert_int_equal(p->dev->dirty.refusals, step == 0 ? 1 : 2);
		if (step >= 2)
			assert_int_equal(all_dirty(p), step == 2);
		passes(p, step);
	}
	play_log_all(p, false);
	assert_null(p->dev->shadow[0]);
	passes(p, step);
	play_stop(p);
	positions_exact(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(log_that_is_late_makes_all_dirty, plays_close),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(log_has_what_was_written_and_nothing_else),
		SHAPED(log_that_is_not_written_is_noticed),
		SHAPED(log_without_used_entries_is_noticed),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	shaped_teardown = plays_close;
	return run_list("shadow log", tests, DIM(tests), shaped, DIM(shaped));
}
