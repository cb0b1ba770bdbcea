/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The control queue of a guest whose front-end passes it on as a ring, as user-mode Linux does;
 * most keep it to themselves. What tells the two apart, and what the guest has said through it
 * while the function is reset under a driver that goes on. With the device's lock held, on
 * librte_vhost's message thread.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>

#include <vfn_parts.h>

#include "rte_vdpa_vfn.h"
#include "vfn_drv.h"

#define BIT(n) (UINT64_C(1) << (n))

/*
 * Features that librte_vhost, whose own back-end cannot do them, leaves out of its offer: all about
 * the control queue, and the configuration that it changes. An application can only have them in
 * with rte_vhost_driver_set_features(), after which librte_vhost holds a device back until all of
 * its rings are on, and QEMU has only those on that the guest uses. So the driver negotiates them
 * itself, see vfn_message.c.
 */
#define OWN_FEATURES \
	(BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | BIT(VIRTIO_NET_F_MAC) | \
		BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CTRL_VLAN) | \
		BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR))

/* What is offered beside what librte_vhost offers. */
uint64_t
vfn_ctrl_offer(const struct vfn_dev *dev, uint64_t library)
{
	uint64_t own = vfn_iommu_offer(dev);

	if (dev->class->has_ctrl && library & BIT(VIRTIO_NET_F_CTRL_VQ))
		own |= dev->pci.features & OWN_FEATURES & ~library;
	return own;
}

uint64_t
rte_vdpa_vfn_features(const char *device)
{
	struct vfn_dev *dev = vfn_dev_lock_by_name(device);
	uint64_t features;

	if (dev == NULL)
		return 0;
	features = vfn_iommu_offer(dev);
	if (dev->class->has_ctrl)
		features |= dev->pci.features & OWN_FEATURES;
	vfn_dev_release(dev);
	return features;
}

/* What the guest has negotiated with librte_vhost and with us. */
int
vfn_guest_features(const struct vfn_guest *guest, uint64_t *features)
{
	int ret = rte_vhost_get_negotiated_features(guest->vid, features);

	if (ret == 0)
		*features |= guest->own_features;
	return ret;
}

int
rte_vdpa_vfn_negotiated(int vid, uint64_t *features)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	struct vfn_guest *guest;
	int ret = -ENODEV;

	if (dev == NULL)
		return ret;
	guest = vfn_life_guest(dev, vid);
	if (guest != NULL && vfn_guest_features(guest, features) == 0)
		ret = 0;
	vfn_dev_release(dev);
	return ret;
}

/*
 * What the function is told to do for the guest that has the device; which of its queues is the
 * control queue follows from that (virtio 1.3, 5.1.2).
 *
 * MQ and CTRL_VQ are always among them, so that all pairs can run: a front-end that keeps the
 * control queue may not tell of either. But who negotiates CTRL_VQ without MQ has one pair, and a
 * control queue, if it is passed on, as ring 2. Should the front-end have spoken of a ring behind
 * that, it has more pairs for all that.
 */
uint64_t
vfn_ctrl_features(struct vfn_dev *dev, uint64_t features)
{
	uint64_t own = BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_F_RING_RESET);

	dev->ctrl = 0;
	if (!dev->class->has_ctrl)
		return (features | BIT(VIRTIO_F_RING_RESET)) & dev->pci.features;
	if (!(features & BIT(VIRTIO_NET_F_CTRL_VQ)) || rte_vhost_get_vring_num(dev->guest->vid) > 3)
		own |= BIT(VIRTIO_NET_F_MQ);
	own = (features | own) & dev->pci.features;
	dev->ctrl = !(features & BIT(VIRTIO_NET_F_CTRL_VQ)) ? 0 :
		own & BIT(VIRTIO_NET_F_MQ)		    ? 2 * dev->max_pairs :
							      2;
	return own;
}

/*
 * Is a ring of the guest's, which is ready, one that the function has a queue for?
 *
 * All that are for data. The control queue, if the guest has negotiated one, comes behind them and
 * is the last of its rings. A front-end that keeps it has no such ring, unless it counts more pairs
 * than the device has, as virtio-user does that never asks: of those there are two, and it has
 * spoken of the second one by the time that the first is ready, since every ring's call eventfd or
 * size is told before any is enabled. virtio-user does not tell of CTRL_VQ either, nor does QEMU.
 */
bool
vfn_ctrl_can_start(const struct vfn_dev *dev, uint16_t queue)
{
	if (vfn_ctrl_is(dev, queue))
		return rte_vhost_get_vring_num(dev->guest->vid) <= dev->ctrl + 1;
	return queue < vfn_nb_data(dev);
}

/* The queue that the guest's control queue is, UINT16_MAX if the function does not have that. */
uint16_t
vfn_ctrl_queue(const struct vfn_dev *dev)
{
	return dev->guest != NULL && dev->ctrl != 0 && dev->started[dev->ctrl] ? dev->ctrl :
										 UINT16_MAX;
}

int
rte_vdpa_vfn_control_queue(const char *device)
{
	struct vfn_dev *dev = vfn_dev_lock_by_name(device);
	uint16_t queue;

	if (dev == NULL)
		return -ENODEV;
	queue = vfn_ctrl_queue(dev);
	vfn_dev_release(dev);
	return queue == UINT16_MAX ? -ENOENT : queue;
}

/* ---- what the guest has said ---- */

/* The parts, those of queues left out, with or without the commands. 0 or -ENOMEM. */
static int
pick(const struct vfn_saved *from, bool queues, bool commands, struct vfn_saved *to)
{
	const uint8_t *at = from->data + sizeof(struct vfn_parts_header), *begin = at, *value;
	size_t left = from->len - sizeof(struct vfn_parts_header);
	struct vfn_parts_header header;
	struct vfn_part part;

	to->data = malloc(from->len);
	if (to->data == NULL)
		return -ENOMEM;
	to->len = sizeof(header);
	for (; (value = vfn_parts_next(&at, &left, &part)) != NULL; begin = at) {
		bool of_queue = part.type == VFN_PART_VQ_CFG || part.type == VFN_PART_VQ_NOTIFY ||
			part.type == VFN_PART_VQ_POSITION;

		if ((of_queue && !queues) || (part.type == VFN_PART_NET_CVQ && !commands))
			continue;
		memcpy(to->data + to->len, begin, at - begin);
		to->len += at - begin;
	}
	memcpy(&header, from->data, sizeof(header));
	header.length = to->len - sizeof(header);
	header.checksum = vfn_parts_checksum(to->data + sizeof(header), header.length);
	memcpy(to->data, &header, sizeof(header));
	return 0;
}

/* The guest's queues stand still, and *parts is of them: should its driver go on, it is needed. */
void
vfn_ctrl_keep(struct vfn_dev *dev, const struct vfn_saved *parts)
{
	struct vfn_part_vq_position position;
	struct vfn_part_vq_cfg cfg;

	/* Not of a control queue that never started: before it did nothing was said. */
	if (dev->ctrl == 0 || dev->restored[dev->ctrl] ||
		!vfn_saved_queue(parts, dev->ctrl, &cfg, &position))
		return;
	vfn_ctrl_take(dev, parts);
}

/* They may be of a guest that passes its control queue on. */
void
vfn_ctrl_take(struct vfn_dev *dev, const struct vfn_saved *parts)
{
	vfn_ctrl_forget(dev);
	if (pick(parts, true, true, &dev->said) < 0)
		DEV_LOG(ERR, dev, "no memory for what came by the control queue");
}

void
vfn_ctrl_forget(struct vfn_dev *dev)
{
	free(dev->said.data);
	dev->said = (struct vfn_saved){0};
}

/* Into the file, if there is one: as the function does where it reaches that. */
static void
write_said(struct vfn_dev *dev)
{
	const struct vfn_inflight_region *region = &dev->inflight.region[dev->ctrl];
	struct vfn_parts_said *said;
	uint64_t turn;

	if (dev->inflight.file == NULL || region->map == NULL || !region->own ||
		dev->answered.len > sizeof(said->parts))
		return;
	said = (struct vfn_parts_said *)(region->host + region->len - 2 * sizeof(*said));
	turn = RTE_MAX(said[0].turn, said[1].turn) + 1;
	said += said[0].turn > said[1].turn;
	/* We may end between any two of these. */
	__atomic_store_n(&said->turn, 0, __ATOMIC_SEQ_CST);
	memcpy(said->parts, dev->answered.data, dev->answered.len);
	__atomic_store_n(&said->turn, turn, __ATOMIC_RELEASE);
}

/*
 * By windows: a command was carried out and is not answered yet. What was said is kept here, for
 * the function that comes after this one, and in the file, for the process that comes after ours.
 * Then the ring is to stand at after. False: it is not to be answered.
 */
bool
vfn_ctrl_answer(struct vfn_dev *dev, uint16_t after)
{
	struct vfn_vpci_ring ring;
	int ret = vfn_saved_get(dev, &dev->answered);

	vfn_life_check(dev);
	if (ret < 0)
		return false;
	ring = *vfn_shadow_guest_ring(dev, dev->ctrl);
	ring.avail = after;
	vfn_saved_put_ring(&dev->answered, dev->ctrl, &ring);
	write_said(dev);
	return true;
}

/* The endpoint has ended: all that is known of its guest is what was answered. */
void
vfn_ctrl_lost(struct vfn_dev *dev)
{
	const struct vfn_vpci_ring *ring = vfn_shadow_guest_ring(dev, dev->ctrl);
	struct vfn_saved said = dev->answered;

	if (said.data != NULL && ring != NULL)
		vfn_saved_put_ring(&said, dev->ctrl, ring);
	dev->answered = (struct vfn_saved){0};
	vfn_saved_free(dev);
	dev->said = said;
}

/*
 * What a process that ended without notice was told by the ring that is about to start; nothing if
 * that was set up anew since. *said is empty then.
 */
static void
recover(struct vfn_dev *dev, struct vfn_saved *said)
{
	struct vfn_part_vq_position position;
	struct vfn_parts_said *both, *one;
	struct vfn_parts_header header;
	struct vfn_part_vq_cfg cfg;
	struct vfn_vpci_ring ring;
	uint64_t features;
	bool packed;

	*said = (struct vfn_saved){0};
	if (dev->ctrl == 0 || !dev->guest->wanted[dev->ctrl] ||
		!vfn_ctrl_can_start(dev, dev->ctrl) || vfn_ring_get(dev, dev->ctrl, &ring) < 0 ||
		vfn_guest_features(dev->guest, &features) < 0)
		return;
	packed = features & BIT(VIRTIO_F_RING_PACKED);
	both = vfn_inflight_control(dev, &ring, packed);
	if (both == NULL)
		return;
	one = &both[both[1].turn > both[0].turn];
	memcpy(&header, one->parts, sizeof(header));
	said->len = sizeof(header) + header.length;
	if (one->turn != 0 && header.length <= sizeof(one->parts) - sizeof(header) &&
		header.checksum == vfn_parts_checksum(one->parts + sizeof(header), header.length))
		said->data = malloc(said->len);
	if (said->data != NULL) {
		memcpy(said->data, one->parts, said->len);
		if (!vfn_saved_queue(said, dev->ctrl, &cfg, &position) ||
			(packed ? vfn_ring_fresh(dev, &ring) : ring.used == 0) ||
			(ring.used != position.used && ring.used != position.avail)) {
			free(said->data);
			said->data = NULL;
		}
	}
	free(both);
}

/*
 * Is a control queue that is about to start the one by which it was said? A vhost-user front-end
 * that stops a device and starts it again, or that changes the memory, does not tell whether the
 * driver goes on or is another one. The ring tells: who begins anew begins with a new one.
 */
static bool
goes_on(struct vfn_dev *dev)
{
	struct vfn_part_vq_position position;
	struct vfn_part_vq_cfg cfg;
	struct vfn_vpci_ring ring;
	uint64_t features;

	if (dev->said.data == NULL || dev->ctrl == 0 || !dev->guest->wanted[dev->ctrl] ||
		!vfn_ctrl_can_start(dev, dev->ctrl) ||
		!vfn_saved_queue(&dev->said, dev->ctrl, &cfg, &position) ||
		vfn_ring_get(dev, dev->ctrl, &ring) < 0 || ring.size != cfg.size ||
		vfn_guest_features(dev->guest, &features) < 0)
		return false;
	if (ring.used == position.used)
		return true;
	/* A front-end that was left by its back-end may say where a packed ring once began. */
	return (features & BIT(VIRTIO_F_RING_PACKED)) && ring.used == VFN_PACKED_START &&
		!vfn_ring_fresh(dev, &ring);
}

/*
 * Has a driver switched off every ring, its control queue's among them? Then it may be gone:
 * user-mode Linux says no more when it is unbound, and librte_vhost does not close the device.
 */
bool
vfn_ctrl_left(struct vfn_dev *dev)
{
	struct vfn_vpci_queue info;
	uint16_t q;

	for (q = 0; q < VFN_MAX_QUEUES; q++)
		if (dev->guest->wanted[q])
			return false;
	if (dev->ctrl == 0)
		return false;
	vfn_vpci_queue_info(&dev->pci, dev->ctrl, &info);
	return info.enabled && !dev->restored[dev->ctrl];
}

/*
 * A control queue is about to start of a function that is set up. Must that be set up again? Either
 * what was said before belongs to this queue, or what was said since does not.
 */
bool
vfn_ctrl_changes(struct vfn_dev *dev)
{
	const struct vfn_guest *guest = dev->guest;
	struct vfn_vpci_queue info;
	struct vfn_vpci_ring ring;
	struct vfn_saved said;

	if (dev->said.data != NULL)
		return goes_on(dev);
	recover(dev, &said);
	if (said.data != NULL) {
		free(said.data);
		return true;
	}
	vfn_vpci_queue_info(&dev->pci, dev->ctrl, &info);
	return info.enabled && !dev->restored[dev->ctrl] && vfn_ctrl_can_start(dev, dev->ctrl) &&
		vfn_ring_get(dev, dev->ctrl, &ring) == 0 && guest->stopped[dev->ctrl] &&
		guest->stopped_at[dev->ctrl] != ring.used;
}

/*
 * The parts that the function gets before its queues start: restored ones, without commands as long
 * as it is not known that the driver is the one that gave them; or none but the commands. *to is
 * empty if there are none. 0 or -ENOMEM.
 */
int
vfn_ctrl_parts(struct vfn_dev *dev, const struct vfn_saved *restored, struct vfn_saved *to)
{
	const bool on = goes_on(dev), windows = vfn_shadow_by_windows(dev);
	struct vfn_saved recovered = {0}, *said = on ? &dev->said : &recovered;
	int ret = 0;

	*to = (struct vfn_saved){0};
	free(dev->answered.data);
	dev->answered = (struct vfn_saved){0};
	if (restored->data == NULL && dev->said.data == NULL)
		recover(dev, &recovered);
	/* The function that comes after this one is to go on with it, too. */
	if (said->data != NULL && windows)
		ret = pick(said, true, true, &dev->answered);
	/* By windows the function does not know the guest's rings. */
	if (ret == 0 && restored->data != NULL)
		ret = pick(restored, !windows, on || dev->ctrl == 0, to);
	else if (ret == 0 && said->data != NULL)
		ret = pick(said, false, true, to);
	free(recovered.data);
	return ret;
}
