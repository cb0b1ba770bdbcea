/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A function behind vfio-user as its client sees it: regions, doorbells, memory. */

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <vfn_guard.h>

#include "ep_rig.h"

#define BUFFERS 64

static struct frame f;
static struct sigaction guards; /* cmocka takes SIGBUS for itself before every test */

/* ---- regions ---- */

static void
device_has_the_regions_of_pci(void **state)
{
	static const uint64_t size[VFN_ENDPOINT_NUM_REGIONS] = {VFN_BAR0_SIZE, VFN_BAR1_SIZE,
		VFN_BAR2_SIZE, [VFN_REGION_CONFIG] = VFN_PCI_CONFIG_SIZE};
	struct rig *r = rig_new(&(struct guest_conf){.pairs = 2}, NULL);
	struct vfu_device_info info;
	struct vfu_irq_info irq;
	unsigned int i;

	(void)state;
	rig_connect(r);
	assert_int_equal(vfu_client_info(r->client, &info), 0);
	assert_int_equal(info.flags, VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI);
	assert_int_equal(info.num_regions, VFN_ENDPOINT_NUM_REGIONS);
	assert_int_equal(info.num_irqs, VFN_ENDPOINT_NUM_IRQS);
	for (i = 0; i < VFN_ENDPOINT_NUM_REGIONS; i++) {
		struct vfu_region region;

		assert_int_equal(vfu_client_region(r->client, i, &region), 0);
		assert_int_equal(region.size, size[i]);
		/* pollers that never sleep see a plain store */
		assert_int_equal(region.fd >= 0, i == VFN_REGION_BAR2);
		if (region.fd >= 0)
			close(region.fd);
	}
	assert_int_equal(vfu_client_irq_info(r->client, VFIO_PCI_MSIX_IRQ_INDEX, &irq), 0);
	assert_int_equal(irq.count, 6);
	assert_int_equal(vfu_client_irq_info(r->client, VFN_ENDPOINT_IRQ_DOORBELL, &irq), 0);
	assert_int_equal(irq.count, 5);
	assert_int_equal(vfu_client_irq_info(r->client, VFIO_PCI_MSI_IRQ_INDEX, &irq), 0);
	assert_int_equal(irq.count, 0);
	/* nobody has left control to the client */
	assert_true(client_set(r, VFN_ENDPOINT_REGION_CONTROL, 0, 4, 0) < 0);
}

static void
second_client_is_refused(void **state)
{
	struct rig *r = rig_new(&(struct guest_conf){0}, NULL);
	struct vfu_client *other;

	(void)state;
	rig_connect(r);
	assert_int_equal(
		vfu_client_connect(r->path, NULL, NULL, PATIENCE_MS, NULL, &other), -EBUSY);
	assert_int_equal(client_get(r, VFN_REGION_CONFIG, 0, 2), VFN_PCI_VENDOR);
	rig_disconnect(r);
	rig_connect(r);
	assert_int_equal(client_get(r, VFN_REGION_CONFIG, 0, 2), VFN_PCI_VENDOR);
}

/* Hypervisors make a message of each error: a guest could fill a disk with them. */
static void
accesses_of_no_register_are_no_errors(void **state)
{
	static const struct {
		unsigned int region;
		uint64_t offset;
		size_t len;
	} none[] = {
		{VFN_REGION_BAR0, 0x800, 4},
		{VFN_REGION_BAR0, VFN_OFF_ISR, 4},
		{VFN_REGION_BAR0, VFN_OFF_DEVICE + 100, 1},
		{VFN_REGION_BAR0, VFN_OFF_VENDOR + 0x800, 4},
		{VFN_REGION_BAR1, VFN_OFF_MSIX_PBA + 64, 8},
	};
	struct rig *r = rig_new(&(struct guest_conf){0}, NULL);
	struct vfn_endpoint_info info;
	uint64_t v, ones = UINT64_MAX;
	unsigned int i;

	(void)state;
	rig_connect(r);
	for (i = 0; i < DIM(none); i++) {
		v = 0;
		assert_int_equal(
			vfu_client_read(r->client, none[i].region, none[i].offset, &v, none[i].len),
			0);
		assert_memory_equal(&v, &ones, none[i].len);
		assert_int_equal(vfu_client_write(r->client, none[i].region, none[i].offset, &v,
					 none[i].len),
			0);
	}
	assert_int_equal(client_set(r, VFN_REGION_BAR2, 3, 2, 1), 0);
	assert_int_equal(client_get(r, VFN_REGION_BAR0, 20, 1), 0);
	vfn_endpoint_info(r->ep, &info);
	assert_int_equal(info.refused, 2 * DIM(none) + 1);
	assert_true(vfu_client_read(r->client, VFN_REGION_BAR0, VFN_BAR0_SIZE - 1, &v, 2) < 0);
}

/* ---- doorbells ---- */

static void
frames_pass_by_eventfds(const struct shape *shape)
{
	unsigned int sleep, i;

	for (sleep = 0; sleep < 2; sleep++) {
		struct guest_conf conf = {.features = shape_features(shape), .sleep = sleep};
		struct rig *r = rig_new(&conf, NULL);
		struct guest *g;

		rig_connect(r);
		g = rig_guest(r, &conf);
		guest_start(g);
		rx_post(g, 0, BUFFERS, 2048, 1);
		for (i = 0; i < BUFFERS; i++) {
			rig_echo(g, 1);
			if (sleep)
				nap_us(500);
		}
		rigs_close(NULL);
	}
}

static void
frames_pass_by_trapped_doorbells(const struct shape *shape)
{
	unsigned int sleep, i;

	for (sleep = 0; sleep < 2; sleep++) {
		struct guest_conf conf = {
			.features = shape_features(shape), .sleep = sleep, .kick_by_write = true};
		struct rig *r = rig_new(&conf, NULL);
		struct guest *g;

		rig_connect(r);
		g = rig_guest(r, &conf);
		guest_start(g);
		rx_post(g, 0, BUFFERS, 2048, 1);
		for (i = 0; i < BUFFERS; i++) {
			rig_echo(g, 1);
			if (sleep)
				nap_us(2000);
		}
		/* the poller can wait for every doorbell, though the client has given none */
		assert_int_equal(stat_of(g, 1, VFN_STAT_ARMED) > 0, sleep);
		rigs_close(NULL);
	}
}

static void
doorbells_are_mapped_where_pollers_never_sleep(void **state)
{
	struct rig *r = rig_new(&(struct guest_conf){0}, NULL);
	struct vfu_region region;
	volatile uint16_t *bell;

	(void)state;
	rig_connect(r);
	assert_int_equal(vfu_client_region(r->client, VFN_REGION_BAR2, &region), 0);
	assert_true(region.fd >= 0);
	bell = mmap(
		NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd, region.offset);
	assert_true(bell != MAP_FAILED);
	bell[VFN_NOTIFY_STEP / 2] = 77;
	assert_int_equal(client_get(r, VFN_REGION_BAR2, VFN_NOTIFY_STEP, 2), 77);
	assert_int_equal(client_set(r, VFN_REGION_BAR2, 0, 2, 78), 0);
	assert_int_equal(bell[0], 78);
	/* whoever has the file cannot take the pages away */
	assert_true(ftruncate(region.fd, 0) < 0);
	munmap((void *)(uintptr_t)bell, region.size);
	close(region.fd);
}

static void
doorbells_are_ioeventfds_where_pollers_sleep(void **state)
{
	struct guest_conf conf = {.pairs = 10, .used_pairs = 1, .sleep = true};
	struct rig *r = rig_new(&conf, NULL);
	struct vfu_ioeventfd fds[VFU_MAX_FDS];
	struct vfu_region region;
	struct guest *g;
	int i, n;

	(void)state;
	rig_connect(r);
	assert_int_equal(vfu_client_region(r->client, VFN_REGION_BAR2, &region), 0);
	assert_int_equal(region.fd, -1);
	n = vfu_client_ioeventfds(r->client, VFN_REGION_BAR2, fds);
	assert_int_equal(n, VFU_MAX_FDS);
	assert_int_equal(vfu_client_ioeventfds(r->client, VFN_REGION_BAR0, fds + n - 1), 0);
	conf.kick_by_write = true;
	g = rig_guest(r, &conf);
	guest_start(g);
	rx_post(g, 0, 8, 2048, 1);
	g->q[1].kick = fds[1].fd;
	assert_int_equal(fds[1].offset, VFN_NOTIFY_STEP);
	for (i = 0; i < 8; i++) {
		nap_us(2000);
		rig_echo(g, 1);
	}
	for (i = 0; i < n; i++)
		if (i != 1)
			close(fds[i].fd);
}

/* ---- memory ---- */

#define ELSEWHERE 0x10000000000u

static struct vfu_dma
dma_of(uint64_t address, uint64_t size, uint32_t flags, int fd)
{
	return (struct vfu_dma){.address = address, .size = size, .flags = flags, .fd = fd};
}

static int
memory_fd(uint64_t size)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);

	assert_true(fd >= 0 && ftruncate(fd, size) == 0);
	return fd;
}

static void
maps_are_what_their_descriptors_allow(void **state)
{
	const uint32_t rw = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	struct rig *r = rig_new(&(struct guest_conf){0}, NULL);
	int fd = memory_fd(65536), reader, pipes[2], file;
	struct vfn_endpoint_info info;
	struct vfu_dma d;
	char path[64];

	(void)state;
	rig_connect(r);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	reader = open(path, O_RDONLY | O_CLOEXEC);
	file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_true(reader >= 0 && pipe(pipes) == 0 && file >= 0);

	/* a hypervisor's ROM */
	d = dma_of(ELSEWHERE, 4096, VFIO_DMA_MAP_FLAG_READ, reader);
	assert_int_equal(vfu_client_dma_map(r->client, &d), 0);
	d = dma_of(ELSEWHERE + 65536, 4096, rw, reader);
	assert_int_equal(vfu_client_dma_map(r->client, &d), -EACCES);
	d = dma_of(ELSEWHERE + 65536, 4096, rw, pipes[0]);
	assert_true(vfu_client_dma_map(r->client, &d) < 0);
	/* of a file system that might be anybody's; it is not asked */
	d = dma_of(ELSEWHERE + 65536, 4096, rw, file);
	assert_int_equal(vfu_client_dma_map(r->client, &d), -EACCES);
	/* it ends before */
	d = dma_of(ELSEWHERE + 65536, 65536 + 4096, rw, fd);
	assert_int_equal(vfu_client_dma_map(r->client, &d), -ENODATA);
	/* into both address spaces */
	d = dma_of(VFN_ENDPOINT_OWN - 4096, 8192, rw, fd);
	assert_int_equal(vfu_client_dma_map(r->client, &d), -EINVAL);
	d = dma_of(ELSEWHERE - 4096, 8192, rw, fd);
	assert_int_equal(vfu_client_dma_map(r->client, &d), -EEXIST);
	/* the same addresses in the other one */
	d = dma_of(VFN_ENDPOINT_OWN | ELSEWHERE, 8192, rw, fd);
	assert_int_equal(vfu_client_dma_map(r->client, &d), 0);
	vfn_endpoint_info(r->ep, &info);
	assert_int_equal(info.maps, 2);
	assert_int_equal(info.map_bytes, 4096 + 8192);
	assert_int_equal(vfu_client_dma_unmap(r->client, ELSEWHERE, 8192), -ENOENT);
	assert_int_equal(vfu_client_dma_unmap(r->client, ELSEWHERE, 4096), 0);
	assert_int_equal(vfu_client_dma_unmap(r->client, VFN_ENDPOINT_OWN | ELSEWHERE, 8192), 0);
	vfn_endpoint_info(r->ep, &info);
	assert_int_equal(info.maps, 0);
	assert_int_equal(info.map_bytes, 0);
	close(fd);
	close(reader);
	close(file);
	close(pipes[0]);
	close(pipes[1]);
}

/* A file can be as large as it likes without having a byte. */
static void
address_space_is_not_taken_from_others(void **state)
{
	const uint32_t rw = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	struct rig *r = rig_new(&(struct guest_conf){0}, NULL);
	const uint64_t size = UINT64_C(1) << 44;
	int fd = memory_fd(size);
	struct vfu_dma d;
	unsigned int n;
	void *other;
	int ret = 0;

	(void)state;
	rig_connect(r);
	for (n = 0; ret == 0 && n < 64; n++) {
		d = dma_of(n * size, size, rw, fd);
		ret = vfu_client_dma_map(r->client, &d);
	}
	assert_int_equal(ret, -ENOSPC);
	other = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(other != MAP_FAILED);
	munmap(other, size);
	close(fd);
}

static void
memory_without_a_descriptor_is_out_of_reach(void **state)
{
	const uint32_t rw = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	static const struct guest_conf conf = {0};
	struct rig *r = rig_new(&conf, NULL);
	struct vfu_dma d = dma_of(ELSEWHERE, 65536, rw, -1);
	struct mock_buf buf = {.len = 100, .fixed = true, .iova = ELSEWHERE};
	struct vfn_endpoint_info info;
	struct guest *g;

	(void)state;
	rig_connect(r);
	assert_int_equal(vfu_client_dma_map(r->client, &d), 0);
	vfn_endpoint_info(r->ep, &info);
	assert_int_equal(info.unreachable, 1);
	assert_int_equal(info.maps, 0);
	g = rig_guest(r, &conf);
	guest_start(g);
	assert_true(mock_post(&g->q[1].drv, &buf, 1, 0, 0) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick_always(g, 1);
	stat_wait(g, 1, VFN_STAT_ERRORS_ADDR, 1);
	assert_int_equal(vfu_client_dma_unmap(r->client, ELSEWHERE, 65536), 0);
	vfn_endpoint_info(r->ep, &info);
	assert_int_equal(info.unreachable, 0);
}

/* The hypervisor's file is cut off while the function uses it. */
static void
lost_memory_is_an_error_of_the_device(void **state)
{
	static const struct guest_conf conf = {0};
	struct rig *r = rig_new(&conf, NULL);
	int error = eventfd_new();
	struct guest *g;
	uint64_t offset;

	(void)state;
	sigaction(SIGBUS, &guards, NULL);
	rig_connect(r);
	g = rig_guest(r, &conf);
	guest_start(g);
	assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_ERR_IRQ_INDEX,
				 VFIO_IRQ_SET_ACTION_TRIGGER, 0, &error, 1),
		0);
	nap_us(20000);
	assert_int_equal(signals(error, false), 0);
	assert_int_equal(ftruncate(mock_mem_fd(&g->mem, HEAP_AT, &offset), 0), 0);
	/* the pollers find it; the client only waits */
	eventfd_write(g->q[1].kick, 1);
	assert_true(signalled(error));
	assert_true(CGET(g, device_status) & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* its rings are in what is gone */
	assert_int_equal(
		ftruncate(mock_mem_fd(&g->mem, HEAP_AT, &offset), g->heap_end - HEAP_AT), 0);
	close(error);
}

/* ---- control of the client ---- */

static void
client_decides_what_is_offered(void **state)
{
	static const struct guest_conf conf = {.pairs = 4, .mtu = 1500};
	struct vfn_endpoint_control all, some, now;
	struct virtio_net_config config;
	struct rig *r = rig_new(&conf, vfn_manage_net_offer);
	unsigned int i;
	struct guest *g;

	(void)state;
	rig_connect(r);
	g = rig_guest(r, &conf);
	assert_int_equal(
		vfu_client_read(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &all, sizeof(all)), 0);
	assert_int_equal(all.max_pairs, 4);
	assert_int_equal(all.mtu, 1500);
	assert_true(all.features == guest_features(g));
	some = (struct vfn_endpoint_control){
		.features = all.features & ~BIT(VIRTIO_NET_F_CSUM),
		.mac = {2, 1, 2, 3, 4, 5},
		.mtu = 9000,
		.max_pairs = 2,
	};
	for (i = 0; i < 2; i++) {
		assert_int_equal(vfu_client_write(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &some,
					 sizeof(some)),
			0);
		assert_int_equal(vfu_client_read(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &now,
					 sizeof(now)),
			0);
		assert_memory_equal(&now, &some, sizeof(now));
		assert_true(guest_features(g) == some.features);
		assert_int_equal(g->link->ops->read(g->link, g->device.bar, g->device.offset,
					 &config, sizeof(config)),
			0);
		assert_memory_equal(config.mac, some.mac, 6);
		assert_int_equal(config.mtu, some.mtu);
		assert_int_equal(config.max_virtqueue_pairs, some.max_pairs);
		/* one pair: no MQ, and no MTU */
		some.mtu = 0;
		some.max_pairs = 1;
		some.features &= ~(BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_MTU));
	}
	some.max_pairs = 5;
	assert_int_equal(
		vfu_client_write(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &some, sizeof(some)),
		-EINVAL);
	some.max_pairs = 1;
	some.mac[0] = 1;
	assert_int_equal(
		vfu_client_write(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &some, sizeof(some)),
		-EINVAL);
	some.mac[0] = 2;
	assert_int_equal(vfu_client_write(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &some,
				 sizeof(some) - 2),
		-EINVAL);
	CSET(g, device_status, STATUS_DRIVER);
	assert_int_equal(
		vfu_client_write(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &some, sizeof(some)),
		-EBUSY);
	/* the next one finds it as the operator has made it */
	guests_close(NULL);
	rig_disconnect(r);
	rig_connect(r);
	assert_int_equal(
		vfu_client_read(r->client, VFN_ENDPOINT_REGION_CONTROL, 0, &now, sizeof(now)), 0);
	assert_memory_equal(&now, &all, sizeof(now));
}

int
main(void)
{
	static bool lost;
	static const struct CMUnitTest plain[] = {
#define RIGGED(test) cmocka_unit_test_teardown(test, rigs_close)
		RIGGED(device_has_the_regions_of_pci),
		RIGGED(second_client_is_refused),
		RIGGED(accesses_of_no_register_are_no_errors),
		RIGGED(doorbells_are_mapped_where_pollers_never_sleep),
		RIGGED(doorbells_are_ioeventfds_where_pollers_sleep),
		RIGGED(maps_are_what_their_descriptors_allow),
		RIGGED(address_space_is_not_taken_from_others),
		RIGGED(memory_without_a_descriptor_is_out_of_reach),
		RIGGED(lost_memory_is_an_error_of_the_device),
		RIGGED(client_decides_what_is_offered),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(frames_pass_by_eventfds),
		SHAPED(frames_pass_by_trapped_doorbells),
	};

	if (fn_eal_init(NULL) < 0 || vfn_guard_add(&f, sizeof(f), &lost) < 0)
		return 1;
	vfn_guard_remove(&f, &lost);
	sigaction(SIGBUS, NULL, &guards);
	shaped_teardown = rigs_close;
	return run_list("endpoint", plain, DIM(plain), shaped, DIM(shaped));
}
