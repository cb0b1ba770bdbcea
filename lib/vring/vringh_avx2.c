/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Chains of one direct descriptor each in the region hit last, four at a time, where the CPU has
 * AVX2. What comes out is what the loops of vringh_split.c and vringh_packed.c would have made of
 * them; whatever is not like that is left to those. Runs on the thread that owns the queue.
 *
 * Guest memory is loaded by volatile accesses, once for each use. Each half of a descriptor is an
 * aligned word, which vector loads do not tear, and loads stay in their order on x86.
 */

#include "vringh_core.h"

#ifdef VRINGH_AVX2

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

/* Four descriptors by halves; lanes are in the order 0, 2, 1, 3. */
struct four {
	__m256i addr;
	__m256i rest;
};

/* What is the same for all of a run. */
struct run {
	__m256i iova;	  /* of the region */
	__m256i host;	  /* of the region */
	__m256i len;	  /* of the region */
	__m256i seg;	  /* addresses of the next four segments */
	__m256i counts;	  /* of a chain, but for its id */
	__m256i len_mask; /* the length in a descriptor's second half */
	__m256i dirty;	  /* VRINGH_MEM_IOTLB: the dirty log's addresses against the bus */
	__m256i gen;	  /* VRINGH_MEM_IOTLB: where a segment has it beside its length */
	bool write;
	bool iotlb;
};

static inline AVX2 struct run
run_start(const struct vringh_region *hit, const struct vringh_seg *seg, bool write, bool iotlb,
	uint32_t gen)
{
	return (struct run){
		.iova = _mm256_set1_epi64x(hit->iova),
		.host = _mm256_set1_epi64x((uintptr_t)hit->host),
		.len = _mm256_set1_epi64x(hit->len),
		.seg = _mm256_set_epi64x((uintptr_t)(seg + 3), (uintptr_t)(seg + 1),
			(uintptr_t)(seg + 2), (uintptr_t)seg),
		.counts = _mm256_set1_epi64x(INT64_C(1) << 48 | (write ? 1 << 16 : 1)),
		.len_mask = _mm256_set1_epi64x(UINT32_MAX),
		.dirty = _mm256_set1_epi64x(hit->dirty - hit->iova),
		.gen = _mm256_set1_epi64x((uint64_t)gen << 32),
		.write = write,
		.iotlb = iotlb,
	};
}

/* Two pairs of words, of chains 0 and 1, or 2 and 3, to each one's 32 bytes. */
static inline AVX2 void
store_two(void *first, void *second, __m256i front, __m256i back)
{
	_mm256_storeu_si256(first, _mm256_permute2x128_si256(front, back, 0x20));
	_mm256_storeu_si256(second, _mm256_permute2x128_si256(front, back, 0x31));
}

/* Fill four chains and segments; id is where it is in the counts. False if one is not to be. */
static inline AVX2 bool
fill_four(struct run *run, const struct four *d, __m256i id, struct vringh_seg *seg,
	struct vringh_chain *chain)
{
	const __m256i zero = _mm256_setzero_si256();
	__m256i len = _mm256_and_si256(d->rest, run->len_mask);
	__m256i off = _mm256_sub_epi64(d->addr, run->iova);
	__m256i dirty = zero, back = len, bad, host, lens, counts;

	/* Signed: the region is shorter than 2^63. An offset behind it, or before it, is refused.
	 */
	bad = _mm256_or_si256(_mm256_cmpgt_epi64(off, _mm256_sub_epi64(run->len, len)),
		_mm256_or_si256(_mm256_cmpgt_epi64(zero, off), _mm256_cmpeq_epi64(len, zero)));
	if (vringh_unlikely(!_mm256_testz_si256(bad, bad)))
		return false;
	host = _mm256_add_epi64(off, run->host);
	lens = run->write ? _mm256_slli_epi64(len, 32) : len;
	counts = _mm256_or_si256(id, run->counts);
	if (run->iotlb) {
		dirty = _mm256_add_epi64(d->addr, run->dirty);
		back = _mm256_or_si256(len, run->gen);
	}

	_Static_assert(sizeof(*seg) == 32 && offsetof(struct vringh_seg, iova) == 8 &&
			offsetof(struct vringh_seg, dirty) == 16 &&
			offsetof(struct vringh_seg, len) == 24 &&
			offsetof(struct vringh_seg, gen) == 28 && sizeof(*chain) == 32 &&
			offsetof(struct vringh_chain, read_len) == 8 &&
			offsetof(struct vringh_chain, nb_read) == 16 &&
			offsetof(struct vringh_chain, written) == 24,
		"words of a segment and of a chain");
	store_two(&seg[0], &seg[1], _mm256_unpacklo_epi64(host, d->addr),
		_mm256_unpacklo_epi64(dirty, back));
	store_two(&seg[2], &seg[3], _mm256_unpackhi_epi64(host, d->addr),
		_mm256_unpackhi_epi64(dirty, back));
	store_two(&chain[0], &chain[1], _mm256_unpacklo_epi64(run->seg, lens),
		_mm256_unpacklo_epi64(counts, zero));
	store_two(&chain[2], &chain[3], _mm256_unpackhi_epi64(run->seg, lens),
		_mm256_unpackhi_epi64(counts, zero));
	run->seg = _mm256_add_epi64(run->seg, _mm256_set1_epi64x(4 * sizeof(*seg)));
	return true;
}

static inline AVX2 bool
all_equal(__m256i words, __m256i mask, __m256i want)
{
	return _mm256_movemask_epi8(_mm256_cmpeq_epi64(_mm256_and_si256(words, mask), want)) == -1;
}

static inline AVX2 struct four
load_packed(const struct vring_packed_desc *p)
{
	__m256i a = *(const volatile __m256i_u *)&p[0], b = *(const volatile __m256i_u *)&p[2];

	return (struct four){_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)};
}

static vringh_inline AVX2 uint32_t
packed_run(const struct vringh_region *hit, const struct vring_packed_desc *desc, uint16_t want,
	uint32_t n, bool write, struct vringh_seg *seg, struct vringh_chain *chain, bool iotlb,
	uint32_t gen)
{
	const __m256i mask = _mm256_set1_epi64x((uint64_t)(PACKED_BOTH | KIND_FLAGS) << 48);
	const __m256i flags =
		_mm256_set1_epi64x((uint64_t)(want | (write ? VRING_DESC_F_WRITE : 0)) << 48);
	const __m256i id_mask = _mm256_set1_epi64x(INT64_C(0xffff) << 32);
	struct run run = run_start(hit, seg, write, iotlb, gen);
	uint32_t i;

	if (vringh_unlikely(hit->len > INT64_MAX))
		return 0;
	for (i = 0; i + 4 <= n; i += 4) {
		struct four d = load_packed(&desc[i]);

		/* Pairs with the driver's release of the head's flags (2.8.21): the rest after. */
		if (!all_equal(d.rest, mask, flags))
			break;
		d = load_packed(&desc[i]);
		if (!fill_four(&run, &d, _mm256_and_si256(d.rest, id_mask), &seg[i], &chain[i]))
			break;
	}
	return i;
}

AVX2 uint32_t
vringh_avx2_packed(const struct vringh_region *hit, const struct vring_packed_desc *desc,
	uint16_t want, uint32_t n, bool write, struct vringh_seg *seg, struct vringh_chain *chain)
{
	return packed_run(hit, desc, want, n, write, seg, chain, false, 0);
}

AVX2 uint32_t
vringh_avx2_packed_iotlb(const struct vringh_region *hit, const struct vring_packed_desc *desc,
	uint16_t want, uint32_t n, bool write, struct vringh_seg *seg, struct vringh_chain *chain,
	uint32_t gen)
{
	return packed_run(hit, desc, want, n, write, seg, chain, true, gen);
}

static inline AVX2 __m256i
load_two(const struct vring_desc *first, const struct vring_desc *second)
{
	return _mm256_set_m128i(
		*(const volatile __m128i_u *)second, *(const volatile __m128i_u *)first);
}

static vringh_inline AVX2 uint32_t
split_run(const struct vringh_region *hit, const struct vring_desc *desc, const uint16_t *heads,
	uint32_t size, uint32_t n, bool write, struct vringh_seg *seg, struct vringh_chain *chain,
	bool iotlb, uint32_t gen)
{
	const __m256i mask = _mm256_set1_epi64x((uint64_t)KIND_FLAGS << 32);
	const __m256i flags = _mm256_set1_epi64x((uint64_t)(write ? VRING_DESC_F_WRITE : 0) << 32);
	const uint64_t not_head = UINT64_C(0x1000100010001) * (uint16_t) ~(size - 1);
	struct run run = run_start(hit, seg, write, iotlb, gen);
	uint32_t i;

	if (vringh_unlikely(hit->len > INT64_MAX))
		return 0;
	for (i = 0; i + 4 <= n; i += 4) {
		uint64_t h = mem_load64_unaligned(&heads[i]);
		__m256i a, b, id;
		struct four d;

		if (vringh_unlikely(h & not_head))
			break;
		a = load_two(&desc[h & 0xffff], &desc[h >> 16 & 0xffff]);
		b = load_two(&desc[h >> 32 & 0xffff], &desc[h >> 48]);
		d = (struct four){_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)};
		id = _mm256_permute4x64_epi64(_mm256_cvtepu16_epi64(_mm_cvtsi64_si128(h)), 0xd8);
		if (!all_equal(d.rest, mask, flags) ||
			!fill_four(&run, &d, _mm256_slli_epi64(id, 32), &seg[i], &chain[i]))
			break;
	}
	return i;
}

AVX2 uint32_t
vringh_avx2_split(const struct vringh_region *hit, const struct vring_desc *desc,
	const uint16_t *heads, uint32_t size, uint32_t n, bool write, struct vringh_seg *seg,
	struct vringh_chain *chain)
{
	return split_run(hit, desc, heads, size, n, write, seg, chain, false, 0);
}

AVX2 uint32_t
vringh_avx2_split_iotlb(const struct vringh_region *hit, const struct vring_desc *desc,
	const uint16_t *heads, uint32_t size, uint32_t n, bool write, struct vringh_seg *seg,
	struct vringh_chain *chain, uint32_t gen)
{
	return split_run(hit, desc, heads, size, n, write, seg, chain, true, gen);
}

AVX2 uint32_t
vringh_avx2_used(struct vring_packed_desc *desc, uint64_t flags, const struct vringh_chain *chain,
	uint32_t n, bool in_order)
{
	const __m256i zero = _mm256_setzero_si256();
	const __m256i slots_mask = _mm256_set1_epi64x((uint64_t)0xffff << 48);
	const __m256i one_slot = _mm256_set1_epi64x(INT64_C(1) << 48);
	const __m256i error_mask = _mm256_set1_epi64x(INT64_C(0xff) << 32);
	const __m256i id_mask = _mm256_set1_epi64x(INT64_C(0xffff) << 32);
	const __m256i len_mask = _mm256_set1_epi64x(UINT32_MAX);
	const __m256i used = _mm256_set1_epi64x(flags);
	const __m256i write = _mm256_set1_epi64x((uint64_t)VRING_DESC_F_WRITE << 48);
	uint32_t i;

	for (i = 0; i + 4 <= n; i += 4, desc += 4) {
		__m256i a = _mm256_loadu2_m128i(
			(const void *)&chain[i + 1].nb_read, (const void *)&chain[i].nb_read);
		__m256i b = _mm256_loadu2_m128i(
			(const void *)&chain[i + 3].nb_read, (const void *)&chain[i + 2].nb_read);
		__m256i counts = _mm256_unpacklo_epi64(a, b), rest = _mm256_unpackhi_epi64(a, b);
		__m256i len = _mm256_and_si256(rest, len_mask);
		__m256i unwritten = _mm256_cmpeq_epi64(len, zero), v;
		__m128i low, high;

		if (vringh_unlikely(!all_equal(counts, slots_mask, one_slot) ||
			    !_mm256_testz_si256(rest, error_mask) ||
			    (in_order && !_mm256_testz_si256(unwritten, unwritten))))
			break;
		v = _mm256_or_si256(_mm256_or_si256(len, used),
			_mm256_or_si256(_mm256_and_si256(counts, id_mask),
				_mm256_andnot_si256(unwritten, write)));
		low = _mm256_castsi256_si128(v);
		high = _mm256_extracti128_si256(v, 1);
		/* Length, id and flags are in one aligned word. */
		_mm_storel_epi64((void *)&desc[0].len, low);
		_mm_storeh_pd((void *)&desc[2].len, _mm_castsi128_pd(low));
		_mm_storel_epi64((void *)&desc[1].len, high);
		_mm_storeh_pd((void *)&desc[3].len, _mm_castsi128_pd(high));
	}
	return i;
}

#endif /* VRINGH_AVX2 */
