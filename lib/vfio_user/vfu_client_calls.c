/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The client's commands, one call each, and what a reply to them may be. Any thread. */

#include <fcntl.h>
#include <stdlib.h>

#include "vfu_private.h"

/* ---- the device ---- */

int
vfu_client_info(struct vfu_client *client, struct vfu_device_info *info)
{
	struct vfu_device_info asked = {.argsz = sizeof(asked)};
	struct vfu_call c = {.command = VFU_DEVICE_GET_INFO,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = info,
		.reply_len = sizeof(*info)};

	return vfu_call(client, &c);
}

int
vfu_client_region(struct vfu_client *client, unsigned int index, struct vfu_region *region)
{
	struct {
		struct vfu_sparse_cap sparse;
		struct vfio_region_sparse_mmap_area area[VFU_MAX_AREAS];
	} cap;
	struct vfio_region_info info, asked = {.argsz = sizeof(info) + sizeof(cap), .index = index};
	struct vfu_call c = {.command = VFU_DEVICE_GET_REGION_INFO,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = &info,
		.reply_len = sizeof(info),
		.reply_data = &cap,
		.reply_room = sizeof(cap),
		.nb_reply_fds = 1};
	unsigned int i;
	bool ok;
	int ret;

	*region = (struct vfu_region){.fd = -1};
	c.reply_fds = &region->fd;
	ret = vfu_call(client, &c);
	if (ret < 0)
		return ret;
	region->size = info.size;
	region->flags = info.flags & (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
	region->offset = info.offset;
	if (region->fd < 0)
		return 0;
	/* The only capability that is known here is also the only one, and behind the fixed part.
	 */
	ok = fcntl(region->fd, F_GET_SEALS) >= 0 &&
		(info.flags & VFIO_REGION_INFO_FLAG_MMAP) != 0 && info.offset <= INT64_MAX &&
		info.size <= INT64_MAX - info.offset;
	if (ok && (info.flags & VFIO_REGION_INFO_FLAG_CAPS)) {
		ok = info.cap_offset == sizeof(info) && c.reply_extra >= sizeof(cap.sparse) &&
			cap.sparse.header.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP &&
			cap.sparse.nr_areas <=
				(c.reply_extra - sizeof(cap.sparse)) / sizeof(cap.area[0]);
		region->nb_areas = ok ? cap.sparse.nr_areas : 0;
		for (i = 0; i < region->nb_areas; i++) {
			region->area[i].offset = cap.area[i].offset;
			region->area[i].size = cap.area[i].size;
			ok = ok && cap.area[i].offset <= info.size &&
				cap.area[i].size <= info.size - cap.area[i].offset;
		}
	}
	if (!ok) {
		vfu_drop(client->patience->closer, region->fd);
		region->fd = -1;
		return vfu_nonsense(client);
	}
	return 0;
}

int
vfu_client_ioeventfds(struct vfu_client *client, unsigned int index, struct vfu_ioeventfd *fds)
{
	struct vfu_io_fd io[VFU_MAX_FDS];
	struct vfu_region_io_fds info, asked = {.argsz = sizeof(info) + sizeof(io), .index = index};
	int got[VFU_MAX_FDS];
	struct vfu_call c = {.command = VFU_DEVICE_GET_REGION_IO_FDS,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = &info,
		.reply_len = sizeof(info),
		.reply_data = io,
		.reply_room = sizeof(io),
		.reply_fds = got,
		.nb_reply_fds = VFU_MAX_FDS};
	int ret = vfu_call(client, &c);
	unsigned int i;
	bool ok;

	if (ret < 0)
		return ret;
	/* One for each; a server may let some share one, ours does not. */
	ok = info.count == c.nb_reply_fds && c.reply_extra == info.count * sizeof(io[0]);
	for (i = 0; ok && i < info.count; i++)
		ok = io[i].fd_index == i && io[i].type == VFU_IO_FD_TYPE_IOEVENTFD &&
			vfn_is_event(got[i]);
	if (!ok) {
		for (i = 0; i < c.nb_reply_fds; i++)
			vfu_drop(client->patience->closer, got[i]);
		return vfu_nonsense(client);
	}
	for (i = 0; i < info.count; i++)
		fds[i] = (struct vfu_ioeventfd){io[i].offset, io[i].size, got[i]};
	return info.count;
}

int
vfu_client_irq_info(struct vfu_client *client, unsigned int index, struct vfu_irq_info *info)
{
	struct vfu_irq_info asked = {.argsz = sizeof(asked), .index = index};
	struct vfu_call c = {.command = VFU_DEVICE_GET_IRQ_INFO,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = info,
		.reply_len = sizeof(*info)};

	return vfu_call(client, &c);
}

static int
set_irqs(struct vfu_client *client, unsigned int index, uint32_t flags, unsigned int start,
	unsigned int count, const int *fds)
{
	const struct vfu_irq_set set = {sizeof(set), flags, index, start, count};
	struct vfu_call c = {.command = VFU_DEVICE_SET_IRQS,
		.head = &set,
		.head_len = sizeof(set),
		.fds = fds,
		.nb_fds = fds != NULL ? count : 0};

	return vfu_call(client, &c);
}

int
vfu_client_irq_fds(struct vfu_client *client, unsigned int index, uint32_t action,
	unsigned int start, const int *fds, unsigned int count)
{
	unsigned int most = client->peer.max_fds < VFU_MAX_FDS ? client->peer.max_fds : VFU_MAX_FDS;
	unsigned int done, n;
	int ret = 0;

	if (fds == NULL)
		most = count;
	if (most == 0)
		return count == 0 ? 0 : -ENOTSUP;
	for (done = 0; done < count && ret == 0; done += n) {
		n = count - done < most ? count - done : most;
		ret = set_irqs(client, index, VFIO_IRQ_SET_DATA_EVENTFD | action, start + done, n,
			fds != NULL ? fds + done : NULL);
	}
	return ret;
}

int
vfu_client_irq_action(struct vfu_client *client, unsigned int index, uint32_t action,
	unsigned int start, unsigned int count)
{
	return set_irqs(client, index, VFIO_IRQ_SET_DATA_NONE | action, start, count, NULL);
}

int
vfu_client_irqs_off(struct vfu_client *client, unsigned int index)
{
	return set_irqs(
		client, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, NULL);
}

static int
access_region(struct vfu_client *client, bool write, unsigned int index, uint64_t offset,
	uint8_t *buf, size_t len)
{
	size_t most = client->peer.max_xfer < VFU_MAX_XFER ? client->peer.max_xfer : VFU_MAX_XFER;
	size_t done, n;
	int ret = 0;

	for (done = 0; done < len && ret == 0; done += n) {
		struct vfu_region_access a = {offset + done, index, 0}, reply;
		struct vfu_call c = {.command = write ? VFU_REGION_WRITE : VFU_REGION_READ,
			.head = &a,
			.head_len = sizeof(a),
			.reply = &reply,
			.reply_len = sizeof(reply)};

		n = len - done < most ? len - done : most;
		a.count = n;
		if (write) {
			c.data = buf + done;
			c.data_len = n;
		} else {
			c.reply_data = buf + done;
			c.reply_room = n;
		}
		ret = vfu_call(client, &c);
		if (ret == 0 && (reply.count != n || c.reply_extra != (write ? 0 : n)))
			ret = vfu_nonsense(client);
	}
	return ret;
}

int
vfu_client_read(
	struct vfu_client *client, unsigned int index, uint64_t offset, void *buf, size_t len)
{
	return access_region(client, false, index, offset, buf, len);
}

int
vfu_client_write(
	struct vfu_client *client, unsigned int index, uint64_t offset, const void *buf, size_t len)
{
	return access_region(client, true, index, offset, (void *)(uintptr_t)buf, len);
}

int
vfu_client_dma_map(struct vfu_client *client, const struct vfu_dma *dma)
{
	const struct vfu_dma_map map = {
		sizeof(map), dma->flags, dma->offset, dma->address, dma->size};
	struct vfu_call c = {.command = VFU_DMA_MAP,
		.head = &map,
		.head_len = sizeof(map),
		.fds = &dma->fd,
		.nb_fds = dma->fd >= 0 ? 1 : 0};

	return vfu_call(client, &c);
}

int
vfu_client_dma_unmap(struct vfu_client *client, uint64_t address, uint64_t size)
{
	const struct vfu_dma_unmap unmap = {sizeof(unmap), 0, address, size};
	struct vfu_dma_unmap reply;
	struct vfu_call c = {.command = VFU_DMA_UNMAP,
		.head = &unmap,
		.head_len = sizeof(unmap),
		.reply = &reply,
		.reply_len = sizeof(reply)};

	return vfu_call(client, &c);
}

int
vfu_client_reset(struct vfu_client *client)
{
	struct vfu_call c = {.command = VFU_DEVICE_RESET};

	return vfu_call(client, &c);
}

/* ---- migration ---- */

/* in and out are of the same feature, one of them may be NULL. */
static int
feature(struct vfu_client *client, uint32_t flags, const void *in, size_t in_len, void *out,
	size_t out_len)
{
	struct vfu_feature f = {sizeof(f) + out_len, flags}, reply;
	struct vfu_call c = {.command = VFU_DEVICE_FEATURE,
		.head = &f,
		.head_len = sizeof(f),
		.data = in,
		.data_len = in_len,
		.reply = &reply,
		.reply_len = sizeof(reply),
		.reply_data = out,
		.reply_room = out_len};
	int ret = vfu_call(client, &c);

	if (ret == 0 && c.reply_extra != out_len)
		ret = vfu_nonsense(client);
	return ret;
}

int
vfu_client_migration(struct vfu_client *client, uint64_t *flags)
{
	return feature(client, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, NULL, 0,
		flags, sizeof(*flags));
}

int
vfu_client_mig_state(struct vfu_client *client, enum vfio_device_mig_state *state)
{
	struct vfu_mig_state s;
	int ret = feature(client, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
		NULL, 0, &s, sizeof(s));

	if (ret == 0 && s.device_state > VFIO_DEVICE_STATE_RUNNING_P2P)
		ret = vfu_nonsense(client);
	*state = ret == 0 ? s.device_state : VFIO_DEVICE_STATE_ERROR;
	return ret;
}

int
vfu_client_set_mig_state(struct vfu_client *client, enum vfio_device_mig_state state)
{
	struct vfu_mig_state s = {.device_state = state};

	return feature(client, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &s,
		sizeof(s), &s, sizeof(s));
}

ssize_t
vfu_client_state_read(struct vfu_client *client, void *buf, size_t len)
{
	struct vfu_mig_data asked, reply;
	struct vfu_call c = {.command = VFU_MIG_DATA_READ,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = &reply,
		.reply_len = sizeof(reply),
		.reply_data = buf,
		.reply_room = len < VFU_MAX_XFER ? len : VFU_MAX_XFER};
	int ret;

	asked = (struct vfu_mig_data){sizeof(asked) + c.reply_room, c.reply_room};
	ret = vfu_call(client, &c);
	if (ret == 0 && reply.size != c.reply_extra)
		ret = vfu_nonsense(client);
	return ret < 0 ? ret : (ssize_t)c.reply_extra;
}

int
vfu_client_state_write(struct vfu_client *client, const void *buf, size_t len)
{
	size_t done, n;
	int ret = 0;

	for (done = 0; done < len && ret == 0; done += n) {
		struct vfu_mig_data head;
		struct vfu_call c = {.command = VFU_MIG_DATA_WRITE,
			.head = &head,
			.head_len = sizeof(head),
			.data = (const uint8_t *)buf + done};

		n = len - done < VFU_MAX_XFER ? len - done : VFU_MAX_XFER;
		head = (struct vfu_mig_data){sizeof(head) + n, n};
		c.data_len = n;
		ret = vfu_call(client, &c);
	}
	return ret;
}

int
vfu_client_log_start(struct vfu_client *client, uint64_t *page_size,
	const struct vfu_log_range *ranges, unsigned int nb_ranges)
{
	size_t len = sizeof(struct vfu_log_control) + nb_ranges * sizeof(*ranges);
	struct vfu_log_control *control = calloc(1, len);
	int ret;

	if (control == NULL)
		return -ENOMEM;
	control->page_size = *page_size;
	control->num_ranges = nb_ranges;
	if (nb_ranges > 0)
		memcpy(control + 1, ranges, nb_ranges * sizeof(*ranges));
	ret = feature(client, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
		control, len, control, len);
	if (ret == 0 &&
		(control->page_size == 0 || (control->page_size & (control->page_size - 1)) != 0))
		ret = vfu_nonsense(client);
	if (ret == 0)
		*page_size = control->page_size;
	free(control);
	return ret;
}

int
vfu_client_log_stop(struct vfu_client *client)
{
	return feature(client, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL,
		0, NULL, 0);
}

int
vfu_client_log_report(struct vfu_client *client, uint64_t iova, uint64_t length, uint64_t page_size,
	uint64_t *bitmap)
{
	const struct vfu_log_report asked = {iova, length, page_size};
	struct vfu_log_report *reply;
	size_t bytes;
	int ret;

	if (length == 0 || page_size == 0 ||
		(length - 1) / page_size / 64 >= VFU_MAX_XFER / sizeof(*bitmap))
		return -EINVAL;
	bytes = ((length - 1) / page_size / 64 + 1) * sizeof(*bitmap);
	reply = malloc(sizeof(*reply) + bytes);
	if (reply == NULL)
		return -ENOMEM;
	ret = feature(client, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
		&asked, sizeof(asked), reply, sizeof(*reply) + bytes);
	if (ret == 0)
		memcpy(bitmap, reply + 1, bytes);
	free(reply);
	return ret;
}
