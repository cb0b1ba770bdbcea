/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The posted link. Any thread; a thread of each link's own applies writes. */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include <vfn_function.h>

#include "endpoint_link.h"
#include "fn_harness.h"
#include "iommu_link.h"
#include "ntb_link.h"
#include "posted_link.h"
#include "windows_link.h"

/* A write arrives after, and what it starts is seen to be done after. */
#define POST_US	 20
#define DELAY_US 100

struct posted_write {
	STAILQ_ENTRY(posted_write) next;
	unsigned int region;
	uint64_t offset;
	size_t len;
	uint8_t data[];
};

/* Registers whose value says that something is done. */
#define COMMON_AT(field) VFN_OFF_COMMON + FIELD(struct vfn_common_cfg, field)
#define VENDOR_AT(field) VFN_OFF_VENDOR + FIELD(struct vfn_vendor_cfg, field)
enum { STATUS, ENABLE, RESET, QUEUE_SUSPEND, SUSPEND, DIRTY, PARTS, NB_DONE };
static const struct {
	uint64_t at;
	size_t len;
	bool per_queue;
} done_regs[NB_DONE] = {
	[STATUS] = {COMMON_AT(device_status), false},
	[ENABLE] = {COMMON_AT(queue_enable), true},
	[RESET] = {COMMON_AT(queue_reset), true},
	[QUEUE_SUSPEND] = {VENDOR_AT(queue_suspend), true},
	[SUSPEND] = {VENDOR_AT(suspend), false},
	[DIRTY] = {VENDOR_AT(dirty_control), false},
	[PARTS] = {VENDOR_AT(parts_control), false},
};

/* What a register reads as until then. */
struct late {
	uint64_t until_us;
	uint32_t value;
};

/* The function's own mapping of a map's file. */
struct own_map {
	LIST_ENTRY(own_map) next;
	enum vfn_dma_space space;
	uint64_t iova, len;
	void *at;
	size_t at_len;
};

struct posted {
	struct vfn_link link;
	struct vfn_link *real;
	bool all; /* not only writes */
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t wake, idle;
	STAILQ_HEAD(, posted_write) writes;
	bool quit, gone;
	uint16_t selected;
	struct late late[NB_DONE][VFN_MAX_QUEUES];
	const char *lose;
	unsigned int nb_lose;
	LIST_HEAD(, own_map) maps;
};

int __wrap_vfn_function_open(
	const struct vfn_function_params *params, struct vfn_function **fn, struct vfn_link **link);
int __real_vfn_function_open(
	const struct vfn_function_params *params, struct vfn_function **fn, struct vfn_link **link);

static struct posted *
posted_of(struct vfn_link *link)
{
	return (struct posted *)((uint8_t *)link - offsetof(struct posted, link));
}

static uint64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000000) + ts.tv_nsec / 1000;
}

static bool
is_lost(struct posted *p, const char *what)
{
	if (p->nb_lose == 0 || strcmp(p->lose, what) != 0)
		return false;
	if (p->nb_lose != UINT32_MAX)
		p->nb_lose--;
	return true;
}

static int
done_reg(unsigned int region, uint64_t offset, size_t len)
{
	int i;

	for (i = 0; i < NB_DONE; i++)
		if (region == VFN_REGION_BAR0 && offset == done_regs[i].at &&
			len == done_regs[i].len)
			return i;
	return -1;
}

static struct late *
late_of(struct posted *p, int reg)
{
	bool queue = done_regs[reg].per_queue && p->selected < VFN_MAX_QUEUES;

	return &p->late[reg][queue ? p->selected : 0];
}

static const char *
done_name(int reg, uint32_t v)
{
	switch (reg) {
	case STATUS:
		return v == 0				? "reset" :
			v & VIRTIO_CONFIG_S_DRIVER_OK	? "driver_ok" :
			v & VIRTIO_CONFIG_S_FEATURES_OK ? "features_ok" :
							  "status";
	case ENABLE:
		return "queue_enable";
	case RESET:
		return "queue_reset";
	case QUEUE_SUSPEND:
		return v ? "queue_suspend" : "queue_resume";
	case SUSPEND:
		return "suspend";
	case DIRTY:
		return v ? "dirty_start" : "dirty_stop";
	}
	return "parts";
}

/* With the lock held. */
static void
apply(struct posted *p, const struct posted_write *w)
{
	int reg = done_reg(w->region, w->offset, w->len);
	struct late *late;
	uint32_t v = 0;
	bool lost;

	if (p->gone)
		return;
	if (w->region == VFN_REGION_BAR0 &&
		w->offset == VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, queue_select))
		memcpy(&p->selected, w->data, sizeof(p->selected));
	if (reg < 0 || !p->all) {
		p->real->ops->write(p->real, w->region, w->offset, w->data, w->len);
		return;
	}
	memcpy(&v, w->data, w->len);
	if (reg == STATUS && v == 0)
		memset(p->late, 0, sizeof(p->late));
	late = late_of(p, reg);
	late->value = 0;
	p->real->ops->read(p->real, w->region, w->offset, &late->value, w->len);
	/* These say that they are at it (4.1.4.3). */
	if (reg == RESET)
		late->value = 1;
	if (reg == PARTS)
		late->value = VFN_PARTS_BUSY;
	lost = is_lost(p, done_name(reg, v));
	if (!lost)
		p->real->ops->write(p->real, w->region, w->offset, w->data, w->len);
	late->until_us = lost ? UINT64_MAX : now_us() + DELAY_US;
}

static void *
apply_all(void *arg)
{
	struct posted *p = arg;
	struct posted_write *w;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (STAILQ_EMPTY(&p->writes) && !p->quit)
			pthread_cond_wait(&p->wake, &p->lock);
		if (STAILQ_EMPTY(&p->writes))
			break;
		pthread_mutex_unlock(&p->lock);
		nap_us(POST_US);
		pthread_mutex_lock(&p->lock);
		while ((w = STAILQ_FIRST(&p->writes)) != NULL) {
			apply(p, w);
			STAILQ_REMOVE_HEAD(&p->writes, next);
			free(w);
		}
		pthread_cond_broadcast(&p->idle);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Everything that was written has arrived. */
static struct posted *
begin(struct vfn_link *link)
{
	struct posted *p = posted_of(link);

	pthread_mutex_lock(&p->lock);
	while (!STAILQ_EMPTY(&p->writes))
		pthread_cond_wait(&p->idle, &p->lock);
	return p;
}

static int
end(struct posted *p, int ret)
{
	pthread_mutex_unlock(&p->lock);
	return ret;
}

static int
posted_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	struct posted *p = begin(link);
	int reg = done_reg(region, offset, len), ret;
	const struct late *late = reg >= 0 ? late_of(p, reg) : NULL;

	if (p->gone) {
		memset(buf, 0xff, len);
		return end(p, 0);
	}
	ret = p->real->ops->read(p->real, region, offset, buf, len);
	if (late != NULL && now_us() < late->until_us)
		memcpy(buf, &late->value, len);
	return end(p, ret);
}

static int
posted_write(
	struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	struct posted *p = posted_of(link);
	struct posted_write *w = malloc(sizeof(*w) + len);

	if (w == NULL)
		abort();
	w->region = region;
	w->offset = offset;
	w->len = len;
	memcpy(w->data, buf, len);
	pthread_mutex_lock(&p->lock);
	STAILQ_INSERT_TAIL(&p->writes, w, next);
	pthread_cond_signal(&p->wake);
	return end(p, 0);
}

static int
posted_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct posted *p = begin(link);
	uint64_t from = map->offset / 4096 * 4096;
	struct vfn_dma_map own = *map;
	struct own_map *m;
	int ret;

	if (p->gone)
		return end(p, -ENODEV);
	if (!p->all)
		return end(p, p->real->ops->dma_map(p->real, map));
	if (map->fd < 0)
		return end(p, -EBADF);
	m = calloc(1, sizeof(*m));
	if (m == NULL)
		abort();
	*m = (struct own_map){.space = map->space,
		.iova = map->iova,
		.len = map->len,
		.at_len = map->len + (map->offset - from)};
	m->at = mmap(NULL, m->at_len, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, from);
	ret = m->at == MAP_FAILED ? -errno : 0;
	if (ret == 0) {
		own.host = (uint8_t *)m->at + (map->offset - from);
		ret = p->real->ops->dma_map(p->real, &own);
		if (ret < 0)
			munmap(m->at, m->at_len);
	}
	if (ret == 0)
		LIST_INSERT_HEAD(&p->maps, m, next);
	else
		free(m);
	return end(p, ret);
}

static int
posted_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	struct posted *p = begin(link);
	struct own_map *m, *next;
	int ret;

	if (p->gone || is_lost(p, "dma_unmap"))
		return end(p, -ENODEV);
	ret = p->real->ops->dma_unmap(p->real, space, iova, len);
	for (m = LIST_FIRST(&p->maps); m != NULL && ret == 0; m = next) {
		next = LIST_NEXT(m, next);
		if (m->space != space ||
			(len > 0 && (m->iova - iova >= len || m->len > len - (m->iova - iova))))
			continue;
		LIST_REMOVE(m, next);
		munmap(m->at, m->at_len);
		free(m);
	}
	return end(p, ret);
}

static int
posted_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	struct posted *p = begin(link);

	return end(p,
		p->gone || is_lost(p, "set_irq") ? -ENODEV :
						   p->real->ops->set_irq(p->real, vector, fd));
}

static int
posted_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	struct posted *p = begin(link);

	return end(p, p->gone ? -ENODEV : p->real->ops->set_doorbell(p->real, queue, fd));
}

static int
posted_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	struct posted *p = begin(link);

	return end(p, p->gone ? -ENODEV : p->real->ops->get_region_fd(p->real, region, fd, size));
}

static int
posted_set_job(struct vfn_link *link, unsigned int queue, struct vfn_job *job)
{
	struct posted *p = begin(link);

	return end(p,
		p->gone || is_lost(p, "set_job") ? -ENODEV :
						   p->real->ops->set_job(p->real, queue, job));
}

static void
posted_close(struct vfn_link *link)
{
	struct posted *p = begin(link);
	struct own_map *m;

	p->quit = true;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	p->real->ops->close(p->real);
	while ((m = LIST_FIRST(&p->maps)) != NULL) {
		LIST_REMOVE(m, next);
		munmap(m->at, m->at_len);
		free(m);
	}
	free(p);
}

void
posted_lose(struct vfn_link *link, const char *what, unsigned int n)
{
	struct posted *p = begin(link);

	p->lose = what;
	p->nb_lose = n;
	end(p, 0);
}

void
posted_gone(struct vfn_link *link, bool gone)
{
	struct posted *p = begin(link);

	p->gone = gone;
	end(p, 0);
}

int
__wrap_vfn_function_open(
	const struct vfn_function_params *params, struct vfn_function **fn, struct vfn_link **link)
{
	static const struct vfn_link_ops ops = {
		.read = posted_read,
		.write = posted_write,
		.dma_map = posted_dma_map,
		.dma_unmap = posted_dma_unmap,
		.set_irq = posted_set_irq,
		.set_doorbell = posted_set_doorbell,
		.get_region_fd = posted_get_region_fd,
		.set_job = posted_set_job,
		.close = posted_close,
	};
	struct vfn_function_params own = *params;
	const char *mode = getenv("VFN_POSTED");
	int ret;
	struct posted *p;

	if (over_iommu())
		own.dma = VFN_DMA_IOMMU;
	ret = __real_vfn_function_open(&own, fn, link);
	if (ret != 0 || mode == NULL)
		return ret;
	if (over_endpoint()) {
		*link = endpoint_link(*link);
		return 0;
	}
	if (over_ntb() || over_bridge()) {
		*link = ntb_link(*link);
		return 0;
	}
	if (over_iommu()) {
		*link = iommu_link(*link);
		return 0;
	}
	if (strcmp(mode, "windows") == 0) {
		*link = windows_link(*link);
		return 0;
	}
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		abort();
	p->link.ops = &ops;
	p->real = *link;
	p->all = strcmp(mode, "all") == 0;
	p->lose = "";
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	pthread_cond_init(&p->idle, NULL);
	STAILQ_INIT(&p->writes);
	LIST_INIT(&p->maps);
	if (pthread_create(&p->thread, NULL, apply_all, p) != 0)
		abort();
	*link = &p->link;
	return 0;
}
