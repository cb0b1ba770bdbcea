/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Clients of lib/vfio_user's server that are slow, leave, are one too many, or come in numbers.
 */

#include <sys/resource.h>

#include "vfu_tests.h"

#define SLOW_MS 300 /* a deadline that is waited for */

/* ---- time ---- */

static void
slow_clients(void **state)
{
	struct vfu_header h = {1, VFU_DEVICE_GET_INFO, 32, 0, 0};
	unsigned int i;
	int fd;

	(void)state;
	vfu_timeout_ms = SLOW_MS;
	vt_open(0);
	/* Says nothing. */
	fd = vt_connect();
	assert_true(vt_hung_up(fd));
	assert_true(vt_logged("client: is too slow: says no version"));
	close(fd);
	/* Half a version. */
	fd = vt_connect();
	vt_send(fd, &h, 7, NULL, 0);
	assert_true(vt_hung_up(fd));
	assert_true(vt_logged("client: is too slow: stops in the middle of a message"));
	close(fd);
	assert_int_equal(dev.attached, 0);
	/* A version, and then nothing: that is no reason to leave. */
	fd = vt_ready();
	usleep(2 * SLOW_MS * 1000);
	vt_works(fd);
	/* Half a message; bytes one at a time give it no more time. */
	for (i = 0; i < 15; i++) {
		if (send(fd, (uint8_t *)&h + i, 1, MSG_NOSIGNAL) < 0)
			break;
		usleep(SLOW_MS * 1000 / 8);
	}
	assert_true(i < 15);
	assert_true(vt_hung_up(fd));
	assert_true(vt_logged("client: is too slow: stops in the middle of a message"));
	vt_wait(dev.detached == 1);
	close(fd);
	vt_close();
	vfu_timeout_ms = PATIENCE_MS;
}

static void
answers_that_are_not_read(void **state)
{
	const struct vfu_region_access a = {0, VD_REGS, VFU_MAX_XFER};
	unsigned int i;
	int fd;

	(void)state;
	vfu_timeout_ms = SLOW_MS;
	vt_open(0);
	fd = vt_ready();
	for (i = 0; i < 20; i++)
		vt_post(fd, VFU_REGION_READ, 0, &a, sizeof(a), NULL, 0);
	vt_wait(dev.detached == 1);
	close(fd);
	fd = vt_ready();
	vt_works(fd);
	close(fd);
	vt_close();
	vfu_timeout_ms = PATIENCE_MS;
}

static void
stopped(void **state)
{
	int fd;

	(void)state;
	/* With a client, with half a message of one, and with none at all. */
	vt_open(0);
	fd = vt_ready();
	vt_stop();
	assert_int_equal(dev.detached, 1);
	assert_true(vt_hung_up(fd));
	close(fd);
	vt_close();
	vt_open(0);
	fd = vt_ready();
	vt_send(fd, "abc", 3, NULL, 0);
	vt_stop();
	close(fd);
	vt_close();
	vt_open(0);
	vt_close();
}

/* ---- clients that are one too many ---- */

static void
busy(int fd, uint16_t command)
{
	vt_post(fd, command, 0, "\0\0\1\0", 4, NULL, 0);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, command);
	assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY | VFU_ERROR);
	assert_int_equal(vt_got.header.error, EBUSY);
	assert_true(vt_hung_up(fd));
	close(fd);
}

static void
too_many(void **state)
{
	int fd, other[5];
	unsigned int i;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	busy(vt_connect(), VFU_VERSION);
	assert_true(vt_logged("another client is refused: there is one"));
	vt_works(fd);
	for (i = 0; i < 5; i++)
		other[i] = vt_connect();
	vt_works(fd);
	for (i = 0; i < 5; i++)
		busy(other[i], i == 2 ? VFU_DEVICE_RESET : VFU_VERSION);
	vt_works(fd);
	/* One that leaves without a word, and one that says half of one. */
	close(vt_connect());
	other[0] = vt_connect();
	vt_send(other[0], "abc", 3, NULL, 0);
	assert_true(vt_hung_up(other[0]));
	close(other[0]);
	assert_int_equal(dev.resets, 0);
	assert_int_equal(dev.attached, 1);
	vt_works(fd);
	close(fd);
	vt_wait(dev.detached == 1);
	fd = vt_ready();
	close(fd);
	vt_close();
}

static void
too_many_that_say_nothing(void **state)
{
	int fd, other[8];
	unsigned int i;

	(void)state;
	vfu_timeout_ms = SLOW_MS;
	vt_open(0);
	fd = vt_ready();
	for (i = 0; i < 8; i++)
		other[i] = vt_connect();
	vt_works(fd);
	close(fd);
	/* They don't keep others away for long. */
	vt_wait(dev.detached == 1);
	for (i = 0; i < 8; i++)
		assert_true(vt_hung_up(other[i]));
	fd = vt_ready();
	vt_works(fd);
	for (i = 0; i < 8; i++)
		close(other[i]);
	close(fd);
	vt_close();
	vfu_timeout_ms = PATIENCE_MS;
}

static void
no_descriptors_left(void **state)
{
	struct rlimit old, none;
	const struct vfu_dma_map map = {32, 3, 0, 0x1000, 0x1000};
	int fd, waiting, mem;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mem = vt_memory(0x1000);
	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = dup(0);
	close(none.rlim_cur);
	setrlimit(RLIMIT_NOFILE, &none);
	{
		struct sockaddr_un addr = {.sun_family = AF_UNIX};

		strcpy(addr.sun_path, vt_path);
		assert_int_equal(connect(waiting, (struct sockaddr *)&addr, sizeof(addr)), 0);
	}
	/* It does not spin meanwhile, and serves the client that it has. */
	usleep(500000);
	vt_works(fd);
	assert_true(vt_logged("a client cannot be accepted: Too many open files"));
	assert_in_range(dev.server->told + dev.server->untold, 0, 20);
	/* What did not come with a message is missed. */
	vt_refused(
		fd, VFU_DMA_MAP, &map, sizeof(map), &mem, 1, EINVAL, "it has too many descriptors");
	vt_works(fd);
	setrlimit(RLIMIT_NOFILE, &old);
	close(mem);
	busy(waiting, VFU_VERSION);
	vt_works(fd);
	close(fd);
	vt_close();
}

static void
log_without_flood(void **state)
{
	unsigned int i, lines;
	int fd;

	(void)state;
	vt_open(0);
	for (i = 0; i < 20; i++) {
		fd = vt_ready();
		dev.server->told = 20;
		while (dev.server->told < 32)
			vt_post(fd, 77, VFU_NO_REPLY, NULL, 0, NULL, 0);
		lines = dev.nb_lines;
		vt_post(fd, 77, VFU_NO_REPLY, NULL, 0, NULL, 0);
		close(fd);
		vt_wait(dev.detached == i + 1);
		assert_in_range(dev.nb_lines, lines, lines + 2);
	}
	assert_true(dev.server->untold > 0);
	fd = vt_ready();
	vt_refused(fd, 77, NULL, 0, NULL, 0, ENOTSUP, "lines were left out");
	assert_int_equal(dev.server->untold, 0);
	close(fd);
	vt_close();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_clients),
		cmocka_unit_test(answers_that_are_not_read),
		cmocka_unit_test(stopped),
		cmocka_unit_test(too_many),
		cmocka_unit_test(too_many_that_say_nothing),
		cmocka_unit_test(no_descriptors_left),
		cmocka_unit_test(log_without_flood),
	};

	vfu_timeout_ms = PATIENCE_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
