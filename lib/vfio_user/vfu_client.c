/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The client: a command, and the wait for its reply. Any thread, one at a time. */

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vfu_private.h"

struct vfu_client {
	pthread_mutex_t lock;
	int fd;
	bool dead;
	uint16_t id;
	unsigned int timeout_ms;
	struct vfu_peer peer;
	const struct vfu_client_ops *ops;
	void *priv;
	struct vfu_in in;
	uint8_t *data; /* VFU_MAX_XFER, that the server asked for; NULL: it has not yet */
};

/* A command of ours. */
struct call {
	uint16_t command;
	const void *head;
	size_t head_len;
	const void *data;
	size_t data_len;
	const int *fds;
	unsigned int nb_fds;
	/* The reply's payload: its head, then data. */
	void *reply;
	size_t reply_len;
	void *reply_data;
	size_t reply_room;  /* of reply_data */
	size_t reply_extra; /* bytes of it that there are; set */
	/* Its descriptors, and how many there may be; set to how many there are. */
	int *reply_fds;
	unsigned int nb_reply_fds;
};

/* ---- with the lock ---- */

static int
dead(struct vfu_client *client, int ret)
{
	client->dead = true;
	shutdown(client->fd, SHUT_RDWR);
	return ret;
}

/* The server's own command. */
static bool
serve(struct vfu_client *client)
{
	const struct vfu_header h = *client->in.header;
	struct vfu_dma_access a = {0};
	struct vfu_out out = {.header = {h.id, h.command, 0, VFU_TYPE_REPLY, 0}};
	size_t len = vfu_payload_len(&client->in);
	const uint8_t *payload = vfu_payload(&client->in);
	int ret = -EINVAL;

	if (client->data == NULL)
		client->data = malloc(VFU_MAX_XFER);
	if (client->data == NULL)
		ret = -ENOMEM;
	else if (h.command != VFU_DMA_READ && h.command != VFU_DMA_WRITE)
		ret = -ENOTSUP;
	else if (len >= sizeof(a)) {
		memcpy(&a, payload, sizeof(a));
		len -= sizeof(a);
		if (a.count > VFU_MAX_XFER || len != (h.command == VFU_DMA_WRITE ? a.count : 0))
			ret = -EINVAL;
		else if (client->ops == NULL)
			ret = -ENOTSUP;
		else if (h.command == VFU_DMA_READ)
			ret = client->ops->dma_read == NULL ?
				-ENOTSUP :
				client->ops->dma_read(
					client->priv, a.address, client->data, a.count);
		else
			ret = client->ops->dma_write == NULL ?
				-ENOTSUP :
				client->ops->dma_write(
					client->priv, a.address, payload + sizeof(a), a.count);
	}
	if (h.flags & VFU_NO_REPLY)
		return true;
	if (ret < 0) {
		out.header.flags |= VFU_ERROR;
		out.header.error = -ret;
	} else {
		out.head = &a;
		out.head_len = sizeof(a);
		out.data = client->data;
		out.data_len = h.command == VFU_DMA_READ ? a.count : 0;
	}
	return vfu_send(client->fd, &out);
}

/* The next message that is a reply. */
static int
reply_wait(struct vfu_client *client)
{
	uint64_t deadline = vfu_now_ms() + client->timeout_ms;

	for (;;) {
		switch (vfu_receive(client->fd, &client->in)) {
		case VFU_IO_WAIT:
			if (!vfu_wait(client->fd, POLLIN, deadline))
				return dead(client, -ETIMEDOUT);
			continue;
		case VFU_IO_DONE:
			break;
		default:
			return dead(client, -EPIPE);
		}
		if ((client->in.header->flags & VFU_TYPE_MASK) == VFU_TYPE_REPLY)
			return 0;
		if ((client->in.header->flags & VFU_TYPE_MASK) != VFU_TYPE_COMMAND ||
			!serve(client))
			return dead(client, -EPIPE);
		vfu_in_reset(&client->in);
	}
}

static int
reply_take(struct vfu_client *client, struct call *c)
{
	const struct vfu_header *h = client->in.header;
	const uint8_t *payload = vfu_payload(&client->in);
	size_t len = vfu_payload_len(&client->in);
	unsigned int i;

	if (h->id != client->id || h->command != c->command || client->in.surplus)
		return dead(client, -EPIPE);
	if (h->flags & VFU_ERROR)
		return h->error > 0 && h->error < 4096 ? -(int)h->error : -EIO;
	if (len < c->reply_len || len - c->reply_len > c->reply_room ||
		client->in.nb_fds > c->nb_reply_fds)
		return dead(client, -EPIPE);
	if (c->reply_len > 0)
		memcpy(c->reply, payload, c->reply_len);
	c->reply_extra = len - c->reply_len;
	if (c->reply_extra > 0)
		memcpy(c->reply_data, payload + c->reply_len, c->reply_extra);
	/* They are the caller's now. */
	for (i = 0; i < client->in.nb_fds; i++)
		c->reply_fds[i] = client->in.fds[i];
	c->nb_reply_fds = client->in.nb_fds;
	client->in.nb_fds = 0;
	return 0;
}

static int
call_locked(struct vfu_client *client, struct call *c)
{
	struct vfu_out out = {
		.header = {.id = ++client->id, .command = c->command, .flags = VFU_TYPE_COMMAND},
		.head = c->head,
		.head_len = c->head_len,
		.data = c->data,
		.data_len = c->data_len,
		.fds = c->fds,
		.nb_fds = c->nb_fds,
	};
	int ret;

	if (client->dead)
		return -EPIPE;
	if (!vfu_send(client->fd, &out))
		return dead(client, -EPIPE);
	ret = reply_wait(client);
	if (ret == 0)
		ret = reply_take(client, c);
	vfu_in_reset(&client->in);
	return ret;
}

static int
call(struct vfu_client *client, struct call *c)
{
	int ret;

	pthread_mutex_lock(&client->lock);
	ret = call_locked(client, c);
	pthread_mutex_unlock(&client->lock);
	return ret;
}

/* A reply that contradicts itself. */
static int
nonsense(struct vfu_client *client)
{
	pthread_mutex_lock(&client->lock);
	dead(client, 0);
	pthread_mutex_unlock(&client->lock);
	return -EPIPE;
}

/* ---- a connection ---- */

static int
agree(struct vfu_client *client)
{
	const struct vfu_version mine = {VFU_MAJOR, VFU_MINOR};
	char *json = vfu_version_print(NULL), theirs[4096];
	struct vfu_version reply;
	struct call c = {
		.command = VFU_VERSION,
		.head = &mine,
		.head_len = sizeof(mine),
		.data = json,
		.data_len = json != NULL ? strlen(json) + 1 : 0,
		.reply = &reply,
		.reply_len = sizeof(reply),
		.reply_data = theirs,
		.reply_room = sizeof(theirs),
	};
	int ret = json != NULL ? call(client, &c) : -ENOMEM;

	free(json);
	/* A server that does not like the version hangs up. */
	if (ret == -EPIPE)
		return -EPROTO;
	if (ret < 0)
		return ret;
	if (reply.major != VFU_MAJOR || reply.minor > VFU_MINOR ||
		vfu_version_parse(theirs, c.reply_extra, &client->peer) != NULL)
		return -EPROTO;
	return 0;
}

/* A server that has no room for another connection at the moment has it soon. */
static int
connect_to(const char *path, unsigned int timeout_ms)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	int fd, ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ||
		connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = errno == EAGAIN ? -ETIMEDOUT : -errno;
		close(fd);
		return ret;
	}
	return fd;
}

int
vfu_client_connect(const char *path, const struct vfu_client_ops *ops, void *priv,
	unsigned int timeout_ms, struct vfu_client **client)
{
	struct vfu_client *c = calloc(1, sizeof(*c));
	int ret;

	if (c == NULL)
		return -ENOMEM;
	c->fd = -1;
	c->ops = ops;
	c->priv = priv;
	c->timeout_ms = timeout_ms;
	pthread_mutex_init(&c->lock, NULL);
	ret = vfu_in_init(&c->in) ? connect_to(path, timeout_ms) : -ENOMEM;
	c->fd = ret;
	if (ret >= 0)
		ret = agree(c);
	if (ret < 0) {
		vfu_client_close(c);
		return ret;
	}
	*client = c;
	return 0;
}

void
vfu_client_close(struct vfu_client *client)
{
	if (client == NULL)
		return;
	if (client->fd >= 0)
		close(client->fd);
	vfu_in_free(&client->in);
	free(client->data);
	pthread_mutex_destroy(&client->lock);
	free(client);
}

int
vfu_client_fd(const struct vfu_client *client)
{
	return client->fd;
}

/* ---- the device ---- */

int
vfu_client_info(struct vfu_client *client, struct vfu_device_info *info)
{
	struct vfu_device_info asked = {.argsz = sizeof(asked)};
	struct call c = {.command = VFU_DEVICE_GET_INFO,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = info,
		.reply_len = sizeof(*info)};

	return call(client, &c);
}

int
vfu_client_region(struct vfu_client *client, unsigned int index, struct vfu_region *region)
{
	struct {
		struct vfio_region_info_cap_sparse_mmap sparse;
		struct vfio_region_sparse_mmap_area area[VFU_MAX_AREAS];
	} cap;
	struct vfio_region_info info, asked = {.argsz = sizeof(info) + sizeof(cap), .index = index};
	struct call c = {.command = VFU_DEVICE_GET_REGION_INFO,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = &info,
		.reply_len = sizeof(info),
		.reply_data = &cap,
		.reply_room = sizeof(cap),
		.nb_reply_fds = 1};
	unsigned int i;
	int ret;

	*region = (struct vfu_region){.fd = -1};
	c.reply_fds = &region->fd;
	ret = call(client, &c);
	if (ret < 0)
		return ret;
	region->size = info.size;
	region->flags = info.flags & (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
	region->offset = info.offset;
	/* The only capability that is known here is also the only one, and behind the fixed part.
	 */
	if (region->fd >= 0 && (info.flags & VFIO_REGION_INFO_FLAG_CAPS)) {
		if (info.cap_offset != sizeof(info) || c.reply_extra < sizeof(cap.sparse) ||
			cap.sparse.header.id != VFIO_REGION_INFO_CAP_SPARSE_MMAP ||
			cap.sparse.nr_areas >
				(c.reply_extra - sizeof(cap.sparse)) / sizeof(cap.area[0])) {
			close(region->fd);
			region->fd = -1;
			return nonsense(client);
		}
		region->nb_areas = cap.sparse.nr_areas;
		for (i = 0; i < region->nb_areas; i++) {
			region->area[i].offset = cap.area[i].offset;
			region->area[i].size = cap.area[i].size;
		}
	}
	return 0;
}

int
vfu_client_ioeventfds(struct vfu_client *client, unsigned int index, struct vfu_ioeventfd *fds)
{
	struct vfu_io_fd io[VFU_MAX_FDS];
	struct vfu_region_io_fds info, asked = {.argsz = sizeof(info) + sizeof(io), .index = index};
	int got[VFU_MAX_FDS];
	struct call c = {.command = VFU_DEVICE_GET_REGION_IO_FDS,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = &info,
		.reply_len = sizeof(info),
		.reply_data = io,
		.reply_room = sizeof(io),
		.reply_fds = got,
		.nb_reply_fds = VFU_MAX_FDS};
	int ret = call(client, &c);
	unsigned int i;
	bool ok;

	if (ret < 0)
		return ret;
	/* One for each; a server may let some share one, ours does not. */
	ok = info.count == c.nb_reply_fds && c.reply_extra == info.count * sizeof(io[0]);
	for (i = 0; ok && i < info.count; i++)
		ok = io[i].fd_index == i && io[i].type == VFU_IO_FD_TYPE_IOEVENTFD;
	if (!ok) {
		for (i = 0; i < c.nb_reply_fds; i++)
			close(got[i]);
		return nonsense(client);
	}
	for (i = 0; i < info.count; i++)
		fds[i] = (struct vfu_ioeventfd){io[i].offset, io[i].size, got[i]};
	return info.count;
}

int
vfu_client_irq_info(struct vfu_client *client, unsigned int index, struct vfu_irq_info *info)
{
	struct vfu_irq_info asked = {.argsz = sizeof(asked), .index = index};
	struct call c = {.command = VFU_DEVICE_GET_IRQ_INFO,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = info,
		.reply_len = sizeof(*info)};

	return call(client, &c);
}

static int
set_irqs(struct vfu_client *client, unsigned int index, uint32_t flags, unsigned int start,
	unsigned int count, const int *fds)
{
	const struct vfu_irq_set set = {sizeof(set), flags, index, start, count};
	struct call c = {.command = VFU_DEVICE_SET_IRQS,
		.head = &set,
		.head_len = sizeof(set),
		.fds = fds,
		.nb_fds = fds != NULL ? count : 0};

	return call(client, &c);
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
		struct call c = {.command = write ? VFU_REGION_WRITE : VFU_REGION_READ,
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
		ret = call(client, &c);
		if (ret == 0 && (reply.count != n || c.reply_extra != (write ? 0 : n)))
			ret = nonsense(client);
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
	struct call c = {.command = VFU_DMA_MAP,
		.head = &map,
		.head_len = sizeof(map),
		.fds = &dma->fd,
		.nb_fds = dma->fd >= 0 ? 1 : 0};

	return call(client, &c);
}

int
vfu_client_dma_unmap(struct vfu_client *client, uint64_t address, uint64_t size)
{
	const struct vfu_dma_unmap unmap = {sizeof(unmap), 0, address, size};
	struct vfu_dma_unmap reply;
	struct call c = {.command = VFU_DMA_UNMAP,
		.head = &unmap,
		.head_len = sizeof(unmap),
		.reply = &reply,
		.reply_len = sizeof(reply)};

	return call(client, &c);
}

int
vfu_client_reset(struct vfu_client *client)
{
	struct call c = {.command = VFU_DEVICE_RESET};

	return call(client, &c);
}

/* ---- migration ---- */

/* in and out are of the same feature, one of them may be NULL. */
static int
feature(struct vfu_client *client, uint32_t flags, const void *in, size_t in_len, void *out,
	size_t out_len)
{
	struct vfu_feature f = {sizeof(f) + out_len, flags}, reply;
	struct call c = {.command = VFU_DEVICE_FEATURE,
		.head = &f,
		.head_len = sizeof(f),
		.data = in,
		.data_len = in_len,
		.reply = &reply,
		.reply_len = sizeof(reply),
		.reply_data = out,
		.reply_room = out_len};
	int ret = call(client, &c);

	if (ret == 0 && c.reply_extra != out_len)
		ret = nonsense(client);
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
	struct call c = {.command = VFU_MIG_DATA_READ,
		.head = &asked,
		.head_len = sizeof(asked),
		.reply = &reply,
		.reply_len = sizeof(reply),
		.reply_data = buf,
		.reply_room = len < VFU_MAX_XFER ? len : VFU_MAX_XFER};
	int ret;

	asked = (struct vfu_mig_data){sizeof(asked) + c.reply_room, c.reply_room};
	ret = call(client, &c);
	if (ret == 0 && reply.size != c.reply_extra)
		ret = nonsense(client);
	return ret < 0 ? ret : (ssize_t)c.reply_extra;
}

int
vfu_client_state_write(struct vfu_client *client, const void *buf, size_t len)
{
	size_t done, n;
	int ret = 0;

	for (done = 0; done < len && ret == 0; done += n) {
		struct vfu_mig_data head;
		struct call c = {.command = VFU_MIG_DATA_WRITE,
			.head = &head,
			.head_len = sizeof(head),
			.data = (const uint8_t *)buf + done};

		n = len - done < VFU_MAX_XFER ? len - done : VFU_MAX_XFER;
		head = (struct vfu_mig_data){sizeof(head) + n, n};
		c.data_len = n;
		ret = call(client, &c);
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
	size_t bytes = ((length - 1) / page_size / 64 + 1) * 8;
	struct vfu_log_report *reply;
	int ret;

	if (bytes > VFU_MAX_XFER)
		return -EINVAL;
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
