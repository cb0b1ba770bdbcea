/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Both ends of lib/vfio_user, each doing what it should: every command of the client, as the device
 * sees it.
 */

#include "vfu_tests.h"

static uint8_t guest[0x300000]; /* memory of the client without a descriptor */
static unsigned int dma_calls;

static int
guest_read(void *priv, uint64_t address, void *buf, size_t len)
{
	assert_ptr_equal(priv, guest);
	dma_calls++;
	if (address >= sizeof(guest) || len > sizeof(guest) - address)
		return -EFAULT;
	memcpy(buf, guest + address, len);
	return 0;
}

static int
guest_write(void *priv, uint64_t address, const void *buf, size_t len)
{
	assert_ptr_equal(priv, guest);
	dma_calls++;
	if (address >= sizeof(guest) || len > sizeof(guest) - address)
		return -EFAULT;
	memcpy(guest + address, buf, len);
	return 0;
}

static const struct vfu_client_ops guest_ops = {guest_read, guest_write};

static struct vfu_client *
connected(unsigned int without)
{
	struct vfu_client *c = NULL;

	vt_open(without);
	assert_int_equal(vfu_client_connect(vt_path, &guest_ops, guest, PATIENCE_MS, NULL, &c), 0);
	assert_true(vfu_client_fd(c) >= 0);
	vt_wait(dev.attached == 1);
	return c;
}

static void
finished(struct vfu_client *c)
{
	vfu_client_close(c);
	vt_wait(dev.detached == dev.attached);
	vt_close();
}

static void
info(void **state)
{
	struct vfu_client *c = connected(0);
	struct vfu_device_info i;

	(void)state;
	assert_int_equal(vfu_client_info(c, &i), 0);
	assert_int_equal(i.argsz, 16);
	assert_int_equal(i.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
	assert_int_equal(i.num_regions, VD_NB_REGIONS);
	assert_int_equal(i.num_irqs, VD_NB_IRQS);
	assert_int_equal(vfu_server_client(dev.server), getpid());
	finished(c);
}

static void
regions(void **state)
{
	const uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	struct vfu_client *c = connected(0);
	struct vfu_region r;
	uint8_t *map;

	(void)state;
	assert_int_equal(vfu_client_region(c, VD_REGS, &r), 0);
	assert_int_equal(r.size, VD_REGS_SIZE);
	assert_int_equal(r.flags, both);
	assert_int_equal(r.fd, -1);
	assert_int_equal(r.nb_areas, 0);

	assert_int_equal(vfu_client_region(c, VD_SPARSE, &r), 0);
	assert_int_equal(r.size, VD_SPARSE_SIZE);
	assert_int_equal(r.flags, both);
	assert_true(r.fd >= 0);
	assert_int_equal(r.nb_areas, 2);
	assert_int_equal(r.area[0].offset, 0x1000);
	assert_int_equal(r.area[0].size, 0x1000);
	assert_int_equal(r.area[1].offset, 0x3000);
	assert_int_equal(r.area[1].size, 0x1000);
	close(r.fd);

	assert_int_equal(vfu_client_region(c, VD_WHOLE, &r), 0);
	assert_int_equal(r.offset, 0x1000);
	assert_int_equal(r.nb_areas, 0);
	map = mmap(NULL, r.size, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, r.offset);
	assert_ptr_not_equal(map, MAP_FAILED);
	map[5] = 77;
	assert_int_equal(dev.whole[0x1005], 77);
	munmap(map, r.size);
	close(r.fd);

	assert_int_equal(vfu_client_region(c, VD_READONLY, &r), 0);
	assert_int_equal(r.flags, VFIO_REGION_INFO_FLAG_READ);
	assert_int_equal(vfu_client_region(c, VD_NONE, &r), 0);
	assert_int_equal(r.size, 0);
	assert_int_equal(vfu_client_region(c, VD_NB_REGIONS, &r), -EINVAL);
	assert_true(vt_logged("DEVICE_GET_REGION_INFO is refused: Invalid argument: "
			      "there is no such region"));
	finished(c);
}

static void
doorbells(void **state)
{
	struct vfu_ioeventfd fds[VFU_MAX_FDS];
	struct vfu_client *c = connected(0);
	uint64_t n;
	int i;

	(void)state;
	assert_int_equal(vfu_client_ioeventfds(c, VD_REGS, fds), 0);
	assert_int_equal(vfu_client_ioeventfds(c, VD_SPARSE, fds), VD_NB_IOEVENTFDS);
	for (i = 0; i < VD_NB_IOEVENTFDS; i++) {
		assert_int_equal(fds[i].offset, i * 4);
		assert_int_equal(fds[i].size, i == 0 ? 0 : 2);
		eventfd_write(fds[i].fd, i + 1);
		assert_int_equal(read(dev.ioeventfd[i], &n, sizeof(n)), sizeof(n));
		assert_int_equal(n, i + 1);
		close(fds[i].fd);
	}
	assert_int_equal(vfu_client_ioeventfds(c, VD_NB_REGIONS, fds), -EINVAL);
	finished(c);
	c = connected(VD_NO_IOEVENTFDS);
	assert_int_equal(vfu_client_ioeventfds(c, VD_SPARSE, fds), 0);
	finished(c);
}

static void
accesses(void **state)
{
	const size_t lens[] = {1, 2, 4, 8, 3, 4096, VFU_MAX_XFER, VFU_MAX_XFER + 1, 0x200000};
	static uint8_t out[0x200000], in[0x200000];
	struct vfu_client *c = connected(0);
	unsigned int i, k;

	(void)state;
	for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		for (k = 0; k < lens[i]; k++)
			out[k] = i + k + k / 256;
		assert_int_equal(vfu_client_write(c, VD_REGS, 0x100, out, lens[i]), 0);
		assert_memory_equal(dev.regs + 0x100, out, lens[i]);
		memset(in, 0, lens[i]);
		assert_int_equal(vfu_client_read(c, VD_REGS, 0x100, in, lens[i]), 0);
		assert_memory_equal(in, out, lens[i]);
	}
	assert_int_equal(vfu_client_read(c, VD_READONLY, 60, in, 4), 0);
	assert_memory_equal(in, dev.readonly + 60, 4);
	assert_int_equal(vfu_client_read(c, VD_READONLY, 61, in, 4), -EINVAL);
	assert_int_equal(vfu_client_write(c, VD_READONLY, 0, in, 4), -EACCES);
	assert_int_equal(vfu_client_read(c, VD_NONE, 0, in, 1), -EINVAL);
	assert_int_equal(vfu_client_write(c, VD_NB_REGIONS, 0, in, 1), -EINVAL);
	dev.fail = -ENXIO;
	assert_int_equal(vfu_client_read(c, VD_REGS, 0, in, 1), -ENXIO);
	dev.fail = -ENXIO;
	assert_int_equal(vfu_client_write(c, VD_REGS, 0, in, 1), -ENXIO);
	finished(c);
}

static void
maps(void **state)
{
	struct vfu_client *c = connected(0);
	struct vfu_dma dma = {0x10000, 0x4000, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		vt_memory(0x8000), 0x1000};
	uint8_t byte = 0;

	(void)state;
	assert_int_equal(vfu_client_dma_map(c, &dma), 0);
	assert_int_equal(dev.nb_maps, 1);
	assert_int_equal(dev.map[0].address, 0x10000);
	assert_int_equal(dev.map[0].size, 0x4000);
	assert_int_equal(dev.map[0].offset, 0x1000);
	assert_int_equal(dev.map[0].flags, 3);
	assert_int_equal(pwrite(dma.fd, "x", 1, 0x1000), 1);
	assert_int_equal(pread(dev.map[0].fd, &byte, 1, 0x1000), 1);
	assert_int_equal(byte, 'x');
	assert_int_equal(vfu_client_dma_map(c, &dma), -EEXIST);
	close(dma.fd);
	dma = (struct vfu_dma){0x0, 0x10000, VFIO_DMA_MAP_FLAG_READ, -1, 0};
	assert_int_equal(vfu_client_dma_map(c, &dma), 0);
	assert_int_equal(dev.nb_maps, 2);
	assert_int_equal(dev.map[1].fd, -1);
	assert_int_equal(vfu_client_dma_unmap(c, 0x10000, 0x2000), -ENOENT);
	assert_int_equal(vfu_client_dma_unmap(c, 0x10000, 0x4000), 0);
	assert_int_equal(dev.nb_maps, 1);
	/* The other stays: it is the device's to forget. */
	finished(c);
}

static void
messages_for_memory(void **state)
{
	const struct vfu_dma dma = {0, sizeof(guest), 3, -1, 0};
	const uint64_t len = 0x180000, address = 0x1003;
	struct vfu_client *c = connected(0);
	int64_t result;
	unsigned int i;

	(void)state;
	assert_int_equal(vfu_client_dma_map(c, &dma), 0);
	for (i = 0; i < sizeof(guest); i++)
		guest[i] = i * 3 + i / 256;
	dma_calls = 0;
	assert_int_equal(vfu_client_write(c, VD_REGS, VD_REG_ADDRESS, &address, 8), 0);
	assert_int_equal(vfu_client_write(c, VD_REGS, VD_REG_LEN, &len, 8), 0);
	assert_int_equal(vfu_client_write(c, VD_REGS, VD_REG_GO, "\1", 1), 0);
	assert_int_equal(vfu_client_read(c, VD_REGS, VD_REG_RESULT, &result, 8), 0);
	assert_int_equal(result, 0);
	assert_memory_equal(dev.regs + VD_DATA, guest + address, len);
	assert_int_equal(dma_calls, 2);

	memset(dev.regs + VD_DATA, 0x5a, len);
	assert_int_equal(vfu_client_write(c, VD_REGS, VD_REG_GO, "\2", 1), 0);
	assert_int_equal(vfu_client_read(c, VD_REGS, VD_REG_RESULT, &result, 8), 0);
	assert_int_equal(result, 0);
	assert_memory_equal(dev.regs + VD_DATA, guest + address, len);
	assert_int_equal(guest[address - 1], (uint8_t)((address - 1) * 3 + (address - 1) / 256));
	assert_int_equal(dma_calls, 4);
	finished(c);
}

static unsigned int
events(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void
interrupts(void **state)
{
	struct vfu_client *c = connected(0);
	struct vfu_irq_info i;
	int fds[VD_NB_MSIX];
	unsigned int k;

	(void)state;
	assert_int_equal(vfu_client_irq_info(c, VD_INTX, &i), 0);
	assert_int_equal(i.count, 1);
	assert_int_equal(
		i.flags, VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED);
	assert_int_equal(vfu_client_irq_info(c, VD_EMPTY, &i), 0);
	assert_int_equal(i.count, 0);
	assert_int_equal(vfu_client_irq_info(c, VD_MSIX, &i), 0);
	assert_int_equal(i.count, VD_NB_MSIX);
	assert_int_equal(i.index, VD_MSIX);
	assert_int_equal(vfu_client_irq_info(c, VD_NB_IRQS, &i), -EINVAL);

	for (k = 0; k < VD_NB_MSIX; k++)
		fds[k] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(
		vfu_client_irq_fds(c, VD_MSIX, VFIO_IRQ_SET_ACTION_TRIGGER, 0, fds, VD_NB_MSIX), 0);
	for (k = 0; k < VD_NB_MSIX; k++) {
		assert_int_equal(
			vfu_client_irq_action(c, VD_MSIX, VFIO_IRQ_SET_ACTION_TRIGGER, k, 1), 0);
		assert_int_equal(events(fds[k]), 1);
	}
	assert_int_equal(
		vfu_client_irq_fds(c, VD_MSIX, VFIO_IRQ_SET_ACTION_TRIGGER, 2, NULL, 3), 0);
	for (k = 0; k < VD_NB_MSIX; k++)
		assert_int_equal(dev.irq_fd[VD_MSIX][k] >= 0, k < 2 || k > 4);
	assert_int_equal(vfu_client_irqs_off(c, VD_MSIX), 0);
	for (k = 0; k < VD_NB_MSIX; k++)
		assert_int_equal(dev.irq_fd[VD_MSIX][k], -1);

	assert_int_equal(vfu_client_irq_fds(c, VD_INTX, VFIO_IRQ_SET_ACTION_TRIGGER, 0, fds, 1), 0);
	assert_int_equal(
		vfu_client_irq_fds(c, VD_INTX, VFIO_IRQ_SET_ACTION_UNMASK, 0, fds + 1, 1), 0);
	assert_true(dev.unmask_fd >= 0);
	assert_int_equal(vfu_client_irq_action(c, VD_INTX, VFIO_IRQ_SET_ACTION_MASK, 0, 1), 0);
	assert_true(dev.masked);
	assert_int_equal(vfu_client_irq_action(c, VD_INTX, VFIO_IRQ_SET_ACTION_UNMASK, 0, 1), 0);
	assert_false(dev.masked);
	assert_int_equal(vfu_client_irqs_off(c, VD_INTX), 0);
	assert_int_equal(dev.irq_fd[VD_INTX][0], -1);
	assert_int_equal(dev.unmask_fd, -1);
	for (k = 0; k < VD_NB_MSIX; k++)
		close(fds[k]);
	finished(c);
}

static void
reset(void **state)
{
	struct vfu_client *c = connected(0);

	(void)state;
	assert_int_equal(vfu_client_write(c, VD_REGS, 0x100, "abcd", 4), 0);
	assert_int_equal(vfu_client_reset(c), 0);
	assert_int_equal(dev.resets, 1);
	assert_int_equal(dev.regs[0x100], 0);
	dev.fail = -EBUSY;
	assert_int_equal(vfu_client_reset(c), -EBUSY);
	finished(c);
}

static void
migration(void **state)
{
	static uint8_t saved[VD_STATE_SIZE + 0x50000];
	const size_t chunk = 0x50000;
	struct vfu_client *c = connected(0);
	enum vfio_device_mig_state s;
	uint64_t flags = 0;
	size_t at = 0;
	ssize_t n;

	(void)state;
	assert_int_equal(vfu_client_migration(c, &flags), 0);
	assert_int_equal(flags, VFIO_MIGRATION_STOP_COPY);
	assert_int_equal(vfu_client_mig_state(c, &s), 0);
	assert_int_equal(s, VFIO_DEVICE_STATE_RUNNING);
	assert_int_equal(vfu_client_set_mig_state(c, VFIO_DEVICE_STATE_STOP_COPY), 0);
	assert_int_equal(dev.moves, 2);
	assert_int_equal(vfu_client_mig_state(c, &s), 0);
	assert_int_equal(s, VFIO_DEVICE_STATE_STOP_COPY);
	do {
		n = vfu_client_state_read(c, saved + at, chunk);
		assert_true(n >= 0 && (size_t)n <= chunk);
		at += n;
	} while (at < VD_STATE_SIZE && (size_t)n == chunk);
	assert_int_equal(at, VD_STATE_SIZE);
	assert_memory_equal(saved, dev.saved, VD_STATE_SIZE);

	assert_int_equal(vfu_client_set_mig_state(c, VFIO_DEVICE_STATE_RESUMING), 0);
	memset(dev.saved, 0, VD_STATE_SIZE);
	assert_int_equal(vfu_client_state_write(c, saved, VD_STATE_SIZE), 0);
	assert_memory_equal(saved, dev.saved, VD_STATE_SIZE);
	assert_int_equal(vfu_client_state_write(c, saved, 1), -EFBIG);
	assert_int_equal(vfu_client_set_mig_state(c, VFIO_DEVICE_STATE_RUNNING), 0);
	finished(c);

	c = connected(VD_NO_MIGRATION | VD_NO_LOG);
	assert_int_equal(vfu_client_migration(c, &flags), -ENOTSUP);
	assert_int_equal(vfu_client_mig_state(c, &s), -ENOTSUP);
	finished(c);
}

static void
dirty_log(void **state)
{
	const struct vfu_log_range range[] = {{0, 0x100000}, {0x40000000, 0x10000}};
	uint64_t page = 512, bitmap[2] = {UINT64_MAX, UINT64_MAX};
	struct vfu_client *c = connected(0);

	(void)state;
	assert_int_equal(vfu_client_log_report(c, 0, 0x80000, 4096, bitmap), -EINVAL);
	assert_int_equal(vfu_client_log_start(c, &page, range, 2), 0);
	assert_int_equal(page, 4096);
	assert_int_equal(dev.nb_log_ranges, 2);
	assert_memory_equal(dev.log_range, range, sizeof(range));
	dev.dirty = 65 * 4096 + 1;
	assert_int_equal(vfu_client_log_report(c, 0, 66 * 4096, 4096, bitmap), 0);
	assert_int_equal(bitmap[0], 0);
	assert_int_equal(bitmap[1], 2);
	assert_int_equal(vfu_client_log_report(c, 0, 66 * 4096, 4096, bitmap), 0);
	assert_int_equal(bitmap[1], 0);
	assert_int_equal(vfu_client_log_start(c, &page, NULL, 0), -EINVAL);
	assert_int_equal(vfu_client_log_stop(c), 0);
	assert_int_equal(vfu_client_log_stop(c), -EINVAL);
	page = 1 << 21;
	assert_int_equal(vfu_client_log_start(c, &page, NULL, 0), 0);
	assert_int_equal(page, 1 << 21);
	assert_int_equal(dev.nb_log_ranges, 0);
	finished(c);
	c = connected(VD_NO_LOG);
	assert_int_equal(vfu_client_log_start(c, &page, NULL, 0), -ENOTSUP);
	finished(c);
}

static void
one_after_the_other(void **state)
{
	struct vfu_client *c, *other = NULL;
	struct vfu_device_info i;
	unsigned int k;

	(void)state;
	c = connected(0);
	for (k = 0; k < 3; k++) {
		assert_int_equal(
			vfu_client_connect(vt_path, NULL, NULL, PATIENCE_MS, NULL, &other), -EBUSY);
		assert_null(other);
		assert_int_equal(vfu_client_info(c, &i), 0);
	}
	vfu_client_close(c);
	vt_wait(dev.detached == 1);
	for (k = 0; k < 20; k++) {
		assert_int_equal(vfu_client_connect(vt_path, NULL, NULL, PATIENCE_MS, NULL, &c), 0);
		assert_int_equal(vfu_client_info(c, &i), 0);
		vfu_client_close(c);
		vt_wait(dev.detached == k + 2);
	}
	finished(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(info),
		cmocka_unit_test(regions),
		cmocka_unit_test(doorbells),
		cmocka_unit_test(accesses),
		cmocka_unit_test(maps),
		cmocka_unit_test(messages_for_memory),
		cmocka_unit_test(interrupts),
		cmocka_unit_test(reset),
		cmocka_unit_test(migration),
		cmocka_unit_test(dirty_log),
		cmocka_unit_test(one_after_the_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
