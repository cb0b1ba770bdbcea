/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Guest memory as a head describes it: every region is an allocation of its own, so that an
 * address sanitizer sees what happens beside it. Translations here share no code with the
 * library. One owner; only fuzz_raw.c writes the bytes from a second thread.
 */

#ifndef FUZZ_GUEST_H
#define FUZZ_GUEST_H

#include "fuzz_input.h"

#define GUEST_REGIONS	 14
#define GUEST_TABLES_LEN 4096
#define GUEST_BUFS_LEN	 8192
#define GUEST_PAGE	 4096
#define GUEST_MAX_SIZE	 1024

#define HUGE_AT	 0x200000000ull
#define HUGE_LEN 0xc0000000ull

struct guest_region {
	struct vringh_region r;
	uint8_t *block; /* NULL: the huge one, shared by all runs */
	uint8_t *copy;	/* contents at the last guest_save() */
};

/* What a struct vringh_mem sees, and what is behind it. */
struct guest_space {
	struct vringh_mem mem;
	struct guest_region region[GUEST_REGIONS]; /* sorted */
	uint32_t nb;
	uint64_t base;
	uint32_t len;
	uint8_t *flat; /* contents of what is not mapped */
};

enum { AREA_DESC, AREA_DRIVER, AREA_DEVICE, AREA_MAX };

struct guest {
	struct guest_space space[1 + AREA_MAX]; /* main, and the areas that have their own */
	struct fuzz_head head;
	struct vringh_io io;
	uint64_t area[AREA_MAX];
	uint32_t area_len[AREA_MAX];
	uint64_t tables, bufs;
	bool packed;
	bool huge_written;
};

/* A range that a call may change, and what the dirty log calls it. */
struct guest_range {
	const uint8_t *host;
	uint64_t len;
	uint64_t dirty;
	bool marked;
};

void guest_open(struct guest *g, const struct fuzz_head *head, bool packed);
void guest_close(struct guest *g);

/* Space of a ring area. */
struct guest_space *guest_area(struct guest *g, int area);

/* Address that a record means. */
uint64_t guest_addr(const struct guest *g, uint32_t code, uint64_t miss);

/* Region of an address. */
struct guest_region *guest_find(struct guest_space *s, uint64_t iova);

/* Host address, *len cut to what the region holds; NULL if it lacks a right or is not there. */
uint8_t *guest_piece(struct guest_space *s, uint64_t iova, uint64_t *len, uint32_t perm);

/* What the driver does has no rights to mind; what is not mapped is left out and reads as 0. */
void guest_write(struct guest_space *s, uint64_t iova, const void *src, uint64_t len);
void guest_read(struct guest_space *s, uint64_t iova, void *dst, uint64_t len);

/* The regions of the head again. */
void guest_restore(struct guest *g);
/* All regions at other host addresses. */
void guest_move(struct guest *g);
void guest_remove(struct guest_space *s, uint32_t i);
void guest_permit(struct guest_space *s, uint32_t i, uint32_t perm);

/* Change a translation table through the library, and check what it answers. */
void guest_map(struct guest *g, struct guest_space *s, uint64_t iova, uint64_t len, uint32_t perm);
void guest_unmap(struct guest_space *s, uint64_t iova, uint64_t len);

/* Remember all contents. */
void guest_save(struct guest *g);
/* Change what is remembered: the next check expects these bytes. */
void guest_expect(struct guest_space *s, uint64_t iova, uint8_t byte);
/* Nothing has changed outside of the ranges; what has in logged ones is in the log. */
void guest_check(struct guest *g, const struct guest_range *range, uint32_t nb,
	const struct vringh_dirty_log *dirty);

/* What the log bitmap says of a page; true behind its end. */
bool guest_dirty(const struct vringh_dirty_log *dirty, uint64_t addr);

#endif /* FUZZ_GUEST_H */
