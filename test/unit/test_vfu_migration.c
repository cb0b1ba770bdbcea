/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Features of lib/vfio_user's server: every move between the states of a migration, its data, and
 * the log of written pages.
 */

#include "vfu_tests.h"

#define ARRAY(a) (sizeof(a) / sizeof((a)[0]))
#define NB_STATES \
	8 /* enum vfio_device_mig_state, with those that the kernel's header may not have */
#define PRE_COPY 6

#define GET   VFIO_DEVICE_FEATURE_GET
#define SET   VFIO_DEVICE_FEATURE_SET
#define PROBE VFIO_DEVICE_FEATURE_PROBE

struct feature {
	struct vfu_feature f;
	uint8_t data[256];
};

/* Of a feature, with data; room for the answer behind what comes. */
static int
feature(int fd, uint32_t flags, const void *data, size_t len)
{
	struct feature m = {{4096, flags}, {0}};

	if (len > 0)
		memcpy(m.data, data, len);
	return vt_ask(fd, VFU_DEVICE_FEATURE, &m, sizeof(m.f) + len, NULL, 0);
}

static void
must_refuse(int ret, int error, const char *why)
{
	assert_int_equal(ret, -error);
	if (why != NULL && !vt_logged(why))
		fail_msg("the log does not have: %s", why);
}

static unsigned int
get_state(int fd)
{
	struct vfu_mig_state s;

	assert_int_equal(
		feature(fd, GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, NULL, 0), 8 + sizeof(s));
	memcpy(&s, vt_got.payload + 8, sizeof(s));
	assert_int_equal(s.device_state, dev.state);
	return s.device_state;
}

static int
set_state(int fd, uint32_t to)
{
	const struct vfu_mig_state s = {to, 77};
	int ret = feature(fd, SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &s, sizeof(s));

	if (ret < 0)
		return ret;
	assert_int_equal(ret, 8 + sizeof(s));
	assert_memory_equal(vt_got.payload + 8, &s, sizeof(s));
	return 0;
}

/* ERROR is come to by a move that fails; the others by moves that don't. */
static void
come_to(int fd, unsigned int from)
{
	assert_int_equal(vt_ask(fd, VFU_DEVICE_RESET, NULL, 0, NULL, 0), 0);
	assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_RUNNING);
	if (from == VFIO_DEVICE_STATE_ERROR) {
		dev.fail = -EIO;
		assert_int_equal(set_state(fd, VFIO_DEVICE_STATE_STOP), -EIO);
	} else {
		assert_int_equal(set_state(fd, from), 0);
	}
	assert_int_equal(get_state(fd), from);
}

static void
every_move(void **state)
{
	/*
	 * "Direct State Transitions" and "Complex State Transitions" without PRE_COPY: how many
	 * arcs the shortest path has that does not lead through a state of the saving group. -1:
	 * none.
	 */
	static const int arcs[NB_STATES][NB_STATES] = {
		/* ERROR STOP RUNNING STOP_COPY RESUMING _P2P PRE_COPY _P2P */
		{-1, -1, -1, -1, -1, -1, -1, -1}, /* ERROR */
		{-1, 0, 1, 1, 1, -1, -1, -1},	  /* STOP */
		{-1, 1, 0, 2, 2, -1, -1, -1},	  /* RUNNING */
		{-1, 1, 2, 0, 2, -1, -1, -1},	  /* STOP_COPY */
		{-1, 1, 2, 2, 0, -1, -1, -1},	  /* RESUMING */
		/* These the device does not have, and never is in. */
		{-1, -1, -1, -1, -1, -1, -1, -1},
		{-1, -1, -1, -1, -1, -1, -1, -1},
		{-1, -1, -1, -1, -1, -1, -1, -1},
	};
	unsigned int from, to, before;
	int fd, ret;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (from = 0; from <= VFIO_DEVICE_STATE_RESUMING; from++)
		for (to = 0; to < NB_STATES; to++) {
			come_to(fd, from);
			before = dev.moves;
			ret = set_state(fd, to);
			if (arcs[from][to] >= 0) {
				assert_int_equal(ret, 0);
				assert_int_equal(get_state(fd), to);
				assert_int_equal(dev.moves - before, arcs[from][to]);
				continue;
			}
			if (to == 0 || to > VFIO_DEVICE_STATE_RESUMING)
				must_refuse(ret, EINVAL, "there is no such state");
			else
				must_refuse(ret, EIO, "only a reset helps in the state ERROR");
			assert_int_equal(get_state(fd), from);
			assert_int_equal(dev.moves, before);
		}
	for (from = VFIO_DEVICE_STATE_RESUMING + 1; from < NB_STATES; from++)
		must_refuse(set_state(fd, from), EINVAL, "there is no such state");
	for (to = NB_STATES; to != 0; to *= 2)
		must_refuse(set_state(fd, to), EINVAL, "there is no such state");
	close(fd);
	vt_close();
}

/* What it has of a state is gone, or may be: nothing is read or written any more. */
static void
reset_that_fails(void **state)
{
	static const struct vfu_mig_data data = {24, 8};
	const uint8_t bytes[sizeof(data) + 8] = {16, [4] = 8};
	unsigned int from;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (from = VFIO_DEVICE_STATE_STOP; from <= VFIO_DEVICE_STATE_RESUMING; from++) {
		come_to(fd, from);
		dev.fail = -ETIMEDOUT;
		must_refuse(vt_ask(fd, VFU_DEVICE_RESET, NULL, 0, NULL, 0), ETIMEDOUT, NULL);
		assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_ERROR);
		must_refuse(
			vt_ask(fd, VFU_MIG_DATA_READ, &data, sizeof(data), NULL, 0), EINVAL, NULL);
		must_refuse(vt_ask(fd, VFU_MIG_DATA_WRITE, bytes, sizeof(bytes), NULL, 0), EINVAL,
			NULL);
		assert_int_equal(vt_ask(fd, VFU_DEVICE_RESET, NULL, 0, NULL, 0), 0);
		assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_RUNNING);
	}
	close(fd);
	vt_close();
}

static void
moves_that_fail(void **state)
{
	const struct vfu_mig_state s = {VFIO_DEVICE_STATE_STOP, 0};
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	/* As before, or in ERROR, whether it is the first move of a way or the last. */
	dev.fail = -ETIMEDOUT;
	must_refuse(set_state(fd, VFIO_DEVICE_STATE_STOP_COPY), ETIMEDOUT, NULL);
	assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_RUNNING);
	come_to(fd, VFIO_DEVICE_STATE_STOP);
	dev.fail = -EINVAL;
	must_refuse(set_state(fd, VFIO_DEVICE_STATE_RESUMING), EINVAL, NULL);
	assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_STOP);
	come_to(fd, VFIO_DEVICE_STATE_ERROR);
	dev.fail = -EBUSY;
	assert_int_equal(vt_ask(fd, VFU_DEVICE_RESET, NULL, 0, NULL, 0), -EBUSY);
	assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_ERROR);
	assert_int_equal(vt_ask(fd, VFU_DEVICE_RESET, NULL, 0, NULL, 0), 0);
	assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_RUNNING);
	/* Sizes. */
	must_refuse(feature(fd, SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &s, 7), EINVAL,
		"its size is wrong");
	must_refuse(feature(fd, SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &s, 0), EINVAL,
		"its size is wrong");
	/* Another client finds it running. */
	come_to(fd, VFIO_DEVICE_STATE_ERROR);
	close(fd);
	vt_wait(dev.detached == 1);
	fd = vt_ready();
	vt_wait(dev.attached == 2);
	assert_int_equal(get_state(fd), VFIO_DEVICE_STATE_RUNNING);
	close(fd);
	vt_close();
}

static void
probes(void **state)
{
	static const struct {
		uint32_t index, can;
	} known[] = {
		{VFIO_DEVICE_FEATURE_MIGRATION, GET},
		{VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, GET | SET},
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_START, SET},
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, SET},
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, GET},
	};
	const uint32_t how[] = {0, GET, SET, GET | SET};
	uint32_t index, i, k, can;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (index = 0; index < 20; index++)
		for (i = 0; i < ARRAY(how); i++) {
			for (can = 0, k = 0; k < ARRAY(known); k++)
				if (known[k].index == index)
					can = known[k].can;
			if (can != 0 && (how[i] & ~can) == 0) {
				assert_int_equal(feature(fd, PROBE | how[i] | index, NULL, 0), 8);
				continue;
			}
			must_refuse(feature(fd, PROBE | how[i] | index, NULL, 0), ENOTSUP,
				"there is no such feature");
			if (how[i] == GET || how[i] == SET)
				must_refuse(feature(fd, how[i] | index, NULL, 0), ENOTSUP,
					"there is no such feature");
		}
	must_refuse(feature(fd, PROBE | 0xffff, NULL, 0), ENOTSUP, "there is no such feature");
	/* Neither, or both, of a feature that has them. */
	must_refuse(feature(fd, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, NULL, 0), EINVAL,
		"argsz or flags are wrong");
	must_refuse(feature(fd, GET | SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, NULL, 0), EINVAL,
		"argsz or flags are wrong");
	for (i = 19; i < 32; i++)
		must_refuse(feature(fd, 1u << i | GET | VFIO_DEVICE_FEATURE_MIGRATION, NULL, 0),
			EINVAL, "argsz or flags are wrong");
	close(fd);
	vt_close();

	vt_open(VD_NO_MIGRATION);
	fd = vt_ready();
	must_refuse(feature(fd, PROBE | VFIO_DEVICE_FEATURE_MIGRATION, NULL, 0), ENOTSUP, NULL);
	must_refuse(
		feature(fd, GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, NULL, 0), ENOTSUP, NULL);
	assert_int_equal(feature(fd, PROBE | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0), 8);
	close(fd);
	vt_close();
	vt_open(VD_NO_LOG);
	fd = vt_ready();
	must_refuse(
		feature(fd, PROBE | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0), ENOTSUP, NULL);
	must_refuse(
		feature(fd, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0), ENOTSUP, NULL);
	assert_int_equal(feature(fd, PROBE | VFIO_DEVICE_FEATURE_MIGRATION, NULL, 0), 8);
	close(fd);
	vt_close();
}

static int
mig_read(int fd, uint32_t argsz, uint32_t size)
{
	const struct vfu_mig_data m = {argsz, size};

	return vt_ask(fd, VFU_MIG_DATA_READ, &m, sizeof(m), NULL, 0);
}

static int
mig_write(int fd, uint32_t size, size_t len)
{
	static uint8_t payload[VFU_MAX_PAYLOAD];
	const struct vfu_mig_data m = {0, size};

	memcpy(payload, &m, sizeof(m));
	return vt_ask(fd, VFU_MIG_DATA_WRITE, payload, sizeof(m) + len, NULL, 0);
}

static void
data(void **state)
{
	struct vfu_mig_data got;
	unsigned int s;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (s = 0; s <= VFIO_DEVICE_STATE_RESUMING; s++) {
		come_to(fd, s);
		if (s != VFIO_DEVICE_STATE_STOP_COPY)
			must_refuse(mig_read(fd, 100, 10), EINVAL, "the state is not STOP_COPY");
		if (s != VFIO_DEVICE_STATE_RESUMING)
			must_refuse(mig_write(fd, 10, 10), EINVAL, "the state is not RESUMING");
	}
	come_to(fd, VFIO_DEVICE_STATE_STOP_COPY);
	for (s = 0; s < 8 + 10; s++)
		must_refuse(mig_read(fd, s, 11), EINVAL,
			"argsz has no room for the answer, or a message");
	must_refuse(mig_read(fd, UINT32_MAX, VFU_MAX_XFER + 1), EINVAL,
		"argsz has no room for the answer, or a message");
	must_refuse(mig_read(fd, UINT32_MAX, UINT32_MAX), EINVAL,
		"argsz has no room for the answer, or a message");
	assert_int_equal(mig_read(fd, 8, 0), 8);
	assert_int_equal(mig_read(fd, 18, 10), 18);
	assert_memory_equal(vt_got.payload + 8, dev.saved, 10);
	assert_int_equal(mig_read(fd, UINT32_MAX, VFU_MAX_XFER), 8 + VFU_MAX_XFER);
	assert_memory_equal(vt_got.payload + 8, dev.saved + 10, VFU_MAX_XFER);
	/* Less than was asked for: that was all. And then nothing. */
	assert_int_equal(
		mig_read(fd, UINT32_MAX, VFU_MAX_XFER), 8 + VD_STATE_SIZE - 10 - VFU_MAX_XFER);
	memcpy(&got, vt_got.payload, sizeof(got));
	assert_int_equal(got.size, VD_STATE_SIZE - 10 - VFU_MAX_XFER);
	assert_int_equal(got.argsz, got.size + 8);
	assert_int_equal(mig_read(fd, 100, 10), 8);
	dev.fail = -EIO;
	must_refuse(mig_read(fd, 100, 10), EIO, NULL);

	come_to(fd, VFIO_DEVICE_STATE_RESUMING);
	for (s = 0; s < 20; s++)
		if (s != 10)
			must_refuse(
				mig_write(fd, s, 10), EINVAL, "size is not how much data it has");
	must_refuse(mig_write(fd, UINT32_MAX, 10), EINVAL, "size is not how much data it has");
	assert_int_equal(mig_write(fd, 10, 10), 0);
	assert_int_equal(mig_write(fd, VFU_MAX_XFER, VFU_MAX_XFER), 0);
	dev.fail = -EINVAL;
	must_refuse(mig_write(fd, 10, 10), EINVAL, NULL);
	must_refuse(mig_write(fd, VFU_MAX_XFER, VFU_MAX_XFER), EFBIG, NULL);
	close(fd);
	vt_close();
}

/* ---- the log ---- */

static int
start(int fd, uint64_t page, uint32_t nb, const uint64_t (*ranges)[2], size_t len)
{
	const struct vfu_log_control c = {page, nb, 0};
	uint8_t bytes[256] = {0};

	memcpy(bytes, &c, sizeof(c));
	if (ranges != NULL)
		memcpy(bytes + sizeof(c), ranges, len < 48 ? len - sizeof(c) : 32); /* two */
	return feature(fd, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, bytes, len);
}

static int
report(int fd, uint32_t argsz, uint64_t iova, uint64_t length, uint64_t page)
{
	const struct {
		struct vfu_feature f;
		struct vfu_log_report r;
	} m = {{argsz, GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT}, {iova, length, page}};

	return vt_ask(fd, VFU_DEVICE_FEATURE, &m, sizeof(m), NULL, 0);
}

static void
log_of_pages(void **state)
{
	static const uint64_t good[][2] = {{0, 1}, {0x1000, UINT64_MAX - 0x1000}},
			      bad[][2][2] = {{{0, 0}, {1, 1}}, {{1, 1}, {2, UINT64_MAX}},
				      {{0, 1}, {UINT64_MAX, 2}}, {{5, 0}, {5, 0}}};
	const uint64_t pages[] = {0, 3, 4097, UINT64_MAX, 0xfff};
	static uint64_t bits[VFU_MAX_XFER / 8];
	struct vfu_log_control got;
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	must_refuse(report(fd, 4096, 0, 4096, 4096), EINVAL, "it does not log");
	must_refuse(feature(fd, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0), EINVAL,
		"it does not log");
	for (i = 0; i < 64; i++)
		if (i != 16 + 32)
			must_refuse(start(fd, 4096, 2, good, i < 16 ? 16 : i), EINVAL,
				"its size is wrong");
	for (i = 0; i < 16; i++)
		must_refuse(feature(fd, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, bits, i),
			EINVAL, "its size is wrong");
	must_refuse(start(fd, 4096, 0x10000001, good, 32), EINVAL, "its size is wrong");
	must_refuse(start(fd, 4096, UINT32_MAX, good, 48), EINVAL, "its size is wrong");
	for (i = 0; i < ARRAY(bad); i++)
		must_refuse(start(fd, 4096, 2, bad[i], 48), EINVAL,
			"a range is empty, or does not end");
	for (i = 0; i < ARRAY(pages); i++)
		must_refuse(start(fd, pages[i], 2, good, 48), EINVAL,
			"its page size is no power of two");
	dev.fail = -ENOMEM;
	must_refuse(start(fd, 4096, 2, good, 48), ENOMEM, NULL);
	assert_false(dev.logging);
	assert_int_equal(start(fd, 1, 2, good, 48), 8 + 48);
	memcpy(&got, vt_got.payload + 8, sizeof(got));
	assert_int_equal(got.page_size, 4096);
	assert_int_equal(got.num_ranges, 2);
	assert_memory_equal(vt_got.payload + 8 + sizeof(got), good, sizeof(good));
	must_refuse(start(fd, 4096, 0, NULL, 16), EINVAL, "it logs already");
	must_refuse(feature(fd, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, bits, 1), EINVAL,
		"its size is wrong");
	dev.fail = -EBUSY;
	must_refuse(feature(fd, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0), EBUSY, NULL);
	assert_true(dev.logging);

	for (i = 0; i < ARRAY(pages); i++)
		must_refuse(report(fd, 4096, 0, 4096, pages[i]), EINVAL,
			"its page size or range is wrong");
	must_refuse(report(fd, 4096, 0, 0, 4096), EINVAL, "its page size or range is wrong");
	must_refuse(
		report(fd, 4096, 2, UINT64_MAX, 4096), EINVAL, "its page size or range is wrong");
	must_refuse(
		report(fd, 4096, UINT64_MAX, 2, 4096), EINVAL, "its page size or range is wrong");
	must_refuse(report(fd, UINT32_MAX, 0, VFU_MAX_XFER * 8 + 1, 1), EINVAL,
		"it is more than a message takes");
	must_refuse(report(fd, UINT32_MAX, 0, UINT64_MAX, 1), EINVAL,
		"it is more than a message takes");
	must_refuse(report(fd, UINT32_MAX, 0, UINT64_MAX, 4096), EINVAL,
		"it is more than a message takes");
	for (i = 0; i < 24; i++)
		must_refuse(feature(fd, GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, bits, i),
			EINVAL, "its size is wrong");
	/* The most that a message takes; and how much it would be. */
	dev.dirty = VFU_MAX_XFER * 8 - 1;
	assert_int_equal(report(fd, 8 + 24 + VFU_MAX_XFER - 1, 0, VFU_MAX_XFER * 8, 1), 8);
	memcpy(&i, vt_got.payload, sizeof(i));
	assert_int_equal(i, 8 + 24 + VFU_MAX_XFER);
	assert_int_equal(report(fd, i, 0, VFU_MAX_XFER * 8, 1), i);
	memcpy(bits, vt_got.payload + 32, sizeof(bits));
	assert_int_equal(bits[0], 0);
	assert_true(bits[VFU_MAX_XFER / 8 - 1] == UINT64_C(1) << 63);
	assert_int_equal(report(fd, i, 0, VFU_MAX_XFER * 8, 1), i);
	memcpy(bits, vt_got.payload + 32, sizeof(bits));
	assert_int_equal(bits[VFU_MAX_XFER / 8 - 1], 0);
	/* One page, up to the last byte there is. */
	assert_int_equal(report(fd, 100, UINT64_MAX, 1, 4096), 8 + 24 + 8);
	assert_int_equal(report(fd, 100, 0, UINT64_MAX, UINT64_C(1) << 63), 8 + 24 + 8);
	dev.fail = -EIO;
	must_refuse(report(fd, 100, 0, 1, 4096), EIO, NULL);
	/* The log is the client's: the next one has none. */
	close(fd);
	vt_wait(dev.detached == 1);
	fd = vt_ready();
	must_refuse(report(fd, 4096, 0, 4096, 4096), EINVAL, "it does not log");
	assert_int_equal(start(fd, 4096, 0, NULL, 16), 8 + 16);
	close(fd);
	vt_close();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_move),
		cmocka_unit_test(reset_that_fails),
		cmocka_unit_test(moves_that_fail),
		cmocka_unit_test(probes),
		cmocka_unit_test(data),
		cmocka_unit_test(log_of_pages),
	};

	vfu_timeout_ms = PATIENCE_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
