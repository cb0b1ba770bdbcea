/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The devices, and the driver's locks. Any thread.
 *
 * A device found in the list is counted as used until it is put, and not freed before. The order
 * of the locks, see doc/concurrency.md: a device's own, then that of the doorbells, then the
 * list's, with which in hand nothing else is called. Each thread knows which it has; taking one
 * out of order is told in the log.
 */

#include <string.h>

#include "vfn_drv.h"

enum rank {
	RANK_DEV,
	RANK_NOTIFY,
	RANK_LIST,
};

static TAILQ_HEAD(, vfn_dev) devs = TAILQ_HEAD_INITIALIZER(devs);
static pthread_mutex_t devs_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t unused = PTHREAD_COND_INITIALIZER;
static uint64_t last_id;

static pthread_mutex_t notify_lock = PTHREAD_MUTEX_INITIALIZER;

/* A bit per rank. */
static __thread unsigned int held;

static void
take(pthread_mutex_t *lock, enum rank rank)
{
	static bool told;

	if (held >> rank != 0 && !__atomic_exchange_n(&told, true, __ATOMIC_RELAXED))
		DRV_LOG(ERR, "lock order: %u is taken while 0x%x are held", rank, held);
	pthread_mutex_lock(lock);
	held |= 1u << rank;
}

static void
leave(pthread_mutex_t *lock, enum rank rank)
{
	held &= ~(1u << rank);
	pthread_mutex_unlock(lock);
}

void
vfn_dev_add(struct vfn_dev *dev)
{
	dev->refs = 1;
	take(&devs_lock, RANK_LIST);
	dev->id = ++last_id;
	TAILQ_INSERT_TAIL(&devs, dev, next);
	leave(&devs_lock, RANK_LIST);
}

/* Nobody else uses it on return, or will. */
void
vfn_dev_del(struct vfn_dev *dev)
{
	take(&devs_lock, RANK_LIST);
	TAILQ_REMOVE(&devs, dev, next);
	dev->refs--;
	while (dev->refs > 0)
		pthread_cond_wait(&unused, &devs_lock);
	leave(&devs_lock, RANK_LIST);
}

struct vfn_dev *
vfn_dev_get_by_vdpa(const struct rte_vdpa_device *vdpa)
{
	struct vfn_dev *dev;

	take(&devs_lock, RANK_LIST);
	TAILQ_FOREACH(dev, &devs, next)
		if (dev->vdpa == vdpa)
			break;
	if (dev != NULL)
		dev->refs++;
	leave(&devs_lock, RANK_LIST);
	return dev;
}

struct vfn_dev *
vfn_dev_get_by_vid(int vid)
{
	struct rte_vdpa_device *vdpa = rte_vhost_get_vdpa_device(vid);

	return vdpa != NULL ? vfn_dev_get_by_vdpa(vdpa) : NULL;
}

/* The first one after dev, which is put; NULL: the first one of all. */
struct vfn_dev *
vfn_dev_get_next(struct vfn_dev *dev)
{
	uint64_t after = dev != NULL ? dev->id : 0;

	if (dev != NULL)
		vfn_dev_put(dev);
	take(&devs_lock, RANK_LIST);
	TAILQ_FOREACH(dev, &devs, next)
		if (dev->id > after)
			break;
	if (dev != NULL)
		dev->refs++;
	leave(&devs_lock, RANK_LIST);
	return dev;
}

void
vfn_dev_put(struct vfn_dev *dev)
{
	take(&devs_lock, RANK_LIST);
	if (--dev->refs == 0)
		pthread_cond_broadcast(&unused);
	leave(&devs_lock, RANK_LIST);
}

void
vfn_dev_lock(struct vfn_dev *dev)
{
	take(&dev->lock, RANK_DEV);
}

/* False: somebody has it, who may be waiting for this thread. */
bool
vfn_dev_trylock(struct vfn_dev *dev)
{
	if (pthread_mutex_trylock(&dev->lock) != 0)
		return false;
	held |= 1u << RANK_DEV;
	return true;
}

void
vfn_dev_unlock(struct vfn_dev *dev)
{
	leave(&dev->lock, RANK_DEV);
}

/* What the next two have found is unlocked, and put. */
void
vfn_dev_release(struct vfn_dev *dev)
{
	vfn_dev_unlock(dev);
	vfn_dev_put(dev);
}

/* The device that a connection is for, locked; NULL if it is none of ours. */
struct vfn_dev *
vfn_dev_lock_by_vid(int vid)
{
	struct vfn_dev *dev = vfn_dev_get_by_vid(vid);

	if (dev != NULL)
		vfn_dev_lock(dev);
	return dev;
}

/* The device of this name, locked; NULL if there is none. */
struct vfn_dev *
vfn_dev_lock_by_name(const char *name)
{
	struct vfn_dev *dev;

	take(&devs_lock, RANK_LIST);
	TAILQ_FOREACH(dev, &devs, next)
		if (strcmp(dev->name, name) == 0)
			break;
	if (dev != NULL)
		dev->refs++;
	leave(&devs_lock, RANK_LIST);
	if (dev != NULL)
		vfn_dev_lock(dev);
	return dev;
}

/* The doorbells' lock, see vfn_notify.c. */
void
vfn_notify_lock(void)
{
	take(&notify_lock, RANK_NOTIFY);
}

void
vfn_notify_unlock(void)
{
	leave(&notify_lock, RANK_NOTIFY);
}

void
vfn_notify_wait(pthread_cond_t *cond)
{
	pthread_cond_wait(cond, &notify_lock);
}
