/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The device in the kernel: made, opened, given up, destroyed; and its configuration. On the
 * caller's threads.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include "vduse_private.h"

RTE_LOG_REGISTER(vfn_vduse_logtype, pmd.vduse.vfn, NOTICE);

#define CONTROL "/dev/vduse/control"

#define POLL_MS 5

#define COMPLAINTS    10
#define COMPLAINTS_MS 10000

/* The kernel hears of an answer within this time, and queues become ready. */
#define READY_MS 5000

/* The largest device configuration that any class has. */
#define CONFIG_MAX 256

static int
sys_open(const char *path, int flags)
{
	return open(path, flags);
}

static int
sys_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg);
}

static const struct vfn_vduse_sys kernel = {
	.open = sys_open, .ioctl = sys_ioctl, .read = read, .write = write};

uint64_t
vduse_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* So many lines in a while; the last of them says that others are missing. */
bool
vduse_may_complain(struct vfn_vduse *v)
{
	uint64_t now = vduse_now_ms();

	if (v->complaints == 0 || now - v->complaints_since > COMPLAINTS_MS) {
		v->complaints_since = now;
		v->complaints = 0;
	}
	if (v->complaints++ == COMPLAINTS)
		VDUSE_LOG(ERR, v, "more of the same is not told for %u s", COMPLAINTS_MS / 1000);
	return v->complaints <= COMPLAINTS;
}

/* Of the device. What it returns, or a negative errno. */
int
vduse_ioctl(struct vfn_vduse *v, unsigned long request, void *arg)
{
	int ret = v->sys->ioctl(v->fd, request, arg);

	return ret < 0 ? -errno : ret;
}

static bool
name_ok(const char *name)
{
	return *name != '\0' && strlen(name) < VDUSE_NAME_MAX && strchr(name, '/') == NULL &&
		strcmp(name, "control") != 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The highest version that both sides know: today there is the first one. */
static int
set_version(struct vfn_vduse *v)
{
	uint64_t theirs = 0, ours = VDUSE_API_VERSION;

	if (v->sys->ioctl(v->control_fd, VDUSE_GET_API_VERSION, &theirs) < 0)
		return -errno;
	if (theirs < ours)
		ours = theirs;
	return v->sys->ioctl(v->control_fd, VDUSE_SET_API_VERSION, &ours) < 0 ? -errno : 0;
}

static uint64_t
offered(const struct vfn_vduse *v)
{
	const uint64_t other = FEATURE(VIRTIO_F_RING_RESET) | FEATURE(VIRTIO_F_ANY_LAYOUT);

	/* That addresses are the platform's is our affair, see vduse_iotlb.c. */
	return (v->pci->features & ~(v->hidden | other)) | FEATURE(VIRTIO_F_ACCESS_PLATFORM);
}

static int
create(struct vfn_vduse *v)
{
	/* The configuration follows. */
	union {
		struct vduse_dev_config config;
		uint8_t bytes[sizeof(struct vduse_dev_config) + CONFIG_MAX];
	} new = {.config = {.vendor_id = VFN_PCI_VENDOR,
			 .device_id = v->device_id,
			 .features = offered(v),
			 .vq_num = VFN_VDUSE_QUEUES,
			 .vq_align = sysconf(_SC_PAGESIZE),
			 .config_size = v->config_size}};
	uint8_t *config = new.bytes + offsetof(struct vduse_dev_config, config), generation;

	memcpy(new.config.name, v->name, sizeof(new.config.name));
	if (vfn_vpci_config(v->pci, 0, config, v->config_size, &generation) < 0)
		return -EIO;
	if (v->sys->ioctl(v->control_fd, VDUSE_CREATE_DEV, &new) < 0)
		return -errno;
	v->ours = true;
	return 0;
}

/* So long the kernel, and whoever asks it to do something with the device, waits for us. */
static void
set_timeout(struct vfn_vduse *v)
{
	char path[64 + VDUSE_NAME_MAX], text[16];
	int fd, n;

	snprintf(path, sizeof(path), "/sys/class/vduse/%s/msg_timeout", v->name);
	n = snprintf(text, sizeof(text), "%u", v->msg_timeout);
	fd = v->sys->open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, n) != n)
		VDUSE_LOG(WARNING, v,
			"%s cannot be set: %s; who waits for us waits as long as it says", path,
			strerror(errno));
	if (fd >= 0)
		close(fd);
}

static int
control_open(struct vfn_vduse *v)
{
	int ret;

	v->control_fd = v->sys->open(CONTROL, O_RDWR | O_CLOEXEC);
	if (v->control_fd < 0) {
		ret = -errno;
		VDUSE_LOG(ERR, v, CONTROL ": %s%s", strerror(-ret),
			ret == -ENOENT ?
				": this kernel has no VDUSE, or its module vduse is not loaded" :
				"");
		return ret;
	}
	ret = set_version(v);
	if (ret < 0)
		VDUSE_LOG(ERR, v, "the kernel does not know version %d of VDUSE: %s",
			VDUSE_API_VERSION, strerror(-ret));
	return ret;
}

int
vfn_vduse_create(const struct vfn_vduse_params *params, struct vfn_vduse **vduse)
{
	struct vfn_vduse *v = calloc(1, sizeof(*v));
	unsigned int i;
	int ret;

	if (v == NULL)
		return -ENOMEM;
	v->pci = params->pci;
	v->owner = params->owner;
	v->data = params->data;
	v->sys = params->sys != NULL ? params->sys : &kernel;
	v->device_id = params->device_id;
	v->config_size = params->config_size;
	v->hidden = params->hidden;
	v->msg_timeout = params->msg_timeout;
	v->ready_ms = params->ready_ms != 0 ? params->ready_ms : READY_MS;
	v->event_irqs = params->event_irqs || v->pci->link->ops->set_irq_call == NULL;
	v->control_fd = v->fd = v->wake_fd = -1;
	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		v->queue[i] = (struct queue){.call.run = vduse_inject,
			.vduse = v,
			.index = i,
			.kick_fd = -1,
			.irq_fd = -1};
	snprintf(v->name, sizeof(v->name), "%s", params->name);
	ret = name_ok(params->name) && v->config_size <= CONFIG_MAX ? 0 : -EINVAL;
	if (ret < 0)
		VDUSE_LOG(ERR, v, "no name for a device");
	else
		ret = control_open(v);
	if (ret == 0) {
		ret = create(v);
		if (ret == -EEXIST) {
			VDUSE_LOG(INFO, v, "is there already");
			ret = 0;
		} else if (ret < 0) {
			VDUSE_LOG(ERR, v, "cannot be made: %s%s", strerror(-ret),
				ret == -EPERM ? ": that needs CAP_NET_ADMIN" : "");
		}
	}
	if (ret < 0) {
		vfn_vduse_close(v, false);
		return ret;
	}
	set_timeout(v);
	*vduse = v;
	return 0;
}

/* 0; -EBUSY: it is in use. */
static int
destroy(struct vfn_vduse *v)
{
	char name[VDUSE_NAME_MAX];

	memcpy(name, v->name, sizeof(name));
	return v->sys->ioctl(v->control_fd, VDUSE_DESTROY_DEV, name) < 0 ? -errno : 0;
}

static int
open_once(struct vfn_vduse *v, uint32_t wait_ms)
{
	uint64_t end = vduse_now_ms() + wait_ms;
	char path[16 + VDUSE_NAME_MAX];
	int ret;

	snprintf(path, sizeof(path), "/dev/vduse/%s", v->name);
	/* Where another process has let go just now, or udev is not done yet. */
	while ((v->fd = v->sys->open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0) {
		ret = -errno;
		if ((ret == -EBUSY || ret == -ENOENT || ret == -EACCES) && vduse_now_ms() < end) {
			usleep(POLL_MS * 1000);
			continue;
		}
		VDUSE_LOG(
			ERR, v, "%s", ret == -EBUSY ? "another process serves it" : strerror(-ret));
		return ret;
	}
	v->ours = true;
	return 0;
}

int
vfn_vduse_open(struct vfn_vduse *v, uint32_t wait_ms)
{
	uint64_t features;
	int ret = v->fd >= 0 ? 0 : open_once(v, wait_ms);

	if (ret < 0 || vduse_ioctl(v, VDUSE_DEV_GET_FEATURES, &features) != -EPERM)
		return ret;
	/* Who served it did not answer in time. There is no way back but another one. */
	close(v->fd);
	v->fd = -1;
	ret = destroy(v);
	if (ret == -EBUSY)
		VDUSE_LOG(ERR, v,
			"the kernel has given up on it, and it is in use: remove it first (vdpa "
			"dev del %s)",
			v->name);
	if (ret == 0)
		ret = create(v);
	if (ret < 0)
		return ret == -EBUSY ? -EIO : ret;
	VDUSE_LOG(NOTICE, v, "the kernel had given up on it, it is made anew");
	set_timeout(v);
	return open_once(v, wait_ms);
}

/* Before a device can be added. Of one that a driver has they are as they were. */
static int
queues_setup(struct vfn_vduse *v)
{
	struct vduse_vq_config config;
	struct vfn_vpci_queue info;
	uint32_t i;
	int ret;

	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		vfn_vpci_queue_info(v->pci, i, &info);
		config = (struct vduse_vq_config){.index = i,
			.max_size = info.ring.size < QUEUE_SIZE ? info.ring.size : QUEUE_SIZE};
		ret = vduse_ioctl(v, VDUSE_VQ_SETUP, &config);
		if (ret < 0) {
			VDUSE_LOG(ERR, v, "queue %u cannot be set up: %s", i, strerror(-ret));
			return ret;
		}
	}
	return 0;
}

/* As the function has it. */
void
vduse_set_config(struct vfn_vduse *v)
{
	/* The bytes follow. */
	union {
		struct vduse_config_data data;
		uint8_t bytes[sizeof(struct vduse_config_data) + CONFIG_MAX];
	} config = {.data = {.offset = 0, .length = v->config_size}};
	uint8_t *buffer = config.bytes + offsetof(struct vduse_config_data, buffer), generation;
	int ret;

	ret = vfn_vpci_config(v->pci, 0, buffer, v->config_size, &generation);
	if (ret == 0)
		ret = vduse_ioctl(v, VDUSE_DEV_SET_CONFIG, &config);
	if (ret < 0)
		VDUSE_LOG(ERR, v, "the kernel does not take its configuration: %s", strerror(-ret));
}

void
vfn_vduse_config_changed(struct vfn_vduse *v)
{
	if (v->fd < 0 || v->phase == BROKEN)
		return;
	vduse_set_config(v);
	/* -EINVAL: there is no driver, and who comes reads it. */
	vduse_ioctl(v, VDUSE_DEV_INJECT_CONFIG_IRQ, NULL);
}

int
vfn_vduse_start(struct vfn_vduse *v)
{
	sigset_t all, old;
	int ret;

	v->owner->lock(v->data);
	ret = vduse_queues_open(v);
	if (ret == 0) {
		vduse_set_config(v);
		/*
		 * It says whether the kernel's driver has the device: rings that are ready do not,
		 * and what was answered before is not asked again. To the driver it is harmless.
		 */
		v->how = vduse_ioctl(v, VDUSE_DEV_INJECT_CONFIG_IRQ, NULL) == 0 ?
			VFN_VDUSE_RESUMED :
			VFN_VDUSE_NEW;
		v->phase = v->how == VFN_VDUSE_RESUMED ? CONFIRM : IDLE;
		v->deadline = 0;
		if (v->how == VFN_VDUSE_NEW)
			ret = queues_setup(v);
	}
	v->owner->unlock(v->data);
	if (ret == 0) {
		v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ret = v->wake_fd < 0 ? -errno : 0;
	}
	if (ret == 0) {
		__atomic_store_n(&v->quit, false, __ATOMIC_RELAXED);
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		ret = -pthread_create(&v->thread, NULL, vduse_thread, v);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	v->runs = ret == 0;
	if (v->runs) {
		pthread_setname_np(v->thread, "vfn-vduse");
		VDUSE_LOG(INFO, v, "%s",
			v->how == VFN_VDUSE_RESUMED ? "a driver has it and goes on" : "ready");
	} else {
		VDUSE_LOG(ERR, v, "cannot be served: %s", strerror(-ret));
		vfn_vduse_stop(v);
	}
	return ret;
}

void
vfn_vduse_stop(struct vfn_vduse *v)
{
	if (v->runs) {
		__atomic_store_n(&v->quit, true, __ATOMIC_RELEASE);
		eventfd_write(v->wake_fd, 1);
		pthread_join(v->thread, NULL);
		v->runs = false;
	}
	v->owner->lock(v->data);
	if (v->fd >= 0) {
		if (vduse_reset(v) < 0)
			VDUSE_LOG(ERR, v, "the function does not let go of its memory");
		vduse_queues_close(v);
		/* A failed function's interrupts may still come: to nobody. */
		close(v->fd);
	}
	v->fd = -1;
	v->phase = CLOSED;
	v->status = 0;
	v->owner->unlock(v->data);
	if (v->wake_fd >= 0)
		close(v->wake_fd);
	v->wake_fd = -1;
}

void
vfn_vduse_close(struct vfn_vduse *v, bool for_good)
{
	int ret = for_good && v->ours ? destroy(v) : 0;

	if (ret == -EBUSY)
		VDUSE_LOG(WARNING, v,
			"stays, since it is in use: serve it again, or remove it (vdpa dev del %s) "
			"and end a server once more",
			v->name);
	else if (ret < 0)
		VDUSE_LOG(ERR, v, "cannot be destroyed: %s", strerror(-ret));
	vduse_iotlb_free(v);
	if (v->control_fd >= 0)
		close(v->control_fd);
	free(v);
}

void
vfn_vduse_info(const struct vfn_vduse *v, struct vfn_vduse_info *info)
{
	static const char *const phases[] = {
		[CLOSED] = "not served",
		[IDLE] = "no driver",
		[CONFIRM] = "a driver begins",
		[QUEUES] = "queues are not ready",
		[KICK] = "waits for the first kick",
		[RUNNING] = "running",
		[FAILED] = "failed",
		[BROKEN] = "given up by the kernel",
	};
	uint32_t i;

	*info = (struct vfn_vduse_info){
		.status = v->status,
		.features = v->features,
		.phase = phases[v->phase],
		.regions = v->nb_regions,
		.messages = v->messages,
		.refused = v->refused,
		.interrupts = __atomic_load_n(&v->interrupts, __ATOMIC_RELAXED),
		.irqs_refused = __atomic_load_n(&v->irqs_refused, __ATOMIC_RELAXED),
	};
	for (i = 0; i < v->nb_regions; i++)
		info->bytes += v->region[i].last - v->region[i].start + 1;
}
