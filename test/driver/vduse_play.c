/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The kernel's side of VDUSE, see vduse_play.h. */

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "vduse_play.h"

#define SIZE 256u

struct play play;

/* ---- system calls of the adaptor ---- */

static int
sys_open(const char *path, int flags)
{
	(void)flags;
	if (strncmp(path, "/sys/", 5) == 0)
		return memfd_create("sysfs", MFD_CLOEXEC);
	if (strcmp(path, "/dev/vduse/control") == 0)
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	if (!play.exists || play.open) {
		errno = play.exists ? EBUSY : ENOENT;
		return -1;
	}
	play.open = true;
	return fcntl(play.there, F_DUPFD_CLOEXEC, 3);
}

static int
refuse(int err)
{
	errno = err;
	return -1;
}

/* The first region of the truth that overlaps, or what a test wants to be said. */
static int
get_fd(struct vduse_iotlb_entry *entry)
{
	const struct play_lie *lie = NULL;
	uint64_t offset;
	uint32_t i;
	int fd;

	play.nb_fds++;
	if (play.next_lie < play.nb_lies) {
		lie = &play.lies[play.next_lie];
		play.next_lie += !(play.lie_for_ever && play.next_lie == play.nb_lies - 1);
		if (lie->fd >= 0) {
			*entry = (struct vduse_iotlb_entry){.offset = lie->offset,
				.start = lie->start,
				.last = lie->last,
				.perm = lie->perm};
			return fcntl(lie->fd, F_DUPFD_CLOEXEC, 3);
		}
	}
	for (i = 0; i < play.mem.nb_regions; i++) {
		const struct vringh_region *r = &play.mem.region[i];

		if (r->iova > entry->last || r->iova + r->len - 1 < entry->start)
			continue;
		fd = mock_mem_fd(&play.mem, r->iova, &offset);
		*entry = (struct vduse_iotlb_entry){.offset = offset,
			.start = r->iova,
			.last = r->iova + r->len - 1,
			.perm = (r->perm & VRINGH_PERM_READ ? VDUSE_ACCESS_RO : 0) |
				(r->perm & VRINGH_PERM_WRITE ? VDUSE_ACCESS_WO : 0)};
		if (lie != NULL) {
			entry->start = lie->start;
			entry->last = lie->last;
			entry->perm = lie->perm;
		}
		return fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	return refuse(EINVAL);
}

static int
control(unsigned long request, void *arg)
{
	const struct vduse_dev_config *config = arg;

	switch (request) {
	case VDUSE_GET_API_VERSION:
		*(uint64_t *)arg = play.version;
		return 0;
	case VDUSE_SET_API_VERSION:
		return *(uint64_t *)arg == 0 && !play.version_gone ? 0 : refuse(EINVAL);
	case VDUSE_CREATE_DEV:
		if (play.exists)
			return refuse(EEXIST);
		assert_true(config->features & BIT(VIRTIO_F_ACCESS_PLATFORM));
		assert_false(config->features & BIT(VIRTIO_NET_F_CTRL_VQ));
		assert_int_equal(config->vq_num, VFN_VDUSE_QUEUES);
		play.exists = true;
		return 0;
	case VDUSE_DESTROY_DEV:
		if (play.open)
			return refuse(EBUSY);
		play.exists = false;
		return 0;
	}
	return refuse(ENOTTY);
}

static int
device(unsigned long request, void *arg)
{
	struct vduse_vq_eventfd *kick = arg;
	struct vduse_vq_info *info = arg;
	struct vduse_config_data *data = arg;
	uint32_t index = request == VDUSE_VQ_GET_INFO || request == VDUSE_VQ_SETUP_KICKFD ||
			request == VDUSE_VQ_INJECT_IRQ ?
		*(uint32_t *)arg :
		0;

	if (index >= VFN_VDUSE_QUEUES)
		return refuse(EINVAL);
	switch (request) {
	case VDUSE_IOTLB_GET_FD:
		return get_fd(arg);
	case VDUSE_DEV_GET_FEATURES:
		*(uint64_t *)arg = play.features;
		return 0;
	case VDUSE_DEV_SET_CONFIG:
		memcpy((uint8_t *)&play.config + data->offset, data->buffer, data->length);
		return 0;
	case VDUSE_DEV_INJECT_CONFIG_IRQ:
		play.config_irqs += play.knows_driver_ok;
		return play.knows_driver_ok ? 0 : refuse(EINVAL);
	case VDUSE_VQ_SETUP:
		return 0;
	case VDUSE_VQ_GET_INFO:
		*info = play.q[index].info;
		info->index = index;
		return 0;
	case VDUSE_VQ_SETUP_KICKFD:
		if (play.q[index].kick_fd >= 0)
			close(play.q[index].kick_fd);
		play.q[index].kick_fd = fcntl(kick->fd, F_DUPFD_CLOEXEC, 3);
		return 0;
	case VDUSE_VQ_INJECT_IRQ:
		if (!play.knows_driver_ok)
			return refuse(EINVAL);
		play.q[index].irqs++;
		return 0;
	}
	return refuse(ENOTTY);
}

static int
sys_ioctl(int fd, unsigned long request, void *arg)
{
	int ret;

	(void)fd;
	pthread_mutex_lock(&play.lock);
	ret = request == VDUSE_GET_API_VERSION || request == VDUSE_SET_API_VERSION ||
			request == VDUSE_CREATE_DEV || request == VDUSE_DESTROY_DEV ?
		control(request, arg) :
		device(request, arg);
	pthread_mutex_unlock(&play.lock);
	return ret;
}

static ssize_t
sys_read(int fd, void *buf, size_t len)
{
	if (play.interrupt_reads > 0) {
		play.interrupt_reads--;
		return refuse(EINTR);
	}
	return read(fd, buf, len);
}

static const struct vfn_vduse_sys sys = {
	.open = sys_open, .ioctl = sys_ioctl, .read = sys_read, .write = write};

/* ---- the owner ---- */

static void
lock(void *data)
{
	(void)data;
	pthread_mutex_lock(&play.pci_lock);
}

static void
unlock(void *data)
{
	(void)data;
	pthread_mutex_unlock(&play.pci_lock);
}

static int
begin(void *data, uint64_t features)
{
	(void)data;
	(void)features;
	play.begun++;
	return 0;
}

static void
nothing(void *data)
{
	(void)data;
}

static int
ring_is(void *data, uint16_t queue, struct vfn_vpci_ring *ring, const struct vfn_vduse_area *area)
{
	(void)data;
	if (area->how == VFN_VDUSE_NEW || !area->packed)
		return 0;
	if (!play.know)
		return -ENOENT;
	ring->avail = ring->used = play.stopped_at[queue];
	return 0;
}

static bool
refused(void *data, uint16_t queue, struct vfn_vpci_ring *ring, const struct vfn_vduse_area *area)
{
	(void)data;
	(void)queue;
	(void)ring;
	(void)area;
	return false;
}

static void
running(void *data)
{
	(void)data;
	play.runs++;
}

static void
stopped(void *data, uint16_t queue, const struct vfn_vpci_ring *ring)
{
	(void)data;
	play.stopped_at[queue] = ring->avail;
}

static void
end(void *data, bool exact)
{
	(void)data;
	assert_true(exact);
	play.ended++;
}

static const struct vfn_vduse_owner owner = {
	.lock = lock,
	.unlock = unlock,
	.begin = begin,
	.mapped = nothing,
	.ring = ring_is,
	.refused = refused,
	.running = running,
	.stopped = stopped,
	.end = end,
	.released = nothing,
};

int
play_create(const char *name, uint32_t ready_ms, struct vfn_vduse **vduse)
{
	struct vfn_vduse_params params = {
		.name = name,
		.pci = &play.pci,
		.device_id = VFN_NET_DEVICE_ID,
		.config_size = sizeof(struct virtio_net_config),
		.hidden = BIT(VIRTIO_NET_F_CTRL_VQ),
		.ready_ms = ready_ms,
		.owner = &owner,
		.sys = &sys,
	};

	return vfn_vduse_create(&params, vduse);
}

static void
adaptor_start(uint32_t ready_ms)
{
	assert_int_equal(play_create("vd", ready_ms, &play.vduse), 0);
	assert_int_equal(vfn_vduse_open(play.vduse, 0), 0);
	assert_int_equal(vfn_vduse_start(play.vduse), 0);
}

void
play_open(uint32_t ready_ms)
{
	struct guest_conf conf = {.sleep = true};
	uint32_t i;
	int fd[2];

	memset(&play, 0, sizeof(play));
	pthread_mutex_init(&play.lock, NULL);
	pthread_mutex_init(&play.pci_lock, NULL);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
	play.here = fd[0];
	play.there = fd[1];
	play.version = 1; /* a newer kernel */
	play.features = PLAY_FEATURES;
	play.mem.files = true;
	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		play.q[i].kick_fd = -1;
	play.pci.name = "fn";
	play.pci.drain_ms = 1000;
	assert_int_equal(function_open(&conf, &play.fn, &play.pci.link), 0);
	assert_int_equal(vfn_vpci_init(&play.pci), 0);
	adaptor_start(ready_ms);
}

static void
adaptor_stop(void)
{
	vfn_vduse_stop(play.vduse);
	play.open = false;
	vfn_vduse_close(play.vduse, false);
	play.vduse = NULL;
}

void
play_serve_anew(void)
{
	adaptor_stop();
	adaptor_start(0);
}

int
play_close(void **state)
{
	uint32_t i;

	(void)state;
	if (play.vduse == NULL)
		return 0;
	adaptor_stop();
	play.pci.link->ops->close(play.pci.link);
	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		if (play.q[i].kick_fd >= 0)
			close(play.q[i].kick_fd);
		mock_free(&play.q[i].drv);
	}
	mock_mem_free(&play.mem);
	if (play.here >= 0)
		close(play.here);
	close(play.there);
	return 0;
}

/* ---- messages ---- */

int
play_ask(const struct vduse_dev_request *request, struct vduse_dev_response *response)
{
	struct vduse_dev_request r = *request;
	struct pollfd pfd = {.fd = play.here, .events = POLLIN};

	r.request_id = ++play.last_id;
	assert_int_equal(write(play.here, &r, sizeof(r)), sizeof(r));
	if (poll(&pfd, 1, PATIENCE_MS) != 1)
		return -1;
	assert_int_equal(read(play.here, response, sizeof(*response)), sizeof(*response));
	assert_int_equal(response->request_id, r.request_id);
	return response->result;
}

int
play_status(uint8_t status)
{
	struct vduse_dev_request r = {.type = VDUSE_SET_STATUS, .s.status = status};
	struct vduse_dev_response response;
	int ret = play_ask(&r, &response);
	uint32_t i;

	pthread_mutex_lock(&play.lock);
	if (ret == VDUSE_REQ_RESULT_OK)
		play.knows_driver_ok = status & VIRTIO_CONFIG_S_DRIVER_OK;
	for (i = 0; status == 0 && i < VFN_VDUSE_QUEUES; i++) {
		play.q[i].info = (struct vduse_vq_info){0};
		if (play.q[i].kick_fd >= 0)
			close(play.q[i].kick_fd);
		play.q[i].kick_fd = -1;
	}
	pthread_mutex_unlock(&play.lock);
	return ret;
}

int
play_update(uint64_t start, uint64_t last)
{
	struct vduse_dev_request r = {
		.type = VDUSE_UPDATE_IOTLB, .iova.start = start, .iova.last = last};
	struct vduse_dev_response response;

	return play_ask(&r, &response);
}

struct vduse_vq_state
play_position(uint32_t index)
{
	struct vduse_dev_request r = {.type = VDUSE_GET_VQ_STATE, .vq_state.index = index};
	struct vduse_dev_response response;

	assert_int_equal(play_ask(&r, &response), VDUSE_REQ_RESULT_OK);
	return response.vq_state;
}

/* ---- memory and rings ---- */

uint8_t *
play_map(uint64_t iova, uint64_t len, uint32_t perm)
{
	uint8_t *at;

	pthread_mutex_lock(&play.lock);
	at = mock_mem_add(&play.mem, iova, len, perm);
	pthread_mutex_unlock(&play.lock);
	assert_non_null(at);
	return at;
}

void
play_unmap(uint64_t iova)
{
	pthread_mutex_lock(&play.lock);
	mock_mem_remove(&play.mem, iova);
	pthread_mutex_unlock(&play.lock);
}

void
play_buffers(void)
{
	play_map(BUFFERS_AT, BUFFERS, VRINGH_PERM_READ | VRINGH_PERM_WRITE);
}

void
play_rings(bool packed)
{
	uint32_t i;

	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		struct play_queue *q = &play.q[i];
		struct mock_config cfg = {.packed = packed,
			.size = SIZE,
			.desc = RING_AT + i * 0x8000,
			.bufs = BUFFERS_AT + i * (BUFFERS / 2),
			.buf_len = 2048,
			.nb_bufs = SIZE,
			.tables = BUFFERS_AT,
			.table_entries = 1};

		cfg.driver = cfg.desc + mock_area_len(&cfg, 0);
		cfg.device = (cfg.driver + mock_area_len(&cfg, 1) + 3) & ~UINT64_C(3);
		if (packed)
			cfg.start = (struct vringh_state){0x8000, 0x8000};
		play_map(cfg.desc, cfg.device + mock_area_len(&cfg, 2) - cfg.desc,
			VRINGH_PERM_READ | VRINGH_PERM_WRITE);
		assert_true(mock_init(&q->drv, &play.mem, &cfg));
		pthread_mutex_lock(&play.lock);
		q->info = (struct vduse_vq_info){.num = SIZE,
			.desc_addr = cfg.desc,
			.driver_addr = cfg.driver,
			.device_addr = cfg.device,
			.ready = 1};
		if (packed)
			q->info.packed.last_avail_counter = q->info.packed.last_used_counter = 1;
		pthread_mutex_unlock(&play.lock);
	}
}

void
play_start(bool packed, bool buffers)
{
	play.features = PLAY_FEATURES | (packed ? BIT(VIRTIO_F_RING_PACKED) : 0);
	assert_int_equal(play_status(0), VDUSE_REQ_RESULT_OK);
	assert_int_equal(play_status(STATUS_DRIVER), VDUSE_REQ_RESULT_OK);
	assert_int_equal(play_status(STATUS_FEATURES), VDUSE_REQ_RESULT_OK);
	play_rings(packed);
	if (buffers)
		play_buffers();
	assert_int_equal(
		play_status(STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK), VDUSE_REQ_RESULT_OK);
	play_wait(buffers ? "running" : "waits for the first kick");
}

const char *
play_phase(void)
{
	struct vfn_vduse_info info;

	lock(NULL);
	vfn_vduse_info(play.vduse, &info);
	unlock(NULL);
	return info.phase;
}

void
play_wait(const char *phase)
{
	uint64_t end_ms = now_ms() + PATIENCE_MS;

	while (strcmp(play_phase(), phase) != 0) {
		if (now_ms() > end_ms)
			fail_msg("%s, not %s", play_phase(), phase);
		nap_us(100);
	}
}
