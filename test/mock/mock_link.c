/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A link that is not coherent. Runs on the thread that runs the device. */

#include <stdlib.h>
#include <string.h>

#include "mock_link.h"

#define PAGE 4096

uint8_t *
mock_link_add(struct mock_link *link, uint64_t iova, uint8_t *driver, size_t len)
{
	struct mock_link_window *w = &link->window[link->nb_windows];
	size_t head = iova % PAGE;
	void *block;

	if (link->nb_windows == MOCK_LINK_WINDOWS || posix_memalign(&block, PAGE, head + len) != 0)
		return NULL;
	*w = (struct mock_link_window){
		.iova = iova, .driver = driver, .device = (uint8_t *)block + head, .len = len};
	memcpy(w->device, driver, len);
	if (link->strict) {
		w->posted = malloc(len);
		w->state = calloc(1, len);
		if (w->posted == NULL || w->state == NULL)
			abort();
	}
	link->nb_windows++;
	return w->device;
}

void
mock_link_remove(struct mock_link *link, const uint8_t *device)
{
	struct mock_link_window *w = mock_link_find(link, device);
	size_t k;

	for (k = 0; w->state != NULL && k < w->len; k++)
		link->nb_lost += w->state[k] & MOCK_LINK_POSTED;
	free(w->device - w->iova % PAGE);
	free(w->posted);
	free(w->state);
	*w = link->window[--link->nb_windows];
}

struct mock_link_window *
mock_link_find(struct mock_link *link, const void *device)
{
	uint32_t i;

	for (i = 0; i < link->nb_windows; i++)
		if ((uintptr_t)device - (uintptr_t)link->window[i].device < link->window[i].len)
			return &link->window[i];
	return NULL;
}

void
mock_link_wrote(struct mock_link *link, const uint8_t *driver, size_t len)
{
	uint32_t i;
	size_t k;

	for (i = 0; i < link->nb_windows; i++) {
		struct mock_link_window *w = &link->window[i];
		size_t off = driver - w->driver;

		if ((uintptr_t)driver - (uintptr_t)w->driver >= w->len || w->state == NULL)
			continue;
		for (k = off; k < off + len; k++)
			w->state[k] &= ~MOCK_LINK_OWN;
	}
}

/* The window and offset of a range that a hook was called for. */
static struct mock_link_window *
hooked(struct mock_link *link, const void *addr, size_t len, const uint64_t lose[2], size_t *off)
{
	struct mock_link_window *w = mock_link_find(link, addr);

	if (w == NULL)
		abort(); /* not memory of the link */
	*off = (const uint8_t *)addr - w->device;
	if (len > w->len - *off)
		abort(); /* too long */
	return w->iova + *off >= lose[0] && w->iova + *off < lose[1] ? NULL : w;
}

/* Words that differ from what the device wrote: the driver wrote there. */
static void
disown(struct mock_link_window *w, size_t off, size_t end)
{
	size_t k, i;

	for (k = off - (w->iova + off) % 8; k < end; k += 8)
		for (i = k; i < k + 8 && i < w->len; i++)
			if ((w->state[i] & MOCK_LINK_OWN) && !(w->state[i] & MOCK_LINK_POSTED) &&
				w->driver[i] != w->posted[i]) {
				size_t n;

				for (n = k; n < k + 8 && n < w->len; n++)
					w->state[n] &= ~MOCK_LINK_OWN;
			}
}

static void
invalidate(void *arg, const void *addr, size_t len)
{
	struct mock_link *link = arg;
	struct mock_link_window *w;
	size_t off;

	link->nb_invalidates++;
	w = hooked(link, addr, len, link->lose_invalidate, &off);
	if (w == NULL)
		return;
	memcpy(w->device + off, w->driver + off, len);
	if (w->state != NULL)
		disown(w, off, off + len);
}

static void
flush(void *arg, const void *addr, size_t len)
{
	struct mock_link *link = arg;
	struct mock_link_window *w;
	size_t off, k;

	if (len == 0) {
		link->nb_orders++;
		return;
	}
	link->nb_flushes++;
	w = hooked(link, addr, len, link->lose_flush, &off);
	if (w == NULL) { /* what was posted is lost */
		w = mock_link_find(link, addr);
		if (w->state != NULL)
			memset(w->state + off, 0, len);
		return;
	}
	if (w->state == NULL) {
		memcpy(w->driver + off, w->device + off, len);
		return;
	}
	for (k = off; k < off + len; k++)
		if (w->state[k] & MOCK_LINK_POSTED) {
			w->driver[k] = w->posted[k];
			w->state[k] &= ~MOCK_LINK_POSTED;
		}
}

const struct vringh_io *
mock_link_io(struct mock_link *link)
{
	link->io = (struct vringh_io){.invalidate = invalidate, .flush = flush, .arg = link};
	return &link->io;
}
