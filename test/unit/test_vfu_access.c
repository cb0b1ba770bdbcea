/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lib/vfio_user's server reads and writes a client's memory by messages, of clients that answer,
 * and of those that don't.
 */

#include "vfu_tests.h"

#define SLOW_MS 300 /* a deadline that is waited for */
#define AT	0x4000u
#define SIZE	0x300000u

static void
write_reg(int fd, uint64_t offset, uint64_t value)
{
	const struct {
		struct vfu_region_access a;
		uint64_t value;
	} m = {{offset, VD_REGS, 8}, value};

	assert_int_equal(vt_ask(fd, VFU_REGION_WRITE, &m, sizeof(m), NULL, 0), 16);
}

/* Nothing is waited for: the server does, for the client. */
static void
go(int fd, uint8_t how, uint32_t flags)
{
	struct {
		struct vfu_region_access a;
		uint8_t how;
	} __attribute__((packed)) m = {{VD_REG_GO, VD_REGS, 1}, how};

	vt_post(fd, VFU_REGION_WRITE, flags, &m, sizeof(m), NULL, 0);
}

static int64_t
result(void)
{
	int64_t r;

	memcpy(&r, dev.regs + VD_REG_RESULT, sizeof(r));
	return r;
}

/* A client that has asked for an access of len bytes, and got the command of it. */
static int
asked(uint8_t how, uint64_t len, const char *json)
{
	const struct vfu_dma_map map = {32, 3, 0, AT, SIZE};
	char version[100] = "\0\0\1";
	struct vfu_dma_access a;
	int fd;

	vt_wait(dev.attached == dev.detached);
	fd = vt_connect();
	snprintf(version + 4, sizeof(version) - 4, "{\"capabilities\":{%s}}", json);
	assert_true(vt_ask(fd, VFU_VERSION, version, 4 + strlen(version + 4) + 1, NULL, 0) > 0);
	assert_int_equal(vt_ask(fd, VFU_DMA_MAP, &map, sizeof(map), NULL, 0), 0);
	write_reg(fd, VD_REG_ADDRESS, AT + 8);
	write_reg(fd, VD_REG_LEN, len);
	write_reg(fd, VD_REG_RESULT, 1);
	memset(dev.regs + VD_DATA, 0x11, len);
	go(fd, how, 0);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, how == 1 ? VFU_DMA_READ : VFU_DMA_WRITE);
	assert_int_equal(vt_got.header.flags, VFU_TYPE_COMMAND);
	memcpy(&a, vt_got.payload, sizeof(a));
	assert_int_equal(a.address, AT + 8);
	return fd;
}

/* An answer to what is in vt_got, that is right but for what the caller changes of it. */
struct answer {
	struct vfu_header h;
	struct vfu_dma_access a;
	uint8_t data[64];
} __attribute__((packed));

static struct answer
right(void)
{
	struct answer r = {.h = vt_got.header};

	r.h.flags = VFU_TYPE_REPLY;
	memcpy(&r.a, vt_got.payload, sizeof(r.a));
	memset(r.data, 0x55, sizeof(r.data));
	r.h.size = sizeof(r.h) + sizeof(r.a) + (r.h.command == VFU_DMA_READ ? r.a.count : 0);
	return r;
}

static void
finish(int fd)
{
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_REGION_WRITE);
	assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY);
	vt_works(fd);
	close(fd);
}

static void
given_up(int fd, int64_t error, const char *why)
{
	vt_wait(dev.attached == dev.detached);
	assert_int_equal(result(), error);
	if (!vt_logged(why))
		fail_msg("the log does not have: %s", why);
	assert_true(vt_hung_up(fd));
	close(fd);
}

static void
right_answers(void **state)
{
	struct answer r;
	int fd;

	(void)state;
	vt_open(0);
	fd = asked(1, 16, "");
	r = right();
	vt_send(fd, &r, r.h.size, NULL, 0);
	finish(fd);
	assert_int_equal(result(), 0);
	assert_int_equal(dev.regs[VD_DATA + 15], 0x55);
	assert_int_equal(dev.regs[VD_DATA + 16], 0);

	fd = asked(2, 16, "");
	assert_int_equal(vt_got.len, 32);
	assert_int_equal(vt_got.payload[16], 0x11);
	r = right();
	vt_send(fd, &r, r.h.size, NULL, 0);
	finish(fd);
	assert_int_equal(result(), 0);
	/* With a count of 4 bytes, as in the specification's table. */
	fd = asked(2, 16, "");
	r = right();
	r.h.size -= 4;
	vt_send(fd, &r, r.h.size, NULL, 0);
	finish(fd);
	assert_int_equal(result(), 0);
	/* One that comes in pieces, with a descriptor that nobody wants. */
	fd = asked(1, 16, "");
	r = right();
	{
		unsigned int i;
		int event = eventfd(0, EFD_CLOEXEC);

		for (i = 0; i < r.h.size; i++)
			vt_send(fd, (uint8_t *)&r + i, 1, &event, i % 2);
		close(event);
	}
	finish(fd);
	assert_int_equal(result(), 0);
	vt_close();
}

static void
errors_of_the_client(void **state)
{
	const struct {
		uint32_t said;
		int got;
	} c[] = {{EFAULT, -EFAULT}, {1, -EPERM}, {4095, -4095}, {0, -EIO}, {4096, -EIO},
		{UINT32_MAX, -EIO}, {0x80000000, -EIO},
		/* which are the library's own, too */
		{EPIPE, -EPIPE}, {ETIMEDOUT, -ETIMEDOUT}, {EPROTO, -EPROTO}, {ENOBUFS, -ENOBUFS}};
	struct answer r;
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	for (i = 0; i < 2 * sizeof(c) / sizeof(c[0]); i++) {
		fd = asked(1 + i % 2, 16, "");
		r = right();
		r.h.flags |= VFU_ERROR;
		r.h.error = c[i / 2].said;
		r.h.size = i % 4 < 2 ? sizeof(r.h) : r.h.size;
		vt_send(fd, &r, r.h.size, NULL, 0);
		finish(fd);
		assert_int_equal(result(), c[i / 2].got);
		assert_int_equal(dev.regs[VD_DATA], 0x11);
	}
	vt_close();
}

static void
wrong_answers(void **state)
{
	static const char *const why = "client: its answer does not fit what was asked";
	struct answer r;
	unsigned int i, how;
	int fd;

	(void)state;
	vt_open(0);
	for (how = 1; how <= 2; how++) {
		for (i = 0; i < 12; i++) {
			fd = asked(how, 16, "");
			dev.server->told = 0;
			r = right();
			switch (i) {
			case 0:
				r.h.id++;
				break;
			case 1:
				r.h.id--;
				break;
			case 2:
				r.h.command = how == 1 ? VFU_DMA_WRITE : VFU_DMA_READ;
				break;
			case 3:
				r.a.address++;
				break;
			case 4:
				r.a.count++;
				break;
			case 5:
				r.a.count = 0;
				break;
			case 6:
				r.a.count |= how == 1 ? UINT64_C(1) << 32 : UINT64_C(1) << 31;
				break;
			case 7:
				r.h.size = sizeof(r.h);
				break;
			case 8:
				r.h.size = sizeof(r.h) + 11;
				break;
			case 9:
				r.h.size++;
				break;
			case 10:
				r.h.size = sizeof(r.h) + 15;
				break;
			default:
				r.h.size += 16;
				break;
			}
			vt_send(fd, &r, r.h.size, NULL, 0);
			given_up(fd, -EPROTO, why);
			assert_int_equal(dev.regs[VD_DATA], 0x11);
		}
		for (i = 0; i < sizeof(r.h); i++) {
			fd = asked(how, 16, "");
			dev.server->told = 0;
			r = right();
			r.h.size = i;
			vt_send(fd, &r, sizeof(r.h), NULL, 0);
			given_up(fd, -EPROTO, "client: no answer has that size");
		}
	}
	vt_close();
}

static void
no_answers(void **state)
{
	const struct vfu_region_access a = {0, VD_REGS, 8};
	struct answer r;
	unsigned int i, n;
	int fd;

	(void)state;
	vfu_timeout_ms = SLOW_MS;
	vt_open(0);
	/* None, half of one, and a byte now and then. */
	fd = asked(1, 16, "");
	given_up(fd, -ETIMEDOUT, "client: does not answer");
	fd = asked(2, 16, "");
	r = right();
	vt_send(fd, &r, 20, NULL, 0);
	given_up(fd, -ETIMEDOUT, "client: does not answer");
	fd = asked(1, 16, "");
	r = right();
	for (i = 0; i < r.h.size; i++) {
		if (send(fd, (uint8_t *)&r + i, 1, MSG_NOSIGNAL) < 0)
			break;
		usleep(SLOW_MS * 1000 / 10);
	}
	assert_true(i < r.h.size);
	given_up(fd, -ETIMEDOUT, "client: does not answer");
	/* One that wants single bytes, each in time, has no more of it for that. */
	fd = asked(1, 100, "\"max_data_xfer_size\":1");
	for (i = 0; i < 100; i++) {
		r = right();
		assert_int_equal(r.a.count, 1);
		if (send(fd, &r, r.h.size, MSG_NOSIGNAL) < 0)
			break;
		usleep(SLOW_MS * 1000 / 10);
		if (!vt_next(fd))
			break;
	}
	assert_true(i < 99);
	given_up(fd, -ETIMEDOUT, "client: does not answer");
	vfu_timeout_ms = PATIENCE_MS;
	vt_close();

	vt_open(0);
	/* It leaves, with each part of an answer. */
	fd = asked(1, 16, "");
	r = right();
	for (i = 0;; i++) {
		dev.server->told = 0;
		if (i > 0)
			vt_send(fd, &r, i, NULL, 0);
		close(fd);
		vt_wait(dev.attached == dev.detached);
		assert_int_equal(result(), -EPIPE);
		assert_true(vt_logged("client: leaves instead of answering"));
		if (i == r.h.size - 1)
			break;
		fd = asked(1, 16, "");
		r = right();
	}
	/* Commands instead, up to what is kept for later; none of them is done then. */
	fd = asked(1, 16, "");
	n = dev.reads;
	for (i = 0; i <= VFU_MAX_EARLY; i++)
		vt_post(fd, VFU_REGION_READ, 0, &a, sizeof(a), NULL, 0);
	given_up(fd, -ENOBUFS, "client: sends commands instead of answering");
	assert_int_equal(dev.reads, n);
	vt_close();
}

static void
commands_meanwhile(void **state)
{
	struct {
		struct vfu_header h;
		struct vfu_region_access a;
		uint8_t data;
	} __attribute__((packed)) m[VFU_MAX_EARLY];
	struct vfu_dma_map map = {32, 3, 0, 0x10000000, 0x1000};
	struct answer r;
	unsigned int i;
	int fd, mem;

	(void)state;
	vt_open(0);
	fd = asked(1, 16, "");
	r = right();
	for (i = 0; i < VFU_MAX_EARLY; i++) {
		m[i].h = (struct vfu_header){1000 + i, VFU_REGION_WRITE, sizeof(m[0]), 0, 0};
		m[i].a = (struct vfu_region_access){i, VD_SPARSE, 1};
		m[i].data = i;
	}
	vt_send(fd, m, sizeof(m), NULL, 0);
	usleep(10000);
	/* Nothing of them before the command that they came in. */
	assert_int_equal(dev.writes, 4);
	vt_send(fd, &r, r.h.size, NULL, 0);
	vt_send(fd, m, sizeof(m), NULL, 0);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_REGION_WRITE);
	assert_int_equal(vt_got.len, 16);
	for (i = 0; i < 2 * VFU_MAX_EARLY; i++) {
		assert_true(vt_next(fd));
		assert_int_equal(vt_got.header.id, 1000 + i % VFU_MAX_EARLY);
	}
	vt_works(fd);
	close(fd);
	/* A turn's worth behind each other, of which the last one waits, and others behind it. */
	fd = vt_ready();
	{
		const struct vfu_dma_map all = {32, 3, 0, AT, SIZE};

		assert_int_equal(vt_ask(fd, VFU_DMA_MAP, &all, sizeof(all), NULL, 0), 0);
	}
	write_reg(fd, VD_REG_ADDRESS, AT + 8);
	write_reg(fd, VD_REG_LEN, 16);
	vt_send(fd, m, (VFU_MAX_EARLY - 1) * sizeof(m[0]), NULL, 0);
	go(fd, 1, 0);
	for (i = 0; i < VFU_MAX_EARLY - 1; i++)
		assert_true(vt_next(fd));
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_DMA_READ);
	r = right();
	vt_send(fd, m, sizeof(m), NULL, 0);
	vt_send(fd, &r, r.h.size, NULL, 0);
	for (i = 0; i < VFU_MAX_EARLY + 1; i++)
		assert_true(vt_next(fd));
	vt_works(fd);
	close(fd);
	/* Of those that came early, one has the device ask again. */
	fd = asked(1, 16, "");
	r = right();
	go(fd, 2, 0);
	mem = vt_memory(0x1000);
	vt_post(fd, VFU_DMA_MAP, 0, &map, sizeof(map), &mem, 1);
	vt_send(fd, &r, r.h.size, NULL, 0);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_REGION_WRITE);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_DMA_WRITE);
	assert_int_equal(dev.nb_maps, 1);
	r = right();
	vt_send(fd, &r, r.h.size, NULL, 0);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_REGION_WRITE);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_DMA_MAP);
	assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY);
	assert_true(dev.map[1].fd >= 0);
	vt_works(fd);
	close(fd);
	/* Given up with some that are early, and their descriptors: all of them are closed. */
	fd = asked(1, 16, "");
	r = right();
	r.h.id++;
	for (i = 0; i < 10; i++)
		vt_post(fd, VFU_DMA_MAP, VFU_NO_REPLY, &map, sizeof(map), &mem, 1);
	vt_send(fd, &r, r.h.size, NULL, 0);
	given_up(fd, -EPROTO, "client: its answer does not fit what was asked");
	close(mem);
	assert_int_equal(dev.maps, 5);
	vt_close();
}

static void
nothing_after_the_end(void **state)
{
	const struct {
		struct vfu_region_access a;
		uint64_t value;
	} m = {{0x800, VD_REGS, 8}, 77};
	struct answer r;
	int fd;

	(void)state;
	vt_open(0);
	fd = asked(1, 16, "");
	r = right();
	r.h.id++;
	vt_post(fd, VFU_REGION_WRITE, VFU_NO_REPLY, &m, sizeof(m), NULL, 0);
	vt_send(fd, &r, r.h.size, NULL, 0);
	/* May be too late: the server has hung up. */
	send(fd, &m, sizeof(m), MSG_NOSIGNAL);
	vt_wait(dev.attached == dev.detached);
	assert_int_equal(result(), -EPROTO);
	assert_int_equal(dev.regs[0x800], 0);
	close(fd);
	vt_close();
}

static void
not_mapped(void **state)
{
	static const struct {
		uint64_t address, len;
		uint8_t how;
	} c[] = {{0, 1, 1}, {AT - 1, 1, 1}, {AT - 1, 2, 1}, {AT + SIZE, 1, 2},
		{AT + SIZE - 1, 2, 2}, {UINT64_MAX, 1, 1}, {UINT64_MAX, 2, 1}, {AT, SIZE + 1, 1},
		{0x800000, 8, 2}, {0x900000, 8, 1}, {0x800ff8, 16, 1}};
	const struct vfu_dma_map map[] = {{32, 3, 0, AT, SIZE},
		{32, VFIO_DMA_MAP_FLAG_READ, 0, 0x800000, 0x1000},
		{32, VFIO_DMA_MAP_FLAG_WRITE, 0, 0x900000, 0x1000}, {32, 3, 0, 0x801000, 0x1000}};
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		assert_int_equal(vt_ask(fd, VFU_DMA_MAP, &map[i], sizeof(map[i]), NULL, 0), 0);
	for (i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		write_reg(fd, VD_REG_ADDRESS, c[i].address);
		write_reg(fd, VD_REG_LEN, c[i].len > VD_DATA_SIZE ? VD_DATA_SIZE : c[i].len);
		if (c[i].len > VD_DATA_SIZE)
			write_reg(fd, VD_REG_ADDRESS, AT + SIZE - VD_DATA_SIZE + 1);
		go(fd, c[i].how, 0);
		assert_true(vt_next(fd));
		assert_int_equal(vt_got.header.command, VFU_REGION_WRITE);
		assert_int_equal(result(), -EFAULT);
	}
	/* What is unmapped is not asked for any more. */
	{
		const struct vfu_dma_unmap u = {24, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0};

		assert_int_equal(vt_ask(fd, VFU_DMA_UNMAP, &u, sizeof(u), NULL, 0), 24);
	}
	write_reg(fd, VD_REG_ADDRESS, AT);
	write_reg(fd, VD_REG_LEN, 1);
	go(fd, 1, 0);
	assert_true(vt_next(fd));
	assert_int_equal(vt_got.header.command, VFU_REGION_WRITE);
	assert_int_equal(result(), -EFAULT);
	close(fd);
	vt_close();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(right_answers),
		cmocka_unit_test(errors_of_the_client),
		cmocka_unit_test(wrong_answers),
		cmocka_unit_test(no_answers),
		cmocka_unit_test(commands_meanwhile),
		cmocka_unit_test(nothing_after_the_end),
		cmocka_unit_test(not_mapped),
	};

	vfu_timeout_ms = PATIENCE_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
