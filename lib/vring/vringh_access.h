/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * How the library touches memory that the driver sees. Every word is accessed once, naturally
 * aligned and in one piece, which is all that an IO window asks for.
 *
 * With VRINGH_ACCESS_POINTERS every access goes through a table of function pointers instead:
 * the benchmark shows what that costs, and tests watch the accesses through it.
 */

#ifndef VRINGH_ACCESS_H
#define VRINGH_ACCESS_H

#include <stddef.h>
#include <stdint.h>

#define vringh_inline inline __attribute__((always_inline))

typedef uint64_t __attribute__((may_alias)) u64_alias;
typedef uint32_t __attribute__((may_alias)) u32_alias;

/* The part of a descriptor that is not its address, as it lies in memory, and the address. */
struct vringh_words {
	uint64_t addr;
	uint64_t rest;
};

#ifdef VRINGH_ACCESS_POINTERS

struct vringh_accessors {
	uint8_t (*load8)(const void *p);
	uint16_t (*load16)(const void *p);
	uint32_t (*load32)(const void *p);
	uint64_t (*load64)(const void *p);
	struct vringh_words (*load_words)(const void *p); /* 16 bytes, aligned to 8 */
	void (*store8)(void *p, uint8_t v);
	void (*store16)(void *p, uint16_t v);
	void (*store32)(void *p, uint32_t v);
	void (*store64)(void *p, uint64_t v);
	void (*copy)(void *dst, const void *src, size_t len); /* host memory only; may overlap */
};

extern const struct vringh_accessors vringh_plain_accessors;
extern const struct vringh_accessors *vringh_accessors; /* in use */

#define mem_load8(p)	    vringh_accessors->load8(p)
#define mem_load16(p)	    vringh_accessors->load16(p)
#define mem_load32(p)	    vringh_accessors->load32(p)
#define mem_load64(p)	    vringh_accessors->load64(p)
#define mem_load_words(p)   vringh_accessors->load_words(p)
#define mem_store8(p, v)    vringh_accessors->store8(p, v)
#define mem_store16(p, v)   vringh_accessors->store16(p, v)
#define mem_store32(p, v)   vringh_accessors->store32(p, v)
#define mem_store64(p, v)   vringh_accessors->store64(p, v)
#define mem_copy(d, s, len) vringh_accessors->copy(d, s, len)

static vringh_inline uint16_t
mem_load16_acquire(const void *p)
{
	uint16_t v = mem_load16(p);

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return v;
}

static vringh_inline void
mem_store16_release(void *p, uint16_t v)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	mem_store16(p, v);
}

static vringh_inline void
mem_store64_release(void *p, uint64_t v)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	mem_store64(p, v);
}

static vringh_inline struct vringh_words
mem_load_words_unaligned(const void *p)
{
	struct vringh_words w;

	mem_copy(&w, p, sizeof(w));
	return w;
}

static vringh_inline void
mem_store64_unaligned(void *p, uint64_t v)
{
	mem_copy(p, &v, sizeof(v));
}

#else

#include <string.h>

#define mem_load8(p)		  __atomic_load_n((const uint8_t *)(p), __ATOMIC_RELAXED)
#define mem_load16(p)		  __atomic_load_n((const uint16_t *)(p), __ATOMIC_RELAXED)
#define mem_load32(p)		  __atomic_load_n((const u32_alias *)(p), __ATOMIC_RELAXED)
#define mem_load64(p)		  __atomic_load_n((const u64_alias *)(p), __ATOMIC_RELAXED)
#define mem_store8(p, v)	  __atomic_store_n((uint8_t *)(p), v, __ATOMIC_RELAXED)
#define mem_store16(p, v)	  __atomic_store_n((uint16_t *)(p), v, __ATOMIC_RELAXED)
#define mem_store32(p, v)	  __atomic_store_n((u32_alias *)(p), v, __ATOMIC_RELAXED)
#define mem_store64(p, v)	  __atomic_store_n((u64_alias *)(p), v, __ATOMIC_RELAXED)
#define mem_load16_acquire(p)	  __atomic_load_n((const uint16_t *)(p), __ATOMIC_ACQUIRE)
#define mem_store16_release(p, v) __atomic_store_n((uint16_t *)(p), v, __ATOMIC_RELEASE)
#define mem_store64_release(p, v) __atomic_store_n((u64_alias *)(p), v, __ATOMIC_RELEASE)
/* Guests may let buffers overlap. */
#define mem_copy(d, s, len)	  memmove(d, s, len)

static vringh_inline struct vringh_words
mem_load_words(const void *p)
{
	const u64_alias *w = p;

	return (struct vringh_words){mem_load64(&w[0]), mem_load64(&w[1])};
}

/* Unaligned; volatile only so that each word is read once. */
typedef const volatile uint64_t __attribute__((may_alias, aligned(1))) u64_once;

static vringh_inline struct vringh_words
mem_load_words_unaligned(const void *p)
{
	const u64_once *w = p;

	return (struct vringh_words){w[0], w[1]};
}

static vringh_inline uint64_t
mem_load64_unaligned(const void *p)
{
	return *(const u64_once *)p;
}

/* In any number of pieces: something else says when it is valid. */
static vringh_inline void
mem_store64_unaligned(void *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

#endif /* VRINGH_ACCESS_POINTERS */

#endif /* VRINGH_ACCESS_H */
