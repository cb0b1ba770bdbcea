/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The judge of lib/gate: memory, rings, dirty log and in-flight region, each rule with its
 * violation and, beside it, what just does not violate it.
 */

#include "gate_rule_tests.h"

static void
tables(void **state)
{
	const uint64_t top = -(uint64_t)GF_SIZE_2;
	const struct rule rules[] = {
		{FEATURES, NULL, gf_table(1), 1, MEM},
		{FEATURES, NULL, gf_table(8), 8, MEM},
		{FEATURES, NULL, with_size(gf_table(1), 72), 1, MEM}, /* user-mode Linux */
		{FEATURES, "a number of regions out of range", with_size(gf_table(9), 264), 8, MEM},
		{FEATURES, "fewer regions than it says", with_size(gf_table(2), 40), 2, MEM},
		{FEATURES, FD_COUNT, gf_table(2), 1, MEM},
		{FEATURES, FD_COUNT, gf_table(2), 3, MEM},
		{FEATURES, FD_COUNT, gf_table(1), 0, MEM},
		{FEATURES, "memory that is no file on a file system that is trusted", gf_table(1),
			1, GATE_FD_OTHER},
		{FEATURES, "memory that is no file on a file system that is trusted", gf_table(1),
			1, EVENT},
		{FEATURES, "an empty region", with_region(GF_GPA_2, 0, GF_UVA_2, 0), 2, MEM},
		{FEATURES, WRAPS, with_region(top + 4096, GF_SIZE_2, GF_UVA_2, 0), 2, MEM},
		{FEATURES, NULL, with_region(top, GF_SIZE_2, GF_UVA_2, 0), 2, MEM},
		{FEATURES, WRAPS, with_region(GF_GPA_2, GF_SIZE_2, top + 4096, 0), 2, MEM},
		{FEATURES, WRAPS, with_region(GF_GPA_2, 0x1000, GF_UVA_2, (uint64_t)-0x1000), 2,
			MEM},
		{FEATURES, WRAPS, with_region(GF_GPA_2, UINT64_MAX, GF_UVA_2, 0), 2, MEM},
		{FEATURES, "a region longer than its file",
			with_region(GF_GPA_2, GF_SIZE_2, GF_UVA_2, 0x1000), 2, MEM},
		{FEATURES, NULL, with_region(GF_GPA_2, GF_SIZE_2 - 0x1000, GF_UVA_2, 0x1000), 2,
			MEM},
		{FEATURES, "an offset that is not aligned",
			with_region(GF_GPA_2, 0x1000, GF_UVA_2, 0x800), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA + GF_SIZE - 1, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA - 0xfff, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, NULL, with_region(GF_GPA - 0x1000, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, NULL, with_region(GF_GPA + GF_SIZE, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA_2, 0x1000, END - 1, 0), 2, MEM},
		/* The rings of a running device are in the first region. */
		{RUNNING, NULL, gf_table(1), 1, MEM},
		{RUNNING, NULL, gf_table(3), 3, MEM},
	};
	struct gate_message m;

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);

	begin();
	come_to(RUNNING, GF_FEATURES);
	m = gf_table(1);
	m.payload.table.regions[0].uva += 0x1000;
	assert_string_equal(say(m, 1), "its descriptors are not in one region");
	m = gf_table(1);
	m.payload.table.regions[0].size = GF_RING + 0x8000;
	assert_string_equal(say(m, 1), "its device area is not in one region");
	m.payload.table.regions[0].size = GF_RING + 0x8000 + 4 + 8 * GF_NUM;
	must(m, 1);

	/* Address space counts from the start of the file, in its own blocks. */
	begin();
	come_to(FEATURES, GF_FEATURES);
	offer.space_max = GF_SIZE + GF_SIZE_2;
	must(gf_table(2), 2);
	fds[1].block = GF_SIZE_2 * 2;
	assert_string_equal(say(gf_table(2), 2), "more address space than a connection may take");
	fds[1].block = 4096;
	offer.space_max--;
	assert_string_equal(say(gf_table(2), 2), "more address space than a connection may take");
}

/* Where just everything ends: n entries of 16, avail and used behind them. */
static void
ring_places(void **state)
{
	const uint64_t avail = 4 + 2 * GF_NUM, used = 4 + 8 * GF_NUM, desc = 16 * GF_NUM;
	const uint64_t a = GF_UVA + 0x20000, b = GF_UVA + 0x30000;
	const struct rule split[] = {
		{MEMORY, NULL, with_addr(0, GF_UVA, a, b, 0, 0), NO_FDS},
		{MEMORY, NULL, with_addr(0, END - 16, a, b, 0, 0), NO_FDS}, /* no size yet */
		{RUNNING, NULL, with_addr(0, END - desc, a, b, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, END - desc + 16, a, b, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, GF_UVA - 16, a, b, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, UINT64_MAX - 15, a, b, 0, 0), NO_FDS},
		{RUNNING, NULL, with_addr(0, GF_UVA, END - avail, b, 0, 0), NO_FDS},
		{RUNNING, "its driver area is not in one region",
			with_addr(0, GF_UVA, END - avail + 2, b, 0, 0), NO_FDS},
		{RUNNING, NULL, with_addr(0, GF_UVA, a, END - used, 0, 0), NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - used + 4, 0, 0), NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - 2, 0, 0), NO_FDS},
		{RUNNING, "an area of it is not aligned", with_addr(0, GF_UVA + 8, a, b, 0, 0),
			NO_FDS},
		{RUNNING, "an area of it is not aligned", with_addr(0, GF_UVA, a + 1, b, 0, 0),
			NO_FDS},
		{RUNNING, "an area of it is not aligned", with_addr(0, GF_UVA, a, b + 2, 0, 0),
			NO_FDS},
		{RUNNING, "unknown flags", with_addr(0, GF_UVA, a, b, 2, 0), NO_FDS},
		{RUNNING, "there is no such ring", with_addr(256, GF_UVA, a, b, 0, 0), NO_FDS},
	};
	const struct rule packed[] = {
		{RUNNING, NULL, with_addr(0, GF_UVA, END - 4, b, 0, 0), NO_FDS},
		{RUNNING, NULL, with_addr(0, GF_UVA, a, END - 4, 0, 0), NO_FDS},
		{RUNNING, "its driver area is not in one region",
			with_addr(0, GF_UVA, END, b, 0, 0), NO_FDS},
		{RUNNING, "an area of it is not aligned", with_addr(0, GF_UVA, a + 2, b, 0, 0),
			NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - 3, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, END - desc + 16, a, b, 0, 0), NO_FDS},
	};
	/* One word more in either area. */
	const struct rule event_idx[] = {
		{RUNNING, NULL, with_addr(0, GF_UVA, END - avail - 2, b, 0, 0), NO_FDS},
		{RUNNING, "its driver area is not in one region",
			with_addr(0, GF_UVA, END - avail, b, 0, 0), NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - used, 0, 0), NO_FDS},
	};

	(void)state;
	check(split, DIM(split), GF_FEATURES);
	check(packed, DIM(packed), GF_FEATURES | GF_BIT(GATE_F_RING_PACKED));
	check(event_idx, DIM(event_idx), GF_FEATURES | GF_BIT(GATE_F_EVENT_IDX));
}

static void
ring_sizes(void **state)
{
	const struct rule split[] = {
		{FEATURES, "a size out of range", STATE(GATE_SET_VRING_NUM, 0, 0), NO_FDS},
		{FEATURES, "a size out of range", STATE(GATE_SET_VRING_NUM, 0, 65536), NO_FDS},
		{FEATURES, "its size is no power of two", STATE(GATE_SET_VRING_NUM, 0, 3), NO_FDS},
		{FEATURES, NULL, STATE(GATE_SET_VRING_NUM, 0, 1), NO_FDS},
		{FEATURES, NULL, STATE(GATE_SET_VRING_NUM, 0, 32768), NO_FDS},
		{FEATURES, "there is no such ring", STATE(GATE_SET_VRING_NUM, 256, 64), NO_FDS},
		{FEATURES, "there is no such ring", STATE(GATE_SET_VRING_NUM, UINT32_MAX, 64),
			NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_NUM, 1, 32), NO_FDS},
		{FEATURES, "its position is no index", STATE(GATE_SET_VRING_BASE, 0, 65536),
			NO_FDS},
		{FEATURES, NULL, STATE(GATE_SET_VRING_BASE, 0, 65535), NO_FDS},
		{RUNNING, "neither on nor off", STATE(GATE_SET_VRING_ENABLE, 0, 2), NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_ENABLE, 0, 0), NO_FDS},
	};
	const struct rule packed[] = {
		{FEATURES, NULL, STATE(GATE_SET_VRING_NUM, 0, 3), NO_FDS},
		{FEATURES, "a size out of range", STATE(GATE_SET_VRING_NUM, 0, 32769), NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_BASE, 0, 0x8000 | (GF_NUM - 1)), NO_FDS},
		{RUNNING, "its position is not in the ring",
			STATE(GATE_SET_VRING_BASE, 0, 0x8000 | GF_NUM), NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_BASE, 0, 0x80ff80ff), NO_FDS},
		{RUNNING, "its position is not in the ring",
			STATE(GATE_SET_VRING_BASE, 0, 0x810080ff), NO_FDS},
	};

	(void)state;
	check(split, DIM(split), GF_FEATURES);
	check(packed, DIM(packed), GF_FEATURES | GF_BIT(GATE_F_RING_PACKED));

	begin();
	come_to(RUNNING, GF_FEATURES);
	must(with_addr(1, GF_UVA, GF_UVA + 0x4000, END - 4 - 8 * GF_NUM, 0, 0), 0);
	assert_string_equal(say(STATE(GATE_SET_VRING_NUM, 1, 2 * GF_NUM), 0),
		"its device area is not in one region");
	/* The same of a ring that has stopped: it has no addresses any more. */
	must(STATE(GATE_GET_VRING_BASE, 1, 0), 0);
	must(STATE(GATE_SET_VRING_NUM, 1, 2 * GF_NUM), 0);
	assert_string_equal(
		say(U64(GATE_SET_VRING_KICK, 1 | GATE_NO_FD), 0), "its addresses were not set");
}

static void
ring_files(void **state)
{
	static const uint32_t files[] = {
		GATE_SET_VRING_KICK, GATE_SET_VRING_CALL, GATE_SET_VRING_ERR};
	size_t i;

	(void)state;
	for (i = 0; i < DIM(files); i++) {
		const struct rule rules[] = {
			{RUNNING, NULL, U64(files[i], 1), 1, EVENT},
			{RUNNING, NULL, U64(files[i], 1), 1, GATE_FD_PIPE},
			{RUNNING, NULL, U64(files[i], 1 | GATE_NO_FD), NO_FDS},
			{RUNNING, FD_COUNT, U64(files[i], 1), NO_FDS},
			{RUNNING, FD_COUNT, U64(files[i], 1), 2, EVENT},
			{RUNNING, FD_COUNT, U64(files[i], 1 | GATE_NO_FD), 1, EVENT},
			{RUNNING, "unknown bits", U64(files[i], 1 | 0x200), 1, EVENT},
			{RUNNING, "unknown bits", U64(files[i], GF_BIT(63)), 1, EVENT},
			{RUNNING, "its descriptor is no eventfd", U64(files[i], 1), 1, MEM},
			{RUNNING,
				files[i] == GATE_SET_VRING_CALL ? NULL :
								  "its descriptor is no eventfd",
				U64(files[i], 1), 1, GATE_FD_SOCKET},
			{RUNNING, "its descriptor is no eventfd", U64(files[i], 1), 1,
				GATE_FD_OTHER},
		};

		check(rules, DIM(rules), GF_FEATURES);
	}
}

static void
kick_needs_a_whole_ring(void **state)
{
	(void)state;
	begin();
	come_to(MEMORY, GF_FEATURES);
	fds[0].kind = EVENT;
	assert_string_equal(say(U64(GATE_SET_VRING_KICK, 0), 1), "its size was not set");
	must(STATE(GATE_SET_VRING_NUM, 0, GF_NUM), 0);
	assert_string_equal(say(U64(GATE_SET_VRING_KICK, 0), 1), "its addresses were not set");
	must(gf_addr(0, GF_UVA), 0);
	must(U64(GATE_SET_VRING_KICK, 0), 1);
	assert_int_equal(gate_phase(&conn), RUNNING);
	must(U64(GATE_SET_VRING_KICK, 0), 1);
	assert_int_equal(conn.nb_started, 1);
	must(STATE(GATE_GET_VRING_BASE, 0, 0), 0);
	must(STATE(GATE_GET_VRING_BASE, 0, 0), 0);
	assert_int_equal(conn.nb_started, 0);

	/* What was right as a split ring may not be as a packed one, and the other way. */
	begin();
	come_to(FEATURES, GF_FEATURES | GF_BIT(GATE_F_RING_PACKED));
	must(gf_table(2), 2);
	must(STATE(GATE_SET_VRING_NUM, 0, 5), 0);
	must(with_addr(0, GF_UVA, GF_UVA + 0x1000, END - 4, 0, 0), 0);
	assert_string_equal(
		say(U64(GATE_SET_FEATURES, GF_FEATURES), 0), "its size is no power of two");
	must(STATE(GATE_SET_VRING_NUM, 0, 4), 0);
	assert_string_equal(say(U64(GATE_SET_FEATURES, GF_FEATURES), 0),
		"its device area is not in one region");
}

static void
absent_rings(void **state)
{
	static const uint32_t requests[] = {
		GATE_SET_VRING_NUM, GATE_SET_VRING_BASE, GATE_SET_VRING_ENABLE};
	size_t i;

	(void)state;
	begin();
	come_to(RUNNING, GF_FEATURES);
	for (i = 0; i < DIM(requests); i++) {
		must(STATE(requests[i], 4, 77), 0);
		assert_int_equal(j.verdict, GATE_ANSWER);
		assert_true(j.acked);
	}
	must(gf_addr(255, 0), 0);
	assert_int_equal(j.verdict, GATE_ANSWER);
	fds[0].kind = EVENT;
	must(U64(GATE_SET_VRING_KICK, 4), 1);
	assert_int_equal(j.verdict, GATE_ANSWER);
	must(STATE(GATE_GET_VRING_BASE, 4, 0), 0);
	assert_int_equal(j.verdict, GATE_ANSWER);
	assert_true(j.answered);
	assert_int_equal(j.out.payload.state.index, 4);
	assert_int_equal(j.out.payload.state.num, 77);
	must(STATE(GATE_SET_VRING_NUM, 3, 64), 0);
	assert_int_equal(j.verdict, GATE_PASS);
}

/* The second of the two regions ends at 0x100800000: a bit for each page below. */
#define COVERS (0x100800000 / 4096 / 8)

static void
dirty_log(void **state)
{
	const struct rule rules[] = {
		{RUNNING, NULL, gf_log(COVERS, 0), 1, MEM},
		{RUNNING, NULL, gf_log(COVERS, 0x1000), 1, MEM},
		{RUNNING, "a log that does not cover the memory", gf_log(COVERS - 1, 0), 1, MEM},
		{RUNNING, "a size out of range", gf_log(0, 0), 1, MEM},
		{RUNNING, "a size out of range", gf_log((1 << 20) + 1, 0), 1, MEM},
		{RUNNING, "an offset out of range or not aligned", gf_log(COVERS, 8), 1, MEM},
		{RUNNING, "an offset out of range or not aligned",
			gf_log(COVERS, (uint64_t)-0x1000), 1, MEM},
		{RUNNING, "a log longer than its file", gf_log(COVERS, GF_SIZE_2 - 0x1000), 1, MEM},
		{RUNNING, "a log that is no file on a file system that is trusted",
			gf_log(COVERS, 0), 1, GATE_FD_OTHER},
		{RUNNING, FD_COUNT, gf_log(COVERS, 0), 0, MEM},
		{RUNNING, FD_COUNT, gf_log(COVERS, 0), 2, MEM},
		{RUNNING, NULL, gf_empty(GATE_SET_LOG_FD), 1, EVENT},
	};
	const uint64_t on = GF_FEATURES | GF_BIT(GATE_F_LOG_ALL), far = UINT64_C(8) * 4096 * COVERS;
	const uint64_t used = 4 + 8 * GF_NUM;
	struct gate_message m;

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);

	/* Against the log address, whichever comes first. */
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(gf_log(COVERS, 0), 1);
	m = gf_addr(0, GF_UVA);
	m.payload.addr.flags = 1;
	m.payload.addr.log = far - used;
	must(m, 0);
	m.payload.addr.log = far - used + 1;
	assert_string_equal(say(m, 0), "its log address is outside the dirty log");
	m.payload.addr.log = UINT64_MAX - 2;
	assert_string_equal(say(m, 0), "its log address is outside the dirty log");
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(m, 0);
	assert_string_equal(say(gf_log(COVERS, 0), 1), "its log address is outside the dirty log");

	/* Against the table and LOG_ALL. */
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(gf_log(COVERS, 0), 1);
	must(gf_table(3), 3);
	assert_string_equal(
		say(U64(GATE_SET_FEATURES, on), 0), "the dirty log does not cover the memory");
	must(gf_table(2), 2);
	must(U64(GATE_SET_FEATURES, on), 0);
	assert_string_equal(say(gf_table(3), 3), "memory that the dirty log does not cover");
	must(U64(GATE_SET_FEATURES, GF_FEATURES), 0);
	must(gf_table(3), 3);
}

static void
inflight(void **state)
{
	const uint64_t least = 2 * (16 * 64 + 16);
	const struct rule rules[] = {
		{FEATURES, NULL, gf_inflight(31, 0, 0, 4, 64), NO_FDS},
		{FEATURES, NULL, with_size(gf_inflight(31, 0, 0, 4, 64), 20), NO_FDS},
		{FEATURES, "more queues than there are, or none", gf_inflight(31, 0, 0, 5, 64),
			NO_FDS},
		{FEATURES, "more queues than there are, or none", gf_inflight(31, 0, 0, 0, 64),
			NO_FDS},
		{FEATURES, "a queue size out of range", gf_inflight(31, 0, 0, 2, 0), NO_FDS},
		{FEATURES, "a queue size out of range", gf_inflight(31, 0, 0, 2, 32769), NO_FDS},
		{FEATURES, "more memory than a connection may take",
			gf_inflight(31, 0, 0, 4, 32768), NO_FDS},
		{FEATURES, NULL, gf_inflight(32, least, 0, 2, 64), 1, MEM},
		{FEATURES, "a size that its queues don't take",
			gf_inflight(32, least - 1, 0, 2, 64), 1, MEM},
		{FEATURES, "a size that its queues don't take",
			gf_inflight(32, (1 << 20) + 1, 0, 2, 64), 1, MEM},
		{FEATURES, "an offset out of range or not aligned",
			gf_inflight(32, least, 64, 2, 64), 1, MEM},
		{FEATURES, "an offset out of range or not aligned",
			gf_inflight(32, 0x2000, (uint64_t)-0x1000, 2, 64), 1, MEM},
		{FEATURES, "a region longer than its file",
			gf_inflight(32, least, GF_SIZE_2, 2, 64), 1, MEM},
		{FEATURES, "a region that is no file on a file system that is trusted",
			gf_inflight(32, least, 0, 2, 64), 1, GATE_FD_OTHER},
		{FEATURES, FD_COUNT, gf_inflight(32, least, 0, 2, 64), 0, MEM},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
regions_one_by_one(void **state)
{
	struct gate_message m;
	unsigned int i;

	(void)state;
	begin();
	come_to(FEATURES, GF_FEATURES);
	assert_int_equal(j.out.payload.u64 & GF_BIT(GATE_PF_CONFIGURE_MEM_SLOTS), 0);
	for (i = 0; i < GATE_MAX_REGIONS; i++) {
		fds[0].fd = 200 + i;
		must(gf_slot(GATE_ADD_MEM_REG, i), 1);
		assert_int_equal(j.out.request, GATE_SET_MEM_TABLE);
		assert_int_equal(j.out.payload.table.nb_regions, i + 1);
		assert_int_equal(j.nb_fds, i + 1);
		assert_int_equal(j.fds[i], 200 + i);
		assert_int_equal(j.out.size, 8 + 32 * (i + 1));
	}
	m = gf_slot(GATE_ADD_MEM_REG, 0);
	m.payload.slot.region.gpa += UINT64_C(1) << 50;
	assert_string_equal(say(m, 1), "more regions than there are slots");
	must(gf_slot(GATE_REM_MEM_REG, 3), 0);
	assert_int_equal(j.nb_fds, 7);
	assert_int_equal(j.fds[3], 204);
	/* Said once more there is nothing to be done. */
	must(gf_slot(GATE_REM_MEM_REG, 3), 0);
	assert_int_equal(j.verdict, GATE_ANSWER);
	must(gf_slot(GATE_ADD_MEM_REG, 2), 1);
	assert_int_equal(j.verdict, GATE_ANSWER);
	assert_int_equal(conn.nb_regions, 7);
	m = gf_slot(GATE_ADD_MEM_REG, 2);
	m.payload.slot.region.size -= 4096;
	assert_string_equal(say(m, 1), OVERLAP);
	start_ring(0);
	assert_string_equal(
		say(gf_slot(GATE_REM_MEM_REG, 0), 0), "its descriptors are not in one region");
	must(gf_empty(GATE_GET_MAX_MEM_SLOTS), 0);
	assert_int_equal(j.out.payload.u64, GATE_MAX_REGIONS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables),
		cmocka_unit_test(ring_places),
		cmocka_unit_test(ring_sizes),
		cmocka_unit_test(ring_files),
		cmocka_unit_test(kick_needs_a_whole_ring),
		cmocka_unit_test(absent_rings),
		cmocka_unit_test(dirty_log),
		cmocka_unit_test(inflight),
		cmocka_unit_test(regions_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
