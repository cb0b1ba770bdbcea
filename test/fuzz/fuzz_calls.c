/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The calls on chains, each checked against memory and the model. Runs on the target's thread. */

#include <string.h>

#include "fuzz_ring.h"

#define WRAP	   0x8000
#define BOTH	   (1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED)
#define MAX_BYTES  UINT16_MAX /* pulled, pushed or copied at once */
#define MAX_WRITE  (1 << 20)  /* bytes said to be written to one chain */
#define MAX_RANGES 8192

static struct model_chain model;
static struct guest_range ranges[MAX_RANGES];
static uint8_t bytes[2 * MAX_BYTES];

/* The segments of one direction are exactly these buffers, and can be used. */
static uint32_t
check_segs(struct fuzz *f, const struct vringh_seg *seg, uint32_t nb, bool write,
	const struct model_chain *mc)
{
	struct guest_space *s = &f->g.space[0];
	uint64_t sum = 0, left = 0, iova = 0;
	uint32_t i, k = 0;

	for (i = 0; i < nb; i++, seg++) {
		uint64_t len = seg->len;
		const uint8_t *host = guest_piece(
			s, seg->iova, &len, write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ);

		CHECK(seg->len > 0);
		CHECK(host == seg->addr && len == seg->len);
		if (s->mem.kind == VRINGH_MEM_IOTLB) {
			const struct vringh_region *r = &guest_find(s, seg->iova)->r;

			CHECK(seg->dirty == r->dirty + (seg->iova - r->iova));
		}
		sum += seg->len;
		while (mc != NULL && left == 0) {
			CHECK(k < mc->nb_pieces);
			left = mc->piece[k].write == write ? mc->piece[k].len : 0;
			iova = mc->piece[k++].iova;
		}
		if (mc != NULL) {
			CHECK(seg->iova == iova && seg->len <= left);
			iova += seg->len;
			left -= seg->len;
		}
	}
	CHECK(left == 0);
	for (; mc != NULL && k < mc->nb_pieces; k++)
		CHECK(mc->piece[k].write != write || mc->piece[k].len == 0);
	CHECK(sum <= UINT32_MAX);
	return sum;
}

/* mc is NULL for a packed chain that is fetched again: its descriptors are gone. */
static void
check_chain(struct fuzz *f, const struct vringh_chain *chain, uint32_t segs_at,
	const struct model_chain *mc)
{
	CHECK(chain->written == 0);
	CHECK(chain->slots >= 1 && chain->slots <= f->cfg.size);
	CHECK(mc == NULL || (mc->there && chain->id == mc->id && chain->slots == mc->slots));
	if (chain->error != VRINGH_OK) {
		CHECK(chain->error >= VRINGH_E_NEXT && chain->error <= VRINGH_E_SEGS);
		CHECK(chain->nb_read == 0 && chain->nb_write == 0);
		CHECK(chain->read_len == 0 && chain->write_len == 0);
		if (mc == NULL || mc->bad || mc->may_bad || mc->nb_segs > f->batch.max_segs)
			return;
		CHECK(mc->miss && f->refused && chain->error == VRINGH_E_ADDR);
		f->refused = false;
		return;
	}
	CHECK(mc == NULL || (!mc->bad && !mc->miss));
	CHECK(chain->nb_read + chain->nb_write == 0 || chain->seg == &f->batch.seg[segs_at]);
	CHECK(segs_at + chain->nb_read + chain->nb_write <= f->batch.max_segs);
	CHECK(check_segs(f, chain->seg, chain->nb_read, false, mc) == chain->read_len);
	CHECK(check_segs(f, chain->seg + chain->nb_read, chain->nb_write, true, mc) ==
		chain->write_len);
}

static struct vringh_state
advance(const struct fuzz *f, struct vringh_state at, uint32_t slots)
{
	uint32_t slot = (at.avail & (WRAP - 1)) + slots;

	if (!f->cfg.packed)
		at.avail += slots;
	else if (slot >= f->cfg.size)
		at.avail = (slot - f->cfg.size) | ((at.avail & WRAP) ^ WRAP);
	else
		at.avail += slots;
	return at;
}

static void
held_remove(struct fuzz *f, uint32_t at, uint32_t n)
{
	f->nb_held -= n;
	memmove(&f->held[at], &f->held[at + n], (f->nb_held - at) * sizeof(f->held[0]));
}

bool
fuzz_holds(const struct fuzz *f)
{
	uint32_t i;

	for (i = 0; i < f->nb_held; i++)
		if (f->held[i].seq != 0)
			return true;
	return false;
}

void
fuzz_phantoms(struct fuzz *f, uint32_t slots)
{
	for (f->nb_held = 0; f->nb_held < slots; f->nb_held++)
		f->held[f->nb_held] = (struct held){.chain = {.slots = 1}};
}

/* A call that answers an error has left everything as it was, and is right about it. */
static void
check_error(struct fuzz *f, enum vringh_error error, struct vringh_state at, bool sane)
{
	struct vringh_miss miss = vringh_get_miss(&f->vr);

	if (error == VRINGH_E_MISS) {
		CHECK(vringh_broken(&f->vr) == VRINGH_OK);
		CHECK(f->g.space[0].mem.kind == VRINGH_MEM_IOTLB);
		CHECK(guest_find(&f->g.space[0], miss.iova) == NULL);
		CHECK(miss.perm == VRINGH_PERM_READ || miss.perm == VRINGH_PERM_WRITE);
		CHECK(!f->refused);
		if (f->again > 0)
			return;
		model_next(f, at, fuzz_distance(f, at), &model);
		CHECK(model.miss);
		return;
	}
	CHECK(vringh_broken(&f->vr) == error);
	model_next(f, at, fuzz_distance(f, at), &model);
	if (error == VRINGH_E_AVAIL_IDX)
		CHECK(!f->cfg.packed && !sane);
	else if (error == VRINGH_E_STATE)
		CHECK(f->cfg.packed && f->region != NULL);
	else
		CHECK(model.broken == error);
}

/* A call that returned less than it was asked for and has room for has a reason. */
static void
check_stop(struct fuzz *f, struct vringh_state at, uint32_t n)
{
	uint32_t room = f->batch.max_segs - f->batch.nb_segs;

	model_next(f, at, fuzz_distance(f, at), &model);
	if (f->cfg.packed && !model.there && model.broken == VRINGH_OK)
		return;
	if (n > 0 && (model.broken != VRINGH_OK || model.miss))
		return;
	CHECK((room == 0 || model.nb_segs > room) && f->batch.nb_segs > 0);
}

void
fuzz_fetch(struct fuzz *f, const struct fuzz_op *op)
{
	struct vringh_state before = vringh_get_state(&f->vr), at = before;
	enum vringh_error broken = vringh_broken(&f->vr);
	uint32_t limit, upper = UINT32_MAX, taken = 0, i, k, chains, segs;
	bool refused = f->refused, again = f->again > 0, sane = true;
	uint16_t ahead = 0;
	int n;

	if (!fuzz_holds(f))
		f->batch.nb_chains = f->batch.nb_segs = 0;
	chains = f->batch.nb_chains;
	segs = f->batch.nb_segs;
	limit = f->batch.max_chains - chains;
	limit = op->a < limit ? op->a : limit;
	guest_save(&f->g);
	n = vringh_fetch(&f->vr, &f->batch, op->a);
	guest_check(&f->g, NULL, 0, NULL);
	if (broken != VRINGH_OK)
		CHECK(n == -(int)broken);
	if (n < 0) {
		CHECK(f->batch.nb_chains == chains && f->batch.nb_segs == segs);
		CHECK(vringh_get_state(&f->vr).avail == before.avail);
	}
	if (broken != VRINGH_OK)
		return;
	if (!f->cfg.packed) {
		ahead = model_avail_idx(f) - before.avail;
		sane = ahead <= f->cfg.size - fuzz_distance(f, before);
		if (sane && ahead > (uint16_t)(f->seen - before.avail))
			f->seen = before.avail + ahead;
		upper = (uint16_t)(f->seen - before.avail);
	}
	if (n < 0) {
		check_error(f, -n, before, sane);
		return;
	}
	CHECK((uint32_t)n <= limit && f->batch.nb_chains == chains + n);
	for (i = 0; i < (uint32_t)n; i++) {
		const struct vringh_chain *chain = &f->batch.chain[chains + i];
		struct held h = {*chain, at, segs, ++f->next_seq, f->gen, f->again > 0};

		if (h.again) {
			CHECK(f->cfg.packed || chain->id < f->cfg.size);
			if (!f->cfg.packed)
				model_split(f, chain->id, &model);
			check_chain(f, chain, segs, f->cfg.packed ? NULL : &model);
			for (k = 0; k < chain->slots; k++)
				CHECK(k < f->nb_held && f->held[k].seq == 0);
			held_remove(f, 0, chain->slots);
			f->again--;
		} else {
			model_next(f, at, fuzz_distance(f, at), &model);
			CHECK(model.broken == VRINGH_OK);
			CHECK(taken++ < upper);
			check_chain(f, chain, segs, &model);
			at = advance(f, at, chain->slots);
		}
		f->held[f->nb_held++] = h;
		segs += chain->nb_read + chain->nb_write;
	}
	CHECK(f->batch.nb_segs == segs);
	CHECK(vringh_get_state(&f->vr).avail == at.avail);
	if (!again && !refused && (uint32_t)n < limit && sane &&
		vringh_broken(&f->vr) == VRINGH_OK && (f->cfg.packed || n < ahead))
		check_stop(f, at, n);
	if (n > 0)
		f->refused = false;
}

/* Only the youngest can be handed back, none of which was completed before an older one. */
void
fuzz_discard(struct fuzz *f, uint32_t n)
{
	static struct vringh_chain list[MAX_HELD];
	uint32_t most = 0, slots = 0, i;
	const struct held *h;

	while (most < f->nb_held && f->held[f->nb_held - most - 1].seq > f->done_seq)
		most++;
	n %= most + 1;
	if (n == 0 || vringh_broken(&f->vr) != VRINGH_OK)
		return;
	h = &f->held[f->nb_held - n];
	for (i = 0; i < n; i++) {
		list[i] = h[i].chain;
		if (h[i].again) {
			f->again++;
			slots += h[i].chain.slots;
		}
	}
	guest_save(&f->g);
	vringh_discard(&f->vr, list, n);
	guest_check(&f->g, NULL, 0, NULL);
	CHECK(vringh_get_state(&f->vr).avail == h->at.avail);
	f->batch.nb_chains -= n;
	f->batch.nb_segs = h->segs_at;
	f->nb_held -= n;
	/* Chains that come again stay in flight, before those that are held. */
	memmove(&f->held[slots], f->held, f->nb_held * sizeof(f->held[0]));
	f->nb_held += slots;
	for (i = 0; i < slots; i++)
		f->held[i] = (struct held){.chain = {.slots = 1}};
}

struct guest_range
fuzz_area(struct fuzz *f, int area)
{
	uint64_t len = f->g.area_len[area];

	return (struct guest_range){
		.host = guest_piece(guest_area(&f->g, area), f->g.area[area], &len, 0),
		.len = len,
		.dirty = area == AREA_DESC ? f->dirty.desc : f->dirty.device,
		.marked = true,
	};
}

/* The used entry that begins at a position says this, and is valid in its lap. */
static bool
used_entry_is(struct fuzz *f, uint16_t used, const struct vringh_chain *chain)
{
	int area = f->cfg.packed ? AREA_DESC : AREA_DEVICE;
	struct guest_space *s = guest_area(&f->g, area);
	struct vring_packed_desc p;
	struct vring_used_elem e;

	if (!f->cfg.packed) {
		guest_read(s, f->g.area[area] + 4 + 8 * (used & (f->cfg.size - 1)), &e, sizeof(e));
		return e.id == chain->id && e.len == chain->written;
	}
	guest_read(s, f->g.area[area] + 16 * (used & (WRAP - 1)), &p, sizeof(p));
	return p.id == chain->id && p.len == chain->written &&
		p.flags == ((used & WRAP ? BOTH : 0) | (p.len > 0 ? VRING_DESC_F_WRITE : 0));
}

/* Used entries for exactly these; in order, one entry may stand for a run of full chains. */
static void
check_used(struct fuzz *f, uint16_t used, const struct vringh_chain *list, uint32_t n)
{
	static bool reach[MAX_HELD + 1];
	struct vringh_state at = {.avail = used};
	uint32_t i, k;

	memset(reach, 0, n + 1);
	reach[0] = true;
	for (i = 0; i < n; i++) {
		for (k = i; k < n && reach[i]; k++) {
			if (used_entry_is(f, at.avail, &list[k]))
				reach[k + 1] = true;
			if (!f->cfg.in_order || list[k].error != VRINGH_OK ||
				list[k].written != list[k].write_len)
				break;
		}
		at = advance(f, at, list[i].slots);
	}
	CHECK(reach[n] && "used entries say what was completed");
	CHECK(vringh_get_state(&f->vr).used == at.avail);
	if (!f->cfg.packed) {
		uint16_t idx;

		guest_read(guest_area(&f->g, AREA_DEVICE), f->g.area[AREA_DEVICE] + 2, &idx,
			sizeof(idx));
		CHECK(idx == at.avail);
	}
}

static void
check_dirty(struct fuzz *f, const struct vringh_chain *chain)
{
	const struct vringh_seg *seg = chain->seg + chain->nb_read;
	bool iotlb = f->g.space[0].mem.kind == VRINGH_MEM_IOTLB;
	uint32_t left = chain->written, at;

	for (; left > 0; seg++) {
		uint32_t len = left < seg->len ? left : seg->len;
		uint64_t dirty = iotlb ? seg->dirty : seg->iova;

		for (at = 0; at < len; at += GUEST_PAGE - (dirty + at) % GUEST_PAGE)
			CHECK(guest_dirty(&f->dirty, dirty + at));
		left -= len;
	}
}

void
fuzz_complete(struct fuzz *f, const struct fuzz_op *op)
{
	static struct vringh_chain list[MAX_HELD];
	struct guest_range range = fuzz_area(f, f->cfg.packed ? AREA_DESC : AREA_DEVICE);
	enum vringh_error broken = vringh_broken(&f->vr);
	uint32_t n = op->b % (f->nb_held + 1), first = 0, i;
	struct vringh_state before = vringh_get_state(&f->vr);

	if (!f->cfg.in_order && op->a & OP_COMPLETE_TAIL)
		first = f->nb_held - n;
	if (n == 0 || (f->again > 0 && f->held[first].seq == 0))
		return;
	for (i = 0; i < n; i++) {
		bool back = !f->cfg.in_order && op->a & OP_COMPLETE_BACK;
		const struct held *h = &f->held[first + (back ? n - 1 - i : i)];
		uint64_t most = h->chain.write_len < MAX_WRITE ? h->chain.write_len : MAX_WRITE;

		list[i] = h->chain;
		list[i].written = op->a & OP_COMPLETE_FULL ? most : op->c * (i + 1ull) % (most + 1);
		if (broken == VRINGH_OK && h->seq > f->done_seq)
			f->done_seq = h->seq;
	}
	guest_save(&f->g);
	vringh_complete(&f->vr, list, n);
	guest_check(&f->g, &range, broken == VRINGH_OK, f->dirty_on ? &f->dirty : NULL);
	CHECK(vringh_get_state(&f->vr).avail == before.avail);
	if (broken != VRINGH_OK) {
		CHECK(vringh_get_state(&f->vr).used == before.used);
		return;
	}
	check_used(f, before.used, list, n);
	for (i = 0; f->dirty_on && i < n; i++)
		if (list[i].written > 0)
			check_dirty(f, &list[i]);
	held_remove(f, first, n);
	f->nb_completed += n;
}

/* A chain whose bytes can be used; NULL if there is none at that place. */
static const struct vringh_chain *
usable(const struct fuzz *f, uint32_t i)
{
	const struct held *h = &f->held[f->nb_held > 0 ? i % f->nb_held : 0];
	enum vringh_error broken = vringh_broken(&f->vr);

	if (f->nb_held == 0 || h->seq == 0 || (broken != VRINGH_OK && broken != VRINGH_E_MISS) ||
		(h->gen != f->gen && f->g.space[0].mem.kind != VRINGH_MEM_IOTLB))
		return NULL;
	return &h->chain;
}

/*
 * Where the first bytes of segments lie now, up to the first that can't be reached any more; the
 * bus address stands in .log. Returns their number.
 */
static uint64_t
cover(struct fuzz *f, const struct vringh_seg *seg, uint32_t nb, uint32_t perm, uint64_t most,
	uint32_t *nb_ranges)
{
	uint64_t done = 0, at;
	uint32_t i;

	*nb_ranges = 0;
	for (i = 0; i < nb && done < most; i++, seg++)
		for (at = 0; at < seg->len && done < most;) {
			uint64_t len = seg->len - at < most - done ? seg->len - at : most - done;
			uint8_t *host = guest_piece(&f->g.space[0], seg->iova + at, &len, perm);

			if (host == NULL)
				return done;
			CHECK(*nb_ranges < MAX_RANGES);
			ranges[(*nb_ranges)++] = (struct guest_range){
				.host = host, .len = len, .dirty = seg->iova + at};
			at += len;
			done += len;
		}
	return done;
}

void
fuzz_pull(struct fuzz *f, const struct fuzz_op *op)
{
	const struct vringh_chain *chain = usable(f, op->b);
	uint32_t first = op->e, second = op->c % MAX_BYTES, nb, i;
	uint64_t want, got, at = 0;
	struct vringh_iter it;

	if (chain == NULL)
		return;
	want = cover(f, chain->seg, chain->nb_read, VRINGH_PERM_READ, first + second, &nb);
	it = vringh_iter_read(&f->vr, chain);
	guest_save(&f->g);
	got = vringh_pull(&it, bytes, first);
	CHECK(got <= first);
	got += vringh_pull(&it, bytes + got, second);
	CHECK(got == want);
	for (i = 0; i < nb; at += ranges[i++].len)
		CHECK(memcmp(bytes + at, ranges[i].host, ranges[i].len) == 0);
	guest_check(&f->g, NULL, 0, NULL);
}

void
fuzz_push(struct fuzz *f, const struct fuzz_op *op)
{
	const struct vringh_chain *chain = usable(f, op->b);
	uint32_t first = op->e, second = op->c % MAX_BYTES, nb, i, k;
	uint64_t want, got, at = 0, seed = op->d;
	struct vringh_iter it;

	if (chain == NULL)
		return;
	want = cover(f, chain->seg + chain->nb_read, chain->nb_write, VRINGH_PERM_WRITE,
		first + second, &nb);
	for (i = 0; i < want; i++)
		bytes[i] = fuzz_random(&seed);
	it = vringh_iter_write(&f->vr, chain);
	guest_save(&f->g);
	for (i = 0; i < nb; i++)
		for (k = 0; k < ranges[i].len; k++)
			guest_expect(&f->g.space[0], ranges[i].dirty + k, bytes[at++]);
	f->g.huge_written = true;
	got = vringh_push(&it, bytes, first);
	CHECK(got <= first);
	got += vringh_push(&it, bytes + got, second);
	CHECK(got == want);
	guest_check(&f->g, NULL, 0, NULL);
}

void
fuzz_copy(struct fuzz *f, const struct fuzz_op *op)
{
	const struct vringh_chain *from = usable(f, op->b), *to = usable(f, op->e);
	uint64_t most = op->c % MAX_BYTES, readable, writable;
	struct vringh_iter src, dst;
	uint32_t nb;

	if (from == NULL || to == NULL)
		return;
	readable = cover(f, from->seg, from->nb_read, VRINGH_PERM_READ, most, &nb);
	writable = cover(f, to->seg + to->nb_read, to->nb_write, VRINGH_PERM_WRITE, most, &nb);
	src = vringh_iter_read(&f->vr, from);
	dst = vringh_iter_write(&f->vr, to);
	guest_save(&f->g);
	f->g.huge_written = true;
	CHECK(vringh_copy(&dst, &src, most) == (readable < writable ? readable : writable));
	guest_check(&f->g, ranges, nb, NULL);
}
