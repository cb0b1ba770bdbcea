/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The link to an endpoint. Any thread. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vfn_regs.h>

#include "vfn_endpoint_link.h"

_Static_assert((int)VFN_REGION_BAR0 == (int)VFIO_PCI_BAR0_REGION_INDEX &&
		(int)VFN_REGION_CONFIG == (int)VFIO_PCI_CONFIG_REGION_INDEX,
	"regions are numbered as in VFIO");

/* A map that the endpoint has: the protocol takes back just what was mapped. */
struct endpoint_map {
	LIST_ENTRY(endpoint_map) next;
	uint64_t address, size;
};

struct endpoint_link {
	struct vfn_link link;
	struct vfu_client *client; /* NULL: hung up */
	pthread_mutex_t lock;	   /* of what follows, and for as long as they are changed */
	LIST_HEAD(, endpoint_map) maps;
	int region_fd; /* that was last asked for, -1: none */
};

static struct endpoint_link *
link_of(const struct vfn_link *link)
{
	return (struct endpoint_link *)((uintptr_t)link - offsetof(struct endpoint_link, link));
}

/* ---- registers ---- */

static int
link_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	struct endpoint_link *e = link_of(link);

	return e->client == NULL ? -ENODEV : vfu_client_read(e->client, region, offset, buf, len);
}

static int
link_write(struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	struct endpoint_link *e = link_of(link);

	return e->client == NULL ? -ENODEV : vfu_client_write(e->client, region, offset, buf, len);
}

/* A message with a descriptor that is none cannot be sent, and ends the connection. */
static bool
is_open(int fd)
{
	return fd >= 0 && fcntl(fd, F_GETFD) >= 0;
}

/* ---- memory ---- */

static uint64_t
address_of(enum vfn_dma_space space, uint64_t iova)
{
	return space == VFN_DMA_OWN ? iova | VFN_ENDPOINT_OWN : iova;
}

static int
link_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct endpoint_link *e = link_of(link);
	struct vfu_dma dma = {
		.address = address_of(map->space, map->iova),
		.size = map->len,
		.flags = (map->readable ? VFIO_DMA_MAP_FLAG_READ : 0) |
			(map->writable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.fd = map->fd,
		.offset = map->offset,
	};
	struct endpoint_map *m;
	int ret;

	if (!is_open(map->fd))
		return -EBADF;
	/* Half of all addresses is the other space. */
	if (map->len == 0 || map->iova >= VFN_ENDPOINT_OWN ||
		map->len > VFN_ENDPOINT_OWN - map->iova)
		return -EINVAL;
	m = malloc(sizeof(*m));
	if (m == NULL)
		return -ENOMEM;
	m->address = dma.address;
	m->size = dma.size;
	pthread_mutex_lock(&e->lock);
	ret = e->client == NULL ? -ENODEV : vfu_client_dma_map(e->client, &dma);
	if (ret == 0)
		LIST_INSERT_HEAD(&e->maps, m, next);
	else
		free(m);
	pthread_mutex_unlock(&e->lock);
	return ret;
}

/* Of a range: 0 outside of it, 1 inside, -1 both. */
static int
map_inside(const struct endpoint_map *m, uint64_t address, uint64_t last)
{
	uint64_t m_last = m->address + (m->size - 1);

	if (m_last < address || m->address > last)
		return 0;
	return m->address >= address && m_last <= last ? 1 : -1;
}

static int
link_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	struct endpoint_link *e = link_of(link);
	uint64_t first = address_of(space, iova), last;
	struct endpoint_map *m, *next;
	int ret = 0;

	/* To the end of the space, which need not be said in one range. */
	if (len == 0 && iova != 0)
		return -EINVAL;
	last = len == 0 || len - 1 > VFN_ENDPOINT_OWN - 1 - (first & ~VFN_ENDPOINT_OWN) ?
		address_of(space, VFN_ENDPOINT_OWN - 1) :
		first + (len - 1);
	pthread_mutex_lock(&e->lock);
	LIST_FOREACH(m, &e->maps, next)
	if (map_inside(m, first, last) < 0)
		ret = -EINVAL;
	for (m = LIST_FIRST(&e->maps); m != NULL && ret == 0; m = next) {
		next = LIST_NEXT(m, next);
		if (map_inside(m, first, last) != 1)
			continue;
		ret = e->client == NULL ? -ENODEV :
					  vfu_client_dma_unmap(e->client, m->address, m->size);
		if (ret == 0) {
			LIST_REMOVE(m, next);
			free(m);
		}
	}
	/* Who takes back all memory has reset the function, and with that its files are others. */
	if (len == 0 && space == VFN_DMA_GUEST && e->region_fd >= 0) {
		close(e->region_fd);
		e->region_fd = -1;
	}
	pthread_mutex_unlock(&e->lock);
	return ret;
}

/* ---- eventfds and files ---- */

static int
set_eventfd(struct vfn_link *link, unsigned int index, uint32_t action, unsigned int number, int fd)
{
	struct endpoint_link *e = link_of(link);

	if (e->client == NULL)
		return -ENODEV;
	if (fd >= 0 && !is_open(fd))
		return -EBADF;
	return vfu_client_irq_fds(e->client, index, action, number, fd >= 0 ? &fd : NULL, 1);
}

static int
link_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	bool pin = vector == VFN_VECTOR_INTX;

	return set_eventfd(link, pin ? VFIO_PCI_INTX_IRQ_INDEX : VFIO_PCI_MSIX_IRQ_INDEX,
		VFIO_IRQ_SET_ACTION_TRIGGER, pin ? 0 : vector, fd);
}

static int
link_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	struct endpoint_link *e = link_of(link);

	if (fd >= 0 || e->client == NULL)
		return set_eventfd(
			link, VFN_ENDPOINT_IRQ_DOORBELL, VFIO_IRQ_SET_ACTION_UNMASK, queue, fd);
	/* It is not rung by messages either. */
	return vfu_client_irq_action(
		e->client, VFN_ENDPOINT_IRQ_DOORBELL, VFIO_IRQ_SET_ACTION_UNMASK, queue, 1);
}

/* Can all of it be mapped, from the start of the file? */
static bool
region_is_file(const struct vfu_region *region)
{
	if (region->fd < 0 || region->offset != 0)
		return false;
	return region->nb_areas == 0 ||
		(region->nb_areas == 1 && region->area[0].offset == 0 &&
			region->area[0].size == region->size);
}

static bool
same_file(int a, int b)
{
	struct stat x, y;

	return a >= 0 && fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
		x.st_ino == y.st_ino;
}

/* Asked anew each time: a reset may have given the function another. */
static int
link_get_region_fd(struct vfn_link *link, unsigned int index, int *fd, uint64_t *size)
{
	struct endpoint_link *e = link_of(link);
	struct vfu_region region;
	int ret;

	pthread_mutex_lock(&e->lock);
	ret = e->client == NULL ? -ENODEV : vfu_client_region(e->client, index, &region);
	if (ret == 0 && !region_is_file(&region)) {
		if (region.fd >= 0)
			close(region.fd);
		ret = -ENOTSUP;
	}
	if (ret == 0) {
		if (same_file(e->region_fd, region.fd)) {
			close(region.fd);
		} else {
			if (e->region_fd >= 0)
				close(e->region_fd);
			e->region_fd = region.fd;
		}
		*fd = e->region_fd;
		*size = region.size;
	}
	pthread_mutex_unlock(&e->lock);
	return ret;
}

/* ---- a connection ---- */

static void
link_close(struct vfn_link *link)
{
	struct endpoint_link *e = link_of(link);
	struct endpoint_map *m;

	vfu_client_close(e->client);
	while ((m = LIST_FIRST(&e->maps)) != NULL) {
		LIST_REMOVE(m, next);
		free(m);
	}
	if (e->region_fd >= 0)
		close(e->region_fd);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

/* What its configuration space begins with. */
static int
check_device(struct endpoint_link *e, char *why, size_t size)
{
	struct vfu_device_info info;
	uint16_t id[2];
	int ret = vfu_client_info(e->client, &info);

	if (ret == 0 &&
		(!(info.flags & VFIO_DEVICE_FLAGS_PCI) ||
			info.num_regions < VFN_ENDPOINT_NUM_REGIONS ||
			info.num_irqs < VFN_ENDPOINT_NUM_IRQS)) {
		snprintf(why, size, "it serves no function of this kind: %u regions, %u interrupts",
			info.num_regions, info.num_irqs);
		return -ENODEV;
	}
	if (ret == 0)
		ret = vfu_client_read(e->client, VFN_REGION_CONFIG, 0, id, sizeof(id));
	if (ret < 0)
		snprintf(why, size, "%s", strerror(-ret));
	else if (id[0] != VFN_PCI_VENDOR || id[1] <= VFN_PCI_DEVICE)
		snprintf(why, size, "it serves device %04x:%04x, no virtio function", id[0], id[1]);
	else
		return 0;
	return ret < 0 ? ret : -ENODEV;
}

static int
take_control(
	struct endpoint_link *e, const struct vfn_endpoint_control *control, char *why, size_t size)
{
	struct vfu_region region;
	int ret = vfu_client_region(e->client, VFN_ENDPOINT_REGION_CONTROL, &region);

	if (ret == 0 && region.fd >= 0)
		close(region.fd);
	if (ret == 0 && region.size < sizeof(*control)) {
		snprintf(why, size,
			"it does not leave MAC, MTU, queues and features to its client: it is not "
			"control=host there");
		return -ENODEV;
	}
	if (ret == 0)
		ret = vfu_client_write(
			e->client, VFN_ENDPOINT_REGION_CONTROL, 0, control, sizeof(*control));
	if (ret < 0)
		snprintf(why, size, "it does not take MAC, MTU, queues and features: %s",
			strerror(-ret));
	return ret;
}

static const char *
connect_error(int ret)
{
	switch (ret) {
	case -EBUSY:
		return "it has another client";
	case -EPROTO:
		return "it does not speak this version of vfio-user";
	case -ETIMEDOUT:
		return "it does not answer";
	}
	return strerror(-ret);
}

struct vfn_link *
vfn_endpoint_none(void)
{
	static const struct vfn_link_ops ops = {
		.read = link_read,
		.write = link_write,
		.dma_map = link_dma_map,
		.dma_unmap = link_dma_unmap,
		.set_irq = link_set_irq,
		.set_doorbell = link_set_doorbell,
		.get_region_fd = link_get_region_fd,
		.close = link_close,
	};
	struct endpoint_link *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return NULL;
	e->link.ops = &ops;
	e->region_fd = -1;
	LIST_INIT(&e->maps);
	pthread_mutex_init(&e->lock, NULL);
	return &e->link;
}

int
vfn_endpoint_connect(const char *path, const struct vfn_endpoint_control *control,
	unsigned int timeout_ms, struct vfu_patience *patience, char *why, size_t size,
	struct vfn_link **link)
{
	struct vfn_link *new = vfn_endpoint_none();
	struct endpoint_link *e;
	int ret;

	if (new == NULL) {
		snprintf(why, size, "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	e = link_of(new);
	ret = vfu_client_connect(path, NULL, NULL, timeout_ms, patience, &e->client);
	if (ret < 0)
		snprintf(why, size, "%s", connect_error(ret));
	if (ret == 0)
		ret = check_device(e, why, size);
	if (ret == 0 && control != NULL)
		ret = take_control(e, control, why, size);
	if (ret < 0) {
		link_close(new);
		return ret;
	}
	*link = new;
	return 0;
}

int
vfn_endpoint_fd(const struct vfn_link *link)
{
	return vfu_client_fd(link_of(link)->client);
}

void
vfn_endpoint_hang_up(struct vfn_link *link)
{
	struct endpoint_link *e = link_of(link);

	vfu_client_close(e->client);
	e->client = NULL;
}
