/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What lib/vfio_user's server refuses of each command, with which error and reason, and what it
 * does not; versions and their JSON.
 */

#include "vfu_tests.h"

#define ARRAY(a) (sizeof(a) / sizeof((a)[0]))

#define SET_NONE    VFIO_IRQ_SET_DATA_NONE
#define SET_BOOL    VFIO_IRQ_SET_DATA_BOOL
#define SET_FD	    VFIO_IRQ_SET_DATA_EVENTFD
#define SET_MASK    VFIO_IRQ_SET_ACTION_MASK
#define SET_UNMASK  VFIO_IRQ_SET_ACTION_UNMASK
#define SET_TRIGGER VFIO_IRQ_SET_ACTION_TRIGGER

/* ---- regions ---- */

static void
regions(void **state)
{
	struct vfu_region_io_fds io = {256, 0, VD_NB_REGIONS, 0};
	struct vfio_region_info r = {.argsz = 256};
	static const struct {
		struct vfu_region_access a;
		int read, write; /* errors */
	} c[] = {
		{{0, VD_REGS, 8}, 0, 0},
		{{VD_REGS_SIZE - 8, VD_REGS, 8}, 0, 0},
		{{VD_REGS_SIZE - 7, VD_REGS, 8}, EINVAL, EINVAL},
		{{VD_REGS_SIZE, VD_REGS, 8}, EINVAL, EINVAL},
		{{UINT64_MAX, VD_REGS, 8}, EINVAL, EINVAL},
		{{UINT64_MAX - 7, VD_REGS, 8}, EINVAL, EINVAL},
		{{UINT64_C(1) << 63, VD_REGS, 8}, EINVAL, EINVAL},
		{{0, VD_READONLY, 8}, 0, EACCES},
		{{VD_READONLY_SIZE - 7, VD_READONLY, 8}, EINVAL, EINVAL},
		{{0, VD_NONE, 8}, EINVAL, EINVAL},
		{{0, VD_NB_REGIONS, 8}, EINVAL, EINVAL},
		{{0, UINT32_MAX, 8}, EINVAL, EINVAL},
	};
	struct {
		struct vfu_region_access a;
		uint8_t data[8];
	} m = {.data = {1, 2, 3, 4, 5, 6, 7, 8}};
	unsigned int i, done = 0;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (i = 0; i < ARRAY(c); i++) {
		const char *why = c[i].a.region >= VD_NB_REGIONS ? "there is no such region" :
								   "it is not within the region";

		m.a = c[i].a;
		if (c[i].read != 0)
			vt_refused(fd, VFU_REGION_READ, &m, 16, NULL, 0, c[i].read, why);
		else
			assert_int_equal(vt_ask(fd, VFU_REGION_READ, &m, 16, NULL, 0), 24);
		if (c[i].write != 0)
			vt_refused(fd, VFU_REGION_WRITE, &m, sizeof(m), NULL, 0, c[i].write,
				c[i].write == EACCES ? "the region does not allow it" : why);
		else
			assert_int_equal(vt_ask(fd, VFU_REGION_WRITE, &m, sizeof(m), NULL, 0), 16);
		done += c[i].write == 0;
	}
	assert_int_equal(dev.writes, done);
	/* Counts that are not how much there is. */
	m.a = (struct vfu_region_access){0, VD_REGS, 8};
	for (i = 0; i < 20; i++) {
		m.a.count = i;
		if (i != 8)
			vt_refused(fd, VFU_REGION_WRITE, &m, sizeof(m), NULL, 0, EINVAL,
				"count is not how much data it has");
	}
	m.a.count = UINT32_MAX;
	vt_refused(fd, VFU_REGION_WRITE, &m, sizeof(m), NULL, 0, EINVAL,
		"count is not how much data it has");
	vt_refused(fd, VFU_REGION_READ, &m, 16, NULL, 0, EINVAL,
		"it is more data than a message takes");
	/* Of no bytes: the device hears nothing of it. */
	m.a.count = 0;
	dev.reads = dev.writes = 0;
	assert_int_equal(vt_ask(fd, VFU_REGION_READ, &m, 16, NULL, 0), 16);
	assert_int_equal(vt_ask(fd, VFU_REGION_WRITE, &m, 16, NULL, 0), 16);
	m.a.offset = VD_REGS_SIZE;
	assert_int_equal(vt_ask(fd, VFU_REGION_READ, &m, 16, NULL, 0), 16);
	m.a.region = VD_NONE;
	m.a.offset = 0;
	vt_refused(fd, VFU_REGION_READ, &m, 16, NULL, 0, EACCES, "the region does not allow it");
	assert_int_equal(dev.reads + dev.writes, 0);

	for (i = VD_NB_REGIONS; i != 0; i *= 2) {
		r.index = i;
		vt_refused(fd, VFU_DEVICE_GET_REGION_INFO, &r, sizeof(r), NULL, 0, EINVAL,
			"there is no such region");
	}
	vt_refused(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL, 0, EINVAL,
		"there is no such region, or its flags are not 0");
	io = (struct vfu_region_io_fds){256, 1, VD_SPARSE, 0};
	vt_refused(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL, 0, EINVAL,
		"there is no such region, or its flags are not 0");
	io.flags = 0;
	dev.fail = -ENFILE;
	vt_refused(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL, 0, ENFILE, NULL);
	close(fd);
	vt_close();
}

static void
many_writes(void **state)
{
	struct {
		uint64_t count;
		struct vfu_region_write w[5];
	} m;
	uint64_t done;
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	memset(&m, 0, sizeof(m));
	for (i = 0; i < 5; i++) {
		m.w[i] = (struct vfu_region_write){i * 8, VD_SPARSE, i < 4 ? 1 << i : 3, {0}};
		memset(m.w[i].data, 0x10 + i, 8);
	}
	m.count = 5;
	assert_int_equal(vt_ask(fd, VFU_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), 8);
	memcpy(&done, vt_got.payload, sizeof(done));
	assert_int_equal(done, 5);
	assert_int_equal(dev.writes, 5);
	for (i = 0; i < 40; i++)
		assert_int_equal(dev.sparse[i], i % 8 < m.w[i / 8].count ? 0x10 + i / 8 : 0);
	/* Up to the first that is refused. */
	m.w[2].count = 9;
	assert_int_equal(vt_ask(fd, VFU_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), 8);
	memcpy(&done, vt_got.payload, sizeof(done));
	assert_int_equal(done, 2);
	assert_int_equal(dev.writes, 7);
	m.w[0].region = VD_READONLY;
	vt_refused(fd, VFU_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0, EACCES,
		"the region does not allow it");
	m.w[0].count = 9;
	vt_refused(fd, VFU_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0, EINVAL, NULL);
	/* Counts that are not how many there are. */
	for (i = 0; i < 10; i++) {
		m.count = i;
		if (i != 5)
			vt_refused(fd, VFU_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0, EINVAL,
				"wr_cnt is not how many writes it has");
	}
	m.count = 0;
	vt_refused(fd, VFU_REGION_WRITE_MULTI, &m, 8, NULL, 0, EINVAL,
		"wr_cnt is not how many writes it has");
	m.count = UINT64_MAX / sizeof(m.w[0]) + 2;
	vt_refused(fd, VFU_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0, EINVAL,
		"wr_cnt is not how many writes it has");
	m.count = 4;
	for (i = 1; i < sizeof(m.w[0]); i++)
		vt_refused(fd, VFU_REGION_WRITE_MULTI, &m, sizeof(m) - i, NULL, 0, EINVAL,
			"wr_cnt is not how many writes it has");
	assert_int_equal(dev.writes, 7);
	close(fd);
	vt_close();
}

/* ---- memory ---- */

static int
map(int fd, uint64_t address, uint64_t size)
{
	const struct vfu_dma_map m = {sizeof(m), 3, 0, address, size};

	return vt_ask(fd, VFU_DMA_MAP, &m, sizeof(m), NULL, 0);
}

static int
unmap(int fd, uint32_t flags, uint64_t address, uint64_t size)
{
	const struct vfu_dma_unmap m = {sizeof(m), flags, address, size};
	int ret = vt_ask(fd, VFU_DMA_UNMAP, &m, sizeof(m), NULL, 0);

	if (ret >= 0)
		assert_memory_equal(vt_got.payload, &m, sizeof(m));
	return ret;
}

static void
maps(void **state)
{
	struct vfu_dma_map m = {sizeof(m), 3, 0, 0x10000, 0x1000};
	struct vfu_dma_unmap u = {sizeof(u), 0, 0x10000, 0x1000};
	unsigned int i;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	for (m.argsz = 0; m.argsz < sizeof(m); m.argsz++)
		vt_refused(fd, VFU_DMA_MAP, &m, sizeof(m), NULL, 0, EINVAL,
			"argsz or flags are wrong");
	for (i = 0; i < 32; i++) {
		m.flags = i == 0 ? 0 : 1u << i | 1;
		if (i != 1)
			vt_refused(fd, VFU_DMA_MAP, &m, sizeof(m), NULL, 0, EINVAL,
				"argsz or flags are wrong");
	}
	m.flags = 3;
	m.size = 0;
	vt_refused(fd, VFU_DMA_MAP, &m, sizeof(m), NULL, 0, EINVAL,
		"the range is empty, or does not end");
	m.address = UINT64_MAX - 0xffe;
	m.size = 0x1000;
	vt_refused(fd, VFU_DMA_MAP, &m, sizeof(m), NULL, 0, EINVAL,
		"the range is empty, or does not end");
	m.address = 1;
	m.size = UINT64_MAX;
	m.address = 0;
	m.size = 0;
	vt_refused(fd, VFU_DMA_MAP, &m, sizeof(m), NULL, 0, EINVAL,
		"the range is empty, or does not end");
	assert_int_equal(map(fd, 1, UINT64_MAX), 0); /* all but the first byte */
	assert_int_equal(map(fd, 0, 1), 0);
	assert_int_equal(map(fd, 0, 1), -EEXIST);
	assert_int_equal(unmap(fd, 0, 1, UINT64_MAX), 24);
	assert_int_equal(unmap(fd, 0, 0, 1), 24);
	m.address = UINT64_MAX - 0xfff;
	m.size = 0x1000;
	assert_int_equal(map(fd, m.address, m.size), 0); /* up to the last byte */
	assert_int_equal(map(fd, 0x10000, 0x1000), 0);
	assert_int_equal(map(fd, 0x12000, 0x1000), 0);
	{
		const uint64_t overlaps[][2] = {{0x10000, 0x1000}, {0xffff, 2}, {0xffff, 0x4000},
			{0x10fff, 1}, {0x10fff, 0x1001}, {0x10800, 0x10}, {0x11000, 0x1001},
			{0, UINT64_MAX}, {0x12fff, 1}, {UINT64_MAX, 1},
			{0x13000, UINT64_MAX - 0x13000}};

		for (i = 0; i < ARRAY(overlaps); i++) {
			m.address = overlaps[i][0];
			m.size = overlaps[i][1];
			vt_refused(fd, VFU_DMA_MAP, &m, sizeof(m), NULL, 0, EEXIST,
				"it overlaps another map");
		}
	}
	assert_int_equal(map(fd, 0x11000, 0x1000), 0);
	assert_int_equal(map(fd, 0xf000, 0x1000), 0);
	assert_int_equal(map(fd, 0x13000, 0x1), 0);
	assert_int_equal(dev.nb_maps, 6);
	dev.fail = -ENOMEM;
	assert_int_equal(map(fd, 0x20000, 1), -ENOMEM);
	assert_int_equal(map(fd, 0x20000, 1), 0);

	for (u.argsz = 0; u.argsz < sizeof(u); u.argsz++)
		vt_refused(fd, VFU_DMA_UNMAP, &u, sizeof(u), NULL, 0, EINVAL,
			"argsz or flags are wrong");
	for (i = 0; i < 32; i++) {
		u.flags = 1u << i; /* also of all, but with a range */
		vt_refused(fd, VFU_DMA_UNMAP, &u, sizeof(u), NULL, 0, EINVAL,
			"argsz or flags are wrong");
	}
	u.flags = 0;
	{
		const uint64_t others[][2] = {{0x10000, 0xfff}, {0x10000, 0x1001}, {0x10001, 0xfff},
			{0xffff, 1}, {0x10000, 0}, {0, 0}, {0x30000, 0x1000}, {UINT64_MAX, 1},
			{0x10000, UINT64_MAX}, {0x10000, 0x2000}};

		for (i = 0; i < ARRAY(others); i++) {
			u.address = others[i][0];
			u.size = others[i][1];
			vt_refused(fd, VFU_DMA_UNMAP, &u, sizeof(u), NULL, 0, ENOENT,
				"there is no map of just that range");
		}
	}
	dev.fail = -EBUSY;
	assert_int_equal(unmap(fd, 0, 0x10000, 0x1000), -EBUSY);
	assert_int_equal(map(fd, 0x10000, 0x1000), -EEXIST);
	assert_int_equal(unmap(fd, 0, 0x10000, 0x1000), 24);
	assert_int_equal(unmap(fd, 0, 0x10000, 0x1000), -ENOENT);
	assert_int_equal(map(fd, 0x10000, 0x1000), 0);
	dev.fail = -EBUSY;
	assert_int_equal(unmap(fd, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0), -EBUSY);
	assert_int_equal(dev.nb_maps, 7);
	assert_int_equal(unmap(fd, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0), 24);
	assert_int_equal(dev.nb_maps, 0);
	assert_int_equal(unmap(fd, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0), 24);
	close(fd);
	vt_close();
}

static void
too_many_maps(void **state)
{
	const struct vfu_dma_map last = {32, 3, 0, UINT64_C(1) << 60, 1};
	unsigned int i, at;
	int fd;

	(void)state;
	vt_open(0);
	fd = vt_ready();
	/* In an order that is none. */
	for (i = 0; i < VFU_MAX_MAPS; i++) {
		at = i * 1237 % VFU_MAX_MAPS;
		assert_int_equal(map(fd, at * UINT64_C(0x10000), 0x10000), 0);
	}
	vt_refused(
		fd, VFU_DMA_MAP, &last, sizeof(last), NULL, 0, ENOSPC, "there are too many maps");
	for (i = 0; i < VFU_MAX_MAPS; i++)
		assert_int_equal(map(fd, i * UINT64_C(0x10000) + i, 1), -EEXIST);
	for (i = 0; i < VFU_MAX_MAPS; i += 2)
		assert_int_equal(unmap(fd, 0, i * UINT64_C(0x10000), 0x10000), 24);
	assert_int_equal(dev.nb_maps, VFU_MAX_MAPS / 2);
	assert_int_equal(vt_ask(fd, VFU_DMA_MAP, &last, sizeof(last), NULL, 0), 0);
	/* The others go with the client. */
	close(fd);
	vt_wait(dev.detached == 1);
	fd = vt_ready();
	assert_int_equal(map(fd, 0, UINT64_MAX), 0);
	close(fd);
	vt_close();
}

/* ---- interrupts ---- */

static int
set(int fd, uint32_t flags, uint32_t index, uint32_t start, uint32_t count, size_t bools,
	const int *fds, unsigned int nb_fds)
{
	uint8_t payload[100] = {0};
	const struct vfu_irq_set s = {20, flags, index, start, count};

	memcpy(payload, &s, sizeof(s));
	memset(payload + sizeof(s), 1, bools);
	return vt_ask(fd, VFU_DEVICE_SET_IRQS, payload, sizeof(s) + bools, fds, nb_fds);
}

static void
must_refuse(int ret, int error, const char *why)
{
	assert_int_equal(ret, -error);
	if (why != NULL && !vt_logged(why))
		fail_msg("the log does not have: %s", why);
}

static void
interrupts(void **state)
{
	static const uint32_t ranges[][2] = {{0, VD_NB_MSIX + 1}, {1, VD_NB_MSIX}, {VD_NB_MSIX, 1},
		{UINT32_MAX, 1}, {1, UINT32_MAX}, {UINT32_MAX, UINT32_MAX}, {VD_NB_MSIX + 1, 0}};
	struct vfu_irq_info info = {16, 0, VD_NB_IRQS, 0};
	struct vfu_irq_set s = {0, SET_NONE | SET_TRIGGER, VD_MSIX, 0, 1};
	uint32_t flags, i;
	int fd, fds[3];

	(void)state;
	vt_open(0);
	fd = vt_ready();
	vt_refused(fd, VFU_DEVICE_GET_IRQ_INFO, &info, sizeof(info), NULL, 0, EINVAL,
		"there is no such type of interrupts");
	for (i = VD_NB_IRQS; i != 0; i *= 2)
		must_refuse(set(fd, SET_NONE | SET_TRIGGER, i, 0, 0, 0, NULL, 0), EINVAL,
			"there is no such type of interrupts");
	for (; s.argsz < sizeof(s); s.argsz++)
		vt_refused(fd, VFU_DEVICE_SET_IRQS, &s, sizeof(s), NULL, 0, EINVAL,
			"argsz or flags are wrong");
	/* One of each of the two sorts, and nothing else. */
	for (flags = 0; flags < 128; flags++) {
		bool data = __builtin_popcount(flags & 7) == 1,
		     action = __builtin_popcount(flags & 0x38) == 1;

		if (!data || !action || flags >= 64)
			must_refuse(
				set(fd, flags, VD_INTX, 0, 1, (flags & SET_BOOL) ? 1 : 0, NULL, 0),
				EINVAL, "argsz or flags are wrong");
		else
			assert_int_equal(
				set(fd, flags, VD_INTX, 0, 1, (flags & SET_BOOL) ? 1 : 0, NULL, 0),
				(flags & SET_MASK) && (flags & SET_FD) ? -ENOTSUP : 0);
	}
	must_refuse(set(fd, 1u << 31 | SET_NONE | SET_TRIGGER, VD_INTX, 0, 1, 0, NULL, 0), EINVAL,
		"argsz or flags are wrong");
	must_refuse(set(fd, SET_MASK | SET_FD, VD_INTX, 0, 1, 0, NULL, 0), ENOTSUP,
		"no eventfd tells of masking");
	for (i = 0; i < ARRAY(ranges); i++)
		must_refuse(set(fd, SET_NONE | SET_TRIGGER, VD_MSIX, ranges[i][0], ranges[i][1], 0,
				    NULL, 0),
			EINVAL, "there are not as many interrupts of that type");
	must_refuse(set(fd, SET_NONE | SET_TRIGGER, VD_EMPTY, 0, 1, 0, NULL, 0), EINVAL,
		"there are not as many interrupts of that type");
	must_refuse(set(fd, SET_NONE | SET_MASK, VD_MSIX, 0, 1, 0, NULL, 0), ENOTSUP,
		"these are not masked");
	must_refuse(set(fd, SET_FD | SET_UNMASK, VD_MSIX, 0, 1, 0, NULL, 0), ENOTSUP,
		"these are not masked");
	for (i = 0; i < 6; i++) {
		if (i != 3)
			must_refuse(set(fd, SET_BOOL | SET_TRIGGER, VD_MSIX, 0, 3, i, NULL, 0),
				EINVAL, "its data are not what its flags say");
		if (i != 0)
			must_refuse(set(fd, SET_NONE | SET_TRIGGER, VD_MSIX, 0, 3, i, NULL, 0),
				EINVAL, "its data are not what its flags say");
		if (i != 0)
			must_refuse(set(fd, SET_FD | SET_TRIGGER, VD_MSIX, 0, 3, i, NULL, 0),
				EINVAL, "its data are not what its flags say");
	}
	for (i = 0; i < 3; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	must_refuse(set(fd, SET_NONE | SET_TRIGGER, VD_MSIX, 0, 3, 0, fds, 3), EINVAL,
		"its data are not what its flags say");
	/* Where one of them is refused by the device none has any. */
	assert_int_equal(set(fd, SET_FD | SET_TRIGGER, VD_MSIX, 5, 3, 0, fds, 3), 0);
	assert_true(dev.irq_fd[VD_MSIX][7] >= 0);
	dev.fail = -EMFILE;
	must_refuse(set(fd, SET_FD | SET_TRIGGER, VD_MSIX, 5, 3, 0, fds, 3), EMFILE, NULL);
	for (i = 5; i < 8; i++)
		assert_int_equal(dev.irq_fd[VD_MSIX][i], -1);
	/* A bool that is not set does nothing. */
	memset(dev.triggers, 0, sizeof(dev.triggers));
	{
		const struct {
			struct vfu_irq_set s;
			uint8_t b[4];
		} b = {{24, SET_BOOL | SET_TRIGGER, VD_MSIX, 10, 4}, {0, 1, 0, 0xff}};

		assert_int_equal(vt_ask(fd, VFU_DEVICE_SET_IRQS, &b, sizeof(b), NULL, 0), 0);
	}
	for (i = 0; i < VD_NB_MSIX; i++)
		assert_int_equal(dev.triggers[i], i == 11 || i == 13);
	for (i = 0; i < 3; i++)
		close(fds[i]);
	close(fd);
	vt_close();

	/* A device that does not do such things. */
	vt_open(VD_NO_MASK);
	fd = vt_ready();
	must_refuse(set(fd, SET_NONE | SET_TRIGGER, VD_MSIX, 0, 1, 0, NULL, 0), ENOTSUP, NULL);
	must_refuse(set(fd, SET_NONE | SET_MASK, VD_INTX, 0, 1, 0, NULL, 0), ENOTSUP, NULL);
	must_refuse(set(fd, SET_FD | SET_UNMASK, VD_INTX, 0, 1, 0, NULL, 0), ENOTSUP, NULL);
	assert_int_equal(set(fd, SET_NONE | SET_TRIGGER, VD_INTX, 0, 0, 0, NULL, 0), 0);
	close(fd);
	vt_close();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(regions),
		cmocka_unit_test(many_writes),
		cmocka_unit_test(maps),
		cmocka_unit_test(too_many_maps),
		cmocka_unit_test(interrupts),
	};

	vfu_timeout_ms = PATIENCE_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
