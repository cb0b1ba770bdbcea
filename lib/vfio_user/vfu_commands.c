/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the server does for a client's commands but those of migration. Each finds a payload of the
 * size that its command has at least, and no descriptors if it takes none.
 */

#include "vfu_private.h"

static int
reply_with(struct vfu_server *server, const void *payload, size_t len)
{
	memcpy(server->reply, payload, len);
	server->reply_len = len;
	return 0;
}

/* "VFIO_USER_DEVICE_GET_INFO" */
int
vfu_do_info(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_device_info *info = payload;
	const struct vfu_device_info mine = {
		.argsz = sizeof(mine),
		.flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
		.num_regions = server->device.nb_regions,
		.num_irqs = server->device.nb_irqs,
	};

	if (info->argsz < len)
		return vfu_refuse(server, -EINVAL, "argsz has no room for the answer");
	return reply_with(server, &mine, sizeof(mine));
}

/* ---- regions ---- */

static bool
region_get(struct vfu_server *server, unsigned int index, struct vfu_region *region)
{
	*region = (struct vfu_region){.fd = -1};
	if (index >= server->device.nb_regions)
		return false;
	server->device.ops->region(server->device.priv, index, region);
	return true;
}

/* "VFIO_USER_DEVICE_GET_REGION_INFO" */
int
vfu_do_region_info(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfio_region_info *asked = payload;
	struct {
		struct vfio_region_info info;
		struct vfu_sparse_cap sparse;
		struct vfio_region_sparse_mmap_area area[VFU_MAX_AREAS];
	} mine;
	struct vfu_region region;
	size_t size = sizeof(mine.info);
	unsigned int i;

	(void)len;
	if (!region_get(server, asked->index, &region))
		return vfu_refuse(server, -EINVAL, "there is no such region");
	if (server->peer.max_fds == 0)
		region.fd = -1; /* it could not be sent */
	if (asked->argsz < sizeof(mine.info))
		return vfu_refuse(server, -EINVAL, "argsz has no room for the answer");
	memset(&mine, 0, sizeof(mine));
	mine.info.index = asked->index;
	mine.info.flags = region.flags;
	mine.info.size = region.size;
	if (region.fd >= 0) {
		mine.info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
		mine.info.offset = region.offset;
	}
	/* "Sparse Regions" */
	if (region.fd >= 0 && region.nb_areas > 0) {
		mine.info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
		mine.info.cap_offset = sizeof(mine.info);
		mine.sparse.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
		mine.sparse.header.version = 1;
		mine.sparse.nr_areas = region.nb_areas;
		for (i = 0; i < region.nb_areas; i++) {
			mine.area[i].offset = region.area[i].offset;
			mine.area[i].size = region.area[i].size;
		}
		size = sizeof(mine.info) + sizeof(mine.sparse) +
			region.nb_areas * sizeof(mine.area[0]);
	}
	mine.info.argsz = size;
	/* "Message sizes": the client asks again, with room for all of it. */
	if (asked->argsz < size)
		return reply_with(server, &mine, sizeof(mine.info));
	if (region.fd >= 0) {
		server->reply_fds[0] = region.fd;
		server->nb_reply_fds = 1;
	}
	return reply_with(server, &mine, size);
}

/* "VFIO_USER_DEVICE_GET_REGION_IO_FDS" */
int
vfu_do_region_io_fds(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_region_io_fds *asked = payload;
	struct {
		struct vfu_region_io_fds info;
		struct vfu_io_fd fd[VFU_MAX_FDS];
	} mine = {0};
	struct vfu_ioeventfd fds[VFU_MAX_FDS];
	int i, n = 0;

	(void)len;
	if (asked->index >= server->device.nb_regions || asked->flags != 0)
		return vfu_refuse(
			server, -EINVAL, "there is no such region, or its flags are not 0");
	if (asked->argsz < sizeof(mine.info))
		return vfu_refuse(server, -EINVAL, "argsz has no room for the answer");
	if (server->device.ops->ioeventfds != NULL)
		n = server->device.ops->ioeventfds(server->device.priv, asked->index, fds);
	if (n < 0)
		return n;
	if ((uint32_t)n > server->peer.max_fds)
		n = server->peer.max_fds;
	mine.info.index = asked->index;
	mine.info.count = n;
	mine.info.argsz = sizeof(mine.info) + n * sizeof(mine.fd[0]);
	for (i = 0; i < n; i++)
		mine.fd[i] = (struct vfu_io_fd){.offset = fds[i].offset,
			.size = fds[i].size,
			.fd_index = i,
			.type = VFU_IO_FD_TYPE_IOEVENTFD};
	if (asked->argsz < mine.info.argsz)
		return reply_with(server, &mine, sizeof(mine.info));
	for (i = 0; i < n; i++)
		server->reply_fds[i] = fds[i].fd;
	server->nb_reply_fds = n;
	return reply_with(server, &mine, mine.info.argsz);
}

/* An access that the region allows; the device sees about registers. */
static int
region_access(struct vfu_server *server, const struct vfu_region_access *a, uint32_t flag)
{
	struct vfu_region region;

	if (a->count > VFU_MAX_XFER)
		return vfu_refuse(server, -EINVAL, "it is more data than a message takes");
	if (!region_get(server, a->region, &region))
		return vfu_refuse(server, -EINVAL, "there is no such region");
	if (a->offset > region.size || a->count > region.size - a->offset)
		return vfu_refuse(server, -EINVAL, "it is not within the region");
	if (!(region.flags & flag))
		return vfu_refuse(server, -EACCES, "the region does not allow it");
	return 0;
}

/* "VFIO_USER_REGION_READ" */
int
vfu_do_region_read(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_region_access *a = payload;
	int ret = region_access(server, a, VFIO_REGION_INFO_FLAG_READ);

	if (ret == 0 && a->count > 0)
		ret = server->device.ops->read(server->device.priv, a->region, a->offset,
			server->reply + sizeof(*a), a->count);
	if (ret < 0)
		return ret;
	reply_with(server, a, len);
	server->reply_len += a->count;
	return 0;
}

static int
region_write(struct vfu_server *server, const struct vfu_region_access *a, const void *data)
{
	int ret = region_access(server, a, VFIO_REGION_INFO_FLAG_WRITE);

	if (ret == 0 && a->count > 0)
		ret = server->device.ops->write(
			server->device.priv, a->region, a->offset, data, a->count);
	return ret;
}

/* "VFIO_USER_REGION_WRITE" */
int
vfu_do_region_write(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_region_access *a = payload;
	int ret;

	if (a->count != len - sizeof(*a))
		return vfu_refuse(server, -EINVAL, "count is not how much data it has");
	ret = region_write(server, a, a + 1);
	return ret < 0 ? ret : reply_with(server, a, sizeof(*a));
}

/* "VFIO_USER_REGION_WRITE_MULTI": the answer is how many were done, up to one that is refused. */
int
vfu_do_write_multi(struct vfu_server *server, const void *payload, size_t len)
{
	const uint8_t *at = (const uint8_t *)payload + sizeof(uint64_t);
	struct vfu_region_write w;
	uint64_t count, done;
	int ret = 0;

	memcpy(&count, payload, sizeof(count));
	if (count == 0 || count != (len - sizeof(count)) / sizeof(w) ||
		(len - sizeof(count)) % sizeof(w) != 0)
		return vfu_refuse(server, -EINVAL, "wr_cnt is not how many writes it has");
	for (done = 0; done < count; done++) {
		struct vfu_region_access a;

		memcpy(&w, at + done * sizeof(w), sizeof(w));
		a = (struct vfu_region_access){w.offset, w.region, w.count};
		ret = w.count > sizeof(w.data) ? -EINVAL : region_write(server, &a, w.data);
		if (ret < 0)
			break;
	}
	return done == 0 ? ret : reply_with(server, &done, sizeof(done));
}

/* "VFIO_USER_DEVICE_RESET" */
int
vfu_do_reset(struct vfu_server *server, const void *payload, size_t len)
{
	int ret = server->device.ops->reset(server->device.priv);

	(void)payload;
	(void)len;
	/* "To recover from ERROR, VFIO_USER_DEVICE_RESET must be used": one that does well. */
	server->state = ret == 0 ? VFIO_DEVICE_STATE_RUNNING : VFIO_DEVICE_STATE_ERROR;
	return ret;
}

/* ---- memory ---- */

unsigned int
vfu_map_find(const struct vfu_server *server, uint64_t address)
{
	unsigned int low = 0, high = server->nb_maps;

	while (low < high) {
		unsigned int mid = (low + high) / 2;
		const struct vfu_dma *m = &server->map[mid];

		if (m->address + (m->size - 1) < address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* "VFIO_USER_DMA_MAP" */
int
vfu_do_dma_map(struct vfu_server *server, const void *payload, size_t len)
{
	const uint32_t access = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	const struct vfu_dma_map *m = payload;
	struct vfu_dma dma = {
		.address = m->address,
		.size = m->size,
		.flags = m->flags,
		.fd = server->now->nb_fds > 0 ? server->now->fds[0] : -1,
		.offset = m->offset,
	};
	unsigned int at;
	int ret;

	if (m->argsz < len || (m->flags & ~access) != 0 || m->flags == 0)
		return vfu_refuse(server, -EINVAL, "argsz or flags are wrong");
	if (m->size == 0 || m->address + (m->size - 1) < m->address)
		return vfu_refuse(server, -EINVAL, "the range is empty, or does not end");
	if (server->now->nb_fds > 1)
		return vfu_refuse(server, -EINVAL, "it has too many descriptors");
	at = vfu_map_find(server, m->address);
	if (at < server->nb_maps && server->map[at].address - m->address < m->size)
		return vfu_refuse(server, -EEXIST, "it overlaps another map");
	if (at < server->nb_maps && m->address >= server->map[at].address)
		return vfu_refuse(server, -EEXIST, "it overlaps another map");
	if (server->nb_maps == VFU_MAX_MAPS)
		return vfu_refuse(server, -ENOSPC, "there are too many maps");
	ret = server->device.ops->dma_map(server->device.priv, &dma);
	if (ret < 0)
		return ret;
	memmove(&server->map[at + 1], &server->map[at],
		(server->nb_maps - at) * sizeof(server->map[0]));
	dma.fd = -1; /* it is closed with the message */
	server->map[at] = dma;
	server->nb_maps++;
	return 0;
}

static int
unmap(struct vfu_server *server, unsigned int at)
{
	int ret = server->device.ops->dma_unmap(server->device.priv, &server->map[at]);

	if (ret < 0)
		return ret;
	server->nb_maps--;
	memmove(&server->map[at], &server->map[at + 1],
		(server->nb_maps - at) * sizeof(server->map[0]));
	return 0;
}

/* "VFIO_USER_DMA_UNMAP" */
int
vfu_do_dma_unmap(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_dma_unmap *m = payload;
	bool all = m->flags == VFIO_DMA_UNMAP_FLAG_ALL && m->address == 0 && m->size == 0;
	unsigned int at = vfu_map_find(server, m->address);
	int ret = 0;

	if (m->argsz < len || (m->flags != 0 && !all))
		return vfu_refuse(server, -EINVAL, "argsz or flags are wrong");
	if (!all &&
		(at == server->nb_maps || server->map[at].address != m->address ||
			server->map[at].size != m->size))
		return vfu_refuse(server, -ENOENT, "there is no map of just that range");
	if (!all)
		ret = unmap(server, at);
	while (all && server->nb_maps > 0 && ret == 0)
		ret = unmap(server, server->nb_maps - 1);
	return ret < 0 ? ret : reply_with(server, m, len);
}

/* ---- interrupts ---- */

static uint32_t
irqs(struct vfu_server *server, unsigned int index, uint32_t *flags)
{
	*flags = 0;
	return server->device.ops->irqs(server->device.priv, index, flags);
}

/* "VFIO_USER_DEVICE_GET_IRQ_INFO" */
int
vfu_do_irq_info(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_irq_info *asked = payload;
	struct vfu_irq_info mine = {.argsz = sizeof(mine), .index = asked->index};

	if (asked->index >= server->device.nb_irqs)
		return vfu_refuse(server, -EINVAL, "there is no such type of interrupts");
	if (asked->argsz < len)
		return vfu_refuse(server, -EINVAL, "argsz has no room for the answer");
	mine.count = irqs(server, asked->index, &mine.flags);
	return reply_with(server, &mine, sizeof(mine));
}

/* Is exactly one of the bits of mask set? */
static bool
one_of(uint32_t flags, uint32_t mask)
{
	flags &= mask;
	return flags != 0 && (flags & (flags - 1)) == 0;
}

/* Where one is refused none has an eventfd. */
static int
set_fds(struct vfu_server *server, const struct vfu_irq_set *s)
{
	const struct vfu_device_ops *ops = server->device.ops;
	int (*set)(void *, unsigned int, unsigned int, int) = ops->irq_fd;
	uint32_t i;
	int ret = 0;

	if (s->flags & VFIO_IRQ_SET_ACTION_MASK)
		return vfu_refuse(server, -ENOTSUP, "no eventfd tells of masking");
	if (s->flags & VFIO_IRQ_SET_ACTION_UNMASK)
		set = ops->irq_unmask_fd;
	if (set == NULL)
		return -ENOTSUP;
	if (server->now->nb_fds != 0 && server->now->nb_fds != s->count)
		return vfu_refuse(
			server, -EINVAL, "it has fewer descriptors than interrupts, or more");
	for (i = 0; i < s->count && ret == 0; i++)
		ret = set(server->device.priv, s->index, s->start + i,
			server->now->nb_fds != 0 ? server->now->fds[i] : -1);
	for (i = 0; i < s->count && ret < 0; i++)
		set(server->device.priv, s->index, s->start + i, -1);
	return ret;
}

static int
set_one(struct vfu_server *server, const struct vfu_irq_set *s, uint32_t irq)
{
	const struct vfu_device_ops *ops = server->device.ops;

	if (s->flags & VFIO_IRQ_SET_ACTION_TRIGGER)
		return ops->irq_trigger == NULL ?
			-ENOTSUP :
			ops->irq_trigger(server->device.priv, s->index, irq);
	if (ops->irq_mask == NULL)
		return -ENOTSUP;
	return ops->irq_mask(
		server->device.priv, s->index, irq, s->flags & VFIO_IRQ_SET_ACTION_MASK);
}

/* "VFIO_USER_DEVICE_SET_IRQS" */
int
vfu_do_set_irqs(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_irq_set *s = payload;
	const uint8_t *bools = (const uint8_t *)(s + 1);
	const struct vfu_device_ops *ops = server->device.ops;
	uint32_t flags, count, i;
	int ret = 0;

	if (s->index >= server->device.nb_irqs)
		return vfu_refuse(server, -EINVAL, "there is no such type of interrupts");
	count = irqs(server, s->index, &flags);
	if (s->argsz < sizeof(*s) ||
		(s->flags &
			~(uint32_t)(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK)) !=
			0 ||
		!one_of(s->flags, VFIO_IRQ_SET_DATA_TYPE_MASK) ||
		!one_of(s->flags, VFIO_IRQ_SET_ACTION_TYPE_MASK))
		return vfu_refuse(server, -EINVAL, "argsz or flags are wrong");
	if (s->start > count || s->count > count - s->start)
		return vfu_refuse(server, -EINVAL, "there are not as many interrupts of that type");
	if (!(s->flags & VFIO_IRQ_SET_ACTION_TRIGGER) && !(flags & VFIO_IRQ_INFO_MASKABLE))
		return vfu_refuse(server, -ENOTSUP, "these are not masked");
	if (len - sizeof(*s) != ((s->flags & VFIO_IRQ_SET_DATA_BOOL) ? s->count : 0) ||
		(server->now->nb_fds > 0 && !(s->flags & VFIO_IRQ_SET_DATA_EVENTFD)))
		return vfu_refuse(server, -EINVAL, "its data are not what its flags say");
	if (s->flags & VFIO_IRQ_SET_DATA_EVENTFD)
		return set_fds(server, s);
	/* "a count (and start) of 0 [...] disables all interrupts of the index" */
	if (s->count == 0 && (s->flags & VFIO_IRQ_SET_ACTION_TRIGGER) &&
		(s->flags & VFIO_IRQ_SET_DATA_NONE)) {
		for (i = 0; i < count && ret == 0; i++) {
			ret = ops->irq_fd(server->device.priv, s->index, i, -1);
			if (ret == 0 && (flags & VFIO_IRQ_INFO_MASKABLE) &&
				ops->irq_unmask_fd != NULL)
				ret = ops->irq_unmask_fd(server->device.priv, s->index, i, -1);
		}
		return ret;
	}
	for (i = 0; i < s->count && ret == 0; i++)
		if ((s->flags & VFIO_IRQ_SET_DATA_NONE) || bools[i] != 0)
			ret = set_one(server, s, s->start + i);
	return ret;
}
