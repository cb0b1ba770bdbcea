/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The driver of the function: EAL, registers and rings. The test's thread. */

#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_log.h>

#include "fn_harness.h"

#define PAGE	      4096u
#define TABLE_ENTRIES 32u

static struct guest *guests;

int
fn_eal_init(const char *first, ...)
{
	static char args[32][64] = {"test", "--no-huge", "-m", "64", "--no-pci", "--no-shconf",
		"--no-telemetry", "--iova-mode=va"};
	static char *argv[33];
	const char *arg = first;
	unsigned int n, i;
	cpu_set_t cpus;
	va_list ap;
	int ret;

	for (n = 0; args[n][0] != '\0'; n++)
		;
	sched_getaffinity(0, sizeof(cpus), &cpus);
	if (first == NULL) {
		for (i = 0; !CPU_ISSET(i, &cpus); i++)
			;
		snprintf(args[n++], sizeof(args[0]), "--lcores=0@%u", i);
	}
	va_start(ap, first);
	for (; arg != NULL; arg = va_arg(ap, const char *))
		snprintf(args[n++], sizeof(args[0]), "%s", arg);
	va_end(ap);
	for (i = 0; i < n; i++)
		argv[i] = args[i];
	/* the log's default is standard output, where the test protocol goes */
	rte_openlog_stream(stderr);
	ret = rte_eal_init(n, argv);
	/* EAL has pinned this thread */
	sched_setaffinity(0, sizeof(cpus), &cpus);
	return ret < 0 ? -1 : 0;
}

uint64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000) + ts.tv_nsec / 1000000;
}

void
nap_us(unsigned int us)
{
	struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

/* ---- registers ---- */

uint32_t
reg_get(struct guest *g, const struct place *p, uint32_t offset, size_t len)
{
	uint32_t v = 0;

	assert_int_equal(g->link->ops->read(g->link, p->bar, p->offset + offset, &v, len), 0);
	return v;
}

int
reg_set(struct guest *g, const struct place *p, uint32_t offset, size_t len, uint32_t v)
{
	return g->link->ops->write(g->link, p->bar, p->offset + offset, &v, len);
}

uint64_t
stat_of(struct guest *g, unsigned int queue, unsigned int stat)
{
	uint64_t v, at = VGET(g, stats_offset) + (uint64_t)queue * VGET(g, stats_step) + 8 * stat;

	assert_int_equal(g->link->ops->read(g->link, g->vendor.bar, at, &v, sizeof(v)), 0);
	return v;
}

void
stat_wait(struct guest *g, unsigned int queue, unsigned int stat, uint64_t value)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (stat_of(g, queue, stat) < value && now_ms() < end)
		nap_us(100);
	assert_int_equal(stat_of(g, queue, stat), value);
}

struct vfn_poller_stats
poller_counters(struct guest *g)
{
	struct vfn_poller_stats stats;

	assert_int_equal(vfn_manage_poller_stats(g->fn, 0, &stats), 0);
	return stats;
}

/* What the capabilities say; the tests of the capabilities look closer. */
static void
find_structures(struct guest *g)
{
	uint8_t at;

	g->link->ops->read(g->link, VFN_REGION_CONFIG, 0x34, &at, 1);
	while (at != 0) {
		struct virtio_pci_cap cap;
		struct place *p = NULL;

		assert_int_equal(
			g->link->ops->read(g->link, VFN_REGION_CONFIG, at, &cap, sizeof(cap)), 0);
		if (cap.cap_vndr == 0x11)
			g->msix = at;
		if (cap.cap_vndr == 9 && cap.cfg_type == VFN_PCI_CAP_VENDOR_CFG) {
			struct vfn_vendor_cap v;

			assert_int_equal(
				g->link->ops->read(g->link, VFN_REGION_CONFIG, at, &v, sizeof(v)),
				0);
			g->vendor = (struct place){v.bar, v.offset, v.length};
		} else if (cap.cap_vndr == 9) {
			if (cap.cfg_type == VIRTIO_PCI_CAP_COMMON_CFG)
				p = &g->common;
			if (cap.cfg_type == VIRTIO_PCI_CAP_NOTIFY_CFG)
				p = &g->notify;
			if (cap.cfg_type == VIRTIO_PCI_CAP_ISR_CFG)
				p = &g->isr;
			if (cap.cfg_type == VIRTIO_PCI_CAP_DEVICE_CFG)
				p = &g->device;
			if (p != NULL)
				*p = (struct place){cap.bar, cap.offset, cap.length};
		}
		at = cap.cap_next;
	}
	assert_true(g->common.length > 0 && g->notify.length > 0 && g->device.length > 0 &&
		g->isr.length > 0 && g->vendor.length > 0);
}

static uint64_t
queue_bytes(const struct guest *g)
{
	return ring_bytes(g) + (uint64_t)g->conf.size * g->conf.buf_len +
		(uint64_t)g->conf.size * TABLE_ENTRIES * sizeof(struct vring_desc) + 3 * PAGE;
}

/* Interrupts are messages; which vectors are used is seen by who gets an eventfd. */
void
guest_msix_on(struct guest *g)
{
	uint32_t table, unmasked = 0;
	uint16_t control;
	unsigned int i;

	g->link->ops->read(g->link, VFN_REGION_CONFIG, g->msix + 2, &control, sizeof(control));
	g->link->ops->read(g->link, VFN_REGION_CONFIG, g->msix + 4, &table, sizeof(table));
	for (i = 0; i <= (control & 0x7ffu); i++)
		assert_int_equal(g->link->ops->write(g->link, table & 7, 16 * i + 12, &unmasked,
					 sizeof(unmasked)),
			0);
	control |= 0x8000;
	g->link->ops->write(g->link, VFN_REGION_CONFIG, g->msix + 2, &control, sizeof(control));
}

/* It may read and write memory, and send messages. */
void
guest_master_on(struct guest *g)
{
	uint16_t command;

	g->link->ops->read(g->link, VFN_REGION_CONFIG, 4, &command, sizeof(command));
	command |= 4;
	g->link->ops->write(g->link, VFN_REGION_CONFIG, 4, &command, sizeof(command));
}

int
function_open(const struct guest_conf *conf, struct vfn_function **fn, struct vfn_link **link)
{
	struct vfn_net_params net = {
		.max_pairs = conf->pairs != 0 ? conf->pairs : 1,
		.mac = {0x02, 'v', 'f', 'n', 't', 's'},
		.mtu = conf->mtu,
		.wiring.kind = conf->wiring,
		.wiring.gen = conf->gen,
		.rate_mbps = conf->rate_mbps,
		.offloads = conf->offloads,
	};
	struct vfn_function_params params = {
		.class = &vfn_net_class,
		.class_params = &net,
		.no_msix = conf->no_msix,
		.pollers = {.sleep = conf->sleep, .nb_cpus = conf->nb_cpus},
		.faults = conf->faults,
	};

	memcpy(params.pollers.cpu, conf->cpu, sizeof(conf->cpu));
	snprintf(params.name, sizeof(params.name), "%s", conf->name != NULL ? conf->name : "fn");
	if (conf->pool != NULL && vfn_pool_parse(conf->pool, &params.pool))
		params.dma = VFN_DMA_BOUNCE;
	if (conf->peer != NULL)
		snprintf(net.wiring.peer, sizeof(net.wiring.peer), "%s", conf->peer);
	if (conf->ethdev != NULL)
		snprintf(net.wiring.ethdev, sizeof(net.wiring.ethdev), "%s", conf->ethdev);
	return vfn_function_open(&params, fn, link);
}

struct guest *
guest_new(const struct guest_conf *conf)
{
	struct guest *g = calloc(1, sizeof(*g));
	unsigned int i, used;

	assert_non_null(g);
	g->conf = *conf;
	g->mem.files = conf->files || getenv("VFN_POSTED") != NULL;
	if (conf->pairs == 0)
		g->conf.pairs = 1;
	if (conf->size == 0)
		g->conf.size = 256;
	if (conf->buf_len == 0)
		g->conf.buf_len = 2048;
	if (conf->used_pairs == 0)
		g->conf.used_pairs = g->conf.pairs;
	for (i = 0; i < VFN_MAX_QUEUES; i++)
		g->q[i].kick = g->q[i].call = -1;
	g->link = conf->link;
	if (g->link == NULL && function_open(conf, &g->fn, &g->link) != 0) {
		free(g);
		fail_msg("the function does not open");
		return NULL;
	}
	g->next = guests;
	guests = g;
	find_structures(g);
	if (g->msix != 0)
		guest_msix_on(g);
	g->nb_queues = CGET(g, num_queues);
	/* room to lay out each queue three times, more where there are few */
	used = 2 * g->conf.used_pairs + 1;
	g->heap = HEAP_AT;
	g->heap_end = HEAP_AT + used * queue_bytes(g) * (used < 20 ? 3 : 1);
	guest_map(g, HEAP_AT, g->heap_end - HEAP_AT, VRINGH_PERM_RW);
	return g;
}

uint64_t
guest_features(struct guest *g)
{
	uint64_t features;

	CSET(g, device_feature_select, 0);
	features = CGET(g, device_feature);
	CSET(g, device_feature_select, 1);
	return features | (uint64_t)CGET(g, device_feature) << 32;
}

int
guest_negotiate(struct guest *g, uint64_t features)
{
	guest_master_on(g);
	CSET(g, device_status, STATUS_DRIVER);
	CSET(g, driver_feature_select, 0);
	CSET(g, driver_feature, (uint32_t)features);
	CSET(g, driver_feature_select, 1);
	CSET(g, driver_feature, features >> 32);
	CSET(g, device_status, STATUS_FEATURES);
	if (!(CGET(g, device_status) & VIRTIO_CONFIG_S_FEATURES_OK))
		return -1;
	g->features = features;
	return 0;
}

void
guest_driver_ok(struct guest *g)
{
	CSET(g, device_status, STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(CGET(g, device_status), STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
}

void
guest_start(struct guest *g)
{
	uint64_t modern = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_RESET);
	unsigned int i;

	assert_int_equal(guest_negotiate(g, g->conf.features | (g->conf.legacy ? 0 : modern)), 0);
	for (i = 0; i < 2u * g->conf.used_pairs; i++)
		queue_setup(g, i);
	if (g->features & BIT(VIRTIO_NET_F_CTRL_VQ))
		queue_setup(g, g->features & BIT(VIRTIO_NET_F_MQ) ? 2 * g->conf.pairs : 2);
	guest_driver_ok(g);
}

struct guest *
guest_open(const struct guest_conf *conf)
{
	struct guest *g = guest_new(conf);

	guest_start(g);
	return g;
}

/* Device reset: rings are laid out anew afterwards. */
void
guest_reset(struct guest *g)
{
	unsigned int i;

	CSET(g, device_status, 0);
	assert_int_equal(CGET(g, device_status), 0);
	for (i = 0; i < g->nb_queues; i++) {
		if (g->q[i].laid)
			mock_free(&g->q[i].drv);
		g->q[i].laid = false;
	}
	g->heap = HEAP_AT;
}

void
guest_close(struct guest *g)
{
	struct guest **p = &guests;
	unsigned int i;

	while (*p != g)
		p = &(*p)->next;
	*p = g->next;
	if (g->conf.link == NULL) {
		g->link->ops->close(g->link);
	} else {
		reg_set(g, &g->common, FIELD(struct vfn_common_cfg, device_status), 0);
		g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, 0, UINT64_MAX);
	}
	for (i = 0; i < VFN_MAX_QUEUES; i++) {
		if (g->q[i].laid)
			mock_free(&g->q[i].drv);
		if (g->q[i].kick >= 0)
			close(g->q[i].kick);
		if (g->q[i].call >= 0)
			close(g->q[i].call);
	}
	mock_mem_free(&g->mem);
	free(g);
}

int
guests_close(void **state)
{
	(void)state;
	while (guests != NULL)
		guest_close(guests);
	return 0;
}

/* ---- memory and rings ---- */

uint8_t *
guest_map(struct guest *g, uint64_t iova, uint64_t len, uint32_t perm)
{
	struct vfn_dma_map map = {
		.iova = iova,
		.len = len,
		.readable = perm & VRINGH_PERM_READ,
		.writable = perm & VRINGH_PERM_WRITE,
	};

	map.host = mock_mem_add(&g->mem, iova, len, perm);
	assert_non_null(map.host);
	map.fd = mock_mem_fd(&g->mem, iova, &map.offset);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
	return map.host;
}

/* The function forgets the memory first, so that a late access is one to freed memory. */
int
guest_unmap(struct guest *g, uint64_t iova, uint64_t len)
{
	int ret = g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, iova, len);

	if (ret == 0)
		mock_mem_remove(&g->mem, iova);
	return ret;
}

uint64_t
guest_alloc(struct guest *g, uint64_t len)
{
	uint64_t at = g->heap;

	g->heap += (len + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	assert_true(g->heap <= g->heap_end);
	return at;
}

static uint64_t
pages(uint64_t len)
{
	return (len + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

uint64_t
ring_bytes(const struct guest *g)
{
	return pages(g->conf.size * 16) + pages(g->conf.size * 2 + 6) + pages(g->conf.size * 8 + 6);
}

void
queue_lay(struct guest *g, unsigned int queue, uint64_t at, uint16_t start)
{
	struct guest_queue *q = &g->q[queue];
	struct mock_config cfg = {
		.packed = g->features & BIT(VIRTIO_F_RING_PACKED),
		.event_idx = g->features & BIT(VIRTIO_RING_F_EVENT_IDX),
		.in_order = g->features & BIT(VIRTIO_F_IN_ORDER),
		.size = g->conf.size,
		.buf_len = g->conf.buf_len,
		.table_entries = TABLE_ENTRIES,
		.start.used = start,
	};

	if (q->laid)
		mock_free(&q->drv);
	q->laid = false;
	cfg.desc = at != 0 ? at : guest_alloc(g, ring_bytes(g));
	cfg.driver = cfg.desc + pages(cfg.size * 16);
	cfg.device = cfg.driver + pages(cfg.size * 2 + 6);
	cfg.bufs = guest_alloc(g, (uint64_t)cfg.size * cfg.buf_len);
	cfg.tables = guest_alloc(g, (uint64_t)cfg.size * TABLE_ENTRIES * sizeof(struct vring_desc));
	assert_true(mock_init(&q->drv, &g->mem, &cfg));
	q->laid = true;
	mock_events_disable(&q->drv);
}

bool
queue_enable(struct guest *g, unsigned int queue)
{
	const struct mock_config *cfg = &g->q[queue].drv.cfg;

	CSET(g, queue_select, queue);
	CSET(g, queue_size, cfg->size);
	CSET(g, queue_desc_lo, (uint32_t)cfg->desc);
	CSET(g, queue_desc_hi, cfg->desc >> 32);
	CSET(g, queue_driver_lo, (uint32_t)cfg->driver);
	CSET(g, queue_driver_hi, cfg->driver >> 32);
	CSET(g, queue_device_lo, (uint32_t)cfg->device);
	CSET(g, queue_device_hi, cfg->device >> 32);
	VSET(g, queue_dirty_lo, (uint32_t)cfg->device);
	VSET(g, queue_dirty_hi, cfg->device >> 32);
	CSET(g, queue_msix_vector, queue + 1);
	CSET(g, queue_enable, 1);
	return CGET(g, queue_enable) == 1;
}

void
queue_setup(struct guest *g, unsigned int queue)
{
	struct guest_queue *q = &g->q[queue];

	if (q->kick < 0 && !g->conf.kick_by_write)
		q->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (q->call < 0)
		q->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	queue_lay(g, queue, 0, g->features & BIT(VIRTIO_F_RING_PACKED) ? 0x8000 : 0);
	assert_int_equal(g->link->ops->set_irq(g->link, queue + 1, q->call), 0);
	assert_int_equal(g->link->ops->set_doorbell(g->link, queue, q->kick), 0);
	assert_true(queue_enable(g, queue));
}

void
queue_reset(struct guest *g, unsigned int queue)
{
	CSET(g, queue_select, queue);
	CSET(g, queue_reset, 1);
	assert_int_equal(CGET(g, queue_reset), 0);
	assert_int_equal(CGET(g, queue_enable), 0);
}

void
queue_suspend(struct guest *g, unsigned int queue, bool suspend)
{
	CSET(g, queue_select, queue);
	VSET(g, queue_suspend, suspend);
	assert_int_equal(VGET(g, queue_suspend), suspend);
}

struct vringh_state
queue_state(struct guest *g, unsigned int queue)
{
	CSET(g, queue_select, queue);
	return (struct vringh_state){.avail = VGET(g, queue_avail), .used = VGET(g, queue_used)};
}

void
queue_kick_always(struct guest *g, unsigned int queue)
{
	uint16_t index = queue;

	if (g->q[queue].kick >= 0)
		eventfd_write(g->q[queue].kick, 1);
	else
		assert_int_equal(
			g->link->ops->write(g->link, g->notify.bar,
				g->notify.offset + queue * VFN_NOTIFY_STEP, &index, sizeof(index)),
			0);
}

void
queue_kick(struct guest *g, unsigned int queue)
{
	if (mock_should_kick(&g->q[queue].drv))
		queue_kick_always(g, queue);
}
