/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Registers, interrupts and memory of the conformance tests' driver. The test's thread. */

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "device.h"

#define CONFIG_VENDOR  0x09
#define CONFIG_MSIX    0x11
#define CONFIG_STATUS  0x06
#define CONFIG_MEMORY  0x0002 /* of the command register */
#define CONFIG_CAP_PTR 0x34

const char *link_kind;

static struct dev *devs[4];

uint64_t
clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000) + ts.tv_nsec / 1000000;
}

void
nap_ms(unsigned int ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&ts, NULL);
}

/* ---- registers ---- */

uint32_t
bar_get(struct dev *d, unsigned int bar, uint64_t offset, size_t len)
{
	uint32_t v = 0;

	assert_int_equal(d->link->ops->read(d->link, bar, offset, &v, len), 0);
	return v;
}

/* What the device does not take is lost, like on a bus. */
void
bar_set(struct dev *d, unsigned int bar, uint64_t offset, size_t len, uint32_t v)
{
	d->link->ops->write(d->link, bar, offset, &v, len);
}

uint32_t
pci_get(struct dev *d, uint32_t offset, size_t len)
{
	return bar_get(d, VFN_REGION_CONFIG, offset, len);
}

void
pci_set(struct dev *d, uint32_t offset, size_t len, uint32_t v)
{
	bar_set(d, VFN_REGION_CONFIG, offset, len, v);
}

uint32_t
get(struct dev *d, const struct place *p, uint32_t offset, size_t len)
{
	assert_true(offset + len <= p->length);
	return bar_get(d, p->bar, (uint64_t)p->offset + offset, len);
}

void
set(struct dev *d, const struct place *p, uint32_t offset, size_t len, uint32_t v)
{
	assert_true(offset + len <= p->length);
	bar_set(d, p->bar, (uint64_t)p->offset + offset, len, v);
}

bool
reads(struct dev *d, const struct place *p, uint32_t offset, size_t len, uint32_t v)
{
	uint64_t end = clock_ms() + PATIENCE_MS;

	while (get(d, p, offset, len) != v)
		if (clock_ms() >= end)
			return false;
	return true;
}

/* A register that starts something may read as before for a moment: not for this long. */
void
settle(struct dev *d)
{
	CGET(d, device_status);
	nap_ms(2);
}

uint8_t
status_now(struct dev *d)
{
	settle(d);
	return CGET(d, device_status);
}

/* ---- finding the structures (4.1.4) ---- */

static void
find(struct dev *d)
{
	struct place *const by_type[] = {
		[VIRTIO_PCI_CAP_COMMON_CFG] = &d->common,
		[VIRTIO_PCI_CAP_NOTIFY_CFG] = &d->notify,
		[VIRTIO_PCI_CAP_ISR_CFG] = &d->isr,
		[VIRTIO_PCI_CAP_DEVICE_CFG] = &d->config,
		[VIRTIO_PCI_CAP_PCI_CFG] = &d->window,
	};
	unsigned int n = 0;
	uint8_t at;

	assert_true(pci_get(d, CONFIG_STATUS, 2) & 0x10);
	for (at = pci_get(d, CONFIG_CAP_PTR, 1) & ~3; at != 0; at = pci_get(d, at + 1, 1) & ~3) {
		uint8_t id = pci_get(d, at, 1), type = pci_get(d, at + 3, 1);

		assert_true(at >= 0x40 && n++ < 48);
		if (id == CONFIG_MSIX && d->msix == 0)
			d->msix = at;
		if (id != CONFIG_VENDOR)
			continue;
		if (type == VFN_PCI_CAP_VENDOR_CFG && d->vendor.at == 0)
			d->vendor = (struct place){.at = at,
				.cap_len = pci_get(d, at + 2, 1),
				.bar = pci_get(d, at + 6, 1),
				.offset = pci_get(d, at + 8, 4),
				.length = pci_get(d, at + 12, 4)};
		/* The first of a type is the one to use; others are for those who know them. */
		if (type >= DIM(by_type) || by_type[type] == NULL || by_type[type]->at != 0 ||
			pci_get(d, at + 4, 1) > 5)
			continue;
		*by_type[type] = (struct place){.at = at,
			.cap_len = pci_get(d, at + 2, 1),
			.bar = pci_get(d, at + 4, 1),
			.offset = pci_get(d, at + 8, 4),
			.length = pci_get(d, at + 12, 4)};
	}
	assert_true(d->common.at != 0 && d->notify.at != 0 && d->isr.at != 0 && d->config.at != 0);
	assert_true(d->vendor.at != 0 && d->msix != 0);
	pci_set(d, CONFIG_COMMAND, 2, CONFIG_MEMORY | CONFIG_MASTER);
	d->multiplier = pci_get(d, d->notify.at + 16, 4);
	d->nb_vectors = (pci_get(d, d->msix + 2, 2) & 0x7ff) + 1;
	d->table_bar = pci_get(d, d->msix + 4, 4) & 7;
	d->table_at = pci_get(d, d->msix + 4, 4) & ~7u;
	d->pba_bar = pci_get(d, d->msix + 8, 4) & 7;
	d->pba_at = pci_get(d, d->msix + 8, 4) & ~7u;
	assert_true(d->nb_vectors <= VFN_MAX_VECTORS);
	d->nb_queues = CGET(d, num_queues);
}

static struct target_conf current;

static void
attach(struct dev *d)
{
	struct vfn_dma_map map = {
		.iova = MEM_AT,
		.len = MEM_SIZE,
		.host = d->mem,
		.fd = d->mem_fd,
		.readable = true,
		.writable = true,
	};

	assert_int_equal(open_link(link_kind, &current, &d->target), 0);
	d->link = d->target.link;
	/* as firmware leaves it: memory accesses and bus mastering are on */
	pci_set(d, 4, 2, 6);
	find(d);
	assert_int_equal(d->link->ops->dma_map(d->link, &map), 0);
}

struct dev *
dev_open(const struct target_conf *conf)
{
	struct dev *d = calloc(1, sizeof(*d));
	unsigned int i;

	assert_non_null(d);
	for (i = 0; devs[i] != NULL; i++)
		assert_true(i + 1 < DIM(devs));
	devs[i] = d;
	for (i = 0; i < DIM(d->irq); i++)
		d->irq[i] = -1;
	d->mem_fd = memfd_create("conformance", MFD_CLOEXEC);
	assert_true(d->mem_fd >= 0 && ftruncate(d->mem_fd, MEM_SIZE) == 0);
	d->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, d->mem_fd, 0);
	assert_ptr_not_equal(d->mem, MAP_FAILED);
	current = *conf;
	attach(d);
	dev_reset(d);
	return d;
}

void
dev_exchange(struct dev *d, const struct target_conf *conf)
{
	unsigned int i;

	if (conf != NULL)
		current = *conf;
	d->link->ops->close(d->link);
	d->link = NULL;
	d->common = d->notify = d->isr = d->config = d->vendor = d->window = (struct place){0};
	d->msix = 0;
	attach(d);
	for (i = 0; i < DIM(d->irq); i++)
		if (d->irq[i] >= 0)
			assert_int_equal(d->link->ops->set_irq(d->link, i, d->irq[i]), 0);
}

int
dev_close_all(void **state)
{
	unsigned int i, k;

	(void)state;
	for (i = 0; i < DIM(devs); i++) {
		struct dev *d = devs[i];

		devs[i] = NULL;
		if (d == NULL)
			continue;
		if (d->link != NULL)
			d->link->ops->close(d->link);
		for (k = 0; k < DIM(d->irq); k++)
			if (d->irq[k] >= 0)
				close(d->irq[k]);
		if (d->mem != NULL)
			munmap(d->mem, MEM_SIZE);
		close(d->mem_fd);
		free(d);
	}
	return 0;
}

/* ---- initialization (3.1.1) ---- */

uint64_t
offered(struct dev *d)
{
	uint64_t features;

	CSET(d, device_feature_select, 0);
	features = CGET(d, device_feature);
	CSET(d, device_feature_select, 1);
	return features | (uint64_t)CGET(d, device_feature) << 32;
}

void
accept_features(struct dev *d, uint64_t features)
{
	CSET(d, guest_feature_select, 0);
	CSET(d, guest_feature, (uint32_t)features);
	CSET(d, guest_feature_select, 1);
	CSET(d, guest_feature, features >> 32);
}

void
dev_reset(struct dev *d)
{
	CSET(d, device_status, 0);
	assert_true(CREADS(d, device_status, 0));
}

bool
negotiate(struct dev *d, uint64_t features)
{
	CSET(d, device_status, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	CSET(d, device_status, S_DRIVER);
	accept_features(d, features);
	CSET(d, device_status, S_FEATURES);
	d->features = features;
	return status_now(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void
driver_ok(struct dev *d)
{
	CSET(d, device_status, S_RUNNING);
	assert_true(CREADS(d, device_status, S_RUNNING));
}

void
start(struct dev *d, uint64_t features)
{
	assert_true(negotiate(d, VERSION_1 | features));
	ring_setup(&d->rx, d, 0, 64);
	ring_setup(&d->tx, d, 1, 64);
	driver_ok(d);
}

void
start_asleep(struct dev *d, uint64_t features)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	unsigned int i;

	for (i = 0; i < 2; i++)
		assert_int_equal(d->link->ops->set_doorbell(d->link, i, fd), 0);
	close(fd);
	start(d, features);
}

void
vq_reset(struct dev *d, uint16_t queue)
{
	CSET(d, queue_select, queue);
	set(d, &d->common, QUEUE_RESET, 1);
	assert_true(reads(d, &d->common, QUEUE_RESET, 0));
	assert_int_equal(CGET(d, queue_enable), 0);
}

/* ---- interrupts ---- */

void
msix_control(struct dev *d, uint16_t bits)
{
	uint16_t control = pci_get(d, d->msix + 2, 2);

	pci_set(d, d->msix + 2, 2, (control & ~(MSIX_ON | MSIX_MASKED)) | bits);
}

void
vector_mask(struct dev *d, uint16_t vector, bool on)
{
	bar_set(d, d->table_bar, d->table_at + 16u * vector + 12, 4, on);
}

bool
vector_pending(struct dev *d, uint16_t vector)
{
	return bar_get(d, d->pba_bar, d->pba_at + vector / 32 * 4, 4) >> vector % 32 & 1;
}

void
msix_on(struct dev *d)
{
	unsigned int i;

	for (i = 0; i < d->nb_vectors; i++)
		vector_mask(d, i, false);
	msix_control(d, MSIX_ON);
}

int
irq_fd(struct dev *d, uint16_t vector)
{
	if (d->irq[vector] < 0) {
		d->irq[vector] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		assert_true(d->irq[vector] >= 0);
		assert_int_equal(d->link->ops->set_irq(d->link, vector, d->irq[vector]), 0);
	}
	return d->irq[vector];
}

unsigned int
raised(int fd, unsigned int ms)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	eventfd_t n = 0;

	if (poll(&pfd, 1, ms) == 1)
		eventfd_read(fd, &n);
	return n;
}

/* ---- memory ---- */

void *
mem_alloc(struct dev *d, uint64_t len, uint64_t *at)
{
	uint8_t *p = d->mem + d->mem_used;

	/* cache lines of their own, so that nothing is beside them by accident */
	d->mem_used += (len + 63) & ~UINT64_C(63);
	assert_true(d->mem_used <= MEM_SIZE);
	memset(p, 0, len);
	*at = MEM_AT + (p - d->mem);
	return p;
}

uint8_t *
mem_copy(const struct dev *d)
{
	uint8_t *copy = malloc(MEM_SIZE);

	assert_non_null(copy);
	memcpy(copy, d->mem, MEM_SIZE);
	return copy;
}

bool
mem_same(const struct dev *d, uint8_t *copy)
{
	bool same = memcmp(copy, d->mem, MEM_SIZE) == 0;

	free(copy);
	return same;
}
