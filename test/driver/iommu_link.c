/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A link whose addresses are translated. Any thread; one of its own answers. */

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "iommu_link.h"

#define PAGE 4096
/* Of what is mapped against what the driver says. */
#define SHIFT (UINT64_C(1) << 44)

#define MAX_MAPS   64
#define MAX_MISSES 256

struct translated {
	struct vfn_link link;
	struct vfn_link *real;
	struct vfn_miss_call call;
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows; nothing of the link is called with it */
	pthread_cond_t asked;
	bool quit;
	struct vfn_miss miss[MAX_MISSES];
	unsigned int nb_misses;
	struct vfn_dma_map map[MAX_MAPS];
	unsigned int nb_maps;
};

static struct translated *
translated_of(struct vfn_link *link)
{
	return (struct translated *)((uint8_t *)link - offsetof(struct translated, link));
}
#define REAL(link) (translated_of(link)->real)

static bool
missed(struct vfn_miss_call *call, const struct vfn_miss *miss)
{
	struct translated *t =
		(struct translated *)((uint8_t *)call - offsetof(struct translated, call));
	bool room;

	pthread_mutex_lock(&t->lock);
	room = t->nb_misses < MAX_MISSES;
	if (room)
		t->miss[t->nb_misses++] = *miss;
	pthread_cond_signal(&t->asked);
	pthread_mutex_unlock(&t->lock);
	return room;
}

/* A page of a map, or no right to it. */
static struct vfn_translation
answer(const struct translated *t, uint64_t iova)
{
	uint64_t from = iova / PAGE * PAGE, last = from + (PAGE - 1);
	unsigned int i;

	for (i = 0; i < t->nb_maps; i++) {
		const struct vfn_dma_map *m = &t->map[i];
		uint64_t m_last = m->iova + (m->len - 1);

		if (iova < m->iova || iova > m_last)
			continue;
		from = from > m->iova ? from : m->iova;
		last = last < m_last ? last : m_last;
		return (struct vfn_translation){.iova = from,
			.len = last - from + 1,
			.addr = from + SHIFT,
			.readable = m->readable,
			.writable = m->writable};
	}
	return (struct vfn_translation){.iova = iova, .len = 1};
}

static void *
answer_all(void *arg)
{
	struct translated *t = arg;

	pthread_mutex_lock(&t->lock);
	while (!t->quit) {
		struct vfn_translation translation;

		if (t->nb_misses == 0) {
			pthread_cond_wait(&t->asked, &t->lock);
			continue;
		}
		translation = answer(t, t->miss[0].iova);
		memmove(t->miss, t->miss + 1, --t->nb_misses * sizeof(t->miss[0]));
		pthread_mutex_unlock(&t->lock);
		/* Refused if it is unmapped by now: who needs it asks again. */
		t->real->ops->translate(t->real, &translation);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static int
t_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	return REAL(link)->ops->read(REAL(link), region, offset, buf, len);
}

static int
t_write(struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	return REAL(link)->ops->write(REAL(link), region, offset, buf, len);
}

static int
t_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct translated *t = translated_of(link);
	struct vfn_dma_map shifted = *map;
	int ret;

	if (map->space != VFN_DMA_GUEST)
		return t->real->ops->dma_map(t->real, map);
	shifted.iova += SHIFT;
	if (shifted.iova < map->iova || t->nb_maps == MAX_MAPS)
		return -ENOSPC;
	ret = t->real->ops->dma_map(t->real, &shifted);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&t->lock);
	t->map[t->nb_maps++] = *map;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

static int
t_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	struct translated *t = translated_of(link);
	unsigned int i;
	int ret;

	if (space != VFN_DMA_GUEST)
		return t->real->ops->dma_unmap(t->real, space, iova, len);
	ret = t->real->ops->dma_unmap(t->real, space, len > 0 ? iova + SHIFT : 0, len);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&t->lock);
	for (i = t->nb_maps; i-- > 0;)
		if (len == 0 ||
			(t->map[i].iova - iova < len &&
				t->map[i].len <= len - (t->map[i].iova - iova)))
			t->map[i] = t->map[--t->nb_maps];
	pthread_mutex_unlock(&t->lock);
	return 0;
}

static int
t_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	return REAL(link)->ops->set_irq(REAL(link), vector, fd);
}

static int
t_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	return REAL(link)->ops->set_doorbell(REAL(link), queue, fd);
}

static int
t_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	return REAL(link)->ops->get_region_fd(REAL(link), region, fd, size);
}

static int
t_set_job(struct vfn_link *link, unsigned int queue, struct vfn_job *job)
{
	return REAL(link)->ops->set_job(REAL(link), queue, job);
}

static void
t_close(struct vfn_link *link)
{
	struct translated *t = translated_of(link);

	pthread_mutex_lock(&t->lock);
	t->quit = true;
	pthread_cond_signal(&t->asked);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	t->real->ops->close(t->real);
	free(t);
}

bool
over_iommu(void)
{
	const char *mode = getenv("VFN_POSTED");

	return mode != NULL && strcmp(mode, "iommu") == 0;
}

struct vfn_link *
iommu_real(struct vfn_link *link)
{
	return REAL(link);
}

int
iommu_invalidate(struct vfn_link *link, uint64_t iova, uint64_t len)
{
	return REAL(link)->ops->untranslate(REAL(link), iova, len);
}

struct vfn_link *
iommu_link(struct vfn_link *real)
{
	static const struct vfn_link_ops ops = {
		.read = t_read,
		.write = t_write,
		.dma_map = t_dma_map,
		.dma_unmap = t_dma_unmap,
		.set_irq = t_set_irq,
		.set_doorbell = t_set_doorbell,
		.get_region_fd = t_get_region_fd,
		.set_job = t_set_job,
		.close = t_close,
	};
	struct translated *t = calloc(1, sizeof(*t));

	if (t == NULL)
		abort();
	t->link.ops = &ops;
	t->real = real;
	t->call.run = missed;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->asked, NULL);
	if (pthread_create(&t->thread, NULL, answer_all, t) != 0 ||
		real->ops->set_translated(real, &t->call) < 0)
		abort();
	return &t->link;
}
