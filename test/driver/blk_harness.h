/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A virtio-blk driver for tests of the function, on top of fn_harness.h, and a back-end that does
 * what a test wants. Everything runs on the test's thread.
 */

#ifndef BLK_HARNESS_H
#define BLK_HARNESS_H

#include <pthread.h>

#include "fn_harness.h"

#include <linux/virtio_blk.h>

#include <vfn_blk_function.h>

#define SECTOR 512u
/* Of every chain, header and status included. */
#define ROOM 0x30000u

struct disk_conf {
	const char *name; /* "disk" */
	const struct vfn_blk_backend *backend;
	void *arg;
	const char *path;
	uint64_t size;
	uint32_t block_size;
	uint16_t queues; /* 1 */
	bool read_only, writethrough, share, later, sleep;
	const char *serial;
	struct vfn_blk_rate rate;
	unsigned int faults; /* enum vfn_fault */
	uint64_t features;   /* beside VERSION_1, RING_RESET and those of shape */
	const struct shape *shape;
	uint32_t size_of_rings; /* 32 */
};

int disk_function(const struct disk_conf *conf, struct vfn_function **fn, struct vfn_link **link);
/* A running guest with all of its queues. fn is in g->fn. */
struct guest *disk_open(const struct disk_conf *conf);
struct guest *disk_new(const struct disk_conf *conf); /* not negotiated */
void disk_start(struct guest *g, const struct disk_conf *conf);
int disks_close(void **state);

/* How a request lies in its chain. */
enum layout {
	LAYOUT_PLAIN, /* header, data, status: a piece each */
	LAYOUT_ONE,   /* header and data to be read in one piece, data to be written and status */
	LAYOUT_SPLIT, /* header in ten pieces, data in odd ones, status alone */
	LAYOUT_BYTES, /* single bytes first, then the rest with the status */
	LAYOUTS,
};

struct ask {
	uint32_t type;
	uint64_t sector;
	const void *out; /* behind the header */
	uint32_t out_len;
	uint32_t in_len;
	enum layout layout;
	uint32_t cut;	/* bytes of the header that are not there */
	bool no_status; /* nothing is writable */
	uint32_t odd;	/* the data begins at so many bytes behind a page */
};

/* Make it available. Returns the chain's id, -1 if there is no room. */
int ask_post(struct guest *g, unsigned int queue, const struct ask *a);
/* What came back of it: what was read is copied to in, unless NULL. -1: no status was written. */
struct answer {
	int status;
	uint32_t used_len;
	uint16_t id;
	uint8_t *in; /* where it was read to; valid until the next one is posted */
};
bool answer_try(struct guest *g, unsigned int queue, struct answer *answer, unsigned int ms);
/* Post, kick, wait. */
struct answer ask_wait(struct guest *g, unsigned int queue, const struct ask *a);
int disk_write(struct guest *g, uint64_t sector, const void *data, uint32_t len);
int disk_read(struct guest *g, uint64_t sector, void *data, uint32_t len);
int disk_flush(struct guest *g);
int disk_range(struct guest *g, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags);
struct virtio_blk_config disk_config(struct guest *g);
/* Bytes that depend on where they are, and on a number. */
void pattern(void *data, uint64_t sector, uint32_t len, uint32_t number);

/* ---- a back-end that does what a test wants ---- */

struct faulty {
	pthread_mutex_t lock;
	bool hold; /* what is submitted waits until it is released */
	int error; /* what ends, ends with it; -ENODATA: short */
	bool lifo; /* what was submitted last is released first */
	unsigned int may_end;
	struct vfn_blk_req *held[256];
	unsigned int nb_held;
	unsigned int nb_ended;
	uint8_t *bytes;
};
extern const struct vfn_blk_backend faulty_backend;
struct faulty *faulty_new(uint64_t size);
void faulty_set(struct faulty *f, bool hold, int error);
void faulty_release(struct faulty *f, unsigned int n, bool lifo);
/* Wait until so many are held. */
void faulty_wait(struct faulty *f, unsigned int n);

#endif /* BLK_HARNESS_H */
