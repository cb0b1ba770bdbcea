/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* librte_vhost, played. See vhost_play.h for threads. */

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "vhost_play.h"

#define LOG_ALL BIT(VHOST_F_LOG_ALL)

struct play plays[PLAYS];
int play_blocks = -1;
unsigned int play_blocked;

/* The linker makes these of the driver's calls. */
int __wrap_rte_vhost_get_vhost_vring(int vid, uint16_t queue, struct rte_vhost_vring *vring);
int __wrap_rte_vhost_get_vring_base(int vid, uint16_t queue, uint16_t *avail, uint16_t *used);
int __wrap_rte_vhost_set_vring_base(int vid, uint16_t queue, uint16_t avail, uint16_t used);
int __wrap_rte_vhost_get_mem_table(int vid, struct rte_vhost_memory **mem);
int __wrap_rte_vhost_get_negotiated_features(int vid, uint64_t *features);
int __wrap_rte_vhost_get_negotiated_protocol_features(int vid, uint64_t *features);
struct vfn_map *__wrap_vfn_map_fd(int fd, uint64_t offset, uint64_t len);
struct vfn_map *__real_vfn_map_fd(int fd, uint64_t offset, uint64_t len);
bool __wrap_vfn_signal(int fd);
bool __real_vfn_signal(int fd);
int __wrap_vfn_message_start(struct vfn_guest *guest);
bool __wrap_vfn_message_memory(struct vfn_dev *dev, struct vfn_guest *guest);

/* No messages come that could be watched, and the memory is there. */
int
__wrap_vfn_message_start(struct vfn_guest *guest)
{
	(void)guest;
	return 0;
}

bool
__wrap_vfn_message_memory(struct vfn_dev *dev, struct vfn_guest *guest)
{
	(void)dev;
	(void)guest;
	return true;
}

bool
__wrap_vfn_signal(int fd)
{
	if (fd != play_blocks)
		return __real_vfn_signal(fd);
	__atomic_fetch_add(&play_blocked, 1, __ATOMIC_RELAXED);
	return false;
}

static struct vfn_map *
map_of(uint8_t *host, uint64_t len, int fd, uint64_t offset)
{
	struct vfn_map *map = calloc(1, sizeof(*map));

	assert_non_null(map);
	*map = (struct vfn_map){.refs = 1,
		.host = host,
		.len = len,
		.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0),
		.offset = offset};
	return map;
}

/* Of a guest's memory: not mapped again, so that the sanitizers see who goes beyond. */
struct vfn_map *
__wrap_vfn_map_fd(int fd, uint64_t offset, uint64_t len)
{
	uint64_t at;
	int vid;

	for (vid = 0; vid < PLAYS; vid++)
		if (plays[vid].g != NULL && mock_mem_fd(&plays[vid].g->mem, HEAP_AT, &at) == fd)
			return map_of(mock_mem_at(&plays[vid].g->mem, HEAP_AT + offset, len), len,
				fd, offset);
	return __real_vfn_map_fd(fd, offset, len);
}

int
__wrap_rte_vhost_get_vhost_vring(int vid, uint16_t queue, struct rte_vhost_vring *vring)
{
	struct guest *g = plays[vid].g;
	struct guest_queue *q = &g->q[queue];
	const struct mock_config *cfg = &q->drv.cfg;

	if (!q->laid)
		return -1;
	*vring = (struct rte_vhost_vring){.size = cfg->size, .kickfd = q->kick, .callfd = q->call};
	vring->desc = (void *)mock_mem_at(&g->mem, cfg->desc, 1);
	vring->avail = (void *)mock_mem_at(&g->mem, cfg->driver, 1);
	vring->used = (void *)mock_mem_at(&g->mem, cfg->device, 1);
	return 0;
}

int
__wrap_rte_vhost_get_vring_base(int vid, uint16_t queue, uint16_t *avail, uint16_t *used)
{
	*avail = plays[vid].base[queue].avail;
	*used = plays[vid].base[queue].used;
	return 0;
}

int
__wrap_rte_vhost_set_vring_base(int vid, uint16_t queue, uint16_t avail, uint16_t used)
{
	plays[vid].base[queue] = (struct vringh_state){.avail = avail, .used = used};
	return 0;
}

uint64_t
play_end(const struct play *p)
{
	return p->g->heap_end;
}

static uint64_t
region_len(const struct play *p)
{
	return ((play_end(p) - HEAP_AT) / p->nb_regions) | 1001;
}

uint64_t
play_border(const struct play *p)
{
	return HEAP_AT + region_len(p);
}

/* The heap in several regions with odd ends, so that some buffers lie across two. */
int
__wrap_rte_vhost_get_mem_table(int vid, struct rte_vhost_memory **mem)
{
	const struct play *p = &plays[vid];
	uint64_t len = p->g->heap_end - HEAP_AT, step = region_len(p), at = 0, offset;
	uint8_t *host = mock_mem_at(&p->g->mem, HEAP_AT, len);
	uint32_t i;

	*mem = calloc(1, sizeof(**mem) + p->nb_regions * sizeof((*mem)->regions[0]));
	if (*mem == NULL)
		return -1;
	(*mem)->nregions = p->nb_regions;
	for (i = 0; i < p->nb_regions; i++, at += step) {
		/* not in the order of their addresses */
		struct rte_vhost_mem_region *r = &(*mem)->regions[(i + 2) % p->nb_regions];

		*r = (struct rte_vhost_mem_region){.guest_phys_addr = HEAP_AT + at,
			.host_user_addr = (uintptr_t)host + at,
			.mmap_addr = host,
			.size = i + 1 < p->nb_regions ? step : len - at,
			.fd = mock_mem_fd(&p->g->mem, HEAP_AT, &offset)};
	}
	return 0;
}

int
__wrap_rte_vhost_get_negotiated_features(int vid, uint64_t *features)
{
	*features = __atomic_load_n(&plays[vid].features, __ATOMIC_RELAXED);
	return 0;
}

int
__wrap_rte_vhost_get_negotiated_protocol_features(int vid, uint64_t *features)
{
	*features = plays[vid].protocol;
	return 0;
}

/* ---- a device and its guest ---- */

void
page_set(uint8_t *bitmap, uint64_t page)
{
	bitmap[page / 8] |= 1 << page % 8;
}

bool
page_get(const uint8_t *bitmap, uint64_t page)
{
	return __atomic_load_n(&bitmap[page / 8], __ATOMIC_RELAXED) & 1 << page % 8;
}

static void
found(struct guest *g, uint64_t at, uint32_t len)
{
	uint64_t page;
	int vid;

	for (vid = 0; plays[vid].g != g; vid++)
		;
	for (page = at >> 12; page <= (at + len - 1) >> 12; page++)
		page_set(plays[vid].found, page);
}

uint64_t
play_log_len(const struct play *p)
{
	return ((play_end(p) - 1) >> 15) + 1;
}

struct play *
play_open(int vid, const struct play_conf *conf)
{
	struct guest_conf function = {
		.pairs = conf->pairs != 0 ? conf->pairs : 1,
		.wiring = conf->wiring,
		.peer = conf->peer,
		.sleep = conf->sleep,
		.faults = conf->faults,
	};
	struct play *p = &plays[vid];
	struct vfn_dev *dev = calloc(1, sizeof(*dev));
	unsigned int q;

	assert_non_null(dev);
	*p = (struct play){.dev = dev, .nb_regions = 5};
	snprintf(dev->name, sizeof(dev->name), "dev%d", vid);
	function.name = dev->name;
	dev->lm = conf->lm;
	dev->pci.name = dev->name;
	dev->pci.drain_ms = PATIENCE_MS;
	dev->faults = conf->faults;
	pthread_mutex_init(&dev->lock, NULL);
	TAILQ_INIT(&dev->guests);
	dev->class = conf->disk != NULL ? &vfn_drv_blk : &vfn_drv_net;
	if (conf->disk != NULL)
		assert_int_equal(disk_function(conf->disk, &dev->function, &dev->pci.link), 0);
	else
		assert_int_equal(function_open(&function, &dev->function, &dev->pci.link), 0);
	if (conf->thread) {
		p->ops = *dev->pci.link->ops;
		p->ops.set_job = NULL;
		dev->pci.link->ops = &p->ops;
	}
	p->g = guest_new(&(struct guest_conf){.name = dev->name,
		.link = dev->pci.link,
		.files = true,
		.pairs = function.pairs,
		.size = conf->size,
		.buf_len = conf->buf_len});
	assert_int_equal(dev->pci.link->ops->dma_unmap(dev->pci.link, VFN_DMA_GUEST, 0, 0), 0);
	assert_int_equal(vfn_vpci_init(&dev->pci), 0);
	assert_int_equal(dev->class->init(dev), 0);
	dev->config_reader = dev->inflight.fd = -1;
	vfn_notify_init(dev, &(struct vfn_args){.lm = conf->lm, .doorbell = conf->doorbell});
	p->g->features = p->features = conf->features | BIT(VIRTIO_F_VERSION_1);
	p->g->found = found;
	p->found = calloc(1, play_log_len(p));
	assert_non_null(p->found);
	for (q = 0; q < vfn_nb_data(dev); q++) {
		uint16_t start = conf->features & BIT(VIRTIO_F_RING_PACKED) ? 0x8000 : 0;

		queue_lay(p->g, q, 0, start);
		p->base[q] = (struct vringh_state){.avail = start, .used = start};
		p->g->q[q].kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		p->g->q[q].call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	}
	return p;
}

/* SET_LOG_BASE. */
static void
log_give(struct play *p)
{
	struct vfn_guest *guest = vfn_life_guest(p->dev, p - plays);

	if (guest == NULL)
		return;
	vfn_map_put(guest->dirty);
	guest->dirty = p->log != NULL ? map_of(p->log, p->log_len, p->log_fd, 0) : NULL;
}

void
play_start(struct play *p)
{
	int vid = p - plays;
	unsigned int q;

	pthread_mutex_lock(&p->dev->lock);
	for (q = 0; q < vfn_nb_data(p->dev); q++)
		vfn_life_vring(p->dev, vid, q, true);
	log_give(p);
	assert_int_equal(vfn_life_start(p->dev, vid), 0);
	pthread_mutex_unlock(&p->dev->lock);
	for (q = 0; q < vfn_nb_data(p->dev); q++)
		assert_true(p->dev->started[q]);
}

void
play_stop(struct play *p)
{
	pthread_mutex_lock(&p->dev->lock);
	vfn_life_stop(p->dev, p - plays);
	pthread_mutex_unlock(&p->dev->lock);
}

int
plays_close(void **state)
{
	unsigned int i;
	int vid;

	for (vid = 0; vid < PLAYS; vid++) {
		if (plays[vid].dev == NULL)
			continue;
		/* a test that failed may hold it */
		pthread_mutex_trylock(&plays[vid].dev->lock);
		vfn_life_forget(plays[vid].dev, vid);
		pthread_mutex_unlock(&plays[vid].dev->lock);
		for (i = 0; i < plays[vid].nb_logs; i++) {
			munmap(plays[vid].logs[i].map, plays[vid].logs[i].len);
			close(plays[vid].logs[i].fd);
		}
		free(plays[vid].found);
	}
	guests_close(state);
	for (vid = 0; vid < PLAYS; vid++) {
		struct vfn_dev *dev = plays[vid].dev;

		if (dev == NULL)
			continue;
		vfn_saved_free(dev);
		dev->pci.link->ops->close(dev->pci.link);
		vfn_life_close(dev);
		pthread_mutex_destroy(&dev->lock);
		free(dev);
		plays[vid] = (struct play){0};
	}
	return 0;
}

void
play_log(struct play *p, uint64_t len)
{
	if (len > 0 && p->nb_logs == DIM(p->logs))
		fail_msg("too many logs");
	p->log = NULL;
	p->log_len = len;
	if (len > 0) {
		p->log_fd = memfd_create("log", MFD_CLOEXEC);
		assert_int_equal(ftruncate(p->log_fd, len), 0);
		p->log = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, p->log_fd, 0);
		assert_true(p->log != MAP_FAILED);
		p->logs[p->nb_logs].fd = p->log_fd;
		p->logs[p->nb_logs].map = p->log;
		p->logs[p->nb_logs++].len = len;
	}
	pthread_mutex_lock(&p->dev->lock);
	log_give(p);
	pthread_mutex_unlock(&p->dev->lock);
}

void
play_log_all(struct play *p, bool on)
{
	pthread_mutex_lock(&p->dev->lock);
	p->features = on ? p->features | LOG_ALL : p->features & ~LOG_ALL;
	vfn_life_features(p->dev, p - plays);
	pthread_mutex_unlock(&p->dev->lock);
}

bool
play_logged(const struct play *p, uint64_t gpa)
{
	return page_get(p->log, gpa >> 12);
}
