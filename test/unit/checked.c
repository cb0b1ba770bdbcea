/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Accessors that judge what the library does to memory that the driver sees, and count it. In
 * an IO window: only naturally aligned accesses of 1, 2, 4 or 8 bytes, no block copies, nothing
 * read that the device itself wrote, nothing written that is never flushed. Runs on the test's
 * only thread.
 */

#include "harness.h"
#include "vringh_access.h"

static struct mock_link *links[8];
static uint64_t left = UINT64_MAX;
static checked_seen_fn *seen;
static void *seen_arg;

void
checked_limit(uint64_t accesses)
{
	left = accesses;
}

void
checked_tell(checked_seen_fn *fn, void *arg)
{
	seen = fn;
	seen_arg = arg;
}

static void
count(void)
{
	if (left == 0)
		fail_msg("more accesses than the ring can ask for");
	if (left != UINT64_MAX)
		left--;
}

static struct mock_link_window *
window_of(const void *p, const struct mock_link **of)
{
	unsigned int i;

	for (i = 0; i < DIM(links); i++)
		if (links[i] != NULL) {
			struct mock_link_window *w = mock_link_find(links[i], p);

			if (w != NULL) {
				*of = links[i];
				return w;
			}
		}
	return NULL;
}

static struct mock_link_window *
window_at(const void *p, size_t width, size_t *off, const struct mock_link **link)
{
	struct mock_link_window *w = window_of(p, link);

	if (w == NULL)
		return NULL;
	*off = (const uint8_t *)p - w->device;
	if ((uintptr_t)p % width != 0)
		fail_msg("%zu bytes at %#jx of an IO window: not aligned", width,
			(uintmax_t)(w->iova + *off));
	if (width > w->len - *off)
		fail_msg("%zu bytes at %#jx: beyond an IO window", width,
			(uintmax_t)(w->iova + *off));
	return w;
}

static bool
within(const uint64_t range[2], uint64_t iova)
{
	return iova >= range[0] && iova < range[1];
}

static void
load(const void *p, void *v, size_t width)
{
	const struct mock_link *link;
	struct mock_link_window *w;
	size_t off, k;

	count();
	w = window_at(p, width, &off, &link);
	if (w != NULL && within(link->unread, w->iova + off))
		fail_msg("reads across the link at %#jx", (uintmax_t)(w->iova + off));
	if (w != NULL &&
		!(width == 2 && within(link->polled, w->iova + off) &&
			(w->iova + off) % 16 == offsetof(struct vring_packed_desc, flags)))
		for (k = off; k < off + width; k++)
			if (w->state[k] & MOCK_LINK_OWN)
				fail_msg("reads back what it wrote at %#jx",
					(uintmax_t)(w->iova + k));
	memcpy(v, p, width);
	if (seen != NULL)
		seen(seen_arg, p, width);
}

static void
store(void *p, const void *v, size_t width)
{
	const struct mock_link *link;
	struct mock_link_window *w;
	size_t off, k;

	count();
	w = window_at(p, width, &off, &link);
	if (w == NULL) {
		memcpy(p, v, width);
		return;
	}
	if (within(link->unwritten, w->iova + off))
		fail_msg("writes to its own side at %#jx", (uintmax_t)(w->iova + off));
	memcpy(w->posted + off, v, width);
	for (k = off; k < off + width; k++)
		w->state[k] = MOCK_LINK_POSTED | MOCK_LINK_OWN;
}

static uint8_t
load8(const void *p)
{
	uint8_t v;

	load(p, &v, sizeof(v));
	return v;
}

static uint16_t
load16(const void *p)
{
	uint16_t v;

	load(p, &v, sizeof(v));
	return v;
}

static uint32_t
load32(const void *p)
{
	uint32_t v;

	load(p, &v, sizeof(v));
	return v;
}

static uint64_t
load64(const void *p)
{
	uint64_t v;

	load(p, &v, sizeof(v));
	return v;
}

static struct vringh_words
load_words(const void *p)
{
	struct vringh_words w;

	load(p, &w.addr, sizeof(w.addr));
	load((const uint8_t *)p + sizeof(w.addr), &w.rest, sizeof(w.rest));
	return w;
}

static void
store8(void *p, uint8_t v)
{
	store(p, &v, sizeof(v));
}

static void
store16(void *p, uint16_t v)
{
	store(p, &v, sizeof(v));
}

static void
store32(void *p, uint32_t v)
{
	store(p, &v, sizeof(v));
}

static void
store64(void *p, uint64_t v)
{
	store(p, &v, sizeof(v));
}

static void
copy(void *dst, const void *src, size_t len)
{
	const struct mock_link *link;

	count();
	if (len > 0 &&
		(window_of(dst, &link) != NULL || window_of((uint8_t *)dst + len - 1, &link) ||
			window_of(src, &link) != NULL ||
			window_of((const uint8_t *)src + len - 1, &link)))
		fail_msg("block copy of %zu bytes in an IO window", len);
	memmove(dst, src, len);
	if (seen != NULL)
		seen(seen_arg, src, len);
}

static const struct vringh_accessors checking = {
	.load8 = load8,
	.load16 = load16,
	.load32 = load32,
	.load64 = load64,
	.load_words = load_words,
	.store8 = store8,
	.store16 = store16,
	.store32 = store32,
	.store64 = store64,
	.copy = copy,
};

void
checked_watch(struct mock_link *link)
{
	unsigned int i = 0;

	while (links[i] != NULL)
		i++;
	assert_true(i < DIM(links) - 1);
	links[i] = link;
	left = UINT64_MAX;
	seen = NULL;
	vringh_accessors = &checking;
}

void
checked_forget(struct mock_link *link)
{
	unsigned int i;

	for (i = 0; i < DIM(links); i++)
		if (links[i] == link)
			links[i] = NULL;
	if (!link->loses)
		assert_int_equal(link->nb_lost, 0);
}
