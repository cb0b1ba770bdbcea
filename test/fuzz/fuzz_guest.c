/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Guest memory of the fuzzing targets. Runs on the target's thread. */

#include <string.h>
#include <sys/mman.h>

#include "fuzz_guest.h"

#define PIECE		 512	 /* compared at once */
#define IOTLB_DIRTY_AWAY 0x40000 /* behind an IOTLB the log has addresses of its own */

static uint8_t *huge;

static uint32_t
align16(uint32_t n)
{
	return (n + 15) & ~15u;
}

static void *
must(void *p)
{
	if (p == NULL) {
		perror("out of memory");
		exit(1);
	}
	return p;
}

/* A range of the link's hooks lies in one region. */
static void
link_check(void *arg, const void *addr, size_t len)
{
	struct guest *g = arg;
	uint32_t k, i;

	for (k = 0; k < DIM(g->space); k++)
		for (i = 0; i < g->space[k].nb; i++) {
			const struct vringh_region *r = &g->space[k].region[i].r;
			uint64_t off = (uintptr_t)addr - (uintptr_t)r->host;

			if (off <= r->len && len <= r->len - off)
				return;
		}
	CHECK(!"the range of invalidate or flush is in one region");
}

/* Tables other than an IOTLB's are the owner's to write. */
static void
space_publish(struct guest_space *s)
{
	uint32_t i;

	if (s->mem.kind == VRINGH_MEM_IOTLB) {
		CHECK(s->mem.nb_regions == s->nb);
		for (i = 0; i < s->nb; i++) {
			const struct vringh_region *a = &s->mem.table[i], *b = &s->region[i].r;

			CHECK(a->iova == b->iova && a->len == b->len && a->host == b->host);
			CHECK(a->dirty == b->dirty && a->perm == b->perm);
		}
		return;
	}
	free(s->mem.table);
	s->mem.table = must(malloc(s->nb * sizeof(*s->mem.table) + !s->nb));
	for (i = 0; i < s->nb; i++)
		s->mem.table[i] = s->region[i].r;
	s->mem.nb_regions = s->nb;
}

/* Bytes of a region that the flat contents have. */
static uint8_t *
flat_part(const struct guest_space *s, const struct vringh_region *r, uint64_t *len)
{
	uint64_t off = r->iova - s->base;

	if (off >= s->len)
		return NULL;
	*len = r->len < s->len - off ? r->len : s->len - off;
	return s->flat + off;
}

static void
region_fill(struct guest_space *s, struct guest_region *e, uint32_t shift)
{
	uint64_t n;
	uint8_t *from;

	shift = (e->r.iova + shift) % 16;
	e->block = must(calloc(1, shift + e->r.len));
	e->copy = must(malloc(e->r.len));
	e->r.host = e->block + shift;
	from = flat_part(s, &e->r, &n);
	if (from != NULL)
		memcpy(e->r.host, from, n);
}

static void
region_drop(struct guest_space *s, uint32_t i)
{
	struct guest_region *e = &s->region[i];
	uint64_t n;
	uint8_t *to = flat_part(s, &e->r, &n);

	if (e->block != NULL && to != NULL)
		memcpy(to, e->r.host, n);
	free(e->block);
	free(e->copy);
	s->nb--;
	memmove(e, e + 1, (s->nb - i) * sizeof(*e));
}

/* A region that overlaps no other. */
static struct guest_region *
region_add(struct guest *g, struct guest_space *s, uint64_t iova, uint64_t len, uint32_t perm)
{
	struct guest_region *e;
	uint32_t i = 0;

	while (i < s->nb && s->region[i].r.iova < iova)
		i++;
	CHECK(s->nb < GUEST_REGIONS);
	e = &s->region[i];
	memmove(e + 1, e, (s->nb - i) * sizeof(*e));
	*e = (struct guest_region){.r = {.iova = iova, .len = len, .perm = perm}};
	s->nb++;
	if (s->mem.kind == VRINGH_MEM_IOTLB)
		e->r.dirty = iova + IOTLB_DIRTY_AWAY;
	if (iova == HUGE_AT && len == HUGE_LEN)
		e->r.host = huge;
	else
		region_fill(s, e, g->head.shift);
	return e;
}

static void
region_map(struct guest *g, struct guest_space *s, uint64_t iova, uint64_t len, uint32_t perm)
{
	struct guest_region *e = region_add(g, s, iova, len, perm);

	if (s->mem.kind == VRINGH_MEM_IOTLB)
		CHECK(vringh_iotlb_map(&s->mem, &e->r) == 0);
}

static int
cut_order(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

static void
main_regions(struct guest *g)
{
	struct guest_space *s = &g->space[0];
	uint16_t cut[FUZZ_MAX_CUTS];
	uint32_t i, at = 0, k = 0;

	if (s->mem.kind == VRINGH_MEM_DIRECT) {
		region_map(g, s, s->base, s->len, VRINGH_PERM_RW & ~(g->head.region[0] & 3));
		return;
	}
	memcpy(cut, g->head.cut, sizeof(cut));
	qsort(cut, DIM(cut), sizeof(cut[0]), cut_order);
	for (i = 0; i <= DIM(cut); i++) {
		uint32_t to = i < DIM(cut) ? cut[i] : s->len;
		uint8_t how = i < DIM(cut) ? g->head.region[k] : 0;

		if (to <= at || to > s->len)
			continue;
		k++;
		if (!(how & FUZZ_REGION_HOLE))
			region_map(g, s, s->base + at, to - at, VRINGH_PERM_RW & ~(how & 3));
		at = to;
	}
	if (g->head.flags & FUZZ_HUGE)
		region_map(g, s, HUGE_AT, HUGE_LEN, VRINGH_PERM_RW);
}

static void
area_region(struct guest *g, int area)
{
	struct guest_space *s = &g->space[1 + area];
	uint32_t perm = area == AREA_DEVICE    ? VRINGH_PERM_WRITE :
		area == AREA_DESC && g->packed ? VRINGH_PERM_RW :
						 VRINGH_PERM_READ;

	if (s->len > 0)
		region_map(g, s, s->base, s->len, perm);
}

static void
space_init(struct guest *g, struct guest_space *s, enum vringh_mem_kind kind, uint64_t base,
	uint32_t len)
{
	s->base = base;
	s->len = len;
	s->flat = must(calloc(1, len + !len));
	s->mem.kind = kind;
	if (kind == VRINGH_MEM_IOMEM && g->head.flags & FUZZ_LINK)
		s->mem.io = &g->io;
	if (kind == VRINGH_MEM_IOTLB) {
		s->mem.max_regions = GUEST_REGIONS - 1;
		s->mem.table = must(calloc(s->mem.max_regions, sizeof(*s->mem.table)));
	}
}

void
guest_open(struct guest *g, const struct fuzz_head *head, bool packed)
{
	uint32_t event = head->flags & FUZZ_EVENT_IDX ? 2 : 0;
	uint32_t at = 0, i, n, total;
	uint64_t base;

	if (huge == NULL) {
		huge = mmap(NULL, HUGE_LEN, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		must(huge == MAP_FAILED ? NULL : huge);
		/* The zero page is read; a huge one would be filled at the first write. */
		madvise(huge, HUGE_LEN, MADV_NOHUGEPAGE);
	}
	memset(g, 0, sizeof(*g));
	g->head = *head;
	/* Large rings cost time and find nothing; those that are too large have to be refused. */
	if (head->size > GUEST_MAX_SIZE && head->size <= VRINGH_MAX_SIZE)
		g->head.size %= GUEST_MAX_SIZE + 1;
	n = g->head.size <= GUEST_MAX_SIZE ? g->head.size : 0;
	head = &g->head;
	g->packed = packed;
	g->io = (struct vringh_io){link_check, link_check, g};
	g->area_len[AREA_DESC] = 16 * n;
	g->area_len[AREA_DRIVER] = packed ? 4 : 4 + 2 * n + event;
	g->area_len[AREA_DEVICE] = packed ? 4 : 4 + 8 * n + event;
	for (i = 0; i < AREA_MAX; i++) {
		g->area[i] = at;
		at = align16(at + g->area_len[i]);
	}
	total = at + GUEST_TABLES_LEN + GUEST_BUFS_LEN;
	total += -total % GUEST_PAGE;
	/* Somewhere, at 0, across 4 GiB, up to the last address. */
	base = (uint64_t[]){0x10000, 0, 0xffffe000, -(uint64_t)total}[head->base % 4];
	g->tables = base + at;
	g->bufs = base + total - GUEST_BUFS_LEN;
	for (i = 0; i < AREA_MAX; i++) {
		g->area[i] += base;
		if (base != 0 || head->area_delta[i] > 0)
			g->area[i] += head->area_delta[i];
	}
	space_init(g, &g->space[0], head->kind % VRINGH_MEM_MAX, base, total);
	for (i = 0; i < AREA_MAX; i++)
		if (head->area_kind[i] != 0)
			space_init(g, &g->space[1 + i], (head->area_kind[i] - 1) % VRINGH_MEM_MAX,
				g->area[i], g->area_len[i]);
	guest_restore(g);
}

void
guest_close(struct guest *g)
{
	uint32_t k;

	for (k = 0; k < DIM(g->space); k++) {
		while (g->space[k].nb > 0)
			region_drop(&g->space[k], g->space[k].nb - 1);
		free(g->space[k].flat);
		free(g->space[k].mem.table);
	}
	if (g->huge_written)
		madvise(huge, HUGE_LEN, MADV_DONTNEED);
}

struct guest_space *
guest_area(struct guest *g, int area)
{
	return &g->space[g->space[1 + area].flat != NULL ? 1 + area : 0];
}

uint64_t
guest_addr(const struct guest *g, uint32_t code, uint64_t miss)
{
	const struct guest_space *s = &g->space[0];
	uint32_t off = code & ((1u << AT_SHIFT) - 1);
	const struct vringh_region *r = s->nb > 0 ? &s->region[(off >> 16) % s->nb].r : NULL;

	switch (code >> AT_SHIFT) {
	case AT_REGION:
		return r != NULL ? r->iova + (uint16_t)off : off;
	case AT_END:
		return r != NULL ? r->iova + r->len - (uint16_t)off : off;
	case AT_HUGE:
		return HUGE_AT + 16ull * off;
	case AT_TOP:
		return UINT64_MAX - off;
	case AT_AREA:
		return g->area[(off >> 24) % AREA_MAX] + (off & 0xffffff);
	case AT_MISS:
		return miss + off;
	default:
		return s->base + off;
	}
}

struct guest_region *
guest_find(struct guest_space *s, uint64_t iova)
{
	uint32_t i;

	for (i = 0; i < s->nb; i++)
		if (iova - s->region[i].r.iova < s->region[i].r.len)
			return &s->region[i];
	return NULL;
}

uint8_t *
guest_piece(struct guest_space *s, uint64_t iova, uint64_t *len, uint32_t perm)
{
	struct guest_region *e = guest_find(s, iova);
	uint64_t off;

	if (e == NULL || (e->r.perm & perm) != perm)
		return NULL;
	off = iova - e->r.iova;
	if (*len > e->r.len - off)
		*len = e->r.len - off;
	return e->r.host + off;
}

void
guest_write(struct guest_space *s, uint64_t iova, const void *src, uint64_t len)
{
	const uint8_t *from = src;
	uint64_t i, n = 1;

	for (i = 0; i < len; i++) {
		uint8_t *to = guest_piece(s, iova + i, &n, 0);

		if (to != NULL)
			*to = from[i];
	}
}

void
guest_read(struct guest_space *s, uint64_t iova, void *dst, uint64_t len)
{
	uint8_t *to = dst;

	while (len > 0) {
		uint64_t n = len;
		const uint8_t *from = guest_piece(s, iova, &n, 0);

		if (from != NULL)
			memcpy(to, from, n);
		else
			memset(to, 0, n = 1);
		iova += n;
		to += n;
		len -= n;
	}
}

void
guest_restore(struct guest *g)
{
	uint32_t k;

	for (k = 0; k < DIM(g->space); k++) {
		struct guest_space *s = &g->space[k];

		if (s->flat == NULL)
			continue;
		while (s->nb > 0)
			region_drop(s, s->nb - 1);
		if (s->mem.kind == VRINGH_MEM_IOTLB)
			vringh_iotlb_unmap(&s->mem, 0, 0);
		if (k == 0)
			main_regions(g);
		else
			area_region(g, k - 1);
		space_publish(s);
	}
}

void
guest_move(struct guest *g)
{
	uint32_t k, i;

	for (k = 0; k < DIM(g->space); k++) {
		struct guest_space *s = &g->space[k];

		if (s->flat == NULL)
			continue;
		if (s->mem.kind == VRINGH_MEM_IOTLB)
			CHECK(vringh_iotlb_unmap(&s->mem, 0, 0) == s->nb);
		for (i = 0; i < s->nb; i++) {
			struct guest_region old = s->region[i];

			if (old.block == NULL)
				continue;
			region_fill(s, &s->region[i], g->head.shift);
			memcpy(s->region[i].r.host, old.r.host, old.r.len);
			free(old.block);
			free(old.copy);
		}
		for (i = 0; i < s->nb && s->mem.kind == VRINGH_MEM_IOTLB; i++)
			CHECK(vringh_iotlb_map(&s->mem, &s->region[i].r) == 0);
		space_publish(s);
	}
}

void
guest_remove(struct guest_space *s, uint32_t i)
{
	struct vringh_region r = s->region[i].r;

	if (s->mem.kind == VRINGH_MEM_IOTLB)
		CHECK(vringh_iotlb_unmap(&s->mem, r.iova, r.len) == 1);
	region_drop(s, i);
	space_publish(s);
}

void
guest_permit(struct guest_space *s, uint32_t i, uint32_t perm)
{
	struct vringh_region *r = &s->region[i].r;

	r->perm = perm;
	if (s->mem.kind == VRINGH_MEM_IOTLB) {
		CHECK(vringh_iotlb_unmap(&s->mem, r->iova, 1) == 1);
		CHECK(vringh_iotlb_map(&s->mem, r) == 0);
	}
	space_publish(s);
}

void
guest_map(struct guest *g, struct guest_space *s, uint64_t iova, uint64_t len, uint32_t perm)
{
	struct vringh_region r = {.iova = iova, .len = len, .perm = perm, .host = huge};
	int want = 0;
	uint32_t i;

	if (len == 0 || iova + (len - 1) < iova)
		want = -VRINGH_E_RANGE;
	for (i = 0; i < s->nb && want == 0; i++)
		if (s->region[i].r.iova - iova < len ||
			iova - s->region[i].r.iova < s->region[i].r.len)
			want = -VRINGH_E_OVERLAP;
	if (want == 0 && s->nb == s->mem.max_regions)
		want = -VRINGH_E_FULL;
	if (want != 0)
		CHECK(vringh_iotlb_map(&s->mem, &r) == want);
	else
		region_map(g, s, iova, len, perm);
	space_publish(s);
}

void
guest_unmap(struct guest_space *s, uint64_t iova, uint64_t len)
{
	bool all = iova == 0 && len == 0;
	uint32_t i = 0, n = 0;

	if (!all && len > -iova && iova != 0)
		len = -iova;
	while (i < s->nb) {
		const struct vringh_region *r = &s->region[i].r;

		if (all || r->iova - iova < len || (len > 0 && iova - r->iova < r->len)) {
			region_drop(s, i);
			n++;
		} else {
			i++;
		}
	}
	CHECK(vringh_iotlb_unmap(&s->mem, iova, len) == n);
	space_publish(s);
}

void
guest_save(struct guest *g)
{
	uint32_t k, i;

	for (k = 0; k < DIM(g->space); k++)
		for (i = 0; i < g->space[k].nb; i++) {
			struct guest_region *e = &g->space[k].region[i];

			if (e->block != NULL)
				memcpy(e->copy, e->r.host, e->r.len);
		}
}

void
guest_expect(struct guest_space *s, uint64_t iova, uint8_t byte)
{
	struct guest_region *e = guest_find(s, iova);

	if (e->block != NULL)
		e->copy[iova - e->r.iova] = byte;
}

bool
guest_dirty(const struct vringh_dirty_log *dirty, uint64_t addr)
{
	uint64_t page = addr / GUEST_PAGE;

	return page / 8 >= dirty->len || (dirty->bitmap[page / 8] >> page % 8 & 1);
}

/* A byte has changed: it is in one of the ranges, and logged if it has to be. */
static void
check_byte(const uint8_t *p, const struct guest_range *range, uint32_t nb,
	const struct vringh_dirty_log *dirty)
{
	uint64_t off = 0;
	uint32_t n;

	for (n = 0; n < nb; n++) {
		off = (uintptr_t)p - (uintptr_t)range[n].host;
		if (off < range[n].len)
			break;
	}
	CHECK(n < nb && "only what a call may change has changed");
	if (dirty != NULL && range[n].marked)
		CHECK(guest_dirty(dirty, range[n].dirty + off));
}

void
guest_check(struct guest *g, const struct guest_range *range, uint32_t nb,
	const struct vringh_dirty_log *dirty)
{
	uint32_t k, i;
	uint64_t at, to;

	for (k = 0; k < DIM(g->space); k++)
		for (i = 0; i < g->space[k].nb; i++) {
			const struct guest_region *e = &g->space[k].region[i];

			for (at = 0; e->block != NULL && at < e->r.len; at = to) {
				to = at + PIECE < e->r.len ? at + PIECE : e->r.len;
				if (memcmp(e->copy + at, e->r.host + at, to - at) == 0)
					continue;
				for (; at < to; at++)
					if (e->copy[at] != e->r.host[at])
						check_byte(&e->r.host[at], range, nb, dirty);
			}
		}
}
