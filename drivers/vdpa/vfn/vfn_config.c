/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Changes of the device configuration: the operator's, by telemetry; and how the front-end gets to
 * know of them. The function's configuration interrupt is handled on EAL's interrupt thread, under
 * the device's lock, and the front-end is told on a thread that lives no longer than the message.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_ether.h>
#include <rte_interrupts.h>

#include <vfn_signal.h>

#include "vfn_drv.h"
#include "vfn_telemetry.h"
#include "vfn_trace.h"

/* So long a guest that stops has left to take a message. */
#define TAKE_MS 20

/* A front-end that can be told, and that asks for what has changed. */
#define PROTOCOL \
	(UINT64_C(1) << VHOST_USER_PROTOCOL_F_CONFIG | \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_BACKEND_REQ)

/*
 * librte_vhost waits, without an end, while the front-end keeps the channel full. So each message
 * has a thread, which is cancelled in the end (why it is no shutdown(): interrupt() in
 * vfn_notify.c). Nothing in librte_vhost is locked meanwhile, as no answer is asked for.
 */
static void *
tell_thread(void *arg)
{
	struct vfn_dev *dev = arg;
	int ret, state;

	/* While it is off nothing is cancelled: the log has locks. */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	ret = rte_vhost_backend_config_change(dev->config_vid, false);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	if (ret < 0)
		DEV_LOG(WARNING, dev, "the front-end cannot be told of a new configuration");
	else
		DEV_LOG(DEBUG, dev, "the front-end is told of a new configuration");
	return NULL;
}

static void
front_end_tell(struct vfn_dev *dev)
{
	uint64_t protocol;
	int ret;

	/* One message until it is answered by GET_CONFIG. */
	if (dev->state != VFN_RUNNING || dev->config_told ||
		rte_vhost_get_negotiated_protocol_features(dev->guest->vid, &protocol) < 0 ||
		(protocol & PROTOCOL) != PROTOCOL)
		return;
	dev->config_told = true;
	/* One that is still not taken says the same. */
	if (dev->config_telling && pthread_tryjoin_np(dev->config_thread, NULL) != 0)
		return;
	dev->config_vid = dev->guest->vid;
	ret = pthread_create(&dev->config_thread, NULL, tell_thread, dev);
	dev->config_telling = dev->config_told = ret == 0;
	if (ret != 0)
		DEV_LOG(WARNING, dev, "no thread to tell of a new configuration: %s",
			strerror(ret));
}

/* Before the connection goes: nothing of this device is in librte_vhost any more on return. */
void
vfn_config_stop(struct vfn_dev *dev)
{
	struct timespec end;

	if (!dev->config_telling)
		return;
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_nsec += TAKE_MS * 1000000;
	end.tv_sec += end.tv_nsec / 1000000000;
	end.tv_nsec %= 1000000000;
	if (pthread_clockjoin_np(dev->config_thread, NULL, CLOCK_MONOTONIC, &end) != 0) {
		pthread_cancel(dev->config_thread);
		pthread_join(dev->config_thread, NULL);
		DEV_LOG(WARNING, dev,
			"the front-end takes no messages, it was not told of a new configuration");
	}
	dev->config_telling = false;
}

/* EAL's interrupt thread. */
static void
config_interrupt(void *arg)
{
	struct vfn_dev *dev = arg;
	eventfd_t count;

	/* Shared with the function, which may take it away first, and have a read wait. */
	if (preadv2(dev->config_fd, &(struct iovec){&count, sizeof(count)}, 1, -1, RWF_NOWAIT) < 0)
		return;
	vfn_dev_lock(dev);
	if (!vfn_kernel_config_changed(dev))
		front_end_tell(dev);
	vfn_dev_unlock(dev);
}

/* What the front-end has asked for may have changed since; before the start it cannot be told. */
void
vfn_config_start(struct vfn_dev *dev)
{
	dev->config_told = false;
	if (dev->config_reader == dev->guest->vid &&
		vfn_vpci_config_generation(&dev->pci) != dev->config_seen)
		vfn_signal(dev->config_fd);
}

int
vfn_config_read(struct vfn_dev *dev, struct virtio_net_config *config)
{
	uint8_t generation;

	return vfn_vpci_config(&dev->pci, 0, config, sizeof(*config), &generation);
}

/* GET_CONFIG, dev->lock held. The function is read after what says that it was: a change now is
 * told again. */
int
vfn_config_get(struct vfn_dev *dev, int vid, uint8_t *config, uint32_t size)
{
	const struct vfn_guest *guest = vfn_life_guest(dev, vid);
	int ret;

	dev->config_told = false;
	dev->config_reader = vid;
	ret = vfn_vpci_config(
		&dev->pci, 0, config, RTE_MIN(size, dev->pci.device.length), &dev->config_seen);
	if (ret == 0 && dev->class->config_was_read != NULL)
		dev->class->config_was_read(dev, config, size);
	if (ret == 0 && guest != NULL && dev->class->config_replace != NULL)
		dev->class->config_replace(guest, config, size);
	return ret;
}

int
vfn_config_open(struct vfn_dev *dev)
{
	int ret;

	dev->config_reader = -1;
	dev->config_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (dev->config_fd < 0)
		return -errno;
	dev->config_intr = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
	if (dev->config_intr == NULL) {
		ret = -ENOMEM;
		goto close_fd;
	}
	rte_intr_fd_set(dev->config_intr, dev->config_fd);
	rte_intr_type_set(dev->config_intr, RTE_INTR_HANDLE_EXT);
	ret = rte_intr_callback_register(dev->config_intr, config_interrupt, dev);
	if (ret < 0)
		goto free_intr;
	/* An endpoint that comes later gets it then. */
	if (!vfn_remote_gone(dev))
		ret = vfn_vpci_config_irq(&dev->pci, dev->config_fd);
	if (ret == 0)
		return 0;

	rte_intr_callback_unregister_sync(dev->config_intr, config_interrupt, dev);
free_intr:
	rte_intr_instance_free(dev->config_intr);
close_fd:
	close(dev->config_fd);
	return ret;
}

/* dev->lock not held. The handler does not run any more on return. */
void
vfn_config_close(struct vfn_dev *dev)
{
	/* A link that keeps the eventfd has a duplicate; it is closed next. */
	if (!vfn_remote_dead(dev) && vfn_vpci_config_irq(&dev->pci, -1) < 0)
		DEV_LOG(ERR, dev, "the function keeps the eventfd of its configuration");
	rte_intr_callback_unregister_sync(dev->config_intr, config_interrupt, dev);
	rte_intr_instance_free(dev->config_intr);
	close(dev->config_fd);
}

/* What every one of the commands answers: the configuration now. dev->lock is released. */
static int
answer(struct vfn_dev *dev, int ret, const char *what, struct rte_tel_data *d)
{
	struct virtio_net_config config = {0};

	if (ret == 0) {
		vfn_trace_config(dev->name, what);
		DEV_LOG(DEBUG, dev, "configuration: %s", what);
		vfn_config_read(dev, &config);
		rte_tel_data_start_dict(d);
		vfn_tell_string(d, "link", config.status & VIRTIO_NET_S_LINK_UP ? "up" : "down");
		vfn_tell_int(d, "announce", !!(config.status & VIRTIO_NET_S_ANNOUNCE));
		vfn_tell_int(d, "mtu", config.mtu);
		vfn_tell_mac(d, config.mac);
	}
	vfn_dev_release(dev);
	return ret;
}

/*
 * The device that a command is about, for the operator of its function, who is another one behind
 * an endpoint. NULL: that is not possible, and *ret what to return; else it is -EINVAL.
 */
static struct vfn_dev *
operated(const char *params, const char **rest, struct rte_tel_data *d, int *ret)
{
	struct vfn_dev *dev = vfn_telemetry_dev(params, rest);

	*ret = dev != NULL ? -EINVAL : -ENODEV;
	if (dev == NULL || (dev->class == &vfn_drv_net && dev->function != NULL))
		return dev;
	if (dev->class != &vfn_drv_net)
		vfn_telemetry_refuse(dev, -ENOTSUP, "it is no net function");
	else
		vfn_telemetry_refuse(dev, -ENOTSUP,
			"the function is behind an endpoint, %s: ask there", dev->remote->path);
	*ret = answer(dev, -ENOTSUP, "", d);
	return NULL;
}

static int
set_link(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	int ret;
	struct vfn_dev *dev = operated(params, &rest, d, &ret);
	bool up;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return ret;
	up = strcmp(rest, "up") == 0;
	if (up || strcmp(rest, "down") == 0) {
		vfn_manage_link(dev->function, up);
		ret = 0;
	} else {
		vfn_telemetry_refuse(
			dev, ret, "the link can be \"up\" or \"down\", not \"%s\"", rest);
	}
	return answer(dev, ret, up ? "link up" : "link down", d);
}

static int
announce(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	int ret;
	struct vfn_dev *dev = operated(params, &rest, d, &ret);

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return ret;
	if (*rest != '\0')
		vfn_telemetry_refuse(dev, ret, "nothing follows the name, not \"%s\"", rest);
	else if (dev->state != VFN_RUNNING)
		vfn_telemetry_refuse(dev, ret, "there is no guest that could announce itself");
	else
		ret = vfn_manage_announce(dev->function, true);
	if (ret == -ENOTSUP)
		vfn_telemetry_refuse(
			dev, ret, "the guest did not negotiate VIRTIO_NET_F_GUEST_ANNOUNCE");
	return answer(dev, ret, "announce", d);
}

static int
set_mtu(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	int ret;
	struct vfn_dev *dev = operated(params, &rest, d, &ret);
	char *end;
	unsigned long mtu;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return ret;
	mtu = strtoul(rest, &end, 10);
	if (*rest >= '0' && *rest <= '9' && *end == '\0' && mtu <= UINT16_MAX)
		ret = vfn_manage_mtu(dev->function, mtu);
	if (ret == -ENOTSUP)
		vfn_telemetry_refuse(dev, ret, "no MTU is offered, see the device argument mtu");
	else if (ret < 0)
		vfn_telemetry_refuse(dev, ret, "the MTU can be 68 to 65535, not \"%s\"", rest);
	return answer(dev, ret, "mtu", d);
}

static int
set_mac(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	int ret;
	struct vfn_dev *dev = operated(params, &rest, d, &ret);
	struct rte_ether_addr mac;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return ret;
	if (rte_ether_unformat_addr(rest, &mac) == 0)
		ret = vfn_manage_mac(dev->function, mac.addr_bytes);
	if (ret < 0)
		vfn_telemetry_refuse(dev, ret,
			"the address can be one that a single station has, not \"%s\"", rest);
	return answer(dev, ret, "mac", d);
}

static int
set_rate(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	int ret;
	struct vfn_dev *dev = operated(params, &rest, d, &ret);
	unsigned long mbps;
	char *end;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return ret;
	mbps = strtoul(rest, &end, 10);
	if (*rest >= '0' && *rest <= '9' && *end == '\0' && mbps <= VFN_NET_RATE_MAX)
		ret = vfn_manage_rate(dev->function, mbps);
	if (ret == -EINVAL)
		vfn_telemetry_refuse(dev, ret, "the limit can be 0, none, to %u Mbit/s, not \"%s\"",
			VFN_NET_RATE_MAX, rest);
	return answer(dev, ret, "rate", d);
}

void
vfn_config_register(void)
{
	vfn_telemetry_command("/vfn/link", set_link,
		"Plug the link of a device in or out. Parameters: device name, up or down");
	vfn_telemetry_command("/vfn/announce", announce,
		"Have the guest announce itself to the network. Parameter: device name");
	vfn_telemetry_command(
		"/vfn/mtu", set_mtu, "Change the MTU of a device. Parameters: device name, MTU");
	vfn_telemetry_command("/vfn/mac", set_mac,
		"Change the address of a device, which its next guest has. Parameters: device "
		"name, address");
	vfn_telemetry_command("/vfn/rate", set_rate,
		"Limit what a device's guest sends. Parameters: device name, Mbit/s or 0 for none");
}
