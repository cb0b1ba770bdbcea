/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Rings and buffers behind windows: each queue has an equal part of both. In the window out are the
 * descriptor and driver area and the bytes that the function reads, in the window in the device
 * area and the bytes that it writes. Buffers are taken from the rest as from a ring, since chains
 * come back in order. Runs where the relay does, but for vfn_window_to_ring().
 */

#include <errno.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>

#include "vfn_shadow.h"

/* Of areas, buffers and parts. */
#define ALIGN UINT64_C(64)

/* The next bytes of a part, for an area. */
static void *
area_take(struct vfn_window_part *w, uint64_t len, uint64_t *iova)
{
	void *host = w->host;

	len = RTE_ALIGN_CEIL(len, ALIGN);
	*iova = w->iova;
	w->host += len;
	w->iova += len;
	w->len -= RTE_MIN(w->len, len);
	return host;
}

static void
clear(const struct vfn_shadow *s, void *area, size_t len)
{
	memset(area, 0, len);
	s->io->flush(s->io->arg, area, len);
}

/* The function reads the one and writes the other. */
int
vfn_window_map(struct vfn_dev *dev)
{
	struct vfn_windows w = {0};
	struct vfn_dma_map map = {.fd = -1, .readable = true, .relay = true};
	int ret;

	ret = dev->pci.link->ops->get_windows(dev->pci.link, &w);
	if (ret == 0) {
		map.iova = w.out.iova;
		map.len = w.out.len;
		map.host = w.out.host;
		ret = vfn_vpci_map(&dev->pci, &map);
	}
	if (ret == 0) {
		map = (struct vfn_dma_map){.iova = w.in.iova,
			.len = w.in.len,
			.host = w.in.host,
			.fd = -1,
			.writable = true,
			.relay = true};
		ret = vfn_vpci_map(&dev->pci, &map);
	}
	if (ret < 0)
		DEV_LOG(ERR, dev, "the function does not get windows: %s", strerror(-ret));
	return ret;
}

int
vfn_window_to_ring(struct vfn_dev *dev, struct vfn_shadow *s)
{
	const size_t entries = s->size * sizeof(struct vring_desc);
	const size_t driver = s->packed ? sizeof(struct vring_packed_desc_event) : 6 + 2 * s->size;
	const size_t device = s->packed ? VRINGH_APART_OFFSET + entries : 6 + 8 * s->size;
	struct vfn_windows w;
	void *desc, *avail, *used;
	uint64_t part[2];
	int ret;

	ret = dev->pci.link->ops->get_windows(dev->pci.link, &w);
	if (ret < 0)
		return ret;
	part[0] = RTE_ALIGN_FLOOR(w.out.len / dev->pci.nb_queues, ALIGN);
	part[1] = RTE_ALIGN_FLOOR(w.in.len / dev->pci.nb_queues, ALIGN);
	if (RTE_MIN(part[0], part[1]) < 2 * (entries + driver + device) || part[0] > UINT32_MAX ||
		part[1] > UINT32_MAX) {
		DEV_LOG(ERR, dev,
			"queue %u of %u entries does not fit the windows, of which it has %" PRIu64
			" and %" PRIu64 " bytes",
			s->queue, s->size, part[0], part[1]);
		return -ENOSPC;
	}
	s->io = w.io;
	s->out = (struct vfn_window_part){.host = w.out.host + s->queue * part[0],
		.iova = w.out.iova + s->queue * part[0],
		.len = part[0]};
	s->in = (struct vfn_window_part){.host = w.in.host + s->queue * part[1],
		.iova = w.in.iova + s->queue * part[1],
		.len = part[1]};
	desc = area_take(&s->out, entries, &s->ring.desc);
	avail = area_take(&s->out, driver, &s->ring.driver);
	used = area_take(&s->in, device, &s->ring.device);
	clear(s, desc, entries);
	clear(s, avail, driver);
	if (s->packed) {
		s->packed_ring.desc = desc;
		s->packed_ring.driver = avail;
		s->packed_ring.device = used;
		s->packed_ring.used = RTE_PTR_ADD(used, VRINGH_APART_OFFSET);
	} else {
		s->split.desc = desc;
		s->split.avail = avail;
		s->split.used = used;
	}
	return 0;
}

bool
vfn_window_fits(const struct vfn_shadow *s, const struct vringh_chain *chain)
{
	return chain->read_len <= s->out.len && chain->write_len <= s->in.len;
}

/* Bytes in one piece: where they are, and how much is taken for them. False: not now. */
static inline bool
take(struct vfn_window_part *w, uint32_t len, uint32_t *at, uint32_t *takes)
{
	uint32_t rest;

	*takes = *at = 0;
	if (len == 0)
		return true;
	if (w->taken == 0)
		w->next = 0;
	rest = w->len - w->next;
	*at = len <= rest ? w->next : 0;
	/* The last one may end anywhere before the end. */
	*takes = (len <= rest ? 0 : rest) +
		RTE_MIN((uint32_t)RTE_ALIGN_CEIL((uint64_t)len, ALIGN), w->len - *at);
	if (*takes > w->len - w->taken)
		return false;
	w->taken += *takes;
	w->next = *at + RTE_MIN((uint32_t)RTE_ALIGN_CEIL((uint64_t)len, ALIGN), w->len - *at);
	return true;
}

bool
vfn_window_put(struct vfn_shadow *s, uint32_t place)
{
	struct vringh_chain *c = &s->chain[place];
	struct vfn_shadow_slot *slot = &s->slot[place];
	struct vfn_window_part out = s->out;
	struct vringh_iter it;
	uint8_t *to;

	if (!take(&s->out, c->read_len, &slot->out_at, &slot->out_takes))
		return false;
	if (!take(&s->in, c->write_len, &slot->in_at, &slot->in_takes)) {
		s->out = out;
		return false;
	}
	if (c->read_len == 0)
		return true;
	to = s->out.host + slot->out_at;
	it = vringh_iter_read(&s->guest, c);
	vringh_pull(&it, to, c->read_len);
	s->io->flush(s->io->arg, to, c->read_len);
	return true;
}

void
vfn_window_get(struct vfn_shadow *s, uint32_t place)
{
	struct vringh_chain *c = &s->chain[place];
	const uint8_t *from = s->in.host + s->slot[place].in_at;
	struct vringh_iter it = vringh_iter_write(&s->guest, c);

	s->io->invalidate(s->io->arg, from, c->written);
	vringh_push(&it, from, c->written);
}

void
vfn_window_free(struct vfn_shadow *s, uint32_t place)
{
	s->out.taken -= s->slot[place].out_takes;
	s->in.taken -= s->slot[place].in_takes;
}
