/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Messages to lib/vfio_user's server, byte by byte: their headers, sizes and descriptors, what
 * comes when, and clients that are slow, leave, or are one too many.
 */

#include "vfu_tests.h"

static const struct vfu_device_info ask_info = {.argsz = sizeof(ask_info)};

static void
sizes_in_the_header(void **state)
{
	const uint32_t sizes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
		VFU_MAX_MESSAGE + 1, 0x7fffffff, 0x80000000, 0xffffffff};
	struct vfu_header h = {1, VFU_DEVICE_GET_INFO, 0, 0, 0};
	char line[64];
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		fd = vt_ready();
		h.size = sizes[i];
		vt_send(fd, &h, sizeof(h), NULL, 0);
		assert_true(vt_hung_up(fd));
		snprintf(line, sizeof(line), "client: no message has %u bytes", sizes[i]);
		assert_true(vt_logged(line));
		close(fd);
	}
	/* The same before the version. */
	fd = vt_connect();
	vt_send(fd, &h, sizeof(h), NULL, 0);
	assert_true(vt_hung_up(fd));
	close(fd);
	assert_int_equal(dev.attached, i);
	vt_close();
}

static void
the_largest_message(void **state)
{
	static uint8_t payload[VFU_MAX_PAYLOAD];
	struct vfu_region_access *a = (struct vfu_region_access *)payload;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	*a = (struct vfu_region_access){0x100, VD_REGS, VFU_MAX_XFER};
	memset(a + 1, 0x77, VFU_MAX_XFER);
	assert_int_equal(vt_ask(fd, VFU_REGION_WRITE, a, sizeof(*a) + VFU_MAX_XFER, NULL, 0), 16);
	assert_int_equal(dev.regs[0x100 + VFU_MAX_XFER - 1], 0x77);
	assert_int_equal(dev.regs[0x100 + VFU_MAX_XFER], 0);
	assert_int_equal(vt_ask(fd, VFU_REGION_READ, a, sizeof(*a), NULL, 0), 16 + VFU_MAX_XFER);
	a->count++;
	vt_refused(fd, VFU_REGION_WRITE, a, sizeof(*a) + VFU_MAX_XFER + 1, NULL, 0, EINVAL,
		"it is more data than a message takes");
	vt_refused(fd, VFU_REGION_READ, a, sizeof(*a), NULL, 0, EINVAL,
		"it is more data than a message takes");
	/* All that a message may have. */
	vt_refused(fd, VFU_DEVICE_GET_INFO, payload, sizeof(payload), NULL, 0, EINVAL,
		"its size is wrong");
	close(fd);
	vt_close();
}

static void
types(void **state)
{
	unsigned int type;
	int fd;

	(void)state;
	vt_open(0);
	for (type = 1; type <= VFU_TYPE_MASK; type++) {
		fd = vt_ready();
		vt_post(fd, VFU_DEVICE_GET_INFO, type, &ask_info, sizeof(ask_info), NULL, 0);
		assert_true(vt_hung_up(fd));
		assert_true(
			vt_logged("client: neither a command nor an answer that is waited for"));
		close(fd);
	}
	/* Bits that mean nothing in a command are not looked at. */
	fd = vt_ready();
	vt_post(fd, VFU_DEVICE_GET_INFO, 0xffffffe0, &ask_info, sizeof(ask_info), NULL, 0);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY);
	close(fd);
	vt_close();
}

static void
unknown_commands(void **state)
{
	const uint16_t commands[] = {
		0, VFU_DMA_READ, VFU_DMA_WRITE, 14, VFU_COMMAND_MAX, 0x7fff, 0xffff};
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		vt_refused(fd, commands[i], NULL, 0, NULL, 0, ENOTSUP,
			"a command that it does not know is refused: Operation not supported");
		vt_refused(fd, commands[i], &ask_info, sizeof(ask_info), NULL, 0, ENOTSUP, NULL);
	}
	vt_works(fd);
	close(fd);
	vt_close();
}

static void
no_reply(void **state)
{
	const struct vfu_region_access bad = {0, VD_READONLY, 0};
	struct {
		struct vfu_region_access a;
		uint8_t data;
	} __attribute__((packed)) w = {{0x200, VD_REGS, 1}, 0};
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (w.data = 1; w.data < 50; w.data++) {
		vt_post(fd, VFU_REGION_WRITE, VFU_NO_REPLY, &w, sizeof(w), NULL, 0);
		/* Nor is there one to those that are refused. */
		vt_post(fd, VFU_REGION_WRITE, VFU_NO_REPLY, &bad, sizeof(bad), NULL, 0);
		vt_post(fd, 77, VFU_NO_REPLY, NULL, 0, NULL, 0);
	}
	vt_works(fd);
	assert_int_equal(dev.regs[0x200], 49);
	assert_int_equal(dev.writes, 49);
	close(fd);
	/* Not even to a version, which is agreed all the same. */
	vt_wait(dev.detached == 1);
	fd = vt_connect();
	vt_post(fd, VFU_VERSION, VFU_NO_REPLY, &(struct vfu_version){0, 1}, 4, NULL, 0);
	vt_works(fd);
	close(fd);
	vt_close();
}

static void
before_the_version(void **state)
{
	unsigned int command;
	int fd;

	(void)state;
	vt_open(0);
	for (command = 0; command < VFU_COMMAND_MAX + 1; command++) {
		if (command == VFU_VERSION)
			continue;
		fd = vt_connect();
		vt_post(fd, command, 0, &ask_info, sizeof(ask_info), NULL, 0);
		assert_true(vt_next(fd));
		assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY | VFU_ERROR);
		if (vt_got.header.error != ENOTSUP) {
			assert_int_equal(vt_got.header.error, EPROTO);
			assert_true(vt_logged("the version has to be agreed first"));
		}
		assert_true(vt_hung_up(fd));
		close(fd);
	}
	assert_int_equal(dev.attached, 0);
	fd = vt_ready();
	vt_refused(fd, VFU_VERSION, &(struct vfu_version){0, 1}, 4, NULL, 0, EPROTO,
		"the version is agreed already");
	vt_works(fd);
	close(fd);
	vt_close();
}

static void
sizes_of_payloads(void **state)
{
	static const struct {
		uint16_t command, least;
		bool more;
	} c[] = {
		{VFU_DMA_MAP, 32, false},
		{VFU_DMA_UNMAP, 24, false},
		{VFU_DEVICE_GET_INFO, 16, false},
		{VFU_DEVICE_GET_REGION_INFO, 32, false},
		{VFU_DEVICE_GET_REGION_IO_FDS, 16, false},
		{VFU_DEVICE_GET_IRQ_INFO, 16, false},
		{VFU_DEVICE_SET_IRQS, 20, true},
		{VFU_REGION_READ, 16, false},
		{VFU_REGION_WRITE, 16, true},
		{VFU_DEVICE_RESET, 0, false},
		{VFU_REGION_WRITE_MULTI, 8, true},
		{VFU_DEVICE_FEATURE, 8, true},
		{VFU_MIG_DATA_READ, 8, false},
		{VFU_MIG_DATA_WRITE, 8, true},
	};
	uint8_t payload[64] = {0};
	unsigned int i, len;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (i = 0; i < sizeof(c) / sizeof(c[0]); i++)
		for (len = 0; len < sizeof(payload); len++) {
			if (len == c[i].least || (len > c[i].least && c[i].more))
				continue;
			vt_refused(fd, c[i].command, payload, len, NULL, 0, EINVAL,
				"its size is wrong");
		}
	assert_int_equal(dev.maps + dev.resets + dev.reads + dev.writes + dev.moves, 0);
	close(fd);
	/* A version is at least its two numbers. */
	for (len = 0; len < 4; len++) {
		vt_wait(dev.attached == dev.detached);
		fd = vt_connect();
		vt_refused(fd, VFU_VERSION, payload, len, NULL, 0, EINVAL, "its size is wrong");
		assert_true(vt_hung_up(fd));
		close(fd);
	}
	vt_close();
}

static void
cut_off(void **state)
{
	const struct vfu_dma_map map = {32, 3, 0, 0x1000, 0x1000};
	struct {
		struct vfu_header h;
		union {
			struct vfu_dma_map map;
			char version[4 + sizeof(VT_JSON)];
		};
	} __attribute__((packed)) m;
	size_t size, at;
	int fd, mem, round;

	(void)state;
	vt_open(0);
	mem = vt_memory(0x1000);
	for (round = 0; round < 2; round++) {
		memset(&m, 0, sizeof(m));
		size = sizeof(m.h) + (round == 0 ? sizeof(m.version) : sizeof(map));
		m.h = (struct vfu_header){3, round == 0 ? VFU_VERSION : VFU_DMA_MAP, size, 0, 0};
		if (round == 0) {
			m.version[2] = 1;
			memcpy(m.version + 4, VT_JSON, sizeof(VT_JSON));
		} else {
			m.map = map;
		}
		for (at = 0; at <= size; at++) {
			/* Descriptors that came with the part that did. */
			fd = round == 0 ? vt_connect() : vt_ready();
			if (at > 0)
				vt_send(fd, &m, at, &mem, round);
			shutdown(fd, SHUT_WR);
			if (at == size)
				assert_true(vt_next(fd));
			assert_true(vt_hung_up(fd));
			close(fd);
		}
		vt_wait(dev.attached == dev.detached);
		assert_int_equal(dev.maps, round);
		assert_int_equal(dev.attached, round == 0 ? 1 : 1 + size + 1);
	}
	close(mem);
	vt_close();
}

static void
byte_by_byte(void **state)
{
	struct {
		struct vfu_header h;
		struct vfu_dma_map map;
	} m = {{3, VFU_DMA_MAP, sizeof(m), 0, 0}, {32, 3, 0, 0x1000, 0x1000}};
	size_t i, at;
	int fd, mem;

	(void)state;
	vt_open(0);
	mem = vt_memory(0x1000);
	fd = vt_ready();
	/* The descriptor may come with any of the bytes. */
	for (at = 0; at < sizeof(m); at++) {
		m.map.address = at * 0x1000;
		for (i = 0; i < sizeof(m); i++)
			vt_send(fd, (uint8_t *)&m + i, 1, &mem, i == at);
		assert_true(vt_next(fd));
		assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY);
		assert_true(dev.map[at].fd >= 0);
	}
	/* One with each of two bytes are two. */
	m.map.address = at * 0x1000;
	for (i = 0; i < sizeof(m); i++)
		vt_send(fd, (uint8_t *)&m + i, 1, &mem, i == 2 || i == 40);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.error, EINVAL);
	assert_true(vt_logged("it has too many descriptors"));
	close(fd);
	close(mem);
	vt_close();
}

static void
descriptors_that_nobody_wants(void **state)
{
	const struct vfu_dma_map map = {32, 3, 0, 0x1000, 0x1000};
	const struct vfu_irq_set set = {20, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		VD_MSIX, 0, VFU_MAX_FDS};
	static const uint8_t zeros[64];
	static const uint8_t sizes[VFU_COMMAND_MAX] = {
		0, 4, 32, 24, 16, 32, 16, 16, 20, 16, 16, 0, 0, 0, 0, 8, 8, 8, 8};
	unsigned int command, n, before;
	int fd, fds[253];

	(void)state;
	vt_open(0);
	fd = vt_ready();
	before = vt_count_fds();
	fds[0] = eventfd(0, EFD_CLOEXEC);
	for (n = 1; n < 253; n++)
		fds[n] = fds[0];
	for (command = 0; command < VFU_COMMAND_MAX; command++)
		for (n = 1; n <= 253; n = n < 20 ? n + 1 : n + 37) {
			int ret = vt_ask(fd, command, zeros, sizes[command], fds, n);

			assert_true(ret < 0);
		}
	/* And where some are wanted. */
	for (n = 2; n <= 253; n++)
		vt_refused(fd, VFU_DMA_MAP, &map, sizeof(map), fds, n, EINVAL,
			"it has too many descriptors");
	for (n = VFU_MAX_FDS + 1; n <= 253; n++)
		vt_refused(fd, VFU_DEVICE_SET_IRQS, &set, sizeof(set), fds, n, EINVAL,
			"it has too many descriptors");
	for (n = 1; n < VFU_MAX_FDS; n++)
		vt_refused(fd, VFU_DEVICE_SET_IRQS, &set, sizeof(set), fds, n, EINVAL,
			"it has fewer descriptors than interrupts, or more");
	assert_int_equal(vt_ask(fd, VFU_DEVICE_SET_IRQS, &set, sizeof(set), fds, VFU_MAX_FDS), 0);
	close(fds[0]);
	/* What the device keeps is all that is left. */
	vt_works(fd);
	assert_int_equal(vt_count_fds(), before + VFU_MAX_FDS);
	close(fd);
	/* With a version, too. */
	vt_wait(dev.detached == 1);
	fd = vt_connect();
	fds[0] = eventfd(0, EFD_CLOEXEC);
	vt_refused(fd, VFU_VERSION, zeros, 4, fds, 1, EINVAL, "it has too many descriptors");
	assert_true(vt_hung_up(fd));
	close(fds[0]);
	close(fd);
	vt_close();
}

static void
one_after_the_other(void **state)
{
	struct {
		struct vfu_header h;
		struct vfu_region_access a;
		uint8_t data;
	} __attribute__((packed)) m[500];
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	/* All at once, more than a turn's worth, and out again in their order. */
	for (i = 0; i < 500; i++) {
		m[i].h = (struct vfu_header){i, VFU_REGION_WRITE, sizeof(m[0]), 0, 0};
		m[i].a = (struct vfu_region_access){i, VD_SPARSE, i % 5 == 4 ? 2 : 1};
		m[i].data = i;
	}
	vt_send(fd, m, sizeof(m), NULL, 0);
	for (i = 0; i < 500; i++) {
		assert_true(vt_next(fd));
		assert_int_equal(vt_got.header.id, i);
		assert_int_equal(vt_got.header.error, i % 5 == 4 ? EINVAL : 0);
		assert_int_equal(dev.sparse[i], i % 5 == 4 ? 0 : i % 256);
	}
	/* A client that leaves without waiting for its answers. */
	vt_send(fd, m, sizeof(m), NULL, 0);
	close(fd);
	vt_wait(dev.detached == 1);
	vt_close();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_in_the_header),
		cmocka_unit_test(the_largest_message),
		cmocka_unit_test(types),
		cmocka_unit_test(unknown_commands),
		cmocka_unit_test(no_reply),
		cmocka_unit_test(before_the_version),
		cmocka_unit_test(sizes_of_payloads),
		cmocka_unit_test(cut_off),
		cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(descriptors_that_nobody_wants),
		cmocka_unit_test(one_after_the_other),
	};

	vfu_timeout_ms = PATIENCE_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
